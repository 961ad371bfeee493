/* gpu/tune.c - see the header. The file: a line that names the card and the
 * form of the lines, a line for each convolution, a line with the sum of all
 * before it. */
#include "gpu/tune.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/file.h"

enum {
    MAX_FILE = 1 << 22,
    MAX_KEY = 160
};

struct entry {
    char key[MAX_KEY];
    int at;
    int64_t engine;
    struct entry *next;
};

struct tune {
    pthread_mutex_t lock;
    char *dir, *identity, *path;
    struct entry *first;
    bool changed;
};

static uint64_t sum_of(const char *text, size_t len)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */

    for (size_t i = 0; i < len; i++)
        h = (h ^ (uint8_t)text[i]) * 0x100000001b3u;
    return h;
}

static void key_of(const struct dnn_shape *s, char *buf)
{
    snprintf(buf, MAX_KEY,
             "pass%d:%d:%dx%dx%d:%d:k%dx%d:s%dx%d:d%dx%d:p%d,%d,%d,%d:"
             "%d,%d,%d:r%d:t%d:%d",
             (int)s->pass, s->n, s->c, s->h, s->w, s->k, s->kernel[0],
             s->kernel[1], s->stride[0], s->stride[1], s->dilation[0],
             s->dilation[1], s->pad[0], s->pad[1], s->pad[2], s->pad[3],
             s->x_pitch, s->y_pitch, s->z_pitch, s->relu, (int)s->type,
             s->tf32);
}

static void add(struct tune *t, const char *key, int at, int64_t engine)
{
    struct entry *e = calloc(1, sizeof(*e));

    if (!e) /* it is timed again */
        return;
    snprintf(e->key, sizeof(e->key), "%s", key);
    e->at = at;
    e->engine = engine;
    e->next = t->first;
    t->first = e;
}

/* text: the whole file. */
static void parse(struct tune *t, const char *text, size_t len)
{
    size_t n = strlen(t->identity), body;
    const char *last;
    uint64_t sum = 0;

    if (len < n + 2 || memcmp(text, t->identity, n) || text[n] != '\n' ||
        text[len - 1] != '\n')
        return;
    for (body = len - 1; body > 0 && text[body - 1] != '\n'; body--)
        ;
    last = text + body;
    if (sscanf(last, "sum %" SCNx64, &sum) != 1 || sum != sum_of(text, body))
        return;
    for (const char *line = text + n + 1; line < last;
         line = strchr(line, '\n') + 1) {
        char key[MAX_KEY];
        int64_t engine;
        int at;

        if (sscanf(line, "%159s %d %" SCNd64, key, &at, &engine) == 3)
            add(t, key, at, engine);
    }
}

static void load(struct tune *t)
{
    int fd = open(t->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    char *text = NULL;
    struct stat st;
    ssize_t n;

    if (fd < 0)
        return;
    if (!fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size > 0 &&
        st.st_size < MAX_FILE)
        text = malloc((size_t)st.st_size + 1);
    if (text) {
        n = read(fd, text, (size_t)st.st_size);
        if (n == st.st_size) {
            text[n] = 0;
            parse(t, text, (size_t)n);
        }
    }
    free(text);
    close(fd);
}

struct tune *tune_new(const char *dir, const char *identity, struct error *err)
{
    struct tune *t = calloc(1, sizeof(*t));
    bool ok;

    if (!t)
        return error_null(err, ERR_NOMEM, "no memory for tuning");
    pthread_mutex_init(&t->lock, NULL);
    /* Another form of the lines is another number here. */
    if (asprintf(&t->identity, "plans 2 of %s", identity) < 0)
        t->identity = NULL;
    t->dir = dir ? strdup(dir) : NULL;
    ok = t->identity && (!dir || t->dir);
    if (ok && dir)
        ok = asprintf(&t->path, "%s/cuda-%016" PRIx64 ".plans", dir,
                      sum_of(identity, strlen(identity))) > 0;
    if (!ok) {
        error_set(err, ERR_NOMEM, "no memory for tuning");
        tune_free(t);
        return NULL;
    }
    if (t->path)
        load(t);
    return t;
}

void tune_free(struct tune *t)
{
    if (!t)
        return;
    for (struct entry *e = t->first, *next; e; e = next) {
        next = e->next;
        free(e);
    }
    free(t->dir);
    free(t->identity);
    free(t->path);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static bool find(struct tune *t, const char *key, int *at, int64_t *engine)
{
    bool found = false;

    pthread_mutex_lock(&t->lock);
    for (const struct entry *e = t->first; e && !found; e = e->next)
        if (!strcmp(e->key, key)) {
            *at = e->at;
            *engine = e->engine;
            found = true;
        }
    pthread_mutex_unlock(&t->lock);
    return found;
}

static void add_new(struct tune *t, const char *key, int at, int64_t engine)
{
    pthread_mutex_lock(&t->lock);
    add(t, key, at, engine);
    t->changed = true;
    pthread_mutex_unlock(&t->lock);
}

bool tune_find(struct tune *t, const struct dnn_shape *s, int *at,
               int64_t *engine)
{
    char key[MAX_KEY];

    key_of(s, key);
    return find(t, key, at, engine);
}

void tune_add(struct tune *t, const struct dnn_shape *s, int at, int64_t engine)
{
    char key[MAX_KEY];

    key_of(s, key);
    add_new(t, key, at, engine);
}

bool tune_find_number(struct tune *t, uint64_t number, int *at)
{
    char key[MAX_KEY];
    int64_t none;

    snprintf(key, sizeof(key), "plan:%016" PRIx64, number);
    return find(t, key, at, &none);
}

void tune_add_number(struct tune *t, uint64_t number, int at)
{
    char key[MAX_KEY];

    snprintf(key, sizeof(key), "plan:%016" PRIx64, number);
    add_new(t, key, at, 0);
}

/* The text of the file, malloc'd. */
static char *text_of(const struct tune *t, size_t *len)
{
    char *text = NULL;
    FILE *f = open_memstream(&text, len);
    uint64_t sum;

    if (!f)
        return NULL;
    fprintf(f, "%s\n", t->identity);
    for (const struct entry *e = t->first; e; e = e->next)
        fprintf(f, "%s %d %" PRId64 "\n", e->key, e->at, e->engine);
    if (fflush(f)) {
        fclose(f);
        free(text);
        return NULL;
    }
    sum = sum_of(text, *len);
    fprintf(f, "sum %016" PRIx64 "\n", sum);
    if (!fclose(f))
        return text;
    free(text);
    return NULL;
}

void tune_save(struct tune *t)
{
    char *temporary = NULL, *text = NULL;
    size_t len = 0;
    int fd = -1;

    pthread_mutex_lock(&t->lock);
    if (t->changed && t->path && asprintf(&temporary, "%s.XXXXXX", t->path) < 0)
        temporary = NULL;
    if (temporary && (text = text_of(t, &len)) && len < MAX_FILE &&
        (fd = mkostemp(temporary, O_CLOEXEC)) >= 0) {
        bool ok = !file_write_all(fd, text, len) && !fsync(fd);

        if (!ok || rename(temporary, t->path))
            unlink(temporary);
        else
            t->changed = file_sync_dir(t->dir) != 0;
        close(fd);
    }
    pthread_mutex_unlock(&t->lock);
    free(text);
    free(temporary);
}
