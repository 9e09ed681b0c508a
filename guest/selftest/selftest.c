/* What `metalmark host selftest` runs inside its boxes: a handful of commands in one static program, so that the test
 * images need nothing else. Words of ";" part one command from the next: selftest echo hello ';' exit 3.
 * Called as `sh -c TEXT [NAME]` it cuts TEXT at blanks and puts NAME for $0: enough of a shell for the images that
 * state their command as a string. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <sys/io.h>
#endif

static void fail(const char *what)
{
    fprintf(stderr, "selftest: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void all_out(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, data, size);
        if (written < 0)
            fail("write");
        data += written;
        size -= (size_t)written;
    }
}

static long long number(const char *text)
{
    char *end;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0') {
        fprintf(stderr, "selftest: %s is not a number\n", text);
        exit(2);
    }
    return value;
}

static void say(int fd, int count, char **words)
{
    char line[65536];
    size_t used = 0;
    for (int i = 0; i < count; i++) {
        size_t length = strlen(words[i]);
        if (used + length + 2 > sizeof line)
            break;
        if (i > 0)
            line[used++] = ' ';
        memcpy(line + used, words[i], length);
        used += length;
    }
    line[used++] = '\n';
    all_out(fd, line, used);
}

static void do_echo(int count, char **words) { say(1, count, words); }

static void do_err(int count, char **words) { say(2, count, words); }

static void do_env(int count, char **words)
{
    (void)count;
    const char *value = getenv(words[0]);
    if (value == NULL) {
        printf("%s is not set\n", words[0]);
        exit(1);
    }
    printf("%s=%s\n", words[0], value);
}

static void do_envlen(int count, char **words)
{
    (void)count;
    const char *value = getenv(words[0]);
    printf("%s has %zu\n", words[0], value == NULL ? (size_t)0 : strlen(value));
}

static void do_pwd(int count, char **words)
{
    char folder[4096];
    (void)count;
    (void)words;
    if (getcwd(folder, sizeof folder) == NULL)
        fail("getcwd");
    puts(folder);
}

static int open_new(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        fail(path);
    return fd;
}

static void do_write(int count, char **words)
{
    (void)count;
    int fd = open_new(words[0]);
    all_out(fd, words[1], strlen(words[1]));
    close(fd);
}

static void do_size(int count, char **words)
{
    (void)count;
    char block[4096];
    memset(block, 'x', sizeof block);
    int fd = open_new(words[0]);
    for (long long left = number(words[1]); left > 0; left -= (long long)sizeof block)
        all_out(fd, block, left < (long long)sizeof block ? (size_t)left : sizeof block);
    close(fd);
}

static void do_cat(int count, char **words)
{
    (void)count;
    char block[65536];
    ssize_t got;
    int fd = open(words[0], O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fail(words[0]);
    while ((got = read(fd, block, sizeof block)) > 0)
        all_out(1, block, (size_t)got);
    if (got < 0)
        fail(words[0]);
    close(fd);
}

static void do_sleep(int count, char **words)
{
    (void)count;
    struct timespec left = {.tv_sec = (time_t)number(words[0])};
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
}

static void do_ignore(int count, char **words)
{
    (void)count;
    (void)words;
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
}

static void do_exit(int count, char **words)
{
    (void)count;
    fflush(stdout);
    _exit((int)number(words[0]));
}

static void do_raise(int count, char **words)
{
    (void)count;
    fflush(stdout);
    signal((int)number(words[0]), SIG_DFL);
    raise((int)number(words[0]));
}

static void do_flood(int count, char **words)
{
    char block[65536];
    int fd = count > 1 && strcmp(words[1], "stderr") == 0 ? 2 : 1;
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = i % 64 == 63 ? '\n' : (char)('a' + i % 26);
    for (long long left = number(words[0]); left > 0; left -= (long long)sizeof block)
        all_out(fd, block, left < (long long)sizeof block ? (size_t)left : sizeof block);
}

static void do_cpus(int count, char **words)
{
    (void)count;
    (void)words;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) < 0)
        fail("sched_getaffinity");
    printf("cpus=%d\n", CPU_COUNT(&set));
}

static void do_id(int count, char **words)
{
    (void)count;
    (void)words;
    gid_t groups[128];
    int known = getgroups(128, groups);
    printf("uid=%d gid=%d groups=", (int)getuid(), (int)getgid());
    for (int i = 0; i < known; i++)
        printf(i > 0 ? ",%d" : "%d", (int)groups[i]);
    putchar('\n');
}

static void do_pids(int count, char **words)
{
    (void)count;
    (void)words;
    int found = 0;
    struct dirent *entry;
    DIR *folder = opendir("/proc");
    if (folder == NULL)
        fail("/proc");
    while ((entry = readdir(folder)) != NULL)
        found += entry->d_name[0] >= '1' && entry->d_name[0] <= '9';
    closedir(folder);
    printf("pids=%d\n", found);
}

static void do_list(int count, char **words)
{
    (void)count;
    struct dirent *entry;
    DIR *folder = opendir(words[0]);
    if (folder == NULL)
        fail(words[0]);
    while ((entry = readdir(folder)) != NULL)
        if (entry->d_name[0] != '.')
            puts(entry->d_name);
    closedir(folder);
}

static void do_interfaces(int count, char **words)
{
    (void)count;
    (void)words;
    struct if_nameindex *all = if_nameindex();
    printf("interfaces=");
    for (struct if_nameindex *one = all; one != NULL && one->if_index != 0; one++)
        printf(one == all ? "%s" : ",%s", one->if_name);
    putchar('\n');
    if (all != NULL)
        if_freenameindex(all);
}

static void do_connect(int count, char **words)
{
    (void)count;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)number(words[1]))};
    inet_pton(AF_INET, words[0], &address.sin_addr);
    int error = 0;
    socklen_t size = sizeof error;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail("socket");
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        error = errno;
    if (error == EINPROGRESS) {
        struct pollfd waiting = {.fd = fd, .events = POLLOUT};
        error = ETIMEDOUT;
        if (poll(&waiting, 1, 3000) == 1)
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    }
    close(fd);
    printf(error == 0 ? "connected\n" : "no connection: %s\n", strerror(error));
}

static void do_ioport(int count, char **words)
{
    (void)count;
    (void)words;
    puts("about to read a port");
    fflush(stdout);
#if defined(__x86_64__)
    (void)inb(0x80);
    puts("read a port");
#endif
}

static int nibble(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    return (digit | 32) - 'a' + 10;
}

static void do_bytes(int count, char **words)
{
    (void)count;
    for (const char *at = words[0]; at[0] != '\0' && at[1] != '\0'; at += 2) {
        char byte = (char)(nibble(at[0]) * 16 + nibble(at[1]));
        all_out(1, &byte, 1);
    }
}

static void do_mode(int count, char **words)
{
    (void)count;
    struct stat status;
    if (stat(words[0], &status) < 0)
        fail(words[0]);
    printf("mode=%o\n", (unsigned)status.st_mode & 07777U);
}

static void do_df(int count, char **words)
{
    (void)count;
    struct statvfs status;
    if (statvfs(words[0], &status) < 0)
        fail(words[0]);
    printf("df=%llu\n", (unsigned long long)status.f_blocks * status.f_frsize);
}

static void do_fill(int count, char **words)
{
    (void)count;
    static char block[1024 * 1024];
    unsigned long long total = 0;
    ssize_t written;
    int fd = open_new(words[0]);
    while ((written = write(fd, block, sizeof block)) > 0)
        total += (unsigned long long)written;
    printf("full after %llu: %s\n", total, written < 0 ? strerror(errno) : "nothing written");
    close(fd);
}

static void do_eat(int count, char **words)
{
    enum { PIECE = 1024 * 1024 };
    (void)count;
    /* In pieces: one request for more than the machine has would be refused at once, and nothing eaten. */
    for (long long left = number(words[0]); left > 0; left -= PIECE) {
        char *memory = malloc(PIECE);
        if (memory == NULL)
            fail("malloc");
        memset(memory, 1, PIECE);
        __asm__ volatile("" : : "r"(memory) : "memory");
    }
    puts("eaten");
}

