/* tests/unit/test_image.c - decoding good, damaged and hostile pictures. All
 * inputs are made in code; only the last test wants photos, and is skipped
 * where there are none. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <cmocka.h>

#include "core/face/image.h"
#include "tests/make_image.h"

static double cpu_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* The bytes go into a block of just their size, so that a sanitiser sees a
 * read past the end. */
static struct image *decode_limited(const void *bytes, size_t len,
                                    const struct image_limits *limits,
                                    struct error *err)
{
    uint8_t *copy = must(malloc(len ? len : 1));
    struct image *img;

    memcpy(copy, bytes, len);
    *err = (struct error){0};
    img = image_decode(len ? copy : NULL, len, limits, err);
    free(copy);
    if (!img)
        assert_int_not_equal(err->code, ERR_NONE);
    return img;
}

static struct image *decode(const struct bytes *b, struct error *err)
{
    return decode_limited(b->p, b->len, NULL, err);
}

static struct image *must_decode(const struct bytes *b)
{
    struct error err;
    struct image *img = decode(b, &err);

    if (!img)
        fail_msg("refused: %s", err.text);
    return img;
}

static void refused(const struct bytes *b, enum error_code code,
                    const char *text)
{
    struct error err;
    struct image *img = decode(b, &err);

    assert_null(img);
    if (err.code != code || !strstr(err.text, text))
        fail_msg("got %s \"%s\", expected %s \"…%s…\"", error_wire(err.code),
                 err.text, error_wire(code), text);
}

static const uint8_t *pixel(const struct image *img, int x, int y)
{
    return img->rgb + ((size_t)y * (size_t)img->w + (size_t)x) * 3;
}

static void near(int got, int want, int tolerance)
{
    if (abs(got - want) > tolerance)
        fail_msg("%d is not within %d of %d", got, tolerance, want);
}

/* ---- kinds ---- */

static void test_wrong_kinds(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *text;
    } rows[] = {
        {"", 0, "empty (0 bytes)"},
        {"GIF89a\1\0\1\0", 10, "looks like a GIF"},
        {"%PDF-1.7\n", 9, "looks like a PDF"},
        {"\0\0\0\x18"
         "ftypheic\0\0\0\0",
         16, "looks like a HEIC"},
        {"\0\0\0\x18"
         "ftypavif\0\0\0\0",
         16, "looks like an AVIF"},
        {"\0\0\0\x18"
         "ftypisom\0\0\0\0",
         16, "looks like a video"},
        {"II*\0\x08\0\0\0", 8, "looks like a TIFF"},
        {"MM\0*\0\0\0\x08", 8, "looks like a TIFF"},
        {"BM\x36\0\0\0", 6, "looks like a BMP"},
        {"PK\3\4rest\xff\xd8\xff", 11, "looks like a ZIP"},
        {"<svg xmlns=''>", 14, "looks like an SVG"},
        {"data:image/jpeg;base64,/9j/", 27, "looks like a data: URL"},
        {"/9j/4AAQSkZJRg", 14, "base64 text of a JPEG"},
        {"hello, this is no picture\n", 26, "looks like text"},
        {"RIFF\4\0\0\0WAVE", 12, "RIFF file that is no WebP"},
        {"\x01\x02\x03\xfe", 4, "no known kind (it starts with byte 01)"},
        {"\xff", 1, "no known kind (it starts with byte ff)"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct bytes b = {(uint8_t *)rows[i].bytes, rows[i].len};
        refused(&b, ERR_IMAGE_TYPE, rows[i].text);
        refused(&b, ERR_IMAGE_TYPE, "JPEG, PNG and WebP are read");
    }
}

/* ---- good pictures ---- */

static void check_size(const struct image *img, int w, int h)
{
    assert_int_equal(img->w, w);
    assert_int_equal(img->h, h);
}

/* The pattern wraps from 255 to 0, which JPEG blurs: so the mean counts. */
static void check_jpeg(struct jpeg_options o)
{
    struct bytes b = make_jpeg(33, 29, o);
    struct image *img = must_decode(&b);
    double sum = 0;

    check_size(img, 33, 29);
    for (int i = 0; i < 33 * 29 * 3; i++)
        sum += abs(img->rgb[i] - sample(i / 3 % 33, i / 3 / 33,
                                        o.components == 1 ? 0 : i % 3));
    assert_true(sum / (33 * 29 * 3) < 8);
    image_free(img);
    free(b.p);
}

