/* core/train/dataset.c - lists folders of photos, a folder per person, in an
 * order that does not depend on the file system, and parts people for
 * measuring from people for training. train, calibrate and align begin here;
 * the loader reads the files. */
#include "core/train/dataset.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "core/train/random.h"

enum {
    MOST_DIRS = 256,
    FIRST_ROOM = 256
};

struct found { /* a photo, before people are numbered */
    char *person;
    char *path;
    int dir;
};

struct finder {
    const char *dir; /* without a slash at its end */
    char *real;      /* the same, resolved */
    int i_dir;
    struct found *list;
    int n, room;
    struct dataset *out; /* counts */
    struct error *err;
};

static bool is_photo(const char *name)
{
    static const char *const ends[] = {".jpg",  ".jpeg", ".png",
                                       ".webp", ".pgm",  ".ppm"};
    const char *dot = strrchr(name, '.');

    for (size_t i = 0; dot && i < sizeof(ends) / sizeof(ends[0]); i++)
        if (!strcasecmp(dot, ends[i]))
            return true;
    return false;
}

static char *join(const char *dir, const char *name, struct error *err)
{
    char *path = NULL;

    if (asprintf(&path, "%s%s%s", dir, dir[strlen(dir) - 1] == '/' ? "" : "/",
                 name) < 0)
        return error_null(err, ERR_NOMEM, "no memory for the list of photos");
    return path;
}

/* A link may lead anywhere inside its folder. */
static int check_link(struct finder *f, const char *path)
{
    char *real = realpath(path, NULL);
    size_t n = strlen(f->real);
    bool inside;

    if (!real)
        return error_set(f->err, ERR_BAD_FIELD, "%s: a link that leads nowhere",
                         path);
    inside = !strncmp(real, f->real, n) &&
             (real[n] == '/' || real[n] == '\0' || f->real[n - 1] == '/');
    free(real);
    if (!inside)
        return error_set(f->err, ERR_BAD_FIELD,
                         "%s: a link that leads out of %s", path, f->dir);
    return 0;
}

/* What is at path, links followed and checked; 0: nothing that counts. */
static int kind_of(struct finder *f, const char *path, bool photo, mode_t *kind)
{
    struct stat st;

    *kind = 0;
    if (lstat(path, &st))
        return errno == ENOENT ? 0 /* gone since the folder was read */
                               : error_set(f->err, ERR_FILE, "%s: %s", path,
                                           strerror(errno));
    if (S_ISLNK(st.st_mode)) {
        if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode) && !photo)
            return 0;
        if (check_link(f, path))
            return -1;
    }
    *kind = st.st_mode & S_IFMT;
    return 0;
}

static int add_photo(struct finder *f, const char *person, char *take_path)
{
    struct found *one;

    if (f->n == DATASET_MAX_PHOTOS) {
        free(take_path);
        return error_set(f->err, ERR_BAD_FIELD, "%s: more than %d photos",
                         f->dir, DATASET_MAX_PHOTOS);
    }
    if (f->n == f->room) {
        int room = f->room ? 2 * f->room : FIRST_ROOM;
        struct found *list = realloc(f->list, (size_t)room * sizeof(*list));
        if (!list) {
            free(take_path);
            return error_set(f->err, ERR_NOMEM,
                             "no memory for the list of photos");
        }
        f->list = list;
        f->room = room;
    }
    one = &f->list[f->n];
    one->path = take_path;
    one->dir = f->i_dir;
    one->person = strdup(person);
    if (!one->person) {
        free(take_path);
        return error_set(f->err, ERR_NOMEM, "no memory for the list of photos");
    }
    f->n++;
    return 0;
}

static DIR *open_dir(const char *path, struct error *err)
{
    DIR *d = opendir(path);

    if (!d)
        error_set(
            err, errno == ENOENT || errno == ENOTDIR ? ERR_BAD_FIELD : ERR_FILE,
            "%s: %s", path,
            errno == ENOENT ? "there is no such folder" : strerror(errno));
    return d;
}

/* The next name that does not begin with a dot; NULL: none, or *rc is -1. */
static const char *next_name(DIR *d, const char *path, int *rc,
                             struct error *err)
{
    struct dirent *e;

    do {
        errno = 0;
        e = readdir(d);
    } while (e && e->d_name[0] == '.');
    if (!e && errno)
        *rc = error_set(err, ERR_FILE, "%s: %s", path, strerror(errno));
    return e ? e->d_name : NULL;
}

static int scan_person(struct finder *f, const char *path, const char *person)
{
    DIR *d = open_dir(path, f->err);
    int before = f->n, rc = d ? 0 : -1;
    const char *name;

    while (rc == 0 && (name = next_name(d, path, &rc, f->err))) {
        char *file;
        mode_t kind = 0;
        if (!is_photo(name))
            continue;
        file = join(path, name, f->err);
        rc = file ? kind_of(f, file, true, &kind) : -1;
        if (rc == 0 && kind == S_IFREG)
            rc = add_photo(f, person, file);
        else
            free(file);
    }
    if (rc == 0 && f->n == before)
        f->out->n_empty++;
    if (d)
        closedir(d);
    return rc;
}

