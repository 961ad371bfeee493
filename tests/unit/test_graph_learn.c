/* tests/unit/test_graph_learn.c - networks that learn: convolutions and dense
 * layers against central differences, every value with its own NaN-filled
 * memory; whole networks along random directions of their weights; what is
 * frozen; a plan at rest against inference. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arch/arch.h"
#include "core/engine/graph.h"

static struct device *device;

static void must(int rc, const struct error *err)
{
    if (rc < 0)
        fail_msg("%s", err->text);
}

/* ---- one layer -------------------------------------------------------- */

struct layer {
    const char *name;
    struct op op;
    int c, h, w, out; /* out 0: no weights, both inputs are the same */
    bool bias;
};

#define CONV(kh, kw, step, edge_h, edge_w, gap, groups)                        \
    {                                                                          \
        .type = OP_CONV, .u.conv = {                                           \
            .kernel = {kh, kw},                                                \
            .stride = {step, step},                                            \
            .dilation = {gap, gap},                                            \
            .pad = {edge_h, edge_w, edge_h, edge_w},                           \
            .group = groups                                                    \
        }                                                                      \
    }

static const struct layer layers[] = {
    {"3x3", CONV(3, 3, 1, 1, 1, 1, 1), 8, 6, 5, 16, true},
    {"3x3, three channels", CONV(3, 3, 2, 1, 1, 1, 1), 3, 9, 9, 8, false},
    {"1x1", CONV(1, 1, 1, 0, 0, 1, 1), 5, 4, 4, 7, true},
    {"1x7", CONV(1, 7, 1, 0, 3, 1, 1), 8, 5, 8, 8, false},
    {"7x1", CONV(7, 1, 1, 3, 0, 1, 1), 8, 8, 5, 8, false},
    {"strided, no padding", CONV(3, 3, 2, 0, 0, 1, 1), 16, 7, 7, 8, true},
    {"7x7 strided", CONV(7, 7, 2, 3, 3, 1, 1), 3, 12, 12, 8, false},
    {"dilated", CONV(3, 3, 1, 2, 2, 2, 1), 4, 6, 6, 4, false},
    {"depthwise", CONV(3, 3, 1, 1, 1, 1, 16), 16, 6, 6, 16, true},
    {"depthwise, strided", CONV(3, 3, 2, 1, 1, 1, 8), 8, 7, 7, 8, false},
    {"depthwise, whole", CONV(5, 5, 1, 0, 0, 1, 8), 8, 5, 5, 8, false},
    {"grouped", CONV(3, 3, 1, 1, 1, 1, 2), 8, 5, 5, 12, true},
    {"dense", {.type = OP_GEMM}, 12, 1, 1, 9, true},
    {"dense, no bias", {.type = OP_GEMM}, 12, 1, 1, 9, false},
    {"plus itself", {.type = OP_ADD}, 4, 3, 3, 0, false},
    {"times itself", {.type = OP_MUL}, 4, 3, 3, 0, false},
};

static float *formula(const char *name, size_t n, float scale)
{
    float *x = malloc(n * sizeof(*x));

    assert_non_null(x);
    tensor_formula(name, x, n);
    for (size_t i = 0; i < n; i++)
        x[i] *= scale;
    return x;
}

static int weight(struct graph *g, const char *name, const struct shape *s,
                  float scale)
{
    struct error err = {0};
    int v = graph_add_weight(g, name, s, formula(name, shape_count(s), scale),
                             &err);

    must(v, &err);
    return v;
}

static int node(struct graph *g, const char *name, const struct op *op,
                const int *in, int n)
{
    struct error err = {0};
    int v = graph_add_node(g, name, op, in, n, NULL, &err);

    must(v, &err);
    return v;
}

/* input -> PReLU (so that the layer's input has a loss) -> layer -> dense. */
static struct graph *layer_graph(const struct layer *l)
{
    struct op prelu = {.type = OP_PRELU}, gemm = {.type = OP_GEMM};
    struct op flat = {.type = OP_RESHAPE, .u.reshape.to = {2, {0, -1}}};
    struct shape slope = shape_of(1, l->c, 0, 0, 0), w, b, shapes[64];
    struct error err = {0};
    struct graph *g = graph_new(&err);
    int in[3], x;

