/* daemon/http_request.c - one request: what the client sent, copied away from
 * libmicrohttpd so that a worker may read it after the client has gone, and
 * the answer on its way back. Counted: libmicrohttpd's side holds one
 * reference until the exchange is over, each worker its own. */
#include "daemon/http_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <microhttpd.h>

/* Ids only tell log lines apart; they need to be distinct, not secret. */
static void make_id(struct http *h, char out[17])
{
    uint64_t z = h->id_seed +
                 (atomic_fetch_add(&h->id_next, 1) + 1) * 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    snprintf(out, 17, "%016llx", (unsigned long long)(z ^ z >> 31));
}

struct request *http_request_new(struct http *h, const char *uri)
{
    struct request *req = calloc(1, sizeof(*req));

    if (!req)
        return NULL;
    req->uri = strdup(uri);
    if (!req->uri) {
        free(req);
        return NULL;
    }
    atomic_init(&req->refs, 1);
    atomic_init(&req->cancelled, false);
    req->path = req->uri;
    req->len_uri = strlen(uri);
    req->start_us = http_now_us();
    req->h = h;
    http_ref(h);
    make_id(h, req->id);
    return req;
}

static void free_extra(struct request *req)
{
    for (int i = 0; i < req->n_extra; i++) {
        free(req->extra[i].name);
        free(req->extra[i].value);
    }
}

void request_ref(struct request *req)
{
    atomic_fetch_add(&req->refs, 1);
}

void request_unref(struct request *req)
{
    struct http *h;

    if (!req || atomic_fetch_sub(&req->refs, 1) != 1)
        return;
    if (req->free_state)
        req->free_state(req->state);
    http_request_drop_body(req);
    h = req->h;
    free_extra(req);
    free(req->parts);
    free(req->answer);
    free(req->head);
    free(req->uri);
    free(req);
    http_unref(h);
}

/* --- the body ---------------------------------------------------------- */

/* Room for want bytes and a NUL, charged to the budget of all requests. */
static int reserve(struct request *req, size_t want, struct error *err)
{
    struct http *h = req->h;
    size_t cap = req->cap_body ? req->cap_body * 2 : 32 * 1024;
    size_t most = req->chunked ? req->max_body : (size_t)req->content_length;
    uint8_t *body;
    bool full;

    if (want < req->cap_body)
        return 0;
    if (cap < want + 1)
        cap = want + 1;
    if (cap > most + 1)
        cap = most + 1;
    pthread_mutex_lock(&h->lock);
    full = (size_t)h->stats.buffered_bytes + (cap - req->cap_body) >
           h->opt.max_buffered;
    if (!full)
        h->stats.buffered_bytes += (int64_t)(cap - req->cap_body);
    pthread_mutex_unlock(&h->lock);
    if (full)
        return error_set(err, ERR_QUEUE_FULL,
                         "too many bodies are being received");
    body = realloc(req->body, cap);
    if (!body) {
        pthread_mutex_lock(&h->lock);
        h->stats.buffered_bytes -= (int64_t)(cap - req->cap_body);
        pthread_mutex_unlock(&h->lock);
        return error_set(err, ERR_NOMEM, "no memory for the body");
    }
    req->body = body;
    req->cap_body = cap;
    return 0;
}

int http_request_append(struct request *req, const void *data, size_t len,
                        struct error *err)
{
    if (len > req->max_body - req->len_body)
        return error_set(err, ERR_TOO_LARGE, "the body is over %zu bytes",
                         req->max_body);
    if (reserve(req, req->len_body + len, err) < 0)
        return -1;
    memcpy(req->body + req->len_body, data, len);
    req->len_body += len;
    req->body[req->len_body] = '\0';
    return 0;
}

void http_request_drop_body(struct request *req)
{
    struct http *h = req->h;

    free(req->body);
    pthread_mutex_lock(&h->lock);
    h->stats.buffered_bytes -= (int64_t)req->cap_body;
    pthread_mutex_unlock(&h->lock);
    req->body = NULL;
    req->len_body = req->cap_body = 0;
}

/* --- reading ----------------------------------------------------------- */

const char *request_method(const struct request *req)
{
    return strcmp(req->method, "HEAD") == 0 ? "GET" : req->method;
}

const char *request_path(const struct request *req)
{
    return req->path;
}

const char *request_id(const struct request *req)
{
    return req->id;
}

