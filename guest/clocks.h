#ifndef METALMARK_CLOCKS_H
#define METALMARK_CLOCKS_H

#include <stdint.h>

enum { NS_PER_MS = 1000000 };

uint64_t monotonic_ns(void);
uint64_t realtime_ns(void);
int set_realtime_ns(uint64_t ns);
void sleep_ms(unsigned ms);
uint64_t timer_hz(void); /* of the first CPU, as the kernel has measured it; 0: it has none that has to be measured */

#endif
