/* gpu/learn.c - see the header: a network's numbers on the card, and what
 * happens to them between runs. */
#include "gpu/learn.h"

#include <stdlib.h>
#include <string.h>

#include "gpu/gpu_priv.h"
#include "gpu/learn_update.h"

enum {
    SCALE_STEADY = 2000 /* steps after which a larger scale is tried */
};
/* Of the loss, while gradients are f16 (Micikevicius and others 2018): begins
 * where theirs does, and follows what the numbers bear. */
#define SCALE_FIRST 32768.0f
#define SCALE_MOST 16777216.0f

/* ---- which numbers, in which form ---------------------------------------
 */

static int find(const struct gpu_learn *l, int value, int form, int c)
{
    for (int i = 0; i < l->n_numbers; i++) {
        const struct learn_numbers *a = &l->numbers[i];

        if (a->value == value && a->form == form &&
            (form != LEARN_FORM_VECTOR || a->c == c))
            return i;
    }
    return -1;
}

const struct learn_numbers *gpu_learn_numbers(struct gpu_learn *l, int value,
                                              int form, int c,
                                              struct error *err)
{
    int i = find(l, value, form, c);

    if (i < 0)
        return error_null(err, ERR_INTERNAL, "weights that were not loaded");
    return &l->numbers[i];
}

static size_t padded_count(const struct learn_numbers *a)
{
    size_t k = (size_t)arith_padded(a->k), hw = (size_t)a->h * (size_t)a->w;

    switch (a->form) {
    case LEARN_FORM_CONV:
        return k * hw * (size_t)arith_padded(a->c);
    case LEARN_FORM_GROUPED:
        return k * hw * (size_t)a->c;
    case LEARN_FORM_DEPTHWISE:
        return k * hw;
    default:
        return (size_t)arith_padded(a->c);
    }
}

static int add(struct gpu_learn *l, int value, int form, int c,
               struct error *err)
{
    const struct shape *s = &l->l.graph->values[value].shape;
    int tensor = l->l.tensor[value];
    struct learn_numbers a = {.value = value, .form = form, .h = 1, .w = 1};

    if (find(l, value, form, c) >= 0)
        return 0;
    a.tensor = tensor < 0 ? -1 : tensor;
    if (form == LEARN_FORM_VECTOR) {
        a.c = c;
        if (shape_count(s) != (size_t)c && shape_count(s) != 1)
            return error_set(err, ERR_MODEL,
                             "%zu numbers for %d channels: not for training "
                             "on a card",
                             shape_count(s), c);
    } else {
        a.k = s->d[0];
        a.c = s->d[1];
        a.h = s->rank > 2 ? s->d[2] : 1;
        a.w = s->rank > 3 ? s->d[3] : 1;
    }
    for (int i = 0; tensor >= 0 && i < l->n_numbers; i++)
        if (l->numbers[i].value == value)
            return error_set(err, ERR_MODEL,
                             "one weight in two forms: not for training on a "
                             "card");
    if (tensor >= 0 && form == LEARN_FORM_VECTOR && c > 1 &&
        shape_count(s) == 1)
        return error_set(err, ERR_MODEL,
                         "one number that learns for %d channels: not for "
                         "training on a card",
                         c);
    if (l->n_numbers == l->room)
        return error_set(err, ERR_INTERNAL, "more weights than were counted");
    a.count = padded_count(&a);
    a.count = (a.count + ARITH_LANES - 1) / ARITH_LANES * ARITH_LANES;
    l->numbers[l->n_numbers++] = a;
    return 0;
}

int gpu_learn_form(const struct node *n, const struct shape *w)
{
    int group = n->op.type == OP_CONV ? n->op.u.conv.group : 1;

    return group == 1                         ? LEARN_FORM_CONV
           : w->d[1] == 1 && w->d[0] == group ? LEARN_FORM_DEPTHWISE
                                              : LEARN_FORM_GROUPED;
}

/* Channels of what a node's vectors are for. */
static int channels(const struct gpu_learn *l, const struct shape *shapes,
                    const struct node *n)
{
    if (n->op.type == OP_CONV || n->op.type == OP_GEMM)
        return l->l.graph->values[n->in[1]].shape.d[0];
    return gpu_dims(&shapes[n->in[0]]).c;
}

