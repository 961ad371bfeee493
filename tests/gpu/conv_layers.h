/* tests/gpu/conv_layers.h - layers of every kind, and all three passes of each
 * by plain loops. Header only, after cmocka's. */
#ifndef TESTS_GPU_CONV_LAYERS_H
#define TESTS_GPU_CONV_LAYERS_H

#include <stdlib.h>

#include "core/engine/tensor.h"
#include "gpu/arith.h"

struct layer {
    const char *name;
    int n, c, h, w, k;
    int kernel[2], stride[2], dilation[2], pad[4];
    int group;
    int further; /* x and y are slices of arrays so much wider */
};

/* Padding on two sides alike, one group. */
#define CONV(kh, kw, step, edge_h, edge_w, gap)                                \
    {kh, kw}, {step, step}, {gap, gap}, {edge_h, edge_w, edge_h, edge_w}, 1

static const struct layer layers[] = {
    {"3x3", 2, 8, 6, 5, 16, CONV(3, 3, 1, 1, 1, 1), 0},
    {"3x3 of 3 to 5 channels", 3, 3, 9, 7, 5, CONV(3, 3, 2, 1, 1, 1), 0},
    {"1x1", 3, 5, 4, 4, 7, CONV(1, 1, 1, 0, 0, 1), 0},
    {"1x1 strided: pixels that no sum reads", 2, 8, 5, 6, 8,
     CONV(1, 1, 2, 0, 0, 1), 0},
    {"1x7", 2, 8, 5, 9, 8, CONV(1, 7, 1, 0, 3, 1), 0},
    {"7x1", 2, 16, 9, 5, 8, CONV(7, 1, 1, 3, 0, 1), 0},
    {"strided, a last row is left", 2, 12, 8, 8, 20, CONV(3, 3, 2, 0, 0, 1), 0},
    {"7x7 strided", 2, 3, 13, 12, 24, CONV(7, 7, 2, 3, 3, 1), 0},
    {"dilated", 2, 4, 7, 6, 4, CONV(3, 3, 1, 2, 2, 2), 0},
    {"the whole picture", 3, 8, 5, 5, 16, CONV(5, 5, 1, 0, 0, 1), 0},
    {"dense", 13, 40, 1, 1, 9, CONV(1, 1, 1, 0, 0, 1), 0},
    {"slices", 2, 8, 6, 5, 16, CONV(3, 3, 1, 1, 1, 1), 24},
    {"uneven padding",
     2,
     8,
     6,
     5,
     8,
     {3, 2},
     {2, 1},
     {1, 2},
     {0, 1, 1, 0},
     1,
     0},
    {"two groups", 2, 8, 5, 5, 12, {3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}, 2, 0},
    {"three groups of 3",
     2,
     9,
     6,
     5,
     6,
     {3, 3},
     {2, 1},
     {1, 2},
     {0, 1, 1, 2},
     3,
     8},
    {"depthwise", 2, 16, 6, 6, 16, {3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}, 16, 0},
    {"depthwise, 12 channels",
     2,
     12,
     7,
     9,
     12,
     {3, 3},
     {2, 2},
     {1, 1},
     {1, 1, 1, 1},
     12,
     16},
    {"depthwise, whole",
     3,
     8,
     5,
     5,
     8,
     {5, 5},
     {1, 1},
     {1, 1},
     {0, 0, 0, 0},
     8,
     0},
    {"depthwise, many pixels",
     3,
     24,
     29,
     31,
     24,
     {3, 5},
     {1, 2},
     {2, 1},
     {2, 0, 0, 3},
     24,
     0},
};

/* ---- by plain loops ------------------------------------------------------
 */

/* Packed, without padding: x [n,h,w,c], y [n,oh,ow,k], w [k,kh,kw,c/g]. Of
 * each result: what is wanted, and the sum of its terms' sizes. */
struct numbers {
    size_t n;
    float *v; /* as the card will hold them */
    double *want, *size;
};

struct truth {
    struct layer l;
    int out[2];
    int type;
    struct numbers x, y, w; /* v of y: the loss by it */
};

static void draw(struct numbers *a, const char *name, size_t n, int type)
{
    a->n = n;
    a->v = malloc(n * sizeof(*a->v));
    a->want = calloc(n, sizeof(*a->want));
    a->size = calloc(n, sizeof(*a->size));
    assert_true(a->v && a->want && a->size);
    tensor_formula(name, a->v, n);
    for (size_t i = 0; i < n; i++) {
        float v = a->v[i];

        arith_put(&a->v[i], 0, type, v);
        a->v[i] = arith_get(&a->v[i], 0, type);
    }
}

static void drop(struct numbers *a)
{
    free(a->v);
    free(a->want);
    free(a->size);
}

static void term(struct numbers *a, size_t at, float p, float q)
{
    a->want[at] += (double)p * (double)q;
    a->size[at] += fabs((double)p * (double)q);
}

/* One pixel and channel of y: its terms, in all three passes. */
static void terms(struct truth *t, int n, int oy, int ox, int k)
{
    const struct layer *l = &t->l;
    int row = l->c / l->group, first = k / (l->k / l->group) * row;
    size_t y = (size_t)(((n * t->out[0] + oy) * t->out[1] + ox) * l->k + k);

    for (int ky = 0; ky < l->kernel[0]; ky++)
        for (int kx = 0; kx < l->kernel[1]; kx++)
            for (int c = 0; c < row; c++) {
                int iy = oy * l->stride[0] - l->pad[0] + ky * l->dilation[0];
                int ix = ox * l->stride[1] - l->pad[1] + kx * l->dilation[1];
                size_t w =
                    (size_t)(((k * l->kernel[0] + ky) * l->kernel[1] + kx) *
                                 row +
                             c);
                size_t x =
                    (size_t)(((n * l->h + iy) * l->w + ix) * l->c + first + c);

                if (iy < 0 || iy >= l->h || ix < 0 || ix >= l->w)
                    continue;
                term(&t->y, y, t->x.v[x], t->w.v[w]);
                term(&t->x, x, t->y.v[y], t->w.v[w]);
                term(&t->w, w, t->y.v[y], t->x.v[x]);
            }
}

static void truth_init(struct truth *t, const struct layer *l, int type)
{
    int size[2] = {l->h, l->w}, depthwise = l->group > 1 && l->group == l->c;

    t->l = *l;
    t->type = type;
    for (int i = 0; i < 2; i++)
        t->out[i] = (size[i] + l->pad[i] + l->pad[2 + i] -
                     (l->kernel[i] - 1) * l->dilation[i] - 1) /
                        l->stride[i] +
                    1;
    draw(&t->x, "x", (size_t)(l->n * l->h * l->w * l->c), type);
    draw(&t->y, "y", (size_t)(l->n * t->out[0] * t->out[1] * l->k), type);
    draw(&t->w, "w",
         (size_t)(l->k * l->kernel[0] * l->kernel[1] * (l->c / l->group)),
         depthwise ? GTYPE_F32 : type);
    for (int n = 0; n < l->n; n++)
        for (int oy = 0; oy < t->out[0]; oy++)
            for (int ox = 0; ox < t->out[1]; ox++)
                for (int k = 0; k < l->k; k++)
                    terms(t, n, oy, ox, k);
}

static void truth_fini(struct truth *t)
{
    drop(&t->x);
    drop(&t->y);
    drop(&t->w);
}

#endif
