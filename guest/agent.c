#include "agent.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clocks.h"
#include "descriptors.h"
#include "fields.h"
#include "files.h"
#include "processes.h"
#include "setup.h"
#include "stream.h"

#ifndef AGENT_VERSION
#define AGENT_VERSION "unknown"
#endif

enum { WATCHED_MOST = 2 + STREAMS * 4 };

static const uint64_t orphan_check_ns = 100ull * NS_PER_MS;

/* What a watched descriptor belongs to. */
struct watch {
    struct stream *stream;
    struct output *output; /* NULL: the control socket, or the input */
    bool input;
};

static struct channel channel;
static struct pollfd watched[WATCHED_MOST];
static struct watch watches[WATCHED_MOST];
static size_t watch_count;
static int children_fd;
static bool ready, leaving, machine;

static void say_hello(uint64_t began_ns)
{
    struct utsname names;
    struct sysinfo info;
    struct bytes payload = {0};
    uname(&names);
    sysinfo(&info);
    field_add_integer(&payload, HELLO_PROTOCOL, PROTOCOL);
    field_add_text(&payload, HELLO_ARCHITECTURE, names.machine);
    field_add_text(&payload, HELLO_KERNEL, names.release);
    field_add_integer(&payload, HELLO_MONOTONIC_NS, began_ns);
    field_add_integer(&payload, HELLO_CPUS, (uint64_t)sysconf(_SC_NPROCESSORS_ONLN));
    field_add_integer(&payload, HELLO_MEMORY_BYTES, (uint64_t)info.totalram * info.mem_unit);
    field_add_text(&payload, HELLO_AGENT, AGENT_VERSION);
    field_add_integer(&payload, HELLO_TIMER_HZ, machine ? timer_hz() : 0);
    channel_send_bytes(&channel, KIND_HELLO, 0, &payload);
}

static void handle_setup(const struct frame *frame)
{
    char problem[400] = "";
    struct bytes payload = {0};
    uint64_t memory_bytes = 0;
    if (ready) {
        channel_fault(&channel, frame->stream, EALREADY, "the box is set up already");
        return;
    }
    int error = setup_box(frame, machine, &memory_bytes, problem, sizeof problem);
    if (error) {
        channel_fault(&channel, frame->stream, error, "%s", problem);
        return;
    }
    ready = true;
    field_add_integer(&payload, READY_MONOTONIC_NS, monotonic_ns());
    field_add_integer(&payload, READY_MEMORY_MAX_BYTES, memory_bytes);
    channel_send_bytes(&channel, KIND_READY, frame->stream, &payload);
}

static void handle_clock(const struct frame *frame)
{
    struct bytes payload = {0};
    field_add_integer(&payload, CLOCK_MONOTONIC_NS, monotonic_ns());
    field_add_integer(&payload, CLOCK_REALTIME_NS, realtime_ns());
    channel_send_bytes(&channel, KIND_CLOCK_IS, frame->stream, &payload);
}

static void handle_signal(const struct frame *frame)
{
    struct field_reader reader = {.at = frame->payload, .left = frame->length};
    struct field field;
    uint64_t number = 0;
    struct stream *stream = stream_find(frame->stream);
    if (field_next(&reader, &field) <= 0 || field.tag != SIGNAL_NUMBER || field_integer(&field, &number) < 0 ||
        number == 0 || number >= NSIG || !stream)
        return; /* late: the stream has ended */
    if (!stream->transfer)
        command_signal(stream, (int)number);
    else if (number == SIGKILL && !stream->ended)
        kill(stream->helper, SIGKILL);
}

static void handle_input(const struct frame *frame)
{
    struct stream *stream = stream_find(frame->stream);
    if (!stream || stream->ended)
        return;
    input_take(&stream->input, &channel, frame->stream, frame->payload, frame->length);
    if (stream->input.overrun)
        leaving = true; /* a host that breaks the protocol; its next frames mean nothing */
}

static void handle_frame(const struct frame *frame)
{
    bool work = frame->kind == KIND_EXEC || frame->kind == KIND_GET || frame->kind == KIND_PUT;
    if (work && !ready) {
        channel_fault(&channel, frame->stream, EINVAL, "the box is not set up yet");
        return;
    }
    switch (frame->kind) {
    case KIND_SETUP:
        handle_setup(frame);
        break;
    case KIND_EXEC:
        command_start(&channel, frame);
        break;
    case KIND_GET:
    case KIND_PUT:
        transfer_start(&channel, frame);
        break;
    case KIND_INPUT:
        handle_input(frame);
        break;
    case KIND_SIGNAL:
        handle_signal(frame);
        break;
    case KIND_CLOCK:
        handle_clock(frame);
        break;
    case KIND_POWEROFF:
        leaving = true;
        break;
    default:
        break; /* from a newer host */
    }
}

static uint64_t microseconds(struct timeval time)
{
    return (uint64_t)time.tv_sec * 1000000u + (uint64_t)time.tv_usec;
}

/* Keepers, workers, and whatever else has come to us as the first process. */
static void reap(void)
{
    struct signalfd_siginfo ignored;
    struct rusage usage;
    int status;
    pid_t pid;
    while (read(children_fd, &ignored, sizeof ignored) > 0)
        ;
    while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0)
        for (size_t i = 0; i < STREAMS; i++) {
            struct stream *stream = stream_at(i);
            if (!stream || stream->transfer || stream->ended || stream->first != pid)
                continue;
            command_reaped(stream, status, microseconds(usage.ru_utime), microseconds(usage.ru_stime),
                           (uint64_t)usage.ru_maxrss * 1024);
        }
}

