/* daemon/jobs_data.c - the files of training jobs: folders of photos below a
 * configured root and nowhere else, crops of a gallery written out for the
 * trainer, room on the disk, and removing it all again. */
#include "daemon/jobs_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "daemon/server.h"

enum {
    PAGE = 256,
    MAX_DEPTH = 32,
    MIB_SHIFT = 20,
    SPARE_MIB = 64,       /* left free by exports */
    ROOM_MIB = 256,       /* for logs and crops of a run */
    ROOM_PER_WEIGHT = 16, /* 3 checkpoints of weights, averages and two
                             moments, and one that is being written; none of
                             them over the model file's size */
    NO_MODEL_MIB = 128    /* what a network built anew may take */
};

/* --- folders below the root -------------------------------------------- */

static int check_name(const char *what, const char *name, struct error *err)
{
    size_t len = strlen(name);

    if (len == 0 || len >= JOBS_NAME_MAX)
        return error_set(err, ERR_BAD_FIELD, "%s must have 1 to %d bytes", what,
                         JOBS_NAME_MAX - 1);
    if (name[0] == '/')
        return error_set(err, ERR_BAD_FIELD,
                         "%s must be relative: it is looked for below the "
                         "setting train-root",
                         what);
    for (const char *p = name; *p;) {
        size_t n = strcspn(p, "/");
        if (n == 2 && strncmp(p, "..", 2) == 0)
            return error_set(err, ERR_BAD_FIELD, "%s must not lead up (\"..\")",
                             what);
        p += n + (p[n] == '/');
    }
    for (const char *p = name; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f || *p == ':')
            return error_set(err, ERR_BAD_FIELD,
                             "%s must be without control characters and ':'",
                             what);
    return 0;
}

/* Is path, free of links, root or below it? */
static bool is_below(const char *root, const char *path)
{
    size_t len = strlen(root);

    while (len > 1 && root[len - 1] == '/')
        len--;
    if (len == 1 && root[0] == '/')
        return true;
    return strncmp(path, root, len) == 0 && (!path[len] || path[len] == '/');
}

int jobs_data_resolve(const char *root, const char *what, const char *name,
                      bool is_dir, char path[JOBS_PATH_MAX], struct error *err)
{
    char *base = NULL, *real = NULL, *joined = NULL;
    struct stat st;
    int rc = -1;

    if (!*root)
        return error_set(err, ERR_BAD_FIELD,
                         "%s: folders are not taken: no setting train-root",
                         what);
    if (check_name(what, name, err) != 0)
        return -1;
    base = realpath(root, NULL);
    if (!base) {
        error_set(err, ERR_CONFIG, "train-root %.120s: %s", root,
                  strerror(errno));
        goto out;
    }
    if (asprintf(&joined, "%s/%s", base, name) < 0) {
        joined = NULL;
        error_set(err, ERR_NOMEM, "no memory for a path");
        goto out;
    }
    real = realpath(joined, NULL);
    if (!real)
        error_set(err, ERR_BAD_FIELD, "%s '%.120s': %s", what, name,
                  strerror(errno));
    else if (!is_below(base, real))
        error_set(err, ERR_BAD_FIELD,
                  "%s '%.120s' is a link that leads out of train-root", what,
                  name);
    else if (stat(real, &st) != 0 ||
             !(is_dir ? S_ISDIR(st.st_mode) : S_ISREG(st.st_mode)))
        error_set(err, ERR_BAD_FIELD, "%s '%.120s' is no %s", what, name,
                  is_dir ? "folder" : "file");
    else if (strlen(real) >= JOBS_PATH_MAX || strchr(real, ':'))
        error_set(err, ERR_BAD_FIELD,
                  "%s '%.120s': its path is over %d bytes, or holds a ':'",
                  what, name, JOBS_PATH_MAX - 1);
    else
        rc = 0;
    if (rc == 0)
        memcpy(path, real, strlen(real) + 1);
out:
    free(base);
    free(real);
    free(joined);
    return rc;
}

static int stopped(struct error *err)
{
    return error_set(err, ERR_DEADLINE, "asked to stop");
}

struct scan {
    const char *base;
    const atomic_bool *stop;
    atomic_llong *beat;
};

static int scan_dir(const struct scan *s, int take_fd, const char *shown,
                    int depth, struct error *err);

