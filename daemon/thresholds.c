/* daemon/thresholds.c - thresholds measured on the daemon's own faces: a table
 * by model in memory, a small JSON file that is replaced whole. Read at start,
 * written by POST /admin/calibrate, asked for by every answer. */
#include "daemon/thresholds.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/file.h"

struct applied {
    char id[65];
    struct model_threshold rows[MODEL_MAX_THRESHOLDS];
    int n;
};

struct thresholds {
    char dir[3800], path[4096];
    pthread_mutex_t lock;   /* of all, for moments */
    pthread_mutex_t saving; /* the file is written; taken before lock */
    struct applied *all;
    int n;
};

/* --- reading ------------------------------------------------------------- */

static bool row_ok(const struct applied *a, const struct model_threshold *t)
{
    for (int i = 0; i < a->n; i++)
        if (a->rows[i].far == t->far)
            return false;
    return t->far > 0 && t->far < 1 && t->threshold >= 0 && t->threshold <= 4 &&
           t->n_impostor > 0 && t->n_accepted >= 0 &&
           t->n_accepted <= t->n_impostor;
}

static bool read_rows(const json_t *list, struct applied *a)
{
    const json_t *row;
    size_t i;

    if (!json_is_array(list) || json_array_size(list) < 1 ||
        json_array_size(list) > MODEL_MAX_THRESHOLDS)
        return false;
    json_array_foreach((json_t *)list, i, row)
    {
        struct model_threshold t;
        json_int_t pairs, accepted;
        if (json_unpack((json_t *)row, "{s:F, s:F, s:I, s:I !}", "far", &t.far,
                        "threshold", &t.threshold, "pairs", &pairs, "accepted",
                        &accepted) != 0)
            return false;
        t.n_impostor = pairs;
        t.n_accepted = accepted;
        if (!row_ok(a, &t))
            return false;
        a->rows[a->n++] = t;
    }
    return true;
}

static int read_all(struct thresholds *t, const json_t *root, struct error *err)
{
    const json_t *models = json_object_get(root, "models"), *list;
    const char *id;

    if (!json_is_object(models) ||
        json_object_size(models) > THRESHOLDS_MAX_MODELS)
        return error_set(err, ERR_CONFIG,
                         "%.100s has no object of up to %d models: mend or "
                         "remove it",
                         t->path, THRESHOLDS_MAX_MODELS);
    t->all = calloc(json_object_size(models) + 1, sizeof(*t->all));
    if (!t->all)
        return error_set(err, ERR_NOMEM, "no memory for thresholds");
    json_object_foreach((json_t *)models, id, list)
    {
        struct applied *a = &t->all[t->n];
        if (strlen(id) != 64 || strspn(id, "0123456789abcdef") != 64 ||
            !read_rows(list, a))
            return error_set(err, ERR_CONFIG,
                             "%.80s: the thresholds of model %.12s are wrong: "
                             "mend or remove the file",
                             t->path, id);
        memcpy(a->id, id, sizeof(a->id));
        t->n++;
    }
    return 0;
}

static int load(struct thresholds *t, struct error *err)
{
    FILE *f = fopen(t->path, "re");
    json_error_t why;
    json_t *root = NULL;
    struct stat st;
    int rc = -1;

    if (!f)
        return errno == ENOENT ? 0
                               : error_set(err, ERR_CONFIG, "%.100s: %s",
                                           t->path, strerror(errno));
    if (fstat(fileno(f), &st) || !S_ISREG(st.st_mode) ||
        st.st_size > THRESHOLDS_MAX_BYTES)
        error_set(err, ERR_CONFIG, "%.100s is no file of up to 1 MiB", t->path);
    else if (!(root = json_loadf(f, JSON_REJECT_DUPLICATES, &why)))
        error_set(err, ERR_CONFIG,
                  "%.60s, line %d: %.40s: mend or remove the file", t->path,
                  why.line, why.text);
    else
        rc = read_all(t, root, err);
    json_decref(root);
    fclose(f);
    return rc;
}

struct thresholds *thresholds_open(const char *data_dir, struct error *err)
{
    struct thresholds *t = calloc(1, sizeof(*t));

    if (!t)
        return error_null(err, ERR_NOMEM, "no memory for thresholds");
    pthread_mutex_init(&t->lock, NULL);
    pthread_mutex_init(&t->saving, NULL);
    if (snprintf(t->dir, sizeof(t->dir), "%s", data_dir) >= (int)sizeof(t->dir))
        error_set(err, ERR_CONFIG, "data-dir has too long a path");
    else if (snprintf(t->path, sizeof(t->path), "%s/thresholds.json", t->dir) >
                 0 &&
             load(t, err) == 0)
        return t;
    thresholds_close(t);
    return NULL;
}

void thresholds_close(struct thresholds *t)
{
    if (!t)
        return;
    pthread_mutex_destroy(&t->saving);
    pthread_mutex_destroy(&t->lock);
    free(t->all);
    free(t);
}

/* --- asking ----------------------------------------------------------------
 */

