/* daemon/runner.c - the processor's network behind a lock, the card's before
 * it. */
#include "daemon/runner.h"

#include <pthread.h>
#include <stdlib.h>

_Static_assert((int)CARD_SLOTS <= (int)BATCH_MAX_SLOTS, "workers for slots");

/* Squared distance of unit vectors that the card may be off. */
#define LIMIT_REDUCED 1e-3f
#define LIMIT_F32 1e-6f

struct runner {
    struct runner_options opt;
    struct model *model;
    float *chip, *row; /* its golden pair, for the card */
    struct embedder *cpu;
    pthread_mutex_t cpu_lock; /* of its plans: held over a run, as whoever
                                 waits for it waits for nothing else */
    struct card_net *net;     /* NULL: the processor alone */
};

/* What is left of r when nobody runs it. */
static void gone(void *ctx)
{
    struct runner *r = ctx;

    model_free(r->model);
    free(r->chip);
    free(r->row);
    free(r);
}

static struct card_net *to_card(struct runner *r, struct error *err)
{
    struct card_net_options opt = {.id = r->model->id,
                                   .graph = r->model->graph,
                                   .limit_f32 = LIMIT_F32,
                                   .limit_reduced = LIMIT_REDUCED,
                                   .n_slots = CARD_SLOTS,
                                   .gone = gone,
                                   .ctx = r};

    if (embedder_options(r->model, r->opt.card_batch, r->opt.card_precision,
                         &opt.net, err) != 0)
        return NULL;
    r->row = calloc(opt.net.dim, sizeof(*r->row));
    if (!r->row)
        return error_null(err, ERR_NOMEM, "no memory for a golden pair");
    r->chip = model_golden(r->model, r->row, err);
    opt.input = r->chip;
    opt.want = r->row;
    return r->chip ? card_net_new(r->opt.card, &opt, err) : NULL;
}

struct runner *runner_new(const struct runner_options *opt,
                          struct model *take_model, struct error *err)
{
    struct runner *r = calloc(1, sizeof(*r));

    if (!r) {
        model_free(take_model);
        return error_null(err, ERR_NOMEM, "no memory for a network");
    }
    r->opt = *opt;
    r->model = take_model;
    pthread_mutex_init(&r->cpu_lock, NULL);
    r->cpu = embedder_new(opt->cpu, take_model, opt->cpu_batch,
                          opt->cpu_precision, err);
    if (r->cpu)
        embedder_cover_by_time(r->cpu);
    if (r->cpu && (!opt->card || !card_usable(opt->card)))
        return r;
    if (r->cpu)
        r->net = to_card(r, err);
    if (r->net)
        return r;
    runner_free(r);
    return NULL;
}

void runner_free(struct runner *r)
{
    if (!r)
        return;
    embedder_free(r->cpu);
    pthread_mutex_destroy(&r->cpu_lock);
    if (r->net)
        card_net_free(r->net);
    else
        gone(r);
}

const struct model *runner_model(const struct runner *r)
{
    return r->model;
}

int runner_run(void *ctx, const float *const *chips, int n, float *out,
               int *bad, struct error *err)
{
    struct runner *r = ctx;
    int rc;

    *bad = 0;
    rc = r->net ? card_net_run(r->net, chips, n, out, bad, NULL) : 1;
    /* a row that is no vector may be one in the processor's arithmetic */
    if (rc == 0 && *bad == 0)
        return 0;
    if (rc <= 0)
        card_failover(r->opt.card);
    pthread_mutex_lock(&r->cpu_lock);
    rc = embedder_run(r->cpu, chips, n, out, bad, err);
    pthread_mutex_unlock(&r->cpu_lock);
    return rc;
}

struct batch_room runner_room(void *ctx)
{
    const struct runner *r = ctx;
    int slots = r->net ? card_net_slots(r->net) : 0;

    if (slots > 0)
        return (struct batch_room){slots, r->opt.card_batch};
    return (struct batch_room){1, r->opt.cpu_batch};
}

int64_t runner_time_us(void *ctx, int n)
{
    const struct runner *r = ctx;

    if (r->net && card_net_slots(r->net) > 0)
        return card_net_time_us(r->net, n);
    return embedder_time_us(r->cpu, n);
}

int runner_most_slots(const struct runner *r)
{
    return r->net ? CARD_SLOTS : 1;
}

bool runner_on_card(const struct runner *r, struct error *why)
{
    if (r->net && card_net_slots(r->net) > 0)
        return true;
    if (r->net && why)
        card_net_why(r->net, why);
    else if (why)
        why->text[0] = '\0';
    return false;
}

enum precision runner_precision(const struct runner *r)
{
    return runner_on_card(r, NULL) ? card_net_precision(r->net)
                                   : embedder_precision(r->cpu);
}
