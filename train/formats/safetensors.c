#include "train/formats/safetensors.h"

#include "data/files.h"
#include "data/lines.h"
#include "train/formats/json_scan.h"
#include "train/formats/read_ahead.h"
#include "train/formats/safetensors_private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_BYTES = 512, ENTRY_BYTES = 4096, LENGTH_BYTES = 8 };
/* No dimension, nor a product of them with the zeros left out, beyond this: nobody's arithmetic overflows. */
static const int64_t MAX_COUNT = (int64_t)1 << 48;

/* In the reference's order, which its files are sorted by. */
const tw_safetensors_type tw_safetensors_types[TW_SAFETENSORS_TYPES] = {
    {"BOOL", TW_WEIGHT_BOOL}, {"U8", TW_WEIGHT_U8},     {"I8", TW_WEIGHT_I8},   {"I16", TW_WEIGHT_I16},
    {"F16", TW_WEIGHT_F16},   {"BF16", TW_WEIGHT_BF16}, {"I32", TW_WEIGHT_I32}, {"F32", TW_WEIGHT_F32},
    {"F64", TW_WEIGHT_F64},   {"I64", TW_WEIGHT_I64},
};

typedef struct entry {
    tw_weight item;     /* item.name is owned */
    int64_t begin, end; /* bytes from the header's end */
} entry;

typedef struct safetensors {
    char *path;
    int fd;
    int64_t data, data_bytes; /* where the data start, and how much there is */
    tw_read_ahead *ahead;     /* from the first tensor that is read on */
    entry *entries;
    int64_t n, capacity;
} safetensors;

static void safetensors_close(void *self) {
    safetensors *s = self;
    tw_read_ahead_stop(s->ahead);
    if (s->fd >= 0) close(s->fd);
    for (int64_t i = 0; i < s->n; i++) free((char *)s->entries[i].item.name);
    free(s->entries);
    free(s->path);
    free(s);
}

static tw_status read_at(const safetensors *s, int64_t offset, void *dst, int64_t size) {
    int error = tw_read_at(s->fd, (uint64_t)offset, dst, (size_t)size);
    if (error == TW_READ_SHORT) return FAIL(TW_ERR_IO, "the file became shorter while it was read");
    return error ? FAIL(TW_ERR_IO, "cannot read: %s", strerror(error)) : TW_OK;
}

static tw_status safetensors_read(void *self, int64_t i, void *dst) {
    safetensors *s = self;
    const entry *e = &s->entries[i];
    uint64_t at = (uint64_t)(s->data + e->begin);
    if (!s->ahead) s->ahead = tw_read_ahead_start(s->fd, at, (uint64_t)(s->data + s->data_bytes));
    tw_read_ahead_at(s->ahead, at);
    tw_status status = read_at(s, s->data + e->begin, dst, e->end - e->begin);
    return status ? tw_fail_context(status, "%s: tensor '%s'", s->path, e->item.name) : TW_OK;
}

static tw_status read_type(const json_t *info, tw_weight_type *out) {
    const char *name = json_string_value(json_object_get(info, "dtype"));
    if (!name) return FAIL(TW_ERR_FORMAT, "'dtype' is missing or not a string");
    for (int i = 0; i < TW_SAFETENSORS_TYPES; i++) {
        if (strcmp(name, tw_safetensors_types[i].name) != 0) continue;
        *out = tw_safetensors_types[i].type;
        return TW_OK;
    }
    return FAIL(TW_ERR_UNSUPPORTED, "data of type '%.32s' are not known here", name);
}

static tw_status read_shape(const json_t *info, tw_weight *item) {
    const json_t *shape = json_object_get(info, "shape");
    if (!json_is_array(shape)) return FAIL(TW_ERR_FORMAT, "'shape' is missing or not an array");
    if (json_array_size(shape) > TW_WEIGHT_MAX_DIMS)
        return FAIL(TW_ERR_UNSUPPORTED, "%zu dimensions, at most %d are possible", json_array_size(shape),
                    TW_WEIGHT_MAX_DIMS);
    item->ndim = (int)json_array_size(shape);
    item->count = 1;
    int64_t extent = 1; /* the product without zeros */
    for (int d = 0; d < item->ndim; d++) {
        const json_t *side = json_array_get(shape, (size_t)d);
        int64_t value = json_integer_value(side);
        if (!json_is_integer(side) || value < 0)
            return FAIL(TW_ERR_FORMAT, "side %d of its shape is not a whole number >= 0", d);
        if (value > 0 && extent > MAX_COUNT / value)
            return FAIL(TW_ERR_FORMAT, "its shape has more than 2^48 values");
        extent *= value > 0 ? value : 1;
        item->count *= value;
        item->shape[d] = value;
    }
    return TW_OK;
}

