/* gpu/learn_plan.c - steps that learn to work on a card: where every value and
 * every loss by a value lies, what a convolution's three passes are. The
 * counterpart of core/engine/cpu_learn_plan.c; running is learn_run.c's. */
#include "gpu/learn.h"

#include <stdlib.h>
#include <string.h>

#include "gpu/gpu_priv.h"

struct make {
    struct gpu_learn_plan *plan;
    struct learn_steps s;
    bool *written;    /* of numbers: a backward step before has written there */
    size_t bytes_sum; /* that cuDNN writes where it is then added */
    bool separate;
    struct error *err;
};

static int no_memory(struct make *m)
{
    return error_set(m->err, ERR_NOMEM, "no memory for a plan");
}

/* ---- sizes ------------------------------------------------------------------
 */

static size_t value_bytes(const struct shape *s, void *ctx)
{
    const struct make *m = ctx;
    struct nhwc a = gpu_dims(s);

    return (size_t)arith_pixels(&a) * (size_t)a.pitch *
           (size_t)arith_bytes((int)m->plan->type);
}

/* What op_run knows, in the card's words; no addresses. */
static void describe(const struct graph *g, const struct learn_step *s,
                     struct learn_op *r)
{
    const struct op_run *o = &s->run;

    r->op = o->op;
    r->n_in = o->n_in;
    for (int k = 0; k < o->n_in; k++) {
        r->fresh[k] = o->fresh[k];
        if (g->values[s->in[k]].kind != VALUE_WEIGHT)
            r->in[k] = r->grad_in[k] = gpu_dims(&o->shape_in[k]);
        else if (shape_count(&o->shape_in[k]) == 1)
            r->one[k] = true;
    }
    r->out = r->grad_out = gpu_dims(&o->shape_out);
    r->rest = o->rest;
    r->freeze_norm = o->freeze_norm;
    r->relu = o->relu;
    r->scale[0] = r->scale[1] = 1;
}

static size_t state_bytes(const struct learn_step *s, void *ctx)
{
    const struct make *m = ctx;
    struct learn_op *r;
    size_t bytes = 0;

    if (s->kind != LEARN_OP)
        return 0;
    r = calloc(1, sizeof(*r)); /* too large for a stack */
    if (r) {
        describe(m->s.g, s, r);
        bytes = learn_op_state(r);
    }
    free(r);
    return bytes;
}

/* Kernels count in 32 bits. */
static int check_sizes(struct make *m)
{
    for (int i = 0; i < m->s.g->n_values; i++) {
        struct nhwc a;
        uint64_t n;

        if (m->s.g->values[i].kind == VALUE_WEIGHT || !m->s.uses[i])
            continue;
        a = gpu_dims(&m->s.shapes[i]);
        n = (uint64_t)a.n * (uint64_t)a.h * (uint64_t)a.w;
        if (n > INT32_MAX || n * (uint64_t)a.pitch > INT32_MAX)
            return error_set(m->err, ERR_MODEL,
                             "a value of more numbers than the card's kernels "
                             "count: take a smaller batch");
    }
    return 0;
}

/* ---- addresses --------------------------------------------------------------
 */

static struct nhwc at_slot(const struct make *m, const struct shape *s,
                           int slot)
{
    struct nhwc a = gpu_dims(s);

    a.p = slot < 0 ? NULL : m->plan->arena + m->s.slots[slot].offset;
    return a;
}

static struct nhwc value_at(const struct make *m, int value)
{
    return at_slot(m, &m->s.shapes[value], m->s.slot[value]);
}

/* .p NULL: it is not wanted, or not there. */
static struct nhwc gradient_at(const struct make *m, int value)
{
    return at_slot(m, &m->s.shapes[value],
                   m->s.need[value] ? m->s.grad[value] : -1);
}

/* Where the loss by weights goes, and whether it is added to what another step
 * has put there. */
static float *fresh_at(struct make *m, const struct learn_numbers *a, bool *add)
{
    struct gpu_learn *l = m->plan->net;
    size_t i = (size_t)(a - l->numbers);

    *add = m->written[i];
    m->written[i] = true;
    return l->fresh + a->at;
}

/* ---- operators -------------------------------------------------------------
 */

static int bind_input(struct make *m, const struct learn_step *s,
                      struct learn_op *r, int k)
{
    struct gpu_learn *l = m->plan->net;
    const struct learn_numbers *a;
    int v = s->in[k];
    bool add;