static int add_node(struct gpu_learn *l, const struct shape *shapes,
                    const struct node *n, struct error *err)
{
    const struct graph *g = l->l.graph;

    for (int k = 0; k < n->n_in; k++) {
        bool first = k == 1 && (n->op.type == OP_CONV || n->op.type == OP_GEMM);
        int v = n->in[k], form;

        if (g->values[v].kind != VALUE_WEIGHT)
            continue;
        if (k == 0)
            return error_set(err, ERR_MODEL,
                             "a weight as the first input: not for training "
                             "on a card");
        form =
            first ? gpu_learn_form(n, &g->values[v].shape) : LEARN_FORM_VECTOR;
        if (add(l, v, form, channels(l, shapes, n), err))
            return -1;
    }
    return 0;
}

/* Which region of the arrays: weights that decay, other weights, statistics,
 * constants. */
static int region(const struct gpu_learn *l, const struct learn_numbers *a)
{
    const struct learn_tensor *t =
        a->tensor < 0 ? NULL : &l->l.learn.tensors[a->tensor];

    return !t ? 3 : t->statistic ? 2 : t->decays ? 0 : 1;
}

static void place(struct gpu_learn *l)
{
    for (int r = 0; r < 4; r++) {
        for (int i = 0; i < l->n_numbers; i++)
            if (region(l, &l->numbers[i]) == r) {
                l->numbers[i].at = l->n;
                l->n += l->numbers[i].count;
            }
        if (r == 0)
            l->n_decays = l->n;
        if (r == 1)
            l->n_weights = l->n;
    }
}

static int find_numbers(struct gpu_learn *l, struct error *err)
{
    const struct graph *g = l->l.graph;
    const struct shape *in = &g->values[g->input].shape;
    struct shape *shapes = calloc((size_t)g->n_values + 1, sizeof(*shapes));
    int rc;

    for (int i = 0; i < g->n_nodes; i++)
        l->room += g->nodes[i].n_in;
    l->numbers = calloc((size_t)l->room + 1, sizeof(*l->numbers));
    if (!shapes || !l->numbers) {
        free(shapes);
        return error_set(err, ERR_NOMEM, "no memory for a network");
    }
    /* Channels are the same whatever the picture's size. */
    rc = graph_shapes(g, 1, in->d[2] ? 0 : 64, in->d[3] ? 0 : 64, shapes, err);
    for (int i = 0; !rc && i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];

        rc = add_node(l, shapes, n, err);
        if (rc)
            error_context(err, "node '%.80s'", n->name);
        if ((n->op.type == OP_CONV || n->op.type == OP_GEMM) &&
            (size_t)arith_padded(channels(l, shapes, n)) > l->n_zeros)
            l->n_zeros = (size_t)arith_padded(channels(l, shapes, n));
    }
    free(shapes);
    if (!rc)
        place(l);
    return rc;
}

/* ---- to and from the card -------------------------------------------------
 */

/* Where number i of a value, as the graph has them, stands in a's. */
static size_t place_of(const struct learn_numbers *a, size_t i)
{
    size_t w = (size_t)a->w, h = (size_t)a->h, c = (size_t)a->c;
    size_t x = i % w, y = i / w % h, ch = i / w / h % c, k = i / w / h / c;

    switch (a->form) {
    case LEARN_FORM_CONV:
        return ((k * h + y) * w + x) * (size_t)arith_padded(a->c) + ch;
    case LEARN_FORM_GROUPED:
        return ((k * h + y) * w + x) * c + ch;
    case LEARN_FORM_DEPTHWISE:
        return (y * w + x) * (size_t)arith_padded(a->k) + k;
    default:
        return i;
    }
}

static void pack(const struct learn_numbers *a, const float *from, size_t n,
                 float *to)
{
    memset(to, 0, a->count * sizeof(*to));
    if (a->form == LEARN_FORM_VECTOR && n == 1)
        for (int c = 0; c < a->c; c++)
            to[c] = from[0];
    else
        for (size_t i = 0; i < n; i++)
            to[place_of(a, i)] = from[i];
}

