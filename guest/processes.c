#include "processes.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define PROC_SUPER_MAGIC 0x9fa0

struct process {
    pid_t pid, parent;
    unsigned long long start;
    bool zombie, below;
};

static int proc_fd = -1;

void processes_open(void)
{
    struct statfs found;
    int fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && fstatfs(fd, &found) == 0 && found.f_type == PROC_SUPER_MAGIC)
        proc_fd = fd;
    else if (fd >= 0)
        close(fd);
}

int processes_proc_fd(void)
{
    return proc_fd;
}

void processes_set_oom_score(const char *value)
{
    int fd = proc_fd < 0 ? -1 : openat(proc_fd, "self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, value, strlen(value)) < 0) {
        /* Not allowed without privilege; then the kernel's own choice stands. */
    }
    close(fd);
}

static bool read_process(const char *name, struct process *process)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "%s/stat", name);
    int fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0)
        return false;
    text[got] = 0;
    char *after = strrchr(text, ')'); /* the name in parentheses may hold anything */
    char state;
    int parent;
    unsigned long long start;
    if (!after || sscanf(after + 1, " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                         &state, &parent, &start) != 3)
        return false;
    *process = (struct process){.pid = atoi(name), .parent = parent, .start = start, .zombie = state == 'Z' || state == 'X'};
    return true;
}

static struct process *read_all(size_t *count)
{
    int fd = openat(proc_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    struct process *all = NULL;
    size_t capacity = 0;
    *count = 0;
    if (!folder) {
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    for (struct dirent *entry; (entry = readdir(folder));) {
        struct process process;
        if (!isdigit((unsigned char)entry->d_name[0]) || !read_process(entry->d_name, &process))
            continue;
        if (*count == capacity) {
            size_t more = capacity ? capacity * 2 : 256;
            struct process *larger = realloc(all, more * sizeof *all);
            if (!larger)
                break;
            all = larger;
            capacity = more;
        }
        all[(*count)++] = process;
    }
    closedir(folder);
    return all;
}

static bool spared(pid_t pid, const pid_t *spare, size_t spares)
{
    for (size_t i = 0; i < spares; i++)
        if (spare[i] == pid)
            return true;
    return false;
}

/* A child has mostly a higher number than its parent and comes later in /proc, so one pass finds most of a tree. */
static void mark_below(struct process *all, size_t count, pid_t root, const pid_t *spare, size_t spares)
{
    pid_t highest = root;
    for (size_t i = 0; i < count; i++)
        highest = all[i].pid > highest ? all[i].pid : highest;
    bool *below = calloc((size_t)highest + 1, sizeof *below);
    if (!below)
        return;
    below[root] = true;
    for (bool found = true; found;) {
        found = false;
        for (size_t i = 0; i < count; i++) {
            struct process *process = &all[i];
            if (process->below || process->parent < 0 || process->parent > highest || !below[process->parent])
                continue;
            if (process->pid == root || spared(process->pid, spare, spares))
                continue;
            process->below = below[process->pid] = found = true;
        }
    }
    free(below);
}

/* By pidfd, and only if the number still means the process that was seen. */
static bool send_to(const struct process *process, int number)
{
    char name[16];
    struct process again;
    int pidfd = (int)syscall(SYS_pidfd_open, process->pid, 0);
    if (pidfd < 0) /* ENOSYS before Linux 5.3 and under user-mode emulation */
        return errno == ENOSYS && kill(process->pid, number) == 0;
    snprintf(name, sizeof name, "%d", process->pid);
    bool same = read_process(name, &again) && again.start == process->start;
    bool sent = same && syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0) == 0;
    close(pidfd);
    return sent;
}

size_t processes_signal(pid_t root, int number, const pid_t *spare, size_t spares)
{
    size_t count = 0, sent = 0;
    struct process *all = proc_fd < 0 ? NULL : read_all(&count);
    mark_below(all, count, root, spare, spares);
    for (size_t i = 0; i < count; i++)
        if (all[i].below && !all[i].zombie && send_to(&all[i], number))
            sent++;
    free(all);
    return sent;
}
