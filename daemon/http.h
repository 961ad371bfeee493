/* daemon/http.h - requests and answers over HTTP/1.1 (and TLS).
 * The only user of libmicrohttpd. It accepts, frames strictly, bounds and
 * times everything, takes multipart bodies apart, and hands a complete
 * request to one handler; the connection is suspended until http_answer is
 * called, from any thread. Knows nothing of routes or faces. */
#ifndef DAEMON_HTTP_H
#define DAEMON_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct http;    /* the server */
struct request; /* one request, counted; see request_* below */

/* What a request may do, decided when its headers are there and before its
 * body is read. */
struct http_verdict {
    enum error_code refuse; /* ERR_NONE: go on */
    char text[240];         /* why, for the problem document */
    size_t max_body;        /* bytes; 0: a body is refused */
    const void *route;      /* the caller's, see request_route */
    const char *allow;      /* for ERR_METHOD: the Allow header */
    bool now; /* health: taken beyond max_connections and while stopping */
};

struct http_calls {
    /* Headers are complete. Thread: an HTTP thread; must not block. */
    void (*admit)(void *ctx, struct request *req, struct http_verdict *v);
    /* The body is complete. Must lead to exactly one http_answer, now or
     * later, from any thread. Thread: an HTTP thread; must not block. */
    void (*handle)(void *ctx, struct request *req);
    /* An error before handle (framing, limits, time) needs a document:
     * return a malloc'd problem+json body. Before admit, where the framing
     * is bad, headers and query may be missing. Thread: any. */
    char *(*problem)(void *ctx, const struct request *req,
                     const struct error *err);
    /* The answer is complete and about to be sent (log, counters), once per
     * request, refusals included. status as sent; 408 and 499 when nothing
     * was: too slow, gone. May be NULL. Thread: an HTTP thread. */
    void (*done)(void *ctx, const struct request *req, int status,
                 int64_t total_us);
    void *ctx;
};

struct http_options {
    const char *listen; /* "127.0.0.1:8080", "[::1]:8080", ":8080" (both
                         * families), "unix:/path" (always without TLS) */
    const int *fds;     /* or sockets handed over (systemd); n_fds > 0 */
    int n_fds;
    const char *tls_cert, *tls_key; /* PEM paths; NULL: plain */
    int n_threads;                  /* 0: min(4, cores) */
    int max_connections;            /* 0: 512 */
    int max_per_address;            /* 0: no limit */
    size_t max_buffered;    /* bodies in memory, all requests; 0: 256 MiB */
    int header_ms, body_ms; /* deadlines from first byte; 0: 5000, 15000 */
    int idle_ms;            /* keep-alive; 0: 15000 */
    int answer_ms;          /* from complete body to answer; 0: 10000 */
    int send_kib_s;         /* slowest reader of answers; 0: 64 */
};

/* Starts listening. *port (may be NULL) gets the bound port.
 * ERR_CONFIG (address), ERR_FILE (cannot bind, certificate). */
struct http *http_start(const struct http_options *opt,
                        const struct http_calls *calls, int *port,
                        struct error *err);
/* Stop accepting, cut off what has not arrived after 1 s, answer what is in
 * flight for up to drain_ms, answer the rest 503 stopping, close: drain_ms +
 * 4 s at most. h is gone for the caller,
 * but requests still referenced stay readable. Thread: main. NULL is fine. */
void http_stop(struct http *h, int drain_ms);
/* Certificate and key are read again (SIGHUP); the old stay on failure. */
int http_reload_tls(struct http *h, struct error *err);
bool http_alive(struct http *h, int timeout_ms); /* watchdog */

struct http_stats {
    int64_t connections, in_flight, buffered_bytes, refused, timed_out;
};
void http_stats(const struct http *h, struct http_stats *out);

/* --- the request: everything borrowed until the last request_unref ---- */
const char *request_method(const struct request *req); /* "POST"; HEAD is
                                                        * "GET" here */
/* As sent, without the query; a path with '%' is refused before. */
const char *request_path(const struct request *req);
const char *request_id(const struct request *req); /* 16 hex digits */
/* Header, or NULL; name in any case; the first of several. */
const char *request_header(const struct request *req, const char *name);
/* Query argument, percent-decoded UTF-8 without NUL, or NULL; a name given
 * twice is refused before. */
const char *request_query(const struct request *req, const char *name);
int request_n_query(const struct request *req);
const char *request_query_name(const struct request *req, int i);
const void *request_route(const struct request *req);
const char *request_peer(const struct request *req);   /* "127.0.0.1" */
bool request_peer_loopback(const struct request *req); /* loopback or UNIX */

enum body_kind {
    BODY_NONE,
    BODY_JSON,
    BODY_MULTIPART,
    BODY_RAW
};
enum body_kind request_body_kind(const struct request *req);
/* JSON and raw: the bytes. Multipart: NULL. */
const uint8_t *request_body(const struct request *req, size_t *len);

/* One part of a multipart body, in order of arrival; at most 64. */
struct request_part {
    const char *name;     /* field name, printable ASCII */
    const char *filename; /* NULL: a plain value */
    const uint8_t *data;  /* NUL-terminated beyond len */
    size_t len;
};
int request_n_parts(const struct request *req);
const struct request_part *request_part(const struct request *req, int i);

/* The client went away (or closed its sending side) or the deadline passed:
 * stop working on it. */
bool request_cancelled(const struct request *req);
int64_t request_deadline_us(const struct request *req); /* CLOCK_MONOTONIC */
/* The caller's state for this request; freed by fn with the request. */
void request_set_state(struct request *req, void *state, void (*fn)(void *));
void *request_state(const struct request *req);

/* Answer; body is malloc'd and taken (NULL: empty). Extra header lines by
 * request_add_header before. Late or second answers are dropped. 503 and 429
 * get a Retry-After where none was added. */
void http_answer(struct request *req, int status, const char *content_type,
                 char *take_body, size_t len);
void request_add_header(struct request *req, const char *name,
                        const char *value);
void request_ref(struct request *req);
void request_unref(struct request *req);

#endif
