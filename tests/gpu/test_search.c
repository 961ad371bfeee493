/* tests/gpu/test_search.c - the search of the card of FACENETD_PLUGIN, asked by
 * itself and by the gallery, against plain loops. A card that hangs is played
 * by the emulated one alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/face/distance.h"
#include "core/engine/rows.h"
#include "store/gallery.h"
#include "tests/device.h"

enum {
    DIM = 264, /* padded to 320: several steps of each kernel */
    BLOCK = 128,
    BLOCKS = 16
};
#define MODEL "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static const struct backend *backend;
static struct device *device;
static uint32_t seed = 5;

static uint32_t draw(void)
{
    seed = seed * 1664525u + 1013904223u;
    return seed >> 8;
}

static void fill(float *v)
{
    for (int i = 0; i < DIM; i++)
        v[i] = (float)draw() / 8388608.0f - 1.0f;
    assert_true(distance_normalise(v, DIM));
}

static int setup(void **state)
{
    struct device_options opt = {0};
    struct error err = {0};

    (void)state;
    unsetenv("FACENETD_EMULATED_SEARCH");
    device = backend->device_open(&opt, &err);
    if (!device)
        fprintf(stderr, "%s\n", err.text);
    return device ? 0 : -1;
}

static bool is_emulated(struct device_info *info)
{
    backend->device_describe(device, info);
    return strcmp(info->name, "emulated") == 0;
}

static int teardown(void **state)
{
    struct device_info info = {0};
    bool left = is_emulated(&info) && info.bytes_used != 0;

    (void)state;
    backend->device_close(device);
    return left; /* all should have been given back */
}

/* --- asked by itself ------------------------------------------------ */
static float x[BLOCKS][BLOCK][DIM];
static uint64_t dead[BLOCKS][BLOCK / 64];

static struct rows *make(void)
{
    struct rows_options opt = {.dim = DIM, .block_rows = BLOCK};
    struct error err = {0};
    struct rows *r = backend->rows_new(device, &opt, &err);

    if (!r)
        fail_msg("%s", err.text);
    for (int b = 0; b < BLOCKS; b++) {
        for (int i = 0; i < BLOCK; i++)
            fill(x[b][i]);
        for (int i = 0; i < BLOCK; i += BLOCK / 4)
            assert_int_equal(
                backend->rows_put(r, b, i, BLOCK / 4, x[b][i], NULL), 0);
        dead[b][0] = (uint64_t)draw() << 40 ^ draw();
        dead[b][1] = draw();
    }
    return r;
}

static double exact(const float *q, const float *row)
{
    double sum = 0;

    for (int i = 0; i < DIM; i++)
        sum += (double)q[i] * (double)row[i];
    return sum;
}

/* Of the living rows of the pieces: none that is not found is above rest, and
 * no more than k are above all that are left out. */
static void check(const struct rows_ask *a, int query,
                  const struct rows_answer *got)
{
    const float *q = a->queries + (size_t)query * DIM;
    static bool found[BLOCKS][BLOCK];
    int n_above = 0, n_left = 0;

    memset(found, 0, sizeof(found));
    for (int i = 0; i < got->n_found; i++) {
        int piece = (int)(got->found[i] >> 32);
        int row = (int)(got->found[i] & UINT32_MAX);
        assert_in_range(piece, 0, a->n_pieces - 1);
        assert_in_range(row, 0, a->pieces[piece].n - 1);
        assert_false(found[piece][row]);
        found[piece][row] = true;
        n_above += exact(q, x[a->pieces[piece].block][row]) > (double)got->rest;
    }
    for (int p = 0; p < a->n_pieces; p++)
        for (int row = 0; row < a->pieces[p].n; row++) {
            const uint64_t *bits = a->pieces[p].dead;
            if (bits && (bits[row / 64] >> row % 64 & 1)) {
                assert_false(found[p][row]);
                continue;
            }
            n_left += !found[p][row];
            if (!found[p][row])
                assert_true(exact(q, x[a->pieces[p].block][row]) <=
                            (double)got->rest);
        }
    assert_true(n_left == 0 || got->rest <= a->floors[query] + 1e-4f ||
                n_above >= a->k);
}

static void ask_some(struct rows *r, int n_queries, int k, float low)
{
    static float q[ROWS_QUERIES_MAX][DIM], floors[ROWS_QUERIES_MAX];
    static uint64_t found[ROWS_QUERIES_MAX][4 * 256];
    struct rows_answer answers[ROWS_QUERIES_MAX];
    struct rows_piece pieces[BLOCKS];
    struct rows_ask a = {.pieces = pieces,
                         .queries = q[0],
                         .floors = floors,
                         .n_queries = n_queries,
                         .k = k,
                         .max = 4 * k,
                         .slack = 1e-4f};
    struct error err = {0};

    for (int b = BLOCKS - 1; b >= 0; b -= 1 + (int)(draw() % 2)) {
        pieces[a.n_pieces++] = (struct rows_piece){
            .block = b,
            .n = 1 + (int)(draw() % BLOCK),
            .dead = draw() % 2 ? dead[b] : NULL,
        };
    }
    for (int i = 0; i < n_queries; i++) {
        fill(q[i]);
        floors[i] = low;
        answers[i].found = found[0] + (size_t)i * (size_t)a.max;
    }
    if (backend->rows_best(r, &a, answers, &err))
        fail_msg("%s", err.text);
    for (int i = 0; i < n_queries; i++)
        check(&a, i, &answers[i]);
}

