/* core/train/loader_cache.c - what is kept of photos between uses: read once,
 * detected where raw, shrunk, in memory by last use. Several threads ask; a
 * photo is read by one of them while the others that want it wait. */
#include "core/train/loader_priv.h"

#include <stdlib.h>
#include <string.h>

#include "core/face/face.h"

enum {
    PACKED_QUALITY = 95,
    LEAST_SIDE = 128
};
static const int64_t usual_bytes = (int64_t)2 << 30;

bool loader_is_photos(enum error_code code)
{
    switch (code) {
    case ERR_FILE:
    case ERR_TOO_LARGE:
    case ERR_IMAGE_TYPE:
    case ERR_BAD_IMAGE:
    case ERR_NO_FACE:
    case ERR_BAD_BOX:
        return true;
    default:
        return false;
    }
}

int loader_find_face(struct detect_scratch *s, const struct image *img,
                     const struct detect_options *opt, struct face *face,
                     struct error *err)
{
    struct face *faces = NULL;
    int n = 0, first, n_chosen, rc;

    rc = detect_faces(s, img, opt, &faces, &n, err);
    if (rc == 0)
        rc = photo_choose(faces, n, img, FACE_CENTRAL, &first, &n_chosen, err);
    if (rc == 0)
        *face = faces[first];
    free(faces);
    return rc;
}

static int keep_side(const struct contract *c)
{
    int longer = c->width > c->height ? c->width : c->height;

    /* The kept part is twice the face's box, which is about as large as an
     * arcface crop and smaller than a box-margin one: so nothing is enlarged
     * that the photo has more of. */
    return 2 * longer > LEAST_SIDE ? 2 * longer : LEAST_SIDE;
}

int loader_cache_init(struct loader_cache *c, const struct loader_options *opt,
                      struct error *err)
{
    memset(c, 0, sizeof(*c));
    c->dataset = opt->dataset;
    c->detect = opt->detect;
    c->max_bytes = opt->max_bytes ? opt->max_bytes : usual_bytes;
    c->side = keep_side(opt->contract);
    /* Three quarters: few photos show the face with all its margin. */
    c->packed = opt->dataset->raw &&
                (int64_t)opt->dataset->n_photos * c->side * c->side * 9 / 4 >
                    c->max_bytes;
    c->slots = calloc((size_t)opt->dataset->n_photos + 1, sizeof(*c->slots));
    if (!c->slots)
        return error_set(err, ERR_NOMEM, "no memory for %d photos",
                         opt->dataset->n_photos);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    return 0;
}

static void free_entry(struct loader_entry *e)
{
    augment_face_fini(&e->face);
    free(e->jpeg);
    free(e);
}

void loader_cache_fini(struct loader_cache *c)
{
    if (!c->slots)
        return;
    while (c->newest) {
        struct loader_entry *e = c->newest;
        c->newest = e->older;
        free_entry(e);
    }
    for (int i = 0; i < c->dataset->n_photos; i++)
        free(c->slots[i].why);
    free(c->slots);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    memset(c, 0, sizeof(*c));
}

/* --- the list by last use, under the lock -----------------------------------
 */

static void unlink_entry(struct loader_cache *c, struct loader_entry *e)
{
    *(e->newer ? &e->newer->older : &c->newest) = e->older;
    *(e->older ? &e->older->newer : &c->oldest) = e->newer;
    e->newer = e->older = NULL;
}

static void link_newest(struct loader_cache *c, struct loader_entry *e)
{
    e->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = e;
    c->newest = e;
}

static void drop_oldest(struct loader_cache *c)
{
    struct loader_entry *e = c->oldest;

    unlink_entry(c, e);
    c->slots[e->photo].entry = NULL;
    c->n_bytes -= e->bytes;
    e->cached = false;
    if (e->n_users == 0)
        free_entry(e);
}

static void add(struct loader_cache *c, struct loader_entry *e)
{
    c->slots[e->photo].entry = e;
    e->cached = true;
    e->n_users = 1;
    link_newest(c, e);
    c->n_bytes += e->bytes;
    while (c->oldest && c->n_bytes > c->max_bytes)
        drop_oldest(c);
}