static int scan_dir(struct finder *f)
{
    DIR *d = open_dir(f->dir, f->err);
    int rc = d ? 0 : -1;
    const char *name;

    while (rc == 0 && (name = next_name(d, f->dir, &rc, f->err))) {
        char *path = join(f->dir, name, f->err);
        mode_t kind = 0;
        rc = path ? kind_of(f, path, false, &kind) : -1;
        if (rc == 0 && kind == S_IFDIR)
            rc = scan_person(f, path, name);
        else if (rc == 0 && kind == S_IFREG && is_photo(name))
            f->out->n_loose++;
        free(path);
    }
    if (d)
        closedir(d);
    return rc;
}

/* --- from the list of files to people ------------------------------------- */

static int by_person(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    int order = strcmp(x->person, y->person);

    if (order == 0)
        order = x->dir - y->dir;
    return order ? order : strcmp(x->path, y->path);
}

static int count_people(struct finder *f)
{
    int n = 0;

    for (int i = 0; i < f->n; i++) {
        bool other = i == 0 || strcmp(f->list[i].person, f->list[i - 1].person);
        n += other;
        if (!other && f->list[i].dir != f->list[i - 1].dir)
            f->out->n_merged++;
    }
    return n;
}

/* Takes the strings of the list. */
static int number_people(struct finder *f)
{
    struct dataset *out = f->out;
    int n_people;

    if (f->n > 0)
        qsort(f->list, (size_t)f->n, sizeof(*f->list), by_person);
    n_people = count_people(f);
    if (n_people > DATASET_MAX_PEOPLE)
        return error_set(f->err, ERR_BAD_FIELD, "%s: more than %d people",
                         out->dir, DATASET_MAX_PEOPLE);
    out->people = calloc((size_t)n_people + 1, sizeof(*out->people));
    out->photos = calloc((size_t)f->n + 1, sizeof(*out->photos));
    if (!out->people || !out->photos)
        return error_set(f->err, ERR_NOMEM, "no memory for the list of photos");
    for (int i = 0; i < f->n; i++) {
        struct found *one = &f->list[i];
        struct dataset_person *last = out->people;
        if (out->n_people > 0)
            last += out->n_people - 1;
        if (out->n_people > 0 && !strcmp(one->person, last->name)) {
            free(one->person);
        } else {
            last = &out->people[out->n_people++];
            last->name = one->person;
            last->first = i;
        }
        last->n++;
        out->photos[i].person = out->n_people - 1;
        out->photos[i].path = one->path;
        out->n_photos++;
        one->person = one->path = NULL;
    }
    return 0;
}

static int n_with_two(const struct dataset *d)
{
    int n = 0;

    for (int i = 0; i < d->n_people; i++)
        n += d->people[i].n > 1;
    return n;
}

static int check_enough(const struct dataset *d, struct error *err)
{
    if (d->n_people == 0)
        return error_set(err, ERR_BAD_FIELD,
                         "%s: no person: a folder per person with photos in "
                         "it is wanted (%d empty folders, %d photos outside "
                         "of folders)",
                         d->dir, d->n_empty, d->n_loose);
    if (d->n_people == 1)
        return error_set(err, ERR_BAD_FIELD,
                         "%s: 1 person (%d photos); at least 2 are wanted",
                         d->dir, d->n_photos);
    if (n_with_two(d) == 0)
        return error_set(err, ERR_BAD_FIELD,
                         "%s: %d people with 1 photo each; somebody needs 2",
                         d->dir, d->n_people);
    return 0;
}

/* --- folders ----------------------------------------------------------------
 */

/* In place: "a:b/" to "a", "b". */
static int cut_dirs(char *text, char *dirs[MOST_DIRS], struct error *err)
{
    int n = 0;

    for (char *next = text; next; n++) {
        char *one = next, *colon = strchr(one, ':');
        size_t len;
        next = colon ? colon + 1 : NULL;
        if (colon)
            *colon = '\0';
        if (n == MOST_DIRS)
            return error_set(err, ERR_BAD_FIELD, "more than %d folders",
                             MOST_DIRS);
        len = strlen(one);
        if (len == 0)
            return error_set(err, ERR_BAD_FIELD,
                             "a folder's name is empty; folders are joined "
                             "by ':'");
        while (len > 1 && one[len - 1] == '/')
            one[--len] = '\0';
        dirs[n] = one;
    }
    return n;
}

static int scan_dirs(struct finder *f, char *const *dirs, int n_dirs)
{
    char *real[MOST_DIRS] = {NULL};
    int rc = 0;

    for (int i = 0; i < n_dirs && rc == 0; i++) {
        f->dir = dirs[i];
        f->i_dir = i;
        f->real = real[i] = realpath(dirs[i], NULL);
        if (!real[i]) {
            rc = error_set(f->err, ERR_BAD_FIELD, "%s: %s", dirs[i],
                           errno == ENOENT ? "there is no such folder"
                                           : strerror(errno));
            break;
        }
        for (int k = 0; k < i && rc == 0; k++)
            if (!strcmp(real[k], real[i]))
                rc = error_set(f->err, ERR_BAD_FIELD,
                               "%s: the folder is given twice", dirs[i]);
        if (rc == 0)
            rc = scan_dir(f);
    }
    for (int i = 0; i < n_dirs; i++)
        free(real[i]);
    return rc;
}

