/* tests/op/test_op.c - one table of operators and little networks, each on
 * random shapes and numbers against the naive loops, in f32, in 16 bits where
 * the device has them, and with every value in memory of its own.
 * FACENETD_PLUGIN names a plugin whose device is tested instead of the
 * processor. A new operator is a new row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/device.h"
#include "tests/op/naive.h"

/* A seeded generator: the same cases on every machine. */
struct rng {
    uint64_t s;
};

static uint32_t draw(struct rng *r)
{
    r->s = r->s * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(r->s >> 33);
}

static int between(struct rng *r, int lo, int hi)
{
    return lo + (int)(draw(r) % (uint32_t)(hi - lo + 1));
}

static float uniform(struct rng *r)
{
    return (float)draw(r) / (float)(1u << 30) - 1;
}

static float *numbers(struct rng *r, size_t n, float scale, float shift)
{
    float *v = tensor_alloc(n);

    assert_non_null(v);
    for (size_t i = 0; i < n; i++)
        v[i] = uniform(r) * scale + shift;
    return v;
}

/* A network under construction: c, h, w of the value x. */
struct net {
    struct rng r;
    struct graph *g;
    struct error err;
    int x, c, h, w;
};

static int weight(struct net *t, struct shape s, float scale, float shift)
{
    int at = graph_add_weight(
        t->g, NULL, &s, numbers(&t->r, shape_count(&s), scale, shift), &t->err);

    assert_true(at >= 0);
    return at;
}

static int vector(struct net *t, int n, float scale, float shift)
{
    return weight(t, shape_of(1, n, 0, 0, 0), scale, shift);
}

static int node_of(struct net *t, const struct op *op, const int in[], int n_in)
{
    int at = graph_add_node(t->g, NULL, op, in, n_in, NULL, &t->err);

    if (at < 0)
        fail_msg("%s", t->err.text);
    return at;
}

static int unary(struct net *t, struct op op)
{
    return node_of(t, &op, &t->x, 1);
}

static void start(struct net *t, int c, int h, int w)
{
    t->g = graph_new(&t->err);
    assert_non_null(t->g);
    t->c = c;
    t->h = h;
    t->w = w;
    t->x = graph_add_input(t->g, "x", c, h, w, &t->err);
    assert_true(t->x >= 0);
}

/* A convolution of x that keeps t->c,h,w up to date when advance. */
static int conv(struct net *t, int out, int kh, int kw, int stride, int group,
                bool same, bool bias)
{
    struct op op = {.type = OP_CONV};
    struct op_conv *c = &op.u.conv;
    float scale = 1.7f / sqrtf((float)(t->c / group * kh * kw));
    int in[3] = {t->x,
                 weight(t, shape_of(4, out, t->c / group, kh, kw), scale, 0),
                 bias ? vector(t, out, 0.3f, 0) : 0};

    c->kernel[0] = kh;
    c->kernel[1] = kw;
    c->group = group;
    for (int i = 0; i < 2; i++) {
        c->stride[i] = stride;
        c->dilation[i] = 1;
        c->pad[i] = same ? (c->kernel[i] - 1) / 2 : 0;
        c->pad[2 + i] = same ? c->kernel[i] / 2 : 0;
    }
    return node_of(t, &op, in, bias ? 3 : 2);
}

static int batch_norm(struct net *t, int x, int c)
{
    struct op op = {.type = OP_BATCH_NORM, .u.norm = {0.001f, 0.9f}};
    int in[5] = {x, vector(t, c, 0.4f, 1), vector(t, c, 0.3f, 0),
                 vector(t, c, 0.2f, 0), vector(t, c, 0.3f, 1)};

    return node_of(t, &op, in, 5);
}

static int prelu(struct net *t, int x, int c)
{
    struct op op = {.type = OP_PRELU};
    int in[2] = {x, vector(t, c, 0.3f, 0.25f)};

    return node_of(t, &op, in, 2);
}

static int two(struct net *t, enum op_type type, int a, int b)
{
    struct op op = {.type = type};
    int in[2] = {a, b};

    return node_of(t, &op, in, 2);
}

/* ---- the rows: each builds a network and returns its output ---------- */

