/* store/gallery_device.c - the gallery's rows on a device, and searches there.
 * The device holds an index only: a rounded copy of chunks, a block for each,
 * brought by a thread of the device's some rows at a time; the gallery's
 * writer only says that there are more. A chunk never changes but at its end,
 * so that any snapshot may be searched: by its count of rows and its dead
 * bits, which go along with the question. What the device finds is measured
 * here by distance_l2, and its word on what it left out is held against that;
 * where the one does not prove the other, more is asked for.
 *
 * distance_l2(q,x) = |q|^2 + |x|^2 - 2 q.x, where the squares are 1 but for
 * UNIT_TOLERANCE, and the sum is rounded. */
#include "store/gallery_priv.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/face/distance.h"

enum {
    WORTH_ROWS = 1024, /* a chunk, or all of a search, below: not worth it */
    PUT_ROWS = 256,    /* that are written at a time while a chunk fills */
    BRING_CHUNKS = 16, /* at a time */
    K_MIN = 32,
    K_MAX = 4096,
    K_GROWTH = 4,
    FOUND_MAX = 1 << 20 /* room for what one question finds, of all queries */
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

static void lose(struct on_device *d, const struct error *why)
{
    pthread_mutex_lock(&d->lock);
    if (!atomic_load(&d->lost))
        d->why = *why;
    atomic_store(&d->lost, true);
    pthread_mutex_unlock(&d->lock);
}

/* Rows of c that are there. */
static int n_there(const struct on_device *d, const struct chunk *c)
{
    return atomic_load(&c->generation) == atomic_load(&d->generation)
               ? atomic_load(&c->n_there)
               : 0;
}

/* Worth bringing? Of the writer, or who keeps it out. */
static bool is_due(const struct on_device *d, const struct chunk *c)
{
    int n = c->used - n_there(d, c);

    return c->cap >= WORTH_ROWS && n > 0 &&
           (n >= PUT_ROWS || c->used == c->cap);
}

void gallery_device_added(struct gallery *g, const struct chunk *c)
{
    if (is_due(&g->device, c))
        atomic_store(&g->device.behind, true);
}

/* Nobody searches its block any more. */
void gallery_device_drop(struct chunk *c)
{
    struct on_device *d = c->device;

    if (!d || atomic_load(&c->generation) == 0)
        return;
    pthread_mutex_lock(&d->lock);
    if (d->given_back && n_there(d, c) > 0) {
        d->given_back[d->n_given_back++] = c->block;
        atomic_fetch_sub(&d->n_rows, atomic_load(&c->n_there));
        atomic_store(&d->behind, true);
    }
    pthread_mutex_unlock(&d->lock);
}

/* --- bringing ------------------------------------------------------- */
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

/* A device that is full takes no more blocks than it has; one that was there
 * before and is not now is not asked for again. */
static void no_room(struct on_device *d, int block)
{
    pthread_mutex_lock(&d->lock);
    if (block == d->n_used - 1)
        d->n_used--;
    d->most = d->n_used;
    pthread_mutex_unlock(&d->lock);
}

/* What was people's is overwritten before anything else is done. */
static void wipe(struct on_device *d)
{
    for (;;) {
        int block = -1;

        pthread_mutex_lock(&d->lock);
        if (d->n_given_back > 0)
            block = d->given_back[--d->n_given_back];
        pthread_mutex_unlock(&d->lock);
        if (block < 0)
            return;
        d->rows->device->backend->rows_wipe(d->rows, block);
        pthread_mutex_lock(&d->lock);
        d->spare[d->n_spare++] = block;
        pthread_mutex_unlock(&d->lock);
    }
}

struct due {
    struct chunk *chunk; /* held */
    int n;               /* rows that it has */
};

struct find {
    struct due *due; /* [BRING_CHUNKS] */
    int n, n_free;   /* n_free: blocks for chunks that have none */
    int64_t n_left_out;
};

static void find_in(struct on_device *d, const struct snapshot *snap,
                    bool whole, struct find *f)
{
    for (int i = 0; i < snap->n_spans && f->n < BRING_CHUNKS; i++) {
        struct chunk *c = snap->spans[i].chunk;
        if ((c->cap == CHUNK_ROWS) != whole || !is_due(d, c))
            continue;
        if (n_there(d, c) == 0 && f->n_free-- <= 0) {
            f->n_left_out += c->used;
            continue;
        }
        atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
        f->due[f->n++] = (struct due){c, c->used};
    }
}

/* Some of the chunks that are due, first those that fill a block. Keeps the
 * writer out, for a walk over all. */
static int find_due(struct gallery *g, struct due *due)
{
    struct on_device *d = &g->device;
    struct find f = {.due = due};

    pthread_mutex_lock(&d->lock);
    f.n_free = d->n_spare + d->most - d->n_used;
    pthread_mutex_unlock(&d->lock);
    pthread_mutex_lock(&g->write);
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < g->rooms.cap; i++) {
            const struct room *r = (const struct room *)g->rooms.slots[i];
            if (r)
                find_in(d, r->snap, pass == 0, &f);
        }
    pthread_mutex_unlock(&g->write);
    if (f.n < BRING_CHUNKS)
        atomic_store(&d->n_left_out, f.n_left_out);
    return f.n;
}

