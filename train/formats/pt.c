#include "train/formats/pt.h"

#include "train/formats/file_range.h"
#include "train/formats/pt_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void close_pt(void *self) {
    tw_pt *pt = self;
    if (!pt) return;
    tw_zip_close(pt->zip);
    tw_read_ahead_stop(pt->ahead);
    if (pt->fd >= 0) close(pt->fd);
    tw_torch_free(pt->dict);
    free(pt->where);
    free(pt->path);
    free(pt);
}

static tw_status no_memory(const tw_pt *pt) {
    return FAIL(TW_ERR_MEMORY, "%s: no memory to read it", pt->path);
}

/* ---- reading tensors ---- */

/* `size` bytes of a storage. */
static tw_status read_storage(tw_pt *pt, int64_t storage, uint64_t offset, uint64_t size, void *dst) {
    if (pt->zip) return tw_zip_read(pt->zip, pt->where[storage], offset, size, dst);
    uint64_t at = (uint64_t)pt->where[storage] + offset;
    if (!pt->ahead) pt->ahead = tw_read_ahead_start(pt->fd, at, pt->file_size);
    tw_read_ahead_at(pt->ahead, at);
    return tw_range_read(pt->path, pt->fd, at, size, dst);
}

static bool is_contiguous(const tw_weight *w, const tw_torch_tensor *t) {
    int64_t expected = 1;
    for (int d = w->ndim; d-- > 0;) {
        if (w->shape[d] != 1 && t->stride[d] != expected) return false;
        expected *= w->shape[d];
    }
    return true;
}

/* Copies n elements that lie `stride` apart. */
static void gather(unsigned char *dst, const unsigned char *src, int64_t n, int64_t stride, size_t size) {
    size_t step = (size_t)stride * size;
    for (int64_t i = 0; i < n; i++, dst += size, src += step) switch (size) {
        case 8:
            memcpy(dst, src, 8);
            break;
        case 4:
            memcpy(dst, src, 4);
            break;
        case 2:
            memcpy(dst, src, 2);
            break;
        default:
            *dst = *src;
        }
}

/* Row by row, where a row is the last dimension; src is the first element. */
static void gather_all(const tw_weight *w, const tw_torch_tensor *t, const unsigned char *src,
                       unsigned char *dst) {
    size_t size = tw_weight_type_size(w->type);
    int last = w->ndim - 1;
    int64_t row = w->shape[last], index[TW_WEIGHT_MAX_DIMS] = {0}, at = 0;
    for (int64_t done = 0; done < w->count; done += row, dst += (size_t)row * size) {
        gather(dst, src + (size_t)at * size, row, t->stride[last], size);
        for (int d = last - 1; d >= 0; d--) {
            at += t->stride[d];
            if (++index[d] < w->shape[d]) break;
            at -= t->stride[d] * w->shape[d];
            index[d] = 0;
        }
    }
}

static tw_status read_strided(tw_pt *pt, const tw_weight *w, const tw_torch_tensor *t, void *dst) {
    size_t size = tw_weight_type_size(w->type);
    uint64_t span = 1;
    for (int d = 0; d < w->ndim; d++) span += (uint64_t)((w->shape[d] - 1) * t->stride[d]);
    void *part = malloc((size_t)span * size);
    if (!part) return no_memory(pt);
    tw_status status = read_storage(pt, t->storage, (uint64_t)t->offset * size, span * size, part);
    if (!status) gather_all(w, t, part, dst);
    free(part);
    return status;
}

static tw_status read_tensor(void *self, int64_t i, void *dst) {
    tw_pt *pt = self;
    const tw_weight *w = &pt->dict->items[i];
    const tw_torch_tensor *t = &pt->dict->tensors[i];
    if (t->storage < 0) {
        memcpy(dst, &t->value, sizeof t->value);
        return TW_OK;
    }
    size_t size = tw_weight_type_size(w->type);
    tw_status status = is_contiguous(w, t) ? read_storage(pt, t->storage, (uint64_t)t->offset * size,
                                                          (uint64_t)w->count * size, dst)
                                           : read_strided(pt, w, t, dst);
    return status ? tw_fail_context(status, "tensor '%s'", w->name) : TW_OK;
}

/* ---- the zip form ---- */

