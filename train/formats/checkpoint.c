#include "train/formats/checkpoint_private.h"

#include "data/files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const char *const tw_checkpoint_groups[TW_CHECKPOINT_PARTS] = {"params", "optim/m", "optim/v"};
static const char *const WORDS[] = {"parameter", "first moment", "second moment"};

enum { PATH_BYTES = TW_CHECKPOINT_NAME + 16 }; /* of a data set inside the file */

struct tw_checkpoint {
    tw_h5 *file;
    int64_t bytes, count;
    char **names;                 /* the strings that the entries use */
    tw_checkpoint_entry *entries; /* (count) in the order of writing */
    int64_t *order;               /* (count) indices sorted by name */
    tw_checkpoint_meta meta;
};

void tw_checkpoint_meta_init(tw_checkpoint_meta *meta) {
    memset(meta, 0, sizeof *meta);
    meta->best_r1 = -1;
    meta->best_step = -1;
}

void tw_checkpoint_meta_free(tw_checkpoint_meta *meta) {
    if (!meta) return;
    free(meta->model_yaml);
    free(meta->config_yaml);
    free(meta->vocab);
    free(meta->extra);
    free(meta->origin);
    free(meta->precision);
    free(meta->cpu);
    free(meta->build);
    free(meta->train_data);
    tw_checkpoint_meta_init(meta);
}

static tw_status get_int(tw_h5 *f, const char *name, int *out) {
    int64_t value;
    TRY(tw_h5_get_i64(f, name, &value));
    if (value < INT32_MIN || value > INT32_MAX)
        return FAIL(TW_ERR_FORMAT, "%s: %s is %lld, out of range", tw_h5_path(f), name, (long long)value);
    *out = (int)value;
    return TW_OK;
}

/* No run counts so far; sums of such numbers stay within 64 bits. */
static const int64_t MOST_STEPS = INT64_C(1) << 60;

static tw_status read_meta(tw_h5 *f, tw_checkpoint_meta *m) {
    TRY(get_int(f, "context_length", &m->context_length));
    TRY(get_int(f, "threads", &m->threads));
    TRY(get_int(f, "ranks", &m->ranks));
    TRY(get_int(f, "micro_batch", &m->micro_batch));
    TRY(tw_h5_get_i64(f, "step", &m->step));
    TRY(tw_h5_get_i64(f, "epoch", &m->epoch));
    TRY(tw_h5_get_i64(f, "position", &m->position));
    TRY(tw_h5_get_i64(f, "adam_steps", &m->adam_steps));
    TRY(tw_h5_get_i64(f, "skipped", &m->skipped));
    TRY(tw_h5_get_i64(f, "skipped_total", &m->skipped_total));
    TRY(tw_h5_get_i64(f, "best_step", &m->best_step));
    const int64_t counts[] = {m->step, m->epoch, m->position, m->adam_steps, m->skipped, m->skipped_total};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        if (counts[i] < 0 || counts[i] > MOST_STEPS)
            return FAIL(TW_ERR_FORMAT, "%s: damaged: %lld where steps, epochs or samples are counted",
                        tw_h5_path(f), (long long)counts[i]);
    TRY(tw_h5_get_u64(f, "seed", &m->seed));
    TRY(tw_h5_get_f64(f, "best_r1", &m->best_r1));
    TRY(tw_h5_get_text(f, "precision", &m->precision));
    TRY(tw_h5_get_text(f, "cpu", &m->cpu));
    TRY(tw_h5_get_text(f, "build", &m->build));
    TRY(tw_h5_get_text(f, "train_data", &m->train_data));
    size_t ignored;
    TRY(tw_h5_read_bytes(f, "meta/model_yaml", &m->model_yaml, &ignored));
    TRY(tw_h5_read_bytes(f, "meta/config_yaml", &m->config_yaml, &ignored));
    TRY(tw_h5_read_bytes(f, "meta/extra", &m->extra, &ignored));
    TRY(tw_h5_read_bytes(f, "meta/origin", &m->origin, &ignored));
    return tw_h5_read_bytes(f, "meta/vocab", &m->vocab, &m->vocab_bytes);
}

/* Whether the entry has this moment, which then must have the parameter's shape. */
static tw_status read_moment(tw_h5 *f, const tw_checkpoint_entry *e, int part, bool *has) {
    char name[PATH_BYTES];
    int ndim;
    int64_t shape[TW_H5_MAX_DIMS] = {0};
    snprintf(name, sizeof name, "%s/%s", tw_checkpoint_groups[part], e->name);
    *has = tw_h5_has(f, name);
    if (!*has) return TW_OK;
    TRY(tw_h5_shape(f, name, &ndim, shape));
    if (ndim != e->ndim || memcmp(shape, e->shape, (size_t)ndim * sizeof shape[0]) != 0)
        return FAIL(TW_ERR_FORMAT, "%s: the %s of %s has another shape than the parameter", tw_h5_path(f),
                    WORDS[part], e->name);
    return TW_OK;
}

