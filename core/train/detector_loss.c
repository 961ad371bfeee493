/* core/train/detector_loss.c - the loss of a detector's network over a batch,
 * with the mining of hard samples (arXiv 1604.02878, section II.B): only the
 * worst answered part of a batch's classes counts. */
#include "core/train/detector_loss.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Below this many crop sides a coordinate's loss is quadratic. */
static const float beta = 0.03f;
/* The softmax multiplies by p (1 - p), which a sure network makes nothing. */
static const float least_slope = 1e-6f;

/* Where sample i (of n * cells) has its channel c. */
static size_t at(const struct detector_outputs *o, int i, int n_channels, int c)
{
    size_t cells = (size_t)o->cells;

    return ((size_t)i / cells * (size_t)n_channels + (size_t)c) * cells +
           (size_t)i % cells;
}

static double cross_entropy(float p, float t)
{
    double q = p < 1e-7f ? 1e-7 : p > 1 - 1e-7f ? 1 - 1e-7 : (double)p;

    return -(double)t * log(q) - (1 - (double)t) * log(1 - q);
}

/* The k-th largest of miss[order[0..n-1]] (k from 0) by partition: order is
 * rearranged so that the k largest come first. */
static void largest_first(const float *miss, int *order, int n, int k)
{
    int lo = 0, hi = n - 1;

    while (lo < hi) {
        float pivot = miss[order[lo + (hi - lo) / 2]];
        int i = lo, j = hi;

        while (i <= j) {
            while (miss[order[i]] > pivot)
                i++;
            while (miss[order[j]] < pivot)
                j--;
            if (i <= j) {
                int t = order[i];

                order[i++] = order[j];
                order[j--] = t;
            }
        }
        if (k <= j)
            hi = j;
        else if (k >= i)
            lo = i;
        else
            return;
    }
}

/* The loss by the face's probability of every sample that counts; miss is
 * written where `by` will be. */
static void class_loss(const struct detector_loss_options *o,
                       const struct detector_outputs *out,
                       const struct detector_target *t, int *order,
                       struct detector_outputs *by, struct detector_loss *loss)
{
    int n = out->n * out->cells, n_order = 0, n_always = 0, n_kept;
    float *miss = by->box; /* n of its 4 n; written over later */
    int n_agreed = 0;

    memset(by->prob, 0, 2 * (size_t)n * sizeof(*by->prob));
    for (int i = 0; i < n; i++) {
        if (!(t[i].prob_weight > 0))
            continue;
        miss[i] = fabsf(out->prob[at(out, i, 2, 1)] - t[i].prob);
        if (t[i].prob > 0.5f) {
            miss[i] += 1; /* before all others */
            n_always++;
        }
        order[n_order++] = i;
    }
    n_kept = n_always + (int)ceilf(o->keep * (float)(n_order - n_always));
    if (n_kept < n_order)
        largest_first(miss, order, n_order, n_kept);
    for (int k = 0; k < n_order; k++) {
        int i = order[k];
        float p = out->prob[at(out, i, 2, 1)];

        n_agreed += (p > 0.5f) == (t[i].prob > 0.5f);
        if (k >= n_kept)
            continue;
        loss->prob += (double)t[i].prob_weight * cross_entropy(p, t[i].prob);
        by->prob[at(out, i, 2, 1)] = t[i].prob_weight / (float)n_kept *
                                     (p - t[i].prob) /
                                     fmaxf(p * (1 - p), least_slope);
    }
    loss->n_prob = n_kept;
    loss->prob /= n_kept ? n_kept : 1;
    loss->agreed = n_order ? (double)n_agreed / n_order : 1;
}

static float slope(float d)
{
    return d > beta ? 1 : d < -beta ? -1 : d / beta;
}

static double distance(float d)
{
    float a = fabsf(d);

    return a > beta ? (double)(a - beta / 2) : (double)(d * d / (2 * beta));
}

/* Coordinates: mean over the samples that have them of the sum over
 * n_channels. target: of the first sample's, the others' a struct apart. */
static double coordinate_loss(const struct detector_outputs *out,
                              const struct detector_target *t, bool points,
                              float weight, const float *is, float *by, int *n)
{
    int all = out->n * out->cells, channels = points ? 10 : 4;
    double sum = 0, total = 0;

    *n = 0;
    memset(by, 0, (size_t)all * (size_t)channels * sizeof(*by));
    for (int i = 0; i < all; i++) {
        float w = points ? t[i].points_weight : t[i].box_weight;
        total += (double)w;
        *n += w > 0;
    }
    for (int i = 0; i < all; i++) {
        float w = points ? t[i].points_weight : t[i].box_weight;
        const float *want = points ? t[i].points : t[i].box;

        for (int c = 0; w > 0 && c < channels; c++) {
            size_t k = at(out, i, channels, c);
            float d = is[k] - want[c];

            sum += (double)w * distance(d);
            by[k] = weight * w * slope(d) / (float)total;
        }
    }
    return total > 0 ? sum / total : 0;
}

static double point_error(const struct detector_outputs *out,
                          const struct detector_target *t)
{
    double sum = 0;
    int n = 0;

    for (int i = 0; i < out->n * out->cells; i++) {
        if (!(t[i].points_weight > 0))
            continue;
        for (int k = 0; k < 5; k++)
            sum += (double)hypotf(
                out->points[at(out, i, 10, k)] - t[i].points[k],
                out->points[at(out, i, 10, k + 5)] - t[i].points[k + 5]);
        n++;
    }
    return n ? sum / (5 * n) : 0;
}

void detector_loss(const struct detector_loss_options *o,
                   const struct detector_outputs *out,
                   const struct detector_target *targets, int *order,
                   struct detector_outputs *by, struct detector_loss *loss)
{
    memset(loss, 0, sizeof(*loss));
    class_loss(o, out, targets, order, by, loss);
    loss->box = coordinate_loss(out, targets, false, o->box, out->box, by->box,
                                &loss->n_box);
    if (!out->points)
        return;
    loss->points = coordinate_loss(out, targets, true, o->points, out->points,
                                   by->points, &loss->n_points);
    loss->point_error = point_error(out, targets);
}
