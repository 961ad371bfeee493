/* store/store_open.c - the data directory: its lock, the ballast that makes
 * erasure possible on a full disk, the order in which the database is
 * opened and brought up to date. */
#include "store/store_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_DB "facenetd.db"
#define FILE_LOCK "lock"
#define FILE_BALLAST "ballast"

enum {
    APPLICATION_ID = 0x46414345, /* "FACE" in the file's header */
    BALLAST_BYTES = 16 * 1024 * 1024,
    HEAP_BYTES = 512 * 1024 * 1024, /* SQLite's, whatever a file says */
    ROW_BYTES = 1024 * 1024,
    FACES_PER_SUBJECT = 248
};

static const char schema_sql[] =
#include "schema.h"
    ;

static const char schema_2_sql[] =
#include "schema_2.h"
    ;

static const char *const steps_of_release[] = {schema_sql, schema_2_sql};

static char *join(const char *dir, const char *file)
{
    size_t len = strlen(dir) + strlen(file) + 2;
    char *path = malloc(len);

    if (path)
        snprintf(path, len, "%s/%s", dir, file);
    return path;
}

/* --- ballast -------------------------------------------------------- */
bool store_ballast_make(struct store *s)
{
    int fd =
        open(s->path_ballast, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return s->has_ballast = false;
    s->has_ballast = posix_fallocate(fd, 0, BALLAST_BYTES) == 0;
    close(fd);
    if (!s->has_ballast)
        unlink(s->path_ballast);
    return s->has_ballast;
}

void store_ballast_drop(struct store *s)
{
    unlink(s->path_ballast);
    s->has_ballast = false;
}

/* --- the lock ------------------------------------------------------- */
static int lock_dir(struct store *s, struct error *err)
{
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char *path = join(s->dir, FILE_LOCK), pid[32] = "";
    ssize_t len;

    if (!path)
        return error_set(err, ERR_NOMEM, "data directory: out of memory");
    s->lock_fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    free(path);
    if (s->lock_fd < 0)
        return error_set(err, ERR_FILE, "data directory %s: cannot write: %s",
                         s->dir, strerror(errno));
    if (fcntl(s->lock_fd, F_OFD_SETLK, &fl) < 0) {
        if (errno != EAGAIN && errno != EACCES)
            return error_set(err, ERR_FILE,
                             "data directory %s: cannot lock: %s", s->dir,
                             strerror(errno));
        len = pread(s->lock_fd, pid, sizeof(pid) - 1, 0);
        pid[len > 0 ? len : 0] = '\0';
        pid[strspn(pid, "0123456789")] = '\0';
        return error_set(err, ERR_LOCKED,
                         "data directory %s: in use by process %s", s->dir,
                         pid[0] ? pid : "(unknown)");
    }
    snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    if (ftruncate(s->lock_fd, 0) < 0 ||
        pwrite(s->lock_fd, pid, strlen(pid), 0) < 0) {
        /* The lock holds without it, and a full disk must still open. */
        pid[0] = '\0';
    }
    return 0;
}

/* The directory, made where missing, with every link in its path resolved:
 * SQLite then refuses a database that is itself a link. */
static int find_dir(struct store *s, const char *dir, struct error *err)
{
    struct stat st;

    if (!dir || !*dir)
        return error_set(err, ERR_FILE, "data directory: no path given");
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return error_set(err, ERR_FILE, "data directory %s: cannot make: %s",
                         dir, strerror(errno));
    s->dir = realpath(dir, NULL);
    if (!s->dir || stat(s->dir, &st) < 0)
        return error_set(err, ERR_FILE, "data directory %s: %s", dir,
                         strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return error_set(err, ERR_FILE, "data directory %s: not a directory",
                         dir);
    s->path = join(s->dir, FILE_DB);
    s->path_wal = join(s->dir, FILE_DB "-wal");
    s->path_ballast = join(s->dir, FILE_BALLAST);
    if (!s->path || !s->path_wal || !s->path_ballast)
        return error_set(err, ERR_NOMEM, "data directory: out of memory");
    return 0;
}

/* Before SQLite has it open, as closing it later would drop SQLite's locks.
 * Its log gets the same mode. */
static int make_db_file(struct store *s, struct error *err)
{
    int fd = open(s->path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return error_set(err, ERR_FILE, "data directory %s: %s: %s", s->dir,
                         FILE_DB, strerror(errno));
    close(fd);
    return 0;
}

/* --- opening the database ------------------------------------------- */
static int pragma(struct store *s, const char *sql, char *buf, size_t len_buf,
                  struct error *err)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(s->db, sql, -1, &st, NULL);

    if (buf)
        buf[0] = '\0';
    if (rc == SQLITE_OK)
        rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        const unsigned char *text = sqlite3_column_text(st, 0);
        if (buf && text)
            snprintf(buf, len_buf, "%s", (const char *)text);
        rc = SQLITE_DONE;
    }
    sqlite3_finalize(st);
    if (rc != SQLITE_DONE)
        return store_sql_error(s, rc, s->path, err);
    return 0;
}

static int pragma_int(struct store *s, const char *sql, long long *out,
                      struct error *err)
{
    char buf[32];

    if (pragma(s, sql, buf, sizeof(buf), err) < 0)
        return -1;
    *out = strtoll(buf, NULL, 10);
    return 0;
}

static void harden(sqlite3 *db)
{
    static const int limits[][2] = {
        {SQLITE_LIMIT_LENGTH, ROW_BYTES},
        {SQLITE_LIMIT_SQL_LENGTH, 100000},
        {SQLITE_LIMIT_COLUMN, 100},
        {SQLITE_LIMIT_EXPR_DEPTH, 20},
        {SQLITE_LIMIT_COMPOUND_SELECT, 3},
        {SQLITE_LIMIT_VDBE_OP, 25000},
        {SQLITE_LIMIT_FUNCTION_ARG, 8},
        {SQLITE_LIMIT_ATTACHED, 0},
        {SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 50},
        {SQLITE_LIMIT_VARIABLE_NUMBER, 16},
        {SQLITE_LIMIT_TRIGGER_DEPTH, 10},
    };

    sqlite3_extended_result_codes(db, 1);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DQS_DML, 0, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DQS_DDL, 0, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, NULL);
    /* After a failed sync nothing more may be written, on closing too. */
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
        sqlite3_limit(db, limits[i][0], limits[i][1]);
    sqlite3_hard_heap_limit64(HEAP_BYTES);
}

