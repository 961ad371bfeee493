/* core/engine/slots.c - see the header. Greedy, the largest first: each slot
 * gets the lowest place where it meets none that lives at the same time. */
#include "core/engine/slots.h"

#include <stdlib.h>

static bool overlap(const struct slot *a, const struct slot *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* The lowest place where s meets no slot already placed that lives at the
 * same time. placed: slots by ascending offset. */
static size_t lowest_place(const struct slot *s, struct slot *const placed[],
                           int n)
{
    size_t at = 0;

    for (int i = 0; i < n; i++) {
        if (!overlap(s, placed[i]))
            continue;
        if (placed[i]->offset >= at + s->bytes)
            break;
        if (placed[i]->offset + placed[i]->bytes > at)
            at = placed[i]->offset + placed[i]->bytes;
    }
    return at;
}

static int by_bytes(const void *a, const void *b)
{
    const struct slot *x = *(struct slot *const *)a;
    const struct slot *y = *(struct slot *const *)b;

    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x < y ? -1 : x > y;
}

size_t slots_place(struct slot *slots, int n_slots, bool separate)
{
    size_t n = (size_t)n_slots, end = 0;
    struct slot **todo = malloc((n + 1) * sizeof(*todo));
    struct slot **placed = malloc((n + 1) * sizeof(*placed));

    for (size_t i = 0; todo && placed && i < n; i++) {
        todo[i] = &slots[i];
        todo[i]->bytes =
            (todo[i]->bytes + SLOTS_ALIGN - 1) / SLOTS_ALIGN * SLOTS_ALIGN;
    }
    if (todo && placed)
        qsort(todo, n, sizeof(*todo), by_bytes);
    for (size_t i = 0, k; todo && placed && i < n; i++) {
        struct slot *s = todo[i];

        s->offset = separate ? end : lowest_place(s, placed, (int)i);
        for (k = i; k > 0 && placed[k - 1]->offset > s->offset; k--)
            placed[k] = placed[k - 1];
        placed[k] = s;
        if (s->offset + s->bytes > end)
            end = s->offset + s->bytes;
    }
    if (!todo || !placed)
        end = 0;
    free(todo);
    free(placed);
    return end;
}
