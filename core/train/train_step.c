/* core/train/train_step.c - one training batch: photos asked for ahead, their
 * chips forward, the loss and its gradient, backward, the update. Batches of
 * triplets are a p n a p n …; those of distillation alone are photos in the
 * order of a pass over all. */
#include "core/train/train_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine/tensor.h"
#include "core/train/random.h"
#include "core/train/train_hint.h"

int train_step_init(struct train *t, struct error *err)
{
    size_t n = (size_t)t->a->batch_size, dim = (size_t)t->contract.dim;

    t->n_batch = (int)n;
    t->dim = (int)dim;
    t->n_input = 3 * (size_t)t->contract.width * (size_t)t->contract.height;
    t->y = tensor_alloc(n * dim);
    t->grad_y = tensor_alloc(n * dim);
    t->ok = calloc(n, sizeof(*t->ok));
    t->fixed = calloc(n, sizeof(*t->fixed));
    t->photo = calloc(n, sizeof(*t->photo));
    t->seed = calloc(n, sizeof(*t->seed));
    if (t->teacher) {
        const struct contract *c = &t->teacher->contract;
        size_t one = 3 * (size_t)c->width * (size_t)c->height;

        t->tutor_y = tensor_alloc(n * dim);
        t->tutor_x = tensor_alloc(n * one);
        t->tutor_at = calloc(n, sizeof(*t->tutor_at));
        for (size_t i = 0; t->tutor_at && t->tutor_x && i < n; i++)
            t->tutor_at[i] = t->tutor_x + i * one;
    }
    if (!t->y || !t->grad_y || !t->ok || !t->fixed || !t->photo || !t->seed ||
        (t->teacher && (!t->tutor_y || !t->tutor_x || !t->tutor_at)))
        return error_set(err, ERR_NOMEM, "no memory for a batch of %zu", n);
    return 0;
}

void train_step_fini(struct train *t)
{
    free(t->y);
    free(t->grad_y);
    free(t->tutor_y);
    free(t->tutor_x);
    free(t->tutor_at);
    free(t->ok);
    free(t->fixed);
    free(t->photo);
    free(t->seed);
}

/* ---- which photos -------------------------------------------------------- */

/* The triplet of place i of the batch that is `ahead` batches on. */
static const struct triplet *triplet_at(const struct train *t, int64_t ahead,
                                        int i)
{
    const struct train_round *r = &t->round;
    int64_t each = t->n_batch / 3;

    return &r->triplets[(r->next + ahead * each + i) % r->n_triplets];
}

static void photos_of_triplets(struct train *t, int64_t ahead)
{
    int64_t n = t->round.n_photos; /* old vectors follow the new ones */

    for (int i = 0; i < t->n_batch / 3; i++) {
        const struct triplet *x = triplet_at(t, ahead, i);

        t->photo[3 * i] = t->round.photos[x->a % n];
        t->photo[3 * i + 1] = t->round.photos[x->p % n];
        t->photo[3 * i + 2] = t->round.photos[x->n % n];
    }
}

/* Every photo once in a pass, each pass in an order of its own. */
static int photos_of_pass(struct train *t, int64_t step, struct error *err)
{
    int64_t n = t->data.n_photos;

    if (!t->order) {
        t->order = malloc((size_t)n * sizeof(*t->order));
        t->order_pass = -1;
    }
    if (!t->order)
        return error_set(err, ERR_NOMEM, "no memory for an order of photos");
    for (int i = 0; i < t->n_batch; i++) {
        int64_t place = step * t->n_batch + i;

        if (place / n != t->order_pass) {
            uint64_t random;

            t->order_pass = place / n;
            random = train_seed(t, TRAIN_SEED_ORDER, t->order_pass);
            for (int k = 0; k < n; k++)
                t->order[k] = k;
            random_shuffle(&random, t->order, (int)n);
        }
        t->photo[i] = t->order[place % n];
    }
    return 0;
}

/* Batches are asked for as far as they are known: to the end of the round. */
static int ask_ahead(struct train *t, struct error *err)
{
    int64_t last = t->at.step + TRAIN_AHEAD;

    if (t->rounds && last > t->at.step + train_round_batches(t) - 1)
        last = t->at.step + train_round_batches(t) - 1;
    if (t->asked < t->at.step)
        t->asked = t->at.step;
    for (; t->asked <= last; t->asked++) {
        if (t->rounds)
            photos_of_triplets(t, t->asked - t->at.step);
        else if (photos_of_pass(t, t->asked, err))
            return -1;
        for (int i = 0; i < t->n_batch; i++)
            t->seed[i] =
                train_seed(t, TRAIN_SEED_STEP, t->asked * t->n_batch + i);
        if (loader_ask(t->loader, t->photo, t->seed, t->n_batch, err))
            return -1;
    }
    return 0;
}

