/* tools/ctl_calibrate.h - facenetctl calibrate: what its two ways, folders
 * and a daemon's gallery, share. Thread: main. */
#ifndef TOOLS_CTL_CALIBRATE_H
#define TOOLS_CTL_CALIBRATE_H

#include "core/train/calibrate.h"

/* A table for people; where: what the faces are. */
void ctl_calibrate_print(const struct calibration *c, const char *where);

struct ctl_calibrate_ask {
    const char *server, *key, *key_file, *ca_file; /* NULL: as usual */
    const char *gallery;
    const double *far; /* [n_far] */
    int n_far;
    bool apply, json;
};
/* POST /admin/calibrate, and print the answer. Returns the exit status. */
int ctl_calibrate_ask(const struct ctl_calibrate_ask *a);

#endif
