/* core/engine/graph.c - networks as nodes and values: building, shapes,
 * counts, text, and the thin calls into a backend.
 * Filled by onnx.c and core/arch; read by graph_fuse.c and the backends. */
#include "core/engine/graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct graph *graph_new(struct error *err)
{
    struct graph *g = calloc(1, sizeof(*g));

    if (!g)
        return error_null(err, ERR_NOMEM, "no memory for a graph");
    g->input = -1;
    return g;
}

void graph_free(struct graph *g)
{
    if (!g)
        return;
    for (int i = 0; i < g->n_values; i++) {
        free(g->values[i].name);
        free(g->values[i].data);
    }
    for (int i = 0; i < g->n_nodes; i++) {
        free(g->nodes[i].name);
        free(g->nodes[i].in);
    }
    free(g->values);
    free(g->nodes);
    free(g->by_name);
    free(g);
}

/* Where a name stands in by_name, or the empty place for it. Never more than
 * half of the places are taken. */
static int name_place(const struct graph *g, const char *name)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    int at;

    for (const char *c = name; *c; c++)
        h = (h ^ (unsigned char)*c) * 16777619u;
    at = (int)(h & (uint32_t)(g->n_by_name - 1));
    while (g->by_name[at] >= 0 &&
           strcmp(g->values[g->by_name[at]].name, name) != 0)
        at = (at + 1) & (g->n_by_name - 1);
    return at;
}

static int room_for_name(struct graph *g)
{
    int *old = g->by_name, n = g->n_by_name ? 2 * g->n_by_name : 64;

    if (2 * (g->n_values + 1) <= g->n_by_name)
        return 0;
    g->by_name = malloc((size_t)n * sizeof(*g->by_name));
    if (!g->by_name) {
        g->by_name = old;
        return -1;
    }
    free(old);
    g->n_by_name = n;
    memset(g->by_name, -1, (size_t)n * sizeof(*g->by_name));
    for (int i = 0; i < g->n_values; i++)
        g->by_name[name_place(g, g->values[i].name)] = i;
    return 0;
}

int graph_find(const struct graph *g, const char *value_name)
{
    return g->n_values ? g->by_name[name_place(g, value_name)] : -1;
}

/* Arrays grow to powers of two: room is known from the count. */
static void *grow(void *array, int n, size_t size)
{
    if (n & (n - 1))
        return array;
    return realloc(array, (n ? 2 * (size_t)n : 1) * size);
}

static int add_value(struct graph *g, const char *name, enum value_kind kind,
                     const struct shape *shape, struct error *err)
{
    char made_up[32];
    struct value *v;

    if (g->n_values >= GRAPH_MAX_VALUES)
        return error_set(err, ERR_MODEL, "more than %d values",
                         GRAPH_MAX_VALUES);
    if (!name || !*name) {
        snprintf(made_up, sizeof(made_up), "#%d", g->n_values);
        name = made_up;
    }
    if (strlen(name) > GRAPH_MAX_NAME)
        return error_set(err, ERR_MODEL, "a name is longer than %d bytes",
                         GRAPH_MAX_NAME);
    if (graph_find(g, name) >= 0)
        return error_set(err, ERR_MODEL, "two values are named '%s'", name);
    v = grow(g->values, g->n_values, sizeof(*v));
    if (v)
        g->values = v;
    if (!v || room_for_name(g))
        return error_set(err, ERR_NOMEM, "no memory for value '%s'", name);
    v += g->n_values;
    *v = (struct value){.name = strdup(name), .kind = kind, .shape = *shape};
    if (!v->name)
        return error_set(err, ERR_NOMEM, "no memory for value '%s'", name);
    g->by_name[name_place(g, name)] = g->n_values;
    return g->n_values++;
}

int graph_add_input(struct graph *g, const char *name, int c, int h, int w,
                    struct error *err)
{
    struct shape s = shape_of(4, 1, c, h, w);

