/* Times whole training steps (forward, loss, backward, AdamW) of a model from configs/models on random pixels
 * and texts:
 *     bench_step [MODEL [BATCH [STEPS [f32|bf16 [THREADS [none|light|block [MASK_RATIO [MICRO
 *                 [RESOLUTION [CONTEXT [TOKENS [saved|all|last|packed [BUCKET [each]]]]]]]]]]]]]]
 * Texts have TOKENS tokens on average (0: CONTEXT each), of lengths spread evenly around it. saved: with what
 * tw_dual_encoder_save saves (the default), all: without, last and packed: with one of the two. BUCKET: KiB
 * of gradients that ranks reduce together (0: 16 MiB). each: the seconds of every step, and of a reference
 * (reference.h) around it. Prints seconds a step (median, fastest), pairs/s and the process's peak memory:
 * after a first step, which is of MICRO pairs where that is given, and in the end. Under mpirun BATCH is
 * shared by the ranks, each has THREADS threads, and the first rank prints its figures. scripts/bench/step.sh
 * runs it beside PyTorch, scripts/bench/large_batch.sh with a batch far larger than a micro-batch. */
#include "train/step.h"
#include "autograd/random.h"
#include "optim/adamw.h"
#include "scripts/bench/reference.h"
#include "tests/test_device.h"
#include "train/comm_open.h"
#include "train/model_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

typedef struct bench {
    tw_device *device;
    tw_comm *comm;
    tw_partition *partition;
    int64_t own; /* pairs of this rank */
    tw_dual_encoder *model;
    tw_towers *towers;
    tw_stepper *stepper;
    tw_adamw *adamw;
    uint8_t *pixels;
    int32_t *ids, *lengths;
    double data_mib;
} bench;

