/* tests/gpu/test_plan.c - where gpu/layout puts values, what gpu/tune keeps
 * and what it does not believe, and that a plan of many joins takes the steps
 * it should and no copies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "gpu/gpu.h"
#include "gpu/gpu_priv.h"

static struct error err;

static int conv(struct graph *g, int x, int in, int out, int k)
{
    struct op op = {.type = OP_CONV,
                    .u.conv = {.kernel = {k, k},
                               .stride = {1, 1},
                               .dilation = {1, 1},
                               .pad = {k / 2, k / 2, k / 2, k / 2},
                               .group = 1}};
    struct shape s = shape_of(4, out, in, k, k);
    struct op relu = {.type = OP_RELU};
    int at[2] = {x, graph_add_weight(g, NULL, &s, NULL, &err)};
    int y = graph_add_node(g, NULL, &op, at, 2, NULL, &err);

    assert_true(y >= 0);
    return graph_add_node(g, NULL, &relu, &y, 1, NULL, &err);
}

static int join(struct graph *g, const int in[], int n)
{
    struct op op = {.type = OP_CONCAT, .u.axis.axis = 1};
    int y = graph_add_node(g, NULL, &op, in, n, NULL, &err);

    assert_true(y >= 0);
    return y;
}

/* An inception block: three branches, of which two begin with a 1x1 of the
 * same value, and a join inside a join. */
static struct graph *block(int width)
{
    struct graph *g = graph_new(&err);
    int x = graph_add_input(g, "x", 8, 6, 6, &err), y[3], z[2];

    y[0] = conv(g, x, 8, width, 1);
    y[1] = conv(g, conv(g, x, 8, 16, 1), 16, 24, 3);
    z[0] = conv(g, conv(g, x, 8, 8, 1), 8, 8, 3);
    z[1] = conv(g, x, 8, 8, 3);
    y[2] = join(g, z, 2);
    assert_true(graph_add_output(g, join(g, y, 3), &err) >= 0);
    return g;
}

static bool tunes;

static struct plan *plan_of(const struct graph *g, struct device **dev,
                            struct network **net, enum precision precision)
{
    const struct backend *b = facenetd_backend(BACKEND_ABI);
    struct device_options opt = {.tune = tunes};
    struct plan_options popt = {.n = 2, .precision = precision};
    struct plan *p;

    *dev = b->device_open(&opt, &err);
    assert_non_null(*dev);
    *net = b->load(*dev, g, &err);
    assert_non_null(*net);
    p = b->plan(*net, &popt, &err);
    if (!p)
        fail_msg("%s", err.text);
    return p;
}

static int count(const struct plan *p, enum step_kind kind)
{
    const struct gpu_plan *gp = (const struct gpu_plan *)p;
    int n = 0;

    for (int i = 0; i < gp->n_steps; i++)
        n += gp->steps[i].kind == kind;
    return n;
}

static void close_all(struct plan *p, struct network *net, struct device *dev)
{
    dev->backend->plan_free(p);
    dev->backend->unload(net);
    dev->backend->device_close(dev);
}

static void test_joined(void **state)
{
    struct graph *g = block(16);
    struct network *net;
    struct device *dev;
    struct plan *p = plan_of(g, &dev, &net, PRECISION_F16);

    (void)state;
    assert_int_equal(count(p, STEP_PLACE), 0);
    /* the two 1x1 that feed 3x3 are one */
    assert_int_equal(count(p, STEP_DNN), 5);
    assert_int_equal(count(p, STEP_UNARY), 0);
    close_all(p, net, dev);
    graph_free(g);
}

/* On the emulated card what is timed later wins: the layout without joins in
 * place, and without merging. The second time it is known. */
static void test_layout_timed(void **state)
{
    struct graph *g = block(16);
    struct plan_options popt = {.n = 2};
    struct network *net;
    struct device *dev;
    struct plan *p, *again;

    (void)state;
    tunes = true;
    p = plan_of(g, &dev, &net, PRECISION_F16);
    tunes = false;
    assert_true(count(p, STEP_CONCAT) >= 1);
    assert_int_equal(count(p, STEP_PLACE), 0);
    assert_int_equal(count(p, STEP_DNN), 6);
    again = dev->backend->plan(net, &popt, &err);
    assert_non_null(again);
    assert_int_equal(count(again, STEP_CONCAT), count(p, STEP_CONCAT));
    assert_int_equal(count(again, STEP_DNN), 6);
    dev->backend->plan_free(again);
    close_all(p, net, dev);
    graph_free(g);
}

/* Twelve channels leave no multiple of eight: what follows is copied. */
static void test_not_joined(void **state)
{
    struct graph *g = block(12);
    struct network *net;
    struct device *dev;
    struct plan *p = plan_of(g, &dev, &net, PRECISION_F32);

    (void)state;
    assert_int_equal(count(p, STEP_CONCAT), 1);
    close_all(p, net, dev);
    graph_free(g);
}

