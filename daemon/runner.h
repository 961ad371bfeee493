/* daemon/runner.h - a model's networks, and which of them runs a batch.
 * The processor's is always there; where there is a card its own runs, and
 * what that cannot run, for whatever reason, the processor runs at once. So a
 * card that fails, comes late or comes back changes how long an answer takes
 * and nothing else. Thread: any, except where it is said. */
#ifndef DAEMON_RUNNER_H
#define DAEMON_RUNNER_H

#include "core/face/embed.h"
#include "daemon/batch.h"
#include "daemon/card.h"

struct runner;

struct runner_options {
    struct device *cpu;
    enum precision cpu_precision;
    int cpu_batch;     /* most faces of a run */
    struct card *card; /* NULL: the processor alone */
    enum precision card_precision;
    int card_batch;
};

/* Waits for the card where it is up. The model is consumed, too where it
 * fails. */
struct runner *runner_new(const struct runner_options *opt,
                          struct model *take_model, struct error *err);
/* Nobody runs it any more. NULL is fine. */
void runner_free(struct runner *r);
const struct model *runner_model(const struct runner *r);

/* For a batch queue, ctx the runner. */
int runner_run(void *ctx, const float *const *chips, int n, float *out,
               int *bad, struct error *err);
struct batch_room runner_room(void *ctx);
int64_t runner_time_us(void *ctx, int n);
int runner_most_slots(const struct runner *r); /* that room may say */

/* Does the card run it now? If not, *why (may be NULL) says why. */
bool runner_on_card(const struct runner *r, struct error *why);
enum precision runner_precision(const struct runner *r); /* of what runs now */

#endif
