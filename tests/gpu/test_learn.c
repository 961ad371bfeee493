/* tests/gpu/test_learn.c - networks that learn on the device of FACENETD_PLUGIN
 * against the processor's: layers, whole networks, what is frozen, dropout,
 * plans at rest, several steps, numbers there and back, memory, a lost card.
 * On an emulated card only small networks, on a real one all. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "core/arch/arch.h"
#include "core/engine/learn.h"
#include "core/engine/learn_rule.h"
#include "tests/device.h"

static const struct backend *backend;
static bool emulated;
static struct device *theirs, *ours; /* the card, the processor */

static void must(int rc, const struct error *err)
{
    if (rc < 0)
        fail_msg("%s", err->text);
}

/* A network on both, with a plan of each. */
struct pair {
    struct network *net[2]; /* [0] the processor's */
    struct plan *plan[2];
};

static struct pair open_pair(const struct graph *g, struct plan_options opt,
                             const struct learn_options *learn)
{
    struct device *devices[2] = {ours, theirs};
    enum precision asked = opt.precision;
    struct error err = {0};
    struct pair p;

    for (int i = 0; i < 2; i++) {
        p.net[i] = network_new_learning(devices[i], g, learn, &err);
        must(p.net[i] ? 0 : -1, &err);
        opt.precision = i ? asked : PRECISION_F32;
        p.plan[i] = graph_plan(p.net[i], &opt, &err);
        must(p.plan[i] ? 0 : -1, &err);
    }
    return p;
}

static void close_pair(struct pair *p)
{
    for (int i = 0; i < 2; i++) {
        plan_free(p->plan[i]);
        network_free(p->net[i]);
    }
}

static void forward(struct plan *p)
{
    struct error err = {0};

    tensor_formula("input", plan_input(p), shape_count(&p->shape_in));
    must(graph_forward(p, &err), &err);
}

static void backward(struct plan *p)
{
    struct error err = {0};

    for (int i = 0; i < p->n_outputs; i++)
        if (plan_gradient(p, i))
            tensor_formula("row", plan_gradient(p, i),
                           shape_count(plan_output_shape(p, i)));
    must(graph_backward(p, &err), &err);
}

static void get(struct network *net, unsigned parts)
{
    struct error err = {0};

    must(learn_get(net, parts, &err), &err);
}

static double length(const float *x, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sqrt(sum);
}

/* The difference by the length of what is wanted, or by `least`. */
static double off(const float *want, const float *got, size_t n, double least)
{
    double sum = 0, all = length(want, n);

    for (size_t i = 0; i < n; i++)
        sum += ((double)want[i] - got[i]) * ((double)want[i] - got[i]);
    return sqrt(sum) / (all > least ? all : least);
}

/* Every tensor of an array; small ones are measured by the whole's share. */
static void compare_numbers(const struct pair *p, const struct graph *g,
                            bool statistics, double limit, const char *what)
{
    const struct learnable *a = network_learnable(p->net[0]);
    const struct learnable *b = network_learnable(p->net[1]);
    const float *x = statistics ? a->statistics : a->gradients;
    const float *y = statistics ? b->statistics : b->gradients;
    size_t n = statistics ? a->n_statistics : a->n_weights;
    double all = length(x, n);

    assert_int_equal(a->n_tensors, b->n_tensors);
    assert_int_equal(a->n_weights, b->n_weights);
    for (int i = 0; i < a->n_tensors; i++) {
        const struct learn_tensor *t = &a->tensors[i];
        double d;

        assert_memory_equal(t, &b->tensors[i], sizeof(*t));
        if (t->statistic != statistics)
            continue;
        d = off(x + t->offset, y + t->offset, t->count,
                1e-3 * all * sqrt((double)t->count / (double)n) + 1e-12);
        if (!(d <= limit))
            fail_msg("%s, %s of '%s': off by %g, %g is allowed", what,
                     statistics ? "statistics" : "loss",
                     g->values[t->value].name, d, limit);
    }
    if (!statistics)
        assert_true(all > 0);
}

