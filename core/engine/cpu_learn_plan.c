/* core/engine/cpu_learn_plan.c - a graph to the steps of a training run and
 * one block of memory. A step's forward pass has the time of its place, its
 * backward pass the mirrored one; a value lives from the step that makes it to
 * the last that reads it, in either direction, the loss by it from its first
 * reader's way back to its maker's. Running allocates nothing. */
#include "core/engine/cpu_learn.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum {
    REORDER_ALONE = 4 << 20, /* bytes */
    /* Without AVX-512 oneDNN's loss by the weights of a dense convolution
     * takes twice as long channels last as in its own layout, where rows are
     * at least so long: that is worth two reorders. */
    LONG_ROW = 24
};

/* Memory that one step uses at a time. */
enum scratch {
    SCRATCH_ONEDNN,
    SCRATCH_IN, /* two: what a kernel reads, as it wants it */
    SCRATCH_IN1,
    SCRATCH_OUT, /* what it writes, as it writes it */
    SCRATCH_ADD, /* the same as it is then added */
    SCRATCH_BIAS,
    SCRATCH_COUNT
};

struct build {
    struct cpu_learn_plan *plan;
    struct cpu_learn *net;
    const struct graph *g;
    struct shape *shapes; /* of every value, as the rest: */
    int *uses;            /* readers, outputs too */
    int *maker;           /* step that makes it, or -1 */
    bool *need;           /* the loss by it is wanted */
    int *slot, *grad;     /* of the value, of the loss by it; -1: none */
    int *state;           /* slot of a step's state, or -1 */
    struct slot *slots;
    int n_slots;
    size_t scratch[SCRATCH_COUNT]; /* bytes, then offsets */
    enum dtype type;               /* of convolutions' factors */
    bool separate;
    struct error *err;
};

static int no_memory(struct build *b)
{
    return error_set(b->err, ERR_NOMEM, "no memory for a plan");
}

/* ---- steps --------------------------------------------------------- */

static bool is_constant(const struct build *b, int value)
{
    return b->g->values[value].kind == VALUE_WEIGHT &&
           b->net->tensor[value] < 0;
}

static void count_uses(struct build *b)
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
static struct learn_step *sole_maker(struct build *b, int value)
{
    return b->uses[value] == 1 && b->maker[value] >= 0
               ? &b->plan->steps[b->maker[value]]
               : NULL;
}

/* A ReLU becomes part of what feeds it, a PReLU of its batch norm, whose sixth
 * input its slopes are. */
static bool fuse_activation(struct build *b, const struct node *n)
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
    b->maker[n->out] = (int)(s - b->plan->steps);
    return true;
}

/* The scale of a residual becomes part of its addition. */
static void fuse_scales(struct build *b, struct learn_step *s)
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

static int add_step(struct build *b, int at)
{
    const struct node *n = &b->g->nodes[at];
    struct learn_step *s = &b->plan->steps[b->plan->n_steps];

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
    s->run.rest = b->plan->rest;
    s->run.freeze_norm =
        b->net->opt.freeze_norm || at < b->net->opt.freeze_until;
    s->run.random = &b->net->learn.random;
    if ((s->kind == LEARN_CONV &&
         (n->op.u.conv.residual || n->op.u.conv.act != ACT_NONE)) ||
        (s->kind == LEARN_GEMM && n->op.u.gemm.act != ACT_NONE) ||
        (s->kind == LEARN_OP && !op_run_known(&s->run)))
        return error_set(b->err, ERR_MODEL,
                         "%s in this form is not for training",
                         op_info(n->op.type)->name);
    if (n->op.type == OP_ADD && op_run_fuses(&s->run))
        fuse_scales(b, s);
    b->maker[n->out] = b->plan->n_steps++;
    return 0;
}

static void drop_gone(struct build *b)
{
    struct cpu_learn_plan *p = b->plan;
    int n = 0;

    for (int i = 0; i < p->n_steps; i++)
        if (!p->steps[i].gone)
            p->steps[n++] = p->steps[i];
    p->n_steps = n;
    for (int i = 0; i < b->g->n_values; i++)
        b->maker[i] = -1;
    for (int i = 0; i < n; i++)
        b->maker[p->steps[i].out] = i;
}