static int row_conv(struct net *t)
{
    int k = between(&t->r, 1, 5);

    start(t, between(&t->r, 1, 40), between(&t->r, k, 20),
          between(&t->r, k, 20));
    return conv(t, between(&t->r, 1, 48), k, k, between(&t->r, 1, 2), 1,
                between(&t->r, 0, 1), between(&t->r, 0, 1));
}

static int row_conv_oblong(struct net *t)
{
    start(t, between(&t->r, 8, 32), 9, 11);
    if (between(&t->r, 0, 1))
        return conv(t, 32, 1, 7, 1, 1, true, false);
    return conv(t, 32, 7, 1, 1, 1, true, true);
}

static int row_depthwise(struct net *t)
{
    int c = between(&t->r, 1, 70), k = between(&t->r, 2, 7);

    start(t, c, between(&t->r, k, 16), between(&t->r, k, 16));
    return conv(t, c, k, k, between(&t->r, 1, 2), c, between(&t->r, 0, 1),
                true);
}

static int row_grouped(struct net *t)
{
    start(t, 24, 8, 9);
    return conv(t, 36, 3, 3, 1, 4, true, true);
}

static int row_dilated(struct net *t)
{
    struct op *op;
    int y;

    start(t, 16, 15, 14);
    y = conv(t, 20, 3, 3, 1, 1, true, true);
    op = &t->g->nodes[t->g->n_nodes - 1].op;
    for (int i = 0; i < 2; i++) {
        op->u.conv.dilation[i] = 2;
        op->u.conv.pad[i] = op->u.conv.pad[2 + i] = 2;
    }
    return y;
}

static int row_conv_bn_prelu(struct net *t)
{
    int c = between(&t->r, 3, 40);

    start(t, between(&t->r, 1, 20), 10, 12);
    return prelu(t, batch_norm(t, conv(t, c, 3, 3, 1, 1, true, false), c), c);
}

static int row_conv_bn_relu(struct net *t)
{
    struct op op = {.type = OP_RELU};
    int c = between(&t->r, 3, 40);

    start(t, between(&t->r, 1, 20), 10, 12);
    t->x = batch_norm(t, conv(t, c, 3, 3, 2, 1, true, true), c);
    return unary(t, op);
}

/* relu(x + scale * conv(...)), the block of Inception-ResNet. */
static int row_residual(struct net *t)
{
    struct op relu = {.type = OP_RELU}, mul = {.type = OP_MUL};
    int c = between(&t->r, 4, 32), trunk, in[2];

    start(t, between(&t->r, 1, 20), 9, 9);
    trunk = t->x = conv(t, c, 1, 1, 1, 1, false, true);
    t->c = c;
    t->x = conv(t, c, 3, 3, 1, 1, true, true);
    in[0] = t->x;
    in[1] = vector(t, 1, 0.1f, 0.2f);
    t->x = node_of(t, &mul, in, 2);
    t->x = between(&t->r, 0, 1) ? two(t, OP_ADD, trunk, t->x)
                                : two(t, OP_ADD, t->x, trunk);
    return unary(t, relu);
}

/* The trunk is needed after the add: it must not be overwritten. */
static int row_residual_kept(struct net *t)
{
    int trunk, sum;

    start(t, 8, 9, 9);
    trunk = t->x = conv(t, 8, 1, 1, 1, 1, false, true);
    sum = two(t, OP_ADD, conv(t, 8, 3, 3, 1, 1, true, true), trunk);
    return two(t, OP_MUL, sum, trunk);
}

/* Both branches are convolutions; and the input itself as residual. */
static int row_two_branches(struct net *t)
{
    int x, a, b;

    start(t, 12, 7, 8);
    x = t->x;
    a = conv(t, 12, 3, 3, 1, 1, true, true);
    b = conv(t, 12, 1, 1, 1, 1, false, true);
    a = two(t, OP_ADD, a, b);
    t->x = a;
    return two(t, OP_ADD, conv(t, 12, 1, 1, 1, 1, false, false), x);
}

/* One value as the residual of two convolutions: the first must not write
 * where the second looks. */
static int row_residual_twice(struct net *t)
{
    int a, b;

    start(t, 16, 7, 8);
    if (between(&t->r, 0, 1))
        t->x = unary(
            t, (struct op){.type = OP_LP_POOL,
                           .u.pool = {{3, 3}, {1, 1}, {1, 1, 1, 1}, .p = 2}});
    a = two(t, OP_ADD, conv(t, 16, 3, 3, 1, 1, true, true), t->x);
    b = two(t, OP_ADD, conv(t, 16, 1, 1, 1, 1, false, true), t->x);
    return two(t, OP_MUL, a, b);
}