/* A link, and what is in the folder that it leads to. */
static int scan_link(const struct scan *s, int dir, const char *file,
                     const char *shown, int depth, struct error *err)
{
    int fd = openat(dir, file, O_PATH | O_CLOEXEC), inner = -1, rc = 0;
    char link[64], *real;
    struct stat st;

    if (fd < 0)
        return 0; /* leads nowhere: a file that cannot be read */
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    real = realpath(link, NULL);
    if (!real || !is_below(s->base, real))
        rc = error_set(err, ERR_BAD_FIELD,
                       "%.180s is a link that leads out of train-root", shown);
    else if (depth > 0 && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
        inner = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(real);
    close(fd);
    return inner >= 0 ? scan_dir(s, inner, shown, depth - 1, err) : rc;
}

/* Links of dir, which is open as fd (taken), and of its folders. */
static int scan_dir(const struct scan *s, int take_fd, const char *shown,
                    int depth, struct error *err)
{
    DIR *d = fdopendir(take_fd);
    struct dirent *e;
    int rc = 0;

    if (!d) {
        close(take_fd);
        return error_set(err, ERR_FILE, "%.150s: %s", shown, strerror(errno));
    }
    while (rc == 0 && (e = readdir(d))) {
        char inner[JOBS_NAME_MAX * 3];
        struct stat st;

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        atomic_store(s->beat, server_now_us());
        if (atomic_load(s->stop)) {
            rc = stopped(err);
            break;
        }
        snprintf(inner, sizeof(inner), "%s/%s", shown, e->d_name);
        if (S_ISLNK(st.st_mode)) {
            rc = scan_link(s, dirfd(d), e->d_name, inner, depth, err);
        } else if (S_ISDIR(st.st_mode) && depth > 0) {
            int fd = openat(dirfd(d), e->d_name,
                            O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (fd >= 0)
                rc = scan_dir(s, fd, inner, depth - 1, err);
        }
    }
    closedir(d);
    return rc;
}

int jobs_data_scan(const char *root, const char *path, const char *name,
                   const atomic_bool *stop, atomic_llong *beat,
                   struct error *err)
{
    char *base = realpath(root, NULL);
    int fd = base ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int rc;

    if (fd < 0) {
        free(base);
        return error_set(err, ERR_FILE, "%.150s: %s", name, strerror(errno));
    }
    rc = scan_dir(&(struct scan){base, stop, beat}, fd, name, 1, err);
    free(base);
    return rc;
}

/* --- room -------------------------------------------------------------- */

int64_t jobs_data_free(const char *path)
{
    struct statfs fs;

    if (statfs(path, &fs) != 0)
        return 0;
    return (int64_t)fs.f_bavail * (int64_t)fs.f_bsize;
}

int jobs_data_room(const char *dir, const char *model_path, struct error *err)
{
    int64_t weights = (int64_t)NO_MODEL_MIB << MIB_SHIFT, need;
    int64_t there = jobs_data_free(dir);
    struct stat st;

    if (*model_path && stat(model_path, &st) == 0)
        weights = st.st_size;
    need = ((int64_t)ROOM_MIB << MIB_SHIFT) + ROOM_PER_WEIGHT * weights;
    if (there < need)
        return error_set(err, ERR_STORAGE_FULL,
                         "a job with this model needs %lld MiB; the data "
                         "directory has %lld MiB free",
                         (long long)(need >> MIB_SHIFT),
                         (long long)(there >> MIB_SHIFT));
    return 0;
}

/* --- crops of a gallery ------------------------------------------------ */

static bool is_memory(const char *path)
{
    struct statfs fs;

    return statfs(path, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

int jobs_data_memory(const char *id, char path[JOBS_PATH_MAX],
                     struct error *err)
{
    const char *runtime = getenv("RUNTIME_DIRECTORY");
    const char *places[2] = {runtime && *runtime == '/' ? runtime : "",
                             "/dev/shm"};

    for (int i = 0; i < 2; i++) {
        size_t len = strcspn(places[i], ":"); /* systemd may name several */
        char place[JOBS_PATH_MAX / 2];

        snprintf(place, sizeof(place), "%.*s", (int)len, places[i]);
        if (!*place || !is_memory(place))
            continue;
        snprintf(path, JOBS_PATH_MAX, "%s/facenetd-job-%s-%d", place, id,
                 (int)getpid());
        if (mkdir(path, 0700) == 0)
            return 0;
    }
    path[0] = '\0';
    return error_set(err, ERR_CONFIG,
                     "kept crops are encrypted (crop-key-file), and there is "
                     "no place in memory for them: neither $RUNTIME_DIRECTORY "
                     "nor /dev/shm is a tmpfs that can be written");
}

struct export
{
    struct store *store;
    const char *gallery, *path;
    const atomic_bool *stop;
    atomic_llong *beat;
    int n_subjects, n_faces;
};

static int write_crop(int dir, int64_t id, const uint8_t *jpeg, size_t len,
                      struct error *err)
{
    char name[40];
    int fd, rc = 0;

    snprintf(name, sizeof(name), "%lld.jpg", (long long)id);
    fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    for (size_t at = 0; fd >= 0 && at < len;) {
        ssize_t n = write(fd, jpeg + at, len - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            rc = -1;
            break;
        }
        at += (size_t)n;
    }
    if (fd < 0 || rc != 0)
        rc = error_set(err, errno == ENOSPC ? ERR_STORAGE_FULL : ERR_FILE,
                       "writing a crop: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
    return rc;
}

static int export_face(struct export *e, const char *subject, int *dir,
                       int64_t id, struct error *err)
{
    float box[4], points[10];
    char path[JOBS_PATH_MAX + STORE_ID_MAX + 2];
    uint8_t *jpeg = NULL;
    size_t len = 0;
    int rc;

    if (store_face_crop(e->store, id, &jpeg, &len, box, points, err) != 0)
        return err->code == ERR_NO_FACE_ID ? 0 : -1; /* erased meanwhile */
    if (*dir < 0) {
        snprintf(path, sizeof(path), "%s/%s", e->path, subject);
        if (mkdir(path, 0700) == 0)
            *dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (*dir < 0) {
            free(jpeg);
            return error_set(err, errno == ENOSPC ? ERR_STORAGE_FULL : ERR_FILE,
                             "a folder for crops: %s", strerror(errno));
        }
        e->n_subjects++;
    }
    rc = write_crop(*dir, id, jpeg, len, err);
    explicit_bzero(jpeg, len);
    free(jpeg);
    e->n_faces += rc == 0;
    return rc;
}

static int export_subject(struct export *e, const char *subject,
                          struct error *err)
{
    int64_t after = 0;
    int dir = -1, n = PAGE, rc = 0;

    while (rc == 0 && n == PAGE) {
        struct store_face *faces = NULL;

        n = 0;
        rc = store_face_list(e->store, e->gallery, subject, after, PAGE, &faces,
                             &n, err);
        for (int i = 0; rc == 0 && i < n; i++) {
            atomic_store(e->beat, server_now_us());
            after = faces[i].id;
            if (atomic_load(e->stop))
                rc = stopped(err);
            else if (faces[i].has_crop)
                rc = export_face(e, subject, &dir, faces[i].id, err);
        }
        free(faces);
    }
    if (dir >= 0)
        close(dir);
    if (rc == 0 && jobs_data_free(e->path) < (int64_t)SPARE_MIB << MIB_SHIFT)
        rc = error_set(err, ERR_STORAGE_FULL,
                       "the crops of the gallery leave less than %d MiB free",
                       SPARE_MIB);
    return rc;
}

int jobs_data_export(struct store *store, const char *gallery, const char *path,
                     const atomic_bool *stop, atomic_llong *beat,
                     struct error *err)
{
    struct export e = {.store = store,
                       .gallery = gallery,
                       .path = path,
                       .stop = stop,
                       .beat = beat};
    char after[STORE_ID_MAX + 1] = "";
    int n = PAGE, rc = 0;

    while (rc == 0 && n == PAGE) {
        struct store_subject *subjects = NULL;

        n = 0;
        rc =
            store_subject_list(store, gallery, after, PAGE, &subjects, &n, err);
        for (int i = 0; rc == 0 && i < n; i++) {
            snprintf(after, sizeof(after), "%s", subjects[i].id);
            rc = export_subject(&e, subjects[i].id, err);
        }
        store_subjects_free(subjects, n);
    }
    if (rc == 0 && e.n_subjects < 2)
        rc = error_set(err, ERR_BAD_FIELD,
                       "gallery '%s' has kept crops of %d people; training "
                       "needs at least 2",
                       gallery, e.n_subjects);
    return rc;
}

/* --- removing ---------------------------------------------------------- */

static bool empty_dir(int take_fd, int depth)
{
    DIR *d = fdopendir(take_fd);
    struct dirent *e;
    bool all = true;

    if (!d) {
        close(take_fd);
        return false;
    }
    while ((e = readdir(d))) {
        int fd;

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (unlinkat(dirfd(d), e->d_name, 0) == 0)
            continue;
        fd = depth > 0 ? openat(dirfd(d), e->d_name,
                                O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
                       : -1;
        if (fd >= 0 && !empty_dir(fd, depth - 1))
            all = false;
        if (unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR) != 0)
            all = false;
    }
    closedir(d);
    return all;
}

bool jobs_data_remove(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT;
    return empty_dir(fd, MAX_DEPTH) && rmdir(path) == 0;
}
