/* Four kinds of file work in a folder; prints the time of each in milliseconds.
 * disk_work FOLDER SMALL_FILES LARGE_MIB FSYNCS */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, MIB = 1 << 20 };
static char block[MIB];

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void must(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static void small_files(int count)
{
    char name[32], back[PAGE];
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "small-%d", i);
        int fd = open(name, O_CREAT | O_RDWR | O_TRUNC, 0644);
        must(fd >= 0 && write(fd, block, PAGE) == PAGE, name);
        must(pread(fd, back, PAGE, 0) == PAGE, name);
        close(fd);
    }
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "small-%d", i);
        must(unlink(name) == 0, name);
    }
}

static void rewrite(int mib)
{
    int fd = open("large", O_CREAT | O_RDWR | O_TRUNC, 0644);
    must(fd >= 0, "large");
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < mib; i++)
            must(pwrite(fd, block, MIB, (off_t)i * MIB) == MIB, "large");
        must(fsync(fd) == 0, "fsync");
    }
    close(fd);
}

static void mapping(int mib)
{
    size_t size = (size_t)mib * MIB;
    int fd = open("large", O_RDWR);
    must(fd >= 0, "large");
    char *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    must(map != MAP_FAILED, "mmap");
    for (size_t at = 0; at < size; at += PAGE)
        map[at]++;
    must(msync(map, size, MS_SYNC) == 0, "msync");
    munmap(map, size);
    close(fd);
    unlink("large");
}

static void syncing(int count)
{
    int fd = open("journal", O_CREAT | O_WRONLY | O_APPEND, 0644);
    must(fd >= 0, "journal");
    for (int i = 0; i < count; i++)
        must(write(fd, block, PAGE) == PAGE && fsync(fd) == 0, "journal");
    close(fd);
    unlink("journal");
}

int main(int argc, char **argv)
{
    must(argc == 5 && chdir(argv[1]) == 0, "usage: disk_work FOLDER SMALL_FILES LARGE_MIB FSYNCS");
    memset(block, 'x', sizeof block);
    double start = now_ms();
    small_files(atoi(argv[2]));
    double small = now_ms();
    rewrite(atoi(argv[3]));
    double large = now_ms();
    mapping(atoi(argv[3]));
    double mapped = now_ms();
    syncing(atoi(argv[4]));
    double synced = now_ms();
    printf("small %.1f ms, rewrite %.1f ms, mmap %.1f ms, fsync %.1f ms\n", small - start, large - small, mapped - large,
           synced - mapped);
    return 0;
}
