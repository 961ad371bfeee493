/* core/train/detector_loss.h - what a detector's network should have answered,
 * and the loss by what it did. detector_sample fills targets, detector_train
 * calls. Pure: no globals. Thread: any. */
#ifndef CORE_TRAIN_DETECTOR_LOSS_H
#define CORE_TRAIN_DETECTOR_LOSS_H

#include <stddef.h>

/* Of one cell of P-Net, one crop of R-Net or O-Net. */
struct detector_target {
    float prob; /* that it is a face: 0..1, may be in between */
    float prob_weight, box_weight, points_weight; /* 0: no target */
    float box[4];                                 /* as the network says it */
    float points[10];
};

/* A network's outputs, [n,channels,cells] each, or the loss by them. */
struct detector_outputs {
    int n, cells;
    float *prob;   /* 2 channels, the second one's is a face */
    float *box;    /* 4 */
    float *points; /* 10; NULL: the network has none */
};

struct detector_loss_options {
    float box, points; /* weights beside the class's loss */
    float keep;        /* the part of samples, the worst answered ones, whose
                          class counts; those that are more of a face than
                          not always do. 0..1 */
};

struct detector_loss {
    double prob, box, points; /* means over those that count */
    double agreed;            /* part that falls on the target's side */
    double point_error;       /* mean distance, in crop sides */
    int n_prob, n_box, n_points;
};

/* Cross entropy of the class; of boxes and points the distance beyond a few
 * hundredths of the crop, its square below. `by` gets the loss by each
 * output, everything written. order: room for n*cells ints. */
void detector_loss(const struct detector_loss_options *o,
                   const struct detector_outputs *out,
                   const struct detector_target *targets, int *order,
                   struct detector_outputs *by, struct detector_loss *loss);

#endif
