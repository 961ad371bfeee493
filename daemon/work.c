/* daemon/work.c - the work threads: pop a job, run it, say when it began so
 * that the watchdog can tell a long job from a stuck one. */
#include "daemon/work.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "core/base/error.h"

struct worker {
    struct work *work;
    pthread_t thread;
    struct detect_scratch *scratch;
    atomic_llong since_us; /* of the job or its last beat; 0: idle */
};

struct work {
    struct queue *queue;
    work_fn fn;
    int n, n_started;
    struct worker *workers;
};

static _Thread_local struct worker *self;

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct job *job;

    self = w;
    while ((job = queue_pop(w->work->queue, -1))) {
        atomic_store(&w->since_us, now_us());
        w->work->fn(job, w->scratch);
        atomic_store(&w->since_us, 0);
    }
    return NULL;
}

void work_beat(void)
{
    if (self)
        atomic_store(&self->since_us, now_us());
}

struct work *work_start(int n, struct queue *queue, struct detector *detector,
                        work_fn fn, struct error *err)
{
    struct work *w = calloc(1, sizeof(*w));

    if (n <= 0)
        n = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (n <= 0)
        n = 1;
    if (w)
        w->workers = calloc((size_t)n, sizeof(*w->workers));
    if (!w || !w->workers) {
        free(w);
        return error_null(err, ERR_NOMEM, "no memory for %d work threads", n);
    }
    w->queue = queue;
    w->fn = fn;
    w->n = n;
    for (int i = 0; i < n; i++) {
        w->workers[i].work = w;
        if (detector) {
            w->workers[i].scratch = detect_scratch_new(detector, err);
            if (!w->workers[i].scratch)
                goto fail;
        }
    }
    for (; w->n_started < n; w->n_started++) {
        struct worker *one = &w->workers[w->n_started];
        if (pthread_create(&one->thread, NULL, worker_main, one) != 0) {
            error_set(err, ERR_NOMEM, "cannot start work thread %d",
                      w->n_started);
            goto fail;
        }
    }
    return w;
fail:
    queue_close(queue);
    work_join(w);
    return NULL;
}

void work_join(struct work *w)
{
    if (!w)
        return;
    for (int i = 0; i < w->n_started; i++)
        pthread_join(w->workers[i].thread, NULL);
    for (int i = 0; i < w->n; i++)
        detect_scratch_free(w->workers[i].scratch);
    free(w->workers);
    free(w);
}

int work_threads(const struct work *w)
{
    return w->n;
}

bool work_alive(struct work *w, int timeout_ms)
{
    int64_t now = now_us();

    for (int i = 0; i < w->n_started; i++) {
        int64_t since = atomic_load(&w->workers[i].since_us);
        if (since && now - since > (int64_t)timeout_ms * 1000)
            return false;
    }
    return true;
}