static void do_fork(int count, char **words)
{
    (void)count;
    long long made = 0;
    fflush(stdout);
    for (long long wanted = number(words[0]); made < wanted; made++) {
        pid_t child = fork();
        if (child < 0)
            break;
        if (child == 0) {
            pause();
            _exit(0);
        }
    }
    printf("forked=%lld\n", made);
}

static void do_daemon(int count, char **words)
{
    (void)count;
    (void)words;
    fflush(stdout);
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child > 0)
        return;
    setsid();
    signal(SIGTERM, SIG_IGN);
    if (fork() > 0)
        _exit(0);
    for (;;)
        pause();
}

static void do_clock(int count, char **words)
{
    (void)count;
    (void)words;
    printf("clock=%lld\n", (long long)time(NULL));
}

static void do_spin(int count, char **words)
{
    (void)count;
    struct timespec now;
    long long until = number(words[0]) * 1000000;
    do
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    while (now.tv_sec * 1000000000LL + now.tv_nsec < until);
}

static void do_exec(int count, char **words)
{
    (void)count;
    fflush(stdout);
    execv(words[0], words);
    fail(words[0]);
}

static void do_poweroff(int count, char **words)
{
    (void)count;
    (void)words;
    fflush(stdout);
    sync();
    reboot(RB_POWER_OFF);
    fail("reboot");
}

