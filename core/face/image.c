/* core/face/image.c - tells kinds of pictures apart, holds the limits, makes
 * pictures upright. The first step of the data path: face.c calls it with the
 * bytes of a request. The kinds themselves are in image_jpeg.c, image_png.c,
 * image_webp.c and image_pnm.c; each checks the declared size before it
 * allocates. */
#include "core/face/image.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/face/image_priv.h"

enum {
    DEFAULT_MAX_BYTES = 10 << 20,
    DEFAULT_MAX_PIXELS = 40000000,
    DEFAULT_MAX_SIDE = 16384,
    DEFAULT_MIN_SIDE = 16,
    DEFAULT_MAX_SCANS = 64,
    DEFAULT_MAX_MS = 2000,
    NEW_MAX_SIDE = 65535,
    NEW_MAX_PIXELS = 1 << 28
};

/* First bytes of what people send by mistake. `at` is the offset. */
static const struct {
    unsigned char at, len;
    const char *magic;
    const char *name;
} others[] = {
    {0, 4, "GIF8", "a GIF"},
    {0, 4, "%PDF", "a PDF"},
    {0, 4, "II*\0", "a TIFF"},
    {0, 4, "MM\0*", "a TIFF"},
    {4, 8, "ftypavif", "an AVIF"},
    {4, 7, "ftypavi", "an AVIF"},
    {4, 7, "ftyphei", "a HEIC"},
    {4, 7, "ftyphev", "a HEIC"},
    {4, 8, "ftypmif1", "a HEIC"},
    {4, 8, "ftypmsf1", "a HEIC"},
    {4, 4, "ftyp", "a video"},
    {0, 4, "\x1a\x45\xdf\xa3", "a video"},
    {4, 8, "jP  \r\n\x87\n", "a JPEG 2000"},
    {4, 8, "JXL \r\n\x87\n", "a JPEG XL"},
    {0, 2, "\xff\x0a", "a JPEG XL"},
    {0, 2, "BM", "a BMP"},
    {0, 4, "\0\0\1\0", "an icon (ICO)"},
    {0, 4, "8BPS", "a Photoshop file"},
    {0, 4, "RIFF", "a RIFF file that is no WebP"},
    {0, 4, "PK\3\4", "a ZIP archive"},
    {0, 2, "\x1f\x8b", "a gzip file"},
    {0, 4, "<svg", "an SVG"},
    {0, 5, "<?xml", "XML or SVG text"},
    {0, 9, "<!DOCTYPE", "HTML text"},
    {0, 5, "<html", "HTML text"},
    {0, 5, "data:", "a data: URL"},
    {0, 4, "/9j/", "base64 text of a JPEG"},
    {0, 8, "iVBORw0K", "base64 text of a PNG"},
    {0, 5, "UklGR", "base64 text of a WebP"},
    {0, 3, "P5\n", "a PGM"},
    {0, 3, "P6\n", "a PPM"},
};

static bool has_magic(const uint8_t *bytes, size_t len, size_t at,
                      const char *magic, size_t len_magic)
{
    return len >= at + len_magic && !memcmp(bytes + at, magic, len_magic);
}

static bool is_text(const uint8_t *bytes, size_t len)
{
    size_t n = len < 64 ? len : 64;
    for (size_t i = 0; i < n; i++)
        if (!isprint(bytes[i]) && !isspace(bytes[i]))
            return false;
    return true;
}

static struct image *refuse_kind(const uint8_t *bytes, size_t len,
                                 struct error *err)
{
    const char *name = NULL;

    if (!len)
        return error_null(err, ERR_IMAGE_TYPE,
                          "this is empty (0 bytes); JPEG, PNG and WebP are "
                          "read");
    for (size_t i = 0; i < sizeof(others) / sizeof(*others) && !name; i++)
        if (has_magic(bytes, len, others[i].at, others[i].magic, others[i].len))
            name = others[i].name;
    if (!name && is_text(bytes, len))
        name = "text";
    if (name)
        return error_null(err, ERR_IMAGE_TYPE,
                          "this looks like %s; JPEG, PNG and WebP are read",
                          name);
    return error_null(err, ERR_IMAGE_TYPE,
                      "this is of no known kind (it starts with byte %02x); "
                      "JPEG, PNG and WebP are read",
                      bytes[0]);
}

