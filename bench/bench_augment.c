/* bench/bench_augment.c - crops of kept faces, one thread: what the loader
 * does for every use of a photo once it is in memory, scaling included. Time
 * is the CPU time of the thread.
 * Prints CSV name,variant,n,unit,median,p90. Pictures are made here.
 * Arguments: [crops of a sample, default 200]. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/train/augment.h"

enum {
    N_SAMPLES = 15
};

static const struct contract arcface = {.crop = CROP_ARCFACE,
                                        .width = 112,
                                        .height = 112,
                                        .scale = SCALE_FIXED,
                                        .b = {1, 1, 1}};
static const struct contract margin = {.crop = CROP_BOX_MARGIN,
                                       .crop_margin = 44,
                                       .crop_size = 182,
                                       .width = 160,
                                       .height = 160,
                                       .scale = SCALE_STANDARD};
static const struct face face = {
    .box = {95, 80, 185, 200},
    .points = {{120, 118}, {160, 118}, {140, 140}, {124, 165}, {156, 165}}};

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static _Noreturn void die(const struct error *err)
{
    fprintf(stderr, "bench_augment: %s\n", err->text);
    exit(1);
}

/* Waves under noise: compresses about as a photo does. */
static struct image *picture(int w, int h)
{
    struct error err;
    struct image *img = image_new(w, h, &err);
    uint32_t seed = 1;

    if (!img)
        die(&err);
    for (int i = 0; i < w * h * 3; i++) {
        int x = i / 3 % w, y = i / 3 / w;
        double v = 128 + 70 * sin(x * 0.021 + i % 3) * cos(y * 0.017 - i % 3);
        seed = seed * 1664525u + 1013904223u;
        img->rgb[i] = (uint8_t)(v + (double)(seed >> 24) / 8 - 16);
    }
    return img;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void measure(const char *how, const char *kind, const struct contract *c,
                    const struct augment_face *f, int n)
{
    float *out =
        malloc((size_t)c->width * (size_t)c->height * 3 * sizeof(*out));
    double rates[N_SAMPLES];
    struct augment a;
    struct error err;
    uint64_t seed = 0;

    if (!out || augment_parse(how, &a, &err))
        die(&err);
    for (int s = 0; s < N_SAMPLES; s++) {
        double begin = now();
        for (int i = 0; i < n; i++) {
            struct image *img = augment_crop(f, &a, seed++, c, &err);
            if (!img)
                die(&err);
            align_scale(img, c, out);
            image_free(img);
        }
        rates[s] = n / (now() - begin);
    }
    qsort(rates, N_SAMPLES, sizeof(double), by_size);
    printf("augment,%s %s,%d,crops/s,%.0f,%.0f\n", kind, how, n * N_SAMPLES,
           rates[N_SAMPLES / 2], rates[N_SAMPLES / 10]);
    free(out);
}

int main(int argc, char **argv)
{
    static const char *const hows[] = {"none", "script", "strong"};
    int n = argc > 1 ? atoi(argv[1]) : 200;
    struct image *img = picture(280, 280);
    struct augment_face f;
    struct error err;

    printf("name,variant,n,unit,median,p90\n");
    for (int i = 0; i < 2; i++) {
        const struct contract *c = i ? &margin : &arcface;
        if (augment_keep(img, &face, 2 * c->width, &f, &err))
            die(&err);
        for (size_t k = 0; k < sizeof(hows) / sizeof(hows[0]); k++)
            measure(hows[k], i ? "box-margin-160" : "arcface-112", c, &f,
                    n > 0 ? n : 1);
        augment_face_fini(&f);
    }
    image_free(img);
    return 0;
}
