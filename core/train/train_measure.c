/* core/train/train_measure.c - how good a graph is, on held-out people and on
 * LFW-style pairs: chips from the sets' loaders, vectors by the engine that
 * serves (fused, at rest), distances, figures, thresholds. */
#include "core/train/train_priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine/tensor.h"
#include "core/face/distance.h"
#include "core/train/calibrate.h"
#include "core/train/evaluate.h"

enum {
    BATCH = 32
};
static const double rates[3] = {1e-1, 1e-2, 1e-3};
/* Pairs of the list that may lack a photo or a face, as facenetctl evaluate. */
static const double most_skipped = 0.01;

struct vectors {
    float *rows; /* [n, dim]; NaN where the photo is bad */
    double *genuine, *impostor;
    int64_t n_genuine, n_impostor;
};

/* ---- vectors ------------------------------------------------------------- */

static int ask(const struct train_set *s, int from, struct error *err)
{
    static const uint64_t seeds[BATCH]; /* nothing is disturbed */
    int n = s->n - from < BATCH ? s->n - from : BATCH;

    return loader_ask(s->loader, s->photos + from, seeds, n, err);
}

static int embed_batch(const struct train *t, const struct train_set *s,
                       struct batched *e, float *chips, int from, float *rows,
                       struct error *err)
{
    int n = s->n - from < BATCH ? s->n - from : BATCH, bad = 0;
    const float *at[BATCH];
    bool ok[BATCH];

    if (loader_take(s->loader, chips, ok, NULL, NULL, err))
        return -1;
    for (int i = 0; i < n; i++)
        at[i] = chips + (size_t)i * t->n_input;
    rows += (size_t)from * (size_t)t->dim;
    if (batched_run(e, at, n, rows, &bad, err))
        return -1;
    for (int i = 0; i < n; i++) {
        float *row = rows + (size_t)i * (size_t)t->dim;

        /* To leave it out would flatter the network. */
        if (ok[i] && isnan(row[0]))
            return error_set(err, ERR_TRAINING,
                             "the network gives no vector for '%.100s'",
                             s->data.photos[s->photos[from + i]].path);
        if (!ok[i])
            row[0] = NAN;
    }
    return 0;
}

static int embed_set(struct train *t, const struct train_set *s,
                     struct batched *e, float *rows, struct error *err)
{
    float *chips = tensor_alloc(BATCH * t->n_input);
    bool ok[BATCH];
    int asked = 0, rc = 0;

    if (!chips)
        return error_set(err, ERR_NOMEM, "no memory for a batch");
    for (int from = 0; rc == 0 && from < s->n; from += BATCH) {
        for (; rc == 0 && asked < s->n && asked <= from + TRAIN_AHEAD * BATCH;
             asked += BATCH)
            rc = ask(s, asked, err);
        rc = rc || train_stopping(t, err) ||
             embed_batch(t, s, e, chips, from, rows, err);
    }
    while (loader_outstanding(s->loader) > 0)
        loader_take(s->loader, chips, ok, NULL, NULL, NULL);
    free(chips);
    return rc ? -1 : 0;
}

static bool usable(const struct train *t, const struct vectors *v, int i)
{
    return !isnan(v->rows[(size_t)i * (size_t)t->dim]);
}

/* ---- held-out people ----------------------------------------------------- */

static bool same_file(const struct train_set *s, int i, int k)
{
    const uint8_t *x = loader_hash(s->loader, s->photos[i]);
    const uint8_t *y = loader_hash(s->loader, s->photos[k]);

    return x && y && memcmp(x, y, 16) == 0;
}

/* All pairs of the chosen photos, but copies of one file. d [n,n]. */
static void sort_pairs(const struct train *t, struct vectors *v, const float *d)
{
    const struct train_set *s = &t->held;

    for (int i = 0; i < s->n; i++) {
        int person = s->data.photos[s->photos[i]].person;

        for (int k = i + 1; k < s->n && usable(t, v, i); k++) {
            double x = (double)d[(size_t)i * (size_t)s->n + (size_t)k];

            if (!usable(t, v, k))
                continue;
            if (s->data.photos[s->photos[k]].person != person)
                v->impostor[v->n_impostor++] = x;
            else if (!same_file(s, i, k))
                v->genuine[v->n_genuine++] = x;
        }
    }
}

static int held_pairs(const struct train *t, struct vectors *v,
                      struct error *err)
{
    size_t n = (size_t)t->held.n;
    float *d = tensor_alloc(n * n);
    int rc = -1;

