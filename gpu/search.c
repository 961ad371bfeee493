/* gpu/search.c - rows on the card: memory for their blocks, and a search as
 * one upload, kernels over tiles of pieces, one download. The bound on what
 * is left out is search_arith.h's, from what every block lost in rounding.
 * Blocks lie in slabs that are taken when they are first needed and kept.
 * A search has a lane, a stream with its arrays, to itself; there are LANES.
 *
 * Between two cuts no more rows are collected than a query's hits have room
 * for: hits are as many as a tile's rows and max. The first tile is small,
 * since nothing is cut before it. */
#include "gpu/search.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/search_kernels.h"

enum {
    LANES = 2,
    SLAB_BLOCKS = 16,
    BLOCKS_MAX = 1 << 20,
    PUT_ROWS = 4096,         /* at a time */
    FIRST_TILE = 4,          /* pieces; then four times as many, and so on */
    TILE_ROWS = 1 << 22,     /* of one query; of more, the part of each */
    TILE_ROWS_MIN = 1 << 16, /* but at least */
    WAIT_MS = 5000,          /* where nothing was asked for */
    ALIGN = 256
};

struct block {
    float norm, lost; /* largest of its rows */
};

/* Memory of the card, and pinned beside it; grows. Giving memory back waits
 * for all that the card does, which must not happen in a search: what was
 * outgrown stays until the end. */
struct buffer {
    char *card, *host;
    size_t bytes;
    struct buffer *outgrown;
};

struct lane {
    bool busy;
    struct stream *stream;
    struct buffer in, out, hits; /* hits: of the card alone */
};

struct search_rows {
    struct rows base;
    struct card *card;
    int padded;
    size_t block_bytes;
    char **slabs; /* [n_blocks / SLAB_BLOCKS + 1] */
    struct block *blocks;
    atomic_bool lost, hung; /* hung: the card may still write to memory */
    pthread_mutex_t lock;   /* of lanes, slabs and blocks */
    pthread_cond_t is_free;
    struct lane lanes[LANES];
    pthread_mutex_t putting; /* what follows */
    struct stream *stream;
    struct buffer put;
};

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* NaN is larger than all: nothing is known of such rows. */
static float larger(float a, float b)
{
    return isnan(a) || a > b ? a : b;
}

static int slab_blocks(const struct search_rows *r, int slab)
{
    int left = r->base.n_blocks - slab * SLAB_BLOCKS;

    return left < SLAB_BLOCKS ? left : SLAB_BLOCKS;
}

static char *block_at(const struct search_rows *r, int block)
{
    return r->slabs[block / SLAB_BLOCKS] +
           (size_t)(block % SLAB_BLOCKS) * r->block_bytes;
}

/* --- memory --------------------------------------------------------- */
static void buffer_free(struct card *c, struct buffer *b)
{
    struct buffer *next = b->outgrown;

    card_release(c, b->card, b->bytes);
    card_unpin(c, b->host);
    *b = (struct buffer){0};
    for (struct buffer *old = next; old; old = next) {
        next = old->outgrown;
        card_release(c, old->card, old->bytes);
        card_unpin(c, old->host);
        free(old);
    }
}

/* At least doubles, so that what is outgrown is no more than what is used. */
static int buffer_need(struct card *c, struct buffer *b, size_t bytes,
                       bool with_host, struct error *err)
{
    struct buffer fresh = {0}, *old = NULL;

    if (bytes <= b->bytes)
        return 0;
    bytes += bytes / 4;
    fresh.bytes = aligned(bytes > 2 * b->bytes ? bytes : 2 * b->bytes);
    if (b->bytes > 0) {
        old = malloc(sizeof(*old));
        if (!old)
            return error_set(err, ERR_NOMEM, "no memory for a search");
    }
    fresh.card = card_alloc(c, fresh.bytes, err);
    if (fresh.card && with_host)
        fresh.host = card_pin(c, fresh.bytes, err);
    if (!fresh.card || (with_host && !fresh.host)) {
        card_release(c, fresh.card, fresh.bytes);
        free(old);
        return -1;
    }
    if (old)
        *old = *b;
    fresh.outgrown = old;
    *b = fresh;
    return 0;
}

