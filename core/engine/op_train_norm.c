/* core/engine/op_train_norm.c - batch norm, PReLU and affine: what has numbers
 * of its own for each channel. Bound by memory: forward reads x twice and
 * writes y, backward reads x and the gradient twice and writes one. Sums are
 * taken block by block of what the cache holds, then over the blocks of a
 * part, then over the parts, so that f32 does not lose the last of many. */
#include "core/engine/op_train_priv.h"

#include <math.h>
#include <string.h>

/* ---- batch norm: what is kept --------------------------------------- */

enum {
    SUMS = 3,            /* at most, [c] each */
    PART_ROWS = 2 * SUMS /* of a part, and of its block */
};
/* What follows in the same pass. */
enum then {
    THEN_NOTHING,
    THEN_RELU,
    THEN_PRELU
};

struct norm {
    size_t c;
    float *mean, *inverse; /* of the batch, or the running ones */
    float *scale;          /* gamma * inverse */
    float *sum, *along;    /* backward: means of d and of d * normalised x */
    float *parts;          /* [OP_PARTS][PART_ROWS][c] */
    const float *beta, *slope;
    enum then then;
};

size_t op_train_norm_state(size_t c)
{
    return (5 + OP_PARTS * PART_ROWS) * c;
}

static struct norm norm_of(const struct op_run *r)
{
    size_t c = (size_t)r->shape_in[0].d[1];
    float *s = r->state;

    return (struct norm){.c = c,
                         .mean = s,
                         .inverse = s + c,
                         .scale = s + 2 * c,
                         .sum = s + 3 * c,
                         .along = s + 4 * c,
                         .parts = s + 5 * c,
                         .beta = r->in[2],
                         .slope = r->n_in > 5 ? r->in[5] : NULL,
                         .then = r->n_in > 5 ? THEN_PRELU
                                 : r->relu   ? THEN_RELU
                                             : THEN_NOTHING};
}

static bool batch_statistics(const struct op_run *r)
{
    return !r->rest && !r->freeze_norm;
}

/* Rows of a block. */
static size_t block_rows(size_t c)
{
    return c < OP_CHUNK ? OP_CHUNK / c : 1;
}

/* ---- batch norm forward --------------------------------------------- */

/* Mean, and sum of squared distances from it, of a block: twice over what the
 * first pass has brought into the cache. */
OP_WIDE static void moments(const float *x, size_t rows, size_t c, float *mean,
                            float *square)
{
    float part = 1 / (float)rows;
    size_t i = 0;

    memset(mean, 0, c * sizeof(*mean));
    memset(square, 0, c * sizeof(*square));
    for (; i + 4 <= rows; i += 4) {
        const float *a = x + i * c, *b = a + c, *p = b + c, *q = p + c;
#pragma GCC ivdep
        for (size_t k = 0; k < c; k++)
            mean[k] += (a[k] + b[k]) + (p[k] + q[k]);
    }
    for (; i < rows; i++)
#pragma GCC ivdep
        for (size_t k = 0; k < c; k++)
            mean[k] += x[i * c + k];
    for (size_t k = 0; k < c; k++)
        mean[k] *= part;
    for (i = 0; i + 2 <= rows; i += 2) {
        const float *a = x + i * c, *b = a + c;
#pragma GCC ivdep
        for (size_t k = 0; k < c; k++) {
            float d = a[k] - mean[k], e = b[k] - mean[k];

            square[k] += d * d + e * e;
        }
    }
    for (; i < rows; i++)
#pragma GCC ivdep
        for (size_t k = 0; k < c; k++) {
            float d = x[i * c + k] - mean[k];

            square[k] += d * d;
        }
}

/* Moments of two sets as those of their union (Chan, Golub, LeVeque 1979,
 * eq. 2.1): n rows join the first `had`. */
OP_WIDE static void join(float *mean, float *square, size_t had,
                         const float *mean2, const float *square2, size_t n,
                         size_t c)
{
    float share = (float)n / (float)(had + n), weight = (float)had * share;
#pragma GCC ivdep
    for (size_t k = 0; k < c; k++) {
        float d = mean2[k] - mean[k];

        mean[k] += d * share;
        square[k] += square2[k] + d * d * weight;
    }
}

