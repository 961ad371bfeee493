/* daemon/batch.c - inference workers and the queue before them.
 * Groups are linked through themselves, so waiting costs no memory of its
 * own; a worker takes from the front as many whole groups as a batch holds
 * and the first one's deadline allows, runs them without the lock and answers
 * each. */
#include "daemon/batch.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/stats.h"

struct worker {
    struct batch *batch;
    pthread_t thread;
    int64_t busy_since_us; /* 0: idle */
    /* pointers and rows of one batch */
    const float **chips;
    float *rows;
    int capacity;
};

struct batch {
    struct batch_options opt;
    struct worker workers[BATCH_MAX_SLOTS];
    int n_workers, n_busy;
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct batch_group *first, **last;
    int n_waiting; /* faces */
    bool closed;
    int64_t face_ns; /* moving mean of a face's time in the network */
};

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void answer(struct batch_group *g, enum error_code code,
                   const char *text)
{
    struct error err;
    error_set(&err, code, "%s", text);
    g->done(g->ctx, &err);
}

static bool too_late(const struct batch_group *g, int64_t now)
{
    return (g->deadline_us && now > g->deadline_us) ||
           (g->cancelled && g->cancelled(g->ctx));
}

/* How many of the most faces of a batch can be run before the first one's
 * deadline, which is the earliest. When it is late in any case: all, as small
 * batches would make the next ones late, too. */
static int fitting(const struct batch *b, int most)
{
    int64_t left = b->first->deadline_us - now_us();
    int n = most;

    if (!b->opt.time_us || b->first->deadline_us == 0)
        return most;
    while (n > 1 && b->opt.time_us(b->opt.ctx, n) > left)
        n /= 2;
    return n > 1 || b->opt.time_us(b->opt.ctx, 1) <= left ? n : most;
}

/* Unlink the groups of the next batch. Holds the lock. */
static struct batch_group *take(struct batch *b, int most, int *n)
{
    struct batch_group *list = b->first, **end = &list;

    *n = 0;
    most = fitting(b, most);
    while (*end && (*n == 0 || *n + (*end)->n <= most)) {
        *n += (*end)->n;
        end = &(*end)->next;
    }
    b->first = *end;
    if (!b->first)
        b->last = &b->first;
    *end = NULL;
    b->n_waiting -= *n;
    return list;
}

/* Answer and unlink those that nobody waits for any more. */
static struct batch_group *drop_late(struct batch_group *list, int *n)
{
    struct batch_group *keep = NULL, **end = &keep;
    int64_t now = now_us();

    for (struct batch_group *g = list, *next; g; g = next) {
        next = g->next;
        g->next = NULL;
        g->waited_us = now - g->pushed_us;
        if (too_late(g, now)) {
            *n -= g->n;
            answer(g, ERR_DEADLINE, "the answer was not ready in time");
            continue;
        }
        *end = g;
        end = &g->next;
    }
    return keep;
}

static int grow(struct worker *w, int n, struct error *err)
{
    size_t row = (size_t)w->batch->opt.dim * sizeof(float);
    const float **chips;
    float *rows;

    if (n <= w->capacity)
        return 0;
    chips = realloc(w->chips, (size_t)n * sizeof(*chips));
    if (chips)
        w->chips = chips;
    rows = realloc(w->rows, (size_t)n * row);
    if (rows)
        w->rows = rows;
    if (!chips || !rows)
        return error_set(err, ERR_NOMEM, "no memory for a batch of %d faces",
                         n);
    w->capacity = n;
    return 0;
}

/* Is every number of the group's rows finite? */
static bool rows_good(const float *rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(rows[i]))
            return false;
    return true;
}

/* Run one list of groups as one batch. Returns -1, nothing answered, when
 * the whole of it failed. */
static int run(struct worker *w, struct batch_group *list, int n,
               struct error *err)
{
    struct batch *b = w->batch;
    size_t dim = (size_t)b->opt.dim;
    int64_t began = now_us(), took;
    int bad = 0, i = 0;

    if (grow(w, n, err) != 0)
        return -1;
    for (struct batch_group *g = list; g; g = g->next)
        for (int k = 0; k < g->n; k++)
            w->chips[i++] = g->chips[k];
    if (b->opt.run(b->opt.ctx, w->chips, n, w->rows, &bad, err) != 0)
        return -1;
    took = now_us() - began;
    if (!b->opt.quiet) {
        stats_observe(STATS_EMBED, (double)took / 1e6);
        stats_observe(STATS_BATCH_SIZE, n);
    }
    pthread_mutex_lock(&b->lock);
    b->face_ns += (took * 1000 / n - b->face_ns) / 8;
    pthread_mutex_unlock(&b->lock);

    i = 0;
    for (struct batch_group *g = list, *next; g; g = next) {
        const float *rows = w->rows + (size_t)i * dim;
        size_t len = (size_t)g->n * dim;
        next = g->next;
        i += g->n;
        g->run_us = took;
        g->batch_n = n;
        if (!b->opt.quiet)
            stats_observe(STATS_QUEUE_WAIT, (double)g->waited_us / 1e6);
        if (bad && !rows_good(rows, len)) {
            answer(g, ERR_DEVICE, "the network gave no usable embedding");
            continue;
        }
        memcpy(g->out, rows, len * sizeof(*rows));
        g->done(g->ctx, NULL);
    }
    return 0;
}

/* A batch that failed as a whole is run once more group by group, so that
 * one group cannot fail the others and a passing fault is not an answer. */