static int64_t cpu_ns(void)
{
    struct timespec t = {0};

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static struct image_limits limits_filled(const struct image_limits *given)
{
    struct image_limits l = {0};

    if (given)
        l = *given;
    if (!l.max_bytes)
        l.max_bytes = DEFAULT_MAX_BYTES;
    if (l.max_pixels <= 0)
        l.max_pixels = DEFAULT_MAX_PIXELS;
    if (l.max_pixels > NEW_MAX_PIXELS)
        l.max_pixels = NEW_MAX_PIXELS;
    if (l.max_side <= 0)
        l.max_side = DEFAULT_MAX_SIDE;
    if (l.max_side > NEW_MAX_SIDE)
        l.max_side = NEW_MAX_SIDE;
    if (l.min_side <= 0)
        l.min_side = DEFAULT_MIN_SIDE;
    if (l.max_scans <= 0)
        l.max_scans = DEFAULT_MAX_SCANS;
    if (l.max_ms <= 0)
        l.max_ms = DEFAULT_MAX_MS;
    return l;
}

bool image_source_late(const struct image_source *src)
{
    return cpu_ns() > src->end_ns;
}

int image_source_late_error(const struct image_source *src, const char *kind,
                            struct error *err)
{
    return error_set(err, ERR_TOO_LARGE,
                     "the %s takes more than %d ms to decode", kind,
                     src->limits.max_ms);
}

int image_source_check(const struct image_source *src, const char *kind,
                       int64_t w, int64_t h, struct error *err)
{
    const struct image_limits *l = &src->limits;

    if (w <= 0 || h <= 0)
        return error_set(err, ERR_BAD_IMAGE, "the %s declares no pixels", kind);
    if (w > l->max_side || h > l->max_side)
        return error_set(err, ERR_TOO_LARGE,
                         "the %s is %" PRId64 "x%" PRId64
                         " pixels; at most %d a side are read",
                         kind, w, h, l->max_side);
    if (w * h > l->max_pixels)
        return error_set(err, ERR_TOO_LARGE,
                         "the %s is %" PRId64 "x%" PRId64
                         " pixels; at most %" PRId64 " in all are read",
                         kind, w, h, l->max_pixels);
    if (w < l->min_side || h < l->min_side)
        return error_set(err, ERR_BAD_IMAGE,
                         "the %s is %" PRId64 "x%" PRId64
                         " pixels; at least %d a side are needed",
                         kind, w, h, l->min_side);
    return 0;
}

struct image *image_new(int w, int h, struct error *err)
{
    struct image *img;

    if (w <= 0 || h <= 0 || w > NEW_MAX_SIDE || h > NEW_MAX_SIDE ||
        (int64_t)w * h > NEW_MAX_PIXELS)
        return error_null(err, ERR_TOO_LARGE,
                          "a picture of %dx%d pixels is not made", w, h);
    img = malloc(sizeof(*img));
    if (!img)
        return error_null(err, ERR_NOMEM, "no memory for a picture");
    img->w = w;
    img->h = h;
    img->rgb = malloc((size_t)w * (size_t)h * 3);
    if (!img->rgb) {
        free(img);
        return error_null(err, ERR_NOMEM,
                          "no memory for a picture of %dx%d pixels", w, h);
    }
    return img;
}

void image_free(struct image *img)
{
    if (!img)
        return;
    free(img->rgb);
    free(img);
}

int upright_init(struct upright *up, int w, int h, int orientation,
                 struct error *err)
{
    /* EXIF 2.3, tag 0x0112: how the stored picture lies. */
    static const struct {
        bool swap, flip_x, flip_y;
    } ways[9] = {
        [1] = {false, false, false}, [2] = {false, true, false},
        [3] = {false, true, true},   [4] = {false, false, true},
        [5] = {true, false, false},  [6] = {true, true, false},
        [7] = {true, true, true},    [8] = {true, false, true},
    };
    bool swap, flip_x, flip_y;
    ptrdiff_t right = 3, down;

    assert(orientation >= 1 && orientation <= 8);
    swap = ways[orientation].swap;
    flip_x = ways[orientation].flip_x;
    flip_y = ways[orientation].flip_y;
    up->w = w;
    up->h = h;
    up->img = image_new(swap ? h : w, swap ? w : h, err);
    if (!up->img)
        return -1;
    down = (ptrdiff_t)up->img->w * 3;
    up->origin = 0;
    if (flip_x) {
        up->origin += (size_t)(up->img->w - 1) * 3;
        right = -right;
    }
    if (flip_y) {
        up->origin += (size_t)(up->img->h - 1) * (size_t)down;
        down = -down;
    }
    up->step_x = swap ? down : right;
    up->step_y = swap ? right : down;
    return 0;
}

uint8_t *upright_in_place(const struct upright *up, int y)
{
    if (up->step_x != 3)
        return NULL;
    return up->img->rgb + ((ptrdiff_t)up->origin + y * up->step_y);
}

/* In place: RGBA to RGB. */
static void lay_over_white(uint8_t *row, int w)
{
    uint8_t *to = row;

    for (const uint8_t *p = row; w > 0; w--, p += 4, to += 3) {
        unsigned alpha = p[3], white = 255 * (255 - alpha);
        uint8_t r = (uint8_t)((p[0] * alpha + white + 127) / 255);
        uint8_t g = (uint8_t)((p[1] * alpha + white + 127) / 255);
        uint8_t b = (uint8_t)((p[2] * alpha + white + 127) / 255);
        to[0] = r;
        to[1] = g;
        to[2] = b;
    }
}

void upright_put_band(const struct upright *up, int y, const uint8_t *rows,
                      int n_rows)
{
    size_t len_row = (size_t)up->w * 3;
    ptrdiff_t column = (ptrdiff_t)up->origin + y * up->step_y;

    if (up->step_x == 3) {
        for (int i = 0; i < n_rows; i++, rows += len_row)
            memcpy(upright_in_place(up, y + i), rows, len_row);
        return;
    }
    /* Turned, the pixels of a column lie side by side: so columns first. */
    for (int x = 0; x < up->w; x++, rows += 3, column += up->step_x) {
        const uint8_t *p = rows;
        ptrdiff_t at = column;

        for (int i = 0; i < n_rows; i++, p += len_row, at += up->step_y)
            memcpy(up->img->rgb + at, p, 3);
    }
}

void upright_put(const struct upright *up, int y, uint8_t *row, int channels)
{
    if (channels == 4)
        lay_over_white(row, up->w);
    upright_put_band(up, y, row, 1);
}

static int source_init(struct image_source *src, const void *bytes,
                       size_t len_bytes, const struct image_limits *limits,
                       struct error *err)
{
    *src = (struct image_source){
        .bytes = bytes,
        .len_bytes = len_bytes,
        .limits = limits_filled(limits),
    };
    if (len_bytes > src->limits.max_bytes)
        return error_set(err, ERR_TOO_LARGE,
                         "the file has %zu bytes; at most %zu are read",
                         len_bytes, src->limits.max_bytes);
    src->end_ns = cpu_ns() + (int64_t)src->limits.max_ms * 1000000;
    return 0;
}

struct image *image_decode(const void *bytes, size_t len_bytes,
                           const struct image_limits *limits, struct error *err)
{
    struct image_source src;

    if (source_init(&src, bytes, len_bytes, limits, err))
        return NULL;
    if (has_magic(bytes, len_bytes, 0, "\xff\xd8", 2))
        return image_jpeg_decode(&src, err);
    if (has_magic(bytes, len_bytes, 0, "\x89PNG", 4))
        return image_png_decode(&src, err);
    if (has_magic(bytes, len_bytes, 0, "RIFF", 4) &&
        has_magic(bytes, len_bytes, 8, "WEBP", 4))
        return image_webp_decode(&src, err);
    return refuse_kind(bytes, len_bytes, err);
}

struct image *image_decode_pnm(const void *bytes, size_t len_bytes,
                               const struct image_limits *limits,
                               struct error *err)
{
    struct image_source src;

    if (source_init(&src, bytes, len_bytes, limits, err))
        return NULL;
    return image_pnm_decode(&src, err);
}
