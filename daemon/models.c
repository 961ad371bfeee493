/* daemon/models.c - the files of embedders: listing the configured directory
 * and our own, keeping uploads whole or not at all. What a file holds is read
 * once and remembered until the file changes. */
#include "daemon/models.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/file.h"
#include "core/engine/graph.h"

#define IMPORTING ".import-" /* start of the name of a file in the making */

enum {
    SHORT_ID = 12, /* digits of an id that serve as a name */
    COPY_BYTES = 1 << 20,
    MOST_GMACS = 64, /* of one face; its check is seconds of a thread */
    KNOWN_MAX = 2 * (MODELS_OWN_MAX + MODELS_FILES_MAX) /* files come and go */
};

/* What a file held when it was last read. */
struct known {
    struct known *next;
    dev_t device;
    ino_t inode;
    struct timespec changed;
    off_t bytes;
    bool usable; /* an embedder */
    struct model_entry entry;
};

struct models {
    char *dir, *own;
    struct device *device;
    pthread_mutex_t lock; /* of known */
    struct known *known;
};

static char *join(const char *dir, const char *file)
{
    char *path;

    return asprintf(&path, "%s/%s", dir, file) < 0 ? NULL : path;
}

/* --- what a file holds -------------------------------------------------- */

static bool same_file(const struct known *k, const struct stat *st)
{
    return k->device == st->st_dev && k->inode == st->st_ino &&
           k->bytes == st->st_size && k->changed.tv_sec == st->st_mtim.tv_sec &&
           k->changed.tv_nsec == st->st_mtim.tv_nsec;
}

/* 1: remembered as an embedder, 0: as none, -1: not known. */
static int recall(struct models *m, const struct stat *st,
                  struct model_entry *out)
{
    int found = -1;

    pthread_mutex_lock(&m->lock);
    for (const struct known *k = m->known; k && found < 0; k = k->next) {
        if (!same_file(k, st))
            continue;
        found = k->usable;
        *out = k->entry;
    }
    pthread_mutex_unlock(&m->lock);
    return found;
}

/* With the lock held: of more than KNOWN_MAX the oldest go. */
static void forget_oldest(struct models *m)
{
    struct known **at = &m->known, *k;

    for (int i = 0; *at && i < KNOWN_MAX; i++)
        at = &(*at)->next;
    while ((k = *at)) {
        *at = k->next;
        free(k);
    }
}

/* Replaces what was known of the file before it changed. */
static void remember(struct models *m, const struct stat *st, bool usable,
                     const struct model_entry *entry)
{
    struct known *k, *fresh = calloc(1, sizeof(*fresh));

    if (!fresh)
        return; /* it is read again the next time */
    pthread_mutex_lock(&m->lock);
    for (k = m->known; k; k = k->next)
        if (k->device == st->st_dev && k->inode == st->st_ino)
            break;
    if (!k) {
        k = fresh;
        fresh = NULL;
        k->next = m->known;
        m->known = k;
    }
    k->device = st->st_dev;
    k->inode = st->st_ino;
    k->changed = st->st_mtim;
    k->bytes = st->st_size;
    k->usable = usable;
    k->entry = *entry;
    forget_oldest(m);
    pthread_mutex_unlock(&m->lock);
    free(fresh);
}

/* 1: out is filled, 0: no embedder, -1: no memory. */
static int look(struct models *m, const char *path, bool own,
                struct model_entry *out, struct error *err)
{
    struct model *model;
    struct stat st;
    int known;

    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode))
        return 0;
    known = recall(m, &st, out);
    if (known >= 0)
        return known;
    memset(out, 0, sizeof(*out));
    model = model_load(path, NULL, NULL, err);
    if (!model && err->code == ERR_NOMEM)
        return -1;
    if (model && model->contract.kind == MODEL_EMBEDDER) {
        memcpy(out->id, model->id, sizeof(out->id));
        snprintf(out->name, sizeof(out->name), "%.*s",
                 own ? SHORT_ID : (int)sizeof(out->name) - 1,
                 own ? model->id : model->name);
        out->own = own;
        out->bytes = (int64_t)st.st_size;
        out->added_s = (int64_t)st.st_mtim.tv_sec;
        out->contract = model->contract;
        out->contract.golden = NULL;
        out->contract.n_golden = 0;
    }
    model_free(model);
    remember(m, &st, out->id[0] != '\0', out);
    return out->id[0] != '\0';
}