static double seconds_of(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* What the command line asks for. */
typedef struct request {
    const char *name, *type;
    int64_t batch, micro;
    int steps, threads, resolution, context, tokens;
    int64_t bucket; /* KiB */
    bool each;
    const char *savings;
    tw_recompute recompute;
    double mask_ratio;
} request;

static tw_recompute recompute_of(const char *name) {
    if (strcmp(name, "light") == 0) return TW_RECOMPUTE_LIGHT;
    return strcmp(name, "block") == 0 ? TW_RECOMPUTE_BLOCK : TW_RECOMPUTE_NONE;
}

static request parse(int argc, char **argv) {
    return (request){.name = argc > 1 ? argv[1] : "ViT-B-16",
                     .batch = argc > 2 ? atoll(argv[2]) : 16,
                     .steps = argc > 3 ? atoi(argv[3]) : 5,
                     .type = argc > 4 ? argv[4] : "f32",
                     .threads = argc > 5 ? atoi(argv[5]) : 0,
                     .recompute = recompute_of(argc > 6 ? argv[6] : "none"),
                     .mask_ratio = argc > 7 ? atof(argv[7]) : 0,
                     .micro = argc > 8 ? atoll(argv[8]) : 0,
                     .resolution = argc > 9 ? atoi(argv[9]) : 0,
                     .context = argc > 10 ? atoi(argv[10]) : 0,
                     .tokens = argc > 11 ? atoi(argv[11]) : 0,
                     .savings = argc > 12 ? argv[12] : "saved",
                     .bucket = argc > 13 ? atoll(argv[13]) : 0,
                     .each = argc > 14 && strcmp(argv[14], "each") == 0};
}

static tw_status open_bench(bench *b, const request *r) {
    static const char *const no_decay[] = {"bn", "ln", "bias", "logit_scale"};
    tw_dtype type = strcmp(r->type, "bf16") == 0 ? TW_BF16 : TW_F32;
    tw_model_config config;
    TRY(tw_model_config_load(r->name, &config));
    if (r->resolution) config.image.resolution = r->resolution;
    if (r->context) config.context = r->context;
    if (config.text.vocabulary == 0) config.text.vocabulary = 21128;
    config.image.mask_ratio = r->mask_ratio;
    config.text.hidden_dropout = config.text.attention_dropout = 0.1f;
    TRY(tw_test_device(r->threads, &b->device));
    TRY(tw_comm_open(b->device, 60, &b->comm));
    b->own = r->batch / b->comm->ranks + (b->comm->rank < r->batch % b->comm->ranks);
    TRY(tw_dual_encoder_create(&config, &b->model));
    bool all = strcmp(r->savings, "all") == 0, one = strcmp(r->savings, "saved") != 0;
    tw_dual_encoder_save(b->model, !all && (!one || strcmp(r->savings, "last") == 0),
                         !all && (!one || strcmp(r->savings, "packed") == 0));
    TRY(tw_params_lay_out(b->model->params, type));
    TRY(tw_partition_create(tw_params_trainable(b->model->params), b->comm->rank, b->comm->ranks,
                            (r->bucket ? r->bucket : 16 << 10) << 10, &b->partition));
    if (type == TW_BF16 && b->comm->ranks > 1) TRY(tw_partition_share(b->partition, b->model->params));
    TRY(tw_dual_encoder_allocate(b->model, b->device, type, true));
    TRY(tw_params_initialise(b->model->params, 1));
    TRY(tw_towers_create(b->model, b->device, r->recompute, TW_U8, &b->towers));
    TRY(tw_stepper_create(b->model, b->towers, b->device, b->comm, b->partition, r->micro, &b->stepper));
    tw_adamw_config adamw = {0.9f, 0.98f, 1e-6f, 0.2f, no_decay, 4, 0.0f, 4.6052f};
    return tw_adamw_create_ranks(b->model->params, b->device, b->comm, b->partition, true, &adamw, &b->adamw);
}

/* Random pixels and texts. */
static tw_status make_data(bench *b, int64_t n, int64_t average) {
    const tw_model_config *c = &b->model->config;
    int64_t r = c->image.resolution, bytes = n * r * r * 3, tokens = n * c->context;
    b->pixels = malloc((size_t)bytes);
    b->ids = malloc((size_t)tokens * sizeof *b->ids);
    b->lengths = malloc((size_t)n * sizeof *b->lengths);
    if (!b->pixels || !b->ids || !b->lengths) return FAIL(TW_ERR_MEMORY, "out of memory");
    b->data_mib = (double)(bytes + (tokens + n) * (int64_t)sizeof *b->ids) / 1024 / 1024;
    tw_draw draw = {.seed = 1, .purpose = TW_DRAW_TEST};
    for (int64_t i = 0; i < bytes; i++) b->pixels[i] = (uint8_t)(tw_random_u32(&draw, (uint32_t)i) >> 24);
    for (int64_t i = 0; i < tokens; i++)
        b->ids[i] = 1 + (int32_t)tw_random_below(&draw, (uint32_t)i, (uint64_t)c->text.vocabulary - 1);
    for (int64_t i = 0; i < n; i++) { /* average - half .. average + half */
        int64_t half = average < c->context - average ? average / 2 : (c->context - average) / 2;
        int64_t spread = 2 * half + 1;
        b->lengths[i] =
            average == 0
                ? c->context
                : (int32_t)(average - half +
                            (int64_t)tw_random_below(&draw, (uint32_t)(bytes + i), (uint64_t)spread));
    }
    return TW_OK;
}

static tw_status one_step(bench *b, int64_t n, int step) {
    tw_samples samples = {n, b->pixels, b->ids, b->lengths};
    double loss;
    int64_t size;
    tw_gradient_report report;
    TRY(tw_stepper_run(b->stepper, &samples, 1, step, &loss, &size));
    TRY(tw_adamw_inspect(b->adamw, &report));
    return tw_adamw_step(b->adamw, &report, 1e-5, tw_stepper_record(b->stepper));
}

static double peak_mib(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024.0;
}

/* With `each`: a reference on one core and on two, before the first step and after every one. */
enum { REFERENCES = 2 };

static void refer(const bench *b, const request *r, double *references, int at) {
    const struct timespec meanwhile = {.tv_nsec = 40000000}; /* asleep, ranks do not look for messages */
    if (!r->each) return;
    if (b->comm->rank > 0) {
        nanosleep(&meanwhile, NULL);
        return;
    }
    (void)reference_seconds(REFERENCES); /* until OpenMP's threads have fallen asleep */
    for (int i = 0; i < REFERENCES; i++) references[i * (r->steps + 1) + at] = reference_seconds(i + 1);
}

static void print_line(const char *title, const double *seconds, int n) {
    printf("%s:", title);
    for (int i = 0; i < n; i++) printf(" %.6f", seconds[i]);
    printf("\n");
}

static void print_each(const request *r, const double *seconds, const double *references) {
    print_line("seconds of each step", seconds, r->steps);
    print_line("reference on 1 core", references, r->steps + 1);
    print_line("reference on 2 cores", references + r->steps + 1, r->steps + 1);
}

/* references: (REFERENCES, steps + 1). */
static tw_status time_steps(bench *b, const request *r, double *seconds, double *references) {
    int64_t first = r->micro && r->micro < b->own ? r->micro : b->own;
    TRY(one_step(b, first, 0)); /* warm-up: tapes, page faults, oneDNN's kernels */
    double before = peak_mib();
    double cpu = 1e30; /* of all threads, the fewest; on a busy machine the fairer figure */
    refer(b, r, references, 0);
    for (int i = 0; i < r->steps; i++) {
        int64_t at = i, together[1024]; /* all ranks begin a step at a time */
        if (b->comm->ranks > 1024) return FAIL(TW_ERR_ARGUMENT, "at most 1024 ranks");
        TRY(b->comm->gather_all(b->comm, &at, sizeof at, together));
        double start = seconds_of(CLOCK_MONOTONIC), cpu_start = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
        TRY(one_step(b, b->own, i + 1));
        seconds[i] = seconds_of(CLOCK_MONOTONIC) - start;
        cpu = fmin(cpu, seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu_start);
        refer(b, r, references, i + 1);
    }
    if (b->comm->rank != 0) return TW_OK;
    if (r->each) print_each(r, seconds, references);
    qsort(seconds, (size_t)r->steps, sizeof *seconds, compare);
    double median = seconds[r->steps / 2];
    printf("tuwen %s batch %lld %s, ranks %d: %.4f s a step (fastest %.4f, CPU %.4f), %.3f pairs/s, peak "
           "%.0f MiB",
           r->name, (long long)r->batch, r->type, b->comm->ranks, median, seconds[0], cpu,
           (double)r->batch / median, peak_mib());
    if (first < b->own)
        printf(" (%.0f MiB after a step of %lld; pixels and texts %.0f MiB)", before, (long long)first,
               b->data_mib);
    printf("\n");
    return TW_OK;
}

static tw_status run(bench *b, int argc, char **argv) {
    request r = parse(argc, argv);
    if (r.batch < 1 || r.steps < 1) return FAIL(TW_ERR_ARGUMENT, "BATCH and STEPS must be 1 or more");
    if (r.bucket < 0) return FAIL(TW_ERR_ARGUMENT, "BUCKET must be 0 or more KiB");
    TRY(open_bench(b, &r));
    TRY(make_data(b, b->own, r.tokens));
    double *seconds = calloc((size_t)r.steps + 1, (1 + REFERENCES) * sizeof *seconds);
    if (!seconds) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = time_steps(b, &r, seconds, seconds + r.steps + 1);
    free(seconds);
    return status;
}

int main(int argc, char **argv) {
    bench b = {0};
    tw_status status = run(&b, argc, argv);
    if (status != TW_OK) fprintf(stderr, "%s\n", tw_last_error());
    tw_adamw_free(b.adamw);
    tw_stepper_free(b.stepper);
    tw_towers_free(b.towers);
    tw_partition_free(b.partition);
    tw_dual_encoder_free(b.model);
    tw_comm_free(b.comm);
    tw_device_free(b.device);
    free(b.pixels);
    free(b.ids);
    free(b.lengths);
    return status == TW_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
