/* core/arch/arch.h - the networks by name, with fresh random weights.
 * Tables: the FaceNet paper (arXiv 1503.03832, tables 1 and 2), the published
 * Inception-ResNet-v1, MobileFaceNet, MTCNN. Builds graphs and nothing else.
 * Thread: any. */
#ifndef CORE_ARCH_ARCH_H
#define CORE_ARCH_ARCH_H

#include "core/engine/graph.h"

struct arch_options {
    int embedding_size; /* 0: the network's own (128; 512 for irv1) */
    uint64_t seed;      /* of the weights */
    bool normalise;     /* end in an LpNormalization node */
};

struct arch_info {
    const char *name;   /* "nn2", "inception_resnet_v1", "mobilefacenet" … */
    int width, height;  /* of the input */
    int embedding_size; /* default; 0 for detectors */
    const char *about;
};

/* All rows, ended by a NULL name. */
const struct arch_info *arch_list(void);
const struct arch_info *arch_find(const char *name); /* or NULL */
struct graph *arch_new(const char *name, const struct arch_options *opt,
                       struct error *err);

#endif