/* A dense layer after a flattened picture reads it as it lies. */
static void test_flat(void **state)
{
    struct graph *g = graph_new(&err);
    struct op reshape = {.type = OP_RESHAPE}, gemm = {.type = OP_GEMM};
    int x = graph_add_input(g, "x", 3, 5, 4, &err), in[2];
    struct shape s = shape_of(2, 10, 60, 0, 0);
    struct network *net;
    struct device *dev;
    struct plan *p;

    (void)state;
    reshape.u.reshape.to = shape_of(2, 0, -1, 0, 0);
    in[0] = graph_add_node(g, NULL, &reshape, &x, 1, NULL, &err);
    in[1] = graph_add_weight(g, NULL, &s, NULL, &err);
    x = graph_add_node(g, NULL, &gemm, in, 2, NULL, &err);
    assert_true(graph_add_output(g, x, &err) >= 0);
    p = plan_of(g, &dev, &net, PRECISION_F16);
    assert_int_equal(count(p, STEP_GATHER), 0);
    assert_int_equal(count(p, STEP_DNN), 1);
    close_all(p, net, dev);
    graph_free(g);
}

/* Slices of a value that share its memory do not meet, and lie inside. */
static void test_layout(void **state)
{
    struct graph *raw = block(16), *g = graph_fuse(raw, &err);
    struct layout_options opt = {.slices = true, .merge = true};
    struct shape shapes[64];
    struct layout l;

    (void)state;
    assert_non_null(g);
    assert_true(g->n_values < 64);
    assert_int_equal(graph_shapes(g, 2, 0, 0, shapes, &err), 0);
    assert_int_equal(layout_init(&l, g, shapes, &opt, &err), 0);
    for (int i = 0; i < g->n_nodes; i++) {
        int v = g->nodes[i].out;
        const struct home *h = &l.home[v];

        assert_true(h->offset % 8 == 0 && h->pitch % 8 == 0);
        assert_true(h->offset + arith_padded(shapes[v].d[1]) <= h->pitch);
    }
    layout_fini(&l);
    graph_free(g);
    graph_free(raw);
}

static void test_abi(void **state)
{
    (void)state;
    assert_non_null(facenetd_backend(BACKEND_ABI));
    assert_null(facenetd_backend(BACKEND_ABI + 1));
}

/* ---- what is kept of tuning ------------------------------------------------
 */

static char dir[] = "/tmp/test_tune.XXXXXX";

static char *kept_file(void)
{
    static char path[256];
    FILE *f;
    char command[128];

    snprintf(command, sizeof(command), "ls %s/cuda-*.plans", dir);
    f = popen(command, "r");
    assert_non_null(f);
    assert_non_null(fgets(path, sizeof(path), f));
    pclose(f);
    path[strcspn(path, "\n")] = 0;
    return path;
}

static bool known(const char *identity, const struct dnn_shape *s)
{
    struct tune *t = tune_new(dir, identity, &err);
    int64_t engine = 0;
    int at = 0;
    bool found = tune_find(t, s, &at, &engine);

    if (found) {
        assert_int_equal(at, 3);
        assert_int_equal(engine, 41);
    }
    tune_free(t);
    return found;
}

static void test_tune(void **state)
{
    struct dnn_shape s = {.n = 1, .c = 8, .k = 16}, other = s, back = s;
    struct tune *t;
    FILE *f;

    (void)state;
    assert_non_null(mkdtemp(dir));
    other.relu = true;
    back.pass = DNN_BACK_DATA;
    assert_false(known("a card", &s));
    t = tune_new(dir, "a card", &err);
    tune_add(t, &s, 3, 41);
    tune_save(t);
    tune_free(t);
    assert_true(known("a card", &s));
    assert_false(known("a card", &other));
    assert_false(known("a card", &back));
    assert_false(known("another card", &s));
    f = fopen(kept_file(), "r+"); /* a number changed */
    assert_non_null(f);
    fseek(f, 30, SEEK_SET);
    fputc('7', f);
    fclose(f);
    assert_false(known("a card", &s));
    f = fopen(kept_file(), "w"); /* cut short */
    assert_non_null(f);
    fputs("plans 2 of a card\n", f);
    fclose(f);
    assert_false(known("a card", &s));
    f = fopen(kept_file(), "w"); /* of a release without passes */
    assert_non_null(f);
    fputs("a card\n1:8x0x0:16:k0x0:s0x0:d0x0:p0,0,0,0:0,0,0:r0:t0:0 3 41\n"
          "sum 98e41d218563fe1c\n",
          f);
    fclose(f);
    assert_false(known("a card", &s));
    t = tune_new(dir, "a card", &err); /* and it is written anew */
    tune_add(t, &back, 3, 41);
    tune_save(t);
    tune_free(t);
    assert_true(known("a card", &back));
    assert_false(known("a card", &s));
    unlink(kept_file());
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_abi),    cmocka_unit_test(test_layout),
        cmocka_unit_test(test_joined), cmocka_unit_test(test_not_joined),
        cmocka_unit_test(test_flat),   cmocka_unit_test(test_layout_timed),
        cmocka_unit_test(test_tune),
    };

    return cmocka_run_group_tests_name("plans of a card", tests, NULL, NULL);
}
