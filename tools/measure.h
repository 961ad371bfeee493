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
    const char *device;    /* of the embedder: cpu (default), cuda, cuda:N, or
                              auto: a card if there is one. Faces are found by
                              the processor. */
    const char *plugin;    /* the card's; default: plugin_default */
    int n_threads;         /* that read photos; default: the cores */
    int batch;             /* 16 */
    enum precision precision;
    double far; /* 1e-3 */
    enum evaluate_metric metric;
    bool flipped;       /* a face's embedding is that of its chip and that of
                           the mirrored one side by side: unit vectors both, so
                           that distances are sums of two and run to 8 */
    bool subtract_mean; /* see core/train/evaluate.h */
    float min_face;     /* pixels; 36 */
    double max_skipped; /* part of the pairs; 0.01; negative: none */
    /* Called on the calling thread, NULL: not wanted. */
    void (*progress)(void *user, int done, int total);
    void (*skipped)(void *user, const char *photo, const struct error *why);
    void *user;
};

enum {
    MEASURE_THRESHOLDS = 4
};

struct measurement {
    struct evaluation result;
    int n_pairs, n_skipped; /* in the list; of them without a distance */
    int n_photos, n_missing, n_faceless, n_unread;
    int64_t decode_us, detect_us, align_us, embed_us; /* sums over photos */
    int64_t wall_us;
    enum precision precision; /* the one used */
    char device[80];          /* that embedded: "oneDNN 2.6.3, OpenBLAS…" */
    char model[sizeof(((struct model *)NULL)->name)];
    struct roc_point *roc; /* [n_roc] */
    int n_roc;
    /* At false-accept rates 1e-1 to 1e-4 of the list's pairs of different
     * people; rates at which fewer than three of them are accepted are left
     * out. */
    struct model_threshold thresholds[MEASURE_THRESHOLDS];
    int n_thresholds;
};

/* ERR_BAD_FIELD when more than max_skipped of the pairs have no distance; *out
 * is filled even so. Others: what loading and computing give. measure_fini it
 * in any case. */
int measure_run(const struct measure_options *opt, struct measurement *out,
                struct error *err);

void measure_fini(struct measurement *m);

/* The model and the detector beside it, on one thread of one device. */
struct measure_parts {
    struct detector *detector;
    struct embedder *embedder;
    struct model *parts[3], *model;
    struct device *device;
    struct device *card; /* the embedder's; NULL: it is on the device, too */
};
/* Looks at model, detectors, device, plugin, batch and precision of the
 * options. Fills *out, to be given to measure_unload in any case. */
int measure_load(const struct measure_options *opt, struct measure_parts *out,
                 struct error *err);
void measure_unload(struct measure_parts *l);

#endif
