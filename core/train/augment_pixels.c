/* core/train/augment_pixels.c - what light, lens, sensor, compression and
 * hands before the face do to a crop, in that order, from numbers drawn
 * before. augment.c calls it with a crop of its own. */
#include "core/train/augment_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/train/random.h"

enum {
    MOST_RADIUS = 64,
    MOST_SIDE = 4096 /* of a crop, as align has it */
};

static size_t n_samples(const struct image *img)
{
    return (size_t)img->w * (size_t)img->h * 3;
}

/* Lengths are given at a crop of 112. */
static float size_of(const struct image *img)
{
    return (float)(img->w < img->h ? img->w : img->h) / 112;
}

static uint8_t to_byte(float v)
{
    return v <= 0 ? 0 : v >= 255 ? 255 : (uint8_t)(v + 0.5f);
}

static void flip(struct image *img)
{
    for (int y = 0; y < img->h; y++) {
        uint8_t *a = img->rgb + (size_t)y * (size_t)img->w * 3;
        uint8_t *b = a + ((size_t)img->w - 1) * 3;
        for (; a < b; a += 3, b -= 3)
            for (int k = 0; k < 3; k++) {
                uint8_t t = a[k];
                a[k] = b[k];
                b[k] = t;
            }
    }
}

static void light(struct image *img, float gain, float offset)
{
    uint8_t table[256];
    size_t n = n_samples(img);

    for (int v = 0; v < 256; v++)
        table[v] = to_byte(128 + offset + gain * ((float)v - 128));
    for (size_t i = 0; i < n; i++)
        img->rgb[i] = table[img->rgb[i]];
}

static void grey(struct image *img)
{
    size_t n = n_samples(img);

    /* Luma of ITU-R BT.601 0.299 0.587 0.114 in 16384ths. */
    for (uint8_t *p = img->rgb; p < img->rgb + n; p += 3)
        p[0] = p[1] = p[2] =
            (uint8_t)((4899u * p[0] + 9617u * p[1] + 1868u * p[2] + 8192) >>
                      14);
}

/* half[0..radius] of a symmetric kernel of sum 1. */
static int make_kernel(float sigma, float half[MOST_RADIUS + 1])
{
    int radius = (int)ceilf(3 * sigma);
    float sum = 0;

    radius = radius < MOST_RADIUS ? radius : MOST_RADIUS;
    for (int i = 0; i <= radius; i++) {
        half[i] = expf(-(float)(i * i) / (2 * sigma * sigma));
        sum += i ? 2 * half[i] : half[i];
    }
    for (int i = 0; i <= radius; i++)
        half[i] /= sum;
    return radius;
}

/* Three times bytes side by side, so that loops run over many at once. */
static void blur_rows(const struct image *img, const float *half, int radius,
                      float *padded, float *sum, uint8_t *out)
{
    size_t len = (size_t)img->w * 3, pad = (size_t)radius * 3;

    for (int y = 0; y < img->h; y++) {
        const uint8_t *row = img->rgb + (size_t)y * len;
        for (size_t i = 0; i < len; i++)
            padded[pad + i] = row[i];
        for (size_t i = 0; i < pad; i++) {
            padded[i] = row[i % 3];
            padded[pad + len + i] = row[len - 3 + i % 3];
        }
        for (size_t i = 0; i < len; i++)
            sum[i] = half[0] * padded[pad + i];
        for (int k = 1; k <= radius; k++) {
            const float *left = padded + pad - (size_t)k * 3;
            const float *right = padded + pad + (size_t)k * 3;
            for (size_t i = 0; i < len; i++)
                sum[i] += half[k] * (left[i] + right[i]);
        }
        for (size_t i = 0; i < len; i++)
            out[(size_t)y * len + i] = (uint8_t)(sum[i] + 0.5f);
    }
}

static void blur_columns(const uint8_t *from, const float *half, int radius,
                         float *sum, struct image *img)
{
    size_t len = (size_t)img->w * 3;

    for (int y = 0; y < img->h; y++) {
        uint8_t *row = img->rgb + (size_t)y * len;
        for (size_t i = 0; i < len; i++)
            sum[i] = half[0] * (float)from[(size_t)y * len + i];
        for (int k = 1; k <= radius; k++) {
            int above = y - k > 0 ? y - k : 0;
            int below = y + k < img->h - 1 ? y + k : img->h - 1;
            const uint8_t *a = from + (size_t)above * len;
            const uint8_t *b = from + (size_t)below * len;
            for (size_t i = 0; i < len; i++)
                sum[i] += half[k] * (float)(a[i] + b[i]);
        }
        for (size_t i = 0; i < len; i++)
            row[i] = (uint8_t)(sum[i] + 0.5f);
    }
}

