/* core/engine/graph_fuse.c - a network as trained to a network at rest.
 * Walks the nodes in order and writes a new graph; a node that can become
 * part of the convolution or dense layer that feeds it is merged instead of
 * written. Called by backends before they plan for inference. */
#include "core/engine/graph.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fuse {
    const struct graph *from;
    struct graph *to;
    int *map;      /* value of from -> value of to, -1: not there yet */
    int *uses;     /* of from's values: readers still to come, outputs too */
    int *producer; /* of to's values: node index, -1 for input and weights */
    bool *alive;   /* of from's nodes: an output needs it */
    struct error *err;
};

static void mark_alive(struct fuse *f)
{
    const struct graph *g = f->from;
    bool *needed = calloc((size_t)g->n_values + 1, sizeof(*needed));

    if (!needed) { /* keep everything: slower, not wrong */
        memset(f->alive, 1, (size_t)g->n_nodes * sizeof(*f->alive));
        return;
    }
    for (int i = 0; i < g->n_outputs; i++)
        needed[g->outputs[i]] = true;
    for (int i = g->n_nodes - 1; i >= 0; i--) {
        const struct node *n = &g->nodes[i];

        f->alive[i] = needed[n->out];
        for (int k = 0; f->alive[i] && k < n->n_in; k++)
            needed[n->in[k]] = true;
    }
    free(needed);
}

static void count_uses(struct fuse *f)
{
    const struct graph *g = f->from;

    for (int i = 0; i < g->n_outputs; i++)
        f->uses[g->outputs[i]]++;
    for (int i = 0; i < g->n_nodes; i++)
        for (int k = 0; f->alive[i] && k < g->nodes[i].n_in; k++)
            f->uses[g->nodes[i].in[k]]++;
}

/* The node of the new graph that made this value, if nothing else reads it:
 * then it may be changed. NULL otherwise. */
static struct node *sole_producer(struct fuse *f, int from_value)
{
    int at = f->map[from_value];

    if (f->uses[from_value] != 1 || at < 0 || f->producer[at] < 0)
        return NULL;
    return &f->to->nodes[f->producer[at]];
}

static bool is_dense(const struct node *n)
{
    return n && (n->op.type == OP_CONV || n->op.type == OP_GEMM);
}

static enum act act_of(const struct node *n)
{
    return n->op.type == OP_CONV ? n->op.u.conv.act : n->op.u.gemm.act;
}

/* Bare: its sums come out as they are, so what follows can be folded in. */
static bool is_bare(const struct node *n)
{
    return is_dense(n) && act_of(n) == ACT_NONE &&
           !(n->op.type == OP_CONV && n->op.u.conv.residual);
}

/* Named apart from everything that a file brings. */
static int add_weight(struct fuse *f, const struct shape *shape,
                      float *take_data)
{
    char name[32];

    snprintf(name, sizeof(name), "fused:%d", f->to->n_values);
    return graph_add_weight(f->to, name, shape, take_data, f->err);
}

static int copy_weight(struct fuse *f, int from_value)
{
    const struct value *v = &f->from->values[from_value];
    size_t n = shape_count(&v->shape);
    float *data = tensor_alloc(n);

    if (!data)
        return error_set(f->err, ERR_NOMEM, "no memory for weights");
    memcpy(data, v->data, n * sizeof(*data));
    return add_weight(f, &v->shape, data);
}

static int new_vector(struct fuse *f, int n, float fill)
{
    struct shape s = shape_of(1, n, 0, 0, 0);
    int at = add_weight(f, &s, NULL);

    for (int i = 0; at >= 0 && i < n; i++)
        f->to->values[at].data[i] = fill;
    return at;
}

/* y = scale x + shift by channel, from a batch norm, an affine or arithmetic
 * with a constant. Owned arrays of n. */
struct affine {
    float *scale, *shift;
    int n;
};

static const struct value *constant_in(struct fuse *f, const struct node *n,
                                       int k)
{
    const struct value *v = &f->from->values[n->in[k]];

    return v->kind == VALUE_WEIGHT ? v : NULL;
}