/* --- listing ------------------------------------------------------------ */

static int is_model(const struct dirent *e)
{
    size_t len = strlen(e->d_name);

    return e->d_name[0] != '.' && len > 5 &&
           strcmp(e->d_name + len - 5, ".onnx") == 0;
}

struct listing {
    struct model_entry *rows;
    int n, cap;
};

static int append(struct listing *l, const struct model_entry *e,
                  struct error *err)
{
    for (int i = 0; i < l->n; i++)
        if (strcmp(l->rows[i].id, e->id) == 0)
            return 0; /* the same file in both directories */
    if (l->n == l->cap) {
        int cap = l->cap ? 2 * l->cap : 8;
        struct model_entry *rows =
            realloc(l->rows, (size_t)cap * sizeof(*rows));
        if (!rows)
            return error_set(err, ERR_NOMEM, "no memory for the models");
        l->rows = rows;
        l->cap = cap;
    }
    l->rows[l->n++] = *e;
    return 0;
}

/* A kept file carries its id as its name; one that does not is not ours. */
static bool name_is_id(const char *file, const char *id)
{
    return strncmp(file, id, 64) == 0 && strcmp(file + 64, ".onnx") == 0;
}

static int list_dir(struct models *m, const char *dir, bool own,
                    struct listing *l, struct error *err)
{
    struct dirent **files = NULL;
    int n = scandir(dir, &files, is_model, alphasort), rc = 0;

    if (n < 0 && own && errno == ENOENT)
        return 0; /* nothing was kept yet */
    if (n < 0)
        return error_set(err, ERR_FILE,
                         "the model directory cannot be read: %s",
                         strerror(errno));
    for (int i = 0; i < n; i++) {
        char *path = rc == 0 && i < MODELS_FILES_MAX
                         ? join(dir, files[i]->d_name)
                         : NULL;
        struct model_entry e;
        if (path) {
            int found = look(m, path, own, &e, err);
            if (found < 0)
                rc = -1;
            else if (found && (!own || name_is_id(files[i]->d_name, e.id)))
                rc = append(l, &e, err);
        }
        free(path);
        free(files[i]);
    }
    free(files);
    return rc;
}

int models_list(struct models *m, struct model_entry **out, int *n,
                struct error *err)
{
    struct listing l = {0};
    struct error local;

    if (!err)
        err = &local;
    if (list_dir(m, m->own, true, &l, err) != 0 ||
        list_dir(m, m->dir, false, &l, err) != 0) {
        free(l.rows);
        return -1;
    }
    *out = l.rows;
    *n = l.n;
    return 0;
}

int models_find(struct models *m, const char *id, struct model_entry *out,
                struct error *err)
{
    struct model_entry *rows;
    int n, rc = -1;

    if (models_list(m, &rows, &n, err) != 0)
        return -1;
    for (int i = 0; i < n && rc != 0; i++) {
        if (strcmp(rows[i].id, id) != 0)
            continue;
        *out = rows[i];
        rc = 0;
    }
    free(rows);
    return rc == 0 ? 0
                   : error_set(err, ERR_NO_MODEL,
                               "there is no embedding model %.64s", id);
}

/* --- loading ------------------------------------------------------------ */

static char *path_of(struct models *m, const struct model_entry *e)
{
    char *path;
    int n = asprintf(&path, "%s/%s.onnx", e->own ? m->own : m->dir,
                     e->own ? e->id : e->name);

    return n < 0 ? NULL : path;
}

struct model *models_load(struct models *m, const char *id, struct device *dev,
                          bool *bf16_ok, struct error *err)
{
    struct model_entry e;
    struct model *model;
    char *path;

    if (models_find(m, id, &e, err) != 0)
        return NULL;
    path = path_of(m, &e);
    if (!path)
        return error_null(err, ERR_NOMEM, "no memory for a model");
    model = model_load(path, dev, bf16_ok, err);
    free(path);
    if (!model)
        return NULL;
    if (strcmp(model->id, id) != 0) {
        model_free(model);
        return error_null(err, ERR_MODEL, "the file of model %.12s changed",
                          id);
    }
    memcpy(model->name, e.name, sizeof(e.name));
    return model;
}

int models_id_of(struct models *m, const char *name, char id[65],
                 struct error *err)
{
    struct model_entry e;
    char path[4096];
    int found;

