#include "data/atomic_file.h"
#include "train/formats/pt.h"
#include "train/formats/torch_write.h"
#include "train/formats/zip_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_name(const void *a, const void *b) {
    return strcmp((*(const tw_weight *const *)a)->name, (*(const tw_weight *const *)b)->name);
}

static tw_status check_shape(const char *path, const tw_weight *item) {
    int64_t count = 1;
    bool ok = item->ndim >= 0 && item->ndim <= TW_WEIGHT_MAX_DIMS && tw_weight_type_size(item->type);
    for (int d = 0; d < item->ndim && ok; d++)
        ok = item->shape[d] >= 0 && !__builtin_mul_overflow(count, item->shape[d], &count);
    if (ok && count == item->count) return TW_OK;
    return FAIL(TW_ERR_ARGUMENT, "%s: the count of tensor '%s' is not its shape's", path, item->name);
}

static tw_status check_items(const char *path, const tw_weight *items, int64_t n) {
    for (int64_t i = 0; i < n; i++) TRY(check_shape(path, &items[i]));
    const tw_weight **sorted = malloc(((size_t)n + 1) * sizeof *sorted);
    if (!sorted) return FAIL(TW_ERR_MEMORY, "%s: no memory to write it", path);
    for (int64_t i = 0; i < n; i++) sorted[i] = &items[i];
    qsort(sorted, (size_t)n, sizeof *sorted, by_name);
    tw_status status = TW_OK;
    for (int64_t i = 1; i < n && !status; i++)
        if (by_name(&sorted[i - 1], &sorted[i]) == 0)
            status = FAIL(TW_ERR_ARGUMENT, "%s: two tensors are named '%s'", path, sorted[i]->name);
    free(sorted);
    return status;
}

static tw_status write_tensors(tw_zip_writer *zip, const char *path, const tw_weights_output *output) {
    size_t largest = 1;
    for (int64_t i = 0; i < output->n; i++) {
        size_t size = (size_t)output->items[i].count * tw_weight_type_size(output->items[i].type);
        if (size > largest) largest = size;
    }
    void *buffer = malloc(largest);
    if (!buffer) return FAIL(TW_ERR_MEMORY, "%s: no memory for its largest tensor, %zu bytes", path, largest);
    tw_status status = TW_OK;
    for (int64_t i = 0; i < output->n && !status; i++) {
        const tw_weight *item = &output->items[i];
        char name[64];
        snprintf(name, sizeof name, "archive/data/%lld", (long long)i);
        if (item->count > 0) status = output->fill(output->self, i, buffer);
        if (!status)
            status =
                tw_zip_writer_add(zip, name, buffer, (size_t)item->count * tw_weight_type_size(item->type));
    }
    free(buffer);
    return status;
}

/* The records in the order of torch.save. */
static tw_status write_archive(tw_zip_writer *zip, const char *path, const tw_weights_output *output,
                               const tw_weights_note *note) {
    unsigned char *pickle = NULL;
    size_t size = 0;
    TRY(tw_torch_write(path, output->items, output->n, note, &pickle, &size));
    tw_status status = tw_zip_writer_add(zip, "archive/data.pkl", pickle, size);
    free(pickle);
    TRY(status);
    TRY(tw_zip_writer_add(zip, "archive/byteorder", "little", 6));
    TRY(write_tensors(zip, path, output));
    TRY(tw_zip_writer_add(zip, "archive/version", "3\n", 2));
    return tw_zip_writer_finish(zip);
}

tw_status tw_pt_write(const char *path, const tw_weights_output *output, const tw_weights_note *note) {
    const tw_weights_note nothing = {.epoch = -1, .step = -1};
    TRY(check_items(path, output->items, output->n));
    char *temp = NULL;
    tw_zip_writer *zip = NULL;
    TRY(tw_atomic_begin(path, &temp));
    tw_status status = tw_zip_writer_open(temp, path, &zip);
    if (!status) status = write_archive(zip, path, output, note ? note : &nothing);
    tw_zip_writer_free(zip);
    if (!status)
        status = tw_atomic_publish(temp, path);
    else
        tw_atomic_discard(temp);
    free(temp);
    return status;
}
