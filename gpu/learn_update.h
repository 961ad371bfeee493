/* gpu/learn_update.h - what happens to the numbers of a network that learns
 * between its runs, on the card: norm of the gradients, update of the weights.
 * Over flat arrays in the card's memory; the table's learn_norm and
 * learn_update call it. Thread: the stream's. */
#ifndef GPU_LEARN_UPDATE_H
#define GPU_LEARN_UPDATE_H

#include "gpu/arith.h"
#include "gpu/card.h"

/* Arrays of n numbers, all aligned to 16 bytes. Numbers that only pad a tensor
 * are 0 in all of them, and stay so. */
struct learn_flat {
    float *weights, *gradients;
    float *slots[LEARN_MAX_SLOTS]; /* as many as the rule has */
    float *average;                /* NULL: none is kept */
    size_t n, n_decays; /* multiples of 8; the first n_decays decay */
    /* Copies of the weights in other types, written along; NULL: none.
     * [GTYPE_F32] is the weights themselves, and not looked at. */
    void *typed[GTYPE_COUNT];
    void *scratch; /* learn_card_scratch() bytes */
};

size_t learn_card_scratch(void);
/* gradients = gradients * scale, + decay * weights of the first n_decays; then
 * *norm: their Euclidean length, not finite where a number is not. The same
 * numbers give the same norm to the last bit. Waits for the stream.
 * ERR_DEVICE. */
int learn_card_norm(struct stream *s, const struct learn_flat *f, float decay,
                    float scale, double *norm, struct error *err);
/* One update of weights, slots, average and typed by the gradients. Does not
 * wait. ERR_DEVICE. */
int learn_card_update(struct stream *s, const struct learn_flat *f,
                      const struct learn_update *u, struct error *err);

#endif
