/* core/engine/onnx_write.c - a graph to an ONNX file: operator set 13, IR 8,
 * float32 weights as raw data, every name kept. Messages live in one chain of
 * allocations; weights are borrowed from the graph. */
#include "core/engine/onnx.h"
#include "core/engine/onnx_priv.h"

#include <errno.h>
#include <float.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    OPSET = 13,
    IR = 8,
    MAX_ATTRIBUTES = 8,
    MAX_EXTRA = 4
};

struct block {
    struct block *next;
};

struct writer {
    const struct graph *g;
    struct error *err;
    struct block *blocks;
    struct shape *shapes; /* of values */
    struct shape *stored; /* of weights as written; rank -1: not used */
    Onnx__GraphProto *out;
    int n_short; /* constants whose own name would be too long */
};

/* Zeroed memory that lives as long as the writer. */
static void *get(struct writer *w, size_t size)
{
    /* the header keeps what follows aligned for any type */
    struct block *b = calloc(1, 16 + size);

    if (!b) {
        error_set(w->err, ERR_NOMEM, "no memory to write the model");
        return NULL;
    }
    b->next = w->blocks;
    w->blocks = b;
    return (char *)b + 16;
}

static char *text(struct writer *w, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static char *text(struct writer *w, const char *fmt, ...)
{
    char *s = get(w, 2 * GRAPH_MAX_NAME);
    va_list ap;

    if (!s)
        return NULL;
    va_start(ap, fmt);
    vsnprintf(s, 2 * GRAPH_MAX_NAME, fmt, ap);
    va_end(ap);
    return s;
}

/* --- constants ----------------------------------------------------------- */

static int add_tensor(struct writer *w, const char *name,
                      const struct shape *shape, int32_t type, const void *data,
                      size_t len_bytes)
{
    Onnx__TensorProto *t = get(w, sizeof(*t));
    int64_t *dims = get(w, SHAPE_MAX_RANK * sizeof(*dims));

    if (!t || !dims)
        return -1;
    onnx__tensor_proto__init(t);
    for (int i = 0; i < shape->rank; i++)
        dims[i] = shape->d[i];
    t->n_dims = (size_t)shape->rank;
    t->dims = dims;
    t->has_data_type = 1;
    t->data_type = type;
    t->name = (char *)name;
    t->has_raw_data = 1;
    t->raw_data.data = (uint8_t *)data;
    t->raw_data.len = len_bytes;
    w->out->initializer[w->out->n_initializer++] = t;
    return 0;
}

/* A constant that only the file needs; its name, or NULL. */
static char *extra(struct writer *w, const struct node *n, const char *what,
                   const struct shape *shape, int32_t type, const void *data,
                   size_t len_bytes)
{
    char *name = text(w, "%s.%s", w->g->values[n->out].name, what);
    void *copy = get(w, len_bytes);

    if (!name || !copy)
        return NULL;
    while (strlen(name) > GRAPH_MAX_NAME || graph_find(w->g, name) >= 0) {
        name = text(w, "constant.%d", w->n_short++);
        if (!name)
            return NULL;
    }
    memcpy(copy, data, len_bytes);
    return add_tensor(w, name, shape, type, copy, len_bytes) ? NULL : name;
}

static char *extra_ints(struct writer *w, const struct node *n,
                        const char *what, const int64_t v[], int count)
{
    struct shape shape = shape_of(1, count, 0, 0, 0);
    return extra(w, n, what, &shape, ONNX__TENSOR_PROTO__DATA_TYPE__INT64, v,
                 (size_t)count * sizeof(*v));
}

static char *extra_float(struct writer *w, const struct node *n,
                         const char *what, float v)
{
    struct shape shape = {.rank = 0};
    return extra(w, n, what, &shape, ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, &v,
                 sizeof(v));
}

static char *extra_row(struct writer *w, const struct node *n, const char *what,
                       int count, float v)
{
    struct shape shape = shape_of(1, count, 0, 0, 0);
    float *row = get(w, (size_t)count * sizeof(*row));

    for (int i = 0; row && i < count; i++)
        row[i] = v;
    return !row
               ? NULL
               : extra(w, n, what, &shape, ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT,
                       row, (size_t)count * sizeof(*row));
}

/* --- attributes and inputs of one node ---------------------------------------
 */

static Onnx__AttributeProto *attribute(struct writer *w, Onnx__NodeProto *p,
                                       const char *name,
                                       Onnx__AttributeProto__AttributeType type)
{
    Onnx__AttributeProto *a = get(w, sizeof(*a));

    if (!a)
        return NULL;
    onnx__attribute_proto__init(a);
    a->name = (char *)name;
    a->has_type = 1;
    a->type = type;
    p->attribute[p->n_attribute++] = a;
    return a;
}

static int put_int(struct writer *w, Onnx__NodeProto *p, const char *name,
                   int64_t v)
{
    Onnx__AttributeProto *a =
        attribute(w, p, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);
    if (!a)
        return -1;
    a->has_i = 1;
    a->i = v;
    return 0;
}

static int put_float(struct writer *w, Onnx__NodeProto *p, const char *name,
                     float v)
{
    Onnx__AttributeProto *a =
        attribute(w, p, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT);
    if (!a)
        return -1;
    a->has_f = 1;
    a->f = v;
    return 0;
}

static int put_ints(struct writer *w, Onnx__NodeProto *p, const char *name,
                    const int v[], int n)
{
    Onnx__AttributeProto *a =
        attribute(w, p, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);
    int64_t *ints = get(w, (size_t)n * sizeof(*ints));

    if (!a || !ints)
        return -1;
    for (int i = 0; i < n; i++)
        ints[i] = v[i];
    a->ints = ints;
    a->n_ints = (size_t)n;
    return 0;
}

/* name NULL: failed before. */
static int put_input(Onnx__NodeProto *p, const char *name)
{
    if (!name)
        return -1;
    p->input[p->n_input++] = (char *)name;
    return 0;
}

/* --- operators
 * ------------------------------------------------------------------ */

static int put_conv(struct writer *w, Onnx__NodeProto *p, const struct node *n)
{
    const struct op_conv *c = &n->op.u.conv;

    if (c->residual || c->act != ACT_NONE)
        return error_set(w->err, ERR_MODEL,
                         "node \"%.80s\" is fused: save the unfused graph",
                         n->name);
    return put_ints(w, p, "kernel_shape", c->kernel, 2) ||
           put_ints(w, p, "strides", c->stride, 2) ||
           put_ints(w, p, "pads", c->pad, 4) ||
           put_ints(w, p, "dilations", c->dilation, 2) ||
           put_int(w, p, "group", c->group);
}

static int put_pool(struct writer *w, Onnx__NodeProto *p, const struct node *n)
{
    const struct op_pool *c = &n->op.u.pool;

    if (n->op.type == OP_LP_POOL && put_int(w, p, "p", c->p))
        return -1;
    if (c->global)
        return 0;
    if (put_ints(w, p, "kernel_shape", c->kernel, 2) ||
        put_ints(w, p, "strides", c->stride, 2) ||
        put_ints(w, p, "pads", c->pad, 4))
        return -1;
    if (n->op.type == OP_LP_POOL && c->ceil_mode)
        return error_set(w->err, ERR_MODEL,
                         "node \"%.80s\": LpPool has no ceil_mode in operator "
                         "set %d",
                         n->name, OPSET);
    if (c->ceil_mode && put_int(w, p, "ceil_mode", 1))
        return -1;
    return n->op.type == OP_AVG_POOL && c->count_pad
               ? put_int(w, p, "count_include_pad", 1)
               : 0;
}

static int put_clip(struct writer *w, Onnx__NodeProto *p, const struct node *n)
{
    const struct op_clip *c = &n->op.u.clip;

    if (put_input(p, c->lo > -FLT_MAX ? extra_float(w, n, "min", c->lo) : ""))
        return -1;
    return c->hi < FLT_MAX ? put_input(p, extra_float(w, n, "max", c->hi)) : 0;
}

/* As a batch norm of mean 0, variance 1, epsilon 0; read back as it was. */
static int put_affine(struct writer *w, Onnx__NodeProto *p,
                      const struct node *n)
{
    int c = w->shapes[n->in[0]].d[1];

    return put_input(p, extra_row(w, n, "mean", c, 0.0f)) ||
           put_input(p, extra_row(w, n, "var", c, 1.0f)) ||
           put_float(w, p, "epsilon", 0.0f);
}

static int put_slice(struct writer *w, Onnx__NodeProto *p, const struct node *n)
{
    const struct op_axis *a = &n->op.u.axis;
    int64_t start = a->start, end = (int64_t)a->start + a->length,
            axis = a->axis;

    return put_input(p, extra_ints(w, n, "starts", &start, 1)) ||
           put_input(p, extra_ints(w, n, "ends", &end, 1)) ||
           put_input(p, extra_ints(w, n, "axes", &axis, 1));
}

static int put_reshape(struct writer *w, Onnx__NodeProto *p,
                       const struct node *n)
{
    const struct shape *to = &n->op.u.reshape.to;
    int64_t d[SHAPE_MAX_RANK] = {0};

    for (int i = 1; i < to->rank; i++)
        d[i] = to->d[i];
    return put_input(p, extra_ints(w, n, "shape", d, to->rank));
}

static int put_lrn(struct writer *w, Onnx__NodeProto *p, const struct node *n)
{
    const struct op_lrn *l = &n->op.u.lrn;

    return put_int(w, p, "size", l->size) ||
           put_float(w, p, "alpha", l->alpha) ||
           put_float(w, p, "beta", l->beta) || put_float(w, p, "bias", l->bias);
}

static int put_parameters(struct writer *w, Onnx__NodeProto *p,
                          const struct node *n)
{
    const struct op *op = &n->op;

    switch (op->type) {
    case OP_CONV:
        return put_conv(w, p, n);
    case OP_GEMM:
        if (op->u.gemm.act != ACT_NONE)
            return error_set(w->err, ERR_MODEL,
                             "node \"%.80s\" is fused: save the unfused graph",
                             n->name);
        return put_int(w, p, "transB", 1);
    case OP_BATCH_NORM:
        return put_float(w, p, "epsilon", op->u.norm.epsilon) ||
               put_float(w, p, "momentum", op->u.norm.momentum);
    case OP_AFFINE:
        return put_affine(w, p, n);
    case OP_CLIP:
        return put_clip(w, p, n);
    case OP_CONCAT:
    case OP_SOFTMAX:
        return put_int(w, p, "axis", op->u.axis.axis);
    case OP_LP_NORM:
        return put_int(w, p, "axis", op->u.axis.axis) ||
               put_int(w, p, "p", op->u.axis.p);
    case OP_SLICE:
        return put_slice(w, p, n);
    case OP_MAX_POOL:
    case OP_AVG_POOL:
    case OP_LP_POOL:
        return put_pool(w, p, n);
    case OP_LRN:
        return put_lrn(w, p, n);
    case OP_RESHAPE:
        return put_reshape(w, p, n);
    case OP_TRANSPOSE:
        return put_ints(w, p, "perm", op->u.transpose.perm,
                        w->shapes[n->in[0]].rank);
    case OP_DROPOUT:
        return put_input(p, extra_float(w, n, "ratio", op->u.dropout.ratio));
    default: /* nothing but inputs */
        return 0;
    }
}

static const char *operator_name(const struct op *op)
{
    bool pool = op->type == OP_MAX_POOL || op->type == OP_AVG_POOL ||
                op->type == OP_LP_POOL;

    if (op->type == OP_AFFINE)
        return "BatchNormalization";
    if (pool && op->u.pool.global)
        return op->type == OP_MAX_POOL   ? "GlobalMaxPool"
               : op->type == OP_AVG_POOL ? "GlobalAveragePool"
                                         : "GlobalLpPool";
    return op_info(op->type)->name;
}

static int put_node(struct writer *w, const struct node *n)
{
    Onnx__NodeProto *p = get(w, sizeof(*p));

    if (!p)
        return -1;
    onnx__node_proto__init(p);
    p->input = get(w, (size_t)(n->n_in + MAX_EXTRA) * sizeof(*p->input));
    p->output = get(w, sizeof(*p->output));
    p->attribute = get(w, MAX_ATTRIBUTES * sizeof(*p->attribute));
    if (!p->input || !p->output || !p->attribute)
        return -1;
    p->name = n->name;
    p->op_type = (char *)operator_name(&n->op);
    for (int i = 0; i < n->n_in; i++)
        p->input[p->n_input++] = w->g->values[n->in[i]].name;
    p->output[p->n_output++] = w->g->values[n->out].name;
    w->out->node[w->out->n_node++] = p;
    return put_parameters(w, p, n) ? -1 : 0;
}

/* --- weights
 * ---------------------------------------------------------------------- */

/* Numbers by channel are [c] here, and [c,1,1] where ONNX broadcasts. */
static int plan_weights(struct writer *w)
{
    for (int i = 0; i < w->g->n_values; i++)
        w->stored[i].rank = -1;
    for (int i = 0; i < w->g->n_nodes; i++) {
        const struct node *n = &w->g->nodes[i];
        bool broadcasts = n->op.type == OP_PRELU ||
                          (n->op.type >= OP_ADD && n->op.type <= OP_DIV);
        for (int k = 0; k < n->n_in; k++) {
            const struct value *v = &w->g->values[n->in[k]];
            struct shape as = v->shape, *have = &w->stored[n->in[k]];
            if (v->kind != VALUE_WEIGHT)
                continue;
            if (broadcasts && as.rank == 1 && as.d[0] > 1 &&
                w->shapes[n->in[0]].rank == 4)
                as = shape_of(3, as.d[0], 1, 1, 0);
            if (have->rank >= 0 && !shape_equal(have, &as))
                return error_set(w->err, ERR_MODEL,
                                 "weight \"%.80s\" is used in two ways that "
                                 "one ONNX tensor cannot serve",
                                 v->name);
            *have = as;
        }
    }
    return 0;
}

static int put_weights(struct writer *w)
{
    for (int i = 0; i < w->g->n_values; i++) {
        const struct value *v = &w->g->values[i];
        if (v->kind != VALUE_WEIGHT || w->stored[i].rank < 0)
            continue;
        if (add_tensor(w, v->name, &w->stored[i],
                       ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, v->data,
                       shape_count(&v->shape) * sizeof(float)))
            return -1;
    }
    return 0;
}

/* --- inputs and outputs
 * -------------------------------------------------------- */

static Onnx__TensorShapeProto__Dimension *dimension(struct writer *w, int size,
                                                    const char *name)
{
    Onnx__TensorShapeProto__Dimension *d = get(w, sizeof(*d));

    if (!d)
        return NULL;
    onnx__tensor_shape_proto__dimension__init(d);
    if (name) {
        d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
        d->dim_param = (char *)name;
    } else {
        d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
        d->dim_value = size;
    }
    return d;
}

/* names[i] NULL: the size is fixed. */
static Onnx__ValueInfoProto *value_info(struct writer *w, const char *name,
                                        const struct shape *s,
                                        const char *const names[])
{
    Onnx__ValueInfoProto *v = get(w, sizeof(*v));
    Onnx__TypeProto *type = get(w, sizeof(*type));
    Onnx__TypeProto__Tensor *t = get(w, sizeof(*t));
    Onnx__TensorShapeProto *shape = get(w, sizeof(*shape));
    Onnx__TensorShapeProto__Dimension **dims =
        get(w, SHAPE_MAX_RANK * sizeof(*dims));

    if (!v || !type || !t || !shape || !dims)
        return NULL;
    onnx__value_info_proto__init(v);
    onnx__type_proto__init(type);
    onnx__type_proto__tensor__init(t);
    onnx__tensor_shape_proto__init(shape);
    for (int i = 0; i < s->rank; i++) {
        dims[i] = dimension(w, s->d[i], names[i]);
        if (!dims[i])
            return NULL;
    }
    shape->n_dim = (size_t)s->rank;
    shape->dim = dims;
    t->has_elem_type = 1;
    t->elem_type = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
    t->shape = shape;
    type->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    type->tensor_type = t;
    v->name = (char *)name;
    v->type = type;
    return v;
}

static int put_ends(struct writer *w)
{
    const struct graph *g = w->g;
    const struct shape *in = &g->values[g->input].shape;
    bool free_h = !in->d[2], free_w = !in->d[3];
    const char *names[4] = {"N", NULL, free_h ? "H" : NULL,
                            free_w ? "W" : NULL};

    w->out->input[0] = value_info(w, g->values[g->input].name, in, names);
    if (!w->out->input[0])
        return -1;
    w->out->n_input = 1;
    for (int i = 0; i < g->n_outputs; i++) {
        const struct shape *s = &w->shapes[g->outputs[i]];
        const char *out[4] = {"N", NULL, NULL, NULL};
        /* a size that follows from a free one is free, too */
        for (int k = 1; k < s->rank; k++)
            if ((k == 2 && free_h) || (k == 3 && free_w) ||
                (s->rank < 4 && (free_h || free_w)))
                out[k] = text(w, "%s_%d", g->values[g->outputs[i]].name, k);
        w->out->output[i] =
            value_info(w, g->values[g->outputs[i]].name, s, out);
        if (!w->out->output[i])
            return -1;
        w->out->n_output++;
    }
    return 0;
}

/* --- the file
 * ------------------------------------------------------------------- */

static int put_graph(struct writer *w)
{
    const struct graph *g = w->g;
    size_t n_values = (size_t)g->n_values, n_nodes = (size_t)g->n_nodes;
    Onnx__GraphProto *out = get(w, sizeof(*out));

    w->shapes = get(w, n_values * sizeof(*w->shapes));
    w->stored = get(w, n_values * sizeof(*w->stored));
    if (!out || !w->shapes || !w->stored)
        return -1;
    onnx__graph_proto__init(out);
    w->out = out;
    out->name = "facenetd";
    out->node = get(w, n_nodes * sizeof(*out->node));
    out->initializer =
        get(w, (n_values + MAX_EXTRA * n_nodes) * sizeof(*out->initializer));
    out->input = get(w, sizeof(*out->input));
    out->output = get(w, GRAPH_MAX_OUTPUTS * sizeof(*out->output));
    if (!out->node || !out->initializer || !out->input || !out->output)
        return -1;
    if (graph_shapes(g, 1, ONNX_FREE_SIDE, ONNX_FREE_SIDE, w->shapes, w->err) ||
        plan_weights(w) || put_weights(w) || put_ends(w))
        return -1;
    for (int i = 0; i < g->n_nodes; i++)
        if (put_node(w, &g->nodes[i]))
            return -1;
    return 0;
}

static int put_metadata(struct writer *w, const struct onnx_metadata *meta,
                        Onnx__ModelProto *m)
{
    size_t n = meta ? (size_t)meta->n : 0;
    Onnx__StringStringEntryProto *pairs = get(w, n * sizeof(*pairs));
    Onnx__StringStringEntryProto **list = get(w, n * sizeof(*list));

    if (!pairs || !list)
        return -1;
    for (size_t i = 0; i < n; i++) {
        onnx__string_string_entry_proto__init(&pairs[i]);
        pairs[i].key = meta->keys[i];
        pairs[i].value = meta->values[i];
        list[i] = &pairs[i];
    }
    m->metadata_props = list;
    m->n_metadata_props = n;
    return 0;
}

struct sink {
    ProtobufCBuffer base;
    FILE *f;
};

static void append(ProtobufCBuffer *base, size_t len, const uint8_t *data)
{
    struct sink *s = (struct sink *)base;
    fwrite(data, 1, len, s->f); /* onnx_write_file asks ferror */
}

static void put_model(FILE *f, const void *what)
{
    struct sink sink = {.base = {append}, .f = f};
    onnx__model_proto__pack_to_buffer(what, &sink.base);
}

int onnx_write_file(const char *path, onnx_put_fn put, const void *what,
                    struct error *err)
{
    size_t len = strlen(path) + 8;
    char *part = malloc(len);
    int fd = -1, bad = -1;
    FILE *f;

    if (!part)
        return error_set(err, ERR_NOMEM, "no memory for a name");
    snprintf(part, len, "%s.XXXXXX", path);
    fd = mkstemp(part);
    f = fd < 0 ? NULL : fdopen(fd, "wb");
    if (f) {
        put(f, what);
        bad = fflush(f) || ferror(f) || fchmod(fd, 0644) || fsync(fd) ||
              rename(part, path);
    }
    if (bad)
        error_set(err, ERR_FILE, "%.150s cannot be written: %s", path,
                  strerror(errno));
    if (bad && fd >= 0)
        unlink(part);
    if (f)
        fclose(f);
    else if (fd >= 0)
        close(fd);
    free(part);
    return bad ? -1 : 0;
}

int onnx_save(const struct graph *g, const struct onnx_metadata *meta,
              const char *path, struct error *err)
{
    struct writer w = {.g = g, .err = err};
    Onnx__OperatorSetIdProto opset = ONNX__OPERATOR_SET_ID_PROTO__INIT;
    Onnx__OperatorSetIdProto *opsets[1] = {&opset};
    Onnx__ModelProto m = ONNX__MODEL_PROTO__INIT;
    int bad = put_graph(&w) || put_metadata(&w, meta, &m);

    if (!bad) {
        opset.domain = "";
        opset.has_version = 1;
        opset.version = OPSET;
        m.has_ir_version = 1;
        m.ir_version = IR;
        m.producer_name = "facenetd";
        m.producer_version = FACENETD_VERSION;
        m.n_opset_import = 1;
        m.opset_import = opsets;
        m.graph = w.out;
        bad = onnx_write_file(path, put_model, &m, err);
    }
    while (w.blocks) {
        struct block *next = w.blocks->next;
        free(w.blocks);
        w.blocks = next;
    }
    return bad ? -1 : 0;
}
