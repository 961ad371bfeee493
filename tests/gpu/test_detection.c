/* tests/gpu/test_detection.c - finding faces on the device of FACENETD_PLUGIN,
 * as the daemon does it: the detector's networks at the shapes and batches that
 * are served, against the processor's; the same faces in pictures that are
 * looked at side by side; memory that comes back. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "core/engine/batched.h"
#include "daemon/log.h"
#include "tests/device.h"
#include "tests/finder.h"

enum {
    SLOW_MS = 100000,
    PICTURES = 4
};

static bool emulated; /* slow: little is run twice */
static const char *const names[PICTURES] = {"group", "ada-1", "ben-2",
                                            "chen-1"};
static const struct detect_options small = {.min_face = 12};

static struct finder all;

static void open_finder(void)
{
    struct detection_status st;
    struct error err = {0};

    if (finder_open(&all, getenv("FACENETD_PLUGIN"), true, !emulated, SLOW_MS,
                    &err) != 0)
        fail_msg("%s", err.text);
    detection_status(all.detection, &st);
    if (!st.on_card)
        fail_msg("not on the card: %s", st.why);
}

/* --- networks ---------------------------------------------------------------
 */

static struct batched *make(struct device *dev, const struct model *m,
                            const struct detect_shape *s, int n)
{
    struct batched_options opt = {.name = m->name,
                                  .h = s->side,
                                  .w = s->side,
                                  .n_input = s->n_input,
                                  .dim = s->row,
                                  .precision = PRECISION_F32};
    struct error err = {0};
    struct batched *b;

    batched_sizes(&opt, 2 * n, n); /* 1 and n */
    b = batched_new(dev, m->graph, &opt, &err);
    if (!b)
        fail_msg("%s: %s", m->name, err.text);
    return b;
}

/* The rows of n different inputs, and the largest difference of a number. */
static void compare(struct batched *ours, struct batched *theirs, int n,
                    const struct detect_shape *s, const char *name)
{
    float *inputs = tensor_alloc((size_t)n * s->n_input);
    float *want = tensor_alloc((size_t)n * s->row);
    float *got = tensor_alloc((size_t)n * s->row), worst = 0;
    const float **at = calloc((size_t)n, sizeof(*at));
    struct error err = {0};
    int bad;

    tensor_formula("input", inputs, (size_t)n * s->n_input);
    for (int i = 0; i < n; i++)
        at[i] = inputs + (size_t)i * s->n_input;
    if (batched_run(ours, at, n, want, &bad, &err) || bad ||
        batched_run(theirs, at, n, got, &bad, &err) || bad)
        fail_msg("%s: %d rows are none, %s", name, bad, err.text);
    for (size_t i = 0; i < (size_t)n * s->row; i++)
        worst = fmaxf(worst, fabsf(want[i] - got[i]));
    print_message("%s, batch of %d: off by %.2g\n", name, n, (double)worst);
    assert_true(worst <= 1e-3f);
    free(inputs);
    free(want);
    free(got);
    free(at);
}

static void test_networks(void **state)
{
    static const int batches[DETECT_STAGES] = {16, 256, 64};
    const struct backend *backend = test_backend();
    struct device_options opt = {0};
    struct error err = {0};
    struct device *dev, *cpu;

    (void)state;
    dev = backend->device_open(&opt, &err);
    cpu = dev ? backend_cpu.device_open(&opt, &err) : NULL;
    if (!cpu)
        fail_msg("%s", err.text);
    for (int i = 0; i < DETECT_STAGES; i++) {
        int n = emulated ? batches[i] / 8 : batches[i];
        const struct model *m = all.models[i];
        struct detect_shape s;
        struct batched *ours, *theirs;
        detector_shape(all.detector, (enum detect_stage)i, &s);
        ours = make(cpu, m, &s, n);
        theirs = make(dev, m, &s, n);
        compare(ours, theirs, 1, &s, m->name);
        compare(ours, theirs, n, &s, m->name);
        batched_free(ours);
        batched_free(theirs);
    }
    backend->device_close(dev);
    backend_cpu.device_close(cpu);
}

/* --- faces ------------------------------------------------------------------
 */

struct look {
    pthread_t thread;
    struct detector *detector;
    const struct image *img;
    const struct detect_options *opt;
    struct face *faces;
    int n;
};

static void *look(void *arg)
{
    struct look *l = arg;
    struct error err = {0};
    struct detect_scratch *s = detect_scratch_new(l->detector, &err);

    l->n = -1;
    if (s && detect_faces(s, l->img, l->opt, &l->faces, &l->n, &err) != 0)
        l->n = -1;
    detect_scratch_free(s);
    return NULL;
}

static void same(struct look *got)
{
    struct look want = {
        .detector = all.plain, .img = got->img, .opt = got->opt};

    look(&want);
    assert_true(want.n > 0);
    assert_int_equal(got->n, want.n);
    for (int i = 0; i < want.n; i++) {
        const struct face *a = &want.faces[i], *b = &got->faces[i];
        assert_true(box_iou(&a->box, &b->box) > 0.99f);
        assert_true(fabsf(a->score - b->score) < 1e-3f);
        for (int k = 0; k < 10; k++)
            assert_true(fabsf(a->points[k / 2][k % 2] -
                              b->points[k / 2][k % 2]) < 0.2f);
    }
    free(want.faces);
    free(got->faces);
}

static void test_faces(void **state)
{
    struct look l[2 * PICTURES];
    struct image *pictures[PICTURES];
    struct detection_status st;
    struct error err = {0};

    (void)state;
    for (int i = 0; i < PICTURES; i++)
        if (!(pictures[i] = finder_picture(names[i], &err)))
            fail_msg("%s", err.text);
    for (int i = 0; i < 2 * PICTURES; i++) {
        l[i] = (struct look){.detector = all.detector,
                             .img = pictures[i % PICTURES],
                             .opt = i == 0 ? &small : NULL};
        assert_int_equal(pthread_create(&l[i].thread, NULL, look, &l[i]), 0);
    }
    for (int i = 0; i < 2 * PICTURES; i++) {
        pthread_join(l[i].thread, NULL);
        same(&l[i]);
    }
    detection_status(all.detection, &st);
    print_message("%lld inputs in %lld batches\n", (long long)st.n_inputs,
                  (long long)st.n_runs);
    assert_int_equal(st.n_failovers, 0);
    for (int i = 0; i < PICTURES; i++)
        image_free(pictures[i]);
}

/* What the three networks take is the same the next time. */
static void test_memory(void **state)
{
    struct card_status before, after;

    (void)state;
    card_status(all.card, &before);
    assert_true(finder_close(&all));
    open_finder();
    card_status(all.card, &after);
    print_message("%lld and %lld MiB of the card in use\n",
                  (long long)(before.bytes_used >> 20),
                  (long long)(after.bytes_used >> 20));
    assert_true(after.bytes_used <= before.bytes_used + (64 << 20));
}

static int setup(void **state)
{
    const struct backend *backend = test_backend();
    struct device_options opt = {0};
    struct device_info info;
    struct error err = {0};
    struct device *d;

    (void)state;
    log_open(LOG_LEVEL_WARN);
    if (!backend || backend == &backend_cpu)
        return -1;
    d = backend->device_open(&opt, &err);
    if (!d) {
        print_error("%s\n", err.text);
        return -1;
    }
    backend->device_describe(d, &info);
    backend->device_close(d);
    emulated = !strcmp(info.name, "emulated");
    open_finder();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return finder_close(&all) ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_faces),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests_name("detection on a card", tests, setup,
                                       teardown);
}
