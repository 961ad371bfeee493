/* core/face/model_priv.h - the contract as text, between model.c, which loads
 * and saves, and contract.c, which parses and prints. */
#ifndef CORE_FACE_MODEL_PRIV_H
#define CORE_FACE_MODEL_PRIV_H

#include "core/face/model.h"

enum {
    GOLDEN_PART = 1024, /* numbers kept of one output of a detector */
    MODEL_MAX_GOLDEN = GRAPH_MAX_OUTPUTS * MODEL_MAX_DIM
};

/* Every "facenetd." key that is known, checked; an error names the key. The
 * golden numbers are malloc'd, the caller's also on failure. */
int contract_read(struct contract *c, const struct onnx_metadata *meta,
                  struct error *err);
/* Does the network fit the contract? Fills in the input's size. */
int contract_check(struct contract *c, const struct graph *g,
                   struct error *err);
int contract_write(const struct contract *c, struct onnx_metadata *meta,
                   struct error *err);
/* The thresholds alone, which are no part of a model's id. */
#define CONTRACT_THRESHOLD "facenetd.threshold."
int contract_read_thresholds(struct contract *c,
                             const struct onnx_metadata *meta,
                             struct error *err);
int contract_write_thresholds(const struct contract *c,
                              struct onnx_metadata *meta, struct error *err);

#endif
