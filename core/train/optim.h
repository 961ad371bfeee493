/* core/train/optim.h - update rules, learning-rate schedules, moving averages.
 * TensorFlow's semantics with the training script's constants, over one flat
 * array of weights. One thread is enough: an update moves each weight once,
 * where the convolutions used it thousands of times. Thread: one. */
#ifndef CORE_TRAIN_OPTIM_H
#define CORE_TRAIN_OPTIM_H

#include <stddef.h>

#include "core/engine/backend.h"

const char *optim_name(enum optimizer o); /* "ADAGRAD" */
int optim_parse(const char *name, enum optimizer *o, struct error *err);

struct optim; /* slots of every weight */
struct optim *optim_new(enum optimizer o, size_t n, struct error *err);
/* ADAM's epsilon, > 0: the script's 0.1 until set. Gradients here are far
 * smaller than that, which makes it plain descent with momentum; with 1e-8 it
 * is Adam as it was published. */
void optim_set_epsilon(struct optim *o, double epsilon);
void optim_free(struct optim *o);
/* One update of weights [n] by gradients [n]. */
void optim_step(struct optim *o, float *weights, const float *gradients,
                double rate);
/* Everything that a resumed run needs beside the weights: slot arrays of [n]
 * floats (borrowed) and the step count. */
int optim_slots(struct optim *o, float *slots[LEARN_MAX_SLOTS]); /* how many */
long long optim_steps(const struct optim *o);
void optim_set_steps(struct optim *o, long long steps);

/* Euclidean norm; not finite where a number is not. */
double optim_norm(const float *x, size_t n);

/* Moving average: average += (1 - d) (weights - average),
 * d = min(decay, (1 + step) / (10 + step)). */
void optim_average(float *average, const float *weights, size_t n, double decay,
                   long long step);

/* rate * factor^floor(step / (decay_epochs * epoch_size)): staircase. */
double optim_decayed_rate(double rate, double factor, int decay_epochs,
                          int epoch_size, long long step);

/* A schedule file: lines "epoch: rate" in ascending order, '#' comments; the
 * first at epoch 0 or 1. The rate of an epoch is that of the last line at or
 * before it; -1 ends training (the script's). ERR_FILE, ERR_BAD_FIELD with the
 * line's number. */
struct schedule {
    int n;
    struct schedule_line {
        int epoch;
        double rate;
    } lines[256];
};
int schedule_load(const char *path, struct schedule *out, struct error *err);
double schedule_rate(const struct schedule *s, int epoch);

#endif
