/* core/train/calibrate.c - thresholds from all pairs of some faces. Distances
 * come in square blocks from one matrix product each and go into two
 * histograms, so that memory does not grow with the number of pairs; the bins
 * are finer than the rounding of a distance that has gone through text.
 * facenetctl calibrate and the daemon call it. */
#include "core/train/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/train/triplet.h"

enum {
    N_BINS = 1 << 20, /* of 0..4 */
    BLOCK = 1024
};

static const double usual[] = {1e-1, 1e-2, 1e-3, 1e-4};

struct tables {
    float *rows;   /* [n,dim], people side by side */
    int *end;      /* [n]: behind the last face of a row's person */
    float *block;  /* [BLOCK,BLOCK] */
    int64_t *same; /* [N_BINS] */
    int64_t *other;
};

struct label {
    int person, row;
};

static int by_person(const void *pa, const void *pb)
{
    const struct label *a = pa, *b = pb;

    if (a->person != b->person)
        return a->person < b->person ? -1 : 1;
    return (a->row > b->row) - (a->row < b->row);
}

static void tables_fini(struct tables *t)
{
    free(t->rows);
    free(t->end);
    free(t->block);
    free(t->same);
    free(t->other);
}

/* Copies the rows in order of people, and counts. */
static int tables_init(struct tables *t, const float *rows, const int *person,
                       int n, int dim, struct calibration *out,
                       struct error *err)
{
    size_t count = (size_t)n, width = (size_t)dim;
    struct label *labels = malloc(count * sizeof(*labels));

    t->rows = malloc(count * width * sizeof(float));
    t->end = malloc(count * sizeof(int));
    t->block = malloc(sizeof(float) * BLOCK * BLOCK);
    t->same = calloc(N_BINS, sizeof(int64_t));
    t->other = calloc(N_BINS, sizeof(int64_t));
    if (!labels || !t->rows || !t->end || !t->block || !t->same || !t->other) {
        free(labels);
        return error_set(err, ERR_NOMEM, "no memory to calibrate with %d faces",
                         n);
    }
    for (int i = 0; i < n; i++)
        labels[i] = (struct label){person[i], i};
    qsort(labels, count, sizeof(*labels), by_person);
    for (int i = 0, first = 0; i < n; i++) {
        memcpy(t->rows + (size_t)i * width,
               rows + (size_t)labels[i].row * width, width * sizeof(float));
        if (i + 1 < n && labels[i + 1].person == labels[i].person)
            continue;
        for (int k = first; k <= i; k++)
            t->end[k] = i + 1;
        out->n_people++;
        out->n_paired += i > first;
        out->n_genuine += (int64_t)(i + 1 - first) * (i - first) / 2;
        first = i + 1;
    }
    out->n_faces = n;
    out->n_impostor = (int64_t)n * (n - 1) / 2 - out->n_genuine;
    free(labels);
    return 0;
}

static void count_row(const float *distances, int n, int64_t *bins)
{
    const float scale = (float)N_BINS / 4;

    for (int i = 0; i < n; i++) {
        int bin = (int)(distances[i] * scale);
        bins[bin < 0 ? 0 : bin < N_BINS ? bin : N_BINS - 1]++;
    }
}

/* The pairs of rows i0.. with rows j0.., each once: of a row those behind it,
 * first its own person's. */
static int count_block(struct tables *t, int n, int dim, int i0, int j0,
                       struct error *err)
{
    int ni = n - i0 < BLOCK ? n - i0 : BLOCK;
    int nj = n - j0 < BLOCK ? n - j0 : BLOCK;

    if (triplet_distances(t->rows + (size_t)i0 * (size_t)dim, ni,
                          t->rows + (size_t)j0 * (size_t)dim, nj, dim, t->block,
                          err))
        return -1;
    for (int i = 0; i < ni; i++) {
        const float *row = t->block + (size_t)i * (size_t)nj;
        int from = i0 + i + 1 > j0 ? i0 + i + 1 - j0 : 0;
        int to = t->end[i0 + i] - j0;
        to = to < from ? from : to > nj ? nj : to;
        if (from >= nj)
            continue;
        count_row(row + from, to - from, t->same);
        count_row(row + to, nj - to, t->other);
    }
    return 0;
}

static int count_all(struct tables *t, int n, int dim,
                     const struct calibrate_options *opt, struct error *err)
{
    double all = (double)n * n / 2, done = 0;

    for (int i = 0; i < n; i += BLOCK) {
        for (int j = i; j < n; j += BLOCK) {
            if (opt->stop && atomic_load(opt->stop))
                return error_set(err, ERR_STOPPING, "calibration was stopped");
            if (count_block(t, n, dim, i, j, err))
                return -1;
            done += (j > i ? 1 : 0.5) * BLOCK * BLOCK;
        }
        if (opt->progress)
            opt->progress(opt->ctx, done < all ? done / all : 1);
    }
    return 0;
}

/* Most that a rate lets through. */
static int64_t allowed(double far, int64_t n)
{
    return (int64_t)floor(far * (double)n + 1e-9);
}

/* The threshold as a bin: behind the last full one that may be accepted,
 * halfway to the next. */
static int place(const int64_t *bins, int64_t most, int64_t *n_accepted)
{
    int64_t sum = 0;
    int after = 0, next = 0; /* bins */

    while (next < N_BINS && sum + bins[next] <= most) {
        sum += bins[next];
        if (bins[next++] > 0)
            after = next;
    }
    *n_accepted = sum;
    return (after + next) / 2;
}

