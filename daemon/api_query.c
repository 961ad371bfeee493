/* daemon/api_query.c - arguments and values common to the handlers of
 * subjects, faces and galleries. */
#include "daemon/api_query.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Decimal digits alone: no sign, no blank, at most 18 of them. */
static int parse_natural(const char *text, int64_t *out)
{
    size_t len = strlen(text);

    if (len == 0 || len > 18 || strspn(text, "0123456789") != len)
        return -1;
    *out = strtoll(text, NULL, 10);
    return 0;
}

int api_query_limit(const struct job *job, struct error *err)
{
    const char *text = request_query(job->req, "limit");
    int64_t limit = API_PAGE_DEFAULT;

    if (text &&
        (parse_natural(text, &limit) < 0 || limit < 1 || limit > API_PAGE_MAX))
        return error_set(err, ERR_BAD_FIELD,
                         "limit must be a whole number from 1 to %d",
                         API_PAGE_MAX);
    return (int)limit;
}

const char *api_query_after(const struct job *job, struct error *err)
{
    const char *text = request_query(job->req, "after");

    if (!text || !*text)
        return "";
    if (!store_id_valid(text))
        return error_null(err, ERR_BAD_FIELD,
                          "after must be the next of an earlier answer");
    return text;
}

int api_query_after_face(const struct job *job, int64_t *after,
                         struct error *err)
{
    const char *text = request_query(job->req, "after");

    *after = 0;
    if (text && *text && parse_natural(text, after) < 0)
        return error_set(err, ERR_BAD_FIELD,
                         "after must be the next of an earlier answer");
    return 0;
}

const char *api_query_gallery(const struct job *job, struct error *err)
{
    const char *text = request_query(job->req, "gallery");

    if (!text)
        return atomic_load(&job->server->config)->default_gallery;
    if (!store_id_valid(text))
        return error_null(err, ERR_BAD_FIELD,
                          "gallery must match [A-Za-z0-9][A-Za-z0-9._-]* and "
                          "have at most %d characters",
                          STORE_ID_MAX);
    return text;
}

int api_query_face(const char *text, int64_t *id, struct error *err)
{
    if (parse_natural(text, id) < 0)
        return error_set(err, ERR_NO_FACE_ID, "a face's id is a whole number");
    return 0;
}

json_t *api_query_time(int64_t unix_s)
{
    char text[40];
    time_t t = (time_t)unix_s;
    struct tm tm;

    if (!gmtime_r(&t, &tm) ||
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        return json_null();
    return json_string(text);
}