    v->genuine = malloc((n * n / 2 + 1) * sizeof(double));
    v->impostor = malloc((n * n / 2 + 1) * sizeof(double));
    if (!d || !v->genuine || !v->impostor)
        error_set(err, ERR_NOMEM, "no memory for %zu distances", n * n);
    else if (!triplet_distances(v->rows, (int)n, v->rows, (int)n, t->dim, d,
                                err)) {
        sort_pairs(t, v, d);
        rc = 0;
    }
    free(d);
    return rc;
}

static double mean_of(const double *x, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    return n > 0 ? sum / (double)n : NAN;
}

static double below(const double *x, int64_t n, double threshold)
{
    int64_t k = 0;

    for (int64_t i = 0; i < n; i++)
        k += x[i] < threshold;
    return n > 0 ? (double)k / (double)n : NAN;
}

/* Of the genuine pairs, those that are accepted where `far` of the impostors
 * are. */
static double val_at(struct vectors *v, double far, double *threshold,
                     int64_t *n_accepted)
{
    *threshold =
        evaluate_threshold(v->impostor, v->n_impostor, far, n_accepted);
    return below(v->genuine, v->n_genuine, *threshold);
}

/* The best mean of accepted genuine and refused impostor pairs over the
 * thresholds 0, 0.01 … 4: there are many more of one than of the other. */
static double best_accuracy(const struct vectors *v)
{
    enum {
        STEPS = 400
    };
    int64_t genuine[STEPS + 1] = {0}, impostor[STEPS + 1] = {0};
    double best = 0, a = 0, b = 0;

    for (int64_t i = 0; i < v->n_genuine; i++)
        genuine[(int)fmin(STEPS, v->genuine[i] * 100)]++;
    for (int64_t i = 0; i < v->n_impostor; i++)
        impostor[(int)fmin(STEPS, v->impostor[i] * 100)]++;
    for (int k = 0; k <= STEPS; k++) {
        double now =
            0.5 * (a / (double)v->n_genuine + 1 - b / (double)v->n_impostor);

        best = now > best ? now : best;
        a += (double)genuine[k];
        b += (double)impostor[k];
    }
    return best;
}

/* Of calibrate and evaluate too: of fewer pairs a rate says nothing. */
static bool enough(double far, int64_t n_impostor)
{
    return far * (double)n_impostor >= CALIBRATE_LEAST_ACCEPTED - 1e-9;
}

/* Thresholds at 1e-1 … 1e-4, as far as there are pairs for them. */
static void thresholds(struct vectors *v, struct train_result *out)
{
    static const double fars[4] = {1e-1, 1e-2, 1e-3, 1e-4};

    out->n_thresholds = 0;
    for (int i = 0; i < 4 && enough(fars[i], v->n_impostor); i++) {
        struct model_threshold *m = &out->thresholds[out->n_thresholds++];

        m->far = fars[i];
        m->n_impostor = v->n_impostor;
        m->threshold = evaluate_threshold(v->impostor, v->n_impostor, fars[i],
                                          &m->n_accepted);
    }
}

static int measure_held(struct train *t, struct vectors *v,
                        struct train_result *out, struct error *err)
{
    struct train_figures *f = &out->held;
    double threshold;
    int64_t n;

    if (held_pairs(t, v, err))
        return -1;
    if (v->n_genuine < 1 || v->n_impostor < 1)
        return error_set(err, ERR_BAD_FIELD,
                         "the held-out people have %lld genuine and %lld "
                         "impostor pairs: too few to measure on",
                         (long long)v->n_genuine, (long long)v->n_impostor);
    f->there = true;
    f->accuracy = best_accuracy(v);
    f->accuracy_std = NAN;
    f->apart = mean_of(v->impostor, v->n_impostor);
    for (int i = 0; i < 3; i++)
        f->val[i] = val_at(v, rates[i], &threshold, &n);
    f->guard_val = val_at(v, t->a->guard_far, &threshold, &n);
    thresholds(v, out);
    return 0;
}

/* ---- pairs --------------------------------------------------------------- */

struct list {
    double *distances;
    bool *same;
    int *fold, n, n_folds, n_skipped;
};

/* The list's own folds, or as many as asked, in the order of the list. */
static void fill_list(const struct train *t, const struct vectors *v,
                      struct list *l)
{
    const struct pairs *p = &t->lfw.pairs;
    size_t dim = (size_t)t->dim;

