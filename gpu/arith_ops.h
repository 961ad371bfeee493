/* gpu/arith_ops.h - what every kernel of our own computes: one args struct and
 * one function of its i-th piece each, see arith.h. All sums are f32.
 * `type` is what arrays hold; vectors of parameters are f32, padded to eight.
 * Convolutions' weights are [k][kh][kw][c] in `type`, a bias [k] in `type`. */
#ifndef GPU_ARITH_OPS_H
#define GPU_ARITH_OPS_H

#include "gpu/arith.h"

/* ---- in and out of NHWC ------------------------------------------------ */

/* Packed [n,c,h,w] f32 and an array; a piece is eight channels of a pixel. */
struct arith_move {
    struct nhwc a;
    float *packed;
};

ARITH void arith_from_nchw(const struct arith_move *m, uint32_t i, int type)
{
    uint32_t pixels = arith_pixels(&m->a), plane;
    struct arith_pixel at = arith_pixel(&m->a, i % pixels);
    int c0 = (int)(i / pixels) * ARITH_LANES;
    float v[8];

    plane = (uint32_t)m->a.h * (uint32_t)m->a.w;
    for (int k = 0; k < 8; k++)
        v[k] =
            c0 + k < m->a.c
                ? m->packed[((uint32_t)at.n * (uint32_t)m->a.c +
                             (uint32_t)(c0 + k)) *
                                plane +
                            (uint32_t)at.y * (uint32_t)m->a.w + (uint32_t)at.x]
                : 0;
    arith_store(m->a.p, arith_at(&m->a, at.n, at.y, at.x, c0), type, v, c0,
                m->a.c);
}

/* A piece is one number. */
ARITH void arith_to_nchw(const struct arith_move *m, uint32_t i, int type)
{
    uint32_t plane = (uint32_t)m->a.h * (uint32_t)m->a.w;
    uint32_t at = i % plane, row = i / plane;
    int c = (int)(row % (uint32_t)m->a.c), n = (int)(row / (uint32_t)m->a.c);

    m->packed[i] = arith_get(m->a.p,
                             arith_at(&m->a, n, (int)(at / (uint32_t)m->a.w),
                                      (int)(at % (uint32_t)m->a.w), c),
                             type);
}

/* ---- number by number ---------------------------------------------------- */

enum arith_act {
    ARITH_NONE,
    ARITH_RELU,
    ARITH_PRELU,
    ARITH_CLIP,
    ARITH_SIGMOID,
    ARITH_AFFINE
};

struct arith_unary {
    struct nhwc x, y;   /* may be the same */
    const float *scale; /* [c]: slopes of PReLU, scale of affine */
    const float *shift; /* [c]: affine */
    int act;
    float lo, hi;
};

ARITH float arith_act(int act, float v, float scale, float shift, float lo,
                      float hi)
{
    switch (act) {
    case ARITH_RELU:
        return v > 0 ? v : 0;
    case ARITH_PRELU:
        return v > 0 ? v : v * scale;
    case ARITH_CLIP:
        return v < lo ? lo : v > hi ? hi : v;
    case ARITH_SIGMOID:
        return 1 / (1 + expf(-v));
    case ARITH_AFFINE:
        return v * scale + shift;
    default:
        return v;
    }
}

ARITH void arith_act8(int act, float v[], const float *scale,
                      const float *shift, int c0, float lo, float hi)
{
    float a[8] = {0, 0, 0, 0, 0, 0, 0, 0}, b[8] = {0, 0, 0, 0, 0, 0, 0, 0};

    if (act == ARITH_PRELU || act == ARITH_AFFINE)
        arith_vector(scale, c0, a);
    if (act == ARITH_AFFINE)
        arith_vector(shift, c0, b);
    for (int k = 0; k < 8; k++)
        v[k] = arith_act(act, v[k], a[k], b[k], lo, hi);
}

ARITH void arith_unary(const struct arith_unary *u, uint32_t i, int type)
{
    struct arith_piece p = arith_piece(&u->x, i);
    float v[8];

    arith_load(u->x.p, p.pixel * (uint32_t)u->x.pitch + (uint32_t)p.c0, type,
               v);
    arith_act8(u->act, v, u->scale, u->shift, p.c0, u->lo, u->hi);
    arith_store(u->y.p, p.pixel * (uint32_t)u->y.pitch + (uint32_t)p.c0, type,
                v, p.c0, u->y.c);
}

enum arith_with {
    ARITH_ADD,
    ARITH_SUB,
    ARITH_MUL,
    ARITH_DIV,
    ARITH_MAX
};

