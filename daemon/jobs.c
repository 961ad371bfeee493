/* daemon/jobs.c - the list of training jobs and the thread that runs them, in
 * order and one at a time. What is on disk is what counts: a change is
 * answered when its record is written, and a new daemon begins with the
 * records that it finds. */
#include "daemon/jobs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/jobs_priv.h"
#include "daemon/log.h"
#include "daemon/server.h"

/* --- jobs in memory ---------------------------------------------------- */

void jobs_unref(struct jobs_job *job)
{
    if (--job->n_refs == 0)
        free(job);
}

static void release(struct jobs *j, struct jobs_job *job)
{
    pthread_mutex_lock(&j->lock);
    jobs_unref(job);
    pthread_mutex_unlock(&j->lock);
}

static void take_out(struct jobs *j, struct jobs_job *job)
{
    struct jobs_job **at = &j->list;

    while (*at != job)
        at = &(*at)->next;
    *at = job->next;
}

/* With the lock held; NULL with ERR_NO_JOB. */
static struct jobs_job *find(struct jobs *j, const char *id, struct error *err)
{
    struct jobs_job *job = j->list;

    while (job && strcmp(job->rec.id, id) != 0)
        job = job->next;
    if (!job)
        error_set(err, ERR_NO_JOB, "there is no job '%.40s'", id);
    return job;
}

/* With the lock held. */
static int count(const struct jobs *j, enum jobs_state state)
{
    int n = 0;

    for (const struct jobs_job *job = j->list; job; job = job->next)
        n += job->rec.state == state;
    return n;
}

int jobs_save(struct jobs *j, struct jobs_job *job, struct error *err)
{
    struct jobs_record *rec = malloc(sizeof(*rec));
    char text[512];
    bool purged;
    int rc = 0;

    if (!rec)
        return error_set(err, ERR_NOMEM, "no memory for the job's record");
    pthread_mutex_lock(&j->save_lock);
    pthread_mutex_lock(&j->lock);
    *rec = job->rec;
    purged = job->purged;
    pthread_mutex_unlock(&j->lock);
    if (!purged)
        rc = jobs_record_save(rec, job->dir, err);
    pthread_mutex_unlock(&j->save_lock);
    if (rc != 0)
        log_event(LOG_LEVEL_ERROR, "job", "job=%s not_saved=%s", rec->id,
                  log_quote(err->text, text, sizeof(text)));
    free(rec);
    return rc;
}

/* --- the thread -------------------------------------------------------- */

/* With the lock held: the queued job whose turn is first. */
static struct jobs_job *next_queued(struct jobs *j)
{
    struct jobs_job *first = NULL;

    for (struct jobs_job *job = j->list; job; job = job->next)
        if (job->rec.state == JOBS_QUEUED &&
            (!first || job->rec.turn < first->rec.turn))
            first = job;
    return first;
}

static void *thread_main(void *arg)
{
    struct jobs *j = arg;
    struct error err;

    jobs_tidy(j);
    for (;;) {
        struct jobs_job *job = NULL;

        pthread_mutex_lock(&j->lock);
        atomic_store(&j->beat_us, 0);
        while (!atomic_load(&j->ending) && !(job = next_queued(j)))
            pthread_cond_wait(&j->more, &j->lock);
        atomic_store(&j->beat_us, server_now_us());
        if (!job || atomic_load(&j->ending)) {
            pthread_mutex_unlock(&j->lock);
            return NULL;
        }
        job->rec.state = JOBS_RUNNING;
        job->rec.started_s = (int64_t)time(NULL);
        atomic_store(&job->stop, false);
        job->n_refs++;
        j->running = job;
        pthread_mutex_unlock(&j->lock);
        jobs_save(j, job, &err);
        jobs_run(j, job);
        pthread_mutex_lock(&j->lock);
        j->running = NULL;
        jobs_unref(job);
        pthread_mutex_unlock(&j->lock);
    }
}

/* --- opening and closing ----------------------------------------------- */

struct jobs *jobs_open(const struct jobs_options *opt, struct error *err)
{
    struct jobs *j = calloc(1, sizeof(*j));

    if (!j)
        return error_null(err, ERR_NOMEM, "no memory for training jobs");
    pthread_mutex_init(&j->lock, NULL);
    pthread_mutex_init(&j->save_lock, NULL);
    pthread_cond_init(&j->more, NULL);
    j->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (j->wake < 0) {
        error_set(err, ERR_FILE, "eventfd: %s", strerror(errno));
        goto fail;
    }
    if (jobs_load(j, opt, err) != 0)
        goto fail;
    if (pthread_create(&j->thread, NULL, thread_main, j) != 0) {
        error_set(err, ERR_NOMEM, "cannot start the jobs' thread");
        goto fail;
    }
    j->started = true;
    return j;
fail:
    jobs_close(j);
    return NULL;
}

