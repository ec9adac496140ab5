#include "op_checker.h"

#include "tw_test.h"

#include <math.h>
#include <stdarg.h>

enum { GUARD = OP_GUARD };

bool op_complain(op_checker *k, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(k->message, k->size, "%s, '%s' (%s, %s, %s): %s", k->info->name, k->config->name,
             k->coarse ? "bf16" : "f32", k->device ? k->device->name : "no device", k->way ? k->way : "",
             text);
    return false;
}
double op_uniform(op_checker *k) {
    k->random ^= k->random << 13, k->random ^= k->random >> 7, k->random ^= k->random << 17;
    return (double)(k->random >> 11) * 0x1p-53;
}

void *op_keep(op_checker *k, size_t bytes) {
    ck_assert_int_lt(k->n_blocks, OP_MAX_BLOCKS);
    void *p = aligned_alloc(64, (bytes + GUARD + 127) / 64 * 64);
    ck_assert_ptr_nonnull(p);
    return k->block[k->n_blocks++] = p;
}

void op_release_from(op_checker *k, int first) {
    while (k->n_blocks > first) free(k->block[--k->n_blocks]);
}

void *op_poisoned(op_checker *k, size_t bytes) {
    unsigned char *p = op_keep(k, bytes);
    memset(p, 0xff, bytes);
    memset(p + bytes, 0xa5, GUARD);
    return p;
}

bool op_guard_intact(const void *p, size_t bytes) {
    const unsigned char *g = (const unsigned char *)p + bytes;
    for (int i = 0; i < GUARD; i++)
        if (g[i] != 0xa5) return false;
    return true;
}

double op_load(const void *p, tw_dtype dtype, int64_t i) {
    switch (dtype) {
    case TW_F32:
        return (double)((const float *)p)[i];
    case TW_BF16:
        return (double)tw_from_bf16(((const uint16_t *)p)[i]);
    case TW_I32:
        return (double)((const int32_t *)p)[i];
    case TW_U8:
        break;
    }
    return (double)((const uint8_t *)p)[i];
}

void op_store(void *p, tw_dtype dtype, int64_t i, double x) {
    switch (dtype) {
    case TW_F32:
        ((float *)p)[i] = (float)x;
        break;
    case TW_BF16:
        ((uint16_t *)p)[i] = tw_to_bf16((float)x);
        break;
    case TW_I32:
        ((int32_t *)p)[i] = (int32_t)x;
        break;
    case TW_U8:
        ((uint8_t *)p)[i] = (uint8_t)x;
        break;
    }
}

bool op_is_float(tw_dtype dtype) {
    return dtype == TW_F32 || dtype == TW_BF16;
}

bool op_has_gradient(const op_checker *k, int i) {
    return k->in[i].v && op_is_float(k->in[i].dtype) && !k->config->input[i].constant;
}

double op_norm(const double *x, int64_t n) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += x[i] * x[i];
    return sqrt(s);
}

static tw_dtype dtype_of(const op_checker *k, op_dtype dtype) {
    switch (dtype) {
    case OP_FLOAT:
        return k->bf16 ? TW_BF16 : TW_F32;
    case OP_F32:
        return TW_F32;
    case OP_BF16:
        return TW_BF16;
    case OP_I32:
        return TW_I32;
    case OP_U8:
        break;
    }
    return TW_U8;
}

op_value op_value_like(op_checker *k, const tw_tensor *t) {
    op_value v = {.dtype = t->dtype, .ndim = t->ndim, .count = tw_tensor_count(t)};
    memcpy(v.shape, t->shape, sizeof v.shape);
    v.v = op_keep(k, (size_t)v.count * sizeof(double));
    return v;
}

void op_make_input(op_checker *k, int i) {
    const op_input *spec = &k->config->input[i];
    k->in[i] = (op_value){.ndim = -1};
    k->call.input[i] = tw_absent();
    if (!spec->present) return;
    tw_tensor t = tw_tensor_of(NULL, dtype_of(k, spec->dtype), spec->ndim, spec->shape);
    k->coarse |= t.dtype == TW_BF16;
    op_value *v = &k->in[i];
    *v = op_value_like(k, &t);
    double low = spec->low, high = spec->high;
    if (low == 0 && high == 0) low = -1, high = 1;
    for (int64_t e = 0; e < v->count; e++) {
        double x = spec->values ? spec->values[e] : low + (high - low) * op_uniform(k);
        if (!op_is_float(t.dtype)) x = floor(x);
        char one[8] = {0};
        op_store(one, t.dtype, 0, x);
        v->v[e] = op_load(one, t.dtype, 0);
    }
    int64_t cols = tw_tensor_cols(&t), rows = tw_tensor_rows(&t), stride = cols + spec->padding;
    t.data = op_poisoned(k, (size_t)(rows * stride) * tw_dtype_size(t.dtype));
    for (int64_t e = 0; e < v->count; e++) op_store(t.data, t.dtype, e / cols * stride + e % cols, v->v[e]);
    for (int d = t.ndim - 2; d >= 0; d--)
        t.stride[d] = d == t.ndim - 2 ? stride : t.stride[d + 1] * t.shape[d + 1];
    k->call.input[i] = t;
}

