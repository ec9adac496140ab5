/* Copies a checkpoint with the first value of one tensor, or of one of its rows, replaced by NaN, or without
 * the tensor: IN OUT [--drop | --row ROW] TENSOR. For the end-to-end tests. */
#include "train/formats/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tw_status poison(const tw_checkpoint_entry *e, float *values, long row) {
    int64_t width = e->ndim > 1 ? e->count / e->shape[0] : 1;
    if (row < 0 || row * width >= e->count) return FAIL(TW_ERR_ARGUMENT, "%s has no row %ld", e->name, row);
    values[row * width] = NAN;
    return TW_OK;
}

static tw_status copy(const char *in, const char *out, const char *name, bool drop, long row) {
    tw_checkpoint *c;
    TRY(tw_checkpoint_open(in, &c));
    int64_t n = tw_checkpoint_count(c);
    tw_checkpoint_tensor *tensors = calloc((size_t)n, sizeof *tensors);
    tw_status status = tensors ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
    int64_t kept = 0;
    for (int64_t i = 0; status == TW_OK && i < n; i++) {
        const tw_checkpoint_entry *e = tw_checkpoint_at(c, i);
        bool named = strcmp(e->name, name) == 0;
        if (named && drop) continue;
        float *values = malloc((size_t)e->count * sizeof *values);
        status = values ? tw_checkpoint_read(c, e->name, TW_CHECKPOINT_PARAM, values, e->count)
                        : FAIL(TW_ERR_MEMORY, "out of memory");
        if (status == TW_OK && named) status = poison(e, values, row);
        tensors[kept] = (tw_checkpoint_tensor){.name = e->name, .ndim = e->ndim, .param = values};
        memcpy(tensors[kept++].shape, e->shape, sizeof e->shape);
    }
    if (status == TW_OK) status = tw_checkpoint_write(out, tw_checkpoint_get_meta(c), tensors, kept);
    for (int64_t i = 0; tensors && i < n; i++) free((void *)(uintptr_t)tensors[i].param);
    free(tensors);
    tw_checkpoint_close(c);
    return status;
}

int main(int argc, char **argv) {
    bool drop = argc == 5 && strcmp(argv[3], "--drop") == 0;
    bool rows = argc == 6 && strcmp(argv[3], "--row") == 0;
    long row = rows ? atol(argv[4]) : 0;
    if ((argc == 4 || drop || rows) && copy(argv[1], argv[2], argv[argc - 1], drop, row) == TW_OK)
        return EXIT_SUCCESS;
    fprintf(stderr, "%s\n", tw_last_error());
    return EXIT_FAILURE;
}
