/* tests/unit/test_arch.c - the networks' sizes against the paper's and the
 * published ones, their determinism, and their way through an ONNX file. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/arch/arch.h"

static struct graph *make(const char *name, const struct arch_options *opt)
{
    struct error err = {0};
    struct graph *g = arch_new(name, opt, &err);

    if (!g)
        fail_msg("%s: %s", name, err.text);
    return g;
}

/* parameters: without batch norms' gammas where they fold into the layer
 * before, which is how the published counts are taken; slopes counted. */
static const struct expected {
    const char *name;
    int64_t parameters, macs;
    double tolerance; /* of both, relative; 0: exact */
} table[] = {
    /* the paper's 140.03 M, 1606 M */
    {"nn1", 140030000, 1606000000, 1e-4},
    /* 7.456 M, 1597 M */
    {"nn2", 7456000, 1597000000, 5e-4},
    {"nn3", 7456000, 815000000, 1e-3},
    /* about 285 M; dropping the 5x5 of 5a and 5b leaves 6.94 M */
    {"nn4", 6944000, 285000000, 0.02},
    {"nns1", 26000000, 220000000, 0.02},
    {"nns2", 4300000, 20000000, 0.02},
    {"inception_resnet_v1", 23467824, 1417662304, 0},
    /* 985,792 and 7,552 slopes */
    {"mobilefacenet", 985792 + 7552, 220965376, 0},
    /* weights, biases from batch norms, the dense layer's bias, slopes */
    {"mobilefacenet_small", 275008 + 4832 + 128 + 3776, 59102464, 0},
    /* less two, three and one bottlenecks of 18,112, 68,992 and 68,992 */
    {"mobilefacenet_slim", 993344 - 312192, 150254848, 0},
    {"mtcnn_pnet", 6632, 2939160, 0},
    {"mtcnn_rnet", 100178, 1530768, 0},
    {"mtcnn_onet", 389040, 12909952, 0},
};

static bool near(int64_t got, int64_t want, double tolerance)
{
    return fabs((double)got - (double)want) <= tolerance * (double)want;
}

static void test_totals(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        const struct expected *e = &table[i];
        struct graph_counts raw, folded;
        struct error err = {0};
        struct graph *g = make(e->name, NULL), *f;
        f = graph_fuse(g, &err);
        if (!f || graph_count(g, 48, 48, &raw, &err) ||
            graph_count(f, 48, 48, &folded, &err))
            fail_msg("%s: %s", e->name, err.text);
        print_message("%-20s %11lld parameters folded, %11lld as trained, "
                      "%11lld MACs, %3d convolutions\n",
                      e->name, (long long)folded.n_parameters,
                      (long long)raw.n_parameters, (long long)raw.macs,
                      raw.n_convs);
        if (!near(folded.n_parameters, e->parameters, e->tolerance) ||
            !near(raw.macs, e->macs, e->tolerance))
            fail_msg("%s: want %lld parameters, %lld MACs", e->name,
                     (long long)e->parameters, (long long)e->macs);
        graph_free(f);
        graph_free(g);
    }
}

static void test_list(void **state)
{
    size_t n = 0;

    (void)state;
    for (const struct arch_info *a = arch_list(); a->name; a++, n++) {
        assert_ptr_equal(arch_find(a->name), a);
        assert_string_equal(a->name, table[n].name);
        assert_true(strlen(a->about) > 0);
    }
    assert_int_equal(n, sizeof(table) / sizeof(table[0]));
    assert_null(arch_find("nn5"));
    assert_null(arch_find(""));
}

/* The embedding's size, and the input's, are those of the list. */
static void test_shapes(void **state)
{
    (void)state;
    for (const struct arch_info *a = arch_list(); a->name; a++) {
        struct arch_options opt = {.normalise = a->embedding_size > 0};
        struct error err = {0};
        struct graph *g = make(a->name, &opt);
        struct shape *s = calloc((size_t)g->n_values, sizeof(*s));
        const struct shape *in = &g->values[g->input].shape;
        assert_non_null(s);
        assert_int_equal(in->d[2], a->height);
        assert_int_equal(in->d[3], a->width);
        if (graph_shapes(g, 3, 48, 48, s, &err))
            fail_msg("%s: %s", a->name, err.text);
        assert_int_equal(s[g->outputs[0]].d[0], 3);
        if (a->embedding_size) {
            assert_int_equal(g->n_outputs, 1);
            assert_int_equal(s[g->outputs[0]].rank, 2);
            assert_int_equal(s[g->outputs[0]].d[1], a->embedding_size);
        }
        free(s);
        graph_free(g);
    }
}

