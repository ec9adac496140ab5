/* Checks of one configuration of one operation, f32 and bf16, on the CPU with 1 and 2 threads or on a CUDA
 * device:
 *
 *   shape rule; forward with and without a gradient to follow, into outputs poisoned with NaN, against the
 *   f64 reference; backward against central differences of the f64 reference, written over NaN and added to
 *   what is there, for all inputs together and each one alone, with all output gradients and each one alone.
 *
 * Values that the operation did not declare as saved, scratch, and gaps between rows are NaN when backward
 * runs; every buffer has a guard behind it; inputs must keep their bits; a repeated run must give the same
 * bits. */
#include "op_case.h"
#include "op_device.h"

#include "tw_test.h"

#include <math.h>
#include <stdarg.h>

enum { GUARD = OP_GUARD, PER_ELEMENT = 400, DIRECTIONS = 4, SAMPLES = 12, MAX_BLOCKS = 4096 };
static const double step_size = 1e-5;

typedef struct check {
    const tw_op_info *info;
    const op_case *c;
    const op_config *config;
    bool bf16;   /* the pass in which OP_FLOAT is bf16 */
    bool coarse; /* some input is bf16 */
    int threads;
    tw_device *device;
    tw_call call;
    int n_inputs;
    op_value in[TW_MAX_INPUTS];    /* rounded to the input's type */
    op_value after[TW_MAX_INPUTS]; /* what in-place inputs should become */
    op_value expected[TW_MAX_OUTPUTS];
    double *cotangent[TW_MAX_OUTPUTS];            /* random gradients of the results */
    double *slope[TW_MAX_OUTPUTS][TW_MAX_INPUTS]; /* d<cotangent r, result r> / d probe of input i */
    double *direction[TW_MAX_INPUTS];             /* [DIRECTIONS][count] of +-1; NULL: one probe an element */
    int64_t probes[TW_MAX_INPUTS];
    uint64_t random;
    void *block[MAX_BLOCKS];
    int n_blocks;
    char *message;
    size_t size;
} check;

static bool complain(check *k, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(k->message, k->size, "%s, '%s' (%s, %s, %d threads): %s", k->info->name, k->config->name,
             k->coarse ? "bf16" : "f32", k->device ? k->device->name : "no device", k->threads, text);
    return false;
}
#define NEED(condition, ...)                                                                                 \
    do {                                                                                                     \
        if (!(condition)) return complain(k, __VA_ARGS__);                                                   \
    } while (0)

static double uniform(check *k) {
    k->random ^= k->random << 13, k->random ^= k->random >> 7, k->random ^= k->random << 17;
    return (double)(k->random >> 11) * 0x1p-53;
}

/* Memory until release_all. */
static void *keep(check *k, size_t bytes) {
    ck_assert_int_lt(k->n_blocks, MAX_BLOCKS);
    void *p = aligned_alloc(64, (bytes + GUARD + 127) / 64 * 64);
    ck_assert_ptr_nonnull(p);
    return k->block[k->n_blocks++] = p;
}

static void release_from(check *k, int first) {
    while (k->n_blocks > first) free(k->block[--k->n_blocks]);
}

/* Device memory of a type: all bits set (NaN) and a guard behind. */
static void *poisoned(check *k, size_t bytes) {
    unsigned char *p = keep(k, bytes);
    memset(p, 0xff, bytes);
    memset(p + bytes, 0xa5, GUARD);
    return p;
}

static bool guard_intact(const void *p, size_t bytes) {
    const unsigned char *g = (const unsigned char *)p + bytes;
    for (int i = 0; i < GUARD; i++)
        if (g[i] != 0xa5) return false;
    return true;
}

