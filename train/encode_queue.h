/* Batches of images on their way through the image tower. On a device with memory of its own a batch's pixels
 * cross while the one before still computes, and its features come back behind it: the host reads them a
 * batch late. */
#ifndef TW_TRAIN_ENCODE_QUEUE_H
#define TW_TRAIN_ENCODE_QUEUE_H

#include "train/towers.h"

enum { TW_ENCODE_DEPTH = 2 };

typedef struct tw_encode_queue tw_encode_queue;

/* For batches of up to `batch` images and features of `embed` columns. The towers must outlive it, and run
 * nothing else while batches are under way. */
tw_status tw_encode_queue_create(tw_towers *towers, int64_t batch, int64_t embed,
                                 tw_encode_queue **out) TW_MUST_CHECK;
void tw_encode_queue_free(tw_encode_queue *q); /* accepts NULL; waits for what is under way */

/* Batches that may be under way at once: 1 where the host computes itself, else TW_ENCODE_DEPTH. */
int tw_encode_queue_depth(const tw_encode_queue *q);
/* Queues images (n,R,R,3) u8. Pixels in pinned memory must stay as they are until tw_encode_queue_read. */
tw_status tw_encode_queue_put(tw_encode_queue *q, const uint8_t *pixels, int64_t n) TW_MUST_CHECK;
tw_status tw_encode_queue_read(tw_encode_queue *q) TW_MUST_CHECK;
/* Waits for the features (n, embed) of the oldest batch under way. *features is valid until `depth` more
 * batches have been put. */
tw_status tw_encode_queue_get(tw_encode_queue *q, const float **features) TW_MUST_CHECK;

#endif
