/* Images against texts or classes, from their features: logits and probabilities. */
#ifndef TW_TRAIN_SIMILARITY_H
#define TW_TRAIN_SIMILARITY_H

#include <stdint.h>

/* logits (n, m) = scale * queries (n, d) . gallery (m, d): each product summed in f64 and rounded once, so
 * that it depends on neither n, m nor the number of threads. Rows in host memory. */
void tw_logits(const float *queries, int64_t n, const float *gallery, int64_t m, int64_t d, double scale,
               float *logits);
/* Each of n rows of m logits becomes its softmax, in place. */
void tw_softmax_rows(float *rows, int64_t n, int64_t m);

#endif
