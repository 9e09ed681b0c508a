#include "descriptors.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
enum { CLOSE_RANGE_ON_EXEC = 4, FALLBACK_HIGHEST = 4096 };

static void close_between(unsigned first, unsigned last)
{
    if (first > last || syscall(SYS_close_range, first, last, 0) == 0)
        return;
    for (unsigned fd = first; fd <= last && fd < FALLBACK_HIGHEST; fd++) /* before Linux 5.9, or emulated */
        close((int)fd);
}

static int compare(const void *left, const void *right)
{
    int a = *(const int *)left, b = *(const int *)right;
    return (a > b) - (a < b);
}

void descriptors_close_all_but(int *keep, size_t count)
{
    unsigned next = 3;
    qsort(keep, count, sizeof *keep, compare);
    for (size_t i = 0; i < count; i++) {
        if (keep[i] < (int)next)
            continue;
        close_between(next, (unsigned)keep[i] - 1);
        next = (unsigned)keep[i] + 1;
    }
    close_between(next, ~0u);
}

void descriptors_close_on_exec(void)
{
    if (syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_ON_EXEC) == 0)
        return;
    for (int fd = 3; fd < FALLBACK_HIGHEST; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
}

int descriptors_null(int flags)
{
    struct stat found;
    int ends[2];
    int fd = open("/dev/null", flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd >= 0 && fstat(fd, &found) == 0 && S_ISCHR(found.st_mode) && found.st_rdev == makedev(1, 3))
        return fd;
    if (fd >= 0)
        close(fd);
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    close(ends[flags == O_RDONLY ? 1 : 0]);
    return ends[flags == O_RDONLY ? 0 : 1];
}