    if (m->s.g->values[v].kind != VALUE_WEIGHT) {
        r->in[k] = value_at(m, v);
        r->grad_in[k] = gradient_at(m, v);
        if (!s->backward)
            r->grad_in[k].p = NULL;
        return 0;
    }
    a = gpu_learn_numbers(l, v, LEARN_FORM_VECTOR, r->in[0].c, m->err);
    if (!a)
        return -1;
    r->vector[k] = l->all + a->at;
    if (s->backward && learn_steps_learns(&m->s, v)) {
        r->grad_vector[k] = fresh_at(m, a, &add);
        r->fresh[k] = !add;
    }
    return 0;
}

static int make_op(struct make *m, int i)
{
    struct gpu_learn_plan *p = m->plan;
    const struct learn_step *s = &p->steps[i];
    struct learn_op *r = calloc(1, sizeof(*r));

    p->op[i] = r;
    if (!r)
        return no_memory(m);
    describe(m->s.g, s, r);
    for (int k = 0; k < r->n_in; k++)
        if (bind_input(m, s, r, k))
            return -1;
    for (int k = 0; k < 2; k++)
        if (s->scale[k] >= 0)
            r->scale[k] = m->s.g->values[s->scale[k]].data[0];
    r->out = value_at(m, s->out);
    r->grad_out = gradient_at(m, s->out);
    r->state =
        m->s.state[i] < 0 ? NULL : p->arena + m->s.slots[m->s.state[i]].offset;
    if (s->node->op.type == OP_BATCH_NORM && !r->rest && !r->freeze_norm) {
        /* They are p->net's, which moves them. */
        r->mean = p->net->all + (r->vector[3] - p->net->all);
        r->var = p->net->all + (r->vector[4] - p->net->all);
    }
    if (s->node->op.type == OP_DROPOUT) {
        r->random = p->net->random;
        r->random_at = p->n_random;
        if (!p->rest)
            p->n_random += shape_count(&s->run.shape_out);
    }
    if (!learn_op_known(r))
        return error_set(m->err, ERR_MODEL,
                         "%s in this form is not for training on a card",
                         op_info(s->node->op.type)->name);
    return 0;
}

/* ---- convolutions -----------------------------------------------------------
 */

static void windows(struct dnn_shape *d, const struct op *op)
{
    for (int i = 0; i < 2; i++) {
        bool conv = op->type == OP_CONV;

        d->kernel[i] = conv ? op->u.conv.kernel[i] : 1;
        d->stride[i] = conv ? op->u.conv.stride[i] : 1;
        d->dilation[i] = conv ? op->u.conv.dilation[i] : 1;
        d->pad[i] = conv ? op->u.conv.pad[i] : 0;
        d->pad[2 + i] = conv ? op->u.conv.pad[2 + i] : 0;
    }
}

static void shape_of_conv(const struct gpu_learn_plan *p, struct learn_conv *c,
                          const struct op *op, int pass)
{
    struct dnn_shape *d = &c->shape[pass];

    windows(d, op);
    d->pass = pass == LEARN_BACK_DATA      ? DNN_BACK_DATA
              : pass == LEARN_BACK_WEIGHTS ? DNN_BACK_WEIGHTS
                                           : DNN_FORWARD;
    d->n = c->x.n;
    d->c = c->x.pitch;
    d->h = c->x.h;
    d->w = c->x.w;
    d->k = c->y.pitch;
    d->x_pitch = c->x.pitch;
    d->y_pitch = c->y.pitch;
    d->type = p->type;
    d->tf32 = p->tf32;
}

/* Our own kernels, which depthwise and grouped ones always, and others where
 * cuDNN has nothing, run through. */
static void own_kernels(const struct gpu_learn_plan *p, struct learn_conv *c,
                        const struct op *op)
{
    const struct gpu_learn *l = p->net;
    const struct dnn_shape *d = &c->shape[LEARN_FORWARD];
    bool deep = c->form == LEARN_FORM_DEPTHWISE;
    const char *typed =
        p->type == GTYPE_F32 || deep ? (const char *)l->all : l->typed[p->type];
    size_t each = deep ? sizeof(float) : (size_t)arith_bytes((int)p->type);

    c->own = (struct arith_conv){
        .x = c->x,
        .y = c->y,
        .w = typed + c->w->at * each,
        .bias = c->bias ? (const void *)(typed + c->bias->at * each) : l->zeros,
        .group = op->type == OP_CONV ? op->u.conv.group : 1,
        .act = ARITH_NONE};
    c->back = (struct arith_conv_back){
        .w = c->own.w, .dw = c->dw, .group = c->own.group};
    for (int i = 0; i < 2; i++) {
        c->own.kernel[i] = c->back.kernel[i] = d->kernel[i];
        c->own.stride[i] = c->back.stride[i] = d->stride[i];
        c->own.dilation[i] = c->back.dilation[i] = d->dilation[i];
        c->own.pad[i] = c->back.pad[i] = d->pad[i];
    }
}

