/* Descendants of a process, by /proc. */
#ifndef METALMARK_PROCESSES_H
#define METALMARK_PROCESSES_H

#include <stddef.h>
#include <sys/types.h>

/* The /proc that was there before any command ran. -1: none. */
void processes_open(void);
int processes_proc_fd(void);

/* Send a signal to every descendant of root, leaving out the subtrees of `spare`. Returns how many got it. Zombies do
 * not count. Without /proc, does nothing. */
size_t processes_signal(pid_t root, int number, const pid_t *spare, size_t spares);

/* Set the oom_score_adj of the calling process. */
void processes_set_oom_score(const char *value);

#endif
