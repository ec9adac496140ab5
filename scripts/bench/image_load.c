/* Images a second on one core: decode, resize, convert to RGB, normalise to f32 planes.
 *
 *     bench_image_load PACK RESOLUTION SECONDS
 *
 * PACK is made by image_load_peer.py: 32-bit little-endian length and bytes of each file. Prints the best
 * rate of the rounds that fit into SECONDS. image_load.sh compares with Pillow and NumPy. */
#include "data/image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Processor time: one thread, and other programs may run beside. */
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* rgb (n, 3) to planes (3, n): (v/255 - mean)/std. */
static void normalise(const uint8_t *rgb, size_t n, float *planes) {
    static const float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
    static const float std[3] = {0.26862954f, 0.26130258f, 0.27577711f};
    for (size_t c = 0; c < 3; c++) {
        float scale = 1.0f / (255.0f * std[c]), shift = mean[c] / std[c];
        for (size_t i = 0; i < n; i++) planes[c * n + i] = (float)rgb[3 * i + c] * scale - shift;
    }
}

static uint8_t *read_pack(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    uint8_t *bytes = malloc(*size);
    if (bytes && fread(bytes, 1, *size, f) != *size) *size = 0;
    fclose(f);
    return bytes;
}

/* All files once; the number of them, or -1. */
static long round_of_all(const uint8_t *pack, size_t size, int resolution, uint8_t *rgb, float *planes) {
    long count = 0;
    for (size_t at = 0; at + 4 <= size; count++) {
        uint32_t length;
        memcpy(&length, pack + at, 4);
        if (tw_image_load(pack + at + 4, length, resolution, rgb)) {
            fprintf(stderr, "file %ld: %s\n", count, tw_last_error());
            return -1;
        }
        normalise(rgb, (size_t)resolution * (size_t)resolution, planes);
        at += 4 + length;
    }
    return count;
}

int main(int argc, char **argv) {
    if (argc != 4) return fprintf(stderr, "usage: %s PACK RESOLUTION SECONDS\n", argv[0]), 2;
    size_t size = 0;
    uint8_t *pack = read_pack(argv[1], &size);
    int resolution = atoi(argv[2]);
    double limit = atof(argv[3]), start = now(), best = 0;
    if (!pack || size == 0 || resolution < 1) return fprintf(stderr, "%s: cannot be read\n", argv[1]), 1;
    size_t pixels = (size_t)resolution * (size_t)resolution;
    uint8_t *rgb = malloc(3 * pixels);
    float *planes = malloc(3 * pixels * sizeof *planes);
    if (!rgb || !planes) return 1;
    do {
        double t = now();
        long count = round_of_all(pack, size, resolution, rgb, planes);
        if (count < 1) return 1;
        double rate = (double)count / (now() - t);
        if (rate > best) best = rate;
    } while (now() - start < limit);
    printf("%.1f\n", best);
    free(pack), free(rgb), free(planes);
    return 0;
}
