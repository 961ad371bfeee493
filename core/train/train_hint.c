/* core/train/train_hint.c - hints: pictures inside the teacher that the
 * network imitates at nodes of its own, beside the teacher's vectors
 * (Romero and others, FitNets, arXiv 1412.6550). The loss of a hint is the
 * part of the teacher's variance that the network does not explain:
 * sum (s - t)^2 / sum (t - mean of its channel)^2, over the batch. */
#include "core/train/train_hint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine/tensor.h"
#include "core/train/train_priv.h"

enum {
    HINT_MAX = PLAN_MAX_OUTPUTS - 1, /* output 0 is the vector */
    HINT_BATCH = 16 /* of the teacher: larger ones leave the cache */
};

struct train_hint {
    int n;
    int own[HINT_MAX], other[HINT_MAX]; /* values of both graphs */
    struct network *net;                /* the teacher's, with these outputs */
    struct plan *plan;
    float *pictures[HINT_MAX]; /* [n_batch,c,h,w] of the teacher */
    size_t one[HINT_MAX];      /* numbers of a face */
};

/* ---- which nodes --------------------------------------------------------- */

/* The value that the node of this name makes. */
static int find_value(const struct graph *g, const char *name,
                      const char *whose, struct error *err)
{
    for (int i = 0; i < g->n_nodes; i++)
        if (strcmp(g->nodes[i].name, name) == 0)
            return g->nodes[i].out;
    return error_set(err, ERR_BAD_FIELD,
                     "distill_hints: %s has no node '%.60s'; facenetctl model "
                     "info lists them",
                     whose, name);
}

static int take_pair(struct train *t, char *pair, struct error *err)
{
    struct train_hint *h = t->hint;
    char *equals = strchr(pair, '=');

    if (!equals)
        return error_set(err, ERR_BAD_FIELD,
                         "distill_hints: '%.80s' is not OWN_NODE=TEACHER_NODE",
                         pair);
    if (h->n == HINT_MAX)
        return error_set(err, ERR_BAD_FIELD, "distill_hints: at most %d",
                         HINT_MAX);
    *equals = '\0';
    h->own[h->n] = find_value(t->graph, pair, "the network", err);
    if (h->own[h->n] < 0)
        return -1;
    h->other[h->n] =
        find_value(t->teacher->graph, equals + 1, "the teacher", err);
    if (h->other[h->n] < 0)
        return -1;
    h->n++;
    return 0;
}

static int take_pairs(struct train *t, struct error *err)
{
    char *copy = strdup(t->a->distill_hints), *next = copy, *pair;
    int rc = 0;

    if (!copy)
        return error_set(err, ERR_NOMEM, "no memory for distill_hints");
    while (rc == 0 && (pair = strsep(&next, ",")))
        rc = take_pair(t, pair, err);
    free(copy);
    return rc;
}

/* Both sides of a hint must have one shape. */
static int check_shapes(struct train *t, struct error *err)
{
    struct train_hint *h = t->hint;
    const struct contract *c = &t->contract, *d = &t->teacher->contract;
    struct shape *own = calloc((size_t)t->graph->n_values, sizeof(*own));
    struct shape *other =
        calloc((size_t)t->teacher->graph->n_values, sizeof(*other));
    char a[64], b[64];
    int rc = -1;

    if (!own || !other)
        error_set(err, ERR_NOMEM, "no memory for shapes");
    else
        rc = graph_shapes(t->graph, 1, c->height, c->width, own, err) ||
                     graph_shapes(t->teacher->graph, 1, d->height, d->width,
                                  other, err)
                 ? -1
                 : 0;
    for (int i = 0; rc == 0 && i < h->n; i++) {
        const struct shape *x = &own[h->own[i]], *y = &other[h->other[i]];

        h->one[i] = shape_count(x);
        if (!shape_equal(x, y))
            rc = error_set(err, ERR_BAD_FIELD,
                           "distill_hints: the network has %s where the "
                           "teacher has %s",
                           shape_text(x, a, sizeof(a)),
                           shape_text(y, b, sizeof(b)));
    }
    free(own);
    free(other);
    return rc;
}

/* g with these values as outputs too; owned. */
static struct graph *with_outputs(const struct graph *g, const int *values,
                                  int n, struct error *err)
{
    struct graph *out = graph_dup(g, err);

    if (out)
        out->n_outputs = 1;
    for (int i = 0; out && i < n; i++) {
        if (graph_add_output(out, values[i], err) >= 0)
            continue;
        graph_free(out);
        out = NULL;
    }
    return out;
}

