/* core/engine/onnx_read.c - a parsed ONNX model to a graph.
 * Owns the names (which are constants, which are computed, by whom), the
 * order of the nodes and the helpers that converters read a node with. */
#include "core/engine/onnx.h"
#include "core/engine/onnx_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_FLOATS = 1 << 29
}; /* decoded weights: 2 GiB */

int onnx_fail(struct onnx_reader *r, const char *fmt, ...)
{
    char text[200];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return error_set(r->err, ERR_MODEL, "node \"%.80s\" (%.32s): %s",
                     r->node_name, r->node->op_type, text);
}

/* Put the node's name before what a lower layer said. */
static int in_node(struct onnx_reader *r)
{
    return error_context(r->err, "node \"%.80s\" (%.32s)", r->node_name,
                         r->node->op_type);
}

/* --- names ------------------------------------------------------------ */

static size_t hash(const char *s)
{
    uint64_t h = 0xcbf29ce484222325u;
    while (*s)
        h = (h ^ (unsigned char)*s++) * 0x100000001b3u;
    return (size_t)(h ^ h >> 32);
}

static struct onnx_name *find_name(const struct onnx_reader *r, const char *s)
{
    for (size_t i = hash(s) & (r->n_slots - 1); r->slots[i] >= 0;
         i = (i + 1) & (r->n_slots - 1))
        if (!strcmp(r->names[r->slots[i]].text, s))
            return &r->names[r->slots[i]];
    return NULL;
}

static struct onnx_name *add_name(struct onnx_reader *r, const char *s)
{
    size_t i;

    if (!s || !*s)
        return error_null(r->err, ERR_MODEL, "a value has no name");
    if (strlen(s) > GRAPH_MAX_NAME)
        return error_null(r->err, ERR_MODEL,
                          "a value's name is over %d bytes long",
                          GRAPH_MAX_NAME);
    if (!onnx_text_ok(s))
        return error_null(r->err, ERR_MODEL,
                          "a value's name is not printable UTF-8");
    if (find_name(r, s))
        return error_null(r->err, ERR_MODEL,
                          "the name \"%.100s\" is given to two values", s);
    for (i = hash(s) & (r->n_slots - 1); r->slots[i] >= 0;)
        i = (i + 1) & (r->n_slots - 1);
    r->slots[i] = r->n_names;
    r->names[r->n_names] = (struct onnx_name){
        .text = s, .value = -1, .producer = -1, .weight = -1};
    return &r->names[r->n_names++];
}

/* Room for every name of the file: twice as many slots at least. */
static int init_names(struct onnx_reader *r)
{
    const Onnx__GraphProto *f = r->file;
    size_t n = f->n_initializer + f->n_input;

    for (size_t i = 0; i < f->n_node; i++)
        n += f->node[i]->n_output;
    if (n > 4 * GRAPH_MAX_VALUES)
        return error_set(r->err, ERR_MODEL, "more than %d values",
                         4 * GRAPH_MAX_VALUES);
    r->n_slots = 16;
    while (r->n_slots < 2 * n + 2)
        r->n_slots *= 2;
    r->cap_names = (int)n;
    r->names = calloc(n + 1, sizeof(*r->names));
    r->slots = malloc(r->n_slots * sizeof(*r->slots));
    r->shapes = calloc(GRAPH_MAX_VALUES, sizeof(*r->shapes));
    r->made = calloc(f->n_node + 1, sizeof(*r->made));
    r->made_dims = calloc(f->n_node + 1, sizeof(*r->made_dims));
    if (!r->names || !r->slots || !r->shapes || !r->made || !r->made_dims)
        return error_set(r->err, ERR_NOMEM, "no memory for the names");
    memset(r->slots, 0xff, r->n_slots * sizeof(*r->slots));
    return 0;
}

/* --- reading one node -------------------------------------------------- */

const Onnx__AttributeProto *onnx_attr(const struct onnx_reader *r,
                                      const char *name)
{
    for (size_t i = 0; i < r->node->n_attribute; i++)
        if (!strcmp(r->node->attribute[i]->name, name))
            return r->node->attribute[i];
    return NULL;
}

int onnx_attr_int(struct onnx_reader *r, const char *name, int64_t missing,
                  int64_t *out)
{
    const Onnx__AttributeProto *a = onnx_attr(r, name);

    if (a && !a->has_i)
        return onnx_fail(r, "attribute %s is not an integer", name);
    *out = a ? a->i : missing;
    return 0;
}

