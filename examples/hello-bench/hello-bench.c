/* A benchmark small enough to read: sorts, copies memory and writes a file, and prints the best of five rounds each.
 *
 * Static and on its own, so that an image of it is this one file. Usage: hello-bench [RESULT-FILE]
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 5, NUMBERS = 50000, COPY_BYTES = 8 << 20, FILE_BYTES = 4 << 20 };

static uint32_t numbers[NUMBERS];
static unsigned char from[COPY_BYTES], to[COPY_BYTES];

static double now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static int by_value(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

    return (a > b) - (a < b);
}

static int sort_numbers(void)
{
    uint32_t state = 2463534242U;

    for (size_t i = 0; i < NUMBERS; i++) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        numbers[i] = state;
    }
    qsort(numbers, NUMBERS, sizeof numbers[0], by_value);
    return 0;
}

static int copy_memory(void)
{
    memset(from, (int)(from[0] + 1), sizeof from);
    memcpy(to, from, sizeof to);
    return to[COPY_BYTES - 1] == from[0] ? 0 : -1;
}

static int write_file(void)
{
    FILE *file = fopen("hello-bench.tmp", "wb");
    int failed = file == NULL;

    if (failed)
        return -1;
    failed |= fwrite(from, 1, FILE_BYTES, file) != FILE_BYTES;
    failed |= fflush(file) != 0 || fsync(fileno(file)) != 0;
    failed |= fclose(file) != 0;
    unlink("hello-bench.tmp");
    return failed ? -1 : 0;
}

static const struct {
    const char *name;
    int (*work)(void);
} benchmarks[] = {{"sort", sort_numbers}, {"copy", copy_memory}, {"write", write_file}};

int main(int argc, char **argv)
{
    size_t count = sizeof benchmarks / sizeof benchmarks[0];
    FILE *result = argc > 1 ? fopen(argv[1], "w") : NULL;

    if (argc > 1 && result == NULL) {
        perror(argv[1]);
        return 1;
    }
    for (size_t i = 0; i < count; i++) {
        double best = -1;

        for (int round = 0; round < ROUNDS; round++) {
            double start = now_ms(), took;

            if (benchmarks[i].work() != 0) {
                perror(benchmarks[i].name);
                return 1;
            }
            took = now_ms() - start;
            if (best < 0 || took < best)
                best = took;
        }
        printf("%-6s %9.3f ms\n", benchmarks[i].name, best);
        fflush(stdout);
        if (result != NULL)
            fprintf(result, "%s{\"name\": \"%s\", \"best_ms\": %.3f}%s\n", i == 0 ? "[" : " ", benchmarks[i].name, best,
                    i + 1 == count ? "]" : ",");
    }
    return result != NULL && fclose(result) != 0;
}
