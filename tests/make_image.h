/* tests/make_image.h - pictures for tests, written by the codecs' own
 * libraries or byte by byte, so that no test needs a file. Any failure here
 * aborts: it is the test that is broken. */
#ifndef TESTS_MAKE_IMAGE_H
#define TESTS_MAKE_IMAGE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>
#include <webp/encode.h>

struct bytes {
    uint8_t *p;
    size_t len;
};

static inline void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

static inline void bytes_add(struct bytes *b, const void *p, size_t len)
{
    b->p = must(realloc(b->p, b->len + len + 1));
    memcpy(b->p + b->len, p, len);
    b->len += len;
}

static inline void bytes_add8(struct bytes *b, unsigned value)
{
    uint8_t byte = (uint8_t)value;
    bytes_add(b, &byte, 1);
}

static inline void bytes_add16(struct bytes *b, unsigned value)
{
    bytes_add8(b, value >> 8);
    bytes_add8(b, value);
}

static inline void bytes_insert(struct bytes *b, size_t at,
                                const struct bytes *part)
{
    struct bytes out = {0};
    bytes_add(&out, b->p, at);
    bytes_add(&out, part->p, part->len);
    bytes_add(&out, b->p + at, b->len - at);
    free(b->p);
    *b = out;
}

/* Unlike in each channel, along each axis and at each corner. */
static inline uint8_t sample(int x, int y, int c)
{
    return (uint8_t)(x * 7 + y * (3 + 2 * c) + c * 40);
}

struct jpeg_options {
    int components;  /* 1, 3 (default), 4 */
    int progressive; /* the library's own script */
    int split_scans; /* every AC coefficient its own scan: 190 of them */
    int arithmetic;
    int adobe; /* with an Adobe marker, without JFIF's */
    int ycck;
    int restart;     /* MCUs between restart markers */
    int full_chroma; /* 4:4:4 instead of 4:2:0 */
};

static inline void split_script(struct jpeg_compress_struct *cinfo,
                                jpeg_scan_info *script)
{
    int n = 0;

    script[n++] = (jpeg_scan_info){.comps_in_scan = cinfo->num_components,
                                   .component_index = {0, 1, 2}};
    for (int c = 0; c < cinfo->num_components; c++)
        for (int k = 1; k < 64; k++)
            script[n++] = (jpeg_scan_info){
                .comps_in_scan = 1, .component_index = {c}, .Ss = k, .Se = k};
    cinfo->scan_info = script;
    cinfo->num_scans = n;
}

static inline struct bytes make_jpeg(int w, int h, struct jpeg_options o)
{
    struct jpeg_compress_struct cinfo;
    struct jpeg_error_mgr mgr;
    jpeg_scan_info script[190];
    unsigned char *out = NULL;
    unsigned long len = 0;
    struct bytes b = {0};
    int n = o.components ? o.components : 3;
    uint8_t *row = must(malloc((size_t)w * 4));

    cinfo.err = jpeg_std_error(&mgr);
    jpeg_create_compress(&cinfo);
    jpeg_mem_dest(&cinfo, &out, &len);
    cinfo.image_width = (JDIMENSION)w;
    cinfo.image_height = (JDIMENSION)h;
    cinfo.input_components = n;
    cinfo.in_color_space = n == 1 ? JCS_GRAYSCALE : n == 3 ? JCS_RGB : JCS_CMYK;
    jpeg_set_defaults(&cinfo);
    jpeg_set_quality(&cinfo, 90, TRUE);
    if (o.ycck)
        jpeg_set_colorspace(&cinfo, JCS_YCCK);
    if (o.full_chroma)
        cinfo.comp_info[0].h_samp_factor = cinfo.comp_info[0].v_samp_factor = 1;
    if (o.progressive)
        jpeg_simple_progression(&cinfo);
    if (o.split_scans)
        split_script(&cinfo, script);
    if (o.adobe) {
        cinfo.write_Adobe_marker = TRUE;
        cinfo.write_JFIF_header = FALSE;
    }
    cinfo.arith_code = o.arithmetic != 0;
    cinfo.restart_interval = (unsigned)o.restart;
    jpeg_start_compress(&cinfo, TRUE);
    for (int y = 0; y < h; y++) {
        for (int i = 0; i < w * n; i++)
            row[i] = sample(i / n, y, i % n);
        jpeg_write_scanlines(&cinfo, &row, 1);
    }
    jpeg_finish_compress(&cinfo);
    jpeg_destroy_compress(&cinfo);
    bytes_add(&b, out, len);
    free(out);
    free(row);
    return b;
}

