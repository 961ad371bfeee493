/* core/train/train_setup.c - the network of a run: an ONNX model with its
 * contract or a fresh one by name, its dropout, what of it is frozen, its
 * plans, its teacher. First step of a run; everything it makes stands in
 * struct train. */
#include "core/train/train_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arch/arch.h"
#include "core/engine/tensor.h"
#include "core/train/train_hint.h"

enum {
    EMBED_BATCH = 32 /* of the parent and the teacher, at least */
};

/* ---- where the network comes from ---------------------------------------- */

static int check_image_size(const struct train *t, const char *name,
                            struct error *err)
{
    int w = t->contract.width, h = t->contract.height, a = t->a->image_size;

    /* An argument that is not its default was meant. */
    if (a == t->defaults.image_size || (w == a && h == a))
        return 0;
    return error_set(err, ERR_BAD_FIELD,
                     "image_size: %d, but the input of %.80s is %dx%d", a, name,
                     w, h);
}

/* A pretrained model brings its crop and scale: others would feed it what it
 * has never seen. */
static int check_words(const struct train *t, struct error *err)
{
    char crop[64], scale[160];

    contract_crop_text(&t->contract, crop, sizeof(crop));
    contract_scale_text(&t->contract, scale, sizeof(scale));
    if (t->a->crop[0] && strcmp(t->a->crop, crop) != 0)
        return error_set(err, ERR_BAD_FIELD,
                         "crop: %.60s, but the pretrained model's is %s",
                         t->a->crop, crop);
    if (t->a->scale[0] && strcmp(t->a->scale, scale) != 0)
        return error_set(err, ERR_BAD_FIELD,
                         "scale: %.60s, but the pretrained model's is %s",
                         t->a->scale, scale);
    return 0;
}

static int from_model(struct train *t, struct error *err)
{
    const char *path = t->a->pretrained_model;

    t->parent = model_load(path, t->cpu, NULL, err);
    if (!t->parent)
        return -1;
    if (t->parent->contract.kind != MODEL_EMBEDDER)
        return error_set(err, ERR_BAD_FIELD,
                         "pretrained_model: '%.100s' is a detector", path);
    t->contract = t->parent->contract;
    t->contract.golden = NULL;
    t->contract.n_golden = 0;
    if (check_words(t, err))
        return -1;
    if (t->a->embedding_size != t->defaults.embedding_size &&
        t->a->embedding_size != t->contract.dim)
        return error_set(err, ERR_BAD_FIELD,
                         "embedding_size: %d, but '%.80s' gives %d numbers",
                         t->a->embedding_size, t->parent->name,
                         t->contract.dim);
    return check_image_size(t, t->parent->name, err);
}

/* The crop that a network's input asks for: five points for 112x112, else the
 * script's margin of 44 at 182 around an input of 160, in proportion. */
static int contract_of(struct train *t, const struct arch_info *info,
                       struct error *err)
{
    const char *scale = t->a->scale[0] ? t->a->scale : "per-image";
    char crop[64];

    if (t->a->crop[0]) {
        if (contract_parse_crop(&t->contract, t->a->crop, err))
            return error_context(err, "crop");
    } else {
        if (info->width == 112 && info->height == 112) {
            snprintf(crop, sizeof(crop), "arcface-112");
        } else {
            int side = info->width > info->height ? info->width : info->height;
            int size = (side * 182 + 80) / 160;

            snprintf(crop, sizeof(crop), "box-margin:%d,%d",
                     (size * 44 + 91) / 182, size);
        }
        if (contract_parse_crop(&t->contract, crop, err))
            return -1;
    }
    if (contract_parse_scale(&t->contract, scale, err))
        return error_context(err, "scale");
    return 0;
}