static void test_asked(void **state)
{
    static const int n[] = {1, 2, 3, 4, 5, 16, 17, 64, 65, 256};
    struct rows *r = make();

    (void)state;
    for (size_t i = 0; i < sizeof(n) / sizeof(*n); i++) {
        ask_some(r, n[i], 1, -2);
        ask_some(r, n[i], 256, -INFINITY);
        ask_some(r, n[i], 20, 0.12f);
    }
    backend->rows_free(r);
}

/* More equal rows than there is room for: it says that it cannot tell. */
static void test_crowded(void **state)
{
    struct rows_options opt = {.dim = DIM, .block_rows = BLOCK};
    struct rows *r = backend->rows_new(device, &opt, NULL);
    struct rows_piece piece = {.block = 3, .n = BLOCK};
    uint64_t found[20];
    struct rows_answer answer = {.found = found};
    float q[DIM], low = -1;
    struct rows_ask a = {.pieces = &piece,
                         .n_pieces = 1,
                         .queries = q,
                         .floors = &low,
                         .n_queries = 1,
                         .k = 10,
                         .max = 20};

    (void)state;
    fill(q);
    for (int i = 0; i < BLOCK; i++)
        assert_int_equal(backend->rows_put(r, 3, i, 1, q, NULL), 0);
    assert_int_equal(backend->rows_best(r, &a, &answer, NULL), 0);
    assert_int_equal(answer.n_found, 0);
    assert_true(answer.rest == INFINITY);
    piece.n = 20;
    assert_int_equal(backend->rows_best(r, &a, &answer, NULL), 0);
    assert_int_equal(answer.n_found, 20);
    backend->rows_wipe(r, 3);
    assert_int_equal(backend->rows_put(r, 3, 0, BLOCK, x[0][0], NULL), 0);
    a.k = 300;
    assert_int_equal(backend->rows_best(r, &a, &answer, NULL), -1);
    backend->rows_free(r);
}

/* --- asked by the gallery ------------------------------------------- */
static void test_gallery(void **state)
{
    struct gallery *with = gallery_new(MODEL, DIM, NULL);
    struct gallery *without = gallery_new(MODEL, DIM, NULL);
    struct gallery_hit got[50], want[50];
    struct device_info info = {0};
    bool emulated = is_emulated(&info);
    struct gallery_device to = {.device = device,
                                .memory_bytes = (size_t)20 << 20};
    int64_t n_answered, n_failed;
    float v[DIM];

    (void)state;
    assert_int_equal(gallery_attach(with, &to, NULL), 0);
    for (int i = 1; i <= 14000; i++) {
        char id[16];
        fill(v);
        snprintf(id, sizeof(id), "s%u", draw() % 900);
        assert_int_equal(gallery_add(with, "a", id, "", i, v, NULL), 0);
        assert_int_equal(gallery_add(without, "a", id, "", i, v, NULL), 0);
        if (i % 3 == 0) {
            int64_t face = 1 + draw() % (uint32_t)i;
            assert_int_equal(gallery_remove_face(with, face, NULL), 0);
            assert_int_equal(gallery_remove_face(without, face, NULL), 0);
        }
        if (i % 500)
            continue;
        while (gallery_bring(with) > 0)
            ;
        if (i == 12000 && emulated)
            setenv("FACENETD_EMULATED_SEARCH", "hang", 1);
        fill(v);
        for (int limit = 1; limit <= 50; limit += 49) {
            int n = gallery_search(with, "a", v, 4, limit, got, NULL);
            assert_int_equal(n, limit);
            assert_int_equal(
                gallery_search(without, "a", v, 4, limit, want, NULL), n);
            for (int k = 0; k < n; k++) {
                assert_int_equal(got[k].face, want[k].face);
                assert_true(got[k].distance == want[k].distance);
            }
        }
    }
    gallery_device_counts(with, &n_answered, &n_failed);
    assert_true(n_answered >= 20);
    assert_int_equal(n_failed, emulated ? 1 : 0);
    assert_true(gallery_on_device(with, NULL) == !emulated);
    unsetenv("FACENETD_EMULATED_SEARCH"); /* it ended, late */
    gallery_free(with);
    gallery_free(without);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crowded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gallery, setup, teardown),
    };

    backend = test_backend();
    if (!backend || !backend->rows_new)
        return 2;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
