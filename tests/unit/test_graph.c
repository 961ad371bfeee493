/* tests/unit/test_graph.c - building graphs and its limits, the operators'
 * shape rules, counts, and what fusing and planning refuse. That a fused
 * graph computes the same is for tests/op. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine/graph.h"

static struct error err;

static struct graph *with_input(int c, int h, int w)
{
    struct graph *g = graph_new(&err);

    assert_non_null(g);
    assert_int_equal(graph_add_input(g, "x", c, h, w, &err), 0);
    return g;
}

static int weight(struct graph *g, int rank, int a, int b, int c, int d)
{
    struct shape s = shape_of(rank, a, b, c, d);
    int at = graph_add_weight(g, NULL, &s, NULL, &err);

    assert_true(at >= 0);
    return at;
}

static int node(struct graph *g, struct op op, int n_in, int a, int b)
{
    int in[2] = {a, b}, at = graph_add_node(g, NULL, &op, in, n_in, NULL, &err);

    assert_true(at >= 0);
    return at;
}

static struct op conv_op(int kernel, int stride)
{
    return (struct op){.type = OP_CONV,
                       .u.conv = {.kernel = {kernel, kernel},
                                  .stride = {stride, stride},
                                  .dilation = {1, 1},
                                  .group = 1}};
}

/* ---- shape rules ---------------------------------------------------- */

struct rule {
    const char *name;
    struct op op;
    int n_in;
    struct shape in[5];
    struct shape want; /* rank 0: refused */
};

#define S1(a)                                                                  \
    {                                                                          \
        1,                                                                     \
        {                                                                      \
            a                                                                  \
        }                                                                      \
    }
#define S2(a, b)                                                               \
    {                                                                          \
        2,                                                                     \
        {                                                                      \
            a, b                                                               \
        }                                                                      \
    }
#define S4(a, b, c, d)                                                         \
    {                                                                          \
        4,                                                                     \
        {                                                                      \
            a, b, c, d                                                         \
        }                                                                      \
    }
#define CONV(k, s, d, g)                                                       \
    {                                                                          \
        .type = OP_CONV, .u.conv = { {k, k}, {s, s}, {d, d}, .group = g }      \
    }
#define POOL(k, s, p)                                                          \
    {                                                                          \
        .type = OP_MAX_POOL, .u.pool = {                                       \
            .kernel = {k, k},                                                  \
            .stride = {s, s},                                                  \
            .pad = {p, p, p, p}                                                \
        }                                                                      \
    }
#define AXIS(t, ...)                                                           \
    {                                                                          \
        .type = t, .u.axis = { __VA_ARGS__ }                                   \
    }
#define RESHAPE(...)                                                           \
    {                                                                          \
        .type = OP_RESHAPE, .u.reshape.to = { __VA_ARGS__ }                    \
    }

