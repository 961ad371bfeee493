/* core/train/calibrate.h - embeddings of known people to thresholds.
 * Every pair of faces is taken once: genuine where both are of one person,
 * impostor otherwise. A threshold for a stated false-accept rate lets through
 * at most that part of the impostor pairs; what it does to both kinds is
 * counted, with intervals. Thread: any. */
#ifndef CORE_TRAIN_CALIBRATE_H
#define CORE_TRAIN_CALIBRATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/face/model.h"

enum {
    CALIBRATE_MAX_RATES = MODEL_MAX_THRESHOLDS,
    CALIBRATE_MAX_FACES = 1 << 20,
    CALIBRATE_LEAST_ACCEPTED = 3 /* of fewer pairs a rate says nothing */
};

struct calibrate_rate {
    double far;          /* as it was asked for */
    double threshold;    /* squared L2 */
    int64_t n_accepted;  /* impostor pairs below the threshold */
    double far_measured; /* their part of all, with its interval */
    double far_low, far_high;
    int64_t n_rejected; /* genuine pairs beyond it */
    double frr;         /* their part, and its interval; NaN without genuine
                           pairs. VAL is 1 - frr */
    double frr_low, frr_high;
};
struct calibration {
    int n_faces, n_people, n_paired; /* people with two faces or more */
    int64_t n_genuine, n_impostor;
    struct calibrate_rate rates[CALIBRATE_MAX_RATES]; /* as asked */
    int n_rates;
};
struct calibrate_options {
    const double *far; /* [n_far], each once; n_far 0: of 1e-1, 1e-2, 1e-3 and
                          1e-4 those that the pairs can show */
    int n_far;
    const atomic_bool *stop; /* set: give up, ERR_STOPPING. NULL: never */
    void (*progress)(void *ctx, double part); /* NULL: not wanted */
    void *ctx;
};
/* rows [n,dim]: unit vectors; person [n]: any numbers. Needs memory for a copy
 * of the rows and some 25 MB, time for n * n / 2 distances. Thresholds lie
 * halfway between the last accepted and the first refused pair, to 4e-6.
 * ERR_BAD_FIELD: rates or rows that are none, one person only, a rate at which
 * fewer than three impostor pairs would be accepted (the text says how many
 * pairs it needs). ERR_NOMEM. */
int calibrate_faces(const float *rows, const int *person, int n, int dim,
                    const struct calibrate_options *opt,
                    struct calibration *out, struct error *err);

/* Wilson's score interval of 95 % for k of n (n > 0). It takes the n as
 * independent, which pairs of few people are not: of them the true interval
 * is wider. */
void calibrate_interval(int64_t k, int64_t n, double *low, double *high);

/* As a contract carries them; returns how many. */
int calibrate_thresholds(const struct calibration *c,
                         struct model_threshold out[MODEL_MAX_THRESHOLDS]);

#endif
