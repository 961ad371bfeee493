/* store/gallery_device.c - the gallery's rows on a device, and searches there.
 * The device holds an index only: a rounded copy of chunks, a block for each,
 * written by the gallery's writer some rows at a time. A chunk never changes
 * but at its end, so that any snapshot may be searched: by its count of rows
 * and its dead bits, which go along with the question. What the device finds
 * is measured here by distance_l2, and its word on what it left out is held
 * against that; where the one does not prove the other, more is asked for.
 *
 * distance_l2(q,x) = |q|^2 + |x|^2 - 2 q.x, where the squares are 1 but for
 * UNIT_TOLERANCE, and the sum is rounded. */
#include "store/gallery_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/face/distance.h"

enum {
    WORTH_ROWS = 1024, /* a chunk, or all of a search, below: not worth it */
    PUT_ROWS = 256,    /* that are written at a time while a chunk fills */
    K_MIN = 32,
    K_MAX = 4096,
    K_GROWTH = 4
};
#define FARTHEST 5.0f /* than any two unit vectors */

/* By how much 2 - 2 q.x and distance_l2 differ at most. */
static double slack(int dim)
{
    return 2 * UNIT_TOLERANCE + (dim + 64) * 2.4e-7;
}

/* --- the writer's side ---------------------------------------------- */
void gallery_device_init(struct on_device *d)
{
    pthread_rwlockattr_t attr;

    /* Searches without end must not keep a device from going. No thread
     * takes it twice. */
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr,
                                  PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&d->use, &attr);
    pthread_rwlockattr_destroy(&attr);
    pthread_mutex_init(&d->lock, NULL);
}

void gallery_device_fini(struct on_device *d)
{
    pthread_mutex_destroy(&d->lock);
    pthread_rwlock_destroy(&d->use);
}

static bool usable(const struct on_device *d)
{
    return d->rows && !atomic_load(&d->lost);
}

/* -1: there is no more. */
static int take_block(struct on_device *d)
{
    int block = -1;

    pthread_mutex_lock(&d->lock);
    if (d->n_spare > 0)
        block = d->spare[--d->n_spare];
    else if (d->n_used < d->most)
        block = d->n_used++;
    pthread_mutex_unlock(&d->lock);
    return block;
}

/* A device that is full takes no more blocks than it has. */
static void no_room(struct on_device *d, int block)
{
    pthread_mutex_lock(&d->lock);
    d->most = d->n_used;
    if (block == d->n_used - 1) {
        d->n_used--;
        d->most--;
    } else {
        d->spare[d->n_spare++] = block;
    }
    pthread_mutex_unlock(&d->lock);
}

static void put(struct on_device *d, struct chunk *c, int dim)
{
    bool is_new = atomic_load(&c->generation) != d->generation;
    int there = is_new ? 0 : atomic_load(&c->n_there);
    int block = is_new ? -1 : c->block, n = c->used - there;
    struct error err = {0};

    if (c->cap < WORTH_ROWS || n == 0 || (n < PUT_ROWS && c->used < c->cap))
        return;
    if (is_new && (block = take_block(d)) < 0)
        return;
    if (d->rows->device->backend->rows_put(
            d->rows, block, there, n, c->rows + (size_t)there * (size_t)dim,
            &err) < 0) {
        if (err.code != ERR_NOMEM)
            atomic_store(&d->lost, true);
        else if (is_new)
            no_room(d, block);
        return;
    }
    if (is_new) /* nobody reads it yet */
        c->block = block;
    atomic_store(&c->n_there, there + n);
    atomic_store(&c->generation, d->generation);
    atomic_fetch_add(&d->n_rows, n);
}

void gallery_device_put(struct gallery *g, struct chunk *c)
{
    struct on_device *d = &g->device;

    pthread_rwlock_rdlock(&d->use);
    if (usable(d))
        put(d, c, g->dim);
    pthread_rwlock_unlock(&d->use);
}

