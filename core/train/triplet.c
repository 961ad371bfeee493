/* core/train/triplet.c - see the header. Distances come from one product:
 * |x - y|^2 = |x|^2 + |y|^2 - 2 x.y; the loops over pairs only compare. */
#include "core/train/triplet.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine/backend.h"
#include "core/engine/triplets.h"
#include "core/train/random.h"

enum {
    MOST_PAIRS = 1 << 24 /* that a device is asked about */
};

/* ---- sampling ----------------------------------------------------------- */

/* The first n of a random order of 0..total-1 into out: Fisher and Yates, cut
 * off. order: room for total. */
static void draw(uint64_t *random, int total, int n, int *order, int *out)
{
    for (int i = 0; i < total; i++)
        order[i] = i;
    for (int i = 0; i < n; i++) {
        int k = i + random_below(random, total - i), t = order[i];

        order[i] = order[k];
        order[k] = t;
        out[i] = order[i];
    }
}

int triplet_sample(const int *n_photos, int n_people, int people_per_batch,
                   int images_per_person, uint64_t *random, int *person,
                   int *photo)
{
    int64_t want = (int64_t)people_per_batch * images_per_person;
    int most = n_people, n = 0;
    int *people, *order;

    for (int i = 0; i < n_people; i++)
        if (n_photos[i] > most)
            most = n_photos[i];
    people = malloc(((size_t)n_people + 1) * sizeof(*people));
    order = malloc(((size_t)most + 1) * sizeof(*order));
    if (people && order) {
        draw(random, n_people, n_people, order, people);
        for (int i = 0; i < n_people && n < want; i++) {
            int p = people[i], take = n_photos[p];

            if (take > images_per_person)
                take = images_per_person;
            if (take > want - n)
                take = (int)(want - n);
            draw(random, n_photos[p], take, order, photo + n);
            for (int k = 0; k < take; k++)
                person[n++] = p;
        }
    }
    free(people);
    free(order);
    return n;
}

/* ---- distances ------------------------------------------------------------
 */

static void squares(const float *x, int n, int dim, float *out)
{
    for (int i = 0; i < n; i++) {
        const float *r = x + (size_t)i * (size_t)dim;
        double sum = 0;

        for (int k = 0; k < dim; k++)
            sum += (double)r[k] * r[k];
        out[i] = (float)sum;
    }
}

/* out [nx,ny] holds x.y; sx, sy: squared lengths. */
static void from_products(const float *sx, int nx, const float *sy, int ny,
                          float *out)
{
    for (int i = 0; i < nx; i++) {
        float *row = out + (size_t)i * (size_t)ny;

        for (int k = 0; k < ny; k++)
            row[k] = triplets_distance(sx[i], sy[k], row[k]);
    }
}

int triplet_distances(const float *x, int nx, const float *y, int ny, int dim,
                      float *out, struct error *err)
{
    float *s = tensor_alloc((size_t)nx + (size_t)ny);

    if (!s)
        return error_set(err, ERR_NOMEM, "no memory for distances");
    squares(x, nx, dim, s);
    squares(y, ny, dim, s + nx);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, nx, ny, dim, 1, x, dim,
                y, dim, 0, out, ny);
    from_products(s, nx, s + nx, ny, out);
    free(s);
    return 0;
}

/* ---- selection --------------------------------------------------------------
 */

struct selection {
    const struct triplet_options *opt;
    uint64_t *random;
    const int *person;
    int n;
    int *allowed; /* [n], of one pair */
    struct triplet *out;
    size_t n_out, room;
};

static int push(struct selection *s, struct triplet t)
{
    if (s->n_out == s->room) {
        size_t room = s->room ? 2 * s->room : 4096;
        struct triplet *bigger = realloc(s->out, room * sizeof(*bigger));

        if (!bigger)
            return -1;
        s->out = bigger;
        s->room = room;
    }
    s->out[s->n_out++] = t;
    return 0;
}

/* Anchor a with positive p: a negative of those that d, the distances of the
 * anchor to all photos, allows. a_old, n_old: those ends are the old model's,
 * rows n..2n-1. first, end: the person's photos. */
static int pick(struct selection *s, const float *d, float positive, int a,
                int p, int first, int end, bool old_anchor, bool old_others)
{
    float alpha = s->opt->alpha;
    bool beyond = s->opt->choice == TRIPLET_FACENET;
    int n = 0;

    for (int k = 0; k < first; k++)
        if (triplets_allowed(d[k], positive, alpha, beyond))
            s->allowed[n++] = k;
    for (int k = end; k < s->n; k++)
        if (triplets_allowed(d[k], positive, alpha, beyond))
            s->allowed[n++] = k;
    if (n == 0)
        return 0;
    return push(s,
                (struct triplet){.a = a + (old_anchor ? s->n : 0),
                                 .p = p + (old_others ? s->n : 0),
                                 .n = s->allowed[random_below(s->random, n)] +
                                      (old_others ? s->n : 0)});
}

