/* daemon/job.h - one request on its way through the daemon: prepare, batch,
 * finish, answer (daemon/route.h). Thread of the functions: work, or the HTTP
 * thread for routes that are answered `now`. */
#ifndef DAEMON_JOB_H
#define DAEMON_JOB_H

#include <jansson.h>
#include <stdbool.h>

#include "core/base/error.h"
#include "daemon/http.h"
#include "daemon/server.h"

struct route;

enum {
    ROUTE_MAX_ARGS = 2,
    JOBS_SPARE = 64 /* for requests without photos, beyond jobs_max */
};

enum job_stage {
    JOB_PREPARE,
    JOB_EMBED,
    JOB_FINISH
};

/* One request on its way; it is its request's state and is freed with it. */
struct job {
    struct server *server;
    struct request *req;
    const struct route *route;
    /* Each is store_id_valid. */
    char args[ROUTE_MAX_ARGS][STORE_ID_MAX + 1]; /* {…} of the path */
    struct serving *serving; /* from start to answer: all that is asked of a
                                model is asked of this one */
    unsigned rights;         /* KEYS_* bits of the caller's key */
    enum job_stage stage;
    bool answered;
    int restarts; /* because another model took over */
    /* Faces for the batch: job_add_chip in prepare; they live in state. */
    const float **chips;
    int n_chips;
    float *embeddings; /* [n_chips, dim], there in finish */
    void *state;       /* the handler's own, from prepare to finish */
    void (*state_free)(void *state);
    char error_image[64]; /* field name of the image at fault, or "" */
    int error_index;      /* index of it where there are several, or -1 */
    struct error error;   /* of the batch */
    int64_t start_us;     /* CLOCK_MONOTONIC, the request was complete */
    int64_t spent_us;     /* on work threads, summed */
    int64_t decode_us, detect_us, align_us; /* sums over its photos */
    struct batch_group group;
};

/* A job for an admitted request, to be made its state. NULL: no memory. */
struct job *job_new(struct server *server, struct request *req,
                    const struct route *route);
void job_free(void *job); /* NULL is fine */

/* The request is complete: answer it here (route->now) or put it into the
 * work queue. Thread: HTTP. */
void job_start(struct job *job);
/* Work on it until it is answered or waits for the batch. Thread: work. */
void job_work(struct job *job);

/* One face more for the batch; chip is borrowed until the answer. */
int job_add_chip(struct job *job, const float *chip, struct error *err);
const float *job_embedding(const struct job *job, int i);

/* Take the body and answer, once; take_body NULL (no memory) answers 503.
 * Reals are written with 9 digits. */
void job_answer(struct job *job, int status, json_t *take_body);
/* Take a malloc'd text and answer. */
void job_answer_text(struct job *job, int status, const char *content_type,
                     char *take_text, size_t len);

#endif