static const struct rule rules[] = {
    {"conv",
     CONV(3, 2, 1, 1),
     2,
     {S4(2, 3, 9, 8), S4(5, 3, 3, 3)},
     S4(2, 5, 4, 3)},
    {"conv, grouped",
     CONV(1, 1, 1, 2),
     2,
     {S4(1, 4, 5, 5), S4(6, 2, 1, 1)},
     S4(1, 6, 5, 5)},
    {"conv, dilated",
     CONV(3, 1, 2, 1),
     2,
     {S4(1, 1, 5, 7), S4(1, 1, 3, 3)},
     S4(1, 1, 1, 3)},
    {"conv, too large",
     CONV(3, 1, 3, 1),
     2,
     {S4(1, 1, 5, 7), S4(1, 1, 3, 3)},
     {0}},
    {"conv, channels",
     CONV(3, 1, 1, 1),
     2,
     {S4(1, 2, 5, 5), S4(4, 3, 3, 3)},
     {0}},
    {"conv, no groups",
     CONV(1, 1, 1, 0),
     2,
     {S4(1, 2, 5, 5), S4(4, 2, 1, 1)},
     {0}},
    {"conv, groups that do not divide",
     CONV(1, 1, 1, 3),
     2,
     {S4(1, 6, 5, 5), S4(4, 2, 1, 1)},
     {0}},
    {"conv, another kernel",
     CONV(3, 1, 1, 1),
     2,
     {S4(1, 2, 5, 5), S4(4, 2, 3, 2)},
     {0}},
    {"conv, bias",
     CONV(1, 1, 1, 1),
     3,
     {S4(1, 2, 5, 5), S4(4, 2, 1, 1), S1(3)},
     {0}},
    {"conv, no stride",
     CONV(1, 0, 1, 1),
     2,
     {S4(1, 2, 5, 5), S4(4, 2, 1, 1)},
     {0}},
    {"conv, endless dilation",
     CONV(2, 1, INT_MAX, 1),
     2,
     {S4(1, 1, 5, 5), S4(1, 1, 2, 2)},
     {0}},
    {"conv of a vector", CONV(1, 1, 1, 1), 2, {S2(1, 2), S4(4, 2, 1, 1)}, {0}},
    {"gemm", {.type = OP_GEMM}, 3, {S2(2, 3), S2(5, 3), S1(5)}, S2(2, 5)},
    {"gemm, sizes", {.type = OP_GEMM}, 2, {S2(2, 3), S2(3, 5)}, {0}},
    {"gemm of a plane", {.type = OP_GEMM}, 2, {S4(2, 3, 1, 1), S2(5, 3)}, {0}},
    {"batch norm",
     {.type = OP_BATCH_NORM},
     5,
     {S2(2, 3), S1(3), S1(3), S1(3), S1(3)},
     S2(2, 3)},
    {"batch norm, short",
     {.type = OP_BATCH_NORM},
     5,
     {S2(2, 3), S1(3), S1(3), S1(2), S1(3)},
     {0}},
    {"batch norm of four",
     {.type = OP_BATCH_NORM},
     4,
     {S2(2, 3), S1(3), S1(3), S1(3)},
     {0}},
    {"prelu, one slope",
     {.type = OP_PRELU},
     2,
     {S4(1, 3, 4, 4), S1(1)},
     S4(1, 3, 4, 4)},
    {"prelu, two slopes", {.type = OP_PRELU}, 2, {S4(1, 3, 4, 4), S1(2)}, {0}},
    {"add, by channel",
     {.type = OP_ADD},
     2,
     {S4(1, 3, 4, 5), S1(3)},
     S4(1, 3, 4, 5)},
    {"add, no channels", {.type = OP_ADD}, 2, {S4(1, 3, 4, 5), S1(5)}, {0}},
    {"concat", AXIS(OP_CONCAT, 1, 0, 0, 0), 2, {S2(2, 3), S2(2, 4)}, S2(2, 7)},
    {"concat, batch axis",
     AXIS(OP_CONCAT, 0, 0, 0, 0),
     2,
     {S2(2, 3), S2(2, 3)},
     {0}},
    {"concat, axis 7",
     AXIS(OP_CONCAT, 7, 0, 0, 0),
     2,
     {S2(2, 3), S2(2, 3)},
     {0}},
    {"concat, other rank",
     AXIS(OP_CONCAT, 1, 0, 0, 0),
     2,
     {S2(2, 3), S4(2, 3, 1, 1)},
     {0}},
    {"concat, too long",
     AXIS(OP_CONCAT, 1, 0, 0, 0),
     2,
     {S2(1, 1 << 24), S2(1, 1)},
     {0}},
    {"slice", AXIS(OP_SLICE, 1, 2, 3, 0), 1, {S2(2, 5)}, S2(2, 3)},
    {"slice over the end", AXIS(OP_SLICE, 1, 3, 3, 0), 1, {S2(2, 5)}, {0}},
    {"slice, wrapping", AXIS(OP_SLICE, 1, 1, INT_MAX, 0), 1, {S2(2, 5)}, {0}},
    {"slice before the start", AXIS(OP_SLICE, 1, -1, 2, 0), 1, {S2(2, 5)}, {0}},
    {"softmax, axis", AXIS(OP_SOFTMAX, 2, 0, 0, 0), 1, {S2(2, 5)}, {0}},
    {"softmax, axis -1", AXIS(OP_SOFTMAX, -1, 0, 0, 0), 1, {S2(2, 5)}, {0}},
    {"norm of power 3", AXIS(OP_LP_NORM, 1, 0, 0, 3), 1, {S2(2, 5)}, {0}},
    {"pool", POOL(3, 2, 1), 1, {S4(2, 3, 9, 8)}, S4(2, 3, 5, 4)},
    {"pool, all padding", POOL(2, 1, 2), 1, {S4(2, 3, 9, 8)}, {0}},
    {"pool, wide padding",
     POOL(1 << 30, 1, (1 << 30) - 1),
     1,
     {S4(1, 1, 4, 4)},
     {0}},
    {"lrn",
     {.type = OP_LRN, .u.lrn = {5, 1, 1, 1}},
     1,
     {S4(1, 8, 2, 2)},
     S4(1, 8, 2, 2)},
    {"lrn, even",
     {.type = OP_LRN, .u.lrn = {4, 1, 1, 1}},
     1,
     {S4(1, 8, 2, 2)},
     {0}},
    {"lrn of a vector",
     {.type = OP_LRN, .u.lrn = {5, 1, 1, 1}},
     1,
     {S2(1, 8)},
     {0}},
    {"reshape", RESHAPE(3, {0, -1, 2}), 1, {S4(3, 4, 1, 5)}, {3, {3, 10, 2}}},
    {"reshape, copied", RESHAPE(2, {0, 0}), 1, {S4(3, 4, 1, 1)}, S2(3, 4)},
    {"reshape, uneven", RESHAPE(3, {0, -1, 3}), 1, {S4(3, 4, 1, 5)}, {0}},
    {"reshape, two unknown", RESHAPE(3, {0, -1, -1}), 1, {S4(3, 4, 1, 5)}, {0}},
    {"reshape, other count", RESHAPE(2, {0, 21}), 1, {S4(3, 4, 1, 5)}, {0}},
    {"reshape, wrapping",
     RESHAPE(4, {0, 1 << 30, 1 << 30, 16}),
     1,
     {S4(3, 4, 1, 5)},
     {0}},
    {"reshape to rank 9", RESHAPE(9, {0}), 1, {S4(3, 4, 1, 5)}, {0}},
    {"transpose",
     {.type = OP_TRANSPOSE, .u.transpose.perm = {0, 2, 3, 1}},
     1,
     {S4(2, 3, 4, 5)},
     S4(2, 4, 5, 3)},
    {"transpose of the batch",
     {.type = OP_TRANSPOSE, .u.transpose.perm = {1, 0, 2, 3}},
     1,
     {S4(2, 3, 4, 5)},
     {0}},
    {"transpose, twice the same",
     {.type = OP_TRANSPOSE, .u.transpose.perm = {0, 2, 2, 1}},
     1,
     {S4(2, 3, 4, 5)},
     {0}},
    {"transpose, axis 40",
     {.type = OP_TRANSPOSE, .u.transpose.perm = {0, 40, 2, 1}},
     1,
     {S4(2, 3, 4, 5)},
     {0}},
    {"max", {.type = OP_MAX}, 2, {S2(2, 3), S2(2, 4)}, {0}},
    {"too many inputs", {.type = OP_RELU}, 2, {S2(2, 3), S2(2, 3)}, {0}},
};

