/* core/engine/op_plain.c - operators that neither oneDNN nor OpenBLAS covers,
 * as loops over packed NCHW float32. Called by the CPU backend's plans.
 * They are few and small in the networks at hand; what is hot is elsewhere. */
#include "core/engine/op.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* A tensor seen along one axis: [outer, axis, inner]. */
struct view {
    size_t outer, axis, inner;
};

static struct view view_axis(const struct shape *s, int axis)
{
    struct view v = {1, (size_t)s->d[axis], 1};

    for (int i = 0; i < axis; i++)
        v.outer *= (size_t)s->d[i];
    for (int i = axis + 1; i < s->rank; i++)
        v.inner *= (size_t)s->d[i];
    return v;
}

static float arith(enum op_type type, float a, float b)
{
    switch (type) {
    case OP_ADD:
        return a + b;
    case OP_SUB:
        return a - b;
    case OP_MUL:
        return a * b;
    case OP_DIV:
        return a / b;
    default:
        return a > b ? a : b;
    }
}

static void forward_arith(const struct op *op, const float *const in[],
                          const struct shape shape_in[], int n_in, float *out,
                          const struct shape *shape_out)
{
    struct view v = {1, 1, shape_count(shape_out)};
    bool by_channel = shape_in[1].rank == 1 && shape_out->rank > 1 &&
                      !shape_equal(&shape_in[0], &shape_in[1]);
    bool one = shape_count(&shape_in[1]) == 1;

    (void)n_in;
    if (by_channel && !one)
        v = view_axis(shape_out, 1);
    for (size_t o = 0, at = 0; o < v.outer; o++)
        for (size_t c = 0; c < v.axis; c++)
            for (size_t i = 0; i < v.inner; i++, at++)
                out[at] = arith(op->type, in[0][at],
                                in[1][one          ? 0
                                      : v.axis > 1 ? c
                                                   : at]);
}

static void forward_max(const struct op *op, const float *const in[],
                        const struct shape shape_in[], int n_in, float *out,
                        const struct shape *shape_out)
{
    size_t n = shape_count(shape_out);

    (void)op;
    (void)shape_in;
    memcpy(out, in[0], n * sizeof(*out));
    for (int k = 1; k < n_in; k++)
        for (size_t i = 0; i < n; i++)
            out[i] = in[k][i] > out[i] ? in[k][i] : out[i];
}

static void forward_slice(const struct op *op, const float *const in[],
                          const struct shape shape_in[], int n_in, float *out,
                          const struct shape *shape_out)
{
    struct view v = view_axis(&shape_in[0], op->u.axis.axis);
    size_t run = (size_t)op->u.axis.length * v.inner;

    (void)n_in;
    (void)shape_out;
    for (size_t o = 0; o < v.outer; o++)
        memcpy(out + o * run,
               in[0] + (o * v.axis + (size_t)op->u.axis.start) * v.inner,
               run * sizeof(*out));
}

static void forward_softmax(const struct op *op, const float *const in[],
                            const struct shape shape_in[], int n_in, float *out,
                            const struct shape *shape_out)
{
    struct view v = view_axis(&shape_in[0], op->u.axis.axis);

    (void)n_in;
    (void)shape_out;
    for (size_t o = 0; o < v.outer; o++)
        for (size_t i = 0; i < v.inner; i++) {
            const float *x = in[0] + o * v.axis * v.inner + i;
            float *y = out + o * v.axis * v.inner + i;
            float top = -FLT_MAX, sum = 0;

            for (size_t c = 0; c < v.axis; c++)
                top = fmaxf(top, x[c * v.inner]);
            for (size_t c = 0; c < v.axis; c++)
                sum += y[c * v.inner] = expf(x[c * v.inner] - top);
            for (size_t c = 0; c < v.axis; c++)
                y[c * v.inner] /= sum;
        }
}

static void forward_lp_norm(const struct op *op, const float *const in[],
                            const struct shape shape_in[], int n_in, float *out,
                            const struct shape *shape_out)
{
    struct view v = view_axis(&shape_in[0], op->u.axis.axis);

    (void)n_in;
    (void)shape_out;
    for (size_t o = 0; o < v.outer; o++)
        for (size_t i = 0; i < v.inner; i++) {
            const float *x = in[0] + o * v.axis * v.inner + i;
            float *y = out + o * v.axis * v.inner + i;
            double sum = 0, norm;

            for (size_t c = 0; c < v.axis; c++)
                sum += op->u.axis.p == 1
                           ? fabs((double)x[c * v.inner])
                           : (double)x[c * v.inner] * x[c * v.inner];
            norm = op->u.axis.p == 1 ? sum : sqrt(sum);
            if (norm == 0) /* a null vector stays one */
                norm = 1;
            for (size_t c = 0; c < v.axis; c++)
                y[c * v.inner] = (float)(x[c * v.inner] / norm);
        }
}

