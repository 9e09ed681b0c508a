/* Bytes from the host into a pipe (stdin, or the archive of a PUT), with credit for what the reader has taken. */
#ifndef METALMARK_INPUT_H
#define METALMARK_INPUT_H

#include "channel.h"

struct input {
    int fd;        /* -1: closed; what comes is dropped */
    bool ended;    /* the host has sent the end */
    bool overrun;  /* the host has sent more than its credit */
    struct bytes waiting;
};

void input_open(struct input *input, int fd);
void input_take(struct input *input, struct channel *channel, uint32_t stream, const uint8_t *data, size_t length);
bool input_wants_write(const struct input *input);
void input_write(struct input *input, struct channel *channel, uint32_t stream);
void input_close(struct input *input);

#endif
