/* A machine from its first process to the open channel, and its end. */
#ifndef METALMARK_BOOT_H
#define METALMARK_BOOT_H

int boot_machine(void); /* the channel; -1: the machine cannot be used, and the console was told */
_Noreturn void boot_end_machine(void);

#endif
