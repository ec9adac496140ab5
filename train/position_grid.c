#include "train/position_grid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double A = -0.75;

/* One output place along an axis: the four input places and their weights. */
typedef struct tap {
    int64_t at[4];
    double weight[4];
} tap;

/* Keys' kernel at distances 1 + t, t, 1 - t and 2 - t. */
static void cubic_weights(double t, double w[4]) {
    double s = 1 - t;
    w[0] = ((A * (t + 1) - 5 * A) * (t + 1) + 8 * A) * (t + 1) - 4 * A;
    w[1] = ((A + 2) * t - (A + 3)) * t * t + 1;
    w[2] = ((A + 2) * s - (A + 3)) * s * s + 1;
    w[3] = ((A * (s + 1) - 5 * A) * (s + 1) + 8 * A) * (s + 1) - 4 * A;
}

static void plan(tap *taps, int64_t from, int64_t to) {
    for (int64_t i = 0; i < to; i++) {
        /* Aligned corners: the first and last places fall on the first and last. */
        double place = to > 1 ? (double)i * (double)(from - 1) / (double)(to - 1) : 0;
        double whole = floor(place);
        cubic_weights(place - whole, taps[i].weight);
        for (int k = 0; k < 4; k++) {
            int64_t at = (int64_t)whole - 1 + k;
            taps[i].at[k] = at < 0 ? 0 : at >= from ? from - 1 : at;
        }
    }
}

static void resize_place(const float *grid, int64_t side, int64_t width, const tap *y, const tap *x,
                         float *out) {
    for (int64_t c = 0; c < width; c++) {
        double sum = 0;
        for (int i = 0; i < 4; i++) {
            const float *row = grid + y->at[i] * side * width + c;
            double line = 0;
            for (int k = 0; k < 4; k++) line += x->weight[k] * (double)row[x->at[k] * width];
            sum += y->weight[i] * line;
        }
        out[c] = (float)sum;
    }
}

tw_status tw_resize_position_grid(const float *from, int64_t from_side, float *to, int64_t to_side,
                                  int64_t width) {
    if (from_side < 1 || to_side < 1 || width < 1)
        return FAIL(TW_ERR_ARGUMENT, "a positional grid of %lld x %lld cannot become one of %lld x %lld",
                    (long long)from_side, (long long)from_side, (long long)to_side, (long long)to_side);
    tap *taps = malloc((size_t)to_side * sizeof *taps);
    if (!taps) return FAIL(TW_ERR_MEMORY, "no memory to resize a positional grid");
    plan(taps, from_side, to_side);
    memcpy(to, from, (size_t)width * sizeof *to);
    for (int64_t y = 0; y < to_side; y++)
        for (int64_t x = 0; x < to_side; x++)
            resize_place(from + width, from_side, width, &taps[y], &taps[x],
                         to + (1 + y * to_side + x) * width);
    free(taps);
    return TW_OK;
}

int64_t tw_position_grid_side(int64_t positions) {
    int64_t side = 0;
    while ((side + 1) * (side + 1) <= positions - 1 && side < 1 << 15) side++;
    return side * side == positions - 1 ? side : 0;
}
