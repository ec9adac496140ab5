#include "op_case.h"

#include "tw_test.h"

#include <math.h>

static void reference(const op_config *config, op_value *in, op_value *out) {
    const tw_finite_norm_attr *attr = config->attr;
    op_expect_shape(&out[0], 1, &attr->count);
    for (int64_t k = 0; k < attr->count; k++) {
        double square = 0;
        for (int64_t i = 0; i < attr->segments[k].count; i++) {
            double g = in[0].v[attr->segments[k].offset + i];
            square += g * g;
        }
        out[0].v[k] = sqrt(square);
    }
}

static const tw_segment parts[] = {{.offset = 0, .count = 10},
                                   {.offset = 16, .count = 1},
                                   {.offset = 32, .count = 0},
                                   {.offset = 32, .count = 8},
                                   {.offset = 48, .count = 9000}};
static const tw_finite_norm_attr several = {parts, 5}, one = {parts + 4, 1}, none = {parts, 0};

static const op_config configs[] = {
    {.name = "segments", .attr = &several, .input = {{OP_SHAPE(9048), .dtype = OP_F32}}},
    {.name = "one", .attr = &one, .input = {{OP_SHAPE(9050), .dtype = OP_F32}}},
    {.name = "none", .attr = &none, .input = {{OP_SHAPE(5), .dtype = OP_F32}}},
    {.name = "empty slab", .attr = &none, .input = {{OP_SHAPE(0), .dtype = OP_F32}}},
    {.name = "tiny values", /* their squares are 0 in f32 */
     .attr = &several,
     .input = {{OP_SHAPE(9048), .dtype = OP_F32, .low = 1e-30, .high = 2e-30}}},
    {.name = "huge values",
     .attr = &several,
     .input = {{OP_SHAPE(9048), .dtype = OP_F32, .low = 1e30, .high = 2e30}}},
    {.name = "bf16",
     .attr = &several,
     .input = {{OP_SHAPE(9048), .dtype = OP_BF16}},
     .fails = TW_ERR_SHAPE,
     .message = "gradients is bf16"},
    {.name = "missing", .attr = &one, .input = {{0}}, .fails = TW_ERR_ARGUMENT, .message = "missing"},
};

/* One element that is not finite, wherever it is, spoils its own segment and no other; and the norms have the
 * same bits for any number of threads. */
static const char *finds_what_is_not_finite(void) {
    enum { N = 9048 };
    static float g[N];
    static const float spoilers[] = {NAN, INFINITY, -INFINITY};
    static const int64_t places[] = {0, 9, 16, 39, 48, 4143, 9047};
    static const int owners[] = {0, 0, 1, 3, 4, 4, 4};
    const int64_t n = N;
    float norm[5], first[5];
    const char *wrong = NULL;
    for (int t = 1; t <= 3 && !wrong; t++) {
        tw_device *device;
        if (tw_device_cpu(t, &device)) return "no device";
        tw_call c = {.op = TW_OP_finite_norm, .device = device, .attr = (void *)&several, .n_inputs = 1};
        for (int i = 0; i < N; i++) g[i] = 1.0f / (float)(1 + i % 97);
        c.input[0] = tw_tensor_of(g, TW_F32, 1, &n);
        if (tw_op_prepare(&c)) wrong = "cannot be prepared";
        c.output[0].data = norm;
        if (!wrong && tw_op_forward(&c)) wrong = "forward fails";
        if (t == 1) memcpy(first, norm, sizeof norm);
        if (!wrong && memcmp(first, norm, sizeof norm) != 0) wrong = "depends on the number of threads";
        for (int s = 0; s < 3 && !wrong; s++)
            for (int k = 0; k < 7 && !wrong; k++) {
                float kept = g[places[k]];
                g[places[k]] = spoilers[s];
                if (tw_op_forward(&c)) wrong = "forward fails";
                for (int i = 0; i < 5 && !wrong; i++)
                    if (!isfinite(norm[i]) != (i == owners[k])) wrong = "misses or misplaces NaN or infinity";
                g[places[k]] = kept;
            }
        /* Gaps belong to nobody. */
        g[12] = NAN;
        if (!wrong && (tw_op_forward(&c) || memcmp(first, norm, sizeof norm) != 0)) wrong = "reads a gap";
        tw_device_free(device);
    }
    return wrong;
}

const op_case op_case_finite_norm = {
    .reference = reference, OP_CONFIGS(configs), .f32_tolerance = 1e-6, .also = finds_what_is_not_finite};