void gallery_device_drop(struct chunk *c)
{
    struct on_device *d = c->device;

    if (!d || atomic_load(&c->generation) == 0)
        return;
    pthread_rwlock_rdlock(&d->use);
    if (d->rows && atomic_load(&c->generation) == d->generation) {
        if (!atomic_load(&d->lost))
            d->rows->device->backend->rows_wipe(d->rows, c->block);
        pthread_mutex_lock(&d->lock);
        d->spare[d->n_spare++] = c->block;
        pthread_mutex_unlock(&d->lock);
        atomic_fetch_sub(&d->n_rows, atomic_load(&c->n_there));
    }
    pthread_rwlock_unlock(&d->use);
}

/* --- coming and going ----------------------------------------------- */
static void put_all(struct gallery *g)
{
    for (size_t i = 0; i < g->rooms.cap; i++) {
        struct room *r = (struct room *)g->rooms.slots[i];
        for (int j = 0; r && j < r->snap->n_spans; j++)
            gallery_device_put(g, r->snap->spans[j].chunk);
    }
}

int gallery_attach(struct gallery *g, struct device *dev, size_t memory_bytes,
                   struct error *err)
{
    struct rows_options opt = {
        .dim = g->dim, .block_rows = CHUNK_ROWS, .memory_bytes = memory_bytes};
    struct on_device *d = &g->device;
    struct rows *rows;
    int *spare;

    if (!dev->backend->rows_new)
        return error_set(err, ERR_DEVICE, "the device %s has no search",
                         dev->backend->name);
    rows = dev->backend->rows_new(dev, &opt, err);
    if (!rows)
        return -1;
    spare = malloc(((size_t)rows->n_blocks + 1) * sizeof(*spare));
    if (!spare) {
        dev->backend->rows_free(rows);
        return error_set(err, ERR_NOMEM, "gallery: out of memory");
    }
    gallery_detach(g);
    pthread_mutex_lock(&g->write);
    pthread_rwlock_wrlock(&d->use);
    d->rows = rows;
    d->spare = spare;
    d->n_spare = d->n_used = 0;
    d->most = rows->n_blocks;
    if (++d->generation == 0)
        d->generation = 1;
    atomic_store(&d->lost, false);
    pthread_rwlock_unlock(&d->use);
    put_all(g);
    pthread_mutex_unlock(&g->write);
    return 0;
}

void gallery_detach(struct gallery *g)
{
    struct on_device *d = &g->device;
    struct rows *rows;

    pthread_rwlock_wrlock(&d->use);
    rows = d->rows;
    d->rows = NULL;
    free(d->spare);
    d->spare = NULL;
    atomic_store(&d->n_rows, 0);
    pthread_rwlock_unlock(&d->use);
    if (rows)
        rows->device->backend->rows_free(rows);
}

bool gallery_on_device(struct gallery *g)
{
    bool is;

    pthread_rwlock_rdlock(&g->device.use);
    is = usable(&g->device);
    pthread_rwlock_unlock(&g->device.use);
    return is;
}

/* --- a search ------------------------------------------------------- */
static void add_piece(struct device_search *s, const struct on_device *d,
                      int span)
{
    const struct span *sp = &s->snap->spans[span];
    int n;

    s->there[span] = 0;
    if (atomic_load(&sp->chunk->generation) != d->generation)
        return;
    n = atomic_load(&sp->chunk->n_there);
    n = n < sp->n ? n : sp->n;
    if (n == 0)
        return;
    s->there[span] = n;
    s->spans[s->n_pieces] = span;
    s->pieces[s->n_pieces++] = (struct rows_piece){
        .block = sp->chunk->block,
        .n = n,
        .dead = sp->dead ? sp->dead->bits : NULL,
    };
    s->n_rows += n;
}

bool gallery_device_begin(struct gallery *g, const struct snapshot *snap,
                          struct device_search *s)
{
    struct on_device *d = &g->device;
    size_t n = (size_t)snap->n_spans;

