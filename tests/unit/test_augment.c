/* tests/unit/test_augment.c - kept faces to disturbed crops: undisturbed they
 * are align's own; a seed repeats; crops of other kinds show the same move;
 * every disturbance does what it says and no more. */
#include "core/train/augment.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct contract arcface = {
    .crop = CROP_ARCFACE, .width = 112, .height = 112};
static const struct contract margin = {.crop = CROP_BOX_MARGIN,
                                       .crop_margin = 44,
                                       .crop_size = 182,
                                       .width = 160,
                                       .height = 160};

/* Where the points of a frontal face lie in a box of 100 x 120 at 90, 70. */
static const struct face face = {
    .box = {90, 70, 190, 190},
    .score = 1,
    .points = {{120, 118}, {160, 118}, {140, 140}, {124, 165}, {156, 165}}};

/* Smooth, unlike everywhere and in each channel. */
static struct image *make_picture(int w, int h)
{
    struct error err = {0};
    struct image *img = image_new(w, h, &err);

    assert_non_null(img);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            for (int c = 0; c < 3; c++)
                img->rgb[(y * w + x) * 3 + c] =
                    (uint8_t)(128 + 60 * sin(x * 0.11 + c) +
                              60 * cos(y * 0.07 - c * 2));
    return img;
}

static struct image *crop(const struct augment_face *f, const char *how,
                          uint64_t seed, const struct contract *c)
{
    struct error err = {0};
    struct augment a;
    struct image *img;

    assert_int_equal(augment_parse(how, &a, &err), 0);
    img = augment_crop(f, &a, seed, c, &err);
    if (!img)
        fail_msg("%s: %s", how, err.text);
    assert_int_equal(img->w, c->width);
    assert_int_equal(img->h, c->height);
    return img;
}

/* Mean of the absolute difference. */
static double apart(const struct image *a, const struct image *b)
{
    size_t n = (size_t)a->w * (size_t)a->h * 3;
    double sum = 0;

    assert_int_equal(a->w, b->w);
    assert_int_equal(a->h, b->h);
    for (size_t i = 0; i < n; i++)
        sum += abs(a->rgb[i] - b->rgb[i]);
    return sum / (double)n;
}

static struct augment_face keep(const struct image *img,
                                const struct face *which, int side)
{
    struct augment_face f;
    struct error err = {0};

    if (augment_keep(img, which, side, &f, &err))
        fail_msg("%s", err.text);
    return f;
}

static void test_parse(void **state)
{
    struct error err = {0};
    struct augment a, b;
    char text[256];

    (void)state;
    memset(&a, 1, sizeof(a));
    assert_int_equal(augment_parse("", &a, &err), 0);
    assert_string_equal(augment_text(&a, text, sizeof(text)), "none");
    assert_int_equal(augment_parse("script", &a, &err), 0);
    assert_true(a.random_crop && a.random_flip);
    assert_string_equal(augment_text(&a, text, sizeof(text)), "crop,flip");
    assert_int_equal(augment_parse("strong,blur=0,crop,rotate=20", &a, &err),
                     0);
    assert_true(a.random_crop && a.random_flip && a.jitter > 0);
    assert_true(a.blur == 0 && a.rotate == 20 && a.noise > 0);
    augment_text(&a, text, sizeof(text));
    assert_int_equal(augment_parse(text, &b, &err), 0);
    assert_memory_equal(&a, &b, sizeof(a));
    assert_int_equal(augment_parse("jitter=0.1,none", &a, &err), 0);
    assert_true(a.jitter == 0);
}