    must(g ? 0 : -1, &err);
    x = graph_add_input(g, "x", l->c, l->h, l->w, &err);
    in[0] = x;
    in[1] = weight(g, "slope", &slope, 0.5f);
    x = node(g, "prelu", &prelu, in, 2);
    if (l->op.type == OP_GEMM)
        x = node(g, "flat", &flat, &x, 1);
    w = l->op.type != OP_CONV
            ? shape_of(2, l->out, l->c, 0, 0)
            : shape_of(4, l->out, l->c / l->op.u.conv.group,
                       l->op.u.conv.kernel[0], l->op.u.conv.kernel[1]);
    b = shape_of(1, l->out, 0, 0, 0);
    in[0] = x;
    in[1] = l->out ? weight(g, "w", &w, 0.3f) : x;
    in[2] = l->bias ? weight(g, "b", &b, 0.3f) : 0;
    x = node(g, "layer", &l->op, in, l->bias ? 3 : 2);
    if (l->op.type != OP_GEMM)
        x = node(g, "flat", &flat, &x, 1);
    must(graph_add_output(g, x, &err), &err);
    must(graph_shapes(g, 1, 0, 0, shapes, &err), &err);
    w = shape_of(2, 5, shapes[x].d[1], 0, 0);
    g->n_outputs = 0;
    in[0] = x;
    in[1] = weight(g, "last", &w, 0.3f);
    x = node(g, "last", &gemm, in, 2);
    must(graph_add_output(g, x, &err), &err);
    return g;
}

/* ---- losses ------------------------------------------------------------ */

static uint64_t *dice; /* dropout's: each run is to draw the same */

static size_t count_outputs(const struct plan *p)
{
    size_t n = 0;

    for (int k = 0; k < p->n_outputs; k++)
        n += shape_count(plan_output_shape(p, k));
    return n;
}

/* The loss is the sum of all outputs times a fixed row of numbers. */
static double loss_of(struct plan *p, const float *input, const float *row)
{
    struct error err = {0};
    double sum = 0;

    if (dice)
        *dice = 1;
    memcpy(plan_input(p), input, shape_count(&p->shape_in) * sizeof(float));
    must(graph_forward(p, &err), &err);
    for (int k = 0; k < p->n_outputs; k++)
        for (size_t i = 0; i < shape_count(plan_output_shape(p, k)); i++)
            sum += (double)plan_output(p, k)[i] * (double)*row++;
    return sum;
}

static void go_back(struct plan *p, struct learnable *l, const float *row)
{
    struct error err = {0};

    memset(l->gradients, 0, l->n_weights * sizeof(float));
    for (int k = 0; k < p->n_outputs; k++) {
        size_t n = shape_count(plan_output_shape(p, k));

        memcpy(plan_gradient(p, k), row, n * sizeof(float));
        row += n;
    }
    must(graph_backward(p, &err), &err);
}

/* d loss along `way`, by central differences and by the gradients. */
static void compare_way(struct plan *p, struct learnable *l, const float *input,
                        const float *row, const float *way, double step,
                        double near, const char *what)
{
    float *kept = malloc((l->n_weights + l->n_statistics) * sizeof(*kept));
    double along = 0, up, down, by_steps;

    assert_non_null(kept);
    memcpy(kept, l->weights, l->n_weights * sizeof(*kept));
    for (size_t i = 0; i < l->n_weights; i++) {
        along += (double)way[i] * (double)l->gradients[i];
        l->weights[i] = kept[i] + (float)step * way[i];
    }
    up = loss_of(p, input, row);
    for (size_t i = 0; i < l->n_weights; i++)
        l->weights[i] = kept[i] - (float)step * way[i];
    down = loss_of(p, input, row);
    memcpy(l->weights, kept, l->n_weights * sizeof(*kept));
    free(kept);
    by_steps = (up - down) / (2 * step);
    if (!(fabs(by_steps - along) <= near * (1 + fabs(by_steps))))
        fail_msg("%s: %g by differences, %g by backward", what, by_steps,
                 along);
}

/* Every single weight of a small graph. */
static void compare_each(struct plan *p, struct learnable *l,
                         const float *input, const float *row, const char *name)
{
    float *way = calloc(l->n_weights, sizeof(*way));
    char what[128];

    assert_non_null(way);
    for (size_t i = 0; i < l->n_weights; i++) {
        snprintf(what, sizeof(what), "%s, weight %zu", name, i);
        way[i] = 1;
        compare_way(p, l, input, row, way, 1e-2, 4e-3, what);
        way[i] = 0;
    }
    free(way);
}

