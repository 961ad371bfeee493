/* tests/gpu/test_triplets.c - triplets that the card of FACENETD_PLUGIN selects
 * are those of the host. Numbers of vectors are sixteenths, so that every
 * product and sum is exact, and distances are equal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/train/random.h"
#include "core/train/triplet.h"
#include "tests/device.h"

static const struct backend *backend;

struct people {
    int n, dim, each;
    bool clustered; /* photos of a person are near one another */
    float *x;
    int *person;
};

static float sixteenths(uint64_t *seed, int most)
{
    return (float)(random_below(seed, 2 * most + 1) - most) / 16;
}

static void make(struct people *p, uint64_t seed)
{
    float *centre = calloc((size_t)p->dim, sizeof(*centre));

    p->x = calloc((size_t)p->n * (size_t)p->dim, sizeof(*p->x));
    p->person = calloc((size_t)p->n, sizeof(*p->person));
    assert_non_null(p->x);
    assert_non_null(p->person);
    assert_non_null(centre);
    for (int i = 0; i < p->n; i++) {
        p->person[i] = i / p->each;
        for (int k = 0; k < p->dim; k++) {
            if (i % p->each == 0)
                centre[k] = sixteenths(&seed, 8);
            p->x[(size_t)i * (size_t)p->dim + (size_t)k] =
                p->clustered ? centre[k] + sixteenths(&seed, 1)
                             : sixteenths(&seed, 4);
        }
    }
    free(centre);
}

/* Every fifth pair is of copies. */
static bool differ(void *ctx, int a, int p)
{
    (void)ctx;
    return (a + p) % 5 != 0;
}

static int choose(const struct people *p, const struct triplet_options *o,
                  struct triplet **out, uint64_t *seed)
{
    struct error err = {0};
    int n = 0;

    *seed = 7;
    if (triplet_select(p->x, p->person, p->n, p->dim, o, seed, out, &n, &err))
        fail_msg("%s", err.text);
    return n;
}

/* The same triplets in the same order, and the same random state after. */
static void compare(struct device *dev, const struct people *p,
                    enum triplet_choice choice, float alpha, int *n_found)
{
    struct triplet_options o = {
        .choice = choice, .alpha = alpha, .pair = differ};
    struct triplet *here, *there;
    uint64_t seed[2];
    int n = choose(p, &o, &here, &seed[0]);

    o.device = dev;
    assert_int_equal(choose(p, &o, &there, &seed[1]), n);
    for (int i = 0; i < n; i++)
        if (memcmp(&here[i], &there[i], sizeof(*here)) != 0)
            fail_msg("triplet %d of %d: %d %d %d, the host's is %d %d %d", i, n,
                     there[i].a, there[i].p, there[i].n, here[i].a, here[i].p,
                     here[i].n);
    assert_true(seed[0] == seed[1]);
    *n_found += n;
    free(here);
    free(there);
}

static struct device *open_device(size_t memory_bytes)
{
    struct device_options opt = {.memory_bytes = memory_bytes};
    struct error err = {0};
    struct device *dev = backend->device_open(&opt, &err);

    if (!dev)
        fail_msg("%s", err.text);
    return dev;
}

static void triplets_are_the_hosts(void **state)
{
    /* The last needs its distances in two parts. */
    static const struct people all[] = {{90, 16, 7, false, NULL, NULL},
                                        {90, 33, 9, true, NULL, NULL},
                                        {701, 40, 20, true, NULL, NULL},
                                        {640, 128, 40, false, NULL, NULL},
                                        {4200, 8, 2, true, NULL, NULL}};
    struct device *dev = open_device(0);
    int n_found = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        struct people p = all[i];

        make(&p, 100 + i);
        for (int k = 0; k < 4; k++) {
            int before = n_found;

            compare(dev, &p, k % 2 ? TRIPLET_FACENET : TRIPLET_VGGFACE,
                    k < 2 ? 0.2f : 1.5f, &n_found);
            if (k == 2 && !p.clustered)
                assert_true(n_found > before);
        }
        free(p.x);
        free(p.person);
    }
    assert_true(n_found > 1000);
    backend->device_close(dev);
}

static void what_is_no_number_is_not_chosen(void **state)
{
    struct device *dev = open_device(0);
    struct people p = {.n = 60, .dim = 16, .each = 6};
    struct triplet_options o = {.alpha = 2, .device = dev};
    struct triplet *t;
    int n_found = 0, n;
    uint64_t seed;

    (void)state;
    make(&p, 3);
    p.x[5 * 16 + 3] = NAN;
    p.x[21 * 16] = INFINITY;
    compare(dev, &p, TRIPLET_VGGFACE, 2, &n_found);
    assert_true(n_found > 0);
    n = choose(&p, &o, &t, &seed);
    for (int i = 0; i < n; i++) {
        assert_true(t[i].a != 5 && t[i].p != 5 && t[i].n != 5);
        assert_true(t[i].a != 21 && t[i].p != 21 && t[i].n != 21);
    }
    free(t);
    free(p.x);
    free(p.person);
    backend->device_close(dev);
}

static void nothing_to_choose(void **state)
{
    struct device *dev = open_device(0);
    struct people alone = {.n = 9, .dim = 16, .each = 1};
    struct people one = {.n = 9, .dim = 16, .each = 9};
    int n_found = 0;

    (void)state;
    make(&alone, 1);
    make(&one, 1);
    compare(dev, &alone, TRIPLET_VGGFACE, 2, &n_found);
    compare(dev, &one, TRIPLET_VGGFACE, 2, &n_found);
    assert_int_equal(n_found, 0);
    free(alone.x);
    free(alone.person);
    free(one.x);
    free(one.person);
    backend->device_close(dev);
}

/* Without room on the card the host does it. */
static void a_small_card(void **state)
{
    struct device *dev = open_device(100000);
    struct people p = {.n = 300, .dim = 16, .each = 10};
    int n_found = 0;

    (void)state;
    make(&p, 9);
    compare(dev, &p, TRIPLET_VGGFACE, 0.5f, &n_found);
    assert_true(n_found > 0);
    free(p.x);
    free(p.person);
    backend->device_close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(triplets_are_the_hosts),
        cmocka_unit_test(what_is_no_number_is_not_chosen),
        cmocka_unit_test(nothing_to_choose),
        cmocka_unit_test(a_small_card),
    };

    backend = test_backend();
    if (!backend || !backend->triplets)
        return 2;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
