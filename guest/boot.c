#include "boot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clocks.h"
#include "files.h"

#ifndef AF_VSOCK
#define AF_VSOCK 40
#endif
enum { VSOCK_HOST = 2, CHANNEL_WAIT_MS = 30000, RETRY_MS = 5 };

struct vsock_address { /* struct sockaddr_vm of linux/vm_sockets.h */
    unsigned short family, reserved;
    unsigned port, cid;
    unsigned char zero[4];
};

static void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void tell(const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    int used = vsnprintf(text, sizeof text - 1, format, arguments);
    va_end(arguments);
    if (used < 0)
        return;
    used = used < (int)sizeof text - 1 ? used : (int)sizeof text - 2;
    text[used] = '\n';
    text[used + 1] = 0;
    file_write(AT_FDCWD, "/dev/kmsg", text);
}

static void mount_early(void)
{
    const unsigned long safe = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    file_make_folder("/dev");
    file_make_folder("/proc");
    file_make_folder("/sys");
    if (mount("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=755") < 0)
        tell("metalmark-agent: cannot mount /dev: %s", strerror(errno));
    if (mount("proc", "/proc", "proc", safe, NULL) < 0)
        tell("metalmark-agent: cannot mount /proc: %s", strerror(errno));
    if (mount("sysfs", "/sys", "sysfs", safe, NULL) < 0)
        tell("metalmark-agent: cannot mount /sys: %s", strerror(errno));
    for (int fd = 0; fd < 3; fd++) /* without a console the kernel starts us with none of the three */
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0)
            return;
}

static int only_modules(const struct dirent *entry)
{
    const char *end = strrchr(entry->d_name, '.');
    return end && strcmp(end, ".ko") == 0;
}

/* In the order of their names; the host has numbered them so that each finds what it depends on. */
static void load_modules(void)
{
    struct dirent **modules;
    char path[512];
    int count = scandir("/modules", &modules, only_modules, alphasort);
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "/modules/%.255s", modules[i]->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
            tell("metalmark-agent: module %s: %s", modules[i]->d_name, strerror(errno));
        if (fd >= 0)
            close(fd);
        free(modules[i]);
    }
    if (count >= 0)
        free(modules);
}

static unsigned vsock_port(void)
{
    char text[4096];
    if (file_read(AT_FDCWD, "/proc/cmdline", text, sizeof text) < 0)
        return 0;
    const char *found = strstr(text, "metalmark.vsock=");
    return found ? (unsigned)strtoul(found + strlen("metalmark.vsock="), NULL, 10) : 0;
}

static int connect_vsock(unsigned port)
{
    struct vsock_address host = {.family = AF_VSOCK, .port = port, .cid = VSOCK_HOST};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&host, sizeof host) == 0)
        return fd;
    int error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
    return -1;
}

static int open_port(void)
{
    char path[300], name[64];
    int fd = -1;
    DIR *ports = opendir("/sys/class/virtio-ports");
    if (!ports)
        return -1;
    for (struct dirent *entry; fd < 0 && (entry = readdir(ports));) {
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%.255s/name", entry->d_name);
        if (*entry->d_name == '.' || file_read(AT_FDCWD, path, name, sizeof name) < 0 || strcmp(name, "metalmark\n") != 0)
            continue;
        snprintf(path, sizeof path, "/dev/%.255s", entry->d_name);
        fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    }
    closedir(ports);
    return fd;
}

int boot_machine(void)
{
    umask(022);
    mount_early();
    load_modules();
    unsigned port = vsock_port();
    errno = ENODEV;
    for (int waited = 0; waited < CHANNEL_WAIT_MS; waited += RETRY_MS) {
        int fd = port ? connect_vsock(port) : open_port();
        if (fd >= 0)
            return fd;
        sleep_ms(RETRY_MS);
    }
    tell("metalmark-agent: no channel to the host (%s): %s", port ? "vsock" : "virtio port", strerror(errno));
    return -1;
}

_Noreturn void boot_end_machine(void)
{
    /* A reset, which the VMM is told to take for the end: it needs no ACPI. */
    reboot(RB_AUTOBOOT);
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}
