#ifndef METALMARK_SETUP_H
#define METALMARK_SETUP_H

#include <stdbool.h>
#include <stddef.h>

#include "channel.h"

struct setup {
    char *root, *root_type, *scratch, *hostname, *address, *gateway, *nameserver;
    uint64_t realtime_ns, memory_bytes, pids;
    const uint8_t *seed;
    size_t seed_length;
};

/* Carry out a SETUP. 0, or an errno with what went wrong in `problem`. */
int setup_box(const struct frame *frame, bool machine, uint64_t *memory_bytes, char *problem, size_t problem_size);

#endif
