/* core/train/detector_sample.h - scenes to batches for one of the detector's
 * networks: which boxes, what the network sees there, what it should answer.
 * detector_train calls it. Thread: one. */
#ifndef CORE_TRAIN_DETECTOR_SAMPLE_H
#define CORE_TRAIN_DETECTOR_SAMPLE_H

#include "core/train/detector_loss.h"
#include "core/train/detector_scene.h"

enum detector_stage {
    DETECTOR_P,
    DETECTOR_R,
    DETECTOR_O,
    DETECTOR_STAGES
};

/* P-Net learns from pieces of pyramid levels, all cells of each at once. */
enum {
    DETECTOR_P_SIDE = 48,
    DETECTOR_P_CELLS = 19
};

struct detector_sampler_options {
    enum detector_stage stage;
    int batch; /* pieces or crops, a multiple of DETECTOR_PER_SCENE's */
    /* Where R-Net's and O-Net's candidates come from: the cascade before the
     * one that learns. Borrowed. */
    struct detect_scratch *before;
    struct network *teacher; /* the same stage's; borrowed */
    int teacher_output[3];   /* its prob, box, landmarks (-1: none) */
    uint64_t seed;
};

struct detector_sampler;
struct detector_sampler *
detector_sampler_new(struct detector_photos *photos,
                     const struct detector_sampler_options *o,
                     struct error *err);
void detector_sampler_free(struct detector_sampler *s);
/* How many samples a batch is made of: pieces of P-Net have many cells. */
int detector_sampler_targets(const struct detector_sampler *s);
/* Batch number `at` (the same whenever it is asked for): pixels
 * [batch,3,side,side] and targets, in the order of detector_outputs. */
int detector_sampler_fill(struct detector_sampler *s, long long at,
                          float *pixels, struct detector_target *targets,
                          struct error *err);

/* What R-Net or O-Net should say of a face when it sees box b. */
void detector_sample_aim(const struct box *b, const struct face *f,
                         float box[4], float points[10]);
/* The target of a crop: of the scene's face that it overlaps most, if any
 * enough, and of what the teacher says of it. */
void detector_sample_target(const struct detector_scene *scene,
                            const struct box *b, float teacher_prob,
                            struct detector_target *out);

#endif
