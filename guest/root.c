#include "root.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clocks.h"
#include "devices.h"
#include "files.h"
#include "overrides.h"

enum { DEVICE_TRIES = 400, DEVICE_WAIT_MS = 5 };

/* No kernel thread that fills inode tables while a benchmark runs. */
static const char ext4_options[] = "noinit_itable";

static int scratch_folder = -1;

static int fail(char *problem, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

static int fail(char *problem, size_t size, const char *format, ...)
{
    int error = errno ? errno : EIO;
    char what[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    snprintf(problem, size, "%s: %s", what, strerror(error));
    return error;
}

/* Devices turn up a moment after their driver's module. */
static void await_device(const char *path)
{
    for (int tries = 0; access(path, F_OK) < 0 && tries < DEVICE_TRIES; tries++)
        sleep_ms(DEVICE_WAIT_MS);
}

static int mount_scratch(const struct setup *setup, char *problem, size_t size)
{
    file_make_folder("/scratch");
    if (setup->scratch && *setup->scratch) {
        await_device(setup->scratch);
        if (mount(setup->scratch, "/scratch", "ext4", 0, ext4_options) < 0)
            return fail(problem, size, "cannot mount the scratch %s", setup->scratch);
    } else if (mount("scratch", "/scratch", "tmpfs", 0, "mode=755") < 0) {
        return fail(problem, size, "cannot mount a scratch in memory");
    }
    scratch_folder = open("/scratch", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return 0;
}

/* The root of an overlay has the owner and mode of its upper folder. */
static int copy_root_attributes(void)
{
    struct stat base;
    if (stat("/base", &base) < 0 || mkdir("/scratch/upper", 0755) < 0 || mkdir("/scratch/work", 0755) < 0)
        return errno == EEXIST ? 0 : -1;
    return chown("/scratch/upper", base.st_uid, base.st_gid) < 0 ? -1 : chmod("/scratch/upper", base.st_mode & 07777);
}

static int mount_overlay(const struct setup *setup, char *problem, size_t size)
{
    file_make_folder("/base");
    if (mount(setup->root, "/base", "squashfs", MS_RDONLY, NULL) < 0)
        return fail(problem, size, "cannot mount the base %s", setup->root);
    int error = mount_scratch(setup, problem, size);
    if (error)
        return error;
    if (copy_root_attributes() < 0)
        return fail(problem, size, "cannot prepare the scratch");
    if (mount("overlay", "/root", "overlay", 0, "lowerdir=/base,upperdir=/scratch/upper,workdir=/scratch/work") < 0)
        return fail(problem, size, "cannot lay the scratch over the base");
    return 0;
}

/* A mount point of the image's, made if it is missing, and never a link to somewhere else. */
static int mount_in(int root, const char *name, const char *source, const char *type, unsigned long flags, const char *options)
{
    char target[64];
    mkdirat(root, name, 0755);
    int folder = openat(root, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return -1;
    snprintf(target, sizeof target, "/proc/self/fd/%d", folder);
    int result = mount(source, target, type, flags, options), error = errno;
    close(folder);
    errno = error;
    return result;
}

static int mount_kernel_folders(int root, char *problem, size_t size)
{
    const unsigned long safe = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    struct stat found;
    if (mount_in(root, "proc", "proc", "proc", safe, NULL) < 0)
        return fail(problem, size, "cannot mount /proc in the image");
    if (mount_in(root, "sys", "sysfs", "sysfs", safe | MS_RDONLY, NULL) < 0)
        return fail(problem, size, "cannot mount /sys in the image");
    /* The agent keeps its own way to the cgroups. */
    if (mount("/cgroup", "/root/sys/fs/cgroup", NULL, MS_BIND, NULL) == 0)
        mount(NULL, "/root/sys/fs/cgroup", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | safe, NULL);
    if (mount_in(root, "dev", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k,nr_inodes=4096") < 0)
        return fail(problem, size, "cannot mount /dev in the image");
    if (devices_make(root) < 0)
        return fail(problem, size, "cannot fill /dev");
    if (mkdirat(root, "tmp", 01777) == 0)
        fchmodat(root, "tmp", 01777, 0);
    if (fstatat(root, "run", &found, AT_SYMLINK_NOFOLLOW) < 0)
        mkdirat(root, "run", 0755);
    return 0;
}

int root_make(const struct setup *setup, char *problem, size_t problem_size)
{
    bool writable = setup->root_type && strcmp(setup->root_type, "ext4") == 0;
    int error = 0;
    file_make_folder("/root");
    await_device(setup->root);
    if (writable && mount(setup->root, "/root", "ext4", 0, ext4_options) < 0)
        return fail(problem, problem_size, "cannot mount the root %s", setup->root);
    if (!writable)
        error = mount_overlay(setup, problem, problem_size);
    if (error)
        return error;
    int root = open("/root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return fail(problem, problem_size, "cannot open the root");
    error = mount_kernel_folders(root, problem, problem_size);
    if (!error && overrides_mount(root, setup) < 0)
        error = fail(problem, problem_size, "cannot mount the files of /etc that name hosts");
    close(root);
    if (error)
        return error;
    /* The real root of the mount namespace, and not a chroot: user namespaces cannot be made in a chroot. */
    if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        return fail(problem, problem_size, "cannot change to the root");
    return 0;
}

void root_settle(void)
{
    char path[64];
    sync();
    mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
    if (scratch_folder < 0)
        return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", scratch_folder);
    mount(NULL, path, NULL, MS_REMOUNT | MS_RDONLY, NULL);
}
