/* core/train/train_round.c - a round: sample people and photos, embed them,
 * select triplets.
 * Mining runs at rest: running statistics, no dropout, the current weights.
 * The training script mines in training mode, where a vector depends on what
 * shares its batch and the distances that choose a triplet are not those of
 * the published network; here they are. Photos are disturbed in mining as in
 * training, each time anew. */
#include "core/train/train_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine/tensor.h"

struct sample {             /* of one round */
    int n, *person, *photo; /* photo: of the dataset */
    float *vectors, *old;   /* [n, dim]; old: of the parent, or NULL */
    float *chips;           /* [n_batch] chips */
    const float **at;
    bool *ok; /* [n] */
};

void train_round_fini(struct train_round *r)
{
    free(r->photos);
    free(r->triplets);
    free(r->old);
    memset(r, 0, sizeof(*r));
}

static void sample_fini(struct sample *s)
{
    free(s->person);
    free(s->photo);
    free(s->vectors);
    free(s->old);
    free(s->chips);
    free(s->at);
    free(s->ok);
}

/* ---- sampling ------------------------------------------------------------ */

static int draw(struct train *t, struct sample *s, uint64_t *random,
                struct error *err)
{
    const struct dataset *d = &t->data;
    size_t most =
        (size_t)t->a->people_per_batch * (size_t)t->a->images_per_person;
    size_t dim = (size_t)t->dim;
    int *counts = malloc((size_t)d->n_people * sizeof(*counts));

    s->person = malloc(most * sizeof(*s->person));
    s->photo = malloc(most * sizeof(*s->photo));
    if (counts && s->person && s->photo) {
        for (int i = 0; i < d->n_people; i++)
            counts[i] = d->people[i].n;
        s->n = triplet_sample(counts, d->n_people, t->a->people_per_batch,
                              t->a->images_per_person, random, s->person,
                              s->photo);
        for (int i = 0; i < s->n; i++)
            s->photo[i] += d->people[s->person[i]].first;
    }
    free(counts);
    s->vectors = tensor_alloc((size_t)s->n * dim + 1);
    s->old = t->old ? tensor_alloc((size_t)s->n * dim + 1) : NULL;
    s->chips = tensor_alloc((size_t)t->n_batch * t->n_input);
    s->at = malloc((size_t)t->n_batch * sizeof(*s->at));
    s->ok = calloc((size_t)s->n + (size_t)t->n_batch, sizeof(*s->ok));
    if (s->n > 0 && s->vectors && (s->old || !t->old) && s->chips && s->at &&
        s->ok)
        return 0;
    return error_set(err, ERR_NOMEM, "no memory for a round of %zu photos",
                     most);
}

/* ---- embedding ----------------------------------------------------------- */

static int ask(struct train *t, const struct sample *s, int from,
               struct error *err)
{
    int n = s->n - from < t->n_batch ? s->n - from : t->n_batch;

    for (int i = 0; i < n; i++)
        t->seed[i] = train_seed(t, TRAIN_SEED_MINE,
                                t->at.round * TRAIN_MAX_ROUND + from + i);
    return loader_ask(t->loader, s->photo + from, t->seed, n, err);
}

static int embed_batch(struct train *t, struct sample *s, int from,
                       struct error *err)
{
    int n = s->n - from < t->n_batch ? s->n - from : t->n_batch;
    size_t dim = (size_t)t->dim, row = (size_t)from * dim;
    int bad = 0;

    if (loader_take(t->loader, s->chips, s->ok + from, NULL, NULL, err))
        return -1;
    memcpy(plan_input(t->rest), s->chips,
           (size_t)n * t->n_input * sizeof(float));
    memset(plan_input(t->rest) + (size_t)n * t->n_input, 0,
           (size_t)(t->n_batch - n) * t->n_input * sizeof(float));
    if (graph_forward(t->rest, err))
        return -1;
    triplet_normalise(plan_output(t->rest, 0), n, t->dim, s->vectors + row);
    for (size_t i = row; i < row + (size_t)n * dim; i++)
        if (!isfinite(s->vectors[i]))
            return error_set(err, ERR_TRAINING,
                             "the network gives numbers that are not finite "
                             "after %lld batches",
                             (long long)t->at.step);
    if (!s->old)
        return 0;
    for (int i = 0; i < n; i++)
        s->at[i] = s->chips + (size_t)i * t->n_input;
    /* Where it gives none, as of a bad photo's zeros, the row is NaN, and
     * never in a triplet. */
    return batched_run(t->old, s->at, n, s->old + row, &bad, err);
}