static int make_steps(struct build *b)
{
    b->plan->steps = calloc((size_t)b->g->n_nodes + 1, sizeof(*b->plan->steps));
    if (!b->plan->steps)
        return no_memory(b);
    count_uses(b);
    for (int i = 0; i < b->g->n_values; i++)
        b->maker[i] = b->slot[i] = b->grad[i] = -1;
    for (int i = 0; i < b->g->n_nodes; i++) {
        const struct node *n = &b->g->nodes[i];

        if (b->uses[n->out] && !fuse_activation(b, n) && add_step(b, i))
            return error_context(b->err, "node '%.80s'", n->name);
    }
    drop_gone(b);
    return 0;
}

/* ---- what goes backward ---------------------------------------------- */

static bool learns(const struct build *b, int value)
{
    int t = b->net->tensor[value];

    return b->g->values[value].kind == VALUE_WEIGHT && t >= 0 &&
           !b->net->learn.tensors[t].statistic;
}

static void find_needs(struct build *b)
{
    for (int i = 0; i < b->plan->n_steps; i++) {
        const struct learn_step *s = &b->plan->steps[i];

        for (int k = 0; k < s->run.n_in; k++)
            b->need[s->out] |= b->need[s->in[k]] || learns(b, s->in[k]);
    }
}

/* Which steps have a loss by their result, and who of its readers writes it
 * first: the others add. */
