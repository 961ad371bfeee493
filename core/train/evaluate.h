/* core/train/evaluate.h - pairs to accuracy: the LFW protocol.
 * Accuracy, VAL at a false-accept rate, equal error rate, thresholds; from
 * distances alone, so that any source of distances can be measured.
 * Thread: any. */
#ifndef CORE_TRAIN_EVALUATE_H
#define CORE_TRAIN_EVALUATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/train/pairs.h"

struct evaluation {
    double accuracy, accuracy_std;
    double val, val_std, far; /* at the asked rate */
    double eer, auc;
    double threshold;     /* mean best-accuracy threshold over folds */
    double val_threshold; /* mean threshold at the asked rate */
    int64_t n_genuine, n_impostor;
};
/* distances [n]: squared L2; NaN: the pair is left out. far: 1e-3.
 * A pair is accepted when its distance is below the threshold. Accuracy: for
 * each fold the threshold of 0, 0.01 … 3.99 that is best on the others (the
 * lowest such). VAL: that of 0, 0.001 … 3.999 at which the others' false
 * accepts reach far, by linear interpolation. Means over folds, population
 * standard deviations; a fold without same (different) pairs takes no part in
 * the mean of VAL (FAR). EER and AUC: of all pairs together, exactly.
 * ERR_BAD_FIELD when the pairs that are left allow none of it. */
int evaluate_pairs(const double *distances, const bool *same, const int *fold,
                   int n, int n_folds, double far, struct evaluation *out,
                   struct error *err);

enum evaluate_metric { /* the script's numbers */
    EVALUATE_L2 = 0,   /* squared L2 */
    EVALUATE_ANGLE = 1 /* angle over pi, 0..1 */
};
struct evaluate_options {
    enum evaluate_metric metric;
    bool subtract_mean; /* of the embeddings that the pairs of the other folds
                           name, before a fold's distances are taken */
    double range;       /* thresholds are looked for in 0..range; 0: 4. Two
                           embeddings side by side have distances up to 8 */
    double far;
};
/* The same from embeddings: rows [n_photos,dim] of the list's photos, a row of
 * NaN where there is none. own [n_pairs] gets each pair's distance as it was
 * tried, NaN where there is none; EER and AUC are theirs. */
int evaluate_embeddings(const float *rows, size_t dim, const struct pairs *p,
                        const struct evaluate_options *opt, double *own,
                        struct evaluation *out, struct error *err);

struct roc_point {
    double far, val;
};
/* For each number of impostors that a threshold can accept, from none to all,
 * the most genuine pairs that are accepted with no more: *out [*n_out],
 * malloc'd, both rates rising. NaN distances are left out. ERR_BAD_FIELD
 * without pairs of both kinds. */
int evaluate_roc(const double *distances, const bool *same, int n,
                 struct roc_point **out, int *n_out, struct error *err);

/* The threshold at which at most `far` of the impostor distances are
 * accepted: halfway between the last accepted and the first refused one, so
 * that < and <= accept the same and a rounded threshold still does. 4 where
 * all may be accepted. Sorts impostor in place. Fills *n_accepted. */
double evaluate_threshold(double *impostor, int64_t n, double far,
                          int64_t *n_accepted);

#endif
