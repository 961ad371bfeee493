/* core/train/dataset.h - folders of photos: who is there, in which files.
 * A folder per person: DIR/PERSON/photo.jpg. Only names are read here; the
 * photos are the loader's. Thread: any, one at a time for one dataset. */
#ifndef CORE_TRAIN_DATASET_H
#define CORE_TRAIN_DATASET_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"

enum {
    DATASET_MAX_PEOPLE = 1 << 20,
    DATASET_MAX_PHOTOS = 1 << 22
};

struct dataset_photo {
    int person;
    char *path; /* DIR/PERSON/FILE, DIR as it was given */
};
struct dataset_person {
    char *name;
    int first, n; /* photos, side by side */
};
struct dataset {
    char *dir;                     /* as given: one or several */
    struct dataset_person *people; /* by name, bytewise */
    int n_people;
    struct dataset_photo *photos; /* by person, folder, file name */
    int n_photos;
    bool raw; /* whole photos: to be detected and aligned. The caller's to
                 set; dataset_open says false. loader_looks_raw guesses. */
    /* Passed over or joined, for a message. */
    int n_loose;  /* photos beside the folders of people: nobody's */
    int n_empty;  /* folders without a photo */
    int n_merged; /* folders whose person an earlier DIR had already */
};

/* dirs: one folder, or several joined by ':' as the path list of a shell;
 * people of the same name in several are one person. Photos are regular files
 * whose name ends in .jpg .jpeg .png .webp .pgm .ppm, in any case. Names that
 * begin with a dot, other files, and folders inside a person's are passed
 * over. People with one photo are kept: they serve as negatives.
 * ERR_BAD_FIELD, with folder and counts: no such folder, one given twice,
 * fewer than two people, nobody with two photos, more than DATASET_MAX_*, a
 * link that leads out of its DIR or nowhere (links inside are followed).
 * ERR_FILE: a folder cannot be read. ERR_NOMEM. On failure *out is zero. */
int dataset_open(const char *dirs, struct dataset *out, struct error *err);
/* The same with any number of people and photos, none too. */
int dataset_list(const char *dirs, struct dataset *out, struct error *err);
void dataset_fini(struct dataset *d); /* also of zero */

/* Move `part` (0 up to 1) of the people, at least two, drawn by seed, to
 * *held (zero when part is 0); both stay in order. ERR_BAD_FIELD, and d as it
 * was, when either would have fewer than two people or nobody with two
 * photos. ERR_NOMEM. */
int dataset_split(struct dataset *d, double part, uint64_t seed,
                  struct dataset *held, struct error *err);

#endif
