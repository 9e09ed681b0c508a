#ifndef METALMARK_COLLECT_H
#define METALMARK_COLLECT_H

#include "channel.h"

/* Carry out a GET: write the archive to fd and add the fields of DONE to message; or those of FAULT, and return -1. */
int collect(const struct frame *frame, int fd, struct bytes *message);

#endif