static int64_t find_record(const tw_pt *pt, const char *prefix, size_t prefix_size, const char *record) {
    char name[1024];
    int n = snprintf(name, sizeof name, "%.*s%s", (int)prefix_size, prefix, record);
    return n > 0 && (size_t)n < sizeof name ? tw_zip_find(pt->zip, name) : -1;
}

/* The entry "<prefix>/data.pkl"; *prefix_size includes the slash. */
static tw_status find_pickle(tw_pt *pt, int64_t *out, size_t *prefix_size) {
    *out = -1;
    for (int64_t i = 0; i < tw_zip_count(pt->zip); i++) {
        const char *name = tw_zip_name(pt->zip, i), *slash = strchr(name, '/');
        if (!slash || strcmp(slash, "/data.pkl") != 0) continue;
        if (*out >= 0)
            return FAIL(TW_ERR_FORMAT, "%s: two entries could be its data.pkl: '%s' and '%s'", pt->path,
                        tw_zip_name(pt->zip, *out), name);
        *out = i;
        *prefix_size = (size_t)(slash - name) + 1;
    }
    if (*out >= 0) return TW_OK;
    return FAIL(TW_ERR_FORMAT, "%s: a zip archive without data.pkl, so not written by torch.save", pt->path);
}

/* torch.jit.save's archives have the module's program beside its tensors; it is left where it is. */
static bool is_torchscript(const tw_pt *pt, const char *prefix, size_t prefix_size) {
    bool is = find_record(pt, prefix, prefix_size, "constants.pkl") >= 0;
    for (int64_t i = 0; i < tw_zip_count(pt->zip) && !is; i++) {
        const char *name = tw_zip_name(pt->zip, i);
        is = strncmp(name, prefix, prefix_size) == 0 && strncmp(name + prefix_size, "code/", 5) == 0;
    }
    return is;
}

static tw_status check_byte_order(tw_pt *pt, const char *prefix, size_t prefix_size) {
    int64_t i = find_record(pt, prefix, prefix_size, "byteorder");
    if (i < 0) return TW_OK; /* older than PyTorch 2.1 */
    char order[8] = "";
    uint64_t size = tw_zip_size(pt->zip, i);
    if (size >= sizeof order) return FAIL(TW_ERR_FORMAT, "%s: its byte order is unknown", pt->path);
    TRY(tw_zip_read(pt->zip, i, 0, size, order));
    if (strcmp(order, "little") == 0) return TW_OK;
    if (strcmp(order, "big") == 0)
        return FAIL(TW_ERR_UNSUPPORTED, "%s: its numbers are big-endian, only little-endian ones are read",
                    pt->path);
    return FAIL(TW_ERR_FORMAT, "%s: its byte order is unknown", pt->path);
}

static tw_status find_entries(tw_pt *pt, const char *prefix, size_t prefix_size) {
    for (int64_t i = 0; i < pt->dict->storage_count; i++) {
        const tw_torch_storage *s = &pt->dict->storages[i];
        char record[256];
        int n = snprintf(record, sizeof record, "data/%s", s->key);
        int64_t entry =
            n > 0 && (size_t)n < sizeof record ? find_record(pt, prefix, prefix_size, record) : -1;
        if (entry < 0)
            return FAIL(TW_ERR_FORMAT, "%s: there is no entry for its storage '%.80s'", pt->path, s->key);
        uint64_t size = tw_zip_size(pt->zip, entry),
                 wanted = (uint64_t)s->count * tw_weight_type_size(s->type);
        if (size != wanted)
            return FAIL(TW_ERR_FORMAT, "%s: its storage '%s' has %llu bytes, %lld x %s are expected",
                        pt->path, s->key, (unsigned long long)size, (long long)s->count,
                        tw_weight_type_name(s->type));
        pt->where[i] = entry;
    }
    return TW_OK;
}