static void test_shapes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        const struct rule *r = &rules[i];
        struct shape out;
        int rc;

        err.text[0] = '\0';
        rc = op_shape(&r->op, r->in, r->n_in, &out, &err);
        if (r->want.rank == 0) {
            if (rc == 0)
                fail_msg("%s is taken", r->name);
            assert_int_equal(err.code, ERR_MODEL);
            assert_true(err.text[0]);
        } else if (rc || !shape_equal(&out, &r->want)) {
            char text[64];

            fail_msg("%s: %s", r->name,
                     rc ? err.text : shape_text(&out, text, sizeof(text)));
        }
    }
}

static void test_shape_limits(void **state)
{
    struct shape s = shape_of(4, 1, 1 << 10, 1 << 10, 1 << 10);

    (void)state;
    assert_true(shape_valid(&s));
    s.d[0] = 2;
    assert_false(shape_valid(&s));
    s = shape_of(4, 1 << 24, 1 << 24, 1 << 24, 1 << 24);
    assert_false(shape_valid(&s));
    s = shape_of(2, 1, 0, 0, 0);
    assert_false(shape_valid(&s));
    s.rank = 5;
    assert_false(shape_valid(&s));
    s = shape_of(0, 0, 0, 0, 0);
    assert_true(shape_valid(&s));
    assert_int_equal(shape_count(&s), 1);
}

