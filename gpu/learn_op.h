/* gpu/learn_op.h - forward and backward of every operator that is not a
 * convolution or a dense layer, for networks that learn: core/engine/op_train.h
 * on the card, and the meaning of every field is its. Arrays are struct nhwc
 * of one type, with padding that is zero and stays so; a slice of another array
 * is never given: pitch is arith_padded(c). Vectors (gamma, beta, statistics,
 * slopes, scales, shifts) are f32, padded to eight with zeros, on the card.
 * What is one number for all channels (a PReLU's slope of [1], the second
 * operand of an arithmetic) is a vector too: that number c times; its gradient
 * is the sum over all channels, c times, so that an update keeps them equal.
 * Sums are f32 and do not depend on the order in which threads come.
 * Thread: the stream's. */
#ifndef GPU_LEARN_OP_H
#define GPU_LEARN_OP_H

#include "core/engine/op.h"
#include "gpu/arith.h"
#include "gpu/card.h"

struct learn_op {
    const struct op *op;
    int n_in;
    struct nhwc in[OP_MAX_IN]; /* .n 0: a vector. .p may be NULL in backward
                                  where that does not need it (op_info's keep)
                                */
    const float *vector[OP_MAX_IN]; /* [c], on the card; NULL: an array */
    bool one[OP_MAX_IN];            /* of PReLU: the vector is one number */
    struct nhwc out;                /* .p may be NULL in backward, as above */
    struct nhwc grad_in[OP_MAX_IN]; /* .p NULL: not wanted */
    float *grad_vector[OP_MAX_IN];  /* [c]; NULL: not wanted */
    bool fresh[OP_MAX_IN];          /* written, not added to; of vectors too */
    struct nhwc grad_out;           /* never the same memory as a grad_in */
    void *state; /* learn_op_state bytes, aligned to 16: not touched between
                    forward and backward */
    bool rest, freeze_norm;
    float *mean, *var;      /* of a training forward; vectors; may be those of
                               in[3] and in[4] */
    const uint64_t *random; /* dropout: the state, on the card; numbers
                               random_at+1 and on after it are this node's, as
                               many as its output has. Read by forward, which
                               keeps it in state: backward draws the same */
    uint64_t random_at;
    bool relu;
    float scale[2]; /* of an add; 1 where there is none */
};

/* What op_run_known takes, less what is not here (arrays of 2^31 numbers and
 * above, max pools over more than 65536 pixels): a network with such a node
 * cannot learn on the card. These two look at op, n_in, relu and the sizes of
 * arrays, not at any address. */
bool learn_op_known(const struct learn_op *r);
size_t learn_op_state(const struct learn_op *r);
/* type: an enum gtype. ERR_DEVICE. */
int learn_op_forward(const struct learn_op *r, int type, struct stream *s,
                     struct error *err);
int learn_op_backward(const struct learn_op *r, int type, struct stream *s,
                      struct error *err);

#endif
