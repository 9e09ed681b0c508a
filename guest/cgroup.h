/* The cgroups that commands run in: our own (v2, in a virtual machine), or ones that the host has handed over. */
#ifndef METALMARK_CGROUP_H
#define METALMARK_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CGROUP_FDS = 16 };

/* Where one command's processes go. */
struct cgroup {
    int folder; /* of our own; -1: none */
    uint32_t number;
};

struct cgroup_usage {
    uint64_t user_us, system_us, memory_peak_bytes;
    bool out_of_memory;
};

int cgroup_inherit(uint64_t fd); /* a cgroup.procs descriptor of the host's */
size_t cgroup_inherited(int fds[CGROUP_FDS]);

/* Mount cgroup2 at path and make the group of all commands. *memory_bytes: 0 means all but a reserve; set to what
 * was granted. -1: this kernel has no cgroup v2 with memory and pids. */
int cgroup_own(const char *path, uint64_t *memory_bytes, uint64_t pids);

int cgroup_make(struct cgroup *cgroup, uint32_t number);
int cgroup_join(const struct cgroup *cgroup); /* the calling process */
bool cgroup_usage(const struct cgroup *cgroup, struct cgroup_usage *usage);
unsigned cgroup_signal(const struct cgroup *cgroup, int number); /* how many processes got it */
void cgroup_remove(struct cgroup *cgroup);
void cgroup_kill_all(void);

#endif