/* What did not end in time may have since. */
static bool still_hangs(struct search_rows *r)
{
    bool hangs = atomic_load(&r->hung);

    for (int i = 0; hangs && i < LANES; i++)
        if (search_wait(r->lanes[i].stream, 0, NULL) > 0)
            return true;
    return hangs && search_wait(r->stream, 0, NULL) > 0;
}

void search_rows_free(struct rows *rows)
{
    struct search_rows *r = (struct search_rows *)rows;

    if (!r)
        return;
    /* What a card that hangs may still write to is left to it. */
    if (!still_hangs(r)) {
        card_enter(r->card, NULL);
        for (int i = 0; i < LANES; i++) {
            card_stream_free(r->lanes[i].stream);
            buffer_free(r->card, &r->lanes[i].in);
            buffer_free(r->card, &r->lanes[i].out);
            buffer_free(r->card, &r->lanes[i].hits);
        }
        card_stream_free(r->stream);
        buffer_free(r->card, &r->put);
        for (int i = 0; r->slabs && i * SLAB_BLOCKS < rows->n_blocks; i++)
            card_release(r->card, r->slabs[i],
                         (size_t)slab_blocks(r, i) * r->block_bytes);
    }
    free(r->slabs);
    free(r->blocks);
    pthread_cond_destroy(&r->is_free);
    pthread_mutex_destroy(&r->lock);
    pthread_mutex_destroy(&r->putting);
    free(r);
}

static int make_streams(struct search_rows *r, struct error *err)
{
    size_t bytes =
        (size_t)PUT_ROWS * (size_t)r->base.opt.dim * sizeof(float) + ALIGN;

    for (int i = 0; i < LANES; i++) {
        r->lanes[i].stream = card_stream_new(r->card, err);
        if (!r->lanes[i].stream)
            return -1;
    }
    r->stream = card_stream_new(r->card, err);
    return r->stream ? buffer_need(r->card, &r->put, bytes, true, err) : -1;
}

struct rows *search_rows_new(struct device *dev, struct card *card,
                             const struct rows_options *opt, struct error *err)
{
    struct search_rows *r = calloc(1, sizeof(*r));
    struct device_info info = {0};
    size_t most;

    if (!r)
        return error_null(err, ERR_NOMEM, "no memory for rows");
    r->base.device = dev;
    r->base.opt = *opt;
    r->card = card;
    r->padded = (opt->dim + SEARCH_STEP - 1) / SEARCH_STEP * SEARCH_STEP;
    r->block_bytes = (size_t)opt->block_rows * (size_t)r->padded * 2;
    card_describe(card, &info);
    most = opt->memory_bytes ? opt->memory_bytes : info.bytes_total;
    most /= r->block_bytes;
    r->base.n_blocks = most < BLOCKS_MAX ? (int)most : BLOCKS_MAX;
    pthread_mutex_init(&r->lock, NULL);
    pthread_mutex_init(&r->putting, NULL);
    pthread_cond_init(&r->is_free, NULL);
    r->slabs =
        calloc((size_t)r->base.n_blocks / SLAB_BLOCKS + 1, sizeof(*r->slabs));
    r->blocks = calloc((size_t)r->base.n_blocks + 1, sizeof(*r->blocks));
    if (!r->slabs || !r->blocks)
        error_set(err, ERR_NOMEM, "no memory for rows");
    else if (card_enter(card, err) == 0 && make_streams(r, err) == 0)
        return &r->base;
    search_rows_free(&r->base);
    return NULL;
}

static int is_lost(struct search_rows *r, struct error *err)
{
    if (!atomic_load(&r->lost))
        return card_enter(r->card, err);
    return error_set(err, ERR_DEVICE, "the card was lost in a search");
}

/* -1: it failed, and so will everything after. */
static int finish(struct search_rows *r, struct stream *s, struct error *err)
{
    int wait_ms = r->base.opt.timeout_ms;
    int rc = search_wait(s, wait_ms > 0 ? wait_ms : WAIT_MS, err);

    if (rc == 0)
        return 0;
    atomic_store(&r->lost, true);
    if (rc > 0)
        atomic_store(&r->hung, true);
    return -1;
}