int onnx_attr_float(struct onnx_reader *r, const char *name, float missing,
                    float *out)
{
    const Onnx__AttributeProto *a = onnx_attr(r, name);

    if (a && (!a->has_f || !(a->f - a->f == 0.0f)))
        return onnx_fail(r, "attribute %s is not a finite number", name);
    *out = a ? a->f : missing;
    return 0;
}

int onnx_attr_ints(struct onnx_reader *r, const char *name, int64_t out[],
                   int max, int *n)
{
    const Onnx__AttributeProto *a = onnx_attr(r, name);

    *n = -1;
    if (!a)
        return 0;
    if (a->has_i || a->has_f || a->t || a->has_s || a->n_ints > (size_t)max)
        return onnx_fail(r, "attribute %s is not a list of up to %d integers",
                         name, max);
    *n = (int)a->n_ints;
    for (int i = 0; i < *n; i++)
        out[i] = a->ints[i];
    return 0;
}

struct onnx_name *onnx_in(const struct onnx_reader *r, int i)
{
    if ((size_t)i >= r->node->n_input || !*r->node->input[i])
        return NULL;
    return find_name(r, r->node->input[i]);
}

struct onnx_name *onnx_out(const struct onnx_reader *r, int i)
{
    if ((size_t)i >= r->node->n_output || !*r->node->output[i])
        return NULL;
    return find_name(r, r->node->output[i]);
}

int onnx_in_value(struct onnx_reader *r, int i, int *value)
{
    const struct onnx_name *in = onnx_in(r, i);

    if (!in)
        return onnx_fail(r, "input %d is missing", i);
    if (in->constant)
        return onnx_fail(r, "input %d, \"%.60s\", must not be a constant", i,
                         in->text);
    if (in->value < 0)
        return onnx_fail(r,
                         "input %d, \"%.60s\", is an output that is not "
                         "computed here",
                         i, in->text);
    *value = in->value;
    return 0;
}

int onnx_in_const(struct onnx_reader *r, int i, struct onnx_name **out)
{
    *out = onnx_in(r, i);
    if (!*out)
        return onnx_fail(r, "input %d is missing", i);
    if (!(*out)->constant)
        return onnx_fail(r, "input %d, \"%.60s\", must be a constant", i,
                         (*out)->text);
    return 0;
}

int onnx_in_ints(struct onnx_reader *r, int i, int64_t out[], int max, int *n)
{
    struct onnx_name *c;

    if (onnx_in_const(r, i, &c))
        return -1;
    *n = onnx_tensor_ints(c->constant, out, max, r->err);
    return *n < 0 ? in_node(r) : 0;
}

int onnx_in_scalar(struct onnx_reader *r, int i, float *out)
{
    struct onnx_name *c;
    struct shape shape;
    float *data;

    if (onnx_in_const(r, i, &c))
        return -1;
    if (onnx_tensor_shape(c->constant, &shape, r->err))
        return in_node(r);
    if (shape_count(&shape) != 1)
        return onnx_fail(r, "input %d is not a single number", i);
    data = onnx_tensor_floats(c->constant, r->err);
    if (!data)
        return in_node(r);
    *out = data[0];
    free(data);
    return 0;
}

float *onnx_const_floats(struct onnx_reader *r, const struct onnx_name *c)
{
    struct shape shape;
    float *data;

    if (onnx_tensor_shape(c->constant, &shape, r->err)) {
        in_node(r);
        return NULL;
    }
    if (shape_count(&shape) > MAX_FLOATS - r->n_floats) {
        onnx_fail(r, "the weights take more than %d MiB", MAX_FLOATS >> 18);
        return NULL;
    }
    r->n_floats += shape_count(&shape);
    data = onnx_tensor_floats(c->constant, r->err);
    if (!data)
        in_node(r);
    return data;
}

int onnx_add_weight(struct onnx_reader *r, struct onnx_name *c,
                    const struct shape *shape, float *take_data)
{
    bool own = c && !c->taken;
    int w =
        graph_add_weight(r->g, own ? c->text : NULL, shape, take_data, r->err);

    if (w < 0)
        return in_node(r);
    if (own)
        c->taken = true;
    r->shapes[w] = *shape;
    return w;
}

