/* tools/ctl_parse.c - arguments and the progress bar of the commands that
 * go through many photos: evaluate, calibrate and align. */
#include "tools/ctl_parse.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/ctl.h"

enum {
    BAR = 40
};

bool ctl_parse_number(const char *text, double least, double most, double *out)
{
    char *end;

    *out = strtod(text, &end);
    return end != text && *end == '\0' && *out >= least && *out <= most;
}

bool ctl_parse_int(const char *text, int least, int most, int *out)
{
    double v;

    if (!ctl_parse_number(text, least, most, &v) || v != floor(v))
        return false;
    *out = (int)v;
    return true;
}

bool ctl_parse_precision(const char *text, enum precision *out)
{
    static const struct {
        const char *name;
        enum precision value;
    } names[] = {{"auto", PRECISION_AUTO},
                 {"f32", PRECISION_F32},
                 {"bf16", PRECISION_BF16}};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (!strcmp(text, names[i].name)) {
            *out = names[i].value;
            return true;
        }
    }
    return false;
}

int ctl_parse_options(int argc, char **argv, const struct option *options,
                      const char *usage,
                      bool (*take)(void *ctx, int which, const char *text),
                      void *ctx)
{
    int which, index = 0;

    optind = 0; /* facenetctl has looked at its own options before */
    while ((which = getopt_long(argc, argv, "h", options, &index)) != -1) {
        if (which == 'h') {
            fputs(usage, stdout);
            return CTL_OK;
        }
        if (which == '?') {
            fputs(usage, stderr);
            return CTL_ERROR;
        }
        if (!take(ctx, which, optarg))
            return ctl_fail("--%s %s: not a possible value",
                            options[index].name, ctl_safe(optarg));
    }
    return -1;
}

void ctl_show_progress(void *user, int done, int total)
{
    const struct ctl_progress *p = user;
    int filled = total > 0 ? (int)((long long)done * BAR / total) : BAR;

    if (!p->terminal)
        return;
    fprintf(stderr, "\r[%.*s%*s] %d/%d photos%s", filled,
            "########################################", BAR - filled, "", done,
            total, done == total ? "\n" : "");
    fflush(stderr);
}
