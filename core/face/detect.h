/* core/face/detect.h - the faces of a picture: MTCNN's cascade.
 * P-Net over a pyramid, R-Net and O-Net on what it proposes: boxes, scores
 * and five points. After image, before align.
 * A detector (weights) is immutable and shared; a detect_scratch (plans,
 * buffers) has one thread. */
#ifndef CORE_FACE_DETECT_H
#define CORE_FACE_DETECT_H

#include "core/engine/graph.h"
#include "core/face/image.h"
#include "core/face/model.h"

struct box {
    float x0, y0, x1, y1; /* pixels of the upright picture; may reach out */
};

struct face {
    struct box box;
    float score;        /* O-Net's probability, 0..1 */
    float points[5][2]; /* x,y: left eye, right eye, nose, left and right
                           mouth corner; left as seen in the picture */
};

enum {
    DETECT_MAX_FACES = 1024
};

struct detect_options { /* zero takes the default */
    float min_face;     /* pixels, the shorter side; 36; at least 12 */
    float threshold[3]; /* 0.6 0.7 0.7; below 1 */
    float factor;       /* between pyramid levels, 0.709; 0.3..0.9 */
    int max_faces;      /* best by score; 100 */
};

struct detector;
struct detect_scratch;

/* Models of kinds MODEL_PNET, RNET, ONET, loaded onto dev (one OpenMP thread
 * is best: many pictures are looked at side by side). Borrows the models
 * until detector_free. */
struct detector *detector_new(struct device *dev, const struct model *pnet,
                              const struct model *rnet,
                              const struct model *onet, struct error *err);
void detector_free(struct detector *d); /* after its scratches */

/* --- networks run elsewhere ---------------------------------------------- */

enum detect_stage {
    DETECT_PNET,
    DETECT_RNET,
    DETECT_ONET,
    DETECT_STAGES
};

enum {
    DETECT_SHARED = 160 /* side of the canvases that P-Net sees elsewhere: one
                           size for all pictures */
};

struct detect_shape { /* of a stage elsewhere */
    int side;         /* of an input, [3,side,side] */
    size_t n_input;   /* floats of it */
    size_t row;       /* floats of a row: the outputs for one input, one after
                         the other in the graph's order */
};

struct detect_elsewhere {
    /* n inputs to n rows. Not 0: not now, or it failed, and rows is as it may
     * be: the scratch's own network does it at once. Thread: any, several at
     * once. */
    int (*run)(void *ctx, enum detect_stage stage, const float *const *inputs,
               int n, float *rows);
    /* Is it worth asking? */
    bool (*there)(void *ctx, enum detect_stage stage);
    void *ctx;
    int most[DETECT_STAGES]; /* inputs of one call */
};

/* Before the first scratch: e is asked by all of them. Copied; its ctx
 * outlives them. */
void detector_set_elsewhere(struct detector *d,
                            const struct detect_elsewhere *e);
/* False: the network has outputs that no detector needs, and never runs
 * elsewhere. */
bool detector_shape(const struct detector *d, enum detect_stage stage,
                    struct detect_shape *out);

/* --- looking ---------------------------------------------------------------
 */

struct detect_scratch *detect_scratch_new(struct detector *d,
                                          struct error *err);
void detect_scratch_free(struct detect_scratch *s);

/* Faces of img, largest box area first, into *faces (malloc'd, *n of them;
 * 0 and NULL is not an error). Work and memory are bounded whatever the
 * picture shows: of what P-Net proposes, the best 16,384 of a pyramid level
 * and the best 4,096 of all go on. ERR_BAD_FIELD (options), ERR_DEVICE,
 * ERR_NOMEM. Thread: the scratch's. */
int detect_faces(struct detect_scratch *s, const struct image *img,
                 const struct detect_options *opt, struct face **faces, int *n,
                 struct error *err);

/* The square boxes that R-Net, or with onet O-Net, would be asked about, best
 * first, into *boxes (malloc'd): what they are trained on. Otherwise as
 * detect_faces. */
int detect_candidates(struct detect_scratch *s, const struct image *img,
                      const struct detect_options *opt, bool onet,
                      struct box **boxes, int *n, struct error *err);

float box_area(const struct box *b);
float box_iou(const struct box *a, const struct box *b);

#endif