/* ---- building ------------------------------------------------------- */

static void test_names(void **state)
{
    struct graph *g = with_input(3, 4, 4);
    struct shape one = shape_of(1, 1, 0, 0, 0);
    char name[300];

    (void)state;
    for (int i = 1; i < 5000; i++) {
        snprintf(name, sizeof(name), "w%d", i);
        assert_int_equal(graph_add_weight(g, name, &one, NULL, &err), i);
    }
    for (int i = 1; i < 5000; i++) {
        snprintf(name, sizeof(name), "w%d", i);
        assert_int_equal(graph_find(g, name), i);
    }
    assert_int_equal(graph_find(g, "x"), 0);
    assert_int_equal(graph_find(g, "w5000"), -1);
    assert_int_equal(graph_add_weight(g, "w77", &one, NULL, &err), -1);
    assert_non_null(strstr(err.text, "'w77'"));
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    assert_int_equal(graph_add_weight(g, name, &one, NULL, &err), -1);
    graph_free(g);
    g = graph_new(&err);
    assert_int_equal(graph_find(g, "x"), -1);
    graph_free(g);
}

static void test_limits(void **state)
{
    struct graph *g = with_input(3, 4, 4);
    struct shape one = shape_of(1, 1, 0, 0, 0);
    struct shape half = shape_of(2, 1 << 14, 1 << 15, 0, 0);
    struct op relu = {.type = OP_RELU};
    int x = 0, none = 7, rc = 0;

    (void)state;
    assert_int_equal(graph_add_input(g, "y", 3, 4, 4, &err), -1);
    assert_int_equal(graph_add_node(g, NULL, &relu, &none, 1, NULL, &err), -1);
    assert_int_equal(graph_add_output(g, 1, &err), -1);
    for (int i = 0; i < GRAPH_MAX_OUTPUTS; i++)
        assert_int_equal(graph_add_output(g, 0, &err), 0);
    assert_int_equal(graph_add_output(g, 0, &err), -1);
    for (int i = 0; i < GRAPH_MAX_NODES; i++)
        rc |= graph_add_node(g, NULL, &relu, &x, 1, NULL, &err) < 0;
    assert_int_equal(rc, 0);
    assert_int_equal(graph_add_node(g, NULL, &relu, &x, 1, NULL, &err), -1);
    while (g->n_values < GRAPH_MAX_VALUES)
        rc |= graph_add_weight(g, NULL, &one, NULL, &err) < 0;
    assert_int_equal(rc, 0);
    assert_int_equal(graph_add_weight(g, NULL, &one, NULL, &err), -1);
    /* The sum of all weights is limited before memory is asked for. */
    assert_int_equal(graph_add_weight(g, "big", &half, NULL, &err), -1);
    assert_non_null(strstr(err.text, "'big'"));
    graph_free(g);
    g = graph_new(&err);
    assert_int_equal(graph_add_input(g, "x", 0, 4, 4, &err), -1);
    assert_int_equal(graph_add_input(g, "x", 3, -1, 4, &err), -1);
    assert_int_equal(graph_add_input(g, "x", 3, 65537, 4, &err), -1);
    graph_free(g);
}

