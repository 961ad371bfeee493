/* core/face/image_webp.c - WebP to RGB: the only user of libwebp. The RIFF
 * frame is checked here, since the decoder alone accepts a file whose tail is
 * missing where the picture itself is complete; and its chunks are walked here
 * for EXIF, which takes no memory however many there are. The picture is fed
 * in slices, so that the CPU clock can be looked at in between. */
#include "core/face/image.h"

#include <stdlib.h>
#include <string.h>

#include <webp/decode.h>

#include "core/face/image_priv.h"

enum {
    LEN_RIFF = 12,      /* "RIFF", size, "WEBP" */
    LEN_CHUNK_HEAD = 8, /* name, size */
    DECODER_BYTES = 6,  /* a pixel: ARGB, and alpha by itself */
    DECODER_BASE = 1 << 20,
    LEN_VP8X = 10,       /* flags, 3 spare, width-1, height-1 */
    MIN_SLICE = 1 << 16, /* bytes */
    MAX_SLICES = 16      /* the decoder starts headers anew with each */
};

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 |
           p[0];
}

/* Bytes of the file proper; what follows it is not looked at. */
static int check_frame(const struct image_source *src, size_t *len,
                       struct error *err)
{
    size_t left, at = LEN_RIFF;

    *len = (size_t)get32(src->bytes + 4) + 8;
    if (*len > src->len_bytes)
        return error_set(err, ERR_BAD_IMAGE, "the WebP is cut short");
    while (at < *len) {
        left = *len - at;
        if (left < LEN_CHUNK_HEAD ||
            get32(src->bytes + at + 4) > left - LEN_CHUNK_HEAD)
            return error_set(err, ERR_BAD_IMAGE,
                             "the WebP is damaged: a chunk goes past its end");
        left = LEN_CHUNK_HEAD + get32(src->bytes + at + 4);
        at += left + (left & 1);
    }
    return 0;
}

/* Of the first EXIF chunk, which stands after the picture. Some writers put
 * JPEG's "Exif\0\0" before the block. The frame has been checked. */
static int find_orientation(const uint8_t *p, size_t len)
{
    size_t at = LEN_RIFF;

    while (at < len) {
        const uint8_t *body = p + at + LEN_CHUNK_HEAD;
        size_t len_body = get32(p + at + 4);

        if (!memcmp(p + at, "EXIF", 4)) {
            if (len_body > 6 && !memcmp(body, "Exif\0\0", 6))
                return image_exif_orientation(body + 6, len_body - 6);
            return image_exif_orientation(body, len_body);
        }
        at += LEN_CHUNK_HEAD + len_body + (len_body & 1);
    }
    return 1;
}

static int status_error(VP8StatusCode status, struct error *err)
{
    switch (status) {
    case VP8_STATUS_OK:
        return 0;
    case VP8_STATUS_OUT_OF_MEMORY:
        return error_set(err, ERR_NOMEM, "no memory to decode the WebP");
    case VP8_STATUS_UNSUPPORTED_FEATURE:
        return error_set(err, ERR_IMAGE_TYPE,
                         "the WebP uses a feature that is not read");
    case VP8_STATUS_SUSPENDED:
    case VP8_STATUS_NOT_ENOUGH_DATA:
        return error_set(err, ERR_BAD_IMAGE,
                         "the WebP is damaged: picture data is missing");
    default:
        return error_set(err, ERR_BAD_IMAGE, "the WebP is damaged");
    }
}

/* The extended head, where there is one, declares the size a second time;
 * the library calls any mismatch damage, so the limits come first. */
static int check_canvas(const struct image_source *src, size_t len,
                        struct error *err)
{
    const uint8_t *body = src->bytes + LEN_RIFF + LEN_CHUNK_HEAD;

    if (len < LEN_RIFF + LEN_CHUNK_HEAD + LEN_VP8X ||
        memcmp(src->bytes + LEN_RIFF, "VP8X", 4))
        return 0;
    return image_source_check(src, "WebP", (get32(body + 3) >> 8) + 1,
                              (get32(body + 6) >> 8) + 1, err);
}