static void test_parse_bad(void **state)
{
    static const char *const bad[][2] = {
        {"weak", "'weak'"},          {"jitter", "'jitter'"},
        {"jitter=", "jitter="},      {"jitter=0.6", "0 to 0.5"},
        {"rotate=-1", "rotate=-1"},  {"blur=nan", "blur=nan"},
        {"blur=0.1x", "blur=0.1x"},  {"flip=1", "no flip"},
        {"jit=0.1", "no jit"},       {"=1", "there is no"},
        {"blur=0.1,,flip", "''"},    {"blur=0.1 ,flip", "blur=0.1 "},
        {"script strong", "script"}, {"light=inf", "light=inf"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct augment a = {.jitter = 0.25f};
        struct error err = {0};
        if (augment_parse(bad[i][0], &a, &err) == 0)
            fail_msg("'%s' was taken", bad[i][0]);
        assert_int_equal(err.code, ERR_BAD_FIELD);
        if (!strstr(err.text, bad[i][1]))
            fail_msg("'%s': %s", bad[i][0], err.text);
        assert_true(a.jitter == 0.25f);
    }
}

static void test_undisturbed(void **state)
{
    const struct contract *const kinds[] = {&arcface, &margin};
    struct image *img = make_picture(300, 280);
    struct augment_face f = keep(img, &face, 1000);

    (void)state;
    assert_int_equal(f.img->w, 240);
    for (int i = 0; i < 2; i++) {
        struct error err = {0};
        struct image *want = align_crop(img, &face, kinds[i], &err);
        struct image *got = augment_crop(&f, NULL, 1, kinds[i], &err);
        struct image *none = crop(&f, "none", 1, kinds[i]);
        size_t n = (size_t)want->w * (size_t)want->h * 3;
        int most = 0;
        for (size_t k = 0; k < n; k++) {
            int d = abs(got->rgb[k] - want->rgb[k]);
            most = d > most ? d : most;
        }
        assert_true(most <= 1);
        assert_memory_equal(got->rgb, none->rgb, n);
        image_free(want);
        image_free(got);
        image_free(none);
    }
    augment_face_fini(&f);
    image_free(img);
}

static void test_shrunk(void **state)
{
    struct image *img = make_picture(300, 280);
    struct augment_face f = keep(img, &face, 160);
    const struct contract *const kinds[] = {&arcface, &margin};

    (void)state;
    assert_int_equal(f.img->w, 160);
    assert_true(fabsf(f.scale - 160.0f / 240) < 1e-5f);
    for (int i = 0; i < 2; i++) {
        struct error err = {0};
        struct image *want = align_crop(img, &face, kinds[i], &err);
        struct image *got = crop(&f, "none", 1, kinds[i]);
        /* The margin shrinks with the picture: 44 pixels of it would be 11
         * of the photo's too wide on each side. (A box is cut at whole
         * pixels, here of one and a half.) */
        assert_true(apart(want, got) < 5);
        image_free(want);
        image_free(got);
    }
    augment_face_fini(&f);
    image_free(img);
}

static void test_seeds(void **state)
{
    const struct contract *const kinds[] = {&arcface, &margin};
    struct image *img = make_picture(300, 280);
    struct augment_face f[2] = {keep(img, &face, 240), keep(img, NULL, 240)};

    (void)state;
    for (int i = 0; i < 4; i++) {
        const struct contract *c = kinds[i % 2];
        struct image *a = crop(&f[i / 2], "strong,crop", 5, c);
        struct image *b = crop(&f[i / 2], "strong,crop", 5, c);
        struct image *other = crop(&f[i / 2], "strong,crop", 6, c);
        assert_true(apart(a, b) == 0);
        assert_true(apart(a, other) > 1);
        image_free(a);
        image_free(b);
        image_free(other);
    }
    augment_face_fini(&f[0]);
    augment_face_fini(&f[1]);
    image_free(img);
}

/* A bright dot on black: its centre of mass, 0..1 of the crop. */
static void dot_at(const struct image *img, double *x, double *y)
{
    double sum = 0;

    *x = *y = 0;
    for (int i = 0; i < img->w * img->h; i++) {
        sum += img->rgb[3 * i];
        *x += (i % img->w + 0.5) * img->rgb[3 * i];
        *y += (i / img->w + 0.5) * img->rgb[3 * i];
    }
    assert_true(sum > 100);
    *x /= sum * img->w;
    *y /= sum * img->h;
}

static struct image *make_dot(double cx, double cy)
{
    struct error err = {0};
    struct image *img = image_new(300, 280, &err);

    for (int y = 0; y < 280; y++)
        for (int x = 0; x < 300; x++) {
            double dx = x + 0.5 - cx, dy = y + 0.5 - cy;
            memset(img->rgb + (y * 300 + x) * 3,
                   (int)(255 * exp(-(dx * dx + dy * dy) / 18)), 3);
        }
    return img;
}

/* A face whose box is a square and whose arcface crop is that square with
 * 12 pixels more, so that where a dot goes can be worked out for both. */
static const float square_points[5][2] = {{38.2946f, 51.6963f},
                                          {73.5318f, 51.5014f},
                                          {56.0252f, 71.7366f},
                                          {41.5493f, 92.3655f},
                                          {70.7299f, 92.2041f}};

static void test_same_move(void **state)
{
    static const char *const hows[] = {"jitter=0.08", "rotate=25",
                                       "jitter=0.08,rotate=25"};
    struct face square = {.box = {100, 90, 200, 190}, .score = 1};
    struct image *img = make_dot(165, 120);
    struct contract box = margin;
    struct augment_face f;
    double moved = 0;

    (void)state;
    /* arcface: pixels 94..206, 84..196; box-margin: 88..212, 78..202. */
    for (int i = 0; i < 5; i++) {
        square.points[i][0] = square_points[i][0] + 94;
        square.points[i][1] = square_points[i][1] + 84;
    }
    box.crop_margin = 24;
    box.crop_size = box.width = box.height = 160;
    f = keep(img, &square, 1000);
    for (uint64_t seed = 0; seed < 30; seed++) {
        struct image *a = crop(&f, hows[seed % 3], seed, &arcface);
        struct image *b = crop(&f, hows[seed % 3], seed, &box);
        double ax, ay, bx, by;
        dot_at(a, &ax, &ay);
        dot_at(b, &bx, &by);
        /* In pixels of the photo from the box's middle. align cuts boxes
         * at whole pixels. */
        ax = (ax - 0.5) * 112;
        ay = (ay - 0.5) * 112;
        bx = (bx - 0.5) * 124;
        by = (by - 0.5) * 124;
        if (fabs(ax - bx) > 1.3 || fabs(ay - by) > 1.3)
            fail_msg("%s, seed %d: %.2f %.2f, %.2f %.2f", hows[seed % 3],
                     (int)seed, ax, ay, bx, by);
        moved += fabs(ax - 15) + fabs(ay + 20);
        image_free(a);
        image_free(b);
    }
    assert_true(moved / 30 > 3);
    augment_face_fini(&f);
    image_free(img);
}

static void test_move_bounds(void **state)
{
    struct face square = {.box = {100, 90, 200, 190}, .score = 1};
    struct image *img = make_dot(150, 140);
    struct augment_face f;
    double least = 1, most = 0;

    (void)state;
    for (int i = 0; i < 5; i++) {
        square.points[i][0] = square_points[i][0] + 94;
        square.points[i][1] = square_points[i][1] + 84;
    }
    f = keep(img, &square, 1000);
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct image *a = crop(&f, "jitter=0.1", seed, &arcface);
        double x, y;
        dot_at(a, &x, &y);
        least = x < least ? x : least;
        most = x > most ? x : most;
        image_free(a);
    }
    /* A tenth of 100 pixels, by up to exp(0.1), in a crop of 112. */
    assert_true(least > 0.5 - 0.1 && least < 0.5 - 0.07);
    assert_true(most < 0.5 + 0.1 && most > 0.5 + 0.07);
    augment_face_fini(&f);
    image_free(img);
}

