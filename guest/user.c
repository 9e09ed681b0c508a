#include "user.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINE_BYTES = 64 * 1024, FIELDS = 7 };
static const uint64_t most_bytes = 16 * 1024 * 1024;

/* The files come from the image: any size, any bytes, possibly no files at all. */
struct lines {
    int fd;
    uint64_t taken;
    size_t used, at;
    char buffer[LINE_BYTES];
};

static struct lines lines;

static void lines_open(int fd)
{
    lines.fd = fd;
    lines.taken = lines.used = lines.at = 0;
    if (fd >= 0)
        lseek(fd, 0, SEEK_SET);
}

static bool lines_fill(void)
{
    memmove(lines.buffer, lines.buffer + lines.at, lines.used - lines.at);
    lines.used -= lines.at;
    lines.at = 0;
    if (lines.fd < 0 || lines.taken > most_bytes || lines.used == LINE_BYTES)
        return false;
    ssize_t got = read(lines.fd, lines.buffer + lines.used, LINE_BYTES - lines.used);
    if (got <= 0)
        return false;
    lines.used += (size_t)got;
    lines.taken += (uint64_t)got;
    return true;
}

/* The next line without its end; one that is too long ends the file. */
static char *lines_next(void)
{
    for (;;) {
        char *start = lines.buffer + lines.at;
        char *end = memchr(start, '\n', lines.used - lines.at);
        if (end) {
            *end = 0;
            lines.at = (size_t)(end - lines.buffer) + 1;
            return start;
        }
        if (lines_fill())
            continue;
        if (lines.used == 0 || lines.used == LINE_BYTES)
            return NULL;
        lines.buffer[lines.used] = 0;
        lines.at = lines.used;
        return lines.buffer;
    }
}

static size_t split(char *line, char separator, char *parts[], size_t most)
{
    size_t count = 0;
    while (count < most) {
        parts[count++] = line;
        line = strchr(line, separator);
        if (!line)
            break;
        *line++ = 0;
    }
    return count;
}

static bool number(const char *text, uint32_t *value)
{
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    unsigned long long parsed = strtoull(text, &end, 10);
    if (*end || errno || parsed >= UINT32_MAX) /* the highest means "leave as it is" to setuid(2) */
        return false;
    *value = (uint32_t)parsed;
    return true;
}

static bool is_number(const char *text, uint32_t value)
{
    uint32_t parsed;
    return number(text, &parsed) && parsed == value;
}

/* Fill in from the first line whose name or number is the wanted one. */
static bool find_passwd(int fd, const char *wanted, struct user *user, char *name, size_t name_size)
{
    uint32_t wanted_number = 0, uid, gid;
    bool numeric = number(wanted, &wanted_number);
    char *parts[FIELDS];
    lines_open(fd);
    for (char *line; (line = lines_next());) {
        size_t count = split(line, ':', parts, FIELDS);
        if (count < 4 || !number(parts[2], &uid) || !number(parts[3], &gid) || !*parts[0])
            continue;
        if (strcmp(parts[0], wanted) != 0 && !(numeric && uid == wanted_number))
            continue;
        user->uid = uid;
        user->gid = gid;
        if (count > 5)
            snprintf(user->home, sizeof user->home, "%s", parts[5]);
        snprintf(name, name_size, "%s", parts[0]);
        return true;
    }
    if (numeric)
        user->uid = wanted_number;
    return numeric;
}

static bool find_group(int fd, const char *wanted, gid_t *gid)
{
    uint32_t wanted_number = 0, found;
    bool numeric = number(wanted, &wanted_number);
    char *parts[FIELDS];
    lines_open(fd);
    for (char *line; (line = lines_next());) {
        if (split(line, ':', parts, FIELDS) < 3 || !number(parts[2], &found))
            continue;
        if (strcmp(parts[0], wanted) == 0 || is_number(wanted, found)) {
            *gid = found;
            return true;
        }
    }
    *gid = wanted_number;
    return numeric;
}

static void find_supplementary(int fd, const char *name, struct user *user)
{
    char *parts[FIELDS];
    uint32_t gid;
    lines_open(fd);
    for (char *line; user->group_count < USER_GROUPS && (line = lines_next());) {
        if (split(line, ':', parts, FIELDS) < 4 || !number(parts[2], &gid))
            continue;
        for (char *member = parts[3], *next; member; member = next) {
            next = strchr(member, ',');
            if (next)
                *next++ = 0;
            if (strcmp(member, name) == 0) {
                user->groups[user->group_count++] = gid;
                break;
            }
        }
    }
}

int user_find_in(const char *wanted, int passwd, int group, struct user *user, char *missing, size_t missing_size)
{
    char name[256], found[256] = "";
    *user = (struct user){0};
    const char *colon = strchr(wanted, ':');
    size_t length = colon ? (size_t)(colon - wanted) : strlen(wanted);
    if (length >= sizeof name) {
        snprintf(missing, missing_size, "user '%.200s...'", wanted);
        return -1;
    }
    memcpy(name, wanted, length);
    name[length] = 0;
    if (!find_passwd(passwd, *name ? name : "0", user, found, sizeof found)) {
        snprintf(missing, missing_size, "user '%s'", name);
        return -1;
    }
    if (colon && colon[1]) {
        if (!find_group(group, colon + 1, &user->gid)) {
            snprintf(missing, missing_size, "group '%.200s'", colon + 1);
            return -1;
        }
    } else if (*found) {
        find_supplementary(group, found, user);
    }
    return 0;
}

static int open_regular(const char *path)
{
    struct stat found;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0 && (fstat(fd, &found) < 0 || !S_ISREG(found.st_mode))) {
        close(fd);
        return -1;
    }
    return fd;
}

int user_find(const char *wanted, struct user *user, char *missing, size_t missing_size)
{
    int passwd = open_regular("/etc/passwd"), group = open_regular("/etc/group");
    int result = user_find_in(wanted, passwd, group, user, missing, missing_size);
    if (passwd >= 0)
        close(passwd);
    if (group >= 0)
        close(group);
    return result;
}
