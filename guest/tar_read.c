#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "tar.h"

enum { EXTENSION_MOST = 64 * 1024, EXTENSIONS_MOST = 16 };

struct header {
    char name[100], mode[8], uid[8], gid[8], size[12], modified[12], checksum[8], type, link[100];
    char magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155], rest[12];
};
_Static_assert(sizeof(struct header) == TAR_BLOCK, "a header is one block");

/* What extension headers have said of the entry to come. */
struct extension {
    bool name, link, size, modified, uid, gid;
};

static int fail(struct tar_reader *reader, const char *problem)
{
    reader->problem = problem;
    return -1;
}

static ssize_t read_full(struct tar_reader *reader, void *data, size_t length)
{
    size_t used = 0;
    while (used < length) {
        ssize_t got = reader->source(reader->context, (char *)data + used, length - used);
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        used += (size_t)got;
    }
    return (ssize_t)used;
}

static bool octal(const char *text, size_t length, uint64_t *value)
{
    const unsigned char *raw = (const unsigned char *)text;
    *value = 0;
    if (raw[0] == 0x80) { /* GNU: base 256 */
        for (size_t i = 1; i < length; i++) {
            if (*value >> 56)
                return false;
            *value = *value << 8 | raw[i];
        }
        return true;
    }
    size_t i = 0;
    while (i < length && text[i] == ' ')
        i++;
    for (; i < length && text[i] >= '0' && text[i] <= '7'; i++)
        *value = *value << 3 | (uint64_t)(text[i] - '0');
    return i == length || text[i] == ' ' || text[i] == 0;
}

static bool checksum_fits(const struct header *header)
{
    const unsigned char *raw = (const unsigned char *)header;
    uint64_t sum = 0, announced;
    for (size_t i = 0; i < TAR_BLOCK; i++)
        sum += i >= 148 && i < 156 ? ' ' : raw[i];
    return octal(header->checksum, sizeof header->checksum, &announced) && announced == sum;
}

static bool copy(char *target, const char *from, size_t length)
{
    if (length >= TAR_NAME_MOST || memchr(from, 0, length))
        return false;
    memcpy(target, from, length);
    target[length] = 0;
    return true;
}

static bool decimal(const char *text, size_t length, uint64_t *value)
{
    *value = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '.' && i > 0)
            return true; /* a fraction of a second */
        if (text[i] < '0' || text[i] > '9' || *value > UINT64_MAX / 10 - 1)
            return false;
        *value = *value * 10 + (uint64_t)(text[i] - '0');
    }
    return length > 0;
}

static bool take_record(const char *key, const char *value, size_t length, struct tar_entry *entry, struct extension *extension)
{
    uint64_t number;
    if (strcmp(key, "path") == 0)
        return extension->name = copy(entry->name, value, length);
    if (strcmp(key, "linkpath") == 0)
        return extension->link = copy(entry->link, value, length);
    if (strcmp(key, "size") == 0)
        return extension->size = decimal(value, length, &entry->size);
    if (strcmp(key, "mtime") == 0) {
        if (length && *value == '-')
            number = 0; /* before 1970: as old as can be told here */
        else if (!decimal(value, length, &number))
            return false;
        entry->modified = (struct timespec){.tv_sec = (time_t)number};
        return extension->modified = true;
    }
    if (strcmp(key, "uid") == 0 || strcmp(key, "gid") == 0) {
        if (!decimal(value, length, &number) || number >= UINT32_MAX)
            return false;
        *(*key == 'u' ? &entry->uid : &entry->gid) = (uint32_t)number;
        return *(*key == 'u' ? &extension->uid : &extension->gid) = true;
    }
    return true;
}

/* `length key=value\n`, one after another; the length counts the whole record. */
static bool take_records(char *text, size_t length, struct tar_entry *entry, struct extension *extension)
{
    while (length) {
        size_t digits = 0, total = 0;
        while (digits < length && digits < 8 && text[digits] >= '0' && text[digits] <= '9')
            total = total * 10 + (size_t)(text[digits++] - '0');
        if (digits == 0 || digits == length || text[digits] != ' ' || total > length || total < digits + 3 ||
            text[total - 1] != '\n')
            return false;
        char *key = text + digits + 1, *end = text + total - 1;
        char *equals = memchr(key, '=', (size_t)(end - key));
        if (!equals)
            return false;
        *equals = 0;
        if (!take_record(key, equals + 1, (size_t)(end - equals - 1), entry, extension))
            return false;
        text += total;
        length -= total;
    }
    return true;
}

