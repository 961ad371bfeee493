/* daemon/queue.c - a ring of pointers behind a mutex. Made whole at queue_new,
 * so that pushing cannot fail for memory. Used wherever one thread gives work
 * to another; its bound is what turns overload into 503. */
#include "daemon/queue.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    void **items;
    size_t max, head, n; /* head: the next to pop */
    bool closed;
};

struct queue *queue_new(size_t max_items)
{
    struct queue *q = calloc(1, sizeof(*q));
    pthread_condattr_t attr;

    if (!q || max_items == 0 || max_items > SIZE_MAX / sizeof(void *))
        goto fail;
    q->items = calloc(max_items, sizeof(void *));
    if (!q->items)
        goto fail;
    q->max = max_items;
    pthread_mutex_init(&q->lock, NULL);
    /* Waiting must not notice that somebody set the clock. */
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&q->filled, &attr);
    pthread_condattr_destroy(&attr);
    return q;
fail:
    free(q);
    return NULL;
}

void queue_free(struct queue *q)
{
    if (!q)
        return;
    pthread_cond_destroy(&q->filled);
    pthread_mutex_destroy(&q->lock);
    free(q->items);
    free(q);
}

bool queue_push(struct queue *q, void *item, bool front)
{
    bool ok;

    pthread_mutex_lock(&q->lock);
    ok = !q->closed && q->n < q->max;
    if (ok && front) {
        q->head = (q->head + q->max - 1) % q->max;
        q->items[q->head] = item;
    } else if (ok) {
        q->items[(q->head + q->n) % q->max] = item;
    }
    q->n += ok;
    pthread_mutex_unlock(&q->lock);
    if (ok)
        pthread_cond_signal(&q->filled);
    return ok;
}

static struct timespec after_ms(int ms)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_sec += ms / 1000;
    ts.tv_nsec += (long)(ms % 1000) * 1000000;
    if (ts.tv_nsec >= 1000000000) {
        ts.tv_nsec -= 1000000000;
        ts.tv_sec++;
    }
    return ts;
}

void *queue_pop(struct queue *q, int wait_ms)
{
    struct timespec until = {0, 0};
    void *item = NULL;
    int rc = 0;

    if (wait_ms > 0)
        until = after_ms(wait_ms);
    pthread_mutex_lock(&q->lock);
    while (q->n == 0 && !q->closed && wait_ms != 0 && rc == 0)
        rc = wait_ms < 0 ? pthread_cond_wait(&q->filled, &q->lock)
                         : pthread_cond_timedwait(&q->filled, &q->lock, &until);
    if (q->n > 0) {
        item = q->items[q->head];
        q->head = (q->head + 1) % q->max;
        q->n--;
    }
    pthread_mutex_unlock(&q->lock);
    return item;
}

size_t queue_length(struct queue *q)
{
    size_t n;

    pthread_mutex_lock(&q->lock);
    n = q->n;
    pthread_mutex_unlock(&q->lock);
    return n;
}

void queue_close(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->closed = true;
    pthread_cond_broadcast(&q->filled);
    pthread_mutex_unlock(&q->lock);
}
