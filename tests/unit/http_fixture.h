/* tests/unit/http_fixture.h - a small server in the test's own process and a
 * client on raw sockets. Paths: /echo says what arrived, /later is answered
 * by another thread, /never by nobody, /large at length, /health without the
 * queue, /none takes no body, /deny is refused. */
#ifndef TESTS_UNIT_HTTP_FIXTURE_H
#define TESTS_UNIT_HTTP_FIXTURE_H

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cmocka.h>

#include "daemon/http.h"
#include "daemon/queue.h"

enum {
    PATIENCE_MS = 8000, /* no test waits longer for anything */
    FX_CAP = 256 * 1024,
    FX_BIG = 16 * 1024 * 1024
};

struct fixture {
    struct http *h;
    int port;
    struct queue *later;
    pthread_t worker;
    atomic_int n_handled, n_done, last_status, n_freed;
    atomic_bool block;            /* keeps /block from returning */
    struct request *_Atomic kept; /* of /never, referenced */
};

static inline int64_t fx_now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* --- the server --------------------------------------------------------- */

static inline void fx_admit(void *ctx, struct request *req,
                            struct http_verdict *v)
{
    const char *path = request_path(req);

    (void)ctx;
    v->max_body = FX_CAP;
    if (strcmp(path, "/big") == 0) {
        v->max_body = FX_BIG;
    } else if (strcmp(path, "/none") == 0) {
        v->max_body = 0;
    } else if (strcmp(path, "/health") == 0) {
        v->now = true;
    } else if (strcmp(path, "/deny") == 0) {
        v->refuse = ERR_UNAUTHORIZED;
        snprintf(v->text, sizeof(v->text), "no key");
    } else if (strcmp(path, "/method") == 0) {
        v->refuse = ERR_METHOD;
        v->allow = "PATCH";
    } else if (strcmp(path, "/echo") && strcmp(path, "/later") &&
               strcmp(path, "/never") && strcmp(path, "/large") &&
               strcmp(path, "/block")) {
        v->refuse = ERR_NOT_FOUND;
        snprintf(v->text, sizeof(v->text), "nothing here");
    }
}

static inline uint32_t fx_sum(const uint8_t *p, size_t n)
{
    uint32_t sum = 1;

    for (size_t i = 0; i < n; i++)
        sum = sum * 31 + p[i];
    return sum;
}

/* "GET kind=0 len=0 sum=1 q:a=b part:name/file=3:99 " */
static inline void fx_echo(struct request *req)
{
    size_t len, size = 16384;
    const uint8_t *body = request_body(req, &len);
    char *text = malloc(size);
    size_t n = (size_t)snprintf(
        text, size, "%s kind=%d len=%zu sum=%u ", request_method(req),
        (int)request_body_kind(req), len, fx_sum(body, len));

    for (int i = 0; i < request_n_query(req); i++) {
        const char *name = request_query_name(req, i);
        n += (size_t)snprintf(text + n, size - n, "q:%s=%s ", name,
                              request_query(req, name));
    }
    for (int i = 0; i < request_n_parts(req); i++) {
        const struct request_part *p = request_part(req, i);
        assert_int_equal(p->data[p->len], 0);
        n += (size_t)snprintf(text + n, size - n, "part:%s/%s=%zu:%u ", p->name,
                              p->filename ? p->filename : "", p->len,
                              fx_sum(p->data, p->len));
    }
    http_answer(req, 200, "text/plain", text, n);
}

static inline void fx_free_state(void *state)
{
    atomic_fetch_add((atomic_int *)state, 1);
}

static inline void fx_handle(void *ctx, struct request *req)
{
    struct fixture *f = ctx;

    atomic_fetch_add(&f->n_handled, 1);
    request_set_state(req, &f->n_freed, fx_free_state);
    if (strcmp(request_path(req), "/later") == 0) {
        request_ref(req);
        assert_true(queue_push(f->later, req, false));
    } else if (strcmp(request_path(req), "/never") == 0) {
        request_ref(req);
        req = atomic_exchange(&f->kept, req);
        request_unref(req);
    } else if (strcmp(request_path(req), "/block") == 0) {
        while (atomic_load(&f->block)) /* what a handler must never do */
            poll(NULL, 0, 2);
        if (!request_query(req, "mute"))
            http_answer(req, 200, NULL, NULL, 0);
    } else if (strcmp(request_path(req), "/large") == 0) {
        http_answer(req, 200, "text/plain", calloc(1, FX_BIG), FX_BIG);
    } else {
        request_add_header(req, "X-Test", "yes");
        fx_echo(req);
    }
}

static inline char *fx_problem(void *ctx, const struct request *req,
                               const struct error *err)
{
    char text[512];

    (void)ctx;
    snprintf(text, sizeof(text), "{\"code\":\"%s\",\"id\":\"%s\"}",
             error_wire(err->code), request_id(req));
    return strdup(text);
}

static inline void fx_done(void *ctx, const struct request *req, int status,
                           int64_t total_us)
{
    struct fixture *f = ctx;

    assert_true(total_us >= 0);
    assert_int_equal(strlen(request_id(req)), 16);
    atomic_store(&f->last_status, status);
    atomic_fetch_add(&f->n_done, 1);
}

