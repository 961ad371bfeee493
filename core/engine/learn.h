/* core/engine/learn.h - what happens to the numbers of a network that learns
 * between its runs: on the device, where that keeps them, else here, on the
 * learnable's. Used by core/train. Thread: the network's. */
#ifndef CORE_ENGINE_LEARN_H
#define CORE_ENGINE_LEARN_H

#include "core/engine/backend.h"

/* Bring parts (of enum learn_part) from the device to network_learnable, or
 * back. Nothing to do where they are the same. ERR_DEVICE. */
int learn_get(struct network *net, unsigned parts, struct error *err);
int learn_put(struct network *net, unsigned parts, struct error *err);

/* gradients = 0 */
int learn_clear(struct network *net, struct error *err);
/* gradients += decay * weights, of tensors that decay; then *norm: their
 * Euclidean length, not finite where a number is not. 1: 16-bit numbers were
 * too small for this loss; it is scaled down from now on, and this step is to
 * be left out. Once after each backward that follows a learn_clear. */
int learn_norm(struct network *net, float decay, double *norm,
               struct error *err);
/* One update of the weights, and of slots and average where the learnable has
 * them, by the gradients. */
int learn_update(struct network *net, const struct learn_update *u,
                 struct error *err);

#endif
