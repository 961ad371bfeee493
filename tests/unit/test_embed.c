/* tests/unit/test_embed.c - batches to unit vectors: a tiny network whose
 * answers are known, and the default embedder against golden numbers. */
#include "core/face/embed.h"

#include <math.h>

#include "core/face/distance.h"
#include "tests/data.h"

enum {
    SIDE = 4,
    PIXELS = 3 * SIDE * SIDE,
    DIM = 2
};

/* y0 = sum of the red plane, y1 = sum of the green one. */
static struct model tiny(void)
{
    struct error err = {0};
    struct graph *g = graph_new(&err);
    struct shape shape = shape_of(2, DIM, PIXELS, 0, 0);
    struct op flat = {.type = OP_RESHAPE}, gemm = {.type = OP_GEMM};
    float *w = calloc(DIM * PIXELS, sizeof(float));
    int in, weight, x, y;
    struct model m = {.name = "tiny"};

    for (int i = 0; i < SIDE * SIDE; i++) {
        w[i] = 1;
        w[PIXELS + SIDE * SIDE + i] = 1;
    }
    in = graph_add_input(g, "data", 3, SIDE, SIDE, &err);
    weight = graph_add_weight(g, "w", &shape, w, &err);
    flat.u.reshape.to = shape_of(2, 0, -1, 0, 0);
    x = graph_add_node(g, "flat", &flat, &in, 1, "flat", &err);
    y = graph_add_node(g, "dense", &gemm, (int[]){x, weight}, 2, "out", &err);
    if (y < 0 || graph_add_output(g, y, &err) < 0)
        fail_msg("%s", err.text);
    m.graph = g;
    m.contract = (struct contract){
        .crop = CROP_ARCFACE, .width = SIDE, .height = SIDE, .dim = DIM};
    return m;
}

static void chip_of(float *chip, float red, float green)
{
    for (int i = 0; i < PIXELS; i++)
        chip[i] = i < SIDE * SIDE ? red : i < 2 * SIDE * SIDE ? green : 9;
}

static void test_batches(void **state)
{
    struct device *dev = data_device();
    struct model m = tiny();
    struct error err = {0};
    struct embedder *e = embedder_new(dev, &m, 6, PRECISION_F32, &err);
    float chips[20][PIXELS], out[20 * DIM];
    const float *at[20];

    (void)state;
    if (!e)
        fail_msg("%s", err.text);
    assert_int_equal(embedder_batch_max(e), 6);
    assert_int_equal(embedder_dim(e), DIM);
    assert_int_equal(embedder_precision(e), PRECISION_F32);
    for (int n = 0; n <= 20; n++) {
        for (int i = 0; i < n; i++) {
            chip_of(chips[i], (float)(i + 1), (float)(2 * i - n));
            at[i] = chips[i];
        }
        assert_int_equal(embedder_run(e, at, n, out, NULL, &err), 0);
        for (int i = 0; i < n; i++) {
            float r = (float)(i + 1), g = (float)(2 * i - n);
            float len = sqrtf(r * r + g * g);
            assert_true(fabsf(out[2 * i] - r / len) < 1e-5f);
            assert_true(fabsf(out[2 * i + 1] - g / len) < 1e-5f);
        }
    }
    embedder_free(e);
    graph_free(m.graph);
    dev->backend->device_close(dev);
}

/* What a bad row does: NaN there, and nowhere else. */
static void test_bad_rows(void **state)
{
    struct device *dev = data_device();
    struct model m = tiny();
    struct error err = {0};
    struct embedder *e = embedder_new(dev, &m, 4, PRECISION_F32, &err);
    float chips[5][PIXELS], out[5 * DIM];
    const float *at[5];
    int bad = -1;

    (void)state;
    assert_non_null(e);
    for (int i = 0; i < 5; i++) {
        chip_of(chips[i], 3, 4);
        at[i] = chips[i];
    }
    chip_of(chips[1], 0, 0);        /* no length */
    chip_of(chips[3], INFINITY, 1); /* not finite */
    assert_int_equal(embedder_run(e, at, 5, out, &bad, &err), 0);
    assert_int_equal(bad, 2);
    for (int i = 0; i < 5; i++) {
        if (i == 1 || i == 3) {
            assert_true(isnan(out[2 * i]) && isnan(out[2 * i + 1]));
            continue;
        }
        assert_true(fabsf(out[2 * i] - 0.6f) < 1e-5f);
        assert_true(fabsf(out[2 * i + 1] - 0.8f) < 1e-5f);
    }
    assert_int_equal(embedder_run(e, at, 5, out, NULL, &err), -1);
    assert_int_equal(err.code, ERR_DEVICE);
    assert_int_equal(embedder_run(e, at, 1, out, &bad, &err), 0);
    assert_int_equal(bad, 0);
    embedder_free(e);
    graph_free(m.graph);
    dev->backend->device_close(dev);
}