static void test_layers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(layers) / sizeof(layers[0]); i++) {
        struct graph *g = layer_graph(&layers[i]);
        struct plan_options opt = {.n = 3, .separate = true};
        struct learn_options learn = {0};
        struct error err = {0};
        struct network *net = network_new_learning(device, g, &learn, &err);
        struct plan *p = net ? graph_plan(net, &opt, &err) : NULL;
        float *input, *row;

        if (!p)
            fail_msg("%s: %s", layers[i].name, err.text);
        input = formula("input", shape_count(&p->shape_in), 1);
        row = formula("row", shape_count(plan_output_shape(p, 0)), 1);
        loss_of(p, input, row);
        go_back(p, network_learnable(net), row);
        compare_each(p, network_learnable(net), input, row, layers[i].name);
        /* Backward adds. */
        {
            struct learnable *l = network_learnable(net);
            float before = l->gradients[l->n_weights - 1];

            loss_of(p, input, row);
            memcpy(plan_gradient(p, 0), row,
                   shape_count(plan_output_shape(p, 0)) * sizeof(float));
            must(graph_backward(p, &err), &err);
            assert_float_equal(l->gradients[l->n_weights - 1], 2 * before,
                               1e-4 * (1 + fabsf(before)));
        }
        free(input);
        free(row);
        plan_free(p);
        network_free(net);
        graph_free(g);
    }
}

/* ---- whole networks ---------------------------------------------------- */

/* hint: a node whose picture is an output too, or NULL. */
static void check_network(const char *name, const char *hint, int n,
                          bool freeze, bool separate, double step, double near)
{
    bool detector = strncmp(name, "mtcnn", 5) == 0;
    struct arch_options arch = {.seed = 5, .embedding_size = detector ? 0 : 32};
    struct plan_options opt = {.n = n, .separate = separate};
    struct learn_options learn = {.freeze_norm = freeze, .seed = 1};
    struct error err = {0};
    struct graph *g = arch_new(name, &arch, &err);
    struct network *net;
    struct plan *p;
    struct learnable *l;
    float *input, *row, *way;
    double length = 0;
    char what[128];

    must(g ? 0 : -1, &err);
    for (int i = 0; hint && i < g->n_nodes; i++)
        if (strcmp(g->nodes[i].name, hint) == 0)
            must(graph_add_output(g, g->nodes[i].out, &err), &err);
    if (g->values[g->input].shape.d[2] == 0)
        opt.h = opt.w = 14;
    net = network_new_learning(device, g, &learn, &err);
    p = net ? graph_plan(net, &opt, &err) : NULL;
    if (!p)
        fail_msg("%s: %s", name, err.text);
    assert_true(!hint || p->n_outputs == 2);
    l = network_learnable(net);
    input = formula("input", shape_count(&p->shape_in), 1);
    row = formula("row", count_outputs(p), 1);
    way = malloc(l->n_weights * sizeof(*way));
    assert_non_null(way);
    dice = &l->random;
    loss_of(p, input, row);
    go_back(p, l, row);
    /* Along the gradient itself, and along it in one tensor at a time. */
    for (size_t i = 0; i < l->n_weights; i++)
        length += (double)l->gradients[i] * (double)l->gradients[i];
    length = sqrt(length);
    assert_true(isfinite(length) && length > 0);
    for (size_t i = 0; i < l->n_weights; i++)
        way[i] = (float)((double)l->gradients[i] / length);
    snprintf(what, sizeof(what), "%s, all weights", name);
    compare_way(p, l, input, row, way, step, near, what);
    for (int t = 0; t < l->n_tensors; t += 1 + l->n_tensors / 12) {
        const struct learn_tensor *one = &l->tensors[t];

        if (one->statistic)
            continue;
        memset(way, 0, l->n_weights * sizeof(*way));
        length = 0;
        for (size_t i = one->offset; i < one->offset + one->count; i++)
            length += (double)l->gradients[i] * (double)l->gradients[i];
        for (size_t i = one->offset; length > 0 && i < one->offset + one->count;
             i++)
            way[i] = (float)((double)l->gradients[i] / sqrt(length));
        snprintf(what, sizeof(what), "%s, %s", name,
                 g->values[one->value].name);
        compare_way(p, l, input, row, way, step, near, what);
    }
    dice = NULL;
    free(input);
    free(row);
    free(way);
    plan_free(p);
    network_free(net);
    graph_free(g);
}

static void test_inception_resnet(void **state)
{
    (void)state;
    check_network("inception_resnet_v1", NULL, 2, true, false, 1e-3, 3e-2);
}

static void test_nn2(void **state)
{
    (void)state;
    check_network("nn2", NULL, 2, true, false, 1e-3, 3e-2);
}

static void test_mobilefacenet(void **state)
{
    (void)state;
    check_network("mobilefacenet_small", NULL, 6, false, true, 1e-3, 3e-2);
}