/* ---- chips and teacher --------------------------------------------------- */

static void copy_row(float *x, size_t width, int to, int from)
{
    memcpy(x + (size_t)to * width, x + (size_t)from * width,
           width * sizeof(*x));
}

/* The batch that was asked for first into the plan's input. A photo that is
 * gone since it was selected takes its triplet (in distillation: itself) with
 * it: a good one of the batch stands in. */
static int take(struct train *t, int group, struct error *err)
{
    const struct contract *second = t->teacher ? &t->teacher->contract : NULL;
    size_t other =
        second ? 3 * (size_t)second->width * (size_t)second->height : 0;
    float *x = plan_input(t->plan);
    int good = -1;

    if (loader_take(t->loader, x, t->ok, second, t->tutor_x, err))
        return -1;
    for (int i = 0; i < t->n_batch; i += group) {
        for (int k = 1; k < group; k++)
            t->ok[i] = t->ok[i] && t->ok[i + k];
        if (t->ok[i] && good < 0)
            good = i;
    }
    if (good < 0)
        return error_set(err, ERR_BAD_FIELD,
                         "no photo of a training batch can be read");
    for (int i = 0; i < t->n_batch; i += group) {
        for (int k = 0; k < group && !t->ok[i]; k++) {
            copy_row(x, t->n_input, i + k, good + k);
            if (second)
                copy_row(t->tutor_x, other, i + k, good + k);
        }
    }
    return 0;
}

/* distill_mix: rows blended with the next row, the teacher's alike: scaling is
 * the same for every pixel, so the blend of chips is the chip of a blend. */
static void mix(struct train *t, float *x)
{
    const struct contract *c = &t->teacher->contract;
    size_t other = 3 * (size_t)c->width * (size_t)c->height;
    uint64_t random = train_seed(t, TRAIN_SEED_MIX, t->at.step);

    for (int i = 0; i + 1 < t->n_batch; i++) {
        bool mixed = random_unit(&random) < t->a->distill_mix;
        float part = (float)random_unit(&random);
        float *to[2] = {x + (size_t)i * t->n_input,
                        t->tutor_x + (size_t)i * other};
        const size_t n[2] = {t->n_input, other};

        for (int k = 0; mixed && k < 2; k++)
            for (size_t p = 0; p < n[k]; p++)
                to[k][p] += part * (to[k][p + n[k]] - to[k][p]);
    }
}

/* Harmonic: rows that are the old model's get its vectors, and no gradient. A
 * triplet for which another stands in (not ok) is all new. */
static void lay_old(struct train *t)
{
    int64_t n = t->round.n_photos;

    memset(t->fixed, 0, (size_t)t->n_batch * sizeof(*t->fixed));
    if (!t->round.old || t->round.n_triplets == 0) /* a dry check */
        return;
    for (int i = 0; i < t->n_batch / 3; i++) {
        const struct triplet *x = triplet_at(t, 0, i);
        const int rows[3] = {x->a, x->p, x->n};

        for (int k = 0; k < 3 && t->ok[3 * i]; k++) {
            if (rows[k] < n)
                continue;
            t->fixed[3 * i + k] = true;
            memcpy(t->y + (size_t)(3 * i + k) * (size_t)t->dim,
                   t->round.old + (size_t)(rows[k] - n) * (size_t)t->dim,
                   (size_t)t->dim * sizeof(float));
        }
    }
}

/* ---- loss ---------------------------------------------------------------- */

static int teach(struct train *t, struct error *err)
{
    int bad = 0;

    if (batched_run(t->tutor, t->tutor_at, t->n_batch, t->tutor_y, &bad, err))
        return -1;
    return bad ? error_set(err, ERR_TRAINING,
                           "no usable embedding for %d of %d faces", bad,
                           t->n_batch)
               : 0;
}

/* Forward, then the loss by the network's output into the plan's gradient.
 * triplets: rows are a p n a p n. Fills loss, spread, active. */
