/* tests/make_onnx.h - ONNX models written message by message, good and bad.
 * One model at a time; strings are borrowed, everything else is freed by
 * make_end. For the tests and the fuzz target of the reader. */
#ifndef TESTS_MAKE_ONNX_H
#define TESTS_MAKE_ONNX_H

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "onnx.pb-c.h"

enum {
    MAKE_MAX = 64,
    MAKE_FREE = -7 /* a dimension without a number */
};

struct make {
    Onnx__ModelProto model;
    Onnx__GraphProto graph;
    Onnx__OperatorSetIdProto opset, *opsets[1];
    void *blocks[4096];
    int n_blocks;
};

static void *make_get(struct make *m, size_t size)
{
    void *p = calloc(1, size ? size : 1);

    assert(p && m->n_blocks < 4096);
    m->blocks[m->n_blocks++] = p;
    return p;
}

static char *make_text(struct make *m, const char *s, size_t len)
{
    char *copy = make_get(m, len + 1);

    memcpy(copy, s, len);
    return copy;
}

static inline void make_begin(struct make *m, int opset)
{
    memset(m, 0, sizeof(*m));
    onnx__model_proto__init(&m->model);
    onnx__graph_proto__init(&m->graph);
    onnx__operator_set_id_proto__init(&m->opset);
    m->opset.domain = (char *)"";
    m->opset.has_version = 1;
    m->opset.version = opset;
    m->opsets[0] = &m->opset;
    m->model.opset_import = m->opsets;
    m->model.n_opset_import = 1;
    m->model.has_ir_version = 1;
    m->model.ir_version = 8;
    m->model.graph = &m->graph;
    m->graph.name = (char *)"g";
    m->graph.node = make_get(m, MAKE_MAX * sizeof(*m->graph.node));
    m->graph.initializer =
        make_get(m, MAKE_MAX * sizeof(*m->graph.initializer));
    m->graph.input = make_get(m, MAKE_MAX * sizeof(*m->graph.input));
    m->graph.output = make_get(m, MAKE_MAX * sizeof(*m->graph.output));
}

static inline void make_end(struct make *m)
{
    while (m->n_blocks)
        free(m->blocks[--m->n_blocks]);
}

static inline Onnx__ValueInfoProto *make_value(struct make *m, const char *name,
                                               int rank, const int dims[])
{
    Onnx__ValueInfoProto *v = make_get(m, sizeof(*v));
    Onnx__TypeProto *type = make_get(m, sizeof(*type));
    Onnx__TypeProto__Tensor *t = make_get(m, sizeof(*t));
    Onnx__TensorShapeProto *shape = make_get(m, sizeof(*shape));

    onnx__value_info_proto__init(v);
    onnx__type_proto__init(type);
    onnx__type_proto__tensor__init(t);
    onnx__tensor_shape_proto__init(shape);
    shape->dim = make_get(m, (size_t)rank * sizeof(*shape->dim));
    for (int i = 0; i < rank; i++) {
        Onnx__TensorShapeProto__Dimension *d = make_get(m, sizeof(*d));
        onnx__tensor_shape_proto__dimension__init(d);
        d->value_case =
            dims[i] == MAKE_FREE
                ? ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM
                : ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
        if (dims[i] == MAKE_FREE)
            d->dim_param = (char *)"D";
        else
            d->dim_value = dims[i];
        shape->dim[shape->n_dim++] = d;
    }
    t->has_elem_type = 1;
    t->elem_type = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
    t->shape = shape;
    type->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    type->tensor_type = t;
    v->name = (char *)name;
    v->type = type;
    return v;
}

static inline void make_input(struct make *m, const char *name, int n, int c,
                              int h, int w)
{
    m->graph.input[m->graph.n_input++] =
        make_value(m, name, 4, (int[]){n, c, h, w});
}

static inline void make_output(struct make *m, const char *name)
{
    m->graph.output[m->graph.n_output++] = make_value(m, name, 0, NULL);
}

static inline void make_pair(struct make *m, const char *key, const char *value)
{
    Onnx__StringStringEntryProto *p = make_get(m, sizeof(*p));

    if (!m->model.metadata_props)
        m->model.metadata_props =
            make_get(m, MAKE_MAX * sizeof(*m->model.metadata_props));
    onnx__string_string_entry_proto__init(p);
    p->key = (char *)key;
    p->value = (char *)value;
    m->model.metadata_props[m->model.n_metadata_props++] = p;
}

/* Rank 0 to 4: the dimensions end at the first 0. */
static inline Onnx__TensorProto *make_tensor(struct make *m, const char *name,
                                             int type, int d0, int d1, int d2,
                                             int d3)
{
    Onnx__TensorProto *t = make_get(m, sizeof(*t));
    int d[4] = {d0, d1, d2, d3};

    onnx__tensor_proto__init(t);
    t->name = (char *)name;
    t->has_data_type = 1;
    t->data_type = type;
    t->dims = make_get(m, 4 * sizeof(*t->dims));
    while (t->n_dims < 4 && d[t->n_dims]) {
        t->dims[t->n_dims] = d[t->n_dims];
        t->n_dims++;
    }
    return t;
}