static void test_flip(void **state)
{
    struct image *img = make_picture(300, 280);
    struct augment_face f = keep(img, &face, 240);
    struct image *still = crop(&f, "none", 0, &arcface);
    int n_flipped = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 64; seed++) {
        struct image *a = crop(&f, "flip", seed, &arcface);
        bool flipped = apart(a, still) > 0;
        n_flipped += flipped;
        for (int i = 0; i < 112 * 112; i++) {
            int from = flipped ? i / 112 * 112 + 111 - i % 112 : i;
            assert_memory_equal(a->rgb + 3 * i, still->rgb + 3 * from, 3);
        }
        image_free(a);
    }
    assert_true(n_flipped > 16 && n_flipped < 48);
    image_free(still);
    augment_face_fini(&f);
    image_free(img);
}

/* The script's random_crop: any of 23 x 23 windows of 160 in 182. */
static void test_window(void **state)
{
    struct image *img = make_picture(182, 182);
    struct augment_face f = keep(img, NULL, 320);
    bool x_seen[23] = {false}, y_seen[23] = {false};
    struct image *middle = crop(&f, "none", 0, &margin);

    (void)state;
    for (int y = 0; y < 160; y++)
        assert_memory_equal(middle->rgb + y * 160 * 3,
                            img->rgb + ((y + 11) * 182 + 11) * 3, 160 * 3);
    for (uint64_t seed = 0; seed < 400; seed++) {
        struct image *a = crop(&f, "crop", seed, &margin);
        bool found = false;
        for (int k = 0; k < 23 * 23 && !found; k++) {
            int x = k % 23, y = k / 23;
            if (memcmp(a->rgb, img->rgb + (y * 182 + x) * 3, 160 * 3) ||
                memcmp(a->rgb + 159 * 160 * 3,
                       img->rgb + ((y + 159) * 182 + x) * 3, 160 * 3))
                continue;
            found = x_seen[x] = y_seen[y] = true;
        }
        assert_true(found);
        image_free(a);
    }
    for (int i = 0; i < 23; i++)
        assert_true(x_seen[i] && y_seen[i]);
    image_free(middle);
    augment_face_fini(&f);
    image_free(img);
}

