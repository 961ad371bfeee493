/* tests/unit/test_loader.c - batches of chips: what comes does not depend on
 * threads, cache or order of reading; bad photos are named and counted; whole
 * photos come as the daemon reads them. */
#include "core/train/loader.h"

#include <math.h>

#include "core/face/face.h"
#include "core/train/picture.h"
#include "tests/data.h"
#include "tests/folder.h"

enum {
    SIDE = 112,
    LEN = 3 * SIDE * SIDE,
    N_WHOLE = 12 /* whole photos */
};

static const struct contract arcface = {.crop = CROP_ARCFACE,
                                        .width = SIDE,
                                        .height = SIDE,
                                        .scale = SCALE_FIXED,
                                        .a = {127.5f, 127.5f, 127.5f},
                                        .b = {128, 128, 128}};
static const struct contract margin = {.crop = CROP_BOX_MARGIN,
                                       .crop_margin = 44,
                                       .crop_size = 182,
                                       .width = 160,
                                       .height = 160,
                                       .scale = SCALE_STANDARD};

static struct dataset d;
static struct error err;

static void put_photo(const char *name, int seed, int w, int h)
{
    struct image *img = image_new(w, h, &err);
    const char *dot = strrchr(name, '.');
    uint8_t *bytes;
    size_t len;

    for (int i = 0; i < w * h * 3; i++)
        img->rgb[i] = (uint8_t)(128 + 50 * sin(i / 3 % w * 0.1 * seed) +
                                50 * cos(i / 3 / w * 0.13 + i % 3));
    if (strcmp(dot, ".jpg") == 0)
        assert_int_equal(image_encode_jpeg(img, 95, &bytes, &len, &err), 0);
    else
        assert_int_equal(image_encode_png(img, &bytes, &len, &err), 0);
    folder_bytes(name, bytes, len);
    free(bytes);
    image_free(img);
}