/* In f16 until the scale of the loss is one that numbers bear. */
static void go_back(struct network *net, struct plan *p)
{
    struct error err = {0};
    double norm;
    int rc;

    for (;;) {
        must(learn_clear(net, &err), &err);
        backward(p);
        rc = learn_norm(net, 0, &norm, &err);
        must(rc, &err);
        if (rc == 0)
            return;
        forward(p);
    }
}

/* There and back once. */
static void compare(const struct graph *g, const struct plan_options *opt,
                    const struct learn_options *learn, double limit,
                    const char *what)
{
    struct pair p = open_pair(g, *opt, learn);

    for (int i = 0; i < 2; i++)
        forward(p.plan[i]);
    for (int i = 0; i < p.plan[0]->n_outputs; i++) {
        size_t n = shape_count(plan_output_shape(p.plan[0], i));
        double d =
            off(plan_output(p.plan[0], i), plan_output(p.plan[1], i), n, 1e-6);

        if (!(d <= limit))
            fail_msg("%s, output %d: off by %g, %g is allowed", what, i, d,
                     limit);
    }
    if (!opt->rest) {
        for (int i = 0; i < 2; i++)
            go_back(p.net[i], p.plan[i]);
        get(p.net[1], LEARN_GRADIENTS | LEARN_STATISTICS);
        compare_numbers(&p, g, false, limit, what);
        compare_numbers(&p, g, true, limit, what);
        assert_true(network_learnable(p.net[0])->random ==
                    network_learnable(p.net[1])->random);
    }
    close_pair(&p);
}

/* ---- layers -----------------------------------------------------------------
 */

struct layer {
    const char *name;
    int kernel[2], stride, pad[2], dilation, group;
    int c, h, w, k;
    bool bias;
};

static const struct layer layers[] = {
    {"3x3", {3, 3}, 1, {1, 1}, 1, 1, 8, 6, 5, 16, true},
    {"3x3, three channels", {3, 3}, 2, {1, 1}, 1, 1, 3, 9, 9, 8, false},
    {"1x1", {1, 1}, 1, {0, 0}, 1, 1, 5, 4, 4, 7, true},
    {"1x7", {1, 7}, 1, {0, 3}, 1, 1, 8, 5, 8, 8, false},
    {"7x1", {7, 1}, 1, {3, 0}, 1, 1, 8, 8, 5, 8, true},
    {"strided, no padding", {3, 3}, 2, {0, 0}, 1, 1, 16, 8, 8, 9, true},
    {"dilated", {3, 3}, 1, {2, 2}, 2, 1, 4, 6, 6, 4, false},
    {"depthwise", {3, 3}, 1, {1, 1}, 1, 13, 13, 6, 6, 13, true},
    {"depthwise, strided", {3, 3}, 2, {1, 1}, 1, 8, 8, 7, 7, 8, false},
    {"depthwise, whole", {5, 5}, 1, {0, 0}, 1, 8, 8, 5, 5, 8, false},
    {"grouped", {3, 3}, 1, {1, 1}, 1, 2, 8, 5, 5, 12, true},
};

static int weight(struct graph *g, const char *name, const struct shape *s)
{
    float *data = malloc(shape_count(s) * sizeof(*data));

    assert_non_null(data);
    tensor_formula(name, data, shape_count(s));
    return graph_add_weight(g, name, s, data, NULL);
}

/* x -> conv -> PReLU -> conv again with the same weights (where it fits) ->
 * dense: a loss comes back, is added to, and goes through. */
static struct graph *layer_graph(const struct layer *l)
{
    struct error err = {0};
    struct graph *g = graph_new(&err);
    struct op conv = {
        .type = OP_CONV,
        .u.conv = {.kernel = {l->kernel[0], l->kernel[1]},
                   .stride = {l->stride, l->stride},
                   .dilation = {l->dilation, l->dilation},
                   .pad = {l->pad[0], l->pad[1], l->pad[0], l->pad[1]},
                   .group = l->group}};
    struct op one = {.type = OP_CONV,
                     .u.conv = {.kernel = {1, 1},
                                .stride = {1, 1},
                                .dilation = {1, 1},
                                .group = 1}};
    struct op prelu = {.type = OP_PRELU}, add = {.type = OP_ADD};
    struct op gemm = {.type = OP_GEMM};
    struct op flat = {.type = OP_RESHAPE,
                      .u.reshape.to = {.rank = 2, .d = {0, -1}}};
    struct shape out[64], s = shape_of(4, l->c, l->c, 1, 1);
    int in[3], v, first;

