/* core/base/keys.h - API keys: the file that holds their hashes, and the
 * check of a key that a client sent.
 * A line is name:sha256:rights, as "door:9f86…:verify,enroll"; '#' starts a
 * comment line. Only digests are kept, so the file cannot be turned back into
 * keys. A loaded set is immutable. Used by the daemon and by facenetctl.
 * Thread: any. */
#ifndef CORE_BASE_KEYS_H
#define CORE_BASE_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/error.h"

enum keys_right {
    KEYS_VERIFY = 1, /* verify, identify, detect */
    KEYS_ENROLL = 2, /* add, change and erase subjects and faces */
    KEYS_ADMIN = 4,  /* everything */
    KEYS_EMBED = 8   /* embeddings out of the daemon */
};

enum {
    KEYS_NAME_MAX = 64,     /* [A-Za-z0-9][A-Za-z0-9._-]{0,63} */
    KEYS_TEXT_LEN = 4 + 64, /* "fnd_" and 256 random bits in hex */
    KEYS_SENT_MAX = 256,    /* longest key that is looked at */
    KEYS_RIGHTS_LEN = 64,   /* room for every right as text */
    KEYS_MAX = 1024         /* keys in a file */
};

struct keys; /* opaque */

/* Refuses a file that others may read or write, except that group access is
 * let pass below $CREDENTIALS_DIRECTORY, where systemd makes the modes.
 * ERR_FILE, ERR_CONFIG (names the line). */
struct keys *keys_load(const char *path, struct error *err);
/* The text of such a file, called name in errors. */
struct keys *keys_parse(const char *name, const char *text, size_t len,
                        struct error *err);
void keys_free(struct keys *keys); /* NULL is fine */

/* Is text one of the keys? Fills *rights (admin brings all the others) and
 * *name (borrowed from keys). Time does not depend on which key it is, nor on
 * how much of one is right. keys NULL: no. */
bool keys_check(const struct keys *keys, const char *text, unsigned *rights,
                const char **name);

int keys_count(const struct keys *keys);
const char *keys_name(const struct keys *keys, int i);
unsigned keys_rights(const struct keys *keys, int i); /* as written */

/* "verify,enroll" to bits and back. ERR_USAGE names the unknown word. */
int keys_rights_parse(const char *text, unsigned *rights, struct error *err);
const char *keys_rights_text(unsigned rights, char buf[KEYS_RIGHTS_LEN]);

/* Make a key, put its digest into the file (made with mode 0600 when missing)
 * and hand the key itself out, the only time it is seen. The file is replaced
 * atomically; comments stay; editors exclude each other.
 * ERR_CONFLICT (name in use), ERR_USAGE (name, rights), ERR_FILE, ERR_CONFIG.
 */
int keys_add(const char *path, const char *name, unsigned rights,
             char key_out[KEYS_TEXT_LEN + 1], struct error *err);
/* ERR_NOT_FOUND where no key has the name. */
int keys_remove(const char *path, const char *name, struct error *err);

#endif
