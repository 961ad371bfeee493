/* tests/fake_rows.h - the search of rows.h over plain memory, rounded and
 * collected as a card does it, with the arithmetic of gpu/search_arith.h. For
 * backends that are played. What breaks the contract aborts. */
#ifndef TESTS_FAKE_ROWS_H
#define TESTS_FAKE_ROWS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "core/engine/rows.h"
#include "gpu/search_arith.h"

enum {
    FAKE_ROWS_BLOCKS = 1024,
    FAKE_ROWS_TILE = 8 /* pieces between two cuts */
};

struct fake_block {
    uint16_t *rows;
    float lost, norm;
    int n;
    atomic_int n_asked; /* searches that read it now */
};

struct fake_rows {
    struct rows base;
    struct fake_block blocks[FAKE_ROWS_BLOCKS];
    pthread_mutex_t lock; /* of their figures */
    atomic_bool putting;
};

/* Of all of them; a test sets and reads them. */
static struct fake_rows_state {
    atomic_int n_open, n_puts, n_wipes, n_asks, n_rows_put;
    atomic_int lost_in;  /* calls until the device is lost; 0: never */
    atomic_int nomem_in; /* new blocks until there is no memory; 0: never */
    atomic_bool lost;
    atomic_bool busy; /* no memory for a search */
    atomic_bool slow; /* rows are written once this is gone */
    atomic_int n_slow;
    atomic_int hold; /* the first so many searches wait until it is 0 */
    atomic_int n_held;
    atomic_int n_left; /* rows that were put and not wiped */
} fake_rows_state;

static inline void fake_rows_broken(const char *rule)
{
    fprintf(stderr, "fake rows: %s\n", rule);
    abort();
}

static inline int fake_rows_fault(struct error *err)
{
    if (atomic_load(&fake_rows_state.lost_in) > 0 &&
        atomic_fetch_sub(&fake_rows_state.lost_in, 1) == 1)
        atomic_store(&fake_rows_state.lost, true);
    if (!atomic_load(&fake_rows_state.lost))
        return 0;
    return error_set(err, ERR_DEVICE, "the card was lost");
}

static inline struct rows *fake_rows_new(struct device *dev,
                                         const struct rows_options *opt,
                                         struct error *err)
{
    size_t block = (size_t)opt->block_rows * (size_t)opt->dim * 2;
    struct fake_rows *r;

    if (fake_rows_fault(err))
        return NULL;
    if (opt->block_rows % 64 || opt->block_rows < 64 || opt->dim < 1)
        fake_rows_broken("options");
    r = calloc(1, sizeof(*r));
    if (!r)
        return error_null(err, ERR_NOMEM, "no memory for rows");
    r->base.device = dev;
    r->base.opt = *opt;
    r->base.n_blocks = FAKE_ROWS_BLOCKS;
    if (opt->memory_bytes && opt->memory_bytes / block < FAKE_ROWS_BLOCKS)
        r->base.n_blocks = (int)(opt->memory_bytes / block);
    pthread_mutex_init(&r->lock, NULL);
    atomic_fetch_add(&fake_rows_state.n_open, 1);
    return &r->base;
}

static inline void fake_rows_free(struct rows *rows)
{
    struct fake_rows *r = (struct fake_rows *)rows;

    if (!r)
        return;
    for (int i = 0; i < FAKE_ROWS_BLOCKS; i++) {
        if (atomic_load(&r->blocks[i].n_asked))
            fake_rows_broken("freed while it is searched");
        atomic_fetch_sub(&fake_rows_state.n_left, r->blocks[i].n);
        free(r->blocks[i].rows);
    }
    pthread_mutex_destroy(&r->lock);
    free(r);
    atomic_fetch_sub(&fake_rows_state.n_open, 1);
}

