/* core/face/detect_pyramid.c - a picture in the sizes that the detector looks
 * at: area-averaged reductions, and the levels of the pyramid packed side by
 * side on canvases. Planning a network for a new input size costs far more
 * than running P-Net on a small level, so P-Net sees few sizes: canvases,
 * their sides rounded up. A cell of P-Net's output depends on 12x12 pixels
 * alone, so neighbours on a canvas do not touch each other's results. */
#include "core/face/detect_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* --- halves ----------------------------------------------------------- */

static void halve(const struct image *src, struct image *dst)
{
    size_t stride = (size_t)src->w * 3;

    for (int y = 0; y < dst->h; y++) {
        const uint8_t *a = src->rgb + 2 * (size_t)y * stride;
        const uint8_t *b = a + stride;
        uint8_t *out = dst->rgb + (size_t)y * (size_t)dst->w * 3;
        for (int x = 0; x < dst->w; x++, a += 6, b += 6, out += 3) {
            out[0] = (uint8_t)((a[0] + a[3] + b[0] + b[3] + 2) >> 2);
            out[1] = (uint8_t)((a[1] + a[4] + b[1] + b[4] + 2) >> 2);
            out[2] = (uint8_t)((a[2] + a[5] + b[2] + b[5] + 2) >> 2);
        }
    }
}

/* One for which a reduction to a cell leaves something to average. */
static bool worth_halving(int w, int h, int n)
{
    return n < DETECT_MIPS &&
           (w >= 16 * DETECT_CELL || h >= 16 * DETECT_CELL) && w >= 2 && h >= 2;
}

int detect_mips_build(struct detect_mips *m, const struct image *img,
                      struct error *err)
{
    size_t total = 0, used = 0;
    int w = img->w, h = img->h;

    for (int n = 1; worth_halving(w, h, n); n++) {
        w /= 2;
        h /= 2;
        total += (size_t)w * (size_t)h * 3;
    }
    if (total > m->room) {
        free(m->pixels);
        m->pixels = malloc(total);
        m->room = m->pixels ? total : 0;
        if (!m->pixels)
            return error_set(err, ERR_NOMEM,
                             "no memory to look at a %dx%d picture", img->w,
                             img->h);
    }
    m->base = img;
    m->at[0] = *img;
    m->n = 1;
    while (worth_halving(m->at[m->n - 1].w, m->at[m->n - 1].h, m->n)) {
        struct image *half = &m->at[m->n];
        half->w = m->at[m->n - 1].w / 2;
        half->h = m->at[m->n - 1].h / 2;
        half->rgb = m->pixels + used;
        used += (size_t)half->w * (size_t)half->h * 3;
        halve(&m->at[m->n - 1], half);
        m->n++;
    }
    return 0;
}

void detect_mips_fini(struct detect_mips *m)
{
    free(m->pixels);
    memset(m, 0, sizeof(*m));
}

/* --- area average ------------------------------------------------------ */

/* Source rows are summed a strip of columns at a time, in 16 bits: a window
 * is well below 257 rows high. */
enum {
    STRIP = 1024,
    LANES = 16, /* bytes in a pairs_8 */
    BLOCK = 4   /* of them at once */
};

/* Sixteen bytes as eight pairs, so that adding up needs no unpacking. */
typedef uint16_t pairs_8 __attribute__((vector_size(LANES)));
typedef uint16_t pixel_sum __attribute__((vector_size(8))); /* 3 of 4 used */
typedef uint32_t wide_sum __attribute__((vector_size(16)));

/* The source columns of each column of a part. */
struct windows {
    int n; /* columns; the part's others repeat the last */
    int from[DETECT_CANVAS], to[DETECT_CANVAS];
};

static int window_from(int i, int in, int out)
{
    return (int)((int64_t)i * in / out);
}

static int window_to(int i, int in, int out)
{
    return (int)(((int64_t)(i + 1) * in + out - 1) / out);
}

/* Columns in n_vectors of a strip: the first and the second bytes of the
 * pairs apart. Inlined: the count is a constant at each call. */
static inline void sum_block(const uint8_t *src, size_t stride, int n_rows,
                             int n_vectors, uint16_t *sum)
{
    const int first_is_high = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__;
    pairs_8 low[BLOCK] = {0}, high[BLOCK] = {0}, v;

    for (int r = 0; r < n_rows; r++, src += stride)
        for (int k = 0; k < n_vectors; k++) {
            memcpy(&v, src + LANES * k, sizeof(v));
            low[k] += v & 255;
            high[k] += v >> 8;
        }
    for (int k = 0; k < n_vectors; k++)
        for (int i = 0; i < LANES / 2; i++, sum += 2) {
            sum[first_is_high] = low[k][i];
            sum[!first_is_high] = high[k][i];
        }
}