const char *request_header(const struct request *req, const char *name)
{
    for (int i = 0; i < req->n_headers; i++) {
        if (strcasecmp(req->headers[i].name, name) == 0)
            return req->headers[i].value;
    }
    return NULL;
}

const char *request_query(const struct request *req, const char *name)
{
    for (int i = 0; i < req->n_query; i++) {
        if (strcmp(req->query[i].name, name) == 0)
            return req->query[i].value;
    }
    return NULL;
}

int request_n_query(const struct request *req)
{
    return req->n_query;
}

const char *request_query_name(const struct request *req, int i)
{
    return i < 0 || i >= req->n_query ? NULL : req->query[i].name;
}

const void *request_route(const struct request *req)
{
    return req->route;
}

const char *request_peer(const struct request *req)
{
    return req->peer;
}

bool request_peer_loopback(const struct request *req)
{
    return req->loopback;
}

enum body_kind request_body_kind(const struct request *req)
{
    return req->kind;
}

const uint8_t *request_body(const struct request *req, size_t *len)
{
    bool whole = req->kind == BODY_JSON || req->kind == BODY_RAW;

    *len = whole ? req->len_body : 0;
    return whole ? req->body : NULL;
}

int request_n_parts(const struct request *req)
{
    return req->n_parts;
}

const struct request_part *request_part(const struct request *req, int i)
{
    return i < 0 || i >= req->n_parts ? NULL : &req->parts[i];
}

bool request_cancelled(const struct request *req)
{
    return atomic_load(&req->cancelled);
}

int64_t request_deadline_us(const struct request *req)
{
    int64_t deadline;

    pthread_mutex_lock(&req->h->lock);
    deadline = req->deadline_us;
    pthread_mutex_unlock(&req->h->lock);
    return deadline;
}

void request_set_state(struct request *req, void *state, void (*fn)(void *))
{
    req->state = state;
    req->free_state = fn;
}

void *request_state(const struct request *req)
{
    return req->state;
}

/* --- answering --------------------------------------------------------- */

/* A value with a line break would write headers of its own. */
static bool header_safe(const char *s)
{
    for (; *s; s++) {
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            return false;
    }
    return true;
}

void request_add_header(struct request *req, const char *name,
                        const char *value)
{
    char *n, *v;
    bool taken = false;

    if (!*name || !header_safe(name) || !header_safe(value))
        return;
    n = strdup(name);
    v = strdup(value);
    pthread_mutex_lock(&req->h->lock);
    if (n && v && !req->answered && req->n_extra < HTTP_MAX_EXTRA) {
        req->extra[req->n_extra].name = n;
        req->extra[req->n_extra++].value = v;
        taken = true;
    }
    pthread_mutex_unlock(&req->h->lock);
    if (!taken) {
        free(n);
        free(v);
    }
}

/* Under the lock: let libmicrohttpd call us again for this request. */
static void resume(struct request *req)
{
    if (!req->suspended)
        return;
    req->suspended = false;
    MHD_resume_connection(req->mhd);
}

void http_answer(struct request *req, int status, const char *content_type,
                 char *take_body, size_t len)
{
    struct http *h = req->h;

    pthread_mutex_lock(&h->lock);
    if (req->answered || req->gone || !req->mhd) {
        pthread_mutex_unlock(&h->lock);
        free(take_body);
        return;
    }
    req->answered = true;
    req->status = status;
    req->answer = take_body;
    req->len_answer = take_body ? len : 0;
    snprintf(req->type, sizeof(req->type), "%s",
             content_type ? content_type : "");
    /* From here it is libmicrohttpd's turn; http_alive sees it if not. */
    req->conn->phase = CONN_SEND;
    req->conn->deadline_us = http_now_us() + (int64_t)h->opt.body_ms * 1000;
    resume(req);
    pthread_mutex_unlock(&h->lock);
}

void http_request_abandon(struct request *req)
{
    struct http *h = req->h;

    pthread_mutex_lock(&h->lock);
    atomic_store(&req->cancelled, true);
    if (req->mhd && !req->answered) {
        req->gone = true;
        resume(req);
    }
    pthread_mutex_unlock(&h->lock);
}

void http_request_fail(struct request *req, const struct error *err)
{
    struct http *h = req->h;
    char *body = h->calls.problem(h->calls.ctx, req, err);

    http_answer(req, error_status(err->code), "application/problem+json", body,
                body ? strlen(body) : 0);
}
