#ifndef METALMARK_OVERRIDES_H
#define METALMARK_OVERRIDES_H

#include "setup.h"

/* Mount /etc/hosts, /etc/hostname and, with a name server, /etc/resolv.conf over what the image has. */
int overrides_mount(int root, const struct setup *setup);

#endif