static tw_status read_entry(tw_h5 *f, const char *name, tw_checkpoint_entry *e) {
    char path[PATH_BYTES];
    if (strlen(name) > TW_CHECKPOINT_NAME)
        return FAIL(TW_ERR_FORMAT, "%s: the tensor name '%.40s...' is too long", tw_h5_path(f), name);
    snprintf(path, sizeof path, "%s/%s", tw_checkpoint_groups[0], name);
    e->name = name;
    TRY(tw_h5_shape(f, path, &e->ndim, e->shape));
    e->count = 1;
    for (int i = 0; i < e->ndim; i++) e->count *= e->shape[i];
    for (int i = e->ndim; i < TW_H5_MAX_DIMS; i++) e->shape[i] = 1;
    TRY(read_moment(f, e, TW_CHECKPOINT_M, &e->has_m));
    return read_moment(f, e, TW_CHECKPOINT_V, &e->has_v);
}

static int by_name(const void *a, const void *b, void *entries) {
    const tw_checkpoint_entry *e = entries;
    return strcmp(e[*(const int64_t *)a].name, e[*(const int64_t *)b].name);
}

static tw_status read_entries(tw_checkpoint *c) {
    TRY(tw_h5_list(c->file, tw_checkpoint_groups[0], &c->names, &c->count));
    size_t n = c->count ? (size_t)c->count : 1;
    c->entries = calloc(n, sizeof *c->entries);
    c->order = calloc(n, sizeof *c->order);
    if (!c->entries || !c->order)
        return FAIL(TW_ERR_MEMORY, "%s: no memory for a list of %zu tensors", tw_h5_path(c->file), n);
    int64_t left = (2 * tw_h5_file_bytes(c->file) + (1 << 20)) / (int64_t)sizeof(float);
    for (int64_t i = 0; i < c->count; i++) {
        const tw_checkpoint_entry *e = &c->entries[i];
        TRY(read_entry(c->file, c->names[i], &c->entries[i]));
        c->order[i] = i;
        /* Several names may share the values of one: whoever loads the file makes room for each. */
        if (e->count > left)
            return FAIL(TW_ERR_FORMAT, "%s: its tensors are far larger than the file (at '%s')",
                        tw_h5_path(c->file), e->name);
        left -= e->count;
    }
    qsort_r(c->order, (size_t)c->count, sizeof *c->order, by_name, c->entries);
    return TW_OK;
}

tw_status tw_checkpoint_open(const char *path, tw_checkpoint **out) {
    *out = NULL;
    struct stat info;
    if (stat(path, &info) != 0)
        return FAIL(TW_ERR_IO, "cannot open checkpoint %s: %s", path, strerror(errno));
    char *latest = NULL;
    if (S_ISDIR(info.st_mode)) {
        latest = tw_path_join(path, "latest");
        if (!latest) return FAIL(TW_ERR_MEMORY, "%s: no memory for a file name", path);
    }
    tw_checkpoint *c = calloc(1, sizeof *c);
    tw_status status = TW_OK;
    if (!c) {
        status = FAIL(TW_ERR_MEMORY, "%s: no memory to open it", path);
        goto done;
    }
    tw_checkpoint_meta_init(&c->meta);
    status = tw_h5_open(latest ? latest : path, TW_CHECKPOINT_KIND, TW_CHECKPOINT_VERSION, &c->file);
    if (status == TW_OK) status = read_meta(c->file, &c->meta);
    if (status == TW_OK) status = read_entries(c);
    if (status == TW_OK) c->bytes = tw_h5_file_bytes(c->file);
    if (status == TW_OK)
        *out = c;
    else
        tw_checkpoint_close(c);
done:
    free(latest);
    return status;
}

void tw_checkpoint_close(tw_checkpoint *c) {
    if (!c) return;
    tw_h5_close(c->file);
    tw_checkpoint_meta_free(&c->meta);
    free(c->names);
    free(c->entries);
    free(c->order);
    free(c);
}

const char *tw_checkpoint_path(const tw_checkpoint *c) {
    return tw_h5_path(c->file);
}

int64_t tw_checkpoint_bytes(const tw_checkpoint *c) {
    return c->bytes;
}

