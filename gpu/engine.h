/* gpu/engine.h - a device, and the choice of cuDNN's engine for each of its
 * plans' convolutions: engines are tried before they are relied on, and timed
 * against each other where that is wanted. One that cuDNN makes and then cannot
 * run is passed over like one that it cannot make. Thread: who holds the
 * device's lock. */
#ifndef GPU_ENGINE_H
#define GPU_ENGINE_H

#include <pthread.h>

#include "core/engine/backend.h"
#include "gpu/dnn.h"
#include "gpu/tune.h"

struct gpu_device {
    struct device base;
    struct card *card;
    pthread_mutex_t lock; /* of dnn, and of all convolutions made by it */
    struct dnn *dnn;
    struct tune *tune;
    bool tunes; /* times engines when it plans */
};

enum {
    /* Scratch memory of one convolution, bytes; more would be taken from
     * others. */
    ENGINE_MAX_SCRATCH = 256 << 20,
    /* Bytes that a plan's memory begins as. */
    ENGINE_FILL_PLAIN = 0x3c, /* 1.06 in f16, 0.01 in bf16 and f32: of trials */
    ENGINE_FILL_NAN = 0xff    /* of every type */
};

struct scratch { /* on the card, of one stream */
    char *p;
    size_t bytes;
};
/* At least so much. What was bound to it before must be bound again. */
int engine_scratch(struct card *c, struct scratch *s, size_t bytes,
                   struct error *err);
void engine_scratch_free(struct card *c, struct scratch *s);

struct engine_place {
    struct gpu_device *dev;
    struct stream *stream;
    struct scratch *scratch; /* grows as trials need it */
};
/* Leaves the best engine chosen. m: what it may read and write in trials; its
 * scratch is filled in. 1; 0: none runs; -1: out of memory, or the card is
 * lost. */
int engine_choose(const struct engine_place *at, struct dnn_conv *c,
                  const struct dnn_shape *s, struct dnn_memory *m,
                  struct error *err);
int engine_run(struct dnn_conv *c, struct stream *on, struct error *err);

#endif
