#include "clocks.h"

#include <time.h>

#define NS_PER_S 1000000000u

static uint64_t read_ns(clockid_t clock)
{
    struct timespec now = {0};
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t monotonic_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}

uint64_t realtime_ns(void)
{
    return read_ns(CLOCK_REALTIME);
}

int set_realtime_ns(uint64_t ns)
{
    struct timespec now = {.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
    return clock_settime(CLOCK_REALTIME, &now);
}

void sleep_ms(unsigned ms)
{
    struct timespec rest = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * NS_PER_MS};
    nanosleep(&rest, 0);
}
