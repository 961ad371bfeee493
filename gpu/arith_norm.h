/* gpu/arith_norm.h - what has numbers of its own for each channel, in networks
 * that learn: batch norm there and back, the ways back of PReLU, of affine and
 * of arithmetic with one number. Meaning: core/engine/op_train_norm.c.
 * A row is a pixel. Sums down the rows: the rows are cut into parts; a part is
 * the work of a block, whose threads each take an eight of channels and every
 * lanes-th row, and are then joined two by two; parts are joined in the same
 * way. How all is cut follows from the shape alone, so that sums repeat bit
 * for bit. One set of functions for a thread's part, to be called in the same
 * order by learn_kernels.cu and by tests. */
#ifndef GPU_ARITH_NORM_H
#define GPU_ARITH_NORM_H

#include "gpu/arith_ops.h"

enum {
    ARITH_TEAM = 256,  /* threads of a block */
    ARITH_WIDE = 32,   /* eights of channels that a block looks at, at most */
    ARITH_DEEP = 8,    /* rows of a thread, at least, where there are parts */
    ARITH_PARTS = 512, /* blocks, about: a large card has half a thousand busy
                          at a time */
    ARITH_SUMS = 3     /* for each channel, at most */
};

/* Loads of some rows ahead. */
#ifdef __CUDA_ARCH__
#define ARITH_AHEAD _Pragma("unroll 4")
#else
#define ARITH_AHEAD
#endif

struct arith_cut {
    uint32_t rows;
    int c;
    int eights; /* of channels, that a block looks at */
    int lanes;  /* threads that share an eight's rows */
    int groups; /* blocks side by side, for all channels */
    int parts;
};

ARITH struct arith_cut arith_cut(uint32_t rows, int c)
{
    int all = arith_padded(c) / ARITH_LANES;
    struct arith_cut cut;
    uint32_t parts;

    cut.rows = rows;
    cut.c = c;
    cut.groups = (all + ARITH_WIDE - 1) / ARITH_WIDE;
    cut.eights = (all + cut.groups - 1) / cut.groups;
    cut.lanes = ARITH_TEAM / cut.eights;
    parts = rows / (uint32_t)(cut.lanes * ARITH_DEEP);
    cut.parts = ARITH_PARTS / cut.groups;
    if (cut.parts < 1)
        cut.parts = 1;
    if (parts < (uint32_t)cut.parts)
        cut.parts = parts ? (int)parts : 1;
    return cut;
}

/* The first row of a part; of the one after the last: the count. */
ARITH uint32_t arith_cut_row(const struct arith_cut *cut, int part)
{
    return (uint32_t)((uint64_t)cut->rows * (uint64_t)part /
                      (uint64_t)cut->parts);
}

/* ---- batch norm, row by row -------------------------------------------- */

/* Vectors are [c], f32, padded. */
struct arith_norm {
    struct nhwc x, y; /* forward */
    struct nhwc d, dx;
    bool fresh;
    struct arith_cut cut;
    const float *gamma, *beta;
    const float *slope;    /* of a PReLU that follows */
    const float *given[2]; /* mean and variance that are not the batch's */
    /* Kept between the two passes: mean, 1 / deviation, gamma / deviation;
     * backward: means of d and, by deviation, of d * normalised x, where the
     * statistics are the batch's. */
    float *mean, *inverse, *scale, *sum, *along;
    float *running[2]; /* mean and variance that move; NULL: none */
    float epsilon, momentum;
    bool batch; /* statistics of the batch */
    int then;   /* ARITH_NONE, ARITH_RELU, ARITH_PRELU */
};

/* Of eight channels. */
struct arith_eight {
    float mean[8], scale[8], beta[8], slope[8], sum[8], along[8];
};

ARITH void arith_norm_eight(const struct arith_norm *a, int c0, int then,
                            bool back, struct arith_eight *e)
{
    arith_vector(a->mean, c0, e->mean);
    arith_vector(a->scale, c0, e->scale);
    arith_vector(a->beta, c0, e->beta);
    for (int k = 0; k < 8; k++)
        e->slope[k] = e->sum[k] = e->along[k] = 0;
    if (then == ARITH_PRELU)
        arith_vector(a->slope, c0, e->slope);
    if (back && a->batch) {
        arith_vector(a->sum, c0, e->sum);
        arith_vector(a->along, c0, e->along);
    }
}

/* The same words forward and backward, so that the same numbers pass. */
ARITH float arith_normalised(const struct arith_eight *e, float x, int k)
{
    return (x - e->mean[k]) * e->scale[k] + e->beta[k];
}

