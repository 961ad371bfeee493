/* bench/bench_gallery.c - identify over many enrolled faces, against what
 * the memory can deliver, and the time to load them from the store.
 *     bench_gallery [rows ...]     default 100000; 1000000 at 128 needs
 *                                  about 600 MB
 * The bound is a plain sum over as many floats as the gallery's rows have,
 * measured in the same run: no search reads faster. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/face/distance.h"
#include "store/gallery.h"

#define MODEL "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

enum {
    RUNS = 21,
    PER_SUBJECT = 4,
    PER_ENROLL = 100,
    LANES = 32
};

static uint64_t seed = 1;
static volatile float sink; /* keeps the sum from being left out */

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void die(const struct error *err)
{
    fprintf(stderr, "bench_gallery: %s\n", err->text);
    exit(1);
}

static void fill(float *v, int dim)
{
    for (int i = 0; i < dim; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
        v[i] = (float)(int32_t)(seed >> 32) / 2147483648.0f;
    }
    if (!distance_normalise(v, (size_t)dim))
        abort();
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void print(const char *name, int dim, const char *what, long n,
                  const char *unit, double *v, int n_v)
{
    qsort(v, (size_t)n_v, sizeof(*v), by_value);
    printf("%s,%d-d%s,%ld,%s,%.3f,%.3f\n", name, dim, what, n, unit, v[n_v / 2],
           v[n_v * 9 / 10]);
    fflush(stdout);
}

static void measure_bound(long n, int dim)
{
    size_t len = (size_t)n * (size_t)dim / LANES * LANES;
    float *rows = malloc(len * sizeof(float));
    double ms[RUNS];

    if (!rows) {
        fprintf(stderr, "bench_gallery: no memory for the bound, skipped\n");
        return;
    }
    for (size_t i = 0; i < len; i++)
        rows[i] = 1.0f;
    for (int r = 0; r < RUNS; r++) {
        float acc[LANES] = {0};
        double start = now_ms();
        for (size_t i = 0; i < len; i += LANES) {
            for (int j = 0; j < LANES; j++)
                acc[j] += rows[i + (size_t)j];
        }
        ms[r] = now_ms() - start;
        for (int j = 0; j < LANES; j++)
            sink += acc[j];
    }
    print("read_bound", dim, "", n, "ms", ms, RUNS);
    free(rows);
}

static void measure_search(long n, int dim)
{
    static struct gallery_hit hits[100];
    struct error err = {0};
    struct gallery *g = gallery_new(MODEL, dim, &err);
    struct gallery_size size;
    double ms[RUNS], start, add_us, mib;
    float v[STORE_DIM_MAX];
    char id[32];

    if (!g)
        die(&err);
    add_us = 0;
    for (long i = 0; i < n; i++) {
        fill(v, dim);
        snprintf(id, sizeof(id), "s%ld", i / PER_SUBJECT);
        start = now_ms();
        if (gallery_add(g, "g", id, "", i + 1, v, &err) < 0)
            die(&err);
        add_us += (now_ms() - start) * 1e3;
    }
    add_us /= (double)n;
    print("gallery_add", dim, "", n, "us", &add_us, 1);
    gallery_size(g, &size);
    mib = (double)size.bytes / (1 << 20);
    print("gallery_memory", dim, "", n, "MiB", &mib, 1);
    for (int limit = 1; limit <= 100; limit *= 10) {
        for (int r = 0; r < RUNS; r++) {
            fill(v, dim);
            start = now_ms();
            if (gallery_search(g, "g", v, 4, limit, hits, &err) < 0)
                die(&err);
            ms[r] = now_ms() - start;
        }
        snprintf(id, sizeof(id), " top %d", limit);
        print("identify", dim, id, n, "ms", ms, RUNS);
    }
    for (int r = 0; r < RUNS; r++) {
        fill(v, dim);
        snprintf(id, sizeof(id), "s%ld", (long)r * (n / PER_SUBJECT / RUNS));
        start = now_ms();
        if (gallery_subject(g, "g", id, v, hits, &err) < 0)
            die(&err);
        ms[r] = (now_ms() - start) * 1e3;
    }
    print("verify_subject", dim, "", n, "us", ms, RUNS);
    for (int r = 0; r < RUNS; r++) {
        start = now_ms();
        if (gallery_remove_face(g, 1 + r * (n / RUNS), &err) < 0)
            die(&err);
        ms[r] = (now_ms() - start) * 1e3;
    }
    print("gallery_remove", dim, "", n, "us", ms, RUNS);
    gallery_free(g);
}

static void enroll_all(struct store *s, long n, int dim)
{
    static float v[PER_ENROLL][STORE_DIM_MAX];
    static struct store_new_face faces[PER_ENROLL];
    struct error err = {0};
    int64_t ids[PER_ENROLL];
    char id[32];

    for (long i = 0; i < n; i += PER_ENROLL) {
        struct store_enroll e = {.gallery = "g",
                                 .subject = id,
                                 .model_id = MODEL,
                                 .faces = faces,
                                 .n_faces = PER_ENROLL};
        snprintf(id, sizeof(id), "s%ld", i);
        for (int j = 0; j < PER_ENROLL; j++) {
            fill(v[j], dim);
            faces[j].embedding = v[j];
            faces[j].dim = dim;
        }
        if (store_enroll(s, &e, ids, NULL, NULL, &err) < 0)
            die(&err);
    }
}

static void measure_load(long n, int dim)
{
    char dir[] = "/tmp/bench_gallery.XXXXXX", command[64];
    struct store_options opt = {.dir = mkdtemp(dir), .relaxed = true};
    struct error err = {0};
    struct store *s = store_open(&opt, &err);
    double open_ms[5], load_ms[5];

    if (!s)
        die(&err);
    enroll_all(s, n, dim);
    for (int r = 0; r < 5; r++) {
        struct gallery *g = gallery_new(MODEL, dim, &err);
        double start;
        store_close(s);
        start = now_ms();
        s = store_open(&opt, &err);
        open_ms[r] = now_ms() - start;
        if (!s || !g || gallery_load(g, s, &err) < 0)
            die(&err);
        load_ms[r] = now_ms() - start - open_ms[r];
        gallery_free(g);
    }
    store_close(s);
    print("store_open", dim, "", n, "ms", open_ms, 5);
    print("gallery_load", dim, "", n, "ms", load_ms, 5);
    snprintf(command, sizeof(command), "rm -r %s", dir);
    if (system(command) != 0)
        fprintf(stderr, "bench_gallery: %s remains\n", dir);
}

/* Enrolments a second while one thread waits for each. */
static void measure_enroll(void)
{
    char dir[] = "/tmp/bench_gallery.XXXXXX", command[64], id[32];
    struct store_options opt = {.dir = mkdtemp(dir)};
    struct error err = {0};
    struct store *s = store_open(&opt, &err);
    static float v[512];
    static uint8_t crop[12000]; /* about a 112x112 JPEG */
    double enroll_ms[200], remove_ms[200];

    if (!s)
        die(&err);
    for (int i = 0; i < 200; i++) {
        struct store_new_face f = {
            .embedding = v, .dim = 512, .crop = crop, .len_crop = sizeof(crop)};
        struct store_enroll e = {.gallery = "g",
                                 .subject = id,
                                 .model_id = MODEL,
                                 .faces = &f,
                                 .n_faces = 1};
        int64_t face;
        double start;
        snprintf(id, sizeof(id), "s%d", i);
        fill(v, 512);
        start = now_ms();
        if (store_enroll(s, &e, &face, NULL, NULL, &err) < 0)
            die(&err);
        enroll_ms[i] = now_ms() - start;
    }
    for (int i = 0; i < 200; i++) {
        double start = now_ms();
        snprintf(id, sizeof(id), "s%d", i);
        if (store_subject_remove(s, "g", id, NULL, &err) < 0)
            die(&err);
        remove_ms[i] = now_ms() - start;
    }
    store_close(s);
    print("store_enroll", 512, "", 200, "ms", enroll_ms, 200);
    print("store_erase", 512, "", 200, "ms", remove_ms, 200);
    snprintf(command, sizeof(command), "rm -r %s", dir);
    if (system(command) != 0)
        fprintf(stderr, "bench_gallery: %s remains\n", dir);
}

int main(int argc, char **argv)
{
    printf("name,variant,n,unit,median,p90\n");
    if (argc == 1) {
        for (int dim = 128; dim <= 512; dim *= 4) {
            measure_bound(100000, dim);
            measure_search(100000, dim);
            measure_load(100000, dim);
        }
        measure_enroll();
    }
    for (int i = 1; i < argc; i++) {
        long n = strtol(argv[i], NULL, 10);
        if (n < PER_SUBJECT * RUNS || n > 100000000) {
            fprintf(stderr, "bench_gallery: rows: %s\n", argv[i]);
            return 1;
        }
        measure_bound(n, 128);
        measure_search(n, 128);
    }
    return 0;
}
