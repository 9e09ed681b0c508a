#include "clocks.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "files.h"

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

static uint64_t number_after(const char *text, const char *name)
{
    const char *found = strstr(text, name);
    return found ? strtoull(found + strlen(name), NULL, 10) : 0;
}

uint64_t timer_hz(void)
{
    static const char device[] = "Clock Event Device: lapic\n";
    static char text[16384];
    if (file_read(AT_FDCWD, "/proc/timer_list", text, sizeof text) < 0)
        return 0;
    const char *found = strstr(text, device);
    uint64_t shift = found ? number_after(found, " shift:") : 0;
    if (shift == 0 || shift > 32)
        return 0;
    return number_after(found, " mult:") * NS_PER_S >> shift;
}
