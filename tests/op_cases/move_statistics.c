#include "op_case.h"

static void reference(const op_config *config, op_value *in, op_value *out) {
    (void)out;
    if (config->step.skip) return;
    for (int64_t i = 0; i < in[0].count; i++)
        in[0].v[i] -= (double)((const tw_move_statistics_attr *)config->attr)->rate * in[1].v[i];
}

static const tw_move_statistics_attr tenth = {0.1f}, whole = {1.0f};

#define V(n)                                                                                                 \
    { OP_SHAPE(n), .dtype = OP_F32 }

static const op_config configs[] = {
    {.name = "a tenth", .attr = &tenth, .input = {V(37), V(37)}},
    {.name = "all the way", .attr = &whole, .input = {V(1), V(1)}},
    {.name = "skipped", .attr = &tenth, .input = {V(9), V(9)}, .step = {.skip = 1}},
    {.name = "none", .attr = &tenth, .input = {V(0), V(0)}},
    {.name = "other size",
     .attr = &tenth,
     .input = {V(4), V(5)},
     .fails = TW_ERR_SHAPE,
     .message = "gradients is f32 (5), f32 (4) is needed"},
    {.name = "missing",
     .attr = &tenth,
     .input = {V(4)},
     .fails = TW_ERR_ARGUMENT,
     .message = "gradients is missing"},
};

const op_case op_case_move_statistics = {.reference = reference, OP_CONFIGS(configs), .in_place = 1};
