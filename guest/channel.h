/* The byte stream to the host, cut into frames. */
#ifndef METALMARK_CHANNEL_H
#define METALMARK_CHANNEL_H

#include "bytes.h"
#include "wire.h"

struct frame {
    uint8_t kind;
    uint32_t stream;
    uint32_t length;
    const uint8_t *payload; /* valid until the next frame is taken */
};

struct channel {
    int fd;
    bool spoken; /* the host has sent something: from now on a hang-up is its end */
    bool broken; /* a frame that no host of ours sends: nothing after it can be trusted */
    struct bytes out;
    size_t out_sent;
    size_t in_used, in_taken;
    uint8_t in[HEADER_BYTES + MAX_PAYLOAD_BYTES];
};

void channel_open(struct channel *channel, int fd);
void channel_send(struct channel *channel, uint8_t kind, uint32_t stream, const void *payload, size_t length);
void channel_send_bytes(struct channel *channel, uint8_t kind, uint32_t stream, struct bytes *payload); /* frees it */
void channel_fault(struct channel *channel, uint32_t stream, int code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
bool channel_wants_write(const struct channel *channel);
bool channel_full(const struct channel *channel); /* too much waits for the host: hold output back */
int channel_flush(struct channel *channel);       /* -1: the channel is gone */
int channel_fill(struct channel *channel);        /* bytes read; 0: nothing now; -1: the channel is gone */
bool channel_take(struct channel *channel, struct frame *frame);

#endif