    v = graph_add_input(g, "x", l->c, l->h, l->w, &err);
    in[0] = v;
    in[1] = weight(g, "first", &s);
    v = graph_add_node(g, "first", &one, in, 2, "a", &err);
    /* The same value twice, once through the layer that is looked at. */
    in[0] = v;
    first = v;
    s = shape_of(1, l->c, 0, 0, 0);
    in[1] = weight(g, "slope", &s);
    v = graph_add_node(g, "prelu", &prelu, in, 2, "b", &err);
    in[0] = first;
    in[1] = v;
    v = graph_add_node(g, "add", &add, in, 2, "c", &err);
    in[0] = v;
    s = shape_of(4, l->k, l->c / l->group, l->kernel[0], l->kernel[1]);
    in[1] = weight(g, "w", &s);
    s = shape_of(1, l->k, 0, 0, 0);
    if (l->bias)
        in[2] = weight(g, "bias", &s);
    v = graph_add_node(g, "layer", &conv, in, l->bias ? 3 : 2, "y", &err);
    must(v, &err);
    in[0] = v;
    v = graph_add_node(g, "flat", &flat, in, 1, "f", &err);
    must(graph_shapes(g, 1, 0, 0, out, &err), &err);
    in[0] = v;
    s = shape_of(2, 6, out[v].d[1], 0, 0);
    in[1] = weight(g, "dense", &s);
    s = shape_of(1, 6, 0, 0, 0);
    in[2] = weight(g, "dense_bias", &s);
    v = graph_add_node(g, "gemm", &gemm, in, 3, "z", &err);
    must(graph_add_output(g, v, &err), &err);
    return g;
}

static void test_layers(void **state)
{
    static const struct {
        enum precision precision;
        double limit;
    } each[] = {
        {PRECISION_F32, 1e-4}, {PRECISION_F16, 3e-2}, {PRECISION_BF16, 1e-1}};

    (void)state;
    for (size_t i = 0; i < sizeof(layers) / sizeof(layers[0]); i++)
        for (size_t k = 0; k < sizeof(each) / sizeof(each[0]); k++) {
            struct plan_options opt = {
                .n = 3, .separate = true, .precision = each[k].precision};
            struct learn_options learn = {0};
            struct graph *g = layer_graph(&layers[i]);
            char what[96];

            snprintf(what, sizeof(what), "%s, %s", layers[i].name,
                     precision_name(each[k].precision));
            compare(g, &opt, &learn, each[k].limit, what);
            graph_free(g);
        }
}

/* ---- networks ---------------------------------------------------------------
 */

static struct graph *make(const char *name)
{
    struct arch_options opt = {.seed = 5};
    struct error err = {0};
    struct graph *g;

    if (arch_find(name)->embedding_size)
        opt.embedding_size = 32;
    g = arch_new(name, &opt, &err);
    must(g ? 0 : -1, &err);
    return g;
}

static void test_network(void **state)
{
    const struct arch_info *a = *state;
    struct graph *g = make(a->name);
    bool free_size = g->values[g->input].shape.d[2] == 0;
    struct plan_options opt = {.n = emulated ? 2 : 8,
                               .h = free_size ? 22 : 0,
                               .w = free_size ? 18 : 0,
                               .precision = PRECISION_F32};
    struct learn_options learn = {.seed = 3};

    /* Batch norm over few pixels makes small differences large. */
    compare(g, &opt, &learn, 2e-2, a->name);
    learn.freeze_norm = true;
    compare(g, &opt, &learn, 1e-2, a->name);
    opt.rest = true;
    compare(g, &opt, &learn, 2e-4, a->name);
    graph_free(g);
}

