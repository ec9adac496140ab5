/* Checks of one configuration of one operation, f32 and bf16, on the CPU with 1 and 2 threads or on a CUDA
 * device (deterministic; where a library's graph ran, the default's too; what may be had either way, by its
 * graph; products with TF32):
 *
 *   shape rule; forward with and without a gradient to follow, into outputs poisoned with NaN, against the
 *   f64 reference; backward against central differences of the f64 reference, written over NaN and added to
 *   what is there, for all inputs together and each one alone, with all output gradients and each one alone.
 *
 * Values that the operation did not declare as saved, scratch, and gaps between rows are NaN when backward
 * runs; every buffer has a guard behind it; inputs must keep their bits; a repeated run must give the same
 * bits, unless the device was not asked for that. */
#include "op_checker.h"

#ifdef TW_WITH_CUDA
#include "autograd/cuda/choice.h"
#include "autograd/cuda/cuda.h"
#endif
#include "tw_test.h"

#include <math.h>

static bool compare_forward(op_checker *k) {
    double error;
    for (int o = 0; o < k->call.n_outputs; o++) {
        const tw_tensor *t = &k->call.output[o];
        if (!k->expected[o].v) continue;
        if (k->tf32 && t->dtype == TW_I32)
            continue; /* which of two is larger: where they are near, rounding says */
        NEED(op_close_enough(k, t->data, t->dtype, k->expected[o].v, k->expected[o].count, 0, &error),
             "forward: output %d differs from the reference by %.3g", o, error);
    }
    for (int i = 0; i < k->n_inputs; i++) {
        if (!(k->c->in_place >> i & 1) || !k->in[i].v) continue;
        const tw_tensor *t = &k->call.input[i];
        NEED(op_close_enough(k, t->data, t->dtype, k->after[i].v, k->after[i].count, 0, &error),
             "forward: updated input %d differs from the reference by %.3g", i, error);
    }
    return true;
}

static bool check_forward(op_checker *k, bool needs_grad) {
    NEED(op_prepare(k, needs_grad) == TW_OK, "shape rule failed: %s", tw_last_error());
    int first = k->n_blocks;
    op_restore_inputs(k);
    if (!op_forward(k) || !compare_forward(k)) return false;
    void *before[TW_MAX_OUTPUTS];
    for (int o = 0; o < k->call.n_outputs; o++) before[o] = k->call.output[o].data;
    op_restore_inputs(k);
    if (!op_forward(k)) return false;
    for (int o = 0; o < k->call.n_outputs; o++)
        NEED(k->loose || memcmp(before[o], k->call.output[o].data, tw_tensor_bytes(&k->call.output[o])) == 0,
             "forward: output %d has other bits the second time", o);
    op_release_from(k, first);
    return true;
}

/* ---- one configuration ---- */

static bool reference_values(op_checker *k) {
    int n = k->info->has_gradient ? k->call.n_results : k->call.n_outputs;
    for (int o = 0; o < n; o++) {
        k->expected[o] = op_value_like(k, &k->call.output[o]);
        for (int64_t e = 0; e < k->expected[o].count; e++) k->expected[o].v[e] = (double)NAN;
    }
    for (int i = 0; i < k->n_inputs; i++) {
        k->after[i] = k->in[i];
        if (!k->in[i].v) continue;
        size_t bytes = (size_t)k->in[i].count * sizeof(double);
        k->after[i].v = op_keep(k, bytes);
        if (bytes) memcpy(k->after[i].v, k->in[i].v, bytes);
    }
    k->c->reference(k->config, k->after, k->expected);
    for (int o = 0; o < n; o++)
        for (int64_t e = 0; e < k->expected[o].count; e++)
            NEED(!isnan(k->expected[o].v[e]), "the reference left output %d, element %lld undefined", o,
                 (long long)e);
    return true;
}

static bool check_fails(op_checker *k) {
    tw_status status = op_prepare(k, true);
    NEED(status == k->config->fails, "the shape rule gave '%s', expected '%s'", tw_status_name(status),
         tw_status_name(k->config->fails));
    NEED(strstr(tw_last_error(), k->config->message), "message '%s' lacks '%s'", tw_last_error(),
         k->config->message);
    return true;
}

/* On k->device; later passes take the first one's reference. */
static bool check_pass(op_checker *k) {
    k->call.device = k->device;
    if (k->config->fails) return check_fails(k);
    if (op_prepare(k, false) != TW_OK) return op_complain(k, "shape rule failed: %s", tw_last_error());
    if (k->pass == 0 && !reference_values(k)) return false;
    if (!(k->brief && k->info->has_gradient) && !check_forward(k, false)) return false;
    if (!k->info->has_gradient) return true;
    if (!check_forward(k, true)) return false;
    if (k->pass == 0) op_differentiate(k);
    return op_check_backward(k);
}

#if defined TW_WITH_CUDA && !defined TW_CUDA_SHIM
static tw_device *gpu; /* of all configurations, for its libraries and their plans are slow to make */

static bool open_gpu(op_checker *k) {
    NEED(gpu || tw_device_cuda(0, &gpu) == TW_OK, "no device: %s", tw_last_error());
    return true;
}

