/* core/train/train_publish.c - the finished model: the moving averages in the
 * graph, under a contract that says what it came from. */
#include "core/train/train_priv.h"

#include <stdio.h>
#include <string.h>

struct graph *train_publish_graph(struct train *t, struct error *err)
{
    return network_graph(t->net, t->graph, t->averages, err);
}

/* Counts alone: who is in the data, and where it lies, is nobody's business.
 */
static void describe_source(const struct train *t, char *out, size_t len)
{
    snprintf(out, len,
             "facenetd %s train: %s, %d people, %d photos, %lld batches of "
             "%d, seed %d%s",
             FACENETD_VERSION,
             t->teacher && t->rounds ? "distillation and triplets"
             : t->teacher            ? "distillation"
             : t->a->harmonic        ? "harmonic triplets"
                                     : "triplets",
             t->data.n_people, t->data.n_photos, (long long)t->at.step,
             t->n_batch, t->a->seed,
             t->held.loader ? "; thresholds: people held out" : "");
}

static void fill_contract(const struct train *t,
                          const struct train_result *result, struct contract *c)
{
    *c = t->contract;
    c->golden = NULL;
    c->n_golden = 0;
    describe_source(t, c->source, sizeof(c->source));
    c->parent[0] = c->compatible[0] = '\0';
    if (t->parent) {
        memcpy(c->parent, t->parent->id, sizeof(c->parent));
        if (t->a->harmonic)
            memcpy(c->compatible, t->parent->id, sizeof(c->compatible));
    } else if (t->teacher) {
        /* what was learnt is the teacher's */
        memcpy(c->licence, t->teacher->contract.licence, sizeof(c->licence));
    }
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
    return model_save(g, &c, NULL, t->dev, path, err);
}
