#include "output.h"

#include <errno.h>
#include <unistd.h>

#include "clocks.h"

enum { CHUNK_BYTES = 64 * 1024, SMALL_BYTES = 8 * 1024, CROWDED_BYTES = 32 * 1024 };
static const uint64_t batch_ns = 250ull * NS_PER_MS;
/* After a small read the pipe is left alone for a while: each look at it takes time from the benchmark. How long follows
 * from the writer: a pipe that was found crowded after a pause halves the next one, so that no writer waits for us. */
static const uint64_t pause_most_ns = 20ull * NS_PER_MS;
static const uint64_t pause_least_ns = 64 * 1024;

static uint8_t chunk[CHUNK_BYTES];

void output_open(struct output *output, int fd, uint8_t kind, uint64_t limit)
{
    *output = (struct output){.fd = fd, .kind = kind, .limit = limit};
}

static void lower(uint64_t *wake_ns, uint64_t when_ns)
{
    if (when_ns < *wake_ns)
        *wake_ns = when_ns;
}

static size_t unsent(const struct output *output)
{
    return output->waiting.length - output->waiting_sent;
}

bool output_wants_read(const struct output *output, uint64_t now_ns, uint64_t *wake_ns)
{
    if (output->fd < 0 || (!output->hold && unsent(output) >= CHUNK_BYTES))
        return false;
    if (!output->final && now_ns < output->paused_until_ns) {
        lower(wake_ns, output->paused_until_ns);
        return false;
    }
    return true;
}

static void pause_reading(struct output *output, uint64_t now_ns)
{
    if (output->since_pause >= CROWDED_BYTES)
        output->pause_ns /= 2;
    else if (output->pause_ns < pause_most_ns)
        output->pause_ns = output->pause_ns < pause_least_ns ? pause_least_ns : output->pause_ns * 2;
    output->since_pause = 0;
    output->paused_until_ns = now_ns + output->pause_ns;
}

void output_read(struct output *output, uint64_t now_ns)
{
    ssize_t got = read(output->fd, chunk, sizeof chunk);
    if (got < 0 && errno == EINTR)
        return;
    if (got == 0 || (got < 0 && (errno != EAGAIN || output->final))) {
        close(output->fd);
        output->fd = -1;
        return;
    }
    if (got < 0)
        return;
    output->total += (uint64_t)got;
    uint64_t room = output->limit - output->kept;
    size_t keep = (uint64_t)got < room ? (size_t)got : (size_t)room;
    bytes_add(&output->waiting, chunk, keep);
    if (output->waiting.failed)
        output->limit = output->kept; /* no memory to hold more: from here on it is dropped and counted */
    else
        output->kept += keep;
    output->waiting.failed = false;
    output->since_pause += (uint64_t)got;
    if (!output->immediate && got < SMALL_BYTES)
        pause_reading(output, now_ns);
}

static bool due(const struct output *output, uint64_t now_ns, uint64_t *wake_ns)
{
    if (output->fd < 0 || output->immediate)
        return true;
    if (output->hold)
        return false;
    if (unsent(output) >= CHUNK_BYTES || now_ns >= output->sent_ns + batch_ns)
        return true;
    lower(wake_ns, output->sent_ns + batch_ns);
    return false;
}

void output_send(struct output *output, struct channel *channel, uint32_t stream, uint64_t now_ns, uint64_t *wake_ns)
{
    while (unsent(output) && !channel_full(channel) && due(output, now_ns, wake_ns)) {
        size_t length = unsent(output) < CHUNK_BYTES ? unsent(output) : CHUNK_BYTES;
        channel_send(channel, output->kind, stream, output->waiting.data + output->waiting_sent, length);
        output->waiting_sent += length;
        output->sent_ns = now_ns;
    }
    if (unsent(output) == 0) {
        output->waiting.length = 0;
        output->waiting_sent = 0;
    } else if (!output->hold && output->waiting_sent) {
        bytes_drop_front(&output->waiting, output->waiting_sent);
        output->waiting_sent = 0;
    }
}

bool output_done(const struct output *output)
{
    return output->fd < 0 && unsent(output) == 0;
}

void output_close(struct output *output)
{
    if (output->fd >= 0)
        close(output->fd);
    output->fd = -1;
    bytes_free(&output->waiting);
}
