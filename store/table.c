/* store/table.c - ids to what they name, for gallery: open addressing with
 * linear steps, at most half full, removal by moving back what follows. The
 * hash is keyed by random bytes of this process, as ids come from outside. */
#include "store/table.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum {
    CAP_FIRST = 8
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint64_t key[2];

static void make_key(void)
{
    if (getrandom(key, sizeof(key), GRND_NONBLOCK) != sizeof(key))
        key[0] = (uint64_t)time(NULL) ^ (uint64_t)(uintptr_t)&once;
}

/* FNV-1a from a random start, then mixed by a random odd factor. */
static uint64_t hash(const char *id)
{
    uint64_t h;

    pthread_once(&once, make_key);
    h = UINT64_C(0xcbf29ce484222325) ^ key[0];
    for (; *id; id++)
        h = (h ^ (unsigned char)*id) * UINT64_C(0x100000001b3);
    h = (h ^ (h >> 32)) * (key[1] | 1);
    return h ^ (h >> 29);
}

void table_entry_init(struct table_entry *e, const char *id)
{
    assert(strlen(id) <= STORE_ID_MAX);
    strcpy(e->id, id);
    e->hash = hash(id);
}

void table_init(struct table *t)
{
    *t = (struct table){0};
}

void table_fini(struct table *t)
{
    free(t->slots);
    table_init(t);
}

/* The slot of id, or the empty one where it would be. */
static size_t slot_of(const struct table *t, const char *id, uint64_t h)
{
    size_t i = h & (t->cap - 1);

    while (t->slots[i] &&
           (t->slots[i]->hash != h || strcmp(t->slots[i]->id, id) != 0))
        i = (i + 1) & (t->cap - 1);
    return i;
}

struct table_entry *table_find(const struct table *t, const char *id)
{
    return t->cap ? t->slots[slot_of(t, id, hash(id))] : NULL;
}

bool table_is_full(const struct table *t)
{
    return (t->n + 1) * 2 > t->cap;
}

int table_dup_bigger(const struct table *t, struct table *out)
{
    table_init(out);
    out->cap = t->cap ? 2 * t->cap : CAP_FIRST;
    out->slots = calloc(out->cap, sizeof(*out->slots));
    if (!out->slots)
        return -1;
    for (size_t i = 0; i < t->cap; i++) {
        if (t->slots[i])
            table_add(out, t->slots[i]);
    }
    return 0;
}

void table_swap(struct table *a, struct table *b)
{
    struct table c = *a;

    *a = *b;
    *b = c;
}

void table_add(struct table *t, struct table_entry *e)
{
    size_t i = slot_of(t, e->id, e->hash);

    assert(!t->slots[i]);
    t->slots[i] = e;
    t->n++;
}

void table_remove(struct table *t, const char *id)
{
    size_t mask = t->cap - 1, hole, i;

    if (!t->cap)
        return;
    hole = slot_of(t, id, hash(id));
    if (!t->slots[hole])
        return;
    t->slots[hole] = NULL;
    t->n--;
    for (i = (hole + 1) & mask; t->slots[i]; i = (i + 1) & mask) {
        size_t home = t->slots[i]->hash & mask;
        /* Its search passes the hole: it moves there. */
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            t->slots[hole] = t->slots[i];
            t->slots[i] = NULL;
            hole = i;
        }
    }
}