static void test_aligned(void **state)
{
    struct image *square = make_picture(112, 112);
    struct image *tall = make_picture(92, 112), *part, *got;
    struct augment_face f = keep(square, NULL, 224);
    struct error err = {0};

    (void)state;
    got = crop(&f, "none", 0, &arcface);
    assert_true(apart(got, square) == 0);
    image_free(got);
    augment_face_fini(&f);
    /* arcface keeps shapes: the middle 92 x 92. */
    f = keep(tall, NULL, 224);
    got = crop(&f, "none", 0, &arcface);
    part = image_new(112, 112, &err);
    image_resize(tall, 0, 10, 92, 92, part->rgb, 112, 112, 112 * 3);
    assert_true(apart(got, part) == 0);
    image_free(got);
    image_free(part);
    augment_face_fini(&f);
    /* Larger than what is kept. */
    f = keep(tall, NULL, 56);
    assert_int_equal(f.img->w, 46);
    assert_int_equal(f.img->h, 56);
    augment_face_fini(&f);
    image_free(square);
    image_free(tall);
}

static double roughness(const struct image *img)
{
    double sum = 0;

    for (int y = 0; y < img->h; y++)
        for (int x = 1; x < img->w; x++)
            sum += abs(img->rgb[(y * img->w + x) * 3] -
                       img->rgb[(y * img->w + x - 1) * 3]);
    return sum / (img->w - 1) / img->h;
}

/* White noise in a picture: what blur and shrinking take away. */
static void test_softening(void **state)
{
    struct image *img = make_picture(112, 112);
    struct augment_face f;
    struct image *still;
    unsigned r = 1;

    (void)state;
    for (int i = 0; i < 112 * 112 * 3; i++)
        img->rgb[i] = (uint8_t)((r = r * 1664525 + 1013904223) >> 24);
    f = keep(img, NULL, 224);
    still = crop(&f, "none", 0, &arcface);
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct image *a = crop(&f, "shrink=1", seed, &arcface);
        struct image *b = crop(&f, "blur=1", seed, &arcface);
        assert_true(roughness(a) < 0.5 * roughness(still));
        assert_true(roughness(b) < 0.98 * roughness(still));
        image_free(a);
        image_free(b);
    }
    image_free(still);
    augment_face_fini(&f);
    image_free(img);
}

static void test_flat(void **state)
{
    struct error err = {0};
    struct image *img = image_new(112, 112, &err);
    struct augment_face f;
    int n_grey = 0;

    (void)state;
    for (int i = 0; i < 112 * 112; i++)
        memcpy(img->rgb + 3 * i, "\x50\x80\xa0", 3);
    f = keep(img, NULL, 224);
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct image *a;
        double sum = 0, squares = 0;
        int n = 112 * 112, n_hit = 0;
        /* Blur and shrinking leave what is flat. */
        a = crop(&f, "blur=1,shrink=1", seed, &arcface);
        assert_true(apart(a, img) <= 1);
        image_free(a);
        /* Noise has its mean and its deviation. */
        a = crop(&f, "noise=1", seed, &arcface);
        for (int i = 0; i < n; i++) {
            double d = a->rgb[3 * i] - 0x50;
            sum += d / n;
            squares += d * d / n;
        }
        assert_true(fabs(sum) < 0.5);
        assert_true(sqrt(squares) > 0.9 && sqrt(squares) < 12.5);
        image_free(a);
        /* A rectangle of one grey, between a 100th and a 6th or so. */
        a = crop(&f, "erase=1", seed, &arcface);
        for (int i = 0; i < n; i++) {
            const uint8_t *p = a->rgb + 3 * i;
            if (memcmp(p, img->rgb, 3) == 0)
                continue;
            n_hit++;
            assert_true(p[0] == p[1] && p[1] == p[2]);
        }
        assert_true(n_hit > n / 110 && n_hit < n * 0.18);
        image_free(a);
        a = crop(&f, "grey=0.5", seed, &arcface);
        n_grey += a->rgb[0] == a->rgb[2];
        image_free(a);
        a = crop(&f, "light=0.3", seed, &arcface);
        /* 128 + 0.3 * 128 + 1.3 * (80 - 128) and so on. */
        assert_true(a->rgb[0] >= 26 && a->rgb[0] <= 134);
        image_free(a);
        a = crop(&f, "jpeg=1", seed, &arcface);
        assert_true(apart(a, img) < 8);
        image_free(a);
    }
    assert_true(n_grey > 8 && n_grey < 32);
    augment_face_fini(&f);
    image_free(img);
}