/* y = x with b: an array of x's shape, or, where vector is set, one number
 * for each channel. */
struct arith_binary {
    struct nhwc x, b, y;
    const float *vector;
    int with;
};

ARITH float arith_with(int with, float a, float b)
{
    switch (with) {
    case ARITH_ADD:
        return a + b;
    case ARITH_SUB:
        return a - b;
    case ARITH_MUL:
        return a * b;
    case ARITH_DIV:
        return a / b;
    default:
        return b > a ? b : a;
    }
}

ARITH void arith_binary(const struct arith_binary *a, uint32_t i, int type)
{
    struct arith_piece p = arith_piece(&a->x, i);
    float v[8], w[8];

    arith_load(a->x.p, p.pixel * (uint32_t)a->x.pitch + (uint32_t)p.c0, type,
               v);
    if (a->vector)
        arith_vector(a->vector, p.c0, w);
    else
        arith_load(a->b.p, p.pixel * (uint32_t)a->b.pitch + (uint32_t)p.c0,
                   type, w);
    for (int k = 0; k < 8; k++)
        v[k] = arith_with(a->with, v[k], w[k]);
    arith_store(a->y.p, p.pixel * (uint32_t)a->y.pitch + (uint32_t)p.c0, type,
                v, p.c0, a->y.c);
}

/* ---- windows ---------------------------------------------------------------
 */

enum arith_pooling {
    ARITH_POOL_MAX,
    ARITH_POOL_MEAN,
    ARITH_POOL_L1,
    ARITH_POOL_L2
};

struct arith_pool {
    struct nhwc x, y;
    int pooling;
    int kernel[2], stride[2], pad[4]; /* h, w; top left bottom right */
    bool count_pad; /* mean: padding counts, what lies beyond it does not */
};

ARITH int arith_least(int a, int b)
{
    return a < b ? a : b;
}

ARITH float arith_pool_end(const struct arith_pool *a, float v, float n)
{
    if (a->pooling == ARITH_POOL_MEAN)
        return v / n;
    return a->pooling == ARITH_POOL_L2 ? sqrtf(v) : v;
}

ARITH void arith_pool(const struct arith_pool *a, uint32_t i, int type)
{
    struct arith_piece p = arith_piece(&a->y, i);
    struct arith_pixel at = arith_pixel(&a->y, p.pixel);
    int y0 = at.y * a->stride[0] - a->pad[0];
    int x0 = at.x * a->stride[1] - a->pad[1];
    int y1 = arith_least(y0 + a->kernel[0], a->x.h + a->pad[2]);
    int x1 = arith_least(x0 + a->kernel[1], a->x.w + a->pad[3]);
    float n = (float)((y1 - y0) * (x1 - x0)), v[8], all[8];
    bool max = a->pooling == ARITH_POOL_MAX;

    for (int k = 0; k < 8; k++)
        all[k] = max ? -3.402823466e38f : 0;
    y0 = y0 > 0 ? y0 : 0;
    x0 = x0 > 0 ? x0 : 0;
    y1 = arith_least(y1, a->x.h);
    x1 = arith_least(x1, a->x.w);
    if (!a->count_pad)
        n = y1 > y0 && x1 > x0 ? (float)((y1 - y0) * (x1 - x0)) : 1;
    for (int y = y0; y < y1; y++)
        for (int x = x0; x < x1; x++) {
            arith_load(a->x.p, arith_at(&a->x, at.n, y, x, p.c0), type, v);
            for (int k = 0; k < 8; k++)
                if (max)
                    all[k] = v[k] > all[k] ? v[k] : all[k];
                else if (a->pooling == ARITH_POOL_L2)
                    all[k] += v[k] * v[k];
                else
                    all[k] += a->pooling == ARITH_POOL_L1 ? fabsf(v[k]) : v[k];
        }
    for (int k = 0; k < 8; k++)
        all[k] = arith_pool_end(a, all[k], n);
    arith_store(a->y.p, arith_at(&a->y, at.n, at.y, at.x, p.c0), type, all,
                p.c0, a->y.c);
}

/* y = act(conv(x) + residual + bias). */
struct arith_conv {
    struct nhwc x, y;
    struct nhwc z; /* residual, of y's shape; z.p NULL: none */
    const void *w, *bias;
    int kernel[2], stride[2], dilation[2], pad[2]; /* h, w; top left */
    int group;
    int act; /* ARITH_NONE, RELU, PRELU, CLIP */
    float lo, hi;
    const float *slope; /* [k] */
};

