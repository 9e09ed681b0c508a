#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "files.h"
#include "tar.h"

enum { SHORT_NAME = 100 };
static const uint64_t octal_most = 077777777777;

static void finish_header(unsigned char block[TAR_BLOCK])
{
    unsigned sum = 0;
    memcpy(block + 257, "ustar\00000", 8);
    memset(block + 148, ' ', 8);
    for (int i = 0; i < TAR_BLOCK; i++)
        sum += block[i];
    snprintf((char *)block + 148, 7, "%06o", sum & 0777777);
}

static void fill_header(unsigned char block[TAR_BLOCK], const char *name, char type, const struct tar_entry *entry, uint64_t size)
{
    char *text = (char *)block;
    uint64_t modified = entry->modified.tv_sec < 0 ? 0 : (uint64_t)entry->modified.tv_sec;
    memset(block, 0, TAR_BLOCK);
    size_t length = strlen(name);
    memcpy(text, name, length < SHORT_NAME ? length : SHORT_NAME);
    snprintf(text + 100, 8, "%07o", entry->mode & 07777u);
    snprintf(text + 108, 8, "%07o", entry->uid & 07777777u);
    snprintf(text + 116, 8, "%07o", entry->gid & 07777777u);
    snprintf(text + 124, 12, "%011" PRIo64, size & octal_most);
    snprintf(text + 136, 12, "%011" PRIo64, modified & octal_most);
    block[156] = (unsigned char)type;
    finish_header(block);
}

static bool plain(const char *name)
{
    for (; *name; name++)
        if ((unsigned char)*name >= 0x80)
            return false;
    return true;
}

static bool utf8(const char *name)
{
    const unsigned char *at = (const unsigned char *)name;
    while (*at) {
        int more = *at < 0x80 ? 0 : *at >= 0xC2 && *at < 0xE0 ? 1 : (*at & 0xF0) == 0xE0 ? 2 : *at >= 0xF0 && *at < 0xF5 ? 3 : -1;
        if (more < 0 || (*at == 0xE0 && at[1] < 0xA0) || (*at == 0xED && at[1] > 0x9F) || (*at == 0xF0 && at[1] < 0x90) ||
            (*at == 0xF4 && at[1] > 0x8F))
            return false;
        for (at++; more > 0; more--, at++)
            if ((*at & 0xC0) != 0x80)
                return false;
    }
    return true;
}

static size_t add_record(char *text, size_t size, const char *key, const char *value)
{
    size_t body = strlen(key) + strlen(value) + 3, total = body + 1;
    while (total != body + (size_t)snprintf(NULL, 0, "%zu", total))
        total++;
    int used = snprintf(text, size, "%zu %s=%s\n", total, key, value);
    return used < 0 || (size_t)used >= size ? 0 : (size_t)used;
}

int tar_write_header(int fd, const struct tar_entry *entry)
{
    unsigned char block[TAR_BLOCK];
    char records[TAR_NAME_MOST + 256], size[24];
    size_t used = 0;
    if (strlen(entry->name) > SHORT_NAME || !plain(entry->name)) {
        if (!utf8(entry->name))
            used += add_record(records, sizeof records, "hdrcharset", "BINARY");
        used += add_record(records + used, sizeof records - used, "path", entry->name);
    }
    if (entry->size > octal_most) {
        snprintf(size, sizeof size, "%" PRIu64, entry->size);
        used += add_record(records + used, sizeof records - used, "size", size);
    }
    if (used) {
        fill_header(block, "pax", 'x', entry, used);
        if (file_write_all(fd, block, sizeof block) < 0 || file_write_all(fd, records, used) < 0 ||
            tar_write_padding(fd, used) < 0)
            return -1;
    }
    fill_header(block, entry->name, '0', entry, entry->size);
    return file_write_all(fd, block, sizeof block);
}

int tar_write_padding(int fd, uint64_t size)
{
    static const char zeros[TAR_BLOCK];
    return file_write_all(fd, zeros, (TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK);
}

int tar_write_end(int fd)
{
    static const char zeros[2 * TAR_BLOCK];
    return file_write_all(fd, zeros, sizeof zeros);
}
