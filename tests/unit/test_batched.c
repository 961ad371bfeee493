/* tests/unit/test_batched.c - a network for any number of inputs: a tiny one
 * whose answers are known. */
#include "core/engine/batched.h"

#include <math.h>
#include <sched.h>
#include <time.h>

#include "tests/data.h"

enum {
    SIDE = 4,
    PIXELS = 3 * SIDE * SIDE,
    DIM = 3
};

/* Two outputs: the mean of red and of green; the mean of blue. */
static struct graph *tiny(void)
{
    struct error err = {0};
    struct graph *g = graph_new(&err);
    struct op flat = {.type = OP_RESHAPE}, gemm = {.type = OP_GEMM};
    const int n = SIDE * SIDE;
    int in = graph_add_input(g, "data", 3, SIDE, SIDE, &err), x;

    flat.u.reshape.to = shape_of(2, 0, -1, 0, 0);
    x = graph_add_node(g, "flat", &flat, &in, 1, "flat", &err);
    for (int k = 0, plane = 0; k < 2; k++) {
        struct shape shape = shape_of(2, 2 - k, PIXELS, 0, 0);
        float *w = calloc((size_t)(2 - k) * PIXELS, sizeof(float));
        int weight, y;
        for (int row = 0; row < 2 - k; row++, plane++)
            for (int i = 0; i < n; i++)
                w[row * PIXELS + plane * n + i] = 1 / (float)n;
        weight = graph_add_weight(g, NULL, &shape, w, &err);
        y = graph_add_node(g, NULL, &gemm, (int[]){x, weight}, 2, NULL, &err);
        if (y < 0 || graph_add_output(g, y, &err) < 0)
            fail_msg("%s", err.text);
    }
    return g;
}

static void fill(float *input, float red, float green, float blue)
{
    for (int i = 0; i < PIXELS; i++)
        input[i] = i < SIDE * SIDE ? red : i < 2 * SIDE * SIDE ? green : blue;
}

static struct batched *make(struct device *dev, int factor, int most)
{
    struct batched_options opt = {.name = "tiny",
                                  .n_input = PIXELS,
                                  .dim = DIM,
                                  .precision = PRECISION_F32};
    struct graph *g = tiny();
    struct error err = {0};
    struct batched *b;

    batched_sizes(&opt, factor, most);
    b = batched_new(dev, g, &opt, &err);
    if (!b)
        fail_msg("%s", err.text);
    graph_free(g);
    return b;
}

static void test_sizes(void **state)
{
    static const struct {
        int factor, most, n, sizes[4];
    } rows[] = {{2, 1, 1, {1}},
                {2, 6, 4, {1, 2, 4, 6}},
                {4, 64, 4, {1, 4, 16, 64}},
                {4, 5, 3, {1, 4, 5}}};
    struct batched_options opt;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        batched_sizes(&opt, rows[i].factor, rows[i].most);
        assert_int_equal(opt.n_sizes, rows[i].n);
        for (int k = 0; k < opt.n_sizes; k++)
            assert_int_equal(opt.sizes[k], rows[i].sizes[k]);
    }
    batched_sizes(&opt, 2, 1 << 30);
    assert_int_equal(opt.n_sizes, BATCHED_MAX_SIZES);
}

/* Rows hold all outputs, and what is not finite is told. */
static void test_rows(void **state)
{
    struct device *dev = data_device();
    struct batched *b = make(dev, 2, 6);
    struct error err = {0};
    float inputs[20][PIXELS], rows[20 * DIM];
    const float *at[20];
    int bad = -1;

    (void)state;
    assert_int_equal(batched_most(b), 6);
    assert_int_equal(batched_precision(b), PRECISION_F32);
    for (int n = 0; n <= 20; n++) {
        for (int i = 0; i < n; i++) {
            fill(inputs[i], (float)i, (float)(2 * i - n), -1);
            at[i] = inputs[i];
        }
        assert_int_equal(batched_run(b, at, n, rows, &bad, &err), 0);
        assert_int_equal(bad, 0);
        for (int i = 0; i < n; i++) {
            assert_true(fabsf(rows[3 * i] - (float)i) < 1e-4f);
            assert_true(fabsf(rows[3 * i + 1] - (float)(2 * i - n)) < 1e-4f);
            assert_true(fabsf(rows[3 * i + 2] + 1) < 1e-4f);
        }
    }
    fill(inputs[2], 1, INFINITY, 1);
    assert_int_equal(batched_run(b, at, 5, rows, &bad, &err), 0);
    assert_int_equal(bad, 1);
    assert_true(isnan(rows[6]) && isnan(rows[7]) && isnan(rows[8]));
    assert_true(rows[5] == -1 && isfinite(rows[9]));
    batched_free(b);
    dev->backend->device_close(dev);
}