/* One channel to each group: weights are f32 [kh][kw][c], the bias too. */
ARITH void arith_depthwise(const struct arith_conv *a, uint32_t i, int type)
{
    struct arith_piece p = arith_piece(&a->y, i);
    struct arith_pixel at = arith_pixel(&a->y, p.pixel);
    int c8 = arith_padded(a->y.c);
    float sum[8], v[8], w[8];

    arith_vector((const float *)a->bias, p.c0, sum);
    for (int ky = 0; ky < a->kernel[0]; ky++)
        for (int kx = 0; kx < a->kernel[1]; kx++) {
            int y = at.y * a->stride[0] - a->pad[0] + ky * a->dilation[0];
            int x = at.x * a->stride[1] - a->pad[1] + kx * a->dilation[1];

            if (y < 0 || y >= a->x.h || x < 0 || x >= a->x.w)
                continue;
            arith_load(a->x.p, arith_at(&a->x, at.n, y, x, p.c0), type, v);
            arith_vector((const float *)a->w,
                         (ky * a->kernel[1] + kx) * c8 + p.c0, w);
            for (int k = 0; k < 8; k++)
                sum[k] += v[k] * w[k];
        }
    if (a->z.p) {
        arith_load(a->z.p, arith_at(&a->z, at.n, at.y, at.x, p.c0), type, v);
        for (int k = 0; k < 8; k++)
            sum[k] += v[k];
    }
    arith_act8(a->act, sum, a->slope, 0, p.c0, a->lo, a->hi);
    arith_store(a->y.p, arith_at(&a->y, at.n, at.y, at.x, p.c0), type, sum,
                p.c0, a->y.c);
}

ARITH float arith_conv_sum(const struct arith_conv *a, struct arith_pixel at,
                           int k, int type)
{
    int in = a->group == 1 ? arith_padded(a->x.c) : a->x.c / a->group;
    int first = a->group == 1 ? 0 : k / (a->y.c / a->group) * in;
    uint32_t row = (uint32_t)(k * a->kernel[0] * a->kernel[1] * in);
    float sum = 0;

    for (int ky = 0; ky < a->kernel[0]; ky++)
        for (int kx = 0; kx < a->kernel[1]; kx++, row += (uint32_t)in) {
            int y = at.y * a->stride[0] - a->pad[0] + ky * a->dilation[0];
            int x = at.x * a->stride[1] - a->pad[1] + kx * a->dilation[1];
            uint32_t from;

            if (y < 0 || y >= a->x.h || x < 0 || x >= a->x.w)
                continue;
            from = arith_at(&a->x, at.n, y, x, first);
            for (int c = 0; c < in; c++)
                sum += arith_get(a->x.p, from + (uint32_t)c, type) *
                       arith_get(a->w, row + (uint32_t)c, type);
        }
    return sum;
}

/* Any convolution, one number a piece, padding too: slow, for what cuDNN is
 * not asked or has no engine for. With groups, weights are [k][kh][kw][c/g]
 * without padding; their number of rows is padded. */
ARITH void arith_conv(const struct arith_conv *a, uint32_t i, int type)
{
    uint32_t k8 = (uint32_t)arith_padded(a->y.c);
    struct arith_pixel at = arith_pixel(&a->y, i / k8);
    int k = (int)(i % k8);
    float sum = 0;

    if (k < a->y.c) {
        sum = arith_conv_sum(a, at, k, type);
        if (a->z.p)
            sum +=
                arith_get(a->z.p, arith_at(&a->z, at.n, at.y, at.x, k), type);
        sum += arith_get(a->bias, (uint32_t)k, type);
        sum =
            arith_act(a->act, sum, a->slope ? a->slope[k] : 0, 0, a->lo, a->hi);
    }
    arith_put(a->y.p, arith_at(&a->y, at.n, at.y, at.x, k), type, sum);
}

/* ---- across channels and lines ---------------------------------------------
 */

struct arith_lrn {
    struct nhwc x, y;
    int size;
    float alpha, beta, bias;
};

