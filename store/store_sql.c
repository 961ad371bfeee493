/* store/store_sql.c - prepared statements, error codes and checks of the
 * store. Everything here runs on the store's thread, but for the checks of
 * arguments, which run in the caller before anything is queued. */
#include "store/store_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const statements[STMT_COUNT] = {
#define STMT(name, sql) [STMT_##name] = sql,
#include "store/statements.def"
#undef STMT
};

/* After start-up nothing but rows may change: whatever text might still be
 * compiled (SQLite compiles again when it finds a changed schema) can
 * neither attach files nor change settings or tables. */
static int authorise(void *ctx, int action, const char *a, const char *b,
                     const char *db, const char *trigger)
{
    (void)ctx;
    (void)a;
    (void)b;
    (void)db;
    (void)trigger;
    switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_INSERT:
    case SQLITE_UPDATE:
    case SQLITE_DELETE:
    case SQLITE_FUNCTION:
    case SQLITE_TRANSACTION:
    case SQLITE_SAVEPOINT:
        return SQLITE_OK;
    default:
        return SQLITE_DENY;
    }
}

int store_sql_prepare(struct store *s, struct error *err)
{
    for (int i = 0; i < STMT_COUNT; i++) {
        int rc = sqlite3_prepare_v3(s->db, statements[i], -1,
                                    SQLITE_PREPARE_PERSISTENT, &s->st[i], NULL);
        if (rc != SQLITE_OK)
            return store_sql_error(s, rc, "preparing a statement", err);
    }
    sqlite3_set_authorizer(s->db, authorise, NULL);
    return 0;
}

void store_sql_finalize(struct store *s)
{
    for (int i = 0; i < STMT_COUNT; i++) {
        sqlite3_finalize(s->st[i]);
        s->st[i] = NULL;
    }
}

int store_sql_error(struct store *s, int rc, const char *doing,
                    struct error *err)
{
    const char *why = sqlite3_errstr(rc);

    switch (rc & 0xff) {
    case SQLITE_FULL:
        return error_set(err, ERR_STORAGE_FULL,
                         "%s: no space left for the data directory", doing);
    case SQLITE_NOMEM:
        return error_set(err, ERR_NOMEM, "%s: out of memory", doing);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        atomic_store(&s->failed, true);
        return error_set(err, ERR_STORAGE,
                         "%s: the database is damaged (%s); restore a backup",
                         doing, why);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return error_set(err, ERR_LOCKED,
                         "%s: another process has the database open", doing);
    case SQLITE_IOERR:
        if (rc == SQLITE_IOERR_NOMEM)
            return error_set(err, ERR_NOMEM, "%s: out of memory", doing);
        /* The kernel may have dropped what it could not write, and say
         * "done" the next time: nothing more is written. */
        if (rc != SQLITE_IOERR_READ && rc != SQLITE_IOERR_SHORT_READ)
            atomic_store(&s->failed, true);
        break;
    case SQLITE_TOOBIG:
        return error_set(err, ERR_TOO_LARGE, "%s: the row is too large", doing);
    default:
        break;
    }
    return error_set(err, ERR_STORAGE, "%s: %s (SQLite %d)", doing, why, rc);
}

static int bind(sqlite3_stmt *st, const char *types, va_list ap)
{
    int rc = SQLITE_OK;

    for (int i = 1; *types && rc == SQLITE_OK; i++, types++) {
        switch (*types) {
        case 'i':
            rc = sqlite3_bind_int64(st, i, va_arg(ap, int64_t));
            break;
        case 'd':
            rc = sqlite3_bind_double(st, i, va_arg(ap, double));
            break;
        case 't': /* NULL binds NULL */
            rc = sqlite3_bind_text(st, i, va_arg(ap, const char *), -1,
                                   SQLITE_STATIC);
            break;
        default: {
            const void *data = va_arg(ap, const void *);
            size_t len = va_arg(ap, size_t);
            rc = sqlite3_bind_blob64(st, i, data, len, SQLITE_STATIC);
            break;
        }
        }
    }
    return rc;
}

int store_sql_next(struct store *s, enum store_stmt id, struct error *err)
{
    int rc = sqlite3_step(s->st[id]);

    if (rc == SQLITE_ROW)
        return 1;
    store_sql_done(s, id);
    if (rc == SQLITE_DONE)
        return 0;
    return store_sql_error(s, rc, "reading or writing the database", err);
}

int store_sql_run(struct store *s, enum store_stmt id, struct error *err,
                  const char *types, ...)
{
    va_list ap;
    int rc;

    va_start(ap, types);
    rc = bind(s->st[id], types, ap);
    va_end(ap);
    if (rc != SQLITE_OK) {
        store_sql_done(s, id);
        return store_sql_error(s, rc, "preparing a row", err);
    }
    return store_sql_next(s, id, err);
}