static void sum_rows(const uint8_t *src, size_t stride, int n_rows, int n,
                     uint16_t *sum)
{
    int i = 0;

    for (; i + BLOCK * LANES <= n; i += BLOCK * LANES)
        sum_block(src + i, stride, n_rows, BLOCK, sum + i);
    for (; i + LANES <= n; i += LANES)
        sum_block(src + i, stride, n_rows, 1, sum + i);
    sum[n] = 0;
    for (; i < n; i++) {
        sum[i] = 0;
        for (int r = 0; r < n_rows; r++)
            sum[i] = (uint16_t)(sum[i] + src[(size_t)r * stride + (size_t)i]);
    }
}

/* Sums of rows to averages of windows, columns i..j of the part. */
static void average(const struct windows *w, int i, int j, int first,
                    const uint16_t *sum, int n_rows, float *out, size_t plane)
{
    for (; i < j; i++) {
        const uint16_t *at = sum + 3 * (w->from[i] - first);
        int n = w->to[i] - w->from[i];
        float f = 1.0f / (128.0f * (float)(n * n_rows));
        wide_sum total = {0};
        for (int x = 0; x < n; x++, at += 3) {
            pixel_sum v;
            memcpy(&v, at, sizeof(v));
            total += __builtin_convertvector(v, wide_sum);
        }
        out[i] = (float)total[0] * f - 127.5f / 128;
        out[plane + (size_t)i] = (float)total[1] * f - 127.5f / 128;
        out[2 * plane + (size_t)i] = (float)total[2] * f - 127.5f / 128;
    }
}

static void reduce_row(const struct image *img, const struct detect_part *p,
                       const struct windows *w, int oy, float *out,
                       size_t plane)
{
    int y0 = window_from(oy, p->h, p->out_h);
    int y1 = window_to(oy, p->h, p->out_h);
    size_t stride = (size_t)img->w * 3;
    const uint8_t *row =
        img->rgb + (size_t)(p->y + y0) * stride + (size_t)p->x * 3;
    uint16_t sum[STRIP * 3 + 1]; /* a pixel is loaded as four numbers */

    for (int i = 0, j; i < w->n; i = j) {
        int first = w->from[i];
        for (j = i; j < w->n && w->to[j] - first <= STRIP; j++)
            ;
        assert(j > i);
        sum_rows(row + (size_t)first * 3, stride, y1 - y0,
                 (w->to[j - 1] - first) * 3, sum);
        average(w, i, j, first, sum, y1 - y0, out, plane);
    }
    for (int i = w->n; i < p->pw; i++)
        for (size_t c = 0; c < 3; c++)
            out[c * plane + (size_t)i] = out[c * plane + (size_t)w->n - 1];
}

/* The rectangle on the smallest copy that still has 8 pixels for one along
 * its longer side. */
static struct detect_part on_copy(const struct detect_mips *m,
                                  const struct detect_part *p, int *copy)
{
    struct detect_part q = *p;
    int k = 0;

    while (k + 1 < m->n &&
           (p->w > p->out_w * (16 << k) || p->h > p->out_h * (16 << k)))
        k++;
    if (k > 0) {
        int far_x = (p->x + p->w + (1 << k) - 1) >> k;
        int far_y = (p->y + p->h + (1 << k) - 1) >> k;
        const struct image *img = &m->at[k];
        q.x = p->x >> k < img->w ? p->x >> k : img->w - 1;
        q.y = p->y >> k < img->h ? p->y >> k : img->h - 1;
        q.w = (far_x < img->w ? far_x : img->w) - q.x;
        q.h = (far_y < img->h ? far_y : img->h) - q.y;
        q.w = q.w > 0 ? q.w : 1;
        q.h = q.h > 0 ? q.h : 1;
    }
    *copy = k;
    return q;
}

