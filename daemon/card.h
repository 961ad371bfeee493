/* daemon/card.h - the card beside the processor, where there is one.
 * Opened through its plugin, lost, tried again, given up. Everything that is
 * asked of it is asked on threads of its own: the keeper opens it and loads
 * networks, a thread for each slot of a network runs it. So no thread of a
 * request ever waits for a card that does not answer: it stops waiting, the
 * processor answers, and what the card held is left alone.
 * There is always one struct card; it may stand for none. Thread: any, except
 * where it is said. */
#ifndef DAEMON_CARD_H
#define DAEMON_CARD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/engine/batched.h"

struct card;
struct card_net;     /* a network on it */
struct card_gallery; /* a gallery's rows on it */
struct gallery;

enum card_state {
    CARD_OFF,  /* the setting device is cpu */
    CARD_NONE, /* none can be had; it is not tried again */
    CARD_UP,
    CARD_DOWN, /* lost, or asked for and not there: tried again */
    CARD_HUNG  /* did not answer: left alone until a restart */
};

struct card_options {
    const char *device;    /* setting: auto, cpu, cuda or cuda:N; borrowed */
    const char *plugin;    /* "": beside the daemon, else PREFIX/lib/facenetd */
    const char *cache_dir; /* of tuned plans, made where needed, or NULL */
    int64_t memory_bytes;  /* that it may take; 0: no bound */
    int64_t
        gallery_bytes; /* of that, for rows of galleries; 0: none go there */
    bool tune;
    bool required;  /* lost: not tried again */
    int timeout_ms; /* of a run or a search; loading may take CARD_LOAD_TIMES as
                       long before nobody waits for it */
};

enum {
    CARD_LOAD_TIMES = 30,
    CARD_SLOTS = 2
};

struct card_status {
    enum card_state state;
    char setting[16]; /* "auto", "cuda:1" */
    int index;        /* of the card */
    char backend[16]; /* "cuda"; "": the plugin was not opened */
    char name[64];    /* of the card; "": never opened */
    char why[240];    /* why it is not used, or was last lost; "" */
    int64_t n_opened, n_lost;
    int64_t n_failovers;       /* batches that the processor ran in its place */
    int64_t n_searches;        /* of galleries that it answered */
    int64_t n_search_failures; /* that it was asked, and the processor did */
    int64_t retry_s;           /* until it is tried again; 0 */
    int64_t bytes_used, bytes_total; /* when it was last loaded */
};

const char *card_state_name(enum card_state s); /* "up" */

/* Waits until the card was tried. ERR_NOMEM, ERR_CONFIG. Thread: main. */
struct card *card_new(const struct card_options *opt, struct error *err);
/* After its networks. False: it does not answer, and threads of it are left
 * behind: the process must end without exit handlers. NULL is fine. Thread:
 * main. */
bool card_close(struct card *c);
void card_status(struct card *c, struct card_status *out);
/* Worth waiting for, or trying? Else nothing of it will ever be used. */
bool card_usable(struct card *c);
/* The processor ran a batch in its place. */
void card_failover(struct card *c);

struct card_net_options {
    const char *id; /* of the model, for the log */
    const struct graph *graph;
    /* precision AUTO: the quickest in which the check holds */
    struct batched_options net;
    /* The check: what comes of an input, in every batch size; the squared
     * distance by the square of want's length, in f32 and in less. */
    const float *input, *want;
    float limit_f32, limit_reduced;
    int n_slots; /* runs at once; at most CARD_SLOTS */
    bool last;   /* loaded after those that are not */
    /* All that the options point to is needed no more. Thread: the keeper. */
    void (*gone)(void *ctx);
    void *ctx;
};

/* A network on the card, from now until freed and whenever the card is there;
 * waits for it while the card is up. Borrows what opt points to until gone.
 * ERR_NOMEM: gone will not be called. */
struct card_net *card_net_new(struct card *c,
                              const struct card_net_options *opt,
                              struct error *err);
/* Nobody runs it any more. Never blocks: the keeper, which may be reading
 * what was borrowed, frees it. */
void card_net_free(struct card_net *net);
/* Runs that it takes at once; 0: it is not ready. Never blocks. */
int card_net_slots(struct card_net *net);
/* As batched_run. 1: it is not ready, or every slot is taken; -1: it failed,
 * and err says how; where that is the card's end, it is seen to. */
int card_net_run(struct card_net *net, const float *const *inputs, int n,
                 float *rows, int *bad, struct error *err);
int64_t card_net_time_us(struct card_net *net, int n); /* 0: unknown */
enum precision card_net_precision(struct card_net *net);
/* Why it is not ready; "" where nothing is known. */
void card_net_why(struct card_net *net, struct error *out);

/* A gallery that the card may search. Borrows it until freed. ERR_NOMEM. */
struct card_gallery *card_gallery_new(struct card *c, struct gallery *g,
                                      struct error *err);
/* Nobody searches or changes it any more. Never blocks: the keeper frees it,
 * and the gallery, whose rows it may be bringing. */
void card_gallery_free(struct card_gallery *cg, struct gallery *take_gallery);
/* The card holds this one's rows from now on, as soon as it has brought them,
 * and no other's; NULL: none. Never blocks. */
void card_gallery_choose(struct card *c, struct card_gallery *cg);

struct card_gallery_status {
    bool attached;              /* searches are asked of the card */
    int64_t n_rows, n_left_out; /* on the card; without memory there */
    struct error why;           /* it is not attached, or rows are left out */
};
void card_gallery_status(struct card_gallery *cg,
                         struct card_gallery_status *out);

#endif
