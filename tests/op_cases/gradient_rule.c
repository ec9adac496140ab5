#include "op_case.h"

#include "autograd/ops/split_math.h"
#include "tw_test.h"

#include <math.h>

/* The squares' sum of all units, given or to be measured: as f32 a unit's norm is, either way. */
static double sum_of_squares(const op_config *config, const op_value *in) {
    int unit = ((const tw_gradient_rule_attr *)config->attr)->unit;
    double square = 0;
    for (int64_t u = 0; in[0].v && u < in[0].count; u++) square += in[0].v[u] * in[0].v[u];
    for (int64_t i = 0; !in[0].v && i < in[2].count; i += unit) {
        double sum = 0;
        for (int64_t k = i; k < i + unit && k < in[2].count; k++) sum += in[2].v[k] * in[2].v[k];
        square += (double)(float)sqrt(sum) * (double)(float)sqrt(sum);
    }
    return square;
}

static void reference(const op_config *config, op_value *in, op_value *out) {
    op_expect_shape(&out[0], 1, (const int64_t[]){3});
    op_expect_shape(&out[1], 1, (const int64_t[]){3});
    double rest = sqrt(sum_of_squares(config, in));
    for (int i = 0; i < 3; i++) rest -= out[0].v[i] = (double)(float)rest;
    out[1].v[0] = -1;
    out[1].v[1] = 0;
    out[1].v[2] = 1;
}

static const tw_gradient_rule_attr units = {.unit = 16, .beta1 = 0.9f, .beta2 = 0.98f},
                                   large = {.unit = 1, .beta1 = 0.9f, .beta2 = 0.98f},
                                   whole = {.unit = 1024, .beta1 = 0.9f, .beta2 = 0.98f};
static const double turned[] = {4, 2, 0, 1, 3}, ten[] = {10, 0};

#define V(n)                                                                                                 \
    { OP_SHAPE(n), .dtype = OP_F32 }
#define NORMS(n)                                                                                             \
    { OP_SHAPE(n), .dtype = OP_F32, .low = 0.25, .high = 2 }
#define STEPS                                                                                                \
    { OP_SHAPE(2), .dtype = OP_I32, .values = ten }

static const op_config configs[] = {
    {.name = "whole units", .attr = &units, .input = {NORMS(4), {0}, V(64), STEPS}},
    {.name = "elsewhere",
     .attr = &units,
     .input = {NORMS(5), {OP_SHAPE(5), .dtype = OP_I32, .values = turned}, V(79), STEPS}},
    {.name = "many", .attr = &large, .input = {NORMS(5001), {0}, V(5001), STEPS}},
    {.name = "none", .attr = &units, .input = {NORMS(0), {0}, V(0), STEPS}},
    {.name = "measured", .attr = &units, .input = {{0}, {0}, V(79), STEPS}},
    {.name = "measured, several blocks", .attr = &units, .input = {{0}, {0}, V(3001), STEPS}},
    {.name = "measured, as the optimizer's", .attr = &whole, .input = {{0}, {0}, V(70000), STEPS}},
    {.name = "measured, tiny values", /* their squares are 0 in f32 */
     .attr = &units,
     .input = {{0}, {0}, {OP_SHAPE(3001), .dtype = OP_F32, .low = 1e-30, .high = 2e-30}, STEPS}},
    {.name = "measured, none", .attr = &units, .input = {{0}, {0}, V(0), STEPS}},
    {.name = "other units",
     .attr = &units,
     .input = {NORMS(5), {0}, V(81), STEPS},
     .fails = TW_ERR_SHAPE,
     .message = "are not 5 units"},
    {.name = "places of no norms",
     .attr = &units,
     .input = {{0}, {OP_SHAPE(5), .dtype = OP_I32, .values = turned}, V(79), STEPS},
     .fails = TW_ERR_ARGUMENT,
     .message = "are not given"},
    {.name = "no counter",
     .attr = &units,
     .input = {NORMS(4), {0}, V(64)},
     .fails = TW_ERR_ARGUMENT,
     .message = "steps is missing"},
};

enum { UNITS = 5, ELEMENTS = 75 };

typedef struct rig {
    tw_device *device;
    float g[ELEMENTS], norms[UNITS], norm[TW_SPLIT];
    int32_t places[UNITS], steps[2], found[3];
    tw_segment rest[2];
    tw_step record;
} rig;

static tw_status run(rig *r, float clip) {
    tw_gradient_rule_attr attr = {.record = &r->record,
                                  .clip = clip,
                                  .beta1 = 0.9f,
                                  .beta2 = 0.98f,
                                  .unit = 16,
                                  .rest = r->rest,
                                  .n_rest = 2};
    tw_call c = {.op = TW_OP_gradient_rule, .device = r->device, .attr = &attr, .n_inputs = 4};
    const int64_t units_ = UNITS, elements = ELEMENTS, two = 2;
    c.input[0] = tw_tensor_of(r->norms, TW_F32, 1, &units_);
    c.input[1] = tw_tensor_of(r->places, TW_I32, 1, &units_);
    c.input[2] = tw_tensor_of(r->g, TW_F32, 1, &elements);
    c.input[3] = tw_tensor_of(r->steps, TW_I32, 1, &two);
    TRY(tw_op_prepare(&c));
    c.output[0].data = r->norm;
    c.output[1].data = r->found;
    return tw_op_forward(&c);
}

