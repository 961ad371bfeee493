/* gpu/learn_run.c - a plan that learns gets its engines, is recorded as two
 * runs, there and back, and runs. */
#include "gpu/learn.h"

#include <stdlib.h>
#include <string.h>

#include "gpu/conv_kernels.h"
#include "gpu/kernels.h"

/* The odd number that dropout's states are multiples of apart, as op_train's
 * (splitmix64). */
#define RANDOM_STEP UINT64_C(0x9e3779b97f4a7c15)

/* ---- convolutions -----------------------------------------------------------
 */

static int add_to(const struct nhwc *to, const void *what, int type,
                  struct stream *on, struct error *err)
{
    struct arith_binary a = {.x = *to, .b = *to, .y = *to, .with = ARITH_ADD};

    a.b.p = (void *)(uintptr_t)what; /* only read */
    return kernels_binary(&a, type, on, err);
}

/* `count` f32, a multiple of eight, as an array. */
static struct nhwc line_of(float *p, size_t count)
{
    return (struct nhwc){.p = p,
                         .n = 1,
                         .h = 1,
                         .w = (int)(count / ARITH_LANES),
                         .c = ARITH_LANES,
                         .pitch = ARITH_LANES};
}

static int conv_forward(const struct gpu_learn_plan *p,
                        const struct learn_conv *c, struct stream *on,
                        struct error *err)
{
    if (c->dnn[LEARN_FORWARD])
        return engine_run(c->dnn[LEARN_FORWARD], on, err);
    return c->form == LEARN_FORM_DEPTHWISE
               ? kernels_depthwise(&c->own, (int)p->type, on, err)
               : kernels_conv(&c->own, (int)p->type, on, err);
}

static int conv_back_data(const struct gpu_learn_plan *p,
                          const struct learn_conv *c, struct stream *on,
                          struct error *err)
{
    struct arith_conv_back a = c->back;

    if (c->dnn[LEARN_BACK_DATA]) {
        if (engine_run(c->dnn[LEARN_BACK_DATA], on, err))
            return -1;
        return c->add_data ? add_to(&c->dx, p->sums, (int)p->type, on, err) : 0;
    }
    a.x = c->dx;
    a.y = c->dy;
    a.add = c->add_data;
    return c->form == LEARN_FORM_DEPTHWISE
               ? kernels_depthwise_back_data(&a, (int)p->type, on, err)
               : kernels_conv_back_data(&a, (int)p->type, on, err);
}

static int conv_back_weights(const struct gpu_learn_plan *p,
                             const struct learn_conv *c, struct stream *on,
                             struct error *err)
{
    struct arith_conv_back a = c->back;
    struct nhwc dw = line_of(c->dw, c->w->count);

    if (c->dnn[LEARN_BACK_WEIGHTS]) {
        if (engine_run(c->dnn[LEARN_BACK_WEIGHTS], on, err))
            return -1;
        return c->add_weights ? add_to(&dw, p->sums, GTYPE_F32, on, err) : 0;
    }
    a.x = c->x;
    a.y = c->dy;
    a.add = c->add_weights;
    return c->form == LEARN_FORM_DEPTHWISE
               ? kernels_depthwise_back_weights(&a, (int)p->type, on, err)
               : kernels_conv_back_weights(&a, (int)p->type, on, err);
}

static int conv_backward(const struct gpu_learn_plan *p,
                         const struct learn_conv *c, struct stream *on,
                         struct error *err)
{
    struct arith_columns bias = {.y = c->dy,
                                 .sums = c->dbias,
                                 .add = c->add_bias,
                                 .scratch = (float *)(void *)p->sums};

    if ((c->wants_bias && kernels_column_sums(&bias, (int)p->type, on, err)) ||
        (c->wanted[LEARN_BACK_WEIGHTS] && conv_back_weights(p, c, on, err)) ||
        (c->wanted[LEARN_BACK_DATA] && conv_back_data(p, c, on, err)))
        return -1;
    return 0;
}

