/* gpu/arith_learn.h - what kernels of networks that learn compute, beside
 * arith_ops.h and arith_norm.h: ways back, and ways there that keep something
 * for them. As there: one args struct and one function of its i-th piece. d is
 * the loss by a result, dx by an input; fresh: dx is written, not added to.
 * Meaning: core/engine/op_train.h. */
#ifndef GPU_ARITH_LEARN_H
#define GPU_ARITH_LEARN_H

#include "core/engine/op.h"
#include "gpu/arith_norm.h"

ARITH void arith_eights(const struct nhwc *a, struct arith_piece p, int type,
                        float v[])
{
    arith_load(a->p, p.pixel * (uint32_t)a->pitch + (uint32_t)p.c0, type, v);
}

/* v as an array of this type holds it. */
ARITH float arith_rounded(float v, int type)
{
    if (type == GTYPE_F16)
        return arith_from_f16(arith_to_f16(v));
    return type == GTYPE_BF16 ? arith_from_bf16(arith_to_bf16(v)) : v;
}

/* ---- number by number ---------------------------------------------------- */

/* y = x0 * scale0 + x1 * scale1, negative ones 0 where relu is set. */
struct arith_blend {
    struct nhwc x[2], y;
    float scale[2];
    bool relu;
};

ARITH void arith_blend(const struct arith_blend *a, uint32_t i, int type)
{
    struct arith_piece p = arith_piece(&a->y, i);
    float v[8], w[8];

    arith_eights(&a->x[0], p, type, v);
    arith_eights(&a->x[1], p, type, w);
    for (int k = 0; k < 8; k++) {
        float s = v[k] * a->scale[0] + w[k] * a->scale[1];

        v[k] = a->relu && !(s > 0) ? 0 : s;
    }
    arith_store(a->y.p, p.pixel * (uint32_t)a->y.pitch + (uint32_t)p.c0, type,
                v, p.c0, a->y.c);
}

/* Of add, sub, mul, div: by both inputs, or by the first where the second is
 * one number. x is read by mul and div, y where relu is set. Both dx may be
 * one array: the second then adds to what the first wrote. */
struct arith_pair_back {
    struct nhwc x[2], y, d, dx[2]; /* dx[k].p NULL: not wanted */
    const float *vector;           /* the one number, repeated */
    float scale[2];                /* of add */
    bool fresh[2], relu;
    int with;
};

/* By input k. */
ARITH float arith_slope(int with, int k, float a, float b)
{
    if (with == ARITH_MUL)
        return k ? a : b;
    if (with == ARITH_DIV)
        return k ? -a / (b * b) : 1 / b;
    return k && with == ARITH_SUB ? -1 : 1;
}