/* Outputs that others read too, of every kind. */
static void test_outputs(void **state)
{
    (void)state;
    check_network("mobilefacenet_small", "block4.2.add", 4, false, true, 1e-3,
                  3e-2);
    check_network("mtcnn_pnet", NULL, 6, false, true, 1e-3, 3e-2);
    check_network("mtcnn_rnet", NULL, 6, false, true, 1e-3, 3e-2);
    check_network("mtcnn_onet", NULL, 3, false, true, 1e-3, 3e-2);
}

/* ---- freezing ----------------------------------------------------------- */

static void test_freeze(void **state)
{
    struct arch_options arch = {.seed = 5, .embedding_size = 16};
    struct plan_options opt = {.n = 4};
    struct error err = {0};
    struct graph *g = arch_new("mobilefacenet_small", &arch, &err);
    struct learn_options learn = {.freeze_until = 0};
    struct network *net;
    struct plan *p;
    struct learnable *l;
    struct graph *after;
    float *input, *row;
    int moved = 0, kept = 0;

    (void)state;
    must(g ? 0 : -1, &err);
    learn.freeze_until = g->n_nodes - 8;
    net = network_new_learning(device, g, &learn, &err);
    must(net ? 0 : -1, &err);
    l = network_learnable(net);
    p = graph_plan(net, &opt, &err);
    must(p ? 0 : -1, &err);
    input = formula("input", shape_count(&p->shape_in), 1);
    row = formula("row", shape_count(plan_output_shape(p, 0)), 1);
    loss_of(p, input, row);
    go_back(p, l, row);
    for (size_t i = 0; i < l->n_weights; i++)
        l->weights[i] -= l->gradients[i];
    after = network_graph(net, g, NULL, &err);
    must(after ? 0 : -1, &err);
    for (int i = 0; i < g->n_values; i++) {
        const struct value *a = &g->values[i], *b = &after->values[i];

        assert_string_equal(a->name, b->name);
        if (a->kind != VALUE_WEIGHT)
            continue;
        if (memcmp(a->data, b->data, shape_count(&a->shape) * sizeof(float)))
            moved++;
        else
            kept++;
    }
    assert_int_equal(moved, l->n_tensors);
    assert_true(moved > 3 && kept > 50);
    /* All frozen: nothing to train. */
    graph_free(after);
    plan_free(p);
    network_free(net);
    learn.freeze_until = g->n_nodes;
    net = network_new_learning(device, g, &learn, &err);
    must(net ? 0 : -1, &err);
    assert_null(graph_plan(net, &opt, &err));
    assert_int_equal(err.code, ERR_MODEL);
    network_free(net);
    learn.freeze_until = g->n_nodes + 1;
    assert_null(network_new_learning(device, g, &learn, &err));
    free(input);
    free(row);
    graph_free(g);
}

/* ---- at rest ------------------------------------------------------------ */

static void test_rest(void **state)
{
    static const char *const names[] = {"nns2", "mobilefacenet_small",
                                        "inception_resnet_v1"};

    (void)state;
    for (int k = 0; k < 3; k++) {
        struct arch_options arch = {.seed = 9, .embedding_size = 16};
        struct plan_options opt = {.n = 2, .rest = true};
        struct learn_options learn = {0};
        struct error err = {0};
        struct graph *g = arch_new(names[k], &arch, &err);
        struct network *net =
            g ? network_new_learning(device, g, &learn, &err) : NULL;
        struct network *still = g ? network_new(device, g, &err) : NULL;
        struct plan *p = net ? graph_plan(net, &opt, &err) : NULL;
        struct plan *q = still ? graph_plan(still, &opt, &err) : NULL;
        float *input;
        double most = 0;

        if (!p || !q)
            fail_msg("%s: %s", names[k], err.text);
        input = formula("input", shape_count(&p->shape_in), 1);
        memcpy(plan_input(p), input, shape_count(&p->shape_in) * 4);
        memcpy(plan_input(q), input, shape_count(&p->shape_in) * 4);
        must(graph_forward(p, &err), &err);
        must(graph_forward(q, &err), &err);
        for (size_t i = 0; i < shape_count(plan_output_shape(p, 0)); i++)
            most = fmax(most, fabs((double)plan_output(p, 0)[i] -
                                   (double)plan_output(q, 0)[i]) /
                                  (1 + fabs((double)plan_output(q, 0)[i])));
        if (!(most < 1e-3))
            fail_msg("%s: off by %g", names[k], most);
        assert_null(plan_gradient(p, 0));
        assert_int_equal(graph_backward(p, &err), -1);
        free(input);
        plan_free(p);
        plan_free(q);
        network_free(net);
        network_free(still);
        graph_free(g);
    }
}

