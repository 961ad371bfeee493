/* core/engine/onnx_math.c - ONNX nodes that are not layers: arithmetic,
 * changes of shape, constants. */
#include "core/engine/onnx_priv.h"

#include <stdlib.h>
#include <string.h>

/* --- arithmetic ------------------------------------------------------------
 */

enum operand {
    OPERAND_SCALAR,
    OPERAND_CHANNEL,
    OPERAND_BAD
};

/* How a constant of shape k broadcasts onto x. */
static enum operand operand_kind(const struct shape *x, const struct shape *k)
{
    if (k->rank > x->rank)
        return OPERAND_BAD;
    if (shape_count(k) == 1)
        return OPERAND_SCALAR;
    for (int i = 0; i < x->rank; i++) {
        int at = i - (x->rank - k->rank);
        if ((at < 0 ? 1 : k->d[at]) != (i == 1 ? x->d[1] : 1))
            return OPERAND_BAD;
    }
    return x->rank < 2 ? OPERAND_BAD : OPERAND_CHANNEL;
}

/* k - x as x * -1 + k, by channel. */
static int emit_reverse_sub(struct onnx_reader *r, int x, struct onnx_name *c)
{
    struct op op = {.type = OP_AFFINE};
    int n = r->shapes[x].d[1], in[3] = {x, -1, -1};
    struct shape shape = shape_of(1, n, 0, 0, 0), stored;
    float *k = onnx_const_floats(r, c);
    float *scale = malloc((size_t)n * sizeof(*scale));
    float *shift = malloc((size_t)n * sizeof(*shift));

    if (!k || !scale || !shift) {
        free(k);
        free(scale);
        free(shift);
        return k ? error_set(r->err, ERR_NOMEM, "no memory for a weight") : -1;
    }
    onnx_tensor_shape(c->constant, &stored, r->err);
    for (int i = 0; i < n; i++) {
        scale[i] = -1.0f;
        shift[i] = k[shape_count(&stored) == 1 ? 0 : i];
    }
    free(k);
    in[1] = onnx_add_weight(r, NULL, &shape, scale);
    in[2] = onnx_add_weight(r, c, &shape, shift);
    if (in[1] < 0 || in[2] < 0)
        return -1;
    return onnx_emit(r, 0, &op, in, 3);
}

/* The operand that is a constant: 0, 1, or -1 if none; -2 failed. */
static int constant_operand(struct onnx_reader *r)
{
    const struct onnx_name *a = onnx_in(r, 0), *b = onnx_in(r, 1);

    if (r->node->n_input != 2 || !a || !b) {
        onnx_fail(r, "does not have two inputs");
        return -2;
    }
    if (a->constant && b->constant) {
        onnx_fail(r, "both inputs are constants");
        return -2;
    }
    return a->constant ? 0 : b->constant ? 1 : -1;
}

static int two_values(struct onnx_reader *r, const struct op *op)
{
    int in[2];

    if (onnx_in_value(r, 0, &in[0]) || onnx_in_value(r, 1, &in[1]))
        return -1;
    if ((op->type == OP_ADD || op->type == OP_MUL) &&
        shape_count(&r->shapes[in[0]]) < shape_count(&r->shapes[in[1]])) {
        int t = in[0];
        in[0] = in[1];
        in[1] = t;
    }
    return onnx_emit(r, 0, op, in, 2);
}

static int convert_binary(struct onnx_reader *r, enum op_type type)
{
    struct op op = {.type = type};
    struct onnx_name *c;
    struct shape shape;
    enum operand kind;
    int at = constant_operand(r), in[2];

    if (at < 0)
        return at == -1 ? two_values(r, &op) : -1;
    if (onnx_in_value(r, 1 - at, &in[0]) || onnx_in_const(r, at, &c))
        return -1;
    if (onnx_tensor_shape(c->constant, &shape, r->err))
        return error_context(r->err, "node \"%.80s\"", r->node_name);
    kind = operand_kind(&r->shapes[in[0]], &shape);
    if (kind == OPERAND_BAD)
        return onnx_fail(r, "its constant is neither one number nor one for "
                            "each channel");
    if (at == 0 && type == OP_DIV)
        return onnx_fail(r, "division of a constant is not supported");
    if (at == 0 && type == OP_SUB)
        return emit_reverse_sub(r, in[0], c);
    shape = shape_of(1, (int)shape_count(&shape), 0, 0, 0);
    in[1] = onnx_in_weight(r, at, &shape);
    if (in[1] < 0)
        return -1;
    for (int i = 0; i < shape.d[0] && type == OP_DIV; i++)
        if (r->g->values[in[1]].data[i] == 0.0f)
            return onnx_fail(r, "divides by zero");
    return onnx_emit(r, 0, &op, in, 2);
}