static void test_frozen(void **state)
{
    struct graph *g = make("mtcnn_rnet");
    struct plan_options opt = {.n = 4, .precision = PRECISION_F32};

    (void)state;
    for (int i = 1; i < g->n_nodes; i += 2) {
        struct learn_options learn = {.freeze_until = i};
        struct error err = {0};
        struct network *net = network_new_learning(ours, g, &learn, &err);
        bool any = network_learnable(net)->n_weights > 0;

        network_free(net);
        if (any)
            compare(g, &opt, &learn, 1e-4, "frozen");
    }
    graph_free(g);
}

/* Pictures as outputs too, whose losses are added to what comes back; one of
 * them is the input of two nodes. */
static void test_hints(void **state)
{
    struct plan_options opt = {.n = 3, .precision = PRECISION_F32};
    struct learn_options learn = {0};
    struct graph *g = make("mtcnn_rnet");
    struct error err = {0};
    int n = 0;

    (void)state;
    for (int i = 0; i < g->n_nodes && n < 3; i++)
        if (g->nodes[i].op.type == OP_PRELU ||
            g->nodes[i].op.type == OP_MAX_POOL) {
            must(graph_add_output(g, g->nodes[i].out, &err), &err);
            n++;
        }
    assert_int_equal(n, 3);
    compare(g, &opt, &learn, 1e-4, "hints");
    opt.precision = PRECISION_BF16;
    compare(g, &opt, &learn, 1e-1, "hints, bf16");
    graph_free(g);
}

/* ---- numbers
 * ------------------------------------------------------------------
 */

static void give_slots(struct network *net, enum optimizer rule)
{
    struct learnable *l = network_learnable(net);
    struct error err = {0};

    for (int k = 0; k < learn_slots(rule); k++) {
        l->slots[k] = malloc(l->n_weights * sizeof(float));
        assert_non_null(l->slots[k]);
        for (size_t i = 0; i < l->n_weights; i++)
            l->slots[k][i] = learn_slot_first(rule, k);
    }
    l->average = malloc(l->n_weights * sizeof(float));
    assert_non_null(l->average);
    memcpy(l->average, l->weights, l->n_weights * sizeof(float));
    must(learn_put(net, LEARN_SLOTS, &err), &err);
}

static void free_slots(struct network *net)
{
    struct learnable *l = network_learnable(net);

    for (int k = 0; k < LEARN_MAX_SLOTS; k++) {
        free(l->slots[k]);
        l->slots[k] = NULL;
    }
    free(l->average);
    l->average = NULL;
}

/* Some steps on both lead to the same place. */
static void test_steps(void **state)
{
    (void)state;
    for (int rule = 0; rule < OPTIM_COUNT; rule++) {
        struct graph *g = make("mtcnn_rnet");
        struct plan_options opt = {.n = 4, .precision = PRECISION_F32};
        struct learn_options learn = {0};
        struct pair p = open_pair(g, opt, &learn);
        struct learn_update u = {.rule = (enum optimizer)rule,
                                 .rate = 0.02f,
                                 .scale = 1,
                                 .epsilon = 0.1f,
                                 .average = 0.5f};
        double norms[2] = {0};
        const struct learnable *a = network_learnable(p.net[0]);
        const struct learnable *b = network_learnable(p.net[1]);
        float *began;

        began = malloc(a->n_weights * sizeof(*began));
        assert_non_null(began);
        memcpy(began, a->weights, a->n_weights * sizeof(*began));
        for (int i = 0; i < 2; i++) {
            struct error err = {0};

            give_slots(p.net[i], (enum optimizer)rule);
            for (int k = 0; k < 3; k++) {
                forward(p.plan[i]);
                must(learn_clear(p.net[i], &err), &err);
                backward(p.plan[i]);
                must(learn_norm(p.net[i], 0.01f, &norms[i], &err), &err);
                must(learn_update(p.net[i], &u, &err), &err);
            }
        }
        assert_float_equal(norms[1], norms[0], 1e-3 * norms[0]);
        get(p.net[1], LEARN_WEIGHTS | LEARN_SLOTS);
        assert_true(off(began, a->weights, a->n_weights, 1e-9) > 1e-6);
        assert_true(off(a->weights, b->weights, a->n_weights, 1e-9) < 1e-3);
        assert_true(off(a->average, b->average, a->n_weights, 1e-9) < 1e-3);
        for (int k = 0; k < learn_slots((enum optimizer)rule); k++)
            assert_true(off(a->slots[k], b->slots[k], a->n_weights, 1e-6) <
                        1e-2);
        for (int i = 0; i < 2; i++)
            free_slots(p.net[i]);
        free(began);
        close_pair(&p);
        graph_free(g);
    }
}

