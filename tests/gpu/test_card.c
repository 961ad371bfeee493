/* tests/gpu/test_card.c - whole networks on the device of FACENETD_PLUGIN
 * against the processor's; memory that comes back; several plans at once; a
 * bound on memory; a card that is lost. On an emulated card only the small
 * networks, on a real one all of them. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "core/arch/arch.h"
#include "tests/device.h"

static const struct backend *backend;
static bool emulated;

static struct device *open_device(const struct device_options *opt)
{
    struct error err = {0};
    struct device *d = backend->device_open(opt, &err);

    if (!d)
        fail_msg("%s", err.text);
    return d;
}

static struct graph *make(const char *name)
{
    struct arch_options opt = {.seed = 5};
    struct error err = {0};
    struct graph *g;

    opt.normalise = arch_find(name)->embedding_size > 0;
    g = arch_new(name, &opt, &err);
    if (!g)
        fail_msg("%s", err.text);
    return g;
}

static struct network *load(struct device *d, const struct graph *g)
{
    struct error err = {0};
    struct network *net = network_new(d, g, &err);

    if (!net)
        fail_msg("%s", err.text);
    return net;
}

static struct plan *plan(struct network *net, const struct plan_options *opt)
{
    struct error err = {0};
    struct plan *p = graph_plan(net, opt, &err);

    if (!p)
        fail_msg("%s", err.text);
    return p;
}

static void fill(struct plan *p)
{
    tensor_formula("input", plan_input(p), shape_count(&p->shape_in));
}

static void run(struct plan *p)
{
    struct error err = {0};

    fill(p);
    if (graph_forward(p, &err))
        fail_msg("%s", err.text);
}

/* Length of the difference by the length of what is wanted. */
static double off(const float *want, const float *got, size_t n)
{
    double top = 0, below = 0;

    for (size_t i = 0; i < n; i++) {
        top += ((double)want[i] - got[i]) * ((double)want[i] - got[i]);
        below += (double)want[i] * want[i];
    }
    return sqrt(top / (below > 0 ? below : 1));
}

/* ---- networks ---------------------------------------------------------------
 */

static const struct {
    enum precision precision;
    double limit;
} precisions[] = {
    {PRECISION_F32, 2e-4},
    {PRECISION_F16, 1.4e-2}, /* a cosine of 0.9999 */
    {PRECISION_TF32, 1.4e-2},
    {PRECISION_BF16, 1e-1},
};

static void compare(struct network *ours, struct network *theirs, int n, int h,
                    int w, const char *name)
{
    struct plan_options opt = {
        .n = n, .h = h, .w = w, .precision = PRECISION_F32};
    struct plan *want = plan(ours, &opt);

    run(want);
    for (size_t i = 0; i < sizeof(precisions) / sizeof(precisions[0]); i++) {
        struct plan *got;

        opt.precision = precisions[i].precision;
        got = plan(theirs, &opt);
        run(got);
        run(got); /* what the first left behind does not matter */
        assert_int_equal(got->n_outputs, want->n_outputs);
        for (int k = 0; k < want->n_outputs; k++) {
            double d = off(plan_output(want, k), plan_output(got, k),
                           shape_count(plan_output_shape(want, k)));

            print_message("%s, batch %d, %s, output %d: off by %.2g\n", name, n,
                          precision_name(opt.precision), k, d);
            assert_true(d <= precisions[i].limit);
        }
        plan_free(got);
    }
    plan_free(want);
}

static void test_network(void **state)
{
    const struct arch_info *info = *state;
    struct device_options opt = {.n_threads = 2};
    struct device *cpu = backend_cpu.device_open(&opt, NULL);
    struct device *card = open_device(&opt);
    struct graph *g = make(info->name);
    const struct value *in = &g->values[g->input];
    int h = in->shape.d[2] ? 0 : 37; /* P-Net's are free */
    int w = in->shape.d[3] ? 0 : 50;
    struct network *ours = load(cpu, g), *theirs = load(card, g);

    compare(ours, theirs, 1, h, w, info->name);
    if (!emulated)
        compare(ours, theirs, 7, h, w, info->name);
    network_free(ours);
    network_free(theirs);
    backend->device_close(card);
    backend_cpu.device_close(cpu);
    graph_free(g);
}

