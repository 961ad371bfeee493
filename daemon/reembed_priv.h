/* daemon/reembed_priv.h - what reembed.c (which model, when) and
 * reembed_page.c (faces to vectors) share. */
#ifndef DAEMON_REEMBED_PRIV_H
#define DAEMON_REEMBED_PRIV_H

#include "daemon/reembed.h"

/* A way through the faces that a model has not embedded, by growing id. */
struct course {
    char id[65];       /* of the model, or "" */
    int64_t after;     /* everything up to here was looked at */
    bool done;         /* the end was reached */
    int64_t *unusable; /* faces whose crops cannot be embedded, ascending */
    int n_unusable, cap_unusable;
    struct error why; /* of the first of them */
};

/* A network, on one of the processor's threads or on the card, for the course
 * that it is made for. */
struct embed_kit {
    struct device *device; /* the processor */
    struct runner *runner;
};
void embed_kit_fini(struct embed_kit *kit);

/* One run over a course, on a niced thread of its own. */
struct catch_up {
    const struct reembed_options *opt;
    struct embed_kit *kit;
    struct course *course;
    const atomic_int *generation; /* changed: stop */
    int began;                    /* its value at the start */
    bool hurry;                   /* not niced, no pauses */
    atomic_llong *n_embedded;
};
enum { /* what a run came to, besides -1: it failed, and the course is where it
          was before the faces that failed */
    CATCH_UP_STOPPED,
    CATCH_UP_END,
    CATCH_UP_BEHIND /* without hurry, faces come faster than they are embedded
                     */
};
int reembed_catch_up(struct catch_up *k, struct error *err);
void course_reset(struct course *c, const char *id);

#endif