static int check_header(const struct image_source *src, size_t len,
                        WebPBitstreamFeatures *features, struct error *err)
{
    VP8StatusCode status;

    if (check_canvas(src, len, err))
        return -1;
    status = WebPGetFeatures(src->bytes, len, features);
    if (status != VP8_STATUS_OK)
        return status_error(status, err);
    if (image_source_check(src, "WebP", features->width, features->height, err))
        return -1;
    if (features->has_animation)
        return error_set(err, ERR_IMAGE_TYPE,
                         "the WebP is animated; still ones are read");
    return 0;
}

static int feed(const struct image_source *src, size_t len,
                WebPIDecoder *decoder, struct error *err)
{
    size_t slice = len / MAX_SLICES + 1, at = 0;
    VP8StatusCode status = VP8_STATUS_SUSPENDED;

    if (slice < MIN_SLICE)
        slice = MIN_SLICE;
    while (status == VP8_STATUS_SUSPENDED && at < len) {
        if (image_source_late(src))
            return image_source_late_error(src, "WebP", err);
        at = slice < len - at ? at + slice : len;
        status = WebPIUpdate(decoder, src->bytes, at);
    }
    return status_error(status, err);
}

/* libwebp 1.2 calls some lack of memory damage, and crashes on some in the
 * tables of VP8L: so ask for what it will need before it does. */
static int check_memory(int w, int h, struct error *err)
{
    /* Volatile: else the compiler takes success for granted. */
    void *volatile p =
        malloc((size_t)w * (size_t)h * DECODER_BYTES + DECODER_BASE);

    free(p);
    if (!p)
        return error_set(err, ERR_NOMEM, "no memory to decode the WebP");
    return 0;
}

/* Decode into `pixels`, w*h of `channels`. */
static int decode(const struct image_source *src, size_t len, int w, int h,
                  int channels, uint8_t *pixels, struct error *err)
{
    size_t len_row = (size_t)w * (size_t)channels;
    WebPDecoderConfig config;
    WebPIDecoder *decoder;
    int status;

    if (check_memory(w, h, err))
        return -1;
    if (!WebPInitDecoderConfig(&config))
        return error_set(err, ERR_INTERNAL, "libwebp is of another version");
    config.output.colorspace = channels == 4 ? MODE_RGBA : MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = pixels;
    config.output.u.RGBA.stride = (int)len_row;
    config.output.u.RGBA.size = len_row * (size_t)h;
    decoder = WebPIDecode(NULL, 0, &config);
    if (!decoder)
        return error_set(err, ERR_NOMEM, "no memory to decode the WebP");
    status = feed(src, len, decoder, err);
    WebPIDelete(decoder);
    WebPFreeDecBuffer(&config.output);
    return status;
}

struct image *image_webp_decode(const struct image_source *src,
                                struct error *err)
{
    WebPBitstreamFeatures features;
    struct upright up = {0};
    uint8_t *pixels = NULL, *to;
    int channels, w, h, status = -1;
    size_t len;

    if (check_frame(src, &len, err) || check_header(src, len, &features, err))
        return NULL;
    w = features.width;
    h = features.height;
    channels = features.has_alpha ? 4 : 3;
    if (upright_init(&up, w, h, find_orientation(src->bytes, len), err))
        return NULL;
    to = up.img->rgb;
    if (channels == 4 || up.step_x != 3 || up.step_y != w * 3) {
        to = pixels = malloc((size_t)w * (size_t)h * (size_t)channels);
        if (!pixels) {
            error_set(err, ERR_NOMEM, "no memory to decode the WebP");
            goto out;
        }
    }
    if (decode(src, len, w, h, channels, to, err))
        goto out;
    for (int y = 0; pixels && y < h; y++)
        upright_put(&up, y, pixels + (size_t)y * (size_t)w * (size_t)channels,
                    channels);
    status = 0;
out:
    free(pixels);
    if (status) {
        image_free(up.img);
        return NULL;
    }
    return up.img;
}
