/* daemon/jobs_record.h - what is known of one training job: what was asked
 * for, how far it is, how it ended. A plain value; on disk it is record.json
 * in the job's folder, replaced whole, so that a crash leaves the one before.
 * Thread: any; the caller sees to it that one thread writes at a time. */
#ifndef DAEMON_JOBS_RECORD_H
#define DAEMON_JOBS_RECORD_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"

enum {
    JOBS_ID_MAX = 40,
    JOBS_TEXT_MAX = 512,
    JOBS_NAME_MAX = 256,  /* bytes of a folder's or model's name */
    JOBS_PATH_MAX = 1024, /* what an argument of the trainer may hold */
    JOBS_ARGUMENTS_MAX = 4096,
    JOBS_CURVE_MAX = 512, /* points of the loss curve; thinned to fit */
    JOBS_EVALUATIONS_MAX = 64,
    JOBS_WARNINGS_MAX = 16
};

enum jobs_state {
    JOBS_QUEUED,
    JOBS_RUNNING,
    JOBS_PUBLISHED, /* the model is there */
    JOBS_REFUSED,   /* the model is worse than what it came from */
    JOBS_FAILED,    /* an error, told in text */
    JOBS_STOPPED,   /* by the daemon's end or the time limit */
    JOBS_KILLED,    /* by a signal, or the daemon went away under it */
    JOBS_CANCELLED, /* by an admin */
    JOBS_STATES
};

struct jobs_request {
    char gallery[65];           /* photos: the gallery's kept crops, or */
    char folder[JOBS_NAME_MAX]; /* a folder below train-root */
    char holdout_folder[JOBS_NAME_MAX];
    char lfw_dir[JOBS_NAME_MAX], lfw_pairs[JOBS_NAME_MAX];
    char model[JOBS_NAME_MAX], model_path[JOBS_PATH_MAX]; /* trained on */
    char teacher[JOBS_NAME_MAX], teacher_path[JOBS_PATH_MAX];
    char arguments[JOBS_ARGUMENTS_MAX]; /* JSON object, as jobs_args_read */
};

struct jobs_point {
    int64_t step;
    double loss, faces_per_s;
    int triplets;
};

struct jobs_evaluation {
    char when[8], set[8]; /* "before" "during" "after"; "held" "lfw" */
    int64_t step;
    double accuracy, accuracy_std, val[3]; /* VAL at FAR 0.1 0.01 0.001 */
};

struct jobs_record {
    char id[JOBS_ID_MAX + 1];
    int64_t number; /* of the job, from 1 */
    int64_t turn;   /* queued jobs run in this order */
    enum jobs_state state;
    char text[JOBS_TEXT_MAX];              /* why it ended so; "" before */
    int64_t created_s, started_s, ended_s; /* Unix time; 0: not yet */
    int n_resumed;
    bool cancelling;
    struct jobs_request asked;
    int64_t pid, pid_start;       /* of its process while it runs */
    char data_dir[JOBS_PATH_MAX]; /* of exported crops, removed at its end:
                                     "data" in the job's folder, or a path */

    char phase[32];
    char device[JOBS_TEXT_MAX]; /* what learns, and why no other */
    int64_t step;
    int epoch, batch, n_batches, triplets;
    double loss, rate, faces_per_s, left_s;
    struct jobs_point curve[JOBS_CURVE_MAX];
    int n_curve, curve_every; /* each how many-th step has a point */
    int64_t n_steps;
    struct jobs_evaluation evaluations[JOBS_EVALUATIONS_MAX];
    int n_evaluations;
    char warnings[JOBS_WARNINGS_MAX][200]; /* the latest */
    int n_warnings;
    int64_t n_bad_lines; /* that the trainer wrote and nobody understood */
    int64_t checkpoint_step;
    char checkpoint[JOBS_PATH_MAX]; /* below the job's folder; "": none */
    char outcome[16];               /* the trainer's word, "" before */
    char model_file[JOBS_PATH_MAX]; /* finished model, the same; or "" */
    char model_id[65];              /* once the daemon has taken it over */
};

const char *jobs_state_name(enum jobs_state state); /* "queued" */
bool jobs_state_ended(enum jobs_state state);
/* It stands still and has a checkpoint to go on from. */
bool jobs_record_resumable(const struct jobs_record *r);

/* Copy text as UTF-8 that is cut at a character's end: control bytes (but for
 * '\n' with lines) become blanks, bytes that are no UTF-8 '?'. size > 0. */
void jobs_text_set(char *out, size_t size, const char *text, size_t len,
                   bool lines);

/* Every field, under the names that answers carry too; NULL: no memory. */
json_t *jobs_record_json(const struct jobs_record *r);
/* DIR/record.json, durable when it returns. ERR_FILE, ERR_STORAGE_FULL,
 * ERR_NOMEM. */
int jobs_record_save(const struct jobs_record *r, const char *dir,
                     struct error *err);
/* ERR_FILE when it cannot be read, ERR_BAD_JSON when it is damaged. */
int jobs_record_load(struct jobs_record *r, const char *dir, struct error *err);

/* What a line of the trainer told. */
enum jobs_event {
    JOBS_EVENT_BAD, /* no line of the protocol; counted, else ignored */
    JOBS_EVENT_PHASE,
    JOBS_EVENT_DEVICE,
    JOBS_EVENT_STEP,
    JOBS_EVENT_EVALUATION,
    JOBS_EVENT_WARNING,
    JOBS_EVENT_CHECKPOINT,
    JOBS_EVENT_RESULT
};
/* Take one line (without its end) into the record. Nothing in it is trusted:
 * numbers must be numbers and finite, texts are cut and cleaned. */
enum jobs_event jobs_record_event(struct jobs_record *r, const char *line,
                                  size_t len);

#endif