/* What was asked for is taken also after a failure, so that the loader's
 * batches stay in step. */
static void drain(struct train *t, struct sample *s)
{
    while (loader_outstanding(t->loader) > 0)
        loader_take(t->loader, s->chips, s->ok, NULL, NULL, NULL);
}

static int embed(struct train *t, struct sample *s, struct error *err)
{
    int asked = 0, rc = 0;

    for (int from = 0; rc == 0 && from < s->n; from += t->n_batch) {
        for (; rc == 0 && asked < s->n &&
               asked <= from + TRAIN_AHEAD * t->n_batch;
             asked += t->n_batch)
            rc = ask(t, s, asked, err);
        rc = rc || train_stopping(t, err) || embed_batch(t, s, from, err);
    }
    if (rc)
        drain(t, s);
    return rc ? -1 : 0;
}

/* Photos that cannot be used leave the sample. What is drawn does not depend
 * on what is known to be bad, so that a resumed run draws the same. */
static void drop_bad(struct train *t, struct sample *s)
{
    size_t dim = (size_t)t->dim;
    int n = 0;

    for (int i = 0; i < s->n; i++) {
        if (!s->ok[i])
            continue;
        s->person[n] = s->person[i];
        s->photo[n] = s->photo[i];
        memmove(s->vectors + (size_t)n * dim, s->vectors + (size_t)i * dim,
                dim * sizeof(float));
        if (s->old)
            memmove(s->old + (size_t)n * dim, s->old + (size_t)i * dim,
                    dim * sizeof(float));
        n++;
    }
    s->n = n;
}

/* ---- selection ----------------------------------------------------------- */

struct pairing {
    struct train *t;
    const struct sample *s;
};

/* Copies of one file teach nothing as a pair. */
static bool differ(void *ctx, int a, int p)
{
    const struct pairing *c = ctx;
    const uint8_t *x = loader_hash(c->t->loader, c->s->photo[a]);
    const uint8_t *y = loader_hash(c->t->loader, c->s->photo[p]);

    return !x || !y || memcmp(x, y, 16) != 0;
}

static int choose(struct train *t, struct sample *s, uint64_t *random,
                  struct error *err)
{
    struct pairing c = {.t = t, .s = s};
    struct triplet_options opt = {.choice = t->choice,
                                  .alpha = (float)t->a->alpha,
                                  .pair = differ,
                                  .ctx = &c,
                                  .old = s->old,
                                  .device = t->dev};
    struct train_round *r = &t->round;
    int n = 0;

    train_round_fini(r);
    if (triplet_select(s->vectors, s->person, s->n, t->dim, &opt, random,
                       &r->triplets, &n, err))
        return -1;
    r->n_triplets = n;
    r->n_photos = s->n;
    r->photos = s->photo;
    r->old = s->old;
    s->photo = NULL;
    s->old = NULL;
    return 0;
}

static int new_round(struct train *t, struct error *err)
{
    uint64_t random = train_seed(t, TRAIN_SEED_ROUND, t->at.round);
    double began = train_now();
    struct sample s = {0};
    int rc = draw(t, &s, &random, err) || embed(t, &s, err);

    if (!rc) {
        drop_bad(t, &s);
        rc = choose(t, &s, &random, err);
    }
    sample_fini(&s);
    if (rc)
        return -1;
    t->at.round++;
    t->at.round_triplets = t->round.n_triplets;
    t->at.n_empty = t->round.n_triplets ? 0 : t->at.n_empty + 1;
    t->asked = t->at.step;
    train_report_scalar(t, "time/selection", train_now() - began);
    train_report_scalar(t, "triplets", (double)t->round.n_triplets);
    return 0;
}

/* An incomplete batch at the end of a round is dropped, unless it is the only
 * one: then its triplets are used over and over until it is full. */
int train_round_batches(const struct train *t)
{
    const struct train_round *r = &t->round;
    int64_t each = t->n_batch / 3;

    if (r->n_triplets > 0 && r->n_triplets < each)
        return r->next == 0;
    return (int)((r->n_triplets - r->next) / each);
}

int train_round_next(struct train *t, bool *none, struct error *err)
{
    enum {
        MOST_EMPTY = 20
    };

    *none = false;
    while (train_round_batches(t) == 0) {
        if (t->at.n_empty >= MOST_EMPTY) {
            *none = true;
            return 0;
        }
        if (new_round(t, err))
            return -1;
    }
    return 0;
}
