/* gpu/gpu.c - the backend table over one NVIDIA card, and the one function
 * that the plugin exports. Devices and networks; plans are made in plan.c. */
#include "gpu/gpu.h"
#include "gpu/gpu_priv.h"
#include "gpu/learn.h"
#include "gpu/search.h"
#include "gpu/triplets.h"

#include <stdio.h>
#include <stdlib.h>

static void device_close(struct device *dev)
{
    struct gpu_device *d = (struct gpu_device *)dev;

    if (!d)
        return;
    if (d->card) {
        card_enter(d->card, NULL);
        dnn_close(d->dnn);
    }
    tune_free(d->tune);
    card_close(d->card);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

static struct device *device_open(const struct device_options *opt,
                                  struct error *err)
{
    struct gpu_device *d = calloc(1, sizeof(*d));
    char version[32], card[160], identity[224];

    if (!d)
        return error_null(err, ERR_NOMEM, "no memory for a device");
    d->base.backend = facenetd_backend(BACKEND_ABI);
    d->tunes = opt->tune;
    pthread_mutex_init(&d->lock, NULL);
    d->card = card_open(opt, err);
    if (d->card) {
        dnn_version(version, sizeof(version));
        card_identity(d->card, card, sizeof(card));
        snprintf(identity, sizeof(identity), "%s on %s", version, card);
        d->tune = tune_new(opt->cache_dir, identity, err);
        d->dnn = d->tune ? dnn_open(NULL, err) : NULL;
    }
    if (d->dnn)
        return &d->base;
    device_close(&d->base);
    return NULL;
}

static void device_describe(const struct device *dev, struct device_info *out)
{
    const struct gpu_device *d = (const struct gpu_device *)dev;

    memset(out, 0, sizeof(*out));
    card_describe(d->card, out);
    out->fast_f16 = true;
    out->any_bf16 = card_level(d->card) >= 80;
}

static void unload(struct network *net)
{
    struct gpu_network *n = (struct gpu_network *)net;

    if (!n)
        return;
    if (net->learn) {
        gpu_learn_unload(net);
        return;
    }
    card_enter(((struct gpu_device *)net->device)->card, NULL);
    weights_free(n->weights);
    graph_free(n->graph);
    free(n);
}

static struct network *load(struct device *dev, const struct graph *g,
                            struct error *err)
{
    struct gpu_device *d = (struct gpu_device *)dev;
    struct gpu_network *n;

    if (card_enter(d->card, err))
        return NULL;
    n = calloc(1, sizeof(*n));
    if (!n)
        return error_null(err, ERR_NOMEM, "no memory for a network");
    n->base.device = dev;
    n->graph = graph_fuse(g, err);
    n->weights = n->graph ? weights_new(d->card, n->graph, err) : NULL;
    if (n->weights)
        return &n->base;
    unload(&n->base);
    return NULL;
}

static struct plan *plan(struct network *net, const struct plan_options *opt,
                         struct error *err)
{
    return net->learn ? gpu_learn_plan(net, opt, err)
                      : gpu_plan_new(net, opt, err);
}

static struct rows *rows_new(struct device *dev, const struct rows_options *opt,
                             struct error *err)
{
    return search_rows_new(dev, ((struct gpu_device *)dev)->card, opt, err);
}

static int triplets(struct device *dev, const struct triplets_ask *ask,
                    struct error *err)
{
    return triplets_select(((struct gpu_device *)dev)->card, ask, err);
}

const struct backend *facenetd_backend(uint32_t abi)
{
    static const struct backend table = {
        .abi = BACKEND_ABI,
        .name = "cuda",
        .device_open = device_open,
        .device_close = device_close,
        .device_describe = device_describe,
        .load = load,
        .unload = unload,
        .plan = plan,
        .plan_free = gpu_plan_free,
        .forward = gpu_forward,
        .load_learning = gpu_learn_load,
        .backward = gpu_learn_backward,
        .learn_get = gpu_learn_get,
        .learn_put = gpu_learn_put,
        .learn_clear = gpu_learn_clear,
        .learn_norm = gpu_learn_norm,
        .learn_update = gpu_learn_update,
        .rows_new = rows_new,
        .rows_free = search_rows_free,
        .rows_put = search_rows_put,
        .rows_wipe = search_rows_wipe,
        .rows_best = search_rows_best,
        .triplets = triplets,
    };

    return abi == BACKEND_ABI ? &table : NULL;
}
