/* daemon/serving.h - a model that answers, with all that is its own.
 * A request takes a reference to the active one when it starts and uses only
 * that to its end: so a switch is one exchange of pointers, requests in flight
 * finish on the old one, and no answer compares vectors of two models.
 * Thread: any, except where it is said. */
#ifndef DAEMON_SERVING_H
#define DAEMON_SERVING_H

#include <stdatomic.h>
#include <stdbool.h>

#include "config/config.h"
#include "core/face/embed.h"
#include "daemon/batch.h"
#include "daemon/models.h"
#include "daemon/runner.h"
#include "store/gallery.h"
#include "store/store.h"

struct servings; /* all that are loaded */

struct serving {               /* immutable while it is referred to */
    const struct model *model; /* the runner's */
    struct runner *runner;
    struct batch *batch;
    struct gallery *gallery;      /* what the store holds of this model */
    struct card_gallery *on_card; /* the active one's rows; NULL: never */
    atomic_bool gallery_stale;    /* lacks a stored face: to be rebuilt */
    /* serving's own */
    struct servings *set;
    atomic_int refs;
    bool closed;
    struct serving *next;
};

enum serving_slot {
    SERVING_ACTIVE,
    SERVING_PREVIOUS, /* the one before, for a rollback */
    SERVING_TARGET,   /* the one to come */
    SERVING_SLOTS
};

struct servings_options {
    struct device *device; /* the processor */
    const struct device_info *info;
    struct card *card;
    const struct config *config; /* all borrowed */
    struct models *models;
    struct store *store;
};

struct servings *servings_new(const struct servings_options *opt,
                              struct error *err);
/* What waits for a network is answered ERR_STOPPING. Once, then no
 * serving_new. Thread: main. */
void servings_close(struct servings *set);
/* After store_close, when nobody refers to one. NULL is fine. */
void servings_free(struct servings *set);

/* Load a model and its gallery, and run one batch; one reference is the
 * caller's. Seconds; may block. As models_load, runner_new, gallery_load. */
struct serving *serving_new(struct servings *set, const char *id,
                            struct error *err);
void serving_put(struct serving *sv); /* NULL is fine; never blocks */

/* A reference to what is in the slot, or NULL. */
struct serving *servings_get(struct servings *set, enum serving_slot slot);
/* Put sv there (NULL: nothing), with a reference of the slot's own. */
void servings_set(struct servings *set, enum serving_slot slot,
                  struct serving *sv);
/* sv becomes active and the active one previous; where sv was the target,
 * there is none any more. Never blocks. */
void servings_activate(struct servings *set, struct serving *sv);
/* A runner of a model that is, or may become, a serving: in its arithmetic,
 * on dev and the card, for up to most faces at once. As models_load,
 * runner_new. */
struct runner *servings_runner(struct servings *set, const char *id,
                               struct device *dev, int most, struct error *err);

/* Free those that nobody refers to any more, rebuild stale galleries. May
 * block. Thread: main. */
void servings_tend(struct servings *set);
/* Every inference worker answers (watchdog). */
bool servings_alive(struct servings *set, int timeout_ms);

#endif
