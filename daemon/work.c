/* daemon/work.c - the work threads: pop a job, run it, say when it began so
 * that the watchdog can tell a long job from a stuck one. A job that shares
 * its parts out (work_share) puts a call for help into the queue for each
 * thread that is idle. A call names no job: whoever pops it takes what parts
 * are still there, of any job, and one that comes too late does nothing. */
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

/* Parts 0..n-1 of one job, on the stack of the thread that shares them. */
struct share {
    struct share *next;
    work_part_fn fn;
    void *ctx;
    int n, n_taken, n_done;
};

struct work {
    struct queue *queue;
    work_fn fn;
    int n, n_started;
    struct worker *workers;
    atomic_int n_idle;  /* waiting for the queue; a hint */
    atomic_int n_calls; /* for help, in the queue */
    char call;          /* its address in the queue is a call */
    pthread_mutex_t lock;
    pthread_cond_t done;  /* a share's last part is */
    struct share *shares; /* with parts that nobody has taken */
};

static _Thread_local struct worker *self;

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int work_idle(struct work *w)
{
    return atomic_load(&w->n_idle);
}

/* --- parts of a job ---------------------------------------------------- */

/* Take a part of s, or of any share where s is NULL; false: none is left. A
 * share leaves the list with its last part. */
static bool take(struct work *w, struct share *s, struct share **from, int *i)
{
    pthread_mutex_lock(&w->lock);
    if (!s)
        s = w->shares;
    if (s && s->n_taken < s->n) {
        *from = s;
        *i = s->n_taken++;
        if (s->n_taken == s->n) {
            struct share **at = &w->shares;
            while (*at != s)
                at = &(*at)->next;
            *at = s->next;
        }
    } else {
        s = NULL;
    }
    pthread_mutex_unlock(&w->lock);
    return s != NULL;
}

static void do_part(struct worker *me, struct share *s, int i)
{
    struct work *w = me->work;

    atomic_store(&me->since_us, now_us());
    s->fn(s->ctx, i, me->scratch);
    pthread_mutex_lock(&w->lock);
    /* s is gone as soon as its owner sees the last one done. */
    if (++s->n_done == s->n)
        pthread_cond_broadcast(&w->done);
    pthread_mutex_unlock(&w->lock);
}

/* Jobs that came meanwhile are not made to wait for one with many parts. */
static void help(struct worker *me)
{
    struct share *s;
    int i;

    while (take(me->work, NULL, &s, &i)) {
        do_part(me, s, i);
        if (queue_length(me->work->queue) > 0)
            return;
    }
}

/* As many calls as threads will be idle when they have taken what waits. */
static void call_help(struct work *w, int n)
{
    int idle = work_idle(w) - (int)queue_length(w->queue);

    for (int i = 0; i < n && i < idle; i++) {
        if (atomic_fetch_add(&w->n_calls, 1) >= WORK_CALLS ||
            !queue_push(w->queue, &w->call, true)) {
            atomic_fetch_sub(&w->n_calls, 1);
            return;
        }
    }
}

void work_share(int n, work_part_fn fn, void *ctx)
{
    struct worker *me = self;
    struct work *w = me->work;
    struct share mine = {.fn = fn, .ctx = ctx, .n = n}, *s;
    int i;

    if (n <= 0)
        return;
    pthread_mutex_lock(&w->lock);
    mine.next = w->shares;
    w->shares = &mine;
    pthread_mutex_unlock(&w->lock);
    call_help(w, n - 1);
    while (take(w, &mine, &s, &i))
        do_part(me, s, i);
    pthread_mutex_lock(&w->lock);
    while (mine.n_done < n)
        pthread_cond_wait(&w->done, &w->lock);
    pthread_mutex_unlock(&w->lock);
    work_beat();
}

/* --- threads ----------------------------------------------------------- */

static void *worker_main(void *arg)
{
    struct worker *me = arg;
    struct work *w = me->work;

    self = me;
    for (;;) {
        void *item;

        atomic_fetch_add(&w->n_idle, 1);
        item = queue_pop(w->queue, -1);
        atomic_fetch_sub(&w->n_idle, 1);
        if (!item)
            return NULL;
        atomic_store(&me->since_us, now_us());
        if (item == &w->call) {
            atomic_fetch_sub(&w->n_calls, 1);
            help(me);
        } else {
            w->fn(item);
        }
        atomic_store(&me->since_us, 0);
    }
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
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->done, NULL);
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
    pthread_cond_destroy(&w->done);
    pthread_mutex_destroy(&w->lock);
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
