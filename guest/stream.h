/* What goes on between host and agent on one stream number: a command or a transfer. */
#ifndef METALMARK_STREAM_H
#define METALMARK_STREAM_H

#include "cgroup.h"
#include "input.h"
#include "keeper.h"
#include "output.h"

enum { STREAMS = 256, OUTPUTS = 2, CLOSING_BYTES = 64 * 1024 };

struct stream {
    uint32_t number;
    bool used, transfer;
    int control;         /* to the keeper or the worker; -1: it has spoken its last */
    pid_t helper, first; /* the keeper or worker; the command's first process once it runs */
    bool ended;          /* nothing is left but to send what is waiting */
    bool orphaned;       /* the keeper was killed, and the agent has taken its children over */
    bool held;
    struct cgroup cgroup;
    struct input input;
    struct output outputs[OUTPUTS];
    struct keeper_record record;
    uint8_t closing_kind; /* of a transfer: DONE or FAULT */
    struct bytes closing;
};

/* NULL: none is free, or the number is in use. */
struct stream *stream_new(uint32_t number);
struct stream *stream_find(uint32_t number);
struct stream *stream_at(size_t index); /* NULL: not in use */
void stream_free(struct stream *stream);

void command_start(struct channel *channel, const struct frame *frame);
void command_hear(struct stream *stream, struct channel *channel); /* the keeper has something to say */
void command_reaped(struct stream *stream, int status, uint64_t user_us, uint64_t system_us, uint64_t peak_bytes);
void command_check_orphan(struct stream *stream); /* its first process may be gone without being ours to reap */
void command_signal(struct stream *stream, int number);
void command_finish(struct stream *stream, struct channel *channel);

void transfer_start(struct channel *channel, const struct frame *frame);
void transfer_hear(struct stream *stream);
void transfer_finish(struct stream *stream, struct channel *channel);

#endif