    l->n = p->n_pairs;
    l->n_folds = t->a->lfw_nrof_folds;
    for (int i = 0; i < l->n; i++) {
        const struct pair *x = &p->pairs[i];
        bool good = usable(t, v, x->photo[0]) && usable(t, v, x->photo[1]);

        l->distances[i] =
            good ? (double)distance_l2(v->rows + (size_t)x->photo[0] * dim,
                                       v->rows + (size_t)x->photo[1] * dim, dim)
                 : NAN;
        l->same[i] = x->same;
        l->fold[i] = l->n_folds == p->n_folds
                         ? x->fold
                         : (int)((long long)i * l->n_folds / l->n);
        l->n_skipped += !good;
    }
}

static int figures_of_list(const struct list *l, struct train_figures *f,
                           struct error *err)
{
    struct evaluation e = {0};

    if (l->n_skipped > most_skipped * l->n)
        return error_set(err, ERR_BAD_FIELD,
                         "lfw_dir: %d of %d pairs lack a photo or a face",
                         l->n_skipped, l->n);
    for (int i = 0; i < 3; i++) {
        if (evaluate_pairs(l->distances, l->same, l->fold, l->n, l->n_folds,
                           rates[i], &e, err))
            return error_context(err, "lfw_pairs");
        f->val[i] = e.val;
    }
    f->there = true;
    f->accuracy = e.accuracy;
    f->accuracy_std = e.accuracy_std;
    f->guard_val = NAN;
    return 0;
}

static int measure_lfw(struct train *t, struct vectors *v,
                       struct train_result *out, struct error *err)
{
    size_t n = (size_t)t->lfw.pairs.n_pairs;
    struct list l = {.distances = malloc(n * sizeof(double)),
                     .same = malloc(n * sizeof(bool)),
                     .fold = malloc(n * sizeof(int))};
    int rc = -1;

    v->impostor = malloc(n * sizeof(double));
    if (!l.distances || !l.same || !l.fold || !v->impostor) {
        error_set(err, ERR_NOMEM, "no memory for %zu pairs", n);
    } else {
        fill_list(t, v, &l);
        for (size_t i = 0; i < n; i++)
            if (!l.same[i] && !isnan(l.distances[i]))
                v->impostor[v->n_impostor++] = l.distances[i];
        rc = figures_of_list(&l, &out->lfw, err);
        out->lfw.apart = mean_of(v->impostor, v->n_impostor);
    }
    if (!rc && !out->held.there)
        thresholds(v, out);
    free(l.distances);
    free(l.same);
    free(l.fold);
    return rc;
}

/* ---- both ---------------------------------------------------------------- */

static int measure_set(struct train *t, struct batched *e, const char *when,
                       bool lfw, struct train_result *out, struct error *err)
{
    struct train_set *s = lfw ? &t->lfw : &t->held;
    struct vectors v = {.rows =
                            tensor_alloc((size_t)s->n * (size_t)t->dim + 1)};
    double began = train_now();
    int rc;

    if (!v.rows)
        return error_set(err, ERR_NOMEM, "no memory for %d vectors", s->n);
    rc = embed_set(t, s, e, v.rows, err);
    train_report_failures(t, s->loader, &s->n_told);
    if (!rc)
        rc = lfw ? measure_lfw(t, &v, out, err) : measure_held(t, &v, out, err);
    free(v.rows);
    free(v.genuine);
    free(v.impostor);
    if (rc)
        return -1;
    train_report_figures(t, when, lfw ? "lfw" : "held",
                         lfw ? &out->lfw : &out->held, train_now() - began);
    return 0;
}

int train_measure(struct train *t, const struct graph *g, const char *when,
                  struct train_result *out, struct error *err)
{
    /* only read */
    struct model m = {.name = "training", .graph = (struct graph *)g};
    struct batched *e;
    int rc = 0;

    memset(out, 0, sizeof(*out));
    if (!t->held.loader && !t->lfw.loader)
        return 0;
    m.contract = t->contract;
    e = train_embedder(t, t->dev, &m, BATCH, err);
    if (!e && err->code == ERR_NOMEM && train_device_is_card(t->dev)) {
        train_report_warn(t, "measured on the processor: %s", err->text);
        e = train_embedder(t, t->cpu, &m, BATCH, err);
    }
    if (!e)
        return -1;
    if (t->held.loader)
        rc = measure_set(t, e, when, false, out, err);
    if (!rc && t->lfw.loader)
        rc = measure_set(t, e, when, true, out, err);
    batched_free(e);
    return rc;
}
