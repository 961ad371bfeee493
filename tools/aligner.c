/* tools/aligner.c - threads that read, detect, crop and write, a photo each at
 * a time; the calling thread tells how far they are. */
#include "tools/aligner.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/base/file.h"
#include "core/face/face.h"
#include "core/train/dataset.h"
#include "core/train/picture.h"

enum {
    MOST_THREADS = 64,
    MOST_PATH = 8192,
    MOST_FACES = 100,
    TELL_EVERY_MS = 200
};

enum state {
    STATE_WAITING,
    STATE_ALIGNED,
    STATE_THERE,
    STATE_FAILED
};

struct result { /* of a photo */
    char *stem; /* of its files in OUT: PERSON/a */
    enum state state;
    int n_faces;
    struct error why;
};

struct aligner {
    const struct aligner_options *opt;
    struct dataset photos;
    struct result *results;
    struct device *device;
    struct model *parts[3];
    struct detector *detector;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int next, n_done, n_running;
    bool stop;
    struct error failure; /* not a photo's */
};

/* --- names -------------------------------------------------------------------
 */

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void keep_name(void *name)
{
    (void)name; /* the results' */
}

/* PERSON/a of .../PERSON/a.jpg, with ~2 and so on where that is taken. */
static char *free_stem(const struct dataset *d, int photo, void **taken,
                       struct error *err)
{
    const char *person = d->people[d->photos[photo].person].name;
    const char *file = strrchr(d->photos[photo].path, '/') + 1;
    const char *dot = strrchr(file, '.');
    int len = dot && dot > file ? (int)(dot - file) : (int)strlen(file);

    for (int k = 1;; k++) {
        char *stem, mark[16] = "";
        void *found;
        if (k > 1)
            snprintf(mark, sizeof(mark), "~%d", k);
        if (asprintf(&stem, "%s/%.*s%s", person, len, file, mark) < 0)
            return error_null(err, ERR_NOMEM, "no memory for names");
        found = tsearch(stem, taken, by_name);
        if (found && *(char **)found == stem)
            return stem;
        free(stem);
        if (!found)
            return error_null(err, ERR_NOMEM, "no memory for names");
    }
}

static int name_results(struct aligner *a, struct error *err)
{
    const struct dataset *d = &a->photos;
    void *taken = NULL;
    int rc = 0;

    a->results = calloc((size_t)d->n_photos + 1, sizeof(*a->results));
    if (!a->results)
        return error_set(err, ERR_NOMEM, "no memory for %d photos",
                         d->n_photos);
    for (int i = 0; i < d->n_photos && rc == 0; i++) {
        a->results[i].stem = free_stem(d, i, &taken, err);
        rc = a->results[i].stem ? 0 : -1;
    }
    tdestroy(taken, keep_name);
    return rc;
}

/* face -1: the only one. */
static int out_path(const struct aligner *a, const char *stem, int face,
                    bool jpeg, char path[MOST_PATH], struct error *err)
{
    const char *end = jpeg ? "jpg" : "png";
    int n = face < 0
                ? snprintf(path, MOST_PATH, "%s/%s.%s", a->opt->out, stem, end)
                : snprintf(path, MOST_PATH, "%s/%s_%d.%s", a->opt->out, stem,
                           face, end);

    return n < MOST_PATH
               ? 0
               : error_set(err, ERR_FILE, "%s: the path is too long", stem);
}

/* --- one photo
 * ----------------------------------------------------------------
 */

static int file_error(struct error *err, const char *path)
{
    return error_set(
        err, errno == ENOSPC || errno == EDQUOT ? ERR_STORAGE_FULL : ERR_FILE,
        "%s: %s", path, strerror(errno));
}

/* Under another name first: a file that is there is whole. */
static int write_file(const char *path, const uint8_t *bytes, size_t len,
                      struct error *err)
{
    const char *slash = strrchr(path, '/');
    char part[MOST_PATH + 32];
    int fd, rc;
    mode_t mask;

    snprintf(part, sizeof(part), "%.*s/.align-XXXXXX", (int)(slash - path),
             path);
    fd = mkostemp(part, O_CLOEXEC);
    if (fd < 0)
        return file_error(err, path);
    mask = umask(0);
    umask(mask);
    rc = file_write_all(fd, bytes, len) || fchmod(fd, 0666 & ~mask) ? -1 : 0;
    if (rc)
        file_error(err, path);
    if (close(fd) && rc == 0)
        rc = file_error(err, path);
    if (rc == 0 && rename(part, path))
        rc = file_error(err, path);
    if (rc)
        unlink(part);
    return rc;
}

static int write_crop(const struct aligner *a, const struct image *crop,
                      const char *path, struct error *err)
{
    uint8_t *bytes = NULL;
    size_t len;
    int rc;

    if (a->opt->quality)
        rc = image_encode_jpeg(crop, a->opt->quality, &bytes, &len, err);
    else
        rc = image_encode_png(crop, &bytes, &len, err);
    if (rc == 0)
        rc = write_file(path, bytes, len, err);
    free(bytes);
    return rc;
}

