/* daemon/jobs_load.c - what a new daemon finds of training jobs: options,
 * folders and records, and what an earlier one left running or lying about. */
#include "daemon/jobs_priv.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/server.h"

struct jobs_job *jobs_job_new(const struct jobs *j, const char *id)
{
    struct jobs_job *job = calloc(1, sizeof(*job));

    if (!job)
        return NULL;
    job->n_refs = 1;
    if (snprintf(job->dir, sizeof(job->dir), "%s/%s", j->opt.dir, id) >=
        (int)sizeof(job->dir)) {
        free(job);
        return NULL;
    }
    return job;
}

void jobs_insert(struct jobs *j, struct jobs_job *job)
{
    struct jobs_job **at = &j->list;

    while (*at && (*at)->rec.number > job->rec.number)
        at = &(*at)->next;
    job->next = *at;
    *at = job;
}

/* --- options ----------------------------------------------------------- */

void jobs_options_free(struct jobs_options *o)
{
    free((char *)o->dir);
    free((char *)o->trainer);
    free((char *)o->root);
    free((char *)o->detectors);
    free((char *)o->device);
    free((char *)o->plugin);
}

/* facenetctl beside this program, else where it is installed. */
static char *default_trainer(void)
{
    char path[JOBS_PATH_MAX], *slash;
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 16);

    if (n > 0) {
        path[n] = '\0';
        slash = strrchr(path, '/');
        if (slash) {
            strcpy(slash + 1, "facenetctl");
            if (access(path, X_OK) == 0)
                return strdup(path);
        }
    }
    return strdup(PREFIX "/bin/facenetctl");
}

static int copy_options(struct jobs_options *to, const struct jobs_options *o,
                        struct error *err)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct jobs_options own = *o;

    own.trainer = *o->trainer ? strdup(o->trainer) : default_trainer();
    own.root = strdup(o->root);
    own.device = strdup(o->device);
    own.plugin = strdup(o->plugin);
    own.detectors = realpath(o->detectors, NULL);
    if (!own.detectors) /* the trainer says so, where it needs them */
        own.detectors = strdup(o->detectors);
    own.dir = NULL; /* see make_dir: its real path */
    if (own.n_threads <= 0)
        own.n_threads = cores > 2 ? (int)cores - 1 : 1;
    *to = own;
    if (!own.trainer || !own.root || !own.detectors || !own.device ||
        !own.plugin)
        return error_set(err, ERR_NOMEM, "no memory for training jobs");
    return 0;
}

static int make_dir(struct jobs *j, const char *dir, struct error *err)
{
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return error_set(err, ERR_FILE, "%.150s: %s", dir, strerror(errno));
    j->opt.dir = realpath(dir, NULL);
    if (!j->opt.dir)
        return error_set(err, ERR_FILE, "%.150s: %s", dir, strerror(errno));
    if (strlen(j->opt.dir) + JOBS_ID_MAX + 64 > JOBS_PATH_MAX)
        return error_set(err, ERR_CONFIG, "data-dir has too long a path");
    return 0;
}

/* --- records ----------------------------------------------------------- */

static void set_lost_text(struct jobs_record *r)
{
    snprintf(r->text, sizeof(r->text), "the daemon ended while it ran; %s",
             r->checkpoint[0] ? "it can go on from its last checkpoint"
                              : "there is no checkpoint to go on from");
}

/* A record as the last daemon left it. */
static void adopt(struct jobs *j, struct jobs_job *job)
{
    struct jobs_record *r = &job->rec;
    struct error err;

    if (r->number > j->last_number)
        j->last_number = r->number;
    if (r->turn > j->last_turn)
        j->last_turn = r->turn;
    jobs_insert(j, job);
    if (r->state != JOBS_RUNNING)
        return;
    r->state = JOBS_KILLED;
    r->cancelling = false;
    r->ended_s = (int64_t)time(NULL);
    jobs_run_checkpoint(r, job->dir);
    set_lost_text(r);
    log_event(LOG_LEVEL_WARN, "job",
              "job=%s state=killed step=%lld resumable=%d text=\"the daemon "
              "ended while it ran\"",
              r->id, (long long)r->step, jobs_record_resumable(r));
    jobs_save(j, job, &err);
}