static int convert_add(struct onnx_reader *r)
{
    return convert_binary(r, OP_ADD);
}

static int convert_sub(struct onnx_reader *r)
{
    return convert_binary(r, OP_SUB);
}

static int convert_mul(struct onnx_reader *r)
{
    return convert_binary(r, OP_MUL);
}

static int convert_div(struct onnx_reader *r)
{
    return convert_binary(r, OP_DIV);
}

static int emit_all_inputs(struct onnx_reader *r, const struct op *op)
{
    int in[GRAPH_MAX_INPUTS];

    if (r->node->n_input < 1 || r->node->n_input > GRAPH_MAX_INPUTS)
        return onnx_fail(r, "does not have 1 to %d inputs", GRAPH_MAX_INPUTS);
    for (size_t i = 0; i < r->node->n_input; i++)
        if (onnx_in_value(r, (int)i, &in[i]))
            return -1;
    return onnx_emit(r, 0, op, in, (int)r->node->n_input);
}

static int convert_max(struct onnx_reader *r)
{
    struct op op = {.type = r->node->n_input == 1 ? OP_IDENTITY : OP_MAX};
    return emit_all_inputs(r, &op);
}

static int convert_concat(struct onnx_reader *r)
{
    struct op op = {.type = OP_CONCAT};
    int64_t axis;
    int x;

    if (onnx_in_value(r, 0, &x))
        return -1;
    if (!onnx_attr(r, "axis"))
        return onnx_fail(r, "axis is missing");
    if (onnx_attr_int(r, "axis", 0, &axis) ||
        onnx_axis(r, axis, r->shapes[x].rank, &op.u.axis.axis))
        return -1;
    return emit_all_inputs(r, &op);
}

/* --- cutting
 * ------------------------------------------------------------------ */

/* A list that is an attribute in old files and a constant input in new ones.
 * *n = -1 when absent. */
static int list(struct onnx_reader *r, const char *attr, int input,
                int64_t out[], int max, int *n)
{
    if (onnx_attr(r, attr))
        return onnx_attr_ints(r, attr, out, max, n);
    *n = -1;
    return onnx_in(r, input) ? onnx_in_ints(r, input, out, max, n) : 0;
}

static int64_t clamp_end(int64_t at, int64_t size)
{
    if (at < 0)
        at = at < -size ? 0 : at + size;
    return at > size ? size : at;
}

static int convert_slice(struct onnx_reader *r)
{
    struct op op = {.type = OP_SLICE};
    int64_t start, end, axis = 0, step = 1, size;
    int x, n[4];

    if (onnx_in_value(r, 0, &x) || list(r, "starts", 1, &start, 1, &n[0]) ||
        list(r, "ends", 2, &end, 1, &n[1]) ||
        list(r, "axes", 3, &axis, 1, &n[2]) ||
        list(r, "steps", 4, &step, 1, &n[3]))
        return -1;
    if (n[0] != 1 || n[1] != 1 || !n[2] || !n[3] || step != 1)
        return onnx_fail(r, "only slices of one axis by steps of 1 are "
                            "supported");
    if (onnx_axis(r, axis, r->shapes[x].rank, &op.u.axis.axis))
        return -1;
    if ((op.u.axis.axis == 2 && r->free_h) ||
        (op.u.axis.axis == 3 && r->free_w))
        return onnx_fail(r, "slices an axis of free size");
    size = r->shapes[x].d[op.u.axis.axis];
    start = clamp_end(start, size);
    end = clamp_end(end, size);
    if (start >= end)
        return onnx_fail(r, "the slice is empty");
    op.u.axis.start = (int)start;
    op.u.axis.length = (int)(end - start);
    return onnx_emit(r, 0, &op, &x, 1);
}