void store_sql_done(struct store *s, enum store_stmt id)
{
    sqlite3_reset(s->st[id]);
    sqlite3_clear_bindings(s->st[id]); /* they point into callers' memory */
}

int64_t store_sql_int(struct store *s, enum store_stmt id, int col)
{
    return sqlite3_column_int64(s->st[id], col);
}

void store_sql_text(struct store *s, enum store_stmt id, int col, char *buf,
                    size_t len_buf)
{
    const unsigned char *text = sqlite3_column_text(s->st[id], col);
    size_t len = text ? strlen((const char *)text) : 0;

    if (len >= len_buf)
        len = len_buf - 1;
    if (len)
        memcpy(buf, text, len);
    buf[len] = '\0';
}

bool store_sql_blob(struct store *s, enum store_stmt id, int col, void *buf,
                    size_t len)
{
    const void *data = sqlite3_column_blob(s->st[id], col);

    if (!data || (size_t)sqlite3_column_bytes(s->st[id], col) != len)
        return false;
    memcpy(buf, data, len);
    return true;
}

/* ASCII only: no two ids look alike. */
bool store_id_valid(const char *id)
{
    static const char alnum[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "abcdefghijklmnopqrstuvwxyz0123456789";
    static const char rest[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                               "abcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t len;

    if (!id || !*id || !strchr(alnum, *id))
        return false;
    len = strspn(id, rest);
    return id[len] == '\0' && len <= STORE_ID_MAX;
}

int store_check_id(const char *what, const char *id, struct error *err)
{
    if (store_id_valid(id))
        return 0;
    return error_set(err, ERR_BAD_FIELD,
                     "%s: an id is 1 to %d characters of A-Z a-z 0-9 . _ - "
                     "and starts with a letter or digit",
                     what, STORE_ID_MAX);
}

/* Bytes of the UTF-8 character at p, 0 when it is not one (overlong forms,
 * surrogates, above U+10FFFF). */
static int utf8_len(const unsigned char *p)
{
    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        return (p[1] & 0xc0) == 0x80 ? 2 : 0;
    if ((p[0] & 0xf0) == 0xe0) {
        if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f))
            return 0;
        return (p[1] & 0xc0) == 0x80 && (p[2] & 0xc0) == 0x80 ? 3 : 0;
    }
    if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        if ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
            return 0;
        return (p[1] & 0xc0) == 0x80 && (p[2] & 0xc0) == 0x80 &&
                       (p[3] & 0xc0) == 0x80
                   ? 4
                   : 0;
    }
    return 0;
}

static int check_text(const char *what, const char *text, size_t max,
                      struct error *err)
{
    const unsigned char *p = (const unsigned char *)text;

    if (!text)
        return 0;
    if (strlen(text) > max)
        return error_set(err, ERR_BAD_FIELD,
                         "%s: %zu bytes, at most %zu are allowed", what,
                         strlen(text), max);
    while (*p) {
        int len = utf8_len(p);
        if (!len)
            return error_set(err, ERR_BAD_FIELD, "%s: not valid UTF-8", what);
        p += len;
    }
    return 0;
}

int store_check_name(const char *name, struct error *err)
{
    return check_text("name", name, STORE_NAME_MAX, err);
}

int store_check_metadata(const char *text, struct error *err)
{
    return check_text("metadata", text, STORE_METADATA_MAX, err);
}

int store_check_limit(int limit, struct error *err)
{
    if (limit >= 1 && limit <= STORE_PAGE_MAX)
        return 0;
    return error_set(err, ERR_BAD_FIELD, "limit: %d is not within 1 to %d",
                     limit, STORE_PAGE_MAX);
}

static bool hex_id_valid(const char *id)
{
    return id && strlen(id) == STORE_MODEL_ID_LEN &&
           strspn(id, "0123456789abcdef") == STORE_MODEL_ID_LEN;
}

int store_check_model(const char *id, struct error *err)
{
    if (hex_id_valid(id))
        return 0;
    return error_set(err, ERR_BAD_FIELD,
                     "model id: not %d lower-case hex digits",
                     STORE_MODEL_ID_LEN);
}

int store_check_json(struct store *s, const char *text, struct error *err)
{
    bool is_object;

    if (!text || !*text)
        return 0;
    if (store_sql_run(s, STMT_JSON_OBJECT, err, "t", text) < 0)
        return -1;
    is_object = store_sql_int(s, STMT_JSON_OBJECT, 0) != 0;
    store_sql_done(s, STMT_JSON_OBJECT);
    if (!is_object)
        return error_set(err, ERR_BAD_FIELD, "metadata: not a JSON object");
    return 0;
}

void store_tell(struct store *s, const struct store_change *change)
{
    for (int i = 0; i < s->n_watchers; i++)
        s->watchers[i].fn(s->watchers[i].ctx, change);
}
