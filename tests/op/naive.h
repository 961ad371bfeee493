/* tests/op/naive.h - every operator as the plainest loop, in double: the
 * oracle of the backends. Shares nothing with them but struct graph. */
#ifndef TESTS_OP_NAIVE_H
#define TESTS_OP_NAIVE_H

#include "core/engine/graph.h"

/* Evaluate g node by node for the input x [n,c,h,w]. Returns the values of
 * output `which` as a malloc'd array and its shape; NULL on failure. */
double *naive_run(const struct graph *g, const float *x, int n, int h, int w,
                  int which, struct shape *shape);

#endif