/* --- rows in -------------------------------------------------------- */
static int need_slab(struct search_rows *r, int block, struct error *err)
{
    int slab = block / SLAB_BLOCKS;
    char *fresh;

    if (r->slabs[slab]) /* only who puts adds one */
        return 0;
    fresh =
        card_alloc(r->card, (size_t)slab_blocks(r, slab) * r->block_bytes, err);
    if (!fresh)
        return -1;
    pthread_mutex_lock(&r->lock);
    r->slabs[slab] = fresh;
    pthread_mutex_unlock(&r->lock);
    return 0;
}

/* n at most PUT_ROWS. The figures come first in the buffer. */
static int put_some(struct search_rows *r, int block, int first, int n,
                    const float *x, struct error *err)
{
    size_t dim = (size_t)r->base.opt.dim;
    size_t bytes = (size_t)n * dim * sizeof(float);
    uint32_t *stats = (uint32_t *)r->put.host;
    uint16_t *to =
        (uint16_t *)block_at(r, block) + (size_t)first * (size_t)r->padded;
    struct block *b = &r->blocks[block];
    float norm, lost;

    memset(stats, 0, ALIGN);
    memcpy(r->put.host + ALIGN, x, bytes);
    if (card_copy_in(r->stream, r->put.card, r->put.host, ALIGN + bytes, err) ||
        search_put((const float *)(r->put.card + ALIGN), to, n, (int)dim,
                   r->padded, (uint32_t *)r->put.card, r->stream, err) ||
        card_copy_out(r->stream, r->put.host, r->put.card, ALIGN, err) ||
        finish(r, r->stream, err))
        return -1;
    norm = search_norm(arith_float(stats[0]), (int)dim);
    lost = search_norm(arith_float(stats[1]), (int)dim);
    explicit_bzero(r->put.host + ALIGN, bytes);
    pthread_mutex_lock(&r->lock);
    b->norm = first ? larger(norm, b->norm) : norm;
    b->lost = first ? larger(lost, b->lost) : lost;
    pthread_mutex_unlock(&r->lock);
    return 0;
}

int search_rows_put(struct rows *rows, int block, int first, int n,
                    const float *x, struct error *err)
{
    struct search_rows *r = (struct search_rows *)rows;
    int rc;

    pthread_mutex_lock(&r->putting);
    rc = is_lost(r, err) ? -1 : need_slab(r, block, err);
    for (int i = 0; rc == 0 && i < n; i += PUT_ROWS)
        rc = put_some(r, block, first + i, n - i < PUT_ROWS ? n - i : PUT_ROWS,
                      x + (size_t)i * (size_t)rows->opt.dim, err);
    pthread_mutex_unlock(&r->putting);
    return rc;
}

void search_rows_wipe(struct rows *rows, int block)
{
    struct search_rows *r = (struct search_rows *)rows;

    pthread_mutex_lock(&r->putting);
    if (is_lost(r, NULL) == 0 && r->slabs[block / SLAB_BLOCKS] &&
        search_wipe(block_at(r, block), r->block_bytes, r->stream, NULL) == 0)
        finish(r, r->stream, NULL);
    pthread_mutex_unlock(&r->putting);
}

/* --- a search ------------------------------------------------------- */
/* Where the parts of in and of out begin, and all that goes to kernels. */
struct run {
    struct search_rows *r;
    const struct rows_ask *ask;
    struct lane *lane;
    struct search_job job;
    size_t at_dead, at_q32, at_q16, at_queries, in_bytes;
    size_t at_hits, out_bytes;
    float *epsilons; /* [n_queries] */
};

static struct lane *take_lane(struct search_rows *r)
{
    struct lane *lane = NULL;

    pthread_mutex_lock(&r->lock);
    while (!lane) {
        for (int i = 0; i < LANES && !lane; i++)
            lane = r->lanes[i].busy ? NULL : &r->lanes[i];
        if (!lane)
            pthread_cond_wait(&r->is_free, &r->lock);
    }
    lane->busy = true;
    pthread_mutex_unlock(&r->lock);
    return lane;
}

static void give_lane(struct search_rows *r, struct lane *lane)
{
    pthread_mutex_lock(&r->lock);
    lane->busy = false;
    pthread_cond_signal(&r->is_free);
    pthread_mutex_unlock(&r->lock);
}

static size_t dead_words(const struct rows_piece *p)
{
    return p->dead ? ((size_t)p->n + 63) / 64 : 0;
}

