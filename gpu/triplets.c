/* gpu/triplets.c - see the header. Distances are made for some hundred rows at
 * a time, twice where that does not do for all of them: once to count, once,
 * when ranks are drawn, to find. */
#include "gpu/triplets.h"

#include <stdlib.h>
#include <string.h>

#include "gpu/triplets_kernels.h"

enum {
    SLAB_BYTES = 64 << 20 /* of distances */
};

struct run {
    struct card *card;
    struct stream *stream;
    const struct triplets_ask *ask;
    struct triplets_job job;
    float *x, *squares;
    struct triplets_pair *pairs;
    size_t bytes_x, bytes_squares, bytes_pairs, bytes_counts, bytes_d;
    int slab; /* rows */
};

static int make_room(struct run *r, struct error *err)
{
    const struct triplets_ask *a = r->ask;
    struct triplets_job *j = &r->job;
    size_t row = (size_t)a->n * sizeof(float);

    j->n = a->n;
    j->padded = (a->dim + TRIPLETS_DEEP - 1) / TRIPLETS_DEEP * TRIPLETS_DEEP;
    j->alpha = a->alpha;
    j->beyond = a->beyond;
    r->slab = SLAB_BYTES / row < (size_t)a->n ? (int)(SLAB_BYTES / row) : a->n;
    r->slab = r->slab < 1 ? 1 : r->slab;
    r->bytes_x = (size_t)a->n * (size_t)j->padded * sizeof(float);
    r->bytes_squares = row;
    r->bytes_pairs = (size_t)a->n_pairs * sizeof(*r->pairs);
    r->bytes_counts = (size_t)a->n_pairs * sizeof(*j->counts);
    r->bytes_d = (size_t)r->slab * row;
    r->stream = card_stream_new(r->card, err);
    if (!r->stream || !(r->x = card_alloc(r->card, r->bytes_x, err)) ||
        !(r->squares = card_alloc(r->card, r->bytes_squares, err)) ||
        !(r->pairs = card_alloc(r->card, r->bytes_pairs, err)) ||
        !(j->counts = card_alloc(r->card, r->bytes_counts, err)) ||
        !(j->d = card_alloc(r->card, r->bytes_d, err)))
        return -1;
    j->x = r->x;
    j->squares = r->squares;
    j->pairs = r->pairs;
    return 0;
}

static void leave(struct run *r)
{
    card_release(r->card, r->job.d, r->bytes_d);
    card_release(r->card, r->job.counts, r->bytes_counts);
    card_release(r->card, r->pairs, r->bytes_pairs);
    card_release(r->card, r->squares, r->bytes_squares);
    card_release(r->card, r->x, r->bytes_x);
    card_stream_free(r->stream);
}

static int bring(struct run *r, struct error *err)
{
    const struct triplets_ask *a = r->ask;
    size_t dim = (size_t)a->dim, padded = (size_t)r->job.padded;
    float *x = tensor_alloc((size_t)a->n * padded);
    int rc;

    if (!x)
        return error_set(err, ERR_NOMEM, "no memory for %d vectors", a->n);
    for (size_t i = 0; i < (size_t)a->n; i++)
        memcpy(x + i * padded, a->x + i * dim, dim * sizeof(*x));
    rc = card_copy_in(r->stream, r->x, x, r->bytes_x, err) ||
         card_copy_in(r->stream, r->squares, a->squares, r->bytes_squares,
                      err) ||
         card_copy_in(r->stream, r->pairs, a->pairs, r->bytes_pairs, err) ||
         card_wait(r->stream, err);
    free(x);
    return rc ? -1 : 0;
}

/* work over all pairs, slab by slab. distances: they are not there yet. */
static int pass(struct run *r, bool distances,
                int (*work)(const struct triplets_job *, struct stream *,
                            struct error *),
                struct error *err)
{
    const struct triplets_ask *a = r->ask;
    struct triplets_job *j = &r->job;

    j->to = 0;
    for (j->first = 0; j->first < a->n; j->first += r->slab) {
        j->rows = a->n - j->first < r->slab ? a->n - j->first : r->slab;
        j->from = j->to;
        while (j->to < a->n_pairs && a->pairs[j->to].a < j->first + j->rows)
            j->to++;
        if (j->from == j->to)
            continue;
        if ((distances && triplets_distances(j, r->stream, err)) ||
            work(j, r->stream, err))
            return -1;
    }
    return 0;
}

static int counts_out(struct run *r, struct error *err)
{
    return card_copy_out(r->stream, r->ask->negatives, r->job.counts,
                         r->bytes_counts, err) ||
                   card_wait(r->stream, err)
               ? -1
               : 0;
}

static int select_all(struct run *r, struct error *err)
{
    const struct triplets_ask *a = r->ask;

    if (bring(r, err) || pass(r, true, triplets_count, err) ||
        counts_out(r, err))
        return -1;
    for (int i = 0; i < a->n_pairs; i++) /* none: it stays so */
        a->negatives[i] = a->negatives[i] > 0 ? a->negatives[i] : 0;
    a->draw(a->ctx, a->negatives);
    return card_copy_in(r->stream, r->job.counts, a->negatives, r->bytes_counts,
                        err) ||
                   pass(r, r->slab < a->n, triplets_pick, err) ||
                   counts_out(r, err)
               ? -1
               : 0;
}

int triplets_select(struct card *c, const struct triplets_ask *ask,
                    struct error *err)
{
    struct run r = {.card = c, .ask = ask};
    int rc;

    if (ask->n < 1 || ask->n_pairs < 1)
        return 0;
    if (card_enter(c, err))
        return -1;
    rc = make_room(&r, err);
    if (!rc)
        rc = select_all(&r, err);
    leave(&r);
    return rc;
}
