/* core/face/distance.h - how far apart two embeddings are.
 * Embeddings are unit vectors; a distance is always their squared L2
 * distance, 0..4. Pure. Thread: any. */
#ifndef CORE_FACE_DISTANCE_H
#define CORE_FACE_DISTANCE_H

#include <stdbool.h>
#include <stddef.h>

/* FaceNet paper, figure 1: squared distance that separates same from
 * different people; used where a model brings no threshold of its own. */
#define DISTANCE_DEFAULT_THRESHOLD 1.1f

/* Squared L2 distance of a and b, [dim] each. */
float distance_l2(const float *a, const float *b, size_t dim);

/* Squared L2 distances of q [dim] to n rows [n,dim], into out [n].
 * Unit vectors: 2 - 2 q.x by one matrix-vector product (OpenBLAS), clamped
 * to 0..4; differs from distance_l2 by at most a few 1e-6. */
void distance_rows(const float *q, const float *rows, size_t n, size_t dim,
                   float *out);

/* Scale v [dim] to unit length. False, v unchanged, when its length is 0 or
 * not finite. */
bool distance_normalise(float *v, size_t dim);

#endif