static double load(const void *p, tw_dtype dtype, int64_t i) {
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

static void store(void *p, tw_dtype dtype, int64_t i, double x) {
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

static bool is_float(tw_dtype dtype) {
    return dtype == TW_F32 || dtype == TW_BF16;
}

static bool has_gradient(const check *k, int i) {
    return k->in[i].v && is_float(k->in[i].dtype) && !k->config->input[i].constant;
}

static tw_dtype dtype_of(const check *k, op_dtype dtype) {
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

static op_value value_like(check *k, const tw_tensor *t) {
    op_value v = {.dtype = t->dtype, .ndim = t->ndim, .count = tw_tensor_count(t)};
    memcpy(v.shape, t->shape, sizeof v.shape);
    v.v = keep(k, (size_t)v.count * sizeof(double));
    return v;
}

/* Makes input i: its values in f64 and, in call.input, in memory with gaps between rows. */
static void make_input(check *k, int i) {
    const op_input *spec = &k->config->input[i];
    k->in[i] = (op_value){.ndim = -1};
    k->call.input[i] = tw_absent();
    if (!spec->present) return;
    tw_tensor t = tw_tensor_of(NULL, dtype_of(k, spec->dtype), spec->ndim, spec->shape);
    k->coarse |= t.dtype == TW_BF16;
    op_value *v = &k->in[i];
    *v = value_like(k, &t);
    double low = spec->low, high = spec->high;
    if (low == 0 && high == 0) low = -1, high = 1;
    for (int64_t e = 0; e < v->count; e++) {
        double x = spec->values ? spec->values[e] : low + (high - low) * uniform(k);
        if (!is_float(t.dtype)) x = floor(x);
        char one[8] = {0};
        store(one, t.dtype, 0, x);
        v->v[e] = load(one, t.dtype, 0);
    }
    int64_t cols = tw_tensor_cols(&t), rows = tw_tensor_rows(&t), stride = cols + spec->padding;
    t.data = poisoned(k, (size_t)(rows * stride) * tw_dtype_size(t.dtype));
    for (int64_t e = 0; e < v->count; e++) store(t.data, t.dtype, e / cols * stride + e % cols, v->v[e]);
    for (int d = t.ndim - 2; d >= 0; d--)
        t.stride[d] = d == t.ndim - 2 ? stride : t.stride[d + 1] * t.shape[d + 1];
    k->call.input[i] = t;
}

static size_t input_bytes(const check *k, int i) {
    const tw_tensor *t = &k->call.input[i];
    int64_t stride = tw_tensor_cols(t) + k->config->input[i].padding;
    return (size_t)(tw_tensor_rows(t) * stride) * tw_dtype_size(t->dtype);
}

static tw_status prepare(check *k, bool needs_grad) {
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

static double norm(const double *x, int64_t n) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += x[i] * x[i];
    return sqrt(s);
}

static double tolerance(const check *k) {
    if (k->coarse) return k->c->bf16_tolerance > 0 ? k->c->bf16_tolerance : 1e-2;
    return k->c->f32_tolerance > 0 ? k->c->f32_tolerance : 1e-5;
}

/* DESIGN 9: ||got - expected|| <= tolerance ||expected|| + floor. NaN never passes. */
static bool close_enough(const check *k, const void *got, tw_dtype dtype, const double *expected, int64_t n,
                         double floor_, double *error) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = load(got, dtype, i) - expected[i];
        if (isinf(expected[i]) && load(got, dtype, i) == expected[i]) d = 0;
        s += d * d;
    }
    double size = norm(expected, n);
    *error = sqrt(s) / (size > 0 ? size : 1);
    return sqrt(s) <= tolerance(k) * size + floor_;
}

static bool inputs_kept(check *k, void *const copies[TW_MAX_INPUTS], const char *by) {
    for (int i = 0; i < k->n_inputs; i++) {
        if (!k->in[i].v) continue;
        size_t bytes = input_bytes(k, i);
        NEED(guard_intact(k->call.input[i].data, bytes), "%s wrote behind input %d", by, i);
        if (!(k->c->in_place >> i & 1))
            NEED(memcmp(k->call.input[i].data, copies[i], bytes) == 0, "%s changed input %d", by, i);
    }
    return true;
}

/* Whether k->info is a row of the table, not a stand-in of it. */
static bool of_table(const check *k) {
    return k->call.op < TW_OP_COUNT && k->info == &tw_op_table[k->call.op];
}

static tw_status run(check *k, bool backward) {
    tw_call *call = &k->call;
    if (!of_table(k)) return backward ? k->info->backward[0](call) : k->info->forward[0](call);
    if (tw_on_cpu(k->device)) return backward ? tw_op_backward(call) : tw_op_forward(call);
    size_t bytes[TW_MAX_INPUTS] = {0};
    for (int i = 0; i < k->n_inputs; i++)
        if (k->in[i].v) bytes[i] = input_bytes(k, i);
    return op_run_on_device(call, backward, bytes);
}

/* One forward into fresh poisoned outputs; fills call.output[].data. */
static bool forward(check *k) {
    tw_call *call = &k->call;
    void *copies[TW_MAX_INPUTS] = {NULL};
    for (int i = 0; i < k->n_inputs; i++)
        if (k->in[i].v) {
            copies[i] = keep(k, input_bytes(k, i));
            memcpy(copies[i], call->input[i].data, input_bytes(k, i));
        }
    for (int o = 0; o < call->n_outputs; o++)
        call->output[o].data = poisoned(k, tw_tensor_bytes(&call->output[o]));
    call->scratch = poisoned(k, call->forward_scratch);
    tw_status status = run(k, false);
    NEED(status == TW_OK, "forward failed: %s", status ? tw_last_error() : "");
    NEED(guard_intact(call->scratch, call->forward_scratch), "forward wrote behind its scratch");
    for (int o = 0; o < call->n_outputs; o++) {
        const tw_tensor *t = &call->output[o];
        NEED(guard_intact(t->data, tw_tensor_bytes(t)), "forward wrote behind output %d", o);
        for (int64_t e = 0; is_float(t->dtype) && e < tw_tensor_count(t); e++)
            NEED(!isnan(load(t->data, t->dtype, e)), "output %d, element %lld is NaN or was not written", o,
                 (long long)e);
    }
    return inputs_kept(k, copies, "forward");
}

static bool compare_forward(check *k) {
    double error;
    for (int o = 0; o < k->call.n_outputs; o++) {
        const tw_tensor *t = &k->call.output[o];
        if (!k->expected[o].v) continue;
        NEED(close_enough(k, t->data, t->dtype, k->expected[o].v, k->expected[o].count, 0, &error),
             "forward: output %d differs from the reference by %.3g", o, error);
    }
    for (int i = 0; i < k->n_inputs; i++) {
        if (!(k->c->in_place >> i & 1) || !k->in[i].v) continue;
        const tw_tensor *t = &k->call.input[i];
        NEED(close_enough(k, t->data, t->dtype, k->after[i].v, k->after[i].count, 0, &error),
             "forward: updated input %d differs from the reference by %.3g", i, error);
    }
    return true;
}

/* Puts the inputs' values back where an operation works in place. */
static void restore_inputs(check *k) {
    for (int i = 0; i < k->n_inputs; i++) {
        if (!(k->c->in_place >> i & 1) || !k->in[i].v) continue;
        const tw_tensor *t = &k->call.input[i];
        int64_t cols = tw_tensor_cols(t), stride = cols + k->config->input[i].padding;
        for (int64_t e = 0; e < k->in[i].count; e++)
            store(t->data, t->dtype, e / cols * stride + e % cols, k->in[i].v[e]);
    }
}

static bool check_forward(check *k, bool needs_grad) {
    NEED(prepare(k, needs_grad) == TW_OK, "shape rule failed: %s", tw_last_error());
    int first = k->n_blocks;
    restore_inputs(k);
    if (!forward(k) || !compare_forward(k)) return false;
    void *before[TW_MAX_OUTPUTS];
    for (int o = 0; o < k->call.n_outputs; o++) before[o] = k->call.output[o].data;
    restore_inputs(k);
    if (!forward(k)) return false;
    for (int o = 0; o < k->call.n_outputs; o++)
        NEED(memcmp(before[o], k->call.output[o].data, tw_tensor_bytes(&k->call.output[o])) == 0,
             "forward: output %d has other bits the second time", o);
    release_from(k, first);
    return true;
}

/* ---- derivatives of the reference ---- */

/* sums[r] = <cotangent r, reference's result r> at the present in[]. */
static void evaluate(check *k, double sums[TW_MAX_OUTPUTS]) {
    op_value out[TW_MAX_OUTPUTS] = {0};
    int first = k->n_blocks;
    for (int r = 0; r < k->call.n_results; r++) out[r] = value_like(k, &k->call.output[r]);
    k->c->reference(k->config, k->in, out);
    for (int r = 0; r < k->call.n_results; r++) {
        sums[r] = 0;
        for (int64_t e = 0; e < out[r].count; e++) sums[r] += out[r].v[e] * k->cotangent[r][e];
    }
    release_from(k, first);
}

static void shift(check *k, int i, int64_t probe, double by, const double *origin) {
    op_value *v = &k->in[i];
    if (!k->direction[i]) {
        v->v[probe] = origin[probe] + by;
        return;
    }
    if (probe >= DIRECTIONS) { /* a single element, spread over the tensor */
        int64_t e = (probe - DIRECTIONS) * (v->count - 1) / (SAMPLES - 1);
        v->v[e] = origin[e] + by;
        return;
    }
    const double *u = k->direction[i] + probe * v->count;
    for (int64_t e = 0; e < v->count; e++) v->v[e] = origin[e] + by * u[e];
}

/* Results that are integers have no gradient, nor have those that say so. */
static bool has_slope(const check *k, int r) {
    return k->call.output[r].dtype != TW_I32 && !(k->call.no_gradient >> r & 1u);
}

static void differentiate(check *k) {
    for (int r = 0; r < k->call.n_results; r++) {
        int64_t n = tw_tensor_count(&k->call.output[r]);
        k->cotangent[r] = keep(k, (size_t)n * sizeof(double));
        for (int64_t e = 0; e < n; e++) {
            char one[8] = {0};
            store(one, k->call.output[r].dtype, 0, 2 * uniform(k) - 1);
            k->cotangent[r][e] = has_slope(k, r) ? load(one, k->call.output[r].dtype, 0) : 0;
        }
    }
    for (int i = 0; i < k->n_inputs; i++) {
        if (!has_gradient(k, i)) continue;
        int64_t n = k->in[i].count;
        k->probes[i] = n;
        if (n > PER_ELEMENT) {
            k->probes[i] = DIRECTIONS + SAMPLES;
            k->direction[i] = keep(k, (size_t)(DIRECTIONS * n) * sizeof(double));
            for (int64_t e = 0; e < DIRECTIONS * n; e++) k->direction[i][e] = uniform(k) < 0.5 ? -1 : 1;
        }
        for (int r = 0; r < k->call.n_results; r++)
            k->slope[r][i] = keep(k, (size_t)k->probes[i] * sizeof(double));
        double *origin = keep(k, (size_t)n * sizeof(double));
        if (n) memcpy(origin, k->in[i].v, (size_t)n * sizeof(double));
        for (int64_t p = 0; p < k->probes[i]; p++) {
            double above[TW_MAX_OUTPUTS], below[TW_MAX_OUTPUTS];
            shift(k, i, p, step_size, origin), evaluate(k, above);
            shift(k, i, p, -step_size, origin), evaluate(k, below);
            for (int r = 0; r < k->call.n_results; r++)
                k->slope[r][i][p] = (above[r] - below[r]) / (2 * step_size);
            memcpy(k->in[i].v, origin, (size_t)n * sizeof(double));
        }
    }
}

/* ---- backward ---- */

typedef struct variant {
    unsigned wanted; /* bit i: gradient of input i */
    unsigned given;  /* bit r: gradient of result r */
    unsigned adds;   /* bit i: TW_ADD */
} variant;

static const char *variant_text(variant v, char text[96]) {
    snprintf(text, 96, "inputs wanted 0x%x, added 0x%x, results given 0x%x", v.wanted, v.adds, v.given);
    return text;
}

/* Gradients in `got` (minus `base`, what was there before) against the differences. */
static bool compare_gradient(check *k, int i, variant v, const double *base, double all) {
    const tw_tensor *g = &k->call.input_grad[i];
    int64_t n = k->in[i].count, probes = k->probes[i];
    char text[96];
    double *expected = keep(k, (size_t)probes * sizeof(double));
    for (int64_t p = 0; p < probes; p++) {
        expected[p] = 0;
        for (int r = 0; r < k->call.n_results; r++)
            if (v.given >> r & 1) expected[p] += k->slope[r][i][p];
    }
    double floor_ = 1e-7 * all + 1e-9, error;
    if (!k->direction[i]) {
        for (int64_t e = 0; e < n; e++) expected[e] += base[e];
        NEED(close_enough(k, g->data, g->dtype, expected, n, floor_, &error),
             "backward: gradient of input %d differs by %.3g (%s)", i, error, variant_text(v, text));
        return true;
    }
    double *got = keep(k, (size_t)n * sizeof(double));
    for (int64_t e = 0; e < n; e++) got[e] = load(g->data, g->dtype, e) - base[e];
    double allowed = tolerance(k) * (norm(got, n) + norm(base, n)) + floor_;
    for (int64_t p = 0; p < probes; p++) {
        double slope = 0, limit = allowed;
        if (p < DIRECTIONS) {
            for (int64_t e = 0; e < n; e++) slope += got[e] * k->direction[i][p * n + e];
            limit = 4 * allowed; /* <error, +-1 signs> has a standard deviation of ||error|| */
        } else {
            slope = got[(p - DIRECTIONS) * (n - 1) / (SAMPLES - 1)];
        }
        NEED(fabs(slope - expected[p]) <= limit, "backward: slope %lld of input %d is %.9g, not %.9g (%s)",
             (long long)p, i, slope, expected[p], variant_text(v, text));
    }
    return true;
}

/* The size of a typical element of input i's gradient, so that what TW_ADD finds is of the same size. */
static double gradient_scale(const check *k, int i) {
    double square = 0;
    int64_t first = k->direction[i] ? DIRECTIONS : 0, n = k->probes[i] - first;
    for (int r = 0; r < k->call.n_results; r++) {
        double s = norm(k->slope[r][i] + first, n);
        square += s * s;
    }
    return square > 0 ? sqrt(square / (double)n) : 1;
}

/* Hides what was not saved, fills the gradients of results and prepares targets; base[i] is what lies there.
 */
static void set_up_backward(check *k, variant v, double *base[TW_MAX_INPUTS]) {
    tw_call *call = &k->call;
    for (int r = 0; r < call->n_outputs; r++) {
        call->output_grad[r] = call->output[r];
        call->output_grad[r].data = NULL;
        if (r >= call->n_results || !(v.given >> r & 1) || !has_slope(k, r)) continue;
        call->output_grad[r].data = poisoned(k, tw_tensor_bytes(&call->output[r]));
        for (int64_t e = 0; e < tw_tensor_count(&call->output[r]); e++)
            store(call->output_grad[r].data, call->output[r].dtype, e, k->cotangent[r][e]);
    }
    for (int i = 0; i < k->n_inputs; i++) {
        call->input_grad[i] = tw_absent();
        call->input_grad[i].data = NULL;
        if (!k->in[i].v) continue;
        const op_value *x = &k->in[i];
        tw_dtype dtype = k->config->input[i].parameter ? TW_F32 : x->dtype;
        call->input_grad[i] = tw_tensor_of(NULL, dtype, x->ndim, x->shape);
        if (!has_gradient(k, i) || !(v.wanted >> i & 1)) continue;
        tw_tensor *g = &call->input_grad[i];
        g->data = poisoned(k, tw_tensor_bytes(g));
        base[i] = keep(k, (size_t)x->count * sizeof(double));
        call->input_mode[i] = v.adds >> i & 1 ? TW_ADD : TW_WRITE;
        double scale = gradient_scale(k, i);
        for (int64_t e = 0; e < x->count; e++) {
            base[i][e] = 0;
            if (call->input_mode[i] == TW_WRITE) continue;
            store(g->data, dtype, e, scale * (2 * uniform(k) - 1));
            base[i][e] = load(g->data, dtype, e);
        }
    }
    call->scratch = poisoned(k, call->backward_scratch);
}

/* Runs backward once from a saved forward; the gradients stay in call.input_grad. */
static bool run_backward(check *k, variant v, double *base[TW_MAX_INPUTS]) {
    tw_call *call = &k->call;
    char text[96];
    void *copies[TW_MAX_INPUTS] = {NULL};
    set_up_backward(k, v, base);
    tw_tensor input[TW_MAX_INPUTS], output[TW_MAX_OUTPUTS];
    memcpy(input, call->input, sizeof input), memcpy(output, call->output, sizeof output);
    for (int i = 0; i < k->n_inputs; i++) {
        if (!k->in[i].v) continue;
        size_t bytes = input_bytes(k, i);
        if (!(call->saved_inputs >> i & 1)) call->input[i].data = poisoned(k, bytes);
        copies[i] = keep(k, bytes);
        memcpy(copies[i], call->input[i].data, bytes);
    }
    for (int o = 0; o < call->n_outputs; o++)
        if (!(call->saved_outputs >> o & 1))
            call->output[o].data = poisoned(k, tw_tensor_bytes(&call->output[o]));
    tw_status status = run(k, true);
    NEED(status == TW_OK, "backward failed: %s (%s)", status ? tw_last_error() : "", variant_text(v, text));
    bool kept = inputs_kept(k, copies, "backward");
    memcpy(call->input, input, sizeof input), memcpy(call->output, output, sizeof output);
    NEED(guard_intact(call->scratch, call->backward_scratch), "backward wrote behind its scratch");
    for (int i = 0; i < k->n_inputs; i++)
        if (call->input_grad[i].data)
            NEED(guard_intact(call->input_grad[i].data, tw_tensor_bytes(&call->input_grad[i])),
                 "backward wrote behind the gradient of input %d", i);
    return kept;
}

static bool check_variant(check *k, variant v) {
    int first = k->n_blocks;
    double *base[TW_MAX_INPUTS] = {NULL}, all = 0;
    uint64_t random = k->random;
    if (!run_backward(k, v, base)) return false;
    for (int i = 0; i < k->n_inputs; i++)
        for (int r = 0; r < k->call.n_results && k->slope[r][i]; r++)
            if (v.given >> r & 1) all = fmax(all, norm(k->slope[r][i], k->probes[i]));
    for (int i = 0; i < k->n_inputs; i++)
        if (k->call.input_grad[i].data && !compare_gradient(k, i, v, base[i], all)) return false;
    tw_tensor before[TW_MAX_INPUTS];
    memcpy(before, k->call.input_grad, sizeof before);
    k->random = random; /* the same prefilled targets */
    if (!run_backward(k, v, base)) return false;
    for (int i = 0; i < k->n_inputs; i++)
        if (before[i].data)
            NEED(memcmp(before[i].data, k->call.input_grad[i].data, tw_tensor_bytes(&before[i])) == 0,
                 "backward: the gradient of input %d has other bits the second time", i);
    release_from(k, first);
    return true;
}

/* What a forward left out of sight of backward is made again from what was kept. */
static bool check_restore(check *k) {
    tw_call *call = &k->call;
    if (!call->restorable) return true;
    int first = k->n_blocks;
    tw_tensor input[TW_MAX_INPUTS], output[TW_MAX_OUTPUTS];
    void *kept[TW_MAX_OUTPUTS] = {NULL};
    memcpy(input, call->input, sizeof input), memcpy(output, call->output, sizeof output);
    for (int i = 0; i < k->n_inputs; i++)
        if (k->in[i].v && !(call->restore_inputs >> i & 1))
            call->input[i].data = poisoned(k, input_bytes(k, i));
    for (int o = 0; o < call->n_outputs; o++) {
        size_t bytes = tw_tensor_bytes(&call->output[o]);
        if (o == 0 || !(call->saved_outputs >> o & 1)) {
            call->output[o].data = poisoned(k, bytes);
        } else {
            kept[o] = keep(k, bytes);
            memcpy(kept[o], call->output[o].data, bytes);
        }
    }
    call->scratch = poisoned(k, call->forward_scratch);
    call->restore = true;
    tw_status status = run(k, false);
    call->restore = false;
    NEED(status == TW_OK, "restoring failed: %s", status ? tw_last_error() : "");
    const tw_tensor *y = &call->output[0];
    int64_t n = tw_tensor_count(y);
    double *wanted = keep(k, (size_t)n * sizeof *wanted), error;
    for (int64_t e = 0; e < n; e++) wanted[e] = load(output[0].data, y->dtype, e);
    NEED(close_enough(k, y->data, y->dtype, wanted, n, 0, &error), "the restored result differs by %.3g",
         error);
    NEED(guard_intact(y->data, tw_tensor_bytes(y)), "restoring wrote behind the result");
    for (int o = 1; o < call->n_outputs; o++)
        if (kept[o])
            NEED(memcmp(kept[o], output[o].data, tw_tensor_bytes(&output[o])) == 0,
                 "restoring changed output %d", o);
    memcpy(call->input, input, sizeof input), memcpy(call->output, output, sizeof output);
    release_from(k, first);
    return true;
}

static bool check_backward(check *k) {
    NEED(prepare(k, true) == TW_OK, "shape rule failed: %s", tw_last_error());
    if (!forward(k) || !check_restore(k)) return false;
    unsigned all = (1u << TW_MAX_INPUTS) - 1, results = (1u << k->call.n_results) - 1;
    if (!check_variant(k, (variant){all, results, 0})) return false;
    if (!check_variant(k, (variant){all, results, all})) return false;
    if (!check_variant(k, (variant){all, results, 0x55555555u & all})) return false;
    for (int i = 0; i < k->n_inputs; i++) {
        if (!has_gradient(k, i)) continue;
        if (!check_variant(k, (variant){1u << i, results, 0})) return false;
        if (!check_variant(k, (variant){all & ~(1u << i), results, all})) return false;
    }
    for (int r = 0; k->call.n_results > 1 && r < k->call.n_results; r++)
        if (has_slope(k, r) && !check_variant(k, (variant){all, 1u << r, 0})) return false;
    return true;
}

/* ---- one configuration ---- */

static bool reference_values(check *k) {
    int n = k->info->has_gradient ? k->call.n_results : k->call.n_outputs;
    for (int o = 0; o < n; o++) {
        k->expected[o] = value_like(k, &k->call.output[o]);
        for (int64_t e = 0; e < k->expected[o].count; e++) k->expected[o].v[e] = (double)NAN;
    }
    for (int i = 0; i < k->n_inputs; i++) {
        k->after[i] = k->in[i];
        if (!k->in[i].v) continue;
        size_t bytes = (size_t)k->in[i].count * sizeof(double);
        k->after[i].v = keep(k, bytes);
        if (bytes) memcpy(k->after[i].v, k->in[i].v, bytes);
    }
    k->c->reference(k->config, k->after, k->expected);
    for (int o = 0; o < n; o++)
        for (int64_t e = 0; e < k->expected[o].count; e++)
            NEED(!isnan(k->expected[o].v[e]), "the reference left output %d, element %lld undefined", o,
                 (long long)e);
    return true;
}

static bool check_fails(check *k) {
    tw_status status = prepare(k, true);
    NEED(status == k->config->fails, "the shape rule gave '%s', expected '%s'", tw_status_name(status),
         tw_status_name(k->config->fails));
    NEED(strstr(tw_last_error(), k->config->message), "message '%s' lacks '%s'", tw_last_error(),
         k->config->message);
    return true;
}

static tw_status make_device(tw_device_kind kind, int threads, tw_device **out) {
#ifdef TW_WITH_CUDA
    if (kind == TW_CUDA) return tw_device_cuda(0, out);
#endif
    (void)kind;
    return tw_device_cpu(threads, out);
}

static bool check_pass(check *k, tw_device_kind kind) {
    for (k->threads = 1; k->threads <= 2; k->threads++) {
        NEED(make_device(kind, k->threads, &k->device) == TW_OK, "no device: %s", tw_last_error());
        k->call.device = k->device;
        bool ok = false;
        if (k->config->fails) {
            ok = check_fails(k);
        } else if (prepare(k, false) != TW_OK) {
            ok = complain(k, "shape rule failed: %s", tw_last_error());
        } else {
            ok = k->threads == 2 || reference_values(k);
            ok = ok && check_forward(k, false);
            if (ok && k->info->has_gradient) {
                ok = check_forward(k, true);
                if (ok && k->threads == 1) differentiate(k);
                ok = ok && check_backward(k);
            }
        }
        tw_device_free(k->device);
        k->device = NULL;
        if (!ok) return false;
    }
    return true;
}

bool op_check(const tw_op_info *info, tw_op op, tw_device_kind kind, const op_case *c,
              const op_config *config, char *message, size_t size) {
    bool ok = true, both = false;
    for (int i = 0; i < TW_MAX_INPUTS; i++)
        both |= config->input[i].present && config->input[i].dtype == OP_FLOAT;
    for (int bf16 = 0; ok && bf16 <= (int)both; bf16++) {
        check *k = calloc(1, sizeof *k);
        ck_assert_ptr_nonnull(k);
        *k = (check){.info = info, .c = c, .config = config, .bf16 = bf16, .random = 0x9E3779B97F4A7C15u};
        k->message = message, k->size = size;
        k->call = (tw_call){.op = op, .attr = (void *)config->attr, .step = &config->step};
        for (int i = 0; i < TW_MAX_INPUTS; i++) {
            make_input(k, i);
            if (config->input[i].present) k->n_inputs = i + 1;
        }
        k->call.n_inputs = k->n_inputs;
        ok = check_pass(k, kind);
        release_from(k, 0);
        free(k);
    }
    return ok;
}

void op_expect_shape(const op_value *value, int ndim, const int64_t *shape) {
    ck_assert_int_eq(value->ndim, ndim);
    for (int d = 0; d < ndim; d++) ck_assert_int_eq(value->shape[d], shape[d]);
}