static int forward(struct train *t, bool triplets, struct error *err)
{
    size_t all = (size_t)t->n_batch * (size_t)t->dim;
    const float *out;
    double weight = t->teacher ? t->a->distill_triplets : 1;

    if (t->teacher && t->a->distill_mix > 0)
        mix(t, plan_input(t->plan));
    if (t->teacher && (t->hint ? train_hint_teach(t, err) : teach(t, err)))
        return error_context(err, "teacher");
    if (graph_forward(t->plan, err))
        return -1;
    out = plan_output(t->plan, 0);
    if (t->contract.normalised)
        memcpy(t->y, out, all * sizeof(float));
    else
        triplet_normalise(out, t->n_batch, t->dim, t->y);
    t->spread = fmax(0, triplet_spread(t->y, t->n_batch, t->dim));
    lay_old(t);
    t->loss = 0;
    t->active = 0;
    memset(t->grad_y, 0, all * sizeof(float));
    if (triplets)
        t->loss = weight * triplet_loss(t->y, t->n_batch / 3, t->dim,
                                        (float)t->a->alpha, t->fixed, t->grad_y,
                                        &t->active);
    for (size_t i = 0; triplets && weight != 1 && i < all; i++)
        t->grad_y[i] *= (float)weight;
    if (t->teacher) {
        /* the plan's gradient is scratch here */
        float *g = plan_gradient(t->plan, 0);

        t->loss += triplet_distill(t->y, t->tutor_y, t->n_batch, t->dim, g);
        for (size_t i = 0; i < all; i++)
            t->grad_y[i] += g[i];
        if (t->hint)
            t->loss += train_hint_loss(t);
    }
    if (t->contract.normalised)
        memcpy(plan_gradient(t->plan, 0), t->grad_y, all * sizeof(float));
    else
        triplet_normalise_back(out, t->grad_y, t->n_batch, t->dim,
                               plan_gradient(t->plan, 0));
    return 0;
}

/* With the script's L2 term: half the squared length of every decaying tensor,
 * times weight_decay. Its part is not in the loss that is shown. */
static int backward(struct train *t, struct error *err)
{
    int rc;

    if (learn_clear(t->net, err) || graph_backward(t->plan, err))
        return -1;
    rc = learn_norm(t->net, (float)t->a->weight_decay, &t->gradient_norm, err);
    t->left_out = rc > 0;
    return rc < 0 ? -1 : 0;
}

/* The guard has seen it, and it is good unless it is left out. */
static int update(struct train *t, struct error *err)
{
    if (t->left_out)
        return train_guard_left_out(t, err);
    t->n_left_out = 0;
    return train_guard_watch(t, err) ||
                   optim_step(t->optim, t->rate, 1, t->a->moving_average_decay,
                              err)
               ? -1
               : 0;
}

/* ---- the step ------------------------------------------------------------ */

/* The rate of this step; 0 or less ends the run (a schedule's -1). */
static double rate_now(const struct train *t)
{
    const struct train_args *a = t->a;
    double rate = a->learning_rate;

    if (rate < 0)
        rate = schedule_rate(&t->schedule, (int)(t->at.step / a->epoch_size));
    if (rate <= 0)
        return rate;
    return optim_decayed_rate(rate, a->learning_rate_decay_factor,
                              a->learning_rate_decay_epochs, a->epoch_size,
                              t->at.step);
}

int train_step_run(struct train *t, struct error *err)
{
    double began = train_now(), took;

    t->rate = rate_now(t);
    if (t->rate <= 0)
        return 0;
    if (ask_ahead(t, err) || take(t, t->rounds ? 3 : 1, err) ||
        forward(t, t->rounds, err) || backward(t, err) || update(t, err))
        return -1;
    if (t->rounds) {
        t->round.next += t->n_batch / 3;
        if (t->round.next > t->round.n_triplets)
            t->round.next = t->round.n_triplets;
    }
    t->at.step++;
    took = train_now() - began;
    took = t->n_batch / (took > 1e-6 ? took : 1e-6);
    t->faces_per_s =
        t->faces_per_s > 0 ? 0.9 * t->faces_per_s + 0.1 * took : took;
    return 0;
}

int train_step_try(struct train *t, const int *photos, double *loss,
                   double *spread, struct error *err)
{
    for (int i = 0; i < t->n_batch; i++)
        t->seed[i] = train_seed(t, TRAIN_SEED_CHECK, i);
    do {
        if (loader_ask(t->loader, photos, t->seed, t->n_batch, err) ||
            take(t, 3, err) || forward(t, t->rounds, err) || backward(t, err) ||
            (t->left_out && train_guard_left_out(t, err)))
            return -1;
    } while (t->left_out);
    t->n_left_out = 0;
    *loss = t->loss;
    *spread = t->spread;
    return 0;
}
