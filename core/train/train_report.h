/* core/train/train_report.h - what a run tells while it goes and leaves behind:
 * events to its caller, curves, text files. The files of a run call it.
 * Thread: the run's. */
#ifndef CORE_TRAIN_TRAIN_REPORT_H
#define CORE_TRAIN_TRAIN_REPORT_H

#include "core/train/train.h"

struct loader;
struct train;
struct train_figures;

/* The run's folders and the files that tell of its arguments. */
int train_report_open(struct train *t, const char *resumed, struct error *err);
void train_report_close(struct train *t);
void train_report_phase(const struct train *t, const char *text);
/* The device that it learns on, and why no other. */
void train_report_device(const struct train *t, const char *why);
void train_report_warn(const struct train *t, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void train_report_step(struct train *t);
/* Warn of photos that failed since the last time; the first few by name. */
void train_report_failures(const struct train *t, struct loader *l,
                           int *n_told);
void train_report_figures(struct train *t, const char *when, const char *set,
                          const struct train_figures *f, double took_s);
void train_report_scalar(struct train *t, const char *tag, double value);
void train_report_result(const struct train *t, enum train_outcome outcome,
                         const char *text, const char *path);

#endif
