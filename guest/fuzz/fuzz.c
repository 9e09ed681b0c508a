/* The agent's parsers over any bytes: frames, fields, commands, tar archives, users. The first byte says which.
 * Built with -fsanitize=fuzzer it is a libFuzzer target; otherwise it takes files, or one case on stdin a
 * length (u32, little-endian) at a time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../channel.h"
#include "../fields.h"
#include "../files.h"
#include "../launch.h"
#include "../tar.h"
#include "../user.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *at;
    size_t left;
};

static ssize_t take(void *context, void *target, size_t length)
{
    struct input *input = context;
    if (length > input->left)
        length = input->left;
    if (length)
        memcpy(target, input->at, length);
    input->at += length;
    input->left -= length;
    return (ssize_t)length;
}

static int in_memory(const uint8_t *data, size_t size)
{
    int fd = memfd_create("case", 0);
    if (fd < 0 || file_write_all(fd, data, size) < 0)
        abort();
    lseek(fd, 0, SEEK_SET);
    return fd;
}

static void fuzz_fields(const uint8_t *data, size_t size)
{
    struct field_reader reader = {.at = data, .left = size};
    struct field field;
    uint64_t number;
    char *text = NULL;
    while (field_next(&reader, &field) > 0) {
        if (field.value < data || field.value + field.length > data + size)
            abort();
        field_integer(&field, &number);
        field_text(&field, &text);
    }
    free(text);
}

static void fuzz_launch(const uint8_t *data, size_t size)
{
    struct frame frame = {.kind = KIND_EXEC, .stream = 1, .length = (uint32_t)size, .payload = data};
    struct launch *launch = launch_parse(&frame);
    if (launch && (!launch->argv || !launch->argv[0] || !launch->env))
        abort();
    launch_free(launch);
}

static void fuzz_frames(const uint8_t *data, size_t size)
{
    static struct channel channel;
    struct frame frame;
    size_t taken = 0;
    int fd = in_memory(data, size);
    channel.in_used = channel.in_taken = 0;
    channel.broken = channel.spoken = false;
    channel_open(&channel, fd);
    while (channel_fill(&channel) > 0)
        while (channel_take(&channel, &frame)) {
            taken += HEADER_BYTES + frame.length;
            fuzz_fields(frame.payload, frame.length);
        }
    if (taken > size)
        abort();
    close(fd);
}

static void fuzz_tar(const uint8_t *data, size_t size)
{
    static struct tar_entry entry;
    static char content[1000];
    struct input input = {.at = data, .left = size};
    struct tar_reader reader = {.source = take, .context = &input};
    uint64_t read_in_all = 0;
    while (tar_next(&reader, &entry) > 0) {
        ssize_t got;
        if (strlen(entry.name) >= TAR_NAME_MOST || strlen(entry.link) >= TAR_NAME_MOST)
            abort();
        while ((got = tar_read(&reader, content, sizeof content)) > 0)
            read_in_all += (uint64_t)got;
        if (got < 0)
            break;
    }
    if (read_in_all > size)
        abort();
}

/* What is written must be read back as it was. */
static void fuzz_tar_round_trip(const uint8_t *data, size_t size)
{
    static struct tar_entry written, found;
    size_t length = size < TAR_NAME_MOST - 1 ? size : TAR_NAME_MOST - 1;
    memset(&written, 0, sizeof written);
    memcpy(written.name, data, length);
    if (!*written.name)
        return;
    written.mode = 0644;
    written.size = 0;
    int fd = in_memory(NULL, 0);
    if (tar_write_header(fd, &written) < 0 || tar_write_end(fd) < 0)
        abort();
    off_t total = lseek(fd, 0, SEEK_END);
    uint8_t *archive = mmap(NULL, (size_t)total, PROT_READ, MAP_PRIVATE, fd, 0);
    struct input input = {.at = archive, .left = (size_t)total};
    struct tar_reader reader = {.source = take, .context = &input};
    if (archive == MAP_FAILED || tar_next(&reader, &found) != 1 || strcmp(found.name, written.name) != 0)
        abort();
    munmap(archive, (size_t)total);
    close(fd);
}

static void fuzz_users(const uint8_t *data, size_t size)
{
    struct user user;
    char wanted[64], missing[300];
    size_t length = size < sizeof wanted - 1 ? size : sizeof wanted - 1;
    size_t half = length + (size - length) / 2;
    memcpy(wanted, data, length);
    wanted[length] = 0;
    char *bar = memchr(wanted, '|', length); /* ends a short name, so that it can be in the files */
    if (bar)
        *bar = 0;
    int passwd = in_memory(data + length, half - length), group = in_memory(data + half, size - half);
    if (user_find_in(wanted, passwd, group, &user, missing, sizeof missing) == 0 && user.group_count > USER_GROUPS)
        abort();
    close(passwd);
    close(group);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const targets[])(const uint8_t *, size_t) = {fuzz_frames, fuzz_fields, fuzz_launch,
                                                               fuzz_tar,    fuzz_users,  fuzz_tar_round_trip};
    if (size)
        targets[data[0] % (sizeof targets / sizeof *targets)](data + 1, size - 1);
    return 0;
}

#ifndef LIBFUZZER
static void run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    static uint8_t data[1 << 22];
    if (!file)
        return;
    LLVMFuzzerTestOneInput(data, fread(data, 1, sizeof data, file));
    fclose(file);
}

int main(int argc, char **argv)
{
    uint8_t size[4];
    for (int i = 1; i < argc; i++)
        run_file(argv[i]);
    while (argc == 1 && fread(size, 1, sizeof size, stdin) == sizeof size) {
        size_t length = (size_t)size[0] | (size_t)size[1] << 8 | (size_t)size[2] << 16;
        uint8_t *data = malloc(length + 1); /* exact, so that a read beyond the end is found */
        if (!data || fread(data, 1, length, stdin) != length)
            return 2;
        LLVMFuzzerTestOneInput(data, length);
        free(data);
        putchar('.');
        fflush(stdout);
    }
    return 0;
}
#endif
