/* tools/ctl_parse.h - arguments and the progress bar of the commands that go
 * through many photos. Thread: main. */
#ifndef TOOLS_CTL_PARSE_H
#define TOOLS_CTL_PARSE_H

#include <getopt.h>
#include <stdbool.h>

#include "core/engine/graph.h"

/* A whole argument, nothing behind it; false: it is none, or out of range. */
bool ctl_parse_number(const char *text, double least, double most, double *out);
bool ctl_parse_int(const char *text, int least, int most, int *out);
/* auto, f32, bf16 */
bool ctl_parse_precision(const char *text, enum precision *out);

/* Hands every option of argv to take: its val and its argument; false: that is
 * no possible value. --help, 'h', prints usage. -1: go on at optind, else the
 * exit status. */
int ctl_parse_options(int argc, char **argv, const struct option *options,
                      const char *usage,
                      bool (*take)(void *ctx, int which, const char *text),
                      void *ctx);

struct ctl_progress {
    bool terminal; /* stderr is one; else nothing is shown */
};
/* user: a struct ctl_progress, or what begins with one. */
void ctl_show_progress(void *user, int done, int total);

#endif