/* ---- there and back ---------------------------------------------------------
 */

static int forward_all(struct gpu_learn_plan *p, struct error *err)
{
    struct stream *on = p->there;
    struct arith_move in = {p->input, p->packed_in};
    int type = (int)p->type;

    if (card_copy_in(on, p->packed_in, p->base.input,
                     shape_count(&p->base.shape_in) * sizeof(float), err) ||
        (p->n_random && card_copy_in(on, p->net->random, p->random,
                                     sizeof(*p->random), err)) ||
        kernels_from_nchw(&in, type, on, err))
        return -1;
    for (int i = 0; i < p->n_steps; i++)
        if (p->conv[i] ? conv_forward(p, p->conv[i], on, err)
                       : learn_op_forward(p->op[i], type, on, err))
            return error_context(err, "node '%.80s'", p->steps[i].node->name);
    for (int i = 0; i < p->base.n_outputs; i++) {
        struct arith_move out = {p->output[i], p->packed_out[i]};

        if (kernels_to_nchw(&out, type, on, err) ||
            card_copy_out(on, p->base.output[i], p->packed_out[i],
                          shape_count(&p->base.shape_out[i]) * sizeof(float),
                          err))
            return -1;
    }
    return 0;
}

/* Into the network's `fresh`. */
static int backward_steps(struct gpu_learn_plan *p, struct error *err)
{
    struct stream *on = p->back;
    int type = (int)p->type;

    for (int i = 0; i < p->base.n_outputs; i++) {
        struct arith_move in = {p->gradient[i], p->packed_gradient[i]};

        if (!p->base.gradient[i])
            continue;
        if (card_copy_in(on, p->packed_gradient[i], p->base.gradient[i],
                         shape_count(&p->base.shape_out[i]) * sizeof(float),
                         err) ||
            kernels_from_nchw(&in, type, on, err))
            return -1;
    }
    for (int i = p->n_steps - 1; i >= 0; i--)
        if (p->steps[i].backward &&
            (p->conv[i] ? conv_backward(p, p->conv[i], on, err)
                        : learn_op_backward(p->op[i], type, on, err)))
            return error_context(err, "backward of node '%.80s'",
                                 p->steps[i].node->name);
    return 0;
}

static int backward_all(struct gpu_learn_plan *p, struct error *err)
{
    struct gpu_learn *l = p->net;
    struct nhwc to = line_of(l->gradients, l->n_weights);

    return backward_steps(p, err) ||
                   add_to(&to, l->fresh, GTYPE_F32, p->back, err)
               ? -1
               : 0;
}

/* ---- engines, recording
 * ------------------------------------------------------
 */

static int choose_engines(struct gpu_learn_plan *p, struct error *err)
{
    const struct engine_place at = {p->dev, p->there, &p->scratch};
    size_t most = 0;

    for (int i = 0; i < p->n_steps; i++)
        for (int k = 0; p->conv[i] && k < LEARN_PASSES; k++) {
            struct learn_conv *c = p->conv[i];
            int rc = c->dnn[k] ? engine_choose(&at, c->dnn[k], &c->shape[k],
                                               &c->memory[k], err)
                               : 1;

            if (rc < 0)
                return -1;
            if (rc == 0) {
                dnn_conv_free(c->dnn[k]);
                c->dnn[k] = NULL;
            } else if (c->dnn[k] && dnn_conv_scratch(c->dnn[k]) > most) {
                most = dnn_conv_scratch(c->dnn[k]);
            }
        }
    engine_scratch_free(p->dev->card, &p->scratch);
    if (engine_scratch(p->dev->card, &p->scratch, most, err))
        return -1;
    for (int i = 0; i < p->n_steps; i++)
        for (int k = 0; p->conv[i] && k < LEARN_PASSES; k++) {
            struct learn_conv *c = p->conv[i];

            c->memory[k].scratch = p->scratch.p;
            if (c->dnn[k] && dnn_conv_bind(c->dnn[k], &c->memory[k], err))
                return -1;
        }
    return 0;
}

