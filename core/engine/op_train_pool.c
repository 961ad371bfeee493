/* core/engine/op_train_pool.c - pools, forward and backward. Forward goes over
 * the rows of the output, backward over those of the input, gathering from
 * the windows that cover it: no two threads write one number. */
#include "core/engine/op_train_priv.h"

#include <math.h>
#include <string.h>

/* Along one axis: which window begins where. */
struct axis {
    int size, out;                    /* of input and output */
    int kernel, stride, before, most; /* most: far edge with its padding */
};

struct pool {
    enum op_type type;
    bool one; /* of an Lp pool: p is 1 */
    bool count_pad;
    struct axis y, x;
    size_t c;
};

static struct axis axis_of(const struct op_pool *o, int i, int size, int out)
{
    if (o->global)
        return (struct axis){size, out, size, 1, 0, size};
    return (struct axis){size,         out,       o->kernel[i],
                         o->stride[i], o->pad[i], size + o->pad[2 + i]};
}

static struct pool pool_of(const struct op_run *r)
{
    struct op_grid g = op_grid(&r->shape_in[0]), o = op_grid(&r->shape_out);
    const struct op_pool *p = &r->op->u.pool;

    return (struct pool){.type = r->op->type,
                         .one = p->p == 1,
                         .count_pad = p->count_pad,
                         .y = axis_of(p, 0, g.h, o.h),
                         .x = axis_of(p, 1, g.w, o.w),
                         .c = (size_t)g.c};
}

/* First place of window o inside the picture, and one after its last. */
static int first_of(const struct axis *a, int o)
{
    int at = o * a->stride - a->before;

    return at < 0 ? 0 : at;
}

static int end_of(const struct axis *a, int o)
{
    int at = o * a->stride - a->before + a->kernel;

    return at > a->size ? a->size : at;
}

/* By what an average is divided, along one axis. What ceil_mode reaches beyond
 * the padding is not counted. */
static int counted(const struct axis *a, int o, bool pad)
{
    int at = o * a->stride - a->before, end = at + a->kernel;

    if (pad)
        return (end > a->most ? a->most : end) - at;
    return end_of(a, o) - first_of(a, o);
}

/* ---- forward ---------------------------------------------------------- */

/* at: place in the plane, of the greatest so far. (One choice a loop: with two
 * the compiler makes a branch of them.) */
OP_WIDE static void max_place(const float *x, float *y, float *at, float here,
                              size_t c)
{
#pragma GCC ivdep
    for (size_t k = 0; k < c; k++)
        at[k] = x[k] > y[k] ? here : at[k];
#pragma GCC ivdep
    for (size_t k = 0; k < c; k++)
        y[k] = x[k] > y[k] ? x[k] : y[k];
}

OP_WIDE static void max_first(const float *x, float *y, float *at, float here,
                              size_t c)
{
#pragma GCC ivdep
    for (size_t k = 0; k < c; k++) {
        y[k] = x[k];
        at[k] = here;
    }
}

/* power 0: x, 1: |x|, 2: x^2 */
OP_WIDE static void sum_place(const float *x, float *y, size_t c, int power)
{
    if (power == 0)
#pragma GCC ivdep
        for (size_t k = 0; k < c; k++)
            y[k] += x[k];
    else if (power == 1)
#pragma GCC ivdep
        for (size_t k = 0; k < c; k++)
            y[k] += fabsf(x[k]);
    else
#pragma GCC ivdep
        for (size_t k = 0; k < c; k++)
            y[k] += x[k] * x[k];
}

OP_WIDE static void finish(float *y, size_t c, float factor, bool root)
{
    if (root)
#pragma GCC ivdep
        for (size_t k = 0; k < c; k++)
            y[k] = sqrtf(y[k]);
    else if (factor != 1)
#pragma GCC ivdep
        for (size_t k = 0; k < c; k++)
            y[k] *= factor;
}

static void forward_window(struct op_run *r, const struct pool *p, size_t plane,
                           size_t out, int oy, int ox)
{
    bool max = p->type == OP_MAX_POOL, average = p->type == OP_AVG_POOL;
    float *y = r->out + out * p->c, *at = max ? r->state + out * p->c : NULL;
    bool first = true;

    if (!max)
        memset(y, 0, p->c * sizeof(*y));
    for (int iy = first_of(&p->y, oy); iy < end_of(&p->y, oy); iy++)
        for (int ix = first_of(&p->x, ox); ix < end_of(&p->x, ox); ix++) {
            size_t in = (size_t)iy * (size_t)p->x.size + (size_t)ix;
            const float *x = r->in[0] + (plane + in) * p->c;

            if (max)
                (first ? max_first : max_place)(x, y, at, (float)in, p->c);
            else
                sum_place(x, y, p->c, average ? 0 : p->one ? 1 : 2);
            first = false;
        }
    if (!max)
        finish(y, p->c,
               average ? 1 / (float)(counted(&p->y, oy, p->count_pad) *
                                     counted(&p->x, ox, p->count_pad))
                       : 1,
               !average && !p->one);
}