static void serve(struct worker *w, struct batch_group *list, int n)
{
    struct error err;

    list = drop_late(list, &n);
    if (!list || run(w, list, n, &err) == 0)
        return;
    for (struct batch_group *g = list, *next; g; g = next) {
        next = g->next;
        g->next = NULL;
        if (run(w, g, g->n, &err) != 0)
            g->done(g->ctx, &err);
    }
}

static void *worker(void *arg)
{
    struct worker *w = arg;
    struct batch *b = w->batch;

    pthread_mutex_lock(&b->lock);
    for (;;) {
        struct batch_group *list;
        struct batch_room room = {0};
        int n;

        while (!b->closed) {
            room = b->opt.room(b->opt.ctx);
            if (b->first && b->n_busy < room.slots)
                break;
            pthread_cond_wait(&b->more, &b->lock);
        }
        if (b->closed)
            break;
        list = take(b, room.faces, &n);
        w->busy_since_us = now_us();
        if (++b->n_busy < room.slots && b->first)
            pthread_cond_signal(&b->more);
        pthread_mutex_unlock(&b->lock);
        serve(w, list, n);
        pthread_mutex_lock(&b->lock);
        w->busy_since_us = 0;
        b->n_busy--;
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

/* Those that were started end, then all memory of theirs goes. */
static void end_workers(struct batch *b)
{
    pthread_mutex_lock(&b->lock);
    b->closed = true;
    pthread_cond_broadcast(&b->more);
    pthread_mutex_unlock(&b->lock);
    for (int i = 0; i < b->n_workers; i++)
        pthread_join(b->workers[i].thread, NULL);
    b->n_workers = 0;
}

struct batch *batch_new(const struct batch_options *opt, struct error *err)
{
    struct batch *b = calloc(1, sizeof(*b));
    int n = opt->n_workers > 0 ? opt->n_workers : 1;

    if (!b)
        return error_null(err, ERR_NOMEM, "no memory for the batch queue");
    b->opt = *opt;
    b->last = &b->first;
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->more, NULL);
    for (int i = 0; i < n && i < BATCH_MAX_SLOTS; i++) {
        struct worker *w = &b->workers[i];
        w->batch = b;
        if (pthread_create(&w->thread, NULL, worker, w) != 0) {
            end_workers(b);
            batch_free(b);
            return error_null(err, ERR_NOMEM,
                              "cannot start an inference worker");
        }
        b->n_workers++;
    }
    return b;
}

void batch_close(struct batch *b)
{
    struct batch_group *list;

    end_workers(b);
    pthread_mutex_lock(&b->lock);
    list = b->first;
    b->first = NULL;
    b->last = &b->first;
    b->n_waiting = 0;
    pthread_mutex_unlock(&b->lock);
    for (struct batch_group *next; list; list = next) {
        next = list->next;
        answer(list, ERR_STOPPING, "the daemon is stopping");
    }
}

void batch_free(struct batch *b)
{
    if (!b)
        return;
    pthread_cond_destroy(&b->more);
    pthread_mutex_destroy(&b->lock);
    for (int i = 0; i < BATCH_MAX_SLOTS; i++) {
        free(b->workers[i].chips);
        free(b->workers[i].rows);
    }
    free(b);
}

/* Would n faces more be over a bound? Holds the lock. */
static bool over(const struct batch *b, int n)
{
    int64_t faces = (int64_t)b->n_waiting + n;

    if (b->n_waiting == 0)
        return false;
    return faces > b->opt.max_faces ||
           (b->opt.chip_bytes > 0 &&
            faces > b->opt.max_bytes / b->opt.chip_bytes);
}

int batch_push(struct batch *b, struct batch_group *g, struct error *err)
{
    int rc = 0, n_waiting;

    g->next = NULL;
    g->pushed_us = now_us();
    g->waited_us = g->run_us = 0;
    g->batch_n = 0;
    pthread_mutex_lock(&b->lock);
    n_waiting = b->n_waiting;
    if (b->closed) {
        rc = error_set(err, ERR_STOPPING, "the daemon is stopping");
    } else if (over(b, g->n)) {
        rc = error_set(err, ERR_QUEUE_FULL,
                       "%d faces already wait for the network", n_waiting);
    } else {
        *b->last = g;
        b->last = &g->next;
        b->n_waiting += g->n;
        pthread_cond_signal(&b->more);
    }
    pthread_mutex_unlock(&b->lock);
    return rc;
}

int batch_waiting(struct batch *b)
{
    int n;
    pthread_mutex_lock(&b->lock);
    n = b->n_waiting;
    pthread_mutex_unlock(&b->lock);
    return n;
}

bool batch_full(struct batch *b)
{
    bool full;
    pthread_mutex_lock(&b->lock);
    full = over(b, 1);
    pthread_mutex_unlock(&b->lock);
    return full;
}

int batch_retry_after(struct batch *b)
{
    int64_t ns;
    pthread_mutex_lock(&b->lock);
    ns = b->n_waiting * b->face_ns;
    pthread_mutex_unlock(&b->lock);
    ns = 1 + ns / 1000000000;
    return ns > 60 ? 60 : (int)ns;
}

bool batch_alive(struct batch *b, int timeout_ms)
{
    int64_t since = 0;

    pthread_mutex_lock(&b->lock);
    for (int i = 0; i < b->n_workers; i++) {
        int64_t one = b->workers[i].busy_since_us;
        if (one && (!since || one < since))
            since = one;
    }
    if (!since && b->first)
        since = b->first->pushed_us;
    pthread_mutex_unlock(&b->lock);
    return !since || now_us() - since < (int64_t)timeout_ms * 1000;
}