static int row_residual_chain(struct net *t)
{
    int n = between(&t->r, 2, 5), x;

    start(t, 8, 6, 7);
    t->x = conv(t, 8, 1, 1, 1, 1, false, true);
    for (int i = 0; i < n; i++) {
        x = t->x;
        t->x = conv(t, 8, 3, 3, 1, 1, true, true);
        t->x = two(t, OP_ADD, x, prelu(t, batch_norm(t, t->x, 8), 8));
        t->x = two(t, OP_ADD, conv(t, 8, 1, 1, 1, 1, false, false), t->x);
        t->x = unary(t, (struct op){.type = OP_RELU});
    }
    return t->x;
}

/* Two names of the same numbers, one of them a residual. */
static int row_reshape_alias(struct net *t)
{
    struct op op = {.type = OP_RESHAPE};
    int x, y;

    start(t, 8, 6, 7);
    x = t->x = conv(t, 8, 1, 1, 1, 1, false, true);
    op.u.reshape.to = shape_of(4, 0, 8, 6, 7);
    y = node_of(t, &op, &x, 1);
    t->x = between(&t->r, 0, 1) ? x : y;
    x = two(t, OP_ADD, conv(t, 8, 3, 3, 1, 1, true, true), x);
    return two(t, OP_SUB, x, y);
}

/* One weight in two layers, of which one is scaled. */
static int row_shared_weight(struct net *t)
{
    struct op conv_op;
    struct node *n;
    int a, b, in[2];

    start(t, 12, 7, 8);
    a = conv(t, 12, 3, 3, 1, 1, true, false);
    n = &t->g->nodes[t->g->n_nodes - 1];
    conv_op = n->op;
    in[0] = prelu(t, batch_norm(t, a, 12), 12);
    in[1] = t->g->nodes[0].in[1];
    b = node_of(t, &conv_op, in, 2);
    return two(t, OP_ADD, b, a);
}

/* One slope for all channels, for a convolution and, the same one, for
 * values of other widths. */
static int row_one_slope(struct net *t)
{
    struct op op = {.type = OP_PRELU};
    struct op max = {.type = OP_MAX_POOL,
                     .u.pool = {{2, 2}, {2, 2}, {0, 0, 0, 0}}};
    int c = between(&t->r, 4, 64), in[2];

    start(t, 3, 12, 12);
    in[0] = unary(t, max);
    in[1] = vector(t, 1, 0.1f, 0.3f);
    t->x = node_of(t, &op, in, 2);
    in[0] = conv(t, c, 3, 3, 1, 1, true, true);
    in[0] = t->x = node_of(t, &op, in, 2);
    in[0] = unary(t, max);
    t->c = c;
    in[0] = node_of(t, &op, in, 2);
    return batch_norm(t, in[0], c);
}

static int row_concat(struct net *t)
{
    struct op op = {.type = OP_CONCAT, .u.axis.axis = between(&t->r, 1, 3)};
    int n = between(&t->r, 1, 3), in[3];

    start(t, between(&t->r, 1, 20), 6, 7);
    if (between(&t->r, 0, 1))
        t->x = conv(t, t->c, 1, 1, 1, 1, false, true);
    for (int i = 0; i < n; i++)
        in[i] = t->x;
    return node_of(t, &op, in, n);
}

static int row_nothing(struct net *t)
{
    start(t, 3, 6, 7);
    if (between(&t->r, 0, 1))
        t->x = unary(t, (struct op){.type = OP_IDENTITY});
    return t->x;
}

static int row_inception(struct net *t)
{
    struct op pool = {.type = OP_MAX_POOL,
                      .u.pool = {{3, 3}, {1, 1}, {1, 1, 1, 1}}};
    struct op cat = {.type = OP_CONCAT, .u.axis.axis = 1};
    int x, in[3];

    start(t, 17, 8, 8);
    x = t->x;
    in[0] = conv(t, 16, 1, 1, 1, 1, false, true);
    in[1] = conv(t, 9, 3, 3, 1, 1, true, true);
    in[2] = unary(t, pool);
    t->x = node_of(t, &cat, in, 3);
    t->c = 42;
    (void)x;
    return conv(t, 8, 1, 1, 1, 1, false, true);
}

