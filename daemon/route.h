/* daemon/route.h - the table of endpoints, and a request's way through it.
 * admit (HTTP thread): route, key, rights, queue, body limit -> prepare (work
 * thread): parse, decode, detect, align -> batch (when prepare left faces) ->
 * finish (work thread): search, store, JSON -> http_answer. */
#ifndef DAEMON_ROUTE_H
#define DAEMON_ROUTE_H

#include <jansson.h>
#include <stdbool.h>

#include "core/base/error.h"
#include "daemon/http.h"
#include "daemon/server.h"

enum { ROUTE_MAX_ARGS = 2, ROUTE_SMALL_BODY = 64 * 1024 };

enum job_stage { JOB_PREPARE, JOB_EMBED, JOB_FINISH };

/* One request on its way; it is its request's state and is freed with it. */
struct job {
    struct server *server;
    struct request *req;
    const struct route *route;
    char args[ROUTE_MAX_ARGS][STORE_ID_MAX + 1]; /* {…} of the path, in order;
                                                    each is store_id_valid */
    unsigned rights; /* KEYS_* bits of the caller's key */
    enum job_stage stage;
    bool answered;
    /* prepare: the working thread's own scratch. */
    struct detect_scratch *scratch;
    /* Faces for the batch: job_add_chip in prepare; they live in state. */
    const float **chips;
    int n_chips;
    float *embeddings; /* [n_chips, dim], there in finish */
    void *state;       /* the handler's own, from prepare to finish */
    void (*state_free)(void *state);
    char error_image[64]; /* field name of the image at fault, or "" */
    int error_index;      /* index of it where there are several, or -1 */
    struct error error;   /* of the batch */
    int64_t start_us;     /* CLOCK_MONOTONIC, work began */
    int64_t decode_us, detect_us, align_us; /* sums over its photos */
    struct batch_group group;
};

struct route {
    const char *method, *path; /* "/subjects/{id}" */
    const char *allow;         /* every method of this path: "GET, DELETE" */
    unsigned rights;           /* any one of these lets in, and KEYS_ADMIN;
                                  0: open to all */
    bool now;                  /* answered on the HTTP thread: no waiting */
    size_t max_body;           /* 0: no body; ROUTE_SMALL_BODY; or
                                  SIZE_MAX: the setting max-body */
    /* -1: err is filled (and error_image/index). NULL: nothing to prepare. */
    int (*prepare)(struct job *job, struct error *err);
    /* Answers by job_answer on success; on -1 the caller answers err. */
    int (*finish)(struct job *job, struct error *err);
    const char *query;   /* names it knows, blank-separated, or "" */
    const char *summary; /* for /openapi.json */
};

/* The rows, ended by a NULL method. */
extern const struct route route_table[];

/* The http_calls of the server; ctx is the struct server. */
struct http_calls route_calls(struct server *server);

/* The row for method and path; args filled. NULL with ERR_NOT_FOUND, or
 * ERR_METHOD and *allow. */
const struct route *route_match(const char *method, const char *path,
                                char args[ROUTE_MAX_ARGS][STORE_ID_MAX + 1],
                                const char **allow, struct error *err);

/* Work on it until it is answered or waits for the batch. Takes over one
 * reference to the request. Thread: work, with its own scratch. */
void job_work(struct job *job, struct detect_scratch *scratch);

/* One face more for the batch; chip is borrowed until the answer. */
int job_add_chip(struct job *job, const float *chip, struct error *err);
const float *job_embedding(const struct job *job, int i);

/* Take the body and answer, once; take_body NULL (no memory) answers 503.
 * Reals are written with 9 digits. */
void job_answer(struct job *job, int status, json_t *take_body);
/* Take a malloc'd text and answer. */
void job_answer_text(struct job *job, int status, const char *content_type,
                     char *take_text, size_t len);
/* problem+json text for an error: malloc'd, NULL when memory is out. image
 * NULL or "": none; index -1: none; request_id NULL: none. */
char *problem_text(const struct error *err, const char *image, int index,
                   const char *request_id);
/* The name of the blank- or '|'-separated list that is most like the given
 * one: its length in *len; NULL when none is near. */
const char *route_nearest(const char *name, const char *names, int *len);

#endif
