/* daemon/http_keep.c - the keeper: one thread that accepts connections and
 * does what libmicrohttpd 0.9.75 does not. It accepts itself, because the
 * library goes silent at its limits and may abort when told to stop
 * listening. It enforces absolute deadlines (the library's time-out starts
 * again with every byte), sees clients leave while their request waits (the
 * library does not look at suspended connections), and drains what a refused
 * client is still sending. A connection past its deadline is shut down, never
 * closed: the library owns the fd. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include <microhttpd.h>

#include "daemon/http_priv.h"

enum {
    TICK_MS = 25,       /* while there are connections */
    IDLE_TICK_MS = 250, /* the heartbeat for http_alive */
    PEER_CHECK_US = 200 * 1000,
    ACCEPT_PAUSE_US = 100 * 1000, /* when descriptors ran out */
    ACCEPT_BATCH = 64,
    SWEEP_BATCH = 64
};

struct keeper {
    struct http *h;
    int64_t pause_until_us; /* no accepting before */
    int64_t busy_until_us;  /* an accepted one may not be listed yet */
    int64_t peers_checked_us;
    struct drain *drains;
    int n_drained; /* not yet taken off http.n_drains */
};

/* --- accepting --------------------------------------------------------- */

static void accept_from(struct keeper *k, int i)
{
    struct http *h = k->h;

    for (int n = 0; n < ACCEPT_BATCH; n++) {
        struct sockaddr_storage addr = {.ss_family = AF_UNSPEC};
        socklen_t len = sizeof(addr);
        struct MHD_Daemon *d = h->tls && !h->listen_unix[i] ? h->tls : h->plain;
        int fd = accept4(h->listen[i], (struct sockaddr *)&addr, &len,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0) {
            /* The connection stays in the backlog; asking again at once
             * would only spin. */
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
                errno == ENOMEM)
                k->pause_until_us = http_now_us() + ACCEPT_PAUSE_US;
            if (errno != ECONNABORTED && errno != EINTR)
                return;
            continue;
        }
        k->busy_until_us = http_now_us() + 1000000;
        /* Closes fd when it fails. */
        MHD_add_connection(d, fd, (struct sockaddr *)&addr, len);
    }
}

/* http_stop waits for this: a daemon that is being stopped must not be given
 * connections. */
