/* gpu/search_arith.h - the arithmetic of searching rows in 16 bits, and the
 * proof that what is left out cannot matter. One copy for the card
 * (search_kernels.cu) and for the host, where tests run it.
 *
 * x: a row, q: a query, both of n numbers; x', q': the same in half
 * precision; s: the product q'.x' as the card computes it. Then
 *   |q.x - s| <= |q.(x - x')| + |(q - q').x'| + |q'.x' - s|
 *             <= |q| |x - x'| + |q - q'| |x'| + g |q'| |x'|
 * by Cauchy-Schwarz. A product of two halfs is exact in single precision. A
 * sum of n of them, in any order, loses at each step at most 2^-22 of the
 * largest magnitude in it, which is at most |q'| |x'|: rounding loses 2^-24;
 * tensor cores align the terms of a group of at least four to the largest and
 * cut what is below its 2^-23. That is n terms and n/4 groups; 32 more for
 * the sum over a warp. So g = (n + n/4 + 32) 2^-22. With norms that are
 * largest over all rows searched, this is search_epsilon.
 *
 * Let e be that bound and t the k-th largest s. k rows have q.x >= t - e. A
 * row with s < t - 2e has q.x < t - e, and is none of the k largest. */
#ifndef GPU_SEARCH_ARITH_H
#define GPU_SEARCH_ARITH_H

#include "gpu/arith.h"

/* One lane's share of rounding a row: numbers lane, lane + n_lanes, ... of
 * dim, zeros up to padded. Adds to the squares of |x - x'| and |x'|. */
ARITH void search_round(const float *x, uint16_t *to, int dim, int padded,
                        int lane, int n_lanes, float *lost2, float *norm2)
{
    for (int i = lane; i < padded; i += n_lanes) {
        float v = i < dim ? x[i] : 0.0f, kept, lost;

        to[i] = arith_to_f16(v);
        kept = arith_from_f16(to[i]);
        lost = v - kept; /* exact */
        *lost2 += lost * lost;
        *norm2 += kept * kept;
    }
}

/* At least the norm, from a sum of n squares in single precision, of which
 * those below 2^-149 may be missing. NaN and infinity stay. */
ARITH float search_norm(float sum2, int n)
{
    float grown = sum2 * (1.0f + (float)(n + 16) * 1.2e-7f);

    return sqrtf(grown) * 1.000001f + 1e-17f;
}

/* |x|, |q| of the rounded ones, |x - x'|, |q - q'|: what is lost of both. */
ARITH float search_epsilon(float q_norm, float q_lost, float x_norm,
                           float x_lost, int n)
{
    float g = ((float)n * 1.25f + 32.0f) * 2.384185791015625e-7f; /* 2^-22 */
    float e =
        (q_norm + q_lost) * x_lost + q_lost * x_norm + g * q_norm * x_norm;

    return e * 1.00001f + 1e-7f; /* of this line's own rounding */
}

/* What of the rows is collected, given the k-th largest product so far:
 * band, 2e and what the asker adds; low, the floor less e. Any product that
 * is not below. */
ARITH float search_cut(float kth, float band, float low)
{
    float cut = kth - band;

    return cut > low ? cut : low;
}

/* A found row: its product, so that whole numbers sort as products do, above
 * its place. */
ARITH uint64_t search_hit(float product, uint32_t place)
{
    uint32_t u = arith_bits(product);

    u = u & 0x80000000 ? ~u : u | 0x80000000;
    return (uint64_t)u << 32 | place;
}

ARITH float search_product(uint64_t hit)
{
    uint32_t u = (uint32_t)(hit >> 32);

    return arith_float(u & 0x80000000 ? u & 0x7fffffff : ~u);
}

/* The k-th largest hit is found a byte at a time, from the top: counts [256]
 * of the hits that share the bytes so far, by their next; *k becomes its rank
 * among those of the byte returned. */
ARITH uint32_t search_byte(const uint32_t *counts, uint32_t *k)
{
    uint32_t byte = 255;

    while (byte > 0 && counts[byte] < *k)
        *k -= counts[byte--];
    return byte;
}

ARITH bool search_dead(const uint64_t *dead, int row)
{
    return dead && (dead[row / 64] >> (row % 64) & 1);
}

#endif
