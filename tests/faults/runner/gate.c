/* Linked to the sources of the guest agent by gated_agent.py: waits when its kernel has booted, before it
 * sets a box up, and before it sends files. */
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "channel.h"
#include "setup.h"

static int gate = -1;

static int open_gate(void)
{
    char path[300], name[64];
    int found = -1;
    DIR *ports = opendir("/sys/class/virtio-ports");
    for (struct dirent *entry; ports && found < 0 && (entry = readdir(ports));) {
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%.200s/name", entry->d_name);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t length = file < 0 ? -1 : read(file, name, sizeof name);
        if (file >= 0)
            close(file);
        if (length != 5 || memcmp(name, "gate\n", 5) != 0)
            continue;
        snprintf(path, sizeof path, "/dev/%.200s", entry->d_name);
        found = open(path, O_RDWR | O_CLOEXEC);
    }
    if (ports)
        closedir(ports);
    return found;
}

static void pass(char letter, mode_t closed)
{
    struct stat self;
    char answer;
    if (gate >= 0) {
        if (write(gate, &letter, 1) == 1)
            while (read(gate, &answer, 1) == 0)
                usleep(20000);
        return;
    }
    prctl(PR_SET_NAME, "mm-held");
    while (stat("/proc/self/exe", &self) == 0 && self.st_mode & closed)
        usleep(20000);
    prctl(PR_SET_NAME, "mm-agent");
}

int __real_boot_machine(void);
int __wrap_boot_machine(void);
int __wrap_boot_machine(void)
{
    int channel = __real_boot_machine();
    for (int tries = 0; gate < 0 && tries < 100; tries++, usleep(20000))
        gate = open_gate();
    pass('k', 0);
    return channel;
}

int __real_setup_box(const struct frame *, bool, uint64_t *, char *, size_t);
int __wrap_setup_box(const struct frame *, bool, uint64_t *, char *, size_t);
int __wrap_setup_box(const struct frame *frame, bool machine, uint64_t *memory_bytes, char *problem, size_t size)
{
    pass('a', S_IWGRP);
    return __real_setup_box(frame, machine, memory_bytes, problem, size);
}

void __real_transfer_start(struct channel *, const struct frame *);
void __wrap_transfer_start(struct channel *, const struct frame *);
void __wrap_transfer_start(struct channel *channel, const struct frame *frame)
{
    pass('c', S_IWOTH);
    __real_transfer_start(channel, frame);
}
