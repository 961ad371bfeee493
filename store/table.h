/* store/table.h - ids to what they name: open addressing, for gallery.
 * Entries are the caller's and begin with a struct table_entry. No locks:
 * one writer; readers when the writer is kept out. */
#ifndef STORE_TABLE_H
#define STORE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/store.h"

struct table_entry {
    uint64_t hash;
    char id[STORE_ID_MAX + 1];
};

struct table {
    struct table_entry **slots; /* cap of them, NULL where empty */
    size_t cap, n;              /* cap: 0 or a power of two */
};

void table_entry_init(struct table_entry *e, const char *id);
void table_init(struct table *t);
void table_fini(struct table *t); /* the slots, not the entries */
struct table_entry *table_find(const struct table *t, const char *id);

/* One more needs table_dup_bigger first. */
bool table_is_full(const struct table *t);
/* A table with the same entries and more place. -1: no memory. */
int table_dup_bigger(const struct table *t, struct table *out);
void table_swap(struct table *a, struct table *b);
/* There is place and the id is not there. */
void table_add(struct table *t, struct table_entry *e);
void table_remove(struct table *t, const char *id);

#endif