static void wake(struct jobs *j)
{
    uint64_t one = 1;

    while (write(j->wake, &one, sizeof(one)) < 0 && errno == EINTR)
        continue;
}

void jobs_stop(struct jobs *j)
{
    if (!j || atomic_load(&j->ending))
        return;
    atomic_store(&j->ending_us, server_now_us());
    pthread_mutex_lock(&j->lock);
    atomic_store(&j->ending, true);
    if (j->running)
        atomic_store(&j->running->stop, true);
    pthread_cond_broadcast(&j->more);
    pthread_mutex_unlock(&j->lock);
    wake(j);
}

void jobs_close(struct jobs *j)
{
    struct jobs_job *job;

    if (!j)
        return;
    jobs_stop(j);
    if (j->started)
        pthread_join(j->thread, NULL);
    while ((job = j->list)) {
        j->list = job->next;
        free(job);
    }
    if (j->wake >= 0)
        close(j->wake);
    pthread_cond_destroy(&j->more);
    pthread_mutex_destroy(&j->save_lock);
    pthread_mutex_destroy(&j->lock);
    jobs_options_free(&j->opt);
    free(j);
}

bool jobs_alive(struct jobs *j, int timeout_ms)
{
    int64_t beat = atomic_load(&j->beat_us);

    return !beat || server_now_us() - beat < (int64_t)timeout_ms * 1000;
}

int jobs_resolve(const struct jobs *j, const char *what, const char *name,
                 bool is_dir, char path[JOBS_PATH_MAX], struct error *err)
{
    return jobs_data_resolve(j->opt.root, what, name, is_dir, path, err);
}

/* --- adding ------------------------------------------------------------ */

static int remove_files(struct jobs *j, struct jobs_job *job, struct error *err)
{
    char path[JOBS_PATH_MAX + 32];

    /* After this no record of it is being written. */
    pthread_mutex_lock(&j->save_lock);
    pthread_mutex_unlock(&j->save_lock);
    /* The record first: a folder without one is removed at the next start. */
    snprintf(path, sizeof(path), "%s/record.json", job->dir);
    unlink(path);
    if (!jobs_data_remove(job->dir))
        return error_set(err, ERR_FILE, "%.150s: %s", job->dir,
                         strerror(errno));
    return 0;
}

/* With the lock held: the job is out of the list and belongs to the caller,
 * who removes its files. */
static void set_purged(struct jobs *j, struct jobs_job *job)
{
    job->purged = true;
    take_out(j, job);
}

/* Ended jobs over the number that is kept: the oldest go. */
static void trim(struct jobs *j)
{
    for (;;) {
        struct jobs_job *job, *oldest = NULL;
        struct error err;
        int n = 0;

        pthread_mutex_lock(&j->lock);
        for (job = j->list; job; job = job->next) {
            if (!jobs_state_ended(job->rec.state))
                continue;
            oldest = job;
            n++;
        }
        if (n <= j->opt.max_kept) {
            pthread_mutex_unlock(&j->lock);
            return;
        }
        set_purged(j, oldest);
        pthread_mutex_unlock(&j->lock);
        log_event(LOG_LEVEL_INFO, "job",
                  "job=%s text=\"removed: jobs-kept is reached\"",
                  oldest->rec.id);
        if (remove_files(j, oldest, &err) != 0)
            log_event(LOG_LEVEL_ERROR, "job",
                      "job=%s text=\"its files could not all be removed\"",
                      oldest->rec.id);
        release(j, oldest);
    }
}

/* Number, turn and id of a new job, while there is room for it. */
static int number_it(struct jobs *j, struct jobs_record *r, struct error *err)
{
    uint32_t random;
    int waiting;

    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return error_set(err, ERR_INTERNAL, "no random number for an id");
    pthread_mutex_lock(&j->lock);
    waiting = count(j, JOBS_QUEUED) + j->n_adding;
    if (waiting < j->opt.max_waiting) {
        j->n_adding++;
        r->number = ++j->last_number;
        r->turn = ++j->last_turn;
    }
    pthread_mutex_unlock(&j->lock);
    if (!r->number)
        return error_set(err, ERR_QUEUE_FULL, "%d jobs already wait", waiting);
    snprintf(r->id, sizeof(r->id), "%lld-%08x", (long long)r->number,
             (unsigned)random);
    r->state = JOBS_QUEUED;
    r->created_s = (int64_t)time(NULL);
    return 0;
}

