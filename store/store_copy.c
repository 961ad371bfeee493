/* store/store_copy.c - a whole, checked copy of the database in another file,
 * for backups while serving and before upgrades. It is made on the handle
 * that also writes, so that changes between its steps reach it and it never
 * starts again. */
#include "store/store_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct store_copy {
    char *path, *part;
    sqlite3 *db;
    sqlite3_backup *backup;
};

struct store_copy *store_copy_new(sqlite3 *db, const char *path,
                                  struct error *err)
{
    struct store_copy *c = calloc(1, sizeof(*c));
    size_t len = strlen(path) + 8;
    int fd;

    if (!c || !(c->path = strdup(path)) || !(c->part = malloc(len))) {
        store_copy_free(c);
        return error_null(err, ERR_NOMEM, "backup: out of memory");
    }
    snprintf(c->part, len, "%s.part", path);
    if (access(path, F_OK) == 0) {
        free(c->part);
        c->part = NULL;
        store_copy_free(c);
        return error_null(err, ERR_FILE, "backup: %s exists", path);
    }
    unlink(c->part); /* of a backup that was cut short */
    fd = open(c->part, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        error_set(err, ERR_FILE, "backup: %s: %s", c->part, strerror(errno));
        store_copy_free(c);
        return NULL;
    }
    close(fd);
    if (sqlite3_open_v2(c->part, &c->db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX,
                        NULL) != SQLITE_OK ||
        !(c->backup = sqlite3_backup_init(c->db, "main", db, "main"))) {
        error_set(err, ERR_FILE, "backup: %s: %s", c->part,
                  c->db ? sqlite3_errmsg(c->db) : "out of memory");
        store_copy_free(c);
        return NULL;
    }
    return c;
}

static int sync_dir_of(const char *path)
{
    char *dir = strdup(path), *slash = dir ? strrchr(dir, '/') : NULL;
    int fd, rc;

    if (!dir)
        return -1;
    if (slash)
        slash[slash == dir] = '\0';
    fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(dir);
    if (fd < 0)
        return -1;
    rc = fsync(fd);
    close(fd);
    return rc;
}

static int copied_row(void *ctx, int n, char **cols, char **names)
{
    (void)names;
    if (n > 0 && cols[0] && strcmp(cols[0], "ok") == 0)
        *(bool *)ctx = true;
    return 0;
}

/* The copy is whole: prove it, then give it its name unless that is taken. */
static int copy_done(struct store_copy *c, struct error *err)
{
    bool ok = false;
    int rc;

    sqlite3_backup_finish(c->backup);
    c->backup = NULL;
    sqlite3_exec(c->db, "PRAGMA locking_mode=EXCLUSIVE", NULL, NULL, NULL);
    sqlite3_exec(c->db, "PRAGMA integrity_check(1)", copied_row, &ok, NULL);
    rc = sqlite3_close(c->db);
    c->db = NULL;
    if (!ok || rc != SQLITE_OK)
        return error_set(err, ERR_STORAGE, "backup: the copy is damaged");
    if (link(c->part, c->path) < 0)
        return error_set(err, ERR_FILE, "backup: %s: %s", c->path,
                         strerror(errno));
    if (sync_dir_of(c->path) < 0)
        return error_set(err, ERR_OUTCOME_UNKNOWN, "backup: %s: %s", c->path,
                         strerror(errno));
    return 0;
}

int store_copy_step(struct store_copy *c, int n_pages, struct error *err)
{
    int rc = sqlite3_backup_step(c->backup, n_pages);

    if (rc == SQLITE_OK)
        return STORE_AGAIN;
    if (rc == SQLITE_DONE)
        return copy_done(c, err);
    if ((rc & 0xff) == SQLITE_FULL)
        return error_set(err, ERR_STORAGE_FULL, "backup: %s: disk full",
                         c->path);
    return error_set(err, ERR_FILE, "backup: %s: %s", c->path,
                     sqlite3_errstr(rc));
}

void store_copy_free(struct store_copy *c)
{
    if (!c)
        return;
    if (c->backup)
        sqlite3_backup_finish(c->backup);
    sqlite3_close(c->db);
    if (c->part)
        unlink(c->part);
    free(c->part);
    free(c->path);
    free(c);
}
