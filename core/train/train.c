/* core/train/train.c - a run from its arguments to a model: check, measure
 * before, rounds of batches with checkpoints and evaluations between, measure
 * after, write. facenetctl train calls it, for a person or for the daemon. */
#include "core/train/train_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/train/random.h"

double train_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

uint64_t train_seed(const struct train *t, int kind, int64_t i)
{
    uint64_t state = (uint64_t)t->a->seed;

    state = random_next(&state) + (uint64_t)kind;
    state = random_next(&state) + (uint64_t)i;
    return random_next(&state);
}

int train_stopping(const struct train *t, struct error *err)
{
    return t->stop && *t->stop ? error_set(err, ERR_STOPPING, "asked to stop")
                               : 0;
}

int64_t train_steps(const struct train *t)
{
    return (int64_t)t->a->max_nrof_epochs * t->a->epoch_size;
}

/* ---- phases -------------------------------------------------------------- */

static int prepare(struct train *t, struct error *err)
{
    if (train_args_check(t->a, err))
        return -1;
    train_report_phase(t, "check");
    if (train_setup_model(t, err) || train_stopping(t, err) ||
        train_data_open(t, err) || train_stopping(t, err) ||
        train_setup_network(t, err) || train_step_init(t, err))
        return -1;
    train_state_identify(t);
    return 0;
}

/* Of the run that was left for an earlier checkpoint: the folder's name stands
 * for its last one until this run has passed it. */
static void warn_of_later(const struct train *t)
{
    char path[CHECKPOINT_MAX_PATH];
    long long last = checkpoint_newest(t->models, -1, path, NULL);

    if (last > t->at.step)
        train_report_warn(t,
                          "the run goes on from step %lld; its folder also "
                          "holds checkpoint-%lld, which a resume of the "
                          "folder would take",
                          (long long)t->at.step, last);
}

/* The folders are made when nothing but the photos can fail any more. */
static int begin(struct train *t, struct error *err)
{
    char path[CHECKPOINT_MAX_PATH];
    const char *resume = t->a->resume;

    if (resume[0] &&
        (train_state_find(resume, path, err) || train_state_load(t, path, err)))
        return -1;
    if (!t->a->dry_run && train_report_open(t, resume[0] ? path : NULL, err))
        return -1;
    if (resume[0] && !t->a->dry_run)
        warn_of_later(t);
    t->started = train_now();
    t->first_step = t->asked = t->at.step;
    return 0;
}

/* A pretrained model is measured, so that the end can be compared. */
static int measure_before(struct train *t, struct error *err)
{
    if (!t->parent || t->at.have_before)
        return 0;
    train_report_phase(t, "before");
    if (train_measure(t, t->parent->graph, "before", &t->at.before, err))
        return -1;
    t->at.have_before = t->at.before.held.there || t->at.before.lfw.there;
    return 0;
}

static int measure_during(struct train *t, struct error *err)
{
    struct train_result result;
    struct graph *g;
    int rc;

    if (!t->held.loader && !t->lfw.loader)
        return 0;
    train_report_phase(t, "evaluate");
    g = train_publish_graph(t, err);
    if (!g)
        return -1;
    rc = train_measure(t, g, "during", &result, err);
    graph_free(g);
    if (!rc)
        train_report_phase(t, "train");
    return rc;
}

/* A full disk must not end a run that is hours old: those before stand. */
static void save_between(struct train *t)
{
    struct error err = {0};

    if (train_state_save(t, &err))
        train_report_warn(t, "no checkpoint: %s", err.text);
}

/* An epoch's end, or evaluate_minutes after the last one. */
static bool is_due(const struct train *t, double *last)
{
    double every = t->a->evaluate_minutes * 60;

    if (every <= 0)
        return t->at.step % t->a->epoch_size == 0;
    if (train_now() - *last < every)
        return false;
    *last = train_now();
    return true;
}