static void test_counts(void **state)
{
    struct graph *g = with_input(3, 0, 0);
    struct graph_counts n;
    int y = node(g, conv_op(3, 2), 2, 0, weight(g, 4, 8, 3, 3, 3));
    int in[5] = {y};
    struct op bn = {.type = OP_BATCH_NORM, .u.norm = {1e-3f, 0.9f}};
    char *text;

    (void)state;
    for (int k = 1; k < 5; k++)
        in[k] = weight(g, 1, 8, 0, 0, 0);
    y = graph_add_node(g, "norm", &bn, in, 5, NULL, &err);
    assert_true(y > 0);
    assert_int_equal(graph_count(g, 9, 11, &n, &err), 0);
    assert_int_equal(n.n_parameters, 8 * 27 + 16);
    assert_int_equal(n.n_statistics, 16);
    assert_int_equal(n.macs, 4 * 5 * 8 * 27);
    assert_int_equal(n.n_convs, 1);
    assert_int_equal(graph_count(g, 2, 2, &n, &err), -1);
    assert_non_null(strstr(err.text, "Conv"));
    text = graph_text(g, 9, 11, &err);
    assert_non_null(text);
    assert_non_null(strstr(text, "[1,8,4,5]"));
    free(text);
    graph_free(g);
}

/* ---- fusing --------------------------------------------------------- */

static int count_ops(const struct graph *g, enum op_type type)
{
    int n = 0;

    for (int i = 0; i < g->n_nodes; i++)
        n += g->nodes[i].op.type == type;
    return n;
}

/* relu(x + bn(conv(drop(x)))), and a branch that nothing needs, are one
 * convolution. */
static void test_fuse(void **state)
{
    struct graph *g = with_input(4, 6, 6), *f;
    struct op bn = {.type = OP_BATCH_NORM, .u.norm = {1e-3f, 0.9f}};
    int drop = node(g, (struct op){.type = OP_DROPOUT}, 1, 0, 0), in[5];

    (void)state;
    in[0] = node(g, conv_op(1, 1), 2, drop, weight(g, 4, 4, 4, 1, 1));
    for (int k = 1; k < 5; k++)
        in[k] = weight(g, 1, 4, 0, 0, 0);
    in[0] = graph_add_node(g, NULL, &bn, in, 5, NULL, &err);
    node(g, (struct op){.type = OP_SIGMOID}, 1, 0, 0);
    in[0] = node(g, (struct op){.type = OP_ADD}, 2, in[0], 0);
    in[0] = node(g, (struct op){.type = OP_RELU}, 1, in[0], 0);
    graph_add_output(g, in[0], &err);
    graph_add_output(g, in[0], &err);
    f = graph_fuse(g, &err);
    assert_non_null(f);
    assert_int_equal(f->n_nodes, 1);
    assert_true(f->nodes[0].op.u.conv.residual);
    assert_int_equal(f->nodes[0].op.u.conv.act, ACT_RELU);
    assert_int_equal(f->n_outputs, 2);
    assert_int_equal(f->outputs[0], f->outputs[1]);
    graph_free(f);
    graph_free(g);
}

/* A sum that is an output too keeps what comes after it apart. */
static void test_fuse_keeps_outputs(void **state)
{
    struct graph *g = with_input(4, 6, 6), *f;
    int y = node(g, conv_op(1, 1), 2, 0, weight(g, 4, 4, 4, 1, 1));

    (void)state;
    graph_add_output(g, y, &err);
    y = node(g, (struct op){.type = OP_RELU}, 1, y, 0);
    graph_add_output(g, y, &err);
    f = graph_fuse(g, &err);
    assert_non_null(f);
    assert_int_equal(count_ops(f, OP_CONV), 1);
    assert_int_equal(count_ops(f, OP_RELU), 1);
    graph_free(f);
    graph_free(g);
}

