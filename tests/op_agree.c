/* The kernels in the shim against the CPU's operation, which differs from them by rounding only: results of
 * forward from the same inputs, gradients from the same saved values (the CPU's).
 *
 *   f32:  ||kernel - CPU|| <= 2e-6 ||CPU||
 *   bf16: every element within one unit in the last place of the CPU's, or as near as f32 itself
 *
 * (op_case.h: magnified, bf16_midway say where it cannot be so. What a library's graph computes is not ours:
 * it keeps to op_check.c's tolerances.) A gradient whose true value is 0 is a rest of sums that cancel: as in
 * DESIGN 9 it may differ by 1e-7 of the largest gradient. */
#include "op_checker.h"

#include <math.h>

#ifdef TW_CUDA_SHIM
#include "device_shim.h"
#else
static int tw_shim_graph_runs(void) {
    return 0;
}
#endif

static const double f32_bound = 2e-6, midway_bound = 0x1p-8, rest = 1e-7;

/* Of relative L2. */
static double bound(const op_checker *k) {
    if (k->coarse && k->c->bf16_midway) return midway_bound;
    return f32_bound * (k->config->magnified > 1 ? k->config->magnified : 1);
}

/* The distance from |x| to the next bf16. */
static double ulp(double x) {
    int exponent;
    (void)frexp(x, &exponent);
    return x == 0 ? 0 : ldexp(1, exponent - 8);
}

static void read(const void *p, const tw_tensor *t, double *out) {
    for (int64_t e = 0; e < tw_tensor_count(t); e++) out[e] = op_load(p, t->dtype, e);
}

/* `what` and `i` name the tensor; got and want are of the shape and type of t. */
static bool agrees(op_checker *k, const char *what, int i, const tw_tensor *t, const void *got,
                   const void *want, double allowed) {
    int64_t n = tw_tensor_count(t);
    int first = k->n_blocks;
    double *a = op_keep(k, (size_t)n * 8), *b = op_keep(k, (size_t)n * 8), square = 0;
    read(got, t, a), read(want, t, b);
    double size = op_norm(b, n), near = bound(k) * size / sqrt(n > 0 ? (double)n : 1) + allowed;
    for (int64_t e = 0; e < n; e++) {
        double d = a[e] == b[e] ? 0 : a[e] - b[e];
        square += d * d;
        if (!op_is_float(t->dtype))
            NEED(d == 0, "%s %d, element %lld: %.9g, on the CPU %.9g", what, i, (long long)e, a[e], b[e]);
        if (t->dtype == TW_BF16 && !k->c->bf16_midway)
            NEED(fabs(d) <= ulp(fmax(fabs(a[e]), fabs(b[e]))) + near,
                 "%s %d, element %lld: %.9g, on the CPU %.9g, more than a unit in the last place", what, i,
                 (long long)e, a[e], b[e]);
    }
    if (t->dtype == TW_F32 || k->c->bf16_midway)
        NEED(sqrt(square) <= bound(k) * size + allowed, "%s %d: %.3g from the CPU's", what, i,
             sqrt(square) / (size > 0 ? size : 1));
    op_release_from(k, first);
    return true;
}

/* Forward on `device`; *call is what it left. after[i]: an input updated in place. */
static bool forward_on(op_checker *k, tw_device *device, tw_call *call, void *after[TW_MAX_INPUTS]) {
    k->device = k->call.device = device;
    NEED(op_prepare(k, k->info->has_gradient) == TW_OK, "shape rule failed: %s", tw_last_error());
    op_restore_inputs(k);
    if (!op_forward(k)) return false;
    for (int i = 0; i < k->n_inputs; i++) {
        if (!(k->c->in_place >> i & 1) || !k->in[i].v) continue;
        after[i] = op_keep(k, op_input_bytes(k, i));
        memcpy(after[i], k->call.input[i].data, op_input_bytes(k, i));
    }
    *call = k->call;
    return true;
}

static bool gradients_on(op_checker *k, const tw_call *call, op_variant v, tw_tensor grad[TW_MAX_INPUTS]) {
    double *base[TW_MAX_INPUTS] = {NULL};
    uint64_t random = k->random; /* both find the same where they add */
    k->call = *call, k->device = call->device;
    if (!op_run_backward(k, v, base)) return false;
    k->random = random;
    memcpy(grad, k->call.input_grad, sizeof k->call.input_grad);
    return true;
}

static bool backward_agrees(op_checker *k, const tw_call *device, const tw_call *cpu, op_variant v) {
    tw_tensor got[TW_MAX_INPUTS], want[TW_MAX_INPUTS];
    double largest = 0;
    int graphs = tw_shim_graph_runs();
    if (!gradients_on(k, cpu, v, want) || !gradients_on(k, device, v, got)) return false;
    if (tw_shim_graph_runs() != graphs) return true;
    for (int i = 0; i < k->n_inputs; i++) {
        if (!want[i].data) continue;
        int first = k->n_blocks;
        double *x = op_keep(k, (size_t)tw_tensor_count(&want[i]) * 8);
        read(want[i].data, &want[i], x);
        largest = fmax(largest, op_norm(x, tw_tensor_count(&want[i])));
        op_release_from(k, first);
    }
    for (int i = 0; i < k->n_inputs; i++)
        if (want[i].data &&
            !agrees(k, "gradient of input", i, &want[i], got[i].data, want[i].data, rest * largest))
            return false;
    return true;
}

/* Gives the device the CPU's saved values. */
static void share_saved(tw_call *device, const tw_call *cpu) {
    for (int o = 0; o < device->n_outputs && o < cpu->n_outputs; o++) {
        tw_tensor *t = &device->output[o];
        bool same = t->dtype == cpu->output[o].dtype && t->ndim == cpu->output[o].ndim;
        for (int d = 0; same && d < t->ndim; d++) same = t->shape[d] == cpu->output[o].shape[d];
        if (same) t->data = cpu->output[o].data;
    }
}

static bool agree(op_checker *k, tw_device *device, tw_device *cpu_device) {
    tw_call cpu, call;
    void *after[2][TW_MAX_INPUTS] = {{NULL}};
    int graphs = tw_shim_graph_runs();
    if (!forward_on(k, cpu_device, &cpu, after[0]) || !forward_on(k, device, &call, after[1])) return false;
    if (tw_shim_graph_runs() != graphs) return true;
    int results = k->info->has_gradient ? call.n_results : call.n_outputs;
    for (int o = 0; o < results; o++)
        if (!agrees(k, "output", o, &call.output[o], call.output[o].data, cpu.output[o].data, 0))
            return false;
    for (int i = 0; i < k->n_inputs; i++)
        if (after[0][i] && !agrees(k, "updated input", i, &call.input[i], after[1][i], after[0][i], 0))
            return false;
    if (!k->info->has_gradient) return true;
    share_saved(&call, &cpu);
    unsigned all = (1u << TW_MAX_INPUTS) - 1, given = (1u << results) - 1;
    return backward_agrees(k, &call, &cpu, (op_variant){all, given, 0}) &&
           backward_agrees(k, &call, &cpu, (op_variant){all, given, all});
}

bool op_agree(op_checker *k) {
    tw_device *device = k->device, *cpu;
    int first = k->n_blocks;
    NEED(tw_device_cpu(1, &cpu) == TW_OK, "no device: %s", tw_last_error());
    bool ok = agree(k, device, cpu);
    tw_device_free(cpu);
    k->device = k->call.device = device;
    op_restore_inputs(k);
    op_release_from(k, first);
    return ok;
}
