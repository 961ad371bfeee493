/* core/engine/rows.h - rows of numbers that a device keeps and searches.
 * An index beside the rows of the host, which stay the truth: the device
 * rounds its copy, finds every row that may matter, and says what those that
 * it leaves out can have at most. Whoever asks measures the found ones on the
 * host, so that the answer is exact. Used by store/gallery through the table
 * in backend.h. */
#ifndef CORE_ENGINE_ROWS_H
#define CORE_ENGINE_ROWS_H

#include <stddef.h>
#include <stdint.h>

#include "core/engine/backend.h"

struct rows_options {
    int dim;
    int block_rows;      /* rows of a block; a multiple of 64 */
    size_t memory_bytes; /* that all of it may take; 0: no bound but the
                            device's own */
    int timeout_ms;      /* of a search, and of writing some rows: what takes
                            longer has lost the device; 0: its own bound */
};

/* Every backend's begin with this. */
struct rows {
    struct device *device;
    struct rows_options opt;
    int n_blocks; /* there may be, within memory_bytes; never changes */
};

/* The first n rows of a block, those without whose bit is in dead. */
struct rows_piece {
    int block, n;
    const uint64_t *dead; /* (n + 63) / 64 words; NULL: all are wanted */
};

/* For each query q, the rows x that may be among the k largest products q.x
 * and may reach the floor. */
struct rows_ask {
    const struct rows_piece *pieces;
    int n_pieces;
    const float *queries; /* [n_queries, dim], finite, as are all rows */
    const float *floors;  /* [n_queries] */
    int n_queries;
    int k;       /* 1..ROWS_FOUND_MAX */
    int max;     /* room of every answer, k..ROWS_FOUND_MAX */
    float slack; /* rows that are below the k-th by less are found too */
};

enum {
    ROWS_FOUND_MAX = 16384,
    ROWS_QUERIES_MAX = 256
};

struct rows_answer {
    uint64_t *found; /* [max]: piece << 32 | row, in no order, each once */
    int n_found;
    float rest; /* No wanted row that is not found has a larger product, in
                   exact arithmetic. -INFINITY: none is left. INFINITY, and
                   nothing found: more rows than max are too near each other
                   for the device to tell. */
};

#endif
