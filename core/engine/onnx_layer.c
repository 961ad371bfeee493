/* core/engine/onnx_layer.c - ONNX nodes that are layers: convolutions, dense
 * layers, norms, pools, activations. Each converter reads the reader's current
 * node and emits what computes its output. */
#include "core/engine/onnx_priv.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_WINDOW = 4096
}; /* kernel, stride, dilation, padding */

struct window {
    int kernel[2], stride[2], dilation[2], pad[4];
};

/* A list attribute of n numbers lo..MAX_WINDOW; all `missing` when absent. */
static int window_ints(struct onnx_reader *r, const char *name, int n, int lo,
                       int missing, int out[])
{
    int64_t v[4];
    int got;

    if (onnx_attr_ints(r, name, v, 4, &got))
        return -1;
    if (got >= 0 && got != n)
        return onnx_fail(r, "%s does not have %d numbers", name, n);
    for (int i = 0; i < n; i++) {
        if (got > 0 && (v[i] < lo || v[i] > MAX_WINDOW))
            return onnx_fail(r, "%s is out of range", name);
        out[i] = got > 0 ? (int)v[i] : missing;
    }
    return 0;
}

/* auto_pad to explicit padding; -1 failed, 0 explicit, 1 done. */
static int auto_pad(struct onnx_reader *r, const struct shape *in,
                    struct window *w)
{
    const Onnx__AttributeProto *a = onnx_attr(r, "auto_pad");
    const char *s = a && a->has_s ? (const char *)a->s.data : "";
    size_t len = a && a->has_s ? a->s.len : 0;
    bool upper = len == 10 && !memcmp(s, "SAME_UPPER", 10);
    bool lower = len == 10 && !memcmp(s, "SAME_LOWER", 10);
    bool valid = len == 5 && !memcmp(s, "VALID", 5);

    if (!len || (len == 6 && !memcmp(s, "NOTSET", 6)))
        return 0;
    if (!upper && !lower && !valid)
        return onnx_fail(r, "auto_pad is not a known word");
    memset(w->pad, 0, sizeof(w->pad));
    for (int i = 0; i < 2 && !valid; i++) {
        int size = in->d[2 + i], stride = w->stride[i], total;
        bool is_free = i ? r->free_w : r->free_h;
        if (is_free && stride > 1)
            return onnx_fail(r, "auto_pad with a stride needs a fixed input "
                                "size");
        total = ((size + stride - 1) / stride - 1) * stride +
                (w->kernel[i] - 1) * w->dilation[i] + 1 - size;
        if (is_free)
            total = (w->kernel[i] - 1) * w->dilation[i];
        if (total < 0)
            total = 0;
        if (total > 2 * MAX_WINDOW)
            return onnx_fail(r, "auto_pad pads too much");
        w->pad[i] = upper ? total / 2 : total - total / 2;
        w->pad[i + 2] = total - w->pad[i];
    }
    return 1;
}

/* kernel: of the weights, NULL where the attribute must give it. */
static int read_window(struct onnx_reader *r, int value, const int kernel[2],
                       struct window *w)
{
    const struct shape *in = &r->shapes[value];
    int done;

    if (in->rank != 4)
        return onnx_fail(r, "its input is not [n,c,h,w]");
    if (window_ints(r, "kernel_shape", 2, 1, 0, w->kernel) ||
        window_ints(r, "strides", 2, 1, 1, w->stride) ||
        window_ints(r, "dilations", 2, 1, 1, w->dilation) ||
        window_ints(r, "pads", 4, 0, 0, w->pad))
        return -1;
    if (!kernel && !w->kernel[0])
        return onnx_fail(r, "kernel_shape is missing");
    for (int i = 0; i < 2 && kernel; i++) {
        if (w->kernel[i] && w->kernel[i] != kernel[i])
            return onnx_fail(r, "kernel_shape does not fit the weights");
        w->kernel[i] = kernel[i];
    }
    done = auto_pad(r, in, w);
    return done < 0 ? -1 : 0;
}

