/* gpu/arith_conv.h - backward passes of convolutions that cuDNN is not asked
 * for, or has no engine for, and sums over pixels: as gpu/arith_ops.h, one args
 * struct and one function of its i-th piece each. All sums are f32.
 * A sum over all pixels is taken in parts, each in order, and the parts are
 * joined by arith_join: how many there are hangs on shapes alone, so that it
 * repeats bit for bit. */
#ifndef GPU_ARITH_CONV_H
#define GPU_ARITH_CONV_H

#include "gpu/arith.h"

/* x and y are the forward pass's, or the loss by them: of the pass by data x is
 * the result, of the pass by weights dw is. w and dw are laid out alike, dw in
 * f32: [k][kh][kw][c/g] with k, and without groups c, padded; of depthwise
 * kernels [kh][kw][c], both in f32, c padded. Padding of dw becomes zeros. */
struct arith_conv_back {
    struct nhwc x, y;
    const void *w;                                 /* by data */
    float *dw;                                     /* by weights */
    int kernel[2], stride[2], dilation[2], pad[2]; /* h, w; top left */
    int group;
    bool add;       /* to what is there */
    float *scratch; /* depthwise weights: arith_depthwise_scratch bytes */
};

/* Sums of every channel over all pixels: of a bias, from the loss by y. */
struct arith_columns {
    struct nhwc y;
    float *sums; /* [c], padded */
    bool add;
    float *scratch; /* arith_columns_scratch bytes */
};

/* n_parts rows of `count` numbers, a multiple of eight, to their sum. */
struct arith_join {
    const float *parts;
    float *sum; /* [count] */
    uint32_t count, n_parts;
    bool add;
};

/* n numbers, a multiple of eight, to f32. */
struct arith_widen {
    const void *from;
    float *to;
    uint32_t n;
};

/* A piece is eight of them. */
ARITH void arith_widen(const struct arith_widen *a, uint32_t i, int type)
{
    float v[8];

    arith_load(a->from, i * ARITH_LANES, type, v);
    arith_store(a->to, i * ARITH_LANES, GTYPE_F32, v, 0, ARITH_LANES);
}

/* ---- parts ------------------------------------------------------------- */

/* Into how many parts the pixels of y are cut where each part is the work of
 * `threads`: enough for a whole card, none too short. */
ARITH uint32_t arith_parts(const struct nhwc *y, uint32_t threads)
{
    const uint32_t want = 1u << 17, shortest = 16, most = 4096;
    uint32_t pixels = arith_pixels(y);
    uint32_t parts = (want + threads - 1) / threads;
    uint32_t bound = (pixels + shortest - 1) / shortest;

    parts = parts < bound ? parts : bound;
    parts = parts < most ? parts : most;
    return parts ? parts : 1;
}

/* The first pixel of a part; of the one after the last: the count. */
ARITH uint32_t arith_part_start(const struct nhwc *y, uint32_t part,
                                uint32_t parts)
{
    return (uint32_t)((uint64_t)arith_pixels(y) * part / parts);
}

ARITH uint32_t arith_depthwise_count(const struct arith_conv_back *a)
{
    return (uint32_t)(a->kernel[0] * a->kernel[1] * arith_padded(a->y.c));
}

ARITH uint32_t arith_depthwise_parts(const struct arith_conv_back *a)
{
    return arith_parts(&a->y, arith_depthwise_count(a) / ARITH_LANES);
}

ARITH size_t arith_depthwise_scratch(const struct arith_conv_back *a)
{
    return (size_t)arith_depthwise_parts(a) * arith_depthwise_count(a) *
           sizeof(float);
}

ARITH uint32_t arith_columns_parts(const struct arith_columns *a)
{
    return arith_parts(&a->y, (uint32_t)arith_padded(a->y.c) / ARITH_LANES);
}

ARITH size_t arith_columns_scratch(const struct arith_columns *a)
{
    return (size_t)arith_columns_parts(a) * (size_t)arith_padded(a->y.c) *
           sizeof(float);
}

ARITH void arith_join_write(const struct arith_join *a, uint32_t at, float v[])
{
    if (a->add)
        for (int k = 0; k < ARITH_LANES; k++)
            v[k] += a->sum[at + (uint32_t)k];
    arith_store(a->sum, at, GTYPE_F32, v, 0, ARITH_LANES);
}

