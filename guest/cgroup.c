#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clocks.h"
#include "files.h"

enum { MIB = 1024 * 1024 };

static int inherited[CGROUP_FDS];
static unsigned inherited_count;
static int job_folder = -1;

int cgroup_inherit(uint64_t fd)
{
    if (inherited_count == CGROUP_FDS || fd > INT32_MAX || fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0)
        return -1;
    inherited[inherited_count++] = (int)fd;
    return 0;
}

size_t cgroup_inherited(int fds[CGROUP_FDS])
{
    memcpy(fds, inherited, inherited_count * sizeof *fds);
    return inherited_count;
}

/* What is there when nothing runs yet, less what the kernel and the agent need to live on when commands have used up
 * theirs: the command's group shall meet its own bound before the machine's. */
static uint64_t granted(uint64_t asked)
{
    uint64_t total = file_value(AT_FDCWD, "/proc/meminfo", "MemTotal:", 0) * 1024;
    uint64_t most = file_value(AT_FDCWD, "/proc/meminfo", "MemAvailable:", total / 1024) * 1024;
    uint64_t reserve = 8ull * MIB + total / 64;
    most -= reserve < most / 4 ? reserve : most / 4;
    return asked == 0 || asked > most ? most : asked;
}

int cgroup_own(const char *path, uint64_t *memory_bytes, uint64_t pids)
{
    char job[256], number[32];
    file_make_folder(path);
    if (mount("cgroup2", path, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        return -1;
    snprintf(job, sizeof job, "%s/job", path);
    int top = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (top < 0 || file_write(top, "cgroup.subtree_control", "+memory +pids") < 0 || mkdir(job, 0755) < 0)
        goto failed;
    job_folder = open(job, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *memory_bytes = granted(*memory_bytes);
    snprintf(number, sizeof number, "%llu", (unsigned long long)*memory_bytes);
    if (job_folder < 0 || file_write(job_folder, "memory.max", number) < 0 ||
        file_write(job_folder, "cgroup.subtree_control", "+memory +pids") < 0)
        goto failed;
    file_write(job_folder, "memory.swap.max", "0"); /* not there when the kernel has no swap */
    snprintf(number, sizeof number, "%llu", (unsigned long long)pids);
    if (pids && file_write(job_folder, "pids.max", number) < 0)
        goto failed;
    close(top);
    return 0;
failed:
    if (top >= 0)
        close(top);
    return -1;
}

int cgroup_make(struct cgroup *cgroup, uint32_t number)
{
    char name[16];
    *cgroup = (struct cgroup){.folder = -1, .number = number};
    if (job_folder < 0)
        return 0;
    snprintf(name, sizeof name, "%u", number);
    if (mkdirat(job_folder, name, 0755) < 0 && errno != EEXIST)
        return -1;
    cgroup->folder = openat(job_folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (cgroup->folder < 0)
        return -1;
    return file_write(cgroup->folder, "memory.oom.group", "1");
}

int cgroup_join(const struct cgroup *cgroup)
{
    if (cgroup->folder >= 0 && file_write(cgroup->folder, "cgroup.procs", "0") < 0)
        return -1;
    for (unsigned i = 0; i < inherited_count; i++)
        if (write(inherited[i], "0", 1) < 0)
            return -1;
    return 0;
}

bool cgroup_usage(const struct cgroup *cgroup, struct cgroup_usage *usage)
{
    char text[64];
    *usage = (struct cgroup_usage){0};
    if (cgroup->folder < 0)
        return false;
    usage->user_us = file_value(cgroup->folder, "cpu.stat", "user_usec ", 0);
    usage->system_us = file_value(cgroup->folder, "cpu.stat", "system_usec ", 0);
    if (file_read(cgroup->folder, "memory.peak", text, sizeof text) > 0) /* Linux 5.19 and later */
        usage->memory_peak_bytes = strtoull(text, NULL, 10);
    usage->out_of_memory = file_value(cgroup->folder, "memory.events", "oom_kill ", 0) > 0;
    return true;
}

unsigned cgroup_signal(const struct cgroup *cgroup, int number)
{
    unsigned count = 0;
    int fd = openat(cgroup->folder, "cgroup.procs", O_RDONLY | O_CLOEXEC);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    if (!file) {
        if (fd >= 0)
            close(fd);
        return 0;
    }
    for (int pid; fscanf(file, "%d", &pid) == 1;)
        if (pid > 0 && (number == SIGKILL || kill(pid, number) == 0))
            count++;
    fclose(file);
    /* One write that no fork can outrun; before Linux 5.14 it is not there. */
    if (number == SIGKILL && file_write(cgroup->folder, "cgroup.kill", "1") < 0) {
        fd = openat(cgroup->folder, "cgroup.procs", O_RDONLY | O_CLOEXEC);
        file = fd < 0 ? NULL : fdopen(fd, "r");
        for (int pid; file && fscanf(file, "%d", &pid) == 1;)
            kill(pid, SIGKILL);
        if (file)
            fclose(file);
    }
    return count;
}

void cgroup_remove(struct cgroup *cgroup)
{
    char name[16];
    if (cgroup->folder < 0)
        return;
    close(cgroup->folder);
    cgroup->folder = -1;
    snprintf(name, sizeof name, "%u", cgroup->number);
    /* The last process may have been reaped a moment before its cgroup lets go of it. */
    for (int tries = 0; unlinkat(job_folder, name, AT_REMOVEDIR) < 0 && errno == EBUSY && tries < 20; tries++)
        sleep_ms(1);
}

void cgroup_kill_all(void)
{
    if (job_folder >= 0)
        file_write(job_folder, "cgroup.kill", "1");
}
