/* daemon/http_head.c - a request's head, copied out of libmicrohttpd's buffers
 * so that it outlives the connection, and checked there for what 0.9.75 hides
 * from its callers. After it http_gate.c judges the copy. Called by
 * http_conn.c on the connection's thread. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <microhttpd.h>

#include "daemon/http_priv.h"

struct raw_header {
    const char *name, *value;
    size_t len_name, len_value;
};

struct raw_head {
    struct raw_header header[HTTP_MAX_HEADERS];
    int n;
    size_t len;
};

static enum MHD_Result collect(void *cls, enum MHD_ValueKind kind,
                               const char *name, size_t len_name,
                               const char *value, size_t len_value)
{
    struct raw_head *raw = cls;

    (void)kind;
    if (raw->n == HTTP_MAX_HEADERS)
        return MHD_NO;
    raw->header[raw->n].name = name;
    raw->header[raw->n].len_name = len_name;
    raw->header[raw->n].value = value ? value : "";
    raw->header[raw->n].len_value = value ? len_value : 0;
    raw->len += len_name + len_value + 2;
    raw->n++;
    return MHD_YES;
}

/* 0.9.75 cuts names and values at a NUL, joins folded lines wrongly and takes
 * bare line feeds, and tells nobody. But it leaves the head where it was read,
 * with CR and LF replaced by NUL: so each value must end with two NULs
 * followed by the next name, or after the last by the empty line's two. Later
 * versions check this themselves and lay the head out otherwise. */
static bool head_is_whole(const struct raw_head *raw)
{
    for (int i = 0; i < raw->n; i++) {
        const char *end = raw->header[i].value + raw->header[i].len_value;

        if (raw->header[i].value[0] == '\0' && raw->header[i].len_value)
            return false;
        if (end[0] != '\0' || end[1] != '\0')
            return false;
        if (i + 1 < raw->n ? raw->header[i + 1].name != end + 2
                           : end[2] != '\0' || end[3] != '\0')
            return false;
    }
    return true;
}

static char *put(char **at, const char *text, size_t len)
{
    char *start = *at;

    memcpy(start, text, len);
    start[len] = '\0';
    *at += len + 1;
    return start;
}

int http_head_copy(struct request *req, const char *url, const char *method,
                   const char *version, struct error *err)
{
    struct raw_head raw = {.n = 0};
    char *at;
    int n = MHD_get_connection_values_n(req->mhd, MHD_HEADER_KIND, NULL, NULL);

    snprintf(req->method, sizeof(req->method), "%s",
             strlen(method) < sizeof(req->method) ? method : "");
    MHD_get_connection_values_n(req->mhd, MHD_HEADER_KIND, collect, &raw);
    at = req->head = malloc(raw.len + 1);
    if (!at)
        return error_set(err, ERR_NOMEM, "no memory for the headers");
    for (int i = 0; i < raw.n; i++) {
        const struct raw_header *from = &raw.header[i];
        size_t len = from->len_value;

        while (len > 0 && isblank((unsigned char)from->value[len - 1]))
            len--;
        req->headers[i].name = put(&at, from->name, from->len_name);
        req->headers[i].value = put(&at, from->value, len);
    }
    req->n_headers = raw.n;
    if (n > HTTP_MAX_HEADERS)
        return error_set(err, ERR_HEADERS, "more than %d headers",
                         HTTP_MAX_HEADERS);
    if (req->h->old_layout &&
        (version != url + req->len_uri + 1 || !head_is_whole(&raw)))
        return error_set(err, ERR_BAD_REQUEST,
                         "the request's head has a NUL, a folded line or a "
                         "line that does not end with CR LF");
    return 0;
}

int http_head_split(struct request *req, struct error *err)
{
    char *query = strchr(req->uri, '?');

    if (query)
        *query++ = '\0';
    if (http_gate_path(req->path, err) < 0)
        return -1;
    req->n_query =
        query ? http_gate_query(query, req->query, HTTP_MAX_QUERY, err) : 0;
    if (req->n_query < 0) {
        req->n_query = 0;
        return -1;
    }
    return 0;
}
