#include "op_case.h"

#include "tw_test.h"

#include <math.h>

/* The batch's mean and biased variance of channel c. */
static void statistics(const op_value *x, int64_t d, int64_t c, double *mean, double *variance) {
    int64_t rows = d ? x->count / d : 0;
    *mean = *variance = 0;
    for (int64_t r = 0; r < rows; r++) *mean += x->v[r * d + c] / (double)rows;
    for (int64_t r = 0; r < rows; r++) *variance += pow(x->v[r * d + c] - *mean, 2) / (double)rows;
}

static void reference(const op_config *config, op_value *in, op_value *out) {
    const tw_batch_norm_attr *attr = config->attr;
    int64_t d = in[0].shape[in[0].ndim - 1], rows = d ? in[0].count / d : 0;
    op_expect_shape(&out[0], in[0].ndim, in[0].shape);
    for (int64_t c = 0; c < d; c++) {
        double mean = in[3].v[c], variance = in[4].v[c];
        if (attr->training) statistics(&in[0], d, c, &mean, &variance);
        for (int64_t r = 0; r < rows; r++) {
            double z =
                (in[0].v[r * d + c] - mean) / sqrt(variance + (double)attr->eps) * in[1].v[c] + in[2].v[c];
            if (in[5].v) z += in[5].v[r * d + c];
            out[0].v[r * d + c] = attr->relu && z < 0 ? 0 : z;
        }
    }
}

static const tw_batch_norm_attr plain = {.eps = 1e-5f, .training = true},
                                relu = {.eps = 1e-5f, .relu = true, .training = true},
                                large = {.eps = 0.5f, .training = true}, frozen = {.eps = 1e-5f},
                                frozen_relu = {.eps = 1e-5f, .relu = true};

#define VECTOR(d, ...)                                                                                       \
    { OP_SHAPE(d), .dtype = OP_F32, __VA_ARGS__ }
#define REST(d)                                                                                              \
    VECTOR(d, .low = 0.5, .high = 1.5, .parameter = true), VECTOR(d, .parameter = true),                     \
        VECTOR(d, .constant = true), VECTOR(d, .low = 0.5, .high = 2, .constant = true)

static const op_config configs[] = {
    {.name = "training", .attr = &plain, .input = {{OP_SHAPE(3, 2, 2, 5)}, REST(5)}},
    {.name = "training, ReLU", .attr = &relu, .input = {{OP_SHAPE(2, 3, 2, 7)}, REST(7)}},
    {.name = "training, ReLU, residual",
     .attr = &relu,
     .input = {{OP_SHAPE(2, 3, 3, 6)}, REST(6), {OP_SHAPE(2, 3, 3, 6)}}},
    /* channels in multiples of 8: what a GPU's library takes */
    {.name = "whole units", .attr = &plain, .input = {{OP_SHAPE(3, 2, 2, 8)}, REST(8)}},
    {.name = "whole units, ReLU, residual",
     .attr = &relu,
     .input = {{OP_SHAPE(2, 3, 3, 16)}, REST(16), {OP_SHAPE(2, 3, 3, 16)}}},
    {.name = "training, residual", .attr = &plain, .input = {{OP_SHAPE(8, 3)}, REST(3), {OP_SHAPE(8, 3)}}},
    {.name = "gaps",
     .attr = &relu,
     .input = {{OP_SHAPE(4, 3, 9), .padding = 3}, REST(9), {OP_SHAPE(4, 3, 9), .padding = 1}}},
    {.name = "large eps", .attr = &large, .input = {{OP_SHAPE(9, 4)}, REST(4)}},
    {.name = "far from zero", /* no variance from squares; 50 deviations off, rounding weighs as much more */
     .attr = &large,
     .magnified = 10,
     .input = {{OP_SHAPE(40, 3), .dtype = OP_F32, .low = 60, .high = 64}, REST(3)}},
    {.name = "more rows than a block", .attr = &relu, .input = {{OP_SHAPE(301, 3)}, REST(3)}},
    {.name = "wide", .attr = &plain, .input = {{OP_SHAPE(11, 70)}, REST(70), {OP_SHAPE(11, 70)}}},
    {.name = "frozen", .attr = &frozen, .input = {{OP_SHAPE(3, 2, 2, 5)}, REST(5)}},
    {.name = "frozen, ReLU, residual",
     .attr = &frozen_relu,
     .input = {{OP_SHAPE(2, 3, 3, 6), .padding = 2}, REST(6), {OP_SHAPE(2, 3, 3, 6)}}},
    {.name = "frozen, one row", .attr = &frozen_relu, .input = {{OP_SHAPE(1, 4)}, REST(4)}},
    {.name = "no rows", .attr = &relu, .input = {{OP_SHAPE(0, 2, 2, 5)}, REST(5), {OP_SHAPE(0, 2, 2, 5)}}},
    {.name = "no rows, frozen", .attr = &frozen, .input = {{OP_SHAPE(0, 5)}, REST(5)}},
    {.name = "no channels", .attr = &plain, .input = {{OP_SHAPE(3, 0)}, REST(0)}},
    {.name = "other residual",
     .attr = &plain,
     .input = {{OP_SHAPE(4, 3)}, REST(3), {OP_SHAPE(3, 4)}},
     .fails = TW_ERR_SHAPE,
     .message = "residual differ"},
    {.name = "other width",
     .attr = &plain,
     .input = {{OP_SHAPE(4, 3)}, REST(4)},
     .fails = TW_ERR_SHAPE,
     .message = "gain is f32 (4), f32 (3) is needed"},
    {.name = "no statistics",
     .attr = &plain,
     .input = {{OP_SHAPE(4, 3)}, VECTOR(3, .parameter = true), VECTOR(3, .parameter = true)},
     .fails = TW_ERR_ARGUMENT,
     .message = "running mean is missing"},
};

