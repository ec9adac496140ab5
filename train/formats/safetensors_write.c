#include "data/atomic_file.h"
#include "data/lines.h"
#include "data/string_map.h"
#include "train/formats/safetensors.h"
#include "train/formats/safetensors_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Place in the table of types, which is the order of the reference; -1: none. */
static int rank_of(tw_weight_type type) {
    for (int i = 0; i < TW_SAFETENSORS_TYPES; i++)
        if (tw_safetensors_types[i].type == type) return i;
    return -1;
}

/* Larger types first keeps every tensor aligned to its own type. */
static int by_type_and_name(const void *a, const void *b) {
    const tw_weight *x = *(const tw_weight *const *)a, *y = *(const tw_weight *const *)b;
    int left = rank_of(x->type), right = rank_of(y->type);
    return left != right ? (left > right ? -1 : 1) : strcmp(x->name, y->name);
}

static tw_status check_items(const tw_weights_output *output, tw_string_map *names) {
    for (int64_t i = 0; i < output->n; i++) {
        const char *name = output->items[i].name;
        size_t bad;
        int64_t at;
        bool is_new;
        if (rank_of(output->items[i].type) < 0)
            return FAIL(TW_ERR_ARGUMENT, "tensor '%s' has no safetensors type", name);
        if (!tw_lines_is_utf8(name, strlen(name), &bad) || strcmp(name, "__metadata__") == 0)
            return FAIL(TW_ERR_ARGUMENT, "'%s' cannot be the name of a tensor", name);
        for (const char *c = name; *c; c++)
            if ((unsigned char)*c < 0x20)
                return FAIL(TW_ERR_ARGUMENT, "the name of a tensor has control characters");
        TRY(tw_string_map_add(names, name, strlen(name), &at, &is_new));
        if (!is_new) return FAIL(TW_ERR_ARGUMENT, "tensor '%s' is there twice", name);
    }
    return TW_OK;
}

static void put_name(FILE *file, const char *name) {
    fputc('"', file);
    for (; *name; name++) {
        if (*name == '"' || *name == '\\') fputc('\\', file);
        fputc(*name, file);
    }
    fputc('"', file);
}

/* The header as text of its own, because its length stands before it. Freed by the caller; NULL: no memory.
 */
static char *make_header(const tw_weight *const *order, int64_t n, size_t *size) {
    char *text = NULL;
    FILE *file = open_memstream(&text, size);
    if (!file) return NULL;
    fputs("{\"__metadata__\":{\"format\":\"pt\"}", file);
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        const tw_weight *w = order[i];
        fputc(',', file);
        put_name(file, w->name);
        fprintf(file, ":{\"dtype\":\"%s\",\"shape\":[", tw_safetensors_types[rank_of(w->type)].name);
        for (int d = 0; d < w->ndim; d++) fprintf(file, "%s%" PRId64, d ? "," : "", w->shape[d]);
        int64_t end = at + w->count * (int64_t)tw_weight_type_size(w->type);
        fprintf(file, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", at, end);
        at = end;
    }
    fputc('}', file);
    fflush(file);
    while (*size % 8 && !ferror(file)) fputc(' ', file), fflush(file);
    if (ferror(file) | fclose(file)) {
        free(text);
        return NULL;
    }
    return text;
}

static tw_status write_data(FILE *file, const tw_weights_output *output, const tw_weight *const *order) {
    size_t largest = 1;
    for (int64_t i = 0; i < output->n; i++) {
        size_t bytes = (size_t)order[i]->count * tw_weight_type_size(order[i]->type);
        if (bytes > largest) largest = bytes;
    }
    void *buffer = malloc(largest);
    if (!buffer) return FAIL(TW_ERR_MEMORY, "no memory for a tensor of %zu bytes", largest);
    tw_status status = TW_OK;
    for (int64_t i = 0; i < output->n && !status; i++) {
        size_t bytes = (size_t)order[i]->count * tw_weight_type_size(order[i]->type);
        status = output->fill(output->self, order[i] - output->items, buffer);
        if (!status && fwrite(buffer, 1, bytes, file) != bytes)
            status = FAIL(TW_ERR_IO, "cannot write: %s", strerror(errno));
    }
    free(buffer);
    return status;
}

static tw_status write_all(FILE *file, const tw_weights_output *output, const tw_weight **order) {
    tw_string_map names = {0};
    tw_status status = check_items(output, &names);
    tw_string_map_free(&names);
    TRY(status);
    for (int64_t i = 0; i < output->n; i++) order[i] = &output->items[i];
    if (output->n) qsort(order, (size_t)output->n, sizeof *order, by_type_and_name);
    size_t size;
    char *header = make_header(order, output->n, &size);
    if (!header) return FAIL(TW_ERR_MEMORY, "no memory for a header of %" PRId64 " tensors", output->n);
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)size >> 8 * i);
    bool written = fwrite(length, 1, 8, file) == 8 && fwrite(header, 1, size, file) == size;
    free(header);
    if (!written) return FAIL(TW_ERR_IO, "cannot write: %s", strerror(errno));
    return write_data(file, output, order);
}

static tw_status write_to(const char *path, const tw_weights_output *output) {
    const tw_weight **order = malloc((size_t)(output->n + 1) * sizeof *order);
    if (!order) return FAIL(TW_ERR_MEMORY, "no memory for %" PRId64 " tensors", output->n);
    FILE *file = fopen(path, "wbe");
    tw_status status =
        file ? write_all(file, output, order) : FAIL(TW_ERR_IO, "cannot write: %s", strerror(errno));
    if (file && fclose(file) != 0 && !status) status = FAIL(TW_ERR_IO, "cannot write: %s", strerror(errno));
    free(order);
    return status;
}

tw_status tw_safetensors_write_plain(const char *path, const tw_weights_output *output) {
    tw_status status = write_to(path, output);
    return status ? tw_fail_context(status, "%s", path) : TW_OK;
}

tw_status tw_safetensors_write(const char *path, const tw_weights_output *output) {
    char *temp;
    TRY(tw_atomic_begin(path, &temp));
    tw_status status = write_to(temp, output);
    if (status) {
        tw_atomic_discard(temp);
        tw_fail_context(status, "%s", path);
    } else {
        status = tw_atomic_publish(temp, path);
    }
    free(temp);
    return status;
}
