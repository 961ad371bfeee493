/* daemon/jobs_run.c - one training job from its turn to its end: data, child
 * process, what it tells, what is left of it. Thread: jobs. */
#include "daemon/jobs_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/train/checkpoint.h"
#include "daemon/log.h"
#include "daemon/server.h"

enum {
    TICK_MS = 1000,
    SAVE_MS = 5000,     /* of progress alone */
    SAVE_SOON_MS = 500, /* of what matters: lines of the trainer, however many,
                           do not keep the disk busy */
    LINE_MAX_BYTES = 64 * 1024,
    READ_BYTES = 64 * 1024,
    FLOOD_MS = 20, /* rest after a full read: about 3 MiB/s */
    LAST_READS = 4 /* of a pipe, after its writer's end */
};

struct run {
    struct jobs *j;
    struct jobs_job *job;
    struct jobs_request asked;
    char data[JOBS_PATH_MAX], holdout[JOBS_PATH_MAX];
    char lfw_dir[JOBS_PATH_MAX], lfw_pairs[JOBS_PATH_MAX];
    char resume[JOBS_PATH_MAX * 2];
    struct jobs_child child;
    char *line, *buf; /* LINE_MAX_BYTES, READ_BYTES */
    size_t n_line;
    bool overlong; /* the line: what is left of it is skipped */
    int log;
    int64_t log_bytes;
    int64_t began_us, saved_us;
    bool changed;       /* the record, since it was saved, */
    bool matters;       /* by more than progress */
    int64_t stopped_us; /* asked to; 0: not */
    bool killed;
    enum jobs_why why;
};

/* --- outcome ----------------------------------------------------------- */

static void say(struct jobs_record *r, const char *text)
{
    if (!r->text[0])
        jobs_text_set(r->text, sizeof(r->text), text, strlen(text), false);
}

static void stopped_outcome(struct jobs_record *r, enum jobs_why why,
                            bool killed)
{
    char text[JOBS_TEXT_MAX];
    const char *by = why == JOBS_WHY_CANCEL ? "cancelled"
                     : why == JOBS_WHY_END  ? "the daemon was stopped"
                     : why == JOBS_WHY_TIME
                         ? "it took twice the setting job-max-minutes"
                         : "it was told to stop";

    r->state = why == JOBS_WHY_CANCEL ? JOBS_CANCELLED : JOBS_STOPPED;
    snprintf(text, sizeof(text), "%s%s; %s", by,
             killed ? ", did not stop in time and was killed" : "",
             r->checkpoint[0] ? "it can go on from its last checkpoint"
                              : "there is no checkpoint to go on from");
    jobs_text_set(r->text, sizeof(r->text), text, strlen(text), false);
}

static void signal_outcome(struct jobs_record *r, int number)
{
    char text[JOBS_TEXT_MAX];

    r->state = JOBS_KILLED;
    snprintf(text, sizeof(text), "the trainer was killed by signal %d (%s)%s",
             number, strsignal(number),
             number == SIGKILL ? ", perhaps because memory ran out" : "");
    jobs_text_set(r->text, sizeof(r->text), text, strlen(text), false);
}

void jobs_run_outcome(struct jobs_record *r, int status, enum jobs_why why,
                      bool has_model, const char *last_line)
{
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    char text[64];

    r->cancelling = false;
    if (code < 0 && why != JOBS_WHY_NOT) {
        stopped_outcome(r, why, WTERMSIG(status) == SIGKILL);
    } else if (code < 0) {
        signal_outcome(r, WTERMSIG(status));
    } else if (code == 0 && has_model && strcmp(r->outcome, "published") == 0) {
        r->state = JOBS_PUBLISHED;
        say(r, "the model is finished");
    } else if (code == 0) {
        r->state = JOBS_FAILED;
        r->text[0] = '\0';
        say(r, "the trainer ended as if all were well, but left no model");
    } else if (code == 1 && strcmp(r->outcome, "refused") == 0) {
        r->state = JOBS_REFUSED;
        say(r, "the model is worse than the one it came from");
    } else if (code == 3) {
        stopped_outcome(r, why, false);
    } else {
        r->state = JOBS_FAILED;
        say(r, last_line);
        snprintf(text, sizeof(text), "the trainer ended with code %d", code);
        say(r, text);
    }
}