void detect_reduce(const struct detect_mips *m, const struct detect_part *p,
                   float *out, size_t plane, size_t row)
{
    int copy;
    struct detect_part q = on_copy(m, p, &copy);
    int n = q.ph < q.out_h - q.py ? q.ph : q.out_h - q.py;
    struct windows w;

    assert(q.pw <= DETECT_CANVAS);
    w.n = q.pw < q.out_w - q.px ? q.pw : q.out_w - q.px;
    for (int i = 0; i < w.n; i++) {
        w.from[i] = window_from(q.px + i, q.w, q.out_w);
        w.to[i] = window_to(q.px + i, q.w, q.out_w);
    }
    for (int y = 0; y < n; y++)
        reduce_row(&m->at[copy], &q, &w, q.py + y, out + (size_t)y * row,
                   plane);
    for (int y = n; y < q.ph; y++)
        for (size_t c = 0; c < 3; c++)
            memcpy(out + c * plane + (size_t)y * row,
                   out + c * plane + (size_t)(n - 1) * row,
                   (size_t)q.pw * sizeof(float));
}

/* --- levels, tiles, canvases ------------------------------------------- */

/* Output cells of P-Net along `size` pixels. For an odd size the last one
 * sees a pixel over the edge: there its pooling window is cut short. */
static int cells(int size)
{
    return (size - 9) / 2;
}

static int pixels(int n_cells)
{
    return 2 * n_cells + DETECT_CELL - DETECT_STRIDE;
}

static struct detect_tile *push_tile(struct detect_layout *l)
{
    if (l->n_tiles == l->room) {
        int room = l->room ? 2 * l->room : 32;
        struct detect_tile *t = realloc(l->tiles, (size_t)room * sizeof(*t));
        if (!t)
            return NULL;
        l->tiles = t;
        l->room = room;
    }
    return &l->tiles[l->n_tiles++];
}

static int cut_level(struct detect_layout *l, int level)
{
    const int most = (l->most - DETECT_CELL + DETECT_STRIDE) / 2;
    int n_x = cells(l->levels[level].w), n_y = cells(l->levels[level].h);

    for (int y = 0; y < n_y; y += most) {
        for (int x = 0; x < n_x; x += most) {
            struct detect_tile *t = push_tile(l);
            if (!t)
                return -1;
            t->level = level;
            t->cell_x = x;
            t->cell_y = y;
            t->n_x = n_x - x < most ? n_x - x : most;
            t->n_y = n_y - y < most ? n_y - y : most;
            t->x = t->y = 0;
            t->canvas = -1;
        }
    }
    return 0;
}

/* The upper outline of what lies on a canvas, as steps from left to right. */
struct skyline {
    int w;
    int n;
    struct {
        int x, y;
    } step[DETECT_CANVAS / 2 + 2];
};

/* The lowest place for w x h at step i, or -1 when it sticks out. */
static int height_at(const struct skyline *s, int i, int w)
{
    int y = 0, end = s->step[i].x + w;

    if (end > s->w)
        return -1;
    for (int k = i; k < s->n && s->step[k].x < end; k++)
        y = s->step[k].y > y ? s->step[k].y : y;
    return y;
}

static bool place(struct skyline *s, int w, int h, int max_h, int *px, int *py)
{
    int best = -1, best_y = 0, k, x, end, last_y;

    for (int i = 0; i < s->n; i++) {
        int y = height_at(s, i, w);
        if (y >= 0 && y + h <= max_h && (best < 0 || y < best_y)) {
            best = i;
            best_y = y;
        }
    }
    if (best < 0)
        return false;
    x = s->step[best].x;
    end = x + w;
    last_y = s->step[best].y;
    for (k = best; k < s->n && s->step[k].x < end; k++)
        last_y = s->step[k].y;
    /* Steps best..k-1 are covered; what is left of the last begins at end. */
    {
        bool rest = end < (k < s->n ? s->step[k].x : s->w);
        int n_new = rest ? 2 : 1;
        memmove(&s->step[best + n_new], &s->step[k],
                (size_t)(s->n - k) * sizeof(s->step[0]));
        s->n += n_new - (k - best);
        s->step[best].x = x;
        s->step[best].y = best_y + h;
        if (rest) {
            s->step[best + 1].x = end;
            s->step[best + 1].y = last_y;
        }
    }
    *px = x;
    *py = best_y;
    return true;
}

static int round_up(int v)
{
    int to = v <= 256 ? 16 : 32;
    return (v + to - 1) / to * to;
}

/* Lay the tiles that have no canvas yet on one that is w wide; returns its
 * height used, 0 when not all have found room. Canvases of one size are packed
 * once, so that nothing is there to be taken back when one is full. */