static tw_status read_zip(tw_pt *pt) {
    int64_t entry;
    size_t prefix_size = 0;
    TRY(tw_zip_open(pt->path, &pt->zip));
    TRY(find_pickle(pt, &entry, &prefix_size));
    const char *prefix = tw_zip_name(pt->zip, entry);
    pt->script = is_torchscript(pt, prefix, prefix_size);
    TRY(check_byte_order(pt, prefix, prefix_size));
    if (tw_zip_size(pt->zip, entry) >
        pt->file_size) /* a compressed one: refused before memory is taken for it */
        TRY(tw_zip_read(pt->zip, entry, 0, 0, NULL));
    size_t size = (size_t)tw_zip_size(pt->zip, entry);
    void *pickle = malloc(size + 1);
    if (!pickle) return no_memory(pt);
    tw_status status = tw_zip_read(pt->zip, entry, 0, size, pickle);
    if (!status)
        status = tw_torch_read(pt->path, pickle, size, tw_pt_memory(pt->file_size),
                               pt->script ? TW_TORCH_SCRIPTED : TW_TORCH_SAVED, &pt->dict);
    free(pickle);
    TRY(status);
    pt->where = malloc(((size_t)pt->dict->storage_count + 1) * sizeof *pt->where);
    return pt->where ? find_entries(pt, prefix, prefix_size) : no_memory(pt);
}

/* ---- opening ---- */

static tw_status unknown(const tw_pt *pt, const unsigned char *head, size_t size) {
    const char *hint = "";
    if (size >= 9 && head[8] == '{') hint = "; it may be a safetensors file";
    if (size >= 4 && memcmp(head, "\x89HDF", 4) == 0) hint = "; it is an HDF5 file";
    if (size >= 2 && memcmp(head, "\x1f\x8b", 2) == 0) hint = "; it is compressed by gzip, unpack it";
    if (size >= 18 && memcmp(head, "version https://gi", 18) == 0)
        hint = "; it is a Git LFS pointer, the file itself was not downloaded";
    if (size >= 1 && head[0] == '<') hint = "; it may be a web page, saved in place of the file";
    return FAIL(TW_ERR_FORMAT, "%s: not a file of torch.save%s", pt->path, hint);
}

/* Storages may be shared (tied weights) and strides may repeat elements, but not without bound: whoever
 * loads the file makes room for every tensor. */
static tw_status check_total(const tw_pt *pt) {
    uint64_t left = 2 * pt->file_size + (1u << 20);
    for (int64_t i = 0; i < pt->dict->count; i++) {
        const tw_weight *w = &pt->dict->items[i];
        uint64_t size = tw_weight_type_size(w->type);
        if ((uint64_t)w->count > left / size)
            return FAIL(TW_ERR_FORMAT, "%s: its tensors are far larger than the file (at '%s')", pt->path,
                        w->name);
        left -= (uint64_t)w->count * size;
    }
    return TW_OK;
}

static tw_status read_file(tw_pt *pt) {
    unsigned char head[64];
    TRY(tw_range_open(pt->path, &pt->fd, &pt->file_size));
    size_t size = pt->file_size < sizeof head ? (size_t)pt->file_size : sizeof head, end = 0;
    TRY(tw_range_read(pt->path, pt->fd, 0, size, head));
    if (size == 0) return FAIL(TW_ERR_FORMAT, "%s: the file is empty", pt->path);
    if (size >= 4 && memcmp(head, "PK", 2) == 0) {
        close(pt->fd);
        pt->fd = -1;
        TRY(read_zip(pt));
    } else if (tw_pt_is_legacy(head, size, &end)) {
        TRY(tw_pt_read_legacy(pt));
    } else {
        return unknown(pt, head, size);
    }
    return check_total(pt);
}

tw_status tw_pt_open(const char *path, tw_weights **out) {
    static const tw_weights_source source = {read_tensor, close_pt};
    *out = NULL;
    tw_pt *pt = calloc(1, sizeof *pt);
    if (!pt) return FAIL(TW_ERR_MEMORY, "%s: no memory to read it", path);
    pt->fd = -1;
    pt->path = strdup(path);
    tw_status status = pt->path ? read_file(pt) : FAIL(TW_ERR_MEMORY, "%s: no memory to read it", path);
    if (status) {
        close_pt(pt);
        return status;
    }
    tw_weights_note note = pt->dict->note;
    note.kind = pt->script ? "TorchScript archive" : pt->zip ? "PyTorch zip" : "PyTorch legacy";
    return tw_weights_create(path, &note, pt->dict->items, pt->dict->count, &source, pt, out);
}