/* What is put there comes back, and is what runs. */
static void test_there_and_back(void **state)
{
    struct graph *g = layer_graph(&layers[7]); /* depthwise, odd channels */
    struct plan_options opt = {.n = 2, .precision = PRECISION_F32};
    struct learn_options learn = {0};
    struct pair p = open_pair(g, opt, &learn);
    struct learnable *l = network_learnable(p.net[1]);
    float *kept = malloc(l->n_weights * sizeof(*kept));
    struct error err = {0};

    (void)state;
    assert_non_null(kept);
    tensor_formula("others", kept, l->n_weights);
    memcpy(l->weights, kept, l->n_weights * sizeof(*kept));
    memcpy(network_learnable(p.net[0])->weights, kept,
           l->n_weights * sizeof(*kept));
    must(learn_put(p.net[1], LEARN_WEIGHTS, &err), &err);
    memset(l->weights, 0, l->n_weights * sizeof(*kept));
    get(p.net[1], LEARN_WEIGHTS);
    assert_memory_equal(l->weights, kept, l->n_weights * sizeof(*kept));
    memcpy(l->gradients, kept, l->n_weights * sizeof(*kept));
    must(learn_put(p.net[1], LEARN_GRADIENTS, &err), &err);
    memset(l->gradients, 0, l->n_weights * sizeof(*kept));
    get(p.net[1], LEARN_GRADIENTS);
    assert_memory_equal(l->gradients, kept, l->n_weights * sizeof(*kept));
    for (int i = 0; i < 2; i++)
        forward(p.plan[i]);
    assert_true(off(plan_output(p.plan[0], 0), plan_output(p.plan[1], 0),
                    shape_count(plan_output_shape(p.plan[0], 0)), 1e-9) < 1e-4);
    free(kept);
    close_pair(&p);
    graph_free(g);
}

/* Backward adds; making another plan leaves no trace. */
static void test_adds(void **state)
{
    struct graph *g = make("mtcnn_rnet");
    struct plan_options opt = {.n = 3, .precision = PRECISION_F32};
    struct learn_options learn = {0};
    struct pair p = open_pair(g, opt, &learn);
    struct learnable *l = network_learnable(p.net[1]);
    float *once = malloc(l->n_weights * sizeof(*once));
    struct error err = {0};
    struct plan *other;

    (void)state;
    assert_non_null(once);
    must(learn_clear(p.net[1], &err), &err);
    forward(p.plan[1]);
    backward(p.plan[1]);
    get(p.net[1], LEARN_GRADIENTS);
    memcpy(once, l->gradients, l->n_weights * sizeof(*once));
    opt.n = 2;
    other = graph_plan(p.net[1], &opt, &err);
    must(other ? 0 : -1, &err);
    forward(p.plan[1]);
    backward(p.plan[1]);
    get(p.net[1], LEARN_GRADIENTS);
    for (size_t i = 0; i < l->n_weights; i++)
        once[i] *= 2;
    assert_true(off(once, l->gradients, l->n_weights, 1e-9) < 1e-6);
    free(once);
    plan_free(other);
    close_pair(&p);
    graph_free(g);
}

/* In f16 the loss is scaled, and numbers that are too large leave a step out
 * and lower the scale. */
static void test_scale(void **state)
{
    struct graph *g = make("mtcnn_rnet");
    struct plan_options opt = {.n = 3, .precision = PRECISION_F16};
    struct learn_options learn = {0};
    struct pair p = open_pair(g, opt, &learn);
    struct learnable *l = network_learnable(p.net[1]);
    struct error err = {0};
    double norm = 0;
    int out = 0, rc;

    (void)state;
    for (int k = 0; k < 60; k++) {
        struct plan *plan = p.plan[1];

        forward(plan);
        must(learn_clear(p.net[1], &err), &err);
        for (int i = 0; i < plan->n_outputs; i++)
            for (size_t j = 0; j < shape_count(plan_output_shape(plan, i)); j++)
                plan_gradient(plan, i)[j] = j % 2 ? 30 : -40;
        must(graph_backward(plan, &err), &err);
        rc = learn_norm(p.net[1], 0, &norm, &err);
        must(rc, &err);
        if (rc == 0)
            break;
        out++;
    }
    assert_in_range(out, 1, 40);
    assert_true(isfinite(norm) && norm > 0);
    get(p.net[1], LEARN_GRADIENTS);
    assert_float_equal(length(l->gradients, l->n_weights), norm, 1e-3 * norm);
    close_pair(&p);
    graph_free(g);
}

