#include "network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int fail(char *problem, size_t size, const char *what)
{
    int error = errno;
    snprintf(problem, size, "network: %s: %s", what, strerror(error));
    errno = error;
    return -1;
}

static int bring_up(int fd, const char *name)
{
    struct ifreq request = {0};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        return -1;
    request.ifr_flags |= IFF_UP | IFF_RUNNING;
    return ioctl(fd, SIOCSIFFLAGS, &request);
}

void network_loopback(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    bring_up(fd, "lo"); /* not ours to change: then it is up already */
    close(fd);
}

static int first_interface(char *name)
{
    struct if_nameindex *all = if_nameindex();
    bool found = false;
    for (struct if_nameindex *at = all; at && at->if_index && !found; at++) {
        if (strcmp(at->if_name, "lo") == 0)
            continue;
        snprintf(name, IFNAMSIZ, "%s", at->if_name);
        found = true;
    }
    if (all)
        if_freenameindex(all);
    errno = ENODEV;
    return found ? 0 : -1;
}

static int set_address(int fd, unsigned long command, const char *name, struct in_addr address)
{
    struct ifreq request = {0};
    struct sockaddr_in socket_address = {.sin_family = AF_INET, .sin_addr = address};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    memcpy(&request.ifr_addr, &socket_address, sizeof socket_address);
    return ioctl(fd, (int)command, &request);
}

static int add_gateway(int fd, struct in_addr gateway)
{
    struct sockaddr_in any = {.sin_family = AF_INET}, through = {.sin_family = AF_INET, .sin_addr = gateway};
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
    memcpy(&route.rt_dst, &any, sizeof any);
    memcpy(&route.rt_genmask, &any, sizeof any);
    memcpy(&route.rt_gateway, &through, sizeof through);
    return ioctl(fd, SIOCADDRT, &route);
}

static int parse_address(const char *text, struct in_addr *address, struct in_addr *mask)
{
    char host[INET_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    long prefix = slash ? strtol(slash + 1, NULL, 10) : 32;
    size_t length = slash ? (size_t)(slash - text) : strlen(text);
    errno = EINVAL;
    if (length >= sizeof host || prefix < 0 || prefix > 32)
        return -1;
    memcpy(host, text, length);
    host[length] = 0;
    mask->s_addr = prefix ? htonl(~0u << (32 - prefix)) : 0;
    return inet_pton(AF_INET, host, address) == 1 ? 0 : -1;
}

int network_start(const char *address, const char *gateway, char *problem, size_t problem_size)
{
    char name[IFNAMSIZ];
    struct in_addr own, mask, through;
    network_loopback();
    if (!address || !*address)
        return 0;
    if (parse_address(address, &own, &mask) < 0)
        return fail(problem, problem_size, address);
    if (first_interface(name) < 0)
        return fail(problem, problem_size, "no interface");
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), result = -1;
    if (set_address(fd, SIOCSIFADDR, name, own) < 0 || set_address(fd, SIOCSIFNETMASK, name, mask) < 0 ||
        bring_up(fd, name) < 0) {
        fail(problem, problem_size, name);
    } else if (gateway && *gateway) {
        errno = EINVAL;
        result = inet_pton(AF_INET, gateway, &through) == 1 ? add_gateway(fd, through) : -1;
        if (result < 0)
            fail(problem, problem_size, gateway);
    } else {
        result = 0;
    }
    int error = errno;
    close(fd);
    errno = error;
    return result;
}
