/* tests/device.h - the device that a test is about: the processor's, or, where
 * FACENETD_PLUGIN names a plugin, that one's card. Header only. */
#ifndef TESTS_DEVICE_H
#define TESTS_DEVICE_H

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/engine/graph.h"

/* NULL, and a line that says why: the plugin cannot be had. Not opened by
 * core/engine/plugin, which wants a file that only root can write. */
static inline const struct backend *test_backend(void)
{
    const char *path = getenv("FACENETD_PLUGIN");
    const struct backend *(*entry)(uint32_t) = NULL;
    const struct backend *b;
    void *so;

    if (!path)
        return &backend_cpu;
    so = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (so)
        *(void **)&entry = dlsym(so, "facenetd_backend");
    b = entry ? entry(BACKEND_ABI) : NULL;
    if (!b)
        fprintf(stderr, "%s: %s\n", path,
                so ? "not a plugin of this version" : dlerror());
    return b;
}

#endif