static void test_refusals(void **state)
{
    struct device *dev = data_device();
    struct model m = tiny();
    struct error err = {0};

    (void)state;
    assert_null(embedder_new(dev, &m, 0, PRECISION_F32, &err));
    assert_int_equal(err.code, ERR_BAD_FIELD);
    assert_null(embedder_new(dev, &m, 100000, PRECISION_F32, &err));
    m.contract.dim = 3;
    assert_null(embedder_new(dev, &m, 1, PRECISION_F32, &err));
    assert_int_equal(err.code, ERR_MODEL);
    m.contract.dim = DIM;
    m.contract.kind = MODEL_RNET;
    assert_null(embedder_new(dev, &m, 1, PRECISION_F32, &err));
    assert_int_equal(err.code, ERR_MODEL);
    graph_free(m.graph);
    dev->backend->device_close(dev);
}

static void check_golden(struct device *dev, struct model *m,
                         enum precision precision, float tolerance)
{
    enum {
        N = 3 * 112 * 112,
        MOST = 16
    };
    static const int sizes[] = {1, 2, 7, 16};
    struct error err = {0};
    struct embedder *e = embedder_new(dev, m, MOST, precision, &err);
    json_t *root = data_json("golden/mobilefacenet.json");
    float *u = malloc(2 * N * sizeof(float));
    float alone[128], out[MOST * 128], worst = 0;
    const float *chips[MOST];

    if (!e)
        fail_msg("%s", err.text);
    tensor_formula("input", u, 2 * N);
    for (int i = 0; i < 2 * N; i++)
        u[i] = 127.5f * (1 + u[i]);
    for (int i = 0; i < MOST; i++)
        chips[i] = u + (i % 2) * N;
    assert_int_equal(embedder_run(e, chips, 1, alone, NULL, &err), 0);
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        int n = sizes[s];
        assert_int_equal(embedder_run(e, chips, n, out, NULL, &err), 0);
        for (int i = 0; i < n; i += 2)
            worst = fmaxf(worst, distance_l2(alone, out + i * 128, 128));
    }
    print_message("alone and in batches: squared distance %.2g\n",
                  (double)worst);
    assert_true(worst <= (precision == PRECISION_F32 ? 1e-6f : 1e-4f));
    worst = 0;
    for (size_t i = 0; i < 2; i++) {
        json_t *want =
            json_array_get(json_object_get(root, "formula_input"), i);
        for (size_t k = 0; k < 128; k++)
            worst =
                fmaxf(worst, fabsf(out[i * 128 + k] - data_number(want, k)));
    }
    print_message("largest difference from golden %.2g\n", (double)worst);
    assert_true(worst <= tolerance);
    json_decref(root);
    free(u);
    embedder_free(e);
}

static void test_golden(void **state)
{
    const struct contract c = {
        .crop = CROP_ARCFACE, .width = 112, .height = 112, .dim = 128};
    struct device *dev;
    struct device_info info;
    struct model *m;

    (void)state;
    data_need("weights/mobilefacenet_arcface_112.onnx");
    data_need("golden/mobilefacenet.json");
    dev = data_device();
    dev->backend->device_describe(dev, &info);
    m = data_model("mobilefacenet_arcface_112", &c);
    check_golden(dev, m, PRECISION_F32, 1e-4f);
    if (info.any_bf16)
        check_golden(dev, m, PRECISION_BF16, 2e-2f);
    data_model_free(m);
    dev->backend->device_close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batches), cmocka_unit_test(test_bad_rows),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_golden)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
