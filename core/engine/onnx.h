/* core/engine/onnx.h - ONNX files to graphs and back.
 * The only user of protobuf-c. Files are hostile input: every size, index
 * and name is checked; external data, subgraphs, unknown domains and cycles
 * are refused; an operator that is not supported is refused by name and
 * node. Thread: any. */
#ifndef CORE_ENGINE_ONNX_H
#define CORE_ENGINE_ONNX_H

#include "core/base/crypto.h"
#include "core/engine/graph.h"

enum {
    ONNX_MAX_BYTES = 1 << 30,
    ONNX_MAX_METADATA = 256 /* pairs */
};

/* metadata_props: an ordered list of text pairs. */
struct onnx_metadata {
    char **keys, **values;
    int n;
};
const char *onnx_metadata_get(const struct onnx_metadata *m, const char *key);
/* Adds or replaces; value NULL removes. Copies. */
int onnx_metadata_set(struct onnx_metadata *m, const char *key,
                      const char *value, struct error *err);
void onnx_metadata_fini(struct onnx_metadata *m);

/* Read a model of opset 7..21. A batch fixed in the file (often 1) becomes
 * free. Fills meta (NULL: not wanted). Returns an owned graph or NULL with
 * ERR_MODEL, ERR_FILE, ERR_NOMEM. */
struct graph *onnx_parse(const void *bytes, size_t len_bytes,
                         struct onnx_metadata *meta, struct error *err);
struct graph *onnx_load(const char *path, struct onnx_metadata *meta,
                        struct error *err);

/* The same, and the SHA-256 of the file's bytes but for the metadata pairs
 * whose key begins with `without`: one reading gives both. */
struct graph *onnx_load_digest(const char *path, const char *without,
                               uint8_t digest[CRYPTO_SHA256_LEN],
                               struct onnx_metadata *meta, struct error *err);

/* Put meta, whose keys begin with prefix, in the place of the file's metadata
 * pairs whose keys do. Every other byte stays; atomically, as onnx_save. */
int onnx_replace_metadata(const char *path, const char *prefix,
                          const struct onnx_metadata *meta, struct error *err);

/* Write g (opset 13) atomically: temporary file, fsync, rename. */
int onnx_save(const struct graph *g, const struct onnx_metadata *meta,
              const char *path, struct error *err);

#endif