static void test_embedding_size(void **state)
{
    struct arch_options opt = {.embedding_size = 77};
    struct graph *g = make("nns2", &opt);
    struct shape *s = calloc((size_t)g->n_values, sizeof(*s));
    struct error err = {0};

    (void)state;
    assert_non_null(s);
    assert_int_equal(graph_shapes(g, 1, 0, 0, s, &err), 0);
    assert_int_equal(s[g->outputs[0]].d[1], 77);
    free(s);
    graph_free(g);
}

static void check_refused(const char *name, const struct arch_options *opt,
                          const char *word)
{
    struct error err = {0};

    assert_null(arch_new(name, opt, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, word));
}

static void test_refused(void **state)
{
    (void)state;
    check_refused("resnet", NULL, "resnet");
    check_refused("nn2", &(struct arch_options){.embedding_size = -1}, "-1");
    check_refused("nn2", &(struct arch_options){.embedding_size = 4097},
                  "4097");
    check_refused("mtcnn_onet", &(struct arch_options){.normalise = true},
                  "mtcnn_onet");
    check_refused("mtcnn_pnet", &(struct arch_options){.embedding_size = 5},
                  "mtcnn_pnet");
}

/* The weights depend on the seed and on nothing else. */
static void test_seed(void **state)
{
    struct arch_options one = {.seed = 1}, two = {.seed = 2};
    struct graph *a = make("nns2", &one), *b = make("nns2", &one),
                 *c = make("nns2", &two);
    bool differs = false;

    (void)state;
    for (int i = 0; i < a->n_values; i++) {
        size_t n = shape_count(&a->values[i].shape);
        if (a->values[i].kind != VALUE_WEIGHT)
            continue;
        assert_memory_equal(a->values[i].data, b->values[i].data,
                            n * sizeof(float));
        differs = differs || memcmp(a->values[i].data, c->values[i].data,
                                    n * sizeof(float)) != 0;
    }
    assert_true(differs);
    graph_free(a);
    graph_free(b);
    graph_free(c);
}

/* Drawn weights: mean 0, variance 2 / fan-in, bounded; the rest as written. */
static void test_weights(void **state)
{
    struct graph *g = make("mobilefacenet", NULL);
    int w = graph_find(g, "dense.weight");
    double sum = 0, squares = 0, std = sqrt(2.0 / 512);
    size_t n;

    (void)state;
    assert_true(w >= 0);
    n = shape_count(&g->values[w].shape);
    assert_int_equal(n, 128 * 512);
    for (size_t i = 0; i < n; i++) {
        double x = (double)g->values[w].data[i];
        assert_true(fabs(x) < 4 * std);
        sum += x;
        squares += x * x;
    }
    assert_true(fabs(sum / (double)n) < 0.02 * std);
    assert_true(fabs(sqrt(squares / (double)n) / std - 1) < 0.02);
    w = graph_find(g, "conv1.bn.weight");
    assert_true(w >= 0 && g->values[w].data[63] == 1.0f);
    w = graph_find(g, "conv1.bn.running_var");
    assert_true(w >= 0 && g->values[w].data[0] == 1.0f);
    w = graph_find(g, "conv1.bn.running_mean");
    assert_true(w >= 0 && g->values[w].data[0] == 0.0f);
    w = graph_find(g, "conv1.prelu.weight");
    assert_true(w >= 0 && g->values[w].data[0] == 0.25f);
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),    cmocka_unit_test(test_totals),
        cmocka_unit_test(test_shapes),  cmocka_unit_test(test_embedding_size),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_seed),
        cmocka_unit_test(test_weights),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
