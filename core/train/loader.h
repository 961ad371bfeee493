/* core/train/loader.h - photos of a dataset to batches of chips, read ahead.
 * A photo is read once: decoded, where it is raw detected by the daemon's own
 * detector and its most central face taken, and what is kept of it stays in
 * memory within max_bytes (least recently used go first; then it is read
 * again). Then, for every use: crop, disturb, scale.
 * Thread: one; the loader has its own threads. */
#ifndef CORE_TRAIN_LOADER_H
#define CORE_TRAIN_LOADER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/face/detect.h"
#include "core/face/model.h"
#include "core/train/augment.h"
#include "core/train/dataset.h"

struct loader;
struct loader_options { /* zero takes the default; all borrowed until
                           loader_free */
    const struct dataset *dataset;
    const struct contract *contract; /* crop kind, size, scaling */
    const struct contract *second;   /* what loader_take will be asked for, to
                                        be made ahead too; may be NULL */
    struct detector *detector;       /* of raw photos; else NULL */
    struct detect_options detect;
    const struct augment *augment; /* NULL: none (centre crop) */
    int n_threads;                 /* 0: the cores; at most 64 */
    int64_t max_bytes;             /* of kept faces; 0: 2 GiB. Where raw photos
                                      would not fit as pixels they are kept as
                                      JPEG of quality 95. Faces of the batches
                                      read ahead come on top. */
    int ahead;   /* batches made before they are taken; 0: 4 */
    int max_bad; /* photos that may fail; 0: a tenth, rounded
                    up; negative: none */
};

/* Starts the threads. ERR_BAD_FIELD (a raw dataset without a detector, limits
 * out of range), ERR_MODEL (a contract without a crop), ERR_NOMEM. */
struct loader *loader_new(const struct loader_options *opt, struct error *err);
void loader_free(struct loader *l); /* also with batches not taken; NULL */

/* Ask for a batch: photos' indices; seeds[i] draws the disturbance of the
 * i-th, so that what comes does not depend on threads. Any number may be
 * asked for; `ahead` of them are worked on. ERR_BAD_FIELD (no photos, no such
 * photo), ERR_NOMEM. */
int loader_ask(struct loader *l, const int *photos, const uint64_t *seeds,
               int n, struct error *err);
/* Wait for the oldest batch asked for: out [n,3,h,w] in the contract's
 * numbers; ok [n]: false where the photo is bad (its row is zero). second:
 * NULL, or a second contract's chip of the same disturbed face (a teacher's;
 * see augment_crop), at second's size and scaling, into out2.
 * ERR_BAD_FIELD: nothing was asked for, or more than max_bad photos have
 * failed: the text names the last. What another photo would meet too fails
 * with its own code: ERR_NOMEM, ERR_DEVICE, ERR_MODEL. The batch is gone
 * after a failure too. */
int loader_take(struct loader *l, float *out, bool *ok,
                const struct contract *second, float *out2, struct error *err);
int loader_outstanding(struct loader *l); /* batches asked for, not taken */

/* First 16 bytes of the SHA-256 of the photo's file: equal for copies. NULL
 * until the photo was read, as all of a batch are that was taken, and when
 * its file cannot be. Borrowed until loader_free. */
const uint8_t *loader_hash(struct loader *l, int photo);
/* Photos that failed so far, in the order they were met: path and why;
 * borrowed until loader_free. */
int loader_failures(struct loader *l);
const char *loader_failure(struct loader *l, int i, const char **why);

/* Are these whole photos, to be detected? Looks at up to 32 of them, spread:
 * pictures of one size in whose middle the detector finds a face that fills
 * 30 % or more, or none, are cropped already; others are whole photos.
 * detector NULL: *raw is false. ERR_BAD_FIELD: none could be read; ERR_NOMEM,
 * ERR_DEVICE. */
int loader_looks_raw(const struct dataset *d, struct detector *detector,
                     bool *raw, struct error *err);

#endif
