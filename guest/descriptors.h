#ifndef METALMARK_DESCRIPTORS_H
#define METALMARK_DESCRIPTORS_H

#include <stddef.h>

/* Close every descriptor above 2 that is not listed; the list may hold -1 and is sorted in place. */
void descriptors_close_all_but(int *keep, size_t count);

/* Let no program that is started inherit a descriptor above 2. */
void descriptors_close_on_exec(void);

/* /dev/null if that is what it is, else a pipe that is at its end: an image can put anything at that path. */
int descriptors_null(int flags);

#endif
