#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clocks.h"
#include "fields.h"
#include "files.h"
#include "processes.h"
#include "user.h"

static const char default_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
enum { OPEN_FILES = 1048576 };

bool launch_sets_limits;

static int add(char ***list, size_t *count, const struct field *field)
{
    char **longer = realloc(*list, (*count + 2) * sizeof *longer);
    if (!longer)
        return -1;
    *list = longer;
    longer[*count] = longer[*count + 1] = NULL;
    if (field_text(field, &longer[*count]) < 0)
        return -1;
    (*count)++;
    return 0;
}

static int take_field(struct launch *launch, const struct field *field, size_t *args, size_t *variables)
{
    uint64_t value = 0;
    switch (field->tag) {
    case EXEC_ARG:
        return add(&launch->argv, args, field);
    case EXEC_ENV:
        return add(&launch->env, variables, field);
    case EXEC_WORKDIR:
        return field_text(field, &launch->workdir);
    case EXEC_USER:
        return field_text(field, &launch->user);
    case EXEC_STREAM_BYTES:
        return field_integer(field, &launch->stream_bytes);
    case EXEC_GRACE_MS:
        return field_integer(field, &launch->grace_ms);
    case EXEC_STDIN:
    case EXEC_HOLD:
        if (field_integer(field, &value) < 0)
            return -1;
        *(field->tag == EXEC_STDIN ? &launch->with_stdin : &launch->hold) = value != 0;
        return 0;
    default:
        return 0; /* from a newer host */
    }
}

struct launch *launch_parse(const struct frame *frame)
{
    struct launch *launch = calloc(1, sizeof *launch);
    struct field_reader reader = {.at = frame->payload, .left = frame->length};
    struct field field;
    size_t args = 0, variables = 0;
    int more = -1;
    if (!launch)
        return NULL;
    while ((more = field_next(&reader, &field)) > 0)
        if (take_field(launch, &field, &args, &variables) < 0)
            break;
    if (!launch->env)
        launch->env = calloc(1, sizeof *launch->env);
    if (more != 0 || args == 0 || !launch->env) {
        launch_free(launch);
        errno = EINVAL;
        return NULL;
    }
    if (launch->grace_ms > INT_MAX)
        launch->grace_ms = INT_MAX;
    return launch;
}

static void free_list(char **list)
{
    for (char **at = list; at && *at; at++)
        free(*at);
    free(list);
}

void launch_free(struct launch *launch)
{
    if (!launch)
        return;
    free_list(launch->argv);
    free_list(launch->env);
    free(launch->workdir);
    free(launch->user);
    free(launch);
}

static _Noreturn void give_up(const struct launch_files *files, enum ending ending, int error, const char *what)
{
    struct launch_word word = {.ending = ending, .error = error};
    snprintf(word.message, sizeof word.message, "%s", what);
    file_write_all(files->word, &word, sizeof word);
    _exit(127);
}

static void take_streams(const struct launch_files *files)
{
    /* The three are above 2, so no dup2 overwrites one that is still to come. */
    if (dup2(files->in, 0) < 0 || dup2(files->out, 1) < 0 || dup2(files->err, 2) < 0)
        give_up(files, ENDING_FAILED, errno, "stdin, stdout and stderr");
}

