/* tests/unit/test_golden.c - whole networks against numbers that other engines
 * computed: Inception-ResNet-v1 with formula weights, two trained
 * MobileFaceNets; and a face's embedding alone against the same in a batch.
 * Reads the test data; without it every test is a counted skip. */
#include <math.h>

#include "core/arch/arch.h"
#include "core/engine/onnx.h"
#include "tests/data.h"
#include "tests/device.h"

static struct device *device;

static json_t *load_json(const char *name)
{
    data_need(name);
    return data_json(name);
}

static struct graph *load_graph(const char *name)
{
    struct error err = {0};
    struct graph *g;

    data_need(name);
    g = onnx_load(data_path(name), NULL, &err);
    if (!g)
        fail_msg("%s", err.text);
    return g;
}

static bool has_bf16(void)
{
    struct device_info info;

    device->backend->device_describe(device, &info);
    return info.any_bf16;
}

/* Embeddings of n faces as unit vectors, malloc'd; *dim is their size. */
static float *embed(const struct graph *g, const float *faces, int n,
                    enum precision precision, int *dim)
{
    struct plan_options opt = {.n = n, .precision = precision};
    struct error err = {0};
    struct network *net = network_new(device, g, &err);
    struct plan *p = net ? graph_plan(net, &opt, &err) : NULL;
    float *out;

    if (!p)
        fail_msg("%s", err.text);
    memcpy(plan_input(p), faces, shape_count(&p->shape_in) * sizeof(*faces));
    if (graph_forward(p, &err))
        fail_msg("%s", err.text);
    *dim = plan_output_shape(p, 0)->d[1];
    out = malloc((size_t)n * (size_t)*dim * sizeof(*out));
    assert_non_null(out);
    for (int i = 0; i < n; i++) {
        const float *row = plan_output(p, 0) + (size_t)i * (size_t)*dim;
        double sum = 0;
        for (int k = 0; k < *dim; k++)
            sum += (double)row[k] * (double)row[k];
        assert_true(sum > 0);
        for (int k = 0; k < *dim; k++)
            out[i * *dim + k] = (float)((double)row[k] / sqrt(sum));
    }
    plan_free(p);
    network_free(net);
    return out;
}

