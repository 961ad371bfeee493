/* tests/unit/test_detect_elsewhere.c - the detector's networks run by another:
 * the same faces as by the scratch's own, whatever it refuses, and when. With
 * the models and pictures of models/, and photos of the test data. */
#include <math.h>

#include "core/engine/batched.h"
#include "core/face/detect.h"
#include "tests/data.h"

enum {
    NEVER = 1 << 30
};

static struct device *dev;
static struct model *models[DETECT_STAGES];
static struct detector *plain, *shared;
static struct detect_scratch *own, *asking;

/* The other: batched networks on the same processor. */
static struct {
    struct batched *nets[DETECT_STAGES];
    struct detect_shape shape[DETECT_STAGES];
    int n_asked[DETECT_STAGES], n_inputs[DETECT_STAGES];
    /* From the call `from` of a stage on, `n` calls fail so. */
    enum detect_stage failing;
    int from, n, rc;
    int away[DETECT_STAGES]; /* after so many calls it is not there */
} other;

static int run(void *ctx, enum detect_stage stage, const float *const *inputs,
               int n, float *rows)
{
    const struct detect_shape *s = &other.shape[stage];
    int call = other.n_asked[stage]++, bad;
    struct error err = {0};

    assert_ptr_equal(ctx, &other);
    assert_true(n > 0);
    other.n_inputs[stage] += n;
    if (stage == other.failing && call >= other.from &&
        call < other.from + other.n) {
        for (size_t i = 0; i < (size_t)n * s->row; i++)
            rows[i] = other.rc < 0 ? NAN : 1;
        return other.rc;
    }
    if (batched_run(other.nets[stage], inputs, n, rows, &bad, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(bad, 0);
    return 0;
}

static bool there(void *ctx, enum detect_stage stage)
{
    (void)ctx;
    return other.n_asked[stage] < other.away[stage];
}

static void reset(void)
{
    memset(other.n_asked, 0, sizeof(other.n_asked));
    memset(other.n_inputs, 0, sizeof(other.n_inputs));
    other.n = 0;
    for (int i = 0; i < DETECT_STAGES; i++)
        other.away[i] = NEVER;
}

static void share(int most_p, int most_r, int most_o)
{
    const struct detect_elsewhere e = {.run = run,
                                       .there = there,
                                       .ctx = &other,
                                       .most = {most_p, most_r, most_o}};
    struct error err = {0};

    detect_scratch_free(asking);
    detector_set_elsewhere(shared, &e);
    asking = detect_scratch_new(shared, &err);
    assert_non_null(asking);
    reset();
}

static int setup(void **state)
{
    static const char *const files[] = {"models/detector_pnet.onnx",
                                        "models/detector_rnet.onnx",
                                        "models/detector_onet.onnx"};
    struct error err = {0};

    (void)state;
    dev = data_device();
    for (int i = 0; i < DETECT_STAGES; i++)
        if (!(models[i] = model_load(files[i], NULL, NULL, &err)))
            goto fail;
    plain = detector_new(dev, models[0], models[1], models[2], &err);
    shared = detector_new(dev, models[0], models[1], models[2], &err);
    own = plain ? detect_scratch_new(plain, &err) : NULL;
    if (!own || !shared)
        goto fail;
    for (int i = 0; i < DETECT_STAGES; i++) {
        struct batched_options opt = {.name = models[i]->name,
                                      .precision = PRECISION_F32};
        struct detect_shape *s = &other.shape[i];
        if (!detector_shape(shared, (enum detect_stage)i, s))
            return -1;
        opt.h = opt.w = s->side;
        opt.n_input = s->n_input;
        opt.dim = s->row;
        batched_sizes(&opt, 4, 16);
        other.nets[i] = batched_new(dev, models[i]->graph, &opt, &err);
        if (!other.nets[i])
            goto fail;
    }
    return 0;
fail:
    print_error("%s\n", err.text);
    return -1;
}

static int teardown(void **state)
{
    (void)state;
    detect_scratch_free(own);
    detect_scratch_free(asking);
    detector_free(plain);
    detector_free(shared);
    for (int i = 0; i < DETECT_STAGES; i++) {
        batched_free(other.nets[i]);
        model_free(models[i]);
    }
    dev->backend->device_close(dev);
    return 0;
}

/* --- the same faces ---------------------------------------------------------
 */

static struct image *picture(const char *path)
{
    struct error err = {0};
    static uint8_t bytes[4 << 20];
    FILE *f = fopen(path, "rb");
    struct image *img;

    assert_non_null(f);
    img = image_decode(bytes, fread(bytes, 1, sizeof(bytes), f), NULL, &err);
    fclose(f);
    if (!img)
        fail_msg("%s: %s", path, err.text);
    return img;
}

static float box_off(const struct box *a, const struct box *b)
{
    return fmaxf(fmaxf(fabsf(a->x0 - b->x0), fabsf(a->y0 - b->y0)),
                 fmaxf(fabsf(a->x1 - b->x1), fabsf(a->y1 - b->y1)));
}

struct faces {
    struct face *at;
    int n;
};

static struct faces find(struct detect_scratch *s, const struct image *img,
                         const struct detect_options *opt)
{
    struct error err = {0};
    struct faces f;

    if (detect_faces(s, img, opt, &f.at, &f.n, &err))
        fail_msg("%s", err.text);
    return f;
}

/* Within rounding; faces of equal size may change places. */
static void same(const struct faces *want, const struct faces *got,
                 const char *what)
{
    if (want->n != got->n)
        fail_msg("%s: %d faces, %d are wanted", what, got->n, want->n);
    for (int i = 0; i < want->n; i++) {
        const struct face *a = &want->at[i], *b = NULL;
        for (int k = 0; k < got->n; k++)
            if (!b ||
                box_off(&a->box, &got->at[k].box) < box_off(&a->box, &b->box))
                b = &got->at[k];
        if (box_off(&a->box, &b->box) > 0.1f ||
            fabsf(a->score - b->score) > 1e-3f)
            fail_msg("%s: face %d is off by %.3f pixels and %.5f in its score",
                     what, i, (double)box_off(&a->box, &b->box),
                     (double)fabsf(a->score - b->score));
        for (int k = 0; k < 10; k++)
            assert_true(fabsf(a->points[k / 2][k % 2] -
                              b->points[k / 2][k % 2]) < 0.1f);
    }
}

/* Every call of every stage fails once, in both ways; then all of a stage. */
static void check_faults(const struct image *img, const struct faces *want,
                         const char *path)
{
    int n_calls[DETECT_STAGES];
    char what[128];

    memcpy(n_calls, other.n_asked, sizeof(n_calls));
    for (int stage = 0; stage < DETECT_STAGES; stage++)
        for (int call = 0; call <= n_calls[stage]; call++) {
            struct faces got;
            reset();
            other.failing = (enum detect_stage)stage;
            other.from = call < n_calls[stage] ? call : 0;
            other.n = call < n_calls[stage] ? 1 : NEVER;
            other.rc = call % 2 ? -1 : 1;
            got = find(asking, img, NULL);
            snprintf(what, sizeof(what), "%s, stage %d, call %d", path, stage,
                     call);
            same(want, &got, what);
            free(got.at);
            reset();
            other.away[stage] = call; /* it goes away without a word */
            got = find(asking, img, NULL);
            same(want, &got, what);
            assert_int_equal(other.n_asked[stage],
                             call < n_calls[stage] ? call : n_calls[stage]);
            free(got.at);
        }
}

static void check_picture(const char *path, bool faults)
{
    struct image *img = picture(path);
    struct faces want = find(own, img, NULL), got;

    reset();
    got = find(asking, img, NULL);
    same(&want, &got, path);
    assert_true(other.n_asked[DETECT_PNET] > 0);
    if (want.n > 0)
        assert_true(other.n_inputs[DETECT_RNET] >= want.n &&
                    other.n_inputs[DETECT_ONET] >= want.n);
    if (faults)
        check_faults(img, &want, path);
    free(want.at);
    free(got.at);
    image_free(img);
}

static void test_same_faces(void **state)
{
    static const char *const names[] = {"ada-1", "ben-2", "chen-1", "group"};
    char path[64];

    (void)state;
    share(16, 256, 64);
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof(path), "models/demo/%s.jpg", names[i]);
        check_picture(path, true);
    }
    share(1, 3, 2); /* many calls */
    check_picture("models/demo/ada-1.jpg", true);
    check_picture("models/demo/group.jpg", false);
}