static int find(const struct thresholds *t, const char *id)
{
    for (int i = 0; i < t->n; i++)
        if (strcmp(t->all[i].id, id) == 0)
            return i;
    return -1;
}

/* Can both be true: the smaller rate has no larger threshold? */
static bool agrees(const struct model_threshold *c,
                   const struct model_threshold *rows, int n)
{
    for (int i = 0; i < n; i++)
        if (rows[i].far == c->far ||
            (rows[i].far > c->far ? rows[i].threshold < c->threshold
                                  : rows[i].threshold > c->threshold))
            return false;
    return true;
}

int thresholds_merge(const struct contract *c,
                     struct model_threshold rows[MODEL_MAX_THRESHOLDS], int n)
{
    int n_own = n;

    for (int k = 0; k < c->n_thresholds && n < MODEL_MAX_THRESHOLDS; k++)
        if (agrees(&c->thresholds[k], rows, n_own))
            rows[n++] = c->thresholds[k];
    return n;
}

int thresholds_of(struct thresholds *t, const struct model *m,
                  struct model_threshold out[MODEL_MAX_THRESHOLDS], bool *own)
{
    int i, n = 0;

    pthread_mutex_lock(&t->lock);
    i = find(t, m->id);
    if (i >= 0) {
        n = t->all[i].n;
        memcpy(out, t->all[i].rows, (size_t)n * sizeof(*out));
    }
    pthread_mutex_unlock(&t->lock);
    if (own)
        *own = i >= 0;
    return thresholds_merge(&m->contract, out, n);
}

/* --- changing ---------------------------------------------------------------
 */

static json_t *to_json(const struct applied *all, int n)
{
    json_t *models = json_object();

    for (int i = 0; models && i < n; i++) {
        json_t *list = json_array();
        int bad = list ? 0 : -1;
        for (int k = 0; k < all[i].n && !bad; k++) {
            const struct model_threshold *t = &all[i].rows[k];
            bad = json_array_append_new(
                list,
                json_pack("{s:f, s:f, s:I, s:I}", "far", t->far, "threshold",
                          t->threshold, "pairs", (json_int_t)t->n_impostor,
                          "accepted", (json_int_t)t->n_accepted));
        }
        if (bad || json_object_set(models, all[i].id, list)) {
            json_decref(models);
            models = NULL;
        }
        json_decref(list);
    }
    return models ? json_pack("{s:i, s:o}", "version", 1, "models", models)
                  : NULL;
}

static int save(const struct thresholds *t, const struct applied *all, int n,
                struct error *err)
{
    json_t *root = to_json(all, n);
    char part[4200];
    int fd, bad;

    if (!root)
        return error_set(err, ERR_NOMEM, "no memory for thresholds");
    snprintf(part, sizeof(part), "%s.new", t->path);
    fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bad = fd < 0 || json_dumpfd(root, fd, JSON_INDENT(1)) || fsync(fd);
    if (fd >= 0 && close(fd))
        bad = 1;
    if (!bad)
        bad = rename(part, t->path) || file_sync_dir(t->dir);
    if (bad) {
        error_set(err, errno == ENOSPC ? ERR_STORAGE_FULL : ERR_FILE,
                  "%.100s cannot be written: %s", t->path, strerror(errno));
        unlink(part);
    }
    json_decref(root);
    return bad ? -1 : 0;
}

/* With `saving` held: nobody else changes the table. */
static int apply(struct thresholds *t, const char *model_id,
                 const struct model_threshold *rows, int n, struct error *err)
{
    struct applied *all, *old;
    int i = find(t, model_id), n_all = t->n;

    if (i < 0 && n == 0)
        return 0;
    all = calloc((size_t)t->n + 1, sizeof(*all));
    if (!all)
        return error_set(err, ERR_NOMEM, "no memory for thresholds");
    if (t->n > 0)
        memcpy(all, t->all, (size_t)t->n * sizeof(*all));
    if (i < 0)
        i = n_all++;
    if (n_all > THRESHOLDS_MAX_MODELS) {
        free(all);
        return error_set(err, ERR_QUOTA, "thresholds of %d models are kept",
                         THRESHOLDS_MAX_MODELS);
    }
    if (n > 0) {
        snprintf(all[i].id, sizeof(all[i].id), "%s", model_id);
        memcpy(all[i].rows, rows, (size_t)n * sizeof(*rows));
        all[i].n = n;
    } else {
        all[i] = all[--n_all];
    }
    if (save(t, all, n_all, err)) {
        free(all);
        return -1;
    }
    pthread_mutex_lock(&t->lock);
    old = t->all;
    t->all = all;
    t->n = n_all;
    pthread_mutex_unlock(&t->lock);
    free(old);
    return 0;
}

int thresholds_apply(struct thresholds *t, const char *model_id,
                     const struct model_threshold *rows, int n,
                     struct error *err)
{
    int rc;

    pthread_mutex_lock(&t->saving);
    rc = apply(t, model_id, rows, n, err);
    pthread_mutex_unlock(&t->saving);
    return rc;
}