/* 0; 1: there is no room for it; -1: lost. */
static int put(struct on_device *d, const struct due *due, int dim)
{
    struct chunk *c = due->chunk;
    int there = n_there(d, c), n = due->n - there;
    int block = there > 0 ? c->block : take_block(d);
    struct error err = {0};

    if (block < 0)
        return 1;
    if (d->rows->device->backend->rows_put(
            d->rows, block, there, n, c->rows + (size_t)there * (size_t)dim,
            &err) < 0) {
        if (err.code != ERR_NOMEM || there > 0) {
            lose(d, &err);
            return -1;
        }
        no_room(d, block);
        return 1;
    }
    if (there == 0) /* nobody reads it yet */
        c->block = block;
    atomic_store(&c->n_there, due->n);
    atomic_store(&c->generation, atomic_load(&d->generation));
    atomic_fetch_add(&d->n_rows, n);
    return 0;
}

int gallery_bring(struct gallery *g)
{
    struct on_device *d = &g->device;
    struct due due[BRING_CHUNKS];
    int n, rc = 0;

    if (!d->rows)
        return 0;
    if (!atomic_load(&d->lost) && !atomic_exchange(&d->behind, false))
        return 0;
    if (!atomic_load(&d->lost))
        wipe(d);
    n = atomic_load(&d->lost) ? 0 : find_due(g, due);
    for (int i = 0; i < n; i++) {
        if (rc == 0)
            rc = put(d, &due[i], g->dim);
        gallery_chunk_drop(due[i].chunk);
    }
    if (atomic_load(&d->lost))
        return -1;
    if (n == BRING_CHUNKS || rc == 1)
        atomic_store(&d->behind, true);
    return n == BRING_CHUNKS || rc == 1;
}

/* --- coming and going ----------------------------------------------- */
int gallery_attach(struct gallery *g, const struct gallery_device *to,
                   struct error *err)
{
    const struct backend *backend = to->device->backend;
    struct rows_options opt = {.dim = g->dim,
                               .block_rows = CHUNK_ROWS,
                               .memory_bytes = to->memory_bytes,
                               .timeout_ms = to->timeout_ms};
    struct on_device *d = &g->device;
    int *spare = NULL, *given_back = NULL;
    struct rows *rows;

    gallery_detach(g);
    if (!backend->rows_new)
        return error_set(err, ERR_DEVICE, "the device %s has no search",
                         backend->name);
    rows = backend->rows_new(to->device, &opt, err);
    if (!rows)
        return -1;
    spare = malloc(((size_t)rows->n_blocks + 1) * sizeof(*spare));
    given_back = malloc(((size_t)rows->n_blocks + 1) * sizeof(*given_back));
    if (!spare || !given_back) {
        backend->rows_free(rows);
        free(spare);
        free(given_back);
        return error_set(err, ERR_NOMEM, "gallery: out of memory");
    }
    pthread_rwlock_wrlock(&d->use);
    pthread_mutex_lock(&d->lock);
    d->rows = rows;
    d->spare = spare;
    d->given_back = given_back;
    d->n_spare = d->n_given_back = d->n_used = 0;
    d->most = rows->n_blocks;
    d->why = (struct error){0};
    if (atomic_fetch_add(&d->generation, 1) == UINT_MAX)
        atomic_store(&d->generation, 1);
    atomic_store(&d->lost, false);
    atomic_store(&d->behind, true);
    pthread_mutex_unlock(&d->lock);
    pthread_rwlock_unlock(&d->use);
    return 0;
}

struct rows *gallery_abandon(struct gallery *g)
{
    struct on_device *d = &g->device;
    struct rows *rows;

    pthread_rwlock_wrlock(&d->use);
    pthread_mutex_lock(&d->lock);
    rows = d->rows;
    d->rows = NULL;
    free(d->spare);
    free(d->given_back);
    d->spare = d->given_back = NULL;
    atomic_store(&d->n_rows, 0);
    atomic_store(&d->n_left_out, 0);
    pthread_mutex_unlock(&d->lock);
    pthread_rwlock_unlock(&d->use);
    return rows;
}

void gallery_detach(struct gallery *g)
{
    struct rows *rows = gallery_abandon(g);

    if (rows)
        rows->device->backend->rows_free(rows);
}

bool gallery_on_device(struct gallery *g, struct error *why)
{
    struct on_device *d = &g->device;
    bool is;

    pthread_mutex_lock(&d->lock);
    is = d->rows && !atomic_load(&d->lost);
    if (why)
        *why = d->why;
    pthread_mutex_unlock(&d->lock);
    return is;
}

