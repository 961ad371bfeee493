/* daemon/http_conn.c - libmicrohttpd's callbacks: connections come and go, a
 * request passes from its line (on_line) over its head and body (on_request)
 * to the caller's handle, and its answer back. The order that 0.9.75 needs:
 * refuse in the first call or after the last byte, never between; consume
 * every byte offered; suspend only when the body is through; queue answers
 * inside its callback only. Each connection has one thread of the pool. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <unistd.h>
#include <gnutls/gnutls.h>
#include <microhttpd.h>

#include "daemon/http_priv.h"
#include "daemon/http_tls.h"
#include "daemon/log.h"

enum {
    SMALL_BODY = 64 * 1024, /* of a refused request: read it, keep the
                             * connection */
    DRAIN_US = 2 * 1000 * 1000
};

static struct conn *conn_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info ? info->socket_context : NULL;
}

static void set_phase(struct conn *conn, enum conn_phase phase, int64_t ms)
{
    int64_t now = http_now_us();

    pthread_mutex_lock(&conn->h->lock);
    conn->phase = phase;
    conn->deadline_us = now + ms * 1000;
    http_conn_hurry(conn, now);
    pthread_mutex_unlock(&conn->h->lock);
}

/* --- connections ------------------------------------------------------- */

static void read_peer(struct conn *conn, struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *sa = info ? info->client_addr : NULL;
    const struct in6_addr *a6;
    struct in_addr a4;

    strcpy(conn->peer, "unix");
    conn->loopback = true;
    if (!sa || (sa->sa_family != AF_INET && sa->sa_family != AF_INET6))
        return;
    conn->is_inet = true;
    if (sa->sa_family == AF_INET6) {
        a6 = &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;
        if (!IN6_IS_ADDR_V4MAPPED(a6)) {
            inet_ntop(AF_INET6, a6, conn->peer, sizeof(conn->peer));
            conn->loopback = IN6_IS_ADDR_LOOPBACK(a6);
            return;
        }
        memcpy(&a4, &a6->s6_addr[12], 4);
    } else {
        a4 = ((const struct sockaddr_in *)(const void *)sa)->sin_addr;
    }
    inet_ntop(AF_INET, &a4, conn->peer, sizeof(conn->peer));
    conn->loopback = ntohl(a4.s_addr) >> 24 == 127;
}

static void conn_started(struct http *h, struct MHD_Connection *mhd,
                         void **context)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct conn *conn = calloc(1, sizeof(*conn));
    int n_same = 0;

    *context = conn;
    if (!conn || !info)
        return; /* on_request closes a connection without context */
    conn->h = h;
    conn->fd = info->connect_fd;
    read_peer(conn, mhd);
    conn->phase = CONN_HEADERS;
    conn->deadline_us = http_now_us() + (int64_t)h->opt.header_ms * 1000;
    pthread_mutex_lock(&h->lock);
    conn->cert = http_cert_ref(h->cert);
    for (struct conn *c = h->conns; c && conn->is_inet; c = c->next)
        n_same += strcmp(c->peer, conn->peer) == 0;
    conn->over =
        h->stats.connections >= h->opt.max_connections ||
        (h->opt.max_per_address > 0 && n_same >= h->opt.max_per_address);
    conn->next = h->conns;
    if (h->conns)
        h->conns->prev = conn;
    h->conns = conn;
    h->stats.connections++;
    pthread_mutex_unlock(&h->lock);
}

/* The fd is still open here, so the keeper cannot shut down a stranger's. A
 * duplicate outlives libmicrohttpd's close and is drained by the keeper. */
static void conn_closed(struct http *h, struct conn *conn)
{
    struct drain *drain = NULL;

    if (conn->linger)
        drain = malloc(sizeof(*drain));
    if (drain) {
        drain->fd = fcntl(conn->fd, F_DUPFD_CLOEXEC, 0);
        drain->left = HTTP_DISCARD;
        drain->until_us = http_now_us() + DRAIN_US;
    }
    pthread_mutex_lock(&h->lock);
    if (conn->prev)
        conn->prev->next = conn->next;
    else
        h->conns = conn->next;
    if (conn->next)
        conn->next->prev = conn->prev;
    h->stats.connections--;
    if (drain && drain->fd >= 0 && !h->quit && h->n_drains < HTTP_MAX_DRAINS) {
        h->n_drains++;
        drain->next = h->drains;
        h->drains = drain;
        drain = NULL;
    }
    pthread_mutex_unlock(&h->lock);
    if (drain && drain->fd >= 0)
        close(drain->fd);
    free(drain);
    http_cert_unref(conn->cert);
    free(conn);
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        conn_started(cls, mhd, context);
    else if (*context)
        conn_closed(cls, *context);
}

