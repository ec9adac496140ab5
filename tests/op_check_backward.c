/* Backward against central differences of the f64 reference. */
#include "op_checker.h"

#include "tw_test.h"

#include <math.h>

enum { PER_ELEMENT = 400, DIRECTIONS = 4, SAMPLES = 12 };
static const double step_size = 1e-5;

/* ---- derivatives of the reference ---- */

/* sums[r] = <cotangent r, reference's result r> at the present in[]. */
static void evaluate(op_checker *k, double sums[TW_MAX_OUTPUTS]) {
    op_value out[TW_MAX_OUTPUTS] = {0};
    int first = k->n_blocks;
    for (int r = 0; r < k->call.n_results; r++) out[r] = op_value_like(k, &k->call.output[r]);
    k->c->reference(k->config, k->in, out);
    for (int r = 0; r < k->call.n_results; r++) {
        sums[r] = 0;
        for (int64_t e = 0; e < out[r].count; e++) sums[r] += out[r].v[e] * k->cotangent[r][e];
    }
    op_release_from(k, first);
}

static void shift(op_checker *k, int i, int64_t probe, double by, const double *origin) {
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

void op_differentiate(op_checker *k) {
    for (int r = 0; r < k->call.n_results; r++) {
        int64_t n = tw_tensor_count(&k->call.output[r]);
        k->cotangent[r] = op_keep(k, (size_t)n * sizeof(double));
        for (int64_t e = 0; e < n; e++) {
            char one[8] = {0};
            op_store(one, k->call.output[r].dtype, 0, 2 * op_uniform(k) - 1);
            k->cotangent[r][e] = op_has_slope(k, r) ? op_load(one, k->call.output[r].dtype, 0) : 0;
        }
    }
    for (int i = 0; i < k->n_inputs; i++) {
        if (!op_has_gradient(k, i)) continue;
        int64_t n = k->in[i].count;
        k->probes[i] = n;
        if (n > PER_ELEMENT) {
            k->probes[i] = DIRECTIONS + SAMPLES;
            k->direction[i] = op_keep(k, (size_t)(DIRECTIONS * n) * sizeof(double));
            for (int64_t e = 0; e < DIRECTIONS * n; e++) k->direction[i][e] = op_uniform(k) < 0.5 ? -1 : 1;
        }
        for (int r = 0; r < k->call.n_results; r++)
            k->slope[r][i] = op_keep(k, (size_t)k->probes[i] * sizeof(double));
        double *origin = op_keep(k, (size_t)n * sizeof(double));
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

static const char *variant_text(op_variant v, char text[96]) {
    snprintf(text, 96, "inputs wanted 0x%x, added 0x%x, results given 0x%x", v.wanted, v.adds, v.given);
    return text;
}

/* Gradients in `got` (minus `base`, what was there before) against the differences. */
static bool compare_gradient(op_checker *k, int i, op_variant v, const double *base, double all) {
    const tw_tensor *g = &k->call.input_grad[i];
    int64_t n = k->in[i].count, probes = k->probes[i];
    char text[96];
    double *expected = op_keep(k, (size_t)probes * sizeof(double));
    for (int64_t p = 0; p < probes; p++) {
        expected[p] = 0;
        for (int r = 0; r < k->call.n_results; r++)
            if (v.given >> r & 1) expected[p] += k->slope[r][i][p];
    }
    /* A scalar's is one sum of terms of either sign: what TF32 leaves of it is measured by the other
     * gradients. */
    double floor_ = (k->tf32 && n == 1 ? op_tolerance(k) : 1e-7) * all + 1e-9, error;
    if (!k->direction[i]) {
        for (int64_t e = 0; e < n; e++) expected[e] += base[e];
        NEED(op_close_enough(k, g->data, g->dtype, expected, n, floor_, &error),
             "backward: gradient of input %d differs by %.3g (%s)", i, error, variant_text(v, text));
        return true;
    }
    double *got = op_keep(k, (size_t)n * sizeof(double));
    for (int64_t e = 0; e < n; e++) got[e] = op_load(g->data, g->dtype, e) - base[e];
    double allowed = op_tolerance(k) * (op_norm(got, n) + op_norm(base, n)) + floor_;
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
static double gradient_scale(const op_checker *k, int i) {
    double square = 0;
    int64_t first = k->direction[i] ? DIRECTIONS : 0, n = k->probes[i] - first;
    for (int r = 0; r < k->call.n_results; r++) {
        double s = op_norm(k->slope[r][i] + first, n);
        square += s * s;
    }
    return square > 0 ? sqrt(square / (double)n) : 1;
}

/* Hides what was not saved, fills the gradients of results and prepares targets; base[i] is what lies there.
 */
static void set_up_backward(op_checker *k, op_variant v, double *base[TW_MAX_INPUTS]) {
    tw_call *call = &k->call;
    for (int r = 0; r < call->n_outputs; r++) {
        call->output_grad[r] = call->output[r];
        call->output_grad[r].data = NULL;
        if (r >= call->n_results || !(v.given >> r & 1) || !op_has_slope(k, r)) continue;
        call->output_grad[r].data = op_poisoned(k, tw_tensor_bytes(&call->output[r]));
        for (int64_t e = 0; e < tw_tensor_count(&call->output[r]); e++)
            op_store(call->output_grad[r].data, call->output[r].dtype, e, k->cotangent[r][e]);
    }
    for (int i = 0; i < k->n_inputs; i++) {
        call->input_grad[i] = tw_absent();
        call->input_grad[i].data = NULL;
        if (!k->in[i].v) continue;
        const op_value *x = &k->in[i];
        tw_dtype dtype = k->config->input[i].parameter ? TW_F32 : x->dtype;
        call->input_grad[i] = tw_tensor_of(NULL, dtype, x->ndim, x->shape);
        if (!op_has_gradient(k, i) || !(v.wanted >> i & 1)) continue;
        tw_tensor *g = &call->input_grad[i];
        g->data = op_poisoned(k, tw_tensor_bytes(g));
        base[i] = op_keep(k, (size_t)x->count * sizeof(double));
        call->input_mode[i] = v.adds >> i & 1 ? TW_ADD : TW_WRITE;
        double scale = gradient_scale(k, i);
        for (int64_t e = 0; e < x->count; e++) {
            base[i][e] = 0;
            if (call->input_mode[i] == TW_WRITE) continue;
            op_store(g->data, dtype, e, scale * (2 * op_uniform(k) - 1));
            base[i][e] = op_load(g->data, dtype, e);
        }
    }
    call->scratch = op_poisoned(k, call->backward_scratch);
}

bool op_run_backward(op_checker *k, op_variant v, double *base[TW_MAX_INPUTS]) {
    tw_call *call = &k->call;
    char text[96];
    void *copies[TW_MAX_INPUTS] = {NULL};
    set_up_backward(k, v, base);
    tw_tensor input[TW_MAX_INPUTS], output[TW_MAX_OUTPUTS];
    memcpy(input, call->input, sizeof input), memcpy(output, call->output, sizeof output);
    for (int i = 0; i < k->n_inputs; i++) {
        if (!k->in[i].v) continue;
        size_t bytes = op_input_bytes(k, i);
        if (!(call->saved_inputs >> i & 1)) call->input[i].data = op_poisoned(k, bytes);
        copies[i] = op_keep(k, bytes);
        memcpy(copies[i], call->input[i].data, bytes);
    }
    for (int o = 0; o < call->n_outputs; o++)
        if (!(call->saved_outputs >> o & 1))
            call->output[o].data = op_poisoned(k, tw_tensor_bytes(&call->output[o]));
    tw_status status = op_run(k, true);
    NEED(status == TW_OK, "backward failed: %s (%s)", status ? tw_last_error() : "", variant_text(v, text));
    bool kept = op_inputs_kept(k, copies, "backward");
    memcpy(call->input, input, sizeof input), memcpy(call->output, output, sizeof output);
    NEED(op_guard_intact(call->scratch, call->backward_scratch), "backward wrote behind its scratch");
    for (int i = 0; i < k->n_inputs; i++)
        if (call->input_grad[i].data)
            NEED(op_guard_intact(call->input_grad[i].data, tw_tensor_bytes(&call->input_grad[i])),
                 "backward wrote behind the gradient of input %d", i);
    return kept;
}

static bool check_variant(op_checker *k, op_variant v, bool repeat) {
    int first = k->n_blocks;
    double *base[TW_MAX_INPUTS] = {NULL}, all = 0;
    uint64_t random = k->random;
    if (!op_run_backward(k, v, base)) return false;
    for (int i = 0; i < k->n_inputs; i++)
        for (int r = 0; r < k->call.n_results && k->slope[r][i]; r++)
            if (v.given >> r & 1) all = fmax(all, op_norm(k->slope[r][i], k->probes[i]));
    for (int i = 0; i < k->n_inputs; i++)
        if (k->call.input_grad[i].data && !compare_gradient(k, i, v, base[i], all)) return false;
    if (!repeat) {
        op_release_from(k, first);
        return true;
    }
    tw_tensor before[TW_MAX_INPUTS];
    memcpy(before, k->call.input_grad, sizeof before);
    k->random = random; /* the same prefilled targets */
    if (!op_run_backward(k, v, base)) return false;
    for (int i = 0; i < k->n_inputs; i++)
        if (before[i].data)
            NEED(k->loose ||
                     memcmp(before[i].data, k->call.input_grad[i].data, tw_tensor_bytes(&before[i])) == 0,
                 "backward: the gradient of input %d has other bits the second time", i);
    op_release_from(k, first);
    return true;
}

/* What a forward left out of sight of backward is made again from what was kept. */
static bool check_restore(op_checker *k) {
    tw_call *call = &k->call;
    if (!call->restorable) return true;
    int first = k->n_blocks;
    tw_tensor input[TW_MAX_INPUTS], output[TW_MAX_OUTPUTS];
    void *kept[TW_MAX_OUTPUTS] = {NULL};
    memcpy(input, call->input, sizeof input), memcpy(output, call->output, sizeof output);
    for (int i = 0; i < k->n_inputs; i++)
        if (k->in[i].v && !(call->restore_inputs >> i & 1))
            call->input[i].data = op_poisoned(k, op_input_bytes(k, i));
    for (int o = 0; o < call->n_outputs; o++) {
        size_t bytes = tw_tensor_bytes(&call->output[o]);
        if (o == 0 || !(call->saved_outputs >> o & 1)) {
            call->output[o].data = op_poisoned(k, bytes);
        } else {
            kept[o] = op_keep(k, bytes);
            memcpy(kept[o], call->output[o].data, bytes);
        }
    }
    call->scratch = op_poisoned(k, call->forward_scratch);
    call->restore = true;
    tw_status status = op_run(k, false);
    call->restore = false;
    NEED(status == TW_OK, "restoring failed: %s", status ? tw_last_error() : "");
    const tw_tensor *y = &call->output[0];
    int64_t n = tw_tensor_count(y);
    double *wanted = op_keep(k, (size_t)n * sizeof *wanted), error;
    for (int64_t e = 0; e < n; e++) wanted[e] = op_load(output[0].data, y->dtype, e);
    NEED(op_close_enough(k, y->data, y->dtype, wanted, n, 0, &error), "the restored result differs by %.3g",
         error);
    NEED(op_guard_intact(y->data, tw_tensor_bytes(y)), "restoring wrote behind the result");
    for (int o = 1; o < call->n_outputs; o++)
        if (kept[o])
            NEED(memcmp(kept[o], output[o].data, tw_tensor_bytes(&output[o])) == 0,
                 "restoring changed output %d", o);
    memcpy(call->input, input, sizeof input), memcpy(call->output, output, sizeof output);
    op_release_from(k, first);
    return true;
}

bool op_check_backward(op_checker *k) {
    NEED(op_prepare(k, true) == TW_OK, "shape rule failed: %s", tw_last_error());
    if (!op_forward(k) || !check_restore(k)) return false;
    unsigned all = (1u << TW_MAX_INPUTS) - 1, results = (1u << k->call.n_results) - 1;
    bool repeat = !k->slow;
    if (!check_variant(k, (op_variant){all, results, 0}, true)) return false;
    if (!check_variant(k, (op_variant){all, results, all}, repeat)) return false;
    if (k->brief) return true;
    if (!check_variant(k, (op_variant){all, results, 0x55555555u & all}, repeat)) return false;
    for (int i = 0; i < k->n_inputs; i++) {
        if (!op_has_gradient(k, i)) continue;
        if (!check_variant(k, (op_variant){1u << i, results, 0}, repeat)) return false;
        if (!check_variant(k, (op_variant){all & ~(1u << i), results, all}, repeat)) return false;
    }
    for (int r = 0; k->call.n_results > 1 && r < k->call.n_results; r++)
        if (op_has_slope(k, r) && !check_variant(k, (op_variant){all, 1u << r, 0}, repeat)) return false;
    return true;
}
