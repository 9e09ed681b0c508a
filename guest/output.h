/* One output stream of a command or transfer: from a pipe into frames, in batches and within a bound. */
#ifndef METALMARK_OUTPUT_H
#define METALMARK_OUTPUT_H

#include "channel.h"

enum { OUTPUT_PIPE_BYTES = 1024 * 1024 };

struct output {
    int fd; /* -1: closed */
    uint8_t kind;
    bool hold;       /* keep everything until the command has ended */
    bool immediate;  /* no batching: a transfer */
    bool final;      /* nobody can write any more: take what is left and close */
    uint64_t limit;  /* most bytes to send */
    uint64_t total;  /* bytes that were written */
    uint64_t kept;   /* of those, bytes sent or waiting to be */
    uint64_t sent_ns;
    uint64_t paused_until_ns;
    uint64_t pause_ns;    /* length of the last pause */
    uint64_t since_pause; /* bytes read since it */
    struct bytes waiting;
    size_t waiting_sent;
};

void output_open(struct output *output, int fd, uint8_t kind, uint64_t limit);

/* Whether to watch the descriptor now; otherwise *wake_ns is lowered to when to ask again. */
bool output_wants_read(const struct output *output, uint64_t now_ns, uint64_t *wake_ns);
void output_read(struct output *output, uint64_t now_ns);

/* Send what is due; lowers *wake_ns to when the next batch is. */
void output_send(struct output *output, struct channel *channel, uint32_t stream, uint64_t now_ns, uint64_t *wake_ns);
bool output_done(const struct output *output);
void output_close(struct output *output);

#endif
