/* core/train/detector_train.h - trains the detector's three networks to do
 * what a teacher's do: P-Net, then R-Net on what P-Net lets through, then
 * O-Net on what both do. facenetctl train-detector calls it. Thread: one. */
#ifndef CORE_TRAIN_DETECTOR_TRAIN_H
#define CORE_TRAIN_DETECTOR_TRAIN_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/train/detector_loss.h"
#include "core/train/detector_sample.h"

struct detector_train_options {
    const char *data_dir;    /* folders of people, joined by ':' */
    const char *backgrounds; /* folders of pictures; NULL: none */
    const char *teacher;     /* folder of detector_{p,r,o}net.onnx */
    const char *out;         /* the folder that gets the like; it is made */
    const char *from;        /* a folder of networks to go on from; NULL: from
                                random weights */
    bool stage[DETECTOR_STAGES];  /* which learn; the others are read from
                                     out, where a later one needs them */
    int batches[DETECTOR_STAGES]; /* steps */
    double rate;                  /* of Adam, at its highest */
    int n_threads;                /* 0: the cores */
    uint64_t seed;
    const char *device; /* auto, cpu, cuda or cuda:N; see train_device.h */
    const char *plugin; /* NULL: the usual one */
};
/* All stages, and the numbers that the published files are made with. */
void detector_train_defaults(struct detector_train_options *o);

enum detector_train_state {
    DETECTOR_TRAIN_DEVICE,  /* text: what learns */
    DETECTOR_TRAIN_BEGIN,   /* of a stage */
    DETECTOR_TRAIN_STEP,    /* every hundredth, and the last */
    DETECTOR_TRAIN_WRITTEN, /* a network's file */
};
struct detector_train_report {
    enum detector_train_state state;
    enum detector_stage stage;
    int step, n_steps;
    double rate, samples_per_s;
    struct detector_loss loss; /* mean of the steps since the last report */
    struct detector_photos_counts photos;
    const char *text; /* DEVICE: it, and why no card */
    const char *path; /* WRITTEN */
};
typedef void (*detector_train_fn)(void *ctx,
                                  const struct detector_train_report *r);

/* Same options, same files, same device, same number of threads: the same
 * networks. *stop
 * not zero: the network at hand is written as it is, and no other begun;
 * *stopped says so. A file is whole or not there. ERR_BAD_FIELD, ERR_FILE,
 * ERR_MODEL, ERR_TRAINING, ERR_NOMEM, ERR_DEVICE. */
int detector_train(const struct detector_train_options *o,
                   detector_train_fn report, void *ctx,
                   const volatile sig_atomic_t *stop, bool *stopped,
                   struct error *err);

const char *detector_train_stage_name(enum detector_stage stage); /* "pnet" */

#endif
