/* store/store.c - the store's thread: its queue, group commit, checkpoints.
 * Callers put an operation on the queue and wait. The thread takes all that
 * is waiting: reads are answered at once; writes run in one transaction,
 * each in its own savepoint, and are answered after its commit. */
#include "store/store_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum {
    BATCH_MAX = 128,        /* operations of one transaction */
    WAL_PAGES_IDLE = 1000,  /* checkpoint when idle and the log is longer */
    WAL_PAGES_MAX = 16000,  /* checkpoint even when busy */
    FREE_PAGES_KEPT = 4096, /* free pages in the file worth giving back */
    COPY_PAGES = 256        /* pages of a backup between other work */
};

void store_tick(struct store *s)
{
    pthread_mutex_lock(&s->lock);
    if (s->ping_done != s->ping_wanted) {
        s->ping_done = s->ping_wanted;
        pthread_cond_broadcast(&s->answer);
    }
    pthread_mutex_unlock(&s->lock);
}

int store_run(struct store *s, enum store_kind kind,
              int (*fn)(struct store *, void *, struct error *),
              void (*applied)(struct store *, void *), void *arg,
              struct error *err)
{
    struct store_op op = {.kind = kind, .fn = fn, .applied = applied};

    op.arg = arg;
    pthread_mutex_lock(&s->lock);
    if (s->stop) {
        pthread_mutex_unlock(&s->lock);
        return error_set(err, ERR_STOPPING, "the store is closing");
    }
    *s->tail = &op;
    s->tail = &op.next;
    pthread_cond_signal(&s->work);
    while (!op.done)
        pthread_cond_wait(&s->answer, &s->lock);
    pthread_mutex_unlock(&s->lock);
    if (op.rc < 0 && err)
        *err = op.err;
    return op.rc;
}

static void answer(struct store *s, struct store_op *const *ops, int n)
{
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < n; i++)
        ops[i]->done = true;
    pthread_cond_broadcast(&s->answer);
    pthread_mutex_unlock(&s->lock);
}

/* A statement without parameters or rows. */
static int run(struct store *s, enum store_stmt id, struct error *err)
{
    return store_sql_run(s, id, err, "");
}

static bool in_transaction(const struct store *s)
{
    return sqlite3_get_autocommit(s->db) == 0;
}

static void roll_back(struct store *s)
{
    if (in_transaction(s))
        run(s, STMT_ROLLBACK, NULL);
}

