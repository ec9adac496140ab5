/* Recall at 1, 5 and 10 over a whole pool: a query counts as found at K if any of its positives is among its
 * K best, a query without positives is a miss, equal scores keep the pool's order, mean recall = (R@1 + R@5 +
 * R@10) / 3. */
#ifndef TW_TRAIN_RECALL_H
#define TW_TRAIN_RECALL_H

#include "autograd/op.h"
#include "train/pool.h"

typedef struct tw_recall {
    double r1, r5, r10, mean; /* percent */
} tw_recall;

/* The k best of (m, d) gallery rows for each of (n, d) query rows, best first: indexes (n, k) and scores (n,
 * k), either may be NULL. Rows in host memory; k is cut to m, *k_out says to what. */
tw_status tw_retrieve(tw_device *device, const float *queries, int64_t n, const float *gallery, int64_t m,
                      int64_t d, int k, int32_t *indexes, float *scores, int *k_out) TW_MUST_CHECK;

/* Counting queries one by one: `rank`, from 0, of the query's best positive; any rank >= 10 is a miss. */
typedef struct tw_recall_count {
    int64_t hits[3], queries;
} tw_recall_count;
void tw_recall_add(tw_recall_count *count, int rank);
/* Bit for bit the original's figures; all 0 without a single query. */
tw_recall tw_recall_counted(const tw_recall_count *count);

/* Scores given retrieved indexes (n, k): positives of query i are of[start[i] .. start[i+1]).
 * only_with_positives leaves queries without any out, instead of counting them as misses: images that no text
 * names are no queries, as in the original's reversed annotation. */
tw_recall tw_recall_of(const int32_t *indexes, int64_t n, int k, const int64_t *start, const int64_t *of,
                       bool only_with_positives);

/* Both directions of a pool, from features in the pool's orders. */
tw_status tw_recall_pool(tw_device *device, const tw_pool *pool, const float *image, const float *text,
                         int64_t d, tw_recall *text_to_image, tw_recall *image_to_text) TW_MUST_CHECK;

#endif
