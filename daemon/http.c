/* daemon/http.c - the HTTP server as one object: started, watched and stopped
 * by main. The request's way is in http_conn.c, time in http_keep.c, the
 * request itself in http_request.c, what is refused in http_gate.c. */
#include "daemon/http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <microhttpd.h>

#include "daemon/http_priv.h"
#include "daemon/http_tls.h"
#include "daemon/log.h"

int64_t http_now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

void http_ref(struct http *h)
{
    atomic_fetch_add(&h->refs, 1);
}

void http_unref(struct http *h)
{
    if (atomic_fetch_sub(&h->refs, 1) != 1)
        return;
    http_cert_unref(h->cert);
    free(h->cert_path);
    free(h->key_path);
    pthread_cond_destroy(&h->changed);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static void fill_defaults(struct http_options *o)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    if (o->n_threads <= 0)
        o->n_threads = cores < 1 ? 1 : cores > 4 ? 4 : (int)cores;
    if (o->max_connections <= 0)
        o->max_connections = 512;
    if (o->max_buffered == 0)
        o->max_buffered = (size_t)256 << 20;
    if (o->header_ms <= 0)
        o->header_ms = 5000;
    if (o->body_ms <= 0)
        o->body_ms = 15000;
    if (o->idle_ms <= 0)
        o->idle_ms = 15000;
    if (o->answer_ms <= 0)
        o->answer_ms = 10000;
    if (o->send_kib_s <= 0)
        o->send_kib_s = 64;
}

/* Up to 0.9.75 heads are parsed loosely; see head_is_whole. */
static bool parses_loosely(void)
{
    int major = 0, minor = 0, micro = 0;

    if (sscanf(MHD_get_version(), "%d.%d.%d", &major, &minor, &micro) < 3)
        return false;
    return major == 0 && (minor < 9 || (minor == 9 && micro <= 75));
}

static struct http *new_server(const struct http_options *opt,
                               const struct http_calls *calls)
{
    struct http *h = calloc(1, sizeof(*h));
    pthread_condattr_t attr;

    if (!h)
        return NULL;
    atomic_init(&h->refs, 1);
    atomic_init(&h->id_next, 0);
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&h->changed, &attr);
    pthread_condattr_destroy(&attr);
    h->calls = *calls;
    h->opt = *opt;
    fill_defaults(&h->opt);
    h->old_layout = parses_loosely();
    h->tick_us = http_now_us();
    h->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (getrandom(&h->id_seed, sizeof(h->id_seed), GRND_NONBLOCK) < 0)
        h->id_seed = (uint64_t)http_now_us() * (uint64_t)getpid();
    return h;
}

static int load_tls(struct http *h, struct error *err)
{
    if (!h->opt.tls_cert != !h->opt.tls_key)
        return error_set(err, ERR_CONFIG,
                         "tls: certificate and key go together");
    if (!h->opt.tls_cert)
        return 0;
    h->cert_path = strdup(h->opt.tls_cert);
    h->key_path = strdup(h->opt.tls_key);
    if (!h->cert_path || !h->key_path)
        return error_set(err, ERR_NOMEM, "no memory for the HTTP server");
    h->cert = http_cert_load(h->cert_path, h->key_path, err);
    return h->cert ? 0 : -1;
}

static int start_daemons(struct http *h, struct error *err)
{
    bool plain = !h->cert;

    /* UNIX sockets are this machine's own and go without TLS. */
    for (int i = 0; i < h->n_listen; i++)
        plain = plain || h->listen_unix[i];
    if (h->cert && http_conn_start(h, true, err) < 0)
        return -1;
    return plain ? http_conn_start(h, false, err) : 0;
}

static void stop_daemons(struct http *h)
{
    if (h->tls)
        MHD_stop_daemon(h->tls);
    if (h->plain)
        MHD_stop_daemon(h->plain);
    h->tls = h->plain = NULL;
}

struct http *http_start(const struct http_options *opt,
                        const struct http_calls *calls, int *port,
                        struct error *err)
{
    struct http *h = new_server(opt, calls);

    if (!h)
        return error_null(err, ERR_NOMEM, "no memory for the HTTP server");
    if (h->wake_fd < 0) {
        error_set(err, ERR_INTERNAL, "eventfd: %s", strerror(errno));
        goto fail;
    }
    if (load_tls(h, err) < 0 || http_listen_open(h, port, err) < 0 ||
        start_daemons(h, err) < 0)
        goto fail;
    if (pthread_create(&h->keeper, NULL, http_keep, h) != 0) {
        error_set(err, ERR_INTERNAL, "no thread for the HTTP server");
        goto fail;
    }
    return h;
fail:
    stop_daemons(h);
    /* Descriptors handed over stay the caller's when nothing was started. */
    if (opt->n_fds > 0)
        h->n_listen = 0;
    http_listen_close(h);
    if (h->wake_fd >= 0)
        close(h->wake_fd);
    http_unref(h);
    return NULL;
}

/* --- stopping ---------------------------------------------------------- */

static void wake_keeper(struct http *h)
{
    uint64_t one = 1;

    /* A full counter wakes as well. */
    if (write(h->wake_fd, &one, sizeof(one)) < 0)
        return;
}

static bool is_drained(const struct http *h)
{
    return h->stats.in_flight == 0;
}

static bool is_deaf(const struct http *h)
{
    return h->deaf;
}

static bool has_stopped(const struct http *h)
{
    return h->stopped;
}

