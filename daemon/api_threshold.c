/* daemon/api_threshold.c - which threshold decides, and what is known of it:
 * a request's own, the one for a false-accept rate, the setting, the
 * model's. */
#include "daemon/api.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/face/distance.h"
#include "daemon/thresholds.h"

enum {
    LEN_RATES = 160
};

/* Answers carry six decimals: a threshold that was read from one is the same
 * threshold. */
#define ROUNDED 5e-7

/* Of those that let through at least as much, the least: what this threshold
 * lets through is no more. */
static double far_of(const struct model_threshold *rows, int n,
                     double threshold)
{
    double least = NAN;

    for (int i = 0; i < n; i++)
        if (rows[i].threshold >= threshold - ROUNDED && !(rows[i].far >= least))
            least = rows[i].far;
    return least;
}

static const char *rates(const struct model_threshold *rows, int n,
                         char out[LEN_RATES])
{
    int len = 0;

    snprintf(out, LEN_RATES, "none");
    for (int i = 0; i < n && len < LEN_RATES; i++)
        len += snprintf(out + len, (size_t)(LEN_RATES - len), "%s%g",
                        i ? ", " : "", rows[i].far);
    return out;
}

static int at_rate(const struct model_threshold *rows, int n, double far,
                   bool asked, struct api_limit *out, struct error *err)
{
    const struct model_threshold *t = model_threshold(rows, n, far);
    char text[LEN_RATES];

    if (t) {
        *out = (struct api_limit){t->threshold, t->far};
        return 0;
    }
    if (asked)
        return error_set(err, ERR_BAD_FIELD,
                         "field 'far': the model has no threshold for %g or "
                         "less; its rates: %s",
                         far, rates(rows, n, text));
    return error_set(err, ERR_CONFIG,
                     "setting far = %g: the model in use has no threshold for "
                     "that or less; its rates: %s",
                     far, rates(rows, n, text));
}

/* Where only laxer rates were measured, no laxer than any of theirs. */
static double usual(const struct model_threshold *rows, int n)
{
    const struct model_threshold *t = model_threshold(rows, n, 1e-3);
    double least = (double)DISTANCE_DEFAULT_THRESHOLD;

    for (int i = 0; i < n; i++)
        if (rows[i].threshold < least)
            least = rows[i].threshold;
    return t ? t->threshold : least;
}

int api_limit(const struct job *job, const struct form *f,
              struct api_limit *out, struct error *err)
{
    const struct config *config = atomic_load(&job->server->config);
    struct model_threshold rows[MODEL_MAX_THRESHOLDS];
    int n =
        thresholds_of(job->server->thresholds, job->serving->model, rows, NULL);
    bool given = f && form_given(f, "threshold");

    if (f && form_given(f, "far")) {
        if (given)
            return error_set(err, ERR_BAD_FIELD,
                             "give threshold or far, not both");
        return at_rate(rows, n, form_number(f, "far", 0), true, out, err);
    }
    if (!given && config->threshold <= 0 && config->far > 0)
        return at_rate(rows, n, config->far, false, out, err);
    out->threshold = given                   ? form_number(f, "threshold", 0)
                     : config->threshold > 0 ? config->threshold
                                             : usual(rows, n);
    out->far = far_of(rows, n, out->threshold);
    return 0;
}

json_t *api_far_json(double far)
{
    return isnan(far) ? json_null() : json_real(far);
}
