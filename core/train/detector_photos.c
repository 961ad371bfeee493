/* core/train/detector_photos.c - lists photos and backgrounds, reads and
 * labels them. What is kept in memory is bounded; faces stay known when the
 * pixels are let go. */
#include "core/train/detector_photos.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "core/train/dataset.h"
#include "core/train/picture.h"

enum {
    KEPT_SIDE = 384,
    MOST_DEPTH = 8,
    MOST_PATH = 4096
};
static const size_t most_kept_bytes = (size_t)4 << 30;
static const float sure_score = 0.95f;
/* More is looked for than the cascade would tell: what it is unsure of is
 * nothing to learn refusing from. */
static const struct detect_options look = {
    .min_face = 24, .threshold = {0.5f, 0.6f, 0.5f}, .max_faces = 32};

struct entry {
    char *path;
    struct detector_photo photo;
    bool looked; /* faces are known, or the file is bad */
};

struct list {
    struct entry *at;
    int n, room;
};

struct detector_photos {
    struct list lists[2]; /* of people, backgrounds */
    struct detect_scratch *teacher;
    struct detector_photos_counts counts;
    size_t kept_bytes;
    struct entry *last; /* to be let go at the next call */
};

static int push(struct list *l, const char *path, struct error *err)
{
    if (l->n == l->room) {
        int room = l->room ? 2 * l->room : 256;
        void *at = realloc(l->at, (size_t)room * sizeof(*l->at));

        if (!at)
            return error_set(err, ERR_NOMEM, "no memory for a list of photos");
        l->at = at;
        l->room = room;
    }
    memset(&l->at[l->n], 0, sizeof(l->at[0]));
    l->at[l->n].path = strdup(path);
    if (!l->at[l->n].path)
        return error_set(err, ERR_NOMEM, "no memory for a list of photos");
    l->n++;
    return 0;
}

/* --- folders of backgrounds -------------------------------------------- */

static bool is_picture(const char *name)
{
    static const char *const ends[] = {".jpg", ".jpeg", ".png", ".webp"};
    const char *dot = strrchr(name, '.');

    for (int i = 0; dot && i < 4; i++)
        if (strcasecmp(dot, ends[i]) == 0)
            return true;
    return false;
}

static int list_folder(struct list *l, const char *dir, int depth,
                       struct error *err)
{
    struct dirent **names = NULL;
    int n = scandir(dir, &names, NULL, alphasort), rc = 0;

    if (n < 0)
        return error_set(err, ERR_BAD_FIELD, "%s: no folder of backgrounds",
                         dir);
    for (int i = 0; i < n; i++) {
        const char *name = names[i]->d_name;
        char path[MOST_PATH];
        struct stat st;

        if (rc == 0 && name[0] != '.' &&
            (size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) <
                sizeof(path) &&
            stat(path, &st) == 0) {
            if (S_ISDIR(st.st_mode) && depth < MOST_DEPTH)
                rc = list_folder(l, path, depth + 1, err);
            else if (S_ISREG(st.st_mode) && is_picture(name))
                rc = push(l, path, err);
        }
        free(names[i]);
    }
    free(names);
    return rc;
}

static int list_backgrounds(struct list *l, const char *dirs, struct error *err)
{
    char *copy = strdup(dirs), *rest = copy;
    int rc = copy ? 0 : error_set(err, ERR_NOMEM, "no memory for a list");

    for (char *dir; rc == 0 && (dir = strsep(&rest, ":"));)
        if (*dir)
            rc = list_folder(l, dir, 0, err);
    free(copy);
    return rc;
}

static int list_people(struct list *l, const char *dirs, struct error *err)
{
    struct dataset d;
    int rc = 0;

    if (dataset_list(dirs, &d, err))
        return -1;
    for (int i = 0; rc == 0 && i < d.n_photos; i++)
        rc = push(l, d.photos[i].path, err);
    dataset_fini(&d);
    if (rc == 0 && l->n == 0)
        rc = error_set(err, ERR_BAD_FIELD, "%s: no photos in folders there",
                       dirs);
    return rc;
}

struct detector_photos *detector_photos_new(const char *dirs,
                                            const char *backgrounds,
                                            struct detect_scratch *teacher,
                                            struct error *err)
{
    struct detector_photos *p = calloc(1, sizeof(*p));

