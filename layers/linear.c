#include "layers/linear.h"

#include "layers/names.h"

tw_status tw_linear_init(tw_linear *l, tw_params *params, const char *prefix, int64_t in, int64_t out,
                         tw_init weight, tw_init bias) {
    int64_t shape[2] = {out, in};
    tw_param *w, *b;
    *l = (tw_linear){0};
    TRY(tw_add_named(params, prefix, "weight", 2, shape, weight, &w));
    TRY(tw_add_named(params, prefix, "bias", 1, shape, bias, &b));
    l->weight = w;
    l->bias = b;
    return TW_OK;
}

tw_status tw_projection_init(tw_linear *l, tw_params *params, const char *name, int64_t in, int64_t out,
                             tw_init weight) {
    int64_t shape[2] = {in, out};
    tw_param *w;
    TRY(tw_params_add(params, name, 2, shape, weight, &w));
    *l = (tw_linear){.weight = w, .in_out = true, .output_f32 = true};
    return TW_OK;
}

tw_status tw_linear_slice(tw_linear *l, tw_params *params, const tw_linear *of, int64_t first,
                          int64_t count) {
    tw_param *w, *b = NULL;
    TRY(tw_params_slice(params, of->weight, first, count, &w));
    if (of->bias) TRY(tw_params_slice(params, of->bias, first, count, &b));
    *l = (tw_linear){.weight = w, .bias = b, .output_f32 = of->output_f32};
    return TW_OK;
}

tw_status tw_norm_init(tw_norm *n, tw_params *params, const char *prefix, int64_t width, float eps) {
    tw_param *gain, *bias;
    TRY(tw_add_named(params, prefix, "weight", 1, &width, (tw_init){TW_INIT_CONSTANT, 1.0f}, &gain));
    TRY(tw_add_named(params, prefix, "bias", 1, &width, (tw_init){TW_INIT_CONSTANT, 0.0f}, &bias));
    *n = (tw_norm){gain, bias, eps};
    return TW_OK;
}

tw_tensor *tw_linear_forward(tw_tape *tape, const tw_linear *l, tw_tensor *x, tw_activation activation,
                             tw_tensor *residual) {
    tw_linear_attr attr = {.activation = activation, .in_out = l->in_out, .output_f32 = l->output_f32};
    tw_tensor *inputs[] = {x, tw_tape_param(tape, l->weight), l->bias ? tw_tape_param(tape, l->bias) : NULL,
                           residual};
    return tw_tape_record(tape, TW_OP_linear, &attr, 4, inputs);
}

tw_tensor *tw_norm_forward(tw_tape *tape, const tw_norm *n, tw_tensor *x) {
    tw_layer_norm_attr attr = {.eps = n->eps};
    tw_tensor *inputs[] = {x, tw_tape_param(tape, n->gain), tw_tape_param(tape, n->bias)};
    return tw_tape_record(tape, TW_OP_layer_norm, &attr, 3, inputs);
}

tw_tensor *tw_add_norm_forward(tw_tape *tape, const tw_norm *n, tw_tensor *x, tw_tensor *h, float dropout,
                               uint32_t layer, tw_tensor *origin, int tokens) {
    tw_add_layer_norm_attr attr = {.eps = n->eps, .dropout = dropout, .layer = layer, .tokens = tokens};
    tw_tensor *inputs[] = {x, h, tw_tape_param(tape, n->gain), tw_tape_param(tape, n->bias), origin};
    return tw_tape_record(tape, TW_OP_add_layer_norm, &attr, 5, inputs);
}