static int pragmas(struct store *s, const char *const *sql, int n,
                   struct error *err)
{
    for (int i = 0; i < n; i++) {
        if (pragma(s, sql[i], NULL, 0, err) < 0)
            return -1;
    }
    return 0;
}

/* Settings in the order in which they depend on each other: the page layout
 * before the first page of a new file, exclusive locking before WAL (its
 * index then lives on the heap, not in a shared file). */
static int configure(struct store *s, struct error *err)
{
    static const char *const of_new_file[] = {
        "PRAGMA page_size=4096",
        "PRAGMA auto_vacuum=INCREMENTAL",
    };
    static const char *const before[] = {
        "PRAGMA locking_mode=EXCLUSIVE",
        "PRAGMA foreign_keys=ON",
        "PRAGMA secure_delete=ON",
        "PRAGMA cell_size_check=ON",
        "PRAGMA mmap_size=0",
        "PRAGMA temp_store=MEMORY",
        "PRAGMA busy_timeout=0",
        "PRAGMA wal_autocheckpoint=0",
        "PRAGMA journal_size_limit=67108864",
    };
    long long n_pages;
    char mode[16];

    if (pragmas(s, before, (int)(sizeof(before) / sizeof(before[0])), err) <
            0 ||
        pragma_int(s, "PRAGMA page_count", &n_pages, err) < 0)
        return -1;
    if (n_pages == 0 && pragmas(s, of_new_file, 2, err) < 0)
        return -1;
    if (pragma(s, "PRAGMA journal_mode=WAL", mode, sizeof(mode), err) < 0)
        return -1;
    if (strcmp(mode, "wal") != 0)
        return error_set(err, ERR_STORAGE, "%s: no write-ahead log (mode %s)",
                         s->path, mode);
    return pragma(
        s, s->relaxed ? "PRAGMA synchronous=NORMAL" : "PRAGMA synchronous=FULL",
        NULL, 0, err);
}