/* A plain operator beside convolutions: layouts and types meet. */
static int row_concat_mixed(struct net *t)
{
    struct op lp = {.type = OP_LP_POOL,
                    .u.pool = {{3, 3}, {1, 1}, {1, 1, 1, 1}, .p = 2}};
    struct op cat = {.type = OP_CONCAT, .u.axis.axis = 1};
    int in[2];

    start(t, 16, 7, 7);
    t->x = conv(t, 16, 1, 1, 1, 1, false, true);
    in[0] = conv(t, 16, 3, 3, 1, 1, true, true);
    in[1] = unary(t, lp);
    return node_of(t, &cat, in, 2);
}

static int row_first_scale(struct net *t)
{
    int c = vector(t->g ? t : (start(t, 3, 12, 12), t), 1, 0, 0.5f);

    t->x = two(t, OP_SUB, t->x, c);
    t->x = two(t, OP_MUL, t->x, vector(t, 1, 0, 0.3f));
    return conv(t, 8, 3, 3, 2, 1, true, false);
}

static int row_affine(struct net *t)
{
    struct op op = {.type = OP_AFFINE};
    int c = between(&t->r, 1, 20), in[3];

    start(t, c, 5, 6);
    in[0] = t->x;
    in[1] = vector(t, c, 1, 0);
    in[2] = vector(t, c, 1, 0);
    return node_of(t, &op, in, 3);
}

static int pool_row(struct net *t, enum op_type type)
{
    struct op op = {.type = type};
    struct op_pool *p = &op.u.pool;

    start(t, between(&t->r, 1, 20), between(&t->r, 4, 13),
          between(&t->r, 4, 13));
    p->global = between(&t->r, 0, 4) == 0;
    p->ceil_mode = between(&t->r, 0, 1);
    p->count_pad = between(&t->r, 0, 1);
    p->p = 2;
    for (int i = 0; i < 2; i++) {
        p->kernel[i] = between(&t->r, 2, 3);
        p->stride[i] = between(&t->r, 1, 2);
        p->pad[i] = between(&t->r, 0, 1);
        p->pad[2 + i] = between(&t->r, 0, 1);
    }
    if (between(&t->r, 0, 1)) /* from a convolution's layout */
        t->x = conv(t, t->c, 1, 1, 1, 1, false, true);
    return unary(t, op);
}

static int row_max_pool(struct net *t)
{
    return pool_row(t, OP_MAX_POOL);
}

static int row_avg_pool(struct net *t)
{
    return pool_row(t, OP_AVG_POOL);
}

static int row_lp_pool(struct net *t)
{
    return pool_row(t, OP_LP_POOL);
}

static int row_lrn(struct net *t)
{
    struct op op = {.type = OP_LRN, .u.lrn = {5, 0.2f, 0.75f, 1}};

    op.u.lrn.size = 2 * between(&t->r, 0, 4) + 1;
    start(t, between(&t->r, 5, 40), 6, 7);
    if (between(&t->r, 0, 1))
        t->x = conv(t, t->c, 1, 1, 1, 1, false, true);
    return unary(t, op);
}

static int act_row(struct net *t, enum op_type type)
{
    struct op op = {.type = type};

    if (type == OP_CLIP)
        op.u.clip = (struct op_clip){-0.2f, 0.6f};
    start(t, between(&t->r, 1, 20), 6, 7);
    if (between(&t->r, 0, 1))
        t->x = conv(t, t->c, 3, 3, 1, 1, true, true);
    return unary(t, op);
}

static int row_relu(struct net *t)
{
    return act_row(t, OP_RELU);
}

static int row_clip(struct net *t)
{
    return act_row(t, OP_CLIP);
}

static int row_sigmoid(struct net *t)
{
    return act_row(t, OP_SIGMOID);
}

static int row_prelu(struct net *t)
{
    start(t, between(&t->r, 1, 20), 6, 7);
    return prelu(t, t->x, between(&t->r, 0, 1) ? t->c : 1);
}

