/* tools/ctl_model.h - between ctl_model.c and ctl_model_info.c. */
#ifndef TOOLS_CTL_MODEL_H
#define TOOLS_CTL_MODEL_H

#include "core/face/model.h"

/* "mtcnn-pnet" to its kind; -1: not one. */
int ctl_model_kind(const char *text, enum model_kind *kind);
int ctl_model_info(int argc, char **argv);

#endif
