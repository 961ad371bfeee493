/* tests/gpu/emulated.c - a card of plain memory: what gpu/card.h and gpu/dnn.h
 * promise, done by this processor. Linked with the rest of gpu/, and with
 * kernels as loops (emulated_*.c) or the card's own (host_cuda.h), it makes a
 * plugin whose plans are the card's, step by step, so that they can be tested
 * where there is no card. FACENETD_EMULATED="lose=N" loses the card at its N-th
 * run, "engines" lets the first engines fail, "none" leaves cuDNN without any,
 * "absent" is no card at all. */
#include "gpu/arith_ops.h"
#include "gpu/card.h"
#include "gpu/dnn.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

struct card {
    size_t bound;
    atomic_size_t used;
    atomic_int runs, timed; /* what is timed later is quicker */
    int lose;
    atomic_bool lost;
};

struct stream {
    struct card *card;
};

struct dnn {
    bool bad_engines, none;
};

struct dnn_conv {
    struct dnn_shape shape;
    struct dnn_memory m;
    bool bad_engines;
    int chosen;
};

/* ---- the card ------------------------------------------------------------ */

struct card *card_open(const struct device_options *opt, struct error *err)
{
    const char *how = getenv("FACENETD_EMULATED");
    struct card *c = calloc(1, sizeof(*c));

    if (opt->index != 0 || !c) {
        free(c);
        return error_null(err, ERR_DEVICE, "no card %d: there are 1",
                          opt->index);
    }
    if (how && !strcmp(how, "absent")) {
        free(c);
        return error_null(err, ERR_DEVICE, "no card is there");
    }
    c->bound = opt->memory_bytes;
    if (how)
        sscanf(how, "lose=%d", &c->lose);
    return c;
}

void card_close(struct card *c)
{
    free(c);
}

void card_describe(const struct card *c, struct device_info *out)
{
    snprintf(out->name, sizeof(out->name), "emulated");
    snprintf(out->isa, sizeof(out->isa), "sm_80");
    out->bytes_used = atomic_load(&((struct card *)c)->used);
    out->bytes_total = (size_t)1 << 34;
}

int card_level(const struct card *c)
{
    (void)c;
    return 80;
}

void card_identity(const struct card *c, char *buf, size_t len)
{
    (void)c;
    snprintf(buf, len, "emulated");
}

int card_enter(struct card *c, struct error *err)
{
    return atomic_load(&c->lost) ? error_set(err, ERR_DEVICE, "card 0 was lost")
                                 : 0;
}

void *card_alloc(struct card *c, size_t bytes, struct error *err)
{
    size_t used = atomic_fetch_add(&c->used, bytes) + bytes;
    void *p = NULL;

    if (c->bound && used > c->bound)
        error_set(err, ERR_NOMEM, "card 0: over the bound");
    else if (!(p = aligned_alloc(64, (bytes + 64) / 64 * 64)))
        error_set(err, ERR_NOMEM, "card 0: no memory");
    if (!p)
        atomic_fetch_sub(&c->used, bytes);
    return p;
}

void card_release(struct card *c, void *p, size_t bytes)
{
    if (p)
        atomic_fetch_sub(&c->used, bytes);
    free(p);
}

int card_upload(struct card *c, void *to, const void *from, size_t bytes,
                struct error *err)
{
    memcpy(to, from, bytes);
    return card_enter(c, err);
}

int card_fill(struct card *c, void *to, int byte, size_t bytes,
              struct error *err)
{
    memset(to, byte, bytes);
    return card_enter(c, err);
}

void *card_pin(struct card *c, size_t bytes, struct error *err)
{
    void *p = malloc(bytes + 1);

    (void)c;
    return p ? p : error_null(err, ERR_NOMEM, "no memory");
}

void card_unpin(struct card *c, void *p)
{
    (void)c;
    free(p);
}

struct stream *card_stream_new(struct card *c, struct error *err)
{
    struct stream *s = calloc(1, sizeof(*s));

    if (!s)
        return error_null(err, ERR_NOMEM, "no memory");
    s->card = c;
    return s;
}