/* One disturbance more leaves the others as they were. */
static void test_independent(void **state)
{
    struct image *img = make_picture(300, 280);
    struct augment_face f = keep(img, &face, 240);

    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct image *a = crop(&f, "jitter=0.1,light=0.3", seed, &arcface);
        struct image *b =
            crop(&f, "jitter=0.1,light=0.3,erase=1", seed, &arcface);
        int n_same = 0;
        for (int i = 0; i < 112 * 112; i++)
            n_same += !memcmp(a->rgb + 3 * i, b->rgb + 3 * i, 3);
        assert_true(n_same > 112 * 112 * 0.8 && n_same < 112 * 112);
        image_free(a);
        image_free(b);
    }
    augment_face_fini(&f);
    image_free(img);
}

static void test_same_crop(void **state)
{
    struct contract c = margin;

    (void)state;
    assert_true(augment_same_crop(&arcface, &arcface));
    assert_false(augment_same_crop(&arcface, &margin));
    c.scale = SCALE_FIXED;
    assert_true(augment_same_crop(&margin, &c));
    c.crop_margin = 32;
    assert_false(augment_same_crop(&margin, &c));
    c = arcface;
    c.crop_margin = 32; /* which arcface has none of */
    assert_true(augment_same_crop(&arcface, &c));
    c.width = 96;
    assert_false(augment_same_crop(&arcface, &c));
}

static void test_odd_faces(void **state)
{
    static const struct box boxes[] = {{-80, -60, 20, 30},
                                       {250, 240, 400, 500},
                                       {-50, -50, 400, 400},
                                       {149, 139, 150, 140}};
    const struct contract *const kinds[] = {&arcface, &margin};
    struct image *img = make_picture(300, 280);

    (void)state;
    for (size_t b = 0; b < sizeof(boxes) / sizeof(boxes[0]); b++) {
        struct face odd = face;
        struct augment_face f;
        odd.box = boxes[b];
        f = keep(img, &odd, 224);
        assert_true(f.img->w <= 224 && f.img->h <= 224);
        for (uint64_t seed = 0; seed < 40; seed++)
            for (int k = 0; k < 2; k++)
                image_free(crop(&f, "strong,crop,jitter=0.5,rotate=180", seed,
                                kinds[k]));
        augment_face_fini(&f);
    }
    image_free(img);
}

static void test_refused(void **state)
{
    static const struct box boxes[] = {
        {10, 10, 10, 20}, {20, 10, 10, 20},  {300, 10, 350, 20},
        {-30, 10, 0, 20}, {10, NAN, 20, 20}, {-INFINITY, 10, 20, 20}};
    struct image *img = make_picture(300, 280);
    struct contract none = {.width = 112, .height = 112}, small = margin;
    struct augment_face f;
    struct error err;

    (void)state;
    for (size_t b = 0; b < sizeof(boxes) / sizeof(boxes[0]); b++) {
        struct face bad = face;
        bad.box = boxes[b];
        err = (struct error){0};
        assert_int_equal(augment_keep(img, &bad, 224, &f, &err), -1);
        assert_int_equal(err.code, ERR_BAD_BOX);
        augment_face_fini(&f);
    }
    f = keep(img, &face, 224);
    assert_null(augment_crop(&f, NULL, 0, &none, &err));
    assert_int_equal(err.code, ERR_MODEL);
    small.crop_size = 159;
    assert_null(augment_crop(&f, NULL, 0, &small, &err));
    assert_int_equal(err.code, ERR_MODEL);
    for (int i = 0; i < 5; i++)
        f.face.points[i][0] = f.face.points[i][1] = 7;
    assert_null(augment_crop(&f, NULL, 0, &arcface, &err));
    assert_int_equal(err.code, ERR_BAD_BOX);
    augment_face_fini(&f);
    image_free(img);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),       cmocka_unit_test(test_parse_bad),
        cmocka_unit_test(test_undisturbed), cmocka_unit_test(test_shrunk),
        cmocka_unit_test(test_seeds),       cmocka_unit_test(test_same_move),
        cmocka_unit_test(test_move_bounds), cmocka_unit_test(test_flip),
        cmocka_unit_test(test_window),      cmocka_unit_test(test_aligned),
        cmocka_unit_test(test_softening),   cmocka_unit_test(test_flat),
        cmocka_unit_test(test_independent), cmocka_unit_test(test_same_crop),
        cmocka_unit_test(test_odd_faces),   cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests_name("augment", tests, NULL, NULL);
}