static void lay_out(struct run *u)
{
    const struct rows_ask *a = u->ask;
    size_t n = (size_t)a->n_queries, words = 0, padded = (size_t)u->r->padded;
    size_t n_padded = (n + SEARCH_STEP - 1) / SEARCH_STEP * SEARCH_STEP;
    size_t rows = TILE_ROWS / n;

    for (int i = 0; i < a->n_pieces; i++)
        words += dead_words(&a->pieces[i]);
    u->at_dead = aligned((size_t)a->n_pieces * sizeof(struct search_piece));
    u->at_q32 = u->at_dead + aligned(words * sizeof(uint64_t));
    u->at_q16 = u->at_q32 + aligned(n * padded * sizeof(float));
    u->at_queries = u->at_q16 + aligned(n_padded * padded * sizeof(uint16_t));
    u->in_bytes = u->at_queries + n * sizeof(struct search_query);
    u->at_hits = aligned(n * sizeof(struct search_query));
    u->out_bytes = u->at_hits + n * (size_t)a->max * sizeof(uint64_t);
    rows = rows > TILE_ROWS_MIN ? rows : TILE_ROWS_MIN;
    u->job = (struct search_job){
        .n_queries = a->n_queries,
        .padded = u->r->padded,
        .block_rows = u->r->base.opt.block_rows,
        .cap = (uint32_t)(rows + (size_t)a->max),
        .k = (uint32_t)a->k,
        .max = (uint32_t)a->max,
    };
}

static int need_memory(struct run *u, struct error *err)
{
    struct card *c = u->r->card;
    struct lane *l = u->lane;
    size_t hits = (size_t)u->job.n_queries * u->job.cap * sizeof(uint64_t);

    if (buffer_need(c, &l->in, u->in_bytes, true, err) ||
        buffer_need(c, &l->out, u->out_bytes, true, err) ||
        buffer_need(c, &l->hits, hits, false, err))
        return -1;
    u->job.pieces = (const struct search_piece *)l->in.card;
    u->job.q32 = (const float *)(l->in.card + u->at_q32);
    u->job.q16 = (const uint16_t *)(l->in.card + u->at_q16);
    u->job.queries = (struct search_query *)(l->in.card + u->at_queries);
    u->job.hits = (uint64_t *)l->hits.card;
    return 0;
}

/* What any of the pieces lost at most, and how long a row is. */
static void fill_pieces(struct run *u, float *norm, float *lost)
{
    struct search_piece *p = (struct search_piece *)u->lane->in.host;
    size_t at = u->at_dead;

    *norm = *lost = 0;
    pthread_mutex_lock(&u->r->lock);
    for (int i = 0; i < u->ask->n_pieces; i++) {
        const struct rows_piece *from = &u->ask->pieces[i];
        const struct block *b = &u->r->blocks[from->block];
        size_t bytes = dead_words(from) * sizeof(uint64_t);

        p[i] = (struct search_piece){
            .rows = (const uint16_t *)block_at(u->r, from->block),
            .dead = bytes ? (const uint64_t *)(u->lane->in.card + at) : NULL,
            .n = (uint32_t)from->n,
        };
        if (bytes)
            memcpy(u->lane->in.host + at, from->dead, bytes);
        at += bytes;
        *norm = larger(*norm, b->norm);
        *lost = larger(*lost, b->lost);
    }
    pthread_mutex_unlock(&u->r->lock);
}

