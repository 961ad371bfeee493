/* core/train/evaluate.c - distances of pairs to accuracy, VAL at a false
 * accept rate, EER, AUC and thresholds. Counts by binary search in sorted
 * distances, so that the 4,000 thresholds of every fold cost nothing to speak
 * of. facenetctl evaluate, model import and training call it. */
#include "core/train/evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ACCURACY_STEPS = 400,
    VAL_STEPS = 4000,
    WORST = 4
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

static int folds_init(struct folds *f, const double *distances,
                      const bool *same, const int *fold, int n, int n_folds,
                      struct error *err)
{
    size_t n_bytes = (size_t)n * sizeof(double);
    double *a, *b;

    memset(f, 0, sizeof(*f));
    f->n = n_folds;
    f->same = calloc((size_t)n_folds, sizeof(*f->same));
    f->other = calloc((size_t)n_folds, sizeof(*f->other));
    a = f->all_same = malloc(n_bytes);
    b = f->all_other = malloc(n_bytes);
    if (!f->same || !f->other || !a || !b)
        return error_set(err, ERR_NOMEM, "no memory to evaluate %d pairs", n);
    for (int i = 0; i < n; i++)
        if (!isnan(distances[i]))
            (same[i] ? f->same : f->other)[fold[i]].n++;
    for (int k = 0; k < n_folds; k++) {
        f->same[k].at = a;
        f->other[k].at = b;
        a += f->same[k].n;
        b += f->other[k].n;
        f->n_same += f->same[k].n;
        f->n_other += f->other[k].n;
        f->same[k].n = f->other[k].n = 0;
    }
    for (int i = 0; i < n; i++) {
        struct sorted *s = &(same[i] ? f->same : f->other)[fold[i]];
        if (!isnan(distances[i]))
            s->at[s->n++] = distances[i];
    }
    for (int k = 0; k < n_folds; k++) {
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

static void accuracy(const struct folds *f, struct evaluation *out)
{
    struct mean hits = {0}, thresholds = {0};

    for (int k = 0; k < f->n; k++) {
        int n_other = total(f->other, f->n, k), best = -1;
        int n_here = f->same[k].n + f->other[k].n;
        double at = 0;
        if (n_here == 0 || total(f->same, f->n, k) + n_other == 0)
            continue;
        for (int i = 0; i < ACCURACY_STEPS; i++) {
            double t = i * 0.01;
            int right = total_below(f->same, f->n, k, t) + n_other -
                        total_below(f->other, f->n, k, t);
            if (right > best) {
                best = right;
                at = t;
            }
        }
        mean_add(&thresholds, at);
        mean_add(&hits, (double)(below(&f->same[k], at) + f->other[k].n -
                                 below(&f->other[k], at)) /
                            n_here);
    }
    out->accuracy = mean_of(&hits);
    out->accuracy_std = mean_std(&hits);
    out->threshold = mean_of(&thresholds);
}

/* Where the false accepts of all folds but one reach `far`: between two steps
 * by linear interpolation, 0 when they never do. */
static double threshold_at(const struct folds *f, int but, double far)
{
    int n = total(f->other, f->n, but);
    double before = 0;

    for (int i = 1; i < VAL_STEPS; i++) {
        double rate = (double)total_below(f->other, f->n, but, i * 0.001) / n;
        if (rate >= far)
            return 0.001 * (i - 1 + (far - before) / (rate - before));
        before = rate;
    }
    return 0;
}

static void val(const struct folds *f, double far, struct evaluation *out)
{
    struct mean vals = {0}, fars = {0}, thresholds = {0};

    for (int k = 0; k < f->n; k++) {
        double t;
        if (total(f->other, f->n, k) == 0)
            continue;
        t = threshold_at(f, k, far);
        mean_add(&thresholds, t);
        if (f->same[k].n > 0)
            mean_add(&vals, (double)below(&f->same[k], t) / f->same[k].n);
        if (f->other[k].n > 0)
            mean_add(&fars, (double)below(&f->other[k], t) / f->other[k].n);
    }
    out->val = mean_of(&vals);
    out->val_std = mean_std(&vals);
    out->far = mean_of(&fars);
    out->val_threshold = mean_of(&thresholds);
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

int evaluate_pairs(const double *distances, const bool *same, const int *fold,
                   int n, int n_folds, double far, struct evaluation *out,
                   struct error *err)
{
    struct folds f;
    int rc = -1;

    memset(out, 0, sizeof(*out));
    if (n_folds < 2)
        return error_set(err, ERR_BAD_FIELD,
                         "%d folds: two at least are needed, one to choose a "
                         "threshold and one to try it",
                         n_folds);
    if (!(far > 0 && far < 1))
        return error_set(err, ERR_BAD_FIELD,
                         "false-accept rate %g: between 0 and 1 is possible",
                         far);
    for (int i = 0; i < n; i++)
        if (fold[i] < 0 || fold[i] >= n_folds)
            return error_set(err, ERR_BAD_FIELD, "pair %d is in fold %d of %d",
                             i, fold[i], n_folds);
    if (folds_init(&f, distances, same, fold, n, n_folds, err))
        goto out;
    if (f.n_same == 0 || f.n_other == 0) {
        error_set(err, ERR_BAD_FIELD,
                  "%lld pairs of the same and %lld of different people: both "
                  "kinds are needed",
                  (long long)f.n_same, (long long)f.n_other);
        goto out;
    }
    out->n_genuine = f.n_same;
    out->n_impostor = f.n_other;
    accuracy(&f, out);
    val(&f, far, out);
    roc(&f, out);
    if (isnan(out->accuracy) || isnan(out->val) || isnan(out->far)) {
        error_set(err, ERR_BAD_FIELD,
                  "all pairs of a kind are in one fold: no threshold can be "
                  "chosen without it");
        goto out;
    }
    rc = 0;
out:
    folds_fini(&f);
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