/* The factors, the counter, and which element spoilt the gradient. */
static const char *rules(void) {
    static rig r;
    r = (rig){.steps = {2},
              .record = {.seed = 7, .lr = 0.5f},
              .rest = {{.offset = 3, .count = 7}, {.offset = 60, .count = 3}}};
    if (tw_device_cpu(1, &r.device)) return "no device";
    const char *wrong = NULL;
    for (int u = 0; u < UNITS; u++) r.norms[u] = 2.0f, r.places[u] = UNITS - 1 - u;
    double norm = sqrt(20.0);
    if (run(&r, 1.0f)) wrong = "forward fails";
    if (!wrong && (r.steps[0] != 3 || r.record.skip || r.record.seed != 7 || r.record.lr != 0.5f))
        wrong = "counts or writes what it should not";
    if (!wrong && (r.record.bias_correction1 != (float)(1 - pow((double)0.9f, 3)) ||
                   r.record.bias_correction2 != (float)(1 - pow((double)0.98f, 3)) ||
                   r.record.gradient_scale != (float)(1 / (norm + 1e-6)) || tw_joined(r.norm) != norm))
        wrong = "has other factors";
    if (!wrong && (run(&r, 5.0f) || r.record.gradient_scale != 1.0f)) wrong = "clips what is short enough";
    r.norms[1] = INFINITY; /* unit 3's, elements 48 to 63 */
    r.g[50] = 3e38f, r.g[49] = -3e38f;
    if (!wrong && (run(&r, 1.0f) || !r.record.skip || r.steps[0] != 4 || r.found[0] != 3 || r.found[1] != 1 ||
                   tw_joined(r.norm) != (double)INFINITY))
        wrong = "misses the largest element, whose square is too large";
    if (!wrong && r.found[2] != 1) wrong = "calls a finite part of its own spoilt";
    r.norms[0] = NAN; /* unit 4's, a short one; unit 3 comes first */
    r.g[62] = NAN;
    if (!wrong && (run(&r, 1.0f) || r.found[0] != 3 || r.found[1] != 14)) wrong = "misses a NaN";
    if (!wrong && r.found[2] != 0) wrong = "misses a NaN in its own part";
    r.g[62] = 0.0f, r.g[64] = NAN; /* behind that part */
    if (!wrong && (run(&r, 1.0f) || r.found[2] != 1)) wrong = "looks at others' parts";
    tw_device_free(r.device);
    return wrong;
}

/* ---- measured ---- */

enum { SMALL = 16, MANY = 203 * SMALL - 5 }; /* 203 units: more than a GPU's block takes */

typedef struct result {
    double norm;
    int32_t found[3], steps[2];
    tw_step record;
} result;

static tw_status measure(tw_device *device, const float *g, result *out) {
    *out = (result){.steps = {2}};
    tw_gradient_rule_attr attr = {
        .record = &out->record, .clip = 1, .beta1 = 0.9f, .beta2 = 0.98f, .unit = SMALL};
    tw_call c = {.op = TW_OP_gradient_rule, .device = device, .attr = &attr, .n_inputs = 4};
    const int64_t n = MANY, two = 2;
    static double scratch[MANY];
    float norm[TW_SPLIT];
    c.input[0] = c.input[1] = tw_absent();
    c.input[2] = tw_tensor_of((void *)g, TW_F32, 1, &n);
    c.input[3] = tw_tensor_of(out->steps, TW_I32, 1, &two);
    TRY(tw_op_prepare(&c));
    if (c.forward_scratch > sizeof scratch) return FAIL(TW_ERR_MEMORY, "no room");
    c.scratch = scratch, c.output[0].data = norm, c.output[1].data = out->found;
    TRY(tw_op_forward(&c));
    out->norm = tw_joined(norm);
    return TW_OK;
}

/* What spoils the gradient is found in whichever unit it is, the first if there are two; counters stay right,
 * and a second run has the same bits. */
static const char *measures_on(tw_device *device) {
    static float g[MANY];
    static const int places[] = {0, 1029, 2080, MANY - 1};
    result first, r;
    for (int i = 0; i < MANY; i++) g[i] = 1.0f / (float)(1 + i % 97);
    for (int run = 0; run < 3; run++) {
        if (measure(device, g, &r)) return "measuring fails";
        if (run == 0) first = r;
        if (first.norm != r.norm || memcmp(&first.record, &r.record, sizeof r.record) != 0)
            return "has other bits the second time";
    }
    double square = 0;
    for (int i = 0; i < MANY; i++) square += (double)g[i] * (double)g[i];
    if (fabs(r.norm - sqrt(square)) > 1e-7 * r.norm) return "measures another norm";
    if (r.steps[0] != 3 || r.steps[1] != 0 || r.record.skip || r.found[0] != -1)
        return "leaves wrong counters";
    for (int k = 0; k < 4; k++) {
        float kept = g[places[k]], last = g[MANY - 1];
        g[MANY - 1] = INFINITY, g[places[k]] = NAN;
        if (measure(device, g, &r)) return "measuring fails";
        if (r.found[0] != places[k] / SMALL || r.found[1] != places[k] % SMALL)
            return "names another element";
        if (r.steps[0] != 2 || r.steps[1] != 0 || !r.record.skip || isfinite(r.norm)) return "does not skip";
        g[MANY - 1] = last, g[places[k]] = kept;
    }
    return NULL;
}

const op_case op_case_gradient_rule = {.reference = reference,
                                       OP_CONFIGS(configs),
                                       .f32_tolerance = 1e-7,
                                       .also = rules,
                                       .also_on = measures_on};