static void reset_signals(void)
{
    sigset_t none;
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void set_limits(void)
{
    struct rlimit files = {OPEN_FILES, OPEN_FILES}, core;
    if (launch_sets_limits)
        setrlimit(RLIMIT_NOFILE, &files);
    /* A crash would write a file as large as the process into the working folder, while others are measured. */
    if (getrlimit(RLIMIT_CORE, &core) == 0) {
        core.rlim_cur = 0;
        setrlimit(RLIMIT_CORE, &core);
    }
    umask(022);
}

static void become(const struct launch_files *files, const struct user *user)
{
    bool same = getuid() == user->uid && getgid() == user->gid;
    /* In a user namespace of our own setgroups may be forbidden for good; then there is nothing to shed. */
    if (setgroups(user->group_count, user->groups) < 0 && !(same && errno == EPERM && user->group_count == 0))
        give_up(files, ENDING_FAILED, errno, "cannot set the supplementary groups");
    if (setresgid(user->gid, user->gid, user->gid) < 0 || setresuid(user->uid, user->uid, user->uid) < 0)
        give_up(files, ENDING_FAILED, errno, "cannot become the user");
}

static const char *variable(char *const *env, const char *name)
{
    size_t length = strlen(name);
    for (; *env; env++)
        if (strncmp(*env, name, length) == 0 && (*env)[length] == '=')
            return *env + length + 1;
    return NULL;
}

static char **with_home(char **env, const char *home)
{
    static char entry[USER_HOME + 8];
    size_t count = 0;
    if (variable(env, "HOME"))
        return env;
    while (env[count])
        count++;
    char **longer = calloc(count + 2, sizeof *longer);
    if (!longer)
        return env;
    memcpy(longer, env, count * sizeof *longer);
    snprintf(entry, sizeof entry, "HOME=%s", *home ? home : "/");
    longer[count] = entry;
    return longer;
}

static enum ending ending_of(int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return ENDING_NOT_FOUND;
    case EACCES:
    case ENOEXEC:
    case EISDIR:
    case ELIBBAD:
    case ETXTBSY:
        return ENDING_NOT_EXECUTABLE;
    default:
        return ENDING_FAILED;
    }
}

/* What execve said of a file: a file that is there and gives ENOENT wants an interpreter that is not. */
static int exec_error(const char *path, int error)
{
    struct stat found;
    if (error == ENOENT && stat(path, &found) == 0)
        return ELIBBAD;
    return error;
}

static int try_path(const struct launch *launch, char **env)
{
    const char *name = launch->argv[0], *folders = variable(env, "PATH");
    char path[PATH_MAX];
    int worst = ENOENT;
    if (!folders || !*folders)
        folders = default_path;
    for (const char *at = folders;; at++) {
        size_t length = strcspn(at, ":");
        int used = snprintf(path, sizeof path, "%.*s%s%s", (int)length, at, length ? "/" : "", name);
        if (used > 0 && (size_t)used < sizeof path) {
            execve(path, launch->argv, env);
            int error = exec_error(path, errno);
            if (error != ENOENT && error != ENOTDIR && error != EACCES)
                return error;
            if (error == EACCES)
                worst = EACCES;
        }
        at += length;
        if (!*at)
            return worst;
    }
}

static void tell_error(const struct launch *launch, const struct launch_files *files, int error)
{
    char message[300];
    const char *why = error == ELIBBAD ? "its interpreter is missing" : strerror(error);
    snprintf(message, sizeof message, "%.200s: %s", launch->argv[0], why);
    give_up(files, ending_of(error), error, message);
}

_Noreturn void launch_run(const struct launch *launch, const struct cgroup *cgroup, const struct launch_files *files)
{
    struct user user;
    char missing[300];
    const char *workdir = launch->workdir && *launch->workdir ? launch->workdir : "/";
    setsid();
    if (cgroup_join(cgroup) < 0)
        give_up(files, ENDING_FAILED, errno, "cannot join the cgroup");
    take_streams(files);
    processes_set_oom_score("0");
    set_limits();
    if (user_find(launch->user ? launch->user : "", &user, missing, sizeof missing) < 0)
        give_up(files, ENDING_UNKNOWN_USER, 0, missing);
    int entered = chdir(workdir);
    become(files, &user);
    /* Root may be kept out where the user is not (a network file system), and the other way round. */
    if (entered < 0 && chdir(workdir) < 0)
        give_up(files, ENDING_NO_WORKDIR, errno, workdir);
    char **env = with_home(launch->env, user.home);
    reset_signals();
    struct launch_word word = {.started_ns = monotonic_ns()};
    file_write_all(files->word, &word, sizeof word);
    int error;
    if (!*launch->argv[0]) {
        error = ENOENT;
    } else if (strchr(launch->argv[0], '/')) {
        execve(launch->argv[0], launch->argv, env);
        error = exec_error(launch->argv[0], errno);
    } else {
        error = try_path(launch, env);
    }
    tell_error(launch, files, error);
    _exit(127);
}
