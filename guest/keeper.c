#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clocks.h"
#include "descriptors.h"
#include "processes.h"

enum { KILL_AGAIN_MS = 20 };

struct keeper {
    const struct launch *launch;
    const struct cgroup *cgroup;
    int control, children;
    pid_t first;
    bool first_ended, killing, abandoned;
    uint64_t deadline_ns;
    struct keeper_record record;
};

static size_t signal_command(struct keeper *keeper, int number)
{
    if (keeper->cgroup->folder >= 0)
        return cgroup_signal(keeper->cgroup, number);
    return processes_signal(getpid(), number, NULL, 0);
}

static void kill_rest(struct keeper *keeper)
{
    if (!keeper->killing && keeper->cgroup->folder < 0)
        signal_command(keeper, SIGSTOP); /* what is stopped cannot fork while the rest is looked for */
    size_t count = signal_command(keeper, SIGKILL);
    if (keeper->first_ended && !keeper->killing)
        keeper->record.left_killed = count;
    keeper->killing = true;
    keeper->deadline_ns = monotonic_ns() + KILL_AGAIN_MS * (uint64_t)NS_PER_MS;
}

/* False when no child is left. */
static bool reap(struct keeper *keeper)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid != keeper->first)
            continue;
        keeper->first_ended = true;
        keeper->record.status = status;
        keeper->record.ended_ns = monotonic_ns();
        if (!keeper->killing)
            keeper->deadline_ns = keeper->record.ended_ns + keeper->launch->grace_ms * (uint64_t)NS_PER_MS;
    }
    return pid == 0 || errno != ECHILD;
}

static void obey(struct keeper *keeper)
{
    int number = 0;
    ssize_t got = recv(keeper->control, &number, sizeof number, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got != sizeof number) { /* the agent is gone */
        keeper->abandoned = true;
        number = SIGKILL;
    }
    if (number == SIGKILL)
        kill_rest(keeper);
    else
        signal_command(keeper, number);
}

static int time_left_ms(const struct keeper *keeper)
{
    uint64_t now = monotonic_ns();
    if (!keeper->first_ended && !keeper->killing)
        return -1;
    if (keeper->deadline_ns <= now)
        return 0;
    return (int)((keeper->deadline_ns - now) / NS_PER_MS) + 1;
}

static void watch(struct keeper *keeper)
{
    struct signalfd_siginfo ignored;
    while (reap(keeper)) {
        struct pollfd watched[2] = {
            {.fd = keeper->children, .events = POLLIN},
            {.fd = keeper->abandoned ? -1 : keeper->control, .events = POLLIN},
        };
        int ready = poll(watched, 2, time_left_ms(keeper));
        if (ready > 0 && watched[0].revents && read(keeper->children, &ignored, sizeof ignored) < 0)
            continue;
        if (ready > 0 && watched[1].revents)
            obey(keeper);
        if ((keeper->first_ended || keeper->killing) && monotonic_ns() >= keeper->deadline_ns)
            kill_rest(keeper);
    }
}

static uint64_t microseconds(struct timeval time)
{
    return (uint64_t)time.tv_sec * 1000000u + (uint64_t)time.tv_usec;
}

static void send_record(struct keeper *keeper, enum keeper_event event)
{
    keeper->record.event = event;
    if (send(keeper->control, &keeper->record, sizeof keeper->record, MSG_NOSIGNAL) < 0)
        keeper->abandoned = true;
}

/* Wait until the first process runs the program, or has said why not. */
static bool await_start(struct keeper *keeper, int words)
{
    struct launch_word word;
    ssize_t got;
    while ((got = read(words, &word, sizeof word)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got != sizeof word)
            break;
        if (word.ending == ENDING_EXITED) {
            keeper->record.started_ns = word.started_ns;
            continue;
        }
        keeper->record.ending = word.ending;
        keeper->record.error = word.error;
        memcpy(keeper->record.message, word.message, sizeof word.message);
        return false;
    }
    if (keeper->record.started_ns)
        return true;
    keeper->record.ending = ENDING_FAILED;
    keeper->record.error = EIO;
    snprintf(keeper->record.message, sizeof keeper->record.message, "the new process died before it ran");
    return false;
}

static _Noreturn void keep(struct keeper *keeper, struct launch_files *files)
{
    int words[2];
    sigset_t children;
    struct rusage usage;
    setsid();
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, NULL);
    keeper->children = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
    if (pipe2(words, O_CLOEXEC) < 0 || (keeper->first = fork()) < 0) {
        keeper->record.ending = ENDING_FAILED;
        keeper->record.error = errno;
        snprintf(keeper->record.message, sizeof keeper->record.message, "cannot fork: %s", strerror(errno));
        send_record(keeper, KEEPER_FAILED);
        _exit(1);
    }
    if (keeper->first == 0) {
        keeper->record.pid = getpid();
        keeper->record.started_ns = monotonic_ns();
        send_record(keeper, KEEPER_FORKED);
        files->word = words[1];
        launch_run(keeper->launch, keeper->cgroup, files);
    }
    close(words[1]);
    close(files->in);
    close(files->out);
    close(files->err);
    bool started = await_start(keeper, words[0]);
    close(words[0]);
    if (started) {
        keeper->record.pid = keeper->first;
        send_record(keeper, KEEPER_STARTED);
    }
    watch(keeper);
    if (getrusage(RUSAGE_CHILDREN, &usage) == 0) {
        keeper->record.user_us = microseconds(usage.ru_utime);
        keeper->record.system_us = microseconds(usage.ru_stime);
        keeper->record.memory_peak_bytes = (uint64_t)usage.ru_maxrss * 1024;
    }
    send_record(keeper, started ? KEEPER_GONE : KEEPER_FAILED);
    _exit(0);
}

pid_t keeper_start(const struct launch *launch, const struct cgroup *cgroup, struct launch_files *files, int *control)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        /* Ends of other commands' pipes, held here, would keep those open. */
        int keep_open[CGROUP_FDS + 6] = {files->in, files->out, files->err, ends[1], cgroup->folder, processes_proc_fd()};
        size_t count = 6 + cgroup_inherited(keep_open + 6);
        descriptors_close_all_but(keep_open, count);
        struct keeper keeper = {.launch = launch, .cgroup = cgroup, .control = ends[1]};
        keep(&keeper, files);
    }
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return -1;
    }
    *control = ends[0];
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    return pid;
}