void gallery_device_counts(const struct gallery *g, int64_t *n_answered,
                           int64_t *n_failed)
{
    *n_answered = atomic_load(&g->device.n_answered);
    *n_failed = atomic_load(&g->device.n_failed);
}

/* --- a search ------------------------------------------------------- */
static void add_piece(struct device_search *s, const struct on_device *d,
                      int span)
{
    const struct span *sp = &s->snap->spans[span];
    int n;

    s->there[span] = 0;
    n = n_there(d, sp->chunk);
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
    if (pthread_rwlock_tryrdlock(&d->use) != 0)
        return false;
    if (d->rows && !atomic_load(&d->lost)) {
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

static void offer_found(struct device_search *s, struct asked *q,
                        float threshold, const struct rows_answer *a)
{
    size_t dim = (size_t)s->g->dim;

    for (int i = 0; i < a->n_found; i++) {
        const struct chunk *c =
            s->snap->spans[s->spans[a->found[i] >> 32]].chunk;
        size_t row = (size_t)(a->found[i] & UINT32_MAX);
        float distance = distance_l2(q->query, c->rows + row * dim, dim);
        if (distance <= threshold)
            gallery_offer(&q->top, distance, c->faces[row], c->people[row]);
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

/* A row whose product is below is farther than what is wanted, provably. */
static float floor_of(const struct device_search *s, float threshold,
                      const struct top *t)
{
    float far = threshold;

    if (t->n == t->limit)
        far = fminf(far, t->rows[t->worst].distance);
    return (float)(1 - (far + 2 * slack(s->g->dim)) / 2);
}

/* n queries in one question. False: it failed. */
static bool ask(struct device_search *s, struct asked **which, int n, int k,
                float threshold)
{
    struct on_device *d = (struct on_device *)&s->g->device;
    size_t dim = (size_t)s->g->dim;
    int max = k < ROWS_FOUND_MAX / 4 ? 4 * k : ROWS_FOUND_MAX;
    float floors[ROWS_QUERIES_MAX];
    struct rows_answer answers[ROWS_QUERIES_MAX] = {{0}};
    float *queries = malloc((size_t)n * dim * sizeof(*queries));
    uint64_t *found = malloc((size_t)n * (size_t)max * sizeof(*found));
    struct rows_ask a = {.pieces = s->pieces,
                         .n_pieces = s->n_pieces,
                         .queries = queries,
                         .floors = floors,
                         .n_queries = n,
                         .k = k,
                         .max = max,
                         .slack = (float)(1.25 * slack(s->g->dim))};
    struct error err = {.code = ERR_NOMEM};
    int rc = -1;

    for (int i = 0; queries && found && i < n; i++) {
        memcpy(queries + (size_t)i * dim, which[i]->query, dim * sizeof(float));
        floors[i] = floor_of(s, threshold, &which[i]->top);
        answers[i].found = found + (size_t)i * (size_t)max;
    }
    if (queries && found)
        rc = d->rows->device->backend->rows_best(d->rows, &a, answers, &err);
    if (rc != 0 && err.code != ERR_NOMEM)
        lose(d, &err);
    for (int i = 0; rc == 0 && i < n; i++) {
        offer_found(s, which[i], threshold, &answers[i]);
        which[i]->whole =
            is_whole(s, answers[i].rest, threshold, &which[i]->top);
    }
    free(queries);
    free(found);
    return rc == 0;
}

/* The next of those that are not whole, from *at on. */
static int gather(struct asked *all, int n, int *at, struct asked **which,
                  int most)
{
    int found = 0;

    for (; *at < n && found < most; ++*at)
        if (!all[*at].whole)
            which[found++] = &all[*at];
    return found;
}

/* False: it failed. Several queries want as many rows each. */
static bool ask_all(struct device_search *s, struct asked *all, int n,
                    float threshold)
{
    struct asked *which[ROWS_QUERIES_MAX];
    int limit = all[0].top.limit, k = limit > K_MIN / 2 ? 2 * limit : K_MIN;

    for (; k <= K_MAX; k *= K_GROWTH) {
        int at = 0, n_now, most = FOUND_MAX / (4 * k);

        most = most < ROWS_QUERIES_MAX ? most : ROWS_QUERIES_MAX;
        while ((n_now = gather(all, n, &at, which, most)) > 0)
            if (atomic_load(&s->g->device.lost) ||
                !ask(s, which, n_now, k, threshold))
                return false;
        if (k >= s->n_rows)
            break;
    }
    return true;
}

void gallery_device_best(struct device_search *s, struct asked *all, int n,
                         float threshold)
{
    struct on_device *d = (struct on_device *)&s->g->device;
    bool good = ask_all(s, all, n, fminf(threshold, FARTHEST));
    int n_whole = 0;

    for (int i = 0; i < n; i++)
        n_whole += all[i].whole;
    atomic_fetch_add(&d->n_answered, n_whole);
    if (!good)
        atomic_fetch_add(&d->n_failed, n - n_whole);
}
