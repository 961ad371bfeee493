/* core/base/arena.c - a bump allocator: a list of blocks, the newest first,
 * from which pieces are cut. Blocks count against ARENA_MAX_BYTES as they are
 * taken from the system, so the cap bounds what is really used. */
#include "core/base/arena.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

enum {
    ALIGN = alignof(max_align_t),
    DEFAULT_BLOCK = 4096
};

struct block {
    struct block *next;
    size_t cap, used;
    alignas(max_align_t) unsigned char bytes[];
};

struct arena {
    struct block *blocks;
    size_t block, total; /* size of a new block; bytes of all so far */
};

struct arena *arena_new(size_t block)
{
    struct arena *arena = calloc(1, sizeof(*arena));

    if (arena)
        arena->block = block ? block : DEFAULT_BLOCK;
    return arena;
}

void arena_free(struct arena *arena)
{
    if (!arena)
        return;
    for (struct block *b = arena->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(arena);
}

static struct block *add_block(struct arena *arena, size_t len)
{
    size_t left = ARENA_MAX_BYTES - arena->total;
    size_t cap = len > arena->block ? len : arena->block;
    struct block *b;

    if (cap > left)
        cap = left; /* near the cap a smaller block may still do */
    if (len > cap)
        return NULL;
    b = malloc(sizeof(*b) + cap);
    if (!b)
        return NULL;
    b->cap = cap;
    b->used = 0;
    b->next = arena->blocks;
    arena->blocks = b;
    arena->total += cap;
    return b;
}

void *arena_alloc(struct arena *arena, size_t len)
{
    struct block *b = arena->blocks;
    void *p;

    if (len > ARENA_MAX_BYTES) /* so that rounding up cannot overflow */
        return NULL;
    len = (len + !len + ALIGN - 1) / ALIGN * ALIGN;
    if (!b || len > b->cap - b->used)
        b = add_block(arena, len);
    if (!b)
        return NULL;
    p = b->bytes + b->used;
    b->used += len;
    return p;
}

char *arena_strdup(struct arena *arena, const char *text)
{
    size_t len = strlen(text) + 1;
    char *copy = arena_alloc(arena, len);

    return copy ? memcpy(copy, text, len) : NULL;
}
