/* config/config_print.c - the configuration as text: --help, --print-config,
 * and which changes wait for a restart. Writes only to the stream or buffer
 * that it is given. */
#include "config/config.h"

#include <string.h>

#include "config/config_priv.h"

enum {
    HELP_INDENT = 8,
    HELP_WIDTH = 78
};

/* The value as facenetd.conf takes it. Texts are quoted where they are not
 * one plain word. */
static void print_value(const struct config *c, const struct config_key *k,
                        FILE *out)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789._/:@%+,-";
    char number[CONFIG_NUMBER_MAX];
    const char *text;

    switch (k->type) {
    case TYPE_INT:
        fprintf(out, "%lld", (long long)*config_int(c, k));
        break;
    case TYPE_SIZE:
        config_size_text(*config_int(c, k), number);
        fputs(number, out);
        break;
    case TYPE_REAL:
        config_real_text(*config_real(c, k), number);
        fputs(number, out);
        break;
    case TYPE_BOOL:
        fputs(*config_bool(c, k) ? "on" : "off", out);
        break;
    case TYPE_TEXT:
    case TYPE_CHOICE:
        text = *config_text(c, k);
        if (*text && text[strspn(text, plain)] == '\0') {
            fputs(text, out);
            break;
        }
        fputc('"', out);
        for (; *text; text++) {
            if (*text == '"' || *text == '\\')
                fputc('\\', out);
            fputc(*text, out);
        }
        fputc('"', out);
        break;
    case TYPE_SECTION:
        break;
    }
}

void config_print(const struct config *c, FILE *out)
{
    for (int i = 0; i < config_n_keys; i++) {
        const struct config_key *k = &config_keys[i];
        if (k->type == TYPE_SECTION) {
            fprintf(out, "%s# %s\n", i ? "\n" : "", k->key);
            continue;
        }
        fprintf(out, "%s = ", k->key);
        print_value(c, k, out);
        fputc('\n', out);
    }
}

/* Words of text, wrapped, every line indented. */
static void print_wrapped(const char *text, FILE *out)
{
    int column = 0;

    while (*text) {
        int len = (int)strcspn(text, " ");
        if (column && column + 1 + len > HELP_WIDTH) {
            fputc('\n', out);
            column = 0;
        }
        column += column ? fprintf(out, " %.*s", len, text)
                         : fprintf(out, "%*s%.*s", HELP_INDENT, "", len, text);
        text += len;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

static void print_key(const struct config *defaults, const struct config_key *k,
                      FILE *out)
{
    char range[2 * CONFIG_NUMBER_MAX + 8];

    fprintf(out, "    --%s ", k->key);
    switch (k->type) {
    case TYPE_INT:
    case TYPE_SIZE:
    case TYPE_REAL:
        config_range_text(k, range, sizeof(range));
        fprintf(out, "%s   (%s; ", k->type == TYPE_SIZE ? "SIZE" : "N", range);
        break;
    case TYPE_BOOL:
        fprintf(out, "on|off   (");
        break;
    case TYPE_CHOICE:
        fprintf(out, "%s   (", k->choices);
        break;
    case TYPE_TEXT:
    case TYPE_SECTION:
        fprintf(out, "TEXT   (");
        break;
    }
    fprintf(out, "default ");
    print_value(defaults, k, out);
    fprintf(out, "%s)\n", k->reload == RELOAD ? "; SIGHUP applies it" : "");
    print_wrapped(k->help, out);
}

void config_print_help(FILE *out)
{
    struct config *defaults = config_new(NULL);

    fprintf(out,
            "usage: facenetd [--config FILE] [--KEY VALUE ...]\n"
            "\n"
            "Serves face verification over HTTP. Settings come from FILE, "
            "where they read\n"
            "'key = value', and from the command line, which wins. A switch "
            "also takes\n"
            "--KEY and --no-KEY. A SIZE is in bytes; K, M or G may follow.\n"
            "\n"
            "    --config FILE\n"
            "        read settings from FILE; without it no file is read\n"
            "    --print-config\n"
            "        print every setting as it would be used, and exit\n"
            "    --help, --version\n"
            "        print, and exit\n");
    for (int i = 0; defaults && i < config_n_keys; i++) {
        if (config_keys[i].type == TYPE_SECTION)
            fprintf(out, "\n%s\n", config_keys[i].key);
        else
            print_key(defaults, &config_keys[i], out);
    }
    config_free(defaults);
}

static bool same(const struct config *a, const struct config *b,
                 const struct config_key *k)
{
    switch (k->type) {
    case TYPE_INT:
    case TYPE_SIZE:
        return *config_int(a, k) == *config_int(b, k);
    case TYPE_REAL: /* both finite */
        return *config_real(a, k) == *config_real(b, k);
    case TYPE_BOOL:
        return *config_bool(a, k) == *config_bool(b, k);
    case TYPE_TEXT:
    case TYPE_CHOICE:
        return strcmp(*config_text(a, k), *config_text(b, k)) == 0;
    case TYPE_SECTION:
        break;
    }
    return true;
}

int config_need_restart(const struct config *a, const struct config *b,
                        char *buf, size_t len_buf)
{
    size_t used = 0;
    int n = 0;

    if (len_buf)
        buf[0] = '\0';
    for (int i = 0; i < config_n_keys; i++) {
        const struct config_key *k = &config_keys[i];
        if (k->reload == RELOAD || same(a, b, k))
            continue;
        if (used < len_buf)
            used += (size_t)snprintf(buf + used, len_buf - used, "%s%s",
                                     n ? "," : "", k->key);
        n++;
    }
    return n;
}

int config_keep_restart(struct config *next, const struct config *running,
                        struct error *err)
{
    for (int i = 0; i < config_n_keys; i++) {
        const struct config_key *k = &config_keys[i];
        if (k->reload == RELOAD || same(next, running, k))
            continue;
        if (config_is_text(k)) {
            if (config_set(next, k, *config_text(running, k), err) < 0)
                return -1;
        } else if (k->type == TYPE_REAL) {
            *config_real(next, k) = *config_real(running, k);
        } else if (k->type == TYPE_BOOL) {
            *config_bool(next, k) = *config_bool(running, k);
        } else {
            *config_int(next, k) = *config_int(running, k);
        }
    }
    return 0;
}
