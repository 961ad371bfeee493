/* core/face/image_png.c - PNG to RGB and back: the only user of libpng. The
 * size is taken from IHDR before the library sees a byte. Of the other chunks
 * only those that make the picture reach the library, which is told to drop
 * the rest (compressed text and profiles are where its bombs are), and to
 * treat what it calls benign errors and warnings as errors. Errors leave the
 * library by longjmp: the function that calls setjmp changes no local of its
 * own. */
#include "core/face/image.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

#include "core/face/image_priv.h"

enum {
    LEN_SIGNATURE = 8,
    LEN_IHDR = 13,
    LEN_FRAME = 12,            /* of a chunk: length, type, checksum */
    MAX_CHUNK_BYTES = 1 << 20, /* allocated for one chunk */
    MAX_CHUNKS_KEPT = 64,
    CLOCK_EVERY = 16 /* rows between looks at the clock */
};

struct reader {
    png_structp png;
    png_infop info;
    jmp_buf jump;
    const struct image_source *src;
    size_t at; /* next byte to hand to the library */
    struct error *err;
    struct upright up;
    uint8_t *pixels; /* a row, or all rows when interlaced */
    bool no_memory;
};

static _Noreturn void on_error(png_structp png, png_const_charp text)
{
    struct reader *r = png_get_error_ptr(png);

    if (r->no_memory)
        error_set(r->err, ERR_NOMEM, "no memory to decode the PNG");
    else if (text)
        error_set(r->err, ERR_BAD_IMAGE, "the PNG is damaged: %s", text);
    longjmp(r->jump, 1);
}

static png_voidp on_malloc(png_structp png, png_alloc_size_t len)
{
    struct reader *r = png_get_mem_ptr(png);
    void *p = malloc(len);

    if (!p)
        r->no_memory = true;
    return p;
}

static void on_free(png_structp png, png_voidp p)
{
    (void)png;
    free(p);
}

static void on_read(png_structp png, png_bytep out, size_t len)
{
    struct reader *r = png_get_io_ptr(png);

    if (len > r->src->len_bytes - r->at) {
        error_set(r->err, ERR_BAD_IMAGE, "the PNG is cut short");
        on_error(png, NULL);
    }
    memcpy(out, r->src->bytes + r->at, len);
    r->at += len;
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 |
           p[3];
}

static int check_header(const struct image_source *src, struct error *err)
{
    const uint8_t *ihdr = src->bytes + LEN_SIGNATURE;

    if (src->len_bytes < LEN_SIGNATURE + LEN_FRAME + LEN_IHDR)
        return error_set(err, ERR_BAD_IMAGE, "the PNG is cut short");
    if (get32(ihdr) != LEN_IHDR || memcmp(ihdr + 4, "IHDR", 4))
        return error_set(err, ERR_BAD_IMAGE,
                         "the PNG is damaged: it does not start with IHDR");
    return image_source_check(src, "PNG", get32(ihdr + 8), get32(ihdr + 12),
                              err);
}

/* Of the first eXIf chunk, which may stand after the picture. Its checksum is
 * the library's to check as it passes. */
static int find_orientation(const struct image_source *src)
{
    const uint8_t *p = src->bytes + LEN_SIGNATURE;
    size_t left = src->len_bytes - LEN_SIGNATURE;

    while (left >= LEN_FRAME) {
        size_t len = get32(p);

        if (len > left - LEN_FRAME)
            break;
        if (!memcmp(p + 4, "eXIf", 4))
            return image_exif_orientation(p + 8, len);
        if (!memcmp(p + 4, "IEND", 4))
            break;
        p += len + LEN_FRAME;
        left -= len + LEN_FRAME;
    }
    return 1;
}