static void affine_batch_norm(const struct node *n,
                              const struct value *const p[4], struct affine *a)
{
    for (int i = 0; i < a->n; i++) {
        double s =
            p[0]->data[i] / sqrt((double)p[3]->data[i] + n->op.u.norm.epsilon);

        a->scale[i] = (float)s;
        a->shift[i] = (float)(p[1]->data[i] - s * p[2]->data[i]);
    }
}

static void affine_arith(enum op_type type, const struct value *b,
                         struct affine *a)
{
    bool one = shape_count(&b->shape) == 1;

    for (int i = 0; i < a->n; i++) {
        float v = b->data[one ? 0 : i];

        a->scale[i] = type == OP_MUL ? v : type == OP_DIV ? 1 / v : 1;
        a->shift[i] = type == OP_ADD ? v : type == OP_SUB ? -v : 0;
    }
}

/* Is n an affine map by channel with constant parameters? Fills a; 1, 0, or
 * -1 out of memory. */
static int as_affine(struct fuse *f, const struct node *n,
                     const struct shape *shape, struct affine *a)
{
    const struct value *p[4] = {0};
    int n_p = n->n_in - 1, type = (int)n->op.type;

    if (type != OP_BATCH_NORM && type != OP_AFFINE && type != OP_ADD &&
        type != OP_SUB && type != OP_MUL && type != OP_DIV)
        return 0;
    for (int k = 0; k < n_p; k++)
        if (!(p[k] = constant_in(f, n, k + 1)))
            return 0;
    a->n = shape->d[1];
    if (n_p == 1 && shape_count(&p[0]->shape) != 1 &&
        (p[0]->shape.rank != 1 || p[0]->shape.d[0] != a->n))
        return 0;
    a->scale = tensor_alloc((size_t)a->n);
    a->shift = tensor_alloc((size_t)a->n);
    if (!a->scale || !a->shift)
        return error_set(f->err, ERR_NOMEM, "no memory for a scale");
    if (type == OP_BATCH_NORM) {
        affine_batch_norm(n, p, a);
    } else if (type == OP_AFFINE) {
        memcpy(a->scale, p[0]->data, (size_t)a->n * sizeof(float));
        memcpy(a->shift, p[1]->data, (size_t)a->n * sizeof(float));
    } else {
        affine_arith(n->op.type, p[0], a);
    }
    return 1;
}

/* Let the dense layer that feeds it do the affine. */
static void fold_into_dense(struct fuse *f, struct node *to,
                            const struct affine *a)
{
    struct value *w = &f->to->values[to->in[1]];
    float *b = f->to->values[to->in[2]].data;
    size_t row = shape_count(&w->shape) / (size_t)a->n;

    for (int o = 0; o < a->n; o++) {
        for (size_t i = 0; i < row; i++)
            w->data[(size_t)o * row + i] *= a->scale[o];
        b[o] = b[o] * a->scale[o] + a->shift[o];
    }
}

static void fold_into_affine(struct fuse *f, struct node *to,
                             const struct affine *a)
{
    float *scale = f->to->values[to->in[1]].data;
    float *shift = f->to->values[to->in[2]].data;

    for (int i = 0; i < a->n; i++) {
        scale[i] *= a->scale[i];
        shift[i] = shift[i] * a->scale[i] + a->shift[i];
    }
}

static int emit(struct fuse *f, const struct node *n, const struct op *op,
                const int in[], int n_in)
{
    int out = graph_add_node(f->to, n->name, op, in, n_in,
                             f->from->values[n->out].name, f->err);

    if (out < 0)
        return -1;
    f->producer[out] = f->to->n_nodes - 1;
    f->map[n->out] = out;
    return 0;
}

/* n vanishes: its output is the value that its input k already is. */
static void merge(struct fuse *f, const struct node *n, int k)
{
    f->map[n->out] = f->map[n->in[k]];
}

static int emit_affine(struct fuse *f, const struct node *n,
                       const struct affine *a)
{
    struct op op = {.type = OP_AFFINE};
    int in[3] = {f->map[n->in[0]], new_vector(f, a->n, 1),
                 new_vector(f, a->n, 0)};

    if (in[1] < 0 || in[2] < 0)
        return -1;
    memcpy(f->to->values[in[1]].data, a->scale, (size_t)a->n * sizeof(float));
    memcpy(f->to->values[in[2]].data, a->shift, (size_t)a->n * sizeof(float));
    return emit(f, n, &op, in, 3);
}