static size_t bytes_used(void)
{
    struct device_info info;

    backend->device_describe(theirs, &info);
    return info.bytes_used;
}

static void test_memory(void **state)
{
    struct graph *g = make("mtcnn_onet");
    struct plan_options opt = {.n = 2, .precision = PRECISION_BF16};
    struct learn_options learn = {0};
    size_t before;

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct pair p = open_pair(g, opt, &learn);

        forward(p.plan[1]);
        close_pair(&p);
        if (i == 0)
            before = bytes_used();
    }
    assert_int_equal(bytes_used(), before);
    graph_free(g);
}

/* A bound that is too small is memory that is not there, said so, and gives
 * everything back. */
static void test_bound(void **state)
{
    struct graph *g = make("mtcnn_onet");
    struct plan_options popt = {.n = 4, .precision = PRECISION_F32};
    struct learn_options learn = {0};
    struct error err = {0};

    (void)state;
    for (size_t kib = 64; kib < 64 << 10; kib *= 4) {
        struct device_options opt = {.memory_bytes = kib << 10};
        struct device *d = backend->device_open(&opt, &err);
        struct network *net;
        struct plan *p;

        must(d ? 0 : -1, &err);
        net = network_new_learning(d, g, &learn, &err);
        if (!net)
            assert_int_equal(err.code, ERR_NOMEM);
        p = net ? graph_plan(net, &popt, &err) : NULL;
        if (net && !p)
            assert_int_equal(err.code, ERR_NOMEM);
        plan_free(p);
        network_free(net);
        backend->device_close(d);
    }
    graph_free(g);
}

static bool is_small(const char *name)
{
    return !strncmp(name, "mtcnn", 5) || !strcmp(name, "nns2") ||
           !strcmp(name, "mobilefacenet_small");
}

/* test_learn [ARCH]: of that network alone, however large. */
int main(int argc, char **argv)
{
    enum {
        MAX = 64,
        N_OTHER = 9 /* tests of no one network */
    };
    struct CMUnitTest tests[MAX] = {
        cmocka_unit_test(test_layers),         cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_hints),          cmocka_unit_test(test_steps),
        cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_adds),
        cmocka_unit_test(test_scale),          cmocka_unit_test(test_memory),
        cmocka_unit_test(test_bound),
    };
    struct device_options opt = {0};
    struct device_info info;
    struct error err = {0};
    size_t n = N_OTHER;
    int rc;

    backend = test_backend();
    if (!backend || backend == &backend_cpu)
        return 1;
    theirs = backend->device_open(&opt, &err);
    ours = theirs ? backend_cpu.device_open(&opt, &err) : NULL;
    if (!ours) {
        print_error("%s\n", err.text);
        return 1;
    }
    backend->device_describe(theirs, &info);
    print_message("%s, %s\n", info.name, info.isa);
    emulated = !strcmp(info.name, "emulated");
    for (const struct arch_info *a = arch_list(); a->name && n < MAX; a++)
        if (argc > 1 ? !strcmp(a->name, argv[1])
                     : !emulated || is_small(a->name))
            tests[n++] = (struct CMUnitTest){.name = a->name,
                                             .test_func = test_network,
                                             .initial_state = (void *)a};
    rc = argc > 1 ? _cmocka_run_group_tests("learn", tests + N_OTHER,
                                            n - N_OTHER, NULL, NULL)
                  : _cmocka_run_group_tests("learn", tests, n, NULL, NULL);
    backend->device_close(theirs);
    backend_cpu.device_close(ours);
    return rc;
}