/* The first face is written last: where it is there, all are. A face that
 * cannot be cropped is left out while others can. */
static int write_faces(const struct aligner *a, const struct image *img,
                       const struct face *faces, int n, struct result *r,
                       bool *fatal)
{
    struct image *crops[MOST_FACES];
    char path[MOST_PATH];
    int n_crops = 0, rc = 0;

    for (int i = 0; i < n && !*fatal; i++) {
        crops[n_crops] = align_crop(img, &faces[i], &a->opt->crop, &r->why);
        if (crops[n_crops])
            n_crops++;
        else
            *fatal = r->why.code != ERR_BAD_BOX;
    }
    if (n_crops == 0 || *fatal)
        rc = -1;
    for (int i = n_crops - 1; i >= 0 && rc == 0; i--) {
        rc = out_path(a, r->stem, a->opt->all_faces ? i : -1,
                      a->opt->quality > 0, path, &r->why);
        if (rc)
            break;
        rc = write_crop(a, crops[i], path, &r->why);
        *fatal = rc != 0;
        r->n_faces += rc == 0;
    }
    for (int i = 0; i < n_crops; i++)
        image_free(crops[i]);
    return rc;
}

static int make_person_dir(const struct aligner *a, const char *stem,
                           struct error *err)
{
    char path[MOST_PATH];
    int n = snprintf(path, sizeof(path), "%s/%.*s", a->opt->out,
                     (int)(strchr(stem, '/') - stem), stem);

    if (n >= MOST_PATH)
        return error_set(err, ERR_FILE, "%s: the path is too long", stem);
    if (mkdir(path, 0777) && errno != EEXIST)
        return file_error(err, path);
    return 0;
}

/* Is the failure one that other photos would meet too? */
static bool is_fatal(enum error_code code)
{
    return code == ERR_NOMEM || code == ERR_DEVICE || code == ERR_MODEL ||
           code == ERR_BAD_FIELD || code == ERR_INTERNAL;
}

static void align_photo(struct aligner *a, int photo, struct detect_scratch *s,
                        struct result *r, bool *fatal)
{
    const struct detect_options opt = {.min_face = a->opt->min_face,
                                       .max_faces = MOST_FACES};
    const enum face_choice choice = a->opt->all_faces ? FACE_ALL : FACE_CENTRAL;
    struct image *img = NULL;
    struct face *faces = NULL;
    char path[MOST_PATH];
    int n = 0, first, n_chosen;

    r->state = STATE_FAILED;
    /* Of either kind: one face must not be there twice. */
    for (int jpeg = 0; jpeg < 2; jpeg++) {
        if (out_path(a, r->stem, a->opt->all_faces ? 0 : -1, jpeg, path,
                     &r->why))
            return;
        if (access(path, F_OK) == 0) {
            r->state = STATE_THERE;
            return;
        }
    }
    img = picture_load(a->photos.photos[photo].path, NULL, NULL, &r->why);
    if (!img || detect_faces(s, img, &opt, &faces, &n, &r->why) ||
        photo_choose(faces, n, img, choice, &first, &n_chosen, &r->why)) {
        *fatal = is_fatal(r->why.code);
    } else if (make_person_dir(a, r->stem, &r->why)) {
        *fatal = true;
    } else if (write_faces(a, img, faces + first, n_chosen, r, fatal) == 0) {
        r->state = STATE_ALIGNED;
    }
    free(faces);
    image_free(img);
}

/* --- all of them
 * ---------------------------------------------------------------
 */

static void fail(struct aligner *a, const struct error *why)
{
    if (!a->stop)
        a->failure = *why;
    a->stop = true;
}

static void *work(void *arg)
{
    struct aligner *a = arg;
    struct error err = {0};
    struct detect_scratch *s = detect_scratch_new(a->detector, &err);

    pthread_mutex_lock(&a->lock);
    if (!s)
        fail(a, &err);
    while (!a->stop && a->next < a->photos.n_photos) {
        int photo = a->next++;
        struct result r = a->results[photo];
        bool fatal = false;
        pthread_mutex_unlock(&a->lock);
        align_photo(a, photo, s, &r, &fatal);
        pthread_mutex_lock(&a->lock);
        a->results[photo] = r;
        a->n_done++;
        if (fatal)
            fail(a, &r.why);
    }
    a->n_running--;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    detect_scratch_free(s);
    return NULL;
}

static void tell_progress(struct aligner *a)
{
    struct timespec until;

    pthread_mutex_lock(&a->lock);
    while (a->n_running > 0) {
        int done = a->n_done;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += TELL_EVERY_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&a->changed, &a->lock, &until);
        if (!a->opt->progress || done == a->n_done)
            continue;
        done = a->n_done;
        pthread_mutex_unlock(&a->lock);
        a->opt->progress(a->opt->user, done, a->photos.n_photos);
        pthread_mutex_lock(&a->lock);
    }
    pthread_mutex_unlock(&a->lock);
}

