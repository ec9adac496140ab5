/* The parts of a training step that no tower computes, each alone: what simulate_scaling.py measures instead
 * of fitting. [mpirun -n R] bench_step_parts [MODEL [REPEATS [THREADS]]] Prints, as the median of REPEATS,
 * the nanoseconds a weight of zeroing the gradients, of their norm and of AdamW (this rank's share of them);
 * and with several ranks the microseconds of a collective of hardly any data and the nanoseconds a byte that
 * a rank sends of reduce-scatter and all-gather of all weights: when somebody waits for them, and (`hidden`)
 * of the reduce-scatter while every rank computes. */
#include "optim/adamw.h"
#include "tests/test_device.h"
#include "train/clock.h"
#include "train/comm_open.h"
#include "train/model_file.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct bench {
    tw_device *device;
    tw_comm *comm;
    tw_dual_encoder *model;
    tw_partition *share, *whole; /* share: of this rank's optimizer; whole: all weights in one bucket */
    tw_adamw *alone;             /* of one rank */
    tw_comm *self;
    tw_step *record;
    float *slab; /* as large as the gradients, which are left alone */
    double *seconds;
    int repeats;
} bench;

static tw_status open_bench(bench *b, const char *name, int threads) {
    static const char *const no_decay[] = {"bn", "ln", "bias", "logit_scale"};
    const tw_adamw_config adamw = {0.9f, 0.98f, 1e-6f, 0.2f, no_decay, 4, 0.0f, 4.6052f};
    tw_model_config config;
    TRY(tw_model_config_load(name, &config));
    if (config.text.vocabulary == 0) config.text.vocabulary = 21128;
    TRY(tw_test_device(threads, &b->device));
    tw_device *d = b->device;
    TRY(tw_comm_open(d, 60, &b->comm));
    TRY(tw_comm_self(d, &b->self));
    TRY(tw_dual_encoder_create(&config, &b->model));
    TRY(tw_dual_encoder_allocate(b->model, d, TW_F32, true));
    tw_params *p = b->model->params;
    int64_t n = tw_params_trainable(p);
    TRY(tw_params_initialise(p, 1));
    TRY(tw_params_zero_gradients(p));
    TRY(tw_partition_create(n, 0, 1, INT64_MAX / 2, &b->share));
    TRY(tw_partition_create(n, b->comm->rank, b->comm->ranks, INT64_MAX / 2, &b->whole));
    TRY(tw_adamw_create_ranks(p, d, b->self, b->share, true, &adamw, &b->alone));
    TRY(d->alloc(d, (size_t)n * sizeof *b->slab, (void **)&b->slab));
    TRY(d->zero(d, TW_QUEUE_COMPUTE, b->slab, (size_t)n * sizeof *b->slab));
    TRY(d->alloc(d, sizeof *b->record, (void **)&b->record));
    TRY(d->zero(d, TW_QUEUE_COMPUTE, b->record, sizeof *b->record));
    b->seconds = calloc((size_t)b->repeats, sizeof *b->seconds);
    return b->seconds ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
}

static void close_bench(bench *b) {
    if (b->device) b->device->release(b->device, b->record);
    if (b->device) b->device->release(b->device, b->slab);
    tw_adamw_free(b->alone);
    tw_partition_free(b->share);
    tw_partition_free(b->whole);
    tw_dual_encoder_free(b->model);
    tw_comm_free(b->self);
    tw_comm_free(b->comm);
    tw_device_free(b->device);
    free(b->seconds);
}

/* ---- what is timed ---- */

static tw_status zero(bench *b) {
    return tw_params_zero_gradients(b->model->params);
}

static tw_status norm(bench *b) {
    tw_gradient_report report;
    return tw_adamw_inspect(b->alone, &report);
}

static tw_status update(bench *b) {
    const tw_gradient_report report = {0};
    return tw_adamw_step(b->alone, &report, 1e-5, b->record);
}

