/* tests/unit/test_image_resize.c - resizing against the contract's words in
 * double precision, and writing JPEG. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/face/image.h"
#include "tests/make_image.h"

static double channel(const struct image *img, int64_t x, int64_t y, int c)
{
    if (x < 0 || y < 0 || x >= img->w || y >= img->h)
        return 0;
    return img->rgb[((size_t)y * (size_t)img->w + (size_t)x) * 3 + (size_t)c];
}

/* Weight of source pixel j in output i, as the contract words it. */
static double weight(int i, int j, int n_in, int n_out)
{
    double ratio = (double)n_in / n_out, at, near_j;

    if (n_in >= n_out) {
        double lo = i * ratio > j ? i * ratio : j;
        double hi = (i + 1) * ratio < j + 1 ? (i + 1) * ratio : j + 1;
        return hi > lo ? (hi - lo) / ratio : 0;
    }
    at = (i + 0.5) * ratio - 0.5;
    at = at < 0 ? 0 : at > n_in - 1 ? n_in - 1 : at;
    near_j = at > j ? at - j : j - at;
    return near_j < 1 ? 1 - near_j : 0;
}

static void check_resize(const struct image *img, int x, int y, int w, int h,
                         int out_w, int out_h)
{
    size_t stride = (size_t)out_w * 3 + 5;
    uint8_t *out = must(malloc(stride * (size_t)out_h));

    memset(out, 0xa5, stride * (size_t)out_h);
    image_resize(img, x, y, w, h, out, out_w, out_h, stride);
    for (int oy = 0; oy < out_h; oy++) {
        for (int i = 0; i < out_w * 3; i++) {
            double want = 0, got = out[(size_t)oy * stride + (size_t)i];

            for (int sy = 0; sy < h; sy++) {
                double wy = weight(oy, sy, h, out_h);
                for (int sx = 0; wy > 0 && sx < w; sx++) {
                    double wx = weight(i / 3, sx, w, out_w);
                    if (wx > 0)
                        want += wy * wx * channel(img, x + sx, y + sy, i % 3);
                }
            }
            if (got < want - 0.501 || got > want + 0.501)
                fail_msg("%d,%d %dx%d to %dx%d: %d,%d is %g, not %g", x, y, w,
                         h, out_w, out_h, i / 3, oy, got, want);
        }
        for (size_t pad = (size_t)out_w * 3; pad < stride; pad++)
            assert_int_equal(out[(size_t)oy * stride + pad], 0xa5);
    }
    free(out);
}

static struct image *noise(int w, int h)
{
    struct error err;
    struct image *img = must(image_new(w, h, &err));
    uint32_t seed = 7;

    for (int i = 0; i < w * h * 3; i++) {
        seed = seed * 1664525u + 1013904223u;
        img->rgb[i] = (uint8_t)(seed >> 24);
    }
    return img;
}

static void test_resize(void **state)
{
    static const int rows[][6] = {
        {0, 0, 61, 47, 61, 47},      {0, 0, 61, 47, 30, 23},
        {0, 0, 61, 47, 1, 1},        {0, 0, 61, 47, 60, 46},
        {0, 0, 61, 47, 122, 94},     {0, 0, 61, 47, 100, 20},
        {0, 0, 61, 47, 20, 100},     {5, 7, 11, 13, 4, 6},
        {-9, -4, 40, 40, 12, 12},    {50, 40, 40, 40, 12, 12},
        {50, 40, 40, 40, 112, 112},  {-200, 0, 30, 30, 12, 12},
        {0, 300, 30, 30, 48, 48},    {-30, -30, 130, 130, 24, 24},
        {3, 3, 1, 1, 5, 5},          {-1, -1, 2, 2, 7, 7},
        {-600, -10, 1300, 90, 3, 3}, {-1500, 0, 3000, 47, 1, 2},
        {-2048, 5, 4097, 9, 2, 3},   {0, -700, 61, 1500, 2, 2},
    };
    struct image *img = noise(61, 47), *wide = noise(2300, 5);

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        check_resize(img, rows[i][0], rows[i][1], rows[i][2], rows[i][3],
                     rows[i][4], rows[i][5]);
    check_resize(wide, 0, 0, 2300, 5, 1, 1);
    check_resize(wide, 0, 0, 2300, 5, 700, 2);
    check_resize(wide, 0, 0, 2300, 5, 2300, 5);
    image_free(img);
    image_free(wide);
}

/* More rows of white than 16 bits hold the sum of. */
static void test_resize_white(void **state)
{
    struct error err;
    struct image *img = must(image_new(20, 3000, &err));
    uint8_t out[3 * 7 * 5];

    (void)state;
    memset(img->rgb, 255, 20 * 3000 * 3);
    image_resize(img, 0, 0, 20, 3000, out, 7, 5, 7 * 3);
    for (size_t i = 0; i < sizeof(out); i++)
        assert_int_equal(out[i], 255);
    image_free(img);
}

static struct image *must_decode(const struct bytes *b)
{
    struct error err;
    struct image *img = image_decode(b->p, b->len, NULL, &err);

    if (!img)
        fail_msg("refused: %s", err.text);
    return img;
}

static void test_encode(void **state)
{
    struct bytes png = make_png(50, 38, PNG_COLOR_TYPE_RGB, 8, 0, 0);
    struct image *img = must_decode(&png), *back;
    struct bytes b = {0};
    struct error err;
    double sum = 0;

    (void)state;
    assert_int_equal(image_encode_jpeg(img, 98, &b.p, &b.len, &err), 0);
    /* Each component sampled once. */
    for (int c = 0; c < 3; c++)
        assert_int_equal(b.p[find_sof(&b) + 11 + 3 * (size_t)c], 0x11);
    back = must_decode(&b);
    assert_int_equal(back->w, 50);
    assert_int_equal(back->h, 38);
    for (int i = 0; i < 50 * 38 * 3; i++)
        sum += abs(back->rgb[i] - img->rgb[i]);
    assert_true(sum / (50 * 38 * 3) < 2);
    image_free(img);
    image_free(back);
    free(b.p);
    free(png.p);
    /* One that outgrows the first buffer. */
    img = noise(300, 200);
    assert_int_equal(image_encode_jpeg(img, 100, &b.p, &b.len, &err), 0);
    assert_true(b.len > 1 << 16);
    image_free(must_decode(&b));
    image_free(img);
    free(b.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resize),
        cmocka_unit_test(test_resize_white),
        cmocka_unit_test(test_encode),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