static void part_moments(const struct op_run *r, const struct norm *v,
                         size_t from, size_t end, float *out)
{
    size_t c = v->c, step = block_rows(c);
    float *mean = out, *square = mean + c, *mean2 = square + c;
    float *square2 = mean2 + c;

    memset(out, 0, 2 * c * sizeof(*out));
    for (size_t i = from; i < end; i += step) {
        size_t n = end - i < step ? end - i : step;

        moments(r->in[0] + i * c, n, c, mean2, square2);
        join(mean, square, i - from, mean2, square2, n, c);
    }
}

static void measure(const struct op_run *r, const struct norm *v, size_t rows)
{
    const struct op_norm *o = &r->op->u.norm;
    float keep = o->momentum, take = 1 - o->momentum;
    size_t c = v->c, stride = PART_ROWS * c;
    int parts = op_parts(rows * c);

#pragma omp parallel for schedule(static) if (parts > 1)
    for (int p = 0; p < parts; p++)
        part_moments(r, v, op_part(rows, p, parts), op_part(rows, p + 1, parts),
                     v->parts + (size_t)p * stride);
    for (size_t k = 0; k < c; k++) {
        double mean = 0, square = 0;

        for (int p = 0; p < parts; p++) {
            const float *m = v->parts + (size_t)p * stride + k;
            double had = (double)op_part(rows, p, parts);
            double n = (double)op_part(rows, p + 1, parts) - had;
            double d = (double)m[0] - mean;

            mean += d * n / (had + n);
            square += (double)m[c] + d * d * had * n / (had + n);
        }
        square /= (double)rows;
        v->mean[k] = (float)mean;
        v->inverse[k] = 1 / sqrtf((float)square + o->epsilon);
        if (r->mean)
            r->mean[k] = keep * r->mean[k] + take * (float)mean;
        if (r->var)
            r->var[k] = keep * r->var[k] + take * (float)square;
    }
}

/* The same words forward and backward, so that the same numbers pass. */
OP_BODY float normalised(const struct norm *v, float x, size_t k)
{
    return (x - v->mean[k]) * v->scale[k] + v->beta[k];
}

OP_BODY void normalise_body(const struct norm *v, const float *x, float *y,
                            size_t rows, enum then then)
{
    for (size_t i = 0; i < rows; i++, x += v->c, y += v->c)
#pragma GCC ivdep
        for (size_t k = 0; k < v->c; k++) {
            float f = normalised(v, x[k], k);

            if (then == THEN_RELU)
                f = f > 0 ? f : 0;
            if (then == THEN_PRELU)
                f = f > 0 ? f : v->slope[k] * f;
            y[k] = f;
        }
}

OP_WIDE static void normalise(const struct norm *v, const float *x, float *y,
                              size_t rows)
{
    const struct norm own = *v;

    if (own.then == THEN_RELU)
        normalise_body(&own, x, y, rows, THEN_RELU);
    else if (own.then == THEN_PRELU)
        normalise_body(&own, x, y, rows, THEN_PRELU);
    else
        normalise_body(&own, x, y, rows, THEN_NOTHING);
}

static void norm_forward_rows(struct op_run *r, size_t from, size_t end)
{
    struct norm v = norm_of(r);

    normalise(&v, r->in[0] + from * v.c, r->out + from * v.c, end - from);
}

static void norm_forward(struct op_run *r)
{
    struct op_grid g = op_grid(&r->shape_in[0]);
    struct norm v = norm_of(r);

    if (batch_statistics(r)) {
        measure(r, &v, g.rows);
    } else {
        for (size_t k = 0; k < v.c; k++) {
            v.mean[k] = r->in[3][k];
            v.inverse[k] = 1 / sqrtf(r->in[4][k] + r->op->u.norm.epsilon);
        }
    }
    for (size_t k = 0; k < v.c; k++)
        v.scale[k] = v.inverse[k] * r->in[1][k];
    op_chunks(r, g.rows, v.c, norm_forward_rows);
}

/* ---- batch norm backward ------------------------------------------------ */

