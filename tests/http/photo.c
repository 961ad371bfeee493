/* tests/http/photo.c - makes the photos that the HTTP tests and benchmarks
 * post, from real ones: cut, turned, put side by side, and odd encodings. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <webp/encode.h>

#include "core/face/image.h"

static const char usage[] =
    "usage: photo cut IN X Y W H OUT.jpg    a rectangle\n"
    "       photo size IN W H OUT.jpg       fitted into, on grey\n"
    "       photo turn IN OUT.jpg           turned left by 90 degrees\n"
    "       photo grid CELL COLUMNS OUT.jpg IN...\n"
    "       photo plain W H OUT.jpg         a gradient\n"
    "       photo webp IN OUT.webp\n"
    "       photo scans W H OUT.jpg         progressive, in 192 scans\n";

static _Noreturn void die(const char *what, const char *why)
{
    fprintf(stderr, "photo: %s: %s\n", what, why);
    exit(1);
}

static struct image *load(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct error err = {0};
    struct image *img;
    uint8_t *bytes;
    long len;

    if (!f || fseek(f, 0, SEEK_END) != 0 || (len = ftell(f)) < 0)
        die(path, "cannot be read");
    rewind(f);
    bytes = malloc((size_t)len + 1);
    if (!bytes || fread(bytes, 1, (size_t)len, f) != (size_t)len)
        die(path, "cannot be read");
    fclose(f);
    img = image_decode(bytes, (size_t)len, &(struct image_limits){0}, &err);
    free(bytes);
    if (!img)
        die(path, err.text);
    return img;
}

static struct image *blank(int w, int h)
{
    struct error err = {0};
    struct image *img = image_new(w, h, &err);

    if (!img)
        die("image", err.text);
    memset(img->rgb, 128, (size_t)w * (size_t)h * 3);
    return img;
}

static void write_file(const char *path, const uint8_t *bytes, size_t len)
{
    FILE *f = fopen(path, "wb");

    if (!f || fwrite(bytes, 1, len, f) != len || fclose(f) != 0)
        die(path, "cannot be written");
}

static void save(struct image *img, const char *path)
{
    struct error err = {0};
    uint8_t *bytes;
    size_t len;

    if (image_encode_jpeg(img, 92, &bytes, &len, &err) < 0)
        die(path, err.text);
    write_file(path, bytes, len);
    free(bytes);
    image_free(img);
}

static void cut(char **a)
{
    struct image *in = load(a[0]);
    int w = atoi(a[3]), h = atoi(a[4]);
    struct image *out = blank(w, h);

    image_resize(in, atoi(a[1]), atoi(a[2]), w, h, out->rgb, w, h,
                 (size_t)w * 3);
    image_free(in);
    save(out, a[5]);
}

/* in, fitted into a box of w x h at x, y of out. */
static void place(const struct image *in, struct image *out, int x, int y,
                  int w, int h)
{
    int fit_w = w, fit_h = (int)((int64_t)in->h * w / in->w);

    if (fit_h > h) {
        fit_h = h;
        fit_w = (int)((int64_t)in->w * h / in->h);
    }
    x += (w - fit_w) / 2;
    y += (h - fit_h) / 2;
    image_resize(in, 0, 0, in->w, in->h,
                 out->rgb + ((size_t)y * (size_t)out->w + (size_t)x) * 3, fit_w,
                 fit_h, (size_t)out->w * 3);
}

static void size(char **a)
{
    struct image *in = load(a[0]);
    struct image *out = blank(atoi(a[1]), atoi(a[2]));

    place(in, out, 0, 0, out->w, out->h);
    image_free(in);
    save(out, a[3]);
}

static void turn(char **a)
{
    struct image *in = load(a[0]);
    struct image *out = blank(in->h, in->w);

    for (int y = 0; y < out->h; y++)
        for (int x = 0; x < out->w; x++)
            memcpy(out->rgb + ((size_t)y * (size_t)out->w + (size_t)x) * 3,
                   in->rgb +
                       ((size_t)x * (size_t)in->w + (size_t)(in->w - 1 - y)) *
                           3,
                   3);
    image_free(in);
    save(out, a[1]);
}

static void grid(int argc, char **a)
{
    int cell = atoi(a[0]), columns = atoi(a[1]), n = argc - 3;
    struct image *out =
        blank(cell * columns, cell * ((n + columns - 1) / columns));

    for (int i = 0; i < n; i++) {
        struct image *in = load(a[3 + i]);
        place(in, out, i % columns * cell, i / columns * cell, cell, cell);
        image_free(in);
    }
    save(out, a[2]);
}

static struct image *gradient(int w, int h)
{
    struct image *img = blank(w, h);

    for (int i = 0; i < w * h; i++) {
        img->rgb[i * 3] = (uint8_t)(i % w * 255 / w);
        img->rgb[i * 3 + 1] = (uint8_t)(i / w * 255 / h);
    }
    return img;
}

static void to_webp(char **a)
{
    struct image *in = load(a[0]);
    uint8_t *bytes = NULL;
    size_t len = WebPEncodeRGB(in->rgb, in->w, in->h, in->w * 3, 90, &bytes);

    if (!len)
        die(a[1], "cannot be encoded");
    write_file(a[1], bytes, len);
    WebPFree(bytes);
    image_free(in);
}

/* A valid progressive JPEG with every coefficient in a scan of its own. */
static void scans(char **a)
{
    static jpeg_scan_info info[3 + 3 * 63];
    struct image *img = gradient(atoi(a[0]), atoi(a[1]));
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr mgr;
    FILE *f = fopen(a[2], "wb");
    int n = 0;

    if (!f)
        die(a[2], "cannot be written");
    for (int k = 0; k < 64; k++)
        for (int comp = 0; comp < 3; comp++)
            info[n++] = (jpeg_scan_info){.comps_in_scan = 1,
                                         .component_index = {comp},
                                         .Ss = k,
                                         .Se = k};
    c.err = jpeg_std_error(&mgr);
    jpeg_create_compress(&c);
    jpeg_stdio_dest(&c, f);
    c.image_width = (JDIMENSION)img->w;
    c.image_height = (JDIMENSION)img->h;
    c.input_components = 3;
    c.in_color_space = JCS_RGB;
    jpeg_set_defaults(&c);
    c.scan_info = info;
    c.num_scans = n;
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < c.image_height) {
        JSAMPROW row = img->rgb + (size_t)c.next_scanline * (size_t)img->w * 3;
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    if (fclose(f) != 0)
        die(a[2], "cannot be written");
    image_free(img);
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    char **a = argv + 2;

    if (strcmp(verb, "cut") == 0 && argc == 8)
        cut(a);
    else if (strcmp(verb, "size") == 0 && argc == 6)
        size(a);
    else if (strcmp(verb, "turn") == 0 && argc == 4)
        turn(a);
    else if (strcmp(verb, "grid") == 0 && argc > 5)
        grid(argc - 2, a);
    else if (strcmp(verb, "plain") == 0 && argc == 5)
        save(gradient(atoi(a[0]), atoi(a[1])), a[2]);
    else if (strcmp(verb, "webp") == 0 && argc == 4)
        to_webp(a);
    else if (strcmp(verb, "scans") == 0 && argc == 5)
        scans(a);
    else
        return fputs(usage, stderr), 2;
    return 0;
}
