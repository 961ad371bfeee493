/* core/face/image_jpeg.c - JPEG to RGB and back: the only user of
 * libjpeg-turbo. The library is safe with memory but does whatever work a
 * file asks for, and goes on after damage; so every warning but one ends the
 * decode here, scans are counted before they are decoded, and the progress
 * monitor watches the CPU clock. Errors leave the library by longjmp: the
 * function that calls setjmp changes no local of its own, everything lives in
 * a struct of its caller. */
#include "core/face/image.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#include "core/face/image_priv.h"

enum {
    BAND = 16,         /* rows asked for at a time */
    CLOCK_EVERY = 16,  /* progress calls between looks at the clock */
    FIRST_OUT = 16384, /* bytes of an encoder's first buffer */
    MARKER_SOS = 0xda,
    MARKER_EOI = 0xd9
};

/* Messages of the library that are not plain damage. */
static const struct {
    int msg;
    enum error_code code;
    const char *text;
} meanings[] = {
    {JERR_BAD_PRECISION, ERR_IMAGE_TYPE,
     "the JPEG does not have 8 bits a sample; only such are read"},
    {JERR_SOF_UNSUPPORTED, ERR_IMAGE_TYPE,
     "the JPEG is lossless or hierarchical; baseline and progressive ones "
     "are read"},
    {JERR_FRACT_SAMPLE_NOTIMPL, ERR_IMAGE_TYPE,
     "the JPEG has fractional sampling, which is not read"},
    {JERR_CCIR601_NOTIMPL, ERR_IMAGE_TYPE,
     "the JPEG has CCIR 601 sampling, which is not read"},
    {JERR_CONVERSION_NOTIMPL, ERR_IMAGE_TYPE,
     "the JPEG's colours are of a kind that is not read"},
    {JERR_COMPONENT_COUNT, ERR_IMAGE_TYPE,
     "the JPEG has too many colour components; 1 or 3 are read"},
    {JWRN_ADOBE_XFORM, ERR_IMAGE_TYPE,
     "the JPEG's Adobe colour transform is unknown"},
    {JERR_IMAGE_TOO_BIG, ERR_TOO_LARGE,
     "the JPEG declares more than 65500 pixels a side"},
    {JERR_WIDTH_OVERFLOW, ERR_TOO_LARGE, "the JPEG is too wide"},
    {JERR_NO_BACKING_STORE, ERR_TOO_LARGE,
     "the JPEG takes too much memory to decode"},
    {JERR_OUT_OF_MEMORY, ERR_NOMEM, "no memory to decode the JPEG"},
    {JERR_EMPTY_IMAGE, ERR_BAD_IMAGE, "the JPEG declares no pixels"},
    {JERR_INPUT_EMPTY, ERR_BAD_IMAGE, "the JPEG is cut short"},
    {JERR_INPUT_EOF, ERR_BAD_IMAGE, "the JPEG is cut short"},
    {JWRN_JPEG_EOF, ERR_BAD_IMAGE, "the JPEG is cut short"},
    {JWRN_HIT_MARKER, ERR_BAD_IMAGE,
     "the JPEG is damaged: picture data is missing"},
};

/* What the callbacks find through cinfo->err, its first field. */
struct trap {
    struct jpeg_error_mgr mgr;
    jmp_buf jump;
    struct error *err;
};

struct reader {
    struct jpeg_decompress_struct cinfo;
    struct trap trap;
    struct jpeg_progress_mgr progress;
    const struct image_source *src;
    struct upright up;
    uint8_t *band; /* BAND rows, where they cannot be decoded in place */
    unsigned n_progress;
    int orientation;
};

static struct trap *trap_of(j_common_ptr cinfo)
{
    return (struct trap *)cinfo->err;
}

static struct reader *reader_of(j_common_ptr cinfo)
{
    return cinfo->client_data;
}

