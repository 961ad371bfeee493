/* gpu/plan_conv.c - convolutions and dense layers to steps. One group: cuDNN,
 * with bias, residual and ReLU, and whatever else follows as a step of its own
 * in place. One channel to each group, or other groups: our own kernels. */
#include "gpu/gpu_priv.h"

/* Weights of the convolutions of `values`, filters of c channels, h x w. */
static const void *weights(struct build *b, int form, const int values[],
                           int n_values, const int chw[3])
{
    struct weights_key key;

    memset(&key, 0, sizeof(key));
    key.form = form;
    key.type = (int)b->plan->type;
    key.n = n_values;
    for (int i = 0; i < n_values; i++)
        key.value[i] = values[i];
    key.c = chw[0];
    key.h = chw[1];
    key.w = chw[2];
    return weights_get(b->plan->net->weights, &key, b->err);
}

void gpu_fall_back(struct step *s)
{
    const struct dnn_shape *d = &s->shape;
    struct arith_conv c = {.w = s->w,
                           .bias = s->bias,
                           .kernel = {d->kernel[0], d->kernel[1]},
                           .stride = {d->stride[0], d->stride[1]},
                           .dilation = {d->dilation[0], d->dilation[1]},
                           .pad = {d->pad[0], d->pad[1]},
                           .group = 1,
                           .act = d->relu ? ARITH_RELU : ARITH_NONE};

    s->kind = STEP_CONV;
    s->u.conv = c;
}

/* s->x, y, z, w, bias and shape's windows are there. */
static int make_dnn(struct build *b, struct step *s)
{
    struct dnn_shape *d = &s->shape;
    struct gpu_device *dev = b->plan->dev;
    struct error why = {0};

    d->n = s->x.a.n;
    d->c = arith_padded(s->x.a.c);
    d->h = s->x.a.h;
    d->w = s->x.a.w;
    d->k = arith_padded(s->y.a.c);
    d->x_pitch = s->x.a.pitch;
    d->y_pitch = s->y.a.pitch;
    d->z_pitch = s->z.slot < 0 ? 0 : s->z.a.pitch;
    d->type = b->plan->type;
    d->tf32 = b->plan->tf32;
    if (!s->w || !s->bias)
        return -1;
    pthread_mutex_lock(&dev->lock);
    s->dnn = dnn_conv_new(dev->dnn, d, ENGINE_MAX_SCRATCH, &why);
    pthread_mutex_unlock(&dev->lock);
    if (!s->dnn && why.code == ERR_NOMEM)
        return error_set(b->err, ERR_NOMEM, "%s", why.text);
    if (!s->dnn)
        gpu_fall_back(s);
    return 0;
}

/* What cuDNN does not do after a convolution, in place. */
static int plan_act(struct build *b, const struct node *n, enum act act,
                    int slope, float lo, float hi)
{
    struct arith_unary u = {
        .act = act == ACT_PRELU ? ARITH_PRELU : ARITH_CLIP, .lo = lo, .hi = hi};
    struct step *s;
    struct view v;

    if (act != ACT_PRELU && act != ACT_CLIP)
        return 0;
    if (!gpu_view(b, n->out, &v) ||
        (act == ACT_PRELU && !(u.scale = gpu_vector(b, slope, v.a.c))) ||
        !(s = gpu_step(b, STEP_UNARY, n)))
        return -1;
    s->x = s->y = v;
    s->u.unary = u;
    return 0;
}

static int conv_act(struct build *b, const struct node *n)
{
    const struct op_conv *c = &n->op.u.conv;

    return plan_act(b, n, c->act, n->in[n->n_in - 1], c->lo, c->hi);
}

/* Our own kernels do everything at once. */
static int plan_own(struct build *b, const struct node *n, bool depthwise)
{
    const struct op_conv *c = &n->op.u.conv;
    const struct shape *w = &b->shapes[n->in[1]];
    const int filter[3] = {w->d[1], w->d[2], w->d[3]};
    const int one[3] = {b->shapes[n->out].d[1], 1, 1};
    struct arith_conv a = {.group = c->group, .lo = c->lo, .hi = c->hi};
    struct view x, y, z = {.slot = -1};
    struct step *s;

    for (int i = 0; i < 2; i++) {
        a.kernel[i] = c->kernel[i];
        a.stride[i] = c->stride[i];
        a.dilation[i] = c->dilation[i];
        a.pad[i] = c->pad[i];
    }
    a.act = c->act == ACT_RELU    ? ARITH_RELU
            : c->act == ACT_PRELU ? ARITH_PRELU
            : c->act == ACT_CLIP  ? ARITH_CLIP
                                  : ARITH_NONE;
    if (c->act == ACT_PRELU &&
        !(a.slope = gpu_vector(b, n->in[n->n_in - 1], one[0])))
        return -1;
    a.w = weights(b, depthwise ? WEIGHTS_DEPTHWISE : WEIGHTS_GROUPED, &n->in[1],
                  1, filter);
    a.bias = depthwise ? (const void *)gpu_vector(b, n->in[2], one[0])
                       : weights(b, WEIGHTS_BIAS, &n->in[2], 1, one);
    if (!a.w || !a.bias || !gpu_view(b, n->in[0], &x) ||
        (c->residual && !gpu_view(b, n->in[3], &z)) ||
        !gpu_place(b, n->out, &y) ||
        !(s = gpu_step(b, depthwise ? STEP_DEPTHWISE : STEP_CONV, n)))
        return -1;
    s->x = x;
    s->y = y;
    s->z = z;
    s->u.conv = a;
    return 0;
}