int onnx_in_weight(struct onnx_reader *r, int i, const struct shape *shape)
{
    struct onnx_name *c;
    struct shape stored;
    float *data;
    int w;

    if (onnx_in_const(r, i, &c))
        return -1;
    if (c->weight >= 0 && shape_equal(&c->weight_shape, shape))
        return c->weight;
    if (onnx_tensor_shape(c->constant, &stored, r->err))
        return in_node(r);
    if (shape_count(&stored) != shape_count(shape))
        return onnx_fail(r,
                         "input %d, \"%.60s\", does not have the size that "
                         "is needed",
                         i, c->text);
    data = onnx_const_floats(r, c);
    if (!data)
        return -1;
    w = onnx_add_weight(r, c, shape, data);
    if (w >= 0) {
        c->weight = w;
        c->weight_shape = *shape;
    }
    return w;
}

int onnx_axis(struct onnx_reader *r, int64_t axis, int rank, int *out)
{
    if (axis < -rank || axis >= rank)
        return onnx_fail(r, "axis %lld is out of range", (long long)axis);
    *out = (int)(axis < 0 ? axis + rank : axis);
    if (*out == 0)
        return onnx_fail(r, "works along the batch, which is not supported");
    return 0;
}

int onnx_emit(struct onnx_reader *r, int i, const struct op *op, const int in[],
              int n_in)
{
    struct shape shapes[GRAPH_MAX_INPUTS], shape;
    char name[GRAPH_MAX_NAME + 1];
    struct onnx_name *out;
    int value;

    if (n_in > GRAPH_MAX_INPUTS)
        return onnx_fail(r, "more than %d inputs", GRAPH_MAX_INPUTS);
    for (int k = 0; k < n_in; k++)
        shapes[k] = r->shapes[in[k]];
    if (op_shape(op, shapes, n_in, &shape, r->err))
        return in_node(r);
    out = onnx_out(r, i);
    if (i)
        snprintf(name, sizeof(name), "%.240s.%d", r->node_name, i);
    else
        snprintf(name, sizeof(name), "%s", r->node_name);
    value = graph_add_node(r->g, name, op, in, n_in, out->text, r->err);
    if (value < 0)
        return in_node(r);
    out->value = value;
    r->shapes[value] = shape;
    return 0;
}

/* --- the model ---------------------------------------------------------- */

static int check_model(const Onnx__ModelProto *m, int *opset, struct error *err)
{
    *opset = 0;
    for (size_t i = 0; i < m->n_opset_import; i++) {
        const Onnx__OperatorSetIdProto *o = m->opset_import[i];
        if (o->domain && *o->domain && strcmp(o->domain, "ai.onnx") != 0)
            continue; /* a node that uses it is refused by name */
        if (*opset)
            return error_set(err, ERR_MODEL, "two operator set versions");
        if (o->version < ONNX_OPSET_MIN || o->version > ONNX_OPSET_MAX)
            return error_set(
                err, ERR_MODEL, "operator set %lld; %d to %d are read",
                (long long)o->version, ONNX_OPSET_MIN, ONNX_OPSET_MAX);
        *opset = (int)o->version;
    }
    if (!*opset)
        return error_set(err, ERR_MODEL, "no operator set is named");
    return 0;
}

static int dimension(const Onnx__TensorShapeProto__Dimension *d, int *out)
{
    bool fixed =
        d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;

    *out = 0;
    if (!fixed || d->dim_value == 0 || d->dim_value == -1)
        return 0;
    if (d->dim_value < 0 || d->dim_value > SHAPE_MAX_DIM)
        return -1;
    *out = (int)d->dim_value;
    return 0;
}

