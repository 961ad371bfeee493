/* tests/folder.h - a folder for one test, and files in it. Any failure here
 * aborts: it is the test that is broken. Header only. */
#ifndef TESTS_FOLDER_H
#define TESTS_FOLDER_H

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder_root[256];

static inline void folder_new(void)
{
    const char *tmp = getenv("TMPDIR");

    snprintf(folder_root, sizeof(folder_root), "%s/facenetd-test.XXXXXX",
             tmp ? tmp : "/tmp");
    if (!mkdtemp(folder_root))
        abort();
}

static inline int folder_drop(const char *path, const struct stat *st, int kind,
                              struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

static inline void folder_remove(void)
{
    if (nftw(folder_root, folder_drop, 16, FTW_DEPTH | FTW_PHYS))
        abort();
}

/* Borrowed until the next but three calls. */
static inline const char *folder_path(const char *name)
{
    static char ring[4][2048];
    static int next;
    char *path = ring[next++ % 4];

    if (snprintf(path, sizeof(ring[0]), "%s/%s", folder_root, name) >=
        (int)sizeof(ring[0]))
        abort();
    return path;
}

/* Also the folders on the way to it. */
static inline void folder_dir(const char *name)
{
    char path[2048];

    if (snprintf(path, sizeof(path), "%s/%s/", folder_root, name) >=
        (int)sizeof(path))
        abort();
    for (char *p = path + strlen(folder_root) + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        if (mkdir(path, 0700) && errno != EEXIST)
            abort();
        *p = '/';
    }
}

static inline void folder_bytes(const char *name, const void *bytes, size_t len)
{
    char dir[2048], *slash;
    FILE *f;

    if (snprintf(dir, sizeof(dir), "%s", name) >= (int)sizeof(dir))
        abort();
    slash = strrchr(dir, '/');
    if (slash) {
        *slash = '\0';
        folder_dir(dir);
    }
    f = fopen(folder_path(name), "wb");
    if (!f || fwrite(bytes, 1, len, f) != len || fclose(f))
        abort();
}

static inline void folder_file(const char *name, const char *text)
{
    folder_bytes(name, text, strlen(text));
}

static inline void folder_link(const char *to, const char *name)
{
    if (symlink(to, folder_path(name)))
        abort();
}

#endif
