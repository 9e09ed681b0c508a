#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int file_write(int folder, const char *path, const char *text)
{
    int fd = openat(folder, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t sent = write(fd, text, strlen(text));
    int error = errno;
    close(fd);
    errno = error;
    return sent < 0 ? -1 : 0;
}

int file_read(int folder, const char *path, char *text, size_t size)
{
    int fd = openat(folder, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    size_t used = 0;
    if (fd < 0)
        return -1;
    while (used < size - 1) {
        ssize_t got = read(fd, text + used, size - 1 - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        used += (size_t)got;
    }
    close(fd);
    text[used] = 0;
    return (int)used;
}

uint64_t file_value(int folder, const char *path, const char *name, uint64_t fallback)
{
    char text[4096];
    size_t length = strlen(name);
    if (file_read(folder, path, text, sizeof text) < 0)
        return fallback;
    for (char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, length) == 0)
            return strtoull(line + length, NULL, 10);
    }
    return fallback;
}

int file_write_all(int fd, const void *data, size_t length)
{
    const char *at = data;
    while (length) {
        ssize_t sent = write(fd, at, length);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return -1;
        at += sent;
        length -= (size_t)sent;
    }
    return 0;
}

void file_make_folder(const char *path)
{
    mkdir(path, 0755); /* there already: just as good */
}