static int from_arch(struct train *t, struct error *err)
{
    const char *name = t->a->arch[0] ? t->a->arch : t->a->model_def;
    const struct arch_info *info = arch_find(name);
    struct arch_options opt = {.seed = (uint64_t)t->a->seed,
                               .embedding_size = t->a->embedding_size};

    if (!info || !info->embedding_size)
        return error_set(err, ERR_BAD_FIELD,
                         "%s: '%.60s' is no network for embeddings; "
                         "facenetctl model new --help lists them",
                         t->a->arch[0] ? "arch" : "model_def", name);
    if (t->teacher && t->a->embedding_size == t->defaults.embedding_size)
        opt.embedding_size = t->teacher->contract.dim;
    t->contract.kind = MODEL_EMBEDDER;
    t->contract.width = info->width;
    t->contract.height = info->height;
    t->contract.dim = opt.embedding_size;
    if (check_image_size(t, name, err) || contract_of(t, info, err))
        return -1;
    t->graph = arch_new(name, &opt, err);
    return t->graph ? 0 : -1;
}

static int load_teacher(struct train *t, struct error *err)
{
    t->teacher = model_load(t->a->distill, t->cpu, NULL, err);
    if (!t->teacher)
        return error_context(err, "distill");
    if (t->teacher->contract.kind != MODEL_EMBEDDER)
        return error_set(err, ERR_BAD_FIELD, "distill: '%.100s' is a detector",
                         t->a->distill);
    return 0;
}

/* ---- dropout ------------------------------------------------------------- */

/* The node after which dropout would stand: the last dense layer. */
static int last_dense(const struct graph *g)
{
    int at = -1;

    for (int i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op.type == OP_GEMM)
            at = i;
    return at;
}

static int copy_weights(const struct graph *g, struct graph *out, int *map,
                        struct error *err)
{
    for (int i = 0; i < g->n_values; i++) {
        const struct value *v = &g->values[i];
        float *data;

        if (v->kind == VALUE_INPUT)
            map[i] = graph_add_input(out, v->name, v->shape.d[1], v->shape.d[2],
                                     v->shape.d[3], err);
        if (v->kind == VALUE_WEIGHT) {
            data = tensor_alloc(shape_count(&v->shape));
            if (!data)
                return error_set(err, ERR_NOMEM, "no memory for weights");
            memcpy(data, v->data, shape_count(&v->shape) * sizeof(*data));
            map[i] = graph_add_weight(out, v->name, &v->shape, data, err);
        }
        if (v->kind != VALUE_NODE && map[i] < 0)
            return -1;
    }
    return 0;
}

/* A copy of g, with dropout of this ratio in it. at: before this node, where
 * there is none yet; -1: those that are there get the ratio. */
static struct graph *copy_graph(const struct graph *g, int at, float ratio,
                                struct error *err)
{
    struct graph *out = graph_new(err);
    int *map = calloc((size_t)g->n_values + 1, sizeof(*map));
    struct op drop = {.type = OP_DROPOUT, .u.dropout.ratio = ratio};
    int bad = !out || !map || copy_weights(g, out, map, err);

    for (int i = 0; !bad && i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        struct op op = n->op;
        int in[GRAPH_MAX_INPUTS];

        for (int k = 0; k < n->n_in; k++)
            in[k] = map[n->in[k]];
        if (op.type == OP_DROPOUT)
            op = drop;
        if (i == at)
            in[0] = graph_add_node(out, "train.dropout", &drop, in, 1,
                                   "train.dropout", err);
        map[n->out] = in[0] < 0 ? -1
                                : graph_add_node(out, n->name, &op, in, n->n_in,
                                                 g->values[n->out].name, err);
        bad = map[n->out] < 0;
    }
    for (int i = 0; !bad && i < g->n_outputs; i++)
        bad = graph_add_output(out, map[g->outputs[i]], err) < 0;
    if (!bad) {
        free(map);
        return out;
    }
    if (!map)
        error_set(err, ERR_NOMEM, "no memory for a network");
    free(map);
    graph_free(out);
    return NULL;
}

/* keep_probability into the graph: its own dropout gets it; where it has none
 * there is one before the last dense layer. */
static int set_dropout(struct train *t, struct error *err)
{
    const struct graph *g = t->graph ? t->graph : t->parent->graph;
    float ratio = (float)(1 - t->a->keep_probability);
    bool has = false;
    struct graph *with;
    int at = -1;

    for (int i = 0; i < g->n_nodes; i++)
        has = has || g->nodes[i].op.type == OP_DROPOUT;
    if (!has && ratio > 0) {
        at = last_dense(g);
        if (at < 0)
            return error_set(err, ERR_BAD_FIELD,
                             "keep_probability: the network has neither "
                             "dropout nor a dense layer to put it before");
    }
    with = copy_graph(g, at, ratio, err);
    if (!with)
        return -1;
    graph_free(t->graph);
    t->graph = with;
    return 0;
}

