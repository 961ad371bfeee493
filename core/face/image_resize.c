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

/* An output pixel along one axis: n neighbouring source pixels, of which all
 * but the first and the last weigh the same. */
struct tap {
    int64_t first, n;
    float w_first, w_mid, w_last; /* n == 1: only w_first */
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
        t.w_last = (float)(hi - last * n_out);
    } else {
        int64_t at = (2 * i + 1) * n_in - n_out, part;
        if (at < 0)
            at = 0;
        t.first = at / (2 * n_out);
        part = at % (2 * n_out);
        t.n = part && t.first + 1 < n_in ? 2 : 1;
        t.w_first = (float)(t.n == 2 ? 2 * n_out - part : 2 * n_out);
        t.w_last = (float)part;
    }
    return t;
}

static double tap_total(int64_t n_in, int64_t n_out)
{
    return n_in >= n_out ? (double)n_in : 2.0 * (double)n_out;
}

/* sum[i] += weight * (top[i] + the n_rows - 1 bytes below it) */
static void add_equal_rows(float *restrict sum, const uint8_t *restrict top,
                           size_t stride, int64_t n_rows, float weight,
                           size_t len)
{
    size_t i = 0;

    assert(n_rows <= MAX_EQUAL);
    for (; i + BLOCK <= len; i += BLOCK) {
        uint16_t part[BLOCK] = {0};
        const uint8_t *p = top + i;

        for (int64_t row = 0; row < n_rows; row++, p += stride)
            for (int k = 0; k < BLOCK; k++)
                part[k] = (uint16_t)(part[k] + p[k]);
        for (int k = 0; k < BLOCK; k++)
            sum[i + (size_t)k] += weight * (float)part[k];
    }
    for (; i < len; i++) {
        unsigned part = 0;

        for (int64_t row = 0; row < n_rows; row++)
            part += top[i + (size_t)row * stride];
        sum[i] += weight * (float)part;
    }
}

/* Rows first .. first+n-1 of the rectangle, those inside the picture. */
static void add_rows(float *sum, const struct area *a, int64_t col,
                     int64_t n_cols, int64_t first, int64_t n, float weight)
{
    size_t stride = (size_t)a->img->w * 3;
    int64_t y = a->y + first, end = y + n;

    if (y < 0)
        y = 0;
    if (end > a->img->h)
        end = a->img->h;
    while (y < end) {
        int64_t part = end - y < MAX_EQUAL ? end - y : MAX_EQUAL;
        const uint8_t *top =
            a->img->rgb + (size_t)y * stride + (size_t)(a->x + col) * 3;

        add_equal_rows(sum, top, stride, part, weight, (size_t)n_cols * 3);
        y += part;
    }
}

/* Weighted sum of the rows of `t`, columns col .. col+n_cols-1 of the
 * rectangle, into sum [n_cols*3]. What lies outside the picture adds 0. */
static void sum_rows(float *sum, const struct area *a, int64_t col,
                     int64_t n_cols, const struct tap *t)
{
    int64_t end = col + n_cols, from = col;

    memset(sum, 0, (size_t)n_cols * 3 * sizeof(*sum));
    if (from < -a->x)
        from = -a->x;
    if (end > a->img->w - a->x)
        end = a->img->w - a->x;
    if (from >= end)
        return;
    sum += (from - col) * 3;
    end -= from;
    add_rows(sum, a, from, end, t->first, 1, t->w_first);
    if (t->n > 2)
        add_rows(sum, a, from, end, t->first + 1, t->n - 2, t->w_mid);
    if (t->n > 1)
        add_rows(sum, a, from, end, t->first + t->n - 1, 1, t->w_last);
}

/* Three channels and, unused, the next pixel's first: sum has room for it. */
static f4 load(const float *sum)
{
    f4 v;

    memcpy(&v, sum, sizeof(v));
    return v;
}

/* The part of `t` that lies in columns 0 .. n_cols-1 of sum, where t->first
 * is counted from column 0 and may be negative. */
static f4 dot_columns(const float *sum, int64_t n_cols, const struct tap *t)
{
    int64_t last = t->first + t->n - 1, from = t->first + 1, end = last;
    f4 mid = {0}, v = {0};

    if (from < 0)
        from = 0;
    if (end > n_cols)
        end = n_cols;
    for (const float *p = sum + from * 3; from < end; from++, p += 3)
        mid += load(p);
    v += mid * t->w_mid;
    if (t->first >= 0 && t->first < n_cols)
        v += load(sum + t->first * 3) * t->w_first;
    if (t->n > 1 && last >= 0 && last < n_cols)
        v += load(sum + last * 3) * t->w_last;
    return v;
}

static void store(uint8_t *out, f4 v, float scale)
{
    v = v * scale + 0.5f;
    out[0] = (uint8_t)v[0];
    out[1] = (uint8_t)v[1];
    out[2] = (uint8_t)v[2];
}

/* n_out output pixels of one row, from columns col .. col+n_cols-1. Only a
 * single pixel can span more columns than fit at once. */
static void strip_row(const struct area *a, const struct tap *row,
                      const struct tap *cols, int n_out, int64_t col,
                      int64_t n_cols, float scale, uint8_t *out)
{
    float sum[STRIP_COLS * 3 + 1];
    f4 v = {0};

    sum[STRIP_COLS * 3] = 0;
    if (n_cols <= STRIP_COLS) {
        sum[n_cols * 3] = 0;
        sum_rows(sum, a, col, n_cols, row);
        for (int i = 0; i < n_out; i++)
            store(out + (size_t)i * 3, dot_columns(sum, n_cols, &cols[i]),
                  scale);
        return;
    }
    assert(n_out == 1);
    for (int64_t at = 0; at < n_cols; at += STRIP_COLS) {
        int64_t n = n_cols - at < STRIP_COLS ? n_cols - at : STRIP_COLS;
        struct tap part = cols[0];

        part.first -= at;
        sum[n * 3] = 0;
        sum_rows(sum, a, col + at, n, row);
        v += dot_columns(sum, n, &part);
    }
    store(out, v, scale);
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
