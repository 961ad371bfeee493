/* daemon/form_photo.c - the images of a form to photos: the long part of most
 * requests, so several are read side by side where threads are idle. Which
 * error is told does not depend on that: always the first image's, in the
 * order in which they were given. */
#include <stdatomic.h>
#include <stdio.h>

#include "daemon/form.h"

/* What the threads that read the photos of one job share. */
struct reading {
    struct job *job;
    struct form_photo *photos;
    struct face_options opt;
    const struct contract *contract; /* NULL: no chips */
    bool each;
    atomic_bool stop; /* one failed that fails them all */
};

void form_blame(struct job *job, const struct form_image *image)
{
    snprintf(job->error_image, sizeof(job->error_image), "%s", image->field);
    job->error_index = image->index;
}

/* Whether the same request a minute later would be answered alike. */
static bool is_of_image(enum error_code code)
{
    return error_status(code) < 500 && !error_retryable(code);
}

static void count(const struct photo *photo)
{
    stats_observe(STATS_DECODE, (double)photo->decode_us / 1e6);
    if (photo->width > 0)
        stats_observe(STATS_DETECT, (double)photo->detect_us / 1e6);
    if (photo->n_chips > 0)
        stats_observe(STATS_ALIGN, (double)photo->align_us / 1e6);
}

/* Images are begun in their order, so when one is left out here, one before
 * it has failed. */
static void read_one(void *ctx, int i, struct detect_scratch *scratch)
{
    struct reading *r = ctx;
    struct form_photo *p = &r->photos[i];
    const struct form_image *image = p->image;

    if (atomic_load(&r->stop))
        return;
    if (request_cancelled(r->job->req)) {
        error_set(&p->err, ERR_DEADLINE, "the answer was not ready in time");
        atomic_store(&r->stop, true);
        return;
    }
    if (photo_read(scratch, r->contract, image->data, image->len, &r->opt,
                   &p->photo, &p->err) == 0) {
        p->err.code = ERR_NONE;
    } else {
        if (p->err.code == ERR_MANY_FACES)
            error_set(&p->err, ERR_MANY_FACES,
                      "%d faces were found in the photo, one is wanted; "
                      "faces=largest takes the largest",
                      p->photo.n_faces);
        if (image->index >= 0)
            error_context(&p->err, "%s %d", image->field, image->index);
        else
            error_context(&p->err, "%s", image->field);
        if (!r->each || !is_of_image(p->err.code))
            atomic_store(&r->stop, true);
    }
    count(&p->photo);
}

int form_photos(struct job *job, struct form_photo *photos, int n,
                enum face_choice choice, unsigned flags, struct error *err)
{
    const struct server *s = job->server;
    struct reading r = {
        .job = job,
        .photos = photos,
        .opt = s->photo,
        .contract =
            flags & PHOTO_NO_CHIPS ? NULL : &job->serving->model->contract,
        .each = flags & PHOTO_EACH,
    };
    int64_t began = server_now_us(), spent_us = 0;

    r.opt.choice = choice;
    r.opt.keep = (flags & PHOTO_KEEP) != 0;
    for (int i = 0; i < n; i++)
        photos[i].err.code = ERR_NONE;
    work_share(n, read_one, &r);
    for (int i = 0; i < n; i++) {
        const struct photo *p = &photos[i].photo;
        job->decode_us += p->decode_us;
        job->detect_us += p->detect_us;
        job->align_us += p->align_us;
        spent_us += p->decode_us + p->detect_us + p->align_us;
    }
    /* The job's caller adds the time that passed on this thread alone. */
    began = server_now_us() - began;
    if (spent_us > began)
        job->spent_us += spent_us - began;
    for (int i = 0; i < n; i++) {
        if (photos[i].err.code == ERR_NONE ||
            (r.each && is_of_image(photos[i].err.code)))
            continue;
        form_blame(job, photos[i].image);
        *err = photos[i].err;
        return -1;
    }
    return 0;
}
