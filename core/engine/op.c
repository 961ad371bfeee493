/* core/engine/op.c - the operator table: names, shape rules, cost.
 * The graph asks it for shapes, backends for meanings; nothing here computes.
 * Shape rules are ONNX's. */
#include "core/engine/op.h"

#include <limits.h>

static const struct op_info table[OP_COUNT] = {
    [OP_CONV] = {"Conv", 2, 5, OP_KEEP_INPUT},
    [OP_GEMM] = {"Gemm", 2, 4, OP_KEEP_INPUT},
    [OP_BATCH_NORM] = {"BatchNormalization", 5, 5,
                       OP_KEEP_INPUT | OP_KEEP_STATE},
    [OP_AFFINE] = {"Affine", 3, 3, OP_KEEP_INPUT},
    [OP_RELU] = {"Relu", 1, 1, OP_KEEP_OUTPUT},
    [OP_PRELU] = {"PRelu", 2, 2, OP_KEEP_INPUT},
    [OP_CLIP] = {"Clip", 1, 1, OP_KEEP_OUTPUT},
    [OP_SIGMOID] = {"Sigmoid", 1, 1, OP_KEEP_OUTPUT},
    [OP_ADD] = {"Add", 2, 2, OP_KEEP_NOTHING},
    [OP_SUB] = {"Sub", 2, 2, OP_KEEP_NOTHING},
    [OP_MUL] = {"Mul", 2, 2, OP_KEEP_INPUT},
    [OP_DIV] = {"Div", 2, 2, OP_KEEP_INPUT | OP_KEEP_OUTPUT},
    [OP_MAX] = {"Max", 1, 64, OP_KEEP_INPUT | OP_KEEP_OUTPUT},
    [OP_CONCAT] = {"Concat", 1, 64, OP_KEEP_NOTHING},
    [OP_SLICE] = {"Slice", 1, 1, OP_KEEP_NOTHING},
    [OP_MAX_POOL] = {"MaxPool", 1, 1, OP_KEEP_STATE},
    [OP_AVG_POOL] = {"AveragePool", 1, 1, OP_KEEP_NOTHING},
    [OP_LP_POOL] = {"LpPool", 1, 1, OP_KEEP_INPUT | OP_KEEP_OUTPUT},
    [OP_LRN] = {"LRN", 1, 1, OP_KEEP_INPUT | OP_KEEP_STATE},
    [OP_SOFTMAX] = {"Softmax", 1, 1, OP_KEEP_OUTPUT},
    [OP_LP_NORM] = {"LpNormalization", 1, 1, OP_KEEP_INPUT | OP_KEEP_OUTPUT},
    [OP_RESHAPE] = {"Reshape", 1, 1, OP_KEEP_NOTHING},
    [OP_TRANSPOSE] = {"Transpose", 1, 1, OP_KEEP_NOTHING},
    [OP_DROPOUT] = {"Dropout", 1, 1, OP_KEEP_STATE},
    [OP_IDENTITY] = {"Identity", 1, 1, OP_KEEP_NOTHING},
};

const struct op_info *op_info(enum op_type type)
{
    return &table[type];
}

