/* core/engine/slots.h - places in one block of memory for values that live for
 * some steps of a run: those never in use together share memory. Used by the
 * CPU's plans. Pure. Thread: any. */
#ifndef CORE_ENGINE_SLOTS_H
#define CORE_ENGINE_SLOTS_H

#include <stdbool.h>
#include <stddef.h>

enum {
    SLOTS_ALIGN = 64 /* bytes; every offset is a multiple */
};

/* The bytes of one tensor in one layout. Steps first..last use it. */
struct slot {
    size_t bytes, offset;
    int first, last;
    bool shared; /* two values look at it (reshape): not to be overwritten */
};

/* Fill the offsets; bytes are rounded up. separate: nothing is shared.
 * Returns the bytes needed in all, 0 when memory is out. */
size_t slots_place(struct slot *slots, int n_slots, bool separate);

#endif
