/* pt_load FILE.pt: how fast a .pt file is loaded as floats into one slab of memory, warm and cold, against
 * reading the same file once. The slab is touched before: giving a process new memory is the system's cost,
 * whoever fills it. */
#include "autograd/device.h"
#include "train/formats/pt.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int64_t floats_of(const tw_weights *w) {
    int64_t count = 0;
    for (int64_t i = 0; i < tw_weights_count(w); i++) count += tw_weights_at(w, i)->count;
    return count;
}

static tw_status load(const char *path, float *slab) {
    tw_weights *w = NULL;
    TRY(tw_pt_open(path, &w));
    tw_status status = TW_OK;
    for (int64_t i = 0; i < tw_weights_count(w) && !status; i++) {
        status = tw_weights_read_f32(w, i, slab, tw_weights_at(w, i)->count);
        slab += tw_weights_at(w, i)->count;
    }
    tw_weights_close(w);
    return status;
}

static tw_status read_once(const char *path) {
    enum { PART = 1 << 20 };
    char *part = malloc(PART);
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 || !part ? -1 : 1;
    while (n > 0) n = read(fd, part, PART);
    if (fd >= 0) close(fd);
    free(part);
    return n < 0 ? FAIL(TW_ERR_IO, "cannot read %s", path) : TW_OK;
}

/* Takes the file out of the system's cache; what cannot be taken out makes the cold times too good. */
static void forget(const char *path) {
    int fd = open(path, O_RDONLY);
    if (fd < 0) return;
    fdatasync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

static tw_status measure(const char *what, const char *path, bool cold, float *slab) {
    struct stat s;
    if (cold) forget(path);
    double start = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    TRY(slab ? load(path, slab) : read_once(path));
    double wall = seconds(CLOCK_MONOTONIC) - start;
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    if (stat(path, &s) != 0) return FAIL(TW_ERR_IO, "cannot read %s", path);
    printf("%-12s %7.3f s (%6.2f GB/s), processor time %6.3f s (%6.2f GB/s)\n", what, wall,
           (double)s.st_size / 1e9 / wall, cpu, (double)s.st_size / 1e9 / cpu);
    return TW_OK;
}

static tw_status run(const char *path) {
    tw_device *device = NULL;
    tw_weights *w = NULL;
    void *slab = NULL;
    TRY(tw_pt_open(path, &w));
    size_t bytes = (size_t)floats_of(w) * sizeof(float);
    tw_weights_close(w);
    TRY(tw_device_cpu(1, &device));
    tw_status status = device->alloc(device, bytes, &slab);
    if (!status) memset(slab, 0, bytes);
    for (int i = 0; i < 2 && !status; i++) {
        status = measure("read, warm", path, false, NULL);
        if (!status) status = measure("load, warm", path, false, slab);
        if (!status) status = measure("read, cold", path, true, NULL);
        if (!status) status = measure("load, cold", path, true, slab);
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    if (!status)
        printf("peak memory %.1f MB for %.1f MB of floats\n", (double)usage.ru_maxrss * 1024 / 1e6,
               (double)bytes / 1e6);
    device->release(device, slab);
    device->destroy(device);
    return status;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s FILE.pt\n", argv[0]);
        return 2;
    }
    if (run(argv[1]) == TW_OK) return 0;
    fprintf(stderr, "%s: %s\n", argv[0], tw_last_error());
    return 1;
}