/* One folder of dir. What cannot be read is left where it is, and logged. */
static int load_one(struct jobs *j, const char *name, struct error *err)
{
    struct jobs_job *job = jobs_job_new(j, name);
    char text[512];

    if (!job)
        return error_set(err, ERR_NOMEM, "no memory for a job");
    if (jobs_record_load(&job->rec, job->dir, err) == 0 &&
        strcmp(job->rec.id, name) == 0) {
        adopt(j, job);
        return 0;
    }
    if (err->code == ERR_FILE && errno == ENOENT) {
        /* A job that was being added or removed when the power went. */
        jobs_data_remove(job->dir);
        snprintf(text, sizeof(text), "\"removed, for it has no record\"");
    } else {
        log_quote(err->code ? err->text : "the record is another job's", text,
                  sizeof(text));
    }
    log_event(LOG_LEVEL_WARN, "job", "folder=%s text=%s", name, text);
    free(job);
    return 0;
}

static bool is_id(const char *name)
{
    size_t digits = strspn(name, "0123456789");

    return digits > 0 && digits < 18 && name[digits] == '-' &&
           strlen(name + digits + 1) == 8 &&
           strspn(name + digits + 1, "0123456789abcdef") == 8;
}

static int load_all(struct jobs *j, struct error *err)
{
    DIR *d = opendir(j->opt.dir);
    struct dirent *e;
    int rc = 0;

    if (!d)
        return error_set(err, ERR_FILE, "%.150s: %s", j->opt.dir,
                         strerror(errno));
    while (rc == 0 && (e = readdir(d))) {
        struct error why = {.code = ERR_NONE};
        if (is_id(e->d_name) && load_one(j, e->d_name, &why) != 0) {
            rc = -1;
            if (err)
                *err = why;
        }
    }
    closedir(d);
    return rc;
}

int jobs_load(struct jobs *j, const struct jobs_options *opt, struct error *err)
{
    if (copy_options(&j->opt, opt, err) != 0 || make_dir(j, opt->dir, err) != 0)
        return -1;
    return load_all(j, err);
}

/* --- leftovers --------------------------------------------------------- */

/* Exported crops of a job that an earlier daemon ran. The path is taken from
 * the record only where it can be such a folder. */
static void remove_crops(const struct jobs_job *job, const char *data_dir)
{
    char path[JOBS_PATH_MAX * 2];

    if (strcmp(data_dir, "data") == 0)
        snprintf(path, sizeof(path), "%s/data", job->dir);
    else if (data_dir[0] == '/' && strstr(data_dir, "/facenetd-job-"))
        snprintf(path, sizeof(path), "%s", data_dir);
    else
        return;
    if (!jobs_data_remove(path))
        log_event(LOG_LEVEL_ERROR, "job",
                  "job=%s text=\"exported crops could not be removed\"",
                  job->rec.id);
}

void jobs_tidy(struct jobs *j)
{
    struct jobs_job *job;

    pthread_mutex_lock(&j->lock);
    job = j->list;
    while (job) {
        struct jobs_record rec = job->rec;
        struct error err;

        job->n_refs++;
        if (rec.pid > 0 || rec.data_dir[0]) {
            pthread_mutex_unlock(&j->lock);
            atomic_store(&j->beat_us, server_now_us());
            jobs_run_bury(j, rec.pid, rec.pid_start);
            remove_crops(job, rec.data_dir);
            jobs_run_checkpoint(&rec, job->dir);
            pthread_mutex_lock(&j->lock);
            job->rec.pid = job->rec.pid_start = 0;
            job->rec.data_dir[0] = '\0';
            memcpy(job->rec.checkpoint, rec.checkpoint, sizeof(rec.checkpoint));
            job->rec.checkpoint_step = rec.checkpoint_step;
            if (job->rec.state == JOBS_KILLED)
                set_lost_text(&job->rec);
            pthread_mutex_unlock(&j->lock);
            jobs_save(j, job, &err);
            pthread_mutex_lock(&j->lock);
        }
        jobs_unref(job);
        /* It may have left the list meanwhile, and with it the next one. */
        job = j->list;
        while (job && job->rec.number >= rec.number)
            job = job->next;
    }
    pthread_mutex_unlock(&j->lock);
}
