/* core/train/evaluate.h - pairs to accuracy: the LFW protocol.
 * Accuracy, VAL at a false-accept rate, equal error rate, thresholds; from
 * distances alone, so that any source of distances can be measured.
 * Thread: any. */
#ifndef CORE_TRAIN_EVALUATE_H
#define CORE_TRAIN_EVALUATE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"

/* pairs.txt: "FOLDS N" then per fold N lines "name i j" and N lines
 * "name1 i name2 j", tabs or blanks; photo is name/name_%04d.jpg. */
struct pair {
    int photo[2]; /* indices into photos */
    bool same;
    int fold;
};
struct pairs {
    char **photos; /* relative paths, each once */
    int n_photos;
    struct pair *pairs;
    int n_pairs, n_folds;
};
int pairs_load(const char *path, struct pairs *out, struct error *err);
void pairs_fini(struct pairs *p);

struct evaluation {
    double accuracy, accuracy_std;
    double val, val_std, far; /* at the asked rate */
    double eer, auc;
    double threshold;     /* mean best-accuracy threshold over folds */
    double val_threshold; /* mean threshold at the asked rate */
    int64_t n_genuine, n_impostor;
};
/* distances [n]: squared L2; NaN: the pair is left out. far: 1e-3. */
int evaluate_pairs(const double *distances, const bool *same, const int *fold,
                   int n, int n_folds, double far, struct evaluation *out,
                   struct error *err);

/* The threshold at which `far` of the impostor distances are accepted:
 * largest t with accepted(t) <= far * n. Sorts impostor in place. Fills
 * *n_accepted. */
double evaluate_threshold(double *impostor, int64_t n, double far,
                          int64_t *n_accepted);

#endif