static void test_refusals(void **state)
{
    struct device *dev = data_device();
    struct batched_options opt = {.name = "tiny",
                                  .n_input = PIXELS,
                                  .dim = DIM,
                                  .precision = PRECISION_F32};
    struct graph *g = tiny();
    struct error err = {0};

    (void)state;
    assert_null(batched_new(dev, g, &opt, &err));
    assert_int_equal(err.code, ERR_BAD_FIELD);
    batched_sizes(&opt, 2, BATCHED_MOST + 1);
    assert_null(batched_new(dev, g, &opt, &err));
    assert_int_equal(err.code, ERR_BAD_FIELD);
    batched_sizes(&opt, 2, 2);
    opt.dim = 4;
    assert_null(batched_new(dev, g, &opt, &err));
    assert_int_equal(err.code, ERR_MODEL);
    opt.dim = DIM;
    opt.n_input = 3;
    assert_null(batched_new(dev, g, &opt, &err));
    assert_int_equal(err.code, ERR_MODEL);
    graph_free(g);
    dev->backend->device_close(dev);
}

/* --- which plans --------------------------------------------------------- */

/* In place of graph_forward: which batch sizes; slow_n's takes ten times as
 * long as the slowest of the others did, however busy the machine is. */
struct spy {
    int sizes[16], n, slow_n;
    int64_t most_ns;
    bool fail;
};

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int spy_forward(void *ctx, struct plan *p, struct error *err)
{
    struct spy *spy = ctx;
    int64_t began = now_ns(), until = began + 100000000 + 10 * spy->most_ns;
    int rc;

    if (spy->fail)
        return error_set(err, ERR_DEVICE, "the device is gone");
    spy->sizes[spy->n++ % 16] = p->shape_in.d[0];
    rc = graph_forward(p, err);
    while (p->shape_in.d[0] == spy->slow_n && now_ns() < until)
        sched_yield();
    if (p->shape_in.d[0] != spy->slow_n && now_ns() - began > spy->most_ns)
        spy->most_ns = now_ns() - began;
    return rc;
}

static void run_same(struct batched *b, int n)
{
    struct error err = {0};
    float input[PIXELS], rows[16 * DIM];
    const float *at[16];
    int bad;

    fill(input, 3, 4, 5);
    for (int i = 0; i < 16; i++)
        at[i] = input;
    if (batched_run(b, at, n, rows, &bad, &err) != 0)
        fail_msg("%s", err.text);
    for (int i = 0; i < n; i++)
        assert_true(fabsf(rows[3 * i] - 3) < 1e-4f);
}

/* Before anything is measured: little idle room, few runs. */
static void test_cover(void **state)
{
    static const struct {
        int n, sizes[3];
    } rows[] = {{1, {1}},    {3, {2, 1}}, {5, {4, 1}},
                {6, {4, 2}}, {7, {8}},    {13, {8, 4, 1}}};
    struct device *dev = data_device();

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct batched *b = make(dev, 2, 8);
        struct spy spy = {0};
        batched_cover_by_time(b);
        assert_int_equal(batched_time_us(b, rows[i].n), 0);
        batched_set_forward(b, spy_forward, &spy);
        run_same(b, rows[i].n);
        for (int k = 0; k < 3; k++)
            assert_int_equal(spy.sizes[k], rows[i].sizes[k]);
        batched_free(b);
    }
    dev->backend->device_close(dev);
}

/* What takes long is not used, if it can be done without, by one and by its
 * twin. */
static void test_measured(void **state)
{
    struct device *dev = data_device();
    struct error err = {0};
    struct batched *b = make(dev, 2, 8), *twin = batched_twin(b, &err);
    struct batched *both[] = {b, twin};
    float input[PIXELS], want[DIM] = {3, 4, 5}, far[DIM] = {3, 4, 7}, worst;

    (void)state;
    assert_non_null(twin);
    fill(input, 3, 4, 5);
    for (int i = 0; i < 2; i++) {
        struct spy spy = {.slow_n = 8};
        batched_cover_by_time(both[i]);
        batched_set_forward(both[i], spy_forward, &spy);
        assert_int_equal(batched_measure(both[i], input, want, &worst, &err),
                         0);
        assert_true(worst < 1e-6f);
        assert_int_equal(spy.n, 8); /* 1 2 4 8, twice */
        assert_true(batched_time_us(both[i], 1) > 0);
        assert_true(batched_time_us(both[i], 16) > batched_time_us(both[i], 8));
        spy.n = 0;
        run_same(both[i], 5);
        for (int k = 0; k < spy.n; k++)
            assert_true(spy.sizes[k] < 8);
        spy = (struct spy){.slow_n = 0};
        assert_int_equal(batched_measure(both[i], input, far, &worst, &err), 0);
        assert_true(fabsf(worst - 4) < 1e-3f);
        spy.fail = true;
        assert_int_equal(batched_measure(both[i], input, want, &worst, &err),
                         -1);
        assert_int_equal(err.code, ERR_DEVICE);
    }
    batched_free(twin);
    batched_free(b);
    dev->backend->device_close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),    cmocka_unit_test(test_rows),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_cover),
        cmocka_unit_test(test_measured),
    };

    return cmocka_run_group_tests_name("batched", tests, NULL, NULL);
}
