/* gpu/card.h - a card in use: its memory, streams, recorded runs, and what
 * went wrong with it. Under everything else of gpu/; over the CUDA runtime in
 * card.c, over plain memory in tests/gpu. Once a call has found the card lost,
 * every later one fails at once and what belongs to it can only be freed.
 * Thread: any; a stream has one thread. */
#ifndef GPU_CARD_H
#define GPU_CARD_H

#include "core/engine/backend.h"

struct card;
struct stream; /* work in order, and one recorded run of it */

/* ERR_DEVICE says why there is none. */
struct card *card_open(const struct device_options *opt, struct error *err);
void card_close(struct card *c);
void card_describe(const struct card *c, struct device_info *out);
/* Compute capability times ten: 75, 80, 90. */
int card_level(const struct card *c);
/* Names the card, its driver and what it has of processors: of a cache. */
void card_identity(const struct card *c, char *buf, size_t len);
/* Every thread, before it works with the card. */
int card_enter(struct card *c, struct error *err);

/* Device memory; ERR_NOMEM beyond the card's or the caller's bound. */
void *card_alloc(struct card *c, size_t bytes, struct error *err);
void card_release(struct card *c, void *p, size_t bytes);
int card_upload(struct card *c, void *to, const void *from, size_t bytes,
                struct error *err);
int card_fill(struct card *c, void *to, int byte, size_t bytes,
              struct error *err);
/* Host memory that copies to and from the card run through. */
void *card_pin(struct card *c, size_t bytes, struct error *err);
void card_unpin(struct card *c, void *p);

struct stream *card_stream_new(struct card *c, struct error *err);
void card_stream_free(struct stream *s);
void *card_stream_handle(struct stream *s); /* cudaStream_t */
int card_copy_in(struct stream *s, void *to, const void *from, size_t bytes,
                 struct error *err);
int card_copy_out(struct stream *s, void *to, const void *from, size_t bytes,
                  struct error *err);
/* Of the launch of a kernel just before: 0, or -1 with its name. */
int card_launched(struct stream *s, const char *kernel, struct error *err);
int card_wait(struct stream *s, struct error *err);

/* Work between these two is not done but recorded. false: this card, or this
 * work, cannot be recorded; it has to be given anew each time. */
bool card_record(struct stream *s);
bool card_recorded(struct stream *s);
int card_replay(struct stream *s, struct error *err);

/* Microseconds of one of n runs of work on the stream. */
int card_time(struct stream *s, int (*work)(void *at, struct error *err),
              void *at, int n, float *us, struct error *err);

#endif