void op_restore_inputs(op_checker *k) {
    for (int i = 0; i < k->n_inputs; i++) {
        if (!(k->c->in_place >> i & 1) || !k->in[i].v) continue;
        const tw_tensor *t = &k->call.input[i];
        int64_t cols = tw_tensor_cols(t), stride = cols + k->config->input[i].padding;
        for (int64_t e = 0; e < k->in[i].count; e++)
            op_store(t->data, t->dtype, e / cols * stride + e % cols, k->in[i].v[e]);
    }
}

/* Results that are integers have no gradient, nor have those that say so. */
bool op_has_slope(const op_checker *k, int r) {
    return k->call.output[r].dtype != TW_I32 && !(k->call.no_gradient >> r & 1u);
}

size_t op_input_bytes(const op_checker *k, int i) {
    const tw_tensor *t = &k->call.input[i];
    int64_t stride = tw_tensor_cols(t) + k->config->input[i].padding;
    return (size_t)(tw_tensor_rows(t) * stride) * tw_dtype_size(t->dtype);
}

tw_status op_prepare(op_checker *k, bool needs_grad) {
    k->call.needs_grad = needs_grad;
    tw_tensor inputs[TW_MAX_INPUTS];
    memcpy(inputs, k->call.input, sizeof inputs);
    for (int i = 0; i < TW_MAX_INPUTS; i++) k->call.input[i].data = NULL;
    tw_status status;
    if (k->call.op < TW_OP_COUNT && k->info == &tw_op_table[k->call.op]) {
        status = tw_op_prepare(&k->call);
    } else {
        k->call.n_outputs = 0, k->call.n_results = 1;
        k->call.saved_inputs = k->call.saved_outputs = 0;
        k->call.forward_scratch = k->call.backward_scratch = 0;
        status = k->info->shape(&k->call);
    }
    memcpy(k->call.input, inputs, sizeof inputs);
    return status;
}

double op_tolerance(const op_checker *k) {
    if (k->coarse) return k->c->bf16_tolerance > 0 ? k->c->bf16_tolerance : 1e-2;
    double tolerance = k->c->f32_tolerance > 0 ? k->c->f32_tolerance : 1e-5;
    return k->tf32 ? fmax(tolerance, 1e-3 * fmax(k->weight, 1)) : tolerance;
}

bool op_close_enough(const op_checker *k, const void *got, tw_dtype dtype, const double *expected, int64_t n,
                     double floor_, double *error) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = op_load(got, dtype, i) - expected[i];
        if (isinf(expected[i]) && op_load(got, dtype, i) == expected[i]) d = 0;
        s += d * d;
    }
    double size = op_norm(expected, n);
    *error = sqrt(s) / (size > 0 ? size : 1);
    return sqrt(s) <= op_tolerance(k) * size + floor_;
}

bool op_inputs_kept(op_checker *k, void *const copies[TW_MAX_INPUTS], const char *by) {
    for (int i = 0; i < k->n_inputs; i++) {
        if (!k->in[i].v) continue;
        size_t bytes = op_input_bytes(k, i);
        NEED(op_guard_intact(k->call.input[i].data, bytes), "%s wrote behind input %d", by, i);
        if (!(k->c->in_place >> i & 1))
            NEED(memcmp(k->call.input[i].data, copies[i], bytes) == 0, "%s changed input %d", by, i);
    }
    return true;
}

/* Whether k->info is a row of the table, not a stand-in of it. */
static bool of_table(const op_checker *k) {
    return k->call.op < TW_OP_COUNT && k->info == &tw_op_table[k->call.op];
}

tw_status op_run(op_checker *k, bool backward) {
    tw_call *call = &k->call;
    if (!of_table(k)) return backward ? k->info->backward[0](call) : k->info->forward[0](call);
    if (tw_on_cpu(k->device)) return backward ? tw_op_backward(call) : tw_op_forward(call);
    size_t bytes[TW_MAX_INPUTS] = {0};
    for (int i = 0; i < k->n_inputs; i++)
        if (k->in[i].v) bytes[i] = op_input_bytes(k, i);
#ifdef TW_CUDA_SHIM /* the second time nothing is aligned to more than its elements */
    return op_run_on_device(call, backward, bytes, (size_t)k->pass);
#else
    return op_run_on_device(call, backward, bytes, 0);
#endif
}

bool op_forward(op_checker *k) {
    tw_call *call = &k->call;
    void *copies[TW_MAX_INPUTS] = {NULL};
    for (int i = 0; i < k->n_inputs; i++)
        if (k->in[i].v) {
            copies[i] = op_keep(k, op_input_bytes(k, i));
            memcpy(copies[i], call->input[i].data, op_input_bytes(k, i));
        }
    for (int o = 0; o < call->n_outputs; o++)
        call->output[o].data = op_poisoned(k, tw_tensor_bytes(&call->output[o]));
    call->scratch = op_poisoned(k, call->forward_scratch);
    tw_status status = op_run(k, false);
    NEED(status == TW_OK, "forward failed: %s", status ? tw_last_error() : "");
    NEED(op_guard_intact(call->scratch, call->forward_scratch), "forward wrote behind its scratch");
    for (int o = 0; o < call->n_outputs; o++) {
        const tw_tensor *t = &call->output[o];
        NEED(op_guard_intact(t->data, tw_tensor_bytes(t)), "forward wrote behind output %d", o);
        for (int64_t e = 0; op_is_float(t->dtype) && e < tw_tensor_count(t); e++)
            NEED(!isnan(op_load(t->data, t->dtype, e)), "output %d, element %lld is NaN or was not written",
                 o, (long long)e);
    }
    return op_inputs_kept(k, copies, "forward");
}
