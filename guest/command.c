#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clocks.h"
#include "descriptors.h"
#include "fields.h"
#include "processes.h"
#include "stream.h"

struct pipes {
    int in[2], out[2], err[2];
};

static void close_pair(int pair[2])
{
    for (int i = 0; i < 2; i++)
        if (pair[i] >= 0)
            close(pair[i]);
    pair[0] = pair[1] = -1;
}

static int open_pipes(struct pipes *pipes, bool with_stdin)
{
    *pipes = (struct pipes){{-1, -1}, {-1, -1}, {-1, -1}};
    if (with_stdin ? pipe2(pipes->in, O_CLOEXEC) : (pipes->in[0] = descriptors_null(O_RDONLY)) < 0)
        return -1;
    if (pipe2(pipes->out, O_CLOEXEC) < 0 || pipe2(pipes->err, O_CLOEXEC) < 0)
        return -1;
    if (pipes->in[1] >= 0)
        fcntl(pipes->in[1], F_SETFL, O_NONBLOCK);
    fcntl(pipes->out[0], F_SETFL, O_NONBLOCK);
    fcntl(pipes->err[0], F_SETFL, O_NONBLOCK);
    fcntl(pipes->out[1], F_SETPIPE_SZ, OUTPUT_PIPE_BYTES); /* over the user's share: the usual 64 KiB do too */
    fcntl(pipes->err[1], F_SETPIPE_SZ, OUTPUT_PIPE_BYTES);
    return 0;
}

static void watch_pipes(struct stream *stream, struct pipes *pipes, const struct launch *launch)
{
    input_open(&stream->input, pipes->in[1]);
    output_open(&stream->outputs[0], pipes->out[0], KIND_STDOUT, launch->stream_bytes);
    output_open(&stream->outputs[1], pipes->err[0], KIND_STDERR, launch->stream_bytes);
    stream->outputs[0].hold = stream->outputs[1].hold = stream->held = launch->hold;
    pipes->in[1] = pipes->out[0] = pipes->err[0] = -1;
}

static int start(struct stream *stream, const struct launch *launch)
{
    struct pipes pipes;
    int result = -1;
    if (open_pipes(&pipes, launch->with_stdin) == 0 && cgroup_make(&stream->cgroup, stream->number) == 0) {
        struct launch_files files = {.in = pipes.in[0], .out = pipes.out[1], .err = pipes.err[1], .word = -1};
        stream->helper = keeper_start(launch, &stream->cgroup, &files, &stream->control);
        if (stream->helper > 0) {
            watch_pipes(stream, &pipes, launch);
            result = 0;
        }
    }
    int error = errno;
    close_pair(pipes.in);
    close_pair(pipes.out);
    close_pair(pipes.err);
    errno = error;
    return result;
}

void command_start(struct channel *channel, const struct frame *frame)
{
    struct launch *launch = launch_parse(frame);
    if (!launch) {
        channel_fault(channel, frame->stream, EINVAL, "the command is malformed");
        return;
    }
    struct stream *stream = stream_new(frame->stream);
    if (!stream) {
        channel_fault(channel, frame->stream, EAGAIN, "too many commands, or the stream is in use");
    } else if (start(stream, launch) < 0) {
        channel_fault(channel, frame->stream, errno, "cannot start a command: %s", strerror(errno));
        stream_free(stream);
    }
    launch_free(launch);
}

static void end(struct stream *stream)
{
    stream->ended = true;
    if (stream->control >= 0)
        close(stream->control);
    stream->control = -1;
    input_close(&stream->input);
    for (size_t i = 0; i < OUTPUTS; i++)
        stream->outputs[i].final = true;
}

/* A command with the right to do so has killed its keeper; its processes are ours now. */
static void take_over(struct stream *stream)
{
    close(stream->control);
    stream->control = -1;
    stream->orphaned = true;
    command_check_orphan(stream);
}

void command_check_orphan(struct stream *stream)
{
    if (stream->first != 0 && (kill(stream->first, 0) == 0 || errno != ESRCH))
        return;
    stream->record.ending = ENDING_FAILED;
    stream->record.error = ECHILD;
    stream->record.ended_ns = monotonic_ns();
    strcpy(stream->record.message, "the process that watches over the command was killed");
    if (stream->cgroup.folder >= 0)
        cgroup_signal(&stream->cgroup, SIGKILL);
    end(stream);
}

