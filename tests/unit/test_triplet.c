/* tests/unit/test_triplet.c - sampling, selection against a plain loop over
 * vectors, losses and normalisation against finite differences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/train/random.h"
#include "core/train/triplet.h"

enum {
    DIM = 7,
    N = 40
};

static void numbers_are_splitmix64s(void **state)
{
    uint64_t s = 1234567;
    int seen[3] = {0};

    (void)state;
    /* The generator's published first values for this seed. */
    assert_true(random_next(&s) == 6457827717110365317u);
    assert_true(random_next(&s) == 3203168211198807973u);
    for (int i = 0; i < 30000; i++)
        seen[random_below(&s, 3)]++;
    for (int i = 0; i < 3; i++) /* four deviations of 82 */
        assert_in_range(seen[i], 10000 - 330, 10000 + 330);
    for (int i = 0; i < 1000; i++) {
        double u = random_unit(&s);

        assert_true(u >= 0 && u < 1);
    }
}

static void a_shuffle_loses_nothing(void **state)
{
    int x[50], first[50] = {0};
    uint64_t s = 5;

    (void)state;
    for (int round = 0; round < 5000; round++) {
        bool there[50] = {false};

        for (int i = 0; i < 50; i++)
            x[i] = i;
        random_shuffle(&s, x, 50);
        for (int i = 0; i < 50; i++)
            there[x[i]] = true;
        for (int i = 0; i < 50; i++)
            assert_true(there[i]);
        first[x[0]]++;
    }
    for (int i = 0; i < 50; i++) /* 100 each, deviation 10 */
        assert_in_range(first[i], 55, 145);
}

/* ---- sampling ----------------------------------------------------------- */

static void a_sample_is_of_whole_people(void **state)
{
    static const int n_photos[] = {3, 50, 1, 8, 2, 40, 5, 9};
    int person[60], photo[60], n;
    uint64_t s = 42;

    (void)state;
    for (int round = 0; round < 300; round++) {
        bool people[8] = {false};

        n = triplet_sample(n_photos, 8, 3, 6, &s, person, photo);
        assert_in_range(n, 1, 18);
        for (int first = 0, end; first < n; first = end) {
            bool taken[50] = {false};
            int p = person[first];

            assert_false(people[p]); /* never in two parts */
            people[p] = true;
            for (end = first; end < n && person[end] == p; end++) {
                assert_in_range(photo[end], 0, n_photos[p] - 1);
                assert_false(taken[photo[end]]);
                taken[photo[end]] = true;
            }
            assert_true(end - first <= 6);
            if (end < n)
                assert_int_equal(end - first,
                                 n_photos[p] < 6 ? n_photos[p] : 6);
        }
    }
    /* more wanted than there is: everybody */
    n = triplet_sample(n_photos, 8, 10, 6, &s, person, photo);
    assert_int_equal(n, 3 + 6 + 1 + 6 + 2 + 6 + 5 + 6);
}

static void a_seed_repeats(void **state)
{
    static const int n_photos[] = {3, 50, 1, 8, 2, 40, 5, 9};
    int a[2][18], b[2][18], n;
    uint64_t s = 9, t = 9;

    (void)state;
    n = triplet_sample(n_photos, 8, 3, 6, &s, a[0], a[1]);
    assert_int_equal(triplet_sample(n_photos, 8, 3, 6, &t, b[0], b[1]), n);
    assert_memory_equal(a[0], b[0], (size_t)n * sizeof(int));
    assert_memory_equal(a[1], b[1], (size_t)n * sizeof(int));
    assert_true(s == t);
}

/* ---- selection ------------------------------------------------------------
 */

static float rows[2 * N][DIM]; /* new, then old */
static int person[N];

static void make_rows(uint64_t seed)
{
    for (int i = 0; i < 2 * N; i++) {
        float x[DIM];

        for (int k = 0; k < DIM; k++)
            x[k] = (float)(random_unit(&seed) - 0.5);
        triplet_normalise(x, 1, DIM, rows[i]);
    }
    for (int i = 0; i < N; i++)
        person[i] = i / 7; /* the last has 5 */
}

