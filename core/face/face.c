/* core/face/face.c - a photo's bytes to the aligned chips of its chosen faces:
 * decode, detect, choose, align, each timed. The daemon's workers, evaluate
 * and train call it. */
#include "core/face/face.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    KEEP_QUALITY = 95
};

static int64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Index of the face nearest the middle, size counting for it. */
static int central(const struct face *faces, int n, const struct image *img)
{
    double best = 0;
    int at = 0;

    for (int i = 0; i < n; i++) {
        const struct box *b = &faces[i].box;
        double dx = ((double)b->x0 + (double)b->x1 - img->w) / 2;
        double dy = ((double)b->y0 + (double)b->y1 - img->h) / 2;
        double merit = (double)box_area(b) - 2 * (dx * dx + dy * dy);
        if (i == 0 || merit > best) {
            best = merit;
            at = i;
        }
    }
    return at;
}

int photo_choose(const struct face *faces, int n_faces, const struct image *img,
                 enum face_choice choice, int *first, int *n, struct error *err)
{
    *first = 0;
    *n = 1;
    if (n_faces == 0)
        return error_set(err, ERR_NO_FACE, "no face was found in the photo");
    switch (choice) {
    case FACE_LARGEST:
        break;
    case FACE_SINGLE:
        if (n_faces > 1)
            return error_set(err, ERR_MANY_FACES,
                             "%d faces were found in the photo, one is wanted",
                             n_faces);
        break;
    case FACE_ALL:
        *n = n_faces;
        break;
    case FACE_CENTRAL:
        *first = central(faces, n_faces, img);
        break;
    case FACE_ALIGNED: /* there is one */
        break;
    }
    return 0;
}

static int make_chip(const struct image *img, const struct contract *contract,
                     bool keep, struct chip *chip, struct error *err)
{
    struct image *crop;
    int rc;

    if (contract) {
        size_t n = 3 * (size_t)contract->width * (size_t)contract->height;
        crop = align_crop(img, &chip->face, contract, err);
        if (!crop)
            return -1;
        chip->input = malloc(n * sizeof(float));
        if (chip->input)
            align_scale(crop, contract, chip->input);
        image_free(crop);
        if (!chip->input)
            return error_set(err, ERR_NOMEM, "no memory for a face");
    }
    if (!keep)
        return 0;
    crop = align_keep(img, &chip->face, &chip->inner, err);
    if (!crop)
        return -1;
    rc = image_encode_jpeg(crop, KEEP_QUALITY, &chip->kept, &chip->len_kept,
                           err);
    image_free(crop);
    return rc;
}

/* A face that cannot be cropped is left out while others of the photo can. */
static int make_chips(const struct image *img, const struct contract *contract,
                      const struct face *faces, int n, bool keep,
                      struct photo *out, struct error *err)
{
    out->chips = calloc((size_t)n, sizeof(*out->chips));
    if (!out->chips)
        return error_set(err, ERR_NOMEM, "no memory for %d faces", n);
    for (int i = 0; i < n; i++) {
        struct chip *chip = &out->chips[out->n_chips];
        struct error why = {0};
        chip->face = faces[i];
        if (make_chip(img, contract, keep, chip, &why) == 0) {
            out->n_chips++;
            continue;
        }
        free(chip->input);
        free(chip->kept);
        memset(chip, 0, sizeof(*chip));
        if (why.code != ERR_BAD_BOX || (i == n - 1 && out->n_chips == 0))
            return error_set(err, why.code, "%s", why.text);
    }
    return 0;
}

/* The whole picture as the one face, whose crop it is. */
static int take_aligned(const struct image *img, const struct contract *c,
                        struct photo *out, struct error *err)
{
    struct face face = {.box = {0, 0, (float)img->w, (float)img->h},
                        .score = 1};

    if (img->w != c->width || img->h != c->height)
        return error_set(err, ERR_BAD_FIELD,
                         "faces=aligned takes pictures of %dx%d, this one is "
                         "%dx%d",
                         c->width, c->height, img->w, img->h);
    for (int i = 0; i < 5; i++)
        face.points[i][0] = face.points[i][1] = NAN;
    out->chips = calloc(1, sizeof(*out->chips));
    if (out->chips)
        out->chips[0].input = malloc(3 * (size_t)img->w * (size_t)img->h *
                                     sizeof(*out->chips[0].input));
    if (!out->chips || !out->chips[0].input)
        return error_set(err, ERR_NOMEM, "no memory for a face");
    out->chips[0].face = face;
    out->n_chips = out->n_faces = 1;
    align_scale(img, c, out->chips[0].input);
    return 0;
}

int photo_read(struct detect_scratch *s, const struct contract *contract,
               const void *bytes, size_t len_bytes,
               const struct face_options *opt, struct photo *out,
               struct error *err)
{
    static const struct face_options usual;
    struct image *img;
    struct face *faces = NULL;
    int64_t t0 = now_us(), t1, t2;
    int first, n, rc = -1;

    memset(out, 0, sizeof(*out));
    if (!opt)
        opt = &usual;
    img = image_decode(bytes, len_bytes, &opt->image, err);
    t1 = now_us();
    out->decode_us = t1 - t0;
    if (!img)
        return -1;
    out->width = img->w;
    out->height = img->h;
    if (opt->choice == FACE_ALIGNED && contract) {
        rc = take_aligned(img, contract, out, err);
        out->align_us = now_us() - t1;
        image_free(img);
        return rc;
    }
    rc = detect_faces(s, img, &opt->detect, &faces, &out->n_faces, err);
    t2 = now_us();
    out->detect_us = t2 - t1;
    if (rc == 0)
        rc = photo_choose(faces, out->n_faces, img, opt->choice, &first, &n,
                          err);
    if (rc == 0)
        rc = make_chips(img, contract, faces + first, n, opt->keep, out, err);
    out->align_us = now_us() - t2;
    free(faces);
    image_free(img);
    return rc;
}

void photo_fini(struct photo *p)
{
    for (int i = 0; i < p->n_chips; i++) {
        free(p->chips[i].input);
        free(p->chips[i].kept);
    }
    free(p->chips);
    p->chips = NULL;
    p->n_chips = 0;
}