/* d by what batch norm itself gave, whose value is f. */
ARITH float arith_norm_before(const struct arith_eight *e, float f, float d,
                              int k, int then)
{
    if (then == ARITH_RELU)
        return f > 0 ? d : 0;
    if (then == ARITH_PRELU)
        return f > 0 ? d : d * e->slope[k];
    return d;
}

ARITH void arith_norm_forward(const struct arith_norm *a,
                              const struct arith_eight *e, uint32_t row, int c0,
                              int type, int then)
{
    float v[8];

    arith_load(a->x.p, row * (uint32_t)a->x.pitch + (uint32_t)c0, type, v);
    for (int k = 0; k < 8; k++) {
        float f = arith_normalised(e, v[k], k);

        if (then == ARITH_RELU)
            f = f > 0 ? f : 0;
        if (then == ARITH_PRELU)
            f = f > 0 ? f : e->slope[k] * f;
        v[k] = f;
    }
    arith_store(a->y.p, row * (uint32_t)a->y.pitch + (uint32_t)c0, type, v, c0,
                a->y.c);
}

/* g to, or onto, eight numbers of a loss. */
ARITH void arith_give(const struct nhwc *dx, uint32_t pixel, int c0, int type,
                      float g[], bool fresh)
{
    uint32_t at = pixel * (uint32_t)dx->pitch + (uint32_t)c0;
    float v[8];

    if (!fresh) {
        arith_load(dx->p, at, type, v);
        for (int k = 0; k < 8; k++)
            g[k] += v[k];
    }
    arith_store(dx->p, at, type, g, c0, dx->c);
}

ARITH void arith_norm_backward(const struct arith_norm *a,
                               const struct arith_eight *e, uint32_t row,
                               int c0, int type, int then)
{
    float x[8], d[8];

    arith_load(a->x.p, row * (uint32_t)a->x.pitch + (uint32_t)c0, type, x);
    arith_load(a->d.p, row * (uint32_t)a->d.pitch + (uint32_t)c0, type, d);
    for (int k = 0; k < 8; k++) {
        float f = arith_normalised(e, x[k], k);
        float b = arith_norm_before(e, f, d[k], k, then) - e->sum[k];

        d[k] = e->scale[k] * (b - (x[k] - e->mean[k]) * e->along[k]);
    }
    arith_give(&a->dx, row, c0, type, d, a->fresh);
}

/* Statistics that are given, eight channels. */
ARITH void arith_norm_rest(const struct arith_norm *a, int c0)
{
    for (int c = c0; c < c0 + ARITH_LANES; c++) {
        a->mean[c] = a->given[0][c];
        a->inverse[c] = 1 / sqrtf(a->given[1][c] + a->epsilon);
        a->scale[c] = a->inverse[c] * a->gamma[c];
    }
}

/* ---- sums down the rows ------------------------------------------------ */

enum arith_sum_kind {
    ARITH_MOMENTS,     /* of x: mean, sum of squared distances from it */
    ARITH_NORM_BACK,   /* d (x - mean), d, and for the slope */
    ARITH_PRELU_BACK,  /* for the slope; dx too */
    ARITH_AFFINE_BACK, /* for scale and shift; dx too */
    ARITH_SCALAR_BACK  /* for one number that every x was combined with */
};

struct arith_channels {
    int kind;
    struct nhwc x;  /* .p NULL where mode is ARITH_ADD or ARITH_SUB */
    struct nhwc d;  /* loss by the result */
    struct nhwc dx; /* .p NULL: not wanted, or written later (batch norm) */
    bool fresh_x;
    const float *scale; /* slope or scale, or the one number, repeated */
    int with;           /* of one number: enum arith_with */
    struct arith_norm norm;
    struct arith_cut cut;
    float *parts; /* [parts][sums][c], c padded */
    /* Where sum i goes; NULL: not wanted. one: all channels' sum, repeated. */
    float *grad[ARITH_SUMS];
    bool fresh[ARITH_SUMS];
    bool one;
};

/* Of eight channels. (An odd number of words, for the card's banks.) */
struct arith_sums {
    float n; /* rows */
    float v[ARITH_SUMS * ARITH_LANES];
};

ARITH int arith_sum_count(int kind, int then)
{
    if (kind == ARITH_NORM_BACK)
        return then == ARITH_PRELU ? 3 : 2;
    return kind == ARITH_MOMENTS || kind == ARITH_AFFINE_BACK ? 2 : 1;
}

/* b's rows join a's. Moments: Chan, Golub, LeVeque 1979, eq. 2.1. */
ARITH void arith_sums_join(struct arith_sums *a, const struct arith_sums *b,
                           int kind, int then)
{
    float share, weight;

    if (kind != ARITH_MOMENTS) {
        for (int i = 0; i < arith_sum_count(kind, then) * ARITH_LANES; i++)
            a->v[i] += b->v[i];
        return;
    }
    if (b->n == 0)
        return;
    share = b->n / (a->n + b->n);
    weight = a->n * share;
    for (int k = 0; k < 8; k++) {
        float d = b->v[k] - a->v[k];

        a->v[k] += d * share;
        a->v[8 + k] += b->v[8 + k] + d * d * weight;
    }
    a->n += b->n;
}

