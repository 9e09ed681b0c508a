#include "input.h"

#include <errno.h>
#include <unistd.h>

#include "fields.h"

static void give_credit(struct channel *channel, uint32_t stream, size_t length)
{
    struct bytes payload = {0};
    field_add_integer(&payload, CREDIT_BYTES, length);
    channel_send_bytes(channel, KIND_CREDIT, stream, &payload);
}

void input_open(struct input *input, int fd)
{
    *input = (struct input){.fd = fd};
}

void input_take(struct input *input, struct channel *channel, uint32_t stream, const uint8_t *data, size_t length)
{
    if (input->ended || input->overrun)
        return;
    if (length == 0) {
        input->ended = true;
        if (input->fd >= 0 && input->waiting.length == 0)
            input_close(input);
        return;
    }
    if (input->fd < 0) {
        give_credit(channel, stream, length); /* nobody reads: let the host go on to its end */
        return;
    }
    if (input->waiting.length + length > INPUT_WINDOW_BYTES) {
        input->overrun = true;
        return;
    }
    bytes_add(&input->waiting, data, length);
    input_write(input, channel, stream);
}

bool input_wants_write(const struct input *input)
{
    return input->fd >= 0 && input->waiting.length > 0;
}

void input_write(struct input *input, struct channel *channel, uint32_t stream)
{
    while (input_wants_write(input)) {
        ssize_t sent = write(input->fd, input->waiting.data, input->waiting.length);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            return;
        if (sent < 0) { /* the reader has closed it */
            give_credit(channel, stream, input->waiting.length);
            input_close(input);
            return;
        }
        give_credit(channel, stream, (size_t)sent);
        bytes_drop_front(&input->waiting, (size_t)sent);
    }
    if (input->ended && input->fd >= 0)
        input_close(input);
}

void input_close(struct input *input)
{
    if (input->fd >= 0)
        close(input->fd);
    input->fd = -1;
    bytes_free(&input->waiting);
}