static int convert_split(struct onnx_reader *r)
{
    struct op op = {.type = OP_SLICE};
    int64_t axis, sizes[GRAPH_MAX_INPUTS], part, at = 0;
    int x, n, n_out = (int)r->node->n_output;

    if (r->node->n_output > GRAPH_MAX_INPUTS)
        return onnx_fail(r, "more than %d outputs", GRAPH_MAX_INPUTS);
    if (onnx_in_value(r, 0, &x) || onnx_attr_int(r, "axis", 0, &axis) ||
        onnx_axis(r, axis, r->shapes[x].rank, &op.u.axis.axis) ||
        list(r, "split", 1, sizes, GRAPH_MAX_INPUTS, &n))
        return -1;
    if ((op.u.axis.axis == 2 && r->free_h) ||
        (op.u.axis.axis == 3 && r->free_w))
        return onnx_fail(r, "splits an axis of free size");
    if (n >= 0 && n != n_out)
        return onnx_fail(r, "has %d sizes for %d outputs", n, n_out);
    int64_t size = r->shapes[x].d[op.u.axis.axis];
    /* from opset 18 on the last part may be smaller */
    part = (size + n_out - 1) / n_out;
    if (n < 0 && r->opset < 18 && part * n_out != size)
        return onnx_fail(r, "does not split into equal parts");
    for (int i = 0; i < n_out; i++) {
        int64_t length = n >= 0             ? sizes[i]
                         : size - at < part ? size - at
                                            : part;
        if (length < 1 || length > size - at)
            return onnx_fail(r, "its sizes do not fit the input");
        op.u.axis.start = (int)at;
        op.u.axis.length = (int)length;
        at += length;
        if (*r->node->output[i] && onnx_emit(r, i, &op, &x, 1))
            return -1;
    }
    return at == size ? 0 : onnx_fail(r, "its sizes do not fit the input");
}

/* --- changes of shape
 * ---------------------------------------------------------- */

static int convert_flatten(struct onnx_reader *r)
{
    struct op op = {.type = OP_RESHAPE};
    int64_t axis;
    int x;

    if (onnx_in_value(r, 0, &x) || onnx_attr_int(r, "axis", 1, &axis))
        return -1;
    if (axis != 1 && axis != 1 - r->shapes[x].rank)
        return onnx_fail(r, "flattens the batch, which is not supported");
    op.u.reshape.to = shape_of(2, 0, -1, 0, 0);
    return onnx_emit(r, 0, &op, &x, 1);
}

static int convert_reshape(struct onnx_reader *r)
{
    struct op op = {.type = OP_RESHAPE};
    struct shape *to = &op.u.reshape.to;
    int64_t d[SHAPE_MAX_RANK], allow_zero;
    int x, n, n_infer = 0;

    if (onnx_in_value(r, 0, &x) || onnx_in_ints(r, 1, d, SHAPE_MAX_RANK, &n) ||
        onnx_attr_int(r, "allowzero", 0, &allow_zero))
        return -1;
    if (n < 2)
        return onnx_fail(r, "reshapes the batch, which is not supported");
    if (d[0] != -1 && (d[0] != 0 || allow_zero) &&
        (d[0] != r->batch || !r->batch))
        return onnx_fail(r, "its shape begins with %lld, not with the batch",
                         (long long)d[0]);
    to->rank = n;
    for (int i = 1; i < n; i++) {
        if (d[i] < -1 || d[i] > SHAPE_MAX_DIM || (d[i] == 0 && allow_zero) ||
            (d[i] == 0 && i >= r->shapes[x].rank))
            return onnx_fail(r, "its shape is out of range");
        n_infer += d[i] == -1;
        to->d[i] = (int)d[i];
    }
    if (n_infer + (d[0] == -1) > 1)
        return onnx_fail(r, "its shape leaves two sizes open");
    return onnx_emit(r, 0, &op, &x, 1);
}