/* --- record and log ---------------------------------------------------- */

static void beat(struct run *run)
{
    atomic_store(&run->j->beat_us, server_now_us());
}

static void save(struct run *run)
{
    struct error err;

    jobs_save(run->j, run->job, &err); /* logs why it cannot */
    run->saved_us = server_now_us();
    run->changed = run->matters = false;
}

static void log_path(const struct jobs_job *job, const char *name,
                     char path[JOBS_PATH_MAX + 32])
{
    snprintf(path, JOBS_PATH_MAX + 32, "%s/%s", job->dir, name);
}

static void open_log(struct run *run)
{
    char path[JOBS_PATH_MAX + 32];
    struct stat st;

    log_path(run->job, "log.txt", path);
    run->log = open(
        path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    run->log_bytes =
        run->log >= 0 && fstat(run->log, &st) == 0 ? st.st_size : 0;
}

/* When the log is full it becomes the old one, and begins anew. */
static void write_log(struct run *run, const char *text, size_t len)
{
    char path[JOBS_PATH_MAX + 32], old[JOBS_PATH_MAX + 32];

    if (run->log_bytes + (int64_t)len > JOBS_LOG_MAX && run->log_bytes > 0) {
        log_path(run->job, "log.txt", path);
        log_path(run->job, "log.old.txt", old);
        if (run->log >= 0)
            close(run->log);
        if (rename(path, old) != 0)
            unlink(path);
        open_log(run);
    }
    while (run->log >= 0 && len > 0) {
        ssize_t n = write(run->log, text, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* a full disk costs the log, not the job */
        text += n;
        len -= (size_t)n;
        run->log_bytes += n;
    }
}

/* The last line with something in it. */
static void last_line(struct run *run, char out[JOBS_TEXT_MAX])
{
    char *text = jobs_log(run->j, run->job->rec.id), *p;

    out[0] = '\0';
    if (!text)
        return;
    p = text + strlen(text);
    while (p > text && (p[-1] == '\n' || p[-1] == ' '))
        *--p = '\0';
    p = strrchr(text, '\n');
    p = p ? p + 1 : text;
    jobs_text_set(out, JOBS_TEXT_MAX, p, strlen(p), false);
    free(text);
}

/* --- what the child tells ---------------------------------------------- */

/* A checkpoint counts when it is a file or folder in the job's own folder; it
 * is kept relative to that. False: it does not count. */
static bool own_checkpoint(const char *dir, char checkpoint[JOBS_PATH_MAX])
{
    char joined[JOBS_PATH_MAX * 2];
    char *base = realpath(dir, NULL), *real;
    size_t len = base ? strlen(base) : 0;
    bool good;

    snprintf(joined, sizeof(joined), "%s%s%s", checkpoint[0] == '/' ? "" : dir,
             checkpoint[0] == '/' ? "" : "/", checkpoint);
    real = base ? realpath(joined, NULL) : NULL;
    good = real && strncmp(real, base, len) == 0 && real[len] == '/' &&
           strlen(real + len + 1) < JOBS_PATH_MAX;
    if (good)
        memcpy(checkpoint, real + len + 1, strlen(real + len + 1) + 1);
    free(base);
    free(real);
    return good;
}

void jobs_run_checkpoint(struct jobs_record *r, const char *dir)
{
    char models[JOBS_PATH_MAX + 32], path[CHECKPOINT_MAX_PATH];
    char run[JOBS_PATH_MAX * 2];
    int64_t best = -1;
    struct dirent *e;
    DIR *d;

    snprintf(models, sizeof(models), "%s/run/models", dir);
    d = opendir(models);
    while (d && (e = readdir(d))) {
        long long step;

        if (e->d_name[0] == '.')
            continue;
        snprintf(run, sizeof(run), "%s/%s", models, e->d_name);
        step = checkpoint_newest(run, -1, path, NULL);
        if (step <= best || strlen(path) >= JOBS_PATH_MAX)
            continue;
        best = step;
        strcpy(r->checkpoint, path);
    }
    if (d)
        closedir(d);
    if (best < 0 || !own_checkpoint(dir, r->checkpoint))
        r->checkpoint[0] = '\0';
    r->checkpoint_step = r->checkpoint[0] ? best : 0;
}

/* A checkpoint that the line told of counts, or the one before stays. */
static void check_checkpoint(struct run *run, const char *before, int64_t step)
{
    struct jobs_record *rec = &run->job->rec;
    char path[JOBS_PATH_MAX];
    bool good;

    strcpy(path, rec->checkpoint); /* only this thread writes it */
    good = own_checkpoint(run->job->dir, path);
    pthread_mutex_lock(&run->j->lock);
    strcpy(rec->checkpoint, good ? path : before);
    if (!good) {
        rec->checkpoint_step = step;
        rec->n_bad_lines++;
    }
    pthread_mutex_unlock(&run->j->lock);
}

static void take_line(struct run *run, const char *line, size_t len)
{
    struct jobs_record *rec = &run->job->rec;
    char before[JOBS_PATH_MAX];
    enum jobs_event event;
    int64_t step = rec->checkpoint_step;

    strcpy(before, rec->checkpoint);
    pthread_mutex_lock(&run->j->lock);
    event = jobs_record_event(rec, line, len);
    pthread_mutex_unlock(&run->j->lock);
    if (event == JOBS_EVENT_CHECKPOINT)
        check_checkpoint(run, before, step);
    run->changed = true;
    run->matters |= event == JOBS_EVENT_EVALUATION ||
                    event == JOBS_EVENT_CHECKPOINT ||
                    event == JOBS_EVENT_RESULT;
}

static void take_progress(struct run *run, const char *p, size_t n)
{
    while (n > 0) {
        const char *end = memchr(p, '\n', n);
        size_t len = end ? (size_t)(end - p) : n;

        if (run->n_line + len > LINE_MAX_BYTES) {
            run->overlong = true;
            run->n_line = 0;
        } else if (!run->overlong) {
            memcpy(run->line + run->n_line, p, len);
            run->n_line += len;
        }
        if (!end)
            return;
        if (run->overlong)
            take_line(run, "", 0); /* counted as one that says nothing */
        else if (run->n_line > 0)
            take_line(run, run->line, run->n_line);
        run->n_line = 0;
        run->overlong = false;
        p = end + 1;
        n -= len + 1;
    }
}

/* One read. *fd becomes -1 at its end. Returns whether it was full. */
static bool take(struct run *run, int *fd)
{
    ssize_t n = *fd >= 0 ? read(*fd, run->buf, READ_BYTES) : 0;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) {
        if (*fd >= 0)
            close(*fd);
        *fd = -1;
        return false;
    }
    if (fd == &run->child.progress)
        take_progress(run, run->buf, (size_t)n);
    else
        write_log(run, run->buf, (size_t)n);
    return n == READ_BYTES;
}

/* --- stopping ---------------------------------------------------------- */

static enum jobs_why why_stop(struct run *run)
{
    struct jobs *j = run->j;
    int64_t most_us = (int64_t)(j->opt.max_minutes * 2 * 60e6);
    bool cancelling;

    pthread_mutex_lock(&j->lock);
    cancelling = run->job->rec.cancelling;
    pthread_mutex_unlock(&j->lock);
    if (cancelling)
        return JOBS_WHY_CANCEL;
    if (atomic_load(&j->ending))
        return JOBS_WHY_END;
    if (most_us > 0 && server_now_us() - run->began_us > most_us)
        return JOBS_WHY_TIME;
    return JOBS_WHY_NOT;
}

/* Ask once, kill when the time for stopping is over. */
static void stop_child(struct run *run)
{
    struct jobs *j = run->j;
    int64_t now = server_now_us(), until;

    if (run->why == JOBS_WHY_NOT)
        run->why = why_stop(run);
    if (run->why == JOBS_WHY_NOT)
        return;
    if (!run->stopped_us) {
        run->stopped_us = now;
        jobs_child_signal(&run->child, SIGTERM);
    }
    until = run->stopped_us + (int64_t)j->opt.stop_ms * 1000;
    if (atomic_load(&j->ending)) {
        int64_t end =
            atomic_load(&j->ending_us) + (int64_t)j->opt.end_ms * 1000;
        until = end < until ? end : until;
    }
    if (now >= until && !run->killed) {
        run->killed = true;
        jobs_child_signal(&run->child, SIGKILL);
    }
}

static void clear_wake(int fd)
{
    uint64_t count;

    while (read(fd, &count, sizeof(count)) < 0 && errno == EINTR)
        continue;
}

/* Until the child has ended. */
static void watch(struct run *run)
{
    bool full = false;

    for (;;) {
        struct pollfd fds[4] = {
            {.fd = run->child.pidfd, .events = POLLIN},
            {.fd = run->j->wake, .events = POLLIN},
            {.fd = full ? -1 : run->child.progress, .events = POLLIN},
            {.fd = full ? -1 : run->child.log, .events = POLLIN},
        };

        beat(run);
        poll(fds, 4,
             full              ? FLOOD_MS
             : run->stopped_us ? TICK_MS / 10
                               : TICK_MS);
        if (fds[1].revents)
            clear_wake(run->j->wake);
        if (fds[0].revents)
            return;
        full = take(run, &run->child.progress);
        full = take(run, &run->child.log) || full;
        stop_child(run);
        if (run->changed &&
            server_now_us() - run->saved_us >
                (int64_t)(run->matters ? SAVE_SOON_MS : SAVE_MS) * 1000)
            save(run);
    }
}

/* --- before and after -------------------------------------------------- */

static int one_folder(struct run *run, const char *what, const char *name,
                      bool is_dir, bool scan, char path[JOBS_PATH_MAX],
                      struct error *err)
{
    const char *root = run->j->opt.root;

    path[0] = '\0';
    if (!*name)
        return 0;
    if (jobs_data_resolve(root, what, name, is_dir, path, err) != 0)
        return -1;
    return scan ? jobs_data_scan(root, path, name, &run->job->stop,
                                 &run->j->beat_us, err)
                : 0;
}

/* Where the crops go is on record before they are there. */
static int export_crops(struct run *run, struct error *err)
{
    struct jobs *j = run->j;

    if (j->opt.sealed) {
        if (jobs_data_memory(run->job->rec.id, run->data, err) != 0)
            return -1;
    } else {
        snprintf(run->data, sizeof(run->data), "%.*s/data", JOBS_PATH_MAX - 8,
                 run->job->dir);
        jobs_data_remove(run->data);
        if (mkdir(run->data, 0700) != 0)
            return error_set(err, ERR_FILE, "%.150s: %s", run->data,
                             strerror(errno));
    }
    pthread_mutex_lock(&j->lock);
    snprintf(run->job->rec.data_dir, JOBS_PATH_MAX, "%s",
             j->opt.sealed ? run->data : "data");
    pthread_mutex_unlock(&j->lock);
    save(run);
    if (strchr(run->data, ':'))
        return error_set(err, ERR_CONFIG,
                         "the trainer takes no data-dir with a ':' in it");
    return jobs_data_export(j->opt.store, run->asked.gallery, run->data,
                            &run->job->stop, &j->beat_us, err);
}

static int make_dirs(struct run *run, struct error *err)
{
    static const char *const names[] = {"run", "run/logs", "run/models"};
    char path[JOBS_PATH_MAX + 32];

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        log_path(run->job, names[i], path);
        if (mkdir(path, 0700) != 0 && errno != EEXIST)
            return error_set(err, errno == ENOSPC ? ERR_STORAGE_FULL : ERR_FILE,
                             "%.150s: %s", path, strerror(errno));
    }
    return 0;
}

