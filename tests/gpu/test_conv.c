/* tests/gpu/test_conv.c - every pass of a convolution, by each of cuDNN's
 * engines and by kernels of our own, and sums over pixels, against the plain
 * loops of tests/gpu/conv_layers.h: on the emulated card as test_conv, on a
 * real one as test_conv_card, which uses gpu/ itself and no plugin. Bounds
 * follow from the types alone: f32 sums in any order, results rounded once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gpu/conv_kernels.h"
#include "gpu/dnn.h"
#include "tests/gpu/conv_layers.h"

static struct card *card;
static struct stream *stream;
static struct dnn *dnn;
static int not_had; /* passes that cuDNN has nothing for */
static bool emulated;

static void must(int rc, const struct error *err)
{
    if (rc)
        fail_msg("%s", err->text);
}

/* ---- on the card ---------------------------------------------------------
 */

struct block {
    void *p;
    size_t bytes;
};

static struct block block_new(size_t bytes)
{
    struct error err = {0};
    struct block b = {card_alloc(card, bytes, &err), bytes};

    must(b.p ? 0 : -1, &err);
    must(card_fill(card, b.p, 0xff, bytes, &err), &err); /* NaN */
    return b;
}

static void block_free(struct block *b)
{
    card_release(card, b->p, b->bytes);
}

/* malloc'd */
static void *block_get(const struct block *b)
{
    struct error err = {0};
    void *host = malloc(b->bytes);

    assert_non_null(host);
    must(card_copy_out(stream, host, b->p, b->bytes, &err), &err);
    must(card_wait(stream, &err), &err);
    return host;
}

/* Rows of c numbers, padded to c8 with zeros, pitch apart; what lies beyond is
 * another's. v NULL: all of it is NaN. */
static struct block rows_new(const float *v, size_t rows, int c, int c8,
                             int pitch, int type)
{
    size_t bytes = rows * (size_t)pitch * (size_t)arith_bytes(type);
    struct block b = block_new(bytes);
    struct error err = {0};
    char *host = malloc(bytes);

    assert_non_null(host);
    memset(host, 0xff, bytes);
    for (size_t r = 0; v && r < rows; r++)
        for (int k = 0; k < c8; k++)
            arith_put(host, (uint32_t)(r * (size_t)pitch + (size_t)k), type,
                      k < c ? v[r * (size_t)c + (size_t)k] : 0);
    must(card_upload(card, b.p, host, bytes, &err), &err);
    free(host);
    return b;
}

/* Results against what is wanted; padding is zero, what is another's as it
 * was. loses: the products' own error, of TF32. */
static void rows_check(const struct block *b, const struct numbers *a,
                       const float *plus, int c, int c8, int pitch, int type,
                       double rounding, double loses, const char *what)
{
    char *host = block_get(b);
    size_t rows = a->n / (size_t)c;

    for (size_t r = 0; r < rows; r++)
        for (int k = 0; k < pitch; k++) {
            uint32_t at = (uint32_t)(r * (size_t)pitch + (size_t)k);
            double got = (double)arith_get(host, at, type), want, bound;

            if (k >= c8) {
                assert_true(isnan(got));
                continue;
            }
            if (k >= c) {
                if (got != 0)
                    fail_msg("%s: padding is %g", what, got);
                continue;
            }
            want = a->want[r * (size_t)c + (size_t)k];
            bound = a->size[r * (size_t)c + (size_t)k];
            if (plus) {
                want += (double)plus[r * (size_t)c + (size_t)k];
                bound += fabs((double)plus[r * (size_t)c + (size_t)k]);
            }
            bound = bound * (2e-6 + loses) + fabs(want) * rounding + 1e-6;
            if (!(fabs(got - want) <= bound))
                fail_msg("%s: row %zu, %d: %g, not %g within %g", what, r, k,
                         got, want, bound);
        }
    free(host);
}

static double rounding_of(int type)
{
    return type == GTYPE_F16 ? 0x1p-11 : type == GTYPE_BF16 ? 0x1p-8 : 0x1p-23;
}

/* By what cuDNN's engines may differ from sums in f32, of the terms' sizes:
 * some transform the picture first. */
