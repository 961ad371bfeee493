/* core/train/detector_scene.h - made-up pictures that a detector learns from:
 * photos turned, scaled, mirrored and laid over one another, then disturbed,
 * with the faces that a teacher found in the photos carried along.
 * detector_sample reads them. Thread: one. */
#ifndef CORE_TRAIN_DETECTOR_SCENE_H
#define CORE_TRAIN_DETECTOR_SCENE_H

#include <stdint.h>

#include "core/face/detect.h"

struct detector_scene_face {
    struct face face; /* in the scene's pixels */
    bool sure;        /* the teacher is, and the face is in view: a target.
                         Else a place to learn nothing about */
};

enum {
    DETECTOR_SCENE_FACES = 64
};

struct detector_scene {
    struct image *img; /* owned */
    struct detector_scene_face faces[DETECTOR_SCENE_FACES];
    int n_faces;
};
void detector_scene_fini(struct detector_scene *s);

/* Photos, read and looked at when first drawn, and kept shrunk. */
struct detector_photos;
struct detector_photos_counts {
    int n_photos, n_backgrounds; /* files */
    int n_read, n_bad;           /* of both, so far; not readable */
    int n_faceless;              /* photos left out: no sure face */
    int n_faces;                 /* sure ones */
};

/* dirs: folders of people, as dataset_list takes them. backgrounds: folders of
 * pictures, searched to any depth; NULL or "": none. What the teacher finds
 * there is marked as unsure. Borrows the scratch. ERR_BAD_FIELD, ERR_FILE,
 * ERR_NOMEM. */
struct detector_photos *detector_photos_new(const char *dirs,
                                            const char *backgrounds,
                                            struct detect_scratch *teacher,
                                            struct error *err);
void detector_photos_free(struct detector_photos *p);
void detector_photos_count(const struct detector_photos *p,
                           struct detector_photos_counts *out);

/* The scene that this seed draws: the same in every run over the same files.
 * ERR_TRAINING: no photo has a face or none can be read. ERR_NOMEM,
 * ERR_DEVICE. */
int detector_scene_draw(struct detector_photos *p, uint64_t seed,
                        struct detector_scene *out, struct error *err);

/* Where a photo goes: a point u, v of it (its left upper edge 0, 0) to
 * x = a u' - b v + x0, y = b u' + a v + y0, u' = w - u where it is mirrored. */
struct detector_place {
    float a, b, x0, y0;
    float w; /* of the photo */
    bool mirror;
};
/* A face as it is then. Its box stays upright and grows with the scale; in a
 * mirror, left and right points change places. */
struct face detector_scene_move(const struct detector_place *at,
                                const struct face *f);

#endif
