/* daemon/card_priv.h - what card.c (the card's life), card_net.c (networks on
 * it) and card_gallery.c (a gallery's rows) share. */
#ifndef DAEMON_CARD_PRIV_H
#define DAEMON_CARD_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "daemon/card.h"
#include "store/gallery.h"

enum {
    CARD_BACKOFF_FIRST_S = 1,
    CARD_BACKOFF_MOST_S = 300,
    CARD_STEADY_S = 60 /* good for this long, a failure begins the back-off
                          anew */
};
#define CARD_SECOND INT64_C(1000000) /* in microseconds */

/* One run at a time: whoever runs a batch fills the plan, its thread calls the
 * backend. What does not come back is abandoned: thread and slot are left as
 * they are, since the card may still write there. */
struct card_slot {
    struct batched *batched;
    bool taken; /* under the card's lock */
    int timeout_ms;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct plan *plan; /* to be run, or NULL */
    bool done, ending, abandoned;
    int rc;
    struct error err;
};

struct card_net {
    struct card *card;
    struct card_net_options opt;
    atomic_int n_ready; /* slots that can be run; 0: none */
    /* under the card's lock */
    struct card_slot *slots[CARD_SLOTS];
    int n_slots, n_taken;
    enum precision precision;
    struct error why;
    bool settled; /* built, or refused: nobody has to wait */
    bool leaving; /* to be freed, once nobody runs it */
    int64_t retry_us, backoff_us;
    struct card_net *next;
};

struct card_gallery {
    struct card *card;
    struct gallery *gallery;
    /* under the card's lock */
    bool attached;
    int64_t n_rows, n_left_out; /* as was last told */
    struct gallery *leaving;    /* to be freed with this */
    struct rows *left;          /* to a card that hangs */
    struct error why;
    int64_t retry_us, backoff_us, since_us;
    struct card_gallery *next;
};

struct card {
    struct card_options opt; /* texts owned */
    const struct backend *backend;
    pthread_t keeper;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* CLOCK_MONOTONIC */
    struct device *device;  /* the keeper's; NULL: not open */
    struct device_info info;
    bool started, tried, lost, hung, stop, ended;
    enum card_state state;
    int index;
    struct error why;
    int64_t retry_us, backoff_us, up_us;
    int64_t n_opened, n_lost;
    atomic_llong n_failovers;
    struct card_net *nets, *left_behind;
    struct card_gallery *galleries, *left_galleries;
    struct card_gallery *chosen; /* whose rows it is to hold, or NULL */
    int64_t n_searches, n_search_failures; /* of galleries that are freed */
};

int64_t card_now_us(void);
int64_t card_load_until_us(const struct card *c); /* nobody waits for longer */
/* Wait for a change until then at the longest. Holds the lock. False: it is
 * later. */
bool card_wait(struct card *c, int64_t until_us);
/* The device failed. Holds the lock. */
void card_lose(struct card *c, const struct error *err, bool hung);
/* It failed in something: is it the card, or what was asked of it? Lost where
 * it is the card. Thread: the keeper; holds the lock, but not while it asks. */
void card_suspect(struct card *c, const struct error *err);
/* The next time to wait, from the last one; 0 begins anew. */
int64_t card_later(int64_t backoff_us);

/* Load and check it on dev; what it needs is left in net->slots only where
 * it succeeds. Thread: the keeper, without the lock. */
int card_net_build(struct card_net *net, struct device *dev,
                   const struct device_info *info, struct error *err);
/* Free the slots. Thread: the keeper; drops the lock meanwhile. */
void card_net_strip(struct card_net *net);

/* Of galleries, each one thing that is due; false: nothing is. Thread: the
 * keeper; they hold the lock, but not while they work.
 * step: the device is up; *next_us: no later than when something is due.
 * tidy: free one that is not wanted any more, leave its rows to a card that
 * hangs. take: take rows off the device, whatever its state. */
bool card_gallery_step(struct card *c, int64_t *next_us);
bool card_gallery_tidy(struct card *c);
bool card_gallery_take(struct card *c);
void card_gallery_count(const struct card *c, struct card_status *out);

#endif
