/* gpu/run.c - a plan's steps get memory and engines, are recorded as one run,
 * and run. */
#include "gpu/engine.h"
#include "gpu/gpu_priv.h"
#include "gpu/kernels.h"

#include <stdlib.h>

enum {
    TIMED_RUNS = 8
};

/* ---- one step -------------------------------------------------------------
 */

static int run_step(struct gpu_plan *p, struct step *s, struct error *err)
{
    struct stream *on = p->stream;
    int type = (int)p->type;

    switch (s->kind) {
    case STEP_IN:
        return kernels_from_nchw(&s->u.move, type, on, err);
    case STEP_OUT:
        return kernels_to_nchw(&s->u.move, type, on, err);
    case STEP_DNN:
        return engine_run(s->dnn, on, err);
    case STEP_CONV:
        return kernels_conv(&s->u.conv, type, on, err);
    case STEP_DEPTHWISE:
        return kernels_depthwise(&s->u.conv, type, on, err);
    case STEP_UNARY:
        return kernels_unary(&s->u.unary, type, on, err);
    case STEP_BINARY:
        return kernels_binary(&s->u.binary, type, on, err);
    case STEP_POOL:
        return kernels_pool(&s->u.pool, type, on, err);
    case STEP_LRN:
        return kernels_lrn(&s->u.lrn, type, on, err);
    case STEP_LINES:
        return kernels_lines(&s->u.lines, type, on, err);
    case STEP_GATHER:
        return kernels_gather(&s->u.gather, type, on, err);
    case STEP_PLACE:
        return kernels_place(&s->u.place, type, on, err);
    case STEP_CONCAT:
        return kernels_concat(&s->u.concat, type, on, err);
    }
    return error_set(err, ERR_INTERNAL, "a step of no kind");
}

/* ---- memory ---------------------------------------------------------------
 */

static void use(struct gpu_plan *p, int slot, int step)
{
    if (slot < 0)
        return;
    if (p->slots[slot].first < 0)
        p->slots[slot].first = step;
    p->slots[slot].last = step;
}

static void find_lifetimes(struct gpu_plan *p)
{
    for (int i = 0; i < p->n_steps; i++) {
        use(p, p->steps[i].x.slot, i);
        use(p, p->steps[i].y.slot, i);
        use(p, p->steps[i].z.slot, i);
        use(p, p->steps[i].packed, i);
        for (int k = 0; k < gpu_parts(&p->steps[i]); k++)
            use(p, p->steps[i].part[k].slot, i);
    }
    for (int i = 0; i < p->base.n_outputs; i++)
        p->slots[p->out_slot[i]].last = p->n_steps; /* read after the run */
}

static void *slot_at(const struct gpu_plan *p, int slot)
{
    return p->arena + p->slots[slot].offset;
}

static struct nhwc bound(const struct gpu_plan *p, const struct view *v)
{
    struct nhwc a = v->a;

    a.p = v->slot < 0 ? NULL
                      : (char *)slot_at(p, v->slot) +
                            v->offset * (size_t)arith_bytes((int)p->type);
    return a;
}

static void bind_step(const struct gpu_plan *p, struct step *s)
{
    struct nhwc x = bound(p, &s->x), y = bound(p, &s->y), z = bound(p, &s->z);

    switch (s->kind) {
    case STEP_IN:
        s->u.move = (struct arith_move){y, slot_at(p, s->packed)};
        break;
    case STEP_OUT:
        s->u.move = (struct arith_move){x, slot_at(p, s->packed)};
        break;
    case STEP_DNN:
        s->x.a = x;
        s->y.a = y;
        s->z.a = z;
        break;
    case STEP_CONV:
    case STEP_DEPTHWISE:
        s->u.conv.x = x;
        s->u.conv.y = y;
        s->u.conv.z = z;
        break;
    case STEP_UNARY:
        s->u.unary.x = x;
        s->u.unary.y = y;
        break;
    case STEP_BINARY:
        s->u.binary.x = x;
        s->u.binary.y = y;
        s->u.binary.b = z;
        break;
    case STEP_POOL:
        s->u.pool.x = x;
        s->u.pool.y = y;
        break;
    case STEP_LRN:
        s->u.lrn.x = x;
        s->u.lrn.y = y;
        break;
    case STEP_LINES:
        s->u.lines.x = x;
        s->u.lines.y = y;
        break;
    case STEP_GATHER:
        s->u.gather.x = x;
        s->u.gather.y = y;
        break;
    case STEP_PLACE:
        s->u.place.x = x;
        s->u.place.y = y;
        break;
    case STEP_CONCAT:
        s->u.concat.y = y;
        for (int k = 0; k < gpu_parts(s); k++) {
            s->u.concat.x[k] = bound(p, &s->part[k]).p;
            s->u.concat.pitch[k] = s->part[k].a.pitch;
        }
        break;
    }
}