static void watch(int fd, short events, struct stream *stream, struct output *output, bool input)
{
    watched[watch_count] = (struct pollfd){.fd = fd, .events = events};
    watches[watch_count++] = (struct watch){.stream = stream, .output = output, .input = input};
}

static void watch_stream(struct stream *stream, uint64_t now_ns, uint64_t *wake_ns)
{
    if (stream->control >= 0)
        watch(stream->control, POLLIN, stream, NULL, false);
    if (input_wants_write(&stream->input))
        watch(stream->input.fd, POLLOUT, stream, NULL, true);
    for (size_t i = 0; i < OUTPUTS; i++) {
        struct output *output = &stream->outputs[i];
        if ((output->hold || !channel_full(&channel)) && output_wants_read(output, now_ns, wake_ns)) {
            watch(output->fd, POLLIN, stream, output, false);
            if (output->final) /* nothing may come any more that poll would wait for */
                *wake_ns = now_ns;
        }
    }
}

static int wait_ms(uint64_t now_ns, uint64_t wake_ns)
{
    if (wake_ns == UINT64_MAX)
        return -1;
    return wake_ns <= now_ns ? 0 : (int)((wake_ns - now_ns) / NS_PER_MS) + 1;
}

static void handle_watched(size_t i, uint64_t now_ns)
{
    struct watch *found = &watches[i];
    struct stream *stream = found->stream;
    if (!stream->used)
        return;
    if (found->output) {
        if (found->output->fd >= 0 && (watched[i].revents || found->output->final))
            output_read(found->output, now_ns);
    } else if (watched[i].revents && found->input) {
        input_write(&stream->input, &channel, stream->number);
    } else if (watched[i].revents && stream->control == watched[i].fd) {
        if (stream->transfer)
            transfer_hear(stream);
        else
            command_hear(stream, &channel);
    }
}

/* Send what is due on every stream, and close those that are through. */
static void send_due(uint64_t now_ns, uint64_t *wake_ns)
{
    for (size_t i = 0; i < STREAMS; i++) {
        struct stream *stream = stream_at(i);
        if (!stream)
            continue;
        if (stream->orphaned && !stream->ended) {
            command_check_orphan(stream);
            if (now_ns + orphan_check_ns < *wake_ns)
                *wake_ns = now_ns + orphan_check_ns;
        }
        for (size_t out = 0; out < OUTPUTS; out++)
            output_send(&stream->outputs[out], &channel, stream->number, now_ns, wake_ns);
        if (!stream->ended || !output_done(&stream->outputs[0]) || !output_done(&stream->outputs[1]))
            continue;
        if (stream->transfer)
            transfer_finish(stream, &channel);
        else
            command_finish(stream, &channel);
    }
}

/* False: the host is gone. */
static bool serve_channel(short events)
{
    struct frame frame;
    if (events & (POLLIN | POLLHUP | POLLERR)) {
        if (channel_fill(&channel) < 0) {
            if (channel.spoken || !machine)
                return false;
            sleep_ms(5); /* the host has not opened its end of the port yet, and there is nothing to poll for */
        }
        while (!leaving && channel_take(&channel, &frame))
            handle_frame(&frame);
    }
    return !channel.broken && (channel_flush(&channel) == 0 || (machine && !channel.spoken));
}

static bool turn(void)
{
    uint64_t now_ns = monotonic_ns(), wake_ns = UINT64_MAX;
    send_due(now_ns, &wake_ns);
    bool was_full = channel_full(&channel);
    if (channel_flush(&channel) < 0 && (channel.spoken || !machine))
        return false;
    if (was_full && !channel_full(&channel)) /* what did not fit can go now, and no descriptor will say so */
        wake_ns = now_ns;
    watch_count = 0;
    watch(channel.fd, (short)(POLLIN | (channel_wants_write(&channel) ? POLLOUT : 0)), NULL, NULL, false);
    watch(children_fd, POLLIN, NULL, NULL, false);
    for (size_t i = 0; i < STREAMS; i++)
        if (stream_at(i))
            watch_stream(stream_at(i), now_ns, &wake_ns);
    if (poll(watched, watch_count, wait_ms(now_ns, wake_ns)) < 0 && errno != EINTR)
        return false;
    now_ns = monotonic_ns();
    for (size_t i = 2; i < watch_count; i++)
        handle_watched(i, now_ns);
    if (watched[1].revents)
        reap();
    return serve_channel(watched[0].revents);
}

static void prepare(void)
{
    struct rlimit files = {65536, 65536};
    sigset_t children;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, NULL);
    children_fd = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (setrlimit(RLIMIT_NOFILE, &files) < 0 && getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    processes_open();
    processes_set_oom_score("-1000");
    descriptors_close_on_exec();
}

static void kill_everything(void)
{
    cgroup_kill_all();
    for (int tries = 0; tries < 50 && processes_signal(getpid(), SIGKILL, NULL, 0) > 0; tries++) {
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        sleep_ms(2);
    }
}

int agent_serve(const struct agent_options *options)
{
    machine = options->machine;
    prepare();
    channel_open(&channel, options->fd);
    say_hello(options->began_ns);
    bool here = true;
    while (here && !leaving)
        here = turn();
    kill_everything();
    return here ? 0 : 1;
}