/* A step along the gradient lowers the loss; the running statistics move. */
static void test_descends(void **state)
{
    struct arch_options arch = {.seed = 5, .embedding_size = 16};
    struct plan_options opt = {.n = 8};
    struct learn_options learn = {.seed = 3};
    struct error err = {0};
    struct graph *g = arch_new("nns2", &arch, &err);
    struct network *net =
        g ? network_new_learning(device, g, &learn, &err) : NULL;
    struct plan *p = net ? graph_plan(net, &opt, &err) : NULL;
    struct learnable *l;
    float *input, *row, *statistics;
    double first, last = 0, length = 0;

    (void)state;
    if (!p)
        fail_msg("%s", err.text);
    l = network_learnable(net);
    statistics = malloc((l->n_statistics + 1) * sizeof(float));
    assert_non_null(statistics);
    memcpy(statistics, l->statistics, l->n_statistics * sizeof(float));
    input = formula("input", shape_count(&p->shape_in), 1);
    row = formula("row", shape_count(plan_output_shape(p, 0)), 1);
    first = loss_of(p, input, row);
    for (int i = 0; i < 5; i++) {
        go_back(p, l, row);
        length = 0;
        for (size_t k = 0; k < l->n_weights; k++)
            length += (double)l->gradients[k] * (double)l->gradients[k];
        for (size_t k = 0; k < l->n_weights; k++)
            l->weights[k] -=
                (float)(0.02 * (double)l->gradients[k] / sqrt(length));
        last = loss_of(p, input, row);
    }
    assert_true(last < first);
    if (l->n_statistics)
        assert_memory_not_equal(statistics, l->statistics,
                                l->n_statistics * sizeof(float));
    free(statistics);
    free(input);
    free(row);
    plan_free(p);
    network_free(net);
    graph_free(g);
}

/* bf16 factors, f32 sums and weights: the gradients point the same way. */
static void test_bf16(void **state)
{
    struct arch_options arch = {.seed = 5, .embedding_size = 16};
    struct learn_options learn = {.seed = 3};
    struct device_info info;
    struct error err = {0};
    struct graph *g = arch_new("mobilefacenet_small", &arch, &err);
    float *gradients = NULL, *input = NULL, *row = NULL;
    double ab = 0, aa = 0, bb = 0;

    (void)state;
    must(g ? 0 : -1, &err);
    device->backend->device_describe(device, &info);
    for (int k = 0; k < 2; k++) {
        struct plan_options opt = {
            .n = 6, .precision = k ? PRECISION_BF16 : PRECISION_F32};
        struct network *net = network_new_learning(device, g, &learn, &err);
        struct plan *p = net ? graph_plan(net, &opt, &err) : NULL;
        struct learnable *l = net ? network_learnable(net) : NULL;

        if (k && !info.any_bf16) {
            assert_null(p);
            assert_int_equal(err.code, ERR_DEVICE);
            network_free(net);
            break;
        }
        must(p ? 0 : -1, &err);
        if (!k) {
            input = formula("input", shape_count(&p->shape_in), 1);
            row = formula("row", shape_count(plan_output_shape(p, 0)), 1);
            gradients = malloc(l->n_weights * sizeof(float));
            assert_non_null(gradients);
        }
        loss_of(p, input, row);
        go_back(p, l, row);
        for (size_t i = 0; k && i < l->n_weights; i++) {
            ab += (double)gradients[i] * (double)l->gradients[i];
            aa += (double)gradients[i] * (double)gradients[i];
            bb += (double)l->gradients[i] * (double)l->gradients[i];
        }
        memcpy(gradients, l->gradients, l->n_weights * sizeof(float));
        plan_free(p);
        network_free(net);
    }
    free(gradients);
    free(input);
    free(row);
    graph_free(g);
    if (!info.any_bf16) {
        printf("SKIP: no bf16 on this machine\n");
        skip();
    }
    assert_true(ab / sqrt(aa * bb) > 0.99);
}

static int open_device(void **state)
{
    struct device_options opt = {0};
    struct error err = {0};

    (void)state;
    device = backend_cpu.device_open(&opt, &err);
    return device ? 0 : -1;
}

static int close_device(void **state)
{
    (void)state;
    backend_cpu.device_close(device);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layers),  cmocka_unit_test(test_inception_resnet),
        cmocka_unit_test(test_nn2),     cmocka_unit_test(test_mobilefacenet),
        cmocka_unit_test(test_outputs), cmocka_unit_test(test_freeze),
        cmocka_unit_test(test_rest),    cmocka_unit_test(test_descends),
        cmocka_unit_test(test_bf16),
    };

    return cmocka_run_group_tests(tests, open_device, close_device);
}