/* d by what batch norm itself gave, whose value is f. */
OP_BODY float before(const struct norm *v, float f, float d, size_t k,
                     enum then then)
{
    if (then == THEN_RELU)
        return f > 0 ? d : 0;
    if (then == THEN_PRELU)
        return f > 0 ? d : d * v->slope[k];
    return d;
}

/* Over a block: sums of d, of d (x - mean), and for the slope. */
OP_BODY void pull_body(const struct norm *v, const float *x, const float *d,
                       size_t rows, float *sums, enum then then)
{
    size_t c = v->c;
    float *sum = sums, *along = sum + c, *slope = along + c;

    for (size_t i = 0; i < rows; i++, x += c, d += c)
#pragma GCC ivdep
        for (size_t k = 0; k < c; k++) {
            float f = normalised(v, x[k], k);
            float a = before(v, f, d[k], k, then);

            sum[k] += a;
            along[k] += a * (x[k] - v->mean[k]);
            if (then == THEN_PRELU)
                slope[k] += f > 0 ? 0 : d[k] * f;
        }
}

OP_WIDE static void pull(const struct norm *v, const float *x, const float *d,
                         size_t rows, float *sums)
{
    const struct norm own = *v;

    memset(sums, 0, SUMS * own.c * sizeof(*sums));
    if (own.then == THEN_RELU)
        pull_body(&own, x, d, rows, sums, THEN_RELU);
    else if (own.then == THEN_PRELU)
        pull_body(&own, x, d, rows, sums, THEN_PRELU);
    else
        pull_body(&own, x, d, rows, sums, THEN_NOTHING);
}

OP_WIDE static void add_to(float *to, const float *from, size_t n)
{
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++)
        to[i] += from[i];
}

static void part_pull(const struct op_run *r, const struct norm *v, size_t from,
                      size_t end, float *out)
{
    size_t c = v->c, step = block_rows(c);
    float *block = out + SUMS * c;

    memset(out, 0, SUMS * c * sizeof(*out));
    for (size_t i = from; i < end; i += step) {
        pull(v, r->in[0] + i * c, r->grad_out + i * c,
             end - i < step ? end - i : step, block);
        add_to(out, block, SUMS * c);
    }
}

/* The gradient of channel k's gamma, beta or slope: input i. */
static void give(const struct op_run *r, int i, size_t k, double sum)
{
    float *to = r->grad_in[i];

    if (to)
        to[k] = (r->fresh[i] ? 0 : to[k]) + (float)sum;
}

/* The gradients of gamma, beta and slope, and what the batch's mean and
 * deviation take from every pixel. */
static void pulls(const struct op_run *r, const struct norm *v, size_t rows)
{
    size_t c = v->c, stride = PART_ROWS * c;
    int parts = op_parts(rows * c);
    bool batch = batch_statistics(r);

#pragma omp parallel for schedule(static) if (parts > 1)
    for (int p = 0; p < parts; p++)
        part_pull(r, v, op_part(rows, p, parts), op_part(rows, p + 1, parts),
                  v->parts + (size_t)p * stride);
    for (size_t k = 0; k < c; k++) {
        double sum = 0, along = 0, slope = 0;

        for (int p = 0; p < parts; p++) {
            const float *own = v->parts + (size_t)p * stride + k;

            sum += (double)own[0];
            along += (double)own[c];
            slope += (double)own[2 * c];
        }
        along *= (double)v->inverse[k];
        give(r, 1, k, along);
        give(r, 2, k, sum);
        if (v->then == THEN_PRELU)
            give(r, 5, k, slope);
        v->sum[k] = batch ? (float)(sum / (double)rows) : 0;
        v->along[k] = batch ? (float)(along / (double)rows) * v->inverse[k] : 0;
    }
}

OP_BODY void push_body(const struct norm *v, const float *x, const float *d,
                       float *dx, size_t rows, enum then then, bool fresh)
{
    size_t c = v->c;

    for (size_t i = 0; i < rows; i++, x += c, d += c, dx += c)
#pragma GCC ivdep
        for (size_t k = 0; k < c; k++) {
            float f = normalised(v, x[k], k);
            float a = before(v, f, d[k], k, then) - v->sum[k];
            float g = v->scale[k] * (a - (x[k] - v->mean[k]) * v->along[k]);

            dx[k] = fresh ? g : dx[k] + g;
        }
}

