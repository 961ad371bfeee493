/* tests/unit/card_fixture.h - the card that is played (tests/fake_gpu.c), what
 * it is told and tells, and a tiny network for it. */
#ifndef TESTS_UNIT_CARD_FIXTURE_H
#define TESTS_UNIT_CARD_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <math.h>

#include "daemon/card.h"
#include "daemon/log.h"
#include "daemon/runner.h"

enum {
    SIDE = 4,
    PIXELS = 3 * SIDE * SIDE,
    DIM = 2,
    SLOW_MS = 100000 /* a run may take this long before it hangs */
};

static char dir[] = "/tmp/facenetd-card-XXXXXX";
static char control[256], fake[4096];
static struct device *cpu;

static inline void tell(const char *words)
{
    char path[300];
    FILE *f;

    snprintf(path, sizeof(path), "%s.new", control);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(words, f);
    fclose(f);
    assert_int_equal(rename(path, control), 0);
}

static inline int seen(const char *what)
{
    char path[300], word[32];
    int value, found = 0;
    FILE *f;

    snprintf(path, sizeof(path), "%s.seen", control);
    f = fopen(path, "r");
    while (f && fscanf(f, "%31s %d", word, &value) == 2)
        if (strcmp(word, what) == 0)
            found = value;
    if (f)
        fclose(f);
    return found;
}

/* y0, y1: sums of the red and the green plane. */
static inline struct model *tiny(void)
{
    struct error err = {0};
    struct shape shape = shape_of(2, DIM, PIXELS, 0, 0);
    struct op flat = {.type = OP_RESHAPE}, gemm = {.type = OP_GEMM};
    struct model *m = calloc(1, sizeof(*m));
    float *w = calloc(DIM * PIXELS, sizeof(float)), row[DIM], *chip;
    const float *chips[1];
    struct embedder *e;
    int in, x, y;

    for (int i = 0; i < SIDE * SIDE; i++) {
        w[i] = 1;
        w[PIXELS + SIDE * SIDE + i] = 1;
    }
    m->graph = graph_new(&err);
    in = graph_add_input(m->graph, "data", 3, SIDE, SIDE, &err);
    flat.u.reshape.to = shape_of(2, 0, -1, 0, 0);
    x = graph_add_node(m->graph, "flat", &flat, &in, 1, "flat", &err);
    y = graph_add_weight(m->graph, "w", &shape, w, &err);
    y = graph_add_node(m->graph, "dense", &gemm, (int[]){x, y}, 2, "out", &err);
    if (y < 0 || graph_add_output(m->graph, y, &err) < 0)
        fail_msg("%s", err.text);
    m->contract = (struct contract){.crop = CROP_ARCFACE,
                                    .scale = SCALE_NONE,
                                    .width = SIDE,
                                    .height = SIDE,
                                    .dim = DIM,
                                    .n_golden = DIM};
    m->contract.golden = calloc(DIM, sizeof(float));
    chip = model_golden(m, row, &err);
    e = embedder_new(cpu, m, 1, PRECISION_F32, &err);
    chips[0] = chip;
    assert_non_null(e);
    assert_int_equal(embedder_run(e, chips, 1, m->contract.golden, NULL, &err),
                     0);
    embedder_free(e);
    free(chip);
    strcpy(m->id, "tiny");
    return m;
}

static inline struct card *open_card(const char *device, int timeout_ms,
                                     bool required)
{
    struct card_options opt = {.device = device,
                               .plugin = fake,
                               .gallery_bytes = (int64_t)64 << 20,
                               .timeout_ms = timeout_ms,
                               .required = required};
    struct error err = {0};
    struct card *c = card_new(&opt, &err);

    if (!c)
        fail_msg("%s", err.text);
    return c;
}

static inline struct runner *open_runner(struct card *c, enum precision p)
{
    struct runner_options opt = {.cpu = cpu,
                                 .cpu_precision = PRECISION_F32,
                                 .cpu_batch = 4,
                                 .card = c,
                                 .card_precision = p,
                                 .card_batch = 8};
    struct error err = {0};
    struct runner *r = runner_new(&opt, tiny(), &err);

    if (!r)
        fail_msg("%s", err.text);
    return r;
}

/* n faces, well answered. */
static inline void run_good(struct runner *r, int n)
{
    float chips[16][PIXELS], out[16 * DIM];
    const float *at[16];
    struct error err = {0};
    int bad = -1;

    for (int i = 0; i < 16; i++) {
        for (int p = 0; p < PIXELS; p++)
            chips[i][p] = (float)(p < SIDE * SIDE ? i + 1 : 1);
        at[i] = chips[i];
    }
    if (runner_run(r, at, n, out, &bad, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(bad, 0);
    for (int i = 0; i < n; i++) {
        float len = sqrtf((float)((i + 1) * (i + 1) + 1));
        assert_true(fabsf(out[2 * i] - (float)(i + 1) / len) < 1e-5f);
        assert_true(fabsf(out[2 * i + 1] - 1 / len) < 1e-5f);
    }
}

/* Between two looks at something. */
static inline void pause_ms(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static inline int fixture_open(void **state)
{
    struct device_options one = {.n_threads = 1};
    ssize_t n = readlink("/proc/self/exe", fake, sizeof(fake) - 32);

    (void)state;
    if (n < 0 || !mkdtemp(dir))
        return -1;
    fake[n] = '\0';
    strcpy(strrchr(fake, '/') + 1, "../fake_gpu.so");
    snprintf(control, sizeof(control), "%s/control", dir);
    setenv("FACENETD_FAKE_GPU", control, 1);
    log_open(LOG_LEVEL_ERROR);
    cpu = backend_cpu.device_open(&one, NULL);
    return cpu ? 0 : -1;
}

static inline int fixture_close(void **state)
{
    char seen_path[300];

    (void)state;
    while (seen("now") > 0) /* a run that nobody waits for any more */
        pause_ms();
    backend_cpu.device_close(cpu);
    snprintf(seen_path, sizeof(seen_path), "%s.seen", control);
    unlink(seen_path);
    unlink(control);
    return rmdir(dir);
}

#endif