static void windows(struct dnn_shape *d, const struct op_conv *c)
{
    for (int i = 0; i < 2; i++) {
        d->kernel[i] = c->kernel[i];
        d->stride[i] = c->stride[i];
        d->dilation[i] = c->dilation[i];
        d->pad[i] = c->pad[i];
        d->pad[2 + i] = c->pad[2 + i];
    }
    d->relu = c->act == ACT_RELU;
}

/* The convolutions that are one from node `first` on: all of their values lie
 * side by side in the memory of the first's. */
static int plan_merged(struct build *b, int first)
{
    const struct node *n = &b->g->nodes[first];
    int w[LAYOUT_MAX_MERGED], bias[LAYOUT_MAX_MERGED], n_members = 0;
    const int filter[3] = {b->shapes[n->in[1]].d[1], 1, 1};
    struct view x, y, part;
    struct step *s;

    if (!gpu_view(b, n->in[0], &x) || !gpu_place(b, n->out, &y))
        return -1;
    for (int i = first; i < b->g->n_nodes; i++)
        if (b->layout.leader[i] == first) {
            w[n_members] = b->g->nodes[i].in[1];
            bias[n_members++] = b->g->nodes[i].in[2];
            if (!gpu_place(b, b->g->nodes[i].out, &part))
                return -1;
        }
    y.a.c = y.a.pitch;
    s = gpu_step(b, STEP_DNN, n);
    if (!s)
        return -1;
    s->x = x;
    s->y = y;
    windows(&s->shape, &n->op.u.conv);
    s->w = weights(b, WEIGHTS_CONV, w, n_members, filter);
    s->bias = weights(b, WEIGHTS_BIAS, bias, n_members, filter);
    if (make_dnn(b, s))
        return -1;
    for (int i = first; i < b->g->n_nodes; i++)
        if (b->layout.leader[i] == first && conv_act(b, &b->g->nodes[i]))
            return -1;
    return 0;
}

int gpu_plan_conv(struct build *b, int at)
{
    const struct node *n = &b->g->nodes[at];
    const struct op_conv *c = &n->op.u.conv;
    const struct shape *w = &b->shapes[n->in[1]];
    const int filter[3] = {w->d[1], w->d[2], w->d[3]};
    struct view x, y, z = {.slot = -1};
    struct step *s;

    if (c->group > 1)
        return plan_own(b, n, w->d[1] == 1 && w->d[0] == c->group);
    if (b->layout.leader[at] >= 0)
        return b->layout.leader[at] == at ? plan_merged(b, at) : 0;
    if (!gpu_view(b, n->in[0], &x) ||
        (c->residual && !gpu_view(b, n->in[3], &z)) ||
        !gpu_place(b, n->out, &y) || !(s = gpu_step(b, STEP_DNN, n)))
        return -1;
    s->x = x;
    s->y = y;
    s->z = z;
    windows(&s->shape, c);
    s->w = weights(b, WEIGHTS_CONV, &n->in[1], 1, filter);
    s->bias = weights(b, WEIGHTS_BIAS, &n->in[2], 1, filter);
    return make_dnn(b, s) ? -1 : conv_act(b, n);
}

/* The value that this one is the row of, if its memory, pixel by pixel, can
 * be read as a row as it stands: then the weights' order changes instead. */
static bool row_of(struct build *b, int value, struct view *x, int chw[3])
{
    const struct view *v;

    if (b->flat[value] < 0 || b->views[value].slot >= 0)
        return false;
    v = &b->views[b->flat[value]];
    if (v->a.pitch != arith_padded(v->a.c))
        return false;
    chw[0] = v->a.c;
    chw[1] = v->a.h;
    chw[2] = v->a.w;
    *x = *v;
    x->a.c = x->a.pitch = v->a.h * v->a.w * v->a.pitch;
    x->a.h = x->a.w = 1;
    return true;
}

int gpu_plan_gemm(struct build *b, const struct node *n)
{
    const struct op_gemm *g = &n->op.u.gemm;
    int filter[3] = {b->shapes[n->in[1]].d[1], 1, 1};
    struct view x, y;
    struct step *s;

    if ((!row_of(b, n->in[0], &x, filter) && !gpu_view(b, n->in[0], &x)) ||
        !gpu_place(b, n->out, &y) || !(s = gpu_step(b, STEP_DNN, n)))
        return -1;
    s->x = x;
    s->y = y;
    for (int i = 0; i < 2; i++)
        s->shape.kernel[i] = s->shape.stride[i] = s->shape.dilation[i] = 1;
    s->shape.relu = g->act == ACT_RELU;
    s->w = weights(b, WEIGHTS_CONV, &n->in[1], 1, filter);
    s->bias = weights(b, WEIGHTS_BIAS, &n->in[2], 1, filter);
    return make_dnn(b, s)
               ? -1
               : plan_act(b, n, g->act, n->in[n->n_in - 1], g->lo, g->hi);
}