OP_WIDE static void push(const struct norm *v, const float *x, const float *d,
                         float *dx, size_t rows, bool fresh)
{
    const struct norm own = *v;

    if (own.then == THEN_RELU && fresh)
        push_body(&own, x, d, dx, rows, THEN_RELU, true);
    else if (own.then == THEN_RELU)
        push_body(&own, x, d, dx, rows, THEN_RELU, false);
    else if (own.then == THEN_PRELU && fresh)
        push_body(&own, x, d, dx, rows, THEN_PRELU, true);
    else if (own.then == THEN_PRELU)
        push_body(&own, x, d, dx, rows, THEN_PRELU, false);
    else if (fresh)
        push_body(&own, x, d, dx, rows, THEN_NOTHING, true);
    else
        push_body(&own, x, d, dx, rows, THEN_NOTHING, false);
}

static void norm_backward_rows(struct op_run *r, size_t from, size_t end)
{
    struct norm v = norm_of(r);
    size_t at = from * v.c;

    push(&v, r->in[0] + at, r->grad_out + at, r->grad_in[0] + at, end - from,
         r->fresh[0]);
}

static void norm_backward(struct op_run *r)
{
    struct op_grid g = op_grid(&r->shape_in[0]);
    struct norm v = norm_of(r);

    if (batch_statistics(r) || r->grad_in[1] || r->grad_in[2] ||
        (v.then == THEN_PRELU && r->grad_in[5])) {
        pulls(r, &v, g.rows);
    } else {
        memset(v.sum, 0, v.c * sizeof(*v.sum));
        memset(v.along, 0, v.c * sizeof(*v.along));
    }
    if (r->grad_in[0])
        op_chunks(r, g.rows, v.c, norm_backward_rows);
}

void op_train_norm(struct op_run *r, bool forward)
{
    (forward ? norm_forward : norm_backward)(r);
}

/* ---- PReLU and affine --------------------------------------------------- */

/* One slope or scale for all channels, or one for each: seen as rows of one
 * period. A period of one number is made into a row of all channels by a
 * copy, and its gradient summed at the end. */
enum {
    CHANNEL_ROWS = 4 /* [c] each: a part's gradients of slope and shift, a
                        block's */
};

size_t op_train_channel_state(size_t c)
{
    return (1 + OP_PARTS * CHANNEL_ROWS) * c;
}

OP_BODY void channel_forward_body(const float *x, const float *s,
                                  const float *shift, float *y, size_t rows,
                                  size_t c, bool prelu)
{
    for (size_t i = 0; i < rows; i++, x += c, y += c)
#pragma GCC ivdep
        for (size_t k = 0; k < c; k++) {
            float f = s[k] * x[k] + (prelu ? 0 : shift[k]);

            y[k] = prelu && x[k] > 0 ? x[k] : f;
        }
}

OP_WIDE static void prelu_forward(const float *x, const float *s, float *y,
                                  size_t rows, size_t c)
{
    channel_forward_body(x, s, NULL, y, rows, c, true);
}

OP_WIDE static void affine_forward(const float *x, const float *s,
                                   const float *shift, float *y, size_t rows,
                                   size_t c)
{
    channel_forward_body(x, s, shift, y, rows, c, false);
}

static void channel_forward_rows(struct op_run *r, size_t from, size_t end)
{
    size_t c = (size_t)op_grid(&r->shape_in[0]).c, at = from * c;

    if (r->op->type == OP_PRELU)
        prelu_forward(r->in[0] + at, r->state, r->out + at, end - from, c);
    else
        affine_forward(r->in[0] + at, r->state, r->in[2], r->out + at,
                       end - from, c);
}