    if (strchr(name, '/') || snprintf(path, sizeof(path), "%s/%s.onnx", m->dir,
                                      name) >= (int)sizeof(path))
        return error_set(err, ERR_CONFIG,
                         "model '%.80s' is a file's name without .onnx, in "
                         "the directory of the setting models",
                         name);
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return error_set(err, ERR_CONFIG,
                         "there is no model %.120s: 'make models' makes it, "
                         "or point --models at its directory",
                         path);
    found = look(m, path, false, &e, err);
    if (found < 0)
        return -1;
    if (found == 0) { /* read again, as why may be long forgotten */
        struct model *model = model_load(path, NULL, NULL, err);
        if (model)
            error_set(err, ERR_CONFIG,
                      "model %.120s is of another kind than its use here",
                      path);
        model_free(model);
        return -1;
    }
    memcpy(id, e.id, sizeof(e.id));
    return 0;
}

/* --- keeping ------------------------------------------------------------ */

static int write_failed(struct error *err)
{
    return error_set(
        err, errno == ENOSPC || errno == EDQUOT ? ERR_STORAGE_FULL : ERR_FILE,
        "the model cannot be kept: %s", strerror(errno));
}

static int copy_file(int to, const char *path, struct error *err)
{
    uint8_t *buf = malloc(COPY_BYTES);
    int from = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), rc = 0;
    ssize_t n = 0;
    struct stat st;

    if (!buf)
        rc = error_set(err, ERR_NOMEM, "no memory to copy a model");
    else if (from < 0 || fstat(from, &st) != 0 || !S_ISREG(st.st_mode))
        rc = error_set(err, ERR_FILE, "model %.120s cannot be read: %s", path,
                       from < 0 ? strerror(errno) : "no file");
    while (rc == 0 && (n = read(from, buf, COPY_BYTES)) != 0) {
        if (n < 0 && errno != EINTR)
            rc = error_set(err, ERR_FILE, "model %.120s cannot be read: %s",
                           path, strerror(errno));
        else if (n > 0 && file_write_all(to, buf, (size_t)n) != 0)
            rc = write_failed(err);
    }
    if (from >= 0)
        close(from);
    free(buf);
    return rc;
}

/* What is wrong with a file that is not kept: of the model, not of the daemon,
 * and without the path of a file that nobody knows. */
static int not_usable(const char *path, struct error *err)
{
    size_t len = strlen(path);
    struct error why = *err;
    const char *text = why.text;

    if (why.code != ERR_MODEL && why.code != ERR_NO_CONTRACT)
        return -1;
    if (why.code == ERR_NO_CONTRACT)
        text = "it has no facenetd contract; write one with: facenetctl model "
               "import FILE --crop … --scale … -o …";
    else if (strncmp(text, path, len) == 0 && text[len] == ':')
        text += len + 1 + strspn(text + len + 1, " ");
    return error_set(err, ERR_BAD_MODEL, "the model cannot be used: %s", text);
}

/* An embedder so large that to run it once would keep a thread for longer than
 * the watchdog waits is not run. */
static int check_size(const char *path, struct error *err)
{
    struct model *model = model_load(path, NULL, NULL, err);
    struct graph_counts counts;
    int rc = 0;

    if (!model)
        return not_usable(path, err);
    if (model->contract.kind != MODEL_EMBEDDER)
        rc = error_set(err, ERR_BAD_MODEL,
                       "the model cannot be used: it is a detector's network");
    else if (graph_count(model->graph, model->contract.height,
                         model->contract.width, &counts, err) != 0)
        rc = not_usable(path, err);
    else if (counts.macs > MOST_GMACS * INT64_C(1000000000))
        rc = error_set(err, ERR_BAD_MODEL,
                       "the model cannot be used: %lld million "
                       "multiplications a face, at most %d000 are run",
                       (long long)(counts.macs / 1000000), MOST_GMACS);
    model_free(model);
    return rc;
}

/* id of the file at path, if it is an embedder that works here. */
static int check(struct models *m, const char *path, char id[65],
                 struct error *err)
{
    struct model *model;

    if (check_size(path, err) != 0)
        return -1;
    model = model_load(path, m->device, NULL, err);
    if (!model)
        return not_usable(path, err);
    memcpy(id, model->id, sizeof(model->id));
    model_free(model);
    return 0;
}

