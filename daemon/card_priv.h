/* daemon/card_priv.h - what card.c (the card's life) and card_net.c (networks
 * on it) share. */
#ifndef DAEMON_CARD_PRIV_H
#define DAEMON_CARD_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "daemon/card.h"

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
};

int64_t card_now_us(void);
int64_t card_load_until_us(const struct card *c); /* nobody waits for longer */
/* Wait for a change until then at the longest. Holds the lock. False: it is
 * later. */
bool card_wait(struct card *c, int64_t until_us);
/* The device failed. Holds the lock. */
void card_lose(struct card *c, const struct error *err, bool hung);

/* Load and check it on dev; what it needs is left in net->slots only where
 * it succeeds. Thread: the keeper, without the lock. */
int card_net_build(struct card_net *net, struct device *dev,
                   const struct device_info *info, struct error *err);
/* Free the slots. Thread: the keeper; drops the lock meanwhile. */
void card_net_strip(struct card_net *net);

#endif
