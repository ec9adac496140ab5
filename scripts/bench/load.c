/* How fast a model is loaded: `load FILE [VOCAB [ROUNDS]]` opens it for inference in f32, beside reading the
 * same file once in the same round, with the file in the system's cache and without; prints seconds, GB/s of
 * the file, and the largest memory held against the model's.
 *
 * Every load is a process of its own. Before it another process takes as much new memory and gives it back:
 * on a virtual machine the first use of memory that the host has taken away costs many times what clearing it
 * costs, whoever asks for it. That time is printed too. */
#include "train/clock.h"
#include "train/model_io.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct job {
    const char *path, *vocab;
    size_t bytes;
} job;

/* What a child process reports. */
typedef struct outcome {
    double seconds, weights_mb, peak_mb;
    bool good;
} outcome;

static outcome read_once(const job *j) {
    enum { BLOCK = 1 << 20 };
    char *buffer = malloc(BLOCK);
    outcome o = {0};
    double start = tw_seconds();
    int fd = open(j->path, O_RDONLY);
    size_t done = 0;
    for (ssize_t n; buffer && fd >= 0 && (n = read(fd, buffer, BLOCK)) > 0;) done += (size_t)n;
    if (fd >= 0) close(fd);
    free(buffer);
    o.seconds = tw_seconds() - start;
    o.good = done == j->bytes;
    return o;
}

static outcome touch(const job *j) {
    outcome o = {0};
    void *memory = NULL;
    tw_device *device = NULL;
    double start = tw_seconds();
    o.good = tw_device_cpu(0, &device) == TW_OK && device->alloc(device, j->bytes, &memory) == TW_OK;
    if (o.good) {
        memset(memory, 1, j->bytes);
        o.seconds = tw_seconds() - start;
        o.good = ((volatile char *)memory)[j->bytes / 2] == 1;
    }
    return o; /* the process ends */
}

static double peak_mb(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

static outcome load(const job *j) {
    outcome o = {0};
    tw_device *device;
    tw_loaded_model model;
    const tw_model_choice choice = {.path = j->path, .vocab = j->vocab};
    double start = tw_seconds();
    if (tw_device_cpu(0, &device) != TW_OK || tw_model_open(&choice, device, TW_F32, &model) != TW_OK) {
        fprintf(stderr, "%s\n", tw_last_error());
        return o;
    }
    o.seconds = tw_seconds() - start;
    o.weights_mb = (double)tw_params_bytes(model.model->params) / 1048576;
    o.peak_mb = peak_mb();
    o.good = true;
    return o;
}

static outcome in_child(outcome (*work)(const job *), const job *j) {
    int ends[2];
    outcome o = {0};
    if (pipe(ends) != 0) return o;
    pid_t child = fork();
    if (child == 0) {
        o = work(j);
        bool sent = write(ends[1], &o, sizeof o) == (ssize_t)sizeof o;
        _exit(sent ? 0 : 1);
    }
    close(ends[1]);
    if (child < 0 || read(ends[0], &o, sizeof o) != (ssize_t)sizeof o) o.good = false;
    close(ends[0]);
    if (child > 0) waitpid(child, NULL, 0);
    return o;
}

/* Takes the file out of the system's cache; what cannot be taken out makes the cold times too good. */
static void forget(const char *path) {
    int fd = open(path, O_RDONLY);
    if (fd < 0) return;
    fdatasync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

static bool round_of(const job *j, bool cold) {
    double bytes = (double)j->bytes;
    if (cold) forget(j->path);
    outcome plain = in_child(read_once, j), memory = in_child(touch, j);
    if (cold) forget(j->path);
    outcome o = in_child(load, j);
    if (!plain.good || !memory.good || !o.good) return false;
    printf("%s: read once %.2f s, %.2f GB/s; load %.2f s, %.2f GB/s: %.2f x reading; new memory took %.2f s; "
           "model "
           "%.1f MB, peak %.1f MB (%+.1f %%)\n",
           cold ? "cold" : "warm", plain.seconds, bytes / plain.seconds / 1e9, o.seconds,
           bytes / o.seconds / 1e9, o.seconds / plain.seconds, memory.seconds, o.weights_mb, o.peak_mb,
           100 * (o.peak_mb / o.weights_mb - 1));
    fflush(stdout);
    return true;
}

int main(int argc, char **argv) {
    struct stat st;
    if (argc < 2 || stat(argv[1], &st) != 0) {
        fprintf(stderr, "usage: %s FILE [VOCAB [ROUNDS]]\n", argv[0]);
        return 2;
    }
    const job j = {.path = argv[1], .vocab = argc > 2 ? argv[2] : NULL, .bytes = (size_t)st.st_size};
    int rounds = argc > 3 ? atoi(argv[3]) : 2;
    if (!in_child(read_once, &j).good) return 1; /* into the cache */
    for (int i = 0; i < rounds; i++)
        if (!round_of(&j, false)) return 1;
    for (int i = 0; i < rounds; i++)
        if (!round_of(&j, true)) return 1;
    return 0;
}