    if (!p)
        return error_null(err, ERR_NOMEM, "no memory for photos");
    p->teacher = teacher;
    if (list_people(&p->lists[0], dirs, err) ||
        (backgrounds && *backgrounds &&
         list_backgrounds(&p->lists[1], backgrounds, err))) {
        detector_photos_free(p);
        return NULL;
    }
    p->counts.n_photos = p->lists[0].n;
    p->counts.n_backgrounds = p->lists[1].n;
    return p;
}

void detector_photos_free(struct detector_photos *p)
{
    if (!p)
        return;
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < p->lists[k].n; i++) {
            struct entry *e = &p->lists[k].at[i];

            free(e->path);
            free(e->photo.faces);
            image_free(e->photo.img);
        }
        free(p->lists[k].at);
    }
    free(p);
}

void detector_photos_count(const struct detector_photos *p,
                           struct detector_photos_counts *out)
{
    *out = p->counts;
}

int detector_photos_n(const struct detector_photos *p, bool grounds)
{
    return p->lists[grounds].n;
}

/* --- one photo ---------------------------------------------------------- */

static struct image *shrink(struct image *take_img, struct error *err)
{
    int w = take_img->w, h = take_img->h, longer = w > h ? w : h;
    struct image *out;

    if (longer <= KEPT_SIDE)
        return take_img;
    w = (int)((int64_t)w * KEPT_SIDE / longer);
    h = (int)((int64_t)h * KEPT_SIDE / longer);
    out = image_new(w > 0 ? w : 1, h > 0 ? h : 1, err);
    if (out)
        image_resize(take_img, 0, 0, take_img->w, take_img->h, out->rgb, out->w,
                     out->h, (size_t)out->w * 3);
    image_free(take_img);
    return out;
}

static int label(struct detector_photos *p, struct entry *e, bool ground,
                 struct error *err)
{
    struct detector_photo *photo = &e->photo;
    struct face *faces;
    int n, n_sure = 0;

    if (detect_faces(p->teacher, photo->img, &look, &faces, &n, err))
        return -1;
    photo->faces = calloc((size_t)n + 1, sizeof(*photo->faces));
    if (!photo->faces) {
        free(faces);
        return error_set(err, ERR_NOMEM, "no memory for a photo's faces");
    }
    for (int i = 0; i < n; i++) {
        photo->faces[i].face = faces[i];
        photo->faces[i].sure = !ground && faces[i].score >= sure_score;
        n_sure += photo->faces[i].sure;
    }
    photo->n_faces = n;
    photo->usable = ground || n_sure > 0;
    p->counts.n_faces += n_sure;
    p->counts.n_faceless += !photo->usable;
    free(faces);
    return 0;
}

static void let_go(struct detector_photos *p, struct entry *e)
{
    p->kept_bytes -= (size_t)e->photo.img->w * (size_t)e->photo.img->h * 3;
    image_free(e->photo.img);
    e->photo.img = NULL;
}

static int read_entry(struct detector_photos *p, struct entry *e, bool ground,
                      struct error *err)
{
    struct detector_photo *photo = &e->photo;
    bool first = !e->looked;

    photo->img = picture_load(e->path, NULL, NULL, err);
    if (photo->img)
        photo->img = shrink(photo->img, err);
    if (!photo->img && err->code == ERR_NOMEM)
        return -1;
    e->looked = true;
    p->counts.n_read += first;
    if (!photo->img) { /* also a file that was there before */
        photo->usable = false;
        p->counts.n_bad += first;
        return 0;
    }
    p->kept_bytes += (size_t)photo->img->w * (size_t)photo->img->h * 3;
    if (first && label(p, e, ground, err))
        return -1;
    if (!photo->usable)
        let_go(p, e);
    return 0;
}

const struct detector_photo *detector_photos_get(struct detector_photos *p,
                                                 bool ground, int i,
                                                 struct error *err)
{
    struct entry *e = &p->lists[ground].at[i];

    if (p->last && p->last != e && p->last->photo.img &&
        p->kept_bytes > most_kept_bytes)
        let_go(p, p->last);
    p->last = e;
    if ((!e->looked || (e->photo.usable && !e->photo.img)) &&
        read_entry(p, e, ground, err))
        return NULL;
    return &e->photo;
}
