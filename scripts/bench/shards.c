/* Reading shards: pairs and images per second and core, and base64.
 *
 *   build/release/scripts/bench/bench_shards DATA/lmdb/train [seconds] */
#include "data/shards.h"
#include "data/base64.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int fail(void) {
    (void)fprintf(stderr, "%s\n", tw_last_error());
    return 1;
}

static int bench_base64(double seconds) {
    enum { SIZE = 1 << 20 };
    uint8_t *bytes = calloc(1, SIZE + 3), *out = malloc(tw_base64_decoded_bound(SIZE * 2));
    char *text = malloc(tw_base64_encoded_size(SIZE));
    int64_t rounds = 0;
    size_t size;
    if (!bytes || !out || !text) return 1;
    for (size_t i = 0; i < SIZE; i++) bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    tw_base64_encode(bytes, SIZE, text);
    double start = now(), end = start;
    for (; end - start < seconds; end = now(), rounds++)
        if (tw_base64_decode(text, tw_base64_encoded_size(SIZE), out, &size)) return fail();
    printf("base64: %.0f MB/s of text\n",
           (double)rounds * (double)tw_base64_encoded_size(SIZE) / 1e6 / (end - start));
    free(bytes);
    free(out);
    free(text);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        (void)fprintf(stderr, "usage: bench_shards SPLIT_DIR [seconds]\n");
        return 2;
    }
    double seconds = argc > 2 ? atof(argv[2]) : 1, start = now(), end;
    tw_dataset *dataset;
    tw_reader *reader;
    if (tw_dataset_open(argv[1], &dataset) || tw_reader_open(dataset, &reader)) return fail();
    int64_t pairs = tw_dataset_pairs(dataset), done = 0, bytes = 0, sum = 0;
    printf("open: %.1f ms for %lld pairs, %lld images\n", 1e3 * (now() - start), (long long)pairs,
           (long long)tw_dataset_images(dataset));
    uint64_t state = 1;
    start = now();
    for (end = start; pairs > 0 && end - start < seconds; end = done % 256 ? end : now(), done++) {
        tw_pair pair;
        tw_bytes image;
        state = state * 6364136223846793005u + 1442695040888963407u;
        if (tw_dataset_pair(reader, (int64_t)((state >> 33) % (uint64_t)pairs), &pair)) return fail();
        if (tw_dataset_image(reader, pair.image_id.text, pair.image_id.size, &image)) return fail();
        for (size_t i = 0; i < image.size; i += 64) sum += image.data[i]; /* touch it, as a decoder would */
        bytes += (int64_t)image.size;
    }
    if (done > 0)
        printf("random pairs with their images: %.0f a second, %.0f MB/s (sum %lld)\n",
               (double)done / (end - start), (double)bytes / 1e6 / (end - start), (long long)sum);
    tw_reader_close(reader);
    tw_dataset_close(dataset);
    return bench_base64(seconds);
}