static int check_trainer(const struct jobs *j, struct error *err)
{
    struct stat st;

    if (stat(j->opt.trainer, &st) != 0)
        return error_set(err, ERR_CONFIG, "trainer %.150s: %s", j->opt.trainer,
                         strerror(errno));
    if (!S_ISREG(st.st_mode) || access(j->opt.trainer, X_OK) != 0)
        return error_set(err, ERR_CONFIG, "trainer %.150s is no program",
                         j->opt.trainer);
    return 0;
}

/* The job with its folder and record; NULL: neither is there. */
static struct jobs_job *make_job(struct jobs *j, const struct jobs_record *rec,
                                 struct error *err)
{
    struct jobs_job *job = jobs_job_new(j, rec->id);

    if (!job)
        return error_null(err, ERR_NOMEM, "no memory for a job");
    job->rec = *rec;
    if (mkdir(job->dir, 0700) != 0)
        error_set(err, errno == ENOSPC ? ERR_STORAGE_FULL : ERR_FILE,
                  "%.150s: %s", job->dir, strerror(errno));
    else if (jobs_record_save(&job->rec, job->dir, err) != 0)
        jobs_data_remove(job->dir);
    else
        return job;
    free(job);
    return NULL;
}

int jobs_add(struct jobs *j, const struct jobs_request *asked,
             struct jobs_record *out, struct error *err)
{
    struct jobs_job *job;

    memset(out, 0, sizeof(*out));
    out->asked = *asked;
    if (check_trainer(j, err) != 0 ||
        jobs_data_room(j->opt.dir, asked->model_path, err) != 0 ||
        number_it(j, out, err) != 0)
        return -1;
    job = make_job(j, out, err);
    pthread_mutex_lock(&j->lock);
    j->n_adding--;
    if (job)
        jobs_insert(j, job);
    pthread_cond_signal(&j->more);
    pthread_mutex_unlock(&j->lock);
    if (!job)
        return -1;
    log_event(LOG_LEVEL_INFO, "job", "job=%s state=queued", out->id);
    trim(j);
    return 0;
}

/* --- the rest of the interface ----------------------------------------- */

int jobs_get(struct jobs *j, const char *id, struct jobs_record *out,
             int *before, struct error *err)
{
    struct jobs_job *job;

    pthread_mutex_lock(&j->lock);
    job = find(j, id, err);
    if (job)
        *out = job->rec;
    if (before)
        *before = 0;
    for (struct jobs_job *o = j->list; job && before && o; o = o->next)
        *before += o->rec.state == JOBS_QUEUED && o->rec.turn < job->rec.turn;
    pthread_mutex_unlock(&j->lock);
    return job ? 0 : -1;
}

int64_t jobs_next(struct jobs *j, int64_t below, struct jobs_record *out)
{
    struct jobs_job *job;
    int64_t number = 0;

    pthread_mutex_lock(&j->lock);
    job = j->list;
    while (job && below > 0 && job->rec.number >= below)
        job = job->next;
    if (job) {
        *out = job->rec;
        number = job->rec.number;
    }
    pthread_mutex_unlock(&j->lock);
    return number;
}

int jobs_cancel(struct jobs *j, const char *id, struct jobs_record *out,
                struct error *err)
{
    struct jobs_job *job;
    enum jobs_state state;
    int rc = 0;

    pthread_mutex_lock(&j->lock);
    job = find(j, id, err);
    if (!job) {
        pthread_mutex_unlock(&j->lock);
        return -1;
    }
    state = job->rec.state;
    job->n_refs++;
    if (state == JOBS_QUEUED) {
        job->rec.state = JOBS_CANCELLED;
        job->rec.ended_s = (int64_t)time(NULL);
        snprintf(job->rec.text, sizeof(job->rec.text),
                 "cancelled before its turn");
    } else if (state == JOBS_RUNNING) {
        job->rec.cancelling = true;
        atomic_store(&job->stop, true);
    } else {
        rc = error_set(err, ERR_CONFLICT,
                       "the job has ended (%s); DELETE with purge=true removes "
                       "it",
                       jobs_state_name(state));
    }
    *out = job->rec;
    pthread_mutex_unlock(&j->lock);
    if (rc == 0) {
        log_event(LOG_LEVEL_INFO, "job", "job=%s cancel=%s", id,
                  jobs_state_name(state));
        wake(j);
        rc = jobs_save(j, job, err);
    }
    release(j, job);
    return rc;
}

