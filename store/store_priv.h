/* store/store_priv.h - what the files of the store share: the object, its
 * queue of operations, the prepared statements. Nobody else includes it but
 * the store's own tests. */
#ifndef STORE_STORE_PRIV_H
#define STORE_STORE_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include <sqlite3.h>

#include "store/store.h"

enum store_stmt {
#define STMT(name, sql) STMT_##name,
#include "store/statements.def"
#undef STMT
    STMT_COUNT
};

enum {
    STORE_WATCHERS = 16
};

enum store_kind {
    STORE_READ,  /* changes nothing; runs outside any transaction */
    STORE_WRITE, /* adds or changes: refused while the disk is full */
    STORE_ERASE, /* takes away: may use the ballast, truncates the log */
    STORE_BACKUP /* fn is stepped between other work until it says done */
};

/* One caller's work, on the caller's stack until it is answered. */
struct store_op {
    enum store_kind kind;
    int (*fn)(struct store *s, void *arg, struct error *err);
    /* After the commit, in its order: tell the watcher. May be NULL. */
    void (*applied)(struct store *s, void *arg);
    void *arg;
    struct error err;
    int rc;
    bool done;
    struct store_op *next;
};

/* A backup fn's "call me again". */
#define STORE_AGAIN 1

struct store {
    /* Set before the thread starts, then only read. */
    char *dir, *path, *path_wal, *path_ballast;
    bool has_key, relaxed;
    uint8_t crop_key[CRYPTO_KEY_LEN];
    int max_faces;
    const char *const *steps; /* SQL from version i to i + 1 */
    int n_steps;
    int lock_fd;
    pthread_t thread;

    /* The store thread's own. */
    sqlite3 *db;
    sqlite3_stmt *st[STMT_COUNT];
    int wal_pages; /* since the log was last reset */
    bool has_ballast;
    bool truncate_due; /* erased bytes may still be in the log */
    bool vacuum_due;
    int64_t purged_s; /* when old idempotency keys last went */
    struct store_watcher {
        store_change_fn fn;
        void *ctx;
    } watchers[STORE_WATCHERS];
    int n_watchers;

    /* Under lock. */
    pthread_mutex_t lock;
    pthread_cond_t work, answer;
    struct store_op *head, **tail;
    bool opened, stop;
    uint64_t ping_wanted, ping_done;

    atomic_bool failed;
    atomic_llong n_commits, n_writes;
};

/* store_open.c */
struct store *store_open_steps(const struct store_options *opt,
                               const char *const *steps, int n_steps,
                               struct error *err);
int store_db_open(struct store *s, struct error *err); /* the store thread */
void store_db_close(struct store *s);                  /* the store thread */
void store_free(struct store *s);
bool store_ballast_make(struct store *s);
void store_ballast_drop(struct store *s);
/* Copies that upgrades kept: an erased face must not come back from one. */
void store_old_drop(struct store *s);

/* store_copy.c: copy of db to a new file at path, sync'd, whole or not at all.
 */
struct store_copy;
struct store_copy *store_copy_new(sqlite3 *db, const char *path,
                                  struct error *err);
int store_copy_step(struct store_copy *c, int n_pages, struct error *err);
void store_copy_free(struct store_copy *c);

/* store.c: run op on the store's thread; its rc and error. */
int store_run(struct store *s, enum store_kind kind,
              int (*fn)(struct store *, void *, struct error *),
              void (*applied)(struct store *, void *), void *arg,
              struct error *err);
void *store_thread(void *arg);
void store_tick(struct store *s); /* the thread is alive in long work */

/* store_sql.c */
int store_sql_prepare(struct store *s, struct error *err);
void store_sql_finalize(struct store *s);
/* rc of a failed call to an error; a damaged file or a failed write marks
 * the store as failed. Returns -1. */
int store_sql_error(struct store *s, int rc, const char *doing,
                    struct error *err);
/* Bind (i int64, d double, t text or NULL, b blob: pointer and size_t) and
 * step: 1 a row is there, 0 done, -1 failed. Until 0 or -1 the statement is
 * open: store_sql_done ends it early. */
int store_sql_run(struct store *s, enum store_stmt id, struct error *err,
                  const char *types, ...);
int store_sql_next(struct store *s, enum store_stmt id, struct error *err);
void store_sql_done(struct store *s, enum store_stmt id);
int64_t store_sql_int(struct store *s, enum store_stmt id, int col);
/* Column text into buf; longer text than fits is damage, cut. */
void store_sql_text(struct store *s, enum store_stmt id, int col, char *buf,
                    size_t len_buf);
/* False when the column is not exactly len bytes. */
bool store_sql_blob(struct store *s, enum store_stmt id, int col, void *buf,
                    size_t len);

/* Checks of what callers pass; -1 with ERR_BAD_FIELD naming the field. */
int store_check_id(const char *what, const char *id, struct error *err);
int store_check_name(const char *name, struct error *err);
int store_check_metadata(const char *text, struct error *err);
int store_check_limit(int limit, struct error *err);
int store_check_model(const char *id, struct error *err);
/* The metadata is a JSON object (asks SQLite; the store thread). */
int store_check_json(struct store *s, const char *text, struct error *err);
/* store_face.c: what a sealed crop belongs to; moved to another face it does
 * not open. */
enum {
    CROP_NONE,
    CROP_PLAIN,
    CROP_SEALED
};
void store_seal_owner(char *buf, size_t len_buf, int64_t face,
                      const char *gallery, const char *subject);
/* A row of FACE_GET, FACE_LIST or MISSING_LIST. */
void store_read_face(struct store *s, enum store_stmt id,
                     struct store_face *out);
void store_tell(struct store *s, const struct store_change *change);

#endif