/* ---- the teacher --------------------------------------------------------- */

static int load_teacher(struct train *t, struct error *err)
{
    struct train_hint *h = t->hint;
    const struct contract *c = &t->teacher->contract;
    struct plan_options opt = {.n = HINT_BATCH,
                               .h = c->height,
                               .w = c->width,
                               .precision = t->precision.rest};
    struct graph *g = with_outputs(t->teacher->graph, h->other, h->n, err);

    h->net = g ? network_new(t->dev, g, err) : NULL;
    graph_free(g);
    h->plan = h->net ? graph_plan(h->net, &opt, err) : NULL;
    if (!h->plan)
        return error_context(err, "teacher");
    for (int i = 0; i < h->n; i++) {
        h->pictures[i] = tensor_alloc((size_t)t->a->batch_size * h->one[i]);
        if (!h->pictures[i])
            return error_set(err, ERR_NOMEM, "no memory for hints");
    }
    return 0;
}

struct graph *train_hint_graph(struct train *t, struct error *err)
{
    t->hint = calloc(1, sizeof(*t->hint));
    if (!t->hint)
        return error_null(err, ERR_NOMEM, "no memory for hints");
    if (take_pairs(t, err) || check_shapes(t, err) || load_teacher(t, err))
        return NULL;
    return with_outputs(t->graph, t->hint->own, t->hint->n, err);
}

void train_hint_fini(struct train *t)
{
    struct train_hint *h = t->hint;

    if (!h)
        return;
    plan_free(h->plan);
    if (h->net)
        network_free(h->net);
    for (int i = 0; i < h->n; i++)
        free(h->pictures[i]);
    free(h);
}

int train_hint_teach(struct train *t, struct error *err)
{
    struct train_hint *h = t->hint;
    const struct contract *c = &t->teacher->contract;
    size_t one = 3 * (size_t)c->width * (size_t)c->height;
    size_t dim = (size_t)t->dim;

    for (int from = 0; from < t->n_batch; from += HINT_BATCH) {
        size_t n = (size_t)(t->n_batch - from < HINT_BATCH ? t->n_batch - from
                                                           : HINT_BATCH);
        size_t at = (size_t)from;
        float *x = plan_input(h->plan);

        memcpy(x, t->tutor_x + at * one, n * one * sizeof(float));
        memset(x + n * one, 0, (HINT_BATCH - n) * one * sizeof(float));
        if (graph_forward(h->plan, err))
            return -1;
        triplet_normalise(plan_output(h->plan, 0), (int)n, t->dim,
                          t->tutor_y + at * dim);
        for (int i = 0; i < h->n; i++)
            memcpy(h->pictures[i] + at * h->one[i], plan_output(h->plan, i + 1),
                   n * h->one[i] * sizeof(float));
    }
    return 0;
}

/* ---- loss ---------------------------------------------------------------- */

/* Sum over the batch of (t - mean of its channel)^2. */
static double variance(const float *x, const struct shape *s)
{
    size_t c = (size_t)s->d[1], hw = shape_count(s) / c / (size_t)s->d[0];
    double sum = 0;

    for (size_t k = 0; k < c; k++) {
        double first = 0, second = 0, all = (double)s->d[0] * (double)hw;

        for (size_t n = 0; n < (size_t)s->d[0]; n++) {
            const float *row = x + (n * c + k) * hw;
            float one = 0, two = 0;

            for (size_t i = 0; i < hw; i++) {
                one += row[i];
                two += row[i] * row[i];
            }
            first += (double)one;
            second += (double)two;
        }
        sum += second - first * first / all;
    }
    return sum;
}

double train_hint_loss(struct train *t)
{
    struct train_hint *h = t->hint;
    double weight = t->a->distill_hint_weight, sum = 0;

    for (int i = 0; i < h->n; i++) {
        const float *s = plan_output(t->plan, i + 1), *y = h->pictures[i];
        float *g = plan_gradient(t->plan, i + 1);
        size_t n = (size_t)t->n_batch * h->one[i];
        double all = variance(y, plan_output_shape(t->plan, i + 1)), left = 0;
        float part = (float)(2 * weight / (all > 1e-12 ? all : 1e-12));
        char tag[32];

        for (size_t k = 0; k < n; k++) {
            float d = s[k] - y[k];

            left += (double)d * (double)d;
            if (g)
                g[k] = part * d;
        }
        left /= all > 1e-12 ? all : 1e-12;
        snprintf(tag, sizeof(tag), "hint/%d", i);
        train_report_scalar(t, tag, left);
        sum += left;
    }
    return weight * sum;
}
