/* core/face/detect_priv.h - what the files of the detector share: candidate
 * boxes, the shrunken copies of a picture, the canvases that P-Net sees, and
 * runs of the networks. For core/face/detect*.c only. */
#ifndef CORE_FACE_DETECT_PRIV_H
#define CORE_FACE_DETECT_PRIV_H

#include <stddef.h>
#include <stdint.h>

#include "core/face/detect.h"

/* --- candidates (detect_boxes.c) ------------------------------------- */

struct candidate {
    struct box box;
    float score;
    float reg[4];     /* box regression, in box sizes */
    float points[10]; /* O-Net: five x, five y, in box sizes */
};

struct candidates {
    struct candidate *at;
    int n, room;
};

enum overlap {
    OVERLAP_UNION, /* intersection over union, boxes as areas */
    OVERLAP_MIN    /* over the smaller; boxes as inclusive pixels */
};

/* Append a blank one; NULL when memory is out. */
struct candidate *detect_push(struct candidates *c);
void detect_candidates_fini(struct candidates *c);
/* Sort by score, best first, and forget all but the best `most`. */
void detect_best(struct candidates *c, int most);
/* Greedy non-maximum suppression: best first, whatever overlaps a kept one
 * by more than `most` goes. Leaves c sorted by score. */
void detect_nms(struct candidates *c, float most, enum overlap kind);
/* Move the box by its regression; sides count `plus` pixels more than the
 * difference of their ends. */
void detect_regress(struct candidates *c, float plus);
void detect_square(struct candidates *c); /* the longer side, same centre */
void detect_drop_outside(struct candidates *c, const struct image *img);
/* O-Net's points from box sizes to photo pixels, before the box is moved. */
void detect_map_points(struct candidates *c);

/* --- the picture in several sizes (detect_pyramid.c) ------------------ */

enum {
    DETECT_CELL = 12,    /* P-Net looks at 12x12 pixels */
    DETECT_STRIDE = 2,   /* every other pixel */
    DETECT_CANVAS = 640, /* longest side of a canvas */
    DETECT_MIPS = 12
};

/* A picture and its halves, quarters …, so that a strong reduction reads at
 * most 16x16 pixels for one. */
struct detect_mips {
    const struct image *base;
    struct image at[DETECT_MIPS]; /* [0] borrows base's pixels */
    int n;
    uint8_t *pixels; /* of [1..]; kept between pictures */
    size_t room;
};
int detect_mips_build(struct detect_mips *m, const struct image *img,
                      struct error *err);
void detect_mips_fini(struct detect_mips *m);

/* A part of the reduction of a picture's rectangle to out_w x out_h. */
struct detect_part {
    int x, y, w, h;     /* the rectangle, inside the picture */
    int out_w, out_h;   /* what the whole would be reduced to */
    int px, py, pw, ph; /* the part wanted; it may reach over the reduction's
                           right and lower edge, where the last pixel is
                           repeated */
};
/* The part of the picture under a box, in whole pixels, 1-based and inclusive
 * as in the published code: x, y, w, h of *out. False when nothing is left.
 * What reaches out is cut off, not filled. */
bool detect_inside(const struct box *b, const struct image *img,
                   struct detect_part *out);
/* Area average, as (v - 127.5) / 128, into three planes `plane` floats apart
 * with rows `row` floats apart. */
void detect_reduce(const struct detect_mips *m, const struct detect_part *p,
                   float *out, size_t plane, size_t row);

struct detect_tile { /* a piece of a level on a canvas */
    int level;
    int cell_x, cell_y; /* first of its output cells in the level's */
    int n_x, n_y;       /* output cells; 2n+10 pixels */
    int x, y;           /* place on the canvas, even */
    int canvas;
};
struct detect_level {
    double scale;
    int w, h;
};
enum {
    DETECT_MAX_LEVELS = 96
};
struct detect_layout {
    struct detect_level levels[DETECT_MAX_LEVELS];
    int n_levels;
    struct detect_tile *tiles; /* kept between pictures */
    int n_tiles, room;
    struct {
        int w, h;
    } * canvases;
    int n_canvases, room_canvases;
    int most;      /* longest side of a canvas */
    bool one_size; /* all of them are that large */
};
/* Levels for a w x h picture, cut in tiles, packed on as few canvases as do;
 * every canvas at most DETECT_CANVAS on a side, or where side is not 0, all of
 * them side x side. */
int detect_layout_build(struct detect_layout *l, int w, int h, float min_face,
                        float factor, int side, struct error *err);
void detect_layout_fini(struct detect_layout *l);

/* --- the networks (detect_stage.c) ------------------------------------- */

enum {
    DETECT_CANVAS_PLANS = 12,
    DETECT_BATCHES = 4
};

struct detect_canvas_plan {
    int w, h;
    unsigned used; /* when: for forgetting the oldest */
    struct plan *plan;
};

/* Of one scratch: its plans, made when first wanted, and room for what is run
 * elsewhere. */
struct detect_plans {
    struct detector *detector;
    struct detect_canvas_plan canvas[DETECT_CANVAS_PLANS];
    unsigned clock;
    struct plan *batch[DETECT_STAGES][DETECT_BATCHES];
    float *inputs, *rows;
    const float **at; /* NULL: there is no such room */
};
void detect_plans_init(struct detect_plans *p, struct detector *d);
void detect_plans_fini(struct detect_plans *p);
/* Would this stage be run elsewhere, were it now? P-Net on canvases of
 * DETECT_SHARED alone. */
bool detect_plans_elsewhere(const struct detect_plans *p,
                            enum detect_stage stage);

/* A run of one stage: n inputs in, the outputs of all of them out. */
struct detect_run {
    enum detect_stage stage;
    int n, w, h;  /* inputs, and the size of one */
    float *input; /* [n,3,h,w]: to be filled between begin and end */
    /* Outputs of the first; points NULL but for O-Net. Gone with the next
     * begin. */
    const float *prob, *box, *points;
    size_t step_prob, step_box, step_points; /* from one input to the next */
    struct plan *plan;                       /* NULL: elsewhere */
};
/* For up to n inputs: r->n says how many. w, h: for P-Net. */
int detect_run_begin(struct detect_plans *p, enum detect_stage stage, int n,
                     int w, int h, struct detect_run *r, struct error *err);
int detect_run_end(struct detect_plans *p, struct detect_run *r,
                   struct error *err);

#endif
