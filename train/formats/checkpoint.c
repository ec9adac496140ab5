#include "train/formats/checkpoint.h"

#include "data/files.h"
#include "train/formats/h5.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char KIND[] = "checkpoint";
enum { NAME_BYTES = 255 };

/* Where each part of a parameter lives, by tw_checkpoint_part. */
static const char *const GROUPS[] = {"params", "optim/m", "optim/v"};
static const char EXTRA[] = "extra";
static const char *const WORDS[] = {"parameter", "first moment", "second moment"};

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
    tw_checkpoint_meta_init(meta);
}

/* ---- writing ---- */

static tw_status write_meta(tw_h5 *f, const tw_checkpoint_meta *m) {
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {
        {"context_length", m->context_length},
        {"step", m->step},
        {"epoch", m->epoch},
        {"position", m->position},
        {"adam_steps", m->adam_steps},
        {"skipped", m->skipped},
        {"skipped_total", m->skipped_total},
        {"best_step", m->best_step},
        {"threads", m->threads},
        {"ranks", m->ranks},
        {"micro_batch", m->micro_batch},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        TRY(tw_h5_set_i64(f, numbers[i].name, numbers[i].value));
    TRY(tw_h5_set_u64(f, "seed", m->seed));
    TRY(tw_h5_set_f64(f, "best_r1", m->best_r1));
    TRY(tw_h5_set_text(f, "precision", m->precision));
    TRY(tw_h5_set_text(f, "cpu", m->cpu));
    TRY(tw_h5_set_text(f, "build", m->build));
    TRY(tw_h5_make_group(f, "meta"));
    const struct {
        const char *name, *text;
    } texts[] = {{"meta/model_yaml", m->model_yaml},
                 {"meta/config_yaml", m->config_yaml},
                 {"meta/extra", m->extra},
                 {"meta/origin", m->origin}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (texts[i].text) TRY(tw_h5_write_bytes(f, texts[i].name, texts[i].text, strlen(texts[i].text)));
    return tw_h5_write_bytes(f, "meta/vocab", m->vocab, m->vocab_bytes);
}

static tw_status check_name(const char *path, const char *name) {
    if (!name || !name[0] || strchr(name, '/') || strcmp(name, ".") == 0 || strlen(name) > NAME_BYTES)
        return FAIL(TW_ERR_ARGUMENT, "%s: a tensor cannot be called '%s'", path, name ? name : "(null)");
    return TW_OK;
}

static tw_status check_tensor(const char *path, const tw_checkpoint_tensor *t) {
    TRY(check_name(path, t->name));
    if (!t->param) return FAIL(TW_ERR_ARGUMENT, "%s: tensor %s has no values", path, t->name);
    return TW_OK;
}

static tw_status make_groups(tw_h5 *f) {
    TRY(tw_h5_make_group(f, "params"));
    TRY(tw_h5_make_group(f, "optim"));
    TRY(tw_h5_make_group(f, "optim/m"));
    return tw_h5_make_group(f, "optim/v");
}

static uint64_t count_of(int ndim, const int64_t *shape) {
    uint64_t count = 1;
    for (int k = 0; k < ndim; k++) count *= (uint64_t)shape[k];
    return count;
}

static tw_status write_tensors(tw_h5 *f, const tw_checkpoint_tensor *tensors, int64_t n) {
    uint64_t values = 0;
    TRY(make_groups(f));
    for (int64_t i = 0; i < n; i++) values += count_of(tensors[i].ndim, tensors[i].shape);
    tw_h5_tell_memory(f, values * sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        const tw_checkpoint_tensor *t = &tensors[i];
        TRY(check_tensor(tw_h5_path(f), t));
        const float *parts[] = {t->param, t->m, t->v};
        for (int part = 0; part < 3; part++) {
            char name[NAME_BYTES + 16];
            if (!parts[part]) continue;
            snprintf(name, sizeof name, "%s/%s", GROUPS[part], t->name);
            TRY(tw_h5_write_f32(f, name, t->ndim, t->shape, parts[part]));
        }
    }
    return TW_OK;
}

tw_status tw_checkpoint_write(const char *path, const tw_checkpoint_meta *meta,
                              const tw_checkpoint_tensor *tensors, int64_t n) {
    tw_h5 *f;
    TRY(tw_h5_create(path, KIND, TW_CHECKPOINT_VERSION, &f));
    tw_status status = write_meta(f, meta);
    if (status == TW_OK) status = write_tensors(f, tensors, n);
    if (status == TW_OK) return tw_h5_commit(f);
    tw_h5_close(f);
    return status;
}

static tw_status write_part(tw_h5 *f, const tw_checkpoint_output *o, int64_t i, tw_checkpoint_part part,
                            float *buffer) {
    const tw_checkpoint_entry *e = &o->entries[i];
    char name[NAME_BYTES + 16];
    snprintf(name, sizeof name, "%s/%s", GROUPS[part], e->name);
    TRY(o->fill(o->self, i, part, buffer));
    return tw_h5_write_f32(f, name, e->ndim, e->shape, buffer);
}

static tw_status write_entry(tw_h5 *f, const tw_checkpoint_output *o, int64_t i) {
    const tw_checkpoint_entry *e = &o->entries[i];
    TRY(check_name(tw_h5_path(f), e->name));
    float *buffer = malloc(count_of(e->ndim, e->shape) * sizeof *buffer + 1);
    if (!buffer) return FAIL(TW_ERR_MEMORY, "%s: no memory for %s", tw_h5_path(f), e->name);
    tw_status status = write_part(f, o, i, TW_CHECKPOINT_PARAM, buffer);
    if (status == TW_OK && e->has_m) status = write_part(f, o, i, TW_CHECKPOINT_M, buffer);
    if (status == TW_OK && e->has_v) status = write_part(f, o, i, TW_CHECKPOINT_V, buffer);
    free(buffer);
    return status;
}

static tw_status write_raw(tw_h5 *f, const tw_checkpoint_output *o, int64_t i) {
    const tw_checkpoint_raw *r = &o->raw[i];
    TRY(check_name(tw_h5_path(f), r->name));
    unsigned char *buffer = malloc(r->bytes + 1);
    if (!buffer) return FAIL(TW_ERR_MEMORY, "%s: no memory for %s", tw_h5_path(f), r->name);
    char name[NAME_BYTES + 16];
    snprintf(name, sizeof name, "%s/%s", EXTRA, r->name);
    tw_status status = o->fill_raw(o->self, i, buffer);
    if (status == TW_OK) status = tw_h5_write_bytes(f, name, buffer, r->bytes);
    free(buffer);
    return status;
}

static tw_status write_output(tw_h5 *f, const tw_checkpoint_output *o) {
    uint64_t values = 0;
    TRY(make_groups(f));
    for (int64_t i = 0; i < o->n; i++) values += count_of(o->entries[i].ndim, o->entries[i].shape);
    tw_h5_tell_memory(f, values * sizeof(float));
    for (int64_t i = 0; i < o->n; i++) TRY(write_entry(f, o, i));
    if (o->raw_count) TRY(tw_h5_make_group(f, EXTRA));
    for (int64_t i = 0; i < o->raw_count; i++) TRY(write_raw(f, o, i));
    return TW_OK;
}

tw_status tw_checkpoint_write_output(const char *path, const tw_checkpoint_meta *meta,
                                     const tw_checkpoint_output *output) {
    tw_h5 *f;
    TRY(tw_h5_create(path, KIND, TW_CHECKPOINT_VERSION, &f));
    tw_status status = write_meta(f, meta);
    if (status == TW_OK) status = write_output(f, output);
    if (status == TW_OK) return tw_h5_commit(f);
    tw_h5_close(f);
    return status;
}

/* ---- reading ---- */

static tw_status get_int(tw_h5 *f, const char *name, int *out) {
    int64_t value;
    TRY(tw_h5_get_i64(f, name, &value));
    if (value < INT32_MIN || value > INT32_MAX)
        return FAIL(TW_ERR_FORMAT, "%s: %s is %lld, out of range", tw_h5_path(f), name, (long long)value);
    *out = (int)value;
    return TW_OK;
}

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
    TRY(tw_h5_get_u64(f, "seed", &m->seed));
    TRY(tw_h5_get_f64(f, "best_r1", &m->best_r1));
    TRY(tw_h5_get_text(f, "precision", &m->precision));
    TRY(tw_h5_get_text(f, "cpu", &m->cpu));
    TRY(tw_h5_get_text(f, "build", &m->build));
    size_t ignored;
    TRY(tw_h5_read_bytes(f, "meta/model_yaml", &m->model_yaml, &ignored));
    TRY(tw_h5_read_bytes(f, "meta/config_yaml", &m->config_yaml, &ignored));
    TRY(tw_h5_read_bytes(f, "meta/extra", &m->extra, &ignored));
    TRY(tw_h5_read_bytes(f, "meta/origin", &m->origin, &ignored));
    return tw_h5_read_bytes(f, "meta/vocab", &m->vocab, &m->vocab_bytes);
}

/* Whether the entry has this moment, which then must have the parameter's shape. */
static tw_status read_moment(tw_h5 *f, const tw_checkpoint_entry *e, int part, bool *has) {
    char name[NAME_BYTES + 16];
    int ndim;
    int64_t shape[TW_H5_MAX_DIMS] = {0};
    snprintf(name, sizeof name, "%s/%s", GROUPS[part], e->name);
    *has = tw_h5_has(f, name);
    if (!*has) return TW_OK;
    TRY(tw_h5_shape(f, name, &ndim, shape));
    if (ndim != e->ndim || memcmp(shape, e->shape, (size_t)ndim * sizeof shape[0]) != 0)
        return FAIL(TW_ERR_FORMAT, "%s: the %s of %s has another shape than the parameter", tw_h5_path(f),
                    WORDS[part], e->name);
    return TW_OK;
}

static tw_status read_entry(tw_h5 *f, const char *name, tw_checkpoint_entry *e) {
    char path[NAME_BYTES + 16];
    if (strlen(name) > NAME_BYTES)
        return FAIL(TW_ERR_FORMAT, "%s: the tensor name '%.40s...' is too long", tw_h5_path(f), name);
    snprintf(path, sizeof path, "%s/%s", GROUPS[0], name);
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
    TRY(tw_h5_list(c->file, GROUPS[0], &c->names, &c->count));
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
    status = tw_h5_open(latest ? latest : path, KIND, TW_CHECKPOINT_VERSION, &c->file);
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

tw_status tw_checkpoint_read(tw_checkpoint *c, const char *name, tw_checkpoint_part part, float *dst,
                             int64_t count) {
    const tw_checkpoint_entry *e = tw_checkpoint_find(c, name);
    if (!e) return not_found(c, name);
    if ((part == TW_CHECKPOINT_M && !e->has_m) || (part == TW_CHECKPOINT_V && !e->has_v))
        return FAIL(TW_ERR_NOT_FOUND, "%s keeps no %s of %s", tw_h5_path(c->file), WORDS[part], name);
    if (count != e->count)
        return FAIL(TW_ERR_SHAPE, "%s: %s has %lld values, %lld were asked for", tw_h5_path(c->file), name,
                    (long long)e->count, (long long)count);
    char path[NAME_BYTES + 16];
    snprintf(path, sizeof path, "%s/%s", GROUPS[part], name);
    return tw_h5_read_f32(c->file, path, dst, count);
}

tw_status tw_checkpoint_read_raw(tw_checkpoint *c, const char *name, void *dst, size_t bytes) {
    char path[NAME_BYTES + 16], *data;
    size_t size;
    if (snprintf(path, sizeof path, "%s/%s", EXTRA, name) >= (int)sizeof path)
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