static void forward_transpose(const struct op *op, const float *const in[],
                              const struct shape shape_in[], int n_in,
                              float *out, const struct shape *shape_out)
{
    size_t stride[SHAPE_MAX_RANK] = {0}, step = 1, d[SHAPE_MAX_RANK];
    int rank = shape_out->rank;
    size_t at = 0;

    (void)n_in;
    for (int i = rank - 1; i >= 0; i--) {
        for (int k = 0; k < rank; k++)
            if (op->u.transpose.perm[k] == i)
                stride[k] = step;
        step *= (size_t)shape_in[0].d[i];
    }
    for (int i = 0; i < SHAPE_MAX_RANK; i++)
        d[i] = i < rank ? (size_t)shape_out->d[i] : 1;
    for (size_t a = 0; a < d[0]; a++)
        for (size_t b = 0; b < d[1]; b++)
            for (size_t c = 0; c < d[2]; c++)
                for (size_t e = 0; e < d[3]; e++)
                    out[at++] = in[0][a * stride[0] + b * stride[1] +
                                      c * stride[2] + e * stride[3]];
}

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* One window of a plane; n_full counts cells as ONNX does with
 * count_include_pad: padding, but not what ceil_mode reaches beyond it. */
static float pool_window(const struct op *op, const float *x, int h, int w,
                         int y0, int x0, int kh, int kw)
{
    const struct op_pool *p = &op->u.pool;
    int y1 = smaller(y0 + kh, h + p->pad[2]);
    int x1 = smaller(x0 + kw, w + p->pad[3]);
    double n_full = (double)(y1 - y0) * (x1 - x0);
    float top = -FLT_MAX;
    double sum = 0;
    int n = 0;

    for (int i = y0 > 0 ? y0 : 0; i < smaller(y1, h); i++)
        for (int k = x0 > 0 ? x0 : 0; k < smaller(x1, w); k++) {
            float v = x[(size_t)i * (size_t)w + (size_t)k];

            n++;
            top = v > top ? v : top;
            sum += op->type == OP_LP_POOL
                       ? p->p == 1 ? fabs((double)v) : (double)v * v
                       : v;
        }
    if (op->type == OP_MAX_POOL)
        return top;
    if (op->type == OP_LP_POOL)
        return (float)(p->p == 1 ? sum : sqrt(sum));
    return (float)(sum / (p->count_pad ? n_full : n ? n : 1));
}

static void forward_pool(const struct op *op, const float *const in[],
                         const struct shape shape_in[], int n_in, float *out,
                         const struct shape *shape_out)
{
    const struct op_pool *p = &op->u.pool;
    int h = shape_in[0].d[2], w = shape_in[0].d[3];
    int kh = p->global ? h : p->kernel[0], kw = p->global ? w : p->kernel[1];
    int sh = p->global ? 1 : p->stride[0], sw = p->global ? 1 : p->stride[1];
    int top = p->global ? 0 : p->pad[0], left = p->global ? 0 : p->pad[1];
    size_t planes = (size_t)shape_in[0].d[0] * (size_t)shape_in[0].d[1];

    (void)n_in;
    for (size_t c = 0; c < planes; c++)
        for (int y = 0; y < shape_out->d[2]; y++)
            for (int x = 0; x < shape_out->d[3]; x++)
                *out++ = pool_window(op, in[0] + c * (size_t)h * (size_t)w, h,
                                     w, y * sh - top, x * sw - left, kh, kw);
}

op_forward_fn op_plain_forward(enum op_type type)
{
    static const op_forward_fn table[OP_COUNT] = {
        [OP_ADD] = forward_arith,
        [OP_SUB] = forward_arith,
        [OP_MUL] = forward_arith,
        [OP_DIV] = forward_arith,
        [OP_MAX] = forward_max,
        [OP_SLICE] = forward_slice,
        [OP_SOFTMAX] = forward_softmax,
        [OP_LP_NORM] = forward_lp_norm,
        [OP_TRANSPOSE] = forward_transpose,
        [OP_AVG_POOL] = forward_pool,
        [OP_MAX_POOL] = forward_pool,
        [OP_LP_POOL] = forward_pool,
    };

    return table[type];
}

typedef float floats_4 __attribute__((vector_size(16)));
typedef int32_t mask_4 __attribute__((vector_size(16)));

void op_prelu(float *x, const float *slope, size_t period, size_t n)
{
    for (size_t at = 0; at < n; at += period, x += period) {
        size_t end = n - at < period ? n - at : period, i = 0;

        for (; i + 4 <= end; i += 4) {
            floats_4 v, s;
            mask_4 above;

            memcpy(&v, x + i, sizeof(v));
            memcpy(&s, slope + i, sizeof(s));
            above = v > 0;
            v = (floats_4)((above & (mask_4)v) | (~above & (mask_4)(v * s)));
            memcpy(x + i, &v, sizeof(v));
        }
        for (; i < end; i++)
            x[i] = x[i] > 0 ? x[i] : x[i] * slope[i];
    }
}