static void stop_accepting(struct http *h)
{
    http_listen_close(h);
    pthread_mutex_lock(&h->lock);
    h->deaf = true;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

/* Wait for connections, a wake-up or the tick. */
static void wait_and_accept(struct keeper *k, int tick_ms)
{
    struct http *h = k->h;
    struct pollfd fds[HTTP_MAX_LISTEN + 1];
    int n = 1;
    uint64_t wakes;

    fds[0].fd = h->wake_fd;
    fds[0].events = POLLIN;
    if (http_now_us() >= k->pause_until_us) {
        for (int i = 0; i < h->n_listen; i++, n++) {
            fds[n].fd = h->listen[i];
            fds[n].events = POLLIN;
        }
    }
    if (poll(fds, (nfds_t)n, tick_ms) <= 0)
        return;
    if (fds[0].revents && read(h->wake_fd, &wakes, sizeof(wakes)) < 0)
        return;
    for (int i = 1; i < n; i++) {
        if (fds[i].revents)
            accept_from(k, i - 1);
    }
}

/* --- sweeping ---------------------------------------------------------- */

struct sweep {
    struct request *late[SWEEP_BATCH], *gone[SWEEP_BATCH];
    int n_late, n_gone;
};

static bool peer_left(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};

    return poll(&p, 1, 0) > 0 &&
           (p.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

/* Under the lock, so that the fd is what it was. */
static void sweep_one(struct conn *conn, int64_t now, bool check_peer,
                      struct sweep *s)
{
    struct http *h = conn->h;
    struct request *req = conn->req;
    bool waits = req && conn->phase == CONN_WORK && !req->answered &&
                 !req->gone && req->step == STEP_WORK;

    if (waits && check_peer && req->suspended && s->n_gone < SWEEP_BATCH &&
        peer_left(conn->fd)) {
        request_ref(req);
        s->gone[s->n_gone++] = req;
        return;
    }
    if (now < conn->deadline_us || conn->shut_us)
        return;
    if (waits) {
        if (s->n_late == SWEEP_BATCH)
            return;
        request_ref(req);
        s->late[s->n_late++] = req;
        h->stats.timed_out++;
        return;
    }
    h->stats.timed_out += conn->phase != CONN_IDLE;
    conn->shut_us = now;
    shutdown(conn->fd, SHUT_RDWR);
}

/* Read what a refused client still sends, for a moment; returns how many
 * connections were let go. */
static int drain_all(struct keeper *k, int64_t now)
{
    struct drain **at = &k->drains;
    int n_done = 0;

    while (*at) {
        struct drain *d = *at;
        char buf[16384];
        ssize_t n = recv(d->fd, buf, sizeof(buf), MSG_DONTWAIT);

        for (int i = 0; n > 0 && (size_t)n < d->left && i < 16; i++) {
            d->left -= (size_t)n;
            n = recv(d->fd, buf, sizeof(buf), MSG_DONTWAIT);
        }
        if (now < d->until_us &&
            ((n > 0 && (size_t)n < d->left) || (n < 0 && errno == EAGAIN))) {
            d->left -= n > 0 ? (size_t)n : 0;
            at = &d->next;
            continue;
        }
        *at = d->next;
        close(d->fd);
        free(d);
        n_done++;
    }
    return n_done;
}

/* Under the lock: take over the connections to drain. */
static void take_drains(struct keeper *k)
{
    while (k->h->drains) {
        struct drain *d = k->h->drains;

        k->h->drains = d->next;
        d->next = k->drains;
        k->drains = d;
    }
}

/* Returns true while there is something to watch. */
static bool sweep(struct keeper *k, bool *stop)
{
    static const struct error late = {
        .code = ERR_DEADLINE, .text = "the answer was not ready in time"};
    struct http *h = k->h;
    struct sweep s = {.n_late = 0};
    int64_t now = http_now_us();
    bool check_peer = now - k->peers_checked_us >= PEER_CHECK_US, busy;

    if (check_peer)
        k->peers_checked_us = now;
    pthread_mutex_lock(&h->lock);
    h->tick_us = now;
    for (struct conn *c = h->conns; c; c = c->next)
        sweep_one(c, now, check_peer, &s);
    take_drains(k);
    h->n_drains -= k->n_drained;
    busy = h->conns || k->drains;
    *stop = h->quit;
    pthread_mutex_unlock(&h->lock);
    for (int i = 0; i < s.n_late; i++) {
        atomic_store(&s.late[i]->cancelled, true);
        http_request_fail(s.late[i], &late);
        request_unref(s.late[i]);
    }
    for (int i = 0; i < s.n_gone; i++) {
        http_request_abandon(s.gone[i]);
        request_unref(s.gone[i]);
    }
    k->n_drained = drain_all(k, now);
    return busy || now < k->busy_until_us;
}

void *http_keep(void *arg)
{
    struct keeper k = {.h = arg};
    bool stop = false, busy = false, stopping;

    while (!stop) {
        wait_and_accept(&k, busy ? TICK_MS : IDLE_TICK_MS);
        busy = sweep(&k, &stop);
        pthread_mutex_lock(&k.h->lock);
        stopping = k.h->stopping;
        pthread_mutex_unlock(&k.h->lock);
        if (stopping && k.h->n_listen > 0)
            stop_accepting(k.h);
    }
    pthread_mutex_lock(&k.h->lock);
    take_drains(&k);
    pthread_mutex_unlock(&k.h->lock);
    drain_all(&k, INT64_MAX);
    return NULL;
}
