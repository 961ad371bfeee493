/* core/face/detect_view.h - a picture as the detector's networks see it: crops
 * and pieces of pyramid levels, by the detector's own reductions. Training
 * reads them. Thread: the view's. */
#ifndef CORE_FACE_DETECT_VIEW_H
#define CORE_FACE_DETECT_VIEW_H

#include "core/face/detect.h"

struct detect_view;
struct detect_view *detect_view_new(struct error *err);
void detect_view_free(struct detect_view *v);
/* Look at img, borrowed until the next call. ERR_NOMEM. */
int detect_view_set(struct detect_view *v, const struct image *img,
                    struct error *err);

/* What R-Net (side 24) and O-Net (48) see of a box: (x - 127.5) / 128,
 * out [3,side,side]. False, and out as it was: the box is outside. */
bool detect_view_crop(const struct detect_view *v, const struct box *b,
                      int side, float *out);
/* side x side pixels from x, y of the level that P-Net sees at `scale` (pixels
 * of the level by pixels of the picture), out [3,side,side]. What lies over
 * the level's edge repeats its last pixels; x, y are inside. */
void detect_view_level(const struct detect_view *v, double scale, int x, int y,
                       int side, float *out);

#endif
