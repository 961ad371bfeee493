/* core/train/events.h - TensorBoard's event files: scalars over steps.
 * A file is a row of TFRecords, each a protobuf Event; TensorBoard reads it
 * while it grows. Thread: one. */
#ifndef CORE_TRAIN_EVENTS_H
#define CORE_TRAIN_EVENTS_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct events;

enum {
    EVENTS_MAX_TAG = 200 /* bytes of a scalar's name */
};

/* Make dir/events.out.tfevents.SECONDS.HOST. time_s: Unix time now. A file of
 * that name is never overwritten: a number is added. ERR_FILE, ERR_NOMEM. */
struct events *events_open(const char *dir, double time_s, struct error *err);
/* One scalar, flushed, so that a viewer sees it at once. ERR_FILE (also for a
 * full disk: what was half written is taken back, so that the file stays
 * readable), ERR_BAD_FIELD for an empty tag or one that is too long. */
int events_scalar(struct events *ev, double time_s, int64_t step,
                  const char *tag, float value, struct error *err);
const char *events_path(const struct events *ev); /* borrowed */
/* ERR_FILE when the last bytes could not be written. NULL is fine. */
int events_close(struct events *ev, struct error *err);

/* CRC-32C (Castagnoli) of n bytes: 0xE3069283 for "123456789". */
uint32_t events_crc(const void *bytes, size_t n);

#endif
