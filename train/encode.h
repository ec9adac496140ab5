/* Features of a split's images and of texts, in host memory: what validation and extraction share.
 *
 * Over several ranks each call is collective: the ranks take batches in turn and send their rows to rank 0,
 * which gets what it would get alone, in the same order and with the same bits. On the others no sink and no
 * progress is called and nothing is written; on_bad is called on the rank that met the bad image. */
#ifndef TW_TRAIN_ENCODE_H
#define TW_TRAIN_ENCODE_H

#include "autograd/comm.h"
#include "data/loader.h"
#include "train/towers.h"

typedef struct tw_encode_options {
    tw_comm *comm; /* NULL: this rank alone */
    int64_t batch;
    int threads, prefetch;
    bool as_is; /* texts are neither lower-cased nor their quotes replaced first: the quick API's way */
    /* Called for a bad image (its feature row is zeros) and now and then with how much is done. Either may be
     * NULL. */
    void (*on_bad)(void *context, const char *message);
    void (*on_progress)(void *context, int64_t done, int64_t total);
    /* Asked behind each batch; NULL, which it is on all ranks or on none: never. Where a rank says true, the
     * work ends with TW_ERR_INTERRUPTED, on all ranks in the same round; what asked that rank (signals.h) is
     * noted on all. */
    bool (*should_stop)(void *context);
    void *context;
} tw_encode_options;

typedef struct tw_text {
    const char *text; /* UTF-8 */
    size_t bytes;
} tw_text;

/* ---- batch by batch ---- */

/* Items [first, first + n) of what is encoded, n <= options->batch. Valid during the sink's call. */
typedef struct tw_encoded {
    int64_t first, n;
    const float *features; /* (n, embed) */
    const bool *ok;        /* (n) false: a bad image, its row is zeros; NULL: all are good */
    int64_t truncated;     /* texts longer than the context */
} tw_encoded;

/* Receives the batches in order, on the caller's thread of rank 0. What it returns ends the work unless it is
 * TW_OK. */
typedef tw_status (*tw_encode_sink)(void *context, const tw_encoded *batch);

/* The images of a data set, in the order of their keys, or files by their paths, or texts, from number
 * `first` on. Where `first` is a multiple of options->batch, the rows have the bits they have from 0 on.
 * Invalid UTF-8 is TW_ERR_FORMAT naming the text's number. */
tw_status tw_encode_dataset(tw_towers *towers, const tw_dual_encoder *model, const tw_dataset *dataset,
                            int64_t first, const tw_encode_options *options, tw_encode_sink sink,
                            void *context) TW_MUST_CHECK;
tw_status tw_encode_files(tw_towers *towers, const tw_dual_encoder *model, const char *const *paths,
                          int64_t n, int64_t first, const tw_encode_options *options, tw_encode_sink sink,
                          void *context) TW_MUST_CHECK;
tw_status tw_encode_some_texts(tw_towers *towers, const tw_dual_encoder *model, const tw_vocab *vocab,
                               const tw_text *texts, int64_t n, int64_t first,
                               const tw_encode_options *options, tw_encode_sink sink,
                               void *context) TW_MUST_CHECK;

/* ---- all in memory ---- */

/* features (n_images, embed), images in the order of their keys; ok[i] says whether image i could be decoded
 * (may be NULL); *bad counts those that could not. features may be NULL on other ranks than 0. */
tw_status tw_encode_all_images(tw_towers *towers, const tw_dual_encoder *model, const tw_dataset *dataset,
                               const tw_encode_options *options, float *features, bool *ok,
                               int64_t *bad) TW_MUST_CHECK;

/* features (n, embed), may be NULL on other ranks than 0; *truncated counts texts longer than the context. */
tw_status tw_encode_texts(tw_towers *towers, const tw_dual_encoder *model, const tw_vocab *vocab,
                          const tw_text *texts, int64_t n, const tw_encode_options *options, float *features,
                          int64_t *truncated) TW_MUST_CHECK;

#endif