int dataset_list(const char *dirs, struct dataset *out, struct error *err)
{
    struct finder f = {.out = out, .err = err};
    char *text = strdup(dirs), *list[MOST_DIRS];
    int n_dirs, rc = -1;

    memset(out, 0, sizeof(*out));
    out->dir = strdup(dirs);
    if (!text || !out->dir) {
        error_set(err, ERR_NOMEM, "no memory for the list of photos");
    } else {
        n_dirs = cut_dirs(text, list, err);
        if (n_dirs > 0 && scan_dirs(&f, list, n_dirs) == 0 &&
            number_people(&f) == 0)
            rc = 0;
    }
    for (int i = 0; i < f.n; i++) {
        free(f.list[i].person);
        free(f.list[i].path);
    }
    free(f.list);
    free(text);
    if (rc)
        dataset_fini(out);
    return rc;
}

int dataset_open(const char *dirs, struct dataset *out, struct error *err)
{
    if (dataset_list(dirs, out, err))
        return -1;
    if (check_enough(out, err) == 0)
        return 0;
    dataset_fini(out);
    return -1;
}

void dataset_fini(struct dataset *d)
{
    for (int i = 0; i < d->n_people; i++)
        free(d->people[i].name);
    for (int i = 0; i < d->n_photos; i++)
        free(d->photos[i].path);
    free(d->people);
    free(d->photos);
    free(d->dir);
    memset(d, 0, sizeof(*d));
}

/* --- two parts ---------------------------------------------------------------
 */

/* The people of d whose `held` is `which`, to *to, whose strings are d's. */
static int part_of(const struct dataset *d, const bool *held, bool which,
                   struct dataset *to, struct error *err)
{
    *to = (struct dataset){.raw = d->raw};
    to->people = calloc((size_t)d->n_people + 1, sizeof(*to->people));
    to->photos = calloc((size_t)d->n_photos + 1, sizeof(*to->photos));
    if (!to->people || !to->photos)
        return error_set(err, ERR_NOMEM, "no memory to part the people");
    for (int i = 0; i < d->n_people; i++) {
        const struct dataset_person *from = &d->people[i];
        if (held[i] != which)
            continue;
        to->people[to->n_people] = *from;
        to->people[to->n_people].first = to->n_photos;
        for (int k = 0; k < from->n; k++) {
            to->photos[to->n_photos] = d->photos[from->first + k];
            to->photos[to->n_photos++].person = to->n_people;
        }
        to->n_people++;
    }
    return 0;
}

static int draw_held(const struct dataset *d, int n_held, uint64_t seed,
                     bool *held, struct error *err)
{
    int *order = malloc((size_t)d->n_people * sizeof(*order));

    if (!order)
        return error_set(err, ERR_NOMEM, "no memory to part the people");
    for (int i = 0; i < d->n_people; i++)
        order[i] = i;
    random_shuffle(&seed, order, d->n_people);
    for (int i = 0; i < n_held; i++)
        held[order[i]] = true;
    free(order);
    return 0;
}

static bool enough(const struct dataset *d)
{
    return d->n_people >= 2 && n_with_two(d) > 0;
}

int dataset_split(struct dataset *d, double part, uint64_t seed,
                  struct dataset *held, struct error *err)
{
    struct dataset rest = {0};
    bool *is_held;
    char *dir;
    int n, rc = -1;

    memset(held, 0, sizeof(*held));
    if (!(part >= 0 && part < 1))
        return error_set(err, ERR_BAD_FIELD,
                         "a part of %g of the people is not from 0 up to 1",
                         part);
    if (part == 0)
        return 0;
    n = (int)lround(part * d->n_people);
    n = n < 2 ? 2 : n;
    n = n < d->n_people ? n : d->n_people;
    is_held = calloc((size_t)d->n_people + 1, sizeof(*is_held));
    dir = strdup(d->dir);
    if (!is_held || !dir)
        error_set(err, ERR_NOMEM, "no memory to part the people");
    else if (draw_held(d, n, seed, is_held, err) == 0 &&
             part_of(d, is_held, true, held, err) == 0 &&
             part_of(d, is_held, false, &rest, err) == 0)
        rc = 0;
    if (rc == 0 && !(enough(held) && enough(&rest)))
        rc = error_set(err, ERR_BAD_FIELD,
                       "%s: %d people are too few to keep %g of them for "
                       "measuring",
                       d->dir, d->n_people, part);
    free(is_held);
    if (rc) {
        free(dir);
        free(held->people);
        free(held->photos);
        free(rest.people);
        free(rest.photos);
        memset(held, 0, sizeof(*held));
        return -1;
    }
    held->dir = dir;
    free(d->people);
    free(d->photos);
    d->people = rest.people;
    d->photos = rest.photos;
    d->n_people = rest.n_people;
    d->n_photos = rest.n_photos;
    return 0;
}
