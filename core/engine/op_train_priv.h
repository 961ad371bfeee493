/* core/engine/op_train_priv.h - what the op_train*.c share: how work is cut,
 * and what makes their inner loops wide. */
#ifndef CORE_ENGINE_OP_TRAIN_PRIV_H
#define CORE_ENGINE_OP_TRAIN_PRIV_H

#include "core/engine/op_train.h"

/* Kernels are compiled for wider vectors too, and picked at load. They are
 * functions of their own, called from the parallel loops: what stands in a
 * parallel loop itself is compiled once. The sanitizers cannot run before
 * they are set up, as picking would have them. Products and sums are not
 * contracted (C11), so that all of them give the same numbers. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&         \
    defined(__OPTIMIZE__) && !defined(__SANITIZE_THREAD__) &&                  \
    !defined(__SANITIZE_ADDRESS__)
#define OP_WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define OP_WIDE
#endif
/* (Inner loops say ivdep: their arrays are the same or apart, never shifted.)
 * A kernel's body, of which constant arguments make special forms. */
#define OP_BODY static inline __attribute__((always_inline))

enum {
    OP_CHUNK = 1 << 14, /* numbers that one call of a kernel works on */
    OP_PARTS = 32       /* into which sums are cut, at most */
};

struct op_grid {
    int n, c, h, w;
    size_t rows; /* n h w */
};
struct op_grid op_grid(const struct shape *s);

/* Work on numbers, or rows, from..end-1. */
typedef void (*op_chunk_fn)(struct op_run *r, size_t from, size_t end);
/* n items of the given size (in numbers) each, a chunk at a time. */
void op_chunks(struct op_run *r, size_t n, size_t size, op_chunk_fn fn);

/* How many parts n numbers are cut into for a sum, and item from where each
 * begins, of n items. */
int op_parts(size_t n);
size_t op_part(size_t n, int part, int parts);

/* Each does forward or backward of some operators. */
void op_train_norm(struct op_run *r, bool forward);    /* batch norm */
void op_train_channel(struct op_run *r, bool forward); /* affine, PReLU */
void op_train_pool(struct op_run *r, bool forward);
void op_train_line(struct op_run *r, bool forward); /* softmax, norms, LRN */

/* The state that they want. */
size_t op_train_norm_state(size_t c);
size_t op_train_channel_state(size_t c);
size_t op_train_line_state(const struct op_run *r);

#endif
