#include "train/similarity.h"

#include <math.h>

/* Eight partial sums, which the compiler turns into vectors; in a fixed order, so that results repeat. */
static double dot(const float *a, const float *b, int64_t d) {
    enum { LANES = 8 };
    double sum[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= d; i += LANES)
        for (int lane = 0; lane < LANES; lane++) sum[lane] += (double)a[i + lane] * (double)b[i + lane];
    for (; i < d; i++) sum[0] += (double)a[i] * (double)b[i];
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

void tw_logits(const float *queries, int64_t n, const float *gallery, int64_t m, int64_t d, double scale,
               float *logits) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++)
            logits[i * m + j] = (float)(scale * dot(queries + i * d, gallery + j * d, d));
}

static void softmax(float *row, int64_t m) {
    float most = row[0];
    for (int64_t j = 1; j < m; j++)
        if (row[j] > most) most = row[j];
    double sum = 0;
    for (int64_t j = 0; j < m; j++) sum += exp((double)row[j] - (double)most);
    for (int64_t j = 0; j < m; j++) row[j] = (float)(exp((double)row[j] - (double)most) / sum);
}

void tw_softmax_rows(float *rows, int64_t n, int64_t m) {
    if (m == 0) return;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) softmax(rows + i * m, m);
}
