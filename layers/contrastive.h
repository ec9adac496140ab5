/* The contrastive loss of a global batch whose pairs lie on one rank or several, and its true gradient:
 * (cross entropy of images over texts + of texts over images) / 2, the mean over all pairs of all ranks.
 *
 * Each rank computes the logits of its own images with all texts, tile by tile, twice; nobody holds more than
 * a tile of them. Beside the gathered text features a rank keeps their gradient of the same size (N,E), its
 * own features and gradients, and some N numbers. Sums over ranks are taken in their order. */
#ifndef TW_LAYERS_CONTRASTIVE_H
#define TW_LAYERS_CONTRASTIVE_H

#include "autograd/comm.h"
#include "autograd/tape.h"

/* What the operation makes of b images and N texts, see autograd/ops/contrastive_loss.c. */
typedef struct tw_contrastive_parts {
    tw_tensor *row_lse;    /* (b) of each image's logits */
    tw_tensor *column_lse; /* (N) of each text's logits with these images */
    tw_tensor *target;     /* (b) the logit of each image with its own text */
    tw_tensor *most;       /* (N) the largest logit of each text with these images; no gradient */
    tw_tensor *is_first;   /* (2,b) i32: the target is the first of the largest of its row; of its column */
} tw_contrastive_parts;

/* Records it: image (b,E), text (N,E) f32 features, L2-normalised; image i belongs to text first + i.
 * logit_scale: the logarithm of the scale, a scalar. */
tw_contrastive_parts tw_contrastive_record(tw_tape *tape, const tw_param *logit_scale, tw_tensor *image,
                                           tw_tensor *text, int64_t first);

typedef struct tw_contrastive tw_contrastive;

/* E = embed. Everything given must outlive it. */
tw_status tw_contrastive_create(tw_device *device, tw_comm *comm, const tw_param *logit_scale, int64_t embed,
                                tw_contrastive **out) TW_MUST_CHECK;
void tw_contrastive_free(tw_contrastive *c); /* accepts NULL */

/* Makes room for a batch of which rank r has counts[r] >= 0 pairs, the same on every rank. */
tw_status tw_contrastive_begin(tw_contrastive *c, const int64_t *counts) TW_MUST_CHECK;
/* Device memory (counts[rank], E): before tw_contrastive_run this rank's features go there. Valid until the
 * next begin. */
float *tw_contrastive_image(const tw_contrastive *c);
float *tw_contrastive_text(const tw_contrastive *c);

typedef struct tw_contrastive_result {
    double loss;                         /* of the global batch; 0 if it is empty */
    double image_to_text, text_to_image; /* fraction of images whose most similar text is their own (among
                                            equals the first one is), and of texts */
    int bad_ranks, bad_rank; /* how many ranks have features that are not finite, and the first of them; */
    int64_t bad_pair;        /* its first pair with such, counted from its own first */
} tw_contrastive_result;

/* Every rank calls it; only queues work. Adds to logit_scale's gradient, unless it is frozen, this rank's
 * part of it: the sum over ranks is still to be taken. */
tw_status tw_contrastive_run(tw_contrastive *c) TW_MUST_CHECK;
/* Waits for the result of the last run, the same on every rank. */
tw_status tw_contrastive_read(const tw_contrastive *c, tw_contrastive_result *result) TW_MUST_CHECK;

/* As tw_tape_version: of all that a run queues for the batch of the last begin. */
uint64_t tw_contrastive_version(const tw_contrastive *c);

/* For who reads it later: device memory (ranks, TW_CONTRASTIVE_TALLY) that the last run leaves, valid until
 * the next one; and what a host copy of it says about `pairs` pairs of all ranks. */
enum { TW_CONTRASTIVE_TALLY = 6 };
const float *tw_contrastive_tallies(const tw_contrastive *c);
tw_contrastive_result tw_contrastive_result_of(const float *tallies, int ranks, int64_t pairs);

/* After run: the loss's gradient for this rank's features, device memory (counts[rank], E). */
const float *tw_contrastive_image_gradient(const tw_contrastive *c);
const float *tw_contrastive_text_gradient(const tw_contrastive *c);

/* Bytes of device memory now. */
size_t tw_contrastive_bytes(const tw_contrastive *c);

#endif