static inline size_t find_bytes(const struct bytes *b, const char *what,
                                size_t len)
{
    for (size_t i = 0; i + len <= b->len; i++)
        if (!memcmp(b->p + i, what, len))
            return i;
    abort();
}

/* Offset of the SOF marker's 0xff. */
static inline size_t find_sof(const struct bytes *jpeg)
{
    size_t at = 2;

    while (at + 4 <= jpeg->len) {
        uint8_t m = jpeg->p[at + 1];
        if (m >= 0xc0 && m <= 0xcf && m != 0xc4 && m != 0xc8 && m != 0xcc)
            return at;
        at += 2 + ((size_t)jpeg->p[at + 2] << 8 | jpeg->p[at + 3]);
    }
    abort();
}

struct bits {
    struct bytes *out;
    unsigned acc;
    int n;
};

static inline void put_bits(struct bits *b, unsigned value, int n)
{
    while (n--) {
        b->acc = b->acc << 1 | (value >> n & 1);
        if (++b->n < 8)
            continue;
        bytes_add8(b->out, b->acc & 0xff);
        if ((b->acc & 0xff) == 0xff)
            bytes_add8(b->out, 0);
        b->n = 0;
    }
}

static inline void put_scan_head(struct bytes *b, int k, int high, int low)
{
    bytes_add(b, "\xff\xda\0\x08\1\1\0", 7);
    bytes_add8(b, (unsigned)k);
    bytes_add8(b, (unsigned)k);
    bytes_add8(b, (unsigned)(high << 4 | low));
}

/* A valid grey progressive JPEG, side*side, whose AC scans say "nothing
 * here" in a few bytes each, by end-of-band runs: 14 bit planes of 63
 * coefficients, so at most 883 scans, each a pass over the picture. */
static inline struct bytes make_scan_bomb(int side, int n_scans)
{
    static const char tables[] =
        "\xff\xc4\0\x14\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
        "\xff\xc4\0\x14\x10\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xe0";
    int n_blocks = ((side + 7) / 8) * ((side + 7) / 8), k = 1, low = 13;
    struct bytes b = {0};
    struct bits bits = {.out = &b};

    bytes_add(&b, "\xff\xd8\xff\xdb\0\x43\0", 7);
    for (int i = 0; i < 64; i++)
        bytes_add8(&b, 1);
    bytes_add(&b, "\xff\xc2\0\x0b\x08", 5);
    bytes_add16(&b, (unsigned)side);
    bytes_add16(&b, (unsigned)side);
    bytes_add(&b, "\1\1\x11\0", 4);
    bytes_add(&b, tables, sizeof(tables) - 1);
    put_scan_head(&b, 0, 0, 0);
    for (int i = 0; i < n_blocks; i++)
        put_bits(&bits, 0, 1);
    put_bits(&bits, 0x7f, bits.n ? 8 - bits.n : 0);
    for (int scan = 1; scan < n_scans; scan++) {
        put_scan_head(&b, k, low == 13 ? 0 : low + 1, low);
        for (int left = n_blocks; left > 0;) {
            int run = left < 32767 ? left : 32767;
            if (run < 16384) /* the table has runs of 2^14 and more only */
                abort();
            put_bits(&bits, (unsigned)(run - 16384), 15);
            left -= run;
        }
        put_bits(&bits, 0x7f, bits.n ? 8 - bits.n : 0);
        if (++k == 64) {
            k = 1;
            low--;
        }
    }
    bytes_add(&b, "\xff\xd9", 2);
    return b;
}