static int get_memory(struct gpu_plan *p, bool separate, struct error *err)
{
    size_t in = shape_count(&p->base.shape_in), all = in;

    find_lifetimes(p);
    p->bytes_arena = slots_place(p->slots, p->n_slots, separate);
    if (!p->bytes_arena)
        return error_set(err, ERR_NOMEM, "no memory for a plan");
    p->arena = card_alloc(p->dev->card, p->bytes_arena, err);
    if (!p->arena || card_fill(p->dev->card, p->arena, ENGINE_FILL_PLAIN,
                               p->bytes_arena, err))
        return -1;
    for (int i = 0; i < p->base.n_outputs; i++)
        all += shape_count(&p->base.shape_out[i]);
    p->pinned = card_pin(p->dev->card, all * sizeof(float), err);
    if (!p->pinned)
        return -1;
    p->base.input = (float *)p->pinned;
    for (int i = 0; i < p->base.n_outputs; i++) {
        p->base.output[i] = p->base.input + in;
        in += shape_count(&p->base.shape_out[i]);
    }
    for (int i = 0; i < p->n_steps; i++)
        bind_step(p, &p->steps[i]);
    return 0;
}

/* ---- engines --------------------------------------------------------------
 */

static struct dnn_memory memory_of(const struct gpu_plan *p,
                                   const struct step *s)
{
    return (struct dnn_memory){.x = s->x.a.p,
                               .w = s->w,
                               .bias = s->bias,
                               .z = s->z.a.p,
                               .y = s->y.a.p,
                               .scratch = p->scratch.p};
}

static int choose_engine(struct gpu_plan *p, struct step *s, struct error *err)
{
    struct dnn_memory m = memory_of(p, s);
    const struct engine_place at = {p->dev, p->stream, &p->scratch};
    int rc = engine_choose(&at, s->dnn, &s->shape, &m, err);

    if (rc)
        return rc < 0 ? -1 : 0;
    dnn_conv_free(s->dnn);
    s->dnn = NULL;
    gpu_fall_back(s);
    bind_step(p, s);
    return 0;
}

static int choose_engines(struct gpu_plan *p, struct error *err)
{
    size_t most = 0;

    for (int i = 0; i < p->n_steps; i++)
        if (p->steps[i].kind == STEP_DNN && choose_engine(p, &p->steps[i], err))
            return -1;
    for (int i = 0; i < p->n_steps; i++)
        if (p->steps[i].kind == STEP_DNN &&
            dnn_conv_scratch(p->steps[i].dnn) > most)
            most = dnn_conv_scratch(p->steps[i].dnn);
    /* Trials may have taken more than what was chosen needs. */
    engine_scratch_free(p->dev->card, &p->scratch);
    if (engine_scratch(p->dev->card, &p->scratch, most, err))
        return -1;
    for (int i = 0; i < p->n_steps; i++) {
        struct step *s = &p->steps[i];
        struct dnn_memory m = memory_of(p, s);

        if (s->kind == STEP_DNN && dnn_conv_bind(s->dnn, &m, err))
            return -1;
    }
    return 0;
}

/* ---- running --------------------------------------------------------------
 */

static int run_steps(struct gpu_plan *p, struct error *err)
{
    for (int i = 0; i < p->n_steps; i++)
        if (run_step(p, &p->steps[i], err))
            return p->steps[i].node ? error_context(err, "node '%.80s'",
                                                    p->steps[i].node->name)
                                    : -1;
    return 0;
}

static int run_all(struct gpu_plan *p, struct error *err)
{
    if (card_copy_in(p->stream, slot_at(p, p->in_slot), p->base.input,
                     shape_count(&p->base.shape_in) * sizeof(float), err) ||
        run_steps(p, err))
        return -1;
    for (int i = 0; i < p->base.n_outputs; i++)
        if (card_copy_out(
                p->stream, p->base.output[i], slot_at(p, p->out_slot[i]),
                shape_count(&p->base.shape_out[i]) * sizeof(float), err))
            return -1;
    return 0;
}