static int prepare(struct run *run, struct error *err)
{
    const struct jobs_record *rec = &run->job->rec;

    run->asked = rec->asked;
    run->line = malloc(LINE_MAX_BYTES);
    run->buf = malloc(READ_BYTES);
    if (!run->line || !run->buf)
        return error_set(err, ERR_NOMEM, "no memory to follow a job");
    if (rec->checkpoint[0])
        snprintf(run->resume, sizeof(run->resume), "%s/%s", run->job->dir,
                 rec->checkpoint);
    if (jobs_data_room(run->job->dir, run->asked.model_path, err) != 0 ||
        make_dirs(run, err) != 0 ||
        one_folder(run, "folder", run->asked.folder, true, true, run->data,
                   err) != 0 ||
        one_folder(run, "holdout_folder", run->asked.holdout_folder, true, true,
                   run->holdout, err) != 0 ||
        one_folder(run, "lfw_dir", run->asked.lfw_dir, true, true, run->lfw_dir,
                   err) != 0 ||
        one_folder(run, "lfw_pairs", run->asked.lfw_pairs, false, false,
                   run->lfw_pairs, err) != 0)
        return -1;
    return run->asked.gallery[0] ? export_crops(run, err) : 0;
}

static int start(struct run *run, struct error *err)
{
    struct jobs *j = run->j;
    struct jobs_paths paths = {.trainer = j->opt.trainer,
                               .dir = run->job->dir,
                               .data = run->data,
                               .holdout = run->holdout,
                               .lfw_dir = run->lfw_dir,
                               .lfw_pairs = run->lfw_pairs,
                               .detectors = j->opt.detectors,
                               .resume = run->resume,
                               .device = j->opt.device,
                               .plugin = j->opt.plugin,
                               .n_threads = j->opt.n_threads,
                               .memory = j->opt.memory,
                               .max_minutes = j->opt.max_minutes};
    char **argv = jobs_args_argv(&run->asked, &paths, err);
    struct jobs_spawn spawn = {.program = j->opt.trainer,
                               .argv = argv,
                               .dir = run->job->dir,
                               .n_threads = j->opt.n_threads,
                               .memory = j->opt.memory};
    const char *soft;
    int rc = argv ? jobs_child_start(&spawn, &run->child, &soft, err) : -1;

    free(argv);
    if (rc != 0)
        return -1;
    if (soft)
        log_event(LOG_LEVEL_WARN, "job", "job=%s without=\"%s\"",
                  run->job->rec.id, soft);
    pthread_mutex_lock(&j->lock);
    run->job->rec.pid = run->child.pid;
    run->job->rec.pid_start = jobs_child_began(run->child.pid);
    pthread_mutex_unlock(&j->lock);
    run->began_us = server_now_us();
    open_log(run);
    save(run);
    return 0;
}

