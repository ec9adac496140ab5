/* Forward and backward of the contrastive loss for N pairs of d features: time and peak memory.
 *     bench_contrastive_loss [N] [d] [threads]      default 65536 512 */
#include "autograd/op.h"
#include "autograd/random.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

static void check(tw_status status, const char *what) {
    if (status == TW_OK) return;
    fprintf(stderr, "%s: %s\n", what, tw_last_error());
    exit(1);
}

static void *allocate(tw_device *d, size_t bytes) {
    void *p;
    check(d->alloc(d, bytes, &p), "alloc");
    return p;
}

/* n unit vectors of e random elements. */
static float *features(tw_device *d, int64_t n, int64_t e, uint32_t layer) {
    float *x = allocate(d, (size_t)(n * e) * sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        tw_draw draw = {.seed = 1, .purpose = TW_DRAW_TEST, .layer = layer, .sample = (uint32_t)i};
        double square = 0;
        tw_random_normal(&draw, 0, 1, x + i * e, e);
        for (int64_t c = 0; c < e; c++) square += (double)x[i * e + c] * (double)x[i * e + c];
        for (int64_t c = 0; c < e; c++) x[i * e + c] /= (float)sqrt(square);
    }
    return x;
}

int main(int argc, char **argv) {
    int64_t n = argc > 1 ? atoll(argv[1]) : 65536, e = argc > 2 ? atoll(argv[2]) : 512;
    tw_device *d;
    check(tw_device_cpu(argc > 3 ? atoi(argv[3]) : 0, &d), "device");
    tw_contrastive_loss_attr attr = {0};
    float logit_scale = 2.6592f, scale_gradient = 0, gradient = 1;
    tw_call call = {.op = TW_OP_contrastive_loss, .device = d, .attr = &attr, .n_inputs = 3};
    call.needs_grad = true;
    for (int i = 0; i < 2; i++) {
        call.input[i] = tw_tensor_of(features(d, n, e, (uint32_t)i), TW_F32, 2, (int64_t[]){n, e});
        call.input_grad[i] = call.input[i];
        call.input_grad[i].data = allocate(d, (size_t)(n * e) * sizeof(float));
    }
    call.input[2] = tw_tensor_of(&logit_scale, TW_F32, 0, NULL);
    call.input_grad[2] = tw_tensor_of(&scale_gradient, TW_F32, 0, NULL);
    check(tw_op_prepare(&call), "prepare");
    for (int o = 0; o < call.n_outputs; o++)
        call.output[o].data = allocate(d, tw_tensor_bytes(&call.output[o]));
    call.output_grad[0] = tw_tensor_of(&gradient, TW_F32, 0, NULL);
    size_t scratch =
        call.forward_scratch > call.backward_scratch ? call.forward_scratch : call.backward_scratch;
    call.scratch = allocate(d, scratch);
    double start = omp_get_wtime();
    check(tw_op_forward(&call), "forward");
    double middle = omp_get_wtime();
    check(tw_op_backward(&call), "backward");
    double end = omp_get_wtime();
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("N %lld, d %lld, %d threads: loss %.6f (ln N %.6f), d logit_scale %.3g, forward %.2f s, backward "
           "%.2f s, scratch %.1f MB, peak memory %.0f MB\n",
           (long long)n, (long long)e, omp_get_max_threads(), (double)*(float *)call.output[0].data,
           log((double)n), (double)scale_gradient, middle - start, end - middle, (double)scratch / 1e6,
           (double)usage.ru_maxrss * 1024 / 1e6);
    for (int i = 0; i < 2; i++) d->release(d, call.input[i].data), d->release(d, call.input_grad[i].data);
    for (int o = 0; o < call.n_outputs; o++) d->release(d, call.output[o].data);
    d->release(d, call.scratch);
    tw_device_free(d);
    return 0;
}