static int pack(struct detect_layout *l, int w, int canvas, bool keep_some)
{
    struct skyline s = {.w = w, .n = 1};
    int used = 0, room = w * l->most;
    bool all = true;

    for (int i = 0; i < l->n_tiles && (room > 0 || !l->one_size); i++) {
        struct detect_tile *t = &l->tiles[i];
        int tw = pixels(t->n_x), th = pixels(t->n_y);
        if (t->canvas >= 0 && t->canvas < canvas)
            continue;
        t->canvas = -1;
        if (!place(&s, tw, th, l->most, &t->x, &t->y)) {
            all = false;
            if (!keep_some)
                return 0;
            continue;
        }
        t->canvas = canvas;
        room -= tw * th;
        used = t->y + th > used ? t->y + th : used;
    }
    return all || keep_some ? used : 0;
}

/* The width that wastes least, 0 when one canvas cannot hold all. */
static int best_width(struct detect_layout *l, int canvas)
{
    int widest = 0, best = 0;
    int64_t best_area = 0;

    for (int i = 0; i < l->n_tiles; i++)
        if ((l->tiles[i].canvas < 0 || l->tiles[i].canvas >= canvas) &&
            pixels(l->tiles[i].n_x) > widest)
            widest = pixels(l->tiles[i].n_x);
    for (int w = round_up(widest); w <= DETECT_CANVAS; w = round_up(w + 1)) {
        int h = pack(l, w, canvas, false);
        int64_t area = (int64_t)w * round_up(h);
        if (h > 0 && (best == 0 || area < best_area)) {
            best = w;
            best_area = area;
        }
    }
    return best;
}

static int push_canvas(struct detect_layout *l, int w, int h)
{
    if (l->n_canvases == l->room_canvases) {
        int room = l->room_canvases ? 2 * l->room_canvases : 8;
        void *at = realloc(l->canvases, (size_t)room * sizeof(*l->canvases));
        if (!at)
            return -1;
        l->canvases = at;
        l->room_canvases = room;
    }
    l->canvases[l->n_canvases].w = w;
    l->canvases[l->n_canvases].h = h;
    l->n_canvases++;
    return 0;
}

static bool all_placed(const struct detect_layout *l)
{
    for (int i = 0; i < l->n_tiles; i++)
        if (l->tiles[i].canvas < 0)
            return false;
    return true;
}

/* Below this area a canvas that takes all is looked for; above it the plain
 * largest canvas is filled first. */
static bool may_fit_one(const struct detect_layout *l, int canvas)
{
    int64_t area = 0;

    for (int i = 0; i < l->n_tiles; i++)
        if (l->tiles[i].canvas < 0 || l->tiles[i].canvas >= canvas)
            area += (int64_t)pixels(l->tiles[i].n_x) * pixels(l->tiles[i].n_y);
    return area <= (int64_t)DETECT_CANVAS * DETECT_CANVAS;
}

/* All that is left on canvases as large as can be. */
static int fill_canvas(struct detect_layout *l, int canvas)
{
    int used = pack(l, l->most, canvas, true);

    assert(used > 0);
    return push_canvas(l, l->most, l->one_size ? l->most : round_up(used));
}

/* As many as do, the last one no larger than it must be. */
static int fit_canvas(struct detect_layout *l, int canvas)
{
    int width = may_fit_one(l, canvas) ? best_width(l, canvas) : 0;

    if (width == 0)
        return fill_canvas(l, canvas);
    return push_canvas(l, width, round_up(pack(l, width, canvas, true)));
}

int detect_layout_build(struct detect_layout *l, int w, int h, float min_face,
                        float factor, int side, struct error *err)
{
    double scale = (double)DETECT_CELL / (double)min_face;
    double least = (w < h ? w : h) * scale;

    l->n_levels = l->n_tiles = l->n_canvases = 0;
    l->one_size = side > 0;
    l->most = side > 0 ? side : DETECT_CANVAS;
    while (least >= DETECT_CELL && l->n_levels < DETECT_MAX_LEVELS) {
        struct detect_level *level = &l->levels[l->n_levels];
        level->scale = scale;
        level->w = (int)(w * scale + 1);
        level->h = (int)(h * scale + 1);
        if (cut_level(l, l->n_levels++))
            goto nomem;
        scale *= (double)factor;
        least *= (double)factor;
    }
    while (!all_placed(l))
        if (l->one_size ? fill_canvas(l, l->n_canvases)
                        : fit_canvas(l, l->n_canvases))
            goto nomem;
    return 0;
nomem:
    return error_set(err, ERR_NOMEM, "no memory to look at a %dx%d picture", w,
                     h);
}

void detect_layout_fini(struct detect_layout *l)
{
    free(l->tiles);
    free(l->canvases);
    memset(l, 0, sizeof(*l));
}