/* Rows of the output: n times its height. */
static void forward_rows(struct op_run *r, size_t from, size_t end)
{
    struct pool p = pool_of(r);
    size_t plane = (size_t)p.y.size * (size_t)p.x.size;

    for (size_t i = from; i < end; i++)
        for (int ox = 0; ox < p.x.out; ox++)
            forward_window(r, &p, i / (size_t)p.y.out * plane,
                           i * (size_t)p.x.out + (size_t)ox,
                           (int)(i % (size_t)p.y.out), ox);
}

/* ---- backward ----------------------------------------------------------- */

OP_WIDE static void max_back(float *dx, const float *d, const float *at,
                             float here, size_t c)
{
#pragma GCC ivdep
    for (size_t k = 0; k < c; k++)
        dx[k] += at[k] == here ? d[k] : 0;
}

OP_WIDE static void average_back(float *dx, const float *d, float factor,
                                 size_t c)
{
#pragma GCC ivdep
    for (size_t k = 0; k < c; k++)
        dx[k] += d[k] * factor;
}

OP_WIDE static void power_back(float *dx, const float *d, const float *x,
                               const float *y, bool one, size_t c)
{
    if (one)
#pragma GCC ivdep
        for (size_t k = 0; k < c; k++)
            dx[k] += d[k] * (float)((x[k] > 0) - (x[k] < 0));
    else
#pragma GCC ivdep
        for (size_t k = 0; k < c; k++)
            dx[k] += y[k] > 0 ? d[k] * x[k] / y[k] : 0;
}

/* What window (oy, ox) gives to row iy of the input. out: its place among all
 * outputs; plane: the picture's first place among all inputs. */
static void backward_window(struct op_run *r, const struct pool *p,
                            size_t plane, size_t out, int oy, int ox, int iy)
{
    const float *d = r->grad_out + out * p->c;
    float factor = p->type == OP_AVG_POOL
                       ? 1 / (float)(counted(&p->y, oy, p->count_pad) *
                                     counted(&p->x, ox, p->count_pad))
                       : 1;

    for (int ix = first_of(&p->x, ox); ix < end_of(&p->x, ox); ix++) {
        size_t in = (size_t)iy * (size_t)p->x.size + (size_t)ix;
        float *dx = r->grad_in[0] + (plane + in) * p->c;

        if (p->type == OP_MAX_POOL)
            max_back(dx, d, r->state + out * p->c, (float)in, p->c);
        else if (p->type == OP_AVG_POOL)
            average_back(dx, d, factor, p->c);
        else
            power_back(dx, d, r->in[0] + (plane + in) * p->c,
                       r->out + out * p->c, p->one, p->c);
    }
}

/* Rows of the input: n times its height. */
static void backward_rows(struct op_run *r, size_t from, size_t end)
{
    struct pool p = pool_of(r);
    size_t h = (size_t)p.y.size, w = (size_t)p.x.size;

    for (size_t i = from; i < end; i++) {
        int iy = (int)(i % h);
        size_t n = i / h;

        if (r->fresh[0])
            memset(r->grad_in[0] + i * w * p.c, 0, w * p.c * sizeof(float));
        for (int oy = 0; oy < p.y.out; oy++) {
            if (iy < first_of(&p.y, oy) || iy >= end_of(&p.y, oy))
                continue;
            for (int ox = 0; ox < p.x.out; ox++)
                backward_window(r, &p, n * h * w,
                                (n * (size_t)p.y.out + (size_t)oy) *
                                        (size_t)p.x.out +
                                    (size_t)ox,
                                oy, ox, iy);
        }
    }
}

void op_train_pool(struct op_run *r, bool forward)
{
    const struct shape *s = forward ? &r->shape_out : &r->shape_in[0];
    struct op_grid g = op_grid(s);

    if (forward)
        op_chunks(r, (size_t)g.n * (size_t)g.h, (size_t)g.w * (size_t)g.c,
                  forward_rows);
    else if (r->grad_in[0])
        op_chunks(r, (size_t)g.n * (size_t)g.h, (size_t)g.w * (size_t)g.c,
                  backward_rows);
}