static double distance(int i, int k)
{
    double sum = 0;

    for (int j = 0; j < DIM; j++)
        sum += pow((double)rows[i][j] - rows[k][j], 2);
    return sum;
}

/* How many negatives a pair allows, by the definition. */
static int allowed(int a, int p, int shift, const struct triplet_options *o)
{
    int n = 0;

    for (int k = 0; k < N; k++) {
        double pos = distance(a, p), neg = distance(a, k + shift);

        if (person[k] != person[a % N] && neg - pos < (double)o->alpha &&
            (o->choice == TRIPLET_VGGFACE || pos < neg))
            n++;
    }
    return n;
}

static int choose(const struct triplet_options *o, uint64_t seed,
                  struct triplet **out)
{
    struct error err;
    int n;

    assert_int_equal(
        triplet_select(rows[0], person, N, DIM, o, &seed, out, &n, &err), 0);
    return n;
}

static void selection_is_the_plain_loops(void **state)
{
    (void)state;
    for (int c = 0; c < 2; c++) {
        struct triplet_options o = {.choice = (enum triplet_choice)c,
                                    .alpha = 0.2f};
        struct triplet *t, *again;
        int n, pairs = 0;

        make_rows(77);
        n = choose(&o, 1, &t);
        for (int a = 0; a < N; a++)
            for (int p = a + 1; p < N && person[p] == person[a]; p++)
                pairs += allowed(a, p, 0, &o) > 0;
        assert_int_equal(n, pairs);
        for (int i = 0; i < n; i++) {
            double pos = distance(t[i].a, t[i].p),
                   neg = distance(t[i].a, t[i].n);

            assert_true(t[i].a < t[i].p);
            assert_int_equal(person[t[i].a], person[t[i].p]);
            assert_int_not_equal(person[t[i].a], person[t[i].n]);
            assert_true(neg - pos < 0.2 + 1e-5);
            if (c == TRIPLET_FACENET)
                assert_true(pos < neg + 1e-5);
        }
        assert_int_equal(choose(&o, 1, &again), n);
        assert_memory_equal(t, again, (size_t)n * sizeof(*t));
        free(t);
        free(again);
    }
}

/* Each negative that is allowed is as likely. */
static void negatives_are_drawn_evenly(void **state)
{
    struct triplet_options o = {.alpha = 4}; /* all 33 others of the first */
    int seen[N] = {0}, total = 0;

    (void)state;
    make_rows(3);
    for (uint64_t seed = 0; seed < 3300; seed++) {
        struct triplet *t;
        int n = choose(&o, seed, &t);

        for (int i = 0; i < n; i++)
            if (t[i].a == 0 && t[i].p == 1) {
                seen[t[i].n]++;
                total++;
            }
        free(t);
    }
    assert_int_equal(total, 3300);
    for (int i = 7; i < N; i++) /* 100 each, deviation 10 */
        assert_in_range(seen[i], 55, 145);
}

static bool not_identical(void *ctx, int a, int p)
{
    const int *hash = ctx;

    return hash[a] != hash[p];
}

static void identical_files_are_no_pair(void **state)
{
    int hash[N];
    struct triplet_options o = {.alpha = 4, .pair = not_identical, .ctx = hash};
    struct triplet *t;
    int n;

    (void)state;
    make_rows(5);
    for (int i = 0; i < N; i++)
        hash[i] = i;
    hash[3] = hash[5] = hash[1];
    n = choose(&o, 1, &t);
    assert_int_equal(n, 5 * 21 + 10 - 3);
    for (int i = 0; i < n; i++)
        assert_int_not_equal(hash[t[i].a], hash[t[i].p]);
    free(t);
}

static void what_is_no_number_is_not_chosen(void **state)
{
    struct triplet_options o = {.alpha = 4};
    struct triplet *t;
    int n;

    (void)state;
    make_rows(5);
    rows[2][3] = NAN;
    n = choose(&o, 1, &t);
    assert_int_equal(n, 5 * 21 + 10 - 6);
    for (int i = 0; i < n; i++)
        assert_true(t[i].a != 2 && t[i].p != 2 && t[i].n != 2);
    free(t);
}