static int one_output(struct onnx_reader *r)
{
    for (size_t i = 1; i < r->node->n_output; i++)
        if (*r->node->output[i])
            return onnx_fail(r, "output %zu is not supported", i);
    return 0;
}

/* A node of one computed input and no weights. */
static int emit_unary(struct onnx_reader *r, const struct op *op)
{
    int x;

    if (one_output(r) || onnx_in_value(r, 0, &x))
        return -1;
    return onnx_emit(r, 0, op, &x, 1);
}

/* --- convolution and dense layers ---------------------------------------- */

static int convert_conv(struct onnx_reader *r)
{
    struct op op = {.type = OP_CONV};
    struct onnx_name *c;
    struct shape shape, bias;
    struct window w;
    int64_t group;
    int in[3], n_in = 2;

    if (one_output(r) || onnx_in_value(r, 0, &in[0]) ||
        onnx_in_const(r, 1, &c) || onnx_attr_int(r, "group", 1, &group))
        return -1;
    if (onnx_tensor_shape(c->constant, &shape, r->err))
        return error_context(r->err, "node \"%.80s\" (Conv)", r->node_name);
    if (shape.rank != 4)
        return onnx_fail(r, "its weights are not [o,c,kh,kw]");
    if (read_window(r, in[0], &shape.d[2], &w))
        return -1;
    if (group < 1 || group > SHAPE_MAX_DIM)
        return onnx_fail(r, "group is out of range");
    in[1] = onnx_in_weight(r, 1, &shape);
    if (in[1] < 0)
        return -1;
    if (onnx_in(r, 2)) {
        bias = shape_of(1, shape.d[0], 0, 0, 0);
        in[n_in] = onnx_in_weight(r, 2, &bias);
        if (in[n_in++] < 0)
            return -1;
    }
    memcpy(op.u.conv.kernel, w.kernel, sizeof(w.kernel));
    memcpy(op.u.conv.stride, w.stride, sizeof(w.stride));
    memcpy(op.u.conv.dilation, w.dilation, sizeof(w.dilation));
    memcpy(op.u.conv.pad, w.pad, sizeof(w.pad));
    op.u.conv.group = (int)group;
    return onnx_emit(r, 0, &op, in, n_in);
}

/* Weights of input 1 as [o,k], times alpha. */
static int dense_weight(struct onnx_reader *r, bool transposed, float alpha,
                        struct shape *out)
{
    struct onnx_name *c;
    struct shape shape;
    float *from, *to;

    if (onnx_in_const(r, 1, &c))
        return -1;
    if (onnx_tensor_shape(c->constant, &shape, r->err))
        return error_context(r->err, "node \"%.80s\"", r->node_name);
    if (shape.rank != 2)
        return onnx_fail(r, "its weights are not a matrix");
    *out = transposed ? shape : shape_of(2, shape.d[1], shape.d[0], 0, 0);
    if (transposed && alpha == 1.0f)
        return onnx_in_weight(r, 1, out);
    from = onnx_const_floats(r, c);
    if (!from)
        return -1;
    to = malloc(shape_count(out) * sizeof(*to));
    if (!to) {
        free(from);
        return error_set(r->err, ERR_NOMEM, "no memory for \"%.80s\"", c->text);
    }
    size_t n_o = (size_t)out->d[0], n_k = (size_t)out->d[1];
    for (size_t o = 0; o < n_o; o++)
        for (size_t k = 0; k < n_k; k++)
            to[o * n_k + k] =
                alpha * from[transposed ? o * n_k + k : k * n_o + o];
    free(from);
    return onnx_add_weight(r, c, out, to);
}

