/* tests/unit/test_image_pnm.c - PGM and PPM: what is read, what is refused,
 * and that image_decode, the daemon's way, goes on refusing them. PNG there
 * and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/face/image.h"
#include "tests/make_image.h"

static struct bytes make_pnm(const char *head, size_t n_samples)
{
    struct bytes b = {0};

    bytes_add(&b, head, strlen(head));
    for (size_t i = 0; i < n_samples; i++)
        bytes_add8(&b, (unsigned)(i * 7) & 255);
    return b;
}

/* In a block of its size, so that a sanitiser sees a read past the end. */
static struct image *decode(const uint8_t *p, size_t len,
                            const struct image_limits *limits,
                            struct error *err)
{
    uint8_t *copy = must(malloc(len ? len : 1));
    struct image *img;

    memcpy(copy, p, len);
    *err = (struct error){0};
    img = image_decode_pnm(copy, len, limits, err);
    free(copy);
    assert_true(img || err->text[0]);
    return img;
}

static void refused(const char *head, size_t n, enum error_code code,
                    const char *text)
{
    struct bytes b = make_pnm(head, n);
    struct error err;

    assert_null(decode(b.p, b.len, NULL, &err));
    if (err.code != code || !strstr(err.text, text))
        fail_msg("got %s \"%s\", expected %s \"…%s…\"", error_wire(err.code),
                 err.text, error_wire(code), text);
    free(b.p);
}

static struct image *must_decode(const char *head, size_t n)
{
    struct bytes b = make_pnm(head, n);
    struct error err;
    struct image *img = decode(b.p, b.len, NULL, &err);

    if (!img)
        fail_msg("%s: %s", head, err.text);
    free(b.p);
    return img;
}

static void test_grey(void **state)
{
    static const char *const heads[] = {
        "P5 16 18 255\n", "P5\n16\n18\n255 ",
        "P5 # made by hand\n# twice\n 16\t18\r\n255\t", "P5#x\n16 18 255\n"};

    (void)state;
    for (size_t h = 0; h < sizeof(heads) / sizeof(heads[0]); h++) {
        struct image *img = must_decode(heads[h], 16 * 18 + 5);
        assert_int_equal(img->w, 16);
        assert_int_equal(img->h, 18);
        for (int i = 0; i < 16 * 18 * 3; i++)
            assert_int_equal(img->rgb[i], (i / 3 * 7) & 255);
        image_free(img);
    }
}

static void test_colour(void **state)
{
    struct image *img = must_decode("P6 17 16 255\n", 17 * 16 * 3);

    (void)state;
    assert_int_equal(img->w, 17);
    for (int i = 0; i < 17 * 16 * 3; i++)
        assert_int_equal(img->rgb[i], (i * 7) & 255);
    image_free(img);
}

static void test_few_levels(void **state)
{
    struct bytes b = {0};
    struct error err;
    struct image *img;

    (void)state;
    bytes_add(&b, "P5 16 16 3\n", 11);
    for (int i = 0; i < 256; i++)
        bytes_add8(&b, (unsigned)i % 4);
    img = decode(b.p, b.len, NULL, &err);
    assert_non_null(img);
    for (int i = 0; i < 4; i++)
        assert_int_equal(img->rgb[3 * i], 85 * i);
    image_free(img);
    b.p[100] = 4;
    assert_null(decode(b.p, b.len, NULL, &err));
    assert_int_equal(err.code, ERR_BAD_IMAGE);
    assert_non_null(strstr(err.text, "over 3"));
    free(b.p);
}

