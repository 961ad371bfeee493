/* core/train/pairs.c - lists of photo pairs, as pairs.h describes them.
 * Read by facenetctl evaluate and by training's own measurements. */
#include "core/train/pairs.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_FIELDS = 4,
    MOST_PAIRS = 1 << 22,
    MOST_FOLDS = 1000
};

struct reader {
    struct pairs *out;
    const char *path;
    FILE *file;
    char line[PAIRS_MAX_LINE + 2];
    long number; /* of the line */
    char *fields[MOST_FIELDS];
    int n_fields;
    int *slots; /* open-addressed table of photo indices, -1: free */
    size_t n_slots;
    int room_photos, room_pairs;
    size_t total;
};

static int fault(const struct reader *r, const char *what, struct error *err)
{
    return error_set(err, ERR_BAD_FIELD, "%s: line %ld: %s", r->path, r->number,
                     what);
}

static int nomem(const struct reader *r, struct error *err)
{
    return error_set(err, ERR_NOMEM, "%s: no memory for its pairs", r->path);
}

static int split(struct reader *r, struct error *err)
{
    const char *gaps = strchr(r->line, '\t') ? "\t" : " ";
    char *save = NULL;

    r->n_fields = 0;
    for (char *f = strtok_r(r->line, gaps, &save); f;
         f = strtok_r(NULL, gaps, &save)) {
        if (r->n_fields == MOST_FIELDS)
            return fault(r, "more than four fields", err);
        r->fields[r->n_fields++] = f;
    }
    return 0;
}

/* The next line that says something: 1, at the end 0, on failure -1. */
static int next_line(struct reader *r, struct error *err)
{
    for (;;) {
        size_t len;
        errno = 0;
        if (!fgets(r->line, (int)sizeof(r->line), r->file)) {
            if (ferror(r->file))
                return error_set(err, ERR_FILE, "%s: %s", r->path,
                                 strerror(errno));
            return 0;
        }
        r->number++;
        len = strlen(r->line);
        r->total += len;
        if (r->total > PAIRS_MAX_BYTES)
            return fault(r, "the file is over 256 MiB", err);
        if (len > PAIRS_MAX_LINE)
            return fault(r, "longer than 4096 bytes", err);
        if (len == 0 || (r->line[len - 1] != '\n' && !feof(r->file)))
            return fault(r, "holds a zero byte", err);
        while (len > 0 && strchr(" \t\r\n", r->line[len - 1]))
            r->line[--len] = '\0';
        if (len == 0 || r->line[0] == '#')
            continue;
        return split(r, err) ? -1 : 1;
    }
}

static bool number(const char *text, long most, int *out)
{
    char *end;
    long v;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    v = strtol(text, &end, 10);
    if (errno || *end || v > most)
        return false;
    *out = (int)v;
    return true;
}

static bool safe_path(const char *path)
{
    if (*path == '/' || *path == '\0')
        return false;
    for (const char *p = path; p; p = strchr(p, '/')) {
        p += *p == '/';
        if (!strncmp(p, "..", 2) && (p[2] == '/' || p[2] == '\0'))
            return false;
    }
    return true;
}

static uint64_t hash(const char *s)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 0x100000001b3u;
    return h;
}

static size_t slot_of(const struct reader *r, const char *path)
{
    size_t i = hash(path) & (r->n_slots - 1);

    while (r->slots[i] >= 0 && strcmp(r->out->photos[r->slots[i]], path))
        i = (i + 1) & (r->n_slots - 1);
    return i;
}

/* Twice the photos, and a table that they half fill. */
static int grow_photos(struct reader *r)
{
    int room = r->room_photos ? 2 * r->room_photos : 1024;
    char **photos = realloc(r->out->photos, (size_t)room * sizeof(*photos));
    int *slots;

    if (!photos)
        return -1;
    r->out->photos = photos;
    slots = malloc(2 * (size_t)room * sizeof(*slots));
    if (!slots)
        return -1;
    free(r->slots);
    r->slots = slots;
    r->n_slots = 2 * (size_t)room;
    r->room_photos = room;
    memset(slots, 0xff, r->n_slots * sizeof(*slots));
    for (int i = 0; i < r->out->n_photos; i++)
        slots[slot_of(r, photos[i])] = i;
    return 0;
}

static int add_photo(struct reader *r, const char *path, int *index,
                     struct error *err)
{
    size_t at;

    if (!safe_path(path))
        return fault(r, "a photo's path is absolute or leads outside", err);
    if (r->out->n_photos == r->room_photos && grow_photos(r))
        return nomem(r, err);
    at = slot_of(r, path);
    if (r->slots[at] < 0) {
        char *copy = strdup(path);
        if (!copy)
            return nomem(r, err);
        r->slots[at] = r->out->n_photos;
        r->out->photos[r->out->n_photos++] = copy;
    }
    *index = r->slots[at];
    return 0;
}