/* A computed value where numbers are wanted, and the other way round. */
static void test_fuse_refuses(void **state)
{
    static const enum op_type unary[] = {OP_RELU,     OP_SIGMOID, OP_CLIP,
                                         OP_IDENTITY, OP_DROPOUT, OP_MAX,
                                         OP_CONCAT,   OP_SOFTMAX, OP_RESHAPE};

    (void)state;
    for (size_t i = 0; i < sizeof(unary) / sizeof(unary[0]) + 4; i++) {
        struct graph *g = with_input(1, 1, 1);
        size_t n = sizeof(unary) / sizeof(unary[0]);
        struct op flat = {.type = OP_RESHAPE, .u.reshape.to = {1, {0}}};
        int slope = node(g, flat, 1, 0, 0), w = weight(g, 4, 1, 1, 1, 1), y;
        struct op op = {.type = i < n ? unary[i] : OP_ADD};

        if (op.type == OP_RESHAPE)
            op.u.reshape.to = shape_of(2, 0, -1, 0, 0);
        op.u.axis.axis =
            op.type == OP_CONCAT || op.type == OP_SOFTMAX ? 1 : op.u.axis.axis;
        if (i < n)
            y = node(g, op, 1, w, 0);
        else if (i == n)
            y = node(g, (struct op){.type = OP_PRELU}, 2, 0, slope);
        else if (i == n + 1)
            y = node(g, conv_op(1, 1), 2, 0, 0);
        else if (i == n + 2)
            y = node(g, op, 2, w, 0);
        else
            y = node(g, conv_op(1, 1), 2, w, w);
        /* the same weight is in use elsewhere, too */
        y = node(g, (struct op){.type = OP_MUL}, 2,
                 node(g, (struct op){.type = OP_ADD}, 2, 0, w), y);
        graph_add_output(g, y, &err);
        assert_null(graph_fuse(g, &err));
        assert_int_equal(err.code, ERR_MODEL);
        if (!strstr(err.text, "constant") && !strstr(err.text, "together"))
            fail_msg("case %zu: %s", i, err.text);
        graph_free(g);
    }
}

/* ---- plans ---------------------------------------------------------- */

static struct network *load(struct device *dev, const struct graph *g)
{
    struct network *net = network_new(dev, g, &err);

    if (!net)
        fail_msg("%s", err.text);
    return net;
}

static void test_plan_memory(void **state)
{
    struct plan_options opt = {.n = 1, .h = 32768, .w = 32768};
    struct graph *g = with_input(1, 0, 0);
    struct network *net;

    (void)state;
    graph_add_output(g, node(g, conv_op(1, 1), 2, 0, weight(g, 4, 16, 1, 1, 1)),
                     &err);
    net = load(*state, g);
    assert_null(graph_plan(net, &opt, &err)); /* 2^30 in, 2^34 out */
    assert_int_equal(err.code, ERR_MODEL);
    opt.h = 8192; /* 2^28 in, 2^32 out */
    assert_null(graph_plan(net, &opt, &err));
    assert_int_equal(err.code, ERR_MODEL);
    opt.w = 6144; /* 192 MiB in, 3 GiB out */
    assert_null(graph_plan(net, &opt, &err));
    assert_non_null(strstr(err.text, "MiB"));
    opt.h = 65536;
    opt.w = 65536;
    assert_null(graph_plan(net, &opt, &err));
    opt.h = opt.w = 0;
    assert_null(graph_plan(net, &opt, &err));
    opt.h = opt.w = 8;
    opt.n = 0;
    assert_null(graph_plan(net, &opt, &err));
    network_free(net);
    graph_free(g);
}

/* Two outputs, one of them the input, one given twice, run again and again
 * in one plan. */
static void test_outputs(void **state)
{
    struct graph *g = with_input(2, 3, 3);
    struct plan_options opt = {.n = 1};
    struct network *net;
    struct plan *p;
    int y = node(g, (struct op){.type = OP_SIGMOID}, 1, 0, 0);

    graph_add_output(g, y, &err);
    graph_add_output(g, 0, &err);
    graph_add_output(g, y, &err);
    net = load(*state, g);
    p = graph_plan(net, &opt, &err);
    assert_non_null(p);
    for (int turn = 0; turn < 3; turn++) {
        for (int i = 0; i < 18; i++)
            plan_input(p)[i] = (float)(i - turn);
        assert_int_equal(graph_forward(p, &err), 0);
        for (int i = 0; i < 18; i++) {
            assert_float_equal(plan_output(p, 0)[i], 1 / (1 + exp(turn - i)),
                               1e-5);
            assert_float_equal(plan_output(p, 1)[i], i - turn, 0);
            assert_float_equal(plan_output(p, 2)[i], 1 / (1 + exp(turn - i)),
                               1e-5);
        }
    }
    plan_free(p);
    network_free(net);
    graph_free(g);
}

