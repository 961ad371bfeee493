/* tests/unit/test_image_memory.c - memory runs out at every place where a
 * decode or an encode asks for some: the answer is an error, and nothing is
 * left behind. malloc and free are replaced here, so sanitisers, which replace
 * them too, skip this. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/face/image.h"
#include "tests/make_image.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITISED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITISED
#endif

static long n_calls, fail_at; /* fail_at 0: count only */
static long n_live;
static bool armed;

#ifndef SANITISED
void *__libc_malloc(size_t len);
void *__libc_calloc(size_t n, size_t len);
void *__libc_realloc(void *p, size_t len);
void __libc_free(void *p);

static bool refuse(void)
{
    return armed && ++n_calls == fail_at;
}

static void *count(void *p)
{
    if (armed && p)
        n_live++;
    return p;
}

void *malloc(size_t len)
{
    return refuse() ? NULL : count(__libc_malloc(len));
}

void *calloc(size_t n, size_t len)
{
    return refuse() ? NULL : count(__libc_calloc(n, len));
}

void *realloc(void *p, size_t len)
{
    if (refuse())
        return NULL;
    return p ? __libc_realloc(p, len) : count(__libc_realloc(p, len));
}

void free(void *p)
{
    if (armed && p)
        n_live--;
    __libc_free(p);
}
#endif

static void skip_where_replaced(void)
{
#ifdef SANITISED
    print_message("skip: malloc belongs to the sanitiser\n");
    skip();
#endif
}

static void arm(long at)
{
    n_calls = n_live = 0;
    fail_at = at;
    armed = true;
}

/* Fail each request in turn, until a run makes fewer, or up to `last`.
 * libjpeg tries again with less before it gives up, so a run may survive. */
static void fail_each(const struct bytes *b, long last)
{
    bool reached = true;
    long n_failed = 0;

    for (long at = 1; reached && at <= last; at++) {
        struct error err = {0};
        struct image *img;

        arm(at);
        img = image_decode(b->p, b->len, NULL, &err);
        reached = n_calls >= at;
        image_free(img);
        armed = false;
        assert_int_equal(n_live, 0);
        assert_true(reached || img);
        if (!img) {
            assert_int_equal(err.code, ERR_NOMEM);
            n_failed++;
        }
    }
    assert_true(n_failed >= 3);
}

static void test_decode(void **state)
{
    struct bytes exif;

    (void)state;
    skip_where_replaced();
    exif = make_exif(6, 1);
    for (int i = 0; i < 6; i++) {
        struct bytes b =
            i == 0 ? make_jpeg(33, 29, (struct jpeg_options){0})
            : i == 1
                ? make_jpeg(33, 29, (struct jpeg_options){.progressive = 1})
            : i == 2 ? make_png(33, 29, PNG_COLOR_TYPE_RGB, 8, 0, 0)
            : i == 3 ? make_png(33, 29, PNG_COLOR_TYPE_PALETTE, 4, 1, 1)
            : i == 4 ? make_webp(33, 29, 0, 0)
                     : make_webp(33, 29, 1, 1);

        if (i < 2)
            jpeg_add_exif(&b, &exif);
        /* Of WebP only what we ask for ourselves: libwebp crashes. */
        fail_each(&b, i >= 4 ? 3 : LONG_MAX);
        free(b.p);
    }
    free(exif.p);
}

static void test_encode(void **state)
{
    struct error err;
    struct image *img;
    bool reached = true;
    long n_failed = 0;

    (void)state;
    skip_where_replaced();
    img = must(image_new(150, 150, &err));
    for (int i = 0; i < 150 * 150 * 3; i++)
        img->rgb[i] = (uint8_t)((unsigned)i * 2654435761u >> 24);
    for (long at = 1; reached; at++) {
        uint8_t *out = NULL;
        size_t len = 0;
        int status;

        arm(at);
        status = image_encode_jpeg(img, 100, &out, &len, &err);
        reached = n_calls >= at;
        free(out);
        armed = false;
        assert_int_equal(n_live, 0);
        assert_true(reached || !status);
        if (status) {
            assert_int_equal(err.code, ERR_NOMEM);
            n_failed++;
        }
    }
    assert_true(n_failed >= 3);
    image_free(img);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_encode),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
