#include "collect.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fields.h"
#include "files.h"
#include "tar.h"

enum { COPY_BYTES = 64 * 1024, DEPTH_MOST = 128, SEEN_SLOTS = 4096 };

struct seen {
    struct seen *next;
    char name[];
};

struct collection {
    int fd;
    uint64_t bytes_left, files_left, files, bytes;
    bool truncated, broken; /* broken: nobody takes the archive any more */
    struct seen *seen[SEEN_SLOTS];
};

static bool sent_before(struct collection *collection, const char *name)
{
    uint32_t hash = 2166136261u;
    for (const char *at = name; *at; at++)
        hash = (hash ^ (unsigned char)*at) * 16777619u;
    struct seen **slot = &collection->seen[hash % SEEN_SLOTS];
    for (struct seen *seen = *slot; seen; seen = seen->next)
        if (strcmp(seen->name, name) == 0)
            return true;
    struct seen *added = malloc(sizeof *added + strlen(name) + 1);
    if (added) {
        strcpy(added->name, name);
        added->next = *slot;
        *slot = added;
    }
    return false;
}

/* Exactly `size` bytes, whatever happens to the file meanwhile: the header has promised them. */
static void send_content(struct collection *collection, int file, uint64_t size)
{
    static char data[COPY_BYTES];
    uint64_t left = size;
    bool ended = false;
    while (left && !collection->broken) {
        size_t length = left < sizeof data ? (size_t)left : sizeof data;
        ssize_t got = ended ? 0 : read(file, data, length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            ended = true;
            memset(data, 0, length);
            got = (ssize_t)length;
        }
        collection->broken = file_write_all(collection->fd, data, (size_t)got) < 0;
        left -= (uint64_t)got;
    }
    if (!collection->broken)
        collection->broken = tar_write_padding(collection->fd, size) < 0;
}

/* Absolute, without doubled slashes and dots; false when it is too long for the format. */
static bool tidy(const char *path, char *name)
{
    size_t used = 0;
    for (const char *at = path; *at;) {
        size_t length = strcspn(at, "/");
        if (length && !(length == 1 && *at == '.')) {
            if (used + length + 2 > TAR_NAME_MOST)
                return false;
            if (used)
                name[used++] = '/';
            memcpy(name + used, at, length);
            used += length;
        }
        at += length;
        at += *at == '/';
    }
    name[used] = 0;
    return used > 0;
}

static bool climbs(const char *path)
{
    for (const char *at = path; (at = strstr(at, "..")); at += 2)
        if ((at == path || at[-1] == '/') && (at[2] == 0 || at[2] == '/'))
            return true;
    return false;
}

static void send_file(struct collection *collection, const char *path, int file, const struct stat *found)
{
    static struct tar_entry entry;
    char real[PATH_MAX];
    entry = (struct tar_entry){.type = '0', .mode = found->st_mode & 07777, .uid = found->st_uid, .gid = found->st_gid};
    entry.size = (uint64_t)found->st_size;
    entry.modified = found->st_mtim;
    if (climbs(path) && realpath(path, real))
        path = real;
    if (!tidy(path, entry.name)) {
        collection->truncated = true;
        return;
    }
    if (sent_before(collection, entry.name))
        return;
    if (collection->files_left == 0 || entry.size > collection->bytes_left) {
        collection->truncated = true;
        return;
    }
    collection->files_left--;
    collection->bytes_left -= entry.size;
    collection->files++;
    collection->bytes += entry.size;
    collection->broken = tar_write_header(collection->fd, &entry) < 0;
    send_content(collection, file, entry.size);
}

static bool send_path(struct collection *collection, const char *path, int depth, bool named);

/* The regular files below a folder, in the order of their names. Links to folders are not followed here: they loop. */
static bool send_folder(struct collection *collection, const char *path, int depth)
{
    struct dirent **entries;
    char below[PATH_MAX];
    bool any = false;
    int count = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        bool inside = strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
        bool full = collection->files_left == 0 && collection->truncated;
        int used = snprintf(below, sizeof below, "%s/%s", path, name);
        if (used < 0 || (size_t)used >= sizeof below || depth >= DEPTH_MOST)
            collection->truncated = true;
        else if (inside && !full && !collection->broken)
            any |= send_path(collection, below, depth + 1, false);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    return any;
}

