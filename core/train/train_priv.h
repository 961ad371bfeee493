/* core/train/train_priv.h - what the files of a run share: its state.
 * train.c runs the phases; train_setup.c makes the network, train_hint.c hints,
 * train_data.c the photos, train_round.c selects triplets, train_step.c learns
 * from a batch, train_state.c saves and resumes, train_measure.c evaluates,
 * train_guard.c checks before, during and after, train_report.c writes the
 * run's folders, train_publish.c the model. Thread: one. */
#ifndef CORE_TRAIN_TRAIN_PRIV_H
#define CORE_TRAIN_TRAIN_PRIV_H

#include "core/face/embed.h"
#include "core/train/checkpoint.h"
#include "core/train/events.h"
#include "core/train/loader.h"
#include "core/train/optim.h"
#include "core/train/pairs.h"
#include "core/train/train.h"
#include "core/train/train_device.h"
#include "core/train/train_report.h"
#include "core/train/triplet.h"

enum {
    TRAIN_MAX_PATH = CHECKPOINT_MAX_PATH - 200,
    TRAIN_MAX_ROUND = 16384, /* photos: their distances are 1 GiB */
    TRAIN_AHEAD = 3          /* batches asked of the loader ahead */
};

/* What an evaluation of one set found; there: false where it was not made. */
struct train_figures {
    bool there;
    double accuracy, accuracy_std, val[3]; /* at 1e-1, 1e-2, 1e-3 */
    double guard_val;                      /* held: at guard_far */
    double apart;                          /* mean distance of impostor pairs */
};
struct train_result {
    struct train_figures held, lfw;
    struct model_threshold thresholds[MODEL_MAX_THRESHOLDS];
    int n_thresholds;
};

/* Everything of a run that a checkpoint keeps beside arrays of numbers. Random
 * choices are drawn from the seed and these counters, so no generator but
 * dropout's has a state. */
struct train_counters {
    int64_t step, round, n_empty; /* batches; rounds; rounds without triplets
                                     in a row */
    uint64_t dropout;             /* the generator's state */
    int64_t optim_steps;
    double elapsed_s;
    /* What must be the same when it goes on. */
    int64_t seed, batch_size, optimizer, mode;
    uint64_t data, measured;      /* hashes: of names; of what `before` was
                                     measured on, and how */
    char parent[65], teacher[65]; /* ids of models */
    bool have_before;
    struct train_result before;
    double norm;             /* train_guard.c: moving mean of the gradient's */
    int64_t n_flat, n_stuck; /* batches in a row */
    int64_t round_triplets;  /* of the latest round */
};

struct train_round {
    int64_t n_photos, n_triplets, next; /* next: first triplet not yet used */
    int *photos;                        /* [n_photos] of the dataset */
    struct triplet *triplets;
    float *old; /* harmonic: [n_photos, dim] of the pretrained model */
};

struct train_set { /* photos to measure on */
    struct dataset data;
    struct loader *loader;
    struct pairs pairs; /* lfw */
    int *photos;        /* [n] chosen of data */
    int n, n_told;      /* n_told: failures that have been warned of */
};

struct train {
    const struct train_args *a;
    struct train_args defaults;
    train_event_fn fn;
    void *ctx;
    const volatile sig_atomic_t *stop;
    /* train_setup.c */
    struct device *dev;         /* learns, embeds */
    struct device *cpu, *small; /* the processor; on one thread: detectors */
    struct model *parent, *teacher, *parts[3];
    struct detector *detector;
    struct graph *graph; /* what learns; owned */
    struct contract contract;
    struct network *net;
    struct learnable *learn;     /* net's */
    struct plan *plan, *rest;    /* of batch_size photos */
    struct batched *old, *tutor; /* of the parent (harmonic), the teacher */
    struct train_hint *hint;     /* instead of tutor, where there are hints */
    struct optim *optim;
    bool rounds; /* triplets are selected; false: distillation alone */
    struct schedule schedule;
    enum triplet_choice choice;
    struct train_precision precision;

    /* train_data.c */
    struct dataset data;
    struct augment augment;
    struct loader *loader;
    int n_told;
    struct train_set held, lfw;
    int *order; /* distillation: photos in this pass's order */
    int64_t order_pass;

