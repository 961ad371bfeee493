/* tests/finder.h - finding faces with the models of models/ on a plugin's card,
 * through what the daemon does it with. Run from the project's root. Header
 * only. */
#ifndef TESTS_FINDER_H
#define TESTS_FINDER_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/detection.h"

struct finder {
    struct device *cpu;
    struct model *models[DETECT_STAGES];
    struct detector *detector; /* asks the card */
    struct detector *plain;    /* the processor alone */
    struct card *card;
    struct detection *detection;
};

/* False: as card_close. */
static inline bool finder_close(struct finder *f)
{
    bool clean;

    detection_free(f->detection);
    clean = card_close(f->card);
    detector_free(f->detector);
    detector_free(f->plain);
    for (int i = 0; i < DETECT_STAGES; i++)
        model_free(f->models[i]);
    if (f->cpu)
        f->cpu->backend->device_close(f->cpu);
    *f = (struct finder){0};
    return clean;
}

/* What was opened is f's, also on failure. */
static inline int finder_open(struct finder *f, const char *plugin, bool wanted,
                              bool tune, int timeout_ms, struct error *err)
{
    static const char *const files[] = {"models/detector_pnet.onnx",
                                        "models/detector_rnet.onnx",
                                        "models/detector_onet.onnx"};
    const struct device_options one = {.n_threads = 1};
    const struct card_options opt = {.device = "cuda",
                                     .plugin = plugin,
                                     .tune = tune,
                                     .timeout_ms = timeout_ms};
    struct detection_options how = {.wanted = wanted};

    *f = (struct finder){0};
    f->cpu = backend_cpu.device_open(&one, err);
    if (!f->cpu)
        return -1;
    for (int i = 0; i < DETECT_STAGES; i++) {
        f->models[i] = model_load(files[i], NULL, NULL, err);
        if (!f->models[i])
            return -1;
        how.models[i] = f->models[i];
    }
    f->plain =
        detector_new(f->cpu, f->models[0], f->models[1], f->models[2], err);
    f->detector =
        detector_new(f->cpu, f->models[0], f->models[1], f->models[2], err);
    f->card = card_new(&opt, err);
    if (!f->plain || !f->detector || !f->card)
        return -1;
    how.card = f->card;
    how.cpu = f->cpu;
    how.detector = f->detector;
    f->detection = detection_new(&how, err);
    return f->detection ? 0 : -1;
}

/* A picture of models/demo, or NULL. */
static inline struct image *finder_picture(const char *name, struct error *err)
{
    enum {
        MOST = 1 << 20
    };
    uint8_t *bytes = malloc(MOST);
    char path[128];
    struct image *img = NULL;
    FILE *f;

    snprintf(path, sizeof(path), "models/demo/%s.jpg", name);
    f = fopen(path, "rb");
    if (f && bytes)
        img = image_decode(bytes, fread(bytes, 1, MOST, f), NULL, err);
    else
        error_set(err, ERR_FILE, "%s cannot be read", path);
    if (f)
        fclose(f);
    free(bytes);
    return img;
}

#endif
