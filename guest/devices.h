#ifndef METALMARK_DEVICES_H
#define METALMARK_DEVICES_H

/* Fill the root's /dev, an empty tmpfs: what a container has. The machine's disks and its channel to the host are left
 * out. */
int devices_make(int root);

#endif
