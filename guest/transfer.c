/* GET and PUT run in a process of their own: the file system may be slow or the archive large, and other commands must
 * not wait. The process ends with one message: the kind of the closing frame, then its payload. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "collect.h"
#include "descriptors.h"
#include "fields.h"
#include "processes.h"
#include "stream.h"
#include "unpack.h"

static _Noreturn void work(const struct frame *frame, int data, int control)
{
    int keep[] = {data, control, processes_proc_fd()};
    uint8_t kind = KIND_DONE;
    struct bytes message = {0};
    descriptors_close_all_but(keep, 3);
    processes_set_oom_score("0");
    bytes_add(&message, &kind, 1);
    int result = frame->kind == KIND_GET ? collect(frame, data, &message) : unpack(frame, data, &message);
    if (result < 0)
        message.data[0] = KIND_FAULT;
    size_t length = message.length < CLOSING_BYTES ? message.length : 1;
    if (send(control, message.data, length, MSG_NOSIGNAL) < 0)
        _exit(1);
    _exit(0);
}

static int start(struct stream *stream, const struct frame *frame)
{
    int data[2] = {-1, -1}, control[2] = {-1, -1};
    bool get = frame->kind == KIND_GET;
    if (pipe2(data, O_CLOEXEC) < 0)
        return -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) == 0)
        stream->helper = fork();
    else
        stream->helper = -1;
    if (stream->helper == 0)
        work(frame, data[get ? 1 : 0], control[1]);
    close(data[get ? 1 : 0]);
    if (control[1] >= 0)
        close(control[1]);
    int ours = data[get ? 0 : 1];
    fcntl(ours, F_SETFL, O_NONBLOCK);
    stream->control = control[0];
    if (get) {
        output_open(&stream->outputs[0], ours, KIND_DATA, UINT64_MAX);
        stream->outputs[0].immediate = true;
    } else {
        input_open(&stream->input, ours);
    }
    return stream->helper < 0 ? -1 : 0;
}

void transfer_start(struct channel *channel, const struct frame *frame)
{
    struct stream *stream = stream_new(frame->stream);
    if (!stream) {
        channel_fault(channel, frame->stream, EAGAIN, "too many transfers, or the stream is in use");
        return;
    }
    stream->transfer = true;
    if (start(stream, frame) < 0) {
        channel_fault(channel, frame->stream, errno, "cannot start a transfer: %s", strerror(errno));
        stream_free(stream);
    }
}

void transfer_hear(struct stream *stream)
{
    static uint8_t message[CLOSING_BYTES];
    ssize_t got = recv(stream->control, message, sizeof message, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got > 0) {
        stream->closing_kind = message[0];
        bytes_add(&stream->closing, message + 1, (size_t)got - 1);
    }
    close(stream->control);
    stream->control = -1;
    stream->ended = true;
    input_close(&stream->input);
    stream->outputs[0].final = true;
}

void transfer_finish(struct stream *stream, struct channel *channel)
{
    if (stream->closing_kind)
        channel_send_bytes(channel, stream->closing_kind, stream->number, &stream->closing);
    else
        channel_fault(channel, stream->number, EIO, "the process that copies files was killed");
    stream_free(stream);
}
