#include "op_case.h"

#include <math.h>

/* From the loss itself: 2N times the loss of own rows and columns, its derivatives, and whose logit is the
 * first of the largest. */
static void reference(const op_config *config, op_value *in, op_value *out) {
    const tw_contrastive_sums_attr *attr = config->attr;
    int64_t ranks = in[0].shape[0], n = in[0].shape[1];
    double *lse = in[0].v, *most = in[1].v, loss = 0, images = 0, texts = 0, rest, bad = -1;
    op_expect_shape(&out[0], 1, (const int64_t[]){6});
    for (int64_t j = 0; j < n; j++) {
        double sum = 0, target = in[3].v[j];
        bool first = in[4].v[n + j] != 0;
        for (int64_t r = 0; r < ranks; r++) sum += exp(lse[r * n + j]);
        for (int64_t r = 0; r < ranks; r++) {
            lse[r * n + j] = exp(lse[r * n + j]) / sum / (2.0 * (double)attr->pairs);
            if (r != attr->rank &&
                (most[r * n + j] > target || (r < attr->rank && most[r * n + j] == target)))
                first = false;
        }
        if (bad < 0 && !isfinite(target)) bad = (double)j;
        loss += log(sum) + in[2].v[j] - 2 * target;
        images += in[4].v[j] != 0;
        texts += first;
        out[1].v[j] = 0.5 / (double)attr->pairs;
        out[2].v[j] = -1.0 / (double)attr->pairs;
    }
    rest = loss;
    for (int i = 0; i < 3; i++) rest -= out[0].v[i] = (double)(float)rest;
    out[0].v[3] = images;
    out[0].v[4] = texts;
    out[0].v[5] = bad;
}

static const tw_contrastive_sums_attr alone = {.rank = 0, .pairs = 700}, middle = {.rank = 1, .pairs = 20},
                                      too_few = {.rank = 0, .pairs = 3}, nobody = {.rank = 3, .pairs = 20};
static const double ties[] = {5, 7, 7, 2, /**/ 6, 6, 7, 2, /**/ 6, 5, 7, 3}; /* the middle one's: 6 7 7 2 */
static const double own[] = {6, 7, 7, 2}, flags[] = {0, 1, 1, 0, 1, 1, 1, 1};

#define F(...)                                                                                               \
    { OP_SHAPE(__VA_ARGS__), .dtype = OP_F32, .low = -3, .high = 4 }
#define FLAGS(n)                                                                                             \
    { OP_SHAPE(2, n), .dtype = OP_I32, .low = 0, .high = 2 }

static const op_config configs[] = {
    {.name = "alone", .attr = &alone, .input = {F(1, 700), F(1, 700), F(700), F(700), FLAGS(700)}},
    {.name = "one of three",
     .attr = &middle,
     .input = {F(3, 4),
               {OP_SHAPE(3, 4), .dtype = OP_F32, .values = ties},
               F(4),
               {OP_SHAPE(4), .dtype = OP_F32, .values = own},
               {OP_SHAPE(2, 4), .dtype = OP_I32, .values = flags}}},
    {.name = "no own pairs", .attr = &middle, .input = {F(3, 0), F(3, 0), F(0), F(0), FLAGS(0)}},
    {.name = "more pairs than all",
     .attr = &too_few,
     .input = {F(1, 4), F(1, 4), F(4), F(4), FLAGS(4)},
     .fails = TW_ERR_ARGUMENT,
     .message = "4 of 3 pairs"},
    {.name = "another rank",
     .attr = &nobody,
     .input = {F(3, 4), F(3, 4), F(4), F(4), FLAGS(4)},
     .fails = TW_ERR_ARGUMENT,
     .message = "rank 3 of 3"},
    {.name = "other shape",
     .attr = &middle,
     .input = {F(3, 4), F(3, 5), F(4), F(4), FLAGS(4)},
     .fails = TW_ERR_SHAPE,
     .message = "most"},
};

const op_case op_case_contrastive_sums = {
    .reference = reference, OP_CONFIGS(configs), .in_place = 1u, .f32_tolerance = 2e-6};