/* Whether it is, or holds, a regular file. Opening a device or a pipe could have effects or wait for ever, so what it
 * is is asked first, and again of what was opened. */
static bool send_path(struct collection *collection, const char *path, int depth, bool named)
{
    struct stat found, link;
    if (stat(path, &found) < 0 || lstat(path, &link) < 0)
        return false;
    if (S_ISDIR(found.st_mode))
        return (named || !S_ISLNK(link.st_mode)) && send_folder(collection, path, depth);
    if (!S_ISREG(found.st_mode))
        return false;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0)
        return false;
    bool regular = fstat(file, &found) == 0 && S_ISREG(found.st_mode);
    if (regular)
        send_file(collection, path, file, &found);
    close(file);
    return regular;
}

/* 1: something was there; 0: nothing; -1: memory ran out. */
static int send_pattern(struct collection *collection, const char *pattern, const char *workdir)
{
    char path[PATH_MAX];
    struct stat found;
    glob_t matches;
    bool any = false;
    int used = *pattern == '/' ? snprintf(path, sizeof path, "%s", pattern)
                               : snprintf(path, sizeof path, "%s/%s", workdir, pattern);
    if (used < 0 || (size_t)used >= sizeof path || !*pattern)
        return 0;
    if (stat(path, &found) == 0) /* a name that has the characters of a pattern is a name first */
        return send_path(collection, path, 0, true);
    int result = glob(path, 0, NULL, &matches);
    if (result == GLOB_NOSPACE)
        return -1;
    if (result != 0)
        return 0;
    for (size_t i = 0; i < matches.gl_pathc && !collection->broken; i++)
        any |= send_path(collection, matches.gl_pathv[i], 0, true);
    globfree(&matches);
    return any;
}

static int fault(struct bytes *message, int code, const char *text)
{
    message->length = 1; /* the kind stays */
    field_add_integer(message, FAULT_CODE, (uint64_t)code);
    field_add_text(message, FAULT_MESSAGE, text);
    return -1;
}

static int read_bounds(const struct frame *frame, struct collection *collection, char **workdir)
{
    struct field_reader reader = {.at = frame->payload, .left = frame->length};
    struct field field;
    int more, result = 0;
    while ((more = field_next(&reader, &field)) > 0 && result == 0) {
        if (field.tag == GET_WORKDIR)
            result = field_text(&field, workdir);
        else if (field.tag == GET_MAX_BYTES)
            result = field_integer(&field, &collection->bytes_left);
        else if (field.tag == GET_MAX_FILES)
            result = field_integer(&field, &collection->files_left);
    }
    return more < 0 ? -1 : result;
}

static int send_patterns(const struct frame *frame, struct collection *collection, const char *workdir, struct bytes *message)
{
    struct field_reader reader = {.at = frame->payload, .left = frame->length};
    struct field field;
    while (field_next(&reader, &field) > 0) {
        char *pattern = NULL;
        if (field.tag != GET_PATTERN)
            continue;
        if (field_text(&field, &pattern) < 0)
            return fault(message, EINVAL, "a pattern holds a NUL");
        int found = send_pattern(collection, pattern, workdir);
        if (found == 0 && message->length + field.length < 60 * 1024) /* what one message to the agent can hold */
            field_add_text(message, DONE_MISSING, pattern);
        free(pattern);
        if (found < 0)
            return fault(message, ENOMEM, "a pattern matches more names than memory holds");
    }
    return 0;
}

int collect(const struct frame *frame, int fd, struct bytes *message)
{
    static struct collection collection;
    char *workdir = NULL;
    collection.fd = fd;
    if (read_bounds(frame, &collection, &workdir) < 0)
        return fault(message, EINVAL, "the request is malformed");
    if (send_patterns(frame, &collection, workdir ? workdir : "/", message) < 0)
        return -1;
    if (collection.broken || tar_write_end(fd) < 0)
        return fault(message, EPIPE, "the archive could not be sent");
    field_add_integer(message, DONE_FILES, collection.files);
    field_add_integer(message, DONE_BYTES, collection.bytes);
    field_add_integer(message, DONE_TRUNCATED, collection.truncated);
    return 0;
}