/* Empty the log into the database file, so that it holds no old bytes. */
static int truncate_wal(struct store *s, struct error *err)
{
    int rc = sqlite3_wal_checkpoint_v2(s->db, "main",
                                       SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);

    if ((rc & 0xff) == SQLITE_FULL && s->has_ballast) {
        store_ballast_drop(s);
        rc = sqlite3_wal_checkpoint_v2(s->db, "main",
                                       SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    }
    if (rc != SQLITE_OK)
        return store_sql_error(s, rc, "emptying the write-ahead log", err);
    s->wal_pages = 0;
    s->truncate_due = false;
    return 0;
}

/* Run one operation within the transaction. False when SQLite has undone the
 * whole transaction, and with it the operations before this one. */
static bool run_in_savepoint(struct store *s, struct store_op *op)
{
    op->err = (struct error){0};
    op->rc = run(s, STMT_SAVEPOINT, &op->err);
    if (op->rc == 0)
        op->rc = op->fn(s, op->arg, &op->err);
    if (!in_transaction(s)) {
        if (op->rc >= 0)
            op->rc = error_set(&op->err, ERR_STORAGE, "the change was undone");
        return false;
    }
    if (op->rc < 0)
        run(s, STMT_ROLLBACK_TO, NULL);
    if (run(s, STMT_RELEASE, op->rc < 0 ? NULL : &op->err) < 0)
        op->rc = -1;
    return in_transaction(s);
}

/* What the commit said goes to every operation that it would have stored. */
static void fail_all(struct store_op *const *ops, int n,
                     const struct error *why)
{
    for (int i = 0; i < n; i++) {
        if (ops[i]->rc < 0)
            continue;
        ops[i]->rc = -1;
        ops[i]->err = *why;
    }
}

static void commit_failed(struct store *s, struct store_op *const *ops, int n,
                          struct error *why)
{
    roll_back(s);
    /* A log whose sync failed may still hold the commit after a restart. */
    if (why->code == ERR_STORAGE) {
        atomic_store(&s->failed, true);
        why->code = ERR_OUTCOME_UNKNOWN;
        error_context(why, "the change may or may not be stored");
    }
    fail_all(ops, n, why);
}

/* After the commit: memory follows, erased bytes leave the log. */
static void committed(struct store *s, struct store_op *const *ops, int n)
{
    for (int i = 0; i < n; i++) {
        if (ops[i]->rc < 0)
            continue;
        atomic_fetch_add(&s->n_writes, 1);
        if (ops[i]->kind == STORE_ERASE) {
            s->truncate_due = s->vacuum_due = true;
            store_old_drop(s);
        }
        if (ops[i]->applied)
            ops[i]->applied(s, ops[i]->arg);
    }
}

/* An erasure is not answered before the log is empty, also one that finds
 * nothing left to erase because the time before got only so far. */
static void finish_erasures(struct store *s, struct store_op *const *ops, int n)
{
    struct error err = {0};

    for (int i = 0; i < n; i++) {
        if (ops[i]->kind != STORE_ERASE || !s->truncate_due)
            continue;
        if (atomic_load(&s->failed)) {
            ops[i]->rc = error_set(&ops[i]->err, ERR_OUTCOME_UNKNOWN,
                                   "the log could not be emptied");
        } else if (truncate_wal(s, &err) < 0) {
            ops[i]->rc = -1;
            ops[i]->err = err;
            ops[i]->err.code = ERR_OUTCOME_UNKNOWN;
            error_context(&ops[i]->err,
                          "erased, but not yet from the write-ahead log");
        }
    }
}

/* One transaction over ops. False when SQLite undid all of it: the
 * operations that had succeeded must be run again. */
static bool transact(struct store *s, struct store_op *const *ops, int n)
{
    struct error err = {0};
    int n_ok = 0;

    if (run(s, STMT_BEGIN, &err) < 0) {
        for (int i = 0; i < n; i++)
            ops[i]->rc = 0;
        fail_all(ops, n, &err);
        return true;
    }
    for (int i = 0; i < n; i++) {
        if (!run_in_savepoint(s, ops[i])) {
            roll_back(s);
            return n == 1;
        }
        n_ok += ops[i]->rc >= 0;
    }
    if (n_ok == 0) {
        roll_back(s);
    } else if (run(s, STMT_COMMIT, &err) < 0) {
        commit_failed(s, ops, n, &err);
    } else {
        atomic_fetch_add(&s->n_commits, 1);
        committed(s, ops, n);
    }
    return true;
}

static bool refused(struct store *s, struct store_op *op)
{
    if (atomic_load(&s->failed)) {
        op->rc = error_set(&op->err, ERR_STORAGE,
                           "the database failed earlier: nothing is written "
                           "until the daemon has been started again");
        return true;
    }
    /* The space that an erasure may need is not for adding more. */
    if (op->kind == STORE_WRITE && !s->has_ballast && !store_ballast_make(s)) {
        op->rc = error_set(&op->err, ERR_STORAGE_FULL,
                           "no space left for the data directory");
        return true;
    }
    return false;
}

static bool needs_space(const struct store_op *op)
{
    return op->kind == STORE_ERASE && op->rc < 0 &&
           op->err.code == ERR_STORAGE_FULL;
}

/* Run ops one transaction each; an erasure that finds no space gets that of
 * the ballast. */
static void transact_singly(struct store *s, struct store_op *const *ops, int n)
{
    for (int i = 0; i < n; i++) {
        if (refused(s, ops[i]))
            continue;
        transact(s, ops + i, 1);
        if (needs_space(ops[i]) && s->has_ballast) {
            store_ballast_drop(s);
            transact(s, ops + i, 1);
        }
    }
}

static void write_batch(struct store *s, struct store_op *const *ops, int n)
{
    struct store_op *todo[BATCH_MAX], *again[BATCH_MAX];
    int n_todo = 0, n_again = 0;
    bool stands;

    for (int i = 0; i < n; i++) {
        if (!refused(s, ops[i]))
            todo[n_todo++] = ops[i];
    }
    if (n_todo == 0)
        return;
    stands = transact(s, todo, n_todo);
    for (int i = 0; i < n_todo; i++) {
        if (!stands || needs_space(todo[i]))
            again[n_again++] = todo[i];
    }
    transact_singly(s, again, n_again);
    finish_erasures(s, todo, n_todo);
    if (!s->has_ballast && !atomic_load(&s->failed))
        store_ballast_make(s);
}

/* Work that can wait. True when there may be more of it. */
static bool idle(struct store *s)
{
    if (atomic_load(&s->failed))
        return false;
    if (s->vacuum_due) {
        int64_t n_free = 0;
        s->vacuum_due = false;
        if (run(s, STMT_FREE_PAGES, NULL) > 0)
            n_free = store_sql_int(s, STMT_FREE_PAGES, 0);
        store_sql_done(s, STMT_FREE_PAGES);
        if (n_free > FREE_PAGES_KEPT) {
            int rc = run(s, STMT_VACUUM, NULL);
            while (rc > 0)
                rc = store_sql_next(s, STMT_VACUUM, NULL);
            s->vacuum_due = rc == 0;
        }
        return s->vacuum_due;
    }
    if (s->wal_pages > WAL_PAGES_IDLE) {
        int rc = sqlite3_wal_checkpoint_v2(
            s->db, "main", SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
        s->wal_pages = 0;
        if (rc != SQLITE_OK)
            store_sql_error(s, rc, "checkpoint", NULL);
    }
    return false;
}

/* Take what is waiting, at most BATCH_MAX; wait for it unless there is other
 * work. Returns how many, or -1 when the store closes and nothing waits. */
static int take(struct store *s, struct store_op **ops, bool wait)
{
    int n = 0;

    pthread_mutex_lock(&s->lock);
    while (wait && !s->head && !s->stop && s->ping_done == s->ping_wanted)
        pthread_cond_wait(&s->work, &s->lock);
    while (s->head && n < BATCH_MAX) {
        ops[n] = s->head;
        s->head = ops[n]->next;
        ops[n++]->next = NULL;
    }
    if (!s->head)
        s->tail = &s->head;
    if (n == 0 && s->stop)
        n = -1;
    pthread_mutex_unlock(&s->lock);
    return n;
}

static void add_last(struct store_op **list, struct store_op *op)
{
    while (*list)
        list = &(*list)->next;
    *list = op;
}

/* Reads first: they see what is committed, never what may yet be undone. */
static void serve(struct store *s, struct store_op **ops, int n,
                  struct store_op **backups)
{
    struct store_op *writes[BATCH_MAX];
    int n_writes = 0;

    for (int i = 0; i < n; i++) {
        if (ops[i]->kind == STORE_BACKUP) {
            add_last(backups, ops[i]);
        } else if (ops[i]->kind == STORE_READ) {
            ops[i]->rc = ops[i]->fn(s, ops[i]->arg, &ops[i]->err);
            answer(s, ops + i, 1);
        } else {
            writes[n_writes++] = ops[i];
        }
    }
    if (n_writes > 0) {
        write_batch(s, writes, n_writes);
        answer(s, writes, n_writes);
    }
}

struct backup_args {
    const char *path;
    struct store_copy *copy;
};

static int backup_op(struct store *s, void *arg, struct error *err)
{
    struct backup_args *a = arg;
    int rc;

    if (!a->copy && !(a->copy = store_copy_new(s->db, a->path, err)))
        return -1;
    rc = store_copy_step(a->copy, COPY_PAGES, err);
    if (rc != STORE_AGAIN) {
        store_copy_free(a->copy);
        a->copy = NULL;
    }
    return rc;
}

static void end_backups(struct store *s, struct store_op *list)
{
    while (list) {
        struct store_op *op = list;
        struct backup_args *a = op->arg;
        list = op->next;
        store_copy_free(a->copy);
        op->rc = error_set(&op->err, ERR_STOPPING, "the store is closing");
        answer(s, &op, 1);
    }
}

static void step_backup(struct store *s, struct store_op **list)
{
    struct store_op *op = *list;

    op->rc = op->fn(s, op->arg, &op->err);
    if (op->rc != STORE_AGAIN) {
        *list = op->next;
        answer(s, &op, 1);
    }
}

void *store_thread(void *arg)
{
    struct store *s = arg;
    struct store_op *ops[BATCH_MAX], *backups = NULL;
    bool more = false;
    int n;

    while ((n = take(s, ops, !backups && !more)) >= 0) {
        store_tick(s);
        serve(s, ops, n, &backups);
        if (backups)
            step_backup(s, &backups);
        if (n == 0 || s->wal_pages > WAL_PAGES_MAX)
            more = idle(s);
        else
            more = s->vacuum_due || s->wal_pages > WAL_PAGES_IDLE;
    }
    end_backups(s, backups);
    if (!atomic_load(&s->failed))
        truncate_wal(s, NULL);
    store_db_close(s);
    return NULL;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    store_free(s);
}

bool store_failed(const struct store *s)
{
    return atomic_load(&((struct store *)s)->failed);
}

bool store_alive(struct store *s, int timeout_ms)
{
    struct timespec until;
    uint64_t mine;
    bool alive;
    int rc = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&s->lock);
    mine = ++s->ping_wanted;
    pthread_cond_signal(&s->work);
    while (s->ping_done < mine && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&s->answer, &s->lock, &until);
    alive = s->ping_done >= mine;
    pthread_mutex_unlock(&s->lock);
    return alive;
}

static int find_watcher(const struct store *s, const struct store_watcher *w)
{
    for (int i = 0; i < s->n_watchers; i++)
        if (s->watchers[i].fn == w->fn && s->watchers[i].ctx == w->ctx)
            return i;
    return -1;
}

static int watch_op(struct store *s, void *arg, struct error *err)
{
    const struct store_watcher *w = arg;

    if (find_watcher(s, w) >= 0)
        return 0;
    if (s->n_watchers == STORE_WATCHERS)
        return error_set(err, ERR_QUOTA, "%d watch the database already",
                         STORE_WATCHERS);
    s->watchers[s->n_watchers++] = *w;
    return 0;
}

static int unwatch_op(struct store *s, void *arg, struct error *err)
{
    int i = find_watcher(s, arg);

    (void)err;
    if (i >= 0)
        s->watchers[i] = s->watchers[--s->n_watchers];
    return 0;
}

int store_watch(struct store *s, store_change_fn fn, void *ctx,
                struct error *err)
{
    struct store_watcher w = {fn, ctx};

    return store_run(s, STORE_READ, watch_op, NULL, &w, err);
}

int store_unwatch(struct store *s, store_change_fn fn, void *ctx,
                  struct error *err)
{
    struct store_watcher w = {fn, ctx};

    return store_run(s, STORE_READ, unwatch_op, NULL, &w, err);
}

static int64_t file_bytes(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 ? (int64_t)st.st_size : 0;
}

static int stats_op(struct store *s, void *arg, struct error *err)
{
    struct store_stats *out = arg;

    if (store_sql_run(s, STMT_COUNTS, err, "") < 0)
        return -1;
    out->n_galleries = store_sql_int(s, STMT_COUNTS, 0);
    out->n_subjects = store_sql_int(s, STMT_COUNTS, 1);
    out->n_faces = store_sql_int(s, STMT_COUNTS, 2);
    store_sql_done(s, STMT_COUNTS);
    return 0;
}

int store_stats(struct store *s, struct store_stats *out, struct error *err)
{
    *out = (struct store_stats){0};
    if (store_run(s, STORE_READ, stats_op, NULL, out, err) < 0)
        return -1;
    out->bytes = file_bytes(s->path);
    out->wal_bytes = file_bytes(s->path_wal);
    out->n_commits = atomic_load(&s->n_commits);
    out->n_writes = atomic_load(&s->n_writes);
    return 0;
}

int store_backup(struct store *s, const char *path, struct error *err)
{
    struct backup_args a = {path, NULL};

    return store_run(s, STORE_BACKUP, backup_op, NULL, &a, err);
}
