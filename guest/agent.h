/* The agent's one loop. */
#ifndef METALMARK_AGENT_H
#define METALMARK_AGENT_H

#include <stdbool.h>
#include <stdint.h>

struct agent_options {
    int fd;            /* the channel to the host */
    bool machine;      /* this is a virtual machine of ours: SETUP makes its root, POWEROFF ends it */
    uint64_t began_ns; /* guest clock at the first instruction */
};

/* Serve until the host says POWEROFF (returns 0) or is gone (returns 1). */
int agent_serve(const struct agent_options *options);

#endif
