/* The guest agent: `metalmark-agent init` as the first process of a virtual machine, `metalmark-agent serve FD` in a
 * root that somebody else has made. See docs/reference/guest-protocol.md. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"
#include "boot.h"
#include "clocks.h"
#include "root.h"

#ifndef AGENT_VERSION
#define AGENT_VERSION "unknown"
#endif

static _Noreturn void run_machine(uint64_t began_ns)
{
    struct agent_options options = {.fd = boot_machine(), .machine = true, .began_ns = began_ns};
    if (options.fd >= 0)
        agent_serve(&options);
    root_settle();
    boot_end_machine();
}

int main(int argc, char **argv)
{
    uint64_t began_ns = monotonic_ns();
    if (argc == 3 && strcmp(argv[1], "serve") == 0) {
        struct agent_options options = {.fd = atoi(argv[2]), .began_ns = began_ns};
        return agent_serve(&options);
    }
    /* The kernel starts /init with whatever words of its command line it did not know. */
    if (getpid() == 1 || (argc == 2 && strcmp(argv[1], "init") == 0))
        run_machine(began_ns);
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        puts(AGENT_VERSION);
        return 0;
    }
    fputs("usage: metalmark-agent init | serve FD | --version\n", stderr);
    return 2;
}
