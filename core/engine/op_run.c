/* core/engine/op_run.c - which operators, in which forms, networks that learn
 * may hold. How they are computed is op_train's, or a card's. */
#include "core/engine/op_train.h"

bool op_run_known(const struct op_run *r)
{
    const struct shape *x = &r->shape_in[0], *y = &r->shape_in[1];

    switch (r->op->type) {
    case OP_BATCH_NORM:
    case OP_AFFINE:
    case OP_PRELU:
        return x->rank == 2 || x->rank == 4;
    case OP_CONCAT:
    case OP_SLICE:
    case OP_LP_NORM:
    case OP_SOFTMAX:
        return r->op->u.axis.axis == 1 && (x->rank == 2 || x->rank == 4);
    case OP_RESHAPE:
        return r->shape_out.rank == 2 || shape_equal(x, &r->shape_out);
    case OP_ADD:
    case OP_SUB:
    case OP_MUL:
    case OP_DIV:
        return r->n_in == 2 && (shape_equal(x, y) || shape_count(y) == 1);
    case OP_RELU:
    case OP_CLIP:
    case OP_SIGMOID:
    case OP_MAX:
    case OP_MAX_POOL:
    case OP_AVG_POOL:
    case OP_LP_POOL:
    case OP_LRN:
    case OP_DROPOUT:
    case OP_IDENTITY:
        return true;
    default:
        return false;
    }
}

bool op_run_fuses(const struct op_run *r)
{
    return (r->op->type == OP_BATCH_NORM && r->n_in == 5) ||
           (r->op->type == OP_ADD &&
            shape_equal(&r->shape_in[0], &r->shape_in[1]));
}