/* ---- lives ----------------------------------------------------------------
 */

static void live_once(struct device *d, const struct graph *g)
{
    struct plan_options opt = {.n = 2};
    struct network *net = load(d, g);
    struct plan *p = plan(net, &opt);

    run(p);
    plan_free(p);
    network_free(net);
}

static size_t used(struct device *d)
{
    struct device_info info;

    backend->device_describe(d, &info);
    return info.bytes_used;
}

static void test_reload(void **state)
{
    struct device_options opt = {0};
    struct device *d = open_device(&opt);
    struct graph *g = make("mtcnn_rnet");
    size_t before;

    (void)state;
    for (int i = 0; i < 10; i++)
        live_once(d, g);
    before = used(d);
    for (int i = 0; i < (emulated ? 20 : 1000); i++)
        live_once(d, g);
    print_message("%zu bytes before, %zu after\n", before, used(d));
    assert_true(used(d) <= before + (emulated ? 0 : 4 << 20));
    graph_free(g);
    backend->device_close(d);
}

struct worker {
    pthread_t thread;
    struct plan *p;
    const float *want;
    double worst;
};

static void *work(void *at)
{
    struct worker *w = at;

    for (int i = 0; i < (emulated ? 5 : 200); i++) {
        double d;

        fill(w->p);
        if (graph_forward(w->p, NULL)) {
            w->worst = INFINITY;
            break;
        }
        d = off(w->want, plan_output(w->p, 0),
                shape_count(plan_output_shape(w->p, 0)));
        if (!(d <= w->worst))
            w->worst = d;
    }
    return NULL;
}

static void test_several(void **state)
{
    struct device_options opt = {0};
    struct device *d = open_device(&opt);
    struct graph *g = make("mtcnn_rnet");
    struct network *net = load(d, g);
    struct plan_options popt = {.n = 3};
    struct plan *alone = plan(net, &popt);
    struct worker w[4];

    (void)state;
    memset(w, 0, sizeof(w));
    run(alone);
    for (int i = 0; i < 4; i++) {
        w[i].p = plan(net, &popt);
        w[i].want = plan_output(alone, 0);
        assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(w[i].thread, NULL);
        assert_true(w[i].worst <= 1e-3);
        plan_free(w[i].p);
    }
    plan_free(alone);
    network_free(net);
    graph_free(g);
    backend->device_close(d);
}

/* More than is allowed is refused, and the card goes on. */
static void test_bound(void **state)
{
    struct device_options opt = {.memory_bytes = 16 << 20};
    struct device *d = open_device(&opt);
    struct graph *g = make("mtcnn_rnet");
    struct network *net = load(d, g);
    struct plan_options large = {.n = 512}, small = {.n = 1};
    struct error err = {0};
    struct plan *p;

    (void)state;
    assert_null(graph_plan(net, &large, &err));
    assert_int_equal(err.code, ERR_NOMEM);
    p = plan(net, &small);
    run(p);
    plan_free(p);
    network_free(net);
    graph_free(g);
    backend->device_close(d);
}

static void test_refusals(void **state)
{
    struct device_options opt = {.index = 63};
    struct error err = {0};

    (void)state;
    assert_null(backend->device_open(&opt, &err));
    assert_int_equal(err.code, ERR_DEVICE);
    print_message("%s\n", err.text);
}