static inline void *fx_worker(void *arg)
{
    struct fixture *f = arg;
    struct request *req;

    while ((req = queue_pop(f->later, -1)) != NULL) {
        fx_echo(req);
        request_unref(req);
    }
    return NULL;
}

static inline void fx_start(struct fixture *f, const struct http_options *opt)
{
    struct http_calls calls = {fx_admit, fx_handle, fx_problem, fx_done, f};
    struct http_options o = *opt;
    struct error err = {.code = ERR_NONE};

    memset(f, 0, sizeof(*f));
    f->later = queue_new(1024);
    assert_int_equal(pthread_create(&f->worker, NULL, fx_worker, f), 0);
    if (!o.listen && o.n_fds == 0)
        o.listen = "127.0.0.1:0";
    f->h = http_start(&o, &calls, &f->port, &err);
    if (!f->h)
        fail_msg("http_start: %s", err.text);
}

static inline void fx_stop(struct fixture *f)
{
    struct request *req = atomic_exchange(&f->kept, NULL);

    if (req)
        http_answer(req, 200, NULL, NULL, 0);
    request_unref(req);
    http_stop(f->h, 2000);
    queue_close(f->later);
    pthread_join(f->worker, NULL);
    queue_free(f->later);
}

/* Until *counter reaches want; false when it does not. */
static inline bool fx_wait(atomic_int *counter, int want)
{
    int64_t until = fx_now_ms() + PATIENCE_MS;

    while (atomic_load(counter) < want && fx_now_ms() < until)
        poll(NULL, 0, 2);
    return atomic_load(counter) >= want;
}

static inline struct http_stats fx_stats(const struct fixture *f)
{
    struct http_stats s;

    http_stats(f->h, &s);
    return s;
}

/* Until the buffers are empty and no request is in flight. */
static inline bool fx_settles(const struct fixture *f)
{
    int64_t until = fx_now_ms() + PATIENCE_MS;
    struct http_stats s = fx_stats(f);

    while ((s.buffered_bytes || s.in_flight) && fx_now_ms() < until) {
        poll(NULL, 0, 2);
        s = fx_stats(f);
    }
    return !s.buffered_bytes && !s.in_flight;
}

/* --- the client --------------------------------------------------------- */

static inline int cl_connect(const struct fixture *f)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)f->port),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

/* False when the server has closed. */
static inline bool cl_send(int fd, const void *data, size_t len)
{
    const char *p = data;

    while (len > 0) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

static inline bool cl_say(int fd, const char *text)
{
    return cl_send(fd, text, strlen(text));
}

struct reply {
    int status; /* 0: closed without an answer */
    char head[4096];
    char body[20000];
    size_t len_body;
};

/* One byte more, or false at the end (a reset counts as one). */
static inline bool cl_byte(int fd, char *c)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    if (poll(&p, 1, PATIENCE_MS) != 1)
        fail_msg("no answer within %d ms", PATIENCE_MS);
    return recv(fd, c, 1, 0) == 1;
}

static inline const char *cl_header(const struct reply *r, const char *name)
{
    static _Thread_local char value[512];
    const char *at = r->head;
    size_t len = strlen(name);

    while ((at = strstr(at, "\r\n")) != NULL) {
        at += 2;
        if (strncasecmp(at, name, len) == 0 && at[len] == ':') {
            at += len + 1 + strspn(at + len + 1, " ");
            snprintf(value, sizeof(value), "%.*s", (int)strcspn(at, "\r"), at);
            return value;
        }
    }
    return NULL;
}

static inline void cl_read(int fd, struct reply *r, bool head_only)
{
    size_t n = 0, want;
    const char *length;
    char c;

    memset(r, 0, sizeof(*r));
    while (n + 1 < sizeof(r->head) && cl_byte(fd, &c)) {
        r->head[n++] = c;
        if (n >= 4 && memcmp(r->head + n - 4, "\r\n\r\n", 4) == 0)
            break;
    }
    if (n == 0)
        return;
    assert_int_equal(sscanf(r->head, "HTTP/1.%*d %d", &r->status), 1);
    length = cl_header(r, "Content-Length");
    want = head_only || !length ? 0 : (size_t)atoi(length);
    assert_true(want < sizeof(r->body));
    while (r->len_body < want && cl_byte(fd, &c))
        r->body[r->len_body++] = c;
    assert_int_equal(r->len_body, want);
}

/* Only the end is left. */
static inline bool cl_at_end(int fd)
{
    char c;

    return !cl_byte(fd, &c);
}

static inline void cl_exchange(const struct fixture *f, const void *request,
                               size_t len, struct reply *r)
{
    int fd = cl_connect(f);

    cl_send(fd, request, len);
    cl_read(fd, r, false);
    close(fd);
}

static inline void cl_ask(const struct fixture *f, const char *request,
                          struct reply *r)
{
    cl_exchange(f, request, strlen(request), r);
}

/* Feed fd a byte every few milliseconds until the server has enough; returns
 * how long that took. */
static inline int64_t cl_trickle(int fd, const char *text)
{
    int64_t start = fx_now_ms();
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};

    while (fx_now_ms() - start < PATIENCE_MS) {
        if (!cl_send(fd, *text ? text : "a", 1))
            break;
        text += *text != '\0';
        if (poll(&p, 1, 5) > 0)
            break;
    }
    return fx_now_ms() - start;
}

#endif
