/* gpu/gpu.h - what the plugin facenetd-cuda.so exports. Thread: any. */
#ifndef GPU_GPU_H
#define GPU_GPU_H

#include "core/engine/backend.h"

/* The table of the card's backend; NULL where abi is not the BACKEND_ABI that
 * the plugin was built with. */
__attribute__((visibility("default"))) const struct backend *
facenetd_backend(uint32_t abi);

#endif
