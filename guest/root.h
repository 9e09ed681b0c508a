/* The root file system of a machine's commands. */
#ifndef METALMARK_ROOT_H
#define METALMARK_ROOT_H

#include "setup.h"

/* Put it together and make it the agent's own. 0, or an errno with what went wrong in `problem`. */
int root_make(const struct setup *setup, char *problem, size_t problem_size);

/* Write everything back and make the disks read-only, as far as what runs lets it. */
void root_settle(void);

#endif
