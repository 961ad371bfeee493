/* daemon/api_query.h - what the handlers of stored things share: paging, the
 * gallery that a request means, ids, times. Thread: work. */
#ifndef DAEMON_API_QUERY_H
#define DAEMON_API_QUERY_H

#include <jansson.h>
#include <stdint.h>

#include "core/base/error.h"
#include "daemon/route.h"

enum {
    API_PAGE_DEFAULT = 100,
    API_PAGE_MAX = 1000
};

/* The `limit` argument, 1..API_PAGE_MAX; -1: err is filled. */
int api_query_limit(const struct job *job, struct error *err);
/* The `after` argument as an id; "" when there is none. NULL: err. */
const char *api_query_after(const struct job *job, struct error *err);
/* The `after` argument as a face id, 0 when there is none. */
int api_query_after_face(const struct job *job, int64_t *after,
                         struct error *err);
/* The `gallery` argument, else the configured one. NULL: err. */
const char *api_query_gallery(const struct job *job, struct error *err);
/* A face id of the path. ERR_NO_FACE_ID when it cannot be one. */
int api_query_face(const char *text, int64_t *id, struct error *err);

/* "2026-11-23T18:00:00Z"; NULL when memory is out. */
json_t *api_query_time(int64_t unix_s);

#endif
