/* tests/unit/test_calibrate.c - thresholds against a count of every pair, over
 * several blocks; known intervals; what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "core/train/calibrate.h"
#include "core/train/random.h"

enum {
    DIM = 12
};

#define NEAR(a, b, tolerance)                                                  \
    do {                                                                       \
        double a_ = (a), b_ = (b);                                             \
        if (!(fabs(a_ - b_) <= (tolerance)))                                   \
            fail_msg("%s is %.9g, %.9g was expected", #a, a_, b_);             \
    } while (0)

static double uniform(uint64_t *random)
{
    return (double)(random_next(random) >> 11) / 9007199254740992.0;
}

/* n faces of n_people, in mixed order, each near its person's centre. */
static float *make_faces(int n, int n_people, int *person, uint64_t seed)
{
    float *rows = malloc((size_t)n * DIM * sizeof(*rows));
    double *centre = malloc((size_t)n_people * DIM * sizeof(*centre));

    assert_true(rows && centre);
    for (int i = 0; i < n_people * DIM; i++)
        centre[i] = uniform(&seed) - 0.5;
    for (int i = 0; i < n; i++) {
        double sum = 0, v[DIM];
        person[i] = (i * 7919) % n_people;
        for (int k = 0; k < DIM; k++) {
            v[k] = centre[person[i] * DIM + k] + 0.5 * (uniform(&seed) - 0.5);
            sum += v[k] * v[k];
        }
        for (int k = 0; k < DIM; k++)
            rows[i * DIM + k] = (float)(v[k] / sqrt(sum));
    }
    free(centre);
    return rows;
}

static double distance(const float *a, const float *b)
{
    double sum = 0;

    for (int k = 0; k < DIM; k++)
        sum += ((double)a[k] - (double)b[k]) * ((double)a[k] - (double)b[k]);
    return sum;
}

struct tally {
    int64_t n_same, n_other, same_beyond, other_below, near;
};

static void brute(const float *rows, const int *person, int n, double t,
                  struct tally *out)
{
    memset(out, 0, sizeof(*out));
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < i; k++) {
            double d = distance(rows + i * DIM, rows + k * DIM);
            bool same = person[i] == person[k];
            out->n_same += same;
            out->n_other += !same;
            out->same_beyond += same && d > t;
            out->other_below += !same && d <= t;
            out->near += fabs(d - t) < 1e-5;
        }
    }
}

/* One block, one and a bit, three: and people spread over all of them. */
static void test_against_count(void **state)
{
    static const int sizes[] = {60, 1024, 1030, 2500};
    static const double far[] = {1e-1, 2e-3, 1e-2};

    (void)state;
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        int n = sizes[s], *person = malloc((size_t)n * sizeof(int));
        float *rows = make_faces(n, n / 6, person, 17 + s);
        struct calibrate_options opt = {.far = far, .n_far = 3};
        struct calibration c;
        struct error err = {0};
        struct tally t;
        if (calibrate_faces(rows, person, n, DIM, &opt, &c, &err))
            fail_msg("%s", err.text);
        assert_int_equal(c.n_faces, n);
        assert_int_equal(c.n_people, n / 6);
        assert_int_equal(c.n_paired, n / 6);
        assert_int_equal(c.n_rates, 3);
        for (int i = 0; i < 3; i++) {
            const struct calibrate_rate *r = &c.rates[i];
            double low, high;
            brute(rows, person, n, r->threshold, &t);
            assert_int_equal(c.n_genuine, t.n_same);
            assert_int_equal(c.n_impostor, t.n_other);
            assert_true(r->far == far[i]);
            /* but for pairs that rounding may put on either side */
            assert_true(llabs(r->n_accepted - t.other_below) <= t.near);
            assert_true(llabs(r->n_rejected - t.same_beyond) <= t.near);
            assert_true((double)r->n_accepted <= far[i] * (double)t.n_other);
            assert_true(r->n_accepted + t.near + 1 >=
                        (int64_t)(far[i] * (double)t.n_other));
            NEAR(r->far_measured, (double)r->n_accepted / (double)t.n_other,
                 1e-15);
            NEAR(r->frr, (double)r->n_rejected / (double)t.n_same, 1e-15);
            calibrate_interval(r->n_accepted, t.n_other, &low, &high);
            assert_true(r->far_low == low && r->far_high == high);
            assert_true(low < r->far_measured && r->far_measured < high);
        }
        free(rows);
        free(person);
    }
}

/* On a circle: two people at 0 and 90 degrees, one face each at 0, 60 and 90
 * more; distances are 2 - 2 cos. */
