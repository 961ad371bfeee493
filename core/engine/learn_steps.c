/* core/engine/learn_steps.c - see the header. */
#include "core/engine/learn_steps.h"

#include <stdlib.h>
#include <string.h>

/* ---- weights --------------------------------------------------------- */

enum {
    NO_TENSOR = -1,
    FROZEN = -2 /* a frozen node reads it, whoever else does */
};
enum role {
    ROLE_CONSTANT,
    ROLE_WEIGHT, /* learns */
    ROLE_DECAYS, /* learns, and weight decay is for it */
    ROLE_STATISTIC
};

/* What input k of a node is to learning. */
static enum role role_of(const struct node *n, int k)
{
    switch (n->op.type) {
    case OP_CONV:
    case OP_GEMM:
        return k == 1 ? ROLE_DECAYS : k == 2 ? ROLE_WEIGHT : ROLE_CONSTANT;
    case OP_BATCH_NORM:
        return k > 2 ? ROLE_STATISTIC : k ? ROLE_WEIGHT : ROLE_CONSTANT;
    case OP_AFFINE:
    case OP_PRELU:
        return k ? ROLE_WEIGHT : ROLE_CONSTANT;
    default: /* scales of the input or of a residual */
        return ROLE_CONSTANT;
    }
}

static void add_tensor(struct learner *l, int value, enum role role)
{
    struct learnable *a = &l->learn;
    size_t count = shape_count(&l->graph->values[value].shape);
    struct learn_tensor *t = &a->tensors[a->n_tensors];
    size_t *end = role == ROLE_STATISTIC ? &a->n_statistics : &a->n_weights;

    l->tensor[value] = a->n_tensors++;
    *t = (struct learn_tensor){.value = value,
                               .offset = *end,
                               .count = count,
                               .statistic = role == ROLE_STATISTIC,
                               .decays = role == ROLE_DECAYS};
    *end += count;
}

