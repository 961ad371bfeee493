/* core/train/loader_priv.h - what the halves of the loader share: the kept
 * faces. loader.c has batches and threads, loader_cache.c reads photos and
 * keeps what is needed of them. */
#ifndef CORE_TRAIN_LOADER_PRIV_H
#define CORE_TRAIN_LOADER_PRIV_H

#include <pthread.h>

#include "core/train/loader.h"
#include "core/train/picture.h"

struct loader_entry { /* a kept face; its pixels never change */
    int photo;
    struct augment_face face; /* face.img NULL when packed */
    uint8_t *jpeg;            /* its pixels, where packed */
    size_t len_jpeg;
    int64_t bytes;
    int n_users;
    bool cached;
    struct loader_entry *newer, *older;
};

struct loader_slot { /* a photo */
    struct loader_entry *entry;
    bool reading; /* by a thread: others wait for it */
    bool bad, hashed;
    char *why; /* where bad; NULL when memory was out */
    uint8_t hash[PICTURE_HASH_LEN];
};

struct loader_cache {
    const struct dataset *dataset;
    struct detect_options detect;
    int side; /* of kept pictures, the longer one */
    bool packed;
    int64_t max_bytes;
    pthread_mutex_t lock; /* of all below, and of entries' lists and counts */
    pthread_cond_t changed;
    struct loader_slot *slots;
    struct loader_entry *newest, *oldest;
    int64_t n_bytes;
};

int loader_cache_init(struct loader_cache *c, const struct loader_options *opt,
                      struct error *err);
void loader_cache_fini(struct loader_cache *c); /* of zero too */

/* The photo's face, read now where it is not kept; to be released. s: the
 * calling thread's, NULL where photos are not raw. NULL: *bad says that it is
 * the photo's fault, which is noted; else err is of what others would meet
 * too. */
struct loader_entry *loader_cache_get(struct loader_cache *c, int photo,
                                      struct detect_scratch *s, bool *bad,
                                      struct error *err);
void loader_cache_release(struct loader_cache *c, struct loader_entry *e);
/* The entry's face, unpacked: *out, to be finished, is used where needed. */
const struct augment_face *loader_cache_face(const struct loader_cache *c,
                                             const struct loader_entry *e,
                                             struct augment_face *out,
                                             struct error *err);
/* Note that a photo is no good. */
void loader_cache_spoil(struct loader_cache *c, int photo, const char *why);

/* Is it the photo's fault, and not one that another photo would meet? */
bool loader_is_photos(enum error_code code);

/* The most central face of img, into *face. */
int loader_find_face(struct detect_scratch *s, const struct image *img,
                     const struct detect_options *opt, struct face *face,
                     struct error *err);

#endif
