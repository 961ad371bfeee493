/* daemon/server_load.c - what the server reads before it works: keys, models,
 * the settings of photos. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/engine/plugin.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/server_priv.h"
#include "store/store_model.h"

/* --- secrets ----------------------------------------------------------- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* 64 hex digits and at most a line's end. */
static int parse_crop_key(const char *text, size_t len, uint8_t *key)
{
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        len--;
    if (len != 2 * CRYPTO_KEY_LEN)
        return -1;
    for (int i = 0; i < CRYPTO_KEY_LEN; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return -1;
        key[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}

/* systemd makes the modes of credentials; any other file must be ours. */
static bool is_credential(const char *path)
{
    const char *dir = getenv("CREDENTIALS_DIRECTORY");
    size_t len = dir ? strlen(dir) : 0;
    return len > 0 && strncmp(path, dir, len) == 0 && path[len] == '/';
}

int server_load_crop_key(const char *path, uint8_t *key, struct error *err)
{
    char text[2 * CRYPTO_KEY_LEN + 8];
    struct stat st;
    ssize_t len;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), rc = 0;

    if (fd < 0)
        return error_set(err, ERR_CONFIG, "crop-key-file %.120s: %s", path,
                         strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        rc =
            error_set(err, ERR_CONFIG, "crop-key-file %.120s is no file", path);
    else if (st.st_mode & (is_credential(path) ? 0007 : 0077))
        rc = error_set(err, ERR_CONFIG,
                       "crop-key-file %.120s can be read by others: chmod 600",
                       path);
    len = rc == 0 ? read(fd, text, sizeof(text)) : -1;
    close(fd);
    if (rc == 0 && (len < 0 || parse_crop_key(text, (size_t)len, key) != 0))
        rc = error_set(err, ERR_CONFIG,
                       "crop-key-file %.120s must hold 64 hex digits", path);
    explicit_bzero(text, sizeof(text));
    return rc;
}

static int check_device(const struct config *c, struct error *err)
{
    bool cpu = strcmp(c->device, "cpu") == 0;
    int index;

    if (!plugin_parse(c->device, &index))
        return error_set(err, ERR_CONFIG,
                         "device is auto, cpu, cuda or cuda:N, not '%.40s'",
                         c->device);
    if (!plugin_parse(c->train_device, &index))
        return error_set(err, ERR_CONFIG,
                         "train-device is auto, cpu, cuda or cuda:N, not "
                         "'%.40s'",
                         c->train_device);
    if (cpu && c->device_required)
        return error_set(err, ERR_CONFIG,
                         "device-required asks for a card, device = cpu for "
                         "none");
    if (cpu &&
        (strcmp(c->precision, "f16") == 0 || strcmp(c->precision, "tf32") == 0))
        return error_set(err, ERR_CONFIG,
                         "precision %s is a card's: the processor computes in "
                         "f32 or bf16",
                         c->precision);
    return 0;
}

int server_check(const struct config *c, struct error *err)
{
    if (!store_id_valid(c->default_gallery))
        return error_set(err, ERR_CONFIG,
                         "default-gallery '%.80s' is not an id: 1 to %d "
                         "letters, digits, '.', '_' or '-'",
                         c->default_gallery, STORE_ID_MAX);
    if (c->far > 0 && c->threshold > 0)
        return error_set(err, ERR_CONFIG,
                         "threshold and far cannot both be set: a threshold "
                         "has its own rate");
    if (!*c->tls_cert != !*c->tls_key)
        return error_set(err, ERR_CONFIG,
                         "tls-cert and tls-key go together: one is missing");
    return check_device(c, err);
}

/* A rate that the model has no threshold for would fail every request. */
int server_check_far(struct server *s, const struct config *c,
                     struct error *err)
{
    struct serving *sv = servings_get(s->servings, SERVING_ACTIVE);
    struct model_threshold rows[MODEL_MAX_THRESHOLDS];
    int n = thresholds_of(s->thresholds, sv->model, rows, NULL);
    bool good = c->far <= 0 || model_threshold(rows, n, c->far);

    serving_put(sv);
    if (good)
        return 0;
    return error_set(err, ERR_CONFIG,
                     "setting far = %g: the model has no threshold for that "
                     "false-accept rate or less: 'facenetctl calibrate' "
                     "measures them",
                     c->far);
}

int server_load_keys(const struct config *c, bool on_loopback,
                     struct keys **out, struct error *err)
{
    *out = NULL;
    if (*c->keys_file) {
        *out = keys_load(c->keys_file, err);
        return *out ? 0 : -1;
    }
    if (on_loopback)
        return 0;
    return error_set(err, ERR_CONFIG,
                     "listen %.80s can be reached from other machines, which "
                     "needs keys-file: make keys with 'facenetctl keys add'",
                     c->listen);
}

int server_adopt(struct server *s, const struct config *c, const char *id,
                 struct error *err)
{
    uint8_t digest[CRYPTO_SHA256_LEN];
    char path[4096], old[2 * CRYPTO_SHA256_LEN + 1];
    bool renamed = false;

    snprintf(path, sizeof(path), "%s/%s.onnx", c->models, c->model);
    if (crypto_sha256_file(path, digest, err) != 0)
        return -1;
    crypto_hex(digest, sizeof(digest), old);
    if (strcmp(old, id) == 0)
        return 0;
    if (store_model_rename(s->store, old, id, &renamed, err) != 0)
        return -1;
    if (renamed)
        log_event(LOG_LEVEL_INFO, "model",
                  "id=%s was=%.12s text=\"stored embeddings are taken over: "
                  "ids leave thresholds out now\"",
                  id, old);
    return 0;
}

/* --- models ------------------------------------------------------------ */

static struct model *load_model(const struct config *c, const char *name,
                                enum model_kind kind, struct device *dev,
                                struct error *err)
{
    char path[4096];
    struct model *m;

    if (strchr(name, '/') || snprintf(path, sizeof(path), "%s/%s.onnx",
                                      c->models, name) >= (int)sizeof(path))
        return error_null(err, ERR_CONFIG,
                          "model '%.80s' is a file's name without .onnx, in "
                          "the directory of the setting models",
                          name);
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return error_null(err, ERR_CONFIG,
                          "there is no model %.120s: 'make models' makes it, "
                          "or point --models at its directory",
                          path);
    m = model_load(path, dev, NULL, err);
    if (m && m->contract.kind != kind) {
        model_free(m);
        return error_null(err, ERR_CONFIG,
                          "model %.120s is of another kind than its use here",
                          path);
    }
    return m;
}

int server_load_models(struct server *s, const struct config *c,
                       struct error *err)
{
    struct device_options all = {.n_threads = (int)c->threads};
    struct device_options one = {.n_threads = 1};
    char id[65];

    notify_status("loading models");
    s->device = backend_cpu.device_open(&all, err);
    if (!s->device)
        return -1;
    s->device->backend->device_describe(s->device, &s->device_info);
    s->detect_device = backend_cpu.device_open(&one, err);
    if (!s->detect_device)
        return -1;
    s->models = models_open(c->models, c->data_dir, s->detect_device, err);
    /* What is wrong with it is told before the database is opened. */
    if (!s->models || models_id_of(s->models, c->model, id, err) != 0)
        return -1;
    s->pnet = load_model(c, "detector_pnet", MODEL_PNET, s->detect_device, err);
    if (s->pnet)
        s->rnet =
            load_model(c, "detector_rnet", MODEL_RNET, s->detect_device, err);
    if (s->rnet)
        s->onet =
            load_model(c, "detector_onet", MODEL_ONET, s->detect_device, err);
    if (!s->onet)
        return -1;
    s->detector =
        detector_new(s->detect_device, s->pnet, s->rnet, s->onet, err);
    return s->detector ? 0 : -1;
}

/* --- the card ----------------------------------------------------------- */

int server_open_card(struct server *s, const struct config *c,
                     struct error *err)
{
    const char *given = getenv("CACHE_DIRECTORY"); /* systemd */
    bool usable = given && *given == '/' && !strchr(given, ':');
    char cache[4096];
    struct card_options opt = {
        .device = c->device,
        .plugin = c->device_plugin,
        .memory_bytes = c->device_memory,
        .gallery_bytes = c->device_gallery_memory,
        .tune = c->device_tune,
        .required = c->device_required,
        .timeout_ms = (int)c->device_timeout_ms,
    };
    struct card_status st;

    notify_status("opening the card");
    if (snprintf(cache, sizeof(cache), "%s/cuda",
                 usable ? given : c->data_dir) < (int)sizeof(cache))
        opt.cache_dir = cache;
    s->card = card_new(&opt, err);
    if (!s->card)
        return -1;
    card_status(s->card, &st);
    if (c->device_required && st.state != CARD_UP)
        return error_set(err, ERR_DEVICE, "device-required: %s", st.why);
    return 0;
}

int server_check_card(struct server *s, const struct config *c,
                      const struct serving *sv, struct error *err)
{
    struct error why = {0};

    (void)s;
    if (!c->device_required || runner_on_card(sv->runner, &why))
        return 0;
    return error_set(err, ERR_DEVICE, "device-required: %s", why.text);
}

/* The setting names another model than at the last start, or what was active
 * is gone: the setting's is active, what was is the previous one. */
static void take_configured(struct store_models *m, const char *configured)
{
    if (*m->active && strcmp(m->active, configured) != 0)
        memcpy(m->previous, m->active, sizeof(m->previous));
    if (strcmp(m->previous, configured) == 0)
        m->previous[0] = '\0';
    memcpy(m->active, configured, sizeof(m->active));
    m->target[0] = '\0';
}

int server_choose_model(struct server *s, const struct config *c, char id[65],
                        struct error *err)
{
    char configured[65];
    struct store_models m;
    struct model_entry e;
    struct error why;
    bool changed;

    if (models_id_of(s->models, c->model, configured, err) != 0 ||
        server_adopt(s, c, configured, err) != 0 ||
        models_find(s->models, configured, &e, err) != 0 ||
        store_models_get(s->store, &m, err) != 0 ||
        store_model_add(s->store, configured, e.contract.dim, err) != 0)
        return -1;
    changed = strcmp(m.configured, configured) != 0;
    if (changed) {
        if (*m.active && strcmp(m.active, configured) != 0)
            log_event(LOG_LEVEL_WARN, "model",
                      "active=%s was=%s text=\"the setting model names another "
                      "file than at the last start\"",
                      configured, m.active);
        take_configured(&m, configured);
        memcpy(m.configured, configured, sizeof(m.configured));
    } else if (models_find(s->models, m.active, &e, &why) != 0) {
        log_event(LOG_LEVEL_ERROR, "model",
                  "active=%s was=%s text=\"the file of the active model is "
                  "gone: the setting's serves\"",
                  configured, m.active);
        take_configured(&m, configured);
        changed = true;
    } else if (strcmp(m.active, configured) != 0) {
        log_event(LOG_LEVEL_INFO, "model",
                  "active=%s configured=%s text=\"the model that was activated "
                  "serves\"",
                  m.active, configured);
    }
    memcpy(id, m.active, sizeof(m.active));
    return changed ? store_models_set(s->store, &m, err) : 0;
}

void server_set_photo_options(struct server *s, const struct config *c)
{
    s->photo = (struct face_options){
        .image = {.max_bytes = (size_t)c->max_image_bytes,
                  .max_pixels = c->max_image_pixels,
                  .max_side = (int)c->max_image_side,
                  .min_side = (int)c->min_image_side,
                  .max_scans = (int)c->max_scans,
                  .max_ms = (int)c->decode_ms},
        .detect = {.min_face = (float)c->min_face,
                   .threshold = {(float)c->detect_threshold_p,
                                 (float)c->detect_threshold_r,
                                 (float)c->detect_threshold_o},
                   .factor = (float)c->detect_factor,
                   .max_faces = (int)c->max_faces_per_image},
    };
}