static int open_device(struct train *t, const char *device, const char *why,
                       struct error *err)
{
    struct train_device_options opt = {.device = device,
                                       .plugin = t->a->device_plugin,
                                       .memory_fraction =
                                           t->a->gpu_memory_fraction,
                                       .tune = t->a->device_tune,
                                       .n_threads = t->a->threads};
    struct error own;

    t->dev = train_device_open(&opt, &own, err);
    if (!t->dev ||
        train_device_precision(t->dev, t->a->precision, &t->precision, err))
        return -1;
    train_report_device(t, *why ? why : own.text);
    return 0;
}

int train_setup_model(struct train *t, struct error *err)
{
    const struct train_args *a = t->a;
    struct device_options all = {.n_threads = a->threads};
    struct device_options one = {.n_threads = 1};

    t->cpu = backend_cpu.device_open(&all, err);
    t->small = t->cpu ? backend_cpu.device_open(&one, err) : NULL;
    if (!t->small || open_device(t, a->device, "", err) ||
        (a->distill[0] && load_teacher(t, err)))
        return -1;
    if (a->pretrained_model[0] ? from_model(t, err) : from_arch(t, err))
        return -1;
    if (t->teacher && t->teacher->contract.dim != t->contract.dim)
        return error_set(err, ERR_BAD_FIELD,
                         "distill: the teacher gives %d numbers, the network "
                         "%d",
                         t->teacher->contract.dim, t->contract.dim);
    if (t->a->distill_mix > 0 && (t->contract.scale == SCALE_STANDARD ||
                                  t->teacher->contract.scale == SCALE_STANDARD))
        return error_set(err, ERR_BAD_FIELD,
                         "distill_mix: photos scaled per-image cannot be "
                         "blended");
    return set_dropout(t, err);
}

/* ---- what learns --------------------------------------------------------- */

static int freeze_point(const struct train *t, int *node, struct error *err)
{
    const char *name = t->a->freeze_until;
    const struct graph *g = t->graph;

    *node = 0;
    if (!name[0])
        return 0;
    for (int i = 0; i < g->n_nodes; i++) {
        if (strcmp(g->nodes[i].name, name) == 0 ||
            strcmp(g->values[g->nodes[i].out].name, name) == 0) {
            *node = i;
            return 0;
        }
    }
    return error_set(err, ERR_BAD_FIELD,
                     "freeze_until: the network has no node '%.80s'; "
                     "facenetctl model info lists them",
                     name);
}

static int load_network(struct train *t, struct error *err)
{
    const char *freeze = t->a->freeze_batch_norm;
    struct learn_options opt = {.freeze_norm =
                                    strcmp(freeze, "yes") == 0 ||
                                    (strcmp(freeze, "auto") == 0 && t->parent),
                                .seed = (uint64_t)t->a->seed};
    struct graph *hinted = NULL;

    if (freeze_point(t, &opt.freeze_until, err))
        return -1;
    if (t->a->distill_hints[0]) {
        hinted = train_hint_graph(t, err);
        if (!hinted)
            return -1;
    }
    t->net =
        network_new_learning(t->dev, hinted ? hinted : t->graph, &opt, err);
    graph_free(hinted);
    if (!t->net)
        return -1;
    t->learn = network_learnable(t->net);
    if (t->learn->n_weights == 0)
        return error_set(err, ERR_BAD_FIELD,
                         "the network has nothing that learns");
    t->at.dropout = t->learn->random;
    return 0;
}

static int make_plans(struct train *t, struct error *err)
{
    struct plan_options opt = {.n = t->a->batch_size,
                               .h = t->contract.height,
                               .w = t->contract.width,
                               .precision = t->precision.learn};

    t->plan = graph_plan(t->net, &opt, err);
    opt.rest = true;
    t->rest = t->plan ? graph_plan(t->net, &opt, err) : NULL;
    if (!t->rest)
        return error_context(err, "batch_size %d", t->a->batch_size);
    return 0;
}

