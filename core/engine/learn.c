/* core/engine/learn.c - see the header: hands on to the device, or does it to
 * the learnable's arrays. One thread is enough: an update moves each weight
 * once, where the convolutions used it thousands of times, and a sum has one
 * order. */
#include "core/engine/learn.h"

#include <math.h>
#include <string.h>

#include "core/engine/learn_rule.h"

int learn_get(struct network *net, unsigned parts, struct error *err)
{
    const struct backend *b = net->device->backend;

    return b->learn_get ? b->learn_get(net, parts, err) : 0;
}

int learn_put(struct network *net, unsigned parts, struct error *err)
{
    const struct backend *b = net->device->backend;

    return b->learn_put ? b->learn_put(net, parts, err) : 0;
}

int learn_clear(struct network *net, struct error *err)
{
    const struct backend *b = net->device->backend;
    struct learnable *l = net->learn;

    if (b->learn_clear)
        return b->learn_clear(net, err);
    memset(l->gradients, 0, l->n_weights * sizeof(*l->gradients));
    return 0;
}

int learn_norm(struct network *net, float decay, double *norm,
               struct error *err)
{
    const struct backend *b = net->device->backend;
    const struct learnable *l = net->learn;
    double sum = 0;

    if (b->learn_norm)
        return b->learn_norm(net, decay, norm, err);
    for (int k = 0; k < l->n_tensors && decay > 0; k++) {
        const struct learn_tensor *t = &l->tensors[k];

        for (size_t i = 0; t->decays && i < t->count; i++)
            l->gradients[t->offset + i] += decay * l->weights[t->offset + i];
    }
    for (size_t i = 0; i < l->n_weights; i++)
        sum += (double)l->gradients[i] * l->gradients[i];
    *norm = sqrt(sum);
    return 0;
}

/* Of a rule that the compiler knows. */
static inline __attribute__((always_inline)) void
update(enum optimizer rule, const struct learn_update *u, size_t n,
       const float *restrict g, float *restrict w, float *restrict a,
       float *restrict b)
{
    for (size_t i = 0; i < n; i++)
        learn_rule(rule, u->rate, u->epsilon, g[i] * u->scale, &w[i], &a[i],
                   b ? &b[i] : NULL);
}

int learn_update(struct network *net, const struct learn_update *u,
                 struct error *err)
{
    const struct backend *be = net->device->backend;
    const struct learnable *l = net->learn;
    const float *g = l->gradients;
    float *w = l->weights, *a = l->slots[0], *b = l->slots[1];
    size_t n = l->n_weights;

    if (be->learn_update)
        return be->learn_update(net, u, err);
    switch (u->rule) {
    case OPTIM_ADAGRAD:
        update(OPTIM_ADAGRAD, u, n, g, w, a, NULL);
        break;
    case OPTIM_ADADELTA:
        update(OPTIM_ADADELTA, u, n, g, w, a, b);
        break;
    case OPTIM_ADAM:
        update(OPTIM_ADAM, u, n, g, w, a, b);
        break;
    case OPTIM_RMSPROP:
        update(OPTIM_RMSPROP, u, n, g, w, a, b);
        break;
    case OPTIM_MOM:
        update(OPTIM_MOM, u, n, g, w, a, NULL);
        break;
    case OPTIM_COUNT:
        break;
    }
    for (size_t i = 0; l->average && i < n; i++)
        l->average[i] += u->average * (w[i] - l->average[i]);
    return 0;
}
