/* daemon/server.h - what every handler works with.
 * server_start builds it in order, server_stop tears it down in reverse;
 * handlers borrow it. Thread of the functions: main. */
#ifndef DAEMON_SERVER_H
#define DAEMON_SERVER_H

#include <stdatomic.h>

#include "config/config.h"
#include "core/base/keys.h"
#include "core/face/detect.h"
#include "core/face/face.h"
#include "core/face/model.h"
#include "daemon/card.h"
#include "daemon/detection.h"
#include "daemon/http.h"
#include "daemon/jobs.h"
#include "daemon/limiter.h"
#include "daemon/models.h"
#include "daemon/queue.h"
#include "daemon/reembed.h"
#include "daemon/serving.h"
#include "daemon/stats.h"
#include "daemon/thresholds.h"
#include "daemon/work.h"
#include "store/store.h"

struct server {
    _Atomic(struct config *) config; /* replaced whole by SIGHUP; old ones are
                                        kept until exit */
    _Atomic(struct keys *) keys;     /* NULL: none; the same */
    struct limiter *limiter;
    struct device *device, *detect_device; /* the processor, twice */
    struct device_info device_info;        /* of device */
    struct card *card;
    struct model *pnet, *rnet, *onet;
    struct detector *detector;
    struct detection *detection; /* the detector's networks on the card */
    struct face_options photo;   /* limits of photos, detector settings */
    struct store *store;
    struct models *models;         /* files of embedders */
    struct thresholds *thresholds; /* measured on its own faces */
    atomic_bool calibrating;       /* one at a time */
    struct servings *servings; /* the embedder, its queue and gallery: a job's
                                  own are in job->serving */
    struct jobs *training;     /* fine-tuning in the background */
    struct reembed *reembed;   /* from one model to another */
    struct queue *work;        /* of struct job; never full, see jobs_max */
    struct work *workers;
    struct http *http;
    atomic_int jobs; /* between admission and answer; each is in the work
                        queue at most once */
    int jobs_max;
    atomic_llong work_us; /* moving mean of a job's time on a work thread */
    atomic_bool ready, stopping;
    int64_t started_us;
    int port;
    bool on_loopback;         /* every listening address is */
    struct server_past *past; /* configs and keys that SIGHUP replaced */
    uint8_t crop_key[CRYPTO_KEY_LEN]; /* of kept crops; the store borrows it */
    char address[80]; /* where it listens, for people: "127.0.0.1:8080" */
};

/* Open the log at the level of the settings. */
void server_log(const struct config *config);
/* Everything up to listening. take_config is owned from then on, also on
 * failure. */
struct server *server_start(struct config *take_config, struct error *err);
/* Drain, stop, free. False: threads of a card that does not answer are left
 * behind, and exit handlers must not run. NULL is fine. */
bool server_stop(struct server *s);
/* Take over new settings, keys and certificate, all or none. */
int server_reload(struct server *s, struct config *take_config,
                  struct error *err);
/* Every part that works for requests answers (watchdog). */
bool server_alive(struct server *s);
/* The card that device-required asks for is gone: restart. */
bool server_lost(struct server *s);
/* What servings_tend does. */
void server_tend(struct server *s);
/* Seconds after which a refused request may try again; >= 1. */
int server_retry_after(struct server *s);
/* True: a new request could not be answered in time, refuse it. */
bool server_busy(struct server *s);
int64_t server_now_us(void); /* CLOCK_MONOTONIC */

#endif