static double engine_loses(int type, bool tf32)
{
    if (emulated)
        return 0;
    return tf32 ? 0x1p-9 : type == GTYPE_F32 ? 1e-5 : rounding_of(type);
}

/* Filters as weights.h has them, and back. */
enum form {
    FORM_CONV,
    FORM_GROUPED,
    FORM_DEPTHWISE
};

struct filters {
    enum form form;
    int rows, taps, row; /* [k][kh*kw][c/g] */
    int k8, row8;
};

static struct filters filters_of(const struct layer *l)
{
    struct filters f = {.form = l->group == 1      ? FORM_CONV
                                : l->c == l->group ? FORM_DEPTHWISE
                                                   : FORM_GROUPED,
                        .rows = l->k,
                        .taps = l->kernel[0] * l->kernel[1],
                        .row = l->c / l->group,
                        .k8 = arith_padded(l->k)};

    f.row8 = f.form == FORM_CONV ? arith_padded(f.row) : f.row;
    return f;
}

static size_t filters_count(const struct filters *f)
{
    return (size_t)f->k8 * (size_t)f->taps * (size_t)f->row8;
}

/* Where number i of the packed ones stands. */
static size_t filters_at(const struct filters *f, size_t i)
{
    size_t c = i % (size_t)f->row, tap = i / (size_t)f->row;
    size_t k = tap / (size_t)f->taps;

    if (f->form == FORM_DEPTHWISE)
        return tap % (size_t)f->taps * (size_t)f->k8 + k;
    return tap * (size_t)f->row8 + c;
}

static struct block filters_new(const struct filters *f,
                                const struct numbers *w, int type)
{
    size_t n = filters_count(f);
    float *padded = calloc(n, sizeof(*padded));
    struct block b;

    assert_non_null(padded);
    for (size_t i = 0; i < w->n; i++)
        padded[filters_at(f, i)] = w->v[i];
    b = rows_new(padded, n, 1, 1, 1,
                 f->form == FORM_DEPTHWISE ? GTYPE_F32 : type);
    free(padded);
    return b;
}

/* twice: the result was added to itself. */
static void filters_check(const struct filters *f, const struct block *b,
                          const struct numbers *w, bool twice, double rounding,
                          double loses, const char *what)
{
    float *host = block_get(b);
    size_t n = filters_count(f);

    for (size_t i = 0; i < w->n; i++) {
        double want = w->want[i] * (twice ? 2 : 1);
        double bound = w->size[i] * (4e-6 + loses) + fabs(want) * rounding;
        size_t at = filters_at(f, i);

        if (!(fabs((double)host[at] - want) <= bound + 1e-7))
            fail_msg("%s: weight %zu: %g, not %g within %g", what, i,
                     (double)host[at], want, bound);
        host[at] = 0;
    }
    for (size_t i = 0; i < n; i++)
        if (host[i] != 0)
            fail_msg("%s: padding is %g", what, (double)host[i]);
    free(host);
}

/* ---- cuDNN ---------------------------------------------------------------
 */

struct arrays { /* of a layer, on the card */
    const struct truth *t;
    struct filters f;
    int c8, k8, x_pitch, y_pitch;
    size_t x_rows, y_rows;
    struct block x, y, w; /* full: factors */
};

static struct arrays arrays_new(const struct truth *t)
{
    const struct layer *l = &t->l;
    struct arrays a = {.t = t,
                       .f = filters_of(l),
                       .c8 = arith_padded(l->c),
                       .k8 = arith_padded(l->k)};

    a.x_pitch = a.c8 + l->further;
    a.y_pitch = a.k8 + l->further;
    a.x_rows = t->x.n / (size_t)l->c;
    a.y_rows = t->y.n / (size_t)l->k;
    a.x = rows_new(t->x.v, a.x_rows, l->c, a.c8, a.x_pitch, t->type);
    a.y = rows_new(t->y.v, a.y_rows, l->k, a.k8, a.y_pitch, t->type);
    a.w = filters_new(&a.f, &t->w, t->type);
    return a;
}

static void arrays_free(struct arrays *a)
{
    block_free(&a->x);
    block_free(&a->y);
    block_free(&a->w);
}