ARITH void arith_sums_clear(struct arith_sums *s)
{
    s->n = 0;
    for (int i = 0; i < ARITH_SUMS * ARITH_LANES; i++)
        s->v[i] = 0;
}

/* As distances from the thread's own first row: however large the mean, what
 * is lost is at most as many roundings as the thread has rows. */
ARITH void arith_moments(const struct nhwc *x, uint32_t from, uint32_t end,
                         uint32_t step, int c0, int type, struct arith_sums *s)
{
    float first[8];

    if (from >= end)
        return;
    arith_load(x->p, from * (uint32_t)x->pitch + (uint32_t)c0, type, first);
    s->n = 1;
    ARITH_AHEAD
    for (uint32_t row = from + step; row < end; row += step) {
        float v[8];

        arith_load(x->p, row * (uint32_t)x->pitch + (uint32_t)c0, type, v);
        for (int k = 0; k < 8; k++) {
            float d = v[k] - first[k];

            s->v[k] += d;
            s->v[8 + k] += d * d;
        }
        s->n += 1;
    }
    for (int k = 0; k < 8; k++) {
        float mean = s->v[k] / s->n, square = s->v[8 + k] - s->v[k] * mean;

        s->v[8 + k] = square > 0 ? square : 0;
        s->v[k] = first[k] + mean;
    }
}

ARITH void arith_pulls(const struct arith_norm *a, uint32_t from, uint32_t end,
                       uint32_t step, int c0, int type, int then,
                       struct arith_sums *s)
{
    struct arith_eight e;

    arith_norm_eight(a, c0, then, false, &e);
    ARITH_AHEAD
    for (uint32_t row = from; row < end; row += step) {
        float x[8], d[8];

        arith_load(a->x.p, row * (uint32_t)a->x.pitch + (uint32_t)c0, type, x);
        arith_load(a->d.p, row * (uint32_t)a->d.pitch + (uint32_t)c0, type, d);
        for (int k = 0; k < 8; k++) {
            float f = arith_normalised(&e, x[k], k);
            float b = arith_norm_before(&e, f, d[k], k, then);

            s->v[k] += b * (x[k] - e.mean[k]);
            s->v[8 + k] += b;
            if (then == ARITH_PRELU)
                s->v[16 + k] += f > 0 ? 0 : d[k] * f;
        }
    }
}

/* PReLU and affine: the loss by x in the same pass. */
ARITH void arith_channel_back(const struct arith_channels *a, uint32_t from,
                              uint32_t end, uint32_t step, int c0, int type,
                              int kind, struct arith_sums *s)
{
    float scale[8];

    arith_vector(a->scale, c0, scale);
    for (uint32_t row = from; row < end; row += step) {
        float x[8], d[8];

        arith_load(a->x.p, row * (uint32_t)a->x.pitch + (uint32_t)c0, type, x);
        arith_load(a->d.p, row * (uint32_t)a->d.pitch + (uint32_t)c0, type, d);
        for (int k = 0; k < 8; k++) {
            bool own = kind == ARITH_PRELU_BACK && x[k] > 0;

            s->v[k] += own ? 0 : d[k] * x[k];
            s->v[8 + k] += d[k];
            d[k] = own ? d[k] : d[k] * scale[k];
        }
        if (a->dx.p)
            arith_give(&a->dx, row, c0, type, d, a->fresh_x);
    }
}

ARITH void arith_scalar_back(const struct arith_channels *a, uint32_t from,
                             uint32_t end, uint32_t step, int c0, int type,
                             struct arith_sums *s)
{
    bool reads = a->with == ARITH_MUL || a->with == ARITH_DIV;
    float b = a->with == ARITH_DIV ? a->scale[0] : 1;
    float factor = a->with == ARITH_SUB   ? -1
                   : a->with == ARITH_DIV ? -1 / (b * b)
                                          : 1;

    for (uint32_t row = from; row < end; row += step) {
        float x[8], d[8];

        arith_load(a->d.p, row * (uint32_t)a->d.pitch + (uint32_t)c0, type, d);
        if (reads)
            arith_load(a->x.p, row * (uint32_t)a->x.pitch + (uint32_t)c0, type,
                       x);
        for (int k = 0; k < 8; k++)
            s->v[k] += d[k] * factor * (reads ? x[k] : 1);
    }
}

