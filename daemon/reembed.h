/* daemon/reembed.h - from one model to another, in the background.
 * A thread embeds anew, from kept crops, the faces that lack a vector of the
 * model that is to become active, and then switches model and gallery in one
 * step; it does the same for the previous one, so that a rollback is complete.
 * What it embeds, it embeds on a niced thread that makes room for requests.
 * What is left to do is asked of the record, so a daemon that was killed goes
 * on where it was. Thread: any that may block, where nothing is said. */
#ifndef DAEMON_REEMBED_H
#define DAEMON_REEMBED_H

#include <stdatomic.h>

#include "daemon/models.h"
#include "daemon/serving.h"
#include "store/store_model.h"

struct reembed; /* the thread */

struct reembed_options {
    struct servings *servings;
    struct models *models;
    struct store *store;
    const struct config *config;
    const atomic_int *busy; /* requests in work */
};

/* Goes on with the record's target. ERR_NOMEM, or as store_watch. */
struct reembed *reembed_start(const struct reembed_options *opt,
                              struct error *err);
/* Its thread ends, before servings_close; what is asked for after that stands
 * in the record until the next start. NULL is fine. Thread: main. */
void reembed_stop(struct reembed *r);
void reembed_free(struct reembed *r); /* once nobody asks; NULL is fine */

/* The model is to become active. ERR_NO_MODEL; ERR_CONFLICT: it is active, or
 * faces without a crop cannot be embedded by it and that is not allowed. */
int reembed_activate(struct reembed *r, const char *id, bool allow_missing,
                     struct error *err);
/* It is not to become active any more. ERR_CONFLICT: it was not to. */
int reembed_cancel(struct reembed *r, const char *id, struct error *err);
/* Back to the previous model, id: at once (*done) where it is loaded and lacks
 * no face, else as reembed_activate. ERR_CONFLICT: there is none; or as
 * reembed_activate. */
int reembed_rollback(struct reembed *r, bool allow_missing, char id[65],
                     bool *done, struct error *err);

struct reembed_state {
    int64_t n_embedded, n_unusable, n_switches; /* since the start */
    char failed[65];    /* model whose last activation failed, or "" */
    struct error error; /* why; of a target: why it waits; or ERR_NONE */
};
void reembed_state(struct reembed *r, struct reembed_state *out);

#endif