static int add_input(struct onnx_reader *r, const Onnx__ValueInfoProto *v)
{
    const Onnx__TypeProto__Tensor *t;
    struct onnx_name *name;
    int d[4];

    if (r->g->input >= 0)
        return error_set(r->err, ERR_MODEL,
                         "several inputs: \"%.60s\" besides \"%.60s\"", v->name,
                         r->g->values[r->g->input].name);
    name = add_name(r, v->name);
    if (!name)
        return -1;
    if (!v->type ||
        v->type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE ||
        !v->type->tensor_type->shape || v->type->tensor_type->shape->n_dim != 4)
        return error_set(r->err, ERR_MODEL,
                         "input \"%.60s\" is not [batch,channels,h,w]",
                         v->name);
    t = v->type->tensor_type;
    if (t->elem_type != ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT &&
        t->elem_type != ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16)
        return error_set(r->err, ERR_MODEL, "input \"%.60s\" is not of floats",
                         v->name);
    for (int i = 0; i < 4; i++)
        if (dimension(t->shape->dim[i], &d[i]))
            return error_set(r->err, ERR_MODEL,
                             "input \"%.60s\": a dimension is out of range",
                             v->name);
    if (d[1] < 1)
        return error_set(r->err, ERR_MODEL,
                         "input \"%.60s\": the number of channels is not given",
                         v->name);
    name->value = graph_add_input(r->g, v->name, d[1], d[2], d[3], r->err);
    if (name->value < 0)
        return -1;
    r->batch = d[0];
    r->free_h = !d[2];
    r->free_w = !d[3];
    r->shapes[name->value] = shape_of(4, 1, d[1], d[2] ? d[2] : ONNX_FREE_SIDE,
                                      d[3] ? d[3] : ONNX_FREE_SIDE);
    return 0;
}

static int read_names(struct onnx_reader *r)
{
    const Onnx__GraphProto *f = r->file;
    struct onnx_name *name;

    for (size_t i = 0; i < f->n_initializer; i++) {
        name = add_name(r, f->initializer[i]->name);
        if (!name)
            return error_context(r->err, "initialiser %zu", i);
        name->constant = f->initializer[i];
    }
    for (size_t i = 0; i < f->n_input; i++) {
        if (!f->input[i]->name)
            return error_set(r->err, ERR_MODEL, "input %zu has no name", i);
        /* files before IR 4 list the initialisers as inputs, too */
        name = find_name(r, f->input[i]->name);
        if (name && name->constant)
            continue;
        if (add_input(r, f->input[i]))
            return -1;
    }
    if (r->g->input < 0)
        return error_set(r->err, ERR_MODEL, "the graph has no input");
    return 0;
}

/* What every node must have before its converter looks at it. */
static int enter_node(struct onnx_reader *r, const Onnx__NodeProto *n)
{
    r->node = n;
    r->node_name = n->name && *n->name ? n->name
                   : n->n_output       ? n->output[0]
                                       : "";
    if (!onnx_text_ok(r->node_name) || strlen(r->node_name) > GRAPH_MAX_NAME)
        return error_set(r->err, ERR_MODEL,
                         "a node's name is too long or not printable UTF-8");
    if (!n->op_type || !*n->op_type || !onnx_text_ok(n->op_type))
        return error_set(r->err, ERR_MODEL, "node \"%.80s\" has no operator",
                         r->node_name);
    if (n->domain && *n->domain && strcmp(n->domain, "ai.onnx") != 0)
        return onnx_fail(r, "the operator domain \"%.60s\" is not supported",
                         onnx_text_ok(n->domain) ? n->domain : "?");
    if (!n->n_output || !*n->output[0])
        return onnx_fail(r, "has no output");
    for (size_t i = 0; i < n->n_attribute; i++) {
        const char *a = n->attribute[i]->name;
        if (!a || !*a || !onnx_text_ok(a))
            return onnx_fail(r, "an attribute has no name");
        for (size_t k = 0; k < i; k++)
            if (!strcmp(n->attribute[k]->name, a))
                return onnx_fail(r, "attribute %.60s is given twice", a);
    }
    return 0;
}

static int read_outputs_of_nodes(struct onnx_reader *r)
{
    for (size_t i = 0; i < r->file->n_node; i++) {
        const Onnx__NodeProto *n = r->file->node[i];
        if (enter_node(r, n))
            return -1;
        for (size_t k = 0; k < n->n_output; k++) {
            struct onnx_name *name;
            if (!*n->output[k])
                continue;
            name = add_name(r, n->output[k]);
            if (!name)
                return in_node(r);
            name->producer = (int)i;
        }
    }
    return 0;
}

/* --- order --------------------------------------------------------------- */

struct order {
    int *nodes, n; /* the result */
    struct frame {
        int node;
        size_t next; /* input to look at */
    } * stack;
    char *state; /* 0 not seen, 1 on the stack, 2 placed */
};

