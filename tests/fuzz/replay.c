/* tests/fuzz/replay.c - a fuzz target without libFuzzer, so that every run of
 * the tests goes through its corpus with any compiler: each file as it is,
 * then changed a little, the same way every time. A target that finds
 * something aborts; the file it stood at is named before.
 *   replay_TARGET DIRECTORY */
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    INPUT_MAX = 1 << 17,
    MUTATIONS = 16 /* of each file */
};

int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max,
                               unsigned seed) __attribute__((weak));

static uint32_t state = 1;
static char at[600]; /* what is being run */

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % below;
}

/* What a target's own mutator expects to find in libFuzzer. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max)
{
    size_t i = len > 0 ? draw((uint32_t)len) : 0;

    switch (draw(4)) {
    case 0: /* end early */
        return i;
    case 1: /* a byte more */
        if (len >= max)
            break;
        memmove(data + i + 1, data + i, len - i);
        data[i] = (uint8_t)draw(256);
        return len + 1;
    case 2: /* a bit */
        if (len > 0)
            data[i] ^= (uint8_t)(1u << draw(8));
        break;
    default: /* a value at an edge */
        if (len > 0)
            data[i] = (const uint8_t[]){0, 1, 0x7f, 0x80, 0xff}[draw(5)];
        break;
    }
    return len;
}

/* The input in a block of just its size: a read beyond it is then seen. */
static void run(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);

    if (!copy) {
        perror("replay");
        exit(1);
    }
    if (len > 0)
        memcpy(copy, data, len);
    LLVMFuzzerTestOneInput(copy, len);
    free(copy);
}

static void replay(const char *path, const uint8_t *data, size_t len)
{
    static uint8_t buf[INPUT_MAX];

    snprintf(at, sizeof(at), "%s", path);
    run(data, len);
    for (unsigned i = 0; i < MUTATIONS; i++) {
        size_t n;

        snprintf(at, sizeof(at), "%s, change %u", path, i);
        memcpy(buf, data, len);
        n = LLVMFuzzerCustomMutator
                ? LLVMFuzzerCustomMutator(buf, len, sizeof(buf), draw(1 << 20))
                : LLVMFuzzerMutate(buf, len, sizeof(buf));
        run(buf, n);
    }
}

static int replay_file(const char *path)
{
    static uint8_t buf[INPUT_MAX];
    FILE *f = fopen(path, "rb");
    size_t len;

    if (!f) {
        perror(path);
        return -1;
    }
    len = fread(buf, 1, sizeof(buf), f);
    if (ferror(f) || len == sizeof(buf)) {
        fprintf(stderr, "%s: not read, or larger than %d bytes\n", path,
                INPUT_MAX - 1);
        fclose(f);
        return -1;
    }
    fclose(f);
    replay(path, buf, len);
    return 0;
}

/* abort() comes here first: say which input it was. */
static void say_where(int signal_number)
{
    static const char text[] = "\nreplay: stopped at ";
    ssize_t n = write(2, text, sizeof(text) - 1);

    n += write(2, at, strlen(at));
    n += write(2, "\n", 1);
    (void)n;
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static int visible(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

int main(int argc, char **argv)
{
    struct dirent **names;
    char path[512];
    int n, failed = 0;

    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
        return 64;
    }
    signal(SIGABRT, say_where);
    if (LLVMFuzzerInitialize)
        LLVMFuzzerInitialize(&argc, &argv);
    run(NULL, 0);
    n = scandir(argv[1], &names, visible, alphasort);
    if (n < 1) {
        fprintf(stderr, "%s: no inputs\n", argv[1]);
        return 1;
    }
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof(path), "%s/%s", argv[1], names[i]->d_name);
        failed |= replay_file(path) != 0;
        free(names[i]);
    }
    free(names);
    printf("%d inputs, %d changed ones\n", n, n * MUTATIONS);
    return failed;
}