/* Eight numbers from `at` on, of every `lanes`-th part from `lane` on. */
ARITH void arith_join_sum(const struct arith_join *a, uint32_t at,
                          uint32_t lane, uint32_t lanes, float sum[])
{
    float v[8];

    for (int k = 0; k < ARITH_LANES; k++)
        sum[k] = 0;
    for (uint32_t p = lane; p < a->n_parts; p += lanes) {
        arith_load(a->parts + (size_t)p * a->count, at, GTYPE_F32, v);
        for (int k = 0; k < ARITH_LANES; k++)
            sum[k] += v[k];
    }
}

/* A piece is eight channels of a part: into a->scratch. */
ARITH void arith_column_sums(const struct arith_columns *a, uint32_t i,
                             int type)
{
    uint32_t c8 = (uint32_t)arith_padded(a->y.c), eights = c8 / ARITH_LANES;
    uint32_t part = i / eights, c0 = i % eights * ARITH_LANES;
    uint32_t parts = arith_columns_parts(a);
    uint32_t end = arith_part_start(&a->y, part + 1, parts);
    float sum[8] = {0, 0, 0, 0, 0, 0, 0, 0}, v[8];

    for (uint32_t p = arith_part_start(&a->y, part, parts); p < end; p++) {
        arith_load(a->y.p, p * (uint32_t)a->y.pitch + c0, type, v);
        for (int k = 0; k < ARITH_LANES; k++)
            sum[k] += v[k];
    }
    arith_store(a->scratch + (size_t)part * c8, c0, GTYPE_F32, sum, 0,
                ARITH_LANES);
}

/* ---- one channel to each group -------------------------------------------
 */

/* Which row of y a row of x meets at one tap of the kernel; -1: none. axis: 0
 * rows, 1 columns. */
ARITH int arith_conv_met(const struct arith_conv_back *a, int axis, int x,
                         int tap)
{
    int far = x + a->pad[axis] - tap * a->dilation[axis];
    int y = far / a->stride[axis];

    if (far < 0 || y * a->stride[axis] != far || y >= (axis ? a->y.w : a->y.h))
        return -1;
    return y;
}

/* A piece is eight channels of a pixel of x. */
ARITH void arith_depthwise_back_data(const struct arith_conv_back *a,
                                     uint32_t i, int type)
{
    struct arith_piece p = arith_piece(&a->x, i);
    struct arith_pixel at = arith_pixel(&a->x, p.pixel);
    uint32_t to = p.pixel * (uint32_t)a->x.pitch + (uint32_t)p.c0;
    int c8 = arith_padded(a->x.c);
    float sum[8] = {0, 0, 0, 0, 0, 0, 0, 0}, v[8], w[8];

    if (a->add)
        arith_load(a->x.p, to, type, sum);
    for (int ky = 0; ky < a->kernel[0]; ky++) {
        int y = arith_conv_met(a, 0, at.y, ky);

        for (int kx = 0; kx < a->kernel[1] && y >= 0; kx++) {
            int x = arith_conv_met(a, 1, at.x, kx);

            if (x < 0)
                continue;
            arith_load(a->y.p, arith_at(&a->y, at.n, y, x, p.c0), type, v);
            arith_vector((const float *)a->w,
                         (ky * a->kernel[1] + kx) * c8 + p.c0, w);
            for (int k = 0; k < ARITH_LANES; k++)
                sum[k] += v[k] * w[k];
        }
    }
    arith_store(a->x.p, to, type, sum, p.c0, a->x.c);
}

/* A piece is eight channels of one tap over a part of the pixels: into
 * a->scratch. Neighbours are channels, then taps, of one part. */
ARITH void arith_depthwise_back_weights(const struct arith_conv_back *a,
                                        uint32_t i, int type)
{
    uint32_t count = arith_depthwise_count(a), pieces = count / ARITH_LANES;
    uint32_t part = i / pieces, at = i % pieces * ARITH_LANES;
    int c8 = arith_padded(a->y.c), c0 = (int)at % c8, tap = (int)at / c8;
    int ky = tap / a->kernel[1], kx = tap % a->kernel[1];
    uint32_t parts = arith_depthwise_parts(a);
    uint32_t end = arith_part_start(&a->y, part + 1, parts);
    float sum[8] = {0, 0, 0, 0, 0, 0, 0, 0}, v[8], w[8];

    for (uint32_t p = arith_part_start(&a->y, part, parts); p < end; p++) {
        struct arith_pixel o = arith_pixel(&a->y, p);
        int y = o.y * a->stride[0] - a->pad[0] + ky * a->dilation[0];
        int x = o.x * a->stride[1] - a->pad[1] + kx * a->dilation[1];

        if (y < 0 || y >= a->x.h || x < 0 || x >= a->x.w)
            continue;
        arith_load(a->y.p, p * (uint32_t)a->y.pitch + (uint32_t)c0, type, v);
        arith_load(a->x.p, arith_at(&a->x, o.n, y, x, c0), type, w);
        for (int k = 0; k < ARITH_LANES; k++)
            sum[k] += v[k] * w[k];
    }
    arith_store(a->scratch + (size_t)part * count, at, GTYPE_F32, sum, 0,
                ARITH_LANES);
}

