/* The last steps of a new process, up to execve. */
#ifndef METALMARK_LAUNCH_H
#define METALMARK_LAUNCH_H

#include <stdbool.h>
#include <stdint.h>

#include "cgroup.h"
#include "channel.h"

struct launch {
    char **argv;
    char **env;
    char *workdir;
    char *user;
    bool with_stdin, hold;
    uint64_t stream_bytes, grace_ms;
};

/* What the new process says before it runs, or why it does not. */
struct launch_word {
    uint64_t started_ns;
    uint32_t ending; /* ENDING_EXITED: about to execve */
    int32_t error;
    char message[400];
};

/* Read the payload of an EXEC. NULL: not a request that can be carried out; errno says why. */
struct launch *launch_parse(const struct frame *frame);
void launch_free(struct launch *launch);

/* Take null_fd for streams that nobody asked for. Writes words to word_fd (close-on-exec). Never returns. */
struct launch_files {
    int in, out, err, word;
};
_Noreturn void launch_run(const struct launch *launch, const struct cgroup *cgroup, const struct launch_files *files);

/* Whether commands get the limits of a whole machine (init mode) or those that the agent was given. */
extern bool launch_sets_limits;

#endif
