/* core/face/face.h - bytes of a photo to aligned chips, in one call:
 * image, detect, align. What the daemon's workers, evaluate and train all
 * run, so that what is measured is what is served. */
#ifndef CORE_FACE_FACE_H
#define CORE_FACE_FACE_H

#include "core/face/align.h"
#include "core/face/detect.h"
#include "core/face/image.h"
#include "core/face/model.h"

enum face_choice {
    FACE_LARGEST, /* the largest box */
    FACE_SINGLE,  /* exactly one, else ERR_MANY_FACES */
    FACE_ALL,
    FACE_CENTRAL, /* greatest area minus twice the squared distance of its
                     centre from the photo's: the script's aligner */
    FACE_ALIGNED  /* the picture is the contract's crop already: nothing is
                     detected, and its size must be the contract's */
};

struct face_options {
    struct image_limits image;
    struct detect_options detect;
    enum face_choice choice;
    bool keep; /* also make kept crops (JPEG, quality 95), but of aligned ones,
                  which have no margin */
};

struct chip {         /* one chosen face */
    struct face face; /* aligned: all of the picture, score 1, points NaN */
    float *input;     /* [3,h,w], the contract's numbers; owned */
    uint8_t *kept;    /* JPEG of align_keep, or NULL; owned */
    size_t len_kept;
    struct face inner; /* the face inside the kept crop */
};

struct photo {
    int width, height;  /* upright */
    int n_faces;        /* found in all */
    struct chip *chips; /* chosen, largest first */
    int n_chips;
    int64_t decode_us, detect_us, align_us;
};

/* ERR_NO_FACE, ERR_MANY_FACES, ERR_BAD_BOX (no chosen face can be cropped),
 * ERR_BAD_FIELD (an aligned picture of another size)
 * and what image_decode and detect_faces give. contract NULL: detect only,
 * chips without input. Fills *out, sizes and times also on failure; photo_fini
 * it in any case. opt NULL: defaults. Thread: the scratch's. */
int photo_read(struct detect_scratch *s, const struct contract *contract,
               const void *bytes, size_t len_bytes,
               const struct face_options *opt, struct photo *out,
               struct error *err);
void photo_fini(struct photo *p);

/* Which of the detector's faces of img: faces[*first .. *first + *n - 1].
 * ERR_NO_FACE, ERR_MANY_FACES. Thread: any. */
int photo_choose(const struct face *faces, int n_faces, const struct image *img,
                 enum face_choice choice, int *first, int *n,
                 struct error *err);

#endif
