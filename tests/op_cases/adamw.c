#include "op_case.h"

#include "tw_test.h"

#include <math.h>

/* torch.optim.AdamW, one step, in its documented order: decay first, then the moments, then the update with
 * bias-corrected moments; afterwards the segment's range. */
static void reference(const op_config *config, op_value *in, op_value *out) {
    const tw_adamw_attr *attr = config->attr;
    const tw_step *s = &config->step;
    (void)out;
    if (s->skip) return;
    double b1 = (double)attr->beta1, b2 = (double)attr->beta2;
    for (int64_t k = 0; k < attr->count; k++) {
        const tw_segment *segment = &attr->segments[k];
        for (int64_t i = segment->offset; i < segment->offset + segment->count; i++) {
            double *p = &in[0].v[i], *m = &in[2].v[i], *v = &in[3].v[i];
            double g = in[1].v[i] * (double)s->gradient_scale;
            *p *= 1 - (double)s->lr * (double)segment->weight_decay;
            *m = b1 * *m + (1 - b1) * g;
            *v = b2 * *v + (1 - b2) * g * g;
            double m_hat = *m / (double)s->bias_correction1, v_hat = *v / (double)s->bias_correction2;
            *p -= (double)s->lr * m_hat / (sqrt(v_hat) + (double)attr->eps);
            if (*p < (double)segment->low) *p = (double)segment->low;
            if (*p > (double)segment->high) *p = (double)segment->high;
            if (in[4].v) in[4].v[i] = *p;
        }
    }
}

#define ANY .low = -INFINITY, .high = INFINITY
static const tw_segment whole[] = {{.offset = 0, .count = 23, ANY}};
static const tw_segment several[] = {
    {.offset = 0, .count = 10, .weight_decay = 0.2f, ANY},
    {.offset = 16, .count = 7, ANY},
    {.offset = 32, .count = 1, .low = 0, .high = 0.25f}, /* logit_scale: cut off above */
    {.offset = 48, .count = 5, .weight_decay = 0.2f, .low = -0.1f, .high = 0.1f},
    {.offset = 64, .count = 0, ANY},
};
static const tw_segment long_one[] = {{.offset = 5, .count = 40000, .weight_decay = 0.01f, ANY}};
static const tw_adamw_attr vit = {whole, 1, 0.9f, 0.98f, 1e-6f}, resnet = {whole, 1, 0.9f, 0.999f, 1e-8f},
                           parts = {several, 5, 0.9f, 0.98f, 1e-6f},
                           blocks = {long_one, 1, 0.9f, 0.98f, 1e-6f}, none = {whole, 0, 0.9f, 0.98f, 1e-6f};

#define V(n)                                                                                                 \
    { OP_SHAPE(n), .dtype = OP_F32 }
#define SECOND(n)                                                                                            \
    { OP_SHAPE(n), .dtype = OP_F32, .low = 0, .high = 0.5 }
#define FIRST_STEP .lr = 1e-3f, .bias_correction1 = 0.1f, .bias_correction2 = 0.02f
#define LATER .lr = 5e-2f, .bias_correction1 = 0.65132156f, .bias_correction2 = 0.18292719f

