/* core/train/optim.h - update rules, learning-rate schedules, moving averages.
 * TensorFlow's semantics with the training script's constants, over the numbers
 * of a network that learns, on the device that keeps them. Thread: one. */
#ifndef CORE_TRAIN_OPTIM_H
#define CORE_TRAIN_OPTIM_H

#include "core/engine/learn.h"

const char *optim_name(enum optimizer o); /* "ADAGRAD" */
int optim_parse(const char *name, enum optimizer *o, struct error *err);

/* Gives the network's learnable its slots and average, which are this object's:
 * freed before the network, which has one of these at a time. The average
 * begins as the weights are. */
struct optim *optim_new(enum optimizer o, struct network *net,
                        struct error *err);
void optim_free(struct optim *o);
/* ADAM's epsilon, > 0: the script's 0.1 until set. Gradients here are far
 * smaller than that, which makes it plain descent with momentum; with 1e-8 it
 * is Adam as it was published. */
void optim_set_epsilon(struct optim *o, double epsilon);
/* One update of the weights by the gradients times scale, then average +=
 * (1 - d) (weights - average), d = min(decay, (1 + steps) / (10 + steps)).
 * ERR_DEVICE. */
int optim_step(struct optim *o, double rate, double scale, double decay,
               struct error *err);
/* Everything that a resumed run needs beside the learnable: the updates so
 * far. */
long long optim_steps(const struct optim *o);
void optim_set_steps(struct optim *o, long long steps);

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
