#include "train/formats/features_private.h"

#include <stdlib.h>
#include <string.h>

enum { FEATURES_VERSION = 1, BLOCK_VALUES = 256 << 10 };
static const char *const KINDS[] = {"image", "text"};

static tw_status begin(tw_features_writer *w) {
    w->block_rows = w->dim < BLOCK_VALUES ? BLOCK_VALUES / w->dim : 1;
    w->block = malloc((size_t)(w->block_rows * w->dim) * sizeof *w->block);
    if (!w->block) return FAIL(TW_ERR_MEMORY, "%s: no memory to write it", w->path);
    TRY(tw_h5_create(w->path, "features", FEATURES_VERSION, &w->h5));
    TRY(tw_h5_set_text(w->h5, "kind", KINDS[w->kind]));
    TRY(tw_h5_set_text(w->h5, "model", w->model));
    TRY(tw_h5_set_i64(w->h5, "dim", w->dim));
    return tw_h5_make_rows(w->h5, "features", w->dim, w->block_rows);
}

static tw_status flush(tw_features_writer *w) {
    int64_t n = w->filled;
    w->filled = 0;
    return tw_h5_append_rows(w->h5, "features", w->block, n);
}

static tw_status append(tw_features_writer *w, const tw_id *ids, const float *values, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        TRY(tw_id_list_add(&w->ids, &ids[i]));
        memcpy(w->block + w->filled * w->dim, values + i * w->dim, (size_t)w->dim * sizeof *values);
        if (++w->filled == w->block_rows) TRY(flush(w));
    }
    return TW_OK;
}

/* Ids of mixed types are kept as texts, with a string of '1' (integer) and '0' beside them. */
static tw_status write_texts(tw_features_writer *w) {
    const tw_id_list *ids = &w->ids;
    size_t width = ids->longest ? ids->longest : 1;
    char *texts = calloc((size_t)(ids->n ? ids->n : 1), width), *types = malloc((size_t)ids->n + 1);
    tw_status status = TW_OK;
    if (!texts || !types) {
        status = FAIL(TW_ERR_MEMORY, "%s: no memory for %lld ids", w->path, (long long)ids->n);
        goto done;
    }
    for (int64_t i = 0; i < ids->n; i++) {
        const char *text = ids->text + ids->at[i];
        memcpy(texts + (size_t)i * width, text, strnlen(text, width));
        types[i] = ids->integer[i] ? '1' : '0';
    }
    status = tw_h5_write_texts(w->h5, "ids", texts, ids->n, width);
    if (status == TW_OK && ids->integers)
        status = tw_h5_write_bytes(w->h5, "ids_integer", types, (size_t)ids->n);
done:
    free(texts);
    free(types);
    return status;
}

static tw_status write_integers(tw_features_writer *w) {
    const tw_id_list *ids = &w->ids;
    int64_t *values = malloc((size_t)(ids->n ? ids->n : 1) * sizeof *values);
    if (!values) return FAIL(TW_ERR_MEMORY, "%s: no memory for %lld ids", w->path, (long long)ids->n);
    for (int64_t i = 0; i < ids->n; i++) values[i] = strtoll(ids->text + ids->at[i], NULL, 10);
    tw_status status = tw_h5_write_i64s(w->h5, "ids", values, ids->n);
    free(values);
    return status;
}

static tw_status commit(tw_features_writer *w) {
    TRY(flush(w));
    TRY(w->ids.integers == w->ids.n ? write_integers(w) : write_texts(w));
    tw_h5 *file = w->h5;
    w->h5 = NULL;
    return tw_h5_commit(file);
}

static tw_status read_ids(tw_h5 *h5, int64_t n, tw_id_list *list) {
    int64_t *numbers = NULL;
    char *texts = NULL, *types = NULL, *one = NULL;
    size_t width = 0, marks = 0;
    tw_status status = tw_h5_read_list(h5, "ids", n, &numbers, &texts, &width);
    if (status == TW_OK && texts) status = tw_h5_read_bytes(h5, "ids_integer", &types, &marks);
    if (status == TW_OK && types && marks != (size_t)n)
        status = FAIL(TW_ERR_FORMAT, "%s: ids_integer has %zu entries for %lld ids", tw_h5_path(h5), marks,
                      (long long)n);
    one = malloc((width > 32 ? width : 32) + 1);
    if (status == TW_OK && !one) status = FAIL(TW_ERR_MEMORY, "%s: no memory for ids", tw_h5_path(h5));
    for (int64_t i = 0; status == TW_OK && i < n; i++) {
        tw_id id = {.text = one, .is_integer = texts ? types && types[i] == '1' : true};
        if (texts) {
            memcpy(one, texts + (size_t)i * width, width);
            one[width] = '\0';
        } else {
            sprintf(one, "%lld", (long long)numbers[i]);
        }
        id.size = strlen(one);
        if (id.size == 0 || id.size > TW_ID_MAX_BYTES)
            status = FAIL(TW_ERR_FORMAT, "%s: id %lld is empty or too long", tw_h5_path(h5), (long long)i);
        else
            status = tw_id_list_add(list, &id);
    }
    free(numbers);
    free(texts);
    free(types);
    free(one);
    return status;
}

static tw_status read_all(tw_h5 *h5, tw_features *f) {
    int ndim = 0;
    int64_t shape[TW_H5_MAX_DIMS] = {0};
    char *kind = NULL;
    tw_id_list list = {0};
    TRY(tw_h5_get_text(h5, "model", &f->model));
    TRY(tw_h5_get_text(h5, "kind", &kind));
    for (int i = 0; i < 2; i++)
        if (kind && strcmp(kind, KINDS[i]) == 0) f->kind = (tw_features_kind)i;
    free(kind);
    TRY(tw_h5_shape(h5, "features", &ndim, shape));
    if (ndim != 2 || shape[1] < 1) return FAIL(TW_ERR_FORMAT, "%s: features is not a table", tw_h5_path(h5));
    f->n = shape[0], f->dim = shape[1];
    f->values = malloc((size_t)(f->n ? f->n * f->dim : 1) * sizeof *f->values);
    if (!f->values)
        return FAIL(TW_ERR_MEMORY, "%s: no memory for %lld features of %lld values", tw_h5_path(h5),
                    (long long)f->n, (long long)f->dim);
    if (f->n) TRY(tw_h5_read_f32(h5, "features", f->values, f->n * f->dim));
    tw_status status = read_ids(h5, f->n, &list);
    if (status == TW_OK) status = tw_id_list_move(&list, f);
    tw_id_list_free(&list);
    return status;
}

static tw_status load(const char *path, tw_features *f) {
    tw_h5 *h5;
    TRY(tw_h5_open(path, "features", FEATURES_VERSION, &h5));
    tw_status status = read_all(h5, f);
    tw_h5_close(h5);
    return status;
}

const tw_features_format tw_features_h5 = {{".h5", ".hdf5"}, begin, append, commit, load};