static const op_config configs[] = {
    {.name = "one segment",
     .attr = &vit,
     .input = {V(23), V(23), V(23), SECOND(23)},
     .step = {LATER, .gradient_scale = 1}},
    {.name = "RN50's constants",
     .attr = &resnet,
     .input = {V(23), V(23), V(23), SECOND(23)},
     .step = {FIRST_STEP, .gradient_scale = 1}},
    {.name = "clipped",
     .attr = &vit,
     .input = {V(23), V(23), V(23), SECOND(23)},
     .step = {LATER, .gradient_scale = 0.03125f}},
    {.name = "decay, range, gaps between segments",
     .attr = &parts,
     .input = {{OP_SHAPE(80), .dtype = OP_F32, .low = 0.3, .high = 1}, V(80), V(80), SECOND(80)},
     .step = {LATER, .gradient_scale = 1}},
    {.name = "copies",
     .attr = &parts,
     .input = {V(80), V(80), V(80), SECOND(80), {OP_SHAPE(80), .dtype = OP_BF16}},
     .step = {LATER, .gradient_scale = 0.5f}},
    {.name = "several blocks", /* more than one thread's block, and not from 0 */
     .attr = &blocks,
     .input = {V(40010), V(40010), V(40010), SECOND(40010)},
     .step = {LATER, .gradient_scale = 1}},
    {.name = "skipped",
     .attr = &parts,
     .input = {V(80), V(80), V(80), SECOND(80), {OP_SHAPE(80), .dtype = OP_BF16}},
     .step = {LATER, .gradient_scale = 1, .skip = 1}},
    {.name = "no segments", .attr = &none, .input = {V(23), V(23), V(23), SECOND(23)}, .step = {LATER}},
    {.name = "empty", .attr = &none, .input = {V(0), V(0), V(0), V(0)}, .step = {LATER}},
    {.name = "gradients of another slab",
     .attr = &vit,
     .input = {V(23), V(22), V(23), V(23)},
     .fails = TW_ERR_SHAPE,
     .message = "gradients is f32 (22), f32 (23) is needed"},
    {.name = "moments in bf16",
     .attr = &vit,
     .input = {V(23), V(23), {OP_SHAPE(23), .dtype = OP_BF16}, V(23)},
     .fails = TW_ERR_SHAPE,
     .message = "m is bf16"},
    {.name = "copies in f32",
     .attr = &vit,
     .input = {V(23), V(23), V(23), V(23), V(23)},
     .fails = TW_ERR_SHAPE,
     .message = "copies is f32"},
};

/* What the walk's tolerances cannot show: copies are the rounded values to the bit, a skipped step keeps
 * every bit even if gradients are NaN, and what lies between segments is not touched. */
static const char *exact_properties(void) {
    enum { N = 80 };
    static float p[N], g[N], m[N], v[N], before[3][N];
    static uint16_t copies[N], copies_before[N];
    const int64_t n = N;
    tw_device *device;
    if (tw_device_cpu(2, &device)) return "no device";
    const char *wrong = NULL;
    for (int skip = 0; skip < 2 && !wrong; skip++) {
        tw_step step = {LATER, .gradient_scale = 1, .skip = skip};
        tw_call c = {
            .op = TW_OP_adamw, .device = device, .attr = (void *)&parts, .n_inputs = 5, .step = &step};
        float *slabs[] = {p, g, m, v};
        for (int i = 0; i < 4; i++) c.input[i] = tw_tensor_of(slabs[i], TW_F32, 1, &n);
        c.input[4] = tw_tensor_of(copies, TW_BF16, 1, &n);
        for (int i = 0; i < N; i++) {
            p[i] = 0.4f + 0.013f * (float)i, g[i] = skip ? NAN : 0.3f - 0.01f * (float)i;
            m[i] = 0.1f, v[i] = 0.2f, copies[i] = 0x1234;
        }
        memcpy(before[0], p, sizeof p), memcpy(before[1], m, sizeof m), memcpy(before[2], v, sizeof v);
        memcpy(copies_before, copies, sizeof copies);
        if (tw_op_prepare(&c) || tw_op_forward(&c)) wrong = "forward fails";
        bool changed[N] = {false};
        for (int k = 0; k < 5 && !skip; k++)
            for (int64_t i = 0; i < several[k].count; i++) changed[several[k].offset + i] = true;
        for (int i = 0; i < N && !wrong; i++) {
            if (changed[i] && copies[i] != tw_to_bf16(p[i])) wrong = "a copy is not its rounded value";
            if (changed[i] == (p[i] == before[0][i])) wrong = "changed the wrong values";
            if (!changed[i] && (memcmp(&m[i], &before[1][i], 4) || memcmp(&v[i], &before[2][i], 4) ||
                                copies[i] != copies_before[i]))
                wrong = "changed moments or copies it should not";
        }
    }
    tw_device_free(device);
    return wrong;
}

const op_case op_case_adamw = {.reference = reference,
                               OP_CONFIGS(configs),
                               .in_place = 1u << 0 | 1u << 2 | 1u << 3 | 1u << 4,
                               .f32_tolerance = 2e-6,
                               .also = exact_properties};