/* Edges are continued by their last pixel. */
static int blur(struct image *img, float sigma, struct error *err)
{
    float half[MOST_RADIUS + 1];
    int radius = make_kernel(sigma, half);
    size_t len = (size_t)img->w * 3, n = n_samples(img);
    float *room = malloc((2 * len + (size_t)radius * 6) * sizeof(*room));
    uint8_t *rows = malloc(n);
    int rc = 0;

    if (room && rows) {
        blur_rows(img, half, radius, room + len, room, rows);
        blur_columns(rows, half, radius, room, img);
    } else {
        rc = error_set(err, ERR_NOMEM, "no memory to blur a crop");
    }
    free(room);
    free(rows);
    return rc;
}

static int shrink(struct image *img, float side, struct error *err)
{
    float part = side / 112;
    int w = (int)((float)img->w * part + 0.5f);
    int h = (int)((float)img->h * part + 0.5f);
    struct image *small;

    w = w > 0 ? w : 1;
    h = h > 0 ? h : 1;
    small = image_new(w, h, err);
    if (!small)
        return -1;
    image_resize(img, 0, 0, img->w, img->h, small->rgb, w, h, (size_t)w * 3);
    image_resize(small, 0, 0, w, h, img->rgb, img->w, img->h,
                 (size_t)img->w * 3);
    image_free(small);
    return 0;
}

/* Normal enough: the sum of four uniform numbers, variance 4/12. */
static void noise(struct image *img, float sigma, uint64_t seed)
{
    size_t n = n_samples(img);
    float scale = sigma * sqrtf(3) / 65536;

    for (size_t i = 0; i < n; i++) {
        uint64_t r = random_next(&seed);
        int sum = (int)((r & 0xffff) + (r >> 16 & 0xffff) + (r >> 32 & 0xffff) +
                        (r >> 48));
        img->rgb[i] =
            to_byte((float)img->rgb[i] + scale * (float)(sum - 2 * 65535));
    }
}

static int jpeg(struct image *img, int quality, struct error *err)
{
    const struct image_limits any = {.min_side = 1,
                                     .max_side = MOST_SIDE,
                                     .max_bytes = SIZE_MAX,
                                     .max_ms = 60000};
    struct image *back;
    uint8_t *bytes;
    size_t len;

    if (image_encode_jpeg(img, quality, &bytes, &len, err))
        return -1;
    back = image_decode(bytes, len, &any, err);
    free(bytes);
    if (!back)
        return -1;
    memcpy(img->rgb, back->rgb, n_samples(img));
    image_free(back);
    return 0;
}

static void erase(struct image *img, const struct augment_draw *d)
{
    int x0 = (int)(d->erase_x * (float)img->w);
    int y0 = (int)(d->erase_y * (float)img->h);
    int w = (int)ceilf(d->erase_w * (float)img->w);
    int h = (int)ceilf(d->erase_h * (float)img->h);

    w = w < img->w - x0 ? w : img->w - x0;
    h = h < img->h - y0 ? h : img->h - y0;
    for (int y = y0; y < y0 + h; y++)
        memset(img->rgb + ((size_t)y * (size_t)img->w + (size_t)x0) * 3,
               d->erase_value, (size_t)w * 3);
}

int augment_pixels(struct image *img, const struct augment_draw *d,
                   struct error *err)
{
    if (d->flip)
        flip(img);
    if (d->gain > 0)
        light(img, d->gain, d->offset);
    if (d->grey)
        grey(img);
    if (d->blur > 0 && blur(img, d->blur * size_of(img), err))
        return -1;
    if (d->shrink > 0 && shrink(img, d->shrink, err))
        return -1;
    if (d->noise > 0)
        noise(img, d->noise, d->noise_seed);
    if (d->quality > 0 && jpeg(img, d->quality, err))
        return -1;
    if (d->erase_w > 0)
        erase(img, d);
    return 0;
}
