/* tests/fuzz/fuzz_db.c - a damaged database file is refused or served, and
 * never crashes the daemon. The input is a list of edits to a sound file:
 * where (3 bytes), how (1), with what (1). The oracle beyond that: what is
 * served belongs to the gallery that was asked for, and a store that opened
 * closes. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/face/distance.h"
#include "store/gallery.h"
#include "store/store.h"

enum {
    DIM = 32,
    EDIT = 5,
    EDITS_MAX = 64
};
#define MODEL "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static char dir[64], path[96], path_wal[96];
static uint8_t *sound, *edited;
static size_t len_file;

static void need(bool ok)
{
    if (!ok)
        abort();
}

static int enroll(struct store *s, const char *gallery, int subject, int n)
{
    float v[DIM];
    char id[16];
    uint8_t crop[700];
    struct store_new_face f = {
        .embedding = v, .dim = DIM, .crop = crop, .len_crop = sizeof(crop)};
    struct store_enroll e = {.gallery = gallery,
                             .subject = id,
                             .name = "name",
                             .metadata = "{\"a\":1}",
                             .model_id = MODEL,
                             .faces = &f,
                             .n_faces = 1,
                             .idem_key = id,
                             .request_sha256 = crop};
    int64_t face;

    snprintf(id, sizeof(id), "s%d.%d", subject, n);
    memset(crop, n, sizeof(crop));
    for (int i = 0; i < DIM; i++)
        v[i] = (float)((i * 37 + n * 11 + subject) % 19) - 9.5f;
    need(distance_normalise(v, DIM));
    return store_enroll(s, &e, &face, NULL, NULL, NULL);
}

static void clean_up(void)
{
    char command[96];

    snprintf(command, sizeof(command), "rm -rf %s", dir);
    need(system(command) == 0);
}

static void make_sound(void)
{
    struct store_options opt = {.dir = dir, .relaxed = true};
    struct store *s;
    struct stat st;
    int fd;

    snprintf(dir, sizeof(dir), "%s/fuzz_db.XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    need(mkdtemp(dir) != NULL);
    atexit(clean_up);
    snprintf(path, sizeof(path), "%s/facenetd.db", dir);
    snprintf(path_wal, sizeof(path_wal), "%s/facenetd.db-wal", dir);
    s = store_open(&opt, NULL);
    need(s != NULL);
    for (int i = 0; i < 60; i++)
        need(enroll(s, i % 2 ? "a" : "b", i % 7, i) == 0);
    need(store_subject_remove(s, "a", "s1.1", NULL, NULL) == 0);
    store_close(s);
    fd = open(path, O_RDONLY);
    need(fd >= 0 && fstat(fd, &st) == 0);
    len_file = (size_t)st.st_size;
    sound = malloc(len_file);
    edited = malloc(len_file);
    need(sound && edited && read(fd, sound, len_file) == (ssize_t)len_file);
    close(fd);
}

static size_t edit(const uint8_t *data, size_t len)
{
    size_t len_out = len_file;

    memcpy(edited, sound, len_file);
    for (size_t i = 0; i + EDIT <= len && i < EDITS_MAX * EDIT; i += EDIT) {
        size_t at =
            ((size_t)data[i] << 16 | (size_t)data[i + 1] << 8 | data[i + 2]) %
            len_file;
        switch (data[i + 3] % 5) {
        case 0:
            edited[at] = data[i + 4];
            break;
        case 1:
            edited[at] ^= (uint8_t)(1 << data[i + 4] % 8);
            break;
        case 2: /* a field of a page's header */
            edited[at / 4096 * 4096 + data[i + 4] % 12] = data[i + 2];
            break;
        case 3: /* a page over another */
            memcpy(edited + at / 4096 * 4096,
                   sound + (data[i + 4] * 4096u) % len_file, 4096);
            break;
        default:
            len_out = data[i + 4] == 0 ? at : len_out;
            break;
        }
    }
    return len_out;
}

static bool see(void *ctx, int64_t face, const char *gallery,
                const char *subject, const char *name, const float *embedding,
                int dim)
{
    (void)ctx;
    (void)face;
    need(strlen(gallery) <= STORE_ID_MAX && strlen(subject) <= STORE_ID_MAX);
    need(strlen(name) <= STORE_NAME_MAX && dim <= STORE_DIM_MAX);
    return !embedding || embedding[dim - 1] <= 1e38f;
}

static void use(struct store *s)
{
    struct store_subject *subs;
    struct store_gallery *gals;
    struct store_face *faces, f;
    struct store_stats st;
    struct gallery *g = gallery_new(MODEL, DIM, NULL);
    uint8_t *crop;
    float box[4], points[10];
    size_t len;
    int n;

    need(g != NULL);
    gallery_load(g, s, NULL);
    store_embeddings(s, MODEL, see, NULL, NULL);
    store_stats(s, &st, NULL);
    if (store_gallery_list(s, "", 10, &gals, &n, NULL) == 0)
        free(gals);
    if (store_subject_list(s, "a", "", 100, &subs, &n, NULL) == 0) {
        for (int i = 0; i < n; i++)
            need(strcmp(subs[i].gallery, "a") == 0);
        store_subjects_free(subs, n);
    }
    if (store_face_list(s, "b", "s0.0", 0, 100, &faces, &n, NULL) == 0)
        free(faces);
    for (int64_t id = 1; id < 6; id++) {
        store_face_get(s, id, &f, NULL);
        if (store_face_crop(s, id, &crop, &len, box, points, NULL) == 0)
            free(crop);
    }
    enroll(s, "a", 9, 99);
    enroll(s, "b", 1, 1); /* a key that was used */
    store_face_remove(s, 3, &f, NULL);
    store_subject_remove(s, "b", "s0.0", NULL, NULL);
    store_gallery_remove(s, "a", NULL, NULL);
    need(store_alive(s, 60000));
    store_close(s);
    gallery_free(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct store_options opt = {.dir = dir, .relaxed = true};
    struct error err = {0};
    struct store *s;
    size_t len_edited;
    int fd;

    if (!sound)
        make_sound();
    opt.dir = dir;
    len_edited = edit(data, len);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    need(fd >= 0 && write(fd, edited, len_edited) == (ssize_t)len_edited);
    close(fd);
    unlink(path_wal);
    s = store_open(&opt, &err);
    if (s)
        use(s);
    else
        need(err.text[0] != '\0' && err.code != ERR_NONE);
    return 0;
}
