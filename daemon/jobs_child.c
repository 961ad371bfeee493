/* daemon/jobs_child.c - the process of a training job: started so that it can
 * take nothing from the daemon but idle time. Its faults end with it; when the
 * daemon goes away it is told to stop. */
#include "daemon/jobs_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    PROGRESS_FD = 3,
    STATUS_FD = 4,
    FIRST_FD = 10, /* ours are at least this, clear of the child's */
    NICE = 19,
    ENVIRONMENT_MAX = 16,
    ENVIRONMENT_TEXT = JOBS_PATH_MAX + 32
};

/* --- environment ------------------------------------------------------- */

struct environment {
    char text[ENVIRONMENT_MAX][ENVIRONMENT_TEXT];
    char *list[ENVIRONMENT_MAX + 1];
    int n;
};

static void set(struct environment *e, const char *name, const char *value)
{
    if (e->n == ENVIRONMENT_MAX ||
        snprintf(e->text[e->n], ENVIRONMENT_TEXT, "%s=%s", name, value) >=
            ENVIRONMENT_TEXT)
        return;
    e->list[e->n] = e->text[e->n];
    e->list[++e->n] = NULL;
}

/* Nothing of the daemon's, but where libraries lie, which cards there are and
 * how they are counted, and how checked builds are to report. */
static void set_environment(struct environment *e, const struct jobs_spawn *s)
{
    static const char *const kept[] = {
        "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER",
        "ASAN_OPTIONS",    "TSAN_OPTIONS",         "UBSAN_OPTIONS"};
    char threads[16];

    snprintf(threads, sizeof(threads), "%d", s->n_threads);
    e->n = 0;
    e->list[0] = NULL;
    set(e, "PATH", "/usr/local/bin:/usr/bin:/bin");
    set(e, "LANG", "C.UTF-8");
    set(e, "HOME", s->dir);
    set(e, "TMPDIR", s->dir);
    set(e, "OMP_NUM_THREADS", threads);
    set(e, "OPENBLAS_NUM_THREADS", threads);
    set(e, "OMP_WAIT_POLICY", "passive");
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
        if (getenv(kept[i]))
            set(e, kept[i], getenv(kept[i]));
}

/* --- in the child ------------------------------------------------------ */

/* Told to the parent through STATUS_FD; it reads until the end, which comes
 * with exec. */
struct note {
    const char *what; /* a constant of ours: the same address there */
    int error;
    int fatal;
};

static void tell(const char *what, int fatal)
{
    struct note note = {.what = what, .error = errno, .fatal = fatal};

    if (write(STATUS_FD, &note, sizeof(note)) < 0 || fatal)
        _exit(127);
}

static void limit(int resource, rlim_t value, const char *what, int fatal)
{
    struct rlimit r = {.rlim_cur = value, .rlim_max = value};
    struct rlimit old;

    if (getrlimit((__rlimit_resource_t)resource, &old) == 0 &&
        old.rlim_max < value)
        r.rlim_cur = r.rlim_max = old.rlim_max;
    if (setrlimit((__rlimit_resource_t)resource, &r) != 0)
        tell(what, fatal);
}

/* The kernel, short of memory, takes this process first. */
static void set_oom(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, "1000", 4) != 4)
        tell("oom_score_adj", 0);
    if (fd >= 0)
        close(fd);
}

struct start {
    const struct jobs_spawn *s;
    char *const *environment;
    int null, log, progress, status; /* each at least FIRST_FD */
    pid_t parent;
};

/* System calls alone: after vfork memory is shared with the daemon. */
static void child_main(const struct start *b)
{
    struct sched_param param = {.sched_priority = 0};
    sigset_t none;

    if (dup2(b->status, STATUS_FD) < 0 ||
        fcntl(STATUS_FD, F_SETFD, FD_CLOEXEC) != 0)
        _exit(127);
    if (dup2(b->null, 0) < 0 || dup2(b->log, 1) < 0 || dup2(b->log, 2) < 0 ||
        dup2(b->progress, PROGRESS_FD) < 0)
        tell("descriptors", 1);
    if (close_range(STATUS_FD + 1, ~0U, 0) != 0)
        tell("close_range", 1);
    if (setpgid(0, 0) != 0)
        tell("setpgid", 1);
    /* The parent may have gone before it was told to us. */
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || getppid() != b->parent)
        tell("parent", 1);
    if (setpriority(PRIO_PROCESS, 0, NICE) != 0)
        tell("priority", 0);
    if (sched_setscheduler(0, SCHED_BATCH, &param) != 0)
        tell("scheduler", 0);
    set_oom();
    limit(RLIMIT_CORE, 0, "core limit", 0);
    if (b->s->memory > 0)
        limit(RLIMIT_DATA, (rlim_t)b->s->memory, "memory limit", 1);
    if (chdir(b->s->dir) != 0)
        tell("chdir", 1);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(b->s->program, b->s->argv, b->environment);
    tell("exec", 1);
}

