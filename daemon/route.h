/* daemon/route.h - the table of endpoints, and a request's way through it.
 * admit (HTTP thread): route, key, rights, queue, body limit -> prepare (work
 * thread): parse, decode, detect, align -> batch (when prepare left faces) ->
 * finish (work thread): search, store, JSON -> http_answer. */
#ifndef DAEMON_ROUTE_H
#define DAEMON_ROUTE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/error.h"
#include "daemon/http.h"
#include "daemon/job.h"
#include "daemon/server.h"

enum {
    ROUTE_SMALL_BODY = 64 * 1024
};
#define ROUTE_MODEL_BODY (SIZE_MAX - 1)

struct route {
    const char *method, *path; /* "/subjects/{id}" */
    const char *allow;         /* every method of this path: "GET, DELETE" */
    unsigned rights;           /* any one of these lets in, and KEYS_ADMIN;
                                  0: open to all */
    bool now;                  /* answered on the HTTP thread: no waiting */
    size_t max_body;           /* 0: no body; ROUTE_SMALL_BODY;
                                  ROUTE_MODEL_BODY: max-model-bytes; or
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

/* problem+json text for an error: malloc'd, NULL when memory is out. image
 * NULL or "": none; index -1: none; request_id NULL: none. */
char *problem_text(const struct error *err, const char *image, int index,
                   const char *request_id);
/* The name of the blank- or '|'-separated list that is most like the given
 * one: its length in *len; NULL when none is near. */
const char *route_nearest(const char *name, const char *names, int *len);

#endif
