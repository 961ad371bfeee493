/* daemon/http_priv.h - what the files of the HTTP server share. A connection
 * is seen by three parties: libmicrohttpd's threads (http_conn.c), the keeper
 * thread that accepts and times (http_keep.c) and whoever answers
 * (http_request.c). One mutex, http.lock, guards all that they share; it is
 * held for a few instructions, around MHD_suspend_connection and
 * MHD_resume_connection (which only move a list node), and never around a
 * callback of the caller. */
#ifndef DAEMON_HTTP_PRIV_H
#define DAEMON_HTTP_PRIV_H

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "daemon/http.h"

struct http_cert;
struct MHD_Connection;
struct MHD_Daemon;

enum {
    HTTP_MAX_LISTEN = 8,
    HTTP_MAX_HEADERS = 100,
    HTTP_MAX_QUERY = 64,
    HTTP_MAX_PATH = 1024,
    HTTP_MAX_PARTS = 64,
    HTTP_MAX_PART_NAME = 128,
    HTTP_MAX_PART_HEAD = 8192, /* bytes of headers of one part */
    HTTP_MAX_BOUNDARY = 70,    /* RFC 2046 5.1.1 */
    HTTP_MAX_EXTRA = 8,        /* headers added to an answer */
    HTTP_POOL = 32 * 1024,     /* bytes a connection may use for its head */
    HTTP_MAX_DRAINS = 64,
    HTTP_DISCARD = 1024 * 1024, /* bytes read only to be thrown away */
    HTTP_LAST_MS = 1000         /* while stopping: for what is on its way */
};

struct http_pair {
    char *name, *value;
};

/* What a connection is doing, which says what its deadline means. */
enum conn_phase {
    CONN_HEADERS, /* the head has to be there by the deadline */
    CONN_BODY,    /* the body has to */
    CONN_WORK,    /* the answer has to */
    CONN_SEND,    /* the answer has to be taken */
    CONN_IDLE     /* the next request line has to begin */
};

/* One TCP or UNIX connection; made and freed in libmicrohttpd's notification,
 * which it gives before it closes the fd. All under http.lock. */
struct conn {
    struct conn *prev, *next;
    struct http *h;
    struct request *req;    /* borrowed while libmicrohttpd holds it */
    struct http_cert *cert; /* shown in its handshake; see http_tls.h */
    int64_t deadline_us;
    int64_t entered_us; /* a callback runs since then; 0: none */
    int64_t shut_us;    /* shut down by us; 0: not */
    int fd;
    enum conn_phase phase;
    bool over;   /* beyond max_connections: refused politely */
    bool linger; /* closed with unread input: see http_keep.c */
    bool loopback, is_inet;
    char peer[INET6_ADDRSTRLEN];
};

/* A closed connection whose input is still drained for a moment, so that the
 * kernel does not reset it before the client has read its answer. */
struct drain {
    struct drain *next;
    int64_t until_us;
    size_t left;
    int fd;
};

struct http {
    atomic_int refs;
    struct http_calls calls;
    struct http_options opt; /* with the defaults filled in */
    char *cert_path, *key_path;
    struct MHD_Daemon *plain, *tls;
    bool old_layout; /* libmicrohttpd up to 0.9.75: see http_head.c */
    int listen[HTTP_MAX_LISTEN];
    bool listen_unix[HTTP_MAX_LISTEN];
    int n_listen;
    char *unlink_path; /* of a UNIX socket that we bound */
    int wake_fd;
    pthread_t keeper;
    uint64_t id_seed;
    atomic_uint_fast64_t id_next;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* in_flight became 0; deaf or stopped, true */
    struct conn *conns;
    struct drain *drains; /* new ones, for the keeper */
    int n_drains;         /* those and the keeper's */
    struct http_cert *cert;
    struct http_stats stats;
    int64_t tick_us; /* the keeper's last round */
    bool stopping;   /* no new connections, no new requests */
    bool closing;    /* no request may be suspended any more */
    bool quit;       /* the keeper leaves */
    bool deaf;       /* the keeper accepts no more */
    bool stopped;    /* libmicrohttpd has ended its threads */
};