/* Bias of input 2 as [n], times beta: a number or a row. */
static int dense_bias(struct onnx_reader *r, int n, float beta)
{
    struct shape row = shape_of(1, n, 0, 0, 0), shape;
    struct onnx_name *c;
    float *from, *to;
    size_t count;

    if (onnx_in_const(r, 2, &c))
        return -1;
    if (onnx_tensor_shape(c->constant, &shape, r->err))
        return error_context(r->err, "node \"%.80s\" (Gemm)", r->node_name);
    count = shape_count(&shape);
    if (shape.rank > 2 || (shape.rank == 2 && shape.d[0] != 1) ||
        (count != 1 && count != (size_t)n))
        return onnx_fail(r, "its bias is neither a number nor one row of %d",
                         n);
    if (count == (size_t)n && beta == 1.0f)
        return onnx_in_weight(r, 2, &row);
    from = onnx_const_floats(r, c);
    if (!from)
        return -1;
    to = malloc((size_t)n * sizeof(*to));
    if (!to) {
        free(from);
        return error_set(r->err, ERR_NOMEM, "no memory for \"%.80s\"", c->text);
    }
    for (int i = 0; i < n; i++)
        to[i] = beta * from[count == 1 ? 0 : i];
    free(from);
    return onnx_add_weight(r, c, &row, to);
}

static int convert_gemm(struct onnx_reader *r)
{
    struct op op = {.type = OP_GEMM};
    int64_t trans_a, trans_b;
    float alpha, beta;
    struct shape w;
    int in[3], n_in = 2;

    if (one_output(r) || onnx_in_value(r, 0, &in[0]) ||
        onnx_attr_int(r, "transA", 0, &trans_a) ||
        onnx_attr_int(r, "transB", 0, &trans_b) ||
        onnx_attr_float(r, "alpha", 1.0f, &alpha) ||
        onnx_attr_float(r, "beta", 1.0f, &beta))
        return -1;
    if (trans_a)
        return onnx_fail(r, "transA is not supported");
    in[1] = dense_weight(r, trans_b != 0, alpha, &w);
    if (in[1] < 0)
        return -1;
    if (onnx_in(r, 2)) {
        in[n_in] = dense_bias(r, w.d[0], beta);
        if (in[n_in++] < 0)
            return -1;
    }
    return onnx_emit(r, 0, &op, in, n_in);
}

static int convert_matmul(struct onnx_reader *r)
{
    struct op op = {.type = OP_GEMM};
    struct shape w;
    int in[2];

    if (one_output(r) || onnx_in_value(r, 0, &in[0]))
        return -1;
    if (r->shapes[in[0]].rank != 2)
        return onnx_fail(r, "its first input is not a matrix");
    in[1] = dense_weight(r, false, 1.0f, &w);
    return in[1] < 0 ? -1 : onnx_emit(r, 0, &op, in, 2);
}

/* --- norms -----------------------------------------------------------------
 */

/* A batch norm of mean 0, variance 1 and epsilon 0 is how a fixed scale and
 * shift are written: it is read back as what it was. */
static int as_affine(struct onnx_reader *r, int c)
{
    bool rest = true;

    for (int i = 3; i < 5 && rest; i++) {
        struct onnx_name *name;
        struct shape shape;
        float *data;
        if (onnx_in_const(r, i, &name))
            return -1;
        if (onnx_tensor_shape(name->constant, &shape, r->err))
            return error_context(r->err, "node \"%.80s\"", r->node_name);
        if (shape_count(&shape) != (size_t)c)
            return onnx_fail(r, "input %d does not have %d numbers", i, c);
        data = onnx_tensor_floats(name->constant, r->err);
        if (!data)
            return error_context(r->err, "node \"%.80s\"", r->node_name);
        for (int k = 0; k < c; k++)
            rest = rest && data[k] == (i == 3 ? 0.0f : 1.0f);
        free(data);
    }
    return rest;
}

