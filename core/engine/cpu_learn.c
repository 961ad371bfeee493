/* core/engine/cpu_learn.c - the CPU's networks that learn: their weights, and
 * running a plan forward and backward. Plans are made in cpu_learn_plan.c. */
#include "core/engine/cpu_learn.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* ---- weights --------------------------------------------------------- */

void cpu_learn_unload(struct network *net)
{
    if (!net)
        return;
    learner_fini((struct learner *)net);
    free(net);
}

struct network *cpu_learn_load(struct device *dev, const struct graph *g,
                               const struct learn_options *opt,
                               struct error *err)
{
    struct learner *l = calloc(1, sizeof(*l));

    if (!l)
        return error_null(err, ERR_NOMEM, "no memory for a network");
    if (!learner_init(l, dev, g, opt, err))
        return &l->base;
    cpu_learn_unload(&l->base);
    return NULL;
}

/* ---- running --------------------------------------------------------- */

static void add(float *to, const float *from, size_t n)
{
#pragma omp parallel for simd schedule(static) if (n > 16384)
    for (size_t i = 0; i < n; i++)
        to[i] += from[i];
}

static int run_pass(const struct conv_run *r, struct error *err)
{
    for (int i = 0; i < 2; i++)
        if (r->in[i].reorder && kernel_run(r->in[i].reorder, err))
            return -1;
    if (kernel_run(r->kernel, err) ||
        (r->out.reorder && kernel_run(r->out.reorder, err)))
        return -1;
    if (r->add)
        add(r->add, r->out.memory, r->n_add);
    if (r->add_bias)
        add(r->add_bias, r->bias, r->n_bias);
    return 0;
}

/* x [n,k], w [o,k]: y = x w' + b. */
static int gemm_forward(const struct learn_step *s, struct error *err)
{
    const struct op_run *r = &s->run;
    int n = r->shape_in[0].d[0], k = r->shape_in[0].d[1];
    int o = r->shape_in[1].d[0];

    for (int i = 0; r->n_in > 2 && i < n; i++)
        memcpy(r->out + (size_t)i * (size_t)o, r->in[2],
               (size_t)o * sizeof(float));
    return onednn_gemm(false, true, n, o, k, r->in[0], r->in[1],
                       r->n_in > 2 ? 1 : 0, r->out, err);
}

static int gemm_backward(const struct learn_step *s, struct error *err)
{
    const struct op_run *r = &s->run;
    int n = r->shape_in[0].d[0], k = r->shape_in[0].d[1];
    int o = r->shape_in[1].d[0];

    if (r->grad_in[1] && onednn_gemm(true, false, o, k, n, r->grad_out,
                                     r->in[0], 1, r->grad_in[1], err))
        return -1;
    for (int i = 0; r->n_in > 2 && r->grad_in[2] && i < n; i++)
        for (int j = 0; j < o; j++)
            r->grad_in[2][j] += r->grad_out[(size_t)i * (size_t)o + j];
    return r->grad_in[0]
               ? onednn_gemm(false, false, n, k, o, r->grad_out, r->in[1],
                             r->fresh[0] ? 0 : 1, r->grad_in[0], err)
               : 0;
}

/* [n,c,h,w] to [n,h,w,c], or back. */
static void turn(const float *from, float *to, const struct shape *s, bool back)
{
    size_t c = (size_t)s->d[1], hw = (size_t)s->d[2] * (size_t)s->d[3];

#pragma omp parallel for schedule(static)
    for (int n = 0; n < s->d[0]; n++) {
        const float *x = from + (size_t)n * c * hw;
        float *y = to + (size_t)n * c * hw;

        for (size_t i = 0; i < hw; i++)
            for (size_t k = 0; k < c; k++)
                *(back ? &y[k * hw + i] : &y[i * c + k]) =
                    back ? x[i * c + k] : x[k * hw + i];
    }
}

static int forward(struct plan *plan, struct error *err)
{
    struct cpu_learn_plan *p = (struct cpu_learn_plan *)plan;

    omp_set_num_threads(p->n_threads);
    turn(p->staging, p->input, &plan->shape_in, false);
    for (int i = 0; i < p->n_steps; i++) {
        struct learn_step *s = &p->steps[i];
        int rc = 0;

        if (s->kind == LEARN_CONV)
            rc = run_pass(&p->pass[i][CONV_FORWARD], err);
        else if (s->kind == LEARN_GEMM)
            rc = gemm_forward(s, err);
        else
            op_run_forward(&s->run);
        if (rc)
            return error_context(err, "node '%.80s'", s->node->name);
    }
    for (int i = 0; i < plan->n_outputs; i++)
        if (p->pictures[i].out)
            turn(p->pictures[i].out, plan->output[i], &plan->shape_out[i],
                 true);
    return 0;
}

static int backward_step(struct learn_step *s, const struct conv_run pass[],
                         struct error *err)
{
    if (s->kind == LEARN_GEMM)
        return gemm_backward(s, err);
    if (s->kind == LEARN_OP) {
        op_run_backward(&s->run);
        return 0;
    }
    for (int i = CONV_BACK_DATA; i <= CONV_BACK_WEIGHTS; i++)
        if (pass[i].kernel && run_pass(&pass[i], err))
            return -1;
    return 0;
}

static int backward(struct plan *plan, struct error *err)
{
    struct cpu_learn_plan *p = (struct cpu_learn_plan *)plan;

    omp_set_num_threads(p->n_threads);
    for (int i = 0; i < plan->n_outputs; i++)
        if (p->pictures[i].gradient)
            turn(plan->gradient[i], p->pictures[i].gradient,
                 &plan->shape_out[i], false);
    for (int i = p->n_steps - 1; i >= 0; i--) {
        struct learn_step *s = &p->steps[i];

        if (s->backward && backward_step(s, p->pass[i], err))
            return error_context(err, "backward of node '%.80s'",
                                 s->node->name);
    }
    return 0;
}

const struct backend cpu_learn_backend = {
    .abi = BACKEND_ABI,
    .name = "cpu",
    .plan_free = cpu_learn_plan_free,
    .forward = forward,
    .backward = backward,
};
