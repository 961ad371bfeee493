/* core/engine/tensor.h - shapes, and memory for what has them.
 * Dimensions are always n c h w, or n c, or fewer; numbers are float32,
 * row-major, tightly packed. Pure. Thread: any. */
#ifndef CORE_ENGINE_TENSOR_H
#define CORE_ENGINE_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

enum {
    SHAPE_MAX_RANK = 4,
    SHAPE_MAX_DIM = 1 << 24,
    SHAPE_MAX_COUNT = 1 << 30 /* elements of one tensor */
};

struct shape {
    int rank;
    int d[SHAPE_MAX_RANK];
};

struct shape shape_of(int rank, int d0, int d1, int d2, int d3);
/* Product of the dimensions, 1 for rank 0; 0 when one is 0. */
size_t shape_count(const struct shape *s);
bool shape_equal(const struct shape *a, const struct shape *b);
/* Dimensions positive and product within SHAPE_MAX_COUNT. */
bool shape_valid(const struct shape *s);
/* "[1,3,112,112]" into buf; returns buf. */
const char *shape_text(const struct shape *s, char *buf, size_t len_buf);

/* 64-byte aligned zeroed floats, for free(); NULL when memory is out. */
float *tensor_alloc(size_t n_floats);

/* The test formula: n numbers in [-1,1), drawn with a name, the same on every
 * machine: FNV-1a of the name seeds splitmix64; (z>>40)/2^23 - 1. */
void tensor_formula(const char *name, float *out, size_t n);

#endif