static void announce(struct tar_reader *reader, uint64_t size)
{
    reader->left = size;
    reader->padding = (TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK;
}

static int skip(struct tar_reader *reader)
{
    char dropped[4096];
    uint64_t left = reader->left + reader->padding;
    if (left < reader->left)
        return fail(reader, "an impossible size");
    while (left) {
        size_t length = left < sizeof dropped ? (size_t)left : sizeof dropped;
        if (read_full(reader, dropped, length) != (ssize_t)length)
            return fail(reader, "the archive is cut off");
        left -= length;
    }
    reader->left = reader->padding = 0;
    return 0;
}

static int take_extension(struct tar_reader *reader, char type, uint64_t size, struct tar_entry *entry, struct extension *extension)
{
    static char text[EXTENSION_MOST + 1];
    bool good = true;
    if (size > EXTENSION_MOST)
        return fail(reader, "an extension header of more than 64 KiB");
    announce(reader, size);
    if (read_full(reader, text, (size_t)size) != (ssize_t)size)
        return fail(reader, "the archive is cut off");
    reader->left = 0;
    if (skip(reader) < 0)
        return -1;
    text[size] = 0;
    if (type == 'x')
        good = take_records(text, (size_t)size, entry, extension);
    else if (type == 'L')
        extension->name = good = copy(entry->name, text, strlen(text));
    else if (type == 'K')
        extension->link = good = copy(entry->link, text, strlen(text));
    return good ? 0 : fail(reader, "a malformed extension header");
}

static int take_header(struct tar_reader *reader, const struct header *header, struct tar_entry *entry, const struct extension *said)
{
    uint64_t mode, uid, gid, size, modified;
    if (!octal(header->mode, sizeof header->mode, &mode) || !octal(header->uid, sizeof header->uid, &uid) ||
        !octal(header->gid, sizeof header->gid, &gid) || !octal(header->size, sizeof header->size, &size) ||
        !octal(header->modified, sizeof header->modified, &modified))
        return fail(reader, "a number that is none");
    bool ustar = memcmp(header->magic, "ustar", 5) == 0 && header->magic[5] == 0;
    if (!said->name) {
        size_t used = ustar ? strnlen(header->prefix, sizeof header->prefix) : 0;
        memcpy(entry->name, header->prefix, used);
        if (used)
            entry->name[used++] = '/';
        size_t length = strnlen(header->name, sizeof header->name);
        memcpy(entry->name + used, header->name, length);
        entry->name[used + length] = 0;
    }
    if (!said->link)
        copy(entry->link, header->link, strnlen(header->link, sizeof header->link));
    if (!said->size)
        entry->size = size;
    if (!said->uid)
        entry->uid = (uint32_t)uid;
    if (!said->gid)
        entry->gid = (uint32_t)gid;
    if (!said->modified)
        entry->modified = (struct timespec){.tv_sec = (time_t)modified};
    entry->mode = (uint32_t)mode & 07777;
    entry->type = header->type ? header->type : '0';
    if (entry->type == '7')
        entry->type = '0';
    announce(reader, entry->type == '0' ? entry->size : 0);
    return 1;
}

int tar_next(struct tar_reader *reader, struct tar_entry *entry)
{
    struct header header;
    struct extension said = {0};
    static const struct header empty;
    *entry = (struct tar_entry){.type = 0};
    if (skip(reader) < 0)
        return -1;
    for (int extensions = 0; extensions < EXTENSIONS_MOST; extensions++) {
        uint64_t size;
        ssize_t got = read_full(reader, &header, sizeof header);
        if (got == 0 || (got == sizeof header && memcmp(&header, &empty, sizeof header) == 0))
            return 0;
        if (got != sizeof header)
            return fail(reader, "the archive is cut off");
        if (!checksum_fits(&header))
            return fail(reader, "a header with a wrong checksum");
        char type = header.type;
        if (type != 'x' && type != 'g' && type != 'L' && type != 'K')
            return take_header(reader, &header, entry, &said);
        if (!octal(header.size, sizeof header.size, &size))
            return fail(reader, "a number that is none");
        if (take_extension(reader, type, size, entry, &said) < 0)
            return -1;
    }
    return fail(reader, "too many extension headers");
}

ssize_t tar_read(struct tar_reader *reader, void *data, size_t length)
{
    if (reader->left < length)
        length = (size_t)reader->left;
    if (length == 0)
        return 0;
    ssize_t got = reader->source(reader->context, data, length);
    if (got <= 0) {
        reader->problem = "the archive is cut off";
        return -1;
    }
    reader->left -= (uint64_t)got;
    return got;
}