static int place(struct onnx_reader *r, struct order *o, int first)
{
    int depth = 0;

    o->stack[depth++] = (struct frame){first, 0};
    o->state[first] = 1;
    while (depth) {
        struct frame *f = &o->stack[depth - 1];
        const Onnx__NodeProto *n = r->file->node[f->node];
        const struct onnx_name *in;
        if (f->next == n->n_input) {
            o->state[f->node] = 2;
            o->nodes[o->n++] = f->node;
            depth--;
            continue;
        }
        const char *text = n->input[f->next++];
        if (!*text)
            continue;
        in = find_name(r, text);
        if (!in || (in->producer >= 0 && o->state[in->producer] == 1)) {
            if (enter_node(r, n))
                return -1;
            if (in)
                return onnx_fail(r, "is part of a cycle");
            return onnx_fail(r, "its input \"%.60s\" is not in the file",
                             onnx_text_ok(text) ? text : "?");
        }
        if (in->producer >= 0 && o->state[in->producer] == 0) {
            o->state[in->producer] = 1;
            o->stack[depth++] = (struct frame){in->producer, 0};
        }
    }
    return 0;
}

/* The file's order where it can be run, producers first where it cannot. */
static int *sort_nodes(struct onnx_reader *r)
{
    size_t n = r->file->n_node;
    struct order o = {.nodes = calloc(n + 1, sizeof(*o.nodes)),
                      .stack = calloc(n + 1, sizeof(*o.stack)),
                      .state = calloc(n + 1, 1)};
    int bad = 0;

    if (!o.nodes || !o.stack || !o.state)
        bad = error_set(r->err, ERR_NOMEM, "no memory for %zu nodes", n);
    for (size_t i = 0; i < n && !bad; i++)
        if (!o.state[i])
            bad = place(r, &o, (int)i);
    free(o.stack);
    free(o.state);
    if (bad) {
        free(o.nodes);
        return NULL;
    }
    return o.nodes;
}

/* --- nodes and outputs --------------------------------------------------- */

static int read_nodes(struct onnx_reader *r)
{
    int *order = sort_nodes(r);
    int bad = 0;

    if (!order)
        return -1;
    for (size_t i = 0; i < r->file->n_node && !bad; i++) {
        onnx_convert_fn convert;
        bad = enter_node(r, r->file->node[order[i]]);
        if (bad)
            break;
        convert = onnx_layer_convert(r->node->op_type);
        if (!convert)
            convert = onnx_math_convert(r->node->op_type);
        bad = convert ? convert(r)
                      : onnx_fail(r, "this operator is not supported");
    }
    free(order);
    return bad;
}

static int read_outputs(struct onnx_reader *r)
{
    for (size_t i = 0; i < r->file->n_output; i++) {
        const char *text = r->file->output[i]->name;
        const struct onnx_name *name = text ? find_name(r, text) : NULL;
        if (!name || name->producer < 0 || name->value < 0)
            return error_set(r->err, ERR_MODEL,
                             "output \"%.80s\" is not computed by any node",
                             text && onnx_text_ok(text) ? text : "?");
        for (int k = 0; k < r->g->n_outputs; k++)
            if (r->g->outputs[k] == name->value)
                return error_set(r->err, ERR_MODEL,
                                 "output \"%.80s\" is listed twice", text);
        if (graph_add_output(r->g, name->value, r->err) < 0)
            return -1;
    }
    if (!r->g->n_outputs)
        return error_set(r->err, ERR_MODEL, "the graph has no output");
    /* what held for a batch of 1 must hold for others */
    return graph_shapes(r->g, 2, ONNX_FREE_SIDE, ONNX_FREE_SIDE, r->shapes,
                        r->err);
}

struct graph *onnx_read(const Onnx__ModelProto *m, struct error *err)
{
    struct onnx_reader r = {.file = m->graph, .err = err, .node_name = ""};
    bool ok;

    if (check_model(m, &r.opset, err))
        return NULL;
    r.g = graph_new(err);
    ok = r.g && !init_names(&r) && !read_names(&r) &&
         !read_outputs_of_nodes(&r) && !read_nodes(&r) && !read_outputs(&r);
    free(r.names);
    free(r.slots);
    free(r.shapes);
    free(r.made);
    free(r.made_dims);
    if (!ok) {
        graph_free(r.g);
        return NULL;
    }
    return r.g;
}