/* --- in the daemon ----------------------------------------------------- */

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* A pipe of descriptors that are closed on exec and above the child's. */
static int make_pipe(int ends[2])
{
    int low[2];

    ends[0] = ends[1] = -1;
    if (pipe2(low, O_CLOEXEC) != 0)
        return -1;
    for (int i = 0; i < 2; i++)
        ends[i] = fcntl(low[i], F_DUPFD_CLOEXEC, FIRST_FD);
    close(low[0]);
    close(low[1]);
    return ends[0] >= 0 && ends[1] >= 0 ? 0 : -1;
}

static int open_null(void)
{
    int low = open("/dev/null", O_RDONLY | O_CLOEXEC), fd = -1;

    if (low >= 0) {
        fd = fcntl(low, F_DUPFD_CLOEXEC, FIRST_FD);
        close(low);
    }
    return fd;
}

/* vfork, since fork would copy the page tables of a gallery of gigabytes
 * while requests wait. No signal may run a handler in the shared memory. */
__attribute__((noinline)) static pid_t start_child(const struct start *b)
{
    sigset_t all, old;
    pid_t pid;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pid = vfork();
    if (pid == 0) {
        child_main(b);
        _exit(127);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return pid;
}

/* What the child tells until it is another program. */
static int read_notes(int fd, const char *program, const char **soft,
                      struct error *err)
{
    struct note note;
    ssize_t n;

    while ((n = read(fd, &note, sizeof(note))) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n != (ssize_t)sizeof(note))
            return error_set(err, ERR_FILE, "%.120s cannot be started",
                             program);
        if (note.fatal)
            return error_set(err, ERR_FILE, "%.120s cannot be started: %s: %s",
                             program, note.what, strerror(note.error));
        if (soft)
            *soft = note.what;
    }
    return 0;
}

static void unblock(int fd)
{
    fcntl(fd, F_SETFL, O_RDONLY | O_NONBLOCK);
}

int jobs_child_start(const struct jobs_spawn *s, struct jobs_child *out,
                     const char **soft, struct error *err)
{
    struct environment *e = calloc(1, sizeof(*e));
    int progress[2] = {-1, -1}, log[2] = {-1, -1}, status[2] = {-1, -1};
    int null = open_null(), rc = -1;
    struct start b = {.s = s, .parent = getpid()};

    *out =
        (struct jobs_child){.pid = -1, .pidfd = -1, .progress = -1, .log = -1};
    if (soft)
        *soft = NULL;
    if (!e) {
        error_set(err, ERR_NOMEM, "no memory to start a process");
        goto out;
    }
    if (null < 0 || make_pipe(progress) != 0 || make_pipe(log) != 0 ||
        make_pipe(status) != 0) {
        error_set(err, ERR_FILE, "pipes of a process: %s", strerror(errno));
        goto out;
    }
    set_environment(e, s);
    b.environment = e->list;
    b.null = null;
    b.log = log[1];
    b.progress = progress[1];
    b.status = status[1];
    out->pid = start_child(&b);
    if (out->pid < 0) {
        error_set(err, ERR_NOMEM, "%.120s cannot be started: %s", s->program,
                  strerror(errno));
        goto out;
    }
    close_fd(&status[1]);
    rc = read_notes(status[0], s->program, soft, err);
    out->pidfd = pidfd_open(out->pid, 0);
    if (rc == 0 && out->pidfd < 0)
        rc =
            error_set(err, ERR_FILE, "watching a process: %s", strerror(errno));
    if (rc != 0) {
        kill(out->pid, SIGKILL);
        jobs_child_reap(out);
        goto out;
    }
    unblock(progress[0]);
    unblock(log[0]);
    out->progress = progress[0];
    out->log = log[0];
    progress[0] = log[0] = -1;
out:
    for (int i = 0; i < 2; i++) {
        close_fd(&progress[i]);
        close_fd(&log[i]);
        close_fd(&status[i]);
    }
    close_fd(&null);
    free(e);
    return rc;
}

void jobs_child_signal(const struct jobs_child *c, int number)
{
    if (c->pid > 0)
        kill(-c->pid, number);
}

int jobs_child_reap(struct jobs_child *c)
{
    siginfo_t info;
    int status = 0;

    if (c->pid <= 0)
        return 0;
    /* Not yet reaped, it keeps the group's number from being another's. */
    while (waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOWAIT) != 0 &&
           errno == EINTR)
        continue;
    kill(-c->pid, SIGKILL);
    while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
        continue;
    c->pid = -1;
    close_fd(&c->pidfd);
    return status;
}

int64_t jobs_child_began(int64_t pid)
{
    char path[64], text[1024], *p;
    int64_t began = 0;
    size_t n;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%lld/stat", (long long)pid);
    f = pid > 0 ? fopen(path, "re") : NULL;
    if (!f)
        return 0;
    n = fread(text, 1, sizeof(text) - 1, f);
    fclose(f);
    text[n] = '\0';
    p = strrchr(text, ')'); /* the name may hold blanks and brackets */
    /* Fields from the third on follow; the 22nd is the start. */
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    if (p)
        began = strtoll(p + 1, NULL, 10);
    return began;
}