static double squared_distance(const float *a, const float *b, int n)
{
    double sum = 0;

    for (int i = 0; i < n; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sum;
}

/* Each row of `rows` against the embeddings, number by number. */
static void check_rows(const json_t *rows, const float *got, int n, int dim)
{
    double worst = 0;

    assert_int_equal(json_array_size(rows), n);
    for (int i = 0; i < n; i++) {
        const json_t *row = json_array_get(rows, (size_t)i);
        assert_int_equal(json_array_size(row), dim);
        for (int k = 0; k < dim; k++) {
            double want = json_number_value(json_array_get(row, (size_t)k));
            double off = fabs(want - (double)got[i * dim + k]);
            worst = off > worst ? off : worst;
        }
    }
    print_message("largest difference of a number: %.2g\n", worst);
    assert_true(worst <= 1e-4);
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* The weights of the golden file, by the formula that it documents. */
static void formula_weights(struct graph *g)
{
    for (int i = 0; i < g->n_values; i++) {
        struct value *v = &g->values[i];
        size_t n = shape_count(&v->shape);
        float scale, shift = 0;
        if (v->kind != VALUE_WEIGHT || ends_with(v->name, ".factor"))
            continue;
        tensor_formula(v->name, v->data, n);
        scale = sqrtf(6.0f / (float)(n / (size_t)v->shape.d[0]));
        if (v->shape.rank == 1) {
            bool var = ends_with(v->name, "running_var");
            scale = var ? 0.2f : 0.1f;
            shift = var || ends_with(v->name, "bn.weight") ? 1.0f : 0.0f;
        }
        for (size_t k = 0; k < n; k++)
            v->data[k] = shift + scale * v->data[k];
    }
}

static struct graph *formula_irv1(void)
{
    struct arch_options opt = {.normalise = true};
    struct error err = {0};
    struct graph *g = arch_new("inception_resnet_v1", &opt, &err);

    if (!g)
        fail_msg("%s", err.text);
    formula_weights(g);
    return g;
}

static float *formula_faces(const char *name, size_t n, float scale,
                            float shift)
{
    float *x = malloc(n * sizeof(*x));

    assert_non_null(x);
    tensor_formula(name, x, n);
    for (size_t i = 0; i < n; i++)
        x[i] = scale * x[i] + shift;
    return x;
}

/* --- tests
 * -------------------------------------------------------------------- */

static void test_irv1_tensors(void **state)
{
    json_t *root = load_json("golden/inception_resnet_v1.json");
    struct graph *g = formula_irv1();
    const json_t *tensors = json_object_get(root, "tensors"), *t;
    size_t i, n_weights = 0;

    (void)state;
    json_array_foreach(tensors, i, t)
    {
        const char *name = json_string_value(json_array_get(t, 0));
        const json_t *dims = json_array_get(t, 1);
        int v = graph_find(g, name);
        if (v < 0)
            fail_msg("no weight %s", name);
        assert_int_equal(g->values[v].shape.rank, json_array_size(dims));
        for (size_t k = 0; k < json_array_size(dims); k++)
            assert_int_equal(g->values[v].shape.d[k],
                             json_integer_value(json_array_get(dims, k)));
    }
    for (int k = 0; k < g->n_values; k++)
        n_weights += g->values[k].kind == VALUE_WEIGHT &&
                     !ends_with(g->values[k].name, ".factor");
    assert_int_equal(n_weights, json_array_size(tensors));
    graph_free(g);
    json_decref(root);
}

static void test_irv1(void **state)
{
    json_t *root = load_json("golden/inception_resnet_v1.json");
    struct graph *g = formula_irv1();
    float *x = formula_faces("input", 2 * 3 * 160 * 160, 1, 0), *got;
    int dim;

    (void)state;
    got = embed(g, x, 2, PRECISION_F32, &dim);
    check_rows(json_object_get(root, "embedding"), got, 2, dim);
    free(got);
    free(x);
    graph_free(g);
    json_decref(root);
}

static void test_mobilefacenet(void **state)
{
    json_t *root = load_json("golden/mobilefacenet.json");
    struct graph *g = load_graph("weights/mobilefacenet_arcface_112.onnx");
    float *x = formula_faces("input", 2 * 3 * 112 * 112, 127.5f, 127.5f), *got;
    int dim;

    (void)state;
    got = embed(g, x, 2, PRECISION_F32, &dim);
    check_rows(json_object_get(root, "formula_input"), got, 2, dim);
    free(got);
    free(x);
    graph_free(g);
    json_decref(root);
}

/* First and last numbers of the unit vector that ONNX Runtime 1.x gives for
 * u("input") as [1,3,112,112]. */
static void test_foamliu(void **state)
{
    static const float first[8] = {-0.1021873f, 0.0299054f,  -0.0266875f,
                                   0.1037013f,  -0.0416413f, 0.1171891f,
                                   -0.1311458f, -0.2377243f};
    static const float last[4] = {0.1059057f, 0.034592f, 0.0260692f,
                                  0.0233885f};
    struct graph *g = load_graph("weights/mobilefacenet_foamliu_112.onnx");
    float *x = formula_faces("input", 3 * 112 * 112, 1, 0), *got;
    int dim;

    (void)state;
    got = embed(g, x, 1, PRECISION_F32, &dim);
    assert_int_equal(dim, 128);
    for (int i = 0; i < 8; i++)
        assert_float_equal(got[i], first[i], 1e-4);
    for (int i = 0; i < 4; i++)
        assert_float_equal(got[124 + i], last[i], 1e-4);
    free(got);
    free(x);
    graph_free(g);
}

/* The same face at every other place of batches of 2, 7 and 16. */
static void check_batches(const struct graph *g, int side, float scale,
                          float shift, enum precision precision, double limit)
{
    static const int sizes[] = {2, 7, 16};
    size_t face = 3 * (size_t)side * (size_t)side;
    float *x = formula_faces("others", 16 * face, scale, shift), *alone, *got;
    float *one = formula_faces("face", face, scale, shift);
    double worst = 0;
    int dim;

    alone = embed(g, one, 1, precision, &dim);
    for (int s = 0; s < 3; s++) {
        int n = sizes[s];
        for (int i = 0; i < n; i += 2)
            memcpy(x + (size_t)i * face, one, face * sizeof(*x));
        got = embed(g, x, n, precision, &dim);
        for (int i = 0; i < n; i += 2) {
            double d = squared_distance(alone, got + i * dim, dim);
            worst = d > worst ? d : worst;
        }
        free(got);
    }
    print_message("largest squared distance to the face alone: %.2g\n", worst);
    assert_true(worst <= limit);
    free(alone);
    free(one);
    free(x);
}

static void test_batch_irv1(void **state)
{
    struct graph *g = formula_irv1();

    (void)state;
    check_batches(g, 160, 1, 0, PRECISION_F32, 1e-6);
    if (has_bf16())
        check_batches(g, 160, 1, 0, PRECISION_BF16, 1e-4);
    else
        print_message("SKIP: no bf16 on this machine\n");
    graph_free(g);
}

static void test_batch_mobilefacenet(void **state)
{
    struct graph *g = load_graph("weights/mobilefacenet_arcface_112.onnx");

    (void)state;
    check_batches(g, 112, 127.5f, 127.5f, PRECISION_F32, 1e-6);
    if (has_bf16())
        check_batches(g, 112, 127.5f, 127.5f, PRECISION_BF16, 1e-4);
    else
        print_message("SKIP: no bf16 on this machine\n");
    graph_free(g);
}

/* bf16 against f32 on real weights: near, not equal. */
static void test_bf16(void **state)
{
    struct graph *g;
    float *x, *exact, *rounded;
    int dim;
    double d;

    (void)state;
    if (!has_bf16()) {
        print_message("SKIP: no bf16 on this machine\n");
        skip();
    }
    g = load_graph("weights/mobilefacenet_arcface_112.onnx");
    x = formula_faces("input", 3 * 112 * 112, 127.5f, 127.5f);
    exact = embed(g, x, 1, PRECISION_F32, &dim);
    rounded = embed(g, x, 1, PRECISION_BF16, &dim);
    d = squared_distance(exact, rounded, dim);
    print_message("squared distance of bf16 to f32: %.2g\n", d);
    assert_true(d <= 1e-3);
    free(exact);
    free(rounded);
    free(x);
    graph_free(g);
}

static int set_up(void **state)
{
    struct device_options opt = {.n_threads = 2};
    const struct backend *backend = test_backend();

    (void)state;
    device = backend ? backend->device_open(&opt, NULL) : NULL;
    return device ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    device->backend->device_close(device);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_irv1_tensors),
        cmocka_unit_test(test_irv1),
        cmocka_unit_test(test_mobilefacenet),
        cmocka_unit_test(test_foamliu),
        cmocka_unit_test(test_batch_irv1),
        cmocka_unit_test(test_batch_mobilefacenet),
        cmocka_unit_test(test_bf16),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