static int arith_row(struct net *t, enum op_type type)
{
    int other;

    start(t, between(&t->r, 2, 20), 6, 7);
    switch (between(&t->r, 0, 3)) {
    case 0:
        other = vector(t, 1, 0.2f, 1.5f);
        break;
    case 1:
        other = vector(t, t->c, 0.2f, 1.5f);
        break;
    case 2:
        other = conv(t, t->c, 1, 1, 1, 1, false, true);
        if (type == OP_DIV) /* away from 0 */
            other = two(t, OP_ADD, unary(t, (struct op){.type = OP_SIGMOID}),
                        vector(t, 1, 0, 1));
        break;
    default:
        t->x = conv(t, t->c, 3, 3, 1, 1, true, true);
        other = vector(t, t->c, 0.2f, 1.5f);
    }
    return two(t, type, t->x, other);
}

static int row_add(struct net *t)
{
    return arith_row(t, OP_ADD);
}

static int row_sub(struct net *t)
{
    return arith_row(t, OP_SUB);
}

static int row_mul(struct net *t)
{
    return arith_row(t, OP_MUL);
}

static int row_div(struct net *t)
{
    return arith_row(t, OP_DIV);
}

/* Maxout: slices of one convolution, and the greatest of each. */
static int row_maxout(struct net *t)
{
    int n = between(&t->r, 2, 3), in[3];
    struct op max = {.type = OP_MAX};

    start(t, 8, 5, 6);
    t->x = conv(t, 6 * n, 1, 1, 1, 1, false, true);
    for (int i = 0; i < n; i++)
        in[i] =
            unary(t, (struct op){.type = OP_SLICE, .u.axis = {1, 6 * i, 6, 0}});
    return node_of(t, &max, in, n);
}

static int flat(struct net *t)
{
    struct op op = {.type = OP_RESHAPE};

    op.u.reshape.to = shape_of(2, 0, -1, 0, 0);
    return unary(t, op);
}

static int row_dense(struct net *t)
{
    struct op op = {.type = OP_GEMM};
    int k, in[3], o = between(&t->r, 1, 30);

    start(t, between(&t->r, 1, 9), between(&t->r, 1, 4), 3);
    k = t->c * t->h * t->w;
    if (between(&t->r, 0, 1))
        t->x = conv(t, t->c, 3, 3, 1, 1, true, true);
    in[0] = t->x = flat(t);
    in[1] = weight(t, shape_of(2, o, k, 0, 0), 0.5f, 0);
    in[2] = vector(t, o, 0.5f, 0);
    t->x = node_of(t, &op, in, between(&t->r, 2, 3));
    if (between(&t->r, 0, 1))
        t->x = batch_norm(t, t->x, o);
    switch (between(&t->r, 0, 3)) {
    case 0:
        return prelu(t, t->x, o);
    case 1:
        return unary(t, (struct op){.type = OP_RELU});
    case 2:
        return unary(t, (struct op){.type = OP_CLIP, .u.clip = {-0.5f, 0.5f}});
    default:
        return t->x;
    }
}

static int row_batch_norm_2d(struct net *t)
{
    start(t, between(&t->r, 1, 30), 1, 1);
    t->x = flat(t);
    return batch_norm(t, t->x, t->c);
}

static int row_softmax(struct net *t)
{
    start(t, between(&t->r, 2, 9), 5, 6);
    if (between(&t->r, 0, 1))
        t->x = conv(t, t->c, 1, 1, 1, 1, false, true);
    return unary(t, (struct op){.type = OP_SOFTMAX,
                                .u.axis.axis = between(&t->r, 1, 3)});
}

static int row_lp_norm(struct net *t)
{
    start(t, between(&t->r, 2, 64), 1, 1);
    t->x = flat(t);
    return unary(t,
                 (struct op){.type = OP_LP_NORM,
                             .u.axis = {.axis = 1, .p = between(&t->r, 1, 2)}});
}

static int row_transpose(struct net *t)
{
    struct op op = {.type = OP_TRANSPOSE, .u.transpose.perm = {0, 2, 3, 1}};

    start(t, 5, 4, 3);
    if (between(&t->r, 0, 1))
        t->x = conv(t, t->c, 3, 3, 1, 1, true, true);
    t->x = unary(t, op);
    return flat(t);
}