void card_stream_free(struct stream *s)
{
    free(s);
}

void *card_stream_handle(struct stream *s)
{
    return s;
}

int card_copy_in(struct stream *s, void *to, const void *from, size_t bytes,
                 struct error *err)
{
    memcpy(to, from, bytes);
    return card_enter(s->card, err);
}

int card_copy_out(struct stream *s, void *to, const void *from, size_t bytes,
                  struct error *err)
{
    memcpy(to, from, bytes);
    return card_enter(s->card, err);
}

int card_launched(struct stream *s, const char *kernel, struct error *err)
{
    (void)kernel;
    return card_enter(s->card, err);
}

int card_wait(struct stream *s, struct error *err)
{
    struct card *c = s->card;

    if (c->lose && atomic_fetch_add(&c->runs, 1) + 1 >= c->lose)
        atomic_store(&c->lost, true);
    return card_enter(c, err);
}

bool card_record(struct stream *s)
{
    (void)s;
    return false;
}

bool card_recorded(struct stream *s)
{
    (void)s;
    return false;
}

int card_replay(struct stream *s, struct error *err)
{
    return card_enter(s->card, err);
}

int card_time(struct stream *s, int (*work)(void *at, struct error *err),
              void *at, int n, float *us, struct error *err)
{
    (void)n;
    *us = 1000.0f / (float)(1 + atomic_fetch_add(&s->card->timed, 1));
    return work(at, err) ? -1 : card_enter(s->card, err);
}

/* ---- convolutions -----------------------------------------------------------
 */

enum {
    N_ENGINES = 4,
    SCRATCH = 1000
};

struct dnn *dnn_open(const char *device, struct error *err)
{
    const char *how = getenv("FACENETD_EMULATED");
    struct dnn *d = calloc(1, sizeof(*d));

    (void)device;
    if (!d)
        return error_null(err, ERR_NOMEM, "no memory");
    d->bad_engines = how && !strcmp(how, "engines");
    d->none = how && !strcmp(how, "none");
    return d;
}

void dnn_close(struct dnn *d)
{
    free(d);
}

void dnn_version(char *buf, size_t len)
{
    snprintf(buf, len, "emulated");
}

struct dnn_conv *dnn_conv_new(struct dnn *d, const struct dnn_shape *s,
                              size_t max_scratch, struct error *err)
{
    struct dnn_conv *c;

    (void)max_scratch;
    /* What a card could not be given. */
    if (s->c % ARITH_LANES || s->k % ARITH_LANES || s->x_pitch % ARITH_LANES ||
        s->y_pitch % ARITH_LANES || s->z_pitch % ARITH_LANES)
        return error_null(err, ERR_DEVICE, "channels are not padded");
    if (d->none)
        return error_null(err, ERR_DEVICE, "there is no engine");
    c = calloc(1, sizeof(*c));
    if (!c)
        return error_null(err, ERR_NOMEM, "no memory");
    c->shape = *s;
    c->bad_engines = d->bad_engines;
    return c;
}

void dnn_conv_free(struct dnn_conv *c)
{
    free(c);
}

int dnn_conv_count(const struct dnn_conv *c)
{
    (void)c;
    return N_ENGINES;
}

bool dnn_conv_choose(struct dnn_conv *c, int i)
{
    c->chosen = c->bad_engines && i == 1 ? -1 : i;
    memset(&c->m, 0, sizeof(c->m));
    return c->chosen >= 0;
}

int dnn_conv_chosen(const struct dnn_conv *c)
{
    return c->chosen;
}

int64_t dnn_conv_engine(const struct dnn_conv *c)
{
    return 100 + c->chosen;
}

bool dnn_conv_compiled(const struct dnn_conv *c)
{
    (void)c;
    return false;
}

static size_t filter_numbers(const struct dnn_shape *d)
{
    return (size_t)d->kernel[0] * (size_t)d->kernel[1] * (size_t)d->c;
}