/* A fresh array for the result of a pass. */
static struct block result_new(const struct arrays *a, enum dnn_pass pass)
{
    const struct layer *l = &a->t->l;

    if (pass == DNN_FORWARD)
        return rows_new(NULL, a->y_rows, l->k, a->k8, a->y_pitch, a->t->type);
    if (pass == DNN_BACK_DATA)
        return rows_new(NULL, a->x_rows, l->c, a->c8, a->x_pitch, a->t->type);
    return block_new(filters_count(&a->f) * sizeof(float));
}

static void result_check(const struct arrays *a, enum dnn_pass pass,
                         const struct block *b, double loses, const char *what)
{
    const struct layer *l = &a->t->l;
    double rounding = rounding_of(a->t->type);

    if (pass == DNN_FORWARD)
        rows_check(b, &a->t->y, NULL, l->k, a->k8, a->y_pitch, a->t->type,
                   rounding, loses, what);
    else if (pass == DNN_BACK_DATA)
        rows_check(b, &a->t->x, NULL, l->c, a->c8, a->x_pitch, a->t->type,
                   rounding, loses, what);
    else
        filters_check(&a->f, b, &a->t->w, false, rounding, loses, what);
}

/* Twice: each is right, and bit for bit the same. */
static void run_engine(const struct arrays *a, struct dnn_conv *c,
                       enum dnn_pass pass, const struct block *bias,
                       double loses, const char *what)
{
    struct block scratch = block_new(dnn_conv_scratch(c) + 1);
    struct error err = {0};
    void *got[2];

    for (int i = 0; i < 2; i++) {
        struct block result = result_new(a, pass);
        struct dnn_memory m = {.x = pass == DNN_BACK_DATA ? a->y.p : a->x.p,
                               .w = pass == DNN_BACK_WEIGHTS ? a->y.p : a->w.p,
                               .bias = bias->p,
                               .y = result.p,
                               .scratch = scratch.p};

        if (dnn_conv_bind(c, &m, &err) || dnn_conv_run(c, stream, &err)) {
            print_message("%s: %s\n", what, err.text);
            block_free(&result);
            block_free(&scratch);
            return;
        }
        result_check(a, pass, &result, loses, what);
        got[i] = block_get(&result);
        if (i == 1) {
            assert_memory_equal(got[0], got[1], result.bytes);
            free(got[0]);
            free(got[1]);
        }
        block_free(&result);
    }
    block_free(&scratch);
}

static void check_dnn(const struct arrays *a, bool tf32)
{
    static const char *const passes[] = {"forward", "by data", "by weights"};
    const struct layer *l = &a->t->l;
    struct dnn_shape s = {.n = l->n,
                          .c = a->c8,
                          .h = l->h,
                          .w = l->w,
                          .k = a->k8,
                          .x_pitch = a->x_pitch,
                          .y_pitch = a->y_pitch,
                          .type = (enum gtype)a->t->type,
                          .tf32 = tf32};
    struct block bias = rows_new(NULL, (size_t)a->k8, 1, 1, 1, a->t->type);
    struct error err = {0};

    must(card_fill(card, bias.p, 0, bias.bytes, &err), &err);
    memcpy(s.kernel, l->kernel, sizeof(s.kernel));
    memcpy(s.stride, l->stride, sizeof(s.stride));
    memcpy(s.dilation, l->dilation, sizeof(s.dilation));
    memcpy(s.pad, l->pad, sizeof(s.pad));
    for (int pass = DNN_FORWARD; pass <= DNN_BACK_WEIGHTS; pass++) {
        struct dnn_conv *c;

        s.pass = (enum dnn_pass)pass;
        c = dnn_conv_new(dnn, &s, (size_t)64 << 20, &err);
        not_had += !c;
        for (int i = 0; c && i < dnn_conv_count(c); i++) {
            char what[128];

            if (!dnn_conv_choose(c, i))
                continue;
            snprintf(what, sizeof(what), "%s, %s, type %d%s, engine %lld",
                     l->name, passes[pass], a->t->type, tf32 ? " (TF32)" : "",
                     (long long)dnn_conv_engine(c));
            run_engine(a, c, (enum dnn_pass)pass, &bias,
                       engine_loses(a->t->type, tf32), what);
        }
        dnn_conv_free(c);
    }
    dnn_rest(dnn);
    block_free(&bias);
}