/* Emit a reshape of x to the sizes `out`, where from[i] is the axis of x that
 * axis i keeps, or -1 for a new axis of size 1. */
static int emit_kept(struct onnx_reader *r, int x, const int from[], int rank)
{
    struct op op = {.type = OP_RESHAPE};
    struct shape *to = &op.u.reshape.to;
    bool infers = false;

    to->rank = rank;
    for (int i = 1; i < rank; i++) {
        bool is_free =
            (from[i] == 2 && r->free_h) || (from[i] == 3 && r->free_w);
        to->d[i] = from[i] < 0    ? 1
                   : from[i] == i ? 0
                   : is_free      ? -1
                                  : r->shapes[x].d[from[i]];
        if (to->d[i] == -1 && infers)
            return onnx_fail(r, "moves two axes of free size");
        infers = infers || to->d[i] == -1;
    }
    return onnx_emit(r, 0, &op, &x, 1);
}

/* The axes of Squeeze or Unsqueeze as flags, of a shape of this rank. */
static int axes(struct onnx_reader *r, int rank, bool flags[])
{
    int64_t v[SHAPE_MAX_RANK];
    int n, axis;

    if (list(r, "axes", 1, v, SHAPE_MAX_RANK, &n))
        return -1;
    if (n < 1)
        return onnx_fail(r, "axes are missing");
    for (int i = 0; i < n; i++) {
        if (onnx_axis(r, v[i], rank, &axis))
            return -1;
        if (flags[axis])
            return onnx_fail(r, "axis %d is given twice", axis);
        flags[axis] = true;
    }
    return n;
}

static int convert_squeeze(struct onnx_reader *r)
{
    bool gone[SHAPE_MAX_RANK] = {false};
    int x, from[SHAPE_MAX_RANK], rank = 0;

    if (onnx_in_value(r, 0, &x) || axes(r, r->shapes[x].rank, gone) < 0)
        return -1;
    for (int i = 0; i < r->shapes[x].rank; i++) {
        if (gone[i] && r->shapes[x].d[i] != 1)
            return onnx_fail(r, "axis %d is not of size 1", i);
        if (!gone[i])
            from[rank++] = i;
    }
    return emit_kept(r, x, from, rank);
}

static int convert_unsqueeze(struct onnx_reader *r)
{
    bool added[SHAPE_MAX_RANK] = {false};
    int64_t v[SHAPE_MAX_RANK];
    int x, n, from[SHAPE_MAX_RANK], next = 0, rank;

    if (onnx_in_value(r, 0, &x) || list(r, "axes", 1, v, SHAPE_MAX_RANK, &n))
        return -1;
    rank = r->shapes[x].rank + (n < 0 ? 0 : n);
    if (rank > SHAPE_MAX_RANK)
        return onnx_fail(r, "makes more than %d dimensions", SHAPE_MAX_RANK);
    if (axes(r, rank, added) < 0)
        return -1;
    for (int i = 0; i < rank; i++)
        from[i] = added[i] ? -1 : next++;
    return emit_kept(r, x, from, rank);
}

static int convert_transpose(struct onnx_reader *r)
{
    struct op op = {.type = OP_TRANSPOSE};
    int64_t perm[SHAPE_MAX_RANK];
    int x, n, rank;
    unsigned seen = 0;

    if (onnx_in_value(r, 0, &x) ||
        onnx_attr_ints(r, "perm", perm, SHAPE_MAX_RANK, &n))
        return -1;
    rank = r->shapes[x].rank;
    if (n >= 0 && n != rank)
        return onnx_fail(r, "perm does not have %d axes", rank);
    for (int i = 0; i < rank; i++) {
        int64_t from = n < 0 ? rank - 1 - i : perm[i];
        if (from < 0 || from >= rank || seen & 1u << from)
            return onnx_fail(r, "perm is not a permutation");
        seen |= 1u << from;
        op.u.transpose.perm[i] = (int)from;
    }
    if (op.u.transpose.perm[0] != 0)
        return onnx_fail(r, "moves the batch, which is not supported");
    return onnx_emit(r, 0, &op, &x, 1);
}

/* --- constants
 * ------------------------------------------------------------------ */

