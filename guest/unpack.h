#ifndef METALMARK_UNPACK_H
#define METALMARK_UNPACK_H

#include "channel.h"

/* Carry out a PUT: unpack the archive that comes from fd, and add the fields of DONE to message; or those of FAULT, and
 * return -1. */
int unpack(const struct frame *frame, int fd, struct bytes *message);

#endif