static int run_threads(struct aligner *a, struct error *err)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    pthread_t threads[MOST_THREADS];
    int n = a->opt->n_threads, n_started = 0, rc = 0;

    if (n == 0)
        n = cores < 1 ? 1 : cores > MOST_THREADS ? MOST_THREADS : (int)cores;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->changed, NULL);
    pthread_mutex_lock(&a->lock);
    for (; n_started < n; n_started++, a->n_running++)
        if (pthread_create(&threads[n_started], NULL, work, a))
            break;
    pthread_mutex_unlock(&a->lock);
    if (n_started == 0)
        rc = error_set(err, ERR_NOMEM, "no thread can be started");
    tell_progress(a);
    for (int i = 0; i < n_started; i++)
        pthread_join(threads[i], NULL);
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    if (rc == 0 && a->failure.code) {
        *err = a->failure;
        rc = -1;
    }
    return rc;
}

static int load_detector(struct aligner *a, struct error *err)
{
    static const char *const names[3] = {
        "detector_pnet.onnx", "detector_rnet.onnx", "detector_onet.onnx"};
    const struct device_options one = {.n_threads = 1};
    char path[MOST_PATH];

    a->device = backend_cpu.device_open(&one, err);
    if (!a->device)
        return -1;
    for (int i = 0; i < 3; i++) {
        if (snprintf(path, sizeof(path), "%s/%s", a->opt->detectors,
                     names[i]) >= (int)sizeof(path))
            return error_set(err, ERR_FILE, "%s: the path is too long",
                             a->opt->detectors);
        a->parts[i] = model_load(path, a->device, NULL, err);
        if (!a->parts[i])
            return -1;
    }
    a->detector =
        detector_new(a->device, a->parts[0], a->parts[1], a->parts[2], err);
    return a->detector ? 0 : -1;
}

/* Does OUT lie in a folder that is read? */
static int check_apart(const struct aligner *a, const char *out,
                       struct error *err)
{
    char *dirs = strdup(a->opt->in), *next = dirs, *dir;
    int rc = dirs ? 0 : error_set(err, ERR_NOMEM, "no memory for names");

    while (rc == 0 && (dir = strsep(&next, ":"))) {
        char *in = realpath(dir, NULL);
        size_t n = in ? strlen(in) : 0;
        if (in && !strncmp(in, out, n) && (out[n] == '/' || !out[n]))
            rc = error_set(err, ERR_BAD_FIELD,
                           "%s lies in %s: crops would be taken for photos",
                           a->opt->out, dir);
        free(in);
    }
    free(dirs);
    return rc;
}

static int prepare_out(const struct aligner *a, struct error *err)
{
    bool made = mkdir(a->opt->out, 0777) == 0;
    char *out;
    int rc;

    if (!made && errno != EEXIST)
        return file_error(err, a->opt->out);
    out = realpath(a->opt->out, NULL);
    rc = out ? check_apart(a, out, err) : file_error(err, a->opt->out);
    if (rc && made)
        rmdir(a->opt->out);
    free(out);
    return rc;
}

static void count(const struct aligner *a, struct aligner_counts *out)
{
    for (int i = 0; i < a->photos.n_photos; i++) {
        const struct result *r = &a->results[i];
        out->n_aligned += r->state == STATE_ALIGNED;
        out->n_there += r->state == STATE_THERE;
        out->n_faces += r->n_faces;
        if (r->state != STATE_FAILED)
            continue;
        out->n_failed++;
        if (a->opt->failed)
            a->opt->failed(a->opt->user, a->photos.photos[i].path, &r->why);
    }
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void free_all(struct aligner *a)
{
    for (int i = 0; a->results && i < a->photos.n_photos; i++)
        free(a->results[i].stem);
    free(a->results);
    dataset_fini(&a->photos);
    detector_free(a->detector);
    for (int i = 0; i < 3; i++)
        model_free(a->parts[i]);
    if (a->device)
        a->device->backend->device_close(a->device);
}

int aligner_run(const struct aligner_options *opt, struct aligner_counts *out,
                struct error *err)
{
    struct aligner a = {.opt = opt};
    double begin = now();
    int rc;

    memset(out, 0, sizeof(*out));
    rc = dataset_list(opt->in, &a.photos, err);
    if (rc == 0 && a.photos.n_photos == 0)
        rc = error_set(err, ERR_BAD_FIELD,
                       "%s: no photos in folders of people (%d empty folders, "
                       "%d photos outside of folders)",
                       opt->in, a.photos.n_empty, a.photos.n_loose);
    if (rc == 0)
        rc = name_results(&a, err) || load_detector(&a, err) ||
                     prepare_out(&a, err) || run_threads(&a, err)
                 ? -1
                 : 0;
    out->n_people = a.photos.n_people;
    out->n_photos = a.photos.n_photos;
    out->n_loose = a.photos.n_loose;
    if (a.results)
        count(&a, out);
    out->seconds = now() - begin;
    free_all(&a);
    return rc;
}
