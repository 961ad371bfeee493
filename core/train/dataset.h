/* core/train/dataset.h - folders of photos to batches of chips.
 * A folder per person; JPEG, PNG or WebP, already cropped faces or whole
 * photos. Photos are aligned once, when read first, by the daemon's own
 * detector where they are raw, and kept in memory as small RGB crops within
 * max_bytes (least recently used go first). Then, for every use of one:
 * crop, flip, the chosen disturbances, the contract's scaling.
 * Thread: one; the loader has its own threads. */
#ifndef CORE_TRAIN_DATASET_H
#define CORE_TRAIN_DATASET_H

#include <stdbool.h>
#include <stdint.h>

#include "core/face/detect.h"
#include "core/face/model.h"

enum {
    DATASET_MAX_PEOPLE = 1 << 20,
    DATASET_MAX_PHOTOS = 1 << 22
};

struct dataset_photo {
    int person;
    char *path;       /* relative to the folder */
    uint8_t hash[16]; /* of the bytes; zero until read */
    bool bad;         /* could not be read or has no face */
};
struct dataset_person {
    char *name;
    int first, n; /* photos, side by side */
};
struct dataset {
    char *dir;
    struct dataset_person *people; /* by name */
    int n_people;
    struct dataset_photo *photos;
    int n_photos;
    bool raw; /* whole photos: to be detected and aligned */
};

/* Folders are people, files in them photos; names that begin with a dot, and
 * files that are no .jpg .jpeg .png .webp .pgm .bmp, are passed over. A link
 * that leads out of dir is ERR_BAD_FIELD, so is a folder without people or
 * with none of two photos; texts name the folder and the count. dirs: several
 * folders joined by ':' as the path list of a shell. */
int dataset_open(const char *dirs, struct dataset *out, struct error *err);
void dataset_fini(struct dataset *d);
/* Move `part` (0..1) of the people, drawn by seed, to *held. */
int dataset_split(struct dataset *d, double part, uint64_t seed,
                  struct dataset *held, struct error *err);

/* How a face is disturbed before each use; zero: not at all. */
struct augment {
    bool random_crop, random_flip; /* the script's */
    float jitter; /* parts of the side: shift and scale, 0.05 */
    float rotate; /* degrees either way */
    float light;  /* gain and offset of brightness and contrast, 0.3 */
    float grey;   /* chance of a grey picture */
    float blur;   /* chance of a Gaussian blur, sigma up to 2 */
    float noise;  /* chance of noise, sigma up to 12 */
    float jpeg;   /* chance of a JPEG round trip, quality 30..90 */
    float shrink; /* chance of shrinking to 24..64 pixels and back */
    float erase;  /* chance of a grey rectangle */
};
/* "none", "script" or "strong", or "jitter=0.05,blur=0.2,…". */
int augment_parse(const char *text, struct augment *out, struct error *err);

struct loader; /* decode threads and the cache of crops */
struct loader_options {
    const struct dataset *dataset;
    const struct contract *contract; /* crop kind, size, scaling */
    const struct detector *detector; /* of raw photos; else NULL */
    const struct augment *augment;   /* NULL: none (centre crop) */
    int n_threads;                   /* 0: the cores */
    int64_t max_bytes;               /* of crops in memory; 0: 2 GiB */
    int ahead;                       /* batches read before they are asked
                                        for; 0: 4 */
    int max_bad;                     /* photos that may fail; 0: a tenth */
};
struct loader *loader_new(const struct loader_options *opt, struct error *err);
void loader_free(struct loader *l);
/* Ask for a batch: photos' indices; seeds[i] draws the disturbance of the
 * i-th, so that what comes does not depend on threads. Batches come in the
 * order asked. */
int loader_ask(struct loader *l, const int *photos, const uint64_t *seeds,
               int n, struct error *err);
/* Wait for the oldest batch asked for: out [n,3,h,w] in the contract's
 * numbers; ok [n]: false where the photo is bad (its row is zero). second:
 * NULL, or a second contract's chip of the same disturbed face (a teacher's),
 * at second's size and scaling, into out2. ERR_BAD_FIELD when more than
 * max_bad photos have failed: the text names the last. */
int loader_take(struct loader *l, float *out, bool *ok,
                const struct contract *second, float *out2, struct error *err);
/* Photos that failed so far: relative path and why, NULL at the end. */
const char *loader_failure(struct loader *l, int i, const char **why);
int loader_failures(struct loader *l);

#endif