static void test_jpeg_pixels(void **state)
{
    (void)state;
    check_jpeg((struct jpeg_options){.components = 1});
    check_jpeg((struct jpeg_options){.full_chroma = 1, .restart = 2});
    check_jpeg((struct jpeg_options){.full_chroma = 1, .progressive = 1});
}

/* Our pixels are those of the library with its default settings. */
static void test_jpeg_like_library(void **state)
{
    static const struct jpeg_options rows[] = {
        {0},
        {.components = 1},
        {.full_chroma = 1},
        {.progressive = 1},
        {.progressive = 1, .components = 1},
        {.restart = 1},
        {.adobe = 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct bytes b = make_jpeg(67, 45, rows[i]);
        struct image *img = must_decode(&b);
        struct jpeg_decompress_struct cinfo;
        struct jpeg_error_mgr mgr;
        uint8_t line[67 * 3];
        JSAMPROW row = line;

        cinfo.err = jpeg_std_error(&mgr);
        jpeg_create_decompress(&cinfo);
        jpeg_mem_src(&cinfo, b.p, b.len);
        jpeg_read_header(&cinfo, TRUE);
        cinfo.out_color_space = JCS_RGB;
        jpeg_start_decompress(&cinfo);
        check_size(img, 67, 45);
        for (int y = 0; y < 45; y++) {
            jpeg_read_scanlines(&cinfo, &row, 1);
            assert_memory_equal(line, pixel(img, 0, y), sizeof(line));
        }
        jpeg_finish_decompress(&cinfo);
        jpeg_destroy_decompress(&cinfo);
        image_free(img);
        free(b.p);
    }
}

static int over_white(unsigned v, unsigned alpha)
{
    return (int)((v * alpha + 255 * (255 - alpha) + 127) / 255);
}

static int png_expected(int type, int depth, int trns, int x, int y, int c)
{
    bool grey = !(type & PNG_COLOR_MASK_COLOR);
    int alpha_at = grey ? 1 : 3, max = (1 << depth) - 1;
    double v = png_sample(x, y, grey ? 0 : c, depth), a = max;

    if (type == PNG_COLOR_TYPE_PALETTE) {
        int i = (int)png_sample(x, y, 0, depth);
        return over_white(sample(i, i, c), trns ? 255 - (unsigned)i : 255);
    }
    if (type & PNG_COLOR_MASK_ALPHA)
        a = png_sample(x, y, alpha_at, depth);
    return over_white((unsigned)(v * 255 / max + 0.5),
                      (unsigned)(a * 255 / max + 0.5));
}

static void test_png_pixels(void **state)
{
    static const struct {
        int type, depth, trns;
    } rows[] = {
        {PNG_COLOR_TYPE_GRAY, 1, 0},       {PNG_COLOR_TYPE_GRAY, 2, 0},
        {PNG_COLOR_TYPE_GRAY, 4, 0},       {PNG_COLOR_TYPE_GRAY, 8, 0},
        {PNG_COLOR_TYPE_GRAY, 16, 0},      {PNG_COLOR_TYPE_PALETTE, 1, 0},
        {PNG_COLOR_TYPE_PALETTE, 2, 1},    {PNG_COLOR_TYPE_PALETTE, 4, 0},
        {PNG_COLOR_TYPE_PALETTE, 8, 0},    {PNG_COLOR_TYPE_PALETTE, 8, 1},
        {PNG_COLOR_TYPE_RGB, 8, 0},        {PNG_COLOR_TYPE_RGB, 16, 0},
        {PNG_COLOR_TYPE_GRAY_ALPHA, 8, 0}, {PNG_COLOR_TYPE_GRAY_ALPHA, 16, 0},
        {PNG_COLOR_TYPE_RGB_ALPHA, 8, 0},  {PNG_COLOR_TYPE_RGB_ALPHA, 16, 0},
    };

    (void)state;
    for (size_t i = 0; i < 2 * sizeof(rows) / sizeof(*rows); i++) {
        int type = rows[i / 2].type, depth = rows[i / 2].depth;
        int trns = rows[i / 2].trns;
        struct bytes b = make_png(37, 21, type, depth, i % 2, trns);
        struct image *img = must_decode(&b);

        check_size(img, 37, 21);
        for (int at = 0; at < 37 * 21 * 3; at++)
            near(img->rgb[at],
                 png_expected(type, depth, trns, at / 3 % 37, at / 3 / 37,
                              at % 3),
                 0);
        image_free(img);
        free(b.p);
    }
}

static void test_webp_pixels(void **state)
{
    (void)state;
    for (int alpha = 0; alpha < 2; alpha++) {
        struct bytes b = make_webp(40, 24, 1, alpha);
        struct image *img = must_decode(&b);

        check_size(img, 40, 24);
        for (int at = 0; at < 40 * 24 * 3; at++) {
            int x = at / 3 % 40, y = at / 3 / 40;
            near(
                img->rgb[at],
                over_white(sample(x, y, at % 3), alpha ? sample(x, y, 3) : 255),
                0);
        }
        image_free(img);
        free(b.p);
        b = make_webp(40, 24, 0, alpha);
        img = must_decode(&b);
        check_size(img, 40, 24);
        image_free(img);
        free(b.p);
    }
}

/* ---- orientation ---- */

/* Where the upright pixel x,y lies in the stored picture w*h. */
static void stored_at(int orientation, int w, int h, int x, int y, int *sx,
                      int *sy)
{
    const int at[9][2] = {
        {0, 0},         {x, y}, {w - 1 - x, y}, {w - 1 - x, h - 1 - y},
        {x, h - 1 - y}, {y, x}, {y, h - 1 - x}, {w - 1 - y, h - 1 - x},
        {w - 1 - y, x},
    };

    *sx = at[orientation][0];
    *sy = at[orientation][1];
}

static struct bytes make_kind(int kind)
{
    switch (kind) {
    case 0:
        return make_jpeg(50, 38, (struct jpeg_options){0});
    case 1:
        return make_png(50, 38, PNG_COLOR_TYPE_RGB, 8, 0, 0);
    case 2:
        return make_png(50, 38, PNG_COLOR_TYPE_RGB_ALPHA, 8, 1, 0);
    case 3:
        return make_webp(50, 38, 1, 0);
    default:
        return make_webp(50, 38, 1, 1);
    }
}

static struct bytes with_exif(const struct bytes *plain, int kind,
                              const struct bytes *exif)
{
    struct bytes b = {0};

    if (kind >= 3)
        return wrap_webp(plain, kind == 4 ? 8 | 16 : 8, 50, 38, exif);
    bytes_add(&b, plain->p, plain->len);
    if (kind == 0)
        jpeg_add_exif(&b, exif);
    else
        png_insert_exif(&b, exif, kind == 2);
    return b;
}

static void check_orientation(int kind, int orientation, int little)
{
    struct bytes plain = make_kind(kind), exif = make_exif(orientation, little);
    struct bytes b = with_exif(&plain, kind, &exif);
    struct image *stored = must_decode(&plain), *img = must_decode(&b);
    bool known = orientation >= 1 && orientation <= 8, swap;
    int sx, sy;

    orientation = known ? orientation : 1;
    swap = orientation >= 5;
    check_size(stored, 50, 38);
    check_size(img, swap ? 38 : 50, swap ? 50 : 38);
    for (int y = 0; y < img->h; y++)
        for (int x = 0; x < img->w; x++) {
            stored_at(orientation, 50, 38, x, y, &sx, &sy);
            assert_memory_equal(pixel(img, x, y), pixel(stored, sx, sy), 3);
        }
    image_free(stored);
    image_free(img);
    free(plain.p);
    free(exif.p);
    free(b.p);
}

static void test_orientations(void **state)
{
    (void)state;
    for (int kind = 0; kind < 5; kind++)
        for (int orientation = 0; orientation <= 9; orientation++)
            for (int little = 0; little < 2; little++)
                check_orientation(kind, orientation, little);
}

static void test_exif_oddities(void **state)
{
    struct bytes e = make_exif(6, 1);

    (void)state;
    assert_int_equal(image_exif_orientation(e.p, e.len), 6);
    for (size_t len = 0; len < 34; len++) {
        uint8_t *cut = must(malloc(len + !len));
        memcpy(cut, e.p, len);
        assert_int_equal(image_exif_orientation(cut, len), 1);
        free(cut);
    }
    /* Another magic, an offset outside, a count past the end, a wrong type,
     * two values. */
    static const struct {
        size_t at;
        uint8_t value;
    } rows[] = {{0, 'X'}, {1, 'M'}, {2, 0},  {4, 0},  {4, 200},
                {7, 255}, {8, 3},   {24, 4}, {26, 2}, {26, 0},
                {30, 0},  {30, 9},  {31, 1}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        uint8_t was = e.p[rows[i].at];
        e.p[rows[i].at] = rows[i].value;
        assert_int_equal(image_exif_orientation(e.p, e.len), 1);
        e.p[rows[i].at] = was;
    }
    free(e.p);
}

/* ---- damage ---- */

static struct bytes make_sample(int i)
{
    struct bytes exif, plain, b;

    switch (i) {
    case 0:
        return make_jpeg(33, 29, (struct jpeg_options){0});
    case 1:
        return make_jpeg(33, 29, (struct jpeg_options){.progressive = 1});
    case 2:
        return make_jpeg(20, 40, (struct jpeg_options){.components = 1});
    case 3:
        return make_jpeg(40, 40, (struct jpeg_options){.restart = 1});
    case 4:
        return make_png(33, 29, PNG_COLOR_TYPE_RGB, 8, 0, 0);
    case 5:
        return make_png(33, 29, PNG_COLOR_TYPE_PALETTE, 4, 1, 1);
    case 6:
        return make_webp(33, 29, 0, 0);
    case 7:
        return make_webp(33, 29, 1, 0);
    case 8:
        return make_webp(33, 29, 0, 1);
    default:
        plain = make_webp(33, 29, 1, 0);
        exif = make_exif(3, 1);
        b = wrap_webp(&plain, 8, 33, 29, &exif);
        free(plain.p);
        free(exif.p);
        return b;
    }
}

enum {
    N_SAMPLES = 10
};

static void test_cut_at_every_byte(void **state)
{
    (void)state;
    for (int i = 0; i < N_SAMPLES; i++) {
        struct bytes b = make_sample(i);

        image_free(must_decode(&b));
        for (size_t len = 0; len < b.len; len++) {
            struct error err;
            struct image *img = decode_limited(b.p, len, NULL, &err);

            if (img)
                fail_msg("sample %d cut to %zu of %zu bytes was accepted", i,
                         len, b.len);
            if (len >= 12)
                assert_int_equal(err.code, ERR_BAD_IMAGE);
        }
        free(b.p);
    }
}

static void test_trailing_data(void **state)
{
    (void)state;
    for (int i = 0; i < N_SAMPLES; i++) {
        struct bytes b = make_sample(i);

        for (int k = 0; k < 300; k++)
            bytes_add8(&b, (unsigned)(k * 37) & 0xff);
        image_free(must_decode(&b));
        free(b.p);
    }
}

static void test_png_any_byte_changed(void **state)
{
    struct bytes b = make_png(33, 29, PNG_COLOR_TYPE_RGB, 8, 0, 0);
    struct bytes exif = make_exif(6, 1);

    (void)state;
    png_insert_exif(&b, &exif, 0);
    for (size_t at = 0; at < b.len; at++)
        for (int bit = 0; bit < 8; bit += 7) {
            struct error err;

            b.p[at] ^= (uint8_t)(1 << bit);
            if (decode(&b, &err))
                fail_msg("changed byte %zu was accepted", at);
            b.p[at] ^= (uint8_t)(1 << bit);
        }
    image_free(must_decode(&b));
    free(exif.p);
    free(b.p);
}

/* No change of one byte may crash, hang or change the limits' meaning. */
static void test_any_byte_changed(void **state)
{
    (void)state;
    for (int i = 0; i < N_SAMPLES; i++) {
        struct bytes b = make_sample(i);

        for (size_t at = 0; at < b.len; at++)
            for (int v = 0; v < 3; v++) {
                struct image_limits limits = {.max_pixels = 4000};
                uint8_t was = b.p[at];
                struct error err;
                struct image *img;

                b.p[at] = v == 0 ? 0 : v == 1 ? 0xff : (uint8_t)(was ^ 0x10);
                img = decode_limited(b.p, b.len, &limits, &err);
                if (img)
                    assert_true((int64_t)img->w * img->h <= 4000);
                image_free(img);
                b.p[at] = was;
            }
        free(b.p);
    }
}

static void test_jpeg_stray_bytes(void **state)
{
    struct bytes b = make_jpeg(33, 29, (struct jpeg_options){0});
    struct bytes junk = {(uint8_t *)"\0\1\2", 3};

    (void)state;
    bytes_insert(&b, find_sof(&b), &junk);
    image_free(must_decode(&b));
    free(b.p);
}

/* Three components declared, the only scan brings the first: the others would
 * come out flat. */
static void test_jpeg_component_missing(void **state)
{
    struct bytes b = make_jpeg(33, 29, (struct jpeg_options){.split_scans = 1});
    struct bytes out = {0};

    (void)state;
    bytes_add(&out, b.p, find_bytes(&b, "\xff\xda", 2));
    bytes_add(&out, "\xff\xda\0\x08\1\1\0\0\0\0", 10);
    for (int i = 0; i < 40; i++)
        bytes_add8(&out, 0);
    bytes_add(&out, "\xff\xd9", 2);
    refused(&out, ERR_BAD_IMAGE, "a colour component is missing");
    free(out.p);
    free(b.p);
}

/* ---- hostile pictures ---- */

static void refused_at_once(const struct bytes *b)
{
    struct rusage before, after;
    double start;

    getrusage(RUSAGE_SELF, &before);
    start = cpu_ms();
    refused(b, ERR_TOO_LARGE, "65500x65500");
    assert_true(cpu_ms() - start < 5);
    getrusage(RUSAGE_SELF, &after);
    assert_true(after.ru_maxrss - before.ru_maxrss < 1024);
}

static void test_huge_header(void **state)
{
    struct bytes jpeg = make_jpeg(16, 16, (struct jpeg_options){0});
    struct bytes png = make_png(16, 16, PNG_COLOR_TYPE_RGB, 8, 0, 0);
    struct bytes plain = make_webp(16, 16, 1, 0);
    struct bytes webp = wrap_webp(&plain, 0, 65500, 65500, NULL);
    size_t sof = find_sof(&jpeg);
    uint32_t crc;

    (void)state;
    /* VP8L's head: byte 0x2f, then 14 bits each of width-1 and height-1. */
    memcpy(plain.p + 21, "\xff\xff\xff\x0f", 4);
    refused(&plain, ERR_TOO_LARGE, "16384x16384");
    memcpy(jpeg.p + sof + 5, "\xff\xdc\xff\xdc", 4);
    memcpy(png.p + 16, "\0\0\xff\xdc\0\0\xff\xdc", 8);
    crc = png_checksum(png.p + 12, 17);
    for (int i = 0; i < 4; i++)
        png.p[29 + i] = (uint8_t)(crc >> (24 - 8 * i));
    refused_at_once(&jpeg);
    refused_at_once(&png);
    refused_at_once(&webp);
    memcpy(jpeg.p + sof + 5, "\xff\xff\xff\xff", 4);
    refused(&jpeg, ERR_TOO_LARGE, "65500 pixels a side");
    memcpy(jpeg.p + sof + 5, "\0\0\0\x10", 4);
    refused(&jpeg, ERR_BAD_IMAGE, "declares no pixels");
    free(jpeg.p);
    free(png.p);
    free(plain.p);
    free(webp.p);
}

static void test_scan_bomb(void **state)
{
    struct image_limits patient = {.max_scans = 10000, .max_ms = 100};
    struct bytes bomb = make_scan_bomb(5000, 883), b;
    struct image *img;
    struct error err;
    double start = cpu_ms();

    (void)state;
    refused(&bomb, ERR_TOO_LARGE, "more than 64 scans");
    assert_true(cpu_ms() - start < 300);
    /* Where scans are allowed, the clock ends it. */
    start = cpu_ms();
    assert_null(decode_limited(bomb.p, bomb.len, &patient, &err));
    assert_int_equal(err.code, ERR_TOO_LARGE);
    assert_non_null(strstr(err.text, "more than 100 ms"));
    assert_true(cpu_ms() - start < 1000);
    free(bomb.p);

    b = make_scan_bomb(1024, 64);
    image_free(must_decode(&b));
    free(b.p);
    b = make_scan_bomb(1024, 65);
    refused(&b, ERR_TOO_LARGE, "more than 64 scans");
    free(b.p);
    b = make_jpeg(33, 29, (struct jpeg_options){.split_scans = 1});
    refused(&b, ERR_TOO_LARGE, "more than 64 scans");
    patient = (struct image_limits){.max_scans = 190};
    img = decode_limited(b.p, b.len, &patient, &err);
    assert_non_null(img);
    image_free(img);
    free(b.p);
}

static void test_jpeg_unread_codings(void **state)
{
    struct bytes b = make_jpeg(33, 29, (struct jpeg_options){.arithmetic = 1});
    size_t sof;

    (void)state;
    refused(&b, ERR_IMAGE_TYPE, "arithmetic-coded");
    free(b.p);
    b = make_jpeg(33, 29,
                  (struct jpeg_options){.arithmetic = 1, .progressive = 1});
    refused(&b, ERR_IMAGE_TYPE, "arithmetic-coded");
    free(b.p);
    b = make_jpeg(33, 29, (struct jpeg_options){0});
    sof = find_sof(&b);
    b.p[sof + 4] = 12;
    refused(&b, ERR_IMAGE_TYPE, "8 bits a sample");
    b.p[sof + 4] = 8;
    for (const char *type = "\xc3\xc5\xc6\xc7\xcb\xcd\xce\xcf"; *type; type++) {
        b.p[sof + 1] = (uint8_t)*type;
        refused(&b, ERR_IMAGE_TYPE, "lossless or hierarchical");
    }
    free(b.p);
}

static void test_jpeg_colours(void **state)
{
    static const struct {
        int components, ycck, transform;
        enum error_code code;
    } rows[] = {
        {1, 0, 0, ERR_NONE},       {1, 0, 1, ERR_NONE},
        {1, 0, 2, ERR_NONE},       {3, 0, 0, ERR_NONE},
        {3, 0, 1, ERR_NONE},       {3, 0, 2, ERR_IMAGE_TYPE},
        {3, 0, 9, ERR_IMAGE_TYPE}, {4, 0, 0, ERR_IMAGE_TYPE},
        {4, 0, 1, ERR_IMAGE_TYPE}, {4, 0, 2, ERR_IMAGE_TYPE},
        {4, 1, 0, ERR_IMAGE_TYPE}, {4, 1, 1, ERR_IMAGE_TYPE},
        {4, 1, 2, ERR_IMAGE_TYPE},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct jpeg_options o = {
            .components = rows[i].components, .ycck = rows[i].ycck, .adobe = 1};
        struct bytes b = make_jpeg(33, 29, o);
        struct error err;
        struct image *img;

        b.p[find_bytes(&b, "Adobe", 5) + 11] = (uint8_t)rows[i].transform;
        img = decode(&b, &err);
        assert_int_equal(err.code, rows[i].code);
        assert_true((img != NULL) == (rows[i].code == ERR_NONE));
        image_free(img);
        free(b.p);
    }
    struct bytes cmyk =
        make_jpeg(33, 29, (struct jpeg_options){.components = 4});
    refused(&cmyk, ERR_IMAGE_TYPE, "CMYK");
    free(cmyk.p);
}

/* Millions of tiny APP1 must not cost memory. */
static void test_jpeg_many_markers(void **state)
{
    struct bytes b = make_jpeg(33, 29, (struct jpeg_options){0});
    struct bytes many = {0};
    struct rusage before, after;

    (void)state;
    many.len = 4 << 20;
    many.p = must(malloc(many.len));
    for (size_t i = 0; i < many.len; i += 4)
        memcpy(many.p + i, "\xff\xe1\0\2", 4);
    bytes_insert(&b, 2, &many);
    image_free(must_decode(&b)); /* the copies of this test are made */
    getrusage(RUSAGE_SELF, &before);
    image_free(must_decode(&b));
    getrusage(RUSAGE_SELF, &after);
    assert_true(after.ru_maxrss - before.ru_maxrss < 5 << 10);
    free(many.p);
    free(b.p);
}

/* Chunks that are not wanted are passed over, whatever is in them. */
static void test_png_other_chunks(void **state)
{
    struct bytes b = make_png(33, 29, PNG_COLOR_TYPE_RGB, 8, 0, 0);
    struct bytes chunk = {0};

    (void)state;
    png_add_chunk(&chunk, "zTXt", "k\0\0not zlib", 11);
    png_add_chunk(&chunk, "iCCP", "k\0\0not zlib", 11);
    png_add_chunk(&chunk, "gAMA", "\0\0\0\0", 4);
    png_add_chunk(&chunk, "quXx", "private", 7);
    bytes_insert(&b, 33, &chunk);
    image_free(must_decode(&b));
    free(chunk.p);
    chunk = (struct bytes){0};
    png_add_chunk(&chunk, "QUXx", "critical", 8);
    bytes_insert(&b, 33, &chunk);
    refused(&b, ERR_BAD_IMAGE, "the PNG is damaged");
    free(chunk.p);
    free(b.p);
}

static void test_webp_animated(void **state)
{
    struct bytes plain = make_webp(33, 29, 1, 0);
    struct bytes b = wrap_webp(&plain, 2, 33, 29, NULL);

    (void)state;
    refused(&b, ERR_IMAGE_TYPE, "animated");
    free(b.p);
    free(plain.p);
}

static void test_limits(void **state)
{
    static const struct {
        struct image_limits limits;
        enum error_code code;
        const char *text;
    } rows[] = {
        {{.max_bytes = 20}, ERR_TOO_LARGE, "bytes; at most 20 are read"},
        {{.max_pixels = 1899}, ERR_TOO_LARGE, "50x38 pixels; at most 1899"},
        {{.max_side = 49}, ERR_TOO_LARGE, "50x38 pixels; at most 49 a side"},
        {{.min_side = 39}, ERR_BAD_IMAGE, "50x38 pixels; at least 39"},
        {{.max_pixels = 1900, .max_side = 50, .min_side = 38}, ERR_NONE, ""},
    };

    (void)state;
    for (int kind = 0; kind < 5; kind++) {
        struct bytes b = make_kind(kind);

        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
            struct error err;
            struct image *img =
                decode_limited(b.p, b.len, &rows[i].limits, &err);

            assert_int_equal(err.code, rows[i].code);
            assert_non_null(strstr(err.text, rows[i].text));
            assert_true((img != NULL) == (rows[i].code == ERR_NONE));
            image_free(img);
        }
        free(b.p);
    }
    struct error err;
    assert_null(image_new(0, 5, &err));
    assert_null(image_new(70000, 5, &err));
    assert_null(image_new(60000, 60000, &err));
    assert_int_equal(err.code, ERR_TOO_LARGE);
    image_free(NULL);
}