static void test_worked(void **state)
{
    const double degrees[] = {0, 90, 60, 150, 90, 180};
    const int person[] = {7, -3, 7, -3, 7, -3};
    const double far[] = {0.4};
    struct calibrate_options opt = {.far = far, .n_far = 1};
    struct model_threshold t[MODEL_MAX_THRESHOLDS];
    struct calibration c;
    struct error err = {0};
    float rows[12];

    (void)state;
    for (int i = 0; i < 6; i++) {
        rows[2 * i] = (float)cos(degrees[i] * acos(-1) / 180);
        rows[2 * i + 1] = (float)sin(degrees[i] * acos(-1) / 180);
    }
    if (calibrate_faces(rows, person, 6, 2, &opt, &c, &err))
        fail_msg("%s", err.text);
    assert_int_equal(c.n_genuine, 6);
    assert_int_equal(c.n_impostor, 9);
    /* Impostor angles 90 150 180, 30 90 120, 0 60 90; of 3.6 the three
     * smallest are 0 30 60, the next 90: between 1 and 2. */
    assert_int_equal(c.rates[0].n_accepted, 3);
    NEAR(c.rates[0].threshold, 1.5, 1e-5);
    /* genuine 60 90 30, twice: 90 is beyond */
    assert_int_equal(c.rates[0].n_rejected, 2);
    NEAR(c.rates[0].frr, 1.0 / 3, 1e-12);
    assert_int_equal(calibrate_thresholds(&c, t), 1);
    assert_true(t[0].far == 0.4 && t[0].threshold == c.rates[0].threshold);
    assert_int_equal(t[0].n_impostor, 9);
    assert_int_equal(t[0].n_accepted, 3);
}

static void test_intervals(void **state)
{
    static const struct {
        int64_t k, n;
        double low, high;
    } rows[] = {
        {10, 100, 0.055229, 0.174366}, {0, 10, 0, 0.277533},
        {10, 10, 0.722467, 1},         {3, 3000, 0.000340, 0.002936},
        {1, 2, 0.094531, 0.905469},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        double low, high;
        calibrate_interval(rows[i].k, rows[i].n, &low, &high);
        NEAR(low, rows[i].low, 1e-6);
        NEAR(high, rows[i].high, 1e-6);
    }
}

/* Without rates: those of the usual four that the pairs can show. */
static void test_usual(void **state)
{
    int person[200];
    float *rows = make_faces(200, 40, person, 5);
    struct calibrate_options opt = {0};
    struct calibration c;
    struct error err = {0};

    (void)state;
    if (calibrate_faces(rows, person, 200, DIM, &opt, &c, &err))
        fail_msg("%s", err.text);
    assert_int_equal(c.n_impostor, 19500);
    assert_int_equal(c.n_rates, 3);
    assert_true(c.rates[0].far == 1e-1 && c.rates[2].far == 1e-3);
    /* nobody twice: no genuine pair, no rejects to speak of */
    for (int i = 0; i < 200; i++)
        person[i] = i;
    if (calibrate_faces(rows, person, 200, DIM, &opt, &c, &err))
        fail_msg("%s", err.text);
    assert_int_equal(c.n_genuine, 0);
    assert_int_equal(c.n_paired, 0);
    assert_true(isnan(c.rates[0].frr) && c.rates[0].n_rejected == 0);
    free(rows);
}

static void refused(const float *rows, const int *person, int n,
                    const struct calibrate_options *opt, const char *word)
{
    struct calibration c;
    struct error err = {0};

    assert_int_equal(calibrate_faces(rows, person, n, DIM, opt, &c, &err), -1);
    if (!strstr(err.text, word))
        fail_msg("\"%s\" does not say \"%s\"", err.text, word);
}

static void test_refusals(void **state)
{
    static const double bad[] = {0, 1, -1, NAN};
    const double few[] = {1e-1, 1e-4}, twice[] = {1e-1, 1e-1};
    double many[CALIBRATE_MAX_RATES + 1];
    int person[60];
    float *rows = make_faces(60, 10, person, 9);
    struct calibrate_options opt = {.n_far = 1};
    atomic_bool stop = true;

    (void)state;
    for (int i = 0; i < 4; i++) {
        opt.far = &bad[i];
        refused(rows, person, 60, &opt, "between 0 and 1");
    }
    opt = (struct calibrate_options){.far = few, .n_far = 2};
    refused(rows, person, 60, &opt,
            "0.0001 needs 30000 pairs of different people, there are 1620 of "
            "10 people");
    opt.far = twice;
    refused(rows, person, 60, &opt, "twice");
    opt.far = many;
    opt.n_far = CALIBRATE_MAX_RATES + 1;
    refused(rows, person, 60, &opt, "9 false-accept rates");
    opt = (struct calibrate_options){.stop = &stop};
    refused(rows, person, 60, &opt, "stopped");
    opt.stop = NULL;
    refused(rows, person, 1, &opt, "1 faces");
    refused(rows, person, 6, &opt, "needs 30 pairs");
    rows[3 * DIM] = NAN;
    refused(rows, person, 60, &opt, "embedding 3");
    rows[3 * DIM] = 5;
    refused(rows, person, 60, &opt, "embedding 3");
    memset(person, 0, sizeof(person));
    refused(rows, person, 3, &opt, "one person");
    free(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_count), cmocka_unit_test(test_worked),
        cmocka_unit_test(test_intervals), cmocka_unit_test(test_usual),
        cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