static void nothing_to_choose(void **state)
{
    struct triplet_options o = {.alpha = 4};
    struct triplet *t;

    (void)state;
    make_rows(5);
    for (int i = 0; i < N; i++)
        person[i] = 0; /* no negatives */
    assert_int_equal(choose(&o, 1, &t), 0);
    free(t);
    for (int i = 0; i < N; i++)
        person[i] = i; /* no positives */
    assert_int_equal(choose(&o, 1, &t), 0);
    free(t);
}

/* New alone; old anchors among new ones; new anchors among old ones. */
static void harmonic_triplets_mix(void **state)
{
    struct triplet_options o = {.alpha = 0.2f, .old = rows[N]};
    struct triplet *t;
    int n, kinds[3] = {0}, want[3] = {0};

    (void)state;
    make_rows(11);
    n = choose(&o, 1, &t);
    for (int a = 0; a < N; a++)
        for (int p = a + 1; p < N && person[p] == person[a]; p++) {
            want[0] += allowed(a, p, 0, &o) > 0;
            want[1] += allowed(a + N, p, 0, &o) > 0;
            want[2] += allowed(a, p + N, N, &o) > 0;
        }
    for (int i = 0; i < n; i++) {
        bool a = t[i].a >= N, p = t[i].p >= N;

        assert_true(p == (t[i].n >= N));
        assert_false(a && p); /* what is all old teaches nothing */
        assert_true(distance(t[i].a, t[i].n) - distance(t[i].a, t[i].p) <
                    0.2 + 1e-5);
        kinds[a ? 1 : p ? 2 : 0]++;
    }
    assert_memory_equal(kinds, want, sizeof(want));
    free(t);
}

/* ---- losses ---------------------------------------------------------------
 */

static void distances_are_exact(void **state)
{
    float out[5 * 3];
    struct error err;

    (void)state;
    make_rows(8);
    assert_int_equal(triplet_distances(rows[0], 5, rows[9], 3, DIM, out, &err),
                     0);
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 3; k++)
            assert_true(fabs(out[3 * i + k] - distance(i, 9 + k)) < 1e-6);
    assert_int_equal(triplet_distances(rows[0], 1, rows[0], 1, DIM, out, &err),
                     0);
    assert_true(out[0] >= 0 && out[0] < 1e-6f);
}

static void the_loss_has_its_gradient(void **state)
{
    float x[9 * DIM], grad[9 * DIM], none[9 * DIM];
    bool fixed[9] = {[4] = true};
    const float h = 1e-2f;
    int active, dummy;
    double loss;

    (void)state;
    make_rows(21);
    memcpy(x, rows[0], sizeof(x));
    memcpy(x + 6 * DIM, x, DIM * sizeof(float)); /* third: a = p, no loss */
    memcpy(x + 7 * DIM, x, DIM * sizeof(float));
    loss = triplet_loss(x, 3, DIM, 0.9f, fixed, grad, &active);
    assert_true(active >= 1 && active <= 2);
    assert_true(loss > 0);
    for (int i = 0; i < 9 * DIM; i++) {
        float was = x[i];
        double up, down;

        x[i] = was + h;
        up = triplet_loss(x, 3, DIM, 0.9f, NULL, none, &dummy);
        x[i] = was - h;
        down = triplet_loss(x, 3, DIM, 0.9f, NULL, none, &dummy);
        x[i] = was;
        if (i / DIM == 4)
            assert_true(grad[i] == 0);
        else
            assert_true(fabs((up - down) / (2 * (double)h) - grad[i]) < 1e-3);
    }
    x[0] = NAN;
    assert_true(isnan(triplet_loss(x, 3, DIM, 0.9f, NULL, none, &dummy)));
}

/* |a-p|^2 = 2, |a-n|^2 = 4, |b-p|^2 = 0: worked by hand. */
static void the_loss_of_known_vectors(void **state)
{
    const float x[6][2] = {{1, 0}, {0, 1}, {-1, 0}, {1, 0}, {0, 1}, {1, 0}};
    float grad[6][2];
    int active;

    (void)state;
    assert_float_equal(triplet_loss(x[0], 2, 2, 0.2f, NULL, grad[0], &active),
                       (0 + 2.2) / 2, 1e-6);
    assert_int_equal(active, 1);
    assert_float_equal(grad[0][0], 0, 0);
    assert_float_equal(grad[3][0], 1, 1e-6); /* n - p = (1,-1) */
    assert_float_equal(grad[3][1], -1, 1e-6);
    assert_float_equal(grad[4][0], -1, 1e-6); /* p - a = (-1,1) */
    assert_float_equal(grad[5][0], 0, 1e-6);  /* a - n */
}