static int count_own(struct models *m)
{
    struct dirent **files = NULL;
    int n = scandir(m->own, &files, is_model, NULL);

    for (int i = 0; i < n; i++)
        free(files[i]);
    free(files);
    return n;
}

/* Give a whole, checked file its name. */
static int publish(struct models *m, const char *from, const char *id,
                   bool *added, struct error *err)
{
    char *to, file[72];
    int rc = 0;

    snprintf(file, sizeof(file), "%s.onnx", id);
    to = join(m->own, file);
    if (!to)
        return error_set(err, ERR_NOMEM, "no memory to keep a model");
    *added = access(to, F_OK) != 0;
    if (*added && count_own(m) >= MODELS_OWN_MAX)
        rc = error_set(err, ERR_QUOTA,
                       "%d models are kept already: remove one first",
                       MODELS_OWN_MAX);
    else if (rename(from, to) != 0 || file_sync_dir(m->own) != 0)
        rc = write_failed(err);
    free(to);
    return rc;
}

/* Bytes, or where they are NULL a file. */
static int keep(struct models *m, const char *path, const void *bytes,
                size_t len, char id[65], bool *added, struct error *err)
{
    char *temporary = join(m->own, IMPORTING "XXXXXX");
    bool local;
    int fd = -1, rc;

    if (!temporary)
        return error_set(err, ERR_NOMEM, "no memory to keep a model");
    if (mkdir(m->own, 0700) == 0 || errno == EEXIST)
        fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) {
        rc = write_failed(err);
        free(temporary);
        return rc;
    }
    if (!bytes)
        rc = copy_file(fd, path, err);
    else
        rc = file_write_all(fd, bytes, len) == 0 ? 0 : write_failed(err);
    if (rc == 0 && fsync(fd) != 0)
        rc = write_failed(err);
    close(fd);
    if (rc == 0)
        rc = check(m, temporary, id, err);
    if (rc == 0)
        rc = publish(m, temporary, id, added ? added : &local, err);
    if (rc != 0)
        unlink(temporary);
    free(temporary);
    return rc;
}

int models_import(struct models *m, const char *path, char id[65],
                  struct error *err)
{
    struct error local;

    return keep(m, path, NULL, 0, id, NULL, err ? err : &local);
}

int models_put(struct models *m, const void *bytes, size_t len_bytes,
               char id[65], bool *added, struct error *err)
{
    struct error local;

    return keep(m, NULL, bytes, len_bytes, id, added, err ? err : &local);
}

int models_remove(struct models *m, const char *id, struct error *err)
{
    struct model_entry e;
    char *path;
    int rc = 0;

    if (models_find(m, id, &e, err) != 0)
        return -1;
    if (!e.own)
        return error_set(err, ERR_CONFLICT,
                         "model %.12s is a file of the models directory: only "
                         "uploaded and fine-tuned ones can be removed",
                         id);
    path = path_of(m, &e);
    if (!path)
        return error_set(err, ERR_NOMEM, "no memory to remove a model");
    if (unlink(path) != 0 || file_sync_dir(m->own) != 0)
        rc = error_set(err, ERR_FILE, "the model cannot be removed: %s",
                       strerror(errno));
    free(path);
    return rc;
}

/* --- the object --------------------------------------------------------- */

void models_sweep(struct models *m)
{
    DIR *d = opendir(m->own);
    struct dirent *e;

    while (d && (e = readdir(d)))
        if (strncmp(e->d_name, IMPORTING, strlen(IMPORTING)) == 0)
            unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
}

struct models *models_open(const char *dir, const char *data_dir,
                           struct device *dev, struct error *err)
{
    struct models *m = calloc(1, sizeof(*m));

    if (m) {
        pthread_mutex_init(&m->lock, NULL);
        m->device = dev;
        m->dir = strdup(dir);
        m->own = join(data_dir, "models");
    }
    if (!m || !m->dir || !m->own) {
        models_close(m);
        return error_null(err, ERR_NOMEM, "no memory for the models");
    }
    return m;
}

void models_close(struct models *m)
{
    if (!m)
        return;
    for (struct known *k = m->known, *next; k; k = next) {
        next = k->next;
        free(k);
    }
    pthread_mutex_destroy(&m->lock);
    free(m->dir);
    free(m->own);
    free(m);
}