struct command {
    const char *name;
    int least;
    void (*run)(int, char **);
};

static const struct command COMMANDS[] = {
    {"bytes", 1, do_bytes},     {"cat", 1, do_cat},           {"clock", 0, do_clock},     {"connect", 2, do_connect},
    {"cpus", 0, do_cpus},       {"daemon", 0, do_daemon},     {"df", 1, do_df},           {"eat", 1, do_eat},
    {"echo", 0, do_echo},       {"env", 1, do_env},           {"envlen", 1, do_envlen},
    {"err", 0, do_err},         {"exec", 1, do_exec},         {"exit", 1, do_exit},       {"fill", 1, do_fill},
    {"flood", 1, do_flood},     {"fork", 1, do_fork},         {"id", 0, do_id},
    {"ignore", 0, do_ignore},   {"interfaces", 0, do_interfaces}, {"ioport", 0, do_ioport}, {"list", 1, do_list},
    {"mode", 1, do_mode},       {"pids", 0, do_pids},         {"poweroff", 0, do_poweroff}, {"pwd", 0, do_pwd},
    {"raise", 1, do_raise},     {"size", 2, do_size},         {"sleep", 1, do_sleep},     {"spin", 1, do_spin},
    {"write", 2, do_write},
};

static void run_one(int count, char **words)
{
    if (count == 0)
        return;
    for (size_t i = 0; i < sizeof COMMANDS / sizeof COMMANDS[0]; i++) {
        if (strcmp(words[0], COMMANDS[i].name) != 0)
            continue;
        if (count - 1 < COMMANDS[i].least) {
            fprintf(stderr, "selftest: %s takes %d words\n", words[0], COMMANDS[i].least);
            exit(2);
        }
        COMMANDS[i].run(count - 1, words + 1);
        fflush(stdout);
        return;
    }
    fprintf(stderr, "selftest: there is no command %s\n", words[0]);
    exit(2);
}

static void run_all(int count, char **words)
{
    int start = 0;
    for (int at = 0; at <= count; at++) {
        if (at < count && strcmp(words[at], ";") != 0)
            continue;
        char *end = words[at];
        words[at] = NULL;
        run_one(at - start, words + start);
        words[at] = end;
        start = at + 1;
    }
}

static int run_as_shell(int argc, char **argv)
{
    static char *words[1024];
    int count = 0;
    if (argc < 3 || strcmp(argv[1], "-c") != 0) {
        fprintf(stderr, "selftest: as a shell it takes -c TEXT [NAME]\n");
        return 2;
    }
    for (char *word = strtok(argv[2], " "); word != NULL && count < 1023; word = strtok(NULL, " "))
        words[count++] = strcmp(word, "$0") == 0 && argc > 3 ? argv[3] : word;
    run_all(count, words);
    return 0;
}

int main(int argc, char **argv)
{
    const char *name = argc > 0 ? strrchr(argv[0], '/') : NULL;
    name = name != NULL ? name + 1 : argv[0];
    if (strcmp(name, "sh") == 0)
        return run_as_shell(argc, argv);
    run_all(argc - 1, argv + 1);
    return 0;
}
