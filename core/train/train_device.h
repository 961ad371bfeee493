/* core/train/train_device.h - what a network learns on: a card through its
 * plugin where one is asked for or can be had, else the processor; and in which
 * arithmetic. train_setup.c and detector_train.c call it. Thread: one. */
#ifndef CORE_TRAIN_TRAIN_DEVICE_H
#define CORE_TRAIN_TRAIN_DEVICE_H

#include "core/engine/backend.h"

struct train_device_options {
    const char *device;     /* auto (also NULL), cpu, cuda or cuda:N */
    const char *plugin;     /* the card's; NULL or "": plugin_default */
    double memory_fraction; /* of the card's, at most; 0: all */
    bool tune;              /* as device_options */
    int n_threads;          /* of the processor; 0: the cores */
};

/* The card that was asked for, or ERR_DEVICE; with auto the processor where
 * there is none that a network can learn on, and *why says so. Else why->text
 * is "". ERR_BAD_FIELD: no such name. */
struct device *train_device_open(const struct train_device_options *o,
                                 struct error *why, struct error *err);
bool train_device_is_card(const struct device *dev);

/* The word of the argument precision: auto, f32, tf32, bf16 or f16. */
struct train_precision {
    enum precision learn;
    enum precision rest; /* where nothing learns; where it learns in 16 bits,
                            one with more digits, if the device has it */
};
/* auto: f32 on the processor; on a card bf16, or f16 where it has no bf16.
 * ERR_BAD_FIELD where the device has not what is asked for. */
int train_device_precision(const struct device *dev, const char *word,
                           struct train_precision *out, struct error *err);
/* "cuda, NVIDIA H100 80GB HBM3, bf16", "cpu, oneDNN 2.6.3, f32; no card: why"
 * (why may be ""). */
enum {
    TRAIN_DEVICE_TEXT = 480
};
void train_device_text(const struct device *dev, enum precision p,
                       const char *why, char buf[TRAIN_DEVICE_TEXT]);
/* To an error of a card: for want of memory, what could be lowered. -1. */
int train_device_advise(const struct device *dev, int batch, struct error *err);

#endif