static int row_slice(struct net *t)
{
    start(t, 9, 5, 6);
    return unary(t, (struct op){.type = OP_SLICE,
                                .u.axis = {between(&t->r, 1, 3), 1, 3, 0}});
}

static int row_dropout(struct net *t)
{
    start(t, 9, 5, 6);
    t->x = conv(t, 8, 3, 3, 1, 1, true, true);
    t->x = unary(t, (struct op){.type = OP_DROPOUT, .u.dropout = {0.4f}});
    t->x = unary(t, (struct op){.type = OP_IDENTITY});
    return batch_norm(t, t->x, 8);
}

static const struct row {
    const char *name;
    int (*build)(struct net *t);
    double f32, bf16; /* largest difference, of the largest number */
} rows[] = {
    {"Conv", row_conv, 2e-6, 2e-2},
    {"Conv 1x7", row_conv_oblong, 2e-6, 2e-2},
    {"Conv depthwise", row_depthwise, 2e-6, 2e-2},
    {"Conv grouped", row_grouped, 2e-6, 2e-2},
    {"Conv dilated", row_dilated, 2e-6, 2e-2},
    {"Conv+BatchNormalization+PRelu", row_conv_bn_prelu, 5e-6, 2e-2},
    {"Conv+BatchNormalization+Relu", row_conv_bn_relu, 5e-6, 2e-2},
    {"residual", row_residual, 5e-6, 3e-2},
    {"residual kept", row_residual_kept, 5e-6, 3e-2},
    {"two branches", row_two_branches, 5e-6, 3e-2},
    {"residual twice", row_residual_twice, 5e-6, 3e-2},
    {"residual chain", row_residual_chain, 5e-6, 4e-2},
    {"Reshape beside its input", row_reshape_alias, 5e-6, 3e-2},
    {"one weight in two layers", row_shared_weight, 5e-6, 3e-2},
    {"one slope", row_one_slope, 5e-6, 3e-2},
    {"Concat", row_concat, 2e-6, 2e-2},
    {"nothing", row_nothing, 0, 4e-3}, /* 16 bits round the input */
    {"inception", row_inception, 5e-6, 3e-2},
    {"Concat of two types", row_concat_mixed, 5e-6, 3e-2},
    {"first scale", row_first_scale, 5e-6, 3e-2},
    {"Affine", row_affine, 2e-6, 2e-2},
    {"MaxPool", row_max_pool, 2e-6, 2e-2},
    {"AveragePool", row_avg_pool, 2e-6, 2e-2},
    {"LpPool", row_lp_pool, 2e-6, 2e-2},
    {"LRN", row_lrn, 1e-5, 2e-2},
    {"Relu", row_relu, 2e-6, 2e-2},
    {"Clip", row_clip, 2e-6, 2e-2},
    {"Sigmoid", row_sigmoid, 5e-6, 2e-2},
    {"PRelu", row_prelu, 2e-6, 2e-2},
    {"Add", row_add, 2e-6, 2e-2},
    {"Sub", row_sub, 2e-6, 2e-2},
    {"Mul", row_mul, 2e-6, 2e-2},
    {"Div", row_div, 2e-6, 2e-2},
    {"Max over Slice", row_maxout, 2e-6, 2e-2},
    {"Gemm", row_dense, 5e-6, 2e-2},
    {"BatchNormalization 2-d", row_batch_norm_2d, 2e-6, 2e-2},
    {"Softmax", row_softmax, 5e-6, 2e-2},
    {"LpNormalization", row_lp_norm, 5e-6, 2e-2},
    {"Transpose", row_transpose, 2e-6, 2e-2},
    {"Slice", row_slice, 2e-6, 2e-2},
    {"Dropout, Identity", row_dropout, 5e-6, 2e-2},
};

/* Of one thread and of two; of a card, without tuning and with. */
static struct device *devices[2];
static const struct backend *backend;

static double tolerance(const struct row *row, enum precision p)
{
    switch (p) {
    case PRECISION_BF16:
        return row->bf16;
    case PRECISION_F16: /* three bits more, and four times fewer */
    case PRECISION_TF32:
        return row->bf16 / 4;
    default:
        return row->f32;
    }
}