static tw_status call(bench *b) {
    int64_t counts[1024];
    for (int r = 0; r < b->comm->ranks; r++) counts[r] = 1;
    TRY(b->comm->all_gather(b->comm, b->slab + b->comm->rank, b->slab, counts));
    return b->comm->sync(b->comm);
}

static tw_status reduce(bench *b) {
    TRY(tw_partition_reduce(b->whole, b->comm, 0, b->slab));
    return b->comm->sync(b->comm);
}

static tw_status gather(bench *b) {
    TRY(tw_partition_gather(b->whole, b->comm, 0, b->slab));
    return b->comm->sync(b->comm);
}

/* Computes until the reduction ought to be over several times. */
static tw_status reduce_hidden(bench *b) {
    double end = tw_seconds() + 3e-8 * (double)b->whole->elements;
    TRY(tw_partition_reduce(b->whole, b->comm, 0, b->slab));
    while (tw_seconds() < end) continue;
    return b->comm->sync(b->comm);
}

/* ---- timing ---- */

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median seconds on this rank; all ranks begin at a time. busy: of the collective itself instead. */
static tw_status time_part(bench *b, tw_status (*part)(bench *), bool busy, double *median) {
    for (int i = -1; i < b->repeats; i++) { /* once to warm up */
        int64_t at = i, together[1024];
        TRY(b->comm->gather_all(b->comm, &at, sizeof at, together));
        double start = tw_seconds(), moved = tw_comm_times_of(b->comm).busy;
        TRY(part(b));
        double seconds = busy ? tw_comm_times_of(b->comm).busy - moved : tw_seconds() - start;
        if (i >= 0) b->seconds[i] = seconds;
    }
    qsort(b->seconds, (size_t)b->repeats, sizeof *b->seconds, compare);
    *median = b->seconds[b->repeats / 2];
    return TW_OK;
}

typedef struct part {
    const char *name;
    tw_status (*run)(bench *);
    double per, scale; /* what the figure counts, in which unit */
    bool busy, ranks;  /* ranks: for several only */
} part;

static tw_status run(bench *b, const char *name, int threads) {
    TRY(open_bench(b, name, threads));
    int ranks = b->comm->ranks;
    if (ranks > 1024) return FAIL(TW_ERR_ARGUMENT, "at most 1024 ranks");
    double n = (double)b->whole->elements, sent = 4 * n * (ranks - 1) / ranks;
    const part parts[] = {{"zero", zero, n, 1e9, false, false},
                          {"norm", norm, n, 1e9, false, false},
                          {"adamw", update, n, 1e9, false, false},
                          {"call", call, 1, 1e6, false, true},
                          {"reduce", reduce, sent, 1e9, false, true},
                          {"gather", gather, sent, 1e9, false, true},
                          {"hidden", reduce_hidden, sent, 1e9, true, true}};
    if (b->comm->rank == 0) printf("%s, ranks %d, threads %d:", name, ranks, threads);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        double median;
        if (parts[i].ranks && ranks == 1) continue;
        TRY(time_part(b, parts[i].run, parts[i].busy, &median));
        if (b->comm->rank == 0) printf(" %s %.4f", parts[i].name, median / parts[i].per * parts[i].scale);
    }
    if (b->comm->rank == 0) printf("\n");
    return TW_OK;
}

int main(int argc, char **argv) {
    bench b = {.repeats = argc > 2 ? atoi(argv[2]) : 15};
    tw_status status = b.repeats < 1 ? FAIL(TW_ERR_ARGUMENT, "REPEATS must be 1 or more") : TW_OK;
    if (status == TW_OK) status = run(&b, argc > 1 ? argv[1] : "small", argc > 3 ? atoi(argv[3]) : 0);
    if (status != TW_OK) fprintf(stderr, "%s\n", tw_last_error());
    close_bench(&b);
    return status == TW_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