static int fuse_affine(struct fuse *f, const struct node *n,
                       const struct affine *a)
{
    struct node *p = sole_producer(f, n->in[0]);

    if (is_bare(p)) {
        fold_into_dense(f, p, a);
        merge(f, n, 0);
        return 0;
    }
    if (p && p->op.type == OP_AFFINE) {
        fold_into_affine(f, p, a);
        merge(f, n, 0);
        return 0;
    }
    return emit_affine(f, n, a);
}

/* Convolutions and dense layers always get a bias, so that folding and fused
 * inputs have their fixed places: x, w, b, [residual], [slope]. */
static int emit_dense(struct fuse *f, const struct node *n)
{
    const struct value *w = constant_in(f, n, 1);
    int in[3];

    in[0] = f->map[n->in[0]];
    in[1] = copy_weight(f, n->in[1]);
    in[2] = n->n_in > 2 ? copy_weight(f, n->in[2])
                        : new_vector(f, w->shape.d[0], 0);
    if (in[1] < 0 || in[2] < 0)
        return -1;
    return emit(f, n, &n->op, in, 3);
}

static int append_input(struct fuse *f, struct node *n, int value)
{
    int *in = realloc(n->in, ((size_t)n->n_in + 1) * sizeof(*in));

    if (!in)
        return error_set(f->err, ERR_NOMEM, "no memory for a node");
    n->in = in;
    n->in[n->n_in++] = value;
    return 0;
}

/* Relu, Clip, PRelu into the layer before: 1 done, 0 not possible. */
static int fuse_act(struct fuse *f, const struct node *n)
{
    struct node *p = sole_producer(f, n->in[0]);
    enum act act = n->op.type == OP_RELU   ? ACT_RELU
                   : n->op.type == OP_CLIP ? ACT_CLIP
                                           : ACT_PRELU;
    int slope;

    if (!is_dense(p) || act_of(p) != ACT_NONE)
        return 0;
    if (act == ACT_PRELU) {
        slope = copy_weight(f, n->in[1]);
        p = sole_producer(f, n->in[0]);
        if (slope < 0 || append_input(f, p, slope))
            return -1;
    }
    if (p->op.type == OP_CONV) {
        p->op.u.conv.act = act;
        p->op.u.conv.lo = n->op.u.clip.lo;
        p->op.u.conv.hi = n->op.u.clip.hi;
    } else {
        p->op.u.gemm.act = act;
        p->op.u.gemm.lo = n->op.u.clip.lo;
        p->op.u.gemm.hi = n->op.u.clip.hi;
    }
    merge(f, n, 0);
    return 1;
}

/* a + b: the one computed later, if it is a bare convolution that nothing
 * else reads, takes the other as its residual. */
static int fuse_add(struct fuse *f, const struct node *n,
                    const struct shape *shapes)
{
    int later = 0;
    struct node *p;

    if (n->in[0] == n->in[1] ||
        !shape_equal(&shapes[n->in[0]], &shapes[n->in[1]]) ||
        constant_in(f, n, 0) || constant_in(f, n, 1))
        return 0;
    if (f->producer[f->map[n->in[1]]] > f->producer[f->map[n->in[0]]])
        later = 1;
    p = sole_producer(f, n->in[later]);
    if (!p || p->op.type != OP_CONV || !is_bare(p))
        return 0;
    if (append_input(f, p, f->map[n->in[1 - later]]))
        return -1;
    p->op.u.conv.residual = true;
    merge(f, n, later);
    return 1;
}

static int emit_plain(struct fuse *f, const struct node *n)
{
    int in[GRAPH_MAX_INPUTS];

    for (int k = 0; k < n->n_in; k++) {
        if (f->map[n->in[k]] < 0 && constant_in(f, n, k))
            f->map[n->in[k]] = copy_weight(f, n->in[k]);
        in[k] = f->map[n->in[k]];
        if (in[k] < 0)
            return -1;
    }
    return emit(f, n, &n->op, in, n->n_in);
}

/* What backends rely on: the first input is computed, parameters are
 * constants, and only arithmetic takes either as its second. */