static void want(size_t *most, size_t bytes)
{
    if (bytes > *most)
        *most = bytes;
}

/* What a pass of cuDNN's reads and writes. */
static void memory_of_conv(const struct make *m, struct learn_conv *c)
{
    struct dnn_memory *to = c->memory;

    to[LEARN_FORWARD] = (struct dnn_memory){
        .x = c->x.p, .w = c->own.w, .bias = c->own.bias, .y = c->y.p};
    to[LEARN_BACK_DATA] =
        (struct dnn_memory){.x = c->dy.p,
                            .w = c->own.w,
                            .y = c->add_data ? m->plan->sums : c->dx.p};
    to[LEARN_BACK_WEIGHTS] = (struct dnn_memory){
        .x = c->x.p,
        .w = c->dy.p,
        .y = c->add_weights ? (void *)m->plan->sums : (void *)c->dw};
}

static int find_weights(struct make *m, const struct learn_step *s,
                        struct learn_conv *c)
{
    struct gpu_learn *l = m->plan->net;
    const struct shape *w = &s->run.shape_in[1];

    c->form = gpu_learn_form(s->node, w);
    c->w = gpu_learn_numbers(l, s->in[1], c->form, 0, m->err);
    if (c->w && s->run.n_in > 2) {
        c->bias =
            gpu_learn_numbers(l, s->in[2], LEARN_FORM_VECTOR, w->d[0], m->err);
        return c->bias ? 0 : -1;
    }
    return c->w ? 0 : -1;
}

/* The most of a block's scratch that this convolution wants. */
static void want_sums(struct make *m, struct learn_conv *c)
{
    struct arith_conv_back back = c->back;
    struct arith_columns columns = {.y = c->dy};

    back.x = c->x;
    back.y = c->dy;
    if (c->add_data)
        want(&m->bytes_sum, (size_t)arith_numbers(&c->dx) *
                                (size_t)arith_bytes((int)m->plan->type));
    if (c->add_weights)
        want(&m->bytes_sum, c->w->count * sizeof(float));
    if (c->wanted[LEARN_BACK_WEIGHTS] && c->form == LEARN_FORM_DEPTHWISE)
        want(&m->bytes_sum, arith_depthwise_scratch(&back));
    if (c->wants_bias)
        want(&m->bytes_sum, arith_columns_scratch(&columns));
}

static int make_conv(struct make *m, int i)
{
    struct gpu_learn_plan *p = m->plan;
    const struct learn_step *s = &p->steps[i];
    struct learn_conv *c = calloc(1, sizeof(*c));

    p->conv[i] = c;
    if (!c)
        return no_memory(m);
    if (find_weights(m, s, c))
        return -1;
    c->x = value_at(m, s->in[0]);
    c->y = value_at(m, s->out);
    c->dx = gradient_at(m, s->in[0]);
    c->dy = gradient_at(m, s->out);
    c->wanted[LEARN_FORWARD] = true;
    c->wanted[LEARN_BACK_DATA] = s->backward && c->dx.p;
    c->wanted[LEARN_BACK_WEIGHTS] =
        s->backward && learn_steps_learns(&m->s, s->in[1]);
    c->wants_bias =
        s->backward && c->bias && learn_steps_learns(&m->s, s->in[2]);
    c->add_data = c->wanted[LEARN_BACK_DATA] && !s->run.fresh[0];
    if (c->wanted[LEARN_BACK_WEIGHTS])
        c->dw = fresh_at(m, c->w, &c->add_weights);
    if (c->wants_bias)
        c->dbias = fresh_at(m, c->bias, &c->add_bias);
    for (int k = 0; k < LEARN_PASSES; k++)
        shape_of_conv(p, c, &s->node->op, k);
    own_kernels(p, c, &s->node->op);
    want_sums(m, c);
    return 0;
}