static int on_cert(gnutls_session_t session, const gnutls_datum_t *ca, int n_ca,
                   const gnutls_pk_algorithm_t *algos, int n_algos,
                   gnutls_pcert_st **chain, unsigned *n_chain,
                   gnutls_privkey_t *key)
{
    struct conn *conn = conn_of(gnutls_session_get_ptr(session));

    (void)ca, (void)n_ca, (void)algos, (void)n_algos;
    if (!conn || !conn->cert)
        return -1;
    http_cert_show(conn->cert, chain, n_chain, key);
    return 0;
}

/* --- the head ---------------------------------------------------------- */

/* The request line is there, nothing else yet. What is returned becomes the
 * request's context. uri is still as it came. */
static void *on_line(void *cls, const char *uri, struct MHD_Connection *mhd)
{
    struct http *h = cls;
    struct conn *conn = conn_of(mhd);
    struct request *req = conn ? http_request_new(h, uri ? uri : "") : NULL;
    int64_t head_us;

    if (!req)
        return NULL;
    memcpy(req->peer, conn->peer, sizeof(req->peer));
    req->loopback = conn->loopback;
    req->conn = conn;
    req->mhd = mhd;
    head_us = req->start_us + (int64_t)h->opt.header_ms * 1000;
    pthread_mutex_lock(&h->lock);
    conn->req = req;
    h->stats.in_flight++;
    if (conn->phase == CONN_IDLE || head_us < conn->deadline_us)
        conn->deadline_us = head_us;
    conn->phase = CONN_HEADERS;
    http_conn_hurry(conn, req->start_us);
    pthread_mutex_unlock(&h->lock);
    return req;
}

/* --- answers ----------------------------------------------------------- */

static bool has_extra(const struct request *req, const char *name)
{
    for (int i = 0; i < req->n_extra; i++) {
        if (strcasecmp(req->extra[i].name, name) == 0)
            return true;
    }
    return false;
}

static void add_headers(struct request *req, struct MHD_Response *resp,
                        bool close)
{
    char after[2] = {(char)('1' + (req->id[15] & 1)), '\0'};

    MHD_add_response_header(resp, "X-Request-Id", req->id);
    MHD_add_response_header(resp, "Cache-Control", "no-store");
    MHD_add_response_header(resp, "X-Content-Type-Options", "nosniff");
    if (req->type[0])
        MHD_add_response_header(resp, "Content-Type", req->type);
    /* Spread over two values, so that refused clients do not come back all
     * at once. */
    if ((req->status == 503 || req->status == 429) &&
        !has_extra(req, "Retry-After"))
        MHD_add_response_header(resp, "Retry-After", after);
    if (req->status == 401 && !has_extra(req, "WWW-Authenticate"))
        MHD_add_response_header(resp, "WWW-Authenticate", "Bearer");
    if (req->status == 405 && req->allow)
        MHD_add_response_header(resp, "Allow", req->allow);
    for (int i = 0; i < req->n_extra; i++)
        MHD_add_response_header(resp, req->extra[i].name, req->extra[i].value);
    if (close)
        MHD_add_response_header(resp, "Connection", "close");
}

static void tell_done(struct request *req, int status)
{
    struct http *h = req->h;

    if (req->done)
        return;
    req->done = true;
    if (h->calls.done)
        h->calls.done(h->calls.ctx, req, status, http_now_us() - req->start_us);
}

/* Hand the answer to libmicrohttpd; only inside its callback. */
static enum MHD_Result queue_answer(struct request *req)
{
    struct http *h = req->h;
    struct conn *conn = req->conn;
    size_t len = req->len_answer;
    struct MHD_Response *resp;
    enum MHD_Result ok;
    bool close;

