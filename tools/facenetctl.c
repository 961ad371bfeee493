/* tools/facenetctl.c - the command line: talks to a daemon over HTTP
 * (ctl_client.c), makes and looks at model files (ctl_model.c), measures them
 * (ctl_evaluate.c, ctl_calibrate.c), crops faces for training
 * (ctl_align.c), trains (ctl_train.c, ctl_detector.c) and edits key files
 * (ctl_keys.c). */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tools/ctl.h"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} commands[] = {
    {"verify", ctl_verify, "compare two photos, or a photo with a subject"},
    {"enroll", ctl_enroll, "add photos of a subject to a gallery"},
    {"identify", ctl_identify, "find who is in a photo"},
    {"detect", ctl_detect, "find the faces of a photo"},
    {"subjects", ctl_subjects, "list, show, rename or delete subjects"},
    {"faces", ctl_faces, "list, show or delete enrolled faces"},
    {"galleries", ctl_galleries, "list, show or delete galleries"},
    {"info", ctl_info, "show the daemon's version, model and limits"},
    {"model", ctl_model, "import, make or look at model files"},
    {"evaluate", ctl_evaluate, "measure a model by the LFW protocol"},
    {"align", ctl_align, "crop the faces of folders of photos"},
    {"train", ctl_train, "train or fine-tune a network on folders of photos"},
    {"train-detector", ctl_train_detector,
     "train a face detector by what another finds"},
    {"calibrate", ctl_calibrate,
     "thresholds of a model for stated false-accept rates"},
    {"keys", ctl_keys, "add, list or remove API keys"},
    {NULL, NULL, NULL},
};

int ctl_fail(const char *fmt, ...)
{
    va_list ap;

    fputs("facenetctl: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return CTL_ERROR;
}

int ctl_fail_error(const struct error *err)
{
    return ctl_fail("%s", err->text);
}

const char *ctl_safe(const char *text)
{
    static char ring[4][512];
    static int next;
    char *out = ring[next++ % 4];
    size_t n = 0;

    for (const char *p = text ? text : ""; *p && n + 1 < sizeof(ring[0]); p++) {
        unsigned char c = (unsigned char)*p;
        bool c1 = c == 0xc2 && (unsigned char)p[1] >= 0x80 &&
                  (unsigned char)p[1] < 0xa0;
        out[n++] = c < 0x20 || c == 0x7f || c1 ? '?' : *p;
    }
    out[n] = '\0';
    return out;
}

static void usage(FILE *out)
{
    fputs("usage: facenetctl COMMAND [OPTION]...\n\n", out);
    for (const struct command *c = commands; c->name; c++)
        fprintf(out, "  %-14s %s\n", c->name, c->about);
    fputs("\nfacenetctl COMMAND --help tells more.\n"
          "Exit status: 0 match or success, 1 no match, 2 error.\n",
          out);
}

int main(int argc, char **argv)
{
    int rc = -1;

    if (argc < 2) {
        usage(stderr);
        return CTL_ERROR;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        (strcmp(argv[1], "help") == 0 && argc == 2)) {
        usage(stdout);
        return CTL_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("facenetctl " FACENETD_VERSION);
        return CTL_OK;
    }
    if (strcmp(argv[1], "help") == 0) {
        static char help[] = "--help";
        argv[1] = argv[2];
        argv[2] = help;
    }
    for (const struct command *c = commands; c->name && rc < 0; c++)
        if (strcmp(c->name, argv[1]) == 0)
            rc = c->run(argc - 1, argv + 1);
    if (rc < 0)
        return ctl_fail("there is no command '%s'; see facenetctl --help",
                        ctl_safe(argv[1]));
    /* A full disk or a closed pipe must not look like success. */
    if (fflush(stdout) != 0 || ferror(stdout))
        return ctl_fail("the output could not be written");
    return rc;
}