static _Noreturn void leave(j_common_ptr cinfo)
{
    longjmp(trap_of(cinfo)->jump, 1);
}

static _Noreturn void on_error(j_common_ptr cinfo)
{
    struct trap *trap = trap_of(cinfo);
    char text[JMSG_LENGTH_MAX];

    for (size_t i = 0; i < sizeof(meanings) / sizeof(*meanings); i++)
        if (meanings[i].msg == trap->mgr.msg_code) {
            error_set(trap->err, meanings[i].code, "%s", meanings[i].text);
            leave(cinfo);
        }
    trap->mgr.format_message(cinfo, text);
    error_set(trap->err, ERR_BAD_IMAGE, "the JPEG is damaged: %s", text);
    leave(cinfo);
}

/* Level -1 is a warning. Cameras do leave stray bytes before markers. */
static void on_message(j_common_ptr cinfo, int level)
{
    if (level < 0 && cinfo->err->msg_code != JWRN_EXTRANEOUS_DATA)
        on_error(cinfo);
}

static void print_nothing(j_common_ptr cinfo)
{
    (void)cinfo;
}

static struct jpeg_error_mgr *trap_init(struct trap *trap, struct error *err)
{
    jpeg_std_error(&trap->mgr);
    trap->mgr.error_exit = on_error;
    trap->mgr.emit_message = on_message;
    trap->mgr.output_message = print_nothing;
    trap->err = err;
    return &trap->mgr;
}

static _Noreturn void too_many_scans(struct reader *r)
{
    error_set(r->trap.err, ERR_TOO_LARGE,
              "the JPEG has more than %d scans, which takes too long",
              r->src->limits.max_scans);
    leave((j_common_ptr)&r->cinfo);
}

static void on_progress(j_common_ptr cinfo)
{
    struct reader *r = reader_of(cinfo);

    if (r->cinfo.input_scan_number > r->src->limits.max_scans)
        too_many_scans(r);
    if (r->n_progress++ % CLOCK_EVERY == 0 && image_source_late(r->src)) {
        image_source_late_error(r->src, "JPEG", r->trap.err);
        leave(cinfo);
    }
}

/* APP1 is looked at where it lies: the whole file is the source's buffer.
 * (jpeg_save_markers would copy each, at twenty times the size of the
 * smallest.) The first EXIF block counts. */
static boolean on_app1(j_decompress_ptr cinfo)
{
    struct reader *r = reader_of((j_common_ptr)cinfo);
    struct jpeg_source_mgr *in = cinfo->src;
    const uint8_t *p = in->next_input_byte;
    size_t len = 2;

    if (in->bytes_in_buffer >= 2)
        len = (size_t)p[0] << 8 | p[1];
    if (len < 2)
        ERREXIT(cinfo, JERR_BAD_LENGTH);
    if (len > in->bytes_in_buffer)
        ERREXIT(cinfo, JERR_INPUT_EOF);
    if (!r->orientation && len > 8 && !memcmp(p + 2, "Exif\0\0", 6))
        r->orientation = image_exif_orientation(p + 8, len - 8);
    in->next_input_byte += len;
    in->bytes_in_buffer -= len;
    return TRUE;
}

/* Scans of the file, this one included, from the first scan's data on. A
 * scan can ask for a pass over the whole picture in a few bytes, so too many
 * are refused before the first is decoded. */
static int count_scans(const uint8_t *p, size_t len)
{
    const uint8_t *end = p + len;
    int n = 1;

    while ((p = memchr(p, 0xff, (size_t)(end - p))) && end - p >= 4) {
        size_t len_segment = (size_t)p[2] << 8 | p[3];

        if (p[1] == MARKER_EOI)
            break;
        /* Fill byte; stuffed zero, TEM and RSTn, which have no length. */
        if (p[1] == 0xff || p[1] <= 1 || (p[1] >= 0xd0 && p[1] <= 0xd8)) {
            p += p[1] == 0xff ? 1 : 2;
            continue;
        }
        n += p[1] == MARKER_SOS;
        if ((size_t)(end - p) < 2 + len_segment)
            break;
        p += 2 + len_segment;
    }
    return n;
}