static inline int fake_rows_put(struct rows *rows, int block, int first, int n,
                                const float *x, struct error *err)
{
    struct fake_rows *r = (struct fake_rows *)rows;
    int dim = rows->opt.dim;
    float lost = 0, norm = 0;
    struct fake_block *b;

    if (fake_rows_fault(err))
        return -1;
    if (block < 0 || block >= rows->n_blocks || n < 1 || first < 0 ||
        first + n > rows->opt.block_rows)
        fake_rows_broken("rows outside");
    if (atomic_exchange(&r->putting, true))
        fake_rows_broken("two put at once");
    b = &r->blocks[block];
    if (first != b->n)
        fake_rows_broken("rows are not added at the end");
    if (!b->rows && atomic_load(&fake_rows_state.nomem_in) > 0 &&
        atomic_fetch_sub(&fake_rows_state.nomem_in, 1) == 1) {
        atomic_store(&fake_rows_state.nomem_in, 1);
        atomic_store(&r->putting, false);
        return error_set(err, ERR_NOMEM, "the card is full");
    }
    if (atomic_load(&fake_rows_state.slow))
        atomic_fetch_add(&fake_rows_state.n_slow, 1);
    while (atomic_load(&fake_rows_state.slow))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    if (!b->rows)
        b->rows = calloc((size_t)rows->opt.block_rows * (size_t)dim, 2);
    if (!b->rows)
        abort();
    for (int i = 0; i < n; i++) {
        size_t at = (size_t)(first + i) * (size_t)dim;
        float lost2 = 0, norm2 = 0;

        search_round(x + (size_t)i * (size_t)dim, b->rows + at, dim, dim, 0, 1,
                     &lost2, &norm2);
        lost = fmaxf(lost, search_norm(lost2, dim));
        norm = fmaxf(norm, search_norm(norm2, dim));
    }
    pthread_mutex_lock(&r->lock);
    b->lost = fmaxf(b->lost, lost);
    b->norm = fmaxf(b->norm, norm);
    b->n += n;
    atomic_fetch_add(&fake_rows_state.n_left, n);
    pthread_mutex_unlock(&r->lock);
    atomic_store(&r->putting, false);
    atomic_fetch_add(&fake_rows_state.n_puts, 1);
    atomic_fetch_add(&fake_rows_state.n_rows_put, n);
    return 0;
}

static inline int fake_rows_left(void)
{
    return atomic_load(&fake_rows_state.n_left);
}

static inline void fake_rows_wipe(struct rows *rows, int block)
{
    struct fake_rows *r = (struct fake_rows *)rows;
    struct fake_block *b = &r->blocks[block];

    if (atomic_load(&b->n_asked))
        fake_rows_broken("wiped while it is searched");
    if (b->rows)
        memset(b->rows, 0xff, /* NaN: found out if it is searched */
               (size_t)rows->opt.block_rows * (size_t)rows->opt.dim * 2);
    pthread_mutex_lock(&r->lock);
    atomic_fetch_sub(&fake_rows_state.n_left, b->n);
    b->n = 0;
    b->lost = b->norm = 0;
    pthread_mutex_unlock(&r->lock);
    atomic_fetch_add(&fake_rows_state.n_wipes, 1);
}

/* One query on its way through the pieces. */
struct fake_query {
    float *q; /* rounded */
    uint64_t *hits;
    uint32_t n;
    float cut, band, low, epsilon;
};

static inline void fake_rows_tighten(struct fake_query *a, int k)
{
    uint64_t prefix = 0;
    uint32_t rank = (uint32_t)k, kept = 0;

    if (a->n < rank)
        return;
    for (int shift = 56; shift >= 32; shift -= 8) {
        uint32_t counts[256] = {0};
        uint64_t mask = shift == 56 ? 0 : UINT64_MAX << (shift + 8);

        for (uint32_t i = 0; i < a->n; i++)
            if ((a->hits[i] & mask) == prefix)
                counts[a->hits[i] >> shift & 255]++;
        prefix |= (uint64_t)search_byte(counts, &rank) << shift;
    }
    a->cut = search_cut(search_product(prefix), a->band, a->low);
    for (uint32_t i = 0; i < a->n; i++)
        if (!(search_product(a->hits[i]) < a->cut))
            a->hits[kept++] = a->hits[i];
    a->n = kept;
}

static inline void fake_rows_score(const struct fake_rows *r,
                                   const struct rows_piece *p, uint32_t piece,
                                   struct fake_query *a)
{
    const uint16_t *x = r->blocks[p->block].rows;
    int dim = r->base.opt.dim;

    for (int i = 0; i < p->n; i++, x += dim) {
        float sum = 0;

        if (search_dead(p->dead, i))
            continue;
        for (int j = 0; j < dim; j++)
            sum += a->q[j] * arith_from_f16(x[j]);
        if (!(sum < a->cut))
            a->hits[a->n++] = search_hit(
                sum, piece * (uint32_t)r->base.opt.block_rows + (uint32_t)i);
    }
}