static bool record(struct gpu_learn_plan *p, struct stream *on,
                   int (*run)(struct gpu_learn_plan *p, struct error *err))
{
    int rc;

    if (!card_record(on))
        return false;
    rc = run(p, NULL);
    return card_recorded(on) && !rc;
}

/* Once by steps, since kernels are loaded when they are first used; statistics
 * that moved meanwhile are put back. */
static int run_once(struct gpu_learn_plan *p, struct error *err)
{
    struct gpu_learn *l = p->net;
    size_t n = l->n - l->n_weights;
    float *kept = malloc((n + 1) * sizeof(*kept));
    int rc;

    if (!kept)
        return error_set(err, ERR_NOMEM, "no memory for statistics");
    memset(p->pinned, 0, p->bytes_pinned);
    rc = (n && card_copy_out(l->stream, kept, l->all + l->n_weights,
                             n * sizeof(*kept), err)) ||
         card_wait(l->stream, err) || forward_all(p, err) ||
         card_wait(p->there, err) ||
         (!p->rest && (backward_steps(p, err) || card_wait(p->back, err))) ||
         (n && card_upload(p->dev->card, l->all + l->n_weights, kept,
                           n * sizeof(*kept), err)) ||
         (l->n_weights && card_fill(p->dev->card, l->fresh, 0,
                                    l->n_weights * sizeof(float), err));
    free(kept);
    return rc ? -1 : 0;
}

int gpu_learn_bind(struct gpu_learn_plan *p, struct error *err)
{
    struct plan_info *info = &p->base.info;

    p->there = card_stream_new(p->dev->card, err);
    p->back = p->there ? card_stream_new(p->dev->card, err) : NULL;
    if (!p->back || choose_engines(p, err) || run_once(p, err))
        return -1;
    p->recorded_there = record(p, p->there, forward_all);
    p->recorded_back = !p->rest && record(p, p->back, backward_all);
    info->bytes_activations = p->bytes_arena;
    info->bytes_scratch = p->scratch.bytes + p->bytes_sums;
    info->bytes_weights = p->net->n * sizeof(float);
    info->n_steps = p->n_steps;
    return card_enter(p->dev->card, err);
}

static int run(struct gpu_learn_plan *p, struct stream *on, bool recorded,
               int (*steps)(struct gpu_learn_plan *p, struct error *err),
               struct error *err)
{
    int rc;

    if (card_enter(p->dev->card, err))
        return -1;
    if (recorded) {
        rc = card_replay(on, err);
    } else {
        pthread_mutex_lock(&p->dev->lock);
        rc = steps(p, err);
        dnn_rest(p->dev->dnn);
        pthread_mutex_unlock(&p->dev->lock);
    }
    return rc ? -1 : card_wait(on, err);
}

int gpu_learn_forward(struct plan *plan, struct error *err)
{
    struct gpu_learn_plan *p = (struct gpu_learn_plan *)plan;
    struct learnable *l = &p->net->l.learn;

    *p->random = l->random;
    if (run(p, p->there, p->recorded_there, forward_all, err))
        return -1;
    l->random += p->n_random * RANDOM_STEP;
    return 0;
}

int gpu_learn_backward(struct plan *plan, struct error *err)
{
    struct gpu_learn_plan *p = (struct gpu_learn_plan *)plan;
    struct gpu_learn *l = p->net;

    for (int i = 0; i < plan->n_outputs && l->loss_scale != 1; i++)
        for (size_t k = 0;
             plan->gradient[i] && k < shape_count(&plan->shape_out[i]); k++)
            plan->gradient[i][k] *= l->loss_scale;
    if (run(p, p->back, p->recorded_back, backward_all, err))
        return -1;
    l->scaled = l->loss_scale != 1;
    return 0;
}