/* One number a piece, padding too. */
ARITH void arith_lrn(const struct arith_lrn *a, uint32_t i, int type)
{
    uint32_t c8 = (uint32_t)arith_padded(a->x.c), pixel = i / c8;
    int c = (int)(i % c8), half = (a->size - 1) / 2;
    int from = c > half ? c - half : 0;
    int to = arith_least(c + half + 1, a->x.c);
    uint32_t at = pixel * (uint32_t)a->x.pitch;
    float sum = 0, v = 0;

    if (c < a->x.c) {
        for (int k = from; k < to; k++) {
            float x = arith_get(a->x.p, at + (uint32_t)k, type);

            sum += x * x;
        }
        v = arith_get(a->x.p, at + (uint32_t)c, type) /
            powf(a->bias + a->alpha / (float)a->size * sum, a->beta);
    }
    arith_put(a->y.p, pixel * (uint32_t)a->y.pitch + (uint32_t)c, type, v);
}

enum arith_line_kind {
    ARITH_SOFTMAX,
    ARITH_L1,
    ARITH_L2
};

/* Lines of numbers along an axis: 1 channels, 2 rows, 3 columns. */
struct arith_lines {
    struct nhwc x, y; /* of one shape */
    int kind, axis;
};

struct arith_line {
    uint32_t x, y, step_x, step_y;
    int length;
    int padding; /* numbers after it that are padding */
    bool none;   /* it is of padding itself */
};

ARITH uint32_t arith_line_count(const struct arith_lines *a)
{
    uint32_t c8 = (uint32_t)arith_padded(a->x.c);

    if (a->axis == 1)
        return arith_pixels(&a->x);
    return (uint32_t)a->x.n * c8 * (uint32_t)(a->axis == 2 ? a->x.w : a->x.h);
}

ARITH struct arith_line arith_line(const struct arith_lines *a, uint32_t i)
{
    uint32_t c8 = (uint32_t)arith_padded(a->x.c), other;
    struct arith_line l;
    int c, n, k;

    l.step_x = l.step_y = 1;
    l.padding = 0;
    l.none = false;
    if (a->axis == 1) {
        l.x = i * (uint32_t)a->x.pitch;
        l.y = i * (uint32_t)a->y.pitch;
        l.length = a->x.c;
        l.padding = (int)c8 - a->x.c;
        return l;
    }
    c = (int)(i % c8);
    other = (uint32_t)(a->axis == 2 ? a->x.w : a->x.h);
    k = (int)(i / c8 % other);
    n = (int)(i / c8 / other);
    l.none = c >= a->x.c;
    l.length = a->axis == 2 ? a->x.h : a->x.w;
    l.x = a->axis == 2 ? arith_at(&a->x, n, 0, k, c)
                       : arith_at(&a->x, n, k, 0, c);
    l.y = a->axis == 2 ? arith_at(&a->y, n, 0, k, c)
                       : arith_at(&a->y, n, k, 0, c);
    l.step_x = (uint32_t)a->x.pitch * (uint32_t)(a->axis == 2 ? a->x.w : 1);
    l.step_y = (uint32_t)a->y.pitch * (uint32_t)(a->axis == 2 ? a->y.w : 1);
    return l;
}

/* A line is shared by `lanes` threads, of which this is number `lane`; what
 * each finds is joined between the calls: the greatest, then the sum. */
ARITH float arith_line_top(const struct arith_lines *a, struct arith_line l,
                           int lane, int lanes, int type)
{
    float top = -3.402823466e38f;

    if (a->kind != ARITH_SOFTMAX || l.none)
        return top;
    for (int k = lane; k < l.length; k += lanes)
        top = fmaxf(top, arith_get(a->x.p, l.x + (uint32_t)k * l.step_x, type));
    return top;
}

ARITH float arith_line_sum(const struct arith_lines *a, struct arith_line l,
                           float top, int lane, int lanes, int type)
{
    float sum = 0;

    for (int k = lane; k < l.length && !l.none; k += lanes) {
        float v = arith_get(a->x.p, l.x + (uint32_t)k * l.step_x, type);

        sum += a->kind == ARITH_SOFTMAX ? expf(v - top)
               : a->kind == ARITH_L1    ? fabsf(v)
                                        : v * v;
    }
    return sum;
}

ARITH void arith_line_write(const struct arith_lines *a, struct arith_line l,
                            float top, float sum, int lane, int lanes, int type)
{
    float norm = a->kind == ARITH_L2 ? sqrtf(sum) : sum;

    if (norm == 0) /* a null vector stays one */
        norm = 1;
    for (int k = lane; k < l.length + l.padding; k += lanes) {
        float v = 0;

        if (k < l.length && !l.none) {
            v = arith_get(a->x.p, l.x + (uint32_t)k * l.step_x, type);
            v = (a->kind == ARITH_SOFTMAX ? expf(v - top) : v) / norm;
        }
        arith_put(a->y.p, l.y + (uint32_t)k * l.step_y, type, v);
    }
}