/* Until test holds or until_us has come; returns whether it holds. */
static bool wait_until(struct http *h, bool (*test)(const struct http *h),
                       int64_t until_us)
{
    struct timespec ts = {.tv_sec = until_us / 1000000,
                          .tv_nsec = until_us % 1000000 * 1000};
    int rc = 0;
    bool holds;

    pthread_mutex_lock(&h->lock);
    while (!(holds = test(h)) && rc == 0)
        rc = pthread_cond_timedwait(&h->changed, &h->lock, &ts);
    pthread_mutex_unlock(&h->lock);
    return holds;
}

/* The next request that waits for its answer, referenced, or NULL. */
static struct request *next_waiting(struct http *h)
{
    struct request *req = NULL;

    pthread_mutex_lock(&h->lock);
    for (struct conn *c = h->conns; c && !req; c = c->next) {
        if (c->req && c->req->suspended && !c->req->answered && !c->req->gone)
            req = c->req;
    }
    if (req)
        request_ref(req);
    pthread_mutex_unlock(&h->lock);
    return req;
}

/* From here no request is suspended again (h->closing), and those that are
 * get their answer; what is still being uploaded is cut off. */
static void answer_rest(struct http *h)
{
    static const struct error stopping = {.code = ERR_STOPPING,
                                          .text = "the daemon is stopping"};
    struct request *req;

    pthread_mutex_lock(&h->lock);
    h->closing = true;
    for (struct conn *c = h->conns; c; c = c->next) {
        if (c->phase == CONN_HEADERS || c->phase == CONN_BODY)
            shutdown(c->fd, SHUT_RDWR);
    }
    pthread_mutex_unlock(&h->lock);
    while ((req = next_waiting(h)) != NULL) {
        atomic_store(&req->cancelled, true);
        http_request_fail(req, &stopping);
        request_unref(req);
    }
}

static void *stop_thread(void *arg)
{
    struct http *h = arg;

    stop_daemons(h);
    pthread_mutex_lock(&h->lock);
    h->stopped = true;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

/* MHD_stop_daemon joins its threads; one that a callback keeps would keep us
 * too, so it is waited for no longer than 2 s. */
static bool stop_in_time(struct http *h)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, stop_thread, h) != 0) {
        stop_daemons(h);
        return true;
    }
    if (wait_until(h, has_stopped, http_now_us() + 2000000)) {
        pthread_join(thread, NULL);
        return true;
    }
    pthread_detach(thread);
    return false;
}

void http_conn_hurry(struct conn *conn, int64_t now_us)
{
    int64_t last = now_us + HTTP_LAST_MS * 1000;

    if (conn->h->stopping && conn->deadline_us > last)
        conn->deadline_us = last;
}

void http_stop(struct http *h, int drain_ms)
{
    int64_t now = http_now_us();
    bool deaf, stopped;

    if (!h)
        return;
    pthread_mutex_lock(&h->lock);
    h->stopping = true;
    for (struct conn *c = h->conns; c; c = c->next) {
        if (c->phase == CONN_IDLE)
            shutdown(c->fd, SHUT_RDWR);
        else if (c->phase == CONN_HEADERS || c->phase == CONN_BODY)
            http_conn_hurry(c, now);
    }
    pthread_mutex_unlock(&h->lock);
    wake_keeper(h);
    deaf = wait_until(h, is_deaf, now + 1000000);
    if (!wait_until(h, is_drained,
                    now + (int64_t)(drain_ms > 0 ? drain_ms : 0) * 1000))
        log_event(LOG_LEVEL_WARN, "http_drain", "cut_off=1");
    answer_rest(h);
    wait_until(h, is_drained, http_now_us() + 1000000);
    stopped = deaf && stop_in_time(h);
    pthread_mutex_lock(&h->lock);
    h->quit = true;
    pthread_mutex_unlock(&h->lock);
    wake_keeper(h);
    if (!stopped) {
        log_event(LOG_LEVEL_ERROR, "http_stop", "hung=1");
        pthread_detach(h->keeper);
        return; /* its threads still use h: better lost than freed */
    }
    pthread_join(h->keeper, NULL);
    close(h->wake_fd);
    http_unref(h);
}

/* --- watching ---------------------------------------------------------- */

int http_reload_tls(struct http *h, struct error *err)
{
    struct http_cert *cert, *old;

    if (!h->cert_path)
        return 0;
    cert = http_cert_load(h->cert_path, h->key_path, err);
    if (!cert)
        return -1;
    pthread_mutex_lock(&h->lock);
    old = h->cert;
    h->cert = cert;
    pthread_mutex_unlock(&h->lock);
    http_cert_unref(old);
    return 0;
}

bool http_alive(struct http *h, int timeout_ms)
{
    int64_t since = http_now_us() - (int64_t)timeout_ms * 1000;
    bool alive;

    pthread_mutex_lock(&h->lock);
    alive = h->tick_us >= since;
    for (struct conn *c = h->conns; c && alive; c = c->next) {
        /* A callback that does not return, a connection that was shut down
         * and not noticed: its thread does not run. */
        alive = (!c->entered_us || c->entered_us >= since) &&
                (!c->shut_us || c->shut_us >= since);
    }
    pthread_mutex_unlock(&h->lock);
    return alive;
}

void http_stats(const struct http *h, struct http_stats *out)
{
    /* Reading changes nothing but the mutex. */
    pthread_mutex_t *lock = (pthread_mutex_t *)&h->lock;

    pthread_mutex_lock(lock);
    *out = h->stats;
    pthread_mutex_unlock(lock);
}
