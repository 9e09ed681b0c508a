#include "unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fields.h"
#include "files.h"
#include "tar.h"

enum { COPY_BYTES = 64 * 1024 };

static int fault(struct bytes *message, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

static int fault(struct bytes *message, int code, const char *format, ...)
{
    char text[600];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    message->length = 1;
    field_add_integer(message, FAULT_CODE, (uint64_t)code);
    field_add_text(message, FAULT_MESSAGE, text);
    return -1;
}

static ssize_t read_pipe(void *context, void *data, size_t length)
{
    ssize_t got;
    do
        got = read(*(int *)context, data, length);
    while (got < 0 && errno == EINTR);
    return got;
}

/* Open the folder `path` below `top`, made where it is missing. No link on the way is followed, so that an archive
 * cannot lead itself out of the folder it is unpacked in. Cuts `path` apart. */
static int open_below(int top, char *path)
{
    int folder = openat(top, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (char *part = strtok(path, "/"); part && folder >= 0; part = strtok(NULL, "/")) {
        if (strcmp(part, ".") == 0)
            continue;
        if (mkdirat(folder, part, 0755) < 0 && errno != EEXIST) {
            close(folder);
            return -1;
        }
        int next = openat(folder, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int error = errno;
        close(folder);
        errno = error;
        folder = next;
    }
    return folder;
}

static bool climbs(const char *name)
{
    for (const char *at = name; *at; at += strcspn(at, "/"), at += *at == '/')
        if (strncmp(at, "..", 2) == 0 && (at[2] == 0 || at[2] == '/'))
            return true;
    return false;
}

/* Split into the folder (opened) and the last part. Returns the folder's descriptor. */
static int open_parent(int top, const char *name, char *last)
{
    char path[TAR_NAME_MOST];
    size_t length = strlen(name);
    while (length && name[length - 1] == '/')
        length--;
    memcpy(path, name, length);
    path[length] = 0;
    char *slash = strrchr(path, '/');
    strcpy(last, slash ? slash + 1 : path);
    if (slash)
        *slash = 0;
    else
        *path = 0;
    if (strlen(last) > NAME_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return open_below(top, path);
}

static int write_content(struct tar_reader *reader, int file)
{
    static char data[COPY_BYTES];
    ssize_t got;
    while ((got = tar_read(reader, data, sizeof data)) > 0)
        if (file_write_all(file, data, (size_t)got) < 0)
            return -1;
    if (got < 0)
        errno = EPROTO;
    return got < 0 ? -1 : 0;
}

static int finish(int fd, const struct tar_entry *entry)
{
    struct timespec times[2] = {entry->modified, entry->modified};
    if (geteuid() == 0 && fchown(fd, entry->uid, entry->gid) < 0)
        return -1;
    if (fchmod(fd, entry->mode) < 0)
        return -1;
    futimens(fd, times); /* a time the file system cannot hold is no reason to fail */
    return 0;
}

static int make_file(struct tar_reader *reader, int folder, const char *last, const struct tar_entry *entry)
{
    unlinkat(folder, last, 0);
    int file = openat(folder, last, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0)
        return -1;
    int result = write_content(reader, file) < 0 || finish(file, entry) < 0 ? -1 : 0;
    int error = errno;
    if (close(file) < 0)
        return -1;
    errno = error;
    return result;
}

static int make_folder(int folder, const char *last, const struct tar_entry *entry)
{
    if (mkdirat(folder, last, 0755) < 0 && errno != EEXIST)
        return -1;
    int made = openat(folder, last, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (made < 0)
        return -1;
    int result = finish(made, entry), error = errno;
    close(made);
    errno = error;
    return result;
}

static int make_link(int folder, const char *last, const struct tar_entry *entry)
{
    unlinkat(folder, last, 0);
    if (symlinkat(entry->link, folder, last) < 0)
        return -1;
    if (geteuid() == 0)
        return fchownat(folder, last, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW);
    return 0;
}

static int make_hard_link(int top, int folder, const char *last, const struct tar_entry *entry)
{
    char other[TAR_NAME_MOST];
    if (climbs(entry->link)) {
        errno = EINVAL;
        return -1;
    }
    int from = open_parent(top, entry->link, other);
    if (from < 0)
        return -1;
    unlinkat(folder, last, 0);
    int result = linkat(from, other, folder, last, 0), error = errno;
    close(from);
    errno = error;
    return result;
}

static int make_entry(struct tar_reader *reader, int top, const struct tar_entry *entry)
{
    char last[TAR_NAME_MOST];
    int result = -1, folder = open_parent(top, entry->name, last);
    if (folder < 0)
        return -1;
    if (!*last || strcmp(last, ".") == 0)
        result = 0; /* the folder itself keeps what it has */
    else if (entry->type == '0')
        result = make_file(reader, folder, last, entry);
    else if (entry->type == '5')
        result = make_folder(folder, last, entry);
    else if (entry->type == '2')
        result = make_link(folder, last, entry);
    else if (entry->type == '1')
        result = make_hard_link(top, folder, last, entry);
    else
        errno = ENOTSUP;
    int error = errno;
    close(folder);
    errno = error;
    return result;
}

static int unpack_entries(struct tar_reader *reader, int top, struct bytes *message)
{
    static struct tar_entry entry;
    uint64_t files = 0, bytes = 0;
    int more;
    while ((more = tar_next(reader, &entry)) > 0) {
        if (climbs(entry.name))
            return fault(message, EINVAL, "the archive's entry '%.300s' climbs out of the folder", entry.name);
        if (make_entry(reader, top, &entry) < 0) {
            const char *why = errno == ENOTSUP ? "this kind of entry is not unpacked" : strerror(errno);
            return fault(message, errno, "cannot unpack '%.300s': %s", entry.name, reader->problem ? reader->problem : why);
        }
        files += entry.type == '0';
        bytes += entry.type == '0' ? entry.size : 0;
    }
    if (more < 0)
        return fault(message, EPROTO, "the archive is malformed: %s", reader->problem);
    field_add_integer(message, DONE_FILES, files);
    field_add_integer(message, DONE_BYTES, bytes);
    field_add_integer(message, DONE_TRUNCATED, 0);
    return 0;
}

/* The folder is the user's words for a place in the box: links on the way to it are followed as they would be there. */
static int open_top(char *folder)
{
    for (char *slash = folder; (slash = strchr(slash + 1, '/'));) {
        *slash = 0;
        file_make_folder(folder);
        *slash = '/';
    }
    file_make_folder(folder);
    return open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

int unpack(const struct frame *frame, int fd, struct bytes *message)
{
    struct field_reader fields = {.at = frame->payload, .left = frame->length};
    struct tar_reader reader = {.source = read_pipe, .context = &fd};
    struct field field;
    char *folder = NULL, dropped[4096];
    int more, good = 0;
    umask(0);
    while ((more = field_next(&fields, &field)) > 0)
        if (field.tag == PUT_FOLDER)
            good = field_text(&field, &folder) == 0;
    if (more < 0 || !good || *folder != '/')
        return fault(message, EINVAL, "the folder must be an absolute path");
    int top = open_top(folder);
    if (top < 0)
        return fault(message, errno, "cannot make the folder '%.300s': %s", folder, strerror(errno));
    int result = unpack_entries(&reader, top, message);
    if (result == 0) /* what comes after the end belongs to the archive's last record */
        while (read_pipe(&fd, dropped, sizeof dropped) > 0)
            ;
    return result;
}