/* As cuDNN's, more where 16-bit weights' loss passes through it. */
size_t dnn_conv_scratch(const struct dnn_conv *c)
{
    const struct dnn_shape *d = &c->shape;
    bool narrow = d->pass == DNN_BACK_WEIGHTS && d->type != GTYPE_F32;

    return (size_t)(SCRATCH * c->chosen) +
           (narrow ? 2 * (size_t)d->k * filter_numbers(d) : 0);
}

int dnn_conv_bind(struct dnn_conv *c, const struct dnn_memory *m,
                  struct error *err)
{
    (void)err;
    c->m = *m;
    return 0;
}

/* Filters [k][kh][kw][c] as f32 [kh][kw][c][k]: the innermost loop is then over
 * outputs, which is quick without changing the order of any sum. */
static float *filters(const struct dnn_shape *d, const void *w)
{
    size_t row = filter_numbers(d);
    float *f = tensor_alloc(row * (size_t)d->k);

    for (int k = 0; f && k < d->k; k++)
        for (size_t i = 0; i < row; i++)
            f[i * (size_t)d->k + (size_t)k] =
                arith_get(w, (uint32_t)((size_t)k * row + i), (int)d->type);
    return f;
}

/* The sums of one pixel of y. */
static void sums_at(const struct dnn_shape *d, const struct nhwc *x,
                    struct arith_pixel at, const float *w, float *sum)
{
    for (int ky = 0; ky < d->kernel[0]; ky++)
        for (int kx = 0; kx < d->kernel[1]; kx++) {
            int row = at.y * d->stride[0] - d->pad[0] + ky * d->dilation[0];
            int column = at.x * d->stride[1] - d->pad[1] + kx * d->dilation[1];

            if (row < 0 || row >= d->h || column < 0 || column >= d->w)
                continue;
            for (int c = 0; c < d->c; c++) {
                float v = arith_get(x->p, arith_at(x, at.n, row, column, c),
                                    (int)d->type);
                const float *f =
                    w + (size_t)((ky * d->kernel[1] + kx) * d->c + c) *
                            (size_t)d->k;

                for (int k = 0; k < d->k; k++)
                    sum[k] += v * f[k];
            }
        }
}

static void convolve(const struct dnn_conv *c, const struct nhwc *x,
                     const struct nhwc *y, const float *w, float *sum)
{
    const struct dnn_shape *d = &c->shape;
    int type = (int)d->type;

    for (uint32_t p = 0; p < arith_pixels(y); p++) {
        memset(sum, 0, (size_t)d->k * sizeof(*sum));
        sums_at(d, x, arith_pixel(y, p), w, sum);
        for (uint32_t k = 0; k < (uint32_t)d->k; k++) {
            float v = sum[k] + arith_get(c->m.bias, k, type);

            if (c->m.z)
                v += arith_get(c->m.z, p * (uint32_t)d->z_pitch + k, type);
            arith_put(y->p, p * (uint32_t)y->pitch + k, type,
                      d->relu && !(v > 0) ? 0 : v);
        }
    }
}

/* Every pixel of y meets these pixels of x, tap by tap. For each of them: of
 * the pass by data, dx (f32, packed) += dy w; by weights, dw += dy x. */
static void meet(const struct dnn_conv *c, const struct nhwc *y,
                 struct arith_pixel at, const float *dy, const float *w,
                 float *to)
{
    const struct dnn_shape *d = &c->shape;
    size_t n_c = (size_t)d->c, row = filter_numbers(d);

    for (int ky = 0; ky < d->kernel[0]; ky++)
        for (int kx = 0; kx < d->kernel[1]; kx++) {
            int iy = at.y * d->stride[0] - d->pad[0] + ky * d->dilation[0];
            int ix = at.x * d->stride[1] - d->pad[1] + kx * d->dilation[1];
            size_t tap = (size_t)(ky * d->kernel[1] + kx) * n_c, pixel;

            if (iy < 0 || iy >= d->h || ix < 0 || ix >= d->w)
                continue;
            pixel = (size_t)((at.n * d->h + iy) * d->w + ix) * n_c;
            for (int k = 0; k < y->c; k++) {
                bool data = d->pass == DNN_BACK_DATA;
                const float *f = w + (data ? (size_t)k * row + tap : pixel);
                float *sum = to + (data ? pixel : (size_t)k * row + tap);

                for (size_t i = 0; i < n_c; i++)
                    sum[i] += dy[k] * f[i];
            }
        }
}