static int check(struct store *s, long long *version, struct error *err)
{
    char text[160];
    long long id, n_tables;

    if (pragma_int(s, "PRAGMA application_id", &id, err) < 0 ||
        pragma_int(s, "PRAGMA user_version", version, err) < 0 ||
        pragma_int(s, "SELECT count(*) FROM sqlite_schema", &n_tables, err) < 0)
        return -1;
    if (n_tables == 0 && *version == 0)
        return 0; /* new, or its making was cut short */
    if (id != APPLICATION_ID || *version <= 0)
        return error_set(err, ERR_STORAGE, "%s: not a database of facenetd",
                         s->path);
    if (*version > s->n_steps)
        return error_set(err, ERR_STORAGE,
                         "%s: written by a newer release (version %lld, this "
                         "one reads up to %d)",
                         s->path, *version, s->n_steps);
    if (pragma(s, "PRAGMA quick_check(1)", text, sizeof(text), err) < 0)
        return -1;
    if (strcmp(text, "ok") == 0 &&
        pragma(s, "PRAGMA foreign_key_check", text, sizeof(text), err) < 0)
        return -1;
    if (text[0] != '\0' && strcmp(text, "ok") != 0)
        return error_set(err, ERR_STORAGE,
                         "%s: the database is damaged (%.100s); restore a "
                         "backup",
                         s->path, text);
    return 0;
}

static char *old_path(const struct store *s, long long version)
{
    size_t len = strlen(s->path) + 32;
    char *path = malloc(len);

    if (path)
        snprintf(path, len, "%s.v%lld.bak", s->path, version);
    return path;
}

void store_old_drop(struct store *s)
{
    for (int version = 1; version < s->n_steps; version++) {
        char *path = old_path(s, version);
        if (path)
            unlink(path);
        free(path);
    }
}

/* Keep what the older release wrote: going back needs it. */
static int backup_before(struct store *s, long long version, struct error *err)
{
    char *path = old_path(s, version);
    struct store_copy *copy;
    int rc = STORE_AGAIN;

    if (!path)
        return error_set(err, ERR_NOMEM, "%s: out of memory", s->path);
    unlink(path); /* of an upgrade that was cut short */
    copy = store_copy_new(s->db, path, err);
    free(path);
    if (!copy)
        return -1;
    while (rc == STORE_AGAIN)
        rc = store_copy_step(copy, -1, err);
    store_copy_free(copy);
    return rc;
}

static int upgrade(struct store *s, long long version, struct error *err)
{
    char sql[96];

    if (version > 0 && version < s->n_steps &&
        backup_before(s, version, err) < 0)
        return error_context(err, "backup before the upgrade");
    for (; version < s->n_steps; version++) {
        int rc = sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
        if (rc == SQLITE_OK)
            rc = sqlite3_exec(s->db, s->steps[version], NULL, NULL, NULL);
        snprintf(sql, sizeof(sql),
                 "PRAGMA application_id=%d; PRAGMA user_version=%lld; COMMIT",
                 APPLICATION_ID, version + 1);
        if (rc == SQLITE_OK)
            rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
        if (rc != SQLITE_OK) {
            store_sql_error(s, rc, s->path, err);
            sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
            return error_context(err, "upgrade to version %lld", version + 1);
        }
    }
    return 0;
}

static int on_commit(void *ctx, sqlite3 *db, const char *name, int n_pages)
{
    struct store *s = ctx;

    (void)db;
    (void)name;
    s->wal_pages = n_pages;
    return SQLITE_OK;
}

static int on_progress(void *ctx)
{
    store_tick(ctx);
    return 0;
}

