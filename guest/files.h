/* Small files of /proc, /sys and cgroups. Paths are relative to a folder's descriptor. */
#ifndef METALMARK_FILES_H
#define METALMARK_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int file_write(int folder, const char *path, const char *text);
/* Bytes read, at most size - 1, with a NUL after them; -1 on error. */
int file_read(int folder, const char *path, char *text, size_t size);
/* The integer after `name ` in a file of such lines; fallback when it is not there. */
uint64_t file_value(int folder, const char *path, const char *name, uint64_t fallback);
int file_write_all(int fd, const void *data, size_t length);
void file_make_folder(const char *path);

#endif