static void test_refused(void **state)
{
    (void)state;
    refused("P2 16 16 255\n", 256, ERR_IMAGE_TYPE, "P5, P6");
    refused("P4 16 16\n", 256, ERR_IMAGE_TYPE, "P5, P6");
    refused("P", 0, ERR_IMAGE_TYPE, "P5, P6");
    refused("", 0, ERR_IMAGE_TYPE, "P5, P6");
    refused("P516 16 255\n", 256, ERR_BAD_IMAGE, "head");
    refused("P5 -16 16 255\n", 256, ERR_BAD_IMAGE, "head");
    refused("P5 16 16 255", 0, ERR_BAD_IMAGE, "head");
    refused("P5 16 # 16 255", 0, ERR_BAD_IMAGE, "head");
    refused("P5 16x16 255\n", 256, ERR_BAD_IMAGE, "head");
    refused("P5 0 16 255\n", 256, ERR_BAD_IMAGE, "no pixels");
    refused("P5 8 16 255\n", 256, ERR_BAD_IMAGE, "at least 16");
    refused("P5 16 16 0\n", 256, ERR_BAD_IMAGE, "greatest value is 0");
    refused("P5 16 16 65535\n", 512, ERR_IMAGE_TYPE, "65535");
    refused("P5 16 16 255\n", 255, ERR_BAD_IMAGE, "cut short");
    refused("P6 16 16 255\n", 16 * 16 * 3 - 1, ERR_BAD_IMAGE, "cut short");
    refused("P5 16384 16384 255\n", 256, ERR_TOO_LARGE, "in all");
    refused("P5 99999999999999999999 16 255\n", 256, ERR_TOO_LARGE, "a side");
}

static void test_cut_at_every_byte(void **state)
{
    struct bytes b = make_pnm("P6 16 16 255\n", 16 * 16 * 3);
    struct error err;

    (void)state;
    for (size_t len = 0; len < b.len; len++)
        assert_null(decode(b.p, len, NULL, &err));
    free(b.p);
}

static void test_limits(void **state)
{
    struct bytes b = make_pnm("P5 32 20 255\n", 640);
    struct error err;

    (void)state;
    assert_null(
        decode(b.p, b.len, &(struct image_limits){.max_bytes = 600}, &err));
    assert_int_equal(err.code, ERR_TOO_LARGE);
    assert_null(
        decode(b.p, b.len, &(struct image_limits){.max_side = 31}, &err));
    assert_int_equal(err.code, ERR_TOO_LARGE);
    assert_null(
        decode(b.p, b.len, &(struct image_limits){.max_pixels = 639}, &err));
    assert_int_equal(err.code, ERR_TOO_LARGE);
    free(b.p);
}

static void test_daemon_refuses(void **state)
{
    struct bytes b = make_pnm("P5\n16 16 255\n", 256);
    struct error err = {0};

    (void)state;
    assert_null(image_decode(b.p, b.len, NULL, &err));
    assert_int_equal(err.code, ERR_IMAGE_TYPE);
    assert_non_null(strstr(err.text, "PGM"));
    free(b.p);
}

static void test_png_there_and_back(void **state)
{
    static const int sizes[][2] = {{1, 1}, {17, 33}, {640, 3}};
    const struct image_limits any = {.min_side = 1};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct error err = {0};
        struct image *img = image_new(sizes[i][0], sizes[i][1], &err), *back;
        size_t n = (size_t)img->w * (size_t)img->h * 3, len;
        uint8_t *png;

        for (size_t k = 0; k < n; k++)
            img->rgb[k] = (uint8_t)(k * k * 31 + k);
        assert_int_equal(image_encode_png(img, &png, &len, &err), 0);
        back = image_decode(png, len, &any, &err);
        if (!back)
            fail_msg("%s", err.text);
        assert_int_equal(back->w, img->w);
        assert_int_equal(back->h, img->h);
        assert_memory_equal(back->rgb, img->rgb, n);
        image_free(back);
        image_free(img);
        free(png);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grey),
        cmocka_unit_test(test_colour),
        cmocka_unit_test(test_few_levels),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_cut_at_every_byte),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_daemon_refuses),
        cmocka_unit_test(test_png_there_and_back),
    };

    return cmocka_run_group_tests_name("image_pnm", tests, NULL, NULL);
}
