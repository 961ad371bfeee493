/* daemon/form.h - a request's fields and images, whatever way they came:
 * multipart parts, JSON with base64, or one image as the body with its fields
 * in the query. Strict: a field that is unknown, given twice, of the wrong
 * type or out of range is refused by name. Thread: work. */
#ifndef DAEMON_FORM_H
#define DAEMON_FORM_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/crypto.h"
#include "core/face/face.h"
#include "daemon/job.h"

enum {
    FORM_MAX_FIELDS = 16,
    FORM_MAX_IMAGES = 32,
    FORM_MAX_DEPTH = 16 /* of JSON */
};

enum form_type {
    FORM_IMAGE,    /* one image */
    FORM_IMAGES,   /* one or several, up to FORM_MAX_IMAGES */
    FORM_ID,       /* as store_id_valid */
    FORM_NAME,     /* UTF-8 of up to STORE_NAME_MAX bytes, no control bytes */
    FORM_DISTANCE, /* 0..4 */
    FORM_RATE,     /* between 0 and 1, neither of them */
    FORM_LIMIT,    /* 1..search-limit-max */
    FORM_CHOICE,   /* one of words */
    FORM_OBJECT    /* JSON object of up to STORE_METADATA_MAX bytes */
};

struct form_field {
    const char *name;
    enum form_type type;
    const char *words; /* FORM_CHOICE: "largest|single" */
};

struct form_image {
    const char *field; /* name of the field, which lives for ever */
    int index;         /* of a FORM_IMAGES, else -1 */
    const uint8_t *data;
    size_t len;
    uint8_t *owned; /* decoded base64, or NULL */
};

struct form {
    const struct form_field *fields; /* ended by a NULL name */
    char *text[FORM_MAX_FIELDS];     /* of ids, names, choices; else NULL */
    double number[FORM_MAX_FIELDS];
    bool given[FORM_MAX_FIELDS];
    struct form_image images[FORM_MAX_IMAGES];
    int n_images;
    json_t *json; /* keeps what base64 was decoded from */
};

/* Read the request's fields as fields says. Fills *out; form_fini it in any
 * case. Images stay valid as long as both the form and the request. */
int form_read(struct job *job, const struct form_field *fields,
              struct form *out, struct error *err);
void form_fini(struct form *f);

bool form_given(const struct form *f, const char *name);
/* Text of an id, name, choice or object field; NULL when not given. */
const char *form_text(const struct form *f, const char *name);
double form_number(const struct form *f, const char *name, double otherwise);
const struct form_image *form_image(const struct form *f, const char *name);
/* The gallery field, else the setting. */
const char *form_gallery(const struct form *f, const struct job *job);
/* ERR_BAD_FIELD unless given. */
int form_need(const struct form *f, const char *name, struct error *err);

/* Digest of everything that the client sent: the same request has the same
 * one, however its multipart boundary reads. */
int form_digest(const struct job *job, uint8_t out[CRYPTO_SHA256_LEN],
                struct error *err);

enum {
    PHOTO_KEEP = 1,     /* also kept crops */
    PHOTO_NO_CHIPS = 2, /* detect only */
    PHOTO_EACH = 4      /* one that cannot be used does not fail the others */
};

/* An image of the form and what was read from it. */
struct form_photo {
    const struct form_image *image;
    struct photo photo; /* photo_fini it in any case */
    struct error err;   /* why not, naming the image; ERR_NONE: it was read */
};

/* Decode, detect, align n images with the server's limits, side by side where
 * work threads are idle, and count the time. -1: with the error of the first
 * that failed, its image named in the job too; with PHOTO_EACH only a fault of
 * the moment fails them all, what is wrong with one image is left in its
 * err. */
int form_photos(struct job *job, struct form_photo *photos, int n,
                enum face_choice choice, unsigned flags, struct error *err);
/* The error that the job will answer is about this image. */
void form_blame(struct job *job, const struct form_image *image);

#endif