static bool is_over(const struct train *t)
{
    double minutes = t->a->minutes;

    return t->at.step >= train_steps(t) ||
           (minutes > 0 &&
            t->at.elapsed_s + train_now() - t->started > minutes * 60);
}

static int train(struct train *t, struct error *err)
{
    double last = train_now();
    bool none = false;

    train_report_phase(t, "train");
    t->started = train_now(); /* minutes are of training */
    while (!is_over(t)) {
        if (train_stopping(t, err) ||
            (t->rounds && train_round_next(t, &none, err)))
            return -1;
        if (none) {
            train_report_warn(t, "no triplets are left to learn from: "
                                 "training ends");
            break;
        }
        if (train_step_run(t, err))
            return -1;
        if (t->rate <= 0) /* the schedule's end */
            break;
        train_report_step(t);
        if (is_due(t, &last) && !is_over(t)) {
            save_between(t);
            if (measure_during(t, err))
                return -1;
        }
    }
    save_between(t);
    return 0;
}

static int finish(struct train *t, enum train_outcome *out, struct error *err)
{
    struct train_result after;
    char text[300], path[TRAIN_MAX_PATH];
    struct graph *g;
    bool worse;
    int rc;

    train_report_phase(t, "after");
    g = train_publish_graph(t, err);
    rc = g ? train_measure(t, g, "after", &after, err) : -1;
    if (!rc)
        rc = train_stopping(t, err);
    if (!rc) {
        train_report_phase(t, "write");
        worse = train_guard_worse(t, &after, text, sizeof(text));
        *out = worse && !t->a->force ? TRAIN_REFUSED : TRAIN_PUBLISHED;
        rc = train_publish(t, g, &after, *out == TRAIN_REFUSED, path, err);
        if (!rc && worse && t->a->force)
            train_report_warn(t,
                              "it is worse than before, and published by "
                              "force: %s",
                              text);
        if (!rc)
            train_report_result(t, *out, text, path);
    }
    graph_free(g);
    return rc ? -1 : 0;
}

/* ---- the run ------------------------------------------------------------- */

/* A stop leaves a checkpoint wherever there is something to keep. */
static int stopped(struct train *t, enum train_outcome *out, struct error *err)
{
    *out = TRAIN_STOPPED;
    *err = (struct error){0};
    if (t->models[0] && train_state_save(t, err))
        return -1;
    train_report_result(t, TRAIN_STOPPED,
                        t->models[0] ? "stopped; it can be resumed"
                                     : "stopped before there was anything to "
                                       "keep",
                        NULL);
    return 0;
}

static int run(struct train *t, enum train_outcome *out, struct error *err)
{
    if (begin(t, err) || train_guard_before(t, err) || measure_before(t, err))
        return -1;
    if (t->a->dry_run) {
        *out = TRAIN_CHECKED;
        train_report_result(t, TRAIN_CHECKED, "dry run: all is well", NULL);
        return 0;
    }
    return train(t, err) || finish(t, out, err) ? -1 : 0;
}

int train_run(const struct train_args *a, train_event_fn fn, void *ctx,
              const volatile sig_atomic_t *stop, enum train_outcome *out,
              struct error *err)
{
    struct train *t = calloc(1, sizeof(*t));
    int rc;

    if (!t)
        return error_set(err, ERR_NOMEM, "no memory for a run");
    t->a = a;
    t->fn = fn;
    t->ctx = ctx;
    t->stop = stop;
    train_args_default(&t->defaults);
    *err = (struct error){0};
    rc = prepare(t, err) || run(t, out, err) ? -1 : 0;
    if (rc && err->code == ERR_STOPPING)
        rc = stopped(t, out, err);
    if (t->events)
        train_report_close(t);
    train_round_fini(&t->round);
    train_step_fini(t);
    train_data_fini(t);
    train_setup_fini(t);
    free(t);
    return rc;
}
