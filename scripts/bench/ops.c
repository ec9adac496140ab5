/* Time, GFLOP/s and GB/s of single operations at the sizes of ViT-B-16 + RoBERTa-base, batch 16.
 *     bench_ops [threads] [operation]
 * With one thread the time is the thread's processor time, which other programs disturb less. */
#include "autograd/gemm_cpu.h"
#include "autograd/op.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { REPEATS = 5 };

static void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, tw_last_error());
    exit(1);
}

static double now(void) {
    struct timespec t;
    if (omp_get_max_threads() > 1) return omp_get_wtime();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *buffer(tw_device *d, size_t bytes, tw_dtype dtype) {
    void *p;
    if (d->alloc(d, bytes, &p) != TW_OK) die("alloc");
    uint32_t x = 12345;
    for (size_t i = 0; i < bytes / tw_dtype_size(dtype); i++) {
        x = x * 1664525u + 1013904223u;
        float f = (float)(int32_t)x * 0x1p-33f;
        if (dtype == TW_F32) ((float *)p)[i] = f;
        if (dtype == TW_BF16) ((uint16_t *)p)[i] = tw_to_bf16(f);
        if (dtype == TW_I32) ((int32_t *)p)[i] = 1 + (int32_t)(x >> 8) % 52;
    }
    return p;
}

/* Allocates what the call needs, runs forward and backward, prints the best of REPEATS. */
static void measure(const char *name, tw_call *call, double forward_flops) {
    tw_device *d = call->device;
    if (tw_op_prepare(call) != TW_OK) die(name);
    double forward_bytes = 0;
    for (int i = 0; i < call->n_inputs; i++) {
        if (!tw_present(&call->input[i])) continue;
        call->input[i].data = buffer(d, tw_tensor_bytes(&call->input[i]), call->input[i].dtype);
        forward_bytes += (double)tw_tensor_bytes(&call->input[i]);
        call->input_grad[i] = call->input[i];
        call->input_grad[i].data = NULL;
        if (call->input[i].dtype == TW_I32) continue;
        if (i > 0) call->input_grad[i].dtype = TW_F32; /* parameters */
        call->input_grad[i].data = buffer(d, tw_tensor_bytes(&call->input_grad[i]), TW_F32);
    }
    for (int o = 0; o < call->n_outputs; o++) {
        call->output[o].data = buffer(d, tw_tensor_bytes(&call->output[o]), call->output[o].dtype);
        forward_bytes += (double)tw_tensor_bytes(&call->output[o]);
        call->output_grad[o] = call->output[o];
        call->output_grad[o].data = NULL;
        if (o < call->n_results)
            call->output_grad[o].data = buffer(d, tw_tensor_bytes(&call->output[o]), call->output[o].dtype);
    }
    size_t scratch =
        call->forward_scratch > call->backward_scratch ? call->forward_scratch : call->backward_scratch;
    call->scratch = buffer(d, scratch, TW_F32);
    double best[2] = {1e30, 1e30};
    bool gradient = tw_op_table[call->op].has_gradient;
    for (int r = 0; r <= REPEATS; r++)
        for (int b = 0; b <= (int)gradient; b++) {
            double t = now();
            if ((b ? tw_op_backward(call) : tw_op_forward(call)) != TW_OK) die(name);
            t = now() - t;
            if (r > 0 && t < best[b]) best[b] = t;
        }
    printf("%-44s forward %8.2f ms %7.1f GFLOP/s %6.1f GB/s", name, 1e3 * best[0],
           forward_flops / best[0] / 1e9, forward_bytes / best[0] / 1e9);
    if (gradient) printf("   backward %8.2f ms", 1e3 * best[1]);
    printf("\n");
    for (int i = 0; i < call->n_inputs; i++)
        d->release(d, call->input[i].data), d->release(d, call->input_grad[i].data);
    for (int o = 0; o < call->n_outputs; o++)
        d->release(d, call->output[o].data), d->release(d, call->output_grad[o].data);
    d->release(d, call->scratch);
}

static tw_tensor shaped(tw_dtype dtype, int ndim, int64_t a, int64_t b, int64_t c) {
    int64_t shape[3] = {a, b, c};
    return tw_tensor_of(NULL, dtype, ndim, shape);
}

static void linear(tw_device *d, tw_dtype dtype, int64_t rows, int64_t k, int64_t m, tw_activation activation,
                   bool residual) {
    tw_linear_attr attr = {.activation = activation};
    tw_call call = {.op = TW_OP_linear, .device = d, .attr = &attr, .n_inputs = 4, .needs_grad = true};
    call.input[0] = shaped(dtype, 2, rows, k, 0);
    call.input[1] = shaped(dtype, 2, m, k, 0);
    call.input[2] = shaped(TW_F32, 1, m, 0, 0);
    call.input[3] = residual ? shaped(dtype, 2, rows, m, 0) : tw_absent();
    static const char *const names[] = {"", " QuickGELU", " erf GELU"};
    char name[96];
    snprintf(name, sizeof name, "linear %s (%d,%d)x(%d)%s%s", tw_dtype_name(dtype), (int)rows, (int)k, (int)m,
             names[activation], residual ? " + residual" : "");
    measure(name, &call, 2.0 * (double)(rows * k * m));
}

static void attention(tw_device *d, tw_dtype dtype, int64_t tokens, float dropout, bool lengths) {
    tw_attention_attr attr = {.heads = 12, .dropout = dropout, .layer = 1};
    static const tw_step step = {.seed = 1};
    tw_call call = {.op = TW_OP_attention, .device = d, .attr = &attr, .n_inputs = 2, .needs_grad = true};
    call.step = &step;
    call.input[0] = shaped(dtype, 3, 16, tokens, 3 * 768);
    call.input[1] = lengths ? shaped(TW_I32, 1, 16, 0, 0) : tw_absent();
    char name[96];
    snprintf(name, sizeof name, "attention %s (16,%d,768)%s%s", tw_dtype_name(dtype), (int)tokens,
             dropout > 0 ? " dropout" : "", lengths ? " lengths" : "");
    measure(name, &call, 4.0 * 16 * (double)(tokens * tokens) * 768);
}

static void contrastive(tw_device *d, int64_t n) {
    tw_contrastive_loss_attr attr = {0};
    tw_call call = {.op = TW_OP_contrastive_loss, .device = d, .attr = &attr, .n_inputs = 3};
    call.needs_grad = true;
    call.input[0] = call.input[1] = shaped(TW_F32, 2, n, 512, 0);
    call.input[2] = shaped(TW_F32, 0, 0, 0, 0);
    char name[96];
    snprintf(name, sizeof name, "contrastive_loss (%d,512)", (int)n);
    measure(name, &call, 2.0 * (double)(n * n) * 512);
}

static void top_k(tw_device *d, int64_t n, int64_t m) {
    tw_top_k_attr attr = {.k = 10};
    tw_call call = {.op = TW_OP_top_k, .device = d, .attr = &attr, .n_inputs = 2};
    call.input[0] = shaped(TW_F32, 2, n, 512, 0);
    call.input[1] = shaped(TW_F32, 2, m, 512, 0);
    char name[96];
    snprintf(name, sizeof name, "top_k 10 of (%d) for (%d)", (int)m, (int)n);
    measure(name, &call, 2.0 * (double)(n * m) * 512);
}

int main(int argc, char **argv) {
    tw_device *d;
    if (tw_device_cpu(argc > 1 ? atoi(argv[1]) : 0, &d) != TW_OK) die("device");
    const char *only = argc > 2 ? argv[2] : "";
    printf("%d threads, bf16 products %s\n", omp_get_max_threads(),
           tw_gemm_has_bf16() ? "in hardware" : "through f32");
    for (int bf16 = 0; bf16 < 2 && (!*only || !strcmp(only, "linear")); bf16++)
        for (int text = 0; text < 2; text++) {
            int64_t rows = text ? 16 * 52 : 16 * 197;
            tw_activation activation = text ? TW_ERF_GELU : TW_QUICK_GELU;
            tw_dtype dtype = bf16 ? TW_BF16 : TW_F32;
            linear(d, dtype, rows, 768, 2304, TW_IDENTITY, false);
            linear(d, dtype, rows, 768, 768, TW_IDENTITY, true);
            linear(d, dtype, rows, 768, 3072, activation, false);
            linear(d, dtype, rows, 3072, 768, TW_IDENTITY, true);
        }
    for (int bf16 = 0; bf16 < 2 && (!*only || !strcmp(only, "attention")); bf16++) {
        tw_dtype dtype = bf16 ? TW_BF16 : TW_F32;
        attention(d, dtype, 197, 0, false);
        attention(d, dtype, 52, 0, false);
        attention(d, dtype, 52, 0.1f, true);
    }
    if (!*only || !strcmp(only, "contrastive_loss")) contrastive(d, 16), contrastive(d, 4096);
    if (!*only || !strcmp(only, "top_k")) top_k(d, 5000, 30000);
    tw_gemm_release();
    tw_device_free(d);
    return 0;
}
