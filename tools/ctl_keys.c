/* tools/ctl_keys.c - facenetctl keys: edits the file of hashed API keys. The
 * daemon reads it again on SIGHUP. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "core/base/keys.h"
#include "tools/ctl.h"

static const char help[] =
    "usage: facenetctl keys add NAME --rights LIST -f FILE\n"
    "       facenetctl keys list -f FILE\n"
    "       facenetctl keys remove NAME -f FILE\n"
    "The file holds digests; a key itself is printed once, by add. Reload the\n"
    "daemon (SIGHUP, systemctl reload facenetd) to make a change count.\n"
    "  -f, --file FILE    the daemon's keys-file\n"
    "  --rights LIST      of verify, enroll, embed, admin; comma-separated\n";

static int add(const char *file, const char *name, const char *rights_text)
{
    char key[KEYS_TEXT_LEN + 1];
    struct error err = {0};
    unsigned rights;

    if (!rights_text)
        return ctl_fail("keys add needs --rights, as verify,enroll");
    if (keys_rights_parse(rights_text, &rights, &err) < 0 ||
        keys_add(file, name, rights, key, &err) < 0)
        return ctl_fail_error(&err);
    puts(key);
    fputs("This is the only time that the key is shown.\n", stderr);
    return CTL_OK;
}

static int list(const char *file)
{
    struct error err = {0};
    struct keys *keys = keys_load(file, &err);
    char buf[KEYS_RIGHTS_LEN];

    if (!keys)
        return ctl_fail_error(&err);
    for (int i = 0; i < keys_count(keys); i++)
        printf("%-24s %s\n", keys_name(keys, i),
               keys_rights_text(keys_rights(keys, i), buf));
    keys_free(keys);
    return CTL_OK;
}

int ctl_keys(int argc, char **argv)
{
    static const struct option options[] = {
        {"file", required_argument, NULL, 'f'},
        {"rights", required_argument, NULL, 'r'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const char *file = NULL, *rights = NULL, *verb, *name;
    struct error err = {0};
    int opt, n;

    while ((opt = getopt_long(argc, argv, "f:h", options, NULL)) != -1) {
        if (opt == 'f')
            file = optarg;
        else if (opt == 'r')
            rights = optarg;
        else if (opt == 'h')
            return fputs(help, stdout) < 0 ? CTL_ERROR : CTL_OK;
        else
            return CTL_ERROR;
    }
    n = argc - optind;
    verb = n > 0 ? argv[optind] : "";
    name = n > 1 ? argv[optind + 1] : NULL;
    if (!file)
        return ctl_fail("keys needs -f FILE");
    if (strcmp(verb, "list") == 0 && n == 1)
        return list(file);
    if (strcmp(verb, "add") == 0 && n == 2)
        return add(file, name, rights);
    if (strcmp(verb, "remove") == 0 && n == 2)
        return keys_remove(file, name, &err) < 0 ? ctl_fail_error(&err)
                                                 : CTL_OK;
    return ctl_fail("keys takes add NAME, list, or remove NAME; see keys "
                    "--help");
}
