/* gpu/engine.c - see the header. */
#include "gpu/engine.h"

enum {
    MAX_TRIED = 12,   /* engines of one convolution, the first of its list */
    TRIED_BEFORE = 2, /* runs before those that are timed */
    TRIED_RUNS = 8
};

int engine_scratch(struct card *c, struct scratch *s, size_t bytes,
                   struct error *err)
{
    if (bytes <= s->bytes)
        return 0;
    engine_scratch_free(c, s);
    s->p = card_alloc(c, bytes, err);
    if (s->p)
        s->bytes = bytes;
    return s->p ? 0 : -1;
}

void engine_scratch_free(struct card *c, struct scratch *s)
{
    card_release(c, s->p, s->bytes);
    s->p = NULL;
    s->bytes = 0;
}

int engine_run(struct dnn_conv *c, struct stream *on, struct error *err)
{
    if (!dnn_conv_run(c, on, err))
        return 0;
    /* Was it cuDNN that would not, or is the card gone? */
    card_launched(on, "cuDNN", err);
    return -1;
}

struct trial {
    const struct engine_place *at;
    struct dnn_conv *conv;
    const struct dnn_shape *shape;
    struct dnn_memory *memory;
};

static int run_trial(void *at, struct error *err)
{
    const struct trial *t = at;

    return engine_run(t->conv, t->at->stream, err);
}

/* Does the i-th engine run? How long does it take? -1: out of memory, or the
 * card is lost; 0: it does not; 1: it does. */
static int try_engine(struct trial *t, int i, float *us, struct error *err)
{
    struct card *card = t->at->dev->card;
    struct error why = {0};

    if (dnn_conv_chosen(t->conv) != i && !dnn_conv_choose(t->conv, i))
        return 0;
    if (engine_scratch(card, t->at->scratch, dnn_conv_scratch(t->conv), err))
        return -1;
    t->memory->scratch = t->at->scratch->p;
    if (dnn_conv_bind(t->conv, t->memory, &why) || run_trial(t, &why) ||
        card_wait(t->at->stream, &why))
        return card_enter(card, err) ? -1 : 0;
    if (!us)
        return 1;
    for (int k = 0; k < TRIED_BEFORE; k++)
        if (run_trial(t, err))
            return -1;
    return card_time(t->at->stream, run_trial, t, TRIED_RUNS, us, err) ? -1 : 1;
}

/* The engine that an earlier plan, or start, found best: 1 when it runs. */
static int take_known(struct trial *t, struct error *err)
{
    int64_t engine;
    int at;

    if (!tune_find(t->at->dev->tune, t->shape, &at, &engine) || at < 0 ||
        at >= dnn_conv_count(t->conv) || !dnn_conv_choose(t->conv, at) ||
        dnn_conv_engine(t->conv) != engine)
        return 0;
    return try_engine(t, at, NULL, err);
}

static int take_quickest(struct trial *t, struct error *err)
{
    int n = dnn_conv_count(t->conv), best = -1;
    float us, least = 0;

    for (int i = 0; i < n && i < MAX_TRIED; i++) {
        int rc = try_engine(t, i, &us, err);

        if (rc < 0)
            return -1;
        if (rc && (best < 0 || us < least)) {
            best = i;
            least = us;
        }
    }
    if (best < 0 || !dnn_conv_choose(t->conv, best))
        return 0;
    tune_add(t->at->dev->tune, t->shape, best, dnn_conv_engine(t->conv));
    return 1;
}

/* The one that dnn_conv_new chose, or the next that runs. */
static int take_any(struct trial *t, struct error *err)
{
    int first = dnn_conv_chosen(t->conv), rc = 0;

    if (first >= 0)
        rc = try_engine(t, first, NULL, err);
    for (int i = 0; !rc && i < dnn_conv_count(t->conv); i++)
        if (i != first)
            rc = try_engine(t, i, NULL, err);
    return rc;
}

int engine_choose(const struct engine_place *at, struct dnn_conv *c,
                  const struct dnn_shape *s, struct dnn_memory *m,
                  struct error *err)
{
    struct trial t = {at, c, s, m};
    int rc = take_known(&t, err);

    if (!rc && at->dev->tunes)
        rc = take_quickest(&t, err);
    return rc ? rc : take_any(&t, err);
}
