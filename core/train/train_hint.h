/* core/train/train_hint.h - hints: pictures inside a teacher that a network
 * imitates. train_setup.c loads them, train_step.c learns by them.
 * Thread: the run's. */
#ifndef CORE_TRAIN_TRAIN_HINT_H
#define CORE_TRAIN_TRAIN_HINT_H

#include "core/base/error.h"

struct graph;
struct train;

/* What distill_hints names: t->graph with those values as outputs after the
 * first; owned. Loads the teacher for train_hint_teach. */
struct graph *train_hint_graph(struct train *t, struct error *err);
void train_hint_fini(struct train *t);
/* The teacher's vectors of t->tutor_x into t->tutor_y; keeps its pictures. */
int train_hint_teach(struct train *t, struct error *err);
/* After the network's forward: the hints' loss, weighted; its gradients are
 * written. */
double train_hint_loss(struct train *t);

#endif