/* It did not get as far as a process. */
static void not_started(struct run *run, struct jobs_record *r,
                        const struct error *err)
{
    enum jobs_why why = why_stop(run);

    r->cancelling = false;
    if (why == JOBS_WHY_END) { /* its turn comes again */
        r->state = JOBS_QUEUED;
        return;
    }
    if (why == JOBS_WHY_CANCEL) {
        stopped_outcome(r, why, false);
        return;
    }
    r->state = JOBS_FAILED;
    jobs_text_set(r->text, sizeof(r->text), err->text, strlen(err->text),
                  false);
}

static bool has_model(const struct jobs_job *job)
{
    char path[JOBS_PATH_MAX + 32];
    struct stat st;

    log_path(job, "model.onnx", path);
    return lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0;
}

/* The daemon takes the model over. */
static void publish(struct run *run, struct jobs_record *r)
{
    struct jobs *j = run->j;
    char path[JOBS_PATH_MAX + 32];
    struct error err;

    snprintf(r->model_file, sizeof(r->model_file), "model.onnx");
    if (j->opt.import) {
        log_path(run->job, "model.onnx", path);
        if (j->opt.import(j->opt.ctx, path, r->model_id, &err) != 0) {
            r->state = JOBS_FAILED;
            r->model_id[0] = '\0';
            snprintf(r->text, sizeof(r->text), "the model is finished, but %s",
                     err.text);
            return;
        }
        r->model_file[0] = '\0';
    }
    r->checkpoint[0] = '\0';
    r->checkpoint_step = 0;
}

