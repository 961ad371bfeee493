/* core/train/evaluate.c - pairs to accuracy, VAL at a false accept rate, EER,
 * AUC and thresholds, from their distances or from embeddings. Counts by
 * binary search in sorted distances, so that the 4,000 thresholds of every
 * fold cost nothing to speak of. facenetctl evaluate and training call it. */
#include "core/train/evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ACCURACY_STEPS = 100, /* of one unit of distance */
    VAL_STEPS = 1000,
    WORST = 4
};

struct list { /* of pairs, with their distances */
    const double *distances;
    const bool *same;
    const int *fold;
    int n, n_folds;
};

struct sorted { /* one fold's distances of one kind */
    double *at;
    int n;
};

struct folds {
    struct sorted *same, *other; /* [n] */
    int n;
    double *all_same, *all_other; /* fold after fold */
    int64_t n_same, n_other;
};

static int by_value(const void *pa, const void *pb)
{
    double a = *(const double *)pa, b = *(const double *)pb;
    return (a > b) - (a < b);
}

/* How many are below t. */
static int below(const struct sorted *s, double t)
{
    int lo = 0, hi = s->n;

    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        if (s->at[mid] < t)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static void folds_fini(struct folds *f)
{
    free(f->same);
    free(f->other);
    free(f->all_same);
    free(f->all_other);
}

static int folds_init(struct folds *f, const struct list *l, struct error *err)
{
    size_t n_bytes = (size_t)l->n * sizeof(double) + 1;
    double *a, *b;

    memset(f, 0, sizeof(*f));
    f->n = l->n_folds;
    f->same = calloc((size_t)f->n, sizeof(*f->same));
    f->other = calloc((size_t)f->n, sizeof(*f->other));
    a = f->all_same = malloc(n_bytes);
    b = f->all_other = malloc(n_bytes);
    if (!f->same || !f->other || !a || !b)
        return error_set(err, ERR_NOMEM, "no memory to evaluate %d pairs",
                         l->n);
    for (int i = 0; i < l->n; i++)
        if (!isnan(l->distances[i]))
            (l->same[i] ? f->same : f->other)[l->fold[i]].n++;
    for (int k = 0; k < f->n; k++) {
        f->same[k].at = a;
        f->other[k].at = b;
        a += f->same[k].n;
        b += f->other[k].n;
        f->n_same += f->same[k].n;
        f->n_other += f->other[k].n;
        f->same[k].n = f->other[k].n = 0;
    }
    for (int i = 0; i < l->n; i++) {
        struct sorted *s = &(l->same[i] ? f->same : f->other)[l->fold[i]];
        if (!isnan(l->distances[i]))
            s->at[s->n++] = l->distances[i];
    }
    for (int k = 0; k < f->n; k++) {
        qsort(f->same[k].at, (size_t)f->same[k].n, sizeof(double), by_value);
        qsort(f->other[k].at, (size_t)f->other[k].n, sizeof(double), by_value);
    }
    return 0;
}

struct mean {
    double sum, squares;
    int n;
};

static void mean_add(struct mean *m, double v)
{
    m->sum += v;
    m->squares += v * v;
    m->n++;
}

static double mean_of(const struct mean *m)
{
    return m->n ? m->sum / m->n : NAN;
}

static double mean_std(const struct mean *m)
{
    double mean = mean_of(m);
    double variance = m->squares / m->n - mean * mean;
    return variance > 0 ? sqrt(variance) : 0;
}

static int total(const struct sorted *s, int n, int but)
{
    int sum = 0;

    for (int k = 0; k < n; k++)
        sum += k == but ? 0 : s[k].n;
    return sum;
}

static int total_below(const struct sorted *s, int n, int but, double t)
{
    int sum = 0;

    for (int k = 0; k < n; k++)
        sum += k == but ? 0 : below(&s[k], t);
    return sum;
}

/* What the folds give, one after another. */
struct tally {
    double far, range; /* thresholds are looked for in 0..range */
    struct mean hits, thresholds;
    struct mean vals, fars, val_thresholds;
};

/* The others' best threshold, tried on fold k. */
static void accuracy(const struct folds *f, int k, struct tally *t)
{
    int n_other = total(f->other, f->n, k), best = -1;
    int n_here = f->same[k].n + f->other[k].n;
    int n_steps = (int)(t->range * ACCURACY_STEPS);
    double at = 0;

    if (n_here == 0 || total(f->same, f->n, k) + n_other == 0)
        return;
    for (int i = 0; i < n_steps; i++) {
        double try = i * (1.0 / ACCURACY_STEPS);
        int right = total_below(f->same, f->n, k, try) + n_other -
                    total_below(f->other, f->n, k, try);
        if (right > best) {
            best = right;
            at = try;
        }
    }
    mean_add(&t->thresholds, at);
    mean_add(&t->hits, (double)(below(&f->same[k], at) + f->other[k].n -
                                below(&f->other[k], at)) /
                           n_here);
}

/* Where the false accepts of all folds but one reach the rate: between two
 * steps by linear interpolation, 0 when they never do. */
static double threshold_at(const struct folds *f, int but,
                           const struct tally *t)
{
    int n = total(f->other, f->n, but), n_steps = (int)(t->range * VAL_STEPS);
    double step = 1.0 / VAL_STEPS, before = 0;

    for (int i = 1; i < n_steps; i++) {
        double rate = (double)total_below(f->other, f->n, but, i * step) / n;
        if (rate >= t->far)
            return step * (i - 1 + (t->far - before) / (rate - before));
        before = rate;
    }
    return 0;
}

static void val(const struct folds *f, int k, struct tally *t)
{
    double at;

    if (total(f->other, f->n, k) == 0)
        return;
    at = threshold_at(f, k, t);
    mean_add(&t->val_thresholds, at);
    if (f->same[k].n > 0)
        mean_add(&t->vals, (double)below(&f->same[k], at) / f->same[k].n);
    if (f->other[k].n > 0)
        mean_add(&t->fars, (double)below(&f->other[k], at) / f->other[k].n);
}

/* The ROC of all pairs, walked from the least distance up: AUC by trapezoids
 * (equal distances are one slanted step), EER where false rejects meet false
 * accepts on it. */
static void roc(struct folds *f, struct evaluation *out)
{
    int64_t i = 0, j = 0;
    double fpr = 0, tpr = 0, area = 0, eer = -1;

    qsort(f->all_same, (size_t)f->n_same, sizeof(double), by_value);
    qsort(f->all_other, (size_t)f->n_other, sizeof(double), by_value);
    while (i < f->n_same || j < f->n_other) {
        double t = j == f->n_other ||
                           (i < f->n_same && f->all_same[i] < f->all_other[j])
                       ? f->all_same[i]
                       : f->all_other[j];
        double fpr_to, tpr_to;
        while (i < f->n_same && f->all_same[i] <= t)
            i++;
        while (j < f->n_other && f->all_other[j] <= t)
            j++;
        fpr_to = (double)j / (double)f->n_other;
        tpr_to = (double)i / (double)f->n_same;
        area += (fpr_to - fpr) * (tpr_to + tpr) / 2;
        if (eer < 0 && fpr_to >= 1 - tpr_to) {
            double gap = 1 - tpr - fpr; /* closes to zero within the step */
            double step = (tpr_to - tpr) + (fpr_to - fpr);
            eer = fpr + (fpr_to - fpr) * gap / step;
        }
        fpr = fpr_to;
        tpr = tpr_to;
    }
    out->auc = area;
    out->eer = eer;
}

static int check(const struct list *l, double far, struct error *err)
{
    if (l->n_folds < 2)
        return error_set(err, ERR_BAD_FIELD,
                         "%d folds: two at least are needed, one to choose a "
                         "threshold and one to try it",
                         l->n_folds);
    if (!(far > 0 && far < 1))
        return error_set(err, ERR_BAD_FIELD,
                         "false-accept rate %g: between 0 and 1 is possible",
                         far);
    for (int i = 0; i < l->n; i++)
        if (l->fold[i] < 0 || l->fold[i] >= l->n_folds)
            return error_set(err, ERR_BAD_FIELD, "pair %d is in fold %d of %d",
                             i, l->fold[i], l->n_folds);
    return 0;
}

/* f: of each pair's distance as it was tried. */
static int conclude(struct folds *f, const struct tally *t,
                    struct evaluation *out, struct error *err)
{
    if (f->n_same == 0 || f->n_other == 0)
        return error_set(err, ERR_BAD_FIELD,
                         "%lld pairs of the same and %lld of different people: "
                         "both kinds are needed",
                         (long long)f->n_same, (long long)f->n_other);
    out->n_genuine = f->n_same;
    out->n_impostor = f->n_other;
    out->accuracy = mean_of(&t->hits);
    out->accuracy_std = mean_std(&t->hits);
    out->threshold = mean_of(&t->thresholds);
    out->val = mean_of(&t->vals);
    out->val_std = mean_std(&t->vals);
    out->far = mean_of(&t->fars);
    out->val_threshold = mean_of(&t->val_thresholds);
    roc(f, out);
    if (isnan(out->accuracy) || isnan(out->val) || isnan(out->far))
        return error_set(err, ERR_BAD_FIELD,
                         "all pairs of a kind are in one fold: no threshold "
                         "can be chosen without it");
    return 0;
}

static int evaluate_list(const struct list *l, struct tally *t,
                         struct evaluation *out, struct error *err)
{
    struct folds f;
    int rc = folds_init(&f, l, err);

    for (int k = 0; rc == 0 && k < f.n; k++) {
        accuracy(&f, k, t);
        val(&f, k, t);
    }
    if (rc == 0)
        rc = conclude(&f, t, out, err);
    folds_fini(&f);
    return rc;
}

int evaluate_pairs(const double *distances, const bool *same, const int *fold,
                   int n, int n_folds, double far, struct evaluation *out,
                   struct error *err)
{
    struct list l = {distances, same, fold, n, n_folds};
    struct tally t = {.far = far, .range = WORST};

    memset(out, 0, sizeof(*out));
    return check(&l, far, err) ? -1 : evaluate_list(&l, &t, out, err);
}

/* --- from embeddings
 * -------------------------------------------------------- */

static double pair_distance(const float *a, const float *b, const double *mean,
                            size_t dim, enum evaluate_metric metric)
{
    double sum = 0, dot = 0, aa = 0, bb = 0;

    for (size_t i = 0; i < dim; i++) {
        double x = (double)a[i] - mean[i], y = (double)b[i] - mean[i];
        sum += (x - y) * (x - y);
        dot += x * y;
        aa += x * x;
        bb += y * y;
    }
    if (metric == EVALUATE_L2)
        return sum;
    dot /= sqrt(aa) * sqrt(bb); /* NaN where one has no length */
    return acos(dot > 1 ? 1 : dot < -1 ? -1 : dot) / acos(-1);
}

struct source {
    const float *rows;
    size_t dim;
    const struct pairs *p;
    const struct evaluate_options *opt;
    double *mean; /* [dim] */
};

/* Mean of the embeddings that the pairs outside fold k name, a photo counting
 * as often as it is named. */
static void mean_without(const struct source *s, int k)
{
    int64_t n = 0;

    memset(s->mean, 0, s->dim * sizeof(*s->mean));
    for (int i = 0; i < s->p->n_pairs; i++) {
        const struct pair *pair = &s->p->pairs[i];
        const float *a = s->rows + (size_t)pair->photo[0] * s->dim;
        const float *b = s->rows + (size_t)pair->photo[1] * s->dim;
        if (pair->fold == k || isnan(a[0]) || isnan(b[0]))
            continue;
        for (size_t j = 0; j < s->dim; j++)
            s->mean[j] += (double)a[j] + (double)b[j];
        n += 2;
    }
    for (size_t j = 0; j < s->dim; j++)
        s->mean[j] /= (double)(n ? n : 1);
}

static void all_distances(const struct source *s, double *out)
{
    for (int i = 0; i < s->p->n_pairs; i++) {
        const int *photo = s->p->pairs[i].photo;
        out[i] = pair_distance(s->rows + (size_t)photo[0] * s->dim,
                               s->rows + (size_t)photo[1] * s->dim, s->mean,
                               s->dim, s->opt->metric);
    }
}

/* Every fold has its own mean, and so its own distances: own gets each pair's
 * with the mean of the folds that it is not in. l views a buffer of its own. */
static int evaluate_centred(const struct source *s, struct list *l,
                            double *view, double *own, struct tally *t,
                            struct evaluation *out, struct error *err)
{
    struct folds f;
    int rc = 0;

    l->distances = view;
    for (int k = 0; rc == 0 && k < l->n_folds; k++) {
        mean_without(s, k);
        all_distances(s, view);
        for (int i = 0; i < l->n; i++)
            if (l->fold[i] == k)
                own[i] = view[i];
        rc = folds_init(&f, l, err);
        if (rc == 0) {
            accuracy(&f, k, t);
            val(&f, k, t);
        }
        folds_fini(&f);
    }
    if (rc)
        return rc;
    l->distances = own;
    rc = folds_init(&f, l, err);
    if (rc == 0)
        rc = conclude(&f, t, out, err);
    folds_fini(&f);
    return rc;
}

int evaluate_embeddings(const float *rows, size_t dim, const struct pairs *p,
                        const struct evaluate_options *opt, double *own,
                        struct evaluation *out, struct error *err)
{
    size_t n = (size_t)p->n_pairs;
    struct tally t = {.far = opt->far,
                      .range = opt->range > 0 ? opt->range : WORST};
    struct source s = {rows, dim, p, opt, calloc(dim + 1, sizeof(double))};
    double *view = malloc((n + 1) * sizeof(*view));
    bool *same = malloc((n + 1) * sizeof(*same));
    int *fold = malloc((n + 1) * sizeof(*fold));
    struct list l = {own, same, fold, p->n_pairs, p->n_folds};
    int rc = -1;

    memset(out, 0, sizeof(*out));
    if (!s.mean || !view || !same || !fold) {
        error_set(err, ERR_NOMEM, "no memory for %zu distances", n);
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        same[i] = p->pairs[i].same;
        fold[i] = p->pairs[i].fold;
    }
    if (check(&l, opt->far, err))
        goto out;
    if (opt->subtract_mean) {
        rc = evaluate_centred(&s, &l, view, own, &t, out, err);
    } else {
        all_distances(&s, own);
        rc = evaluate_list(&l, &t, out, err);
    }
out:
    free(s.mean);
    free(view);
    free(same);
    free(fold);
    return rc;
}

/* --- curve and thresholds
 * ---------------------------------------------------- */

int evaluate_roc(const double *distances, const bool *same, int n,
                 struct roc_point **out, int *n_out, struct error *err)
{
    int *fold = calloc((size_t)n + 1, sizeof(*fold));
    struct list l = {distances, same, fold, n, 1};
    struct folds f = {0};
    int64_t i = 0;
    int rc = -1;

    *out = NULL;
    *n_out = 0;
    if (!fold) {
        error_set(err, ERR_NOMEM, "no memory for a curve");
        goto out;
    }
    if (folds_init(&f, &l, err))
        goto out;
    *out = malloc(((size_t)f.n_other + 1) * sizeof(**out));
    if (!*out || f.n_same == 0 || f.n_other == 0) {
        error_set(err, *out ? ERR_BAD_FIELD : ERR_NOMEM,
                  *out ? "no curve without pairs of both kinds"
                       : "no memory for a curve");
        free(*out);
        *out = NULL;
        goto out;
    }
    for (int64_t j = 0; j <= f.n_other; j++) {
        double next = j < f.n_other ? f.all_other[j] : INFINITY;
        if (j > 0 && next == f.all_other[j - 1])
            continue; /* the two are accepted together */
        while (i < f.n_same && f.all_same[i] < next)
            i++;
        (*out)[(*n_out)++] = (struct roc_point){(double)j / (double)f.n_other,
                                                (double)i / (double)f.n_same};
    }
    rc = 0;
out:
    folds_fini(&f);
    free(fold);
    return rc;
}

double evaluate_threshold(double *impostor, int64_t n, double far,
                          int64_t *n_accepted)
{
    int64_t k = (int64_t)floor(far * (double)n + 1e-9);

    *n_accepted = n;
    if (n == 0 || k >= n)
        return WORST;
    qsort(impostor, (size_t)n, sizeof(*impostor), by_value);
    while (k > 0 && impostor[k - 1] == impostor[k])
        k--;
    *n_accepted = k;
    return ((k > 0 ? impostor[k - 1] : 0) + impostor[k]) / 2;
}