static void distillation_has_its_gradient(void **state)
{
    float s[4 * DIM], grad[4 * DIM], none[4 * DIM];
    const float h = 1e-2f;
    double loss = 0;

    (void)state;
    make_rows(22);
    memcpy(s, rows[0], sizeof(s));
    for (int i = 0; i < 4; i++)
        loss += distance(i, 10 + i) / 4;
    assert_true(fabs(triplet_distill(s, rows[10], 4, DIM, grad) - loss) < 1e-6);
    for (int i = 0; i < 4 * DIM; i++) {
        float was = s[i];
        double up, down;

        s[i] = was + h;
        up = triplet_distill(s, rows[10], 4, DIM, none);
        s[i] = was - h;
        down = triplet_distill(s, rows[10], 4, DIM, none);
        s[i] = was;
        assert_true(fabs((up - down) / (2 * (double)h) - grad[i]) < 1e-3);
    }
}

static void unit_length_has_its_gradient(void **state)
{
    float x[2 * DIM], y[2 * DIM], w[2 * DIM], grad[2 * DIM];
    uint64_t s = 4;
    const float h = 1e-3f;

    (void)state;
    for (int i = 0; i < 2 * DIM; i++) {
        x[i] = (float)(random_unit(&s) - 0.5) * (i < DIM ? 1 : 10);
        w[i] = (float)(random_unit(&s) - 0.5);
    }
    triplet_normalise_back(x, w, 2, DIM, grad);
    for (int i = 0; i < 2 * DIM; i++) {
        double sum[2] = {0};
        float was = x[i];

        for (int side = 0; side < 2; side++) {
            x[i] = was + (side ? -h : h);
            triplet_normalise(x, 2, DIM, y);
            for (int k = 0; k < 2 * DIM; k++)
                sum[side] += (double)w[k] * y[k];
        }
        x[i] = was;
        assert_true(fabs((sum[0] - sum[1]) / (2 * (double)h) - grad[i]) < 1e-3);
    }
    memset(x, 0, sizeof(x));
    triplet_normalise(x, 1, DIM, y);
    triplet_normalise_back(x, w, 1, DIM, grad);
    for (int k = 0; k < DIM; k++)
        assert_true(y[k] == 0 && isfinite(grad[k]));
}

static void spread_tells_a_collapse(void **state)
{
    double sum = 0;
    int n = 0;

    (void)state;
    make_rows(6);
    for (int i = 0; i < N; i++)
        for (int k = i + 1; k < N; k++, n++)
            sum += distance(i, k);
    assert_true(fabs(triplet_spread(rows[0], N, DIM) - sum / n) < 1e-5);
    for (int i = 1; i < N; i++)
        memcpy(rows[i], rows[0], sizeof(rows[0]));
    assert_true(fabs(triplet_spread(rows[0], N, DIM)) < 1e-5);
    assert_true(triplet_spread(rows[0], 1, DIM) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_splitmix64s),
        cmocka_unit_test(a_shuffle_loses_nothing),
        cmocka_unit_test(a_sample_is_of_whole_people),
        cmocka_unit_test(a_seed_repeats),
        cmocka_unit_test(selection_is_the_plain_loops),
        cmocka_unit_test(negatives_are_drawn_evenly),
        cmocka_unit_test(identical_files_are_no_pair),
        cmocka_unit_test(what_is_no_number_is_not_chosen),
        cmocka_unit_test(nothing_to_choose),
        cmocka_unit_test(harmonic_triplets_mix),
        cmocka_unit_test(distances_are_exact),
        cmocka_unit_test(the_loss_has_its_gradient),
        cmocka_unit_test(the_loss_of_known_vectors),
        cmocka_unit_test(distillation_has_its_gradient),
        cmocka_unit_test(unit_length_has_its_gradient),
        cmocka_unit_test(spread_tells_a_collapse),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
