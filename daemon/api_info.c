/* daemon/api_info.c - what this daemon is and how it is: /info, /models,
 * health and readiness. Nothing here waits for the network; health and
 * readiness are answered on the HTTP thread and so must not block. */
#include "daemon/api.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/thresholds.h"
#include "store/gallery.h"

enum {
    MAX_MODEL_FILES = 1000
};

/* The settings that bound what a client may send or ask for. */
static const struct {
    const char *name;
    size_t offset;
} limits[] = {
#define LIMIT(field)                                                           \
    {                                                                          \
#field, offsetof(struct config, field)                                 \
    }
    LIMIT(max_body),
    LIMIT(max_model_bytes),
    LIMIT(max_image_bytes),
    LIMIT(max_image_pixels),
    LIMIT(max_image_side),
    LIMIT(min_image_side),
    LIMIT(max_scans),
    LIMIT(decode_ms),
    LIMIT(min_face),
    LIMIT(max_faces_per_image),
    LIMIT(max_faces_per_subject),
    LIMIT(search_limit_max),
    LIMIT(batch_max),
    LIMIT(queue_faces),
    LIMIT(queue_bytes),
    LIMIT(max_buffered),
    LIMIT(max_connections),
    LIMIT(max_connections_per_address),
    LIMIT(max_auth_failures),
    LIMIT(deadline_ms),
    LIMIT(header_ms),
    LIMIT(body_ms),
    LIMIT(idle_ms),
    LIMIT(job_threads),
    LIMIT(job_memory),
    LIMIT(job_stop_ms),
    LIMIT(jobs_waiting),
    LIMIT(jobs_kept),
#undef LIMIT
};

static json_t *limits_json(const struct config *c)
{
    json_t *o =
        json_pack("{s:i, s:i, s:i, s:f}", "id_bytes", STORE_ID_MAX,
                  "name_bytes", STORE_NAME_MAX, "metadata_bytes",
                  STORE_METADATA_MAX, "job_max_minutes", c->job_max_minutes);

    for (size_t i = 0; o && i < sizeof(limits) / sizeof(limits[0]); i++) {
        int64_t value;
        memcpy(&value, (const char *)c + limits[i].offset, sizeof(value));
        if (json_object_set_new(o, limits[i].name, json_integer(value)) < 0) {
            json_decref(o);
            return NULL;
        }
    }
    return o;
}