int store_db_open(struct store *s, struct error *err)
{
    long long version = 0;
    int rc = sqlite3_open_v2(s->path, &s->db,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE |
                                 SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW,
                             NULL);

    if (rc != SQLITE_OK)
        return store_sql_error(s, rc, s->path, err);
    harden(s->db);
    if (configure(s, err) < 0 || check(s, &version, err) < 0)
        return -1;
    store_ballast_make(s);
    if (upgrade(s, version, err) < 0)
        return -1;
    /* An erasure that was cut short after its commit: nothing is served
     * before the log is empty. */
    rc = sqlite3_wal_checkpoint_v2(s->db, "main", SQLITE_CHECKPOINT_TRUNCATE,
                                   NULL, NULL);
    if ((rc & 0xff) == SQLITE_FULL && s->has_ballast) {
        store_ballast_drop(s);
        rc = sqlite3_wal_checkpoint_v2(s->db, "main",
                                       SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    }
    if (rc != SQLITE_OK)
        return store_sql_error(s, rc, s->path, err);
    sqlite3_wal_hook(s->db, on_commit, s);
    sqlite3_progress_handler(s->db, 100000, on_progress, s);
    return store_sql_prepare(s, err);
}

void store_db_close(struct store *s)
{
    store_sql_finalize(s);
    sqlite3_close(s->db);
    s->db = NULL;
}

/* --- the object ----------------------------------------------------- */
static struct store *store_new(const struct store_options *opt,
                               struct error *err)
{
    struct store *s = calloc(1, sizeof(*s));
    pthread_condattr_t attr;

    if (!s)
        return error_null(err, ERR_NOMEM, "store: out of memory");
    s->lock_fd = -1;
    s->tail = &s->head;
    s->relaxed = opt->relaxed;
    s->max_faces = opt->max_faces_per_subject > 0 ? opt->max_faces_per_subject
                                                  : FACES_PER_SUBJECT;
    s->has_key = opt->crop_key != NULL;
    if (s->has_key)
        memcpy(s->crop_key, opt->crop_key, sizeof(s->crop_key));
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->work, &attr);
    pthread_cond_init(&s->answer, &attr);
    pthread_condattr_destroy(&attr);
    return s;
}

void store_free(struct store *s)
{
    if (s->lock_fd >= 0)
        close(s->lock_fd); /* gives the directory back */
    pthread_cond_destroy(&s->answer);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->lock);
    explicit_bzero(s->crop_key, sizeof(s->crop_key));
    free(s->path_ballast);
    free(s->path_wal);
    free(s->path);
    free(s->dir);
    free(s);
}

struct opening {
    struct store *s;
    struct error *err;
    int rc;
};

static void *open_then_serve(void *arg)
{
    struct opening *o = arg;
    struct store *s = o->s;
    int rc = store_db_open(s, o->err);

    if (rc < 0)
        store_db_close(s);
    pthread_mutex_lock(&s->lock);
    o->rc = rc; /* o and its err are the opener's and end with the wait */
    s->opened = true;
    pthread_cond_broadcast(&s->answer);
    pthread_mutex_unlock(&s->lock);
    return rc < 0 ? NULL : store_thread(s);
}

static int start(struct store *s, struct error *err)
{
    struct opening o = {.s = s, .err = err, .rc = -1};

    if (pthread_create(&s->thread, NULL, open_then_serve, &o) != 0)
        return error_set(err, ERR_NOMEM, "store: cannot start a thread");
    pthread_mutex_lock(&s->lock);
    while (!s->opened)
        pthread_cond_wait(&s->answer, &s->lock);
    pthread_mutex_unlock(&s->lock);
    if (o.rc < 0)
        pthread_join(s->thread, NULL);
    return o.rc;
}

struct store *store_open_steps(const struct store_options *opt,
                               const char *const *steps, int n_steps,
                               struct error *err)
{
    struct store *s;
    struct error local = {0};

    if (!err)
        err = &local;
    *err = (struct error){0};
    s = store_new(opt, err);
    if (!s)
        return NULL;
    s->steps = steps;
    s->n_steps = n_steps;
    if (find_dir(s, opt->dir, err) < 0 || lock_dir(s, err) < 0 ||
        make_db_file(s, err) < 0 || start(s, err) < 0) {
        store_free(s);
        return NULL;
    }
    return s;
}

struct store *store_open(const struct store_options *opt, struct error *err)
{
    return store_open_steps(
        opt, steps_of_release,
        (int)(sizeof(steps_of_release) / sizeof(steps_of_release[0])), err);
}