static int check_header(struct reader *r)
{
    struct jpeg_decompress_struct *cinfo = &r->cinfo;
    struct error *err = r->trap.err;

    if (image_source_check(r->src, "JPEG", cinfo->image_width,
                           cinfo->image_height, err))
        return -1;
    if (cinfo->arith_code)
        return error_set(err, ERR_IMAGE_TYPE,
                         "the JPEG is arithmetic-coded; Huffman-coded ones "
                         "are read");
    if (cinfo->num_components == 4)
        return error_set(err, ERR_IMAGE_TYPE,
                         "the JPEG is CMYK or YCCK; RGB and grey ones are "
                         "read");
    if (cinfo->jpeg_color_space != JCS_GRAYSCALE &&
        cinfo->jpeg_color_space != JCS_YCbCr &&
        cinfo->jpeg_color_space != JCS_RGB)
        return error_set(err, ERR_IMAGE_TYPE,
                         "the JPEG's %d colour components are of a kind that "
                         "is not read",
                         cinfo->num_components);
    if (jpeg_has_multiple_scans(cinfo) &&
        count_scans(cinfo->src->next_input_byte, cinfo->src->bytes_in_buffer) >
            r->src->limits.max_scans)
        too_many_scans(r);
    return 0;
}

/* A component that no scan brought would come out flat. */
static int check_components(struct reader *r)
{
    for (int i = 0; i < r->cinfo.num_components; i++)
        if (!r->cinfo.comp_info[i].quant_table)
            return error_set(r->trap.err, ERR_BAD_IMAGE,
                             "the JPEG is damaged: a colour component is "
                             "missing");
    return 0;
}

/* n rows in rows; the library gives one or two at a time. */
static void read_all(struct jpeg_decompress_struct *cinfo, JSAMPROW *rows,
                     JDIMENSION n)
{
    while (n) {
        JDIMENSION n_read = jpeg_read_scanlines(cinfo, rows, n);

        rows += n_read;
        n -= n_read;
    }
}

static void read_rows(struct reader *r)
{
    struct jpeg_decompress_struct *cinfo = &r->cinfo;
    size_t len_row = (size_t)cinfo->output_width * 3;

    while (cinfo->output_scanline < cinfo->output_height) {
        int y = (int)cinfo->output_scanline;
        JSAMPROW rows[BAND];
        JDIMENSION n = cinfo->output_height - cinfo->output_scanline;

        if (n > BAND)
            n = BAND;
        for (JDIMENSION i = 0; i < n; i++)
            rows[i] = r->band ? r->band + i * len_row
                              : upright_in_place(&r->up, y + (int)i);
        read_all(cinfo, rows, n);
        if (r->band)
            upright_put_band(&r->up, y, r->band, (int)n);
    }
}

static int decode(struct reader *r)
{
    struct jpeg_decompress_struct *cinfo = &r->cinfo;

    if (setjmp(r->trap.jump))
        return -1;
    jpeg_create_decompress(cinfo);
    cinfo->client_data = r;
    /* Room for all coefficients of a picture at the pixel limit, without
     * subsampling: 3 components of 2 bytes. */
    cinfo->mem->max_memory_to_use =
        (long)(r->src->limits.max_pixels * 6 + (16 << 20));
    r->progress.progress_monitor = on_progress;
    cinfo->progress = &r->progress;
    jpeg_mem_src(cinfo, r->src->bytes, r->src->len_bytes);
    jpeg_set_marker_processor(cinfo, JPEG_APP0 + 1, on_app1);
    jpeg_read_header(cinfo, TRUE);
    if (check_header(r))
        return -1;

    cinfo->out_color_space = JCS_RGB;
    cinfo->dct_method = JDCT_ISLOW;
    jpeg_start_decompress(cinfo);
    if (check_components(r) ||
        upright_init(&r->up, (int)cinfo->output_width,
                     (int)cinfo->output_height,
                     r->orientation ? r->orientation : 1, r->trap.err))
        return -1;
    if (!upright_in_place(&r->up, 0)) {
        r->band = malloc((size_t)cinfo->output_width * 3 * BAND);
        if (!r->band)
            return error_set(r->trap.err, ERR_NOMEM,
                             "no memory to decode the JPEG");
    }
    read_rows(r);
    jpeg_finish_decompress(cinfo);
    return 0;
}