static double largest_difference(const double *want, const float *got, size_t n)
{
    double top = 1e-3, worst = 0;

    for (size_t i = 0; i < n; i++)
        top = fmax(top, fabs(want[i]));
    for (size_t i = 0; i < n; i++) {
        double d = fabs(want[i] - got[i]) / top;

        if (!(d <= worst)) /* NaN counts */
            worst = d;
    }
    return worst;
}

static void check(const struct row *row, struct net *t, struct network *net,
                  int n, enum precision precision, bool separate)
{
    struct plan_options opt = {
        .n = n, .precision = precision, .separate = separate};
    struct plan *p = graph_plan(net, &opt, &t->err);
    size_t n_in = (size_t)n * (size_t)t->g->values[t->g->input].shape.d[1] *
                  (size_t)t->h * (size_t)t->w;
    float *x = numbers(&t->r, n_in, 1, 0);
    struct shape shape;
    double *want = naive_run(t->g, x, n, 0, 0, 0, &shape), worst;

    if (!p)
        fail_msg("%s: %s", row->name, t->err.text);
    assert_non_null(want);
    for (int again = 0; again < 2; again++) {
        memcpy(plan_input(p), x, n_in * sizeof(*x));
        assert_int_equal(graph_forward(p, &t->err), 0);
        assert_true(shape_equal(&shape, plan_output_shape(p, 0)));
        worst =
            largest_difference(want, plan_output(p, 0), shape_count(&shape));
        if (!(worst <= tolerance(row, precision)))
            fail_msg("%s, batch %d, %s%s: off by %g", row->name, n,
                     precision_name(precision), separate ? ", separate" : "",
                     worst);
    }
    free(want);
    free(x);
    plan_free(p);
}

static void test_row(void **state)
{
    const struct row *row = *state;
    struct device_info info;

    devices[0]->backend->device_describe(devices[0], &info);
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct net t = {.r = {seed * 0x9E3779B97F4A7C15u}};
        struct network *net = NULL;
        int out = row->build(&t);

        if (graph_add_output(t.g, out, &t.err) < 0 ||
            !(net = network_new(devices[seed % 2], t.g, &t.err)))
            fail_msg("%s: %s", row->name, t.err.text);
        check(row, &t, net, 1, PRECISION_F32, true);
        check(row, &t, net, between(&t.r, 2, 5), PRECISION_F32, false);
        if (info.any_bf16)
            check(row, &t, net, 2, PRECISION_BF16, seed % 2);
        if (info.fast_f16)
            check(row, &t, net, 3, PRECISION_F16, !(seed % 2));
        if (info.fast_f16 && info.any_bf16)
            check(row, &t, net, 1, PRECISION_TF32, false);
        network_free(net);
        graph_free(t.g);
    }
}

/* Every operator but those that only training has meaning for stands in the
 * table; the names of op_info are ONNX's. */
static void test_table_complete(void **state)
{
    (void)state;
    for (int op = 0; op < OP_COUNT; op++) {
        bool found = op == OP_BATCH_NORM || op == OP_DROPOUT ||
                     op == OP_IDENTITY || op == OP_MAX;

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
            found |=
                strstr(rows[i].name, op_info((enum op_type)op)->name) != NULL;
        if (!found)
            fail_msg("%s has no row", op_info((enum op_type)op)->name);
    }
}

static int open_devices(void **state)
{
    struct error err = {0};

    (void)state;
    for (int i = 0; i < 2; i++) {
        const struct device_options opt = {.n_threads = i + 1, .tune = i > 0};

        devices[i] = backend->device_open(&opt, &err);
        if (!devices[i])
            print_error("%s\n", err.text);
        if (!devices[i])
            return -1;
    }
    return 0;
}

static int close_devices(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        backend->device_close(devices[i]);
    return 0;
}

int main(void)
{
    enum {
        N = sizeof(rows) / sizeof(rows[0])
    };
    struct CMUnitTest tests[N + 1];

    backend = test_backend();
    if (!backend)
        return 1;
    memset(tests, 0, sizeof(tests));
    for (size_t i = 0; i < N; i++) {
        tests[i].name = rows[i].name;
        tests[i].test_func = test_row;
        tests[i].initial_state = (void *)(uintptr_t)&rows[i];
    }
    tests[N].name = "every operator has a row";
    tests[N].test_func = test_table_complete;
    return cmocka_run_group_tests_name("operators", tests, open_devices,
                                       close_devices);
}
