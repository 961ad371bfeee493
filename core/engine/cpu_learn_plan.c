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
    struct learn_steps s;
    size_t scratch[SCRATCH_COUNT]; /* bytes, then offsets */
    enum dtype type;               /* of convolutions' factors */
    bool separate;
    struct error *err;
};

static int no_memory(struct build *b)
{
    return error_set(b->err, ERR_NOMEM, "no memory for a plan");
}

static size_t value_bytes(const struct shape *s, void *ctx)
{
    (void)ctx;
    return shape_count(s) * sizeof(float);
}

static size_t state_bytes(const struct learn_step *s, void *ctx)
{
    (void)ctx;
    return s->kind == LEARN_OP ? op_run_state(&s->run) * sizeof(float) : 0;
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

static struct conv_run *passes_of(const struct build *b,
                                  const struct learn_step *s)
{
    return b->plan->pass[s - b->plan->steps];
}

static int make_pass(struct build *b, struct learn_step *s, enum conv_pass pass,
                     const struct conv_layouts *l)
{
    struct conv_run *passes = passes_of(b, s), *r = &passes[pass];
    bool weights = pass == CONV_BACK_WEIGHTS;
    bool bias =
        s->run.n_in > 2 && (pass == CONV_FORWARD ||
                            (weights && learn_steps_learns(&b->s, s->in[2])));
    const struct layout *in[2] = {pass == CONV_BACK_DATA ? l->y : l->x,
                                  weights ? l->y : l->w};

    r->kernel = kernel_conv_learn(
        b->plan->dn, pass, &s->node->op.u.conv, passes[CONV_FORWARD].kernel,
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
                     (s->backward && learn_steps_learns(&b->s, s->in[1]) &&
                      make_pass(b, s, CONV_BACK_WEIGHTS, &l)) ||
                     (s->backward && b->s.need[s->in[0]] &&
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
    return slot < 0
               ? NULL
               : (float *)(void *)(b->plan->arena + b->s.slots[slot].offset);
}

static float *at_scratch(const struct build *b, enum scratch which)
{
    return (float *)(void *)(b->plan->arena + b->scratch[which]);
}

/* Where a value's numbers are. */
static float *value_at(const struct build *b, int value)
{
    const struct learnable *l = &b->plan->net->learn;
    int t = b->plan->net->tensor[value];

    if (b->s.g->values[value].kind != VALUE_WEIGHT)
        return at_slot(b, b->s.slot[value]);
    if (t < 0)
        return b->s.g->values[value].data;
    return (l->tensors[t].statistic ? l->statistics : l->weights) +
           l->tensors[t].offset;
}

static float *gradient_at(const struct build *b, int value)
{
    if (b->s.g->values[value].kind != VALUE_WEIGHT)
        return b->s.need[value] ? at_slot(b, b->s.grad[value]) : NULL;
    return learn_steps_learns(&b->s, value)
               ? b->plan->net->learn.gradients +
                     b->plan->net->learn.tensors[b->plan->net->tensor[value]]
                         .offset
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
    r->out = at_slot(b, b->s.slot[s->out]);
    r->grad_out = s->backward ? at_slot(b, b->s.grad[s->out]) : NULL;
    r->state = at_slot(b, b->s.state[i]);
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
    struct conv_run *passes = passes_of(b, s), *r = &passes[pass];
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
            if (b->plan->pass[i][k].kernel &&
                bind_pass(b, s, (enum conv_pass)k))
                return -1;
    }
    return 0;
}

static int allocate(struct build *b)
{
    struct cpu_learn_plan *p = b->plan;
    size_t bytes = slots_place(b->s.slots, b->s.n_slots, b->separate),
           all = bytes;

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
    p->staging = tensor_alloc(shape_count(&b->s.shapes[b->s.g->input]));
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

    p->input = at_slot(b, b->s.slot[b->s.g->input]);
    p->base.input = p->staging;
    p->base.shape_in = b->s.shapes[b->s.g->input];
    p->base.n_outputs = b->s.g->n_outputs;
    for (int i = 0; i < b->s.g->n_outputs; i++) {
        int v = b->s.g->outputs[i];
        const struct shape *s = &b->s.shapes[v];

        p->base.shape_out[i] = *s;
        p->base.output[i] = at_slot(b, b->s.slot[v]);
        if (!p->rest && b->s.need[v])
            p->base.gradient[i] = at_slot(b, b->s.grad[v]);
        any = any || p->base.gradient[i];
        if (shape_count(s) != (size_t)s->d[0] * (size_t)s->d[1] &&
            bind_picture(b, i))
            return -1;
    }
    return any || p->rest
               ? 0
               : error_set(b->err, ERR_MODEL, "no weight is left that learns");
}

static int build_plan(struct build *b, const struct plan_options *opt)
{
    const struct learn_sizes sizes = {.value = value_bytes,
                                      .state = state_bytes};
    struct cpu_learn_plan *p = b->plan;
    int rc = learn_steps_make(&b->s, p->net, opt, &sizes, b->err);

    p->steps = b->s.at;
    p->n_steps = b->s.n;
    if (rc)
        return -1;
    p->dn = onednn_open(b->err);
    p->pass = calloc((size_t)p->n_steps + 1, sizeof(*p->pass));
    if (!p->pass)
        return no_memory(b);
    if (!p->dn || make_convs(b) || allocate(b) || bind_steps(b) ||
        bind_outputs(b))
        return -1;
    p->base.info.n_steps = p->n_steps;
    p->base.info.bytes_weights = p->net->learn.n_weights * 2 * sizeof(float);
    return 0;
}

struct plan *cpu_learn_plan_new(struct network *net,
                                const struct plan_options *opt,
                                struct error *err)
{
    const struct cpu_device *dev = (const struct cpu_device *)net->device;
    bool bf16 = opt->precision == PRECISION_BF16 ||
                (opt->precision == PRECISION_AUTO && onednn_has_amx());
    struct cpu_learn_plan *p = calloc(1, sizeof(*p));
    struct build b = {.plan = p,
                      .type = bf16 ? DTYPE_BF16 : DTYPE_F32,
                      .separate = opt->separate,
                      .err = err};
    int rc = -1;

    if (!p)
        return error_null(err, ERR_NOMEM, "no memory for a plan");
    p->base.backend = &cpu_learn_backend;
    p->base.info.precision = bf16 ? PRECISION_BF16 : PRECISION_F32;
    p->net = (struct learner *)net;
    p->rest = opt->rest;
    p->n_threads = dev->n_threads;
    omp_set_num_threads(p->n_threads); /* kernels are made for a number */
    if (!cpu_check_precision(bf16 ? PRECISION_BF16 : opt->precision, err))
        rc = build_plan(&b, opt);
    learn_steps_fini(&b.s);
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
    for (int i = 0; p->pass && i < p->n_steps; i++)
        for (int k = 0; k < 3; k++) {
            struct conv_run *r = &p->pass[i][k];

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
    free(p->pass);
    free(p->steps);
    free(p->arena);
    free(p->staging);
    onednn_close(p->dn);
    free(p);
}
