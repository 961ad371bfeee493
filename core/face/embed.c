/* core/face/embed.c - chips to unit vectors: a batched network whose rows are
 * normalised. After align and the queue, before distance; the inference worker
 * and the tools call it. */
#include "core/face/embed.h"

#include <math.h>
#include <stdlib.h>

#include "core/face/distance.h"

struct embedder {
    struct batched *net;
    int dim;
};

/* Unit vectors; NaN where there is no length. */
static int normalise(float *rows, int n, size_t dim)
{
    int bad = 0;

    for (int i = 0; i < n; i++, rows += dim) {
        if (distance_normalise(rows, dim))
            continue;
        for (size_t d = 0; d < dim; d++)
            rows[d] = NAN;
        bad++;
    }
    return bad;
}

int embedder_options(const struct model *m, int batch_max,
                     enum precision precision, struct batched_options *out,
                     struct error *err)
{
    const struct contract *c = &m->contract;

    if (c->kind != MODEL_EMBEDDER || c->dim < 1 || c->width < 1 ||
        c->height < 1)
        return error_set(err, ERR_MODEL, "%s: not a network for embeddings",
                         m->name);
    if (batch_max < 1 || batch_max > BATCHED_MOST)
        return error_set(err, ERR_BAD_FIELD,
                         "batch of %d: 1 to %d are possible", batch_max,
                         BATCHED_MOST);
    *out = (struct batched_options){.name = m->name,
                                    .h = c->height,
                                    .w = c->width,
                                    .n_input = 3 * (size_t)c->width *
                                               (size_t)c->height,
                                    .dim = (size_t)c->dim,
                                    .precision = precision,
                                    .finish = normalise};
    batched_sizes(out, 2, batch_max);
    return 0;
}

struct embedder *embedder_new(struct device *dev, const struct model *m,
                              int batch_max, enum precision precision,
                              struct error *err)
{
    struct batched_options opt;
    struct embedder *e;

    if (embedder_options(m, batch_max, precision, &opt, err))
        return NULL;
    e = calloc(1, sizeof(*e));
    if (!e)
        return error_null(err, ERR_NOMEM, "no memory for an embedder");
    e->dim = m->contract.dim;
    e->net = batched_new(dev, m->graph, &opt, err);
    if (e->net)
        return e;
    free(e);
    return NULL;
}

void embedder_free(struct embedder *e)
{
    if (!e)
        return;
    batched_free(e->net);
    free(e);
}

int embedder_run(struct embedder *e, const float *const *chips, int n,
                 float *out, int *bad, struct error *err)
{
    int n_bad;

    if (batched_run(e->net, chips, n, out, &n_bad, err))
        return -1;
    if (bad)
        *bad = n_bad;
    else if (n_bad > 0)
        return error_set(err, ERR_DEVICE,
                         "the network gave no usable embedding for %d of %d "
                         "faces",
                         n_bad, n);
    return 0;
}

int embedder_dim(const struct embedder *e)
{
    return e->dim;
}

int embedder_batch_max(const struct embedder *e)
{
    return batched_most(e->net);
}

enum precision embedder_precision(const struct embedder *e)
{
    return batched_precision(e->net);
}

void embedder_cover_by_time(struct embedder *e)
{
    batched_cover_by_time(e->net);
}

int64_t embedder_time_us(const struct embedder *e, int n)
{
    return batched_time_us(e->net, n);
}
