/* daemon/route.h - the table of endpoints, and a request's way through it.
 * admit (HTTP thread): route, key, rights, body limit -> prepare (work
 * thread): parse, decode, detect, align -> batch (when prepare left faces) ->
 * finish (work thread): search, store, JSON -> http_answer. */
#ifndef DAEMON_ROUTE_H
#define DAEMON_ROUTE_H

#include <jansson.h>
#include <stdbool.h>

#include "core/base/error.h"
#include "daemon/http.h"
#include "daemon/server.h"

enum { ROUTE_MAX_ARGS = 2, JOB_MAX_FACES = 256 };

/* One request on its way; owned by its request's state. */
struct job {
    struct server *server;
    struct request *req;
    const struct route *route;
    char args[ROUTE_MAX_ARGS][STORE_ID_MAX + 1]; /* {…} of the path */
    unsigned rights;      /* KEYS_* bits of the caller's key */
    /* faces for the batch: filled by prepare, chips point into state */
    const float *chips[JOB_MAX_FACES];
    float *embeddings;    /* [n_chips, dim], there in finish */
    int n_chips;
    void *state;          /* the handler's own, from prepare to finish */
    void (*state_free)(void *state);
    struct error error;   /* of prepare, batch or finish */
    char error_image[64]; /* field name of the image at fault, or "" */
    int error_index;      /* index of it where there are several, or -1 */
    int64_t start_us, prepared_us, embedded_us;
    struct batch_group group;
};

struct route {
    const char *method, *path; /* "/subjects/{id}" */
    unsigned rights;           /* any one of these lets in; 0: open to all */
    bool now;                  /* answered on the HTTP thread: no waiting */
    bool images;               /* body up to max-body, else 64 KiB */
    /* -1: err is filled (and error_image/index). prepare may be NULL. */
    int (*prepare)(struct job *job, struct error *err);
    /* Answers by job_answer on success. */
    int (*finish)(struct job *job, struct error *err);
    const char *query; /* names it knows, blank-separated */
    const char *summary; /* for /openapi.json */
};

/* The rows, ended by a NULL method. */
extern const struct route route_table[];

/* The http_calls of the server. */
extern const struct http_calls route_calls;

/* Take the body (JSON text) and answer. Thread: work. */
void job_answer(struct job *job, int status, json_t *take_body);
/* problem+json text for an error: malloc'd. */
char *problem_text(const struct error *err, const char *image, int index,
                   const char *instance);

#endif