    *s = (struct device_search){.g = g, .snap = snap};
    if (n == 0)
        return false;
    pthread_rwlock_rdlock(&d->use);
    if (usable(d)) {
        s->there = malloc(n * sizeof(*s->there));
        s->spans = malloc(n * sizeof(*s->spans));
        s->pieces = malloc(n * sizeof(*s->pieces));
        for (int i = 0; s->there && s->spans && s->pieces && i < snap->n_spans;
             i++)
            add_piece(s, d, i);
    }
    if (s->n_rows >= WORTH_ROWS)
        return true;
    gallery_device_end(g, s);
    return false;
}

void gallery_device_end(struct gallery *g, struct device_search *s)
{
    pthread_rwlock_unlock(&g->device.use);
    free(s->there);
    free(s->spans);
    free(s->pieces);
    s->there = NULL;
}

static void offer_found(struct device_search *s, const float *query,
                        float threshold, const struct rows_answer *a,
                        struct top *t)
{
    size_t dim = (size_t)s->g->dim;

    for (int i = 0; i < a->n_found; i++) {
        const struct chunk *c =
            s->snap->spans[s->spans[a->found[i] >> 32]].chunk;
        size_t row = (size_t)(a->found[i] & UINT32_MAX);
        float distance = distance_l2(query, c->rows + row * dim, dim);
        if (distance <= threshold)
            gallery_offer(t, distance, c->faces[row], c->people[row]);
    }
}

/* What is offered is nothing but true rows; the answer is whole once all that
 * was not found is farther than its last, or than the threshold. */
static bool is_whole(const struct device_search *s, float rest, float threshold,
                     const struct top *t)
{
    double beyond = 2 - 2 * (double)rest - slack(s->g->dim);

    return beyond > (double)threshold ||
           (t->n == t->limit && beyond > (double)t->rows[t->worst].distance);
}

static bool ask(struct device_search *s, struct rows_ask *ask, float threshold,
                struct top *t)
{
    struct on_device *d = (struct on_device *)&s->g->device;
    struct rows_answer answer = {0};
    struct error err = {0};
    bool whole = false;

    answer.found = malloc((size_t)ask->max * sizeof(*answer.found));
    if (!answer.found)
        return false;
    if (d->rows->device->backend->rows_best(d->rows, ask, &answer, &err) < 0) {
        if (err.code != ERR_NOMEM)
            atomic_store(&d->lost, true);
    } else {
        offer_found(s, ask->queries, threshold, &answer, t);
        whole = is_whole(s, answer.rest, threshold, t);
    }
    free(answer.found);
    return whole;
}

bool gallery_device_best(struct device_search *s, const float *query,
                         float threshold, struct top *t)
{
    struct on_device *d = (struct on_device *)&s->g->device;
    double off = slack(s->g->dim);
    float floor;
    struct rows_ask a = {.pieces = s->pieces,
                         .n_pieces = s->n_pieces,
                         .queries = query,
                         .floors = &floor,
                         .n_queries = 1,
                         .slack = (float)(1.25 * off)};
    int k = t->limit > K_MIN / 2 ? 2 * t->limit : K_MIN;

    threshold = fminf(threshold, FARTHEST);
    for (; k <= K_MAX && !atomic_load(&d->lost); k *= K_GROWTH) {
        float far = threshold;
        if (t->n == t->limit)
            far = fminf(far, t->rows[t->worst].distance);
        /* A row below is farther than far, and provably so. */
        floor = (float)(1 - (far + 2 * off) / 2);
        a.k = k;
        a.max = k < ROWS_FOUND_MAX / 4 ? 4 * k : ROWS_FOUND_MAX;
        if (ask(s, &a, threshold, t)) {
            atomic_fetch_add(&d->n_answered, 1);
            return true;
        }
        if (k >= s->n_rows)
            break;
    }
    return false;
}
