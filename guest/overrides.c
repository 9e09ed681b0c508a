#include "overrides.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"

static const char folder[] = "/overrides"; /* a tmpfs in the agent's own root */

static int write_source(const char *name, const char *text)
{
    char path[64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return -1;
    int result = file_write_all(fd, text, strlen(text));
    close(fd);
    return result;
}

/* The file that the image has is covered, and stays as it is. A link is replaced in the scratch: what it points to may
 * be anything. */
static int cover(int etc, const char *name, const char *text)
{
    char source[64], target[64];
    struct stat found;
    if (write_source(name, text) < 0)
        return -1;
    if (fstatat(etc, name, &found, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(found.st_mode))
        unlinkat(etc, name, 0);
    int made = openat(etc, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_EXCL | O_CLOEXEC, 0644);
    if (made >= 0)
        close(made);
    int fd = openat(etc, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -1;
    snprintf(source, sizeof source, "%s/%s", folder, name);
    snprintf(target, sizeof target, "/proc/self/fd/%d", fd);
    int result = mount(source, target, NULL, MS_BIND, NULL), error = errno;
    close(fd);
    errno = error;
    return result;
}

int overrides_mount(int root, const struct setup *setup)
{
    char text[1024];
    const char *name = setup->hostname && *setup->hostname ? setup->hostname : "localhost";
    file_make_folder(folder);
    if (mount("overrides", folder, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=64k") < 0)
        return -1;
    mkdirat(root, "etc", 0755);
    int etc = openat(root, "etc", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (etc < 0)
        return -1;
    snprintf(text, sizeof text,
             "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t%.255s\n", name);
    int result = cover(etc, "hosts", text);
    snprintf(text, sizeof text, "%.255s\n", name);
    result |= cover(etc, "hostname", text);
    if (setup->nameserver && *setup->nameserver) {
        snprintf(text, sizeof text, "nameserver %.255s\n", setup->nameserver);
        result |= cover(etc, "resolv.conf", text);
    }
    close(etc);
    return result ? -1 : 0;
}
