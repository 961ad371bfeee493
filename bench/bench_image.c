/* bench/bench_image.c - decode and resize, against the plain library.
 * Prints CSV name,variant,n,unit,median,p90. Pictures are made here; the
 * variant "libjpeg" is the decoder alone, without limits or orientation, in
 * the same run. Arguments: [repeats, default 200]. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jpeglib.h>

#include "core/face/image.h"

struct job {
    const uint8_t *bytes;
    size_t len;
    const struct image *img;
    int out_w, out_h;
    uint8_t *out;
};

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void die(const char *what, const struct error *err)
{
    fprintf(stderr, "bench_image: %s: %s\n", what, err->text);
    exit(1);
}

/* Smooth waves under noise: compresses about as a photo does. */
static struct image *picture(int w, int h)
{
    struct error err;
    struct image *img = image_new(w, h, &err);
    uint32_t seed = 1;

    if (!img)
        die("image_new", &err);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            for (int c = 0; c < 3; c++) {
                double v = 128 + 70 * sin(x * 0.021 + c) * cos(y * 0.017 - c);
                seed = seed * 1664525u + 1013904223u;
                v += (double)(seed >> 24) / 8 - 16;
                img->rgb[((size_t)y * (size_t)w + (size_t)x) * 3 + (size_t)c] =
                    (uint8_t)v;
            }
    return img;
}

/* Quality 90, 4:2:0, as cameras and the web write. */
static void write_jpeg(const struct image *img, uint8_t **out,
                       unsigned long *len)
{
    struct jpeg_compress_struct cinfo;
    struct jpeg_error_mgr mgr;

    cinfo.err = jpeg_std_error(&mgr);
    jpeg_create_compress(&cinfo);
    jpeg_mem_dest(&cinfo, out, len);
    cinfo.image_width = (JDIMENSION)img->w;
    cinfo.image_height = (JDIMENSION)img->h;
    cinfo.input_components = 3;
    cinfo.in_color_space = JCS_RGB;
    jpeg_set_defaults(&cinfo);
    jpeg_set_quality(&cinfo, 90, TRUE);
    jpeg_start_compress(&cinfo, TRUE);
    while (cinfo.next_scanline < cinfo.image_height) {
        JSAMPROW row =
            img->rgb + (size_t)cinfo.next_scanline * (size_t)img->w * 3;
        jpeg_write_scanlines(&cinfo, &row, 1);
    }
    jpeg_finish_compress(&cinfo);
    jpeg_destroy_compress(&cinfo);
}

/* The same file with an APP1 that says orientation 6. */
static uint8_t *turned(const uint8_t *jpeg, size_t len, size_t *len_out)
{
    static const uint8_t app1[] = {
        0xff, 0xe1, 0, 34, 'E', 'x', 'i', 'f', 0,    0, 'I', 'I',
        '*',  0,    8, 0,  0,   0,   1,   0,   0x12, 1, 3,   0,
        1,    0,    0, 0,  6,   0,   0,   0,   0,    0, 0,   0};
    uint8_t *out = malloc(len + sizeof(app1));

    if (!out)
        abort();
    memcpy(out, jpeg, 2);
    memcpy(out + 2, app1, sizeof(app1));
    memcpy(out + 2 + sizeof(app1), jpeg + 2, len - 2);
    *len_out = len + sizeof(app1);
    return out;
}

static void run_decode(const struct job *job)
{
    struct error err;
    struct image *img = image_decode(job->bytes, job->len, NULL, &err);

    if (!img)
        die("image_decode", &err);
    image_free(img);
}

static void run_libjpeg(const struct job *job)
{
    struct jpeg_decompress_struct cinfo;
    struct jpeg_error_mgr mgr;
    size_t stride;
    uint8_t *rgb;

    cinfo.err = jpeg_std_error(&mgr);
    jpeg_create_decompress(&cinfo);
    jpeg_mem_src(&cinfo, job->bytes, job->len);
    jpeg_read_header(&cinfo, TRUE);
    cinfo.out_color_space = JCS_RGB;
    jpeg_start_decompress(&cinfo);
    stride = (size_t)cinfo.output_width * 3;
    rgb = malloc(stride * cinfo.output_height);
    if (!rgb)
        abort();
    while (cinfo.output_scanline < cinfo.output_height) {
        JSAMPROW row = rgb + cinfo.output_scanline * stride;
        jpeg_read_scanlines(&cinfo, &row, 1);
    }
    jpeg_finish_decompress(&cinfo);
    jpeg_destroy_decompress(&cinfo);
    free(rgb);
}

static void run_resize(const struct job *job)
{
    image_resize(job->img, 0, 0, job->img->w, job->img->h, job->out, job->out_w,
                 job->out_h, (size_t)job->out_w * 3);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void measure(const char *name, const char *variant, int n,
                    void (*run)(const struct job *), const struct job *job)
{
    double *ms = malloc((size_t)n * sizeof(*ms));

    if (!ms)
        abort();
    for (int i = -n / 10 - 1; i < n; i++) { /* the first ones warm up */
        double start = now_ms();

        run(job);
        if (i >= 0)
            ms[i] = now_ms() - start;
    }
    qsort(ms, (size_t)n, sizeof(*ms), by_value);
    printf("%s,%s,%d,ms,%.4f,%.4f\n", name, variant, n, ms[n / 2],
           ms[n * 9 / 10]);
    free(ms);
}

static void bench_decode(int n, int w, int h)
{
    struct image *img = picture(w, h);
    unsigned long len = 0;
    struct job job = {0};
    uint8_t *jpeg = NULL, *six;
    char name[64];

    write_jpeg(img, &jpeg, &len);
    snprintf(name, sizeof(name), "decode_%dx%d", w, h);
    job.bytes = jpeg;
    job.len = len;
    measure(name, "libjpeg", n, run_libjpeg, &job);
    measure(name, "image_decode", n, run_decode, &job);
    six = turned(jpeg, len, &job.len);
    job.bytes = six;
    measure(name, "image_decode_turned", n, run_decode, &job);
    free(six);
    free(jpeg);
    image_free(img);
}

static void bench_resize(int n, int w, int h, int out_w, int out_h)
{
    struct image *img = picture(w, h);
    struct job job = {.img = img, .out_w = out_w, .out_h = out_h};
    char name[64];

    job.out = malloc((size_t)out_w * (size_t)out_h * 3);
    if (!job.out)
        abort();
    snprintf(name, sizeof(name), "resize_%dx%d", w, h);
    char variant[64];
    snprintf(variant, sizeof(variant), "to_%dx%d", out_w, out_h);
    measure(name, variant, n, run_resize, &job);
    free(job.out);
    image_free(img);
}

int main(int argc, char **argv)
{
    int n = argc > 1 ? atoi(argv[1]) : 200;

    if (n < 1) {
        fprintf(stderr, "usage: bench_image [repeats]\n");
        return 2;
    }
    printf("name,variant,n,unit,median,p90\n");
    bench_decode(n, 250, 250);
    bench_decode(n, 1024, 768);
    bench_resize(n, 1024, 768, 614, 461);
    bench_resize(n, 1024, 768, 308, 231);
    bench_resize(n, 1024, 768, 77, 58);
    bench_resize(n, 250, 250, 150, 150);
    bench_resize(n, 48, 48, 112, 112);
    return 0;
}
