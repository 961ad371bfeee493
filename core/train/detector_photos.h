/* core/train/detector_photos.h - the photos that scenes are made of: read,
 * shrunk and looked at by the teacher when first wanted, then kept.
 * detector_scene draws from them. Thread: one. */
#ifndef CORE_TRAIN_DETECTOR_PHOTOS_H
#define CORE_TRAIN_DETECTOR_PHOTOS_H

#include "core/train/detector_scene.h"

struct detector_photo {
    struct image *img;
    struct detector_scene_face *faces;
    int n_faces;
    bool usable; /* readable, and a photo of people shows one for sure */
};

/* How many there are, of backgrounds or of photos of people. */
int detector_photos_n(const struct detector_photos *p, bool grounds);
/* The i-th, borrowed until the next call. NULL: ERR_NOMEM, ERR_DEVICE; a file
 * that cannot be read is not usable. */
const struct detector_photo *detector_photos_get(struct detector_photos *p,
                                                 bool ground, int i,
                                                 struct error *err);

#endif
