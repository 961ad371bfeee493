/* daemon/server_priv.h - what server.c and server_load.c share. */
#ifndef DAEMON_SERVER_PRIV_H
#define DAEMON_SERVER_PRIV_H

#include "daemon/server.h"

/* What one key's range cannot say. ERR_CONFIG. */
int server_check(const struct config *c, struct error *err);
/* Version 0.1.0 named the configured model by the digest of its whole file,
 * thresholds included: what it stored is id's. */
int server_adopt(struct server *s, const struct config *c, const char *id,
                 struct error *err);
/* Has the model in use a threshold for the setting far? ERR_CONFIG. */
int server_check_far(struct server *s, const struct config *c,
                     struct error *err);
/* The key of kept crops: 64 hex digits in a file of our own. ERR_CONFIG. */
int server_load_crop_key(const char *path, uint8_t *key, struct error *err);
/* *out: the keys, or NULL where none are set up; ERR_CONFIG when they are
 * needed, because other machines can connect. */
int server_load_keys(const struct config *c, bool on_loopback,
                     struct keys **out, struct error *err);
/* Devices, files of models, detector. What was made stays in s on failure. */
int server_load_models(struct server *s, const struct config *c,
                       struct error *err);
/* The card, where the settings want one and there is one. ERR_DEVICE where it
 * is required. After the database, which holds the data directory. */
int server_open_card(struct server *s, const struct config *c,
                     struct error *err);
/* Does it run this model, where it is required? ERR_DEVICE. */
int server_check_card(struct server *s, const struct config *c,
                      const struct serving *sv, struct error *err);
/* The id of the model that is to answer: the record's, or where the setting
 * `model` names another file than at the last start, the setting's. The
 * record then says so. */
int server_choose_model(struct server *s, const struct config *c, char id[65],
                        struct error *err);
void server_set_photo_options(struct server *s, const struct config *c);

#endif