/* Only an emulated card can be told to go. */
static void test_lost(void **state)
{
    struct device_options opt = {0};
    struct plan_options popt = {.n = 1};
    struct graph *g = make("mtcnn_pnet");
    struct error err = {0};
    struct device *d;
    struct network *net;
    struct plan *p;
    int n = 0;

    (void)state;
    popt.h = popt.w = 24;
    if (!emulated) {
        graph_free(g);
        skip();
    }
    setenv("FACENETD_EMULATED", "lose=40", 1);
    d = open_device(&opt);
    unsetenv("FACENETD_EMULATED");
    net = load(d, g);
    p = plan(net, &popt);
    fill(p);
    for (; n < 40 && !graph_forward(p, &err); n++)
        fill(p);
    assert_true(n > 0 && n < 40);
    assert_int_equal(err.code, ERR_DEVICE);
    assert_int_equal(graph_forward(p, &err), -1);
    assert_null(graph_plan(net, &popt, &err));
    assert_int_equal(err.code, ERR_DEVICE);
    plan_free(p);
    network_free(net);
    backend->device_close(d);
    d = open_device(&opt);
    graph_free(g);
    g = make("mtcnn_rnet");
    live_once(d, g);
    backend->device_close(d);
    graph_free(g);
}

/* Engines that cuDNN lists and that then fail are passed over; where it has
 * none, a kernel of our own serves. All give the same. */
static void test_bad_engines(void **state)
{
    static const char *const how[] = {"engines", "none"};
    struct device_options opt = {0};
    struct plan_options popt = {.n = 2, .precision = PRECISION_F16};
    struct device *good;
    struct network *net;
    struct graph *g;
    struct plan *want;

    (void)state;
    if (!emulated)
        skip();
    g = make("mtcnn_rnet");
    good = open_device(&opt);
    net = load(good, g);
    want = plan(net, &popt);
    run(want);
    for (int i = 0; i < 4; i++) {
        struct network *other;
        struct device *d;
        struct plan *p;

        opt.tune = i % 2;
        setenv("FACENETD_EMULATED", how[i / 2], 1);
        d = open_device(&opt);
        unsetenv("FACENETD_EMULATED");
        other = load(d, g);
        p = plan(other, &popt);
        run(p);
        assert_true(off(plan_output(want, 0), plan_output(p, 0),
                        shape_count(plan_output_shape(p, 0))) < 1e-3);
        plan_free(p);
        network_free(other);
        backend->device_close(d);
    }
    plan_free(want);
    network_free(net);
    backend->device_close(good);
    graph_free(g);
}

/* ---- the list --------------------------------------------------------------
 */

static bool is_small(const char *name)
{
    return !strncmp(name, "mtcnn", 5) || !strcmp(name, "nns2") ||
           !strcmp(name, "mobilefacenet_small") ||
           !strcmp(name, "inception_resnet_v1");
}

/* test_card [PATTERN]: of the tests that it fits alone. */
int main(int argc, char **argv)
{
    enum {
        MAX = 64
    };
    struct CMUnitTest tests[MAX] = {
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_reload),
        cmocka_unit_test(test_several),  cmocka_unit_test(test_bound),
        cmocka_unit_test(test_lost),     cmocka_unit_test(test_bad_engines),
    };
    struct device_options opt = {0};
    struct device_info info;
    struct error err = {0};
    struct device *d;
    size_t n = 6;

    backend = test_backend();
    if (!backend || backend == &backend_cpu)
        return 1;
    d = backend->device_open(&opt, &err);
    if (!d) {
        print_error("%s\n", err.text);
        return 1;
    }
    backend->device_describe(d, &info);
    backend->device_close(d);
    print_message("%s, %s\n", info.name, info.isa);
    emulated = !strcmp(info.name, "emulated");
    for (const struct arch_info *a = arch_list(); a->name && n < MAX; a++)
        if (!emulated || is_small(a->name))
            tests[n++] = (struct CMUnitTest){.name = a->name,
                                             .test_func = test_network,
                                             .initial_state = (void *)a};
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return _cmocka_run_group_tests("card", tests, n, NULL, NULL);
}
