/* Users and groups as the image's /etc/passwd and /etc/group have them. */
#ifndef METALMARK_USER_H
#define METALMARK_USER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { USER_GROUPS = 256, USER_HOME = 1024 };

struct user {
    uid_t uid;
    gid_t gid;
    gid_t groups[USER_GROUPS];
    size_t group_count;
    char home[USER_HOME]; /* empty: the image does not say */
};

/* Look up `user`, `uid`, `user:group`, `uid:gid` or any mix; empty is root. As Docker does: a number need not be in
 * the files; supplementary groups are those that list the user, unless a group is named.
 * -1: no such user or group; which one is written to `missing`. */
int user_find(const char *wanted, struct user *user, char *missing, size_t missing_size);

/* The same over given files, for tests; -1 for a file that is not there. */
int user_find_in(const char *wanted, int passwd, int group, struct user *user, char *missing, size_t missing_size);

#endif
