/* core/train/random.h - random numbers that a seed repeats.
 * The state is one number, so that a checkpoint can keep it. Thread: the
 * state's. */
#ifndef CORE_TRAIN_RANDOM_H
#define CORE_TRAIN_RANDOM_H

#include <stdint.h>

uint64_t random_next(uint64_t *state);
int random_below(uint64_t *state, int n); /* 0..n-1, each as likely */
double random_unit(uint64_t *state);      /* [0,1) */
void random_shuffle(uint64_t *state, int *x, int n);

#endif