static tw_status read_offsets(const safetensors *s, const json_t *info, entry *e) {
    const json_t *pair = json_object_get(info, "data_offsets");
    const json_t *begin = json_array_get(pair, 0), *end = json_array_get(pair, 1);
    if (json_array_size(pair) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return FAIL(TW_ERR_FORMAT, "'data_offsets' is missing or not two whole numbers");
    e->begin = json_integer_value(begin);
    e->end = json_integer_value(end);
    if (e->begin < 0 || e->end < e->begin || e->end > s->data_bytes)
        return FAIL(TW_ERR_FORMAT,
                    "its data_offsets [%" PRId64 ", %" PRId64 "] lie outside the %" PRId64 " bytes of data",
                    e->begin, e->end, s->data_bytes);
    int64_t bytes = e->item.count * (int64_t)tw_weight_type_size(e->item.type);
    if (e->end - e->begin != bytes)
        return FAIL(TW_ERR_FORMAT, "its shape and type make %" PRId64 " bytes, its data_offsets %" PRId64,
                    bytes, e->end - e->begin);
    return TW_OK;
}

static tw_status read_info(const safetensors *s, tw_json_slice text, entry *e) {
    if (text.size > ENTRY_BYTES)
        return FAIL(TW_ERR_FORMAT, "a description of %zu bytes is not one", text.size);
    json_error_t error;
    json_t *info = json_loadb(text.text, text.size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (!info) return FAIL(TW_ERR_FORMAT, "bad JSON: %s", error.text);
    tw_status status = TW_OK;
    if (!json_is_object(info)) status = FAIL(TW_ERR_FORMAT, "its description is not a JSON object");
    if (!status) status = read_type(info, &e->item.type);
    if (!status) status = read_shape(info, &e->item);
    if (!status) status = read_offsets(s, info, e);
    json_decref(info);
    return status;
}

static tw_status add_entry(safetensors *s, const char *name, tw_json_slice text) {
    entry e = {0};
    tw_status status = read_info(s, text, &e);
    if (status) return tw_fail_context(status, "tensor '%s'", name);
    if (s->n == TW_SAFETENSORS_MAX_TENSORS)
        return FAIL(TW_ERR_UNSUPPORTED, "more than %d tensors", TW_SAFETENSORS_MAX_TENSORS);
    if (s->n == s->capacity) {
        int64_t capacity = s->capacity ? 2 * s->capacity : 64;
        entry *entries = realloc(s->entries, (size_t)capacity * sizeof *entries);
        if (!entries) return FAIL(TW_ERR_MEMORY, "no memory for %" PRId64 " tensors", capacity);
        s->entries = entries;
        s->capacity = capacity;
    }
    e.item.name = strdup(name);
    if (!e.item.name) return FAIL(TW_ERR_MEMORY, "no memory for the name of a tensor");
    s->entries[s->n++] = e;
    return TW_OK;
}

/* Strings by name; nothing of it is needed, but a file whose header is not as it should be is not trusted. */
static tw_status check_metadata(tw_json_slice text) {
    tw_json_scan scan;
    tw_json_slice value;
    char key[NAME_BYTES];
    TRY(tw_json_scan_begin(&scan, text.text, text.size));
    for (bool end = false;;) {
        TRY(tw_json_scan_next(&scan, key, sizeof key, &value, &end));
        if (end) return TW_OK;
        if (value.text[0] != '"') return FAIL(TW_ERR_FORMAT, "'%s' is not a string", key);
    }
}

static tw_status read_header(safetensors *s, const char *text, size_t size) {
    size_t bad;
    if (!tw_lines_is_utf8(text, size, &bad))
        return FAIL(TW_ERR_FORMAT, "the header is not UTF-8 at byte %zu", bad);
    tw_json_scan scan;
    char name[NAME_BYTES];
    bool metadata = false;
    TRY(tw_json_scan_begin(&scan, text, size));
    for (bool end = false;;) {
        tw_json_slice value;
        TRY(tw_json_scan_next(&scan, name, sizeof name, &value, &end));
        if (end) return TW_OK;
        if (strcmp(name, "__metadata__") != 0) {
            TRY(add_entry(s, name, value));
            continue;
        }
        if (metadata) return FAIL(TW_ERR_FORMAT, "'__metadata__' is there twice");
        metadata = true;
        tw_status status = check_metadata(value);
        if (status) return tw_fail_context(status, "__metadata__");
    }
}

static int by_offset(const void *a, const void *b) {
    const entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return strcmp(x->item.name, y->item.name);
}

/* Tensors must follow one another without gap from the first byte of data to the last. */
static tw_status check_layout(safetensors *s) {
    if (s->n) qsort(s->entries, (size_t)s->n, sizeof *s->entries, by_offset);
    int64_t at = 0;
    for (int64_t i = 0; i < s->n; i++) {
        const entry *e = &s->entries[i];
        if (e->begin < at)
            return FAIL(TW_ERR_FORMAT, "the data of tensors '%s' and '%s' overlap",
                        s->entries[i - 1].item.name, e->item.name);
        if (e->begin > at)
            return FAIL(TW_ERR_FORMAT, "%" PRId64 " bytes before the data of tensor '%s' belong to none",
                        e->begin - at, e->item.name);
        at = e->end;
    }
    if (at != s->data_bytes)
        return FAIL(TW_ERR_FORMAT, "%" PRId64 " bytes after the last tensor belong to none",
                    s->data_bytes - at);
    return TW_OK;
}

static tw_status load(safetensors *s) {
    struct stat info;
    if (fstat(s->fd, &info) != 0) return FAIL(TW_ERR_IO, "cannot read: %s", strerror(errno));
    unsigned char length[LENGTH_BYTES];
    if (info.st_size < LENGTH_BYTES + 2)
        return FAIL(TW_ERR_FORMAT, "%lld bytes are too few for a safetensors file", (long long)info.st_size);
    TRY(read_at(s, 0, length, LENGTH_BYTES));
    uint64_t size = 0;
    for (int i = LENGTH_BYTES; i-- > 0;) size = size << 8 | length[i];
    if (size > TW_SAFETENSORS_MAX_HEADER || (int64_t)size > info.st_size - LENGTH_BYTES)
        return FAIL(TW_ERR_FORMAT,
                    "not a safetensors file, or cut off: its header would have %" PRIu64
                    " bytes, the file has %lld",
                    size, (long long)info.st_size);
    s->data = LENGTH_BYTES + (int64_t)size;
    s->data_bytes = info.st_size - s->data;
    char *header = malloc((size_t)size + 1);
    if (!header) return FAIL(TW_ERR_MEMORY, "no memory for a header of %" PRIu64 " bytes", size);
    tw_status status = read_at(s, LENGTH_BYTES, header, (int64_t)size);
    if (!status) status = read_header(s, header, (size_t)size);
    free(header);
    if (!status) status = check_layout(s);
    if (!status) (void)posix_fadvise(s->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return status;
}

tw_status tw_safetensors_open(const char *path, tw_weights **out) {
    static const tw_weights_source source = {safetensors_read, safetensors_close};
    *out = NULL;
    safetensors *s = calloc(1, sizeof *s);
    if (!s) return FAIL(TW_ERR_MEMORY, "%s: no memory to read it", path);
    s->fd = -1;
    s->path = strdup(path);
    tw_weight *items = NULL;
    tw_status status = s->path ? tw_open_file(path, &s->fd) : FAIL(TW_ERR_MEMORY, "no memory for a path");
    if (status) {
        safetensors_close(s);
        return status;
    }
    status = load(s);
    if (!status) {
        items = malloc((size_t)(s->n + 1) * sizeof *items);
        if (!items) status = FAIL(TW_ERR_MEMORY, "no memory for %" PRId64 " tensors", s->n);
    }
    if (status) {
        safetensors_close(s);
        return tw_fail_context(status, "%s", path);
    }
    for (int64_t i = 0; i < s->n; i++) items[i] = s->entries[i].item;
    const tw_weights_note note = {.kind = "safetensors", .epoch = -1, .step = -1};
    status = tw_weights_create(path, &note, items, s->n, &source, s, out);
    free(items);
    return status;
}
