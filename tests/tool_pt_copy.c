/* tool_pt_copy FROM.pt TO.pt: reads every tensor of a .pt file and writes them to another. For
 * scripts/check_pt.py, which compares the two with PyTorch, and for timing. With one argument: reads only, as
 * floats where that is possible. */
#include "train/formats/pt.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

static tw_status copy_tensor(void *self, int64_t i, void *dst) {
    return tw_weights_read(self, i, dst);
}

static tw_status copy(tw_weights *from, const char *path) {
    int64_t n = tw_weights_count(from);
    tw_weight *items = malloc(((size_t)n + 1) * sizeof *items);
    if (!items) return FAIL(TW_ERR_MEMORY, "no memory");
    for (int64_t i = 0; i < n; i++) items[i] = *tw_weights_at(from, i);
    tw_weights_output output = {items, n, copy_tensor, from};
    tw_status status = tw_pt_write(path, &output, tw_weights_get_note(from));
    free(items);
    return status;
}

/* All tensors as floats, each to memory of its own, as loading a model does. */
static tw_status load(tw_weights *from, int64_t *bytes) {
    *bytes = 0;
    for (int64_t i = 0; i < tw_weights_count(from); i++) {
        int64_t count = tw_weights_at(from, i)->count;
        float *f = malloc((size_t)count * sizeof *f + 1); /* kept: the model */
        if (!f) return FAIL(TW_ERR_MEMORY, "no memory");
        TRY(tw_weights_read_f32(from, i, f, count));
        *bytes += count * (int64_t)sizeof *f;
    }
    return TW_OK;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv) {
    tw_weights *from = NULL;
    int64_t bytes = 0;
    double start = now();
    if (argc < 2) {
        fprintf(stderr, "usage: %s FROM.pt [TO.pt]\n", argv[0]);
        return 2;
    }
    tw_status status = tw_pt_open(argv[1], &from);
    if (!status) status = argc > 2 ? copy(from, argv[2]) : load(from, &bytes);
    double seconds = now() - start;
    tw_weights_close(from);
    if (status) {
        fprintf(stderr, "%s: %s\n", argv[0], tw_last_error());
        return 1;
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("%.3f s, peak memory %.1f MB, floats %.1f MB\n", seconds, (double)usage.ru_maxrss / 1e3,
           (double)bytes / 1e6 * 1000 / 1024);
    return 0;
}