/* Of a block: the gradient of x, and the sums for slope and shift. */
OP_BODY void channel_back_body(const float *x, const float *s, const float *d,
                               float *dx, float *ds, float *dshift, size_t rows,
                               size_t c, bool prelu, bool fresh)
{
    for (size_t i = 0; i < rows; i++, x += c, d += c, dx += c)
#pragma GCC ivdep
        for (size_t k = 0; k < c; k++) {
            bool own = prelu && x[k] > 0;
            float g = d[k] * (own ? 1 : s[k]), e = d[k];

            ds[k] += own ? 0 : e * x[k];
            if (!prelu)
                dshift[k] += e;
            dx[k] = fresh ? g : dx[k] + g;
        }
}

OP_WIDE static void channel_back(const float *x, const float *s, const float *d,
                                 float *dx, float *sums, size_t rows, size_t c,
                                 bool prelu, bool fresh)
{
    if (prelu && fresh)
        channel_back_body(x, s, d, dx, sums, NULL, rows, c, true, true);
    else if (prelu)
        channel_back_body(x, s, d, dx, sums, NULL, rows, c, true, false);
    else if (fresh)
        channel_back_body(x, s, d, dx, sums, sums + c, rows, c, false, true);
    else
        channel_back_body(x, s, d, dx, sums, sums + c, rows, c, false, false);
}

/* The sums alone, where no gradient of x is wanted. */
OP_WIDE static void channel_sums(const float *x, const float *d, float *sums,
                                 size_t rows, size_t c, bool prelu)
{
    for (size_t i = 0; i < rows; i++, x += c, d += c)
#pragma GCC ivdep
        for (size_t k = 0; k < c; k++) {
            sums[k] += prelu && x[k] > 0 ? 0 : d[k] * x[k];
            sums[c + k] += d[k];
        }
}

static void channel_part(const struct op_run *r, size_t c, size_t from,
                         size_t end, float *out)
{
    size_t step = block_rows(c);
    float *block = out + 2 * c;
    bool prelu = r->op->type == OP_PRELU;

    memset(out, 0, 2 * c * sizeof(*out));
    for (size_t i = from; i < end; i += step) {
        size_t n = end - i < step ? end - i : step;
        const float *x = r->in[0] + i * c, *d = r->grad_out + i * c;

        memset(block, 0, 2 * c * sizeof(*block));
        if (r->grad_in[0])
            channel_back(x, r->state, d, r->grad_in[0] + i * c, block, n, c,
                         prelu, r->fresh[0]);
        else
            channel_sums(x, d, block, n, c, prelu);
        add_to(out, block, 2 * c);
    }
}

/* Gradients of slope (or scale) and shift from the parts' sums. */
static void channel_gather(const struct op_run *r, size_t c, int parts, int k)
{
    bool one = shape_count(&r->shape_in[k]) == 1;
    float *to = r->grad_in[k];
    double sum = 0;

    if (!to)
        return;
    for (size_t i = 0; i < c; i++) {
        if (!one)
            sum = 0;
        for (int p = 0; p < parts; p++)
            sum += (double)r->state[c + (size_t)p * CHANNEL_ROWS * c +
                                    (k == 2 ? c : 0) + i];
        if (!one || i == c - 1) {
            size_t at = one ? 0 : i;

            to[at] = (r->fresh[k] ? 0 : to[at]) + (float)sum;
        }
    }
}

static void channel_backward(struct op_run *r)
{
    struct op_grid g = op_grid(&r->shape_in[0]);
    size_t c = (size_t)g.c;
    int parts = op_parts(g.rows * c);

#pragma omp parallel for schedule(static) if (parts > 1)
    for (int p = 0; p < parts; p++)
        channel_part(r, c, op_part(g.rows, p, parts),
                     op_part(g.rows, p + 1, parts),
                     r->state + c + (size_t)p * CHANNEL_ROWS * c);
    channel_gather(r, c, parts, 1);
    if (r->op->type == OP_AFFINE)
        channel_gather(r, c, parts, 2);
}

void op_train_channel(struct op_run *r, bool forward)
{
    struct op_grid g = op_grid(&r->shape_in[0]);
    bool one = shape_count(&r->shape_in[1]) == 1;

    for (int k = 0; k < g.c; k++)
        r->state[k] = r->in[1][one ? 0 : k];
    if (forward)
        op_chunks(r, g.rows, (size_t)g.c, channel_forward_rows);
    else
        channel_backward(r);
}
