/* core/engine/plugin.h - a backend from a shared object of its own, which may
 * be there or not: facenetd links no library of a card. The object exports one
 * function, PLUGIN_ENTRY, which is given the version of the table in backend.h
 * and returns its table, or NULL where it was built for another one. What was
 * opened stays so: drivers do not bear to be unloaded. Thread: any. */
#ifndef CORE_ENGINE_PLUGIN_H
#define CORE_ENGINE_PLUGIN_H

#include "core/engine/backend.h"

#define PLUGIN_ENTRY "facenetd_backend"
typedef const struct backend *(*plugin_entry_fn)(uint32_t abi);

/* path is absolute. ERR_DEVICE: no such file, others could write it, it or
 * what it needs cannot be loaded, it is of another version, or it lacks a
 * part that inference needs. */
const struct backend *plugin_open(const char *path, struct error *err);

/* Where it is looked for unless a path is given: beside this program, in the
 * build tree beside the link to it, else where it is installed. For free();
 * NULL: no memory. */
char *plugin_default(void);
/* Is it a device's name: auto, cpu, cuda or cuda:N? *index: N, else 0. */
bool plugin_parse(const char *device, int *index);

#endif