/* All pairs whose anchor's distances stand in d [n,n]: row a, column other. */
static int select_pairs(struct selection *s, const float *d, bool old_anchor,
                        bool old_others)
{
    const struct triplet_options *opt = s->opt;

    for (int first = 0, end; first < s->n; first = end) {
        for (end = first; end < s->n && s->person[end] == s->person[first];)
            end++;
        for (int a = first; a < end; a++) {
            const float *row = d + (size_t)a * (size_t)s->n;

            for (int p = a + 1; p < end; p++) {
                if (!isfinite(row[p]) ||
                    (opt->pair && !opt->pair(opt->ctx, a, p)))
                    continue;
                if (pick(s, row, row[p], a, p, first, end, old_anchor,
                         old_others))
                    return -1;
            }
        }
    }
    return 0;
}

/* New vectors, and old ones among them where there are any. */
static int select_here(struct selection *s, const float *x, int dim,
                       struct error *err)
{
    const struct triplet_options *opt = s->opt;
    int n = s->n, rc;
    float *d = tensor_alloc((size_t)n * (size_t)n + 1);

    s->allowed = malloc(((size_t)n + 1) * sizeof(*s->allowed));
    if (!d || !s->allowed) {
        free(d);
        return error_set(err, ERR_NOMEM,
                         "no memory to select triplets of %d photos", n);
    }
    rc = triplet_distances(x, n, x, n, dim, d, err) ||
         select_pairs(s, d, false, false);
    if (!rc && opt->old) {
        rc = triplet_distances(opt->old, n, x, n, dim, d, err) ||
             select_pairs(s, d, true, false);
        for (int i = 0; i < n; i++) /* now the anchor is the new one */
            for (int k = i + 1; k < n; k++) {
                float *y = &d[(size_t)i * (size_t)n + (size_t)k];
                float *z = &d[(size_t)k * (size_t)n + (size_t)i], t = *y;

                *y = *z;
                *z = t;
            }
        rc = rc || select_pairs(s, d, false, true);
    }
    free(d);
    return rc ? error_set(err, ERR_NOMEM, "no memory for %zu triplets",
                          s->n_out)
              : 0;
}

/* ---- selection on a device ------------------------------------------------
 */

/* All pairs that may be, in the order of select_pairs; NULL: no memory, or too
 * many. */
static struct triplets_pair *list_pairs(const struct selection *s, int *n_pairs)
{
    const struct triplet_options *opt = s->opt;
    struct triplets_pair *list;
    size_t room = 0, n = 0;

    for (int first = 0, end; first < s->n; first = end) {
        for (end = first; end < s->n && s->person[end] == s->person[first];)
            end++;
        room += (size_t)(end - first) * (size_t)(end - first - 1) / 2;
    }
    list = room <= MOST_PAIRS ? malloc((room + 1) * sizeof(*list)) : NULL;
    for (int first = 0, end; list && first < s->n; first = end) {
        for (end = first; end < s->n && s->person[end] == s->person[first];)
            end++;
        for (int a = first; a < end; a++)
            for (int p = a + 1; p < end; p++)
                if (!opt->pair || opt->pair(opt->ctx, a, p))
                    list[n++] = (struct triplets_pair){a, p, first, end};
    }
    *n_pairs = (int)n;
    return list;
}

struct drawing {
    uint64_t *random;
    int n;
};

static void draw_ranks(void *ctx, int *counts)
{
    struct drawing *d = ctx;

    for (int i = 0; i < d->n; i++)
        if (counts[i] > 0)
            counts[i] = random_below(d->random, counts[i]);
}

/* 1: it has no room for this; nothing was drawn. */
static int select_there(struct selection *s, const float *x, int dim,
                        struct error *err)
{
    struct device *dev = s->opt->device;
    struct drawing drawing = {.random = s->random};
    struct triplets_pair *pairs = list_pairs(s, &drawing.n);
    float *square = tensor_alloc((size_t)s->n + 1);
    struct triplets_ask ask = {.x = x,
                               .squares = square,
                               .n = s->n,
                               .dim = dim,
                               .pairs = pairs,
                               .n_pairs = drawing.n,
                               .alpha = s->opt->alpha,
                               .beyond = s->opt->choice == TRIPLET_FACENET,
                               .draw = draw_ranks,
                               .ctx = &drawing};
    struct error why;
    uint64_t random = *s->random;
    int rc = 1;

    ask.negatives = malloc(((size_t)drawing.n + 1) * sizeof(*ask.negatives));
    if (pairs && square && ask.negatives) {
        squares(x, s->n, dim, square);
        rc = drawing.n ? dev->backend->triplets(dev, &ask, &why) : 0;
        if (rc && why.code != ERR_NOMEM)
            *err = why;
        else if (rc)
            rc = 1;
    }
    if (rc)
        *s->random = random;
    for (int i = 0; rc == 0 && i < drawing.n; i++)
        if (ask.negatives[i] >= 0 &&
            push(s, (struct triplet){pairs[i].a, pairs[i].p, ask.negatives[i]}))
            rc = error_set(err, ERR_NOMEM, "no memory for %zu triplets",
                           s->n_out);
    free(ask.negatives);
    free(square);
    free(pairs);
    return rc;
}