const tw_checkpoint_meta *tw_checkpoint_get_meta(const tw_checkpoint *c) {
    return &c->meta;
}

int64_t tw_checkpoint_count(const tw_checkpoint *c) {
    return c->count;
}

const tw_checkpoint_entry *tw_checkpoint_at(const tw_checkpoint *c, int64_t i) {
    return &c->entries[i];
}

const tw_checkpoint_entry *tw_checkpoint_find(const tw_checkpoint *c, const char *name) {
    int64_t low = 0, high = c->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        const tw_checkpoint_entry *e = &c->entries[c->order[middle]];
        int order = strcmp(name, e->name);
        if (order == 0) return e;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

static tw_status not_found(const tw_checkpoint *c, const char *name) {
    return FAIL(TW_ERR_NOT_FOUND, "%s has no tensor %s: it holds %lld tensors of another architecture",
                tw_h5_path(c->file), name, (long long)c->count);
}

static void shape_text(int ndim, const int64_t *shape, char *text, size_t size) {
    size_t used = (size_t)snprintf(text, size, "(");
    for (int i = 0; i < ndim && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, i ? ",%lld" : "%lld", (long long)shape[i]);
    if (used < size) snprintf(text + used, size - used, ")");
}

tw_status tw_checkpoint_expect(const tw_checkpoint *c, const char *name, int ndim, const int64_t *shape) {
    const tw_checkpoint_entry *e = tw_checkpoint_find(c, name);
    if (!e) return not_found(c, name);
    if (ndim == e->ndim && (ndim == 0 || memcmp(shape, e->shape, (size_t)ndim * sizeof shape[0]) == 0))
        return TW_OK;
    char is[96], wanted[96];
    shape_text(e->ndim, e->shape, is, sizeof is);
    shape_text(ndim, shape, wanted, sizeof wanted);
    return FAIL(TW_ERR_SHAPE, "%s: %s is %s, the model wants %s: the checkpoint is of another architecture",
                tw_h5_path(c->file), name, is, wanted);
}

/* Where that part of a tensor, which the checkpoint must have, lies in the file. */
static tw_status find_part(const tw_checkpoint *c, const char *name, tw_checkpoint_part part,
                           char path[PATH_BYTES], int64_t *count) {
    const tw_checkpoint_entry *e = tw_checkpoint_find(c, name);
    if (!e) return not_found(c, name);
    if ((part == TW_CHECKPOINT_M && !e->has_m) || (part == TW_CHECKPOINT_V && !e->has_v))
        return FAIL(TW_ERR_NOT_FOUND, "%s keeps no %s of %s", tw_h5_path(c->file), WORDS[part], name);
    snprintf(path, PATH_BYTES, "%s/%s", tw_checkpoint_groups[part], name);
    *count = e->count;
    return TW_OK;
}

tw_status tw_checkpoint_read(tw_checkpoint *c, const char *name, tw_checkpoint_part part, float *dst,
                             int64_t count) {
    char path[PATH_BYTES];
    int64_t all;
    TRY(find_part(c, name, part, path, &all));
    if (count != all)
        return FAIL(TW_ERR_SHAPE, "%s: %s has %lld values, %lld were asked for", tw_h5_path(c->file), name,
                    (long long)all, (long long)count);
    return tw_h5_read_f32(c->file, path, dst, count);
}

tw_status tw_checkpoint_read_range(tw_checkpoint *c, const char *name, tw_checkpoint_part part, int64_t first,
                                   float *dst, int64_t count) {
    char path[PATH_BYTES];
    int64_t all;
    TRY(find_part(c, name, part, path, &all));
    return tw_h5_read_f32_range(c->file, path, first, dst, count);
}

tw_status tw_checkpoint_read_raw(tw_checkpoint *c, const char *name, void *dst, size_t bytes) {
    char path[PATH_BYTES], *data;
    size_t size;
    if (snprintf(path, sizeof path, "%s/%s", TW_CHECKPOINT_EXTRA, name) >= (int)sizeof path)
        return FAIL(TW_ERR_NOT_FOUND, "%s has no tensor %s", tw_h5_path(c->file), name);
    TRY(tw_h5_read_bytes(c->file, path, &data, &size));
    if (!data) return FAIL(TW_ERR_NOT_FOUND, "%s has no tensor %s", tw_h5_path(c->file), name);
    bool fits = size == bytes;
    if (fits) memcpy(dst, data, bytes);
    free(data);
    if (fits) return TW_OK;
    return FAIL(TW_ERR_FORMAT, "%s: %s has %zu bytes, %zu are expected", tw_h5_path(c->file), name, size,
                bytes);
}