/* On a card a batch that is not full costs little, a plan seconds. */
struct batched *train_embedder(struct train *t, struct device *dev,
                               const struct model *m, int batch,
                               struct error *err)
{
    enum precision p = dev == t->dev ? t->precision.rest : PRECISION_F32;
    struct batched_options opt;

    if (embedder_options(m, batch, p, &opt, err))
        return NULL;
    if (train_device_is_card(dev)) {
        opt.sizes[0] = batch;
        opt.n_sizes = 1;
    }
    return batched_new(dev, m->graph, &opt, err);
}

/* On a card of as many as a batch of training has; on the processor larger ones
 * leave its caches. */
static struct batched *new_embedder(struct train *t, const struct model *m,
                                    struct error *err)
{
    int n = t->a->batch_size;

    if (n < EMBED_BATCH || !train_device_is_card(t->dev))
        n = EMBED_BATCH;
    return train_embedder(t, t->dev, m, n < BATCHED_MOST ? n : BATCHED_MOST,
                          err);
}

/* Everything that stands on the device. */
static int load_device(struct train *t, enum optimizer rule, struct error *err)
{
    if (load_network(t, err) || make_plans(t, err))
        return -1;
    t->optim = optim_new(rule, t->net, err);
    if (!t->optim)
        return -1;
    optim_set_epsilon(t->optim, t->a->adam_epsilon);
    if (t->a->harmonic)
        t->old = new_embedder(t, t->parent, err);
    if (t->teacher && !t->hint)
        t->tutor = new_embedder(t, t->teacher, err);
    return (t->a->harmonic && !t->old) || (t->teacher && !t->hint && !t->tutor)
               ? -1
               : 0;
}

static void leave_device(struct train *t)
{
    batched_free(t->old);
    batched_free(t->tutor);
    train_hint_fini(t);
    optim_free(t->optim);
    plan_free(t->plan);
    plan_free(t->rest);
    network_free(t->net);
    if (t->dev)
        t->dev->backend->device_close(t->dev);
    t->old = t->tutor = NULL;
    t->hint = NULL;
    t->optim = NULL;
    t->plan = t->rest = NULL;
    t->net = NULL;
    t->learn = NULL;
    t->dev = NULL;
}

/* With auto a card that cannot do it is left for the processor. */
static bool may_leave(const struct train *t, const struct error *err)
{
    return train_device_is_card(t->dev) && strcmp(t->a->device, "auto") == 0 &&
           (err->code == ERR_MODEL || err->code == ERR_DEVICE);
}

int train_setup_network(struct train *t, struct error *err)
{
    const struct train_args *a = t->a;
    enum optimizer rule;
    struct error why;

    t->rounds = !t->teacher || a->distill_triplets > 0;
    t->choice = strcmp(a->selection, "facenet") == 0 ? TRIPLET_FACENET
                                                     : TRIPLET_VGGFACE;
    if ((long long)a->people_per_batch * a->images_per_person > TRAIN_MAX_ROUND)
        return error_set(err, ERR_BAD_FIELD,
                         "people_per_batch %d times images_per_person %d: a "
                         "round has at most %d photos",
                         a->people_per_batch, a->images_per_person,
                         TRAIN_MAX_ROUND);
    if (a->learning_rate < 0 &&
        schedule_load(a->learning_rate_schedule_file, &t->schedule, err))
        return error_context(err, "learning_rate_schedule_file");
    if (optim_parse(a->optimizer, &rule, err))
        return -1;
    if (load_device(t, rule, err) == 0)
        return 0;
    if (!may_leave(t, err))
        return train_device_advise(t->dev, a->batch_size, err);
    why = *err;
    leave_device(t);
    return open_device(t, "cpu", why.text, err) || load_device(t, rule, err)
               ? -1
               : 0;
}

void train_setup_fini(struct train *t)
{
    leave_device(t);
    graph_free(t->graph);
    detector_free(t->detector);
    for (int i = 0; i < 3; i++)
        model_free(t->parts[i]);
    model_free(t->parent);
    model_free(t->teacher);
    if (t->small)
        t->small->backend->device_close(t->small);
    if (t->cpu)
        t->cpu->backend->device_close(t->cpu);
}
