/* daemon/jobs.h - training jobs: asked for over HTTP, run one at a time in a
 * child process (facenetctl train), kept on disk. One thread runs them; each
 * has a folder DIR/ID with its record, its log and what the trainer writes.
 * (daemon/job.h is another thing: a request on its way.) Thread: any, but for
 * open, stop and close: main. */
#ifndef DAEMON_JOBS_H
#define DAEMON_JOBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "daemon/jobs_record.h"
#include "store/store.h"

struct jobs; /* opaque */

enum {
    JOBS_LOG_MAX = 1024 * 1024, /* of the log file; the one before is kept */
    JOBS_LOG_TAIL = 8192
};

struct jobs_options {
    const char *dir;       /* made 0700 when missing */
    const char *trainer;   /* path of facenetctl; "": beside this program */
    const char *root;      /* folders of photos are below it; "": none */
    const char *detectors; /* directory of the detector's networks */
    const char *device;    /* auto, cpu, cuda or cuda:N */
    const char *plugin;    /* of a card; "": where it usually is */
    struct store *store;   /* borrowed: where galleries' crops come from */
    bool sealed;           /* kept crops are encrypted: never on a disk */
    int n_threads;         /* of a job; 0: all cores but one, at least 1 */
    int64_t memory;        /* bytes of a job's data; 0: no limit */
    double max_minutes;    /* of training; the whole job twice that; 0: none */
    int stop_ms;           /* from asking a job to stop to killing it */
    int end_ms;            /* the same when the daemon stops */
    int max_waiting, max_kept;
    /* Make a finished model the daemon's: its id. NULL: it stays a file in
     * the job's folder. Thread: the jobs'. */
    int (*import)(void *ctx, const char *path, char id[65], struct error *err);
    void *ctx;
};

/* Reads the records: a job that ran when the last daemon ended is now killed,
 * queued ones go on. Texts of opt are copied. ERR_FILE, ERR_NOMEM. */
struct jobs *jobs_open(const struct jobs_options *opt, struct error *err);
/* Ask the running job to stop; returns at once. NULL is fine. */
void jobs_stop(struct jobs *j);
/* Waits for it, end_ms from jobs_stop at most, then it is killed. */
void jobs_close(struct jobs *j);
bool jobs_alive(struct jobs *j, int timeout_ms); /* watchdog */

/* Folder or file `name` below root, resolved: path [JOBS_PATH_MAX].
 * ERR_BAD_FIELD, the text beginning with what: no such thing, not relative,
 * "..", a link that leads out, no root is set. */
int jobs_resolve(const struct jobs *j, const char *what, const char *name,
                 bool is_dir, char path[JOBS_PATH_MAX], struct error *err);

/* Put it at the end of the queue; it is on disk when this returns. Fills *out.
 * ERR_QUEUE_FULL, ERR_CONFIG (no trainer), ERR_STORAGE_FULL, ERR_FILE. */
int jobs_add(struct jobs *j, const struct jobs_request *asked,
             struct jobs_record *out, struct error *err);
/* ERR_NO_JOB. *before (may be NULL): queued jobs that run before it. */
int jobs_get(struct jobs *j, const char *id, struct jobs_record *out,
             int *before, struct error *err);
/* The latest job with a number below `below` (0: of all), whose number is
 * returned; 0: there is none. */
int64_t jobs_next(struct jobs *j, int64_t below, struct jobs_record *out);
/* Queued: cancelled at once. Running: asked to stop with a checkpoint.
 * ERR_CONFLICT when it has ended. */
int jobs_cancel(struct jobs *j, const char *id, struct jobs_record *out,
                struct error *err);
/* From its last checkpoint, at the end of the queue. ERR_CONFLICT where it has
 * none, or has not ended; ERR_QUEUE_FULL. */
int jobs_resume(struct jobs *j, const char *id, struct jobs_record *out,
                struct error *err);
/* Remove an ended job with its files. ERR_CONFLICT when it has not ended. */
int jobs_purge(struct jobs *j, const char *id, struct error *err);
/* The last bytes of its log as UTF-8, malloc'd; NULL: no memory. */
char *jobs_log(struct jobs *j, const char *id);
/* Jobs in each state. */
void jobs_count(struct jobs *j, int n[JOBS_STATES]);

/* --- arguments of the trainer (daemon/jobs_args.c) ----------------------- */

/* Check {"name": value, ...} as arguments that a job may have, all of them
 * together too; write them to out as canonical JSON. *builds (may be NULL):
 * they name a network to build. ERR_BAD_FIELD names the argument. */
int jobs_args_read(json_t *object, char out[JOBS_ARGUMENTS_MAX], bool *builds,
                   struct error *err);

#endif