    /* train_step.c: one batch */
    int n_batch, dim;
    size_t n_input;           /* floats of a chip */
    float *y, *grad_y;        /* [n_batch, dim] unit vectors */
    float *tutor_y, *tutor_x; /* the teacher's vectors and chips */
    const float **tutor_at;   /* [n_batch] */
    bool *ok, *fixed;         /* [n_batch] */
    int *photo;               /* [n_batch] to ask for */
    uint64_t *seed;           /* [n_batch] */
    int64_t asked;            /* step of the next batch to ask for */
    double loss, rate, spread, gradient_norm;
    int active;
    bool left_out; /* its gradients are of no use: no update by it */
    int n_left_out, n_left_out_told; /* in a row; warned of */
    struct train_round round;
    struct train_counters at;
    /* train_report.c */
    char models[TRAIN_MAX_PATH], logs[TRAIN_MAX_PATH];
    struct events *events;
    bool events_failed;
    double started;     /* monotonic seconds */
    int64_t first_step; /* of this process */
    double faces_per_s;
};

/* --- train.c */
double train_now(void); /* monotonic seconds */
/* A number for the i-th choice of a kind, from the run's seed alone. */
uint64_t train_seed(const struct train *t, int kind, int64_t i);
enum {
    TRAIN_SEED_ROUND = 1,
    TRAIN_SEED_MINE,
    TRAIN_SEED_STEP,
    TRAIN_SEED_ORDER,
    TRAIN_SEED_HELD,
    TRAIN_SEED_HOLDOUT,
    TRAIN_SEED_CHECK,
    TRAIN_SEED_MIX
};
/* -1 with ERR_STOPPING when *stop is set. */
int train_stopping(const struct train *t, struct error *err);
int64_t train_steps(const struct train *t); /* of the whole run */

/* --- train_setup.c */
int train_setup_model(struct train *t, struct error *err); /* graph, contract */
int train_setup_network(struct train *t, struct error *err); /* all else */
void train_setup_fini(struct train *t);
/* m's network on the run's device or its processor, as embedder_new: batches
 * up to `batch`. */
struct batched *train_embedder(struct train *t, struct device *dev,
                               const struct model *m, int batch,
                               struct error *err);

/* --- train_data.c */
int train_data_open(struct train *t, struct error *err);
void train_data_fini(struct train *t);

/* --- train_round.c */
/* Make sure that t->round has a batch of triplets; *none: there are no more
 * triplets to be found. */
int train_round_next(struct train *t, bool *none, struct error *err);
int train_round_batches(const struct train *t); /* left in the round */
void train_round_fini(struct train_round *r);

/* --- train_step.c */
int train_step_init(struct train *t, struct error *err);
void train_step_fini(struct train *t);
/* One batch: ask ahead, take, forward, backward, update, watch. */
int train_step_run(struct train *t, struct error *err);
/* Forward and backward of photos [n_batch] without an update; the loss. Again
 * where learn_norm asks for it. */
int train_step_try(struct train *t, const int *photos, double *loss,
                   double *spread, struct error *err);

/* --- train_state.c */
int train_state_save(struct train *t, struct error *err);
/* path: a checkpoint; fills t->at, weights, averages, slots, the round. */
int train_state_load(struct train *t, const char *path, struct error *err);
/* What --resume names to a checkpoint's path. */
int train_state_find(const char *resume, char path[CHECKPOINT_MAX_PATH],
                     struct error *err);
size_t train_state_bytes(const struct train *t); /* of a checkpoint */
/* Fill what must be the same when a run goes on. */
void train_state_identify(struct train *t);

/* --- train_measure.c */
/* g with t's contract on both sets; writes events, lfw_result.txt. */
int train_measure(struct train *t, const struct graph *g, const char *when,
                  struct train_result *out, struct error *err);

/* --- train_guard.c */
int train_guard_before(struct train *t, struct error *err);
/* Of every batch, before the update. */
int train_guard_watch(struct train *t, struct error *err);
/* Of a batch whose gradients 16-bit numbers cannot hold: count it, warn.
 * ERR_TRAINING where there were too many in a row. */
int train_guard_left_out(struct train *t, struct error *err);
/* Is it worse than before, or collapsed? text: the figures. */
bool train_guard_worse(const struct train *t, const struct train_result *after,
                       char *text, size_t len);

/* --- train_publish.c */
/* The model of the moving averages (a new graph). */
struct graph *train_publish_graph(struct train *t, struct error *err);
/* Write it; path gets its file. */
int train_publish(struct train *t, const struct graph *g,
                  const struct train_result *result, bool refused,
                  char path[TRAIN_MAX_PATH], struct error *err);

#endif