/* Weights or statistics, of a learnable's array, to an array on the card. */
static int send(struct gpu_learn *l, bool statistics, const float *from,
                float *card, struct error *err)
{
    size_t first = statistics ? l->n_weights : 0, end = first;
    float *staging = calloc(l->n + 1, sizeof(*staging));
    int rc;

    if (!staging)
        return error_set(err, ERR_NOMEM, "no memory for weights");
    for (int i = 0; i < l->n_numbers; i++) {
        const struct learn_numbers *a = &l->numbers[i];
        const struct learn_tensor *t =
            a->tensor < 0 ? NULL : &l->l.learn.tensors[a->tensor];

        if (!t || t->statistic != statistics)
            continue;
        pack(a, from + t->offset, t->count, staging + a->at);
        end = a->at + a->count > end ? a->at + a->count : end;
    }
    rc = end > first ? card_upload(l->dev->card, card + first, staging + first,
                                   (end - first) * sizeof(*card), err)
                     : 0;
    free(staging);
    return rc;
}

static int bring(struct gpu_learn *l, bool statistics, const float *card,
                 float factor, float *to, struct error *err)
{
    float *staging = calloc(l->n + 1, sizeof(*staging));
    size_t first = statistics ? l->n_weights : 0;
    size_t end = statistics ? l->n : l->n_weights;
    int rc = 0;

    if (!staging)
        return error_set(err, ERR_NOMEM, "no memory for weights");
    if (end > first)
        rc = card_copy_out(l->stream, staging + first, card + first,
                           (end - first) * sizeof(*card), err) ||
             card_wait(l->stream, err);
    for (int i = 0; !rc && i < l->n_numbers; i++) {
        const struct learn_numbers *a = &l->numbers[i];
        const struct learn_tensor *t =
            a->tensor < 0 ? NULL : &l->l.learn.tensors[a->tensor];

        for (size_t k = 0; t && t->statistic == statistics && k < t->count; k++)
            to[t->offset + k] = factor * staging[a->at + place_of(a, k)];
    }
    free(staging);
    return rc ? -1 : 0;
}

static int send_constants(struct gpu_learn *l, struct error *err)
{
    for (int i = 0; i < l->n_numbers; i++) {
        const struct learn_numbers *a = &l->numbers[i];
        const struct value *v = &l->l.graph->values[a->value];
        float *staging;
        int rc;

        if (a->tensor >= 0)
            continue;
        staging = calloc(a->count, sizeof(*staging));
        if (!staging)
            return error_set(err, ERR_NOMEM, "no memory for weights");
        pack(a, v->data, shape_count(&v->shape), staging);
        rc = card_upload(l->dev->card, l->all + a->at, staging,
                         a->count * sizeof(*staging), err);
        free(staging);
        if (rc)
            return -1;
    }
    return 0;
}

/* All numbers anew in 16 bits. */
static int fill_typed(struct gpu_learn *l, enum gtype type, struct error *err)
{
    float *from = malloc((l->n + 1) * sizeof(*from));
    uint16_t *to = malloc((l->n + 1) * sizeof(*to));
    int rc = -1;

    if (!from || !to)
        error_set(err, ERR_NOMEM, "no memory for weights");
    else
        rc =
            card_copy_out(l->stream, from, l->all, l->n * sizeof(*from), err) ||
                    card_wait(l->stream, err)
                ? -1
                : 0;
    for (size_t i = 0; !rc && i < l->n; i++)
        to[i] =
            type == GTYPE_F16 ? arith_to_f16(from[i]) : arith_to_bf16(from[i]);
    if (!rc)
        rc = card_upload(l->dev->card, l->typed[type], to, l->n * sizeof(*to),
                         err);
    free(from);
    free(to);
    return rc;
}

int gpu_learn_typed(struct gpu_learn *l, enum gtype type, struct error *err)
{
    if (type == GTYPE_F16 && !l->half) {
        l->half = true;
        l->loss_scale = SCALE_FIRST;
    }
    if (type == GTYPE_F32 || l->typed[type])
        return 0;
    l->typed[type] = card_alloc(l->dev->card, l->n * sizeof(uint16_t), err);
    return l->typed[type] ? fill_typed(l, type, err) : -1;
}