static inline void fake_rows_prepare(struct fake_rows *r,
                                     const struct rows_ask *ask, int at,
                                     struct fake_query *a)
{
    int dim = r->base.opt.dim;
    float lost2 = 0, norm2 = 0, x_lost = 0, x_norm = 0;
    uint16_t half[4096];

    search_round(ask->queries + (size_t)at * (size_t)dim, half, dim, dim, 0, 1,
                 &lost2, &norm2);
    for (int i = 0; i < dim; i++)
        a->q[i] = arith_from_f16(half[i]);
    pthread_mutex_lock(&r->lock);
    for (int i = 0; i < ask->n_pieces; i++) {
        const struct fake_block *b = &r->blocks[ask->pieces[i].block];
        x_lost = fmaxf(x_lost, b->lost);
        x_norm = fmaxf(x_norm, b->norm);
    }
    pthread_mutex_unlock(&r->lock);
    a->epsilon = search_epsilon(search_norm(norm2, dim),
                                search_norm(lost2, dim), x_norm, x_lost, dim);
    a->band = 2 * a->epsilon + ask->slack + 1e-6f;
    a->low = a->cut = ask->floors[at] - a->epsilon - 1e-6f;
    a->n = 0;
}

static inline void fake_rows_answer(struct fake_rows *r,
                                    const struct rows_ask *ask, int at,
                                    struct fake_query *a,
                                    struct rows_answer *out)
{
    uint32_t block = (uint32_t)r->base.opt.block_rows;

    fake_rows_prepare(r, ask, at, a);
    out->n_found = 0;
    out->rest = INFINITY;
    for (int i = 0; i < ask->n_pieces; i++) {
        fake_rows_score(r, &ask->pieces[i], (uint32_t)i, a);
        if (i % FAKE_ROWS_TILE && i + 1 < ask->n_pieces)
            continue;
        fake_rows_tighten(a, ask->k);
        if (a->n > (uint32_t)ask->max)
            return;
    }
    for (uint32_t i = 0; i < a->n; i++) {
        uint32_t place = (uint32_t)a->hits[i];
        out->found[i] = (uint64_t)(place / block) << 32 | place % block;
    }
    out->n_found = (int)a->n;
    out->rest = a->cut + a->epsilon + 1e-6f;
}

static inline int fake_rows_best(struct rows *rows, const struct rows_ask *ask,
                                 struct rows_answer *answers, struct error *err)
{
    struct fake_rows *r = (struct fake_rows *)rows;
    size_t n_rows = 0, dim = (size_t)rows->opt.dim;
    struct fake_query a = {0};

    if (atomic_fetch_add(&fake_rows_state.n_asks, 1) <
        atomic_load(&fake_rows_state.hold)) {
        atomic_fetch_add(&fake_rows_state.n_held, 1);
        while (atomic_load(&fake_rows_state.hold) > 0)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    if (fake_rows_fault(err))
        return -1;
    if (atomic_load(&fake_rows_state.busy))
        return error_set(err, ERR_NOMEM, "no memory for a search");
    if (ask->k < 1 || ask->max < ask->k || ask->max > ROWS_FOUND_MAX ||
        ask->n_queries < 1 || ask->n_queries > ROWS_QUERIES_MAX ||
        ask->n_pieces < 1)
        fake_rows_broken("asked wrongly");
    pthread_mutex_lock(&r->lock);
    for (int i = 0; i < ask->n_pieces; i++) {
        struct fake_block *b = &r->blocks[ask->pieces[i].block];
        if (ask->pieces[i].n < 1 || ask->pieces[i].n > b->n)
            fake_rows_broken("asked for rows that are not there");
        atomic_fetch_add(&b->n_asked, 1);
        n_rows += (size_t)ask->pieces[i].n;
    }
    pthread_mutex_unlock(&r->lock);
    a.q = malloc(dim * sizeof(*a.q));
    a.hits = malloc(n_rows * sizeof(*a.hits));
    if (!a.q || !a.hits)
        abort();
    for (int i = 0; i < ask->n_queries; i++)
        fake_rows_answer(r, ask, i, &a, &answers[i]);
    free(a.q);
    free(a.hits);
    for (int i = 0; i < ask->n_pieces; i++)
        atomic_fetch_sub(&r->blocks[ask->pieces[i].block].n_asked, 1);
    return 0;
}

#endif