static int bind_all(struct gpu_plan *p, struct error *err)
{
    if (choose_engines(p, err))
        return -1;
    memset(p->base.input, 0,
           shape_count(&p->base.shape_in) * sizeof(*p->base.input));
    /* Once by steps: kernels are loaded when they are first used. */
    if (run_all(p, err) || card_wait(p->stream, err))
        return -1;
    if (card_record(p->stream)) {
        int rc = run_all(p, NULL);

        p->recorded = card_recorded(p->stream) && !rc;
    }
    return card_enter(p->dev->card, err);
}

int gpu_bind(struct gpu_plan *p, bool separate, struct error *err)
{
    struct plan_info *info = &p->base.info;
    int rc;

    p->stream = card_stream_new(p->dev->card, err);
    if (!p->stream || get_memory(p, separate, err))
        return -1;
    pthread_mutex_lock(&p->dev->lock);
    rc = bind_all(p, err);
    dnn_rest(p->dev->dnn);
    pthread_mutex_unlock(&p->dev->lock);
    if (rc)
        return -1;
    if (p->dev->tunes)
        tune_save(p->dev->tune);
    if (separate &&
        card_fill(p->dev->card, p->arena, ENGINE_FILL_NAN, p->bytes_arena, err))
        return -1;
    info->bytes_activations = p->bytes_arena;
    info->bytes_scratch = p->scratch.bytes;
    info->bytes_weights = weights_bytes(p->net->weights);
    info->n_steps = p->n_steps;
    for (int i = 0; i < p->n_steps; i++)
        info->n_reorders += p->steps[i].kind == STEP_GATHER ||
                            p->steps[i].kind == STEP_PLACE ||
                            p->steps[i].kind == STEP_CONCAT;
    return 0;
}

int gpu_forward(struct plan *plan, struct error *err)
{
    struct gpu_plan *p = (struct gpu_plan *)plan;
    int rc;

    if (card_enter(p->dev->card, err))
        return -1;
    if (p->recorded) {
        rc = card_replay(p->stream, err);
    } else {
        pthread_mutex_lock(&p->dev->lock);
        rc = run_all(p, err);
        dnn_rest(p->dev->dnn);
        pthread_mutex_unlock(&p->dev->lock);
    }
    return rc ? -1 : card_wait(p->stream, err);
}

static int run_again(void *at, struct error *err)
{
    struct gpu_plan *p = at;

    return p->recorded ? card_replay(p->stream, err) : run_all(p, err);
}

int gpu_measure(struct gpu_plan *p, float *us, struct error *err)
{
    int rc;

    pthread_mutex_lock(&p->dev->lock);
    rc = run_again(p, err);
    if (!rc)
        rc = card_time(p->stream, run_again, p, TIMED_RUNS, us, err);
    dnn_rest(p->dev->dnn);
    pthread_mutex_unlock(&p->dev->lock);
    return rc;
}

static int steps_again(void *at, struct error *err)
{
    struct gpu_plan *p = at;

    return p->recorded ? card_replay(p->stream, err) : run_steps(p, err);
}

int gpu_measure_steps(struct gpu_plan *p, float *us, struct error *err)
{
    int rc;

    pthread_mutex_lock(&p->dev->lock);
    p->recorded = card_record(p->stream);
    if (p->recorded) {
        rc = run_steps(p, NULL);
        p->recorded = card_recorded(p->stream) && !rc;
    }
    rc = steps_again(p, err);
    if (!rc)
        rc = card_time(p->stream, steps_again, p, TIMED_RUNS, us, err);
    dnn_rest(p->dev->dnn);
    pthread_mutex_unlock(&p->dev->lock);
    return rc;
}

struct one_step {
    struct gpu_plan *plan;
    int at;
};

static int step_again(void *at, struct error *err)
{
    struct one_step *one = at;

    return run_step(one->plan, &one->plan->steps[one->at], err);
}

int gpu_measure_step(struct gpu_plan *p, int at, float *us, struct error *err)
{
    struct one_step one = {p, at};
    int rc;

    pthread_mutex_lock(&p->dev->lock);
    rc = step_again(&one, err);
    if (!rc)
        rc = card_time(p->stream, step_again, &one, TIMED_RUNS, us, err);
    dnn_rest(p->dev->dnn);
    pthread_mutex_unlock(&p->dev->lock);
    return rc;
}