    if (g->input >= 0)
        return error_set(err, ERR_MODEL, "a second input, '%s'",
                         name ? name : "");
    if (c < 1 || c > 4096 || h < 0 || w < 0 || h > 65536 || w > 65536)
        return error_set(err, ERR_MODEL, "an input of %dx%dx%d", c, h, w);
    return g->input = add_value(g, name, VALUE_INPUT, &s, err);
}

int graph_add_weight(struct graph *g, const char *name,
                     const struct shape *shape, float *take_data,
                     struct error *err)
{
    int at = -1;

    if (!shape_valid(shape)) {
        error_set(err, ERR_MODEL, "weight '%s' has an impossible shape",
                  name ? name : "");
    } else if (shape_count(shape) > GRAPH_MAX_NUMBERS - g->n_numbers) {
        error_set(err, ERR_MODEL,
                  "weight '%s' makes more than %d numbers in all weights",
                  name ? name : "", GRAPH_MAX_NUMBERS);
    } else if (!take_data && !(take_data = tensor_alloc(shape_count(shape)))) {
        error_set(err, ERR_NOMEM, "no memory for weight '%s'",
                  name ? name : "");
    } else {
        at = add_value(g, name, VALUE_WEIGHT, shape, err);
    }
    if (at < 0) {
        free(take_data);
        return -1;
    }
    g->values[at].data = take_data;
    g->n_numbers += shape_count(shape);
    return at;
}

int graph_add_node(struct graph *g, const char *name, const struct op *op,
                   const int in[], int n_in, const char *out_name,
                   struct error *err)
{
    struct shape none = {0};
    struct node *n;
    int out;

    if (g->n_nodes >= GRAPH_MAX_NODES || n_in < 1 || n_in > GRAPH_MAX_INPUTS ||
        op->type >= OP_COUNT)
        return error_set(err, ERR_MODEL,
                         "node '%s' is one too many or has "
                         "%d inputs",
                         name ? name : "", n_in);
    for (int i = 0; i < n_in; i++)
        if (in[i] < 0 || in[i] >= g->n_values)
            return error_set(err, ERR_MODEL, "input %d of node '%s' is missing",
                             i, name ? name : "");
    n = grow(g->nodes, g->n_nodes, sizeof(*n));
    if (!n)
        return error_set(err, ERR_NOMEM, "no memory for a node");
    g->nodes = n;
    n += g->n_nodes;
    out = add_value(g, out_name, VALUE_NODE, &none, err);
    if (out < 0)
        return -1;
    *n = (struct node){.op = *op, .n_in = n_in, .out = out};
    n->name = strdup(name && *name ? name : g->values[out].name);
    n->in = malloc((size_t)n_in * sizeof(*n->in));
    g->n_nodes++; /* from here graph_free sees to it */
    if (!n->name || !n->in)
        return error_set(err, ERR_NOMEM, "no memory for a node");
    memcpy(n->in, in, (size_t)n_in * sizeof(*n->in));
    return out;
}

int graph_add_output(struct graph *g, int value, struct error *err)
{
    if (value < 0 || value >= g->n_values ||
        g->values[value].kind == VALUE_WEIGHT)
        return error_set(err, ERR_MODEL, "an output is no computed value");
    if (g->n_outputs == GRAPH_MAX_OUTPUTS)
        return error_set(err, ERR_MODEL, "more than %d outputs",
                         GRAPH_MAX_OUTPUTS);
    g->outputs[g->n_outputs++] = value;
    return value;
}

static int dup_value(struct graph *to, const struct value *v, struct error *err)
{
    float *data;

    if (v->kind == VALUE_INPUT)
        return graph_add_input(to, v->name, v->shape.d[1], v->shape.d[2],
                               v->shape.d[3], err);
    data = tensor_alloc(shape_count(&v->shape));
    if (!data)
        return error_set(err, ERR_NOMEM, "no memory for weight '%s'", v->name);
    memcpy(data, v->data, shape_count(&v->shape) * sizeof(*data));
    return graph_add_weight(to, v->name, &v->shape, data, err);
}

