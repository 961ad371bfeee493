/* tools/measure.h - how well a model tells people apart: a list of pairs,
 * photos read exactly as the daemon reads them, distances, evaluation.
 * facenetctl evaluate and model import use it. Thread: one call at a time. */
#ifndef TOOLS_MEASURE_H
#define TOOLS_MEASURE_H

#include "core/face/model.h"
#include "core/train/evaluate.h"

struct measure_options {   /* zero takes the default */
    const char *model;     /* file */
    const char *detectors; /* folder of detector_{p,r,o}net.onnx; default: the
                              model's */
    const char *pairs;     /* list, see core/train/pairs.h */
    const char *photos;    /* folder */
    int n_threads;         /* that read photos; default: the cores */
    int batch;             /* 16 */
    enum precision precision;
    double far;         /* 1e-3 */
    float min_face;     /* pixels; 36 */
    double max_skipped; /* part of the pairs; 0.01; negative: none */
    /* Called on the calling thread, NULL: not wanted. */
    void (*progress)(void *user, int done, int total);
    void (*skipped)(void *user, const char *photo, const struct error *why);
    void *user;
};

enum {
    MEASURE_THRESHOLDS = 3
};

struct measurement {
    struct evaluation result;
    int n_pairs, n_skipped; /* in the list; of them without a distance */
    int n_photos, n_missing, n_faceless, n_unread;
    int64_t decode_us, detect_us, align_us, embed_us; /* sums over photos */
    int64_t wall_us;
    enum precision precision; /* the one used */
    /* At false-accept rates 1e-1, 1e-2, 1e-3 of the list's pairs of different
     * people; rates that the list is too short for are left out. */
    struct model_threshold thresholds[MEASURE_THRESHOLDS];
    int n_thresholds;
};

/* ERR_BAD_FIELD when more than max_skipped of the pairs have no distance; *out
 * is filled even so. Others: what loading and computing give. */
int measure_run(const struct measure_options *opt, struct measurement *out,
                struct error *err);

#endif