static void find_tensors(struct learner *l)
{
    const struct graph *g = l->graph;
    enum role role;

    for (int i = 0; i < g->n_values; i++)
        l->tensor[i] = NO_TENSOR;
    for (int i = 0; i < l->opt.freeze_until; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            l->tensor[g->nodes[i].in[k]] = FROZEN;
    for (int i = l->opt.freeze_until; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++) {
            int v = g->nodes[i].in[k];

            role = role_of(&g->nodes[i], k);
            if (g->values[v].kind == VALUE_WEIGHT && role != ROLE_CONSTANT &&
                l->tensor[v] == NO_TENSOR)
                add_tensor(l, v, role);
        }
}

static int take_weights(struct learner *l, struct error *err)
{
    struct learnable *a = &l->learn;

    a->weights = tensor_alloc(a->n_weights + 1);
    a->gradients = tensor_alloc(a->n_weights + 1);
    a->statistics = tensor_alloc(a->n_statistics + 1);
    if (!a->weights || !a->gradients || !a->statistics)
        return error_set(err, ERR_NOMEM, "no memory for weights that learn");
    for (int i = 0; i < a->n_tensors; i++) {
        const struct learn_tensor *t = &a->tensors[i];
        struct value *v = &l->graph->values[t->value];

        memcpy((t->statistic ? a->statistics : a->weights) + t->offset, v->data,
               t->count * sizeof(float));
        free(v->data);
        v->data = NULL;
    }
    return 0;
}

int learner_init(struct learner *l, struct device *dev, const struct graph *g,
                 const struct learn_options *opt, struct error *err)
{
    if (opt->freeze_until < 0 || opt->freeze_until > g->n_nodes)
        return error_set(err, ERR_BAD_FIELD,
                         "node %d of %d cannot be the first that learns",
                         opt->freeze_until, g->n_nodes);
    l->base.device = dev;
    l->base.learn = &l->learn;
    l->opt = *opt;
    l->learn.random = opt->seed;
    l->graph = graph_dup(g, err);
    if (!l->graph)
        return -1;
    l->tensor = calloc((size_t)g->n_values + 1, sizeof(*l->tensor));
    l->learn.tensors =
        calloc((size_t)g->n_values + 1, sizeof(*l->learn.tensors));
    if (!l->tensor || !l->learn.tensors)
        return error_set(err, ERR_NOMEM, "no memory for a network");
    find_tensors(l);
    return take_weights(l, err);
}

void learner_fini(struct learner *l)
{
    free(l->learn.tensors);
    free(l->learn.weights);
    free(l->learn.gradients);
    free(l->learn.statistics);
    free(l->tensor);
    graph_free(l->graph);
}

static int no_memory(struct error *err)
{
    return error_set(err, ERR_NOMEM, "no memory for a plan");
}

/* ---- steps --------------------------------------------------------- */

static bool is_constant(const struct learn_steps *b, int value)
{
    return b->g->values[value].kind == VALUE_WEIGHT &&
           b->net->tensor[value] < 0;
}

static void count_uses(struct learn_steps *b)
{
    for (int i = 0; i < b->g->n_outputs; i++)
        b->uses[b->g->outputs[i]]++;
    for (int i = b->g->n_nodes - 1; i >= 0; i--) {
        const struct node *n = &b->g->nodes[i];

        for (int k = 0; b->uses[n->out] && k < n->n_in; k++)
            b->uses[n->in[k]]++;
    }
}

/* The step that makes a value which nobody else reads; or NULL. */
static struct learn_step *sole_maker(struct learn_steps *b, int value)
{
    return b->uses[value] == 1 && b->maker[value] >= 0 ? &b->at[b->maker[value]]
                                                       : NULL;
}

/* A ReLU becomes part of what feeds it, a PReLU of its batch norm, whose sixth
 * input its slopes are. */
static bool fuse_activation(struct learn_steps *b, const struct node *n)
{
    struct learn_step *s = sole_maker(b, n->in[0]);

    if (!s || s->kind != LEARN_OP || s->run.relu || !op_run_fuses(&s->run))
        return false;
    if (n->op.type == OP_PRELU && s->node->op.type == OP_BATCH_NORM &&
        shape_equal(&b->shapes[n->in[1]], &s->run.shape_in[1])) {
        s->in[s->run.n_in] = n->in[1];
        s->run.shape_in[s->run.n_in++] = b->shapes[n->in[1]];
    } else if (n->op.type == OP_RELU) {
        s->run.relu = true;
    } else {
        return false;
    }
    s->out = n->out;
    b->maker[n->out] = (int)(s - b->at);
    return true;
}

/* The scale of a residual becomes part of its addition. */
static void fuse_scales(struct learn_steps *b, struct learn_step *s)
{
    for (int k = 0; k < 2; k++) {
        struct learn_step *m = sole_maker(b, s->in[k]);

        if (!m || m->node->op.type != OP_MUL || !is_constant(b, m->in[1]) ||
            shape_count(&b->shapes[m->in[1]]) != 1)
            continue;
        s->in[k] = m->in[0];
        s->scale[k] = m->in[1];
        m->gone = true;
    }
}

static int add_step(struct learn_steps *b, int at, struct error *err)
{
    const struct node *n = &b->g->nodes[at];
    struct learn_step *s = &b->at[b->n];

    *s = (struct learn_step){.node = n,
                             .index = at,
                             .out = n->out,
                             .scale = {-1, -1},
                             .kind = n->op.type == OP_CONV   ? LEARN_CONV
                                     : n->op.type == OP_GEMM ? LEARN_GEMM
                                                             : LEARN_OP};
    memcpy(s->in, n->in, (size_t)n->n_in * sizeof(*s->in));
    s->run.op = &n->op;
    s->run.n_in = n->n_in;
    s->run.shape_out = b->shapes[n->out];
    for (int k = 0; k < n->n_in; k++)
        s->run.shape_in[k] = b->shapes[n->in[k]];
    s->run.rest = b->rest;
    s->run.freeze_norm =
        b->net->opt.freeze_norm || at < b->net->opt.freeze_until;
    s->run.random = &b->net->learn.random;
    if ((s->kind == LEARN_CONV &&
         (n->op.u.conv.residual || n->op.u.conv.act != ACT_NONE)) ||
        (s->kind == LEARN_GEMM && n->op.u.gemm.act != ACT_NONE) ||
        (s->kind == LEARN_OP && !op_run_known(&s->run)))
        return error_set(err, ERR_MODEL, "%s in this form is not for training",
                         op_info(n->op.type)->name);
    if (n->op.type == OP_ADD && op_run_fuses(&s->run))
        fuse_scales(b, s);
    b->maker[n->out] = b->n++;
    return 0;
}

static void drop_gone(struct learn_steps *b)
{
    int n = 0;

    for (int i = 0; i < b->n; i++)
        if (!b->at[i].gone)
            b->at[n++] = b->at[i];
    b->n = n;
    for (int i = 0; i < b->g->n_values; i++)
        b->maker[i] = -1;
    for (int i = 0; i < n; i++)
        b->maker[b->at[i].out] = i;
}

static int make_steps(struct learn_steps *b, struct error *err)
{
    b->at = calloc((size_t)b->g->n_nodes + 1, sizeof(*b->at));
    if (!b->at)
        return no_memory(err);
    count_uses(b);
    for (int i = 0; i < b->g->n_values; i++)
        b->maker[i] = b->slot[i] = b->grad[i] = -1;
    for (int i = 0; i < b->g->n_nodes; i++) {
        const struct node *n = &b->g->nodes[i];

        if (b->uses[n->out] && !fuse_activation(b, n) && add_step(b, i, err))
            return error_context(err, "node '%.80s'", n->name);
    }
    drop_gone(b);
    return 0;
}

/* ---- what goes backward ---------------------------------------------- */

bool learn_steps_learns(const struct learn_steps *b, int value)
{
    int t = b->net->tensor[value];

    return b->g->values[value].kind == VALUE_WEIGHT && t >= 0 &&
           !b->net->learn.tensors[t].statistic;
}

static void find_needs(struct learn_steps *b)
{
    for (int i = 0; i < b->n; i++) {
        const struct learn_step *s = &b->at[i];

        for (int k = 0; k < s->run.n_in; k++)
            b->need[s->out] |=
                b->need[s->in[k]] || learn_steps_learns(b, s->in[k]);
    }
}

/* Which steps have a loss by their result, and who of its readers writes it
 * first: the others add. */
static void find_backward(struct learn_steps *b)
{

    /* There will be these, and they are written by the caller. */
    for (int i = 0; i < b->g->n_outputs; i++)
        b->grad[b->g->outputs[i]] = -2;
    for (int i = b->n - 1; i >= 0; i--) {
        struct learn_step *s = &b->at[i];

        s->backward = b->need[s->out] && b->grad[s->out] == -2;
        for (int k = 0; s->backward && k < s->run.n_in; k++) {
            if (!b->need[s->in[k]])
                continue;
            s->run.fresh[k] = b->grad[s->in[k]] == -1;
            b->grad[s->in[k]] = -2;
        }
    }
}

/* ---- memory -------------------------------------------------------- */

static int new_slot(struct learn_steps *b, size_t bytes, int first, int last)
{
    b->slots[b->n_slots] = (struct slot){

        .bytes = bytes, .first = first, .last = last};
    return b->n_slots++;
}

static void reach(struct learn_steps *b, int slot, int time)
{
    struct slot *s = slot >= 0 ? &b->slots[slot] : NULL;

    if (s && time < s->first)
        s->first = time;
    if (s && time > s->last)
        s->last = time;
}

/* Does backward of this step read its input k? */
static bool keeps_input(const struct learn_steps *b, const struct learn_step *s)
{
    if (s->kind != LEARN_OP)
        return learn_steps_learns(b, s->in[1]);
    return op_info(s->node->op.type)->keep & OP_KEEP_INPUT;
}

static bool keeps_output(const struct learn_step *s)
{
    if (s->run.relu && s->node->op.type == OP_ADD)
        return true;
    return s->kind == LEARN_OP &&
           op_info(s->node->op.type)->keep & OP_KEEP_OUTPUT;
}

static void lay_step(struct learn_steps *b, const struct learn_sizes *z, int i)
{
    struct learn_step *s = &b->at[i];
    int back = 2 * b->n - 1 - i;
    size_t state = s->kind == LEARN_OP ? z->state(s, z->ctx) : 0;

    b->slot[s->out] = new_slot(b, z->value(&s->run.shape_out, z->ctx), i, i);
    b->state[i] = state ? new_slot(b, state, i, s->backward ? back : i) : -1;
    if (s->backward && keeps_output(s))
        reach(b, b->slot[s->out], back);
    for (int k = 0; k < s->run.n_in; k++) {
        reach(b, b->slot[s->in[k]], i);
        if (s->backward && keeps_input(b, s))
            reach(b, b->slot[s->in[k]], back);
    }
}

static void lay_gradients(struct learn_steps *b, const struct learn_sizes *z)
{
    int end = 2 * b->n - 1;

    for (int i = 0; i < b->g->n_outputs; i++) {
        int out = b->g->outputs[i];

        if (b->need[out] && b->grad[out] < 0)
            b->grad[out] =
                new_slot(b, z->value(&b->shapes[out], z->ctx), b->n, b->n);
    }
    for (int i = b->n - 1; i >= 0; i--) {
        struct learn_step *s = &b->at[i];

        if (!s->backward)
            continue;
        if (b->grad[s->out] < 0)
            b->grad[s->out] = new_slot(b, z->value(&s->run.shape_out, z->ctx),
                                       end - i, end - i);
        reach(b, b->grad[s->out], end - i);
        for (int k = 0; k < s->run.n_in; k++) {
            if (!b->need[s->in[k]])
                continue;
            if (b->grad[s->in[k]] < 0)
                b->grad[s->in[k]] = new_slot(
                    b, z->value(&s->run.shape_in[k], z->ctx), end - i, end - i);
            reach(b, b->grad[s->in[k]], end - i);
        }
    }
}

static int lay_out(struct learn_steps *b, const struct learn_sizes *z,
                   struct error *err)
{
    size_t n = (size_t)b->g->n_values;

    b->slots = calloc(2 * n + (size_t)b->n + 1, sizeof(*b->slots));
    b->state = calloc((size_t)b->n + 1, sizeof(*b->state));
    if (!b->slots || !b->state)
        return no_memory(err);
    b->slot[b->g->input] =
        new_slot(b, z->value(&b->shapes[b->g->input], z->ctx), 0, 0);
    for (int i = 0; i < b->n; i++)
        lay_step(b, z, i);
    for (int i = 0; i < b->g->n_outputs; i++)
        reach(b, b->slot[b->g->outputs[i]], 2 * b->n);
    if (!b->rest)
        lay_gradients(b, z);
    return 0;
}

/* ---- the whole ---------------------------------------------------- */

static int prepare(struct learn_steps *b, const struct plan_options *opt,
                   struct error *err)
{
    size_t n = (size_t)b->g->n_values + 1;

    b->shapes = calloc(n, sizeof(*b->shapes));
    b->uses = calloc(n, sizeof(*b->uses));
    b->maker = calloc(n, sizeof(*b->maker));
    b->need = calloc(n, sizeof(*b->need));
    b->slot = calloc(n, sizeof(*b->slot));
    b->grad = calloc(n, sizeof(*b->grad));
    if (!b->shapes || !b->uses || !b->maker || !b->need || !b->slot || !b->grad)
        return no_memory(err);
    return graph_shapes(b->g, opt->n, opt->h, opt->w, b->shapes, err);
}

int learn_steps_make(struct learn_steps *b, struct learner *net,
                     const struct plan_options *opt,
                     const struct learn_sizes *sizes, struct error *err)
{
    b->net = net;
    b->g = net->graph;
    b->rest = opt->rest;
    if (prepare(b, opt, err) || make_steps(b, err))
        return -1;
    if (!b->rest) {
        find_needs(b);
        find_backward(b);
    }
    return lay_out(b, sizes, err);
}

bool learn_steps_any(const struct learn_steps *b)
{
    for (int i = 0; i < b->g->n_outputs; i++)
        if (b->need[b->g->outputs[i]])
            return true;
    return false;
}

void learn_steps_fini(struct learn_steps *b)
{
    free(b->shapes);
    free(b->uses);
    free(b->maker);
    free(b->need);
    free(b->slot);
    free(b->grad);
    free(b->state);
    free(b->slots);
}
