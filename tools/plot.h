/* tools/plot.h - curves of a measurement as an SVG file.
 * Thread: any. */
#ifndef TOOLS_PLOT_H
#define TOOLS_PLOT_H

#include "core/train/evaluate.h"

enum {
    PLOT_MAX_SERIES = 8
};

struct plot_series {
    const char *name;               /* of the model */
    const char *figures;            /* one line that stands beside it */
    const struct roc_point *points; /* of evaluate_roc */
    int n_points;
};
struct plot {
    const char *title;
    const char *abscissa, *ordinate; /* what the axes say */
    double far;                      /* marked by a line; 0: none */
    struct plot_series series[PLOT_MAX_SERIES];
    int n_series;
};

/* ROC curves: FAR by logarithm, from the least that the pairs can show, and
 * VAL. Written whole or not at all. ERR_FILE, ERR_BAD_FIELD (no series). */
int plot_roc(const struct plot *p, const char *path, struct error *err);

#endif