/* ---- both -----------------------------------------------------------------
 */

static void shuffle(struct selection *s)
{
    for (size_t i = s->n_out; i > 1; i--) {
        size_t k = (size_t)random_below(s->random, (int)i);
        struct triplet t = s->out[i - 1];

        s->out[i - 1] = s->out[k];
        s->out[k] = t;
    }
}

int triplet_select(const float *embeddings, const int *person, int n, int dim,
                   const struct triplet_options *opt, uint64_t *random,
                   struct triplet **out, int *n_out, struct error *err)
{
    struct selection s = {
        .opt = opt, .random = random, .person = person, .n = n};
    int rc = 1;

    *out = NULL;
    *n_out = 0;
    if (opt->device && opt->device->backend->triplets && !opt->old)
        rc = select_there(&s, embeddings, dim, err);
    if (rc > 0)
        rc = select_here(&s, embeddings, dim, err);
    if (!rc) {
        shuffle(&s);
        *out = s.out;
        *n_out = (int)s.n_out;
        s.out = NULL;
    }
    free(s.out);
    free(s.allowed);
    return rc;
}

/* ---- losses
 * -------------------------------------------------------------------- */

static double square_distance(const float *x, const float *y, int dim)
{
    double sum = 0;

    for (int k = 0; k < dim; k++)
        sum += ((double)x[k] - y[k]) * ((double)x[k] - y[k]);
    return sum;
}

double triplet_loss(const float *rows, int n_triplets, int dim, float alpha,
                    const bool *fixed, float *grad, int *active)
{
    float part = 2 / (float)(n_triplets > 0 ? n_triplets : 1);
    size_t w = (size_t)dim;
    double sum = 0;

    *active = 0;
    memset(grad, 0, 3 * (size_t)n_triplets * w * sizeof(*grad));
    for (int t = 0; t < n_triplets; t++) {
        const float *a = rows + 3 * (size_t)t * w, *p = a + w, *n = p + w;
        float *ga = grad + 3 * (size_t)t * w, *gp = ga + w, *gn = gp + w;
        double loss = square_distance(a, p, dim) - square_distance(a, n, dim) +
                      (double)alpha;

        if (loss <= 0) /* NaN is passed on */
            continue;
        sum += loss;
        ++*active;
        for (int k = 0; k < dim; k++) {
            ga[k] = part * (n[k] - p[k]);
            gp[k] = part * (p[k] - a[k]);
            gn[k] = part * (a[k] - n[k]);
        }
        for (int i = 0; fixed && i < 3; i++)
            if (fixed[3 * t + i])
                memset(ga + (size_t)i * w, 0, w * sizeof(*ga));
    }
    return n_triplets > 0 ? sum / n_triplets : 0;
}

double triplet_distill(const float *student, const float *teacher, int n,
                       int dim, float *grad)
{
    size_t all = (size_t)n * (size_t)dim;
    float part = 2 / (float)(n > 0 ? n : 1);
    double sum = 0;

    for (size_t i = 0; i < all; i++) {
        double d = (double)student[i] - teacher[i];

        sum += d * d;
        grad[i] = part * (float)d;
    }
    return n > 0 ? sum / n : 0;
}

/* Shorter vectors than this have no direction: they become, and pass back,
 * nothing. (TensorFlow's l2_normalize: 1e-10 of the squared length.) */
static const double shortest = 1e-5;

static double row_length(const float *x, int dim)
{
    double sum = 0;

    for (int k = 0; k < dim; k++)
        sum += (double)x[k] * x[k];
    return sqrt(sum);
}

void triplet_normalise(const float *x, int n, int dim, float *y)
{
    for (int i = 0; i < n; i++, x += dim, y += dim) {
        double length = row_length(x, dim);
        double scale = 1 / (length < shortest ? shortest : length);

        for (int k = 0; k < dim; k++)
            y[k] = (float)(x[k] * scale);
    }
}

void triplet_normalise_back(const float *x, const float *grad_y, int n, int dim,
                            float *grad_x)
{
    for (int i = 0; i < n; i++, x += dim, grad_y += dim, grad_x += dim) {
        double length = row_length(x, dim), along = 0;
        bool flat = length < shortest; /* scaled by a constant */

        if (flat)
            length = shortest;
        for (int k = 0; k < dim && !flat; k++)
            along += (double)grad_y[k] * x[k];
        along /= length * length;
        for (int k = 0; k < dim; k++)
            grad_x[k] = (float)((grad_y[k] - along * x[k]) / length);
    }
}

double triplet_spread(const float *y, int n, int dim)
{
    double squared = 0, mean = 0;

    if (n < 2)
        return 0;
    /* Sum over pairs |x - y|^2 = n sum |x|^2 - |sum x|^2. */
    for (int k = 0; k < dim; k++) {
        double sum = 0;

        for (int i = 0; i < n; i++) {
            double v = y[(size_t)i * (size_t)dim + (size_t)k];

            sum += v;
            squared += v * v;
        }
        mean += sum * sum;
    }
    return 2 * (n * squared - mean) / ((double)n * (n - 1));
}
