/* core/base/arena.h - memory that goes all at once: one arena per request,
 * freed when its response is done. Not locked. Thread: one at a time. */
#ifndef CORE_BASE_ARENA_H
#define CORE_BASE_ARENA_H

#include <stddef.h>

enum {
    ARENA_MAX_BYTES = 64 << 20
}; /* of one arena, all blocks together */

struct arena;

/* Takes memory from the system in blocks of at least block bytes (0: 4096).
 * NULL when there is none. */
struct arena *arena_new(size_t block);
void arena_free(struct arena *arena); /* NULL is fine */

/* Uninitialised, aligned for any type, never moved. NULL when memory or
 * ARENA_MAX_BYTES is used up; the arena stays usable. len 0 is fine. */
void *arena_alloc(struct arena *arena, size_t len);
char *arena_strdup(struct arena *arena, const char *text);

#endif