/* Which passes cuDNN does. An engine is chosen when there is memory. */
static void ask_dnn(struct make *m, struct learn_conv *c)
{
    for (int k = 0; k < LEARN_PASSES; k++)
        if (c->wanted[k] && c->form == LEARN_FORM_CONV)
            c->dnn[k] = dnn_conv_new(m->plan->dev->dnn, &c->shape[k],
                                     ENGINE_MAX_SCRATCH, NULL);
}

/* Backward steps in their order: the first that writes somewhere does not add.
 */
static int make_all(struct make *m)
{
    struct gpu_learn_plan *p = m->plan;

    for (int i = p->n_steps - 1; i >= 0; i--)
        if (p->steps[i].kind == LEARN_OP ? make_op(m, i) : make_conv(m, i))
            return error_context(m->err, "node '%.80s'",
                                 p->steps[i].node->name);
    p->bytes_sums = m->bytes_sum;
    p->sums =
        p->bytes_sums ? card_alloc(p->dev->card, p->bytes_sums, m->err) : NULL;
    if (p->bytes_sums && !p->sums)
        return -1;
    for (int i = 0; i < p->n_steps; i++)
        if (p->conv[i]) {
            p->conv[i]->back.scratch = (float *)(void *)p->sums;
            memory_of_conv(m, p->conv[i]);
            ask_dnn(m, p->conv[i]);
        }
    return 0;
}

/* ---- memory
 * ------------------------------------------------------------------
 */

/* Packed f32, on the card and pinned: the input, outputs, losses by them. */
static int get_packed(struct make *m)
{
    struct gpu_learn_plan *p = m->plan;
    size_t counts[1 + 2 * PLAN_MAX_OUTPUTS], all = 0, at = 0;
    float *card[1 + 2 * PLAN_MAX_OUTPUTS], *host[1 + 2 * PLAN_MAX_OUTPUTS];
    int n = 0;

    counts[n++] = shape_count(&p->base.shape_in);
    for (int i = 0; i < p->base.n_outputs; i++)
        counts[n++] = shape_count(&p->base.shape_out[i]);
    for (int i = 0; i < p->base.n_outputs; i++)
        counts[n++] = p->gradient[i].p ? shape_count(&p->base.shape_out[i]) : 0;
    for (int i = 0; i < n; i++)
        all += (counts[i] + 63) / 64 * 64;
    p->bytes_pinned = all * sizeof(float) + sizeof(*p->random);
    p->pinned = card_pin(p->dev->card, p->bytes_pinned, m->err);
    if (!p->pinned)
        return -1;
    p->packed_in = card_alloc(p->dev->card, p->bytes_pinned, m->err);
    if (!p->packed_in)
        return -1;
    for (int i = 0; i < n; at += (counts[i] + 63) / 64 * 64, i++) {
        card[i] = p->packed_in + at;
        host[i] = (float *)(void *)p->pinned + at;
    }
    p->random = (uint64_t *)(void *)(p->pinned + all * sizeof(float));
    p->base.input = host[0];
    for (int i = 0; i < p->base.n_outputs; i++) {
        p->base.output[i] = host[1 + i];
        p->packed_out[i] = card[1 + i];
        if (p->gradient[i].p) {
            p->base.gradient[i] = host[1 + p->base.n_outputs + i];
            p->packed_gradient[i] = card[1 + p->base.n_outputs + i];
        }
    }
    return 0;
}

static int get_memory(struct make *m)
{
    struct gpu_learn_plan *p = m->plan;
    const struct graph *g = m->s.g;
    int fill = m->separate ? ENGINE_FILL_NAN : ENGINE_FILL_PLAIN;

    p->bytes_arena = slots_place(m->s.slots, m->s.n_slots, m->separate);
    if (!p->bytes_arena)
        return no_memory(m);
    p->arena = card_alloc(p->dev->card, p->bytes_arena, m->err);
    if (!p->arena ||
        card_fill(p->dev->card, p->arena, fill, p->bytes_arena, m->err))
        return -1;
    p->input = value_at(m, g->input);
    p->base.shape_in = m->s.shapes[g->input];
    p->base.n_outputs = g->n_outputs;
    for (int i = 0; i < g->n_outputs; i++) {
        int v = g->outputs[i];

        p->base.shape_out[i] = m->s.shapes[v];
        p->output[i] = value_at(m, v);
        if (!p->rest)
            p->gradient[i] = gradient_at(m, v);
    }
    return get_packed(m);
}

/* ---- the whole
 * ---------------------------------------------------------------
 */

