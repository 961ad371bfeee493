/* daemon/api.h - the handlers that the route table names, and what several
 * of them share. Each resource has its file api_*.c: JSON in, a call, JSON
 * out. A _prepare parses, decodes, detects and aligns; a _finish searches,
 * stores and answers. Thread: work; those whose row says `now`: HTTP. */
#ifndef DAEMON_API_H
#define DAEMON_API_H

#include "daemon/form.h"
#include "daemon/route.h"

int api_verify_prepare(struct job *job, struct error *err);
int api_verify_finish(struct job *job, struct error *err);
int api_enroll_prepare(struct job *job, struct error *err);
int api_enroll_finish(struct job *job, struct error *err);
int api_identify_prepare(struct job *job, struct error *err);
int api_identify_finish(struct job *job, struct error *err);
int api_detect_prepare(struct job *job, struct error *err);
int api_detect_finish(struct job *job, struct error *err);
int api_embed_prepare(struct job *job, struct error *err);
int api_embed_finish(struct job *job, struct error *err);

int api_subjects_list(struct job *job, struct error *err);
int api_subjects_get(struct job *job, struct error *err);
int api_subjects_patch(struct job *job, struct error *err);
int api_subjects_remove(struct job *job, struct error *err);
int api_subject_faces(struct job *job, struct error *err);
int api_face_get(struct job *job, struct error *err);
int api_face_remove(struct job *job, struct error *err);
int api_galleries_list(struct job *job, struct error *err);
int api_galleries_get(struct job *job, struct error *err);
int api_galleries_remove(struct job *job, struct error *err);
int api_finetune(struct job *job, struct error *err);
int api_jobs_list(struct job *job, struct error *err);
int api_jobs_get(struct job *job, struct error *err);
int api_jobs_remove(struct job *job, struct error *err);
int api_jobs_resume(struct job *job, struct error *err);
int api_calibrate(struct job *job, struct error *err);
int api_calibrate_remove(struct job *job, struct error *err);
int api_models(struct job *job, struct error *err);
int api_admin_models(struct job *job, struct error *err);
int api_admin_models_add(struct job *job, struct error *err);
int api_admin_models_get(struct job *job, struct error *err);
int api_admin_models_remove(struct job *job, struct error *err);
int api_admin_models_missing(struct job *job, struct error *err);
int api_admin_models_activate(struct job *job, struct error *err);
int api_admin_models_cancel(struct job *job, struct error *err);
int api_admin_models_rollback(struct job *job, struct error *err);
int api_info(struct job *job, struct error *err);
int api_healthz(struct job *job, struct error *err);
int api_readyz(struct job *job, struct error *err);
int api_metrics(struct job *job, struct error *err);
int api_openapi(struct job *job, struct error *err);

struct api_limit {
    double threshold;
    double far; /* expected false-accept rate: what is stated of this threshold
                   or the next one up that was measured; NaN: nothing is */
};
/* The threshold that decides: of the form's field threshold or far (f NULL: no
 * form); else of the setting threshold or far; else the model's at FAR 1e-3,
 * else 1.1. ERR_BAD_FIELD, ERR_CONFIG: the model has none for that rate. */
int api_limit(const struct job *job, const struct form *f,
              struct api_limit *out, struct error *err);
json_t *api_far_json(double far); /* null for NaN */
/* {id,name,embedding_size} of the model that serves. NULL: no memory. */
json_t *api_model_json(const struct job *job);
/* Adds a contract's fields to o. -1: no memory. */
int api_add_contract(json_t *o, const struct contract *c);
/* Reals rounded to so many decimals, as answers carry them. */
json_t *api_real(double value, int decimals);
/* {x0,y0,x1,y1} to 2 decimals. */
json_t *api_box_json(const float box[4]);
/* {box,landmarks,detection_score} */
json_t *api_face_json(const struct face *face);
/* That of its first chip, with faces_found, width, height. */
json_t *api_photo_json(const struct photo *photo);
/* A face of the record, as GET /faces/{id} gives it. */
json_t *api_stored_face_json(const struct store_face *f);
/* {decode,detect,align,queue,embed,total} in ms. */
json_t *api_timings_json(const struct job *job);
/* Search, counted; a gallery that ran out of memory is marked for
 * rebuilding. As gallery_search_many. */
int api_search(struct job *job, const struct gallery_ask *ask,
               struct gallery_hit *hits, int *n_hits, struct error *err);
/* "largest", "single", "all" (one of the field's words) to a choice. */
enum face_choice api_choice(const char *word, enum face_choice otherwise);

#endif
