/* tools/aligner.h - folders of photos to folders of cropped faces, a folder
 * per person on both sides. facenetctl align runs it.
 * Thread: one call at a time. */
#ifndef TOOLS_ALIGNER_H
#define TOOLS_ALIGNER_H

#include "core/face/model.h"

struct aligner_options {   /* zero takes the default */
    const char *in;        /* folders, joined by ':' */
    const char *out;       /* made where it is not there */
    const char *detectors; /* folder of detector_{p,r,o}net.onnx */
    struct contract crop;  /* kind, margin, size and width x height of what
                              is written */
    float min_face;        /* pixels; 36 */
    int n_threads;         /* the cores */
    bool all_faces;        /* not the most central one alone */
    int quality;           /* of JPEG, 1..100; 0: PNG */
    /* Called on the calling thread, NULL: not wanted. progress comes a few
     * times a second, and at the end. */
    void (*progress)(void *user, int done, int total);
    void (*failed)(void *user, const char *photo, const struct error *why);
    void *user;
};

struct aligner_counts {
    int n_people, n_photos, n_loose; /* found; loose: see dataset.h */
    int n_aligned;                   /* photos done now */
    int n_there;                     /* photos whose faces were there already */
    int n_failed;                    /* photos without a face, or not read */
    int n_faces;                     /* written */
    double seconds;
};

/* Photo IN/PERSON/a.jpg becomes OUT/PERSON/a.png, with all_faces a_0.png,
 * a_1.png and so on, largest first; where a person has two of one stem, the
 * later becomes a~2.png. A file that is there is left alone; what is written
 * appears whole or not at all. Failures of photos are told in the order of
 * the dataset. ERR_BAD_FIELD (folders; OUT inside IN), ERR_FILE and
 * ERR_STORAGE_FULL (what cannot be written), and what loading gives. */
int aligner_run(const struct aligner_options *opt, struct aligner_counts *out,
                struct error *err);

#endif
