/* core/train/triplet.h - sampling of people and photos, selection of triplets,
 * the loss and its gradient (FaceNet, equation 1 and section 3.2).
 * Distances are squared L2 of unit vectors; all of them come from one matrix
 * product. Thread: one. */
#ifndef CORE_TRAIN_TRIPLET_H
#define CORE_TRAIN_TRIPLET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct device;

enum triplet_choice {
    TRIPLET_VGGFACE, /* neg - pos < alpha: the script's live line */
    TRIPLET_FACENET  /* and pos < neg: semi-hard, its other line */
};

/* Draw people in random order, of each up to images_per_person photos in
 * random order, until people_per_batch * images_per_person photos are had or
 * no person is left. n_photos [n_people]. person, photo: room for the
 * product; the photos of a person lie side by side. Returns how many, 0 when
 * memory is out. */
int triplet_sample(const int *n_photos, int n_people, int people_per_batch,
                   int images_per_person, uint64_t *random, int *person,
                   int *photo);

struct triplet {
    int a, p, n; /* rows of the embeddings */
};
struct triplet_options {
    enum triplet_choice choice;
    float alpha;
    /* May row a be anchor with positive p? NULL: always. (Identical files are
     * never both.) */
    bool (*pair)(void *ctx, int a, int p);
    void *ctx;
    /* Harmonic mode (the paper, section 7): also vectors of the same photos
     * by the old model, [n,dim]; rows n..2n-1 of a triplet then are those.
     * Besides triplets of new vectors alone there are those whose anchor is
     * old, and those whose positive and negative are. NULL: none. */
    const float *old;
    /* Selects in place of the host where its table has that and there are no
     * old vectors: the same triplets, but for the rounding of distances. NULL:
     * none. */
    struct device *device;
};
/* embeddings [n,dim], rows of one person side by side, person [n]. Every
 * anchor with each later photo of its person as positive, one negative drawn
 * at random of those allowed; shuffled. *out: malloc'd, *n_out. ERR_NOMEM;
 * ERR_DEVICE. */
int triplet_select(const float *embeddings, const int *person, int n, int dim,
                   const struct triplet_options *opt, uint64_t *random,
                   struct triplet **out, int *n_out, struct error *err);

/* Squared distances of all rows of x to all rows of y: out [nx,ny]. */
int triplet_distances(const float *x, int nx, const float *y, int ny, int dim,
                      float *out, struct error *err);

/* Mean over the triplets of max(0, |a-p|^2 - |a-n|^2 + alpha). rows
 * [3 * n_triplets, dim] are a p n a p n ...; grad, of its shape, gets the
 * loss by each row (0 where fixed[row]: an old vector; fixed may be NULL).
 * *active: triplets with a loss. */
double triplet_loss(const float *rows, int n_triplets, int dim, float alpha,
                    const bool *fixed, float *grad, int *active);

/* Mean squared distance of two sets of unit vectors, and its gradient: the
 * loss of distillation. */
double triplet_distill(const float *student, const float *teacher, int n,
                       int dim, float *grad);

/* y [n,dim] = x / |x| by rows, and back: grad_x from grad_y. */
void triplet_normalise(const float *x, int n, int dim, float *y);
void triplet_normalise_back(const float *x, const float *grad_y, int n, int dim,
                            float *grad_x);
/* Mean pairwise squared distance of n unit vectors: near 0 is a collapse. */
double triplet_spread(const float *y, int n, int dim);

#endif
