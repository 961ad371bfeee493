/* core/face/embed.c - chips to unit vectors: one network, a plan for each
 * batch size, the smallest that holds what waits. After align and the queue,
 * before distance; the inference worker and the tools call it. */
#include "core/face/embed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/face/distance.h"

enum {
    MOST_PLANS = 16,
    MOST_BATCH = 1024
};

struct embedder {
    struct network *net;
    struct plan *plans[MOST_PLANS]; /* by growing batch size */
    int sizes[MOST_PLANS];
    int n_plans;
    int dim;
    size_t n_input; /* floats of one chip */
};

static int make_plans(struct embedder *e, const struct model *m, int batch_max,
                      enum precision precision, struct error *err)
{
    for (int n = 1;; n = 2 * n < batch_max ? 2 * n : batch_max) {
        struct plan_options opt = {.n = n,
                                   .h = m->contract.height,
                                   .w = m->contract.width,
                                   .precision = precision};
        struct plan *p = graph_plan(e->net, &opt, err);
        const struct shape *s;
        if (!p) {
            error_context(err, "%s: batch of %d", m->name, n);
            return -1;
        }
        e->plans[e->n_plans] = p;
        e->sizes[e->n_plans++] = n;
        s = plan_output_shape(p, 0);
        if (shape_count(s) != (size_t)n * (size_t)e->dim ||
            shape_count(&p->shape_in) != (size_t)n * e->n_input) {
            char text[64];
            return error_set(err, ERR_MODEL,
                             "%s: gives %s for a batch of %d, its contract "
                             "says %d numbers a face",
                             m->name, shape_text(s, text, sizeof(text)), n,
                             e->dim);
        }
        if (n == batch_max)
            return 0;
    }
}

struct embedder *embedder_new(struct device *dev, const struct model *m,
                              int batch_max, enum precision precision,
                              struct error *err)
{
    const struct contract *c = &m->contract;
    struct embedder *e;

    if (c->kind != MODEL_EMBEDDER || c->dim < 1 || c->width < 1 ||
        c->height < 1)
        return error_null(err, ERR_MODEL, "%s: not a network for embeddings",
                          m->name);
    if (batch_max < 1 || batch_max > MOST_BATCH)
        return error_null(err, ERR_BAD_FIELD,
                          "batch of %d: 1 to %d are possible", batch_max,
                          MOST_BATCH);
    e = calloc(1, sizeof(*e));
    if (!e)
        return error_null(err, ERR_NOMEM, "no memory for an embedder");
    e->dim = c->dim;
    e->n_input = 3 * (size_t)c->width * (size_t)c->height;
    e->net = network_new(dev, m->graph, err);
    if (!e->net || make_plans(e, m, batch_max, precision, err)) {
        embedder_free(e);
        return NULL;
    }
    return e;
}

void embedder_free(struct embedder *e)
{
    if (!e)
        return;
    for (int i = 0; i < e->n_plans; i++)
        plan_free(e->plans[i]);
    if (e->net)
        network_free(e->net);
    free(e);
}

/* n at most the largest plan's. */
static int run_batch(struct embedder *e, const float *const *chips, int n,
                     float *out, int *bad, struct error *err)
{
    size_t dim = (size_t)e->dim;
    int k = 0;
    float *input;

    while (e->sizes[k] < n)
        k++;
    input = plan_input(e->plans[k]);
    for (int i = 0; i < n; i++)
        memcpy(input + (size_t)i * e->n_input, chips[i],
               e->n_input * sizeof(float));
    memset(input + (size_t)n * e->n_input, 0,
           (size_t)(e->sizes[k] - n) * e->n_input * sizeof(float));
    if (graph_forward(e->plans[k], err))
        return -1;
    memcpy(out, plan_output(e->plans[k], 0), (size_t)n * dim * sizeof(float));
    for (int i = 0; i < n; i++) {
        float *row = out + (size_t)i * dim;
        if (distance_normalise(row, dim))
            continue;
        for (size_t d = 0; d < dim; d++)
            row[d] = NAN;
        ++*bad;
    }
    return 0;
}

int embedder_run(struct embedder *e, const float *const *chips, int n,
                 float *out, int *bad, struct error *err)
{
    int most = embedder_batch_max(e), n_bad = 0;

    for (int from = 0, round; from < n; from += round) {
        round = n - from < most ? n - from : most;
        if (run_batch(e, chips + from, round,
                      out + (size_t)from * (size_t)e->dim, &n_bad, err))
            return -1;
    }
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
    return e->sizes[e->n_plans - 1];
}

enum precision embedder_precision(const struct embedder *e)
{
    return e->plans[0]->info.precision;
}
