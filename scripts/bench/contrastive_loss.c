/* Forward and backward of the contrastive loss for N pairs of d features, spread over the ranks: time and
 * peak memory; with TW_DEVICE=cuda on the first GPU, and its memory; with `tf32` its products round to TF32.
 *     [mpirun -n R] bench_contrastive_loss [N] [d] [threads] [tf32]      default 65536 512 */
#include "autograd/random.h"
#include "layers/contrastive.h"
#include "tests/test_device.h"
#include "train/comm_open.h"
#include "train/device_open.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static void check(tw_status status, const char *what) {
    if (status == TW_OK) return;
    fprintf(stderr, "%s: %s\n", what, tw_last_error());
    exit(1);
}

/* n unit vectors of e random elements, those of pairs `first` on, into device memory. */
static void features(tw_device *d, float *out, int64_t first, int64_t n, int64_t e, uint32_t layer) {
    float *x = malloc((size_t)(n * e) * sizeof *x + 1);
    check(x ? TW_OK : TW_ERR_MEMORY, "features");
#pragma omp parallel for
    for (int64_t i = 0; i < n; i++) {
        tw_draw draw = {.seed = 1, .purpose = TW_DRAW_TEST, .layer = layer, .sample = (uint32_t)(first + i)};
        double square = 0;
        tw_random_normal(&draw, 0, 1, x + i * e, e);
        for (int64_t c = 0; c < e; c++) square += (double)x[i * e + c] * (double)x[i * e + c];
        for (int64_t c = 0; c < e; c++) x[i * e + c] /= (float)sqrt(square);
    }
    tw_test_give(d, out, x, (size_t)(n * e) * sizeof *x);
    free(x);
}

typedef struct report {
    double seconds, peak; /* MB */
} report;

static void print(tw_comm *comm, int64_t n, int64_t e, double loss, double slope, report mine) {
    report *all = calloc((size_t)comm->ranks, sizeof *all), most = {0};
    check(all ? comm->gather_all(comm, &mine, sizeof mine, all) : TW_ERR_MEMORY, "gather");
    for (int r = 0; r < comm->ranks; r++) {
        most.seconds = fmax(most.seconds, all[r].seconds);
        most.peak = fmax(most.peak, all[r].peak);
    }
    free(all);
    if (comm->rank > 0) return;
    double gathered = (double)(n * e) * sizeof(float) / 1e6;
    printf("N %lld, d %lld, %d ranks of %d threads: loss %.9f (ln N %.6f), d logit_scale of rank 0 %.3g, "
           "%.1f s, peak memory of a rank %.0f MB, %.0f MB of it gathered text features\n",
           (long long)n, (long long)e, comm->ranks, omp_get_max_threads(), loss, log((double)n), slope,
           most.seconds, most.peak, gathered);
}

int main(int argc, char **argv) {
    int64_t n = argc > 1 ? atoll(argv[1]) : 65536, e = argc > 2 ? atoll(argv[2]) : 512;
    tw_device *d;
    tw_comm *comm;
    tw_params *params;
    tw_param *scale;
    tw_contrastive *loss;
    tw_contrastive_result result;
    check(tw_test_device(argc > 3 ? atoi(argv[3]) : 0, &d), "device");
    tw_device_allow_tf32(d, argc > 4 && strcmp(argv[4], "tf32") == 0);
    size_t room = d->room(d);
    check(tw_comm_open(d, 60, &comm), "communicator");
    check(tw_params_create(&params), "parameters");
    check(tw_params_add(params, "logit_scale", 0, NULL, (tw_init){TW_INIT_CONSTANT, 2.6592f}, &scale),
          "logit_scale");
    check(tw_params_allocate(params, d, TW_F32, true), "logit_scale");
    check(tw_params_initialise(params, 1), "logit_scale");
    check(tw_contrastive_create(d, comm, scale, e, &loss), "loss");
    int64_t *counts = calloc((size_t)comm->ranks, sizeof *counts), first = n * comm->rank / comm->ranks;
    for (int r = 0; r < comm->ranks; r++) counts[r] = n * (r + 1) / comm->ranks - n * r / comm->ranks;
    check(tw_contrastive_begin(loss, counts), "begin");
    features(d, tw_contrastive_image(loss), first, counts[comm->rank], e, 0);
    features(d, tw_contrastive_text(loss), first, counts[comm->rank], e, 1);
    double start = omp_get_wtime();
    check(tw_contrastive_run(loss), "run");
    check(tw_contrastive_read(loss, &result), "result");
    report mine = {.seconds = omp_get_wtime() - start};
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    mine.peak = (double)usage.ru_maxrss * 1024 / 1e6;
    float *slope = tw_test_take(d, scale->grad.data, sizeof *slope);
    print(comm, n, e, result.loss, (double)*slope, mine);
    if (room > 0)
        printf("%s: %.0f MB taken, of them %.0f MB features and their gradients\n", d->name,
               (double)(room - d->room(d)) / 1e6,
               (double)(2 * (counts[comm->rank] + n) * e) * sizeof(float) / 1e6);
    free(slope);
    free(counts);
    tw_contrastive_free(loss);
    tw_params_free(params);
    tw_comm_free(comm);
    tw_device_free(d);
    return 0;
}
