/* Copies a checkpoint with the first value of one tensor, or of one of its rows, replaced by NaN, or without
 * the tensor: IN OUT [--drop | --row ROW] TENSOR; or as one of N threads, 0: not known: IN OUT --threads N.
 * For the end-to-end tests. */
#include "train/formats/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct change {
    const char *name; /* of the tensor; NULL: none */
    bool drop;
    long row;
    int threads; /* -1: as they are */
} change;

static tw_status poison(const tw_checkpoint_entry *e, float *values, long row) {
    int64_t width = e->ndim > 1 ? e->count / e->shape[0] : 1;
    if (row < 0 || row * width >= e->count) return FAIL(TW_ERR_ARGUMENT, "%s has no row %ld", e->name, row);
    values[row * width] = NAN;
    return TW_OK;
}

/* *values is the caller's to free. */
static tw_status read_part(tw_checkpoint *c, const tw_checkpoint_entry *e, tw_checkpoint_part part,
                           float **values) {
    *values = malloc((size_t)e->count * sizeof **values);
    return *values ? tw_checkpoint_read(c, e->name, part, *values, e->count)
                   : FAIL(TW_ERR_MEMORY, "out of memory");
}

/* parts: (3), the tensor's values and its moments. */
static tw_status read_tensor(tw_checkpoint *c, const tw_checkpoint_entry *e, const change *how, float **parts,
                             tw_checkpoint_tensor *out) {
    static const tw_checkpoint_part which[] = {TW_CHECKPOINT_PARAM, TW_CHECKPOINT_M, TW_CHECKPOINT_V};
    for (int k = 0; k < (e->has_m ? 3 : 1); k++) TRY(read_part(c, e, which[k], &parts[k]));
    *out = (tw_checkpoint_tensor){
        .name = e->name, .ndim = e->ndim, .param = parts[0], .m = parts[1], .v = parts[2]};
    memcpy(out->shape, e->shape, sizeof e->shape);
    bool named = how->name && strcmp(e->name, how->name) == 0;
    return named ? poison(e, parts[0], how->row) : TW_OK;
}

static tw_status copy(const char *in, const char *out, const change *how) {
    tw_checkpoint *c;
    TRY(tw_checkpoint_open(in, &c));
    int64_t n = tw_checkpoint_count(c), kept = 0;
    tw_checkpoint_tensor *tensors = calloc((size_t)n, sizeof *tensors);
    float **parts = calloc((size_t)n * 3, sizeof *parts);
    tw_status status = tensors && parts ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
    for (int64_t i = 0; status == TW_OK && i < n; i++) {
        const tw_checkpoint_entry *e = tw_checkpoint_at(c, i);
        if (how->drop && strcmp(e->name, how->name) == 0) continue;
        status = read_tensor(c, e, how, parts + 3 * i, &tensors[kept++]);
    }
    tw_checkpoint_meta meta = *tw_checkpoint_get_meta(c);
    if (how->threads >= 0) meta.threads = how->threads;
    if (status == TW_OK) status = tw_checkpoint_write(out, &meta, tensors, kept);
    for (int64_t i = 0; parts && i < 3 * n; i++) free(parts[i]);
    free(parts);
    free(tensors);
    tw_checkpoint_close(c);
    return status;
}

int main(int argc, char **argv) {
    bool drop = argc == 5 && strcmp(argv[3], "--drop") == 0;
    bool threads = argc == 5 && strcmp(argv[3], "--threads") == 0;
    bool rows = argc == 6 && strcmp(argv[3], "--row") == 0;
    change how = {.name = threads ? NULL : argv[argc - 1],
                  .drop = drop,
                  .row = rows ? atol(argv[4]) : 0,
                  .threads = threads ? atoi(argv[4]) : -1};
    if ((argc == 4 || drop || threads || rows) && copy(argv[1], argv[2], &how) == TW_OK) return EXIT_SUCCESS;
    fprintf(stderr, "%s\n", tw_last_error());
    return EXIT_FAILURE;
}