static bool check_once(op_checker *k, const char *way, bool deterministic, bool tf32) {
    k->way = way, k->loose = !deterministic, k->tf32 = tf32, k->brief = k->pass > 0;
    k->device = gpu;
    tw_cuda_set_deterministic(gpu, deterministic);
    tw_cuda_set_tf32(gpu, tf32);
    bool ok = check_pass(k);
    k->device = NULL;
    k->pass++;
    return ok;
}

/* A graph which a deterministic device never takes, where the library has one; others leave it to a
 * measurement, which would take either way. */
static bool may_be_graph(const op_checker *k) {
    return (k->call.op == TW_OP_linear && k->coarse) || k->call.op == TW_OP_batch_norm ||
           k->call.op == TW_OP_avg_pool;
}

static bool check_graph(op_checker *k) {
    tw_cuda_force_way(gpu, TW_WAY_GRAPH);
    bool ok = check_once(k, "by a graph", false, false);
    tw_cuda_force_way(gpu, TW_WAYS);
    return ok;
}

static double longest_row(const op_value *x) {
    int64_t cols = x->shape[1];
    double longest = 0;
    for (int64_t r = 0; r < x->shape[0]; r++) longest = fmax(longest, op_norm(x->v + r * cols, cols));
    return longest;
}

/* TF32 rounds a product by a thousandth of its size. The loss takes exponentials of such products, the
 * logits: a gradient is off by as much of itself as a logit is off, so by a thousandth of the largest one. */
static double weight_of_rounding(const op_checker *k) {
    if (k->call.op != TW_OP_contrastive_loss) return 1;
    return exp(k->in[2].v[0]) * longest_row(&k->in[0]) * longest_row(&k->in[1]);
}

static bool has_product(tw_op op) {
    return op == TW_OP_linear || op == TW_OP_conv2d || op == TW_OP_contrastive_loss;
}

static bool check_gpu(op_checker *k) {
    if (!open_gpu(k)) return false;
    int64_t graphs = tw_cuda_graph_runs(gpu);
    if (!check_once(k, "deterministic", true, false)) return false;
    if (k->config->fails) return true;
    bool has_graph = tw_cuda_graph_runs(gpu) > graphs;
    if (has_graph && !check_once(k, "by default", false, false)) return false;
    if (may_be_graph(k) && !check_graph(k)) return false;
    k->weight = weight_of_rounding(k);
    return k->coarse || !has_product(k->call.op) || check_once(k, "TF32", false, true);
}

void op_check_end(void) {
    tw_device_free(gpu);
    gpu = NULL;
}
#else
void op_check_end(void) {}
#endif

static tw_status make_device(tw_device_kind kind, int threads, tw_device **out) {
#ifdef TW_WITH_CUDA
    if (kind == TW_CUDA) return tw_device_cuda(0, out);
#endif
    (void)kind;
    return tw_device_cpu(threads, out);
}

static bool check_twice(op_checker *k, tw_device_kind kind) {
    static const char *const ways[] = {"1 thread", "2 threads"};
    for (k->pass = 0; k->pass < 2; k->pass++) {
        k->way = ways[k->pass];
        NEED(make_device(kind, k->pass + 1, &k->device) == TW_OK, "no device: %s", tw_last_error());
#ifdef TW_CUDA_SHIM
        k->slow = true, k->brief = k->pass == 1;
#endif
        bool ok = check_pass(k);
#ifdef TW_CUDA_SHIM
        ok = ok && (k->config->fails || op_agree(k));
#endif
        tw_device_free(k->device);
        k->device = NULL;
        if (!ok) return false;
    }
    return true;
}

static bool check_kind(op_checker *k, tw_device_kind kind) {
#if defined TW_WITH_CUDA && !defined TW_CUDA_SHIM
    if (kind == TW_CUDA) return check_gpu(k);
#endif
    return check_twice(k, kind);
}

bool op_check(const tw_op_info *info, tw_op op, tw_device_kind kind, const op_case *c,
              const op_config *config, char *message, size_t size) {
    bool ok = true, both = false;
    for (int i = 0; i < TW_MAX_INPUTS; i++)
        both |= config->input[i].present && config->input[i].dtype == OP_FLOAT;
    for (int bf16 = 0; ok && bf16 <= (int)both; bf16++) {
        op_checker *k = calloc(1, sizeof *k);
        ck_assert_ptr_nonnull(k);
        *k =
            (op_checker){.info = info, .c = c, .config = config, .bf16 = bf16, .random = 0x9E3779B97F4A7C15u};
        k->message = message, k->size = size;
        k->call = (tw_call){.op = op, .attr = (void *)config->attr, .step = &config->step};
        for (int i = 0; i < TW_MAX_INPUTS; i++) {
            op_make_input(k, i);
            if (config->input[i].present) k->n_inputs = i + 1;
        }
        k->call.n_inputs = k->n_inputs;
        ok = check_kind(k, kind);
        op_release_from(k, 0);
        free(k);
    }
    return ok;
}

void op_expect_shape(const op_value *value, int ndim, const int64_t *shape) {
    ck_assert_int_eq(value->ndim, ndim);
    for (int d = 0; d < ndim; d++) ck_assert_int_eq(value->shape[d], shape[d]);
}