    if (req->answer)
        resp = MHD_create_response_from_buffer_with_free_callback(
            len, req->answer, free);
    else
        resp = MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT);
    if (!resp)
        return MHD_NO;
    req->answer = NULL;
    pthread_mutex_lock(&h->lock);
    close = h->stopping || conn->over;
    conn->linger = req->step == STEP_HEAD && req->has_body;
    conn->phase = CONN_SEND;
    conn->deadline_us = http_now_us() + (int64_t)h->opt.body_ms * 1000 +
                        (int64_t)(len / 1024) * 1000000 / h->opt.send_kib_s;
    pthread_mutex_unlock(&h->lock);
    add_headers(req, resp, close);
    tell_done(req, req->status);
    ok = MHD_queue_response(req->mhd, (unsigned)req->status, resp);
    MHD_destroy_response(resp);
    return ok;
}

static void count_refusal(struct http *h)
{
    pthread_mutex_lock(&h->lock);
    h->stats.refused++;
    pthread_mutex_unlock(&h->lock);
}

/* From the first call. An answer there closes the connection, which is right
 * when the framing cannot be trusted, when the client waits for 100 Continue
 * and when much would follow; else the body is read, thrown away, and the
 * connection lives on. */
static enum MHD_Result refuse(struct request *req, const struct error *err,
                              bool broken)
{
    count_refusal(req->h);
    if (!broken && (!req->has_body || (!req->expects && !req->chunked &&
                                       req->content_length <= SMALL_BODY))) {
        req->refusal = *err;
        req->step = STEP_DISCARD;
        set_phase(req->conn, CONN_BODY, req->h->opt.body_ms);
        return MHD_YES;
    }
    http_request_fail(req, err);
    return queue_answer(req);
}

/* --- the body ---------------------------------------------------------- */

/* The verdict on a well-formed head: 0 or -1 with err. */
static int admit(struct request *req, struct error *err)
{
    struct http *h = req->h;
    struct http_verdict v = {.refuse = ERR_NONE};
    bool stopping, over, full;

    h->calls.admit(h->calls.ctx, req, &v);
    req->route = v.route;
    req->allow = v.allow;
    req->max_body = v.max_body;
    pthread_mutex_lock(&h->lock);
    stopping = h->stopping;
    over = req->conn->over;
    full = req->content_length > h->opt.max_buffered ||
           (size_t)h->stats.buffered_bytes >
               h->opt.max_buffered - (size_t)req->content_length;
    pthread_mutex_unlock(&h->lock);
    if (stopping && !v.now)
        return error_set(err, ERR_STOPPING, "the daemon is stopping");
    if (over && !v.now)
        return error_set(err, ERR_QUEUE_FULL, "too many connections");
    if (v.refuse != ERR_NONE)
        return error_set(err, v.refuse, "%s", v.text);
    if (!req->has_body)
        return 0;
    if (v.max_body == 0)
        return error_set(err, ERR_BAD_REQUEST, "this path takes no body");
    if (http_gate_media(req, err) < 0)
        return -1;
    if (req->content_length > v.max_body)
        return error_set(err, ERR_TOO_LARGE,
                         "the body has %llu bytes, the limit is %zu",
                         (unsigned long long)req->content_length, v.max_body);
    if (full)
        return error_set(err, ERR_QUEUE_FULL,
                         "too many bodies are being received");
    return 0;
}

static enum MHD_Result on_head(struct request *req, const char *url,
                               const char *method, const char *version)
{
    struct error err = {.code = ERR_NONE};

    if (http_head_copy(req, url, method, version, &err) < 0 ||
        http_gate_head(req, version, &err) < 0)
        return refuse(req, &err, true);
    if (http_head_split(req, &err) < 0 || admit(req, &err) < 0)
        return refuse(req, &err, false);
    req->step = STEP_BODY;
    set_phase(req->conn, CONN_BODY, req->h->opt.body_ms);
    return MHD_YES;
}