static int dup_all(struct graph *to, const struct graph *g, struct error *err)
{
    int node = 0;

    for (int i = 0; i < g->n_values; i++) {
        const struct node *n = &g->nodes[node];

        if (g->values[i].kind != VALUE_NODE) {
            if (dup_value(to, &g->values[i], err) < 0)
                return -1;
        } else if (graph_add_node(to, n->name, &n->op, n->in, n->n_in,
                                  g->values[i].name, err) < 0) {
            return -1;
        } else {
            node++;
        }
    }
    for (int i = 0; i < g->n_outputs; i++)
        if (graph_add_output(to, g->outputs[i], err) < 0)
            return -1;
    return 0;
}

struct graph *graph_dup(const struct graph *g, struct error *err)
{
    struct graph *to = graph_new(err);

    if (to && !dup_all(to, g, err))
        return to;
    graph_free(to);
    return NULL;
}

int graph_shapes(const struct graph *g, int n, int h, int w, struct shape out[],
                 struct error *err)
{
    struct shape in[GRAPH_MAX_INPUTS];

    if (g->input < 0)
        return error_set(err, ERR_MODEL, "the graph has no input");
    for (int i = 0; i < g->n_values; i++)
        out[i] = g->values[i].shape;
    out[g->input].d[0] = n;
    if (!out[g->input].d[2])
        out[g->input].d[2] = h;
    if (!out[g->input].d[3])
        out[g->input].d[3] = w;
    if (!shape_valid(&out[g->input]))
        return error_set(err, ERR_MODEL, "an input of batch %d, %dx%d", n,
                         out[g->input].d[3], out[g->input].d[2]);
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *nd = &g->nodes[i];

        for (int k = 0; k < nd->n_in; k++)
            in[k] = out[nd->in[k]];
        if (op_shape(&nd->op, in, nd->n_in, &out[nd->out], err))
            return error_context(err, "node '%.80s' (%s)", nd->name,
                                 op_info(nd->op.type)->name);
    }
    return 0;
}

/* Parameters that a node brings along: weights that are its inputs. */
static void count_weights(const struct graph *g, const struct node *n,
                          int64_t *n_parameters, int64_t *n_statistics)
{
    for (int k = 1; k < n->n_in; k++) {
        const struct value *v = &g->values[n->in[k]];

        if (v->kind != VALUE_WEIGHT)
            continue;
        if (n->op.type == OP_BATCH_NORM && k >= 3)
            *n_statistics += (int64_t)shape_count(&v->shape);
        else
            *n_parameters += (int64_t)shape_count(&v->shape);
    }
}

static int64_t node_macs(const struct node *n, const struct shape *shapes)
{
    struct shape in[GRAPH_MAX_INPUTS];

    for (int k = 0; k < n->n_in; k++)
        in[k] = shapes[n->in[k]];
    return op_macs(&n->op, in, n->n_in, &shapes[n->out]);
}

int graph_count(const struct graph *g, int h, int w, struct graph_counts *out,
                struct error *err)
{
    struct shape *shapes = calloc((size_t)g->n_values + 1, sizeof(*shapes));
    int rc = -1;

    memset(out, 0, sizeof(*out));
    if (!shapes)
        return error_set(err, ERR_NOMEM, "no memory for shapes");
    if (graph_shapes(g, 1, h, w, shapes, err))
        goto out;
    for (int i = 0; i < g->n_nodes; i++) {
        count_weights(g, &g->nodes[i], &out->n_parameters, &out->n_statistics);
        if (__builtin_add_overflow(out->macs, node_macs(&g->nodes[i], shapes),
                                   &out->macs))
            out->macs = INT64_MAX;
        out->n_convs += g->nodes[i].op.type == OP_CONV;
    }
    rc = 0;
out:
    free(shapes);
    return rc;
}

