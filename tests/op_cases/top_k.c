#include "op_case.h"

#include "tw_test.h"

#include <math.h>
#include <stdlib.h>

static void reference(const op_config *config, op_value *in, op_value *out) {
    int64_t n = in[0].shape[0], d = in[0].shape[1], m = in[1].shape[0];
    int64_t k = ((const tw_top_k_attr *)config->attr)->k;
    op_expect_shape(&out[0], 2, (int64_t[]){n, k});
    op_expect_shape(&out[1], 2, (int64_t[]){n, k});
    bool *taken = malloc((size_t)m + 1);
    for (int64_t i = 0; i < n; i++) {
        memset(taken, 0, (size_t)m);
        for (int64_t r = 0; r < k; r++) {
            int64_t best = -1;
            double most = 0;
            for (int64_t j = 0; j < m; j++) {
                double s = 0;
                for (int64_t c = 0; c < d; c++) s += in[0].v[i * d + c] * in[1].v[j * d + c];
                if (!taken[j] && (best < 0 || s > most)) best = j, most = s;
            }
            taken[best] = true;
            out[0].v[i * k + r] = (double)best, out[1].v[i * k + r] = most;
        }
    }
    free(taken);
}

static const tw_top_k_attr one = {.k = 1}, three = {.k = 3}, nine = {.k = 9}, none = {.k = 0},
                           ten = {.k = 10};

#define FLOATS(...)                                                                                          \
    { OP_SHAPE(__VA_ARGS__), .dtype = OP_F32 }

static const op_config configs[] = {
    {.name = "best", .attr = &one, .input = {FLOATS(4, 5), FLOATS(9, 5)}},
    {.name = "one of one", .attr = &one, .input = {FLOATS(1, 1), FLOATS(1, 1)}},
    {.name = "three", .attr = &three, .input = {FLOATS(7, 3), FLOATS(40, 3)}},
    {.name = "all", .attr = &nine, .input = {FLOATS(3, 5), FLOATS(9, 5)}},
    {.name = "strided",
     .attr = &three,
     .input = {{OP_SHAPE(4, 5), .dtype = OP_F32, .padding = 2},
               {OP_SHAPE(9, 5), .dtype = OP_F32, .padding = 3}}},
    {.name = "equal scores in gallery order", /* products of small whole numbers */
     .attr = &nine,
     .input = {{OP_SHAPE(5, 1), .dtype = OP_F32, .values = (const double[]){1, -1, 2, 0, 1}},
               {OP_SHAPE(12, 1), .dtype = OP_F32,
                .values = (const double[]){0, 1, 1, -1, 0, 2, 2, 1, 0, -1, 0, 1}}}},
    {.name = "no length", .attr = &three, .input = {FLOATS(2, 0), FLOATS(5, 0)}},
    {.name = "no queries", .attr = &three, .input = {FLOATS(0, 4), FLOATS(5, 4)}},
    {.name = "several tiles", .attr = &three, .input = {FLOATS(515, 2), FLOATS(2055, 2)}},
    {.name = "more than there are",
     .attr = &ten,
     .input = {FLOATS(3, 5), FLOATS(9, 5)},
     .fails = TW_ERR_ARGUMENT,
     .message = "10 of a gallery of 9"},
    {.name = "none",
     .attr = &none,
     .input = {FLOATS(3, 5), FLOATS(9, 5)},
     .fails = TW_ERR_ARGUMENT,
     .message = "0 of"},
    {.name = "several blocks of queries", .attr = &three, .input = {FLOATS(1100, 3), FLOATS(70, 3)}},
    {.name = "other lengths",
     .attr = &one,
     .input = {FLOATS(3, 5), FLOATS(9, 4)},
     .fails = TW_ERR_SHAPE,
     .message = "(3,5) and the gallery f32 (9,4)"},
};

/* NaN scores come last, in gallery order. */
static const char *not_a_number(void) {
    float queries[1] = {1}, gallery[6] = {NAN, 1, NAN, -INFINITY, 3, 1}, scores[6], tile[64];
    int32_t indexes[6];
    const int32_t expected[6] = {4, 1, 5, 3, 0, 2};
    for (int k = 1; k <= 6; k++) {
        tw_top_k_attr attr = {.k = k};
        tw_device *device;
        TW_ASSERT_OK(tw_device_cpu(1, &device));
        tw_call call = {.op = TW_OP_top_k, .device = device, .attr = &attr, .n_inputs = 2, .scratch = tile};
        call.input[0] = tw_tensor_of(queries, TW_F32, 2, (int64_t[]){1, 1});
        call.input[1] = tw_tensor_of(gallery, TW_F32, 2, (int64_t[]){6, 1});
        TW_ASSERT_OK(tw_op_prepare(&call));
        ck_assert(call.forward_scratch <= sizeof tile);
        call.output[0].data = indexes, call.output[1].data = scores;
        TW_ASSERT_OK(tw_op_forward(&call));
        tw_device_free(device);
        if (memcmp(indexes, expected, (size_t)k * sizeof *indexes) != 0)
            return "scores that are not numbers are not last, in gallery order";
    }
    return NULL;
}

const op_case op_case_top_k = {.reference = reference, OP_CONFIGS(configs), .also = not_a_number};