static void set_strict(struct reader *r)
{
    png_set_benign_errors(r->png, 0);
    png_set_crc_action(r->png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_user_limits(r->png, (png_uint_32)r->src->limits.max_side,
                        (png_uint_32)r->src->limits.max_side);
    png_set_chunk_malloc_max(r->png, MAX_CHUNK_BYTES);
    png_set_chunk_cache_max(r->png, MAX_CHUNKS_KEPT);
    /* -1: every chunk but IHDR, PLTE, tRNS, IDAT and IEND. */
    png_set_keep_unknown_chunks(r->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
}

/* Whatever it is, make it rows of RGB or RGBA, 8 bits each. */
static int set_transforms(struct reader *r)
{
    int n_passes;

    png_set_expand(r->png); /* palette, 1-4 bit grey, tRNS */
    png_set_scale_16(r->png);
    png_set_gray_to_rgb(r->png);
    n_passes = png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
    return n_passes;
}

static int read_rows(struct reader *r, int n_passes)
{
    size_t len_row = png_get_rowbytes(r->png, r->info);
    int channels = png_get_channels(r->png, r->info);
    bool whole = n_passes > 1;

    r->pixels = malloc(whole ? len_row * (size_t)r->up.h : len_row);
    if (!r->pixels)
        return error_set(r->err, ERR_NOMEM, "no memory to decode the PNG");
    for (int pass = 0; pass < n_passes; pass++)
        for (int y = 0; y < r->up.h; y++) {
            uint8_t *row = r->pixels + (whole ? len_row * (size_t)y : 0);

            if (y % CLOCK_EVERY == 0 && image_source_late(r->src))
                return image_source_late_error(r->src, "PNG", r->err);
            png_read_row(r->png, row, NULL);
            if (pass == n_passes - 1)
                upright_put(&r->up, y, row, channels);
        }
    return 0;
}

static int decode(struct reader *r)
{
    if (setjmp(r->jump))
        return -1;
    r->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, r, on_error,
                                      on_error, r, on_malloc, on_free);
    r->info = r->png ? png_create_info_struct(r->png) : NULL;
    if (!r->info)
        return error_set(r->err, ERR_NOMEM, "no memory to decode the PNG");
    set_strict(r);
    png_set_read_fn(r->png, r, on_read);
    png_read_info(r->png, r->info);
    if (upright_init(&r->up, (int)png_get_image_width(r->png, r->info),
                     (int)png_get_image_height(r->png, r->info),
                     find_orientation(r->src), r->err))
        return -1;
    if (read_rows(r, set_transforms(r)))
        return -1;
    png_read_end(r->png, NULL); /* checksums up to IEND */
    return 0;
}

struct image *image_png_decode(const struct image_source *src,
                               struct error *err)
{
    struct reader r = {.src = src, .err = err};
    int status;

    if (check_header(src, err))
        return NULL;
    status = decode(&r);
    png_destroy_read_struct(&r.png, &r.info, NULL);
    free(r.pixels);
    if (status) {
        image_free(r.up.img);
        return NULL;
    }
    return r.up.img;
}

struct writer {
    png_structp png;
    png_infop info;
    jmp_buf jump;
    struct error *err;
    uint8_t *out;
    size_t len, cap;
};

static _Noreturn void on_write_error(png_structp png, png_const_charp text)
{
    struct writer *w = png_get_error_ptr(png);

    if (text)
        error_set(w->err, ERR_NOMEM, "a PNG cannot be written: %s", text);
    longjmp(w->jump, 1);
}

static void on_write(png_structp png, png_bytep bytes, size_t len)
{
    struct writer *w = png_get_io_ptr(png);

    if (len > w->cap - w->len) {
        size_t cap = 2 * (w->len + len);
        uint8_t *out = realloc(w->out, cap);
        if (!out)
            on_write_error(png, "no memory");
        w->out = out;
        w->cap = cap;
    }
    memcpy(w->out + w->len, bytes, len);
    w->len += len;
}

static void on_flush(png_structp png)
{
    (void)png;
}

static int encode(struct writer *w, const struct image *img)
{
    if (setjmp(w->jump))
        return -1;
    w->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, w, on_write_error,
                                     on_write_error);
    w->info = w->png ? png_create_info_struct(w->png) : NULL;
    if (!w->info)
        return error_set(w->err, ERR_NOMEM, "no memory to write a PNG");
    png_set_write_fn(w->png, w, on_write, on_flush);
    png_set_IHDR(w->png, w->info, (png_uint_32)img->w, (png_uint_32)img->h, 8,
                 PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(w->png, w->info);
    for (int y = 0; y < img->h; y++)
        png_write_row(w->png, img->rgb + (size_t)y * (size_t)img->w * 3);
    png_write_end(w->png, NULL);
    return 0;
}

int image_encode_png(const struct image *img, uint8_t **out, size_t *len_out,
                     struct error *err)
{
    struct writer w = {.err = err};
    int status = encode(&w, img);

    png_destroy_write_struct(&w.png, &w.info);
    if (status) {
        free(w.out);
        return -1;
    }
    *out = w.out;
    *len_out = w.len;
    return 0;
}
