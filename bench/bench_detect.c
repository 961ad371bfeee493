/* bench/bench_detect.c - photos to aligned faces, stage by stage, one thread;
 * of detection, how much is its networks', the rest being reductions, boxes and
 * suppression. Prints CSV name,variant,n,unit,median,p90. Photos are the test
 * data's (FACENETD_DATA or ../shared/data), models those of build/models;
 * without either it says so and is skipped. Arguments: [repeats, default 20].
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/face/face.h"

enum {
    MOST = 1000
};

static const char *const photos[] = {"Anthony_Hopkins_0001.jpg", "group3.jpg",
                                     "group1.jpg", "paul_rudd.jpg"};

static struct {
    struct device *dev;
    struct model *models[3];
    struct detector *detector;
    struct detect_scratch *scratch;
} all;

/* Every run of a network is timed on its way (see the Makefile). */
int __real_graph_forward(struct plan *p, struct error *err);
int __wrap_graph_forward(struct plan *p, struct error *err);
static double forward_ms;

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

int __wrap_graph_forward(struct plan *p, struct error *err)
{
    double began = now_ms();
    int rc = __real_graph_forward(p, err);

    forward_ms += now_ms() - began;
    return rc;
}

static void close_all(void)
{
    detect_scratch_free(all.scratch);
    detector_free(all.detector);
    for (int i = 0; i < 3; i++)
        model_free(all.models[i]);
    if (all.dev)
        all.dev->backend->device_close(all.dev);
}

static int open_all(struct error *err)
{
    static const char *const files[] = {"build/models/detector_pnet.onnx",
                                        "build/models/detector_rnet.onnx",
                                        "build/models/detector_onet.onnx"};
    const struct device_options one = {.n_threads = 1};

    all.dev = backend_cpu.device_open(&one, err);
    if (!all.dev)
        return -1;
    for (int i = 0; i < 3; i++) {
        all.models[i] = model_load(files[i], all.dev, NULL, err);
        if (!all.models[i])
            return -1;
    }
    all.detector =
        detector_new(all.dev, all.models[0], all.models[1], all.models[2], err);
    if (!all.detector)
        return -1;
    all.scratch = detect_scratch_new(all.detector, err);
    return all.scratch ? 0 : -1;
}

static void *read_file(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    enum {
        MOST_BYTES = 8 << 20
    };
    char *bytes = f ? malloc(MOST_BYTES) : NULL;

    if (bytes)
        *len = fread(bytes, 1, MOST_BYTES, f);
    if (f)
        fclose(f);
    return bytes;
}

static int by_value(const void *pa, const void *pb)
{
    double a = *(const double *)pa, b = *(const double *)pb;
    return (a > b) - (a < b);
}

static void print_row(const char *stage, const char *variant, double *ms, int n)
{
    qsort(ms, (size_t)n, sizeof(*ms), by_value);
    printf("%s,%s,%d,ms,%.3f,%.3f\n", stage, variant, n, ms[n / 2],
           ms[n * 9 / 10]);
}

static int bench(const char *name, int n, struct error *err)
{
    static const struct contract contract = {
        .crop = CROP_ARCFACE, .width = 112, .height = 112};
    static double decode[MOST], detect[MOST], nets[MOST], align[MOST];
    const char *root = getenv("FACENETD_DATA");
    char path[1024], variant[128] = "";
    struct photo p;
    size_t len = 0;
    void *bytes;
    int rc = 0;

    snprintf(path, sizeof(path), "%s/photos/%s", root ? root : "../shared/data",
             name);
    bytes = read_file(path, &len);
    if (!bytes) {
        printf("# skipped: no %s\n", path);
        return 0;
    }
    for (int i = -1; rc == 0 && i < n; i++) { /* the first one plans */
        forward_ms = 0;
        rc = photo_read(all.scratch, &contract, bytes, len, NULL, &p, err);
        if (rc == 0 && i >= 0) {
            decode[i] = (double)p.decode_us * 1e-3;
            detect[i] = (double)p.detect_us * 1e-3;
            nets[i] = forward_ms;
            align[i] = (double)p.align_us * 1e-3;
            snprintf(variant, sizeof(variant), "%dx%d %d faces", p.width,
                     p.height, p.n_faces);
        }
        photo_fini(&p);
    }
    free(bytes);
    if (rc)
        return rc;
    print_row("face_decode", variant, decode, n);
    print_row("face_detect", variant, detect, n);
    print_row("face_detect_networks", variant, nets, n);
    print_row("face_align", variant, align, n);
    return 0;
}

int main(int argc, char **argv)
{
    int n = argc > 1 ? atoi(argv[1]) : 20, rc = 0;
    struct error err = {0};

    if (n < 1 || n > MOST) {
        fprintf(stderr, "bench_detect: 1 to %d repeats\n", MOST);
        return 2;
    }
    if (open_all(&err)) {
        printf("# skipped: %s (make models)\n", err.text);
        close_all();
        return 0;
    }
    for (size_t i = 0; rc == 0 && i < sizeof(photos) / sizeof(photos[0]); i++)
        rc = bench(photos[i], n, &err);
    if (rc)
        fprintf(stderr, "bench_detect: %s\n", err.text);
    close_all();
    return rc ? 1 : 0;
}