static int convert_batch_norm(struct onnx_reader *r)
{
    struct op op = {.type = OP_BATCH_NORM};
    int64_t training, spatial;
    int in[5], n_in = 5, rest = 0;
    struct shape per_channel;

    if (one_output(r) || onnx_in_value(r, 0, &in[0]) ||
        onnx_attr_int(r, "training_mode", 0, &training) ||
        onnx_attr_int(r, "spatial", 1, &spatial) ||
        onnx_attr_float(r, "epsilon", 1e-5f, &op.u.norm.epsilon) ||
        onnx_attr_float(r, "momentum", 0.9f, &op.u.norm.momentum))
        return -1;
    if (training)
        return onnx_fail(r, "training_mode is not supported");
    if (!spatial)
        return onnx_fail(r, "spatial=0 is not supported");
    if (op.u.norm.epsilon < 0.0f)
        return onnx_fail(r, "epsilon is negative");
    if (r->shapes[in[0]].rank < 2)
        return onnx_fail(r, "its input has no channels");
    per_channel = shape_of(1, r->shapes[in[0]].d[1], 0, 0, 0);
    if (op.u.norm.epsilon == 0.0f) {
        rest = as_affine(r, per_channel.d[0]);
        if (rest < 0)
            return -1;
        if (rest) {
            op = (struct op){.type = OP_AFFINE};
            n_in = 3;
        }
    }
    for (int i = 1; i < n_in; i++) {
        in[i] = onnx_in_weight(r, i, &per_channel);
        if (in[i] < 0)
            return -1;
    }
    return onnx_emit(r, 0, &op, in, n_in);
}

static int convert_lrn(struct onnx_reader *r)
{
    struct op op = {.type = OP_LRN};
    int64_t size;

    if (onnx_attr_int(r, "size", 0, &size) ||
        onnx_attr_float(r, "alpha", 1e-4f, &op.u.lrn.alpha) ||
        onnx_attr_float(r, "beta", 0.75f, &op.u.lrn.beta) ||
        onnx_attr_float(r, "bias", 1.0f, &op.u.lrn.bias))
        return -1;
    if (size < 1 || size > MAX_WINDOW)
        return onnx_fail(r, "size is missing or out of range");
    op.u.lrn.size = (int)size;
    return emit_unary(r, &op);
}

static int convert_lp_norm(struct onnx_reader *r)
{
    struct op op = {.type = OP_LP_NORM};
    int64_t axis, p;
    int x;

    if (onnx_in_value(r, 0, &x) || onnx_attr_int(r, "axis", -1, &axis) ||
        onnx_attr_int(r, "p", 2, &p) ||
        onnx_axis(r, axis, r->shapes[x].rank, &op.u.axis.axis))
        return -1;
    if (p != 1 && p != 2)
        return onnx_fail(r, "p is neither 1 nor 2");
    op.u.axis.p = (int)p;
    return emit_unary(r, &op);
}

static int convert_softmax(struct onnx_reader *r)
{
    struct op op = {.type = OP_SOFTMAX};
    int64_t axis;
    int x, rest = 1;

    if (onnx_in_value(r, 0, &x) ||
        onnx_attr_int(r, "axis", r->opset < 13 ? 1 : -1, &axis) ||
        onnx_axis(r, axis, r->shapes[x].rank, &op.u.axis.axis))
        return -1;
    /* before opset 13 everything from the axis on is one vector */
    for (int i = op.u.axis.axis + 1; i < r->shapes[x].rank; i++)
        rest *= r->shapes[x].d[i];
    if (r->opset < 13 && rest != 1)
        return onnx_fail(r,
                         "in operator set %d it runs over several axes, "
                         "which is not supported",
                         r->opset);
    return emit_unary(r, &op);
}

/* --- pools ------------------------------------------------------------------
 */

