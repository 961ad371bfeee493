/* tests/unit/store_fixture.h - what the store's tests share: a directory, a
 * store in it, faces to enroll. Each test program includes it once. */
#ifndef TESTS_UNIT_STORE_FIXTURE_H
#define TESTS_UNIT_STORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/face/distance.h"
#include "store/store.h"

enum {
    DIM = 128
};
#define MODEL "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static char dir[128];

static inline void fill(float *v, unsigned seed)
{
    for (int i = 0; i < DIM; i++) {
        seed = seed * 1664525u + 1013904223u;
        v[i] = (float)(int)(seed >> 8) / 8388608.0f - 1.0f;
    }
    assert_true(distance_normalise(v, DIM));
}

static inline struct store *open_with(const struct store_options *more)
{
    struct store_options opt = more ? *more : (struct store_options){0};
    struct error err = {0};
    struct store *s;

    opt.dir = dir;
    s = store_open(&opt, &err);
    if (!s)
        fail_msg("store_open: %s", err.text);
    return s;
}

static inline enum error_code open_error(char *text)
{
    struct store_options opt = {.dir = dir};
    struct error err = {0};
    struct store *s = store_open(&opt, &err);

    if (s) {
        store_close(s);
        return ERR_NONE;
    }
    assert_true(err.text[0] != '\0');
    if (text)
        strcpy(text, err.text);
    return err.code;
}

static const uint8_t jpeg[] = "\xff\xd8 the pixels of a crop, as a pattern";

static inline int try_enroll(struct store *s, const char *gallery,
                             const char *subject, unsigned seed, int64_t *id,
                             struct error *err)
{
    float v[DIM];
    struct store_new_face f = {.box = {1, 2, 3, 4},
                               .score = 0.5f,
                               .embedding = v,
                               .dim = DIM,
                               .crop = jpeg,
                               .len_crop = sizeof(jpeg),
                               .crop_box = {5, 6, 7, 8},
                               .crop_points = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}};
    struct store_enroll e = {.gallery = gallery,
                             .subject = subject,
                             .model_id = MODEL,
                             .faces = &f,
                             .n_faces = 1};

    fill(v, seed);
    return store_enroll(s, &e, id, NULL, NULL, err);
}

static inline int64_t enroll(struct store *s, const char *gallery,
                             const char *subject, unsigned seed)
{
    struct error err = {0};
    int64_t id = 0;

    if (try_enroll(s, gallery, subject, seed, &id, &err) < 0)
        fail_msg("store_enroll: %s", err.text);
    assert_true(id > 0);
    return id;
}

static inline int clean(void **state)
{
    struct dirent *e;
    DIR *d = opendir(dir);
    char path[512];

    (void)state;
    while (d && (e = readdir(d))) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        unlink(path);
    }
    if (d)
        closedir(d);
    chmod(dir, 0700);
    return 0;
}

/* How many of the directory's files hold these bytes. */
static inline int n_files_with(const void *bytes, size_t len)
{
    struct dirent *e;
    DIR *d = opendir(dir);
    int n = 0;

    assert_non_null(d);
    while ((e = readdir(d))) {
        char path[512];
        struct stat st;
        uint8_t *data;
        int fd;
        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        if (e->d_name[0] == '.' || stat(path, &st) < 0 || st.st_size == 0)
            continue;
        data = malloc((size_t)st.st_size);
        fd = open(path, O_RDONLY);
        assert_int_equal(read(fd, data, (size_t)st.st_size), st.st_size);
        close(fd);
        n += memmem(data, (size_t)st.st_size, bytes, len) != NULL;
        free(data);
    }
    closedir(d);
    return n;
}

static inline void make_dir(void)
{
    const char *tmp = getenv("TMPDIR");

    snprintf(dir, sizeof(dir), "%s/test_store.XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) {
        perror(dir);
        exit(1);
    }
}

#endif
