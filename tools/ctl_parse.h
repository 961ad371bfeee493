/* tools/ctl_parse.h - arguments and the progress bar of the commands that go
 * through many photos. Thread: main. */
#ifndef TOOLS_CTL_PARSE_H
#define TOOLS_CTL_PARSE_H

#include <stdbool.h>

#include "core/engine/graph.h"

/* A whole argument, nothing behind it; false: it is none, or out of range. */
bool ctl_parse_number(const char *text, double least, double most, double *out);
bool ctl_parse_int(const char *text, int least, int most, int *out);
/* auto, f32, bf16 */
bool ctl_parse_precision(const char *text, enum precision *out);

struct ctl_progress {
    bool terminal; /* stderr is one; else nothing is shown */
};
/* user: a struct ctl_progress, or what begins with one. */
void ctl_show_progress(void *user, int done, int total);

#endif
