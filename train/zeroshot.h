/* Zero-shot classification: class weights from prompts, accuracies, and the benchmark site's file. */
#ifndef TW_TRAIN_ZEROSHOT_H
#define TW_TRAIN_ZEROSHOT_H

#include "data/label_folder.h"
#include "train/encoder.h"

enum { TW_ZEROSHOT_SCALE = 100, TW_ZEROSHOT_TOP = 5 }; /* probabilities are softmax(100 I C) */

/* weights (labels, dim): for each label the normalised mean of the normalised features of all templates with
 * it. *truncated counts prompts longer than the context. */
tw_status tw_zeroshot_weights(tw_encoder *encoder, const tw_prompts *labels, const tw_prompts *templates,
                              float *weights, int64_t *truncated) TW_MUST_CHECK;

/* Accuracies, of the images that could be decoded. */
typedef struct tw_zeroshot_scores {
    int64_t images, classes;
    double top1, top5;  /* percent of images */
    double mean_class;  /* percent: mean over the classes of their own top-1 */
    int64_t *count;     /* (classes) images of each */
    int64_t *right;     /* (classes) of them with the right class first */
    int64_t *right5;    /* (classes) among the first five */
    int64_t *confusion; /* (classes, classes): [true class][class that came first] */
} tw_zeroshot_scores;

/* logits (n, classes); class_of (n); ok (n): images to count. Equal logits keep the order of the classes. */
tw_status tw_zeroshot_score(const float *logits, const int32_t *class_of, const bool *ok, int64_t n,
                            int64_t classes, tw_zeroshot_scores *out) TW_MUST_CHECK;
void tw_zeroshot_scores_free(tw_zeroshot_scores *scores); /* accepts one that is all zero */

/* ---- the benchmark site's file ---- */

/* A JSON list of row numbers, from 0: the order in which the site wants the images of its data set. *out is
 * freed with free(). TW_ERR_FORMAT: not such a list, or a number that is not below `images` (which one). */
tw_status tw_zeroshot_index_load(const char *path, int64_t images, int64_t **out, int64_t *n) TW_MUST_CHECK;

typedef struct tw_zeroshot_predictions {
    const char *model, *dataset; /* names, UTF-8 */
    int64_t params, visual_params;
    const float *probabilities; /* (images, classes) */
    int64_t images, classes;
    const int64_t *order; /* (rows): the image of each row; NULL: all in their order */
    int64_t rows;
} tw_zeroshot_predictions;

/* Writes what the original writes, byte for byte: probabilities rounded to 6 decimals, printed as Python
 * does. Appears whole or not at all. */
tw_status tw_zeroshot_predictions_write(const char *path, const tw_zeroshot_predictions *p) TW_MUST_CHECK;

#endif
