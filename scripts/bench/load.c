/* How fast a model is loaded: `load FILE [VOCAB]` opens it for inference in f32 and prints seconds, GB/s of
 * the file and the largest memory held, beside reading the file once. For the cold figure drop the page cache
 * before: sync; echo 3 > /proc/sys/vm/drop_caches */
#include "train/clock.h"
#include "train/model_io.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static double read_once(const char *path) {
    enum { BLOCK = 1 << 20 };
    char *buffer = malloc(BLOCK);
    double start = tw_seconds();
    int fd = open(path, O_RDONLY);
    while (buffer && read(fd, buffer, BLOCK) > 0) {
    }
    if (fd >= 0) close(fd);
    free(buffer);
    return tw_seconds() - start;
}

static double peak_mb(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

int main(int argc, char **argv) {
    struct stat st;
    if (argc < 2 || stat(argv[1], &st) != 0) {
        fprintf(stderr, "usage: load FILE [VOCAB], or load FILE --read\n");
        return 2;
    }
    double bytes = (double)st.st_size;
    if (argc > 2 && strcmp(argv[2], "--read") == 0) {
        double seconds = read_once(argv[1]);
        printf("read once: %.2f s, %.2f GB/s\n", seconds, bytes / seconds / 1e9);
        return 0;
    }
    tw_device *device;
    tw_loaded_model model;
    const tw_model_choice choice = {.path = argv[1], .vocab = argc > 2 ? argv[2] : NULL};
    double base = peak_mb(), start = tw_seconds();
    if (tw_device_cpu(0, &device) != TW_OK || tw_model_open(&choice, device, TW_F32, &model) != TW_OK) {
        fprintf(stderr, "%s\n", tw_last_error());
        return 1;
    }
    double seconds = tw_seconds() - start, weights = (double)tw_params_bytes(model.model->params) / 1048576;
    printf("load: %.2f s, %.2f GB/s; model %.1f MB, peak %.1f MB (%+.1f %%; before: %.1f MB)\n", seconds,
           bytes / seconds / 1e9, weights, peak_mb(), 100 * (peak_mb() / weights - 1), base);
    tw_loaded_model_free(&model);
    tw_device_free(device);
    return 0;
}
