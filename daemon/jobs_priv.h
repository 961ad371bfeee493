/* daemon/jobs_priv.h - what the files of training jobs share: the child
 * process, its arguments, the data that it reads, the run of one job. */
#ifndef DAEMON_JOBS_PRIV_H
#define DAEMON_JOBS_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "daemon/jobs.h"

/* --- the child (jobs_child.c) -------------------------------------------- */

struct jobs_spawn {
    const char *program;
    char *const *argv;
    const char *dir; /* where it works, its TMPDIR and HOME */
    int n_threads;
    int64_t memory; /* bytes of data; 0: no limit */
};

struct jobs_child {
    pid_t pid;         /* leader of its own process group */
    int pidfd;         /* readable when it has ended */
    int progress, log; /* our ends, not blocking: its descriptors 3, and 1
                          and 2 */
};

/* Start it: lowest priority, capped, with nothing of ours but three
 * descriptors; it is asked to stop (SIGTERM) when the calling thread ends.
 * *soft (may be NULL) gets what could not be had but does not matter, as
 * "priority", or NULL. ERR_FILE names the program; ERR_NOMEM. */
int jobs_child_start(const struct jobs_spawn *s, struct jobs_child *out,
                     const char **soft, struct error *err);
/* To all of its group. */
void jobs_child_signal(const struct jobs_child *c, int number);
/* It has ended: kill what is left of its group, reap, close. Returns the
 * status of waitpid; c->progress and c->log stay open. */
int jobs_child_reap(struct jobs_child *c);
/* When the process began, in ticks since boot, to tell it from a later one of
 * the same number; 0: there is none. */
int64_t jobs_child_began(int64_t pid);

/* --- arguments (jobs_args.c) --------------------------------------------- */

/* The trainer's command line for a job: a NULL-ended array, one malloc'd
 * block, free() it. ERR_NOMEM; ERR_BAD_FIELD for a damaged record. */
struct jobs_paths {
    const char *trainer, *dir, *data, *holdout, *lfw_dir, *lfw_pairs;
    const char *detectors; /* every "": not given */
    const char *resume, *device, *plugin;
    int n_threads;
    int64_t memory;
    double max_minutes;
};
char **jobs_args_argv(const struct jobs_request *asked,
                      const struct jobs_paths *paths, struct error *err);

/* --- data (jobs_data.c) -------------------------------------------------- */

/* As jobs_resolve, below any root. */
int jobs_data_resolve(const char *root, const char *what, const char *name,
                      bool is_dir, char path[JOBS_PATH_MAX], struct error *err);
/* Every link in the two levels of a folder of photos leads below root.
 * ERR_BAD_FIELD names the first that does not; ERR_DEADLINE once *stop. */
int jobs_data_scan(const char *root, const char *path, const char *name,
                   const atomic_bool *stop, atomic_llong *beat,
                   struct error *err);
/* A folder for crops that must not touch a disk: on a tmpfs, made 0700.
 * ERR_CONFIG where there is none. */
int jobs_data_memory(const char *id, char path[JOBS_PATH_MAX],
                     struct error *err);
/* The kept crops of a gallery as PATH/SUBJECT/FACE.jpg, 0600. ERR_BAD_FIELD
 * when fewer than two subjects have any; ERR_STORAGE_FULL before the file
 * system is full; ERR_DEADLINE once *stop. */
int jobs_data_export(struct store *store, const char *gallery, const char *path,
                     const atomic_bool *stop, atomic_llong *beat,
                     struct error *err);
/* Remove a folder with all in it, without following links. False: some of it
 * is still there (errno). Nothing there is true. */
bool jobs_data_remove(const char *path);
/* Bytes that may still be written below path. */
int64_t jobs_data_free(const char *path);
/* ERR_STORAGE_FULL unless there is room for a job that trains this model. */
int jobs_data_room(const char *dir, const char *model_path, struct error *err);

/* --- the run of one job (jobs_run.c) ------------------------------------- */

struct jobs_job {
    struct jobs_job *next;   /* by number, the latest first */
    struct jobs_record rec;  /* under jobs.lock */
    int n_refs;              /* under jobs.lock; the list has one, and so
                                has the thread while it runs the job */
    bool purged;             /* under jobs.lock: its files are going */
    atomic_bool stop;        /* asked to: cancelled, or the daemon ends */
    char dir[JOBS_PATH_MAX]; /* constant */
};

struct jobs {
    struct jobs_options opt; /* texts are owned */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* of everything below */
    pthread_cond_t more;  /* a job is queued, or stopping */
    /* Only around the writing of a record: it makes the order of writes that
     * of the changes. Taken before lock. */
    pthread_mutex_t save_lock;
    struct jobs_job *list;
    int64_t last_number, last_turn;
    int n_adding; /* that will be in the list, queued */
    struct jobs_job *running;
    int wake;               /* eventfd: look at stop and ending */
    atomic_bool ending;     /* the daemon does */
    atomic_llong beat_us;   /* of the thread; 0: it waits for a job */
    atomic_llong ending_us; /* when ending began */
};

/* One reference, the caller's; not in the list. NULL: no memory. */
struct jobs_job *jobs_job_new(const struct jobs *j, const char *id);
void jobs_unref(struct jobs_job *job); /* with the lock held */
/* With the lock held; the reference becomes the list's. */
void jobs_insert(struct jobs *j, struct jobs_job *job);

/* Options, folder and records into j, which is not running yet (jobs_load.c).
 * ERR_FILE, ERR_NOMEM, ERR_CONFIG. */
int jobs_load(struct jobs *j, const struct jobs_options *opt,
              struct error *err);
void jobs_options_free(struct jobs_options *o); /* what jobs_load copied */
/* End what an earlier daemon left running, remove what it exported. Thread:
 * jobs, before it runs any. */
void jobs_tidy(struct jobs *j);

/* Write the record as it is now. Logs where it cannot. Thread: any, without
 * lock. */
int jobs_save(struct jobs *j, struct jobs_job *job, struct error *err);
/* Why a job was asked to stop. */
enum jobs_why {
    JOBS_WHY_NOT,
    JOBS_WHY_CANCEL,
    JOBS_WHY_END, /* of the daemon */
    JOBS_WHY_TIME
};
/* The state, and the text where the trainer left none, that follow from how
 * the process ended: status of waitpid, why it was asked to stop, whether the
 * finished model is there, the last line of its log ("" if none). */
void jobs_run_outcome(struct jobs_record *r, int status, enum jobs_why why,
                      bool has_model, const char *last_line);
/* Run it to its end: prepare, spawn, watch, tidy. Its record is then in an
 * ended state. Thread: jobs. */
void jobs_run(struct jobs *j, struct jobs_job *job);
/* The newest checkpoint that is on disk into r, whatever the trainer could
 * still tell of it. dir: the job's. */
void jobs_run_checkpoint(struct jobs_record *r, const char *dir);
/* A process of an earlier daemon: ask, wait, kill. Thread: jobs. */
void jobs_run_bury(struct jobs *j, int64_t pid, int64_t began);

#endif
