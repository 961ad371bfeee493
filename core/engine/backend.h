/* core/engine/backend.h - the table that a device implements.
 * cpu.c fills it over oneDNN and OpenBLAS; a GPU plugin hands over the same
 * table. Everything hangs on objects, nothing on globals. */
#ifndef CORE_ENGINE_BACKEND_H
#define CORE_ENGINE_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/engine/learnable.h"
#include "core/engine/tensor.h"

struct graph;
struct device;  /* a processor in use: threads or a card */
struct network; /* a graph with its weights on a device */
struct plan;    /* a network compiled for one input shape; scratch state */
struct rows;    /* numbers that are searched, see rows.h */
struct rows_options;
struct rows_ask;
struct rows_answer;
struct triplets_ask;

/* A backend that lacks one refuses it when it plans: ERR_DEVICE. */
enum precision {
    PRECISION_AUTO, /* what the device is quickest with: see device_info */
    PRECISION_F32,
    PRECISION_BF16, /* storage and products; sums in f32 */
    PRECISION_F16,  /* the same */
    PRECISION_TF32  /* storage f32, products of 10 bits, sums in f32 */
};

const char *precision_name(enum precision p); /* "f32" */
bool precision_parse(const char *name, enum precision *out);

struct device_options {
    int n_threads;         /* CPU; 0: as many as the machine has cores */
    int index;             /* of the card; the CPU has none */
    size_t memory_bytes;   /* that the device may take; 0: no bound */
    const char *cache_dir; /* absolute; tuned plans; NULL: none are kept */
    bool tune;             /* time kernels against each other when planning */
};

struct device_info {
    char name[64]; /* "oneDNN 2.6.3, OpenBLAS 0.3.21" */
    char isa[64];  /* "avx512_core_bf16" */
    int n_threads;
    bool fast_bf16;                 /* what PRECISION_AUTO picks */
    bool fast_f16;                  /* it picks this; wins over fast_bf16 */
    bool any_bf16;                  /* PRECISION_BF16 can be asked for */
    size_t bytes_used, bytes_total; /* memory of the card; 0 on the CPU */
};

struct plan_options {
    int n;    /* batch, >= 1 */
    int h, w; /* only where the graph leaves them free */
    enum precision precision;
    bool separate; /* PLAN_SEPARATE: no memory is shared between values, and
                      all of it starts as NaN: for hunting wrong numbers */
    bool rest;     /* of a network that learns: dropout off, batch norm by its
                      running statistics, nothing kept for backward */
};

struct plan_info {
    size_t bytes_activations, bytes_weights, bytes_scratch;
    int n_steps, n_reorders;
    enum precision precision; /* the one in use */
};

enum {
    BACKEND_ABI = 6
};

/* A device is lost when forward, backward, load or plan says ERR_DEVICE for
 * other reasons than what was asked of it. What belongs to it can then only be
 * freed, from any thread, without waiting for the device; after its
 * device_close another device_open may find the card usable again. Memory that
 * load or plan does not get is ERR_NOMEM, and the device stays usable. */
struct backend {
    uint32_t abi;     /* BACKEND_ABI */
    const char *name; /* "cpu", "cuda" */
    /* Also the probe: ERR_DEVICE says why there is none. */
    struct device *(*device_open)(const struct device_options *opt,
                                  struct error *err);
    void (*device_close)(struct device *dev); /* after its networks */
    void (*device_describe)(const struct device *dev, struct device_info *out);
    struct network *(*load)(struct device *dev, const struct graph *g,
                            struct error *err);
    void (*unload)(struct network *net);
    /* Any thread, several at once on one network. */
    struct plan *(*plan)(struct network *net, const struct plan_options *opt,
                         struct error *err);
    void (*plan_free)(struct plan *p);
    /* Any thread, one at a time on a plan; several plans of one network at
     * once. */
    int (*forward)(struct plan *p, struct error *err);
    /* A network that learns: the graph as it is (not fused), with its numbers
     * in net->learn. Its plans run forward for training unless they are at
     * rest, one at a time. */
    struct network *(*load_learning)(struct device *dev, const struct graph *g,
                                     const struct learn_options *opt,
                                     struct error *err);
    /* After forward, once: from plan->gradient, the loss by the outputs, add
     * the loss by every weight to net->learn->gradients. */
    int (*backward)(struct plan *p, struct error *err);
    /* A device that keeps a learnable's numbers in memory of its own has these
     * five; elsewhere all are NULL, see learn.h, through which they are used.
     * Thread: the network's. From the device to the learnable, and back: */
    int (*learn_get)(struct network *net, unsigned parts, struct error *err);
    int (*learn_put)(struct network *net, unsigned parts, struct error *err);
    int (*learn_clear)(struct network *net, struct error *err);
    int (*learn_norm)(struct network *net, float decay, double *norm,
                      struct error *err);
    int (*learn_update)(struct network *net, const struct learn_update *u,
                        struct error *err);
    /* Search: rows.h. All NULL: the device has none. */
    struct rows *(*rows_new)(struct device *dev, const struct rows_options *opt,
                             struct error *err);
    void (*rows_free)(struct rows *r);
    /* Write rows first..first+n-1 of a block, x [n,dim]. By one thread at a
     * time; beside searches of other rows. ERR_NOMEM: the device has no room
     * for another block; those before stay. */
    int (*rows_put)(struct rows *r, int block, int first, int n, const float *x,
                    struct error *err);
    /* Overwrite a block that no search asks for, before it is used again.
     * Any thread, several at once. */
    void (*rows_wipe)(struct rows *r, int block);
    /* answers [n_queries]. Any thread, several at once. Ends within the rows'
     * timeout_ms: a device that does not answer is lost. ERR_NOMEM: no room for
     * it now. */
    int (*rows_best)(struct rows *r, const struct rows_ask *ask,
                     struct rows_answer *answers, struct error *err);
    /* Selection of triplets: triplets.h. NULL: the host does it. ERR_NOMEM: no
     * room for it now. Any thread. */
    int (*triplets)(struct device *dev, const struct triplets_ask *ask,
                    struct error *err);
};

/* Every backend's objects begin with these. */
struct device {
    const struct backend *backend;
};
struct network {
    struct device *device;
    struct learnable *learn; /* NULL: it does not learn */
};
enum {
    PLAN_MAX_OUTPUTS = 8
};
struct plan {
    const struct backend *backend;
    struct plan_info info;
    struct shape shape_in;
    float *input; /* host staging */
    int n_outputs;
    struct shape shape_out[PLAN_MAX_OUTPUTS];
    float *output[PLAN_MAX_OUTPUTS];
    /* The loss by the outputs, host staging; NULL: nothing before it learns.
     * All NULL: the plan cannot go backward. */
    float *gradient[PLAN_MAX_OUTPUTS];
};

extern const struct backend backend_cpu;

#endif
