/* core/engine/plugin.c - opening a backend's shared object, by its absolute
 * path so that no search path decides what code runs. */
#include "core/engine/plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int check_file(const char *path, struct error *err)
{
    struct stat st;

    if (path[0] != '/')
        return error_set(err, ERR_DEVICE, "plugin %.150s: not an absolute path",
                         path);
    if (stat(path, &st) != 0)
        return error_set(err, ERR_DEVICE, "plugin %.150s: %s", path,
                         strerror(errno));
    if (!S_ISREG(st.st_mode))
        return error_set(err, ERR_DEVICE, "plugin %.150s is no file", path);
    if (st.st_mode & S_IWOTH)
        return error_set(err, ERR_DEVICE,
                         "plugin %.150s can be written by others: chmod o-w",
                         path);
    return 0;
}

/* A part that it lacks, or NULL. */
static const char *missing(const struct backend *b)
{
    return !b->name              ? "name"
           : !b->device_open     ? "device_open"
           : !b->device_close    ? "device_close"
           : !b->device_describe ? "device_describe"
           : !b->load            ? "load"
           : !b->unload          ? "unload"
           : !b->plan            ? "plan"
           : !b->plan_free       ? "plan_free"
           : !b->forward         ? "forward"
                                 : NULL;
}

const struct backend *plugin_open(const char *path, struct error *err)
{
    const struct backend *b;
    plugin_entry_fn entry;
    const char *part;
    void *object, *symbol;

    if (check_file(path, err) != 0)
        return NULL;
    object = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!object)
        return error_null(err, ERR_DEVICE, "plugin: %.200s", dlerror());
    symbol = dlsym(object, PLUGIN_ENTRY);
    if (!symbol)
        return error_null(err, ERR_DEVICE,
                          "plugin %.150s is none of facenetd's: no "
                          "%s",
                          path, PLUGIN_ENTRY);
    memcpy(&entry, &symbol, sizeof(entry)); /* ISO C has no cast for it */
    b = entry(BACKEND_ABI);
    if (!b || b->abi != BACKEND_ABI)
        return error_null(err, ERR_DEVICE,
                          "plugin %.150s was built for another version of "
                          "facenetd (table %d is wanted)",
                          path, BACKEND_ABI);
    part = missing(b);
    if (part)
        return error_null(err, ERR_DEVICE, "plugin %.150s has no %s", path,
                          part);
    return b;
}

char *plugin_default(void)
{
    static const char name[] = "facenetd-cuda.so";
    char path[4096], *slash;
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - sizeof(name));

    if (n > 0)
        path[n] = '\0';
    for (int up = 0; n > 0 && up < 2; up++) {
        slash = strrchr(path, '/');
        if (!slash || (up > 0 && !strstr(path, "/build/")))
            break;
        strcpy(slash + 1, name);
        if (access(path, F_OK) == 0)
            return strdup(path);
        *slash = '\0';
    }
    return strdup(PREFIX "/lib/facenetd/facenetd-cuda.so");
}

bool plugin_parse(const char *device, int *index)
{
    const char *p = device;

    *index = 0;
    if (strcmp(p, "auto") == 0 || strcmp(p, "cpu") == 0 ||
        strcmp(p, "cuda") == 0)
        return true;
    if (strncmp(p, "cuda:", 5) != 0)
        return false;
    for (p += 5; *p >= '0' && *p <= '9' && p - device < 8; p++)
        *index = 10 * *index + (*p - '0');
    return *p == '\0' && p > device + 5;
}