static void find_backward(struct build *b)
{
    struct cpu_learn_plan *p = b->plan;

    /* There will be these, and they are written by the caller. */
    for (int i = 0; i < b->g->n_outputs; i++)
        b->grad[b->g->outputs[i]] = -2;
    for (int i = p->n_steps - 1; i >= 0; i--) {
        struct learn_step *s = &p->steps[i];

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

static int new_slot(struct build *b, size_t n_floats, int first, int last)
{
    b->slots[b->n_slots] = (struct slot){
        .bytes = n_floats * sizeof(float), .first = first, .last = last};
    return b->n_slots++;
}

static void reach(struct build *b, int slot, int time)
{
    struct slot *s = slot >= 0 ? &b->slots[slot] : NULL;

    if (s && time < s->first)
        s->first = time;
    if (s && time > s->last)
        s->last = time;
}

/* Does backward of this step read its input k? */
static bool keeps_input(const struct build *b, const struct learn_step *s)
{
    if (s->kind != LEARN_OP)
        return learns(b, s->in[1]);
    return op_info(s->node->op.type)->keep & OP_KEEP_INPUT;
}

static bool keeps_output(const struct learn_step *s)
{
    if (s->run.relu && s->node->op.type == OP_ADD)
        return true;
    return s->kind == LEARN_OP &&
           op_info(s->node->op.type)->keep & OP_KEEP_OUTPUT;
}

static void lay_step(struct build *b, int i)
{
    struct learn_step *s = &b->plan->steps[i];
    int back = 2 * b->plan->n_steps - 1 - i;
    size_t state = s->kind == LEARN_OP ? op_run_state(&s->run) : 0;

    b->slot[s->out] = new_slot(b, shape_count(&s->run.shape_out), i, i);
    b->state[i] = state ? new_slot(b, state, i, s->backward ? back : i) : -1;
    if (s->backward && keeps_output(s))
        reach(b, b->slot[s->out], back);
    for (int k = 0; k < s->run.n_in; k++) {
        reach(b, b->slot[s->in[k]], i);
        if (s->backward && keeps_input(b, s))
            reach(b, b->slot[s->in[k]], back);
    }
}

static void lay_gradients(struct build *b)
{
    struct cpu_learn_plan *p = b->plan;
    int end = 2 * p->n_steps - 1;

    for (int i = 0; i < b->g->n_outputs; i++) {
        int out = b->g->outputs[i];

        if (b->need[out] && b->grad[out] < 0)
            b->grad[out] = new_slot(b, shape_count(&b->shapes[out]), p->n_steps,
                                    p->n_steps);
    }
    for (int i = p->n_steps - 1; i >= 0; i--) {
        struct learn_step *s = &p->steps[i];

        if (!s->backward)
            continue;
        if (b->grad[s->out] < 0)
            b->grad[s->out] =
                new_slot(b, shape_count(&s->run.shape_out), end - i, end - i);
        reach(b, b->grad[s->out], end - i);
        for (int k = 0; k < s->run.n_in; k++) {
            if (!b->need[s->in[k]])
                continue;
            if (b->grad[s->in[k]] < 0)
                b->grad[s->in[k]] = new_slot(
                    b, shape_count(&s->run.shape_in[k]), end - i, end - i);
            reach(b, b->grad[s->in[k]], end - i);
        }
    }
}

static int lay_out(struct build *b)
{
    struct cpu_learn_plan *p = b->plan;
    size_t n = (size_t)b->g->n_values;

    b->slots = calloc(2 * n + (size_t)p->n_steps + 1, sizeof(*b->slots));
    b->state = calloc((size_t)p->n_steps + 1, sizeof(*b->state));
    if (!b->slots || !b->state)
        return no_memory(b);
    b->slot[b->g->input] =
        new_slot(b, shape_count(&b->shapes[b->g->input]), 0, 0);
    for (int i = 0; i < p->n_steps; i++)
        lay_step(b, i);
    for (int i = 0; i < b->g->n_outputs; i++)
        reach(b, b->slot[b->g->outputs[i]], 2 * p->n_steps);
    if (!p->rest)
        lay_gradients(b);
    return 0;
}

/* ---- convolutions ---------------------------------------------------- */

static void want_scratch(struct build *b, enum scratch which, size_t bytes)
{
    if (bytes > b->scratch[which])
        b->scratch[which] = bytes;
}

/* The kernel's argument lies otherwise than its value: a reorder between. */
static int fit(struct build *b, struct conv_arg *a, const struct kernel *k,
               enum kernel_arg arg, const struct layout *native, bool result,
               enum scratch which)
{
    const struct layout *own = kernel_layout(k, arg);

    if (layout_equal(own, native))
        return 0;
    /* A small one is done before a second thread has woken up. */
    if (layout_bytes(own) < REORDER_ALONE)
        omp_set_num_threads(1);
    a->reorder = result ? kernel_reorder(b->plan->dn, own, native, b->err)
                        : kernel_reorder(b->plan->dn, native, own, b->err);
    omp_set_num_threads(b->plan->n_threads);
    if (!a->reorder)
        return -1;
    want_scratch(b, which, layout_bytes(own));
    want_scratch(b, SCRATCH_ONEDNN, kernel_scratch_bytes(a->reorder));
    return 0;
}

static const struct {
    enum kernel_arg in[2], out;
} conv_args[] = {
    [CONV_FORWARD] = {{KERNEL_SRC, KERNEL_WEIGHTS}, KERNEL_DST},
    [CONV_BACK_DATA] = {{KERNEL_DIFF_DST, KERNEL_WEIGHTS}, KERNEL_DIFF_SRC},
    [CONV_BACK_WEIGHTS] = {{KERNEL_SRC, KERNEL_DIFF_DST}, KERNEL_DIFF_WEIGHTS},
};

/* Layouts of picture, result, weights. */
struct conv_layouts {
    struct layout *x, *y, *w;   /* as values lie */
    struct layout *x_in, *y_in; /* as factors of a product */
    struct layout *x_by, *y_by; /* and where the weights' loss is the result */
};

static bool own_layout_pays(const struct learn_step *s)
{
    const struct op_conv *c = &s->node->op.u.conv;

    return c->group == 1 && c->kernel[0] * c->kernel[1] > 1 &&
           s->run.shape_in[0].d[3] >= LONG_ROW;
}

static int make_pass(struct build *b, struct learn_step *s, enum conv_pass pass,
                     const struct conv_layouts *l)
{
    struct conv_run *r = &s->pass[pass];
    bool weights = pass == CONV_BACK_WEIGHTS;
    bool bias = s->run.n_in > 2 &&
                (pass == CONV_FORWARD || (weights && learns(b, s->in[2])));
    const struct layout *in[2] = {pass == CONV_BACK_DATA ? l->y : l->x,
                                  weights ? l->y : l->w};

    r->kernel = kernel_conv_learn(
        b->plan->dn, pass, &s->node->op.u.conv, s->pass[CONV_FORWARD].kernel,
        weights                  ? l->x_by
        : pass == CONV_BACK_DATA ? l->x
                                 : l->x_in,
        &s->run.shape_in[1], weights ? DTYPE_F32 : b->type, bias,
        weights                ? l->y_by
        : pass == CONV_FORWARD ? l->y
                               : l->y_in,
        b->err);
    if (!r->kernel)
        return -1;
    want_scratch(b, SCRATCH_ONEDNN, kernel_scratch_bytes(r->kernel));
    for (int i = 0; i < 2; i++)
        if (fit(b, &r->in[i], r->kernel, conv_args[pass].in[i], in[i], false,
                SCRATCH_IN + (enum scratch)i))
            return -1;
    if (pass != CONV_FORWARD)
        want_scratch(b, SCRATCH_ADD,
                     sizeof(float) *
                         shape_count(&s->run.shape_in[weights ? 1 : 0]));
    if (weights && bias) {
        r->n_bias = (size_t)s->run.shape_in[1].d[0];
        want_scratch(b, SCRATCH_BIAS, r->n_bias * sizeof(float));
    }
    return fit(b, &r->out, r->kernel, conv_args[pass].out,
               weights                  ? l->w
               : pass == CONV_BACK_DATA ? l->x
                                        : l->y,
               true, SCRATCH_OUT);
}

static int make_conv(struct build *b, struct learn_step *s)
{
    const struct op_run *r = &s->run;
    struct conv_layouts l = {
        .x = layout_last(&r->shape_in[0], DTYPE_F32),
        .y = layout_last(&r->shape_out, DTYPE_F32),
        .w = layout_conv_weights(&r->shape_in[1], s->node->op.u.conv.group),
        .x_in = layout_last(&r->shape_in[0], b->type),
        .y_in = layout_last(&r->shape_out, b->type)};
    bool any = own_layout_pays(s);
    int rc = -1;

    l.x_by = any ? layout_any(&r->shape_in[0], b->type) : layout_dup(l.x_in);
    l.y_by = any ? layout_any(&r->shape_out, b->type) : layout_dup(l.y_in);
    if (!l.x || !l.y || !l.w || !l.x_in || !l.y_in || !l.x_by || !l.y_by)
        no_memory(b);
    else
        rc = make_pass(b, s, CONV_FORWARD, &l) ||
                     (s->backward && learns(b, s->in[1]) &&
                      make_pass(b, s, CONV_BACK_WEIGHTS, &l)) ||
                     (s->backward && b->need[s->in[0]] &&
                      make_pass(b, s, CONV_BACK_DATA, &l))
                 ? -1
                 : 0;
    layout_free(l.x);
    layout_free(l.y);
    layout_free(l.w);
    layout_free(l.x_in);
    layout_free(l.y_in);
    layout_free(l.x_by);
    layout_free(l.y_by);
    return rc;
}

static int make_convs(struct build *b)
{
    for (int i = 0; i < b->plan->n_steps; i++) {
        struct learn_step *s = &b->plan->steps[i];

        if (s->kind == LEARN_CONV && make_conv(b, s))
            return error_context(b->err, "node '%.80s'", s->node->name);
    }
    return 0;
}

/* ---- addresses ------------------------------------------------------- */

static float *at_slot(const struct build *b, int slot)
{
    return slot < 0 ? NULL
                    : (float *)(void *)(b->plan->arena + b->slots[slot].offset);
}

static float *at_scratch(const struct build *b, enum scratch which)
{
    return (float *)(void *)(b->plan->arena + b->scratch[which]);
}

/* Where a value's numbers are. */
static float *value_at(const struct build *b, int value)
{
    const struct learnable *l = &b->net->learn;
    int t = b->net->tensor[value];

    if (b->g->values[value].kind != VALUE_WEIGHT)
        return at_slot(b, b->slot[value]);
    if (t < 0)
        return b->g->values[value].data;
    return (l->tensors[t].statistic ? l->statistics : l->weights) +
           l->tensors[t].offset;
}

static float *gradient_at(const struct build *b, int value)
{
    if (b->g->values[value].kind != VALUE_WEIGHT)
        return b->need[value] ? at_slot(b, b->grad[value]) : NULL;
    return learns(b, value)
               ? b->net->learn.gradients +
                     b->net->learn.tensors[b->net->tensor[value]].offset
               : NULL;
}

static void bind_run(struct build *b, int i)
{
    struct learn_step *s = &b->plan->steps[i];
    struct op_run *r = &s->run;

    for (int k = 0; k < r->n_in; k++) {
        r->in[k] = value_at(b, s->in[k]);
        r->grad_in[k] = s->backward ? gradient_at(b, s->in[k]) : NULL;
    }
    for (int k = 0; k < 2; k++)
        r->scale[k] = s->scale[k] >= 0 ? value_at(b, s->scale[k]) : NULL;
    r->out = at_slot(b, b->slot[s->out]);
    r->grad_out = s->backward ? at_slot(b, b->grad[s->out]) : NULL;
    r->state = at_slot(b, b->state[i]);
    if (s->node->op.type == OP_BATCH_NORM && !r->rest && !r->freeze_norm) {
        r->mean = value_at(b, s->in[3]);
        r->var = value_at(b, s->in[4]);
    }
}

static int bind_scratch(struct build *b, struct kernel *k)
{
    return kernel_scratch_bytes(k)
               ? kernel_bind(k, KERNEL_SCRATCH, at_scratch(b, SCRATCH_ONEDNN),
                             b->err)
               : 0;
}

/* native: where the value lies; a result that is reordered goes there. */
static int bind_arg(struct build *b, struct conv_arg *a, struct kernel *k,
                    enum kernel_arg arg, float *native, bool result,
                    enum scratch which)
{
    float *own = a->reorder ? at_scratch(b, which) : native;

    a->memory = native;
    if (kernel_bind(k, arg, own, b->err))
        return -1;
    if (!a->reorder)
        return 0;
    return kernel_bind(a->reorder, KERNEL_SRC, result ? own : native, b->err) ||
                   kernel_bind(a->reorder, KERNEL_DST, result ? native : own,
                               b->err) ||
                   bind_scratch(b, a->reorder)
               ? -1
               : 0;
}

static int bind_pass(struct build *b, struct learn_step *s, enum conv_pass pass)
{
    struct conv_run *r = &s->pass[pass];
    const struct op_run *run = &s->run;
    /* oneDNN takes void *, and only reads inputs. */
    float *x = value_at(b, s->in[0]), *w = value_at(b, s->in[1]);
    float *dy = (float *)(uintptr_t)run->grad_out, *out = run->out;
    float *in[2] = {pass == CONV_BACK_DATA ? dy : x,
                    pass == CONV_BACK_WEIGHTS ? dy : w};

    if (pass == CONV_BACK_DATA) {
        out = run->fresh[0] ? run->grad_in[0] : at_scratch(b, SCRATCH_ADD);
        r->add = run->fresh[0] ? NULL : run->grad_in[0];
        r->n_add = shape_count(&run->shape_in[0]);
    } else if (pass == CONV_BACK_WEIGHTS) {
        out = at_scratch(b, SCRATCH_ADD);
        r->add = run->grad_in[1];
        r->n_add = shape_count(&run->shape_in[1]);
    }
    for (int i = 0; i < 2; i++)
        if (bind_arg(b, &r->in[i], r->kernel, conv_args[pass].in[i], in[i],
                     false, SCRATCH_IN + (enum scratch)i))
            return -1;
    if (bind_arg(b, &r->out, r->kernel, conv_args[pass].out, out, true,
                 SCRATCH_OUT) ||
        bind_scratch(b, r->kernel))
        return -1;
    if (pass == CONV_FORWARD && run->n_in > 2)
        return kernel_bind(r->kernel, KERNEL_BIAS, value_at(b, s->in[2]),
                           b->err);
    if (!r->n_bias)
        return 0;
    r->bias = at_scratch(b, SCRATCH_BIAS);
    r->add_bias = run->grad_in[2];
    return kernel_bind(r->kernel, KERNEL_DIFF_BIAS, r->bias, b->err);
}

static int bind_steps(struct build *b)
{
    for (int i = 0; i < b->plan->n_steps; i++) {
        struct learn_step *s = &b->plan->steps[i];

        bind_run(b, i);
        for (int k = 0; k < 3; k++)
            if (s->pass[k].kernel && bind_pass(b, s, (enum conv_pass)k))
                return -1;
    }
    return 0;
}

static int allocate(struct build *b)
{
    struct cpu_learn_plan *p = b->plan;
    size_t bytes = slots_place(b->slots, b->n_slots, b->separate), all = bytes;

    if (!bytes)
        return no_memory(b);
    for (int i = 0; i < SCRATCH_COUNT; i++) {
        size_t own =
            (b->scratch[i] + SLOTS_ALIGN - 1) / SLOTS_ALIGN * SLOTS_ALIGN;

        b->scratch[i] = all;
        all += own;
    }
    if (all > PLAN_LEARN_MAX_BYTES)
        return error_set(b->err, ERR_MODEL,
                         "training it needs %zu MiB, %zu are allowed",
                         all >> 20, PLAN_LEARN_MAX_BYTES >> 20);
    p->arena = (char *)tensor_alloc(all / sizeof(float) + 1);
    p->staging = tensor_alloc(shape_count(&b->shapes[b->g->input]));
    if (!p->arena || !p->staging)
        return error_set(b->err, ERR_NOMEM, "no memory for %zu MiB of a plan",
                         all >> 20);
    for (size_t i = 0; b->separate && i < bytes / sizeof(float); i++)
        ((float *)(void *)p->arena)[i] = NAN;
    p->base.info.bytes_activations = bytes;
    p->base.info.bytes_scratch = all - bytes;
    return 0;
}

/* ---- the whole ----------------------------------------------------- */

/* A picture as an output: handed over [n,c,h,w], from memory of its own. */
static int bind_picture(struct build *b, int i)
{
    struct plan *p = &b->plan->base;
    struct learn_picture *picture = &b->plan->pictures[i];
    size_t n = shape_count(&p->shape_out[i]);

    picture->out = p->output[i];
    picture->gradient = p->gradient[i];
    p->output[i] = tensor_alloc(n);
    if (picture->gradient)
        p->gradient[i] = tensor_alloc(n);
    return p->output[i] && (p->gradient[i] || !picture->gradient)
               ? 0
               : no_memory(b);
}

static int bind_outputs(struct build *b)
{
    struct cpu_learn_plan *p = b->plan;
    bool any = false;

    p->input = at_slot(b, b->slot[b->g->input]);
    p->base.input = p->staging;
    p->base.shape_in = b->shapes[b->g->input];
    p->base.n_outputs = b->g->n_outputs;
    for (int i = 0; i < b->g->n_outputs; i++) {
        int v = b->g->outputs[i];
        const struct shape *s = &b->shapes[v];

        p->base.shape_out[i] = *s;
        p->base.output[i] = at_slot(b, b->slot[v]);
        if (!p->rest && b->need[v])
            p->base.gradient[i] = at_slot(b, b->grad[v]);
        any = any || p->base.gradient[i];
        if (shape_count(s) != (size_t)s->d[0] * (size_t)s->d[1] &&
            bind_picture(b, i))
            return -1;
    }
    return any || p->rest
               ? 0
               : error_set(b->err, ERR_MODEL, "no weight is left that learns");
}

static int build_plan(struct build *b)
{
    if (make_steps(b))
        return -1;
    if (!b->plan->rest) {
        find_needs(b);
        find_backward(b);
    }
    if (lay_out(b) || make_convs(b) || allocate(b) || bind_steps(b) ||
        bind_outputs(b))
        return -1;
    b->plan->base.info.n_steps = b->plan->n_steps;
    b->plan->base.info.bytes_weights =
        b->net->learn.n_weights * 2 * sizeof(float);
    return 0;
}

static int prepare(struct build *b, const struct plan_options *opt)
{
    size_t n = (size_t)b->g->n_values + 1;

    b->shapes = calloc(n, sizeof(*b->shapes));
    b->uses = calloc(n, sizeof(*b->uses));
    b->maker = calloc(n, sizeof(*b->maker));
    b->need = calloc(n, sizeof(*b->need));
    b->slot = calloc(n, sizeof(*b->slot));
    b->grad = calloc(n, sizeof(*b->grad));
    if (!b->shapes || !b->uses || !b->maker || !b->need || !b->slot || !b->grad)
        return no_memory(b);
    b->plan->dn = onednn_open(b->err);
    return b->plan->dn
               ? graph_shapes(b->g, opt->n, opt->h, opt->w, b->shapes, b->err)
               : -1;
}

struct plan *cpu_learn_plan_new(struct network *net,
                                const struct plan_options *opt,
                                struct error *err)
{
    struct cpu_learn *l = (struct cpu_learn *)net;
    const struct cpu_device *dev = (const struct cpu_device *)net->device;
    bool bf16 = opt->precision == PRECISION_BF16 ||
                (opt->precision == PRECISION_AUTO && onednn_has_amx());
    struct cpu_learn_plan *p = calloc(1, sizeof(*p));
    struct build b = {.plan = p,
                      .net = l,
                      .g = l->graph,
                      .type = bf16 ? DTYPE_BF16 : DTYPE_F32,
                      .separate = opt->separate,
                      .err = err};
    int rc = -1;

    if (!p)
        return error_null(err, ERR_NOMEM, "no memory for a plan");
    p->base.backend = &cpu_learn_backend;
    p->base.info.precision = bf16 ? PRECISION_BF16 : PRECISION_F32;
    p->net = l;
    p->rest = opt->rest;
    p->n_threads = dev->n_threads;
    omp_set_num_threads(p->n_threads); /* kernels are made for a number */
    if (!cpu_check_precision(bf16 ? PRECISION_BF16 : opt->precision, err) &&
        !prepare(&b, opt))
        rc = build_plan(&b);
    free(b.shapes);
    free(b.uses);
    free(b.maker);
    free(b.need);
    free(b.slot);
    free(b.grad);
    free(b.state);
    free(b.slots);
    if (!rc)
        return &p->base;
    cpu_learn_plan_free(&p->base);
    return NULL;
}

void cpu_learn_plan_free(struct plan *plan)
{
    struct cpu_learn_plan *p = (struct cpu_learn_plan *)plan;

    if (!p)
        return;
    for (int i = 0; i < p->n_steps; i++)
        for (int k = 0; k < 3; k++) {
            struct conv_run *r = &p->steps[i].pass[k];

            kernel_free(r->kernel);
            kernel_free(r->in[0].reorder);
            kernel_free(r->in[1].reorder);
            kernel_free(r->out.reorder);
        }
    for (int i = 0; i < PLAN_MAX_OUTPUTS; i++) {
        if (!p->pictures[i].out)
            continue;
        free(p->base.output[i]);
        free(p->pictures[i].gradient ? p->base.gradient[i] : NULL);
    }
    free(p->steps);
    free(p->arena);
    free(p->staging);
    onednn_close(p->dn);
    free(p);
}