static int convert_pool(struct onnx_reader *r, enum op_type type)
{
    struct op op = {.type = type};
    int64_t ceil_mode, count_pad, order, p;
    struct window w;
    int x;

    if (onnx_in_value(r, 0, &x) || read_window(r, x, NULL, &w) ||
        onnx_attr_int(r, "ceil_mode", 0, &ceil_mode) ||
        onnx_attr_int(r, "count_include_pad", 0, &count_pad) ||
        onnx_attr_int(r, "storage_order", 0, &order) ||
        onnx_attr_int(r, "p", 2, &p))
        return -1;
    if (w.dilation[0] != 1 || w.dilation[1] != 1)
        return onnx_fail(r, "dilations are not supported");
    if (order)
        return onnx_fail(r, "storage_order is not supported");
    if (p < 1 || p > 64)
        return onnx_fail(r, "p is out of range");
    memcpy(op.u.pool.kernel, w.kernel, sizeof(w.kernel));
    memcpy(op.u.pool.stride, w.stride, sizeof(w.stride));
    memcpy(op.u.pool.pad, w.pad, sizeof(w.pad));
    op.u.pool.ceil_mode = ceil_mode != 0;
    op.u.pool.count_pad = count_pad != 0;
    op.u.pool.p = type == OP_LP_POOL ? (int)p : 0;
    return emit_unary(r, &op);
}

static int convert_max_pool(struct onnx_reader *r)
{
    return convert_pool(r, OP_MAX_POOL);
}

static int convert_average_pool(struct onnx_reader *r)
{
    return convert_pool(r, OP_AVG_POOL);
}

static int convert_lp_pool(struct onnx_reader *r)
{
    return convert_pool(r, OP_LP_POOL);
}

static int convert_global_pool(struct onnx_reader *r, enum op_type type)
{
    struct op op = {.type = type};
    int64_t p;

    if (onnx_attr_int(r, "p", 2, &p))
        return -1;
    if (p < 1 || p > 64)
        return onnx_fail(r, "p is out of range");
    op.u.pool.global = true;
    op.u.pool.stride[0] = op.u.pool.stride[1] = 1;
    op.u.pool.p = type == OP_LP_POOL ? (int)p : 0;
    return emit_unary(r, &op);
}

static int convert_global_max(struct onnx_reader *r)
{
    return convert_global_pool(r, OP_MAX_POOL);
}

static int convert_global_average(struct onnx_reader *r)
{
    return convert_global_pool(r, OP_AVG_POOL);
}

static int convert_global_lp(struct onnx_reader *r)
{
    return convert_global_pool(r, OP_LP_POOL);
}

/* --- activations
 * -------------------------------------------------------------- */

static int convert_relu(struct onnx_reader *r)
{
    return emit_unary(r, &(struct op){.type = OP_RELU});
}

static int convert_sigmoid(struct onnx_reader *r)
{
    return emit_unary(r, &(struct op){.type = OP_SIGMOID});
}

/* Slopes are stored [c,1,1] so that they broadcast; older exporters wrote
 * [c]. */
static int convert_prelu(struct onnx_reader *r)
{
    struct op op = {.type = OP_PRELU};
    struct onnx_name *c;
    struct shape slope, packed;
    const struct shape *x;
    int in[2], lead;
    size_t n;

    if (one_output(r) || onnx_in_value(r, 0, &in[0]) || onnx_in_const(r, 1, &c))
        return -1;
    if (onnx_tensor_shape(c->constant, &slope, r->err))
        return error_context(r->err, "node \"%.80s\" (PRelu)", r->node_name);
    x = &r->shapes[in[0]];
    n = shape_count(&slope);
    lead = x->rank - slope.rank; /* axes before the slope's first */
    bool channels =
        x->rank >= 2 && n == (size_t)x->d[1] && lead >= 0 &&
        (slope.rank == 1 || slope.d[1 - (lead < 2 ? lead : 1)] == x->d[1]);
    if (n != 1 && !channels)
        return onnx_fail(r, "its slope is neither one number nor one for "
                            "each channel");
    if (n != 1 && slope.rank == 1 && x->rank > 2 &&
        x->d[x->rank - 1] == x->d[1])
        return onnx_fail(r, "its slope may be meant for channels or for "
                            "columns: write it as [c,1,1]");
    packed = shape_of(1, (int)n, 0, 0, 0);
    in[1] = onnx_in_weight(r, 1, &packed);
    return in[1] < 0 ? -1 : onnx_emit(r, 0, &op, in, 2);
}

