/* core/face/image_resize.c - part of a picture at another size. Each axis on
 * its own is averaged by area when it shrinks and interpolated when it grows;
 * both are sums of neighbouring pixels with whole-number weights, so one loop
 * serves them. Detection builds a pyramid of every photo with it, hence:
 * rows are summed first, in bytes where weights are equal, over strips that
 * stay in the first-level cache; nothing is allocated. */
#include "core/face/image.h"

#include <assert.h>
#include <string.h>

enum {
    STRIP_COLS = 1024, /* source columns summed at a time */
    STRIP_OUT = 256,   /* output columns made from them */
    BLOCK = 16,        /* bytes the compiler turns into vectors */
    MAX_EQUAL = 256    /* rows of 255 that fit in 16 bits */
};

typedef float f4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));

/* An output pixel along one axis: n neighbouring source pixels, of which all
 * but the first and the last weigh the same. */
struct tap {
    int64_t first, n;
    float w_first, w_mid, w_last; /* n == 1: w_last is 0 */
};

struct area {
    const struct image *img;
    int64_t x, y;
};

/* Output pixel i of n_out over n_in source pixels; weights add up to
 * tap_total. Shrinking: the overlap of [i,i+1)*n_in/n_out with each source
 * pixel. Growing: the two whose centres lie around (i+1/2)*n_in/n_out. */
static struct tap tap_at(int64_t i, int64_t n_in, int64_t n_out)
{
    struct tap t = {0};

    if (n_in >= n_out) {
        int64_t lo = i * n_in, hi = lo + n_in;
        int64_t last = (hi - 1) / n_out;
        t.first = lo / n_out;
        t.n = last - t.first + 1;
        t.w_first = (float)(t.n == 1 ? n_in : (t.first + 1) * n_out - lo);
        t.w_mid = (float)n_out;
        t.w_last = t.n == 1 ? 0 : (float)(hi - last * n_out);
    } else {
        int64_t at = (2 * i + 1) * n_in - n_out, part;
        if (at < 0)
            at = 0;
        t.first = at / (2 * n_out);
        part = at % (2 * n_out);
        t.n = part && t.first + 1 < n_in ? 2 : 1;
        t.w_first = (float)(t.n == 2 ? 2 * n_out - part : 2 * n_out);
        t.w_last = t.n == 1 ? 0 : (float)part;
    }
    return t;
}

static double tap_total(int64_t n_in, int64_t n_out)
{
    return n_in >= n_out ? (double)n_in : 2.0 * (double)n_out;
}

/* Weighted sum of up to MAX_EQUAL + 2 rows: the one at `first`, n_mid below
 * it, the one at `last`. */
struct rows {
    const uint8_t *first, *mid, *last;
    size_t stride;
    int n_mid;
    float w_first, w_mid, w_last;
};

/* sum[i] += the weighted sum of column i */
static void add_rows(float *restrict sum, const struct rows *r, size_t len)
{
    size_t i = 0;

    for (; i + BLOCK <= len; i += BLOCK) {
        const uint8_t *p = r->mid + i;
        uint16_t part[BLOCK] = {0};

        for (int row = 0; row < r->n_mid; row++, p += r->stride)
            for (int k = 0; k < BLOCK; k++)
                part[k] = (uint16_t)(part[k] + p[k]);
        for (int k = 0; k < BLOCK; k++)
            sum[i + (size_t)k] += r->w_first * (float)r->first[i + (size_t)k] +
                                  r->w_mid * (float)part[k] +
                                  r->w_last * (float)r->last[i + (size_t)k];
    }
    for (; i < len; i++) {
        unsigned part = 0;

        for (int row = 0; row < r->n_mid; row++)
            part += r->mid[i + (size_t)row * r->stride];
        sum[i] += r->w_first * (float)r->first[i] + r->w_mid * (float)part +
                  r->w_last * (float)r->last[i];
    }
}

/* Rows of `t`, columns col .. col+n_cols-1 of the rectangle, all columns
 * inside the picture. A row outside weighs nothing. */
static void add_tap(float *sum, const struct area *a, int64_t col,
                    int64_t n_cols, const struct tap *t)
{
    int64_t first = a->y + t->first, last = first + t->n - 1, h = a->img->h;
    int64_t mid = first + 1 > 0 ? first + 1 : 0;
    int64_t end = last < h ? last : h;
    size_t stride = (size_t)a->img->w * 3, len = (size_t)n_cols * 3;
    const uint8_t *top = a->img->rgb + (size_t)(a->x + col) * 3;
    struct rows r = {.first = top, .mid = top, .last = top, .stride = stride};

    if (first >= 0 && first < h) {
        r.first += (size_t)first * stride;
        r.w_first = t->w_first;
    }
    if (t->n > 1 && last >= 0 && last < h) {
        r.last += (size_t)last * stride;
        r.w_last = t->w_last;
    }
    r.w_mid = t->w_mid;
    do {
        if (mid < end) {
            r.mid = top + (size_t)mid * stride;
            r.n_mid = (int)(end - mid < MAX_EQUAL ? end - mid : MAX_EQUAL);
            mid += r.n_mid;
        }
        add_rows(sum, &r, len);
        r.w_first = r.w_last = 0;
        r.n_mid = 0;
    } while (mid < end);
}

