/* tests/fuzz/fuzz_image.c - any bytes as a photo, or, where they begin so, as
 * PGM or PPM. What is decoded keeps to the limits, what is not says why, and
 * neither takes more than a second of CPU time. Every pixel is read, so that a
 * sanitiser sees where the picture is smaller than it says. The seeds are made
 * here: the mutator starts from one now and then and mends the checksums of a
 * PNG, which would stop all else. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/face/image.h"
#include "tests/make_image.h"

enum {
    N_SEEDS = 22,
    MAX_PIXELS = 1 << 20,
    MAX_SIDE = 4096
};

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max,
                               unsigned seed);

static struct bytes seeds[N_SEEDS];
static volatile unsigned sink; /* where every pixel goes */

static struct bytes seed_webp_exif(void)
{
    struct bytes plain = make_webp(20, 17, 1, 1), exif = make_exif(7, 1);
    struct bytes b = wrap_webp(&plain, 8 | 16, 20, 17, &exif);

    free(plain.p);
    free(exif.p);
    return b;
}

static struct bytes seed_pnm(const char *magic, int channels)
{
    struct bytes b = {0};
    char head[64];

    snprintf(head, sizeof(head), "%s\n# made\n20 17\n255\n", magic);
    bytes_add(&b, head, strlen(head));
    for (int i = 0; i < 20 * 17 * channels; i++)
        bytes_add8(&b, sample(i % 20, i / 20, i % channels));
    return b;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const struct jpeg_options jpegs[] = {
        {0},
        {.components = 1},
        {.progressive = 1},
        {.progressive = 1, .components = 1},
        {.restart = 1, .full_chroma = 1},
        {.adobe = 1},
        {.components = 4},
        {.arithmetic = 1},
    };
    static const int pngs[][4] = {
        {PNG_COLOR_TYPE_RGB, 8, 0, 0},
        {PNG_COLOR_TYPE_RGB, 16, 1, 0},
        {PNG_COLOR_TYPE_PALETTE, 4, 0, 1},
        {PNG_COLOR_TYPE_PALETTE, 8, 1, 0},
        {PNG_COLOR_TYPE_GRAY, 1, 0, 0},
        {PNG_COLOR_TYPE_GRAY_ALPHA, 8, 1, 0},
        {PNG_COLOR_TYPE_RGB_ALPHA, 8, 0, 0},
    };
    struct bytes exif = make_exif(6, 0);
    size_t n = 0;

    (void)argc;
    (void)argv;
    for (size_t i = 0; i < sizeof(jpegs) / sizeof(*jpegs); i++)
        seeds[n++] = make_jpeg(20, 17, jpegs[i]);
    jpeg_add_exif(&seeds[0], &exif);
    for (size_t i = 0; i < sizeof(pngs) / sizeof(*pngs); i++)
        seeds[n++] =
            make_png(20, 17, pngs[i][0], pngs[i][1], pngs[i][2], pngs[i][3]);
    png_insert_exif(&seeds[n - 1], &exif, 1);
    seeds[n++] = make_webp(20, 17, 0, 0);
    seeds[n++] = make_webp(20, 17, 0, 1);
    seeds[n++] = make_webp(20, 17, 1, 0);
    seeds[n++] = seed_webp_exif();
    seeds[n++] = make_scan_bomb(1024, 12);
    seeds[n++] = seed_pnm("P5", 1);
    seeds[n++] = seed_pnm("P6", 3);
    if (n != N_SEEDS)
        abort();
    free(exif.p);
    return 0;
}

static void mend_png(uint8_t *p, size_t len)
{
    size_t at = 8;

    if (len < 8 || memcmp(p, "\x89PNG", 4))
        return;
    while (len - at >= 12) {
        size_t n = (size_t)p[at] << 24 | (size_t)p[at + 1] << 16 |
                   (size_t)p[at + 2] << 8 | p[at + 3];
        uint32_t crc;

        if (n > len - at - 12)
            return;
        crc = png_checksum(p + at + 4, n + 4);
        for (int i = 0; i < 4; i++)
            p[at + 8 + n + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
        at += n + 12;
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max,
                               unsigned seed)
{
    const struct bytes *fresh = &seeds[seed / 32 % N_SEEDS];

    if (seed % 32 == 0 && fresh->len <= max) {
        memcpy(data, fresh->p, fresh->len);
        len = fresh->len;
    }
    len = LLVMFuzzerMutate(data, len, max);
    if (seed % 8)
        mend_png(data, len);
    return len;
}

static int64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct image_limits limits = {.max_pixels = MAX_PIXELS,
                                  .max_side = MAX_SIDE,
                                  .min_side = 1,
                                  .max_ms = 500};
    struct error err = {0};
    int64_t start = cpu_ns();
    bool pnm = len > 1 && data[0] == 'P' && (data[1] == '5' || data[1] == '6');
    struct image *img = pnm ? image_decode_pnm(data, len, &limits, &err)
                            : image_decode(data, len, &limits, &err);

    if (cpu_ns() - start > 1000000000)
        abort();
    if (!img) {
        if (err.code != ERR_BAD_IMAGE && err.code != ERR_IMAGE_TYPE &&
            err.code != ERR_TOO_LARGE)
            abort();
        if (!err.text[0])
            abort();
        return 0;
    }
    if (img->w < 1 || img->h < 1 || img->w > MAX_SIDE || img->h > MAX_SIDE ||
        (int64_t)img->w * img->h > MAX_PIXELS)
        abort();
    for (size_t i = 0; i < (size_t)img->w * (size_t)img->h * 3; i++)
        sink += img->rgb[i];
    image_free(img);
    return 0;
}