/* ---- any groups -----------------------------------------------------------
 */

/* Channels of a filter as it is stored, and channels of y of one group. */
ARITH int arith_conv_row(const struct arith_conv_back *a)
{
    return a->group == 1 ? arith_padded(a->x.c) : a->x.c / a->group;
}

/* One number of x a piece, padding too: slow. */
ARITH void arith_conv_back_data(const struct arith_conv_back *a, uint32_t i,
                                int type)
{
    uint32_t c8 = (uint32_t)arith_padded(a->x.c);
    struct arith_pixel at = arith_pixel(&a->x, i / c8);
    int c = (int)(i % c8), row = arith_conv_row(a), out = a->y.c / a->group;
    int first = a->group == 1 ? 0 : c / row * out;
    uint32_t to = arith_at(&a->x, at.n, at.y, at.x, c);
    uint32_t step = (uint32_t)(a->kernel[0] * a->kernel[1] * row);
    float sum = 0;

    if (c < a->x.c && a->add)
        sum = arith_get(a->x.p, to, type);
    for (int ky = 0; ky < a->kernel[0] && c < a->x.c; ky++) {
        int y = arith_conv_met(a, 0, at.y, ky);

        for (int kx = 0; kx < a->kernel[1] && y >= 0; kx++) {
            int x = arith_conv_met(a, 1, at.x, kx);
            uint32_t from, w;

            if (x < 0)
                continue;
            from = arith_at(&a->y, at.n, y, x, first);
            w = (uint32_t)first * step +
                (uint32_t)((ky * a->kernel[1] + kx) * row + c % row);
            for (int k = 0; k < out; k++)
                sum += arith_get(a->y.p, from + (uint32_t)k, type) *
                       arith_get(a->w, w + (uint32_t)k * step, type);
        }
    }
    arith_put(a->x.p, to, type, sum);
}

ARITH uint32_t arith_conv_weights(const struct arith_conv_back *a)
{
    return (uint32_t)(arith_padded(a->y.c) * a->kernel[0] * a->kernel[1] *
                      arith_conv_row(a));
}

/* The sum of one filter's number over the pixels of one picture. */
ARITH float arith_conv_picture(const struct arith_conv_back *a, int n, int k,
                               int c, const int tap[2], int type)
{
    float sum = 0;

    for (int oy = 0; oy < a->y.h; oy++) {
        int y = oy * a->stride[0] - a->pad[0] + tap[0] * a->dilation[0];

        if (y < 0 || y >= a->x.h)
            continue;
        for (int ox = 0; ox < a->y.w; ox++) {
            int x = ox * a->stride[1] - a->pad[1] + tap[1] * a->dilation[1];

            if (x >= 0 && x < a->x.w)
                sum += arith_get(a->x.p, arith_at(&a->x, n, y, x, c), type) *
                       arith_get(a->y.p, arith_at(&a->y, n, oy, ox, k), type);
        }
    }
    return sum;
}

/* One number of dw a piece, padding too: slow. */
ARITH void arith_conv_back_weights(const struct arith_conv_back *a, uint32_t i,
                                   int type)
{
    int row = arith_conv_row(a), at = (int)(i / (uint32_t)row), tap[2];
    int k = at / a->kernel[1] / a->kernel[0], c = (int)(i % (uint32_t)row);
    float sum = 0;

    tap[0] = at / a->kernel[1] % a->kernel[0];
    tap[1] = at % a->kernel[1];
    if (a->group > 1)
        c += k / (a->y.c / a->group) * row;
    if (k < a->y.c && c < a->x.c) {
        for (int n = 0; n < a->y.n; n++)
            sum += arith_conv_picture(a, n, k, c, tap, type);
        sum += a->add ? a->dw[i] : 0;
    }
    a->dw[i] = sum;
}

#endif
