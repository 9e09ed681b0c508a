#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cgroup.h"
#include "clocks.h"
#include "fields.h"
#include "launch.h"
#include "network.h"
#include "root.h"

struct random_seed { /* struct rand_pool_info of linux/random.h */
    int entropy_bits;
    int length;
    uint8_t data[512];
};
#define ADD_ENTROPY _IOW('R', 0x03, int[2])

static int fail(char *problem, size_t size, int error, const char *what)
{
    snprintf(problem, size, "%s: %s", what, strerror(error));
    return error ? error : EIO;
}

static int take_field(struct setup *setup, const struct field *field)
{
    char **texts[] = {[SETUP_ROOT] = &setup->root,         [SETUP_ROOT_TYPE] = &setup->root_type,
                      [SETUP_SCRATCH] = &setup->scratch,   [SETUP_HOSTNAME] = &setup->hostname,
                      [SETUP_ADDRESS] = &setup->address,   [SETUP_GATEWAY] = &setup->gateway,
                      [SETUP_NAMESERVER] = &setup->nameserver};
    uint64_t fd;
    switch (field->tag) {
    case SETUP_REALTIME_NS:
        return field_integer(field, &setup->realtime_ns);
    case SETUP_MEMORY_BYTES:
        return field_integer(field, &setup->memory_bytes);
    case SETUP_PIDS:
        return field_integer(field, &setup->pids);
    case SETUP_SEED:
        setup->seed = field->value;
        setup->seed_length = field->length;
        return 0;
    case SETUP_CGROUP_FD:
        return field_integer(field, &fd) < 0 || cgroup_inherit(fd) < 0 ? -1 : 0;
    default:
        if (field->tag >= sizeof texts / sizeof *texts || !texts[field->tag])
            return 0; /* from a newer host */
        return field_text(field, texts[field->tag]);
    }
}

static void seed_random(const struct setup *setup)
{
    struct random_seed pool = {.length = (int)sizeof pool.data};
    if (setup->seed_length < sizeof pool.data)
        pool.length = (int)setup->seed_length;
    int fd = pool.length ? open("/dev/urandom", O_WRONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    memcpy(pool.data, setup->seed, (size_t)pool.length);
    pool.entropy_bits = pool.length * 8;
    ioctl(fd, ADD_ENTROPY, &pool);
    close(fd);
}

static int setup_machine(struct setup *setup, char *problem, size_t size)
{
    if (setup->realtime_ns && set_realtime_ns(setup->realtime_ns) < 0)
        return fail(problem, size, errno, "cannot set the clock");
    seed_random(setup);
    if (setup->hostname && *setup->hostname && sethostname(setup->hostname, strlen(setup->hostname)) < 0)
        return fail(problem, size, errno, "cannot set the host name");
    if (!setup->root || !*setup->root)
        return fail(problem, size, EINVAL, "a machine needs a root device");
    if (network_start(setup->address, setup->gateway, problem, size) < 0)
        return errno ? errno : EIO;
    if (cgroup_own("/cgroup", &setup->memory_bytes, setup->pids) < 0)
        return fail(problem, size, errno, "this kernel gives no cgroup v2 with memory and pids");
    launch_sets_limits = true;
    return root_make(setup, problem, size);
}

int setup_box(const struct frame *frame, bool machine, uint64_t *memory_bytes, char *problem, size_t problem_size)
{
    struct setup setup = {0};
    struct field_reader reader = {.at = frame->payload, .left = frame->length};
    struct field field;
    int more, error = 0;
    while ((more = field_next(&reader, &field)) > 0)
        if (take_field(&setup, &field) < 0)
            break;
    if (more != 0)
        error = fail(problem, problem_size, EINVAL, "the set-up is malformed");
    else if (machine)
        error = setup_machine(&setup, problem, problem_size);
    else if (setup.root && *setup.root)
        error = fail(problem, problem_size, EINVAL, "only a machine of our own can get a root");
    else if (getpid() == 1) /* in namespaces made for the box; elsewhere the loopback is not ours to touch */
        network_loopback();
    *memory_bytes = setup.memory_bytes;
    char *texts[] = {setup.root,    setup.root_type, setup.scratch,   setup.hostname,
                     setup.address, setup.gateway,   setup.nameserver};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    return error;
}