/* 4 people with 3 photos of 120 x 130 each. */
static int setup(void **state)
{
    char name[64];

    (void)state;
    folder_new();
    memset(&err, 0, sizeof(err));
    memset(&d, 0, sizeof(d));
    for (int i = 0; i < 12; i++) {
        snprintf(name, sizeof(name), "a/p%d/%d.%s", i / 3, i % 3,
                 i % 2 ? "png" : "jpg");
        put_photo(name, i + 1, 120, 130);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dataset_fini(&d);
    folder_remove();
    return 0;
}

static void open_set(void)
{
    if (dataset_open(folder_path("a"), &d, &err))
        fail_msg("%s", err.text);
}

static struct loader *must_new(const struct loader_options *opt)
{
    struct loader *l = loader_new(opt, &err);

    if (!l)
        fail_msg("%s", err.text);
    return l;
}

static void ask(struct loader *l, const int *photos, int n, uint64_t seed)
{
    uint64_t seeds[64];

    for (int i = 0; i < n; i++)
        seeds[i] = seed + (uint64_t)i * 1000;
    assert_int_equal(loader_ask(l, photos, seeds, n, &err), 0);
}

static void take(struct loader *l, float *out, bool *ok,
                 const struct contract *second, float *out2)
{
    if (loader_take(l, out, ok, second, out2, &err))
        fail_msg("%s", err.text);
}

static float *chips(int n, int side)
{
    float *p =
        malloc((size_t)n * 3 * (size_t)side * (size_t)side * sizeof(float));

    assert_non_null(p);
    return p;
}

static void test_chips(void **state)
{
    const int photos[] = {3, 0, 11, 3};
    float *out = chips(4, SIDE), *want = chips(1, SIDE);
    struct augment strong;
    struct loader *l;
    bool ok[4];

    (void)state;
    open_set();
    augment_parse("strong", &strong, &err);
    l = must_new(&(struct loader_options){
        .dataset = &d, .contract = &arcface, .augment = &strong});
    ask(l, photos, 4, 17);
    assert_int_equal(loader_outstanding(l), 1);
    take(l, out, ok, NULL, NULL);
    assert_int_equal(loader_outstanding(l), 0);
    for (int i = 0; i < 4; i++) {
        struct image *img = picture_load(d.photos[photos[i]].path, NULL, NULL,
                                         &err),
                     *crop;
        struct augment_face f;
        assert_int_equal(augment_keep(img, NULL, 2 * SIDE, &f, &err), 0);
        crop =
            augment_crop(&f, &strong, 17 + (uint64_t)i * 1000, &arcface, &err);
        align_scale(crop, &arcface, want);
        assert_true(ok[i]);
        assert_memory_equal(out + i * LEN, want, LEN * sizeof(float));
        image_free(crop);
        augment_face_fini(&f);
        image_free(img);
    }
    loader_free(l);
    free(out);
    free(want);
}

/* All the rows of 6 batches of 7, asked for in one go or one by one. */
static float *run(int n_threads, int64_t max_bytes, int ahead, bool one_by_one)
{
    float *out = chips(42, SIDE);
    struct augment strong;
    struct loader *l;
    int photos[7];
    bool ok[7];

    augment_parse("strong,crop", &strong, &err);
    l = must_new(&(struct loader_options){.dataset = &d,
                                          .contract = &arcface,
                                          .augment = &strong,
                                          .n_threads = n_threads,
                                          .max_bytes = max_bytes,
                                          .ahead = ahead});
    for (int b = 0; b < 6; b++) {
        for (int i = 0; i < 7; i++)
            photos[i] = (b * 5 + i * i) % 12;
        ask(l, photos, 7, (uint64_t)b);
        if (one_by_one)
            take(l, out + b * 7 * LEN, ok, NULL, NULL);
    }
    for (int b = 0; b < 6 && !one_by_one; b++)
        take(l, out + b * 7 * LEN, ok, NULL, NULL);
    loader_free(l);
    return out;
}

static void test_same_always(void **state)
{
    float *first;

    (void)state;
    open_set();
    first = run(1, 0, 0, false);
    for (int way = 0; way < 4; way++) {
        float *out = way == 0   ? run(4, 0, 0, false)
                     : way == 1 ? run(3, 1, 1, false) /* nothing is kept */
                     : way == 2 ? run(2, 150000, 9, false)
                                : run(2, 0, 2, true);
        assert_memory_equal(out, first, 42 * LEN * sizeof(float));
        free(out);
    }
    free(first);
}

static void remove_photos(void)
{
    for (int i = 0; i < d.n_photos; i++)
        assert_int_equal(unlink(d.photos[i].path), 0);
}

/* Files are read once while their faces fit in memory. */
static void test_cache(void **state)
{
    int all[12];
    float *out = chips(12, SIDE), *again = chips(12, SIDE);
    struct loader *kept, *small;
    bool ok[12];

    (void)state;
    for (int i = 0; i < 12; i++)
        all[i] = i;
    open_set();
    kept =
        must_new(&(struct loader_options){.dataset = &d, .contract = &arcface});
    /* A picture is 120 x 130 x 3 = 46,800 bytes: two fit. */
    small = must_new(&(struct loader_options){.dataset = &d,
                                              .contract = &arcface,
                                              .n_threads = 1,
                                              .max_bytes = 100000,
                                              .max_bad = 12});
    ask(kept, all, 12, 0);
    take(kept, out, ok, NULL, NULL);
    ask(small, all, 12, 0);
    take(small, again, ok, NULL, NULL);
    assert_memory_equal(out, again, 12 * LEN * sizeof(float));
    remove_photos();
    ask(kept, all, 12, 0);
    take(kept, again, ok, NULL, NULL);
    assert_memory_equal(out, again, 12 * LEN * sizeof(float));
    assert_int_equal(loader_failures(kept), 0);
    ask(small, (const int[]){10, 11, 0}, 3, 0);
    take(small, again, ok, NULL, NULL);
    assert_true(ok[0] && ok[1] && !ok[2]);
    assert_int_equal(loader_failures(small), 1);
    loader_free(kept);
    loader_free(small);
    free(out);
    free(again);
}

static void spoil_three(void)
{
    folder_file("a/p1/text.jpg", "this is no picture\n");
    folder_file("a/p2/nothing.png", "");
    folder_file("a/p3/cut.pgm", "P5 120 130 255\nabc");
}

static void test_failures(void **state)
{
    int all[15];
    float *out = chips(15, SIDE);
    struct loader *l;
    const char *path, *why;
    bool ok[15];

    (void)state;
    spoil_three();
    open_set();
    assert_int_equal(d.n_photos, 15);
    for (int i = 0; i < 15; i++)
        all[i] = i;
    l = must_new(&(struct loader_options){
        .dataset = &d, .contract = &arcface, .n_threads = 4, .max_bad = 3});
    ask(l, all, 15, 0);
    ask(l, all, 15, 1);
    memset(out, 1, 15 * LEN * sizeof(float));
    take(l, out, ok, NULL, NULL);
    for (int i = 0; i < 15; i++) {
        bool sound = !strstr(d.photos[i].path, "text") &&
                     !strstr(d.photos[i].path, "nothing") &&
                     !strstr(d.photos[i].path, "cut");
        assert_int_equal(ok[i], sound);
        for (int k = 0; k < LEN && !sound; k++)
            assert_true(out[i * LEN + k] == 0);
    }
    take(l, out, ok, NULL, NULL); /* again: not counted twice */
    assert_int_equal(loader_failures(l), 3);
    path = loader_failure(l, 0, &why);
    assert_string_equal(path, folder_path("a/p1/text.jpg"));
    assert_non_null(strstr(why, "text"));
    path = loader_failure(l, 1, &why);
    assert_string_equal(path, folder_path("a/p2/nothing.png"));
    path = loader_failure(l, 2, &why);
    assert_string_equal(path, folder_path("a/p3/cut.pgm"));
    assert_non_null(strstr(why, "cut short"));
    assert_null(loader_failure(l, 3, &why));
    assert_null(loader_failure(l, -1, &why));
    loader_free(l);
    free(out);
}

static void too_many(int max_bad, int n_batches)
{
    float *out = chips(15, SIDE);
    struct loader *l = must_new(&(struct loader_options){
        .dataset = &d, .contract = &arcface, .max_bad = max_bad});
    bool ok[15];

    /* One bad photo in each batch. */
    for (int i = 0; i < 3; i++) {
        int photos[2] = {0, -1};
        for (int k = 0; k < d.n_photos; k++)
            if (strstr(d.photos[k].path, i == 0   ? "text"
                                         : i == 1 ? "nothing"
                                                  : "cut"))
                photos[1] = k;
        ask(l, photos, 2, 0);
    }
    for (int i = 0; i < n_batches; i++)
        take(l, out, ok, NULL, NULL);
    assert_int_equal(loader_take(l, out, ok, NULL, NULL, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FIELD);
    assert_non_null(strstr(err.text, n_batches == 2   ? "cut.pgm"
                                     : n_batches == 1 ? "nothing.png"
                                                      : "text.jpg"));
    assert_non_null(strstr(err.text, "of 15 photos"));
    loader_free(l);
    free(out);
}

static void test_too_many(void **state)
{
    (void)state;
    spoil_three();
    open_set();
    too_many(-1, 0);
    too_many(1, 1);
    too_many(0, 2); /* a tenth of 15, rounded up: 2 */
}

static void test_copies(void **state)
{
    const int all[] = {0, 1, 2, 3};
    float *out = chips(4, SIDE);
    struct loader *l;
    const uint8_t *hash[4];
    bool ok[4];

    (void)state;
    put_photo("a/p0/2.jpg", 1, 120, 130); /* 0.jpg once more */
    put_photo("a/p0/3.jpg", 9, 120, 130);
    open_set();
    l = must_new(&(struct loader_options){.dataset = &d, .contract = &arcface});
    assert_null(loader_hash(l, 0));
    ask(l, all, 4, 0);
    take(l, out, ok, NULL, NULL);
    for (int i = 0; i < 4; i++) {
        hash[i] = loader_hash(l, i);
        assert_non_null(hash[i]);
    }
    assert_memory_equal(hash[0], hash[2], PICTURE_HASH_LEN);
    assert_memory_not_equal(hash[0], hash[1], PICTURE_HASH_LEN);
    assert_memory_not_equal(hash[0], hash[3], PICTURE_HASH_LEN);
    assert_null(loader_hash(l, 11));
    loader_free(l);
    free(out);
}

/* A teacher's chip: told ahead or not, the same; of the same crop, the same
 * pixels. */
static void test_second(void **state)
{
    struct contract other = arcface;
    const int photos[] = {1, 5, 7};
    float *out = chips(3, SIDE), *same = chips(3, SIDE);
    float *two[2] = {chips(3, 160), chips(3, 160)};
    struct augment strong;
    bool ok[3];

    (void)state;
    open_set();
    other.scale = SCALE_NONE;
    other.bgr = true;
    augment_parse("strong", &strong, &err);
    for (int i = 0; i < 2; i++) {
        struct loader *l =
            must_new(&(struct loader_options){.dataset = &d,
                                              .contract = &arcface,
                                              .second = i ? &margin : NULL,
                                              .augment = &strong});
        ask(l, photos, 3, 4);
        take(l, out, ok, &margin, two[i]);
        ask(l, photos, 3, 4);
        take(l, out, ok, &other, same);
        loader_free(l);
    }
    assert_memory_equal(two[0], two[1], 3 * 3 * 160 * 160 * sizeof(float));
    for (int i = 0; i < 3; i++)
        for (int c = 0; c < 3; c++)
            for (int k = 0; k < SIDE * SIDE; k++)
                assert_true(
                    fabsf(out[i * LEN + c * SIDE * SIDE + k] * 128 + 127.5f -
                          same[i * LEN + (2 - c) * SIDE * SIDE + k]) < 1e-3f);
    free(out);
    free(same);
    free(two[0]);
    free(two[1]);
}

static void test_free_early(void **state)
{
    int all[12];

    (void)state;
    open_set();
    for (int i = 0; i < 12; i++)
        all[i] = i;
    loader_free(NULL);
    for (int n_asked = 0; n_asked < 9; n_asked += 4) {
        struct loader *l = must_new(&(struct loader_options){
            .dataset = &d, .contract = &arcface, .n_threads = 3});
        for (int i = 0; i < n_asked; i++)
            ask(l, all, 12, (uint64_t)i);
        assert_int_equal(loader_outstanding(l), n_asked);
        loader_free(l);
    }
}

static void test_refused(void **state)
{
    struct contract none = {.width = 112, .height = 112};
    struct loader *l;
    float out[1];
    bool ok[1];

    (void)state;
    open_set();
#define REFUSED(expected, ...)                                                 \
    do {                                                                       \
        assert_null(loader_new(                                                \
            &(struct loader_options){.dataset = &d, __VA_ARGS__}, &err));      \
        assert_int_equal(err.code, expected);                                  \
    } while (0)
    REFUSED(ERR_MODEL, .contract = &none);
    REFUSED(ERR_MODEL, .contract = &arcface, .second = &none);
    REFUSED(ERR_BAD_FIELD, .contract = &arcface, .n_threads = -1);
    REFUSED(ERR_BAD_FIELD, .contract = &arcface, .n_threads = 65);
    REFUSED(ERR_BAD_FIELD, .contract = &arcface, .max_bytes = -1);
    REFUSED(ERR_BAD_FIELD, .contract = &arcface, .ahead = -1);
    d.raw = true;
    REFUSED(ERR_BAD_FIELD, .contract = &arcface);
    assert_non_null(strstr(err.text, "detector"));
    d.raw = false;
    l = must_new(&(struct loader_options){.dataset = &d, .contract = &arcface});
    assert_int_equal(
        loader_ask(l, (const int[]){12}, (const uint64_t[]){0}, 1, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FIELD);
    assert_int_equal(
        loader_ask(l, (const int[]){-1}, (const uint64_t[]){0}, 1, &err), -1);
    assert_int_equal(loader_ask(l, NULL, NULL, 0, &err), -1);
    assert_int_equal(loader_take(l, out, ok, NULL, NULL, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FIELD);
    loader_free(l);
}

/* --- whole photos, where there are some -------------------------------------
 */

static struct {
    struct device *dev;
    struct model *model[3];
    struct detector *detector;
} all;

static int load_detector(void **state)
{
    static const char *const names[] = {"mtcnn_pnet", "mtcnn_rnet",
                                        "mtcnn_onet"};
    static const enum model_kind kinds[] = {MODEL_PNET, MODEL_RNET, MODEL_ONET};

    (void)state;
    if (access(data_path("weights/mtcnn_pnet.onnx"), R_OK))
        return 0;
    all.dev = data_device();
    for (int i = 0; i < 3; i++) {
        struct contract c = {.kind = kinds[i]};
        all.model[i] = data_model(names[i], &c);
    }
    all.detector =
        detector_new(all.dev, all.model[0], all.model[1], all.model[2], &err);
    return all.detector ? 0 : -1;
}

static int free_detector(void **state)
{
    (void)state;
    if (!all.dev)
        return 0;
    detector_free(all.detector);
    for (int i = 0; i < 3; i++)
        data_model_free(all.model[i]);
    all.dev->backend->device_close(all.dev);
    return 0;
}

/* 3 people of cfp-train, 4 photos each, frontal and from the side. */
static void copy_people(void)
{
    static const char *const photos[] = {"frontal_01.jpg", "frontal_02.jpg",
                                         "frontal_03.jpg", "profile_01.jpg"};
    static const char *const people[] = {"50_Cent", "Adam_Levine",
                                         "Alex_Morgan"};
    char from[256], to[256];

    for (int i = 0; i < N_WHOLE; i++) {
        size_t len;
        uint8_t *bytes;
        snprintf(from, sizeof(from), "faces/cfp-train/%s/%s", people[i / 4],
                 photos[i % 4]);
        snprintf(to, sizeof(to), "raw/%s/%s", people[i / 4], photos[i % 4]);
        bytes = data_read(from, &len);
        folder_bytes(to, bytes, len);
        free(bytes);
    }
}

static double mean_apart(const float *a, const float *b, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += fabs((double)a[i] - (double)b[i]);
    return sum / (double)n;
}

/* Undisturbed, a chip is what the daemon makes of the photo. */
static void test_raw(void **state)
{
    struct contract kinds[2] = {arcface, margin};
    struct detect_scratch *s;
    float *out = chips(N_WHOLE, 160);
    int photos[N_WHOLE];
    bool ok[N_WHOLE];

    (void)state;
    data_need("faces/cfp-train/50_Cent/frontal_01.jpg");
    data_need("weights/mtcnn_pnet.onnx");
    copy_people();
    assert_int_equal(dataset_open(folder_path("raw"), &d, &err), 0);
    d.raw = true;
    s = detect_scratch_new(all.detector, &err);
    for (int i = 0; i < N_WHOLE; i++)
        photos[i] = i;
    for (int k = 0; k < 2; k++) {
        struct loader *l;
        size_t len = (size_t)kinds[k].width * (size_t)kinds[k].height * 3;
        int n_ok = 0;
        kinds[k].scale = SCALE_NONE;
        l = must_new(&(struct loader_options){.dataset = &d,
                                              .contract = &kinds[k],
                                              .detector = all.detector,
                                              .max_bad = 2});
        ask(l, photos, N_WHOLE, 0);
        take(l, out, ok, NULL, NULL);
        for (int i = 0; i < N_WHOLE; i++) {
            const struct face_options opt = {.choice = FACE_CENTRAL};
            size_t n_bytes;
            struct photo p;
            char name[256];
            uint8_t *bytes;
            double apart;
            snprintf(name, sizeof(name), "faces/cfp-train%s",
                     d.photos[i].path + strlen(folder_path("raw")));
            bytes = data_read(name, &n_bytes);
            assert_int_equal(
                photo_read(s, &kinds[k], bytes, n_bytes, &opt, &p, &err) == 0,
                ok[i]);
            free(bytes);
            n_ok += ok[i];
            apart =
                ok[i] ? mean_apart(out + (size_t)i * len, p.chips[0].input, len)
                      : 0;
            if (apart > 3)
                fail_msg("%s, crop %d: %.2f apart", name, k, apart);
            photo_fini(&p);
        }
        assert_true(n_ok >= 10);
        assert_int_equal(loader_failures(l), N_WHOLE - n_ok);
        loader_free(l);
    }
    detect_scratch_free(s);
    free(out);
}

/* Kept as JPEG where pixels would not fit: near, and the same every time. */
static void test_packed(void **state)
{
    float *out = chips(N_WHOLE, SIDE), *want = chips(N_WHOLE, SIDE);
    struct contract c = arcface;
    struct loader *l;
    int photos[N_WHOLE];
    bool ok[N_WHOLE];

    (void)state;
    data_need("faces/cfp-train/50_Cent/frontal_01.jpg");
    data_need("weights/mtcnn_pnet.onnx");
    copy_people();
    c.scale = SCALE_NONE;
    assert_int_equal(dataset_open(folder_path("raw"), &d, &err), 0);
    d.raw = true;
    for (int i = 0; i < N_WHOLE; i++)
        photos[i] = i;
    for (int k = 0; k < 2; k++) {
        /* 12 x 224 x 224 x 3 are 1.8 MB; a JPEG has some 30 kB. */
        l = must_new(&(struct loader_options){.dataset = &d,
                                              .contract = &c,
                                              .detector = all.detector,
                                              .max_bytes = k ? 1000000 : 0,
                                              .max_bad = 2});
        ask(l, photos, N_WHOLE, 0);
        take(l, k ? out : want, ok, NULL, NULL);
        if (k) {
            float *again = chips(N_WHOLE, SIDE);
            remove_photos();
            ask(l, photos, N_WHOLE, 0);
            take(l, again, ok, NULL, NULL);
            assert_memory_equal(out, again, N_WHOLE * LEN * sizeof(float));
            free(again);
        }
        loader_free(l);
    }
    assert_true(mean_apart(out, want, N_WHOLE * LEN) < 2);
    assert_true(mean_apart(out, want, N_WHOLE * LEN) > 0);
    free(out);
    free(want);
}

static void test_looks_raw(void **state)
{
    static const struct {
        const char *dir;
        bool raw;
    } sets[] = {{"faces/lfw-other-people", true},
                {"faces/bollywood-64", false},
                {"faces/orl", false}};
    bool raw = true;

    (void)state;
    open_set();
    assert_int_equal(loader_looks_raw(&d, NULL, &raw, &err), 0);
    assert_false(raw);
    dataset_fini(&d);
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        data_need(sets[i].dir);
        data_need("weights/mtcnn_pnet.onnx");
        assert_int_equal(dataset_open(data_path(sets[i].dir), &d, &err), 0);
        assert_int_equal(loader_looks_raw(&d, all.detector, &raw, &err), 0);
        if (raw != sets[i].raw)
            fail_msg("%s: raw is %d", sets[i].dir, raw);
        dataset_fini(&d);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_chips),    T(test_same_always), T(test_cache),
        T(test_failures), T(test_too_many),    T(test_copies),
        T(test_second),   T(test_free_early),  T(test_refused),
        T(test_raw),      T(test_packed),      T(test_looks_raw),
    };

    return cmocka_run_group_tests_name("loader", tests, load_detector,
                                       free_detector);
}
