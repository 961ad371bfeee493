/* core/engine/op_train.h - forward and backward of every operator that is not
 * a convolution or a dense layer, for networks that learn.
 * Everything is float32 with the channels of a pixel side by side: [n,h,w,c]
 * for what op.h calls [n,c,h,w]; [n,k] as it is. Shapes are still given as
 * n c h w. Parallel over the caller's OpenMP threads (omp_get_max_threads);
 * how sums are cut into parts follows from the shapes alone, so that results
 * are the same for every number of threads. Thread: any. */
#ifndef CORE_ENGINE_OP_TRAIN_H
#define CORE_ENGINE_OP_TRAIN_H

#include "core/engine/op.h"

/* One node in one plan. Memory is the caller's. */
struct op_run {
    const struct op *op;
    int n_in;
    struct shape shape_in[OP_MAX_IN], shape_out;
    const float *in[OP_MAX_IN]; /* values and weights; backward: only those
                                   that op_info's keep asks for */
    float *out;                 /* backward: only where keep asks for it */
    float *grad_in[OP_MAX_IN];  /* backward: added to; NULL: not wanted. Of
                                   batch norm's running statistics: unused */
    bool fresh[OP_MAX_IN];      /* backward: grad_in is written, not added to;
                                   what it held before is not read */
    const float *grad_out;      /* backward. A fresh grad_in[0] may be the same
                                   memory, but not of pools, concat, slice,
                                   reshape, max, LRN */
    float *state;               /* op_run_state floats: kept between the two
                                   where keep asks for it, scratch elsewhere */
    bool rest;                  /* dropout off, running statistics */
    bool freeze_norm;           /* running statistics, also when training */
    float *mean, *var;          /* batch norm: the running statistics that a
                                   training forward moves */
    uint64_t *random;           /* dropout: the generator's state */

    /* What follows in the same pass over memory, where op_run_fuses. (Also: a
     * batch norm of six inputs does the PReLU that follows, whose slopes [c]
     * are the sixth; the gradient by them needs no more than its input.) */
    bool relu; /* out = max(0, result). Backward masks grad_out: batch norm by
                  what it computes anew from its input, add by out, which must
                  then be kept though op_info's keep does not ask for it */
    const float *scale[2]; /* add: one number that input 0 or 1 is multiplied
                              by (a residual's scale); NULL: 1. No gradient */
};

/* True: relu may be set, of a batch norm also slopes (batch norm; add of two
 * values of one shape). On one thread, batch 90, forward and backward: batch
 * norm and ReLU of 64x77x77 55 ms, as two nodes 83; batch norm and PReLU of
 * 64x56x56 32 ms, as two nodes 44. */
bool op_run_fuses(const struct op_run *r);
/* Floats of state that the node needs: masks, places of maxima, the batch's
 * mean and inverse deviation, partial sums. */
size_t op_run_state(const struct op_run *r);
/* False: this operator (or this form of it) has no kernel here. */
bool op_run_known(const struct op_run *r);
void op_run_forward(struct op_run *r);
void op_run_backward(struct op_run *r);

#endif