/* ---- numbers that only move
 * -------------------------------------------------- */

/* y from x, number by number in y's order, padding too. In y's coordinates
 * n c h w, of which c h w index a face: flat: the same place in the row of a
 * face's numbers in c h w order; else axis perm[k] of x is axis k of y, and
 * x begins `start` further. */
struct arith_gather {
    struct nhwc x, y;
    bool flat;
    int perm[4], start[4];
};

ARITH void arith_gather(const struct arith_gather *a, uint32_t i, int type)
{
    uint32_t c8 = (uint32_t)arith_padded(a->y.c);
    struct arith_pixel p = arith_pixel(&a->y, i / c8);
    int to[4], from[4] = {0, 0, 0, 0};
    float v = 0;

    to[0] = p.n;
    to[1] = (int)(i % c8);
    to[2] = p.y;
    to[3] = p.x;
    if (to[1] < a->y.c) {
        if (a->flat) {
            uint32_t row =
                ((uint32_t)to[1] * (uint32_t)a->y.h + (uint32_t)to[2]) *
                    (uint32_t)a->y.w +
                (uint32_t)to[3];

            from[0] = to[0];
            from[3] = (int)(row % (uint32_t)a->x.w);
            from[2] = (int)(row / (uint32_t)a->x.w % (uint32_t)a->x.h);
            from[1] = (int)(row / (uint32_t)a->x.w / (uint32_t)a->x.h);
        } else {
            for (int k = 0; k < 4; k++)
                for (int q = 0; q < 4; q++)
                    if (a->perm[q] == k)
                        from[k] = to[q] + a->start[k];
        }
        v = arith_get(
            a->x.p, arith_at(&a->x, from[0], from[2], from[3], from[1]), type);
    }
    arith_put(a->y.p, arith_at(&a->y, to[0], to[2], to[3], to[1]), type, v);
}

/* x into a part of y that begins at `start`, axes n c h w; `tail` channels
 * after x's become zeros. Number by number in x's order. */
struct arith_place {
    struct nhwc x, y;
    int start[4];
    int tail;
};

ARITH uint32_t arith_place_count(const struct arith_place *a)
{
    return arith_pixels(&a->x) * (uint32_t)(a->x.c + a->tail);
}

ARITH void arith_place(const struct arith_place *a, uint32_t i, int type)
{
    uint32_t row = (uint32_t)(a->x.c + a->tail);
    struct arith_pixel p = arith_pixel(&a->x, i / row);
    int c = (int)(i % row);
    float v = 0;

    if (c < a->x.c)
        v = arith_get(a->x.p, arith_at(&a->x, p.n, p.y, p.x, c), type);
    arith_put(a->y.p,
              arith_at(&a->y, p.n + a->start[0], p.y + a->start[2],
                       p.x + a->start[3], c + a->start[1]),
              type, v);
}

enum {
    ARITH_MAX_PARTS = 64
};

/* Inputs side by side: y's channels start[k] .. start[k + 1] - 1 are input k's,
 * of n, of y's pixels, which are pitch[k] numbers apart. */
struct arith_concat {
    struct nhwc y;
    int n;
    int start[ARITH_MAX_PARTS + 1];
    const void *x[ARITH_MAX_PARTS];
    int pitch[ARITH_MAX_PARTS];
};

ARITH void arith_concat(const struct arith_concat *a, uint32_t i, int type)
{
    struct arith_piece p = arith_piece(&a->y, i);
    float v[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    int k = 0;

    while (a->start[k + 1] <= p.c0)
        k++;
    if ((p.c0 - a->start[k]) % ARITH_LANES == 0 &&
        (p.c0 + ARITH_LANES <= a->start[k + 1] || k == a->n - 1)) {
        arith_load(a->x[k],
                   p.pixel * (uint32_t)a->pitch[k] +
                       (uint32_t)(p.c0 - a->start[k]),
                   type, v);
    } else {
        for (int c = p.c0; c < p.c0 + ARITH_LANES && c < a->y.c; c++) {
            while (a->start[k + 1] <= c)
                k++;
            v[c - p.c0] = arith_get(a->x[k],
                                    p.pixel * (uint32_t)a->pitch[k] +
                                        (uint32_t)(c - a->start[k]),
                                    type);
        }
    }
    arith_store(a->y.p, p.pixel * (uint32_t)a->y.pitch + (uint32_t)p.c0, type,
                v, p.c0, a->y.c);
}

#endif
