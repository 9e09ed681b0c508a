#ifndef METALMARK_NETWORK_H
#define METALMARK_NETWORK_H

#include <stddef.h>

void network_loopback(void);

/* Loopback, and with an address (`a.b.c.d/prefix`) the first other interface too. -1 with errno and `problem`. */
int network_start(const char *address, const char *gateway, char *problem, size_t problem_size);

#endif