static int check_inputs(struct fuse *f, const struct node *n)
{
    bool arith = n->op.type == OP_ADD || n->op.type == OP_SUB ||
                 n->op.type == OP_MUL || n->op.type == OP_DIV;
    bool joins = n->op.type == OP_CONCAT || n->op.type == OP_MAX;

    for (int k = 0; k < n->n_in; k++) {
        bool constant = constant_in(f, n, k) != NULL;

        if ((k == 0 || joins) && constant)
            return error_set(f->err, ERR_MODEL,
                             "node '%.80s': input %d is a constant", n->name,
                             k);
        if (k > 0 && !joins && !arith && !constant)
            return error_set(f->err, ERR_MODEL,
                             "node '%.80s': input %d, a parameter, is not a "
                             "constant",
                             n->name, k);
    }
    return 0;
}

static int fuse_node(struct fuse *f, const struct node *n,
                     const struct shape *shapes)
{
    struct affine a = {0};
    int rc = 0;

    if (check_inputs(f, n))
        return -1;
    switch (n->op.type) {
    case OP_DROPOUT:
    case OP_IDENTITY:
        /* Two names of one value: each reader of either counts. */
        f->uses[n->in[0]] += f->uses[n->out] - 1;
        f->uses[n->out] = f->uses[n->in[0]];
        merge(f, n, 0);
        return 0;
    case OP_CONV:
    case OP_GEMM:
        return emit_dense(f, n);
    case OP_RELU:
    case OP_CLIP:
    case OP_PRELU:
        rc = fuse_act(f, n);
        break;
    case OP_ADD:
        rc = fuse_add(f, n, shapes);
        break;
    default:
        break;
    }
    if (rc == 0 && shapes[n->in[0]].rank >= 2)
        rc = as_affine(f, n, &shapes[n->in[0]], &a);
    if (rc == 1 && a.scale)
        rc = fuse_affine(f, n, &a);
    else if (rc == 0)
        rc = emit_plain(f, n);
    free(a.scale);
    free(a.shift);
    return rc < 0 ? -1 : 0;
}

static int fuse_all(struct fuse *f, const struct shape *shapes)
{
    const struct graph *g = f->from;
    const struct value *in = &g->values[g->input];

    f->map[g->input] = graph_add_input(f->to, in->name, in->shape.d[1],
                                       in->shape.d[2], in->shape.d[3], f->err);
    if (f->map[g->input] < 0)
        return -1;
    for (int i = 0; i < g->n_nodes; i++)
        if (f->alive[i] && fuse_node(f, &g->nodes[i], shapes))
            return -1;
    for (int i = 0; i < g->n_outputs; i++)
        if (graph_add_output(f->to, f->map[g->outputs[i]], f->err) < 0)
            return -1;
    return 0;
}

struct graph *graph_fuse(const struct graph *g, struct error *err)
{
    size_t n = (size_t)g->n_values + 1;
    /* Every value once, every weight copied once more, and at most a bias,
     * a scale and a shift for a node. */
    size_t n_to = 2 * n + 3 * (size_t)g->n_nodes;
    struct fuse f = {.from = g, .to = graph_new(err), .err = err};
    struct shape *shapes = calloc(n, sizeof(*shapes));
    bool ok = false;

    f.map = malloc(n * sizeof(*f.map));
    f.uses = calloc(n, sizeof(*f.uses));
    f.producer = malloc(n_to * sizeof(*f.producer));
    f.alive = calloc((size_t)g->n_nodes + 1, sizeof(*f.alive));
    if (!f.to || !shapes || !f.map || !f.uses || !f.producer || !f.alive) {
        error_set(err, ERR_NOMEM, "no memory to fuse a graph");
        goto out;
    }
    memset(f.map, -1, n * sizeof(*f.map));
    memset(f.producer, -1, n_to * sizeof(*f.producer));
    /* Sizes do not matter here, ranks and channels do: any side will do
     * where the file leaves it free. */
    if (graph_shapes(g, 1, 256, 256, shapes, err))
        goto out;
    mark_alive(&f);
    count_uses(&f);
    ok = fuse_all(&f, shapes) == 0;
out:
    free(shapes);
    free(f.map);
    free(f.uses);
    free(f.producer);
    free(f.alive);
    if (!ok) {
        graph_free(f.to);
        return NULL;
    }
    return f.to;
}
