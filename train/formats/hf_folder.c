#include "train/formats/hf_folder.h"

#include "data/atomic_file.h"
#include "data/files.h"
#include "data/lines.h"
#include "data/string_map.h"
#include "train/formats/hf_private.h"
#include "train/formats/json_scan.h"
#include "train/formats/pt.h"
#include "train/formats/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_SHARDS = 256, MAX_NAMES = 65536, INDEX_BYTES = 16 << 20, NAME_BYTES = 512 };

typedef struct weight_file {
    const char *name;
    bool sharded; /* it is an index */
    tw_status (*open)(const char *path, tw_weights **out);
} weight_file;

static const weight_file FILES[] = {
    {"model.safetensors", false, tw_safetensors_open},
    {"model.safetensors.index.json", true, tw_safetensors_open},
    {"pytorch_model.bin", false, tw_pt_open},
    {"pytorch_model.bin.index.json", true, tw_pt_open},
};
enum { FILE_COUNT = sizeof FILES / sizeof FILES[0] };

typedef struct place {
    int part;
    int64_t index; /* within the part */
} place;

typedef struct folder_weights {
    tw_weights *parts[MAX_SHARDS];
    int n;
    place *places; /* of each tensor */
} folder_weights;

/* The index of a sharded model: which shard each tensor is in. */
typedef struct shard_index {
    tw_string_map names, shards;
    int *shard; /* (names.count) */
    int64_t capacity;
} shard_index;

static void index_free(shard_index *x) {
    tw_string_map_free(&x->names);
    tw_string_map_free(&x->shards);
    free(x->shard);
}

static void folder_close(void *self) {
    folder_weights *f = self;
    for (int i = 0; i < f->n; i++) tw_weights_close(f->parts[i]);
    free(f->places);
    free(f);
}

static tw_status folder_read(void *self, int64_t i, void *dst) {
    folder_weights *f = self;
    return tw_weights_read(f->parts[f->places[i].part], f->places[i].index, dst);
}

