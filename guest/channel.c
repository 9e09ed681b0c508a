#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fields.h"

enum { FULL_BYTES = 256 * 1024 };

void channel_open(struct channel *channel, int fd)
{
    channel->fd = fd;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static void add_header(struct bytes *out, uint8_t kind, uint32_t stream, size_t length)
{
    bytes_add(out, &kind, 1);
    bytes_add_u32(out, stream);
    bytes_add_u32(out, (uint32_t)length);
}

void channel_send(struct channel *channel, uint8_t kind, uint32_t stream, const void *payload, size_t length)
{
    add_header(&channel->out, kind, stream, length);
    bytes_add(&channel->out, payload, length);
}

void channel_send_bytes(struct channel *channel, uint8_t kind, uint32_t stream, struct bytes *payload)
{
    channel_send(channel, kind, stream, payload->data, payload->length);
    bytes_free(payload);
}

void channel_fault(struct channel *channel, uint32_t stream, int code, const char *format, ...)
{
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    struct bytes payload = {0};
    field_add_integer(&payload, FAULT_CODE, (uint64_t)code);
    field_add_text(&payload, FAULT_MESSAGE, message);
    channel_send_bytes(channel, KIND_FAULT, stream, &payload);
}

bool channel_wants_write(const struct channel *channel)
{
    return channel->out.length > channel->out_sent;
}

bool channel_full(const struct channel *channel)
{
    return channel->out.length - channel->out_sent >= FULL_BYTES;
}

static bool passing(int error)
{
    return error == EAGAIN || error == EINTR;
}

int channel_flush(struct channel *channel)
{
    struct bytes *out = &channel->out;
    if (out->failed)
        return -1; /* frames are lost: the stream makes no sense any more */
    while (channel->out_sent < out->length) {
        ssize_t sent = write(channel->fd, out->data + channel->out_sent, out->length - channel->out_sent);
        if (sent < 0 && !passing(errno))
            return -1;
        if (sent <= 0)
            break;
        channel->out_sent += (size_t)sent;
    }
    if (channel->out_sent < out->length) {
        if (channel->out_sent >= FULL_BYTES) { /* a queue that never runs empty must not grow for ever */
            bytes_drop_front(out, channel->out_sent);
            channel->out_sent = 0;
        }
        return 0;
    }
    out->length = 0;
    channel->out_sent = 0;
    if (out->capacity > 4 * FULL_BYTES)
        bytes_free(out);
    return 0;
}

int channel_fill(struct channel *channel)
{
    if (channel->in_taken) {
        memmove(channel->in, channel->in + channel->in_taken, channel->in_used - channel->in_taken);
        channel->in_used -= channel->in_taken;
        channel->in_taken = 0;
    }
    ssize_t got = read(channel->fd, channel->in + channel->in_used, sizeof channel->in - channel->in_used);
    if (got > 0) {
        channel->spoken = true;
        channel->in_used += (size_t)got;
        return (int)got;
    }
    if (got < 0 && passing(errno))
        return 0;
    return -1;
}

static uint32_t read_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

bool channel_take(struct channel *channel, struct frame *frame)
{
    const uint8_t *at = channel->in + channel->in_taken;
    size_t have = channel->in_used - channel->in_taken;
    if (channel->broken || have < HEADER_BYTES)
        return false;
    uint32_t length = read_u32(at + 5);
    if (length > MAX_PAYLOAD_BYTES) {
        channel->broken = true;
        return false;
    }
    if (have < HEADER_BYTES + length)
        return false;
    *frame = (struct frame){.kind = at[0], .stream = read_u32(at + 1), .length = length, .payload = at + HEADER_BYTES};
    channel->in_taken += HEADER_BYTES + length;
    return true;
}