void command_hear(struct stream *stream, struct channel *channel)
{
    struct keeper_record record;
    ssize_t got = recv(stream->control, &record, sizeof record, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got != sizeof record) {
        take_over(stream);
        return;
    }
    stream->record = record;
    if (record.event == KEEPER_FORKED) {
        stream->first = record.pid;
        return;
    }
    if (record.event == KEEPER_STARTED) {
        channel_send(channel, KIND_STARTED, stream->number, NULL, 0);
        return;
    }
    end(stream);
}

/* Kill what is left of a command without its keeper: all that came to us and belongs to no other. */
static size_t kill_strays(void)
{
    pid_t others[2 * STREAMS];
    size_t count = 0;
    for (size_t i = 0; i < STREAMS; i++) {
        struct stream *other = stream_at(i);
        if (!other)
            continue;
        if (!other->orphaned && !other->ended)
            others[count++] = other->helper;
        else if (other->orphaned && !other->ended)
            others[count++] = other->first;
    }
    return processes_signal(getpid(), SIGKILL, others, count);
}

void command_reaped(struct stream *stream, int status, uint64_t user_us, uint64_t system_us, uint64_t peak_bytes)
{
    stream->record.status = status;
    stream->record.ended_ns = monotonic_ns();
    stream->record.user_us = user_us;
    stream->record.system_us = system_us;
    stream->record.memory_peak_bytes = peak_bytes;
    end(stream);
    stream->record.left_killed =
        stream->cgroup.folder >= 0 ? cgroup_signal(&stream->cgroup, SIGKILL) : kill_strays();
}

void command_signal(struct stream *stream, int number)
{
    if (stream->orphaned && stream->cgroup.folder >= 0)
        cgroup_signal(&stream->cgroup, number);
    else if (stream->orphaned)
        kill(stream->first, number);
    else if (stream->control >= 0 && send(stream->control, &number, sizeof number, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        return; /* its end is on the way */
}

static void find_ending(const struct stream *stream, bool out_of_memory, uint64_t *ending, uint64_t *code)
{
    const struct keeper_record *record = &stream->record;
    *ending = record->ending;
    *code = (uint64_t)record->error;
    if (record->ending != ENDING_EXITED)
        return;
    if (WIFEXITED(record->status)) {
        *code = (uint64_t)WEXITSTATUS(record->status);
        return;
    }
    *code = (uint64_t)WTERMSIG(record->status);
    *ending = *code == SIGKILL && out_of_memory ? ENDING_OUT_OF_MEMORY : ENDING_SIGNALED;
}

void command_finish(struct stream *stream, struct channel *channel)
{
    struct keeper_record *record = &stream->record;
    struct cgroup_usage usage;
    struct bytes payload = {0};
    uint64_t ending, code;
    if (cgroup_usage(&stream->cgroup, &usage)) {
        record->user_us = usage.user_us;
        record->system_us = usage.system_us;
        if (usage.memory_peak_bytes)
            record->memory_peak_bytes = usage.memory_peak_bytes;
    }
    find_ending(stream, usage.out_of_memory, &ending, &code);
    field_add_integer(&payload, EXIT_ENDING, ending);
    field_add_integer(&payload, EXIT_CODE, code);
    field_add_integer(&payload, EXIT_STARTED_NS, record->started_ns);
    field_add_integer(&payload, EXIT_ENDED_NS, record->ended_ns);
    field_add_integer(&payload, EXIT_USER_US, record->user_us);
    field_add_integer(&payload, EXIT_SYSTEM_US, record->system_us);
    field_add_integer(&payload, EXIT_MEMORY_PEAK_BYTES, record->memory_peak_bytes);
    field_add_integer(&payload, EXIT_STDOUT_BYTES, stream->outputs[0].total);
    field_add_integer(&payload, EXIT_STDERR_BYTES, stream->outputs[1].total);
    field_add_text(&payload, EXIT_MESSAGE, record->message);
    field_add_integer(&payload, EXIT_LEFT_KILLED, record->left_killed);
    channel_send_bytes(channel, KIND_EXITED, stream->number, &payload);
    stream_free(stream);
}