static inline void png_to_bytes(png_structp png, png_bytep p, size_t len)
{
    bytes_add(png_get_io_ptr(png), p, len);
}

static inline void png_no_flush(png_structp png)
{
    (void)png;
}

/* Value of a PNG's sample before packing, 0 .. 2^depth-1. */
static inline unsigned png_sample(int x, int y, int c, int depth)
{
    unsigned v = sample(x, y, c);
    if (depth == 16)
        return v << 8 | (uint8_t)(v * 5 + 3);
    return v >> (8 - depth);
}

/* type is PNG_COLOR_TYPE_*. A palette holds entry i = sample(i,i,c), and with
 * `trns` alpha 255 - i. */
static inline struct bytes make_png(int w, int h, int type, int depth,
                                    int interlaced, int trns)
{
    png_structp png =
        must(png_create_write_struct(PNG_LIBPNG_VER_STRING, 0, 0, 0));
    png_infop info = must(png_create_info_struct(png));
    int palette = type == PNG_COLOR_TYPE_PALETTE;
    int n = palette || type == PNG_COLOR_TYPE_GRAY ? 1
            : type == PNG_COLOR_TYPE_GRAY_ALPHA    ? 2
            : type == PNG_COLOR_TYPE_RGB           ? 3
                                                   : 4;
    size_t len_row = ((size_t)w * (size_t)(n * depth) + 7) / 8;
    struct bytes b = {0};
    png_color colors[256];
    png_byte alpha[256];
    png_bytepp rows = must(malloc((size_t)h * sizeof(*rows)));

    png_set_write_fn(png, &b, png_to_bytes, png_no_flush);
    png_set_IHDR(png, info, (png_uint_32)w, (png_uint_32)h, depth, type,
                 interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    for (int i = 0; i < 256; i++) {
        colors[i] =
            (png_color){sample(i, i, 0), sample(i, i, 1), sample(i, i, 2)};
        alpha[i] = (png_byte)(255 - i);
    }
    if (palette)
        png_set_PLTE(png, info, colors, 1 << depth);
    if (palette && trns)
        png_set_tRNS(png, info, alpha, 1 << depth, NULL);
    for (int y = 0; y < h; y++) {
        rows[y] = must(calloc(1, len_row));
        for (int i = 0; i < w * n; i++) {
            unsigned v = png_sample(i / n, y, i % n, depth);
            int bit = i * depth;
            if (depth == 16) {
                rows[y][i * 2] = (png_byte)(v >> 8);
                rows[y][i * 2 + 1] = (png_byte)v;
            } else {
                rows[y][bit / 8] |= (png_byte)(v << (8 - depth - bit % 8));
            }
        }
    }
    png_set_rows(png, info, rows);
    png_write_png(png, info, PNG_TRANSFORM_IDENTITY, NULL);
    png_destroy_write_struct(&png, &info);
    for (int y = 0; y < h; y++)
        free(rows[y]);
    free(rows);
    return b;
}

static inline uint32_t png_checksum(const uint8_t *p, size_t len)
{
    uint32_t crc = 0xffffffff;

    while (len--) {
        crc ^= *p++;
        for (int i = 0; i < 8; i++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

static inline void png_add_chunk(struct bytes *b, const char *type,
                                 const void *body, size_t len)
{
    size_t at = b->len + 4;
    uint32_t crc;

    bytes_add16(b, (unsigned)(len >> 16));
    bytes_add16(b, (unsigned)len);
    bytes_add(b, type, 4);
    bytes_add(b, body, len);
    crc = png_checksum(b->p + at, len + 4);
    bytes_add16(b, crc >> 16);
    bytes_add16(b, crc & 0xffff);
}

/* Lossless WebP keeps every value; alpha is sample(x,y,3). */
static inline struct bytes make_webp(int w, int h, int lossless, int alpha)
{
    WebPConfig config;
    WebPPicture pic;
    WebPMemoryWriter writer;
    struct bytes b = {0};
    uint8_t *px = must(malloc((size_t)w * (size_t)h * 4));

    if (!WebPConfigInit(&config) || !WebPPictureInit(&pic))
        abort();
    for (int i = 0; i < w * h * 4; i++)
        px[i] =
            i % 4 == 3 && !alpha ? 255 : sample(i / 4 % w, i / 4 / w, i % 4);
    WebPMemoryWriterInit(&writer);
    config.lossless = lossless;
    config.exact = 1;
    pic.use_argb = lossless;
    pic.width = w;
    pic.height = h;
    pic.writer = WebPMemoryWrite;
    pic.custom_ptr = &writer;
    if (!WebPPictureImportRGBA(&pic, px, w * 4) || !WebPEncode(&config, &pic))
        abort();
    bytes_add(&b, writer.mem, writer.size);
    WebPMemoryWriterClear(&writer);
    WebPPictureFree(&pic);
    free(px);
    return b;
}

static inline void put32le(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

/* A simple WebP with a VP8X head (flags: 2 animation, 8 EXIF, 16 alpha) that
 * declares w*h, and an EXIF chunk where exif is given. */
static inline struct bytes wrap_webp(const struct bytes *simple, unsigned flags,
                                     int w, int h, const struct bytes *exif)
{
    struct bytes b = {0};
    uint8_t head[18] = "VP8X\x0a";

    head[8] = (uint8_t)flags;
    put32le(head + 12, (uint32_t)w - 1);
    head[15] = (uint8_t)(h - 1);
    head[16] = (uint8_t)((h - 1) >> 8);
    head[17] = (uint8_t)((h - 1) >> 16);
    bytes_add(&b, simple->p, 12);
    bytes_add(&b, head, sizeof(head));
    bytes_add(&b, simple->p + 12, simple->len - 12);
    if (exif) {
        uint8_t chunk[8] = "EXIF";
        put32le(chunk + 4, (uint32_t)exif->len);
        bytes_add(&b, chunk, sizeof(chunk));
        bytes_add(&b, exif->p, exif->len);
        if (exif->len & 1)
            bytes_add8(&b, 0);
    }
    put32le(b.p + 4, (uint32_t)b.len - 8);
    return b;
}

/* A TIFF block whose IFD0 has a width, the orientation, and a resolution. */
static inline struct bytes make_exif(int orientation, int little)
{
    static const unsigned char big[] = {
        'M', 'M', 0, '*', 0, 0, 0, 8, 0, 2, /* two entries */
        1,   0,   0, 3,   0, 0, 0, 1, 0, 9, 0, 0, 1, 0x12,
        0,   3,   0, 0,   0, 1, 0, 0, 0, 0, 0, 0, 0, 0};
    static const unsigned char small[] = {
        'I', 'I', '*', 0, 8, 0, 0, 0, 2, 0, /* two entries */
        0,   1,   3,   0, 1, 0, 0, 0, 9, 0, 0, 0, 0x12, 1,
        3,   0,   1,   0, 0, 0, 0, 0, 0, 0, 0, 0, 0,    0};
    struct bytes b = {0};

    if (little) {
        bytes_add(&b, small, sizeof(small));
        b.p[30] = (uint8_t)orientation;
    } else {
        bytes_add(&b, big, sizeof(big));
        b.p[31] = (uint8_t)orientation;
    }
    return b;
}

static inline void jpeg_add_exif(struct bytes *jpeg, const struct bytes *exif)
{
    struct bytes app1 = {0};

    bytes_add(&app1, "\xff\xe1", 2);
    bytes_add16(&app1, (unsigned)exif->len + 8);
    bytes_add(&app1, "Exif\0\0", 6);
    bytes_add(&app1, exif->p, exif->len);
    bytes_insert(jpeg, 2, &app1);
    free(app1.p);
}

static inline void png_insert_exif(struct bytes *png, const struct bytes *exif,
                                   int after)
{
    struct bytes chunk = {0};

    png_add_chunk(&chunk, "eXIf", exif->p, exif->len);
    bytes_insert(png, after ? png->len - 12 : 33, &chunk);
    free(chunk.p);
}

#endif