enum request_step {
    STEP_HEAD,    /* headers not yet seen */
    STEP_BODY,    /* body arrives */
    STEP_DISCARD, /* refused; the body is read and thrown away */
    STEP_WORK     /* given to handle */
};

struct request {
    atomic_int refs;
    struct http *h;             /* counted */
    struct conn *conn;          /* until completed; http.lock */
    struct MHD_Connection *mhd; /* the same */
    char id[17];
    char peer[INET6_ADDRSTRLEN];
    bool loopback;
    int64_t start_us;
    enum request_step step;
    struct error refusal; /* what to answer when the body is through */
    const char *allow;

    char *uri; /* owns path and query */
    char *path;
    size_t len_uri; /* as received */
    struct http_pair query[HTTP_MAX_QUERY];
    int n_query;
    char method[17];
    char *head; /* owns names and values */
    struct http_pair headers[HTTP_MAX_HEADERS];
    int n_headers;
    const void *route;

    bool has_body, chunked, expects;
    uint64_t content_length;
    size_t max_body;
    enum body_kind kind;
    char boundary[HTTP_MAX_BOUNDARY + 1];
    uint8_t *body;
    size_t len_body, cap_body;
    uint64_t discarded;
    struct request_part *parts;
    int n_parts;

    /* http.lock */
    bool suspended, answered, gone, done;
    int status;
    char *answer;
    size_t len_answer;
    char type[64];
    struct http_pair extra[HTTP_MAX_EXTRA];
    int n_extra;
    int64_t deadline_us;
    atomic_bool cancelled;

    void *state;
    void (*free_state)(void *);
};

int64_t http_now_us(void);
/* While stopping what is still arriving gets HTTP_LAST_MS at most. Under the
 * lock. */
void http_conn_hurry(struct conn *conn, int64_t now_us);
void http_ref(struct http *h);
void http_unref(struct http *h);

/* http_listen.c: fills listen[]; *port may be NULL. */
int http_listen_open(struct http *h, int *port, struct error *err);
void http_listen_close(struct http *h);

/* http_conn.c */
int http_conn_start(struct http *h, bool tls, struct error *err);

/* http_head.c: copy method and headers; then path and query arguments. */
int http_head_copy(struct request *req, const char *url, const char *method,
                   const char *version, struct error *err);
int http_head_split(struct request *req, struct error *err);

/* http_keep.c: the keeper thread's body; arg is the struct http. */
void *http_keep(void *arg);

/* http_request.c */
struct request *http_request_new(struct http *h, const char *uri);
int http_request_append(struct request *req, const void *data, size_t len,
                        struct error *err);
void http_request_drop_body(struct request *req);
/* Answer with the document of err. Thread: any, without the lock. */
void http_request_fail(struct request *req, const struct error *err);
/* The client is gone: nothing is sent, the connection is closed. */
void http_request_abandon(struct request *req);

/* http_gate.c: pure checks of what a client sent. Each refusal names what was
 * wrong. gate_head also fills has_body, chunked, expects, content_length. */
int http_gate_head(struct request *req, const char *version, struct error *err);
int http_gate_path(const char *path, struct error *err);
/* Decode text in place into pairs; returns how many, or -1. */
int http_gate_query(char *text, struct http_pair *pairs, int max,
                    struct error *err);
/* Fills kind and boundary from Content-Type. */
int http_gate_media(struct request *req, struct error *err);

/* http_multipart.c: take the body apart in place (the byte after each part is
 * overwritten with NUL; names too). Returns the number of parts or -1. */
int http_multipart(uint8_t *body, size_t len, const char *boundary,
                   struct request_part *parts, int max, struct error *err);

#endif