ARITH void arith_pair_back(const struct arith_pair_back *a, uint32_t i,
                           int type)
{
    struct arith_piece p = arith_piece(&a->d, i);
    bool reads = a->with == ARITH_MUL || a->with == ARITH_DIV;
    float d[8], g[8], v[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    float w[8] = {1, 1, 1, 1, 1, 1, 1, 1};

    arith_eights(&a->d, p, type, d);
    if (reads && a->x[0].p)
        arith_eights(&a->x[0], p, type, v);
    if (reads && a->vector)
        arith_vector(a->vector, p.c0, w);
    else if (reads)
        arith_eights(&a->x[1], p, type, w);
    if (a->relu) {
        arith_eights(&a->y, p, type, g);
        for (int k = 0; k < 8; k++)
            d[k] = g[k] > 0 ? d[k] : 0;
    }
    for (int n = 0; n < 2; n++) {
        if (!a->dx[n].p)
            continue;
        for (int k = 0; k < 8; k++)
            g[k] = d[k] * arith_slope(a->with, n, v[k], w[k]) * a->scale[n];
        arith_give(&a->dx[n], p.pixel, p.c0, type, g, a->fresh[n]);
    }
}

/* Of ReLU, Clip and sigmoid, by what they gave. */
struct arith_unary_back {
    struct nhwc y, d, dx;
    int act; /* ARITH_RELU, ARITH_CLIP, ARITH_SIGMOID */
    float lo, hi;
    bool fresh;
};

/* A bound is one as y holds it: -0.4 in halfs is above -0.4. */
ARITH void arith_unary_back(const struct arith_unary_back *a, uint32_t i,
                            int type)
{
    struct arith_piece p = arith_piece(&a->d, i);
    float lo = arith_rounded(a->lo, type), hi = arith_rounded(a->hi, type);
    float y[8], d[8];

    arith_eights(&a->y, p, type, y);
    arith_eights(&a->d, p, type, d);
    for (int k = 0; k < 8; k++)
        if (a->act == ARITH_SIGMOID)
            d[k] = d[k] * y[k] * (1 - y[k]);
        else if (a->act == ARITH_RELU)
            d[k] = y[k] > 0 ? d[k] : 0;
        else
            d[k] = y[k] > lo && y[k] < hi ? d[k] : 0;
    arith_give(&a->dx, p.pixel, p.c0, type, d, a->fresh);
}

/* Of the greatest of n arrays of y's shape and pitch: to the first that is it.
 */
struct arith_max_back {
    struct nhwc y, d;
    int n;
    uint64_t fresh; /* a bit each */
    const void *x[OP_MAX_IN];
    void *dx[OP_MAX_IN]; /* NULL: not wanted */
};

ARITH void arith_max_back(const struct arith_max_back *a, uint32_t i, int type)
{
    struct arith_piece p = arith_piece(&a->y, i);
    float y[8], d[8], x[8], g[8];

    arith_eights(&a->y, p, type, y);
    arith_eights(&a->d, p, type, d);
    for (int n = 0; n < a->n; n++) {
        struct nhwc dx = a->y;

        arith_load(a->x[n], p.pixel * (uint32_t)a->y.pitch + (uint32_t)p.c0,
                   type, x);
        for (int k = 0; k < 8; k++) {
            g[k] = x[k] == y[k] ? d[k] : 0;
            d[k] = x[k] == y[k] ? 0 : d[k];
        }
        dx.p = a->dx[n];
        if (dx.p)
            arith_give(&dx, p.pixel, p.c0, type, g, a->fresh >> n & 1);
    }
}

/* y (+)= x * 0 or factor, by the numbers that follow *state from at + 1 on:
 * number by number in x's order without its padding. Forward and backward. */
struct arith_dropout {
    struct nhwc x, y;
    const uint64_t *state;
    uint64_t *keep; /* *state is put here for the way back; NULL: not */
    uint64_t at;
    uint64_t below; /* numbers of 53 bits that are below: dropped */
    float factor;
    bool fresh;
};

/* splitmix64: number i after state */
ARITH uint64_t arith_random(uint64_t state, uint64_t i)
{
    uint64_t z = state + i * 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

ARITH void arith_dropout(const struct arith_dropout *a, uint32_t i, int type)
{
    struct arith_piece p = arith_piece(&a->x, i);
    uint64_t state = *a->state, at = a->at + 1;
    float v[8];

    at += (uint64_t)p.pixel * (uint64_t)a->x.c + (uint64_t)p.c0;
    arith_eights(&a->x, p, type, v);
    for (int k = 0; k < 8; k++)
        v[k] *= arith_random(state, at + (uint64_t)k) >> 11 < a->below
                    ? 0
                    : a->factor;
    arith_give(&a->y, p.pixel, p.c0, type, v, a->fresh);
    if (i == 0 && a->keep)
        *a->keep = state;
}

/* ---- numbers that only move -------------------------------------------- */

/* y (+)= channels of x, of as many pixels: y's channel c is x's from + c, or 0
 * where there is none. */
struct arith_part {
    struct nhwc x, y;
    int from;
    bool fresh;
};

ARITH void arith_part(const struct arith_part *a, uint32_t i, int type)
{
    struct arith_piece p = arith_piece(&a->y, i);
    int c0 = p.c0 + a->from;
    uint32_t at = p.pixel * (uint32_t)a->x.pitch;
    float v[8] = {0, 0, 0, 0, 0, 0, 0, 0};

    if (c0 >= 0 && c0 < a->x.c && c0 % ARITH_LANES == 0)
        arith_load(a->x.p, at + (uint32_t)c0, type, v);
    else
        for (int k = 0; k < 8; k++)
            if (c0 + k >= 0 && c0 + k < a->x.c)
                v[k] = arith_get(a->x.p, at + (uint32_t)(c0 + k), type);
    arith_give(&a->y, p.pixel, p.c0, type, v, a->fresh);
}

/* Of a flattened picture: d is [n, c h w] for dx's c, h, w. */
struct arith_flat_back {
    struct nhwc d, dx;
    bool fresh;
};

ARITH void arith_flat_back(const struct arith_flat_back *a, uint32_t i,
                           int type)
{
    struct arith_piece p = arith_piece(&a->dx, i);
    uint32_t plane = (uint32_t)a->dx.h * (uint32_t)a->dx.w;
    uint32_t at = p.pixel / plane * (uint32_t)a->d.pitch + p.pixel % plane;
    float v[8] = {0, 0, 0, 0, 0, 0, 0, 0};

    for (int k = 0; k < 8; k++)
        if (p.c0 + k < a->dx.c)
            v[k] = arith_get(a->d.p, at + (uint32_t)(p.c0 + k) * plane, type);
    arith_give(&a->dx, p.pixel, p.c0, type, v, a->fresh);
}

/* ---- windows ------------------------------------------------------------- */

/* A max pool that keeps where in its window each greatest, the first of them,
 * lay. */
struct arith_max_pool {
    struct arith_pool pool;
    uint16_t *place; /* of every number of y, padding too */
};

ARITH void arith_max_pool(const struct arith_max_pool *m, uint32_t i, int type)
{
    const struct arith_pool *a = &m->pool;
    struct arith_piece p = arith_piece(&a->y, i);
    struct arith_pixel at = arith_pixel(&a->y, p.pixel);
    int y0 = at.y * a->stride[0] - a->pad[0];
    int x0 = at.x * a->stride[1] - a->pad[1];
    int y1 = arith_least(y0 + a->kernel[0], a->x.h);
    int x1 = arith_least(x0 + a->kernel[1], a->x.w);
    float v[8], most[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    uint32_t place[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    struct arith_pack pack;
    bool first = true;

    for (int y = y0 > 0 ? y0 : 0; y < y1; y++)
        for (int x = x0 > 0 ? x0 : 0; x < x1; x++) {
            uint32_t here = (uint32_t)((y - y0) * a->kernel[1] + (x - x0));

            arith_load(a->x.p, arith_at(&a->x, at.n, y, x, p.c0), type, v);
            for (int k = 0; k < 8; k++) {
                bool more = first || v[k] > most[k];

                most[k] = more ? v[k] : most[k];
                place[k] = more ? here : place[k];
            }
            first = false;
        }
    arith_store(a->y.p, arith_at(&a->y, at.n, at.y, at.x, p.c0), type, most,
                p.c0, a->y.c);
    for (int k = 0; k < 4; k++)
        pack.w[k] = place[2 * k] | place[2 * k + 1] << 16;
    ((struct arith_pack *)m->place)[i] = pack;
}

/* Every pixel of the input gathers from the windows that cover it. */
struct arith_pool_back {
    struct arith_pool pool; /* x and y are read by Lp pools */
    struct nhwc d, dx;
    const uint16_t *place; /* of a max pool */
    bool fresh;
};

/* Along an axis: the first window that covers a place, and one after the last
 * (of those that there are). */
ARITH int arith_cover_first(const struct arith_pool *a, int axis, int at)
{
    int over = at + a->pad[axis] - a->kernel[axis];

    return over < 0 ? 0 : over / a->stride[axis] + 1;
}

ARITH int arith_cover_end(const struct arith_pool *a, int axis, int at, int n)
{
    return arith_least((at + a->pad[axis]) / a->stride[axis] + 1, n);
}

/* By what an average is divided along an axis. */
ARITH int arith_counted(const struct arith_pool *a, int axis, int o)
{
    int size = axis ? a->x.w : a->x.h;
    int from = o * a->stride[axis] - a->pad[axis];
    int end = from + a->kernel[axis];

    if (a->count_pad)
        return arith_least(end, size + a->pad[2 + axis]) - from;
    return arith_least(end, size) - (from > 0 ? from : 0);
}

/* What window (oy, ox), whose loss is d, gives to pixel at. */
ARITH void arith_window_back(const struct arith_pool_back *b,
                             struct arith_pixel at, int oy, int ox, int c0,
                             int type, const float x[], const float d[],
                             float g[])
{
    const struct arith_pool *a = &b->pool;
    uint32_t here =
        (uint32_t)((at.y - (oy * a->stride[0] - a->pad[0])) * a->kernel[1] +
                   (at.x - (ox * a->stride[1] - a->pad[1])));
    uint32_t out =
        ((uint32_t)at.n * (uint32_t)b->d.h + (uint32_t)oy) * (uint32_t)b->d.w +
        (uint32_t)ox;
    float y[8];

    if (a->pooling == ARITH_POOL_MAX) {
        uint32_t eight = out * (uint32_t)(arith_padded(b->d.c) / ARITH_LANES) +
                         (uint32_t)(c0 / ARITH_LANES);
        struct arith_pack pack =
            arith_read((const struct arith_pack *)b->place + eight);

        for (int k = 0; k < 8; k++)
            g[k] += (pack.w[k / 2] >> (k % 2 ? 16 : 0) & 0xffffu) == here ? d[k]
                                                                          : 0;
    } else if (a->pooling == ARITH_POOL_MEAN) {
        float n = (float)(arith_counted(a, 0, oy) * arith_counted(a, 1, ox));

        for (int k = 0; k < 8; k++)
            g[k] += d[k] / n;
    } else if (a->pooling == ARITH_POOL_L1) {
        for (int k = 0; k < 8; k++)
            g[k] += d[k] * (float)((x[k] > 0) - (x[k] < 0));
    } else {
        arith_load(a->y.p, out * (uint32_t)a->y.pitch + (uint32_t)c0, type, y);
        for (int k = 0; k < 8; k++)
            g[k] += y[k] > 0 ? d[k] * x[k] / y[k] : 0;
    }
}

ARITH void arith_pool_back(const struct arith_pool_back *b, uint32_t i,
                           int type)
{
    const struct arith_pool *a = &b->pool;
    struct arith_piece p = arith_piece(&b->dx, i);
    struct arith_pixel at = arith_pixel(&b->dx, p.pixel);
    int y1 = arith_cover_end(a, 0, at.y, b->d.h);
    int x0 = arith_cover_first(a, 1, at.x);
    int x1 = arith_cover_end(a, 1, at.x, b->d.w);
    float x[8] = {0, 0, 0, 0, 0, 0, 0, 0}, d[8];
    float g[8] = {0, 0, 0, 0, 0, 0, 0, 0};

    if (a->pooling == ARITH_POOL_L1 || a->pooling == ARITH_POOL_L2)
        arith_eights(&a->x, p, type, x);
    for (int oy = arith_cover_first(a, 0, at.y); oy < y1; oy++)
        for (int ox = x0; ox < x1; ox++) {
            arith_load(b->d.p, arith_at(&b->d, at.n, oy, ox, p.c0), type, d);
            arith_window_back(b, at, oy, ox, p.c0, type, x, d, g);
        }
    arith_give(&b->dx, p.pixel, p.c0, type, g, b->fresh);
}

/* ---- along the channels -------------------------------------------------- */

/* y = x s^-beta, s = bias + alpha / size * the sum of x^2 over size channels.
 * A piece is one number, padding too. */
struct arith_lrn_learn {
    struct nhwc x, y; /* y: forward */
    struct nhwc d, dx;
    float *s; /* of every number, padding too: kept */
    int size;
    float alpha, beta, bias;
    bool fresh;
};

/* s^-beta: the published networks have beta 0.75, which needs no powf. */
ARITH float arith_lrn_power(float s, float beta)
{
    float root;

    if (beta != 0.75f)
        return powf(s, -beta);
    root = sqrtf(s);
    return 1 / (root * sqrtf(root));
}

ARITH void arith_lrn_forward(const struct arith_lrn_learn *a, uint32_t i,
                             int type)
{
    uint32_t c8 = (uint32_t)arith_padded(a->x.c), pixel = i / c8;
    int c = (int)(i % c8), before = (a->size - 1) / 2;
    int end = arith_least(c + a->size - before, a->x.c);
    uint32_t at = pixel * (uint32_t)a->x.pitch;
    float sum = 0, v = 0;

    if (c < a->x.c) {
        for (int k = c > before ? c - before : 0; k < end; k++) {
            float x = arith_get(a->x.p, at + (uint32_t)k, type);

            sum += x * x;
        }
        sum = a->bias + a->alpha / (float)a->size * sum;
        v = arith_get(a->x.p, at + (uint32_t)c, type) *
            arith_lrn_power(sum, a->beta);
    }
    a->s[i] = sum;
    arith_put(a->y.p, pixel * (uint32_t)a->y.pitch + (uint32_t)c, type, v);
}

/* dx_c = d_c s_c^-beta - 2 beta alpha / size x_c * the sum of d x s^(-beta-1)
 * over the channels whose window holds c. */
ARITH void arith_lrn_back(const struct arith_lrn_learn *a, uint32_t i, int type)
{
    uint32_t c8 = (uint32_t)arith_padded(a->x.c), pixel = i / c8;
    int c = (int)(i % c8), after = a->size - 1 - (a->size - 1) / 2;
    int end = arith_least(c + a->size - after, a->x.c);
    uint32_t x_at = pixel * (uint32_t)a->x.pitch;
    uint32_t d_at = pixel * (uint32_t)a->d.pitch;
    uint32_t at = pixel * (uint32_t)a->dx.pitch + (uint32_t)c;
    float sum = 0, own = 0, g = 0;

    if (c < a->x.c) {
        for (int k = c > after ? c - after : 0; k < end; k++) {
            float s = a->s[pixel * c8 + (uint32_t)k];
            float e = arith_get(a->d.p, d_at + (uint32_t)k, type) *
                      arith_lrn_power(s, a->beta);

            sum += e * arith_get(a->x.p, x_at + (uint32_t)k, type) / s;
            own = k == c ? e : own;
        }
        g = own - 2 * a->beta * a->alpha / (float)a->size *
                      arith_get(a->x.p, x_at + (uint32_t)c, type) * sum;
        if (!a->fresh)
            g += arith_get(a->dx.p, at, type);
    }
    arith_put(a->dx.p, at, type, g);
}

/* Softmax, L1 and L2 norm: a line is a pixel's channels, shared by `lanes`
 * threads, of which this is number `lane`; the two sums of each are joined
 * between the calls. */
struct arith_lines_back {
    struct nhwc x, y, d, dx; /* x is read by norms, y by softmax */
    int kind;                /* enum arith_line_kind */
    bool fresh;
};

/* sum[0]: softmax d y, norms d x; sum[1]: what the length comes from. */
ARITH void arith_lines_sums(const struct arith_lines_back *a, uint32_t line,
                            int lane, int lanes, int type, float sum[])
{
    bool soft = a->kind == ARITH_SOFTMAX;
    const struct nhwc *x = soft ? &a->y : &a->x;

    sum[0] = sum[1] = 0;
    for (int k = lane; k < x->c; k += lanes) {
        float v =
            arith_get(x->p, line * (uint32_t)x->pitch + (uint32_t)k, type);

        sum[0] +=
            v *
            arith_get(a->d.p, line * (uint32_t)a->d.pitch + (uint32_t)k, type);
        sum[1] += a->kind == ARITH_L1 ? fabsf(v) : v * v;
    }
}

ARITH float arith_line_back(const struct arith_lines_back *a, float v, float d,
                            const float sum[])
{
    float length = a->kind == ARITH_L2 ? sqrtf(sum[1]) : sum[1], slope;

    if (a->kind == ARITH_SOFTMAX)
        return v * (d - sum[0]);
    if (!(length > 0)) /* a null vector stays one */
        return 0;
    slope = a->kind == ARITH_L1 ? (float)((v > 0) - (v < 0)) : v / length;
    return d / length - sum[0] * slope / length / length;
}

ARITH void arith_lines_give(const struct arith_lines_back *a, uint32_t line,
                            int lane, int lanes, int type, const float sum[])
{
    const struct nhwc *x = a->kind == ARITH_SOFTMAX ? &a->y : &a->x;

    for (int k = lane; k < arith_padded(x->c); k += lanes) {
        uint32_t at = line * (uint32_t)a->dx.pitch + (uint32_t)k;
        float g = 0;

        if (k < x->c) {
            float v =
                arith_get(x->p, line * (uint32_t)x->pitch + (uint32_t)k, type);
            float d = arith_get(
                a->d.p, line * (uint32_t)a->d.pitch + (uint32_t)k, type);

            g = arith_line_back(a, v, d, sum);
            if (!a->fresh)
                g += arith_get(a->dx.p, at, type);
        }
        arith_put(a->dx.p, at, type, g);
    }
}

#endif