/* ---- our own -------------------------------------------------------------
 */

static struct arith_conv_back args_of(const struct arrays *a)
{
    const struct layer *l = &a->t->l;
    struct arith_conv_back b = {
        .x = {a->x.p, l->n, l->c, l->h, l->w, a->x_pitch},
        .y = {a->y.p, l->n, l->k, a->t->out[0], a->t->out[1], a->y_pitch},
        .w = a->w.p,
        .group = l->group};

    memcpy(b.kernel, l->kernel, sizeof(b.kernel));
    memcpy(b.stride, l->stride, sizeof(b.stride));
    memcpy(b.dilation, l->dilation, sizeof(b.dilation));
    memcpy(b.pad, l->pad, sizeof(b.pad));
    return b;
}

typedef int (*pass_fn)(const struct arith_conv_back *a, int type,
                       struct stream *s, struct error *err);

static void check_own_data(const struct arrays *a, pass_fn pass,
                           const char *what)
{
    const struct layer *l = &a->t->l;
    struct block dx = result_new(a, DNN_BACK_DATA);
    struct arith_conv_back b = args_of(a);
    struct error err = {0};

    b.x.p = dx.p;
    must(pass(&b, a->t->type, stream, &err), &err);
    result_check(a, DNN_BACK_DATA, &dx, 0, what);
    block_free(&dx);
    /* Added to what x holds. */
    dx = rows_new(a->t->x.v, a->x_rows, l->c, a->c8, a->x_pitch, a->t->type);
    b.x.p = dx.p;
    b.add = true;
    must(pass(&b, a->t->type, stream, &err), &err);
    rows_check(&dx, &a->t->x, a->t->x.v, l->c, a->c8, a->x_pitch, a->t->type,
               rounding_of(a->t->type), 0, what);
    block_free(&dx);
}

static void check_own_weights(const struct arrays *a, pass_fn pass,
                              const char *what)
{
    struct block dw = result_new(a, DNN_BACK_WEIGHTS), scratch;
    struct arith_conv_back b = args_of(a);
    struct error err = {0};

    scratch = block_new(arith_depthwise_scratch(&b));
    b.scratch = scratch.p;
    b.dw = dw.p;
    must(pass(&b, a->t->type, stream, &err), &err);
    filters_check(&a->f, &dw, &a->t->w, false, 0x1p-23, 0, what);
    b.add = true;
    must(pass(&b, a->t->type, stream, &err), &err);
    filters_check(&a->f, &dw, &a->t->w, true, 0x1p-22, 0, what);
    block_free(&scratch);
    block_free(&dw);
}

static void check_layer(const struct layer *l, int type)
{
    struct truth t;
    struct arrays a;
    char what[96];

    snprintf(what, sizeof(what), "%s, type %d, our own", l->name, type);
    truth_init(&t, l, type);
    a = arrays_new(&t);
    if (a.f.form == FORM_DEPTHWISE) {
        check_own_data(&a, kernels_depthwise_back_data, what);
        check_own_weights(&a, kernels_depthwise_back_weights, what);
    } else {
        check_own_data(&a, kernels_conv_back_data, what);
        check_own_weights(&a, kernels_conv_back_weights, what);
    }
    if (a.f.form == FORM_CONV)
        check_dnn(&a, false);
    if (a.f.form == FORM_CONV && type == GTYPE_F32)
        check_dnn(&a, true);
    arrays_free(&a);
    truth_fini(&t);
}

static void test_type(void **state)
{
    int type = *(const int *)*state;

    not_had = 0;
    for (size_t i = 0; i < sizeof(layers) / sizeof(layers[0]); i++)
        check_layer(&layers[i], type);
    if (not_had)
        print_message("type %d: %d passes without an engine\n", type, not_had);
    /* uneven padding is for our own kernels where cuDNN does not take it */
    assert_true(not_had <= 3 * (type == GTYPE_F32 ? 2 : 1));
}

/* ---- sums over pixels ----------------------------------------------------
 */