/* What backward leaves as the running statistics' gradients: share (running - batch's), the variance
 * unbiased; added or written; nothing in frozen mode. */
enum { ROWS = 5, WIDTH = 2 };

static const char *deliver(bool training, tw_accumulate mode, const float expected[2 * WIDTH]) {
    static const float x[ROWS * WIDTH] = {1, -2, 3, 4, -1, 0, 2, 7, 5, 1};
    float gain[WIDTH] = {1, 2}, bias[WIDTH] = {0}, mean[WIDTH] = {0.5f, -1}, variance[WIDTH] = {2, 3};
    float y[ROWS * WIDTH], stats[2 * WIDTH], dy[ROWS * WIDTH] = {0}, got[2 * WIDTH] = {1, 1, 1, 1};
    int64_t shape[2] = {ROWS, WIDTH}, d = WIDTH;
    tw_batch_norm_attr attr = {.eps = 1e-5f, .training = training};
    tw_step step = {.share = 0.25f};
    tw_call call = {.op = TW_OP_batch_norm, .attr = &attr, .n_inputs = 5, .needs_grad = true, .step = &step};
    if (tw_device_cpu(2, &call.device) != TW_OK) return tw_last_error();
    float *inputs[] = {gain, bias, mean, variance};
    call.input[0] = tw_tensor_of((void *)(uintptr_t)x, TW_F32, 2, shape);
    for (int i = 0; i < 4; i++) call.input[1 + i] = tw_tensor_of(inputs[i], TW_F32, 1, &d);
    tw_status status = tw_op_prepare(&call);
    call.output[0].data = y, call.output[1].data = stats;
    call.scratch = aligned_alloc(64, (call.forward_scratch + call.backward_scratch + 127) / 64 * 64);
    if (status == TW_OK) status = tw_op_forward(&call);
    call.output_grad[0] = tw_tensor_of(dy, TW_F32, 2, shape);
    for (int i = 0; i < 2; i++) {
        call.input_grad[3 + i] = tw_tensor_of(got + i * WIDTH, TW_F32, 1, &d);
        call.input_mode[3 + i] = mode;
    }
    if (status == TW_OK) status = tw_op_backward(&call);
    free(call.scratch);
    tw_device_free(call.device);
    if (status != TW_OK) return tw_last_error();
    for (int i = 0; i < 2 * WIDTH; i++)
        if (!(fabsf(got[i] - expected[i] - (mode == TW_ADD ? 1.0f : 0.0f)) < 1e-6f))
            return training ? "wrong gradients of the running statistics in training"
                            : "gradients of frozen running statistics";
    return NULL;
}

static const char *statistics_move(void) {
    /* means 2 and 2, unbiased variances 20 / 4 and 50 / 4 */
    static const float moved[] = {0.25f * (0.5f - 2), 0.25f * (-1 - 2), 0.25f * (2 - 5), 0.25f * (3 - 12.5f)};
    static const float none[2 * WIDTH] = {0};
    for (int mode = TW_WRITE; mode <= TW_ADD; mode++) {
        const char *wrong = deliver(true, (tw_accumulate)mode, moved);
        if (!wrong) wrong = deliver(false, (tw_accumulate)mode, none);
        if (wrong) return wrong;
    }
    return NULL;
}

const op_case op_case_batch_norm = {.reference = reference, OP_CONFIGS(configs), .also = statistics_move};