static int fill_all_typed(struct gpu_learn *l, struct error *err)
{
    for (int t = 0; t < GTYPE_COUNT; t++)
        if (t != GTYPE_F32 && l->typed[t] && fill_typed(l, (enum gtype)t, err))
            return -1;
    return 0;
}

int gpu_learn_get(struct network *net, unsigned parts, struct error *err)
{
    struct gpu_learn *l = (struct gpu_learn *)net;
    struct learnable *a = &l->l.learn;
    float factor = l->scaled ? 1 / l->loss_scale : 1;

    if (card_enter(l->dev->card, err) ||
        ((parts & LEARN_WEIGHTS) &&
         bring(l, false, l->all, 1, a->weights, err)) ||
        ((parts & LEARN_STATISTICS) &&
         bring(l, true, l->all, 1, a->statistics, err)) ||
        ((parts & LEARN_GRADIENTS) &&
         bring(l, false, l->gradients, factor, a->gradients, err)))
        return -1;
    for (int k = 0; (parts & LEARN_SLOTS) && k < LEARN_MAX_SLOTS; k++)
        if (a->slots[k] && l->slots[k] &&
            bring(l, false, l->slots[k], 1, a->slots[k], err))
            return -1;
    return (parts & LEARN_SLOTS) && a->average && l->average
               ? bring(l, false, l->average, 1, a->average, err)
               : 0;
}

static int put_own(struct gpu_learn *l, const float *from, float **to,
                   struct error *err)
{
    size_t bytes = l->n_weights * sizeof(float);

    if (!from)
        return 0;
    if (!*to)
        *to = card_alloc(l->dev->card, bytes, err);
    return !*to || card_fill(l->dev->card, *to, 0, bytes, err)
               ? -1
               : send(l, false, from, *to, err);
}

int gpu_learn_put(struct network *net, unsigned parts, struct error *err)
{
    struct gpu_learn *l = (struct gpu_learn *)net;
    const struct learnable *a = &l->l.learn;

    if (card_enter(l->dev->card, err) ||
        ((parts & LEARN_WEIGHTS) && send(l, false, a->weights, l->all, err)) ||
        ((parts & LEARN_STATISTICS) &&
         send(l, true, a->statistics, l->all, err)) ||
        ((parts & LEARN_WEIGHTS) && fill_all_typed(l, err)))
        return -1;
    if (parts & LEARN_GRADIENTS) {
        l->scaled = false;
        if (send(l, false, a->gradients, l->gradients, err))
            return -1;
    }
    for (int k = 0; (parts & LEARN_SLOTS) && k < LEARN_MAX_SLOTS; k++)
        if (put_own(l, a->slots[k], &l->slots[k], err))
            return -1;
    return (parts & LEARN_SLOTS) ? put_own(l, a->average, &l->average, err) : 0;
}

/* ---- between runs ---------------------------------------------------------
 */

int gpu_learn_clear(struct network *net, struct error *err)
{
    struct gpu_learn *l = (struct gpu_learn *)net;

    l->scaled = false;
    return card_enter(l->dev->card, err)
               ? -1
               : card_fill(l->dev->card, l->gradients, 0,
                           l->n_weights * sizeof(float), err);
}

static struct learn_flat flat(struct gpu_learn *l)
{
    struct learn_flat f = {.weights = l->all,
                           .gradients = l->gradients,
                           .average = l->average,
                           .n = l->n_weights,
                           .n_decays = l->n_decays,
                           .scratch = l->scratch.p};

    for (int k = 0; k < LEARN_MAX_SLOTS; k++)
        f.slots[k] = l->slots[k];
    for (int t = 0; t < GTYPE_COUNT; t++)
        f.typed[t] = l->typed[t];
    return f;
}

int gpu_learn_norm(struct network *net, float decay, double *norm,
                   struct error *err)
{
    struct gpu_learn *l = (struct gpu_learn *)net;
    struct learn_flat f = flat(l);