static json_t *thresholds_json(const struct model_threshold *rows, int n)
{
    json_t *list = json_array();

    for (int i = 0; list && i < n; i++) {
        const struct model_threshold *t = &rows[i];
        json_t *row = json_pack("{s:f, s:o, s:I, s:I}", "far", t->far,
                                "threshold", api_real(t->threshold, 6), "pairs",
                                (json_int_t)t->n_impostor, "accepted",
                                (json_int_t)t->n_accepted);
        if (json_array_append_new(list, row) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static const char *kind_text(enum model_kind kind)
{
    static const char *const names[] = {
        [MODEL_EMBEDDER] = "embedder",
        [MODEL_PNET] = "mtcnn-pnet",
        [MODEL_RNET] = "mtcnn-rnet",
        [MODEL_ONET] = "mtcnn-onet",
    };
    return names[kind];
}

int api_add_contract(json_t *o, const struct contract *c)
{
    char crop[64], scale[128];
    json_t *more = json_pack(
        "{s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:s, s:s, s:s, s:s, s:o}", "kind",
        kind_text(c->kind), "crop", contract_crop_text(c, crop, sizeof(crop)),
        "scale", contract_scale_text(c, scale, sizeof(scale)), "channels",
        c->bgr ? "bgr" : "rgb", "width", c->width, "height", c->height,
        "embedding_size", c->dim, "licence", c->licence, "source", c->source,
        "parent", c->parent, "compatible", c->compatible, "thresholds",
        thresholds_json(c->thresholds, c->n_thresholds));
    int rc = more ? json_object_update(o, more) : -1;

    json_decref(more);
    return rc;
}

static json_t *model_json(const struct job *job)
{
    const struct model *m = job->serving->model;
    struct model_threshold rows[MODEL_MAX_THRESHOLDS];
    bool own;
    int n = thresholds_of(job->server->thresholds, m, rows, &own);
    struct api_limit limit;
    bool decided = api_limit(job, NULL, &limit, NULL) == 0;
    json_t *o = json_pack("{s:s, s:s}", "id", m->id, "name", m->name);

    if (o &&
        (api_add_contract(o, &m->contract) < 0 ||
         json_object_set_new(o, "thresholds", thresholds_json(rows, n)) < 0 ||
         json_object_set_new(o, "calibrated", json_boolean(own)) < 0 ||
         json_object_set_new(o, "threshold_in_use",
                             decided ? api_real(limit.threshold, 6)
                                     : json_null()) < 0 ||
         json_object_set_new(o, "far_in_use",
                             decided ? api_far_json(limit.far) : json_null()) <
             0)) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static const char *precision_why(const struct job *job, const struct config *c)
{
    enum precision p = runner_precision(job->serving->runner);
    enum precision asked;

    if (precision_parse(c->precision, &asked) && asked == p)
        return "the setting precision asks for it";
    if (runner_on_card(job->serving->runner, NULL))
        return "the quickest of the card in which the model's check holds";
    if (asked != PRECISION_AUTO)
        return "the processor has not what the setting precision asks for";
    if (p == PRECISION_BF16)
        return "the processor is quicker in bf16 and the model's check holds";
    if (job->server->device_info.fast_bf16)
        return "the model's check does not hold in bf16";
    return "the processor has no quick bf16";
}

/* The card: used, or why not. */
static json_t *card_json(const struct card_status *c, const char *model_why)
{
    const char *why = c->state == CARD_UP && *model_why ? model_why : c->why;

    return json_pack(
        "{s:s, s:i, s:s?, s:s?, s:s?, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
        "state", card_state_name(c->state), "index", c->index, "backend",
        *c->backend ? c->backend : NULL, "name", *c->name ? c->name : NULL,
        "why", *why ? why : NULL, "opened", (json_int_t)c->n_opened, "lost",
        (json_int_t)c->n_lost, "failovers", (json_int_t)c->n_failovers,
        "searches", (json_int_t)c->n_searches, "search_failures",
        (json_int_t)c->n_search_failures, "retry_s", (json_int_t)c->retry_s,
        "memory_used_bytes", (json_int_t)c->bytes_used, "memory_bytes",
        (json_int_t)c->bytes_total);
}

/* Which device finds faces. */
static json_t *detection_json(struct server *s, const struct card_status *c)
{
    struct detection_status d;

    detection_status(s->detection, &d);
    return json_pack("{s:s, s:s?, s:I, s:I, s:I}", "backend",
                     d.on_card ? c->backend : s->device->backend->name, "why",
                     *d.why ? d.why : NULL, "batches", (json_int_t)d.n_runs,
                     "inputs", (json_int_t)d.n_inputs, "failovers",
                     (json_int_t)d.n_failovers);
}

static json_t *device_json(const struct job *job, const struct config *c)
{
    struct server *s = job->server;
    struct runner *r = job->serving->runner;
    struct error why = {0};
    bool on_card = runner_on_card(r, &why);
    struct card_status st;

    card_status(s->card, &st);
    return json_pack("{s:s, s:s, s:s, s:i, s:s, s:s, s:s, s:o, s:o}", "backend",
                     on_card ? st.backend : s->device->backend->name, "name",
                     on_card ? st.name : s->device_info.name, "isa",
                     s->device_info.isa, "threads", s->device_info.n_threads,
                     "precision", precision_name(runner_precision(r)), "why",
                     precision_why(job, c), "setting", st.setting, "card",
                     card_json(&st, why.text), "detection",
                     detection_json(s, &st));
}

/* What of the gallery is on the card, and why no more. */
static json_t *on_card_json(const struct job *job)
{
    struct card_gallery_status g = {0};
    struct card_status c;

    if (job->serving->on_card) {
        card_gallery_status(job->serving->on_card, &g);
    } else {
        card_status(job->server->card, &c);
        error_set(&g.why, ERR_DEVICE, "%s", c.why);
    }
    return json_pack("{s:b, s:I, s:I, s:s?}", "searched", g.attached, "rows",
                     (json_int_t)g.n_rows, "rows_left_out",
                     (json_int_t)g.n_left_out, "why",
                     *g.why.text ? g.why.text : NULL);
}

static json_t *galleries_json(const struct job *job)
{
    struct gallery_size size = {0};

    gallery_size(job->serving->gallery, &size);
    return json_pack("{s:I, s:I, s:I, s:I, s:o}", "galleries",
                     (json_int_t)size.n_galleries, "subjects",
                     (json_int_t)size.n_subjects, "faces",
                     (json_int_t)size.n_faces, "bytes", (json_int_t)size.bytes,
                     "card", on_card_json(job));
}

int api_info(struct job *job, struct error *err)
{
    struct server *s = job->server;
    const struct config *c = atomic_load(&s->config);
    struct store_models m;
    json_t *body;

    if (store_models_get(s->store, &m, err) != 0)
        return -1;
    body = json_pack(
        "{s:s, s:s, s:o, s:s?, s:s?, s:o, s:o, s:o, s:s, s:o}", "version",
        FACENETD_VERSION, "metric", "l2_squared", "model", model_json(job),
        "previous_model", *m.previous ? m.previous : NULL, "activating",
        *m.target ? m.target : NULL, "device", device_json(job, c), "limits",
        limits_json(c), "gallery", galleries_json(job), "default_gallery",
        c->default_gallery, "uptime_s",
        api_real((double)(server_now_us() - s->started_us) / 1e6, 3));

    if (!body)
        return error_set(err, ERR_NOMEM, "no memory for the answer");
    job_answer(job, 200, body);
    return 0;
}

/* The loaded model whose file has this name (without .onnx), or NULL. */
static const struct model *loaded(const struct job *job, const char *name)
{
    const struct server *s = job->server;
    const struct model *const all[] = {job->serving->model, s->pnet, s->rnet,
                                       s->onet};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (all[i] && strcmp(all[i]->name, name) == 0)
            return all[i];
    return NULL;
}

static json_t *model_file_json(const struct job *job, int dir, const char *file)
{
    char name[256];
    size_t len = strlen(file) - strlen(".onnx");
    const struct model *m;
    struct stat st;
    json_t *o;

    if (fstatat(dir, file, &st, 0) < 0 || !S_ISREG(st.st_mode))
        return json_null(); /* gone since it was listed */
    memcpy(name, file, len);
    name[len] = '\0';
    m = loaded(job, name);
    o = json_pack("{s:s, s:I, s:b, s:b}", "name", name, "bytes",
                  (json_int_t)st.st_size, "loaded", m != NULL, "active",
                  m == job->serving->model);
    if (o && m &&
        (json_object_set_new(o, "id", json_string(m->id)) < 0 ||
         api_add_contract(o, &m->contract) < 0)) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static int is_model(const struct dirent *e)
{
    size_t len = strlen(e->d_name);

    return e->d_name[0] != '.' && len > 5 && len < 256 &&
           strcmp(e->d_name + len - 5, ".onnx") == 0;
}

int api_models(struct job *job, struct error *err)
{
    const char *path = atomic_load(&job->server->config)->models;
    struct dirent **entries = NULL;
    json_t *list = json_array();
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int n = dir < 0 ? -1 : scandirat(dir, ".", &entries, is_model, alphasort);
    int rc = -1;

    if (n < 0) {
        error_set(err, ERR_FILE, "the model directory cannot be read: %s",
                  strerror(errno));
        goto out;
    }
    for (int i = 0; list && i < n && i < MAX_MODEL_FILES; i++) {
        json_t *row = model_file_json(job, dir, entries[i]->d_name);
        if (json_is_null(row))
            continue;
        if (json_array_append_new(list, row) < 0) {
            error_set(err, ERR_NOMEM, "no memory for the answer");
            goto out;
        }
    }
    job_answer(job, 200, json_pack("{s:O}", "models", list));
    rc = 0;
out:
    for (int i = 0; i < n; i++)
        free(entries[i]);
    free(entries);
    json_decref(list);
    if (dir >= 0)
        close(dir);
    return rc;
}

static int answer_state(struct job *job, const char *state)
{
    job_answer(job, 200, json_pack("{s:s}", "status", state));
    return 0;
}

/* Alive: able to answer. A database that failed does not heal, so that a
 * supervisor should restart the daemon. */
int api_healthz(struct job *job, struct error *err)
{
    if (store_failed(job->server->store))
        return error_set(err, ERR_STORAGE,
                         "the database failed; a restart is needed");
    return answer_state(job, "ok");
}

int api_readyz(struct job *job, struct error *err)
{
    struct server *s = job->server;

    if (atomic_load(&s->stopping))
        return error_set(err, ERR_STOPPING, "the daemon is stopping");
    if (!atomic_load(&s->ready))
        return error_set(err, ERR_NOT_READY, "the daemon is starting");
    if (store_failed(s->store))
        return error_set(err, ERR_STORAGE,
                         "the database failed; a restart is needed");
    return answer_state(job, "ready");
}