/* Plans of one network made and run by many threads at once. */
struct planner {
    struct network *net;
    float first;
    bool ok;
};

static void *plan_and_run(void *arg)
{
    struct planner *t = arg;
    struct plan_options opt = {.n = 1};
    struct error e;

    for (int turn = 1; turn <= 8; turn++) {
        struct plan *p;

        opt.h = opt.w = 8 + turn;
        p = graph_plan(t->net, &opt, &e);
        if (!p)
            return NULL;
        for (int i = 0; i < opt.h * opt.w; i++)
            plan_input(p)[i] = 1;
        t->ok = !graph_forward(p, &e) && plan_output(p, 0)[0] == t->first;
        plan_free(p);
        if (!t->ok)
            return NULL;
    }
    return NULL;
}

static void test_threads(void **state)
{
    enum {
        N = 4
    };
    struct graph *g = with_input(1, 0, 0);
    int w = weight(g, 4, 20, 1, 3, 3), slope = weight(g, 1, 1, 0, 0, 0);
    struct planner planners[N];
    pthread_t threads[N];
    struct network *net;

    for (int i = 0; i < 20 * 9; i++)
        g->values[w].data[i] = -1;
    g->values[slope].data[0] = 0.5f;
    graph_add_output(g,
                     node(g, (struct op){.type = OP_PRELU}, 2,
                          node(g, conv_op(3, 1), 2, 0, w), slope),
                     &err);
    net = load(*state, g);
    for (int i = 0; i < N; i++) {
        planners[i] = (struct planner){.net = net, .first = -4.5f};
        assert_int_equal(
            pthread_create(&threads[i], NULL, plan_and_run, &planners[i]), 0);
    }
    for (int i = 0; i < N; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < N; i++)
        assert_true(planners[i].ok);
    network_free(net);
    graph_free(g);
}

/* What the CPU does not compute in, for inference and for learning. */
static void test_precisions(void **state)
{
    static const enum precision none[] = {PRECISION_F16, PRECISION_TF32};
    struct learn_options learn = {0};
    struct graph *g = with_input(2, 8, 8);
    struct network *net, *learns;

    graph_add_output(g, node(g, conv_op(1, 1), 2, 0, weight(g, 4, 3, 2, 1, 1)),
                     &err);
    net = load(*state, g);
    learns = network_new_learning(*state, g, &learn, &err);
    assert_non_null(learns);
    for (int i = 0; i < 2; i++) {
        struct plan_options opt = {.n = 1, .precision = none[i]};
        const char *name = i ? "tf32" : "f16";

        assert_null(graph_plan(net, &opt, &err));
        assert_int_equal(err.code, ERR_DEVICE);
        assert_non_null(strstr(err.text, name));
        assert_null(graph_plan(learns, &opt, &err));
        assert_int_equal(err.code, ERR_DEVICE);
        assert_non_null(strstr(err.text, name));
    }
    network_free(net);
    network_free(learns);
    graph_free(g);
}

static int open_device(void **state)
{
    struct device_options opt = {.n_threads = 1};

    *state = backend_cpu.device_open(&opt, &err);
    return *state ? 0 : -1;
}

static int close_device(void **state)
{
    backend_cpu.device_close(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_shape_limits),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_fuse),
        cmocka_unit_test(test_fuse_keeps_outputs),
        cmocka_unit_test(test_fuse_refuses),
        cmocka_unit_test(test_plan_memory),
        cmocka_unit_test(test_outputs),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_precisions),
    };

    return cmocka_run_group_tests_name("graph", tests, open_device,
                                       close_device);
}