/* What is of no more use once the record says that the model is published:
 * the trainer's file where the daemon has its copy, and what was kept to go on
 * with. Nobody can resume or purge the job before its new state is told. */
static void drop_used(struct run *run, const struct jobs_record *r)
{
    char path[JOBS_PATH_MAX + 32];
    struct error err;
    int rc;

    pthread_mutex_lock(&run->j->save_lock);
    rc = jobs_record_save(r, run->job->dir, &err);
    pthread_mutex_unlock(&run->j->save_lock);
    if (rc != 0)
        return; /* it goes with the job */
    if (!r->model_file[0]) {
        log_path(run->job, "model.onnx", path);
        unlink(path);
    }
    log_path(run->job, "run/models", path);
    jobs_data_remove(path);
}

static void finish(struct run *run, const struct error *err)
{
    struct jobs *j = run->j;
    struct jobs_record *r = calloc(1, sizeof(*r));
    char line[JOBS_TEXT_MAX] = "";
    int status = 0;
    bool started = run->child.pid > 0;

    if (started) {
        status = jobs_child_reap(&run->child);
        for (int i = 0; i < LAST_READS; i++) {
            take(run, &run->child.progress);
            take(run, &run->child.log);
        }
        last_line(run, line);
    }
    if (run->asked.gallery[0] && run->data[0] && !jobs_data_remove(run->data))
        log_event(LOG_LEVEL_ERROR, "job",
                  "job=%s text=\"exported crops could not be removed\"",
                  run->job->rec.id);
    if (!r) { /* the state matters more than the text */
        pthread_mutex_lock(&j->lock);
        run->job->rec.state = JOBS_FAILED;
        pthread_mutex_unlock(&j->lock);
        return;
    }
    pthread_mutex_lock(&j->lock);
    *r = run->job->rec;
    pthread_mutex_unlock(&j->lock);
    r->pid = r->pid_start = 0;
    r->data_dir[0] = '\0';
    jobs_run_checkpoint(r, run->job->dir);
    if (started)
        jobs_run_outcome(r, status, run->why, has_model(run->job), line);
    else
        not_started(run, r, err);
    beat(run);
    if (r->state == JOBS_PUBLISHED)
        publish(run, r);
    r->ended_s = r->state == JOBS_QUEUED ? 0 : (int64_t)time(NULL);
    if (r->state == JOBS_PUBLISHED)
        drop_used(run, r);
    pthread_mutex_lock(&j->lock);
    run->job->rec = *r;
    pthread_mutex_unlock(&j->lock);
    log_event(r->state == JOBS_KILLED || r->state == JOBS_FAILED
                  ? LOG_LEVEL_WARN
                  : LOG_LEVEL_INFO,
              "job", "job=%s state=%s step=%lld code=%d signal=%d", r->id,
              jobs_state_name(r->state), (long long)r->step,
              WIFEXITED(status) ? WEXITSTATUS(status) : -1,
              WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    free(r);
}

void jobs_run(struct jobs *j, struct jobs_job *job)
{
    struct run *run = calloc(1, sizeof(*run));
    struct error err = {.code = ERR_NONE};

    if (!run) {
        pthread_mutex_lock(&j->lock);
        job->rec.state = JOBS_FAILED;
        snprintf(job->rec.text, sizeof(job->rec.text), "no memory to run it");
        pthread_mutex_unlock(&j->lock);
        jobs_save(j, job, &err);
        return;
    }
    run->j = j;
    run->job = job;
    run->log = -1;
    run->child =
        (struct jobs_child){.pid = -1, .pidfd = -1, .progress = -1, .log = -1};
    beat(run);
    log_event(LOG_LEVEL_INFO, "job", "job=%s state=running resumed=%d",
              job->rec.id, job->rec.n_resumed);
    if (prepare(run, &err) == 0 && start(run, &err) == 0)
        watch(run);
    finish(run, &err);
    save(run);
    if (run->child.progress >= 0)
        close(run->child.progress);
    if (run->child.log >= 0)
        close(run->child.log);
    if (run->log >= 0)
        close(run->log);
    free(run->line);
    free(run->buf);
    free(run);
}

void jobs_run_bury(struct jobs *j, int64_t pid, int64_t began)
{
    int fd = pid > 1 ? pidfd_open((pid_t)pid, 0) : -1;
    int64_t asked_us = server_now_us();

    if (fd < 0)
        return;
    /* The number may be another process's by now. */
    if (began > 0 && jobs_child_began(pid) == began) {
        struct pollfd p = {.fd = fd, .events = POLLIN};

        kill((pid_t)-pid, SIGTERM);
        while (poll(&p, 1, TICK_MS / 10) == 0) {
            atomic_store(&j->beat_us, server_now_us());
            if (atomic_load(&j->ending) ||
                server_now_us() - asked_us > (int64_t)j->opt.stop_ms * 1000)
                kill((pid_t)-pid, SIGKILL);
        }
    }
    close(fd);
}