/* With the lock held: back into the queue. */
static void requeue(struct jobs *j, struct jobs_record *r)
{
    r->state = JOBS_QUEUED;
    r->turn = ++j->last_turn;
    r->ended_s = 0;
    r->text[0] = r->outcome[0] = r->phase[0] = '\0';
    r->left_s = 0;
    r->n_resumed++;
}

int jobs_resume(struct jobs *j, const char *id, struct jobs_record *out,
                struct error *err)
{
    struct jobs_job *job;
    int rc = 0;

    if (check_trainer(j, err) != 0)
        return -1;
    pthread_mutex_lock(&j->lock);
    job = find(j, id, err);
    if (!job) {
        pthread_mutex_unlock(&j->lock);
        return -1;
    }
    if (!jobs_state_ended(job->rec.state))
        rc = error_set(err, ERR_CONFLICT, "the job has not ended: it is %s",
                       jobs_state_name(job->rec.state));
    else if (!jobs_record_resumable(&job->rec))
        rc = error_set(err, ERR_CONFLICT,
                       "the job is %s and has no checkpoint to go on from",
                       jobs_state_name(job->rec.state));
    else if (count(j, JOBS_QUEUED) + j->n_adding >= j->opt.max_waiting)
        rc = error_set(err, ERR_QUEUE_FULL, "%d jobs already wait",
                       count(j, JOBS_QUEUED));
    if (rc != 0) {
        pthread_mutex_unlock(&j->lock);
        return rc;
    }
    requeue(j, &job->rec);
    *out = job->rec;
    job->n_refs++;
    pthread_cond_signal(&j->more);
    pthread_mutex_unlock(&j->lock);
    log_event(LOG_LEVEL_INFO, "job", "job=%s state=queued resumed=%d", id,
              out->n_resumed);
    rc = jobs_save(j, job, err);
    release(j, job);
    return rc;
}

int jobs_purge(struct jobs *j, const char *id, struct error *err)
{
    struct jobs_job *job;
    int rc;

    pthread_mutex_lock(&j->lock);
    job = find(j, id, err);
    if (!job || !jobs_state_ended(job->rec.state)) {
        if (job)
            error_set(err, ERR_CONFLICT,
                      "the job has not ended; DELETE without purge stops it");
        pthread_mutex_unlock(&j->lock);
        return -1;
    }
    set_purged(j, job);
    pthread_mutex_unlock(&j->lock);
    rc = remove_files(j, job, err);
    release(j, job);
    log_event(LOG_LEVEL_INFO, "job", "job=%s purged=%d", id, rc == 0);
    return rc;
}

/* Up to len bytes from the end of the file at path; returns how many. */
static size_t read_tail(const char *path, char *to, size_t len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    size_t at = 0;

    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0) {
        off_t from = st.st_size > (off_t)len ? st.st_size - (off_t)len : 0;
        ssize_t n;
        while (at < len &&
               (n = pread(fd, to + at, len - at, from + (off_t)at)) > 0)
            at += (size_t)n;
    }
    if (fd >= 0)
        close(fd);
    return at;
}

char *jobs_log(struct jobs *j, const char *id)
{
    char path[JOBS_PATH_MAX + 32], *raw = malloc(2 * JOBS_LOG_TAIL);
    char *out = malloc(2 * JOBS_LOG_TAIL + 1);
    size_t n, old = 0;

    if (!raw || !out) {
        free(raw);
        free(out);
        return NULL;
    }
    snprintf(path, sizeof(path), "%s/%s/log.txt", j->opt.dir, id);
    n = read_tail(path, raw + JOBS_LOG_TAIL, JOBS_LOG_TAIL);
    if (n < JOBS_LOG_TAIL) { /* it has just begun anew: the end of the last */
        snprintf(path, sizeof(path), "%s/%s/log.old.txt", j->opt.dir, id);
        old = read_tail(path, out, JOBS_LOG_TAIL - n);
        memcpy(raw + JOBS_LOG_TAIL - old, out, old);
    }
    for (size_t i = JOBS_LOG_TAIL - old; i < JOBS_LOG_TAIL + n; i++)
        if (raw[i] == '\r') /* a progress bar's lines */
            raw[i] = '\n';
    jobs_text_set(out, 2 * JOBS_LOG_TAIL + 1, raw + JOBS_LOG_TAIL - old,
                  old + n, true);
    free(raw);
    return out;
}

void jobs_count(struct jobs *j, int n[JOBS_STATES])
{
    memset(n, 0, JOBS_STATES * sizeof(*n));
    pthread_mutex_lock(&j->lock);
    for (const struct jobs_job *job = j->list; job; job = job->next)
        n[job->rec.state]++;
    pthread_mutex_unlock(&j->lock);
}