static enum MHD_Result on_data(struct request *req, const char *data,
                               size_t len)
{
    struct error err = {.code = ERR_NONE};

    if (req->step == STEP_BODY) {
        if (http_request_append(req, data, len, &err) == 0)
            return MHD_YES;
        http_request_drop_body(req);
        count_refusal(req->h);
        req->refusal = err;
        req->step = STEP_DISCARD;
    }
    /* A declared length is bounded already; chunks may go on for ever. */
    req->discarded += len;
    return req->chunked && req->discarded > HTTP_DISCARD ? MHD_NO : MHD_YES;
}

static int take_apart(struct request *req, struct error *err)
{
    int n;

    if (req->kind != BODY_MULTIPART)
        return 0;
    req->parts = calloc(HTTP_MAX_PARTS, sizeof(*req->parts));
    if (!req->parts)
        return error_set(err, ERR_NOMEM, "no memory for the form");
    n = http_multipart(req->body, req->len_body, req->boundary, req->parts,
                       HTTP_MAX_PARTS, err);
    if (n < 0)
        return -1;
    req->n_parts = n;
    return 0;
}

/* The whole request is there: to the caller with it. */
static void hand_over(struct request *req)
{
    struct http *h = req->h;

    pthread_mutex_lock(&h->lock);
    req->step = STEP_WORK;
    req->conn->phase = CONN_WORK;
    req->conn->deadline_us = http_now_us() + (int64_t)h->opt.answer_ms * 1000;
    req->deadline_us = req->conn->deadline_us;
    pthread_mutex_unlock(&h->lock);
    h->calls.handle(h->calls.ctx, req);
}

/* After handle, and each time libmicrohttpd asks again. */
static enum MHD_Result answer_or_wait(struct request *req)
{
    struct http *h = req->h;
    struct error err = {.code = ERR_NONE};
    bool answered, gone, closing;

    pthread_mutex_lock(&h->lock);
    answered = req->answered;
    gone = req->gone;
    closing = h->closing;
    if (!answered && !gone && !closing) {
        MHD_suspend_connection(req->mhd);
        req->suspended = true;
    }
    pthread_mutex_unlock(&h->lock);
    if (gone)
        return MHD_NO;
    if (!answered && !closing)
        return MHD_YES;
    if (!answered) {
        error_set(&err, ERR_STOPPING, "the daemon is stopping");
        http_request_fail(req, &err);
    }
    return queue_answer(req);
}

static enum MHD_Result on_complete(struct request *req)
{
    struct error err = {.code = ERR_NONE};

    if (req->step == STEP_BODY && take_apart(req, &err) < 0) {
        http_request_drop_body(req);
        count_refusal(req->h);
        req->refusal = err;
        req->step = STEP_DISCARD;
    }
    if (req->step == STEP_DISCARD) {
        http_request_fail(req, &req->refusal);
        return queue_answer(req);
    }
    if (req->step == STEP_BODY)
        hand_over(req);
    return answer_or_wait(req);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *mhd,
                                  const char *url, const char *method,
                                  const char *version, const char *data,
                                  size_t *len, void **context)
{
    struct http *h = cls;
    struct request *req = *context;
    struct conn *conn = req ? req->conn : NULL;
    enum MHD_Result ok;

    (void)mhd;
    if (!conn)
        return MHD_NO;
    pthread_mutex_lock(&h->lock);
    conn->entered_us = http_now_us();
    pthread_mutex_unlock(&h->lock);
    if (req->step == STEP_HEAD) {
        ok = on_head(req, url, method, version);
    } else if (*len > 0) {
        ok = on_data(req, data, *len);
        *len = 0;
    } else {
        ok = on_complete(req);
    }
    pthread_mutex_lock(&h->lock);
    conn->entered_us = 0;
    pthread_mutex_unlock(&h->lock);
    return ok;
}

/* What to call the end of a request that nobody answered; 499 is what logs
 * call a client that left. */
static int end_status(const struct request *req,
                      enum MHD_RequestTerminationCode how, bool timed_out)
{
    if (timed_out)
        return 408;
    if (req->gone || how != MHD_REQUEST_TERMINATED_WITH_ERROR)
        return 499;
    if (req->step == STEP_DISCARD) /* too much of it */
        return error_status(req->refusal.code);
    /* The library itself refuses heads and chunks. In a body of known length
     * there is nothing to refuse: it calls it an error when the client's last
     * bytes and its end come together. */
    return req->step == STEP_HEAD || (req->step == STEP_BODY && req->chunked)
               ? 400
               : 499;
}