/* --- reading, outside the lock -----------------------------------------------
 */

static int pack(struct loader_entry *e, struct error *err)
{
    if (image_encode_jpeg(e->face.img, PACKED_QUALITY, &e->jpeg, &e->len_jpeg,
                          err))
        return -1;
    image_free(e->face.img);
    e->face.img = NULL;
    e->bytes = (int64_t)(sizeof(*e) + e->len_jpeg);
    return 0;
}

static struct loader_entry *read_entry(const struct loader_cache *c, int photo,
                                       struct detect_scratch *s,
                                       uint8_t hash[PICTURE_HASH_LEN],
                                       bool *hashed, struct error *err)
{
    const char *path = c->dataset->photos[photo].path;
    struct image *img = picture_load(path, hash, hashed, err);
    struct loader_entry *e = NULL;
    struct face face;
    int rc = img ? 0 : -1;

    if (rc == 0 && c->dataset->raw)
        rc = loader_find_face(s, img, &c->detect, &face, err);
    if (rc == 0) {
        e = calloc(1, sizeof(*e));
        rc = e ? augment_keep(img, c->dataset->raw ? &face : NULL, c->side,
                              &e->face, err)
               : error_set(err, ERR_NOMEM, "no memory for a face");
    }
    image_free(img);
    if (rc == 0) {
        e->photo = photo;
        e->bytes =
            (int64_t)sizeof(*e) + (int64_t)e->face.img->w * e->face.img->h * 3;
        if (c->packed)
            rc = pack(e, err);
    }
    if (rc && e) {
        free_entry(e);
        e = NULL;
    }
    return e;
}

static void spoil(struct loader_slot *slot, const char *why)
{
    if (slot->bad)
        return;
    slot->bad = true;
    slot->why = strdup(why);
}

struct loader_entry *loader_cache_get(struct loader_cache *c, int photo,
                                      struct detect_scratch *s, bool *bad,
                                      struct error *err)
{
    struct loader_slot *slot = &c->slots[photo];
    struct loader_entry *e = NULL;
    uint8_t hash[PICTURE_HASH_LEN];
    bool hashed;

    pthread_mutex_lock(&c->lock);
    while (slot->reading)
        pthread_cond_wait(&c->changed, &c->lock);
    *bad = slot->bad;
    if (!*bad && slot->entry) {
        e = slot->entry;
        e->n_users++;
        unlink_entry(c, e);
        link_newest(c, e);
    } else if (!*bad) {
        slot->reading = true;
        pthread_mutex_unlock(&c->lock);
        e = read_entry(c, photo, s, hash, &hashed, err);
        pthread_mutex_lock(&c->lock);
        slot->reading = false;
        /* The first bytes count: what was read then may be kept. */
        if (hashed && !slot->hashed) {
            memcpy(slot->hash, hash, sizeof(hash));
            slot->hashed = true;
        }
        if (e)
            add(c, e);
        *bad = !e && loader_is_photos(err->code);
        if (*bad)
            spoil(slot, err->text);
        pthread_cond_broadcast(&c->changed);
    }
    pthread_mutex_unlock(&c->lock);
    return e;
}

void loader_cache_release(struct loader_cache *c, struct loader_entry *e)
{
    bool last;

    if (!e)
        return;
    pthread_mutex_lock(&c->lock);
    last = --e->n_users == 0 && !e->cached;
    pthread_mutex_unlock(&c->lock);
    if (last)
        free_entry(e);
}

void loader_cache_spoil(struct loader_cache *c, int photo, const char *why)
{
    pthread_mutex_lock(&c->lock);
    spoil(&c->slots[photo], why);
    pthread_mutex_unlock(&c->lock);
}

const struct augment_face *loader_cache_face(const struct loader_cache *c,
                                             const struct loader_entry *e,
                                             struct augment_face *out,
                                             struct error *err)
{
    const struct image_limits any = {
        .min_side = 1, .max_ms = 60000, .max_bytes = e->len_jpeg};

    if (!c->packed)
        return &e->face;
    *out = e->face;
    out->img = image_decode(e->jpeg, e->len_jpeg, &any, err);
    return out->img ? out : NULL;
}