struct image *image_jpeg_decode(const struct image_source *src,
                                struct error *err)
{
    struct reader r = {.src = src};
    int status;

    r.cinfo.err = trap_init(&r.trap, err);
    status = decode(&r);
    jpeg_destroy_decompress(&r.cinfo);
    free(r.band);
    if (status) {
        image_free(r.up.img);
        return NULL;
    }
    return r.up.img;
}

struct writer {
    struct jpeg_compress_struct cinfo;
    struct trap trap;
    struct jpeg_destination_mgr dest;
    uint8_t *out;
    size_t cap;
};

/* The library's own memory destination loses its buffer when it fails. */
static void grow(struct writer *w)
{
    size_t cap = w->cap ? w->cap * 2 : FIRST_OUT;
    uint8_t *out = realloc(w->out, cap);

    if (!out) {
        error_set(w->trap.err, ERR_NOMEM, "no memory to write a JPEG");
        leave((j_common_ptr)&w->cinfo);
    }
    w->dest.next_output_byte = out + w->cap;
    w->dest.free_in_buffer = cap - w->cap;
    w->out = out;
    w->cap = cap;
}

static void on_out_start(j_compress_ptr cinfo)
{
    grow(cinfo->client_data);
}

static boolean on_out_full(j_compress_ptr cinfo)
{
    grow(cinfo->client_data);
    return TRUE;
}

static void on_out_end(j_compress_ptr cinfo)
{
    (void)cinfo;
}

static int encode(struct writer *w, const struct image *img, int quality)
{
    struct jpeg_compress_struct *cinfo = &w->cinfo;

    if (setjmp(w->trap.jump))
        return -1;
    jpeg_create_compress(cinfo);
    cinfo->client_data = w;
    cinfo->dest = &w->dest;
    cinfo->image_width = (JDIMENSION)img->w;
    cinfo->image_height = (JDIMENSION)img->h;
    cinfo->input_components = 3;
    cinfo->in_color_space = JCS_RGB;
    jpeg_set_defaults(cinfo);
    jpeg_set_quality(cinfo, quality, TRUE);
    cinfo->dct_method = JDCT_ISLOW;
    cinfo->comp_info[0].h_samp_factor = 1; /* 4:4:4 */
    cinfo->comp_info[0].v_samp_factor = 1;
    jpeg_start_compress(cinfo, TRUE);
    while (cinfo->next_scanline < cinfo->image_height) {
        JSAMPROW row =
            img->rgb + (size_t)cinfo->next_scanline * (size_t)img->w * 3;
        jpeg_write_scanlines(cinfo, &row, 1);
    }
    jpeg_finish_compress(cinfo);
    return 0;
}

int image_encode_jpeg(const struct image *img, int quality, uint8_t **out,
                      size_t *len_out, struct error *err)
{
    struct writer w = {.dest = {.init_destination = on_out_start,
                                .empty_output_buffer = on_out_full,
                                .term_destination = on_out_end}};
    int status;

    w.cinfo.err = trap_init(&w.trap, err);
    status = encode(&w, img, quality);
    jpeg_destroy_compress(&w.cinfo);
    if (status) {
        free(w.out);
        return -1;
    }
    *out = w.out;
    *len_out = w.cap - w.dest.free_in_buffer;
    return 0;
}