tw_status tw_hf_read_text(const char *folder, const char *name, size_t most, char **text, size_t *size) {
    char *path = tw_path_join(folder, name);
    if (!path) return FAIL(TW_ERR_MEMORY, "%s/%s: no memory for a path", folder, name);
    struct stat info;
    tw_status status = TW_OK;
    uint8_t *data = NULL;
    *size = 0;
    if (stat(path, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > (off_t)most)
        status = FAIL(TW_ERR_FORMAT, "%s: has more than %zu bytes", path, most);
    else
        status = tw_read_file(path, &data, size);
    *text = (char *)data;
    free(path);
    return status;
}

/* A shard is a file of this folder, never one elsewhere. */
static tw_status check_shard_name(const char *name) {
    if (name[0] == '\0' || name[0] == '.' || strpbrk(name, "/\\"))
        return FAIL(TW_ERR_FORMAT, "shard '%s' is not a plain file name", name);
    return TW_OK;
}

static tw_status add_to_index(shard_index *x, const char *name, tw_json_slice value) {
    char shard[NAME_BYTES];
    int64_t at, number;
    bool is_new;
    TRY(tw_json_slice_string(value, shard, sizeof shard));
    TRY(check_shard_name(shard));
    TRY(tw_string_map_add(&x->names, name, strlen(name), &at, &is_new));
    if (!is_new) return FAIL(TW_ERR_FORMAT, "it is there twice");
    TRY(tw_string_map_add(&x->shards, shard, strlen(shard), &number, NULL));
    if (x->shards.count > MAX_SHARDS || x->names.count > MAX_NAMES)
        return FAIL(TW_ERR_UNSUPPORTED, "more than %d shards or %d tensors", MAX_SHARDS, MAX_NAMES);
    if (at >= x->capacity) {
        int64_t capacity = 2 * x->capacity + 256;
        int *larger = realloc(x->shard, (size_t)capacity * sizeof *larger);
        if (!larger) return FAIL(TW_ERR_MEMORY, "no memory for %" PRId64 " names", capacity);
        x->shard = larger;
        x->capacity = capacity;
    }
    x->shard[at] = (int)number;
    return TW_OK;
}

static tw_status read_map(shard_index *x, tw_json_slice text) {
    tw_json_scan scan;
    tw_json_slice value;
    char name[NAME_BYTES];
    TRY(tw_json_scan_begin(&scan, text.text, text.size));
    for (bool end = false;;) {
        TRY(tw_json_scan_next(&scan, name, sizeof name, &value, &end));
        if (end) return TW_OK;
        tw_status status = add_to_index(x, name, value);
        if (status) return tw_fail_context(status, "tensor '%s'", name);
    }
}

static tw_status parse_index(shard_index *x, const char *text, size_t size) {
    tw_json_scan scan;
    tw_json_slice value;
    char key[NAME_BYTES];
    size_t bad;
    bool found = false;
    if (!tw_lines_is_utf8(text, size, &bad)) return FAIL(TW_ERR_FORMAT, "not UTF-8 at byte %zu", bad);
    TRY(tw_json_scan_begin(&scan, text, size));
    for (bool end = false;;) {
        TRY(tw_json_scan_next(&scan, key, sizeof key, &value, &end));
        if (end) break;
        if (strcmp(key, "weight_map") != 0) continue;
        if (found) return FAIL(TW_ERR_FORMAT, "'weight_map' is there twice");
        found = true;
        tw_status status = read_map(x, value);
        if (status) return tw_fail_context(status, "weight_map");
    }
    if (!found || x->names.count == 0) return FAIL(TW_ERR_FORMAT, "'weight_map' is missing or empty");
    return TW_OK;
}

/* Every tensor of part `part` must be one that the index puts there. */
static tw_status check_part(shard_index *x, const tw_weights *w, int part) {
    size_t size;
    for (int64_t i = 0; i < tw_weights_count(w); i++) {
        const char *name = tw_weights_at(w, i)->name;
        int64_t at;
        bool is_new;
        TRY(tw_string_map_add(&x->names, name, strlen(name), &at, &is_new));
        if (is_new)
            return FAIL(TW_ERR_FORMAT, "%s: holds tensor '%s', which the index does not know",
                        tw_weights_path(w), name);
        if (x->shard[at] != part)
            return FAIL(TW_ERR_FORMAT, "%s: holds tensor '%s', which the index puts in %s",
                        tw_weights_path(w), name, tw_string_map_key(&x->shards, x->shard[at], &size));
    }
    return TW_OK;
}

static tw_status check_names(const shard_index *x, const folder_weights *f) {
    size_t size;
    for (int64_t i = 0; i < x->names.count; i++) {
        const char *name = tw_string_map_key(&x->names, i, &size);
        if (tw_weights_find(f->parts[x->shard[i]], name) < 0)
            return FAIL(TW_ERR_FORMAT, "%s: lacks tensor '%s', which the index puts there",
                        tw_weights_path(f->parts[x->shard[i]]), name);
    }
    return TW_OK;
}

static tw_status open_part(folder_weights *f, const weight_file *file, const char *folder, const char *name) {
    char *path = tw_path_join(folder, name);
    if (!path) return FAIL(TW_ERR_MEMORY, "%s/%s: no memory for a path", folder, name);
    tw_status status = file->open(path, &f->parts[f->n]);
    if (!status) f->n++;
    free(path);
    return status;
}

static bool is_there(const char *folder, const char *name) {
    struct stat info;
    char *path = tw_path_join(folder, name);
    bool found = path && stat(path, &info) == 0;
    free(path);
    return found;
}

static tw_status open_shards(folder_weights *f, const weight_file *file, const char *folder) {
    shard_index x = {0};
    char *text;
    size_t size, length;
    TRY(tw_hf_read_text(folder, file->name, INDEX_BYTES, &text, &size));
    tw_status status = parse_index(&x, text, size);
    free(text);
    if (status) tw_fail_context(status, "%s/%s", folder, file->name);
    for (int i = 0; i < (int)x.shards.count && !status; i++) {
        const char *shard = tw_string_map_key(&x.shards, i, &length);
        if (!is_there(folder, shard))
            status =
                FAIL(TW_ERR_FORMAT, "%s: shard %s, which %s names, is missing", folder, shard, file->name);
        if (!status) status = open_part(f, file, folder, shard);
        if (!status) status = check_part(&x, f->parts[i], i);
    }
    if (!status) status = check_names(&x, f);
    index_free(&x);
    return status;
}

static const weight_file *find_file(const char *folder) {
    for (int i = 0; i < FILE_COUNT; i++)
        if (is_there(folder, FILES[i].name)) return &FILES[i];
    return NULL;
}

bool tw_hf_is_folder(const char *path) {
    return tw_is_folder(path) && find_file(path);
}

static tw_status open_files(folder_weights *f, const char *folder) {
    const weight_file *file = find_file(folder);
    if (!file)
        return FAIL(TW_ERR_NOT_FOUND,
                    "%s: no weights there: looked for model.safetensors, pytorch_model.bin and their indices "
                    "of shards",
                    folder);
    return file->sharded ? open_shards(f, file, folder) : open_part(f, file, folder, file->name);
}

/* Makes one list of the parts' tensors. */
static tw_status collect(folder_weights *f, const char *folder, tw_weight **items, int64_t *n) {
    *n = 0;
    for (int p = 0; p < f->n; p++) *n += tw_weights_count(f->parts[p]);
    *items = malloc((size_t)(*n + 1) * sizeof **items);
    f->places = malloc((size_t)(*n + 1) * sizeof *f->places);
    if (!*items || !f->places)
        return FAIL(TW_ERR_MEMORY, "%s: no memory for %" PRId64 " tensors", folder, *n);
    int64_t at = 0;
    for (int p = 0; p < f->n; p++)
        for (int64_t i = 0; i < tw_weights_count(f->parts[p]); i++) {
            (*items)[at] = *tw_weights_at(f->parts[p], i);
            f->places[at++] = (place){p, i};
        }
    return TW_OK;
}

tw_status tw_hf_folder_open(const char *folder, tw_weights **out) {
    static const tw_weights_source source = {folder_read, folder_close};
    static const tw_weights_note note = {.kind = "Hugging Face folder", .epoch = -1, .step = -1};
    *out = NULL;
    folder_weights *f = calloc(1, sizeof *f);
    if (!f) return FAIL(TW_ERR_MEMORY, "%s: no memory to read it", folder);
    tw_weight *items = NULL;
    int64_t n = 0;
    tw_status status = open_files(f, folder);
    if (!status) status = collect(f, folder, &items, &n);
    if (status)
        folder_close(f);
    else
        status = tw_weights_create(folder, &note, items, n, &source, f, out);
    free(items);
    return status;
}
