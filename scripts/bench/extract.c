/* Times the image tower alone, as extraction runs it, on random pixels and with random weights:
 *     bench_extract [MODEL [BATCH [BATCHES [f32|bf16 [THREADS [SAVE]]]]]]
 * Prints images/s (of the median batch) and peak memory. With SAVE the model is written there as a checkpoint
 * first, for `tuwen extract` over real files. scripts/bench/extract.sh runs both beside PyTorch. */
#include "autograd/random.h"
#include "train/clock.h"
#include "train/model_file.h"
#include "train/model_io.h"
#include "train/towers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

typedef struct bench {
    tw_device *device;
    tw_dual_encoder *model;
    tw_towers *towers;
    uint8_t *pixels;
    float *features;
    double *seconds;
} bench;

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static tw_status save(const bench *b, const tw_model_config *config, const char *path) {
    tw_snapshot snapshot;
    tw_checkpoint_meta meta;
    tw_checkpoint_meta_init(&meta);
    TRY(tw_model_snapshot(b->model, NULL, true, NULL, &snapshot));
    tw_status status = tw_model_config_to_yaml(config, &meta.model_yaml);
    if (status == TW_OK) status = tw_checkpoint_write(path, &meta, snapshot.tensors, snapshot.n);
    tw_checkpoint_meta_free(&meta);
    tw_snapshot_free(&snapshot);
    return status;
}

static tw_status open_bench(bench *b, const char *name, tw_dtype type, int threads, int64_t n,
                            const char *path) {
    tw_model_config config;
    TRY(tw_model_config_load(name, &config));
    if (config.text.vocabulary == 0) config.text.vocabulary = 21128;
    TRY(tw_device_cpu(threads, &b->device));
    TRY(tw_dual_encoder_create(&config, &b->model));
    TRY(tw_dual_encoder_allocate(b->model, b->device, type, false));
    TRY(tw_params_initialise(b->model->params, 1));
    if (path) TRY(save(b, &config, path));
    TRY(tw_towers_create(b->model, b->device, TW_RECOMPUTE_NONE, TW_U8, &b->towers));
    int64_t r = config.image.resolution, bytes = n * r * r * 3;
    b->pixels = malloc((size_t)bytes);
    b->features = malloc((size_t)(n * config.embed) * sizeof *b->features);
    if (!b->pixels || !b->features) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_draw draw = {.seed = 1, .purpose = TW_DRAW_TEST};
    for (int64_t i = 0; i < bytes; i++) b->pixels[i] = (uint8_t)(tw_random_u32(&draw, (uint32_t)i) >> 24);
    return TW_OK;
}

static tw_status one_batch(bench *b, int64_t n) {
    const tw_tower_tape *t;
    TRY(tw_towers_get(b->towers, TW_TOWER_IMAGE, n, &t));
    TRY(tw_tape_upload(t->tape, t->pixels, b->pixels));
    TRY(tw_tape_forward(t->tape, NULL));
    return tw_tape_download(t->tape, t->image, b->features);
}

static tw_status run(bench *b, int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "ViT-B-16", *type = argc > 4 ? argv[4] : "f32";
    int64_t n = argc > 2 ? atoll(argv[2]) : 32;
    int batches = argc > 3 ? atoi(argv[3]) : 5, threads = argc > 5 ? atoi(argv[5]) : 0;
    if (n < 1 || batches < 1) return FAIL(TW_ERR_ARGUMENT, "batch and batches are numbers from 1");
    TRY(open_bench(b, name, strcmp(type, "bf16") == 0 ? TW_BF16 : TW_F32, threads, n,
                   argc > 6 ? argv[6] : NULL));
    b->seconds = malloc((size_t)batches * sizeof *b->seconds);
    if (!b->seconds) return FAIL(TW_ERR_MEMORY, "out of memory");
    TRY(one_batch(b, n)); /* warm-up: tapes, page faults, oneDNN's kernels */
    for (int i = 0; i < batches; i++) {
        double start = tw_seconds();
        TRY(one_batch(b, n));
        b->seconds[i] = tw_seconds() - start;
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    qsort(b->seconds, (size_t)batches, sizeof *b->seconds, compare);
    double median = b->seconds[batches / 2];
    printf("tuwen %s image tower, batch %lld %s: %.2f images/s (fastest %.2f), peak %.0f MiB\n", name,
           (long long)n, type, (double)n / median, (double)n / b->seconds[0],
           (double)usage.ru_maxrss / 1024.0);
    return TW_OK;
}

int main(int argc, char **argv) {
    bench b = {0};
    tw_status status = run(&b, argc, argv);
    if (status != TW_OK) fprintf(stderr, "%s\n", tw_last_error());
    tw_towers_free(b.towers);
    tw_dual_encoder_free(b.model);
    if (b.device) tw_device_free(b.device);
    free(b.pixels);
    free(b.features);
    free(b.seconds);
    return status == TW_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
