/* Throughput of checkpoints: writes about 1 GB to FOLDER and reads it back, beside plain files of the same
 * size. build/release/scripts/bench/checkpoint FOLDER [MEGABYTES] */
#include "train/formats/checkpoint.h"
#include "train/formats/seal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void report(const char *what, double bytes, double seconds) {
    printf("%-36s %7.2f s  %6.2f GB/s\n", what, seconds, bytes / seconds / 1e9);
}

static int plain_write(const char *path, const float *values, size_t bytes) {
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    for (size_t done = 0; fd >= 0 && done < bytes;) {
        ssize_t n = write(fd, (const char *)values + done, bytes - done);
        if (n <= 0) return -1;
        done += (size_t)n;
    }
    return fd < 0 || fsync(fd) != 0 || close(fd) != 0 ? -1 : 0;
}

static int plain_read(const char *path, float *values, size_t bytes) {
    int fd = open(path, O_RDONLY);
    for (size_t done = 0; fd >= 0 && done < bytes;) {
        ssize_t n = read(fd, (char *)values + done, bytes - done);
        if (n <= 0) return -1;
        done += (size_t)n;
    }
    return fd < 0 ? -1 : close(fd);
}

int main(int argc, char **argv) {
    enum { LAYERS = 24 };
    const char *folder = argc > 1 ? argv[1] : ".";
    size_t total = (size_t)(argc > 2 ? atoi(argv[2]) : 1000) << 20;
    /* 24 matrices with moments; columns as in a base model, so that chunks are as in real ones. */
    int64_t rows = (int64_t)(total / (LAYERS * 3 * 768 * sizeof(float)));
    size_t count = (size_t)rows * 768, bytes = count * LAYERS * 3 * sizeof(float);
    float *values = malloc(bytes), *back = malloc(bytes);
    if (!values || !back) return 1;
    for (size_t i = 0; i < count * LAYERS * 3; i++) values[i] = (float)(i * 2654435761u % 1000003) * 1e-6f;
    memset(back, 1, bytes);
    tw_checkpoint_tensor tensors[LAYERS];
    char names[LAYERS][32], path[512], plain[512];
    for (int i = 0; i < LAYERS; i++) {
        snprintf(names[i], sizeof names[i], "layer.%d.weight", i);
        float *at = values + (size_t)i * 3 * count;
        tensors[i] = (tw_checkpoint_tensor){names[i], 2, {rows, 768}, at, at + count, at + 2 * count};
    }
    snprintf(path, sizeof path, "%s/bench_checkpoint.h5", folder);
    snprintf(plain, sizeof plain, "%s/bench_plain.bin", folder);
    tw_checkpoint_meta meta;
    tw_checkpoint_meta_init(&meta);
    int failed = 0;
    for (int round = 0; round < 3 && !failed; round++) {
        double start = now();
        failed |= plain_write(plain, values, bytes);
        report("plain write + fsync", (double)bytes, now() - start), start = now();
        failed |= plain_read(plain, back, bytes);
        report("plain read (page cache)", (double)bytes, now() - start), start = now();
        failed |= tw_checkpoint_write(path, &meta, tensors, LAYERS) != TW_OK;
        report("checkpoint write, synced", (double)bytes, now() - start), start = now();
        tw_checkpoint *c = NULL;
        failed |= tw_checkpoint_open(path, &c) != TW_OK;
        report("checkpoint open (all bytes checked)", (double)bytes, now() - start), start = now();
        for (int i = 0; c && i < LAYERS; i++)
            for (int part = 0; part < 3; part++)
                failed |= tw_checkpoint_read(c, names[i], (tw_checkpoint_part)part,
                                             back + (size_t)(3 * i + part) * count, (int64_t)count) != TW_OK;
        report("checkpoint read", (double)bytes, now() - start);
        tw_checkpoint_close(c);
        failed |= memcmp(values, back, bytes) != 0;
    }
    unlink(path);
    unlink(plain);
    if (failed) fprintf(stderr, "failed: %s\n", tw_last_error());
    free(values);
    free(back);
    return failed;
}