    if (card_enter(l->dev->card, err) ||
        learn_card_norm(l->stream, &f, decay, l->scaled ? 1 / l->loss_scale : 1,
                        norm, err))
        return -1;
    l->scaled = false;
    if (!l->half)
        return 0;
    if (!isfinite(*norm) && l->loss_scale > 1) {
        l->loss_scale /= 2;
        l->n_good = 0;
        return 1;
    }
    if (++l->n_good >= SCALE_STEADY && l->loss_scale < SCALE_MOST) {
        l->loss_scale *= 2;
        l->n_good = 0;
    }
    return 0;
}

int gpu_learn_update(struct network *net, const struct learn_update *u,
                     struct error *err)
{
    struct gpu_learn *l = (struct gpu_learn *)net;
    struct learn_flat f = flat(l);

    return card_enter(l->dev->card, err) ||
                   learn_card_update(l->stream, &f, u, err) ||
                   card_wait(l->stream, err)
               ? -1
               : 0;
}

/* ---- life -------------------------------------------------------------------
 */

void gpu_learn_unload(struct network *net)
{
    struct gpu_learn *l = (struct gpu_learn *)net;
    struct card *c;
    size_t bytes;

    if (!l)
        return;
    c = l->dev->card;
    bytes = l->n_weights * sizeof(float);
    card_enter(c, NULL);
    card_stream_free(l->stream);
    card_release(c, l->all, l->n * sizeof(float));
    for (int t = 0; t < GTYPE_COUNT; t++)
        card_release(c, l->typed[t], l->n * sizeof(uint16_t));
    card_release(c, l->gradients, bytes);
    card_release(c, l->fresh, bytes);
    for (int k = 0; k < LEARN_MAX_SLOTS; k++)
        card_release(c, l->slots[k], bytes);
    card_release(c, l->average, bytes);
    card_release(c, l->zeros, l->n_zeros * sizeof(float));
    card_release(c, l->random, sizeof(*l->random));
    engine_scratch_free(c, &l->scratch);
    free(l->numbers);
    learner_fini(&l->l);
    free(l);
}

static int get_memory(struct gpu_learn *l, struct error *err)
{
    struct card *c = l->dev->card;
    size_t bytes = l->n_weights * sizeof(float);

    l->stream = card_stream_new(c, err);
    if (!l->stream || !(l->all = card_alloc(c, l->n * sizeof(float), err)) ||
        !(l->zeros = card_alloc(c, l->n_zeros * sizeof(float), err)) ||
        !(l->random = card_alloc(c, sizeof(*l->random), err)) ||
        card_fill(c, l->all, 0, l->n * sizeof(float), err) ||
        card_fill(c, l->zeros, 0, l->n_zeros * sizeof(float), err) ||
        engine_scratch(c, &l->scratch, learn_card_scratch(), err))
        return -1;
    if (!l->n_weights)
        return 0;
    if (!(l->gradients = card_alloc(c, bytes, err)) ||
        !(l->fresh = card_alloc(c, bytes, err)) ||
        card_fill(c, l->gradients, 0, bytes, err) ||
        card_fill(c, l->fresh, 0, bytes, err))
        return -1;
    return 0;
}

struct network *gpu_learn_load(struct device *dev, const struct graph *g,
                               const struct learn_options *opt,
                               struct error *err)
{
    struct gpu_learn *l;

    if (card_enter(((struct gpu_device *)dev)->card, err))
        return NULL;
    l = calloc(1, sizeof(*l));
    if (!l)
        return error_null(err, ERR_NOMEM, "no memory for a network");
    l->dev = (struct gpu_device *)dev;
    l->loss_scale = 1;
    l->n_zeros = ARITH_LANES;
    if (!learner_init(&l->l, dev, g, opt, err) && !find_numbers(l, err) &&
        !get_memory(l, err) && !send_constants(l, err) &&
        !gpu_learn_put(&l->l.base, LEARN_WEIGHTS | LEARN_STATISTICS, err))
        return &l->l.base;
    gpu_learn_unload(&l->l.base);
    return NULL;
}