char *graph_text(const struct graph *g, int h, int w, struct error *err)
{
    struct shape *shapes = calloc((size_t)g->n_values + 1, sizeof(*shapes));
    char *text = NULL, buf[48];
    size_t len = 0;
    FILE *f = NULL;

    if (!shapes || !(f = open_memstream(&text, &len))) {
        free(shapes);
        return error_null(err, ERR_NOMEM, "no memory for text");
    }
    if (graph_shapes(g, 1, h, w, shapes, err)) {
        fclose(f);
        free(text);
        free(shapes);
        return NULL;
    }
    fprintf(f, "%-40s %-18s %-18s %12s %14s\n", "node", "operator", "output",
            "parameters", "MACs");
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        int64_t parameters = 0, statistics = 0;

        count_weights(g, n, &parameters, &statistics);
        fprintf(f, "%-40.40s %-18s %-18s %12lld %14lld\n", n->name,
                op_info(n->op.type)->name,
                shape_text(&shapes[n->out], buf, sizeof(buf)),
                (long long)parameters, (long long)node_macs(n, shapes));
    }
    fclose(f);
    free(shapes);
    return text ? text : error_null(err, ERR_NOMEM, "no memory for text");
}

struct network *network_new(struct device *dev, const struct graph *g,
                            struct error *err)
{
    return dev->backend->load(dev, g, err);
}

void network_free(struct network *net)
{
    if (net)
        net->device->backend->unload(net);
}

struct plan *graph_plan(struct network *net, const struct plan_options *opt,
                        struct error *err)
{
    return net->device->backend->plan(net, opt, err);
}

void plan_free(struct plan *p)
{
    if (p)
        p->backend->plan_free(p);
}

float *plan_input(struct plan *p)
{
    return p->input;
}

const float *plan_output(const struct plan *p, int i)
{
    return p->output[i];
}

const struct shape *plan_output_shape(const struct plan *p, int i)
{
    return &p->shape_out[i];
}

size_t plan_row_floats(const struct plan *p)
{
    size_t batch = (size_t)p->shape_in.d[0], floats = 0;

    for (int k = 0; k < p->n_outputs; k++)
        floats += shape_count(&p->shape_out[k]) / batch;
    return floats;
}

void plan_rows(const struct plan *p, int n, float *rows)
{
    size_t batch = (size_t)p->shape_in.d[0], row = plan_row_floats(p);

    for (int k = 0; k < p->n_outputs; k++) {
        size_t count = shape_count(&p->shape_out[k]) / batch;
        for (size_t i = 0; i < (size_t)n; i++)
            memcpy(rows + i * row, p->output[k] + i * count,
                   count * sizeof(float));
        rows += count;
    }
}

int graph_forward(struct plan *p, struct error *err)
{
    return p->backend->forward(p, err);
}

struct network *network_new_learning(struct device *dev, const struct graph *g,
                                     const struct learn_options *opt,
                                     struct error *err)
{
    if (!dev->backend->load_learning)
        return error_null(err, ERR_DEVICE, "the %s backend does not train",
                          dev->backend->name);
    return dev->backend->load_learning(dev, g, opt, err);
}

struct learnable *network_learnable(struct network *net)
{
    return net->learn;
}

float *plan_gradient(struct plan *p, int i)
{
    return p->gradient[i];
}

int graph_backward(struct plan *p, struct error *err)
{
    bool any = false;

    for (int i = 0; i < p->n_outputs; i++)
        any = any || p->gradient[i];
    if (!any)
        return error_set(err, ERR_DEVICE, "a plan at rest has no backward");
    return p->backend->backward(p, err);
}

struct graph *network_graph(const struct network *net, const struct graph *g,
                            const float *weights, struct error *err)
{
    const struct learnable *l = net->learn;
    struct graph *to = graph_dup(g, err);

    if (!weights)
        weights = l->weights;
    for (int i = 0; to && i < l->n_tensors; i++) {
        const struct learn_tensor *t = &l->tensors[i];

        memcpy(to->values[t->value].data,
               (t->statistic ? l->statistics : weights) + t->offset,
               t->count * sizeof(float));
    }
    return to;
}
