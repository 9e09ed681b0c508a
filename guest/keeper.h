/* One process beside each command: every descendant of the command comes back to it (PR_SET_CHILD_SUBREAPER), however
 * it detached itself, so that the end of a command is the end of all of them. */
#ifndef METALMARK_KEEPER_H
#define METALMARK_KEEPER_H

#include <sys/types.h>

#include "launch.h"

/* To the agent: FORKED from the command's first process itself, before it can do harm; then from the keeper STARTED and
 * GONE, or FAILED alone. */
enum keeper_event { KEEPER_STARTED = 1, KEEPER_GONE = 2, KEEPER_FAILED = 3, KEEPER_FORKED = 4 };

struct keeper_record {
    uint32_t event;
    int32_t pid, status; /* status: as wait(2) gives it */
    uint32_t ending;
    int32_t error;
    uint64_t started_ns, ended_ns, user_us, system_us, memory_peak_bytes, left_killed;
    char message[400];
};

/* From the agent to the keeper: the number of a signal for the whole command. */

/* Returns the keeper's pid, or -1. *control is the agent's end. Closes the streams in the agent. */
pid_t keeper_start(const struct launch *launch, const struct cgroup *cgroup, struct launch_files *files, int *control);

#endif