/* ---- photos ---- */

static struct bytes read_file(const char *path)
{
    FILE *f = must(fopen(path, "rb"));
    struct bytes b = {0};
    uint8_t buf[65536];
    size_t n;

    while ((n = fread(buf, 1, sizeof(buf), f)) > 0)
        bytes_add(&b, buf, n);
    fclose(f);
    return b;
}

static void test_photos(void **state)
{
    const char *data = getenv("FACENETD_DATA");
    char folder[512], path[1024];
    struct dirent *entry;
    int n = 0;
    DIR *dir;

    (void)state;
    snprintf(folder, sizeof(folder), "%s/photos",
             data ? data : "../shared/data");
    dir = opendir(folder);
    if (!dir) {
        print_message("skip: no photos in %s\n", folder);
        skip();
    }
    while ((entry = readdir(dir))) {
        if (!strstr(entry->d_name, ".jpg"))
            continue;
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        struct bytes b = read_file(path);
        size_t sof = find_sof(&b);
        int h = b.p[sof + 5] << 8 | b.p[sof + 6];
        int w = b.p[sof + 7] << 8 | b.p[sof + 8];
        struct image *img = must_decode(&b);

        assert_true((img->w == w && img->h == h) ||
                    (img->w == h && img->h == w));
        image_free(img);
        free(b.p);
        n++;
    }
    closedir(dir);
    assert_true(n > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_huge_header),
        cmocka_unit_test(test_wrong_kinds),
        cmocka_unit_test(test_jpeg_pixels),
        cmocka_unit_test(test_jpeg_like_library),
        cmocka_unit_test(test_png_pixels),
        cmocka_unit_test(test_webp_pixels),
        cmocka_unit_test(test_orientations),
        cmocka_unit_test(test_exif_oddities),
        cmocka_unit_test(test_cut_at_every_byte),
        cmocka_unit_test(test_trailing_data),
        cmocka_unit_test(test_png_any_byte_changed),
        cmocka_unit_test(test_any_byte_changed),
        cmocka_unit_test(test_jpeg_stray_bytes),
        cmocka_unit_test(test_jpeg_component_missing),
        cmocka_unit_test(test_scan_bomb),
        cmocka_unit_test(test_jpeg_unread_codings),
        cmocka_unit_test(test_jpeg_colours),
        cmocka_unit_test(test_jpeg_many_markers),
        cmocka_unit_test(test_png_other_chunks),
        cmocka_unit_test(test_webp_animated),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_photos),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
