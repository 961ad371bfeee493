/* tests/fuzz/fuzz_config.c - facenetd.conf, the command line and the file of
 * API keys from any bytes. What loads must print and load back the same. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "core/base/keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(const struct config *c)
{
    struct error err = {0};
    struct config *back;
    char *text = NULL, names[64];
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    config_print(c, out);
    fclose(out);
    back = config_parse("printed", text, len, &err);
    assert(back);
    /* Every key that needs a restart, which are most, must be equal. */
    assert(config_need_restart(c, back, names, sizeof(names)) == 0);
    config_free(back);
    free(text);
}

/* The bytes as words, cut at each newline. */
static void options(const char *data, size_t size)
{
    enum {
        MAX_WORDS = 32
    };
    char *argv[MAX_WORDS + 1] = {"facenetd"};
    char *copy = strndup(data, size), *save = NULL;
    struct config_command cmd;
    struct error err = {0};
    struct config *c;
    int argc = 1;

    for (char *w = strtok_r(copy, "\n", &save); w && argc < MAX_WORDS;
         w = strtok_r(NULL, "\n", &save))
        argv[argc++] = w;
    if (config_command(argc, argv, &cmd, &err) == 0) {
        c = config_load(NULL, argc, argv, &err);
        if (c)
            round_trip(c);
        else
            assert(err.code != ERR_NONE && err.text[0]);
        config_free(c);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    struct config *c = config_parse("f", (const char *)data, size, &err);
    struct keys *keys;
    const char *name;
    unsigned rights;

    if (c)
        round_trip(c);
    else
        assert(err.code == ERR_CONFIG && err.text[0] &&
               !strchr(err.text, '\n'));
    config_free(c);
    options((const char *)data, size);

    keys = keys_parse("f", (const char *)data, size, &err);
    for (int i = 0; keys && i < keys_count(keys); i++)
        assert(keys_rights(keys, i) && *keys_name(keys, i));
    keys_check(keys, "guess", &rights, &name);
    keys_free(keys);
    return 0;
}