static void test_photos(void **state)
{
    static const char *const names[] = {"Anthony_Hopkins_0001.jpg",
                                        "group1.jpg", "group3.jpg",
                                        "paul_rudd.jpg"};

    (void)state;
    data_need("photos/group1.jpg");
    share(16, 256, 64);
    for (int i = 0; i < 4; i++) {
        char path[64];
        snprintf(path, sizeof(path), "photos/%s", names[i]);
        check_picture(data_path(path), false);
    }
}

/* Small faces, so that there are many canvases and candidates. */
static void test_options(void **state)
{
    const struct detect_options small = {.min_face = 12, .factor = 0.85f};
    struct image *img = picture("models/demo/group.jpg");
    struct faces want = find(own, img, &small), got;

    (void)state;
    share(4, 64, 8);
    got = find(asking, img, &small);
    same(&want, &got, "small faces");
    assert_true(other.n_asked[DETECT_PNET] > 4);
    free(want.at);
    free(got.at);
    image_free(img);
}

static void test_nobody(void **state)
{
    struct error err = {0};
    struct image *img = image_new(30, 20, &err);
    struct faces got;

    (void)state;
    share(16, 256, 64);
    got = find(asking, img, NULL); /* no level, no canvas */
    assert_int_equal(got.n, 0);
    assert_int_equal(other.n_asked[DETECT_PNET], 0);
    image_free(img);
    detector_set_elsewhere(shared, NULL);
    img = picture("models/demo/ada-1.jpg");
    got = find(asking, img, NULL);
    assert_int_equal(got.n, 1);
    assert_int_equal(other.n_asked[DETECT_PNET], 0);
    free(got.at);
    image_free(img);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_faces),
        cmocka_unit_test(test_photos),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_nobody),
    };

    return cmocka_run_group_tests_name("detection elsewhere", tests, setup,
                                       teardown);
}