static int convert_leaky_relu(struct onnx_reader *r)
{
    struct op op = {.type = OP_PRELU};
    struct shape one = shape_of(1, 1, 0, 0, 0);
    float alpha, *slope;
    int in[2];

    if (one_output(r) || onnx_in_value(r, 0, &in[0]) ||
        onnx_attr_float(r, "alpha", 0.01f, &alpha))
        return -1;
    slope = malloc(sizeof(*slope));
    if (!slope)
        return error_set(r->err, ERR_NOMEM, "no memory for a slope");
    *slope = alpha;
    in[1] = onnx_add_weight(r, NULL, &one, slope);
    return in[1] < 0 ? -1 : onnx_emit(r, 0, &op, in, 2);
}

static int convert_clip(struct onnx_reader *r)
{
    struct op op = {.type = OP_CLIP};
    float *lo = &op.u.clip.lo, *hi = &op.u.clip.hi;

    *lo = -FLT_MAX;
    *hi = FLT_MAX;
    if (r->opset < 11) {
        if (onnx_attr_float(r, "min", -FLT_MAX, lo) ||
            onnx_attr_float(r, "max", FLT_MAX, hi))
            return -1;
    } else if ((onnx_in(r, 1) && onnx_in_scalar(r, 1, lo)) ||
               (onnx_in(r, 2) && onnx_in_scalar(r, 2, hi))) {
        return -1;
    }
    if (*lo > *hi)
        return onnx_fail(r, "min is greater than max");
    return emit_unary(r, &op);
}

/* The mask output has no value here: a node that reads it is refused. */
static int convert_dropout(struct onnx_reader *r)
{
    struct op op = {.type = OP_DROPOUT};
    float ratio = 0.5f;
    int x;

    if (onnx_in_value(r, 0, &x))
        return -1;
    if (r->opset < 12) {
        if (onnx_attr_float(r, "ratio", 0.5f, &ratio))
            return -1;
    } else {
        const struct onnx_name *training = onnx_in(r, 2);
        if (onnx_in(r, 1) && onnx_in_scalar(r, 1, &ratio))
            return -1;
        if (training && !(training->constant &&
                          training->constant->data_type ==
                              ONNX__TENSOR_PROTO__DATA_TYPE__BOOL &&
                          training->constant->has_raw_data &&
                          training->constant->raw_data.len == 1 &&
                          !training->constant->raw_data.data[0]))
            return onnx_fail(r, "training_mode is not supported");
    }
    if (ratio < 0.0f || ratio >= 1.0f)
        return onnx_fail(r, "ratio is not in 0..1");
    op.u.dropout.ratio = ratio;
    return onnx_emit(r, 0, &op, &x, 1);
}

static const struct {
    const char *name;
    onnx_convert_fn convert;
} layers[] = {
    {"AveragePool", convert_average_pool},
    {"BatchNormalization", convert_batch_norm},
    {"Clip", convert_clip},
    {"Conv", convert_conv},
    {"Dropout", convert_dropout},
    {"Gemm", convert_gemm},
    {"GlobalAveragePool", convert_global_average},
    {"GlobalLpPool", convert_global_lp},
    {"GlobalMaxPool", convert_global_max},
    {"LRN", convert_lrn},
    {"LeakyRelu", convert_leaky_relu},
    {"LpNormalization", convert_lp_norm},
    {"LpPool", convert_lp_pool},
    {"MatMul", convert_matmul},
    {"MaxPool", convert_max_pool},
    {"PRelu", convert_prelu},
    {"Relu", convert_relu},
    {"Sigmoid", convert_sigmoid},
    {"Softmax", convert_softmax},
};

onnx_convert_fn onnx_layer_convert(const char *op_type)
{
    for (size_t i = 0; i < sizeof(layers) / sizeof(layers[0]); i++)
        if (!strcmp(layers[i].name, op_type))
            return layers[i].convert;
    return NULL;
}