static int add_pair(struct reader *r, const char *a, const char *b, bool same,
                    int fold, struct error *err)
{
    struct pairs *out = r->out;
    struct pair *p;

    if (out->n_pairs == MOST_PAIRS)
        return fault(r, "more than 4194304 pairs", err);
    if (out->n_pairs == r->room_pairs) {
        int room = r->room_pairs ? 2 * r->room_pairs : 1024;
        p = realloc(out->pairs, (size_t)room * sizeof(*p));
        if (!p)
            return nomem(r, err);
        out->pairs = p;
        r->room_pairs = room;
    }
    p = &out->pairs[out->n_pairs];
    p->same = same;
    p->fold = fold;
    if (add_photo(r, a, &p->photo[0], err) ||
        add_photo(r, b, &p->photo[1], err))
        return -1;
    out->n_pairs++;
    return 0;
}

/* "name i j" or "name1 i name2 j". */
static int lfw_line(struct reader *r, bool same, int fold, struct error *err)
{
    char photo[2][PAIRS_MAX_LINE * 2 + 32];
    const char *name[2] = {r->fields[0], r->fields[same ? 0 : 2]};
    int index[2];

    if (r->n_fields != (same ? 3 : 4))
        return fault(r,
                     same ? "\"name i j\" was expected"
                          : "\"name1 i name2 j\" was expected",
                     err);
    if (!number(r->fields[1], 999999, &index[0]) ||
        !number(r->fields[same ? 2 : 3], 999999, &index[1]))
        return fault(r, "a photo's number is not one", err);
    for (int i = 0; i < 2; i++)
        snprintf(photo[i], sizeof(photo[i]), "%s/%s_%04d.jpg", name[i], name[i],
                 index[i]);
    return add_pair(r, photo[0], photo[1], same, fold, err);
}

static int read_lfw(struct reader *r, int n_folds, int n, struct error *err)
{
    int blocks = n_folds > 0 ? n_folds : 1;

    r->out->n_folds = n_folds > 0 ? n_folds : PAIRS_FOLDS;
    for (int block = 0; block < blocks; block++) {
        for (int64_t i = 0; i < 2 * (int64_t)n; i++) {
            int64_t part = i % n;
            int fold = n_folds > 0 ? block : (int)(part * PAIRS_FOLDS / n);
            int rc = next_line(r, err);
            if (rc < 0)
                return -1;
            if (rc == 0)
                return error_set(err, ERR_BAD_FIELD,
                                 "%s: ends after %d pairs, its first line "
                                 "promises %lld",
                                 r->path, r->out->n_pairs,
                                 2 * (long long)blocks * n);
            if (lfw_line(r, i < n, fold, err))
                return -1;
        }
    }
    switch (next_line(r, err)) {
    case 0:
        return 0;
    case 1:
        return fault(r, "more pairs than the first line promises", err);
    default:
        return -1;
    }
}

static int read_list(struct reader *r, struct error *err)
{
    int rc = 1;

    for (; rc == 1; rc = next_line(r, err)) {
        const char *verdict = r->n_fields == 3 ? r->fields[2] : "";
        if (strcmp(verdict, "0") && strcmp(verdict, "1"))
            return fault(r,
                         "\"path1 path2 0\" or \"path1 path2 1\" was "
                         "expected",
                         err);
        if (add_pair(r, r->fields[0], r->fields[1], verdict[0] == '1', 0, err))
            return -1;
    }
    if (rc < 0)
        return -1;
    r->out->n_folds =
        r->out->n_pairs < PAIRS_FOLDS ? r->out->n_pairs : PAIRS_FOLDS;
    for (int i = 0; i < r->out->n_pairs; i++)
        r->out->pairs[i].fold =
            (int)((int64_t)i * r->out->n_folds / r->out->n_pairs);
    return 0;
}

static int read_all(struct reader *r, struct error *err)
{
    int a = 0, b = 0;
    int rc = next_line(r, err);

    if (rc < 0)
        return -1;
    if (rc == 0)
        return error_set(err, ERR_BAD_FIELD, "%s: holds no pairs", r->path);
    if (r->n_fields == 2 && number(r->fields[0], MOST_FOLDS, &a) &&
        number(r->fields[1], MOST_PAIRS, &b) && a > 0 && b > 0)
        return read_lfw(r, a, b, err);
    if (r->n_fields == 1 && number(r->fields[0], MOST_PAIRS, &b) && b > 0)
        return read_lfw(r, 0, b, err);
    if (r->n_fields == 3)
        return read_list(r, err);
    return fault(r,
                 "neither \"FOLDS N\" (LFW's pairs.txt) nor \"path1 path2 "
                 "0|1\"",
                 err);
}

int pairs_load(const char *path, struct pairs *out, struct error *err)
{
    struct reader *r = calloc(1, sizeof(*r));
    int rc;

    memset(out, 0, sizeof(*out));
    if (!r)
        return error_set(err, ERR_NOMEM, "%s: no memory to read it", path);
    r->out = out;
    r->path = path;
    r->file = fopen(path, "re");
    if (!r->file) {
        rc = error_set(err, ERR_FILE, "%s: %s", path, strerror(errno));
    } else {
        rc = read_all(r, err);
        fclose(r->file);
    }
    free(r->slots);
    free(r);
    if (rc)
        pairs_fini(out);
    return rc;
}

void pairs_fini(struct pairs *p)
{
    for (int i = 0; i < p->n_photos; i++)
        free(p->photos[i]);
    free(p->photos);
    free(p->pairs);
    memset(p, 0, sizeof(*p));
}
