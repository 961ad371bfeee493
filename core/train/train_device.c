/* core/train/train_device.c - see the header. */
#include "core/train/train_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine/plugin.h"

static struct device *open_cpu(const struct train_device_options *o,
                               struct error *err)
{
    struct device_options opt = {.n_threads = o->n_threads};

    return backend_cpu.device_open(&opt, err);
}

static bool learns(const struct backend *b)
{
    return b->load_learning && b->backward && b->learn_get && b->learn_put &&
           b->learn_clear && b->learn_norm && b->learn_update;
}

/* As given, or where it usually is; relative paths are of this folder. */
static const struct backend *open_plugin(const char *given, struct error *err)
{
    char *path = given && *given ? realpath(given, NULL) : plugin_default();
    const struct backend *b = NULL;

    if (!path && given && *given)
        path = strdup(given);
    if (path)
        b = plugin_open(path, err);
    else
        error_set(err, ERR_NOMEM, "no memory for a path");
    free(path);
    if (b && !learns(b))
        return error_null(err, ERR_DEVICE, "the plugin of %s cannot train",
                          b->name);
    return b;
}

static struct device *open_card(const struct train_device_options *o, int index,
                                struct error *err)
{
    const struct backend *b = open_plugin(o->plugin, err);
    struct device_options opt = {.index = index, .tune = o->tune};
    struct device *dev = b ? b->device_open(&opt, err) : NULL;
    struct device_info info;

    if (!dev || o->memory_fraction <= 0 || o->memory_fraction >= 1)
        return dev;
    b->device_describe(dev, &info); /* how much it has; then bounded */
    b->device_close(dev);
    opt.memory_bytes = (size_t)(o->memory_fraction * (double)info.bytes_total);
    return b->device_open(&opt, err);
}

struct device *train_device_open(const struct train_device_options *o,
                                 struct error *why, struct error *err)
{
    const char *device = o->device ? o->device : "auto";
    struct device *dev;
    int index;

    why->text[0] = '\0';
    if (!plugin_parse(device, &index))
        return error_null(err, ERR_BAD_FIELD,
                          "device: '%.40s' is none of auto, cpu, cuda, cuda:N",
                          device);
    if (strcmp(device, "cpu") == 0)
        return open_cpu(o, err);
    dev = open_card(o, index, why);
    if (dev) {
        why->text[0] = '\0';
        return dev;
    }
    if (strcmp(device, "auto") == 0)
        return open_cpu(o, err);
    return error_null(err, why->code, "device %.20s: %.200s", device,
                      why->text);
}

bool train_device_is_card(const struct device *dev)
{
    return dev->backend != &backend_cpu;
}

int train_device_precision(const struct device *dev, const char *word,
                           struct train_precision *out, struct error *err)
{
    bool card = train_device_is_card(dev);
    struct device_info info;
    enum precision p = PRECISION_F32;

    dev->backend->device_describe(dev, &info);
    if (!precision_parse(word, &p))
        return error_set(err, ERR_BAD_FIELD, "precision: '%.40s' is none",
                         word);
    if (p == PRECISION_AUTO)
        p = !card           ? PRECISION_F32
            : info.any_bf16 ? PRECISION_BF16
                            : PRECISION_F16;
    /* a card has TF32 where it has bf16 */
    if ((p == PRECISION_BF16 && !info.any_bf16) ||
        (p == PRECISION_TF32 && !(card && info.any_bf16)) ||
        (p == PRECISION_F16 && !card))
        return error_set(
            err, ERR_BAD_FIELD, "precision: this %s has no %s (%s)",
            card ? "card" : "processor", precision_name(p), info.isa);
    out->learn = out->rest = p;
    if (card && (p == PRECISION_BF16 || p == PRECISION_F16))
        out->rest = info.any_bf16 ? PRECISION_TF32 : PRECISION_F16;
    return 0;
}

void train_device_text(const struct device *dev, enum precision p,
                       const char *why, char buf[TRAIN_DEVICE_TEXT])
{
    struct device_info info;

    dev->backend->device_describe(dev, &info);
    snprintf(buf, TRAIN_DEVICE_TEXT, "%.32s, %s, %s%s%.240s",
             dev->backend->name, info.name, precision_name(p),
             *why ? "; no card: " : "", why);
}

int train_device_advise(const struct device *dev, int batch, struct error *err)
{
    struct error was = *err;

    if (was.code != ERR_NOMEM || !train_device_is_card(dev))
        return -1;
    return error_set(
        err, ERR_NOMEM,
        "the card's memory does not do for batches of %d: a lower "
        "batch_size, precision bf16 or f16, or device cpu (%.100s)",
        batch, was.text);
}
