/* Features of images that are given one by one (files, bytes, pixels) rather than in shards: threads decode
 * the next batch while one is computed. What comes out does not depend on the number of threads. */
#ifndef TW_TRAIN_IMAGE_LIST_H
#define TW_TRAIN_IMAGE_LIST_H

#include "train/towers.h"

#include <pthread.h>

typedef struct tw_image_list {
    int64_t n;
    /* Writes image i, 0 <= i < n, as rgb (resolution, resolution, 3). Called from several threads at once.
     * TW_ERR_MEMORY ends the whole (but see memory_too); any other failure makes image i a bad one. */
    tw_status (*load)(const void *self, int64_t i, int resolution, uint8_t *rgb);
    const void *self;
} tw_image_list;

typedef struct tw_image_list_options {
    int64_t batch;   /* >= 1 */
    int threads;     /* that decode, >= 1 */
    bool memory_too; /* an image for which there is no memory is a bad one */
    /* Held while the towers are used; NULL: nobody else uses them. */
    pthread_mutex_t *lock;
    /* Both are called on the caller's thread, in order, and may be NULL. What on_bad returns ends the whole
     * unless it is TW_OK; its message is this thread's last error. */
    tw_status (*on_bad)(void *context, int64_t i, tw_status status, const char *message);
    void (*on_progress)(void *context, int64_t done, int64_t total);
    void *context;
} tw_image_list_options;

/* features (n, embed) in host memory; a bad image's row is zeros. Errors: memory, the device's, on_bad's. */
tw_status tw_encode_image_list(tw_towers *towers, const tw_dual_encoder *model, const tw_image_list *list,
                               const tw_image_list_options *options, float *features) TW_MUST_CHECK;

/* A loader of image files: self is a `const char *const *` of n paths. Messages begin with the path; one that
 * is NULL is a bad image. */
tw_status tw_image_list_load_file(const void *paths, int64_t i, int resolution, uint8_t *rgb) TW_MUST_CHECK;
/* The same, converted to RGB before it is resized, as zero-shot classification does. */
tw_status tw_image_list_load_file_rgb_first(const void *paths, int64_t i, int resolution,
                                            uint8_t *rgb) TW_MUST_CHECK;

#endif