static void check_columns(int n, int h, int w, int c, int further, int type)
{
    struct numbers y = {0}, sums = {.n = (size_t)c};
    struct arith_columns a = {.y = {NULL, n, c, h, w, arith_padded(c)}};
    size_t rows = (size_t)(n * h * w);
    struct block from, to, scratch;
    struct error err = {0};
    float first[64];

    draw(&y, "columns", rows * (size_t)c, type);
    sums.want = calloc((size_t)c, sizeof(double));
    sums.size = calloc((size_t)c, sizeof(double));
    assert_true(sums.want && sums.size && c <= 64);
    for (size_t i = 0; i < y.n; i++)
        term(&sums, i % (size_t)c, y.v[i], 1);
    a.y.pitch += further;
    from = rows_new(y.v, rows, c, arith_padded(c), a.y.pitch, type);
    to = block_new((size_t)arith_padded(c) * sizeof(float));
    scratch = block_new(arith_columns_scratch(&a));
    a.y.p = from.p;
    a.sums = to.p;
    a.scratch = scratch.p;
    must(kernels_column_sums(&a, type, stream, &err), &err);
    rows_check(&to, &sums, NULL, c, arith_padded(c), arith_padded(c), GTYPE_F32,
               0x1p-23, 0, "columns");
    for (int k = 0; k < c; k++)
        first[k] = (float)sums.want[k];
    a.add = true;
    must(kernels_column_sums(&a, type, stream, &err), &err);
    rows_check(&to, &sums, first, c, arith_padded(c), arith_padded(c),
               GTYPE_F32, 0x1p-22, 2e-6, "columns, added");
    block_free(&from);
    block_free(&to);
    block_free(&scratch);
    drop(&y);
    free(sums.want);
    free(sums.size);
}

static void test_columns(void **state)
{
    (void)state;
    for (int type = 0; type < GTYPE_COUNT; type++) {
        check_columns(1, 1, 1, 8, 0, type);
        check_columns(3, 5, 7, 13, 8, type);
        check_columns(5, 37, 41, 64, 0, type);
    }
}

/* Parts are for a whole card where there is much to sum, cover every pixel
 * once, and none is empty. */
static void test_parts(void **state)
{
    struct arith_conv_back wide = {.y = {NULL, 90, 128, 56, 56, 128},
                                   .kernel = {3, 3}};
    struct nhwc y = {NULL, 1, 8, 1, 1, 8};

    (void)state;
    assert_true(arith_depthwise_parts(&wide) *
                    (arith_depthwise_count(&wide) / ARITH_LANES) >=
                1u << 17);
    assert_true(arith_depthwise_scratch(&wide) < (size_t)16 << 20);
    for (y.w = 1; y.w < 4000; y.w += 13) {
        uint32_t parts = arith_parts(&y, 7), at = 0;

        for (uint32_t p = 0; p < parts; p++) {
            assert_true(arith_part_start(&y, p, parts) == at);
            assert_true(arith_part_start(&y, p + 1, parts) > at);
            at = arith_part_start(&y, p + 1, parts);
        }
        assert_true(at == (uint32_t)y.w);
    }
}

int main(void)
{
    static const int types[] = {GTYPE_F32, GTYPE_F16, GTYPE_BF16};
    const struct CMUnitTest tests[] = {
        {"f32, TF32", test_type, NULL, NULL, (void *)&types[0]},
        {"f16", test_type, NULL, NULL, (void *)&types[1]},
        {"bf16", test_type, NULL, NULL, (void *)&types[2]},
        cmocka_unit_test(test_columns),
        cmocka_unit_test(test_parts),
    };
    struct device_options opt = {0};
    struct device_info info = {.name = ""};
    struct error err = {0};
    int rc = 1;

    card = card_open(&opt, &err);
    stream =
        card && !card_enter(card, &err) ? card_stream_new(card, &err) : NULL;
    dnn = stream ? dnn_open(NULL, &err) : NULL;
    if (card)
        card_describe(card, &info);
    emulated = !strcmp(info.name, "emulated");
    if (dnn)
        rc = cmocka_run_group_tests_name("passes of convolutions", tests, NULL,
                                         NULL);
    else
        fprintf(stderr, "%s\n", err.text);
    dnn_close(dnn);
    if (stream)
        card_stream_free(stream);
    if (card)
        card_close(card);
    return rc;
}
