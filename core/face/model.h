/* core/face/model.h - an ONNX file with its contract.
 * The contract lives in metadata_props under "facenetd.": what the network is
 * for, how its input is made, what its output means, and a golden pair that
 * is checked on the device at load. Immutable once loaded. Thread: any. */
#ifndef CORE_FACE_MODEL_H
#define CORE_FACE_MODEL_H

#include "core/engine/graph.h"
#include "core/engine/onnx.h"

enum model_kind {   /* facenetd.kind */
    MODEL_EMBEDDER, /* "embedder" */
    MODEL_PNET,     /* "mtcnn-pnet" */
    MODEL_RNET,     /* "mtcnn-rnet" */
    MODEL_ONET      /* "mtcnn-onet" */
};

enum crop_kind {    /* facenetd.crop */
    CROP_NONE,      /* "none": detectors */
    CROP_ARCFACE,   /* "arcface-112": five points, similarity, 112x112
                       template scaled to the input size */
    CROP_BOX_MARGIN /* "box-margin": box with margin, square resize, centre
                       crop: margin and size below (44 at 182) */
};

enum scale_kind {  /* facenetd.scale */
    SCALE_NONE,    /* "none": 0..255 as they are */
    SCALE_FIXED,   /* "fixed:A,B" or "fixed:A,A,A,B,B,B": (x-a)/b */
    SCALE_STANDARD /* "per-image": (x-mean)/max(std, 1/sqrt(n)) */
};

enum {
    MODEL_MAX_THRESHOLDS = 8,
    MODEL_MAX_DIM = 4096
};

struct model_threshold { /* facenetd.threshold.N = "FAR T PAIRS ACCEPTS" */
    double far;          /* stated false-accept rate, 1e-3 */
    double threshold;    /* squared L2 distance */
    int64_t n_impostor;  /* pairs it was measured on */
    int64_t n_accepted;
};

struct contract {
    enum model_kind kind;
    enum crop_kind crop;
    int crop_margin, crop_size; /* box-margin: 44, 182 */
    int width, height;          /* input; 0 where free (P-Net) */
    enum scale_kind scale;
    float a[3], b[3];
    bool bgr;            /* facenetd.channels = rgb|bgr */
    int dim;             /* embedding size */
    bool normalised;     /* the graph's output is already a unit vector */
    char licence[256];   /* facenetd.licence */
    char source[256];    /* facenetd.source: where it came from */
    char parent[65];     /* facenetd.parent: id of the model it was tuned
                            from */
    char compatible[65]; /* facenetd.compatible: id of a model with whose
                            embeddings this one's may be compared (harmonic
                            training); else "" */
    struct model_threshold thresholds[MODEL_MAX_THRESHOLDS];
    int n_thresholds;
    float *golden; /* [n_golden]: every output of formula input u("golden")
                      scaled as pixels 127.5*(1+u) through the contract's
                      scaling, one after another */
    int n_golden;
};

struct model {
    char id[65];   /* sha256 of the file without its thresholds, hex: what is
                      measured on a model does not make it another */
    char name[72]; /* file name without .onnx */
    struct graph *graph;
    struct contract contract;
};

/* Load, check the contract, compare the golden pair on dev in f32 (and tell
 * bf16's deviation in *bf16_ok when not NULL: does the golden pair hold in
 * bf16?). ERR_MODEL, ERR_NO_CONTRACT (text names the import command),
 * ERR_FILE. dev NULL: no golden check. */
struct model *model_load(const char *path, struct device *dev, bool *bf16_ok,
                         struct error *err);
void model_free(struct model *m);

/* An embedder's golden pair: the input [3,h,w] as the network takes it, for
 * free(), and in row [dim] what comes of it, at unit length. */
float *model_golden(const struct model *m, float *row, struct error *err);

/* Of n thresholds the one for this false-accept rate or the next stricter one
 * that was measured; NULL where there is none. */
const struct model_threshold *model_threshold(const struct model_threshold *t,
                                              int n, double far);

/* Write graph and contract (golden pair computed on dev, input size taken from
 * the graph) as an ONNX file. What model_load would refuse is not written.
 * keep: other metadata to carry over, or NULL. */
int model_save(const struct graph *g, const struct contract *c,
               const struct onnx_metadata *keep, struct device *dev,
               const char *path, struct error *err);

/* Replace the thresholds of a model file; nothing else in it changes, nor does
 * its id. What model_load would refuse is not written. */
int model_write_thresholds(const char *path, const struct model_threshold *t,
                           int n, struct error *err);

/* Text of crop and scale kinds to fields ("arcface-112",
 * "box-margin:44,182", "fixed:127.5,128", "per-image", "none", "rgb"). */
int contract_parse_crop(struct contract *c, const char *text,
                        struct error *err);
int contract_parse_scale(struct contract *c, const char *text,
                         struct error *err);
const char *contract_crop_text(const struct contract *c, char *buf, size_t len);
const char *contract_scale_text(const struct contract *c, char *buf,
                                size_t len);

#endif