static inline size_t make_count(const Onnx__TensorProto *t)
{
    size_t n = 1;

    for (size_t i = 0; i < t->n_dims; i++)
        n *= (size_t)t->dims[i];
    return n;
}

/* An initialiser of 0.5, 0.75, 1.0 … 0.5 … */
static inline Onnx__TensorProto *make_floats(struct make *m, const char *name,
                                             int d0, int d1, int d2, int d3)
{
    Onnx__TensorProto *t = make_tensor(
        m, name, ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, d0, d1, d2, d3);

    t->n_float_data = make_count(t);
    t->float_data = make_get(m, t->n_float_data * sizeof(*t->float_data));
    for (size_t i = 0; i < t->n_float_data; i++)
        t->float_data[i] = 0.5f + 0.25f * (float)(i % 5);
    m->graph.initializer[m->graph.n_initializer++] = t;
    return t;
}

static inline Onnx__TensorProto *make_ints(struct make *m, const char *name,
                                           int n, ...)
{
    Onnx__TensorProto *t =
        make_tensor(m, name, ONNX__TENSOR_PROTO__DATA_TYPE__INT64, n, 0, 0, 0);
    va_list ap;

    t->n_int64_data = (size_t)n;
    t->int64_data = make_get(m, (size_t)n * sizeof(*t->int64_data));
    va_start(ap, n);
    for (int i = 0; i < n; i++)
        t->int64_data[i] = va_arg(ap, int);
    va_end(ap);
    m->graph.initializer[m->graph.n_initializer++] = t;
    return t;
}

static inline size_t make_list(struct make *m, const char *names, char **out)
{
    size_t n = 0;

    for (const char *s = names; *s; n++) {
        size_t len = strcspn(s, " ");
        out[n] = make_text(m, s, len == 1 && *s == '-' ? 0 : len);
        s += len;
        s += strspn(s, " ");
    }
    return n;
}

/* Names with blanks between; "-" is an input or output left out. The node has
 * its first output's name with "@" before it. */
static inline Onnx__NodeProto *make_node(struct make *m, const char *op,
                                         const char *in, const char *out)
{
    Onnx__NodeProto *n = make_get(m, sizeof(*n));

    onnx__node_proto__init(n);
    n->op_type = (char *)op;
    n->input = make_get(m, MAKE_MAX * sizeof(*n->input));
    n->output = make_get(m, MAKE_MAX * sizeof(*n->output));
    n->attribute = make_get(m, MAKE_MAX * sizeof(*n->attribute));
    n->n_input = make_list(m, in, n->input);
    n->n_output = make_list(m, out, n->output);
    n->name = make_get(m, strlen(out) + 2);
    n->name[0] = '@';
    strcat(n->name, n->n_output ? n->output[0] : "");
    m->graph.node[m->graph.n_node++] = n;
    return n;
}

static inline Onnx__AttributeProto *
make_attr(struct make *m, Onnx__NodeProto *n, const char *name, int type)
{
    Onnx__AttributeProto *a = make_get(m, sizeof(*a));

    onnx__attribute_proto__init(a);
    a->name = (char *)name;
    a->has_type = 1;
    a->type = (Onnx__AttributeProto__AttributeType)type;
    n->attribute[n->n_attribute++] = a;
    return a;
}

static inline void make_int(struct make *m, Onnx__NodeProto *n,
                            const char *name, int64_t v)
{
    Onnx__AttributeProto *a =
        make_attr(m, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);
    a->has_i = 1;
    a->i = v;
}

static inline void make_float(struct make *m, Onnx__NodeProto *n,
                              const char *name, float v)
{
    Onnx__AttributeProto *a =
        make_attr(m, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT);
    a->has_f = 1;
    a->f = v;
}

static inline void make_word(struct make *m, Onnx__NodeProto *n,
                             const char *name, const char *v)
{
    Onnx__AttributeProto *a =
        make_attr(m, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING);
    a->has_s = 1;
    a->s.data = (uint8_t *)v;
    a->s.len = strlen(v);
}

static inline void make_numbers(struct make *m, Onnx__NodeProto *n,
                                const char *name, int count, ...)
{
    Onnx__AttributeProto *a =
        make_attr(m, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);
    va_list ap;

    a->ints = make_get(m, (size_t)count * sizeof(*a->ints));
    a->n_ints = (size_t)count;
    va_start(ap, count);
    for (int i = 0; i < count; i++)
        a->ints[i] = va_arg(ap, int);
    va_end(ap);
}

/* The file's bytes, the caller's. */
static inline uint8_t *make_bytes(const struct make *m, size_t *len)
{
    uint8_t *bytes;

    *len = onnx__model_proto__get_packed_size(&m->model);
    bytes = malloc(*len + 1);
    assert(bytes);
    onnx__model_proto__pack(&m->model, bytes);
    return bytes;
}

#endif
