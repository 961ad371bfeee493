/* daemon/server.h - what every handler works with.
 * Built by main.c in order and torn down in reverse; handlers borrow it. */
#ifndef DAEMON_SERVER_H
#define DAEMON_SERVER_H

#include <stdatomic.h>

#include "config/config.h"
#include "core/base/keys.h"
#include "core/face/detect.h"
#include "core/face/embed.h"
#include "core/face/face.h"
#include "core/face/model.h"
#include "daemon/batch.h"
#include "daemon/http.h"
#include "daemon/limiter.h"
#include "daemon/queue.h"
#include "daemon/stats.h"
#include "store/gallery.h"
#include "store/store.h"

struct server {
    _Atomic(struct config *) config; /* replaced whole by SIGHUP; old ones are
                                        kept until exit */
    _Atomic(struct keys *) keys;     /* NULL: none; the same */
    struct limiter *limiter;
    struct device *device, *detect_device;
    struct device_info device_info;
    struct model *model, *pnet, *rnet, *onet;
    struct detector *detector;
    enum precision precision;
    struct batch *batch;
    struct store *store;
    struct gallery *gallery; /* of the active model */
    struct queue *work;      /* of struct job */
    struct http *http;
    atomic_bool ready, stopping;
    int64_t started_us;
    int port;
};

#endif