static int build(struct make *m, const struct plan_options *opt)
{
    struct gpu_learn_plan *p = m->plan;
    const struct learn_sizes sizes = {value_bytes, state_bytes, m};
    int rc = learn_steps_make(&m->s, &p->net->l, opt, &sizes, m->err);
    size_t n;

    p->steps = m->s.at;
    p->n_steps = m->s.n;
    if (rc)
        return -1;
    if (!p->rest && !learn_steps_any(&m->s))
        return error_set(m->err, ERR_MODEL, "no weight is left that learns");
    n = (size_t)p->n_steps + 1;
    p->op = calloc(n, sizeof(struct learn_op *));
    p->conv = calloc(n, sizeof(struct learn_conv *));
    m->written = calloc((size_t)p->net->n_numbers + 1, sizeof(*m->written));
    if (!p->op || !p->conv || !m->written)
        return no_memory(m);
    if (check_sizes(m) || gpu_learn_typed(p->net, p->type, m->err) ||
        get_memory(m))
        return -1;
    pthread_mutex_lock(&p->dev->lock);
    rc = make_all(m) || gpu_learn_bind(p, m->err) ? -1 : 0;
    dnn_rest(p->dev->dnn);
    pthread_mutex_unlock(&p->dev->lock);
    if (!rc && p->dev->tunes)
        tune_save(p->dev->tune);
    return rc;
}

/* What training is quickest with: bf16 has f32's range. */
static int choose_type(struct gpu_learn_plan *p, enum precision wanted,
                       struct error *err)
{
    static const enum gtype types[] = {[PRECISION_F32] = GTYPE_F32,
                                       [PRECISION_TF32] = GTYPE_F32,
                                       [PRECISION_F16] = GTYPE_F16,
                                       [PRECISION_BF16] = GTYPE_BF16};
    bool has_bf16 = card_level(p->dev->card) >= 80;

    if (wanted == PRECISION_AUTO)
        wanted = has_bf16 ? PRECISION_BF16 : PRECISION_F16;
    if ((wanted == PRECISION_BF16 || wanted == PRECISION_TF32) && !has_bf16)
        return error_set(err, ERR_DEVICE, "this card cannot compute in %s",
                         precision_name(wanted));
    p->type = types[wanted];
    p->tf32 = wanted == PRECISION_TF32;
    p->base.info.precision = wanted;
    return 0;
}

struct plan *gpu_learn_plan(struct network *net, const struct plan_options *opt,
                            struct error *err)
{
    struct gpu_learn *l = (struct gpu_learn *)net;
    struct gpu_learn_plan *p = calloc(1, sizeof(*p));
    struct make m = {.plan = p, .separate = opt->separate, .err = err};
    int rc = -1;

    if (!p)
        return error_null(err, ERR_NOMEM, "no memory for a plan");
    p->base.backend = &gpu_learn_backend;
    p->net = l;
    p->dev = l->dev;
    p->rest = opt->rest;
    if (!card_enter(l->dev->card, err) && !choose_type(p, opt->precision, err))
        rc = build(&m, opt);
    learn_steps_fini(&m.s);
    free(m.written);
    if (!rc)
        return &p->base;
    gpu_learn_plan_free(&p->base);
    return NULL;
}

void gpu_learn_plan_free(struct plan *plan)
{
    struct gpu_learn_plan *p = (struct gpu_learn_plan *)plan;
    struct card *c;

    if (!p)
        return;
    c = p->dev->card;
    card_enter(c, NULL);
    pthread_mutex_lock(&p->dev->lock);
    for (int i = 0; i < p->n_steps; i++) {
        if (p->op)
            free(p->op[i]);
        for (int k = 0; p->conv && p->conv[i] && k < LEARN_PASSES; k++)
            dnn_conv_free(p->conv[i]->dnn[k]);
        if (p->conv)
            free(p->conv[i]);
    }
    pthread_mutex_unlock(&p->dev->lock);
    card_stream_free(p->there);
    card_stream_free(p->back);
    card_release(c, p->arena, p->bytes_arena);
    card_release(c, p->packed_in, p->bytes_pinned);
    card_release(c, p->sums, p->bytes_sums);
    engine_scratch_free(c, &p->scratch);
    card_unpin(c, p->pinned);
    free(p->op);
    free(p->conv);
    free(p->steps);
    free(p);
}

const struct backend gpu_learn_backend = {
    .abi = BACKEND_ABI,
    .name = "cuda",
    .plan_free = gpu_learn_plan_free,
    .forward = gpu_learn_forward,
    .backward = gpu_learn_backward,
};
