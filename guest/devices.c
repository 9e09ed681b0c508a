#include "devices.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static const struct {
    const char *name;
    unsigned major, minor;
} nodes[] = {
    {"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
};

static const struct {
    const char *name, *target;
} links[] = {
    {"fd", "/proc/self/fd"},      {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
    {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"},
};

static int mount_below(int dev, const char *name, mode_t mode, const char *type, unsigned long flags, const char *options)
{
    char target[64];
    if (mkdirat(dev, name, mode) < 0)
        return -1;
    int folder = openat(dev, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    snprintf(target, sizeof target, "/proc/self/fd/%d", folder);
    int result = mount(type, target, type, flags, options), error = errno;
    close(folder);
    errno = error;
    return result;
}

int devices_make(int root)
{
    const unsigned long safe = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    int result = 0, dev = openat(root, "dev", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dev < 0)
        return -1;
    umask(0);
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++)
        result |= mknodat(dev, nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor));
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        result |= symlinkat(links[i].target, dev, links[i].name);
    umask(022);
    result |= mount_below(dev, "pts", 0755, "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    result |= mount_below(dev, "shm", 01777, "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"); /* half of memory, the default */
    mount_below(dev, "mqueue", 0755, "mqueue", safe, NULL); /* not in every kernel */
    close(dev);
    return result ? -1 : 0;
}
