/* tools/ctl.h - facenetctl's commands and what they share.
 * Exit codes are grep's: 0 it matched or worked, 1 it did not match, 2 an
 * error. Results go to stdout, everything else to stderr. */
#ifndef TOOLS_CTL_H
#define TOOLS_CTL_H

#include <stdbool.h>

#include "core/base/error.h"

enum {
    CTL_OK = 0,
    CTL_NO_MATCH = 1,
    CTL_ERROR = 2,
    CTL_STOPPED = 3 /* training alone: what was reached is written */
};

/* argv[0] is the command's own name; options and operands follow. */
int ctl_verify(int argc, char **argv);
int ctl_enroll(int argc, char **argv);
int ctl_identify(int argc, char **argv);
int ctl_detect(int argc, char **argv);
int ctl_subjects(int argc, char **argv);
int ctl_faces(int argc, char **argv);
int ctl_galleries(int argc, char **argv);
int ctl_info(int argc, char **argv);
int ctl_model(int argc, char **argv);
int ctl_keys(int argc, char **argv);
int ctl_evaluate(int argc, char **argv);
int ctl_calibrate(int argc, char **argv);
int ctl_align(int argc, char **argv);
int ctl_train(int argc, char **argv);
int ctl_train_detector(int argc, char **argv);

/* "facenetctl: text" to stderr; returns CTL_ERROR. */
int ctl_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same with an error's text. */
int ctl_fail_error(const struct error *err);
/* text with control characters shown as '?', for a terminal; borrowed until
 * the next but three calls. */
const char *ctl_safe(const char *text);

#endif