/* The exchange is over, well or not; the connection may go on. */
static void on_completed(void *cls, struct MHD_Connection *mhd, void **context,
                         enum MHD_RequestTerminationCode how)
{
    struct http *h = cls;
    struct request *req = *context;
    bool timed_out;

    (void)mhd;
    *context = NULL;
    if (!req)
        return;
    atomic_store(&req->cancelled, true);
    pthread_mutex_lock(&h->lock);
    timed_out = req->conn->shut_us != 0;
    req->conn->req = NULL;
    req->conn->phase = CONN_IDLE;
    req->conn->deadline_us = http_now_us() + (int64_t)h->opt.idle_ms * 1000;
    req->conn = NULL;
    req->mhd = NULL;
    pthread_mutex_unlock(&h->lock);
    tell_done(req, end_status(req, how, timed_out));
    request_unref(req);
    pthread_mutex_lock(&h->lock);
    if (--h->stats.in_flight == 0)
        pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

/* --- the daemon -------------------------------------------------------- */

/* Paths and queries stay as they came: %2f must not become a slash, nor %00
 * an end, before the gate has seen them. */
static size_t keep_escapes(void *cls, struct MHD_Connection *mhd, char *s)
{
    (void)cls, (void)mhd;
    return strlen(s);
}

static void on_message(void *cls, const char *fmt, va_list ap)
    __attribute__((format(printf, 2, 0)));

/* Most messages tell of what clients did wrong, so they are for debugging. */
static void on_message(void *cls, const char *fmt, va_list ap)
{
    char text[240], quoted[512];

    (void)cls;
    vsnprintf(text, sizeof(text), fmt, ap);
    text[strcspn(text, "\n")] = '\0';
    log_event(LOG_LEVEL_DEBUG, "http_library", "text=%s",
              log_quote(text, quoted, sizeof(quoted)));
}

static void on_panic(void *cls, const char *file, unsigned line,
                     const char *reason)
{
    char quoted[256];

    (void)cls, (void)file;
    log_event(LOG_LEVEL_ERROR, "http_library_panic", "line=%u reason=%s", line,
              log_quote(reason ? reason : "", quoted, sizeof(quoted)));
    abort();
}

int http_conn_start(struct http *h, bool tls, struct error *err)
{
    unsigned n = (unsigned)h->opt.n_threads;
    /* The library shares its limit out among its threads and is silent at
     * it, so ours has to be reached first. */
    unsigned limit = (unsigned)h->opt.max_connections * 3 / 2 + 4 * n;
    /* Not epoll: there 0.9.75 takes a short read for the end of input, misses
     * the close that came with it, and a connection that was reset meanwhile
     * wakes it no more, not even when shut down. poll tells it each time. */
    unsigned flags = MHD_USE_POLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME |
                     MHD_USE_ERROR_LOG | MHD_USE_NO_LISTEN_SOCKET |
                     (tls ? MHD_USE_TLS : 0);
    struct MHD_OptionItem more[] = {
        {MHD_OPTION_THREAD_POOL_SIZE, (intptr_t)n, NULL},
        {MHD_OPTION_END, 0, NULL},
        {MHD_OPTION_END, 0, NULL}};
    struct MHD_Daemon *d;

    if (tls) {
        more[n > 1].option = MHD_OPTION_HTTPS_CERT_CALLBACK;
        more[n > 1].value = 0;
        more[n > 1].ptr_value = (void *)on_cert;
    } else if (n < 2) {
        more[0].option = MHD_OPTION_END;
    }
    MHD_set_panic_func(on_panic, NULL);
    d = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, h, MHD_OPTION_EXTERNAL_LOGGER,
        on_message, NULL, MHD_OPTION_CONNECTION_LIMIT, limit,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_POOL,
        MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL,
        MHD_OPTION_URI_LOG_CALLBACK, on_line, h, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, h, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
        MHD_OPTION_ARRAY, more, MHD_OPTION_END);
    if (!d)
        return error_set(err, ERR_INTERNAL, "the HTTP library does not start");
    *(tls ? &h->tls : &h->plain) = d;
    return 0;
}
