/* core/train/train_publish.c - the finished model: the moving averages in the
 * graph, under a contract that says what it came from. */
#include "core/train/train_priv.h"

#include <stdio.h>
#include <string.h>

struct graph *train_publish_graph(struct train *t, struct error *err)
{
    if (learn_get(t->net, LEARN_STATISTICS | LEARN_SLOTS, err))
        return NULL;
    return network_graph(t->net, t->graph, t->learn->average, err);
}

/* Counts alone: who is in the data, and where it lies, is nobody's business.
 */
static void describe_source(const struct train *t, int n_thresholds, char *out,
                            size_t len)
{
    char teacher[32] = "";

    if (t->teacher)
        snprintf(teacher, sizeof(teacher), " of %.16s", t->teacher->id);
    snprintf(out, len,
             "facenetd %s train: %s%s, %d people, %d photos, %lld batches of "
             "%d, seed %d%s",
             FACENETD_VERSION,
             t->teacher && t->rounds ? "triplets and distillation"
             : t->teacher            ? "distillation"
             : t->a->harmonic        ? "harmonic triplets"
                                     : "triplets",
             teacher, t->data.n_people, t->data.n_photos, (long long)t->at.step,
             t->n_batch, t->a->seed,
             n_thresholds == 0 ? ""
             : t->held.loader  ? "; thresholds: people held out"
                               : "; thresholds: a list of pairs");
}

/* The pretrained model's stands there; what was learnt of a teacher is the
 * teacher's too. */
static void add_licence(const struct model *teacher, bool alone,
                        char licence[sizeof(((struct contract *)0)->licence)])
{
    const char *more = teacher->contract.licence;
    char own[111]; /* of each so much that both have room */

    if (alone || strcmp(licence, more) == 0) {
        memcpy(licence, more, sizeof(teacher->contract.licence));
        return;
    }
    snprintf(own, sizeof(own), "%.110s", licence);
    snprintf(licence, sizeof(teacher->contract.licence), "%s; teacher: %.110s",
             own, *more ? more : "not stated");
}

static void fill_contract(const struct train *t,
                          const struct train_result *result, struct contract *c)
{
    *c = t->contract;
    c->golden = NULL;
    c->n_golden = 0;
    describe_source(t, result->n_thresholds, c->source, sizeof(c->source));
    c->parent[0] = c->compatible[0] = '\0';
    if (t->parent) {
        memcpy(c->parent, t->parent->id, sizeof(c->parent));
        if (t->a->harmonic)
            memcpy(c->compatible, t->parent->id, sizeof(c->compatible));
    }
    if (t->teacher)
        add_licence(t->teacher, !t->parent, c->licence);
    c->n_thresholds = result->n_thresholds;
    memcpy(c->thresholds, result->thresholds, sizeof(c->thresholds));
}

int train_publish(struct train *t, const struct graph *g,
                  const struct train_result *result, bool refused,
                  char path[TRAIN_MAX_PATH], struct error *err)
{
    struct contract c;
    int n;

    fill_contract(t, result, &c);
    if (t->a->output[0] && !refused)
        n = snprintf(path, TRAIN_MAX_PATH, "%s", t->a->output);
    else
        n = snprintf(path, TRAIN_MAX_PATH, "%s/%s", t->models,
                     refused ? "refused.onnx" : "model.onnx");
    if (n >= TRAIN_MAX_PATH)
        return error_set(err, ERR_FILE, "the path of the model is too long");
    return model_save(g, &c, NULL, t->cpu, path, err);
}