static void fill_queries(struct run *u, float norm, float lost)
{
    const struct rows_ask *a = u->ask;
    size_t dim = (size_t)u->r->base.opt.dim, padded = (size_t)u->r->padded;
    char *in = u->lane->in.host;
    struct search_query *q = (struct search_query *)(in + u->at_queries);
    uint16_t *q16 = (uint16_t *)(in + u->at_q16);
    float *q32 = (float *)(in + u->at_q32);
    bool exact = a->n_queries <= SEARCH_EXACT_MAX;

    memset(in + u->at_q32, 0, u->at_queries - u->at_q32);
    for (size_t i = 0; i < (size_t)a->n_queries; i++) {
        float q_lost = 0, q_norm = 0, e;

        memcpy(q32 + i * padded, a->queries + i * dim, dim * sizeof(float));
        search_round(a->queries + i * dim, q16 + i * padded, (int)dim,
                     (int)padded, 0, 1, &q_lost, &q_norm);
        q_lost = search_norm(q_lost, (int)dim);
        q_norm = search_norm(q_norm, (int)dim);
        /* The query itself: no longer than its rounded one and what that
         * lost. */
        e = search_epsilon(exact ? q_norm + q_lost : q_norm, exact ? 0 : q_lost,
                           norm, lost, (int)dim);
        u->epsilons[i] = e;
        q[i] = (struct search_query){
            .band = 2 * e + a->slack + 1e-6f,
            .low = a->floors[i] - e - 1e-6f,
        };
        q[i].cut = q[i].low;
        if (!isfinite(e)) {
            q[i].cut = INFINITY;
            q[i].n = SEARCH_CROWDED;
        }
    }
}

static int give_kernels(struct run *u, struct error *err)
{
    struct stream *s = u->lane->stream;
    int most = (int)((u->job.cap - u->job.max) / (uint32_t)u->job.block_rows);
    int tile = FIRST_TILE < most ? FIRST_TILE : most;

    for (int at = 0; at < u->ask->n_pieces;) {
        int n = u->ask->n_pieces - at < tile ? u->ask->n_pieces - at : tile;
        if (search_score(&u->job, at, n, s, err) ||
            search_tighten(&u->job, s, err))
            return -1;
        at += n;
        tile = 4 * tile < most ? 4 * tile : most;
    }
    return search_pack(&u->job, (uint64_t *)(u->lane->out.card + u->at_hits), s,
                       err);
}

static int run_it(struct run *u, struct error *err)
{
    size_t queries = (size_t)u->ask->n_queries * sizeof(struct search_query);
    struct lane *l = u->lane;

    if (card_copy_in(l->stream, l->in.card, l->in.host, u->in_bytes, err) ||
        give_kernels(u, err) ||
        card_copy_out(l->stream, l->out.host, u->job.queries, queries, err) ||
        card_copy_out(l->stream, l->out.host + u->at_hits,
                      l->out.card + u->at_hits, u->out_bytes - u->at_hits, err))
        atomic_store(&u->r->lost, true);
    else if (finish(u->r, l->stream, err) == 0)
        return 0;
    return -1;
}

static void answer(const struct run *u, struct rows_answer *answers)
{
    const struct rows_ask *a = u->ask;
    const char *out = u->lane->out.host;
    const struct search_query *q = (const struct search_query *)out;
    const uint64_t *hits = (const uint64_t *)(out + u->at_hits);
    uint32_t block = (uint32_t)u->job.block_rows;

    for (int i = 0; i < a->n_queries; i++, hits += a->max) {
        struct rows_answer *to = &answers[i];
        bool crowded = q[i].n > (uint32_t)a->max;

        to->n_found = crowded ? 0 : (int)q[i].n;
        to->rest = crowded ? INFINITY : q[i].cut + u->epsilons[i] + 1e-6f;
        for (int k = 0; k < to->n_found; k++) {
            uint32_t place = (uint32_t)hits[k];
            to->found[k] = (uint64_t)(place / block) << 32 | place % block;
        }
    }
}

int search_rows_best(struct rows *rows, const struct rows_ask *ask,
                     struct rows_answer *answers, struct error *err)
{
    struct search_rows *r = (struct search_rows *)rows;
    struct run u = {.r = r, .ask = ask};
    float epsilons[ROWS_QUERIES_MAX], norm, lost;
    int rc = -1;

    if (ask->n_queries < 1 || ask->n_queries > ROWS_QUERIES_MAX || ask->k < 1 ||
        ask->max < ask->k || ask->max > ROWS_FOUND_MAX)
        return error_set(err, ERR_BAD_FIELD, "rows: asked wrongly");
    u.epsilons = epsilons;
    lay_out(&u);
    u.lane = take_lane(r);
    if (is_lost(r, err) == 0 && need_memory(&u, err) == 0) {
        fill_pieces(&u, &norm, &lost);
        fill_queries(&u, norm, lost);
        rc = run_it(&u, err);
    }
    if (rc == 0)
        answer(&u, answers);
    give_lane(r, u.lane);
    return rc;
}