/* What thread `lane` of those that share eight channels finds in a part. */
ARITH void arith_sums_lane(const struct arith_channels *a, int part, int lane,
                           int c0, int type, int kind, int then,
                           struct arith_sums *s)
{
    uint32_t from = arith_cut_row(&a->cut, part) + (uint32_t)lane;
    uint32_t end = arith_cut_row(&a->cut, part + 1);
    uint32_t step = (uint32_t)a->cut.lanes;

    arith_sums_clear(s);
    if (kind == ARITH_MOMENTS)
        arith_moments(&a->x, from, end, step, c0, type, s);
    else if (kind == ARITH_NORM_BACK)
        arith_pulls(&a->norm, from, end, step, c0, type, then, s);
    else if (kind == ARITH_SCALAR_BACK)
        arith_scalar_back(a, from, end, step, c0, type, s);
    else
        arith_channel_back(a, from, end, step, c0, type, kind, s);
}

ARITH float *arith_sums_at(const struct arith_channels *a, int part, int i,
                           int c0, int kind, int then)
{
    int row = part * arith_sum_count(kind, then) + i;

    return a->parts + (size_t)row * (size_t)arith_padded(a->cut.c) + c0;
}

ARITH void arith_sums_store(const struct arith_channels *a, int part, int c0,
                            int kind, int then, const struct arith_sums *s)
{
    for (int i = 0; i < arith_sum_count(kind, then); i++)
        arith_store(arith_sums_at(a, part, i, c0, kind, then), 0, GTYPE_F32,
                    s->v + i * ARITH_LANES, 0, ARITH_LANES);
}

/* ---- parts to their sum, and what becomes of it -------------------------- */

/* Every lanes-th part of eight channels; of all channels, where they have one
 * number. */
ARITH void arith_sums_gather(const struct arith_channels *a, int eight,
                             int lane, int lanes, int kind, int then,
                             struct arith_sums *s)
{
    int c0 = eight * ARITH_LANES;
    int end = a->one ? arith_padded(a->cut.c) : c0 + ARITH_LANES;

    arith_sums_clear(s);
    for (; c0 < end; c0 += ARITH_LANES)
        for (int p = lane; p < a->cut.parts; p += lanes) {
            struct arith_sums b;

            arith_sums_clear(&b);
            b.n = (float)(arith_cut_row(&a->cut, p + 1) -
                          arith_cut_row(&a->cut, p));
            for (int i = 0; i < arith_sum_count(kind, then); i++)
                arith_vector(arith_sums_at(a, p, i, 0, kind, then), c0,
                             b.v + i * ARITH_LANES);
            arith_sums_join(s, &b, kind, then);
        }
}

/* The batch's moments, and the running ones; biased, as in op_train_norm.c.
 * Those of padding, all of whose numbers are 0, stay 0. */
ARITH void arith_norm_measured(const struct arith_norm *a, int c0,
                               const struct arith_sums *s)
{
    float keep = a->momentum, take = 1 - a->momentum;

    for (int k = 0; k < 8; k++) {
        int c = c0 + k;
        float var = s->v[8 + k] / (float)a->cut.rows;

        a->mean[c] = s->v[k];
        a->inverse[c] = 1 / sqrtf(var + a->epsilon);
        a->scale[c] = a->inverse[c] * a->gamma[c];
        if (a->running[0])
            a->running[0][c] = keep * a->running[0][c] + take * s->v[k];
        if (a->running[1])
            a->running[1][c] = keep * a->running[1][c] + take * var;
    }
}

/* From the sum of all rows, eight channels; of one number, all. */
ARITH void arith_sums_finish(const struct arith_channels *a, int eight,
                             int kind, int then, struct arith_sums *s)
{
    int c0 = eight * ARITH_LANES, end = c0 + ARITH_LANES;
    float rows = (float)a->cut.rows;

    if (kind == ARITH_MOMENTS) {
        arith_norm_measured(&a->norm, c0, s);
        return;
    }
    if (kind == ARITH_NORM_BACK)
        for (int k = 0; k < 8; k++) {
            float inverse = a->norm.inverse[c0 + k];

            s->v[k] *= inverse;
            a->norm.sum[c0 + k] = s->v[8 + k] / rows;
            a->norm.along[c0 + k] = s->v[k] / rows * inverse;
        }
    if (a->one) {
        for (int k = 1; k < 8; k++)
            s->v[0] += s->v[k];
        end = arith_padded(a->cut.c);
    }
    for (int i = 0; i < arith_sum_count(kind, then); i++)
        for (int c = c0; c < end && a->grad[i]; c++) {
            float g = c < a->cut.c ? s->v[i * 8 + (a->one ? 0 : c - c0)] : 0;

            a->grad[i][c] = a->fresh[i] ? g : a->grad[i][c] + g;
        }
}

#endif