static int64_t beyond(const int64_t *bins, int from)
{
    int64_t sum = 0;

    for (int i = from; i < N_BINS; i++)
        sum += bins[i];
    return sum;
}

void calibrate_interval(int64_t k, int64_t n, double *low, double *high)
{
    const double z = 1.959963984540054, m = (double)n;
    double p = (double)k / m, centre = p + z * z / (2 * m);
    double half = z * sqrt(p * (1 - p) / m + z * z / (4 * m * m));

    *low = k == 0 ? 0 : (centre - half) / (1 + z * z / m);
    *high = k == n ? 1 : (centre + half) / (1 + z * z / m);
}

static void fill(const struct tables *t, double far, struct calibration *c)
{
    struct calibrate_rate *r = &c->rates[c->n_rates++];
    int at = place(t->other, allowed(far, c->n_impostor), &r->n_accepted);

    r->far = far;
    r->threshold = at * 4.0 / N_BINS;
    r->far_measured = (double)r->n_accepted / (double)c->n_impostor;
    calibrate_interval(r->n_accepted, c->n_impostor, &r->far_low, &r->far_high);
    r->frr = r->frr_low = r->frr_high = NAN;
    r->n_rejected = beyond(t->same, at);
    if (c->n_genuine == 0)
        return;
    r->frr = (double)r->n_rejected / (double)c->n_genuine;
    calibrate_interval(r->n_rejected, c->n_genuine, &r->frr_low, &r->frr_high);
}

/* --- what can be asked ---------------------------------------------------- */

static int check_rates(const struct calibrate_options *opt, struct error *err)
{
    if (opt->n_far < 0 || opt->n_far > CALIBRATE_MAX_RATES)
        return error_set(err, ERR_BAD_FIELD,
                         "%d false-accept rates: up to %d are possible",
                         opt->n_far, CALIBRATE_MAX_RATES);
    for (int i = 0; i < opt->n_far; i++) {
        if (!(opt->far[i] > 0 && opt->far[i] < 1))
            return error_set(err, ERR_BAD_FIELD,
                             "false-accept rate %g: between 0 and 1 is "
                             "possible",
                             opt->far[i]);
        for (int k = 0; k < i; k++)
            if (opt->far[k] == opt->far[i])
                return error_set(err, ERR_BAD_FIELD,
                                 "false-accept rate %g is given twice",
                                 opt->far[i]);
    }
    return 0;
}

static int check_rows(const float *rows, int n, int dim, struct error *err)
{
    if (n < 2 || n > CALIBRATE_MAX_FACES || dim < 1 || dim > MODEL_MAX_DIM)
        return error_set(err, ERR_BAD_FIELD,
                         "%d faces to calibrate with: 2 to %d are possible", n,
                         CALIBRATE_MAX_FACES);
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (int k = 0; k < dim; k++) {
            double v = (double)rows[(size_t)i * (size_t)dim + (size_t)k];
            sum += v * v;
        }
        if (!(fabs(sum - 1) < 1e-3))
            return error_set(err, ERR_BAD_FIELD,
                             "embedding %d is no unit vector", i);
    }
    return 0;
}

static int check_pairs(const struct calibration *c, const double *far,
                       int n_far, struct error *err)
{
    if (c->n_people < 2)
        return error_set(err, ERR_BAD_FIELD,
                         "the %d faces are of one person: impostor pairs need "
                         "two people or more",
                         c->n_faces);
    for (int i = 0; i < n_far; i++) {
        if (allowed(far[i], c->n_impostor) >= CALIBRATE_LEAST_ACCEPTED)
            continue;
        return error_set(
            err, ERR_BAD_FIELD,
            "a false-accept rate of %g needs %.0f pairs of different people, "
            "there are %lld of %d people",
            far[i], ceil(CALIBRATE_LEAST_ACCEPTED / far[i] - 1e-6),
            (long long)c->n_impostor, c->n_people);
    }
    return 0;
}

int calibrate_faces(const float *rows, const int *person, int n, int dim,
                    const struct calibrate_options *opt,
                    struct calibration *out, struct error *err)
{
    const double *far = opt->n_far ? opt->far : usual;
    int n_far = opt->n_far;
    struct tables t = {0};
    int rc = -1;

    memset(out, 0, sizeof(*out));
    if (check_rates(opt, err) || check_rows(rows, n, dim, err) ||
        tables_init(&t, rows, person, n, dim, out, err))
        goto out;
    if (n_far == 0) {
        n_far = 1; /* the first must be possible */
        while (n_far < (int)(sizeof(usual) / sizeof(usual[0])) &&
               allowed(usual[n_far], out->n_impostor) >=
                   CALIBRATE_LEAST_ACCEPTED)
            n_far++;
    }
    if (check_pairs(out, far, n_far, err) || count_all(&t, n, dim, opt, err))
        goto out;
    for (int i = 0; i < n_far; i++)
        fill(&t, far[i], out);
    rc = 0;
out:
    tables_fini(&t);
    return rc;
}

int calibrate_thresholds(const struct calibration *c,
                         struct model_threshold out[MODEL_MAX_THRESHOLDS])
{
    for (int i = 0; i < c->n_rates; i++)
        out[i] = (struct model_threshold){.far = c->rates[i].far,
                                          .threshold = c->rates[i].threshold,
                                          .n_impostor = c->n_impostor,
                                          .n_accepted = c->rates[i].n_accepted};
    return c->n_rates;
}