/* Make the current node's output another name of a constant. */
static int alias(struct onnx_reader *r, const Onnx__TensorProto *constant)
{
    onnx_out(r, 0)->constant = constant;
    return 0;
}

static int convert_constant(struct onnx_reader *r)
{
    const Onnx__AttributeProto *a =
        r->node->n_attribute == 1 ? r->node->attribute[0] : NULL;
    Onnx__TensorProto *t = &r->made[r->n_made];
    int64_t *dim = &r->made_dims[r->n_made];

    if (!a)
        return onnx_fail(r, "does not have one value");
    if (!strcmp(a->name, "value") && a->t)
        return alias(r, a->t);
    onnx__tensor_proto__init(t);
    t->name = r->node->output[0];
    t->dims = dim;
    if (!strcmp(a->name, "value_float") && a->has_f) {
        t->data_type = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
        t->float_data = (float *)&a->f;
        t->n_float_data = 1;
    } else if (!strcmp(a->name, "value_floats")) {
        t->data_type = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
        t->float_data = a->floats;
        t->n_float_data = a->n_floats;
        t->n_dims = 1;
        *dim = (int64_t)a->n_floats;
    } else if (!strcmp(a->name, "value_int") && a->has_i) {
        t->data_type = ONNX__TENSOR_PROTO__DATA_TYPE__INT64;
        t->int64_data = (int64_t *)&a->i;
        t->n_int64_data = 1;
    } else if (!strcmp(a->name, "value_ints")) {
        t->data_type = ONNX__TENSOR_PROTO__DATA_TYPE__INT64;
        t->int64_data = a->ints;
        t->n_int64_data = a->n_ints;
        t->n_dims = 1;
        *dim = (int64_t)a->n_ints;
    } else {
        return onnx_fail(r,
                         "a constant of the kind \"%.40s\" is not "
                         "supported",
                         a->name);
    }
    r->n_made++;
    return alias(r, t);
}

static int convert_identity(struct onnx_reader *r)
{
    const struct onnx_name *in = onnx_in(r, 0);

    if (in && in->constant)
        return alias(r, in->constant);
    return emit_all_inputs(r, &(struct op){.type = OP_IDENTITY});
}

static bool is_float(int64_t type)
{
    return type == ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT ||
           type == ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16 ||
           type == ONNX__TENSOR_PROTO__DATA_TYPE__BFLOAT16 ||
           type == ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE;
}

/* Between kinds of floats there is nothing to do: all are float32 here. A
 * constant keeps its kind and is decoded where it is used. */
static int convert_cast(struct onnx_reader *r)
{
    const struct onnx_name *in = onnx_in(r, 0);
    bool same;
    int64_t to;

    if (onnx_attr_int(r, "to", 0, &to))
        return -1;
    if (in && in->constant) {
        same = is_float(in->constant->data_type) == is_float(to);
        if (same &&
            (is_float(to) || to == ONNX__TENSOR_PROTO__DATA_TYPE__INT64 ||
             to == ONNX__TENSOR_PROTO__DATA_TYPE__INT32))
            return alias(r, in->constant);
    } else if (is_float(to)) {
        return emit_all_inputs(r, &(struct op){.type = OP_IDENTITY});
    }
    return onnx_fail(r, "a cast to type %lld is not supported", (long long)to);
}

static const struct {
    const char *name;
    onnx_convert_fn convert;
} rows[] = {
    {"Add", convert_add},
    {"Cast", convert_cast},
    {"Concat", convert_concat},
    {"Constant", convert_constant},
    {"Div", convert_div},
    {"Flatten", convert_flatten},
    {"Identity", convert_identity},
    {"Max", convert_max},
    {"Mul", convert_mul},
    {"Reshape", convert_reshape},
    {"Slice", convert_slice},
    {"Split", convert_split},
    {"Squeeze", convert_squeeze},
    {"Sub", convert_sub},
    {"Transpose", convert_transpose},
    {"Unsqueeze", convert_unsqueeze},
};

onnx_convert_fn onnx_math_convert(const char *op_type)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (!strcmp(rows[i].name, op_type))
            return rows[i].convert;
    return NULL;
}