int op_window(int size, int kernel, int stride, int dilation, int pad_a,
              int pad_b, bool ceil_mode, int *far_pad)
{
    int64_t reach = (int64_t)(kernel - 1) * dilation + 1;
    int64_t room = (int64_t)size + pad_a + pad_b - reach;
    int64_t out, need;

    if (kernel < 1 || stride < 1 || dilation < 1 || pad_a < 0 || pad_b < 0 ||
        kernel > OP_MAX_WINDOW || stride > OP_MAX_WINDOW ||
        dilation > OP_MAX_WINDOW || pad_a > OP_MAX_WINDOW ||
        pad_b > OP_MAX_WINDOW || pad_a >= reach || pad_b >= reach || room < 0)
        return -1;
    out = (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
    /* A last window that starts beyond the picture sees nothing. */
    if (ceil_mode && (out - 1) * stride >= (int64_t)size + pad_a)
        out--;
    need = (out - 1) * stride + reach - size - pad_a;
    if (far_pad)
        *far_pad = (int)(need > 0 ? need : 0);
    return (int)out;
}

static int window_2d(const int kernel[2], const int stride[2],
                     const int dilation[2], const int pad[4], bool ceil_mode,
                     const struct shape *in, struct shape *out,
                     struct error *err)
{
    for (int i = 0; i < 2; i++) {
        out->d[2 + i] =
            op_window(in->d[2 + i], kernel[i], stride[i], dilation[i], pad[i],
                      pad[2 + i], ceil_mode, NULL);
        if (out->d[2 + i] < 1)
            return error_set(err, ERR_MODEL,
                             "a window of %d, stride %d, padding %d+%d does "
                             "not fit a side of %d",
                             kernel[i], stride[i], pad[i], pad[2 + i],
                             in->d[2 + i]);
    }
    return 0;
}

static int shape_conv(const struct op *op, const struct shape in[], int n_in,
                      struct shape *out, struct error *err)
{
    const struct op_conv *c = &op->u.conv;
    const struct shape *x = &in[0], *w = &in[1];
    int n_want = 2 + (n_in > 2 ? 1 : 0) + c->residual + (c->act == ACT_PRELU);

    if (x->rank != 4 || w->rank != 4)
        return error_set(err, ERR_MODEL,
                         "a convolution wants 4-d input and "
                         "weights");
    if (c->group < 1 || w->d[0] % c->group || x->d[1] % c->group ||
        w->d[1] != x->d[1] / c->group)
        return error_set(err, ERR_MODEL,
                         "weights for %d channels in %d groups do not fit an "
                         "input of %d channels",
                         w->d[1], c->group, x->d[1]);
    if (w->d[2] != c->kernel[0] || w->d[3] != c->kernel[1])
        return error_set(err, ERR_MODEL,
                         "the kernel's size is %dx%d in the "
                         "weights and %dx%d in the node",
                         w->d[2], w->d[3], c->kernel[0], c->kernel[1]);
    if (n_in > 2 && (in[2].rank != 1 || in[2].d[0] != w->d[0]))
        return error_set(err, ERR_MODEL, "the bias does not have %d numbers",
                         w->d[0]);
    if ((c->residual || c->act == ACT_PRELU) && n_in != n_want)
        return error_set(err, ERR_MODEL,
                         "a fused convolution has %d inputs "
                         "for %d",
                         n_in, n_want);
    *out = shape_of(4, x->d[0], w->d[0], 0, 0);
    if (window_2d(c->kernel, c->stride, c->dilation, c->pad, false, x, out,
                  err))
        return -1;
    if (c->residual && !shape_equal(&in[3], out))
        return error_set(err, ERR_MODEL, "the residual has another shape");
    return 0;
}

static int shape_gemm(const struct shape in[], int n_in, struct shape *out,
                      struct error *err)
{
    const struct shape *x = &in[0], *w = &in[1];

    if (x->rank != 2 || w->rank != 2 || x->d[1] != w->d[1])
        return error_set(err, ERR_MODEL,
                         "a dense layer's weights do not fit its input");
    if (n_in > 2 && (in[2].rank != 1 || in[2].d[0] != w->d[0]))
        return error_set(err, ERR_MODEL, "the bias does not have %d numbers",
                         w->d[0]);
    *out = shape_of(2, x->d[0], w->d[0], 0, 0);
    return 0;
}

static int shape_channels(const struct shape in[], int n_in, bool allow_one,
                          struct shape *out, struct error *err)
{
    if (in[0].rank < 2)
        return error_set(err, ERR_MODEL, "the input has no channels");
    for (int i = 1; i < n_in; i++)
        if (in[i].rank != 1 ||
            (in[i].d[0] != in[0].d[1] && !(allow_one && in[i].d[0] == 1)))
            return error_set(err, ERR_MODEL,
                             "a parameter does not have one number for each "
                             "of %d channels",
                             in[0].d[1]);
    *out = in[0];
    return 0;
}

/* b broadcasts to a: equal, one number, one per channel ([c]), one per
 * feature plane ([1,c,1,1] and the like). */
static int shape_arith(const struct shape in[], struct shape *out,
                       struct error *err)
{
    const struct shape *a = &in[0], *b = &in[1];
    char ta[48], tb[48];

    *out = *a;
    if (shape_equal(a, b) || shape_count(b) == 1)
        return 0;
    if (b->rank == 1 && a->rank >= 2 && b->d[0] == a->d[1])
        return 0;
    return error_set(err, ERR_MODEL, "shapes %s and %s do not go together",
                     shape_text(a, ta, sizeof(ta)),
                     shape_text(b, tb, sizeof(tb)));
}

static int shape_concat(const struct op *op, const struct shape in[], int n_in,
                        struct shape *out, struct error *err)
{
    int axis = op->u.axis.axis;
    int64_t sum = 0;

    if (axis < 1 || axis >= in[0].rank)
        return error_set(err, ERR_MODEL, "joining along axis %d", axis);
    *out = in[0];
    for (int i = 0; i < n_in; i++) {
        for (int k = 0; k < in[0].rank; k++)
            if (in[i].rank != in[0].rank ||
                (k != axis && in[i].d[k] != in[0].d[k]))
                return error_set(err, ERR_MODEL,
                                 "the inputs to join differ in shape");
        sum += in[i].d[axis];
    }
    if (sum > SHAPE_MAX_DIM)
        return error_set(err, ERR_MODEL, "the joined axis is too long");
    out->d[axis] = (int)sum;
    return 0;
}

static int shape_pool(const struct op *op, const struct shape *in,
                      struct shape *out, struct error *err)
{
    static const int one[2] = {1, 1};
    const struct op_pool *p = &op->u.pool;

    if (in->rank != 4)
        return error_set(err, ERR_MODEL, "pooling wants 4-d input");
    if (op->type == OP_LP_POOL && p->p != 1 && p->p != 2)
        return error_set(err, ERR_MODEL, "LpPool with p = %d", p->p);
    *out = *in;
    if (p->global) {
        out->d[2] = out->d[3] = 1;
        return 0;
    }
    return window_2d(p->kernel, p->stride, one, p->pad, p->ceil_mode, in, out,
                     err);
}

static int shape_reshape(const struct op *op, const struct shape *in,
                         struct shape *out, struct error *err)
{
    const struct shape *to = &op->u.reshape.to;
    int64_t rest = 1, have = 1;
    int infer = -1;

    *out = *to;
    if (to->rank < 1 || to->rank > SHAPE_MAX_RANK)
        return error_set(err, ERR_MODEL, "a target of %d dimensions", to->rank);
    out->d[0] = in->d[0];
    for (int i = 1; i < in->rank; i++)
        have *= in->d[i];
    for (int i = 1; i < to->rank; i++) {
        if (to->d[i] == 0 && i < in->rank)
            out->d[i] = in->d[i];
        if (to->d[i] == -1 && infer < 0) {
            infer = i;
            continue;
        }
        if (out->d[i] < 1 || (rest *= out->d[i]) > SHAPE_MAX_COUNT)
            return error_set(err, ERR_MODEL, "the target shape is wrong");
    }
    if (infer >= 0 && have % rest == 0)
        out->d[infer] = (int)(have / rest);
    else if (infer >= 0 || rest != have)
        return error_set(err, ERR_MODEL,
                         "%lld numbers of a face do not fit the target shape",
                         (long long)have);
    return 0;
}

static int shape_transpose(const struct op *op, const struct shape *in,
                           struct shape *out, struct error *err)
{
    const int *perm = op->u.transpose.perm;
    unsigned seen = 0;

    *out = *in;
    for (int i = 0; i < in->rank; i++) {
        if (perm[i] < 0 || perm[i] >= in->rank || (seen & 1u << perm[i]))
            return error_set(err, ERR_MODEL, "the permutation is wrong");
        seen |= 1u << perm[i];
        out->d[i] = in->d[perm[i]];
    }
    if (in->rank < 1 || perm[0] != 0)
        return error_set(err, ERR_MODEL, "the batch axis must stay first");
    return 0;
}

static int shape_axis(const struct op *op, const struct shape *in,
                      struct shape *out, struct error *err)
{
    const struct op_axis *a = &op->u.axis;

    *out = *in;
    if (a->axis < 1 || a->axis >= in->rank)
        return error_set(err, ERR_MODEL, "axis %d of a %d-d input", a->axis,
                         in->rank);
    if (op->type == OP_LP_NORM && a->p != 1 && a->p != 2)
        return error_set(err, ERR_MODEL, "LpNormalization with p = %d", a->p);
    if (op->type != OP_SLICE)
        return 0;
    if (a->start < 0 || a->length < 1 || a->start > in->d[a->axis] - a->length)
        return error_set(err, ERR_MODEL, "a slice %d+%d of an axis of %d",
                         a->start, a->length, in->d[a->axis]);
    out->d[a->axis] = a->length;
    return 0;
}

static int shape_same(const struct shape in[], int n_in, struct shape *out,
                      struct error *err)
{
    for (int i = 1; i < n_in; i++)
        if (!shape_equal(&in[0], &in[i]))
            return error_set(err, ERR_MODEL, "the inputs differ in shape");
    *out = in[0];
    return 0;
}

static int shape_lrn(const struct op *op, const struct shape *in,
                     struct shape *out, struct error *err)
{
    *out = *in;
    if (in->rank != 4)
        return error_set(err, ERR_MODEL, "LRN wants 4-d input");
    /* An even window has no middle: libraries disagree on what it sees. */
    if (op->u.lrn.size < 1 || op->u.lrn.size > 1023 || !(op->u.lrn.size & 1))
        return error_set(err, ERR_MODEL,
                         "LRN of size %d: odd sizes to 1023 are possible",
                         op->u.lrn.size);
    return 0;
}

static int shape_of_op(const struct op *op, const struct shape in[], int n_in,
                       struct shape *out, struct error *err)
{
    switch (op->type) {
    case OP_CONV:
        return shape_conv(op, in, n_in, out, err);
    case OP_GEMM:
        return shape_gemm(in, n_in, out, err);
    case OP_BATCH_NORM:
    case OP_AFFINE:
        return shape_channels(in, n_in, false, out, err);
    case OP_PRELU:
        return shape_channels(in, n_in, true, out, err);
    case OP_ADD:
    case OP_SUB:
    case OP_MUL:
    case OP_DIV:
        return shape_arith(in, out, err);
    case OP_CONCAT:
        return shape_concat(op, in, n_in, out, err);
    case OP_MAX_POOL:
    case OP_AVG_POOL:
    case OP_LP_POOL:
        return shape_pool(op, in, out, err);
    case OP_RESHAPE:
        return shape_reshape(op, in, out, err);
    case OP_TRANSPOSE:
        return shape_transpose(op, in, out, err);
    case OP_SLICE:
    case OP_SOFTMAX:
    case OP_LP_NORM:
        return shape_axis(op, in, out, err);
    case OP_LRN:
        return shape_lrn(op, in, out, err);
    case OP_MAX:
    case OP_RELU:
    case OP_CLIP:
    case OP_SIGMOID:
    case OP_DROPOUT:
    case OP_IDENTITY:
        return shape_same(in, n_in, out, err);
    case OP_COUNT:
        break;
    }
    return error_set(err, ERR_MODEL, "operator number %d", (int)op->type);
}

int op_shape(const struct op *op, const struct shape in[], int n_in,
             struct shape *out, struct error *err)
{
    char text[48];

    if (n_in < table[op->type].min_in || n_in > table[op->type].max_in)
        return error_set(err, ERR_MODEL, "%s with %d inputs",
                         table[op->type].name, n_in);
    if (shape_of_op(op, in, n_in, out, err))
        return -1;
    if (!shape_valid(out))
        return error_set(err, ERR_MODEL, "the output would be %s",
                         shape_text(out, text, sizeof(text)));
    return 0;
}

int64_t op_macs(const struct op *op, const struct shape in[], int n_in,
                const struct shape *out)
{
    (void)n_in;
    if (op->type == OP_CONV)
        return (int64_t)shape_count(out) * in[1].d[1] * in[1].d[2] * in[1].d[3];
    if (op->type == OP_GEMM)
        return (int64_t)shape_count(out) * in[1].d[1];
    return 0;
}
