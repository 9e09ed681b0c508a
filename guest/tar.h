/* The tar format: ustar headers, PAX records, GNU long names. POSIX.1-2017 pax; sizes also in GNU base-256. */
#ifndef METALMARK_TAR_H
#define METALMARK_TAR_H

#include <stdint.h>
#include <sys/types.h>
#include <time.h>

enum { TAR_BLOCK = 512, TAR_NAME_MOST = 4096 };

struct tar_entry {
    char name[TAR_NAME_MOST];
    char link[TAR_NAME_MOST];
    char type; /* '0' file, '1' hard link, '2' symbolic link, '5' folder, others as in the format */
    uint64_t size;
    uint32_t mode, uid, gid;
    struct timespec modified;
};

/* Reads n bytes or fewer at the end; -1 on error. */
typedef ssize_t (*tar_source)(void *context, void *data, size_t length);

struct tar_reader {
    tar_source source;
    void *context;
    uint64_t left, padding; /* of the current entry's content */
    const char *problem;
};

/* 1: an entry; 0: the end; -1: malformed, see problem. Skips what is left of the entry before. */
int tar_next(struct tar_reader *reader, struct tar_entry *entry);
/* Content of the current entry: bytes read, 0 at its end, -1 when the archive ends within. */
ssize_t tar_read(struct tar_reader *reader, void *data, size_t length);

/* Write the headers of a regular file; the content and tar_pad come after. */
int tar_write_header(int fd, const struct tar_entry *entry);
int tar_write_padding(int fd, uint64_t size);
int tar_write_end(int fd);

#endif