/* The same for any columns, into sum [n_cols*3]: outside is black. */
static void sum_rows(float *sum, const struct area *a, int64_t col,
                     int64_t n_cols, const struct tap *t)
{
    int64_t end = col + n_cols, from = col;

    memset(sum, 0, (size_t)n_cols * 3 * sizeof(*sum));
    if (from < -a->x)
        from = -a->x;
    if (end > a->img->w - a->x)
        end = a->img->w - a->x;
    if (from < end)
        add_tap(sum + (from - col) * 3, a, from, end - from, t);
}

/* Three channels and, unused, the next pixel's first: sum has room for it. */
static f4 load(const float *sum)
{
    f4 v;

    memcpy(&v, sum, sizeof(v));
    return v;
}

/* All of `t`, whose first column counts from column 0 of sum. */
static f4 dot_columns(const float *sum, const struct tap *t)
{
    const float *p = sum + t->first * 3, *last = p + (t->n - 1) * 3;
    f4 v = load(p) * t->w_first + load(last) * t->w_last, mid = {0};

    for (p += 3; p < last; p += 3)
        mid += load(p);
    return v + mid * t->w_mid;
}

static void store(uint8_t *out, f4 v, float scale)
{
    i4 n = __builtin_convertvector(v * scale + 0.5f, i4);

    out[0] = (uint8_t)n[0];
    out[1] = (uint8_t)n[1];
    out[2] = (uint8_t)n[2];
}

/* An output pixel that spans more columns than fit in a strip. */
static void wide_pixel(const struct area *a, const struct tap *row,
                       const struct tap *wide, int64_t col, float *sum,
                       float scale, uint8_t *out)
{
    f4 v = {0};

    for (int64_t at = 0; at < wide->n; at += STRIP_COLS) {
        int64_t left = wide->n - at;
        int64_t n = left < STRIP_COLS ? left : STRIP_COLS;
        struct tap part = {.n = n,
                           .w_first = at ? wide->w_mid : wide->w_first,
                           .w_mid = wide->w_mid,
                           .w_last = left > n ? wide->w_mid : wide->w_last};

        if (n == 1)
            part.w_first = 0;
        sum_rows(sum, a, col + at, n, row);
        sum[n * 3] = 0;
        v += dot_columns(sum, &part);
    }
    store(out, v, scale);
}

/* n_out output pixels of one row, from columns col .. col+n_cols-1. */
static void strip_row(const struct area *a, const struct tap *row,
                      const struct tap *cols, int n_out, int64_t col,
                      int64_t n_cols, float scale, uint8_t *out)
{
    float sum[STRIP_COLS * 3 + 1];

    if (n_cols > STRIP_COLS) {
        assert(n_out == 1);
        wide_pixel(a, row, cols, col, sum, scale, out);
        return;
    }
    sum_rows(sum, a, col, n_cols, row);
    sum[n_cols * 3] = 0;
    for (int i = 0; i < n_out; i++)
        store(out + (size_t)i * 3, dot_columns(sum, &cols[i]), scale);
}

void image_resize(const struct image *img, int x, int y, int w, int h,
                  uint8_t *out, int out_w, int out_h, size_t stride)
{
    struct area a = {.img = img, .x = x, .y = y};
    struct tap cols[STRIP_OUT];
    float scale;
    int from = 0;

    assert(w > 0 && h > 0 && out_w > 0 && out_h > 0);
    scale = (float)(1.0 / (tap_total(w, out_w) * tap_total(h, out_h)));
    while (from < out_w) {
        int64_t col, n_cols = 0;
        int n_out = 0;

        col = tap_at(from, w, out_w).first;
        while (n_out < STRIP_OUT && from + n_out < out_w) {
            struct tap t = tap_at(from + n_out, w, out_w);

            t.first -= col;
            if (n_out && t.first + t.n > STRIP_COLS)
                break;
            cols[n_out++] = t;
            n_cols = t.first + t.n;
        }
        for (int i = 0; i < out_h; i++) {
            struct tap row = tap_at(i, h, out_h);

            strip_row(&a, &row, cols, n_out, col, n_cols, scale,
                      out + (size_t)i * stride + (size_t)from * 3);
        }
        from += n_out;
    }
}
