/* core/engine/cpu_priv.h - what cpu.c and cpu_plan.c share. */
#ifndef CORE_ENGINE_CPU_PRIV_H
#define CORE_ENGINE_CPU_PRIV_H

#include <pthread.h>

#include "core/engine/backend.h"
#include "core/engine/graph.h"
#include "core/engine/onednn.h"
#include "core/engine/slots.h"

struct cpu_device {
    struct device base;
    int n_threads; /* OpenMP threads of a run */
};

/* A weight as some kernel wants it, shared by the network's plans. */
struct packed {
    int value;             /* of the fused graph */
    struct layout *layout; /* NULL: a vector of n numbers */
    size_t bytes;
    void *memory;
    struct packed *next;
};

struct cpu_network {
    struct network base;
    struct graph *graph;  /* fused */
    pthread_mutex_t lock; /* of packed: plans may be made by many threads */
    struct packed *packed;
    size_t bytes_packed;
};

/* One argument of a step: a slot, or memory that stays where it is. */
struct ref {
    int arg;  /* enum kernel_arg; for gemm and plain steps the position */
    int slot; /* -1: fixed */
    void *fixed;
};

enum step_kind {
    STEP_KERNEL,
    STEP_GEMM,
    STEP_PRELU,
    STEP_PLAIN
};

struct step {
    enum step_kind kind;
    struct kernel *kernel;
    const struct node *node;
    struct ref *refs; /* gemm: x, w, b, y, slope; prelu: x, slopes; plain:
                         inputs, output */
    int n_refs;
    void **at;            /* gemm, prelu, plain: where each ref lies */
    struct shape *shapes; /* plain: of the inputs, then of the output */
    size_t n, period;     /* prelu: numbers, slopes */
};

struct cpu_plan {
    struct plan base;
    struct cpu_network *net;
    struct onednn *dn;
    int n_threads;
    struct step *steps;
    int n_steps;
    struct slot *slots;
    int n_slots;
    char *arena; /* every slot and the scratch memory */
};

struct plan *cpu_plan_new(struct network *net, const struct plan_options *opt,
                          struct error *err);
void cpu_plan_free(struct plan *p);
/* ERR_DEVICE: this processor, or any, does not compute in it. */
int cpu_check_precision(enum precision p, struct error *err);

/* The weight as the kernel wants it, from the cache or packed now. */
void *cpu_pack_conv(struct cpu_network *net, struct kernel *k, int value,
                    int group, struct error *err);
/* A vector of n numbers; a shorter one, of a part of n, is repeated. */
void *cpu_pack_vector(struct cpu_network *net, int value, int n,
                      struct error *err);
size_t cpu_packed_bytes(struct cpu_network *net);

#endif