/* `rows` rows of c numbers, `pitch` apart, as packed f32. */
static float *plain(const void *p, size_t rows, int n_c, int pitch, int type)
{
    float *f = tensor_alloc(rows * (size_t)n_c);

    for (size_t i = 0; f && i < rows; i++)
        for (int k = 0; k < n_c; k++)
            f[i * (size_t)n_c + (size_t)k] =
                arith_get(p, (uint32_t)(i * (size_t)pitch + (size_t)k), type);
    return f;
}

/* Either backward pass; y: where the loss by y lies. */
static void pass_back(const struct dnn_conv *c, const struct nhwc *y)
{
    const struct dnn_shape *d = &c->shape;
    bool data = d->pass == DNN_BACK_DATA;
    int type = (int)d->type;
    size_t pixels = (size_t)(d->n * d->h * d->w), n_c = (size_t)d->c;
    size_t filters_rows = (size_t)d->k * filter_numbers(d) / n_c;
    size_t rows = data ? pixels : filters_rows;
    float *dy = plain(y->p, arith_pixels(y), y->c, y->pitch, type);
    float *w = data ? plain(c->m.w, filters_rows, d->c, d->c, type)
                    : plain(c->m.x, pixels, d->c, d->x_pitch, type);
    float *sum = tensor_alloc(rows * n_c);

    if (dy && w && sum) {
        memset(sum, 0, rows * n_c * sizeof(*sum));
        for (uint32_t p = 0; p < arith_pixels(y); p++)
            meet(c, y, arith_pixel(y, p), dy + (size_t)p * (size_t)y->c, w,
                 sum);
        for (size_t i = 0; i < rows * n_c; i++) {
            uint32_t at = (uint32_t)(i / n_c * (size_t)d->x_pitch + i % n_c);
            float rounded;

            if (data) {
                arith_put(c->m.y, at, type, sum[i]);
                continue;
            }
            arith_put(&rounded, 0, type, sum[i]);
            ((float *)c->m.y)[i] = arith_get(&rounded, 0, type);
        }
    }
    free(dy);
    free(w);
    free(sum);
}

static int out_size(const struct dnn_shape *d, int axis)
{
    int size = axis ? d->w : d->h;

    return (size + d->pad[axis] + d->pad[2 + axis] -
            (d->kernel[axis] - 1) * d->dilation[axis] - 1) /
               d->stride[axis] +
           1;
}

int dnn_conv_run(struct dnn_conv *c, struct stream *s, struct error *err)
{
    const struct dnn_shape *d = &c->shape;
    struct nhwc x = {(void *)c->m.x, d->n, d->c, d->h, d->w, d->x_pitch};
    struct nhwc y = {c->m.y,         d->n,           d->k,
                     out_size(d, 0), out_size(d, 1), d->y_pitch};
    float *w, *sum;

    if (c->bad_engines && c->chosen == 0)
        return error_set(err, ERR_DEVICE, "this engine does not run");
    if (!x.p || (dnn_conv_scratch(c) && !c->m.scratch) ||
        !c->m.z != !d->z_pitch)
        return error_set(err, ERR_DEVICE, "a convolution is not bound");
    if (dnn_conv_scratch(c))
        memset(c->m.scratch, 0xff, dnn_conv_scratch(c));
    if (d->pass != DNN_FORWARD) {
        y.p = (void *)(d->pass == DNN_BACK_DATA ? c->m.x : c->m.w);
        pass_back(c, &y);
        return card_launched(s, "a convolution", err);
    }
    w = filters(d, c->m.w);
    sum = tensor_alloc((size_t)d->k);
    if (w && sum)
        convolve(c, &x, &y, w, sum);
    free(w);
    free(sum);
    return card_launched(s, "a convolution", err);
}

void dnn_rest(struct dnn *d)
{
    (void)d;
}
