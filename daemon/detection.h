/* daemon/detection.h - the detector's networks on the card.
 * Each of the three has a queue, as embedding has one: what the photos that
 * are being looked at ask of it meanwhile is one batch. Work threads wait for
 * it; what the card cannot run, for whatever reason, their own scratch's
 * networks do at once. So a card that fails, comes late or comes back changes
 * how long detection takes and nothing else.
 * There is always one struct detection; it may never use a card. Thread: any,
 * except where it is said. */
#ifndef DAEMON_DETECTION_H
#define DAEMON_DETECTION_H

#include "core/face/detect.h"
#include "daemon/card.h"

struct detection;

struct detection_options {
    struct card *card;
    bool wanted;        /* setting device-detect */
    struct device *cpu; /* for the check of the card's numbers */
    struct detector *detector;
    const struct model *models[DETECT_STAGES]; /* read until it is there */
};

struct detection_status {
    bool on_card;   /* all three networks: detection is the card's now */
    char why[240];  /* why not; "" */
    int64_t n_runs; /* batches that the card ran */
    int64_t n_inputs;
    int64_t n_failovers; /* times that a scratch did what it had asked for */
};

/* Waits for the card where it is up. The detector is told to ask here: before
 * its scratches. ERR_NOMEM, ERR_DEVICE (the processor's). Thread: main. */
struct detection *detection_new(const struct detection_options *opt,
                                struct error *err);
/* When nobody asks any more, before card_close. NULL is fine. Thread: main. */
void detection_free(struct detection *d);
void detection_status(struct detection *d, struct detection_status *out);
/* May the card ever run it? Then work threads will wait for it. */
bool detection_may_wait(const struct detection *d);
bool detection_alive(struct detection *d, int timeout_ms); /* watchdog */

#endif
