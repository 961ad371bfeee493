/* tests/unit/test_detector_loss.c - the detector's loss: its slopes against
 * finite differences, and which samples it counts. */
#include "core/train/detector_loss.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/train/random.h"

enum {
    IMAGES = 3,
    CELLS = 4,
    N = IMAGES * CELLS
};

struct batch {
    float prob[2 * N], box[4 * N], points[10 * N];
    float by_prob[2 * N], by_box[4 * N], by_points[10 * N];
    struct detector_target targets[N];
    int order[N];
    struct detector_outputs out, by;
    struct detector_loss loss;
};

static float draw(uint64_t *random)
{
    return (float)random_unit(random);
}

static void make(struct batch *b)
{
    uint64_t random = 7;

    memset(b, 0, sizeof(*b));
    b->out =
        (struct detector_outputs){IMAGES, CELLS, b->prob, b->box, b->points};
    b->by = (struct detector_outputs){IMAGES, CELLS, b->by_prob, b->by_box,
                                      b->by_points};
    for (int i = 0; i < 2 * N; i++)
        b->prob[i] = 0.05f + 0.9f * draw(&random);
    for (int i = 0; i < 4 * N; i++)
        b->box[i] = 0.2f * draw(&random);
    for (int i = 0; i < 10 * N; i++)
        b->points[i] = 0.2f * draw(&random);
    for (int i = 0; i < N; i++) {
        struct detector_target *t = &b->targets[i];

        t->prob = draw(&random);
        t->prob_weight = 1;
        t->box_weight = i % 2 ? 0.5f + draw(&random) : 0;
        t->points_weight = i % 3 ? 1 : 0;
        for (int k = 0; k < 4; k++)
            t->box[k] = 0.2f * draw(&random);
        for (int k = 0; k < 10; k++)
            t->points[k] = 0.2f * draw(&random);
    }
}

static double total(struct batch *b, const struct detector_loss_options *o)
{
    detector_loss(o, &b->out, b->targets, b->order, &b->by, &b->loss);
    return b->loss.prob + (double)o->box * b->loss.box +
           (double)o->points * b->loss.points;
}

static void check(struct batch *b, const struct detector_loss_options *o,
                  float *x, const float *slopes, int n)
{
    const float step = 1e-3f;

    for (int i = 0; i < n; i++) {
        float was = x[i], slope;
        double up, down;

        total(b, o);
        slope = slopes[i];
        x[i] = was + step;
        up = total(b, o);
        x[i] = was - step;
        down = total(b, o);
        x[i] = was;
        if (fabs((up - down) / (2 * (double)step) - (double)slope) >
            2e-3 + 0.02 * fabs((double)slope))
            fail_msg("number %d: %g, slope %g", i,
                     (up - down) / (2 * (double)step), (double)slope);
    }
}

static void test_slopes(void **state)
{
    static const struct detector_loss_options o = {
        .box = 0.5f, .points = 0.7f, .keep = 1};
    static struct batch b;

    (void)state;
    make(&b);
    check(&b, &o, b.prob, b.by_prob, 2 * N);
    check(&b, &o, b.box, b.by_box, 4 * N);
    check(&b, &o, b.points, b.by_points, 10 * N);
    assert_int_equal(b.loss.n_prob, N);
    assert_int_equal(b.loss.n_box, N / 2);
    assert_int_equal(b.loss.n_points, 2 * N / 3);
}

/* Of those that are none, the worst answered part; of faces, all. */
static void test_hard_ones(void **state)
{
    static const struct detector_loss_options o = {.keep = 0.25f};
    static struct batch b;

    (void)state;
    make(&b);
    for (int i = 0; i < N; i++) { /* cell k of image j */
        int j = i / CELLS, k = i % CELLS;

        b.targets[i].prob = i < 4 ? 1 : 0;
        b.prob[(2 * j + 1) * CELLS + k] = i < 4 ? 0.99f : 0.05f * (float)i;
    }
    b.targets[N - 1].prob_weight = 0; /* counts nowhere */
    total(&b, &o);
    assert_int_equal(b.loss.n_prob, 4 + 2); /* a quarter of seven, rounded up */
    for (int i = 0; i < N; i++) {
        float slope = b.by_prob[(2 * (i / CELLS) + 1) * CELLS + i % CELLS];

        assert_true((slope != 0) == (i < 4 || i == 9 || i == 10));
        assert_true(b.by_prob[2 * (i / CELLS) * CELLS + i % CELLS] == 0);
    }
    /* Only 0.05 * 11 would be on the wrong side, and it does not count. */
    assert_true(b.loss.agreed == 1 || b.loss.agreed > 0.9);
}

/* A network that is sure and wrong still has a finite slope; one with no
 * target has none. */
static void test_edges(void **state)
{
    static const struct detector_loss_options o = {.box = 1, .keep = 1};
    static struct batch b;

    (void)state;
    make(&b);
    for (int i = 0; i < N; i++)
        b.targets[i].box_weight = b.targets[i].points_weight = 0;
    b.prob[CELLS] = 1;
    b.targets[0].prob = 0;
    total(&b, &o);
    assert_true(isfinite(b.loss.prob) && isfinite(b.by_prob[CELLS]));
    assert_true(b.by_prob[CELLS] > 0);
    assert_true(b.loss.box == 0 && b.by_box[5] == 0 && b.by_points[5] == 0);
    for (int i = 0; i < N; i++)
        b.targets[i].prob_weight = 0;
    total(&b, &o);
    assert_true(b.loss.prob == 0 && b.by_prob[CELLS] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slopes),
        cmocka_unit_test(test_hard_ones),
        cmocka_unit_test(test_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
