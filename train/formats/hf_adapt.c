/* The two adapters of hf_names.h: reading Hugging Face tensors as original ones, and writing the reverse. */
#include "train/formats/hf_names.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static size_t bytes_of(const tw_weight *w) {
    return (size_t)w->count * tw_weight_type_size(w->type);
}

/* dst (columns, rows) = src (rows, columns) transposed, elements of `size` bytes. */
static void transpose(const char *src, char *dst, int64_t rows, int64_t columns, size_t size) {
    for (int64_t c = 0; c < columns; c++)
        for (int64_t r = 0; r < rows; r++, dst += size) {
            const char *from = src + (size_t)(r * columns + c) * size;
            if (size == 4)
                memcpy(dst, from, 4);
            else if (size == 2)
                memcpy(dst, from, 2);
            else
                memcpy(dst, from, size);
        }
}

static tw_status turn_shape(tw_weight *w) {
    if (w->ndim != 2) return FAIL(TW_ERR_FORMAT, "%d dimensions, a projection has 2", w->ndim);
    int64_t rows = w->shape[0];
    w->shape[0] = w->shape[1];
    w->shape[1] = rows;
    return TW_OK;
}

/* ---- reading ---- */

/* Where an original tensor comes from. */
typedef struct origin {
    tw_hf_transform transform;
    int parts;
    int64_t hf[TW_HF_MAX_PIECES]; /* indices of its pieces, in the order of their rows */
} origin;

typedef struct reading {
    tw_weights *hf;
    origin *origins;
    tw_weight *items; /* while it is made; names are owned */
    int64_t n;
} reading;

static void free_items(reading *r) {
    for (int64_t i = 0; i < r->n; i++) free((char *)r->items[i].name);
    free(r->items);
    r->items = NULL;
}

static void reading_close(void *self) {
    reading *r = self;
    if (r->items) free_items(r);
    tw_weights_close(r->hf);
    free(r->origins);
    free(r);
}

static tw_status reading_read(void *self, int64_t i, void *dst) {
    reading *r = self;
    const origin *o = &r->origins[i];
    if (o->transform != TW_HF_TRANSPOSE) {
        char *at = dst;
        for (int p = 0; p < o->parts; p++) {
            TRY(tw_weights_read(r->hf, o->hf[p], at));
            at += bytes_of(tw_weights_at(r->hf, o->hf[p]));
        }
        return TW_OK;
    }
    const tw_weight *w = tw_weights_at(r->hf, o->hf[0]);
    void *matrix = malloc(bytes_of(w) + 1);
    if (!matrix) return FAIL(TW_ERR_MEMORY, "no memory for tensor '%s'", w->name);
    tw_status status = tw_weights_read(r->hf, o->hf[0], matrix);
    if (!status) transpose(matrix, dst, w->shape[0], w->shape[1], tw_weight_type_size(w->type));
    free(matrix);
    return status;
}

static bool same_form(const tw_weight *a, const tw_weight *b) {
    if (a->type != b->type || a->ndim != b->ndim) return false;
    for (int d = 0; d < a->ndim; d++)
        if (a->shape[d] != b->shape[d]) return false;
    return true;
}

/* Puts the pieces of one fused tensor together, of which tensor `first` is part 0. */
static tw_status fuse(reading *r, const char *original, int64_t first, origin *o, tw_weight *item) {
    tw_hf_piece pieces[TW_HF_MAX_PIECES] = {0};
    const tw_weight *one = tw_weights_at(r->hf, first);
    o->parts = tw_hf_pieces_of(original, pieces);
    if (one->ndim < 1) return FAIL(TW_ERR_FORMAT, "one value cannot be a projection");
    for (int p = 0; p < o->parts; p++) {
        o->hf[p] = tw_weights_find(r->hf, pieces[p].name);
        if (o->hf[p] < 0) return FAIL(TW_ERR_FORMAT, "'%s', which belongs to it, is missing", pieces[p].name);
        if (!same_form(one, tw_weights_at(r->hf, o->hf[p])))
            return FAIL(TW_ERR_FORMAT, "'%s', which belongs to it, has another shape or type",
                        pieces[p].name);
    }
    item->shape[0] *= o->parts;
    item->count *= o->parts;
    return TW_OK;
}

/* Part 0 stands for a fused tensor; the others only make sure that it is there. */
static tw_status check_first(const reading *r, const char *original) {
    tw_hf_piece pieces[TW_HF_MAX_PIECES] = {0};
    if (tw_hf_pieces_of(original, pieces) > 0 && tw_weights_find(r->hf, pieces[0].name) >= 0) return TW_OK;
    return FAIL(TW_ERR_FORMAT, "'%s', which belongs to it, is missing", pieces[0].name);
}

static tw_status read_as(reading *r, int64_t i) {
    tw_hf_piece to;
    tw_weight item = *tw_weights_at(r->hf, i);
    origin o = {.transform = TW_HF_COPY, .parts = 1, .hf = {i}};
    if (tw_hf_original_of(item.name, &to)) {
        o.transform = to.transform;
        if (to.transform == TW_HF_ROWS && to.part > 0) return check_first(r, to.name);
        if (to.transform == TW_HF_ROWS) TRY(fuse(r, to.name, i, &o, &item));
        if (to.transform == TW_HF_TRANSPOSE) TRY(turn_shape(&item));
        item.name = to.name;
    }
    item.name = strdup(item.name);
    if (!item.name) return FAIL(TW_ERR_MEMORY, "no memory for the name of a tensor");
    r->origins[r->n] = o;
    r->items[r->n++] = item;
    return TW_OK;
}

tw_status tw_hf_as_original(tw_weights *hf, tw_weights **out) {
    static const tw_weights_source source = {reading_read, reading_close};
    *out = NULL;
    size_t n = (size_t)tw_weights_count(hf);
    reading *r = calloc(1, sizeof *r);
    if (!r) {
        tw_weights_close(hf);
        return FAIL(TW_ERR_MEMORY, "no memory to read tensors");
    }
    r->hf = hf;
    r->origins = malloc((n + 1) * sizeof *r->origins);
    r->items = malloc((n + 1) * sizeof *r->items);
    tw_status status = r->origins && r->items
                           ? TW_OK
                           : FAIL(TW_ERR_MEMORY, "%s: no memory for %zu tensors", tw_weights_path(hf), n);
    for (int64_t i = 0; i < (int64_t)n && !status; i++) {
        status = read_as(r, i);
        if (status)
            tw_fail_context(status, "%s: tensor '%s'", tw_weights_path(hf), tw_weights_at(hf, i)->name);
    }
    if (status) {
        reading_close(r);
        return status;
    }
    status = tw_weights_create(tw_weights_path(hf), tw_weights_get_note(hf), r->items, r->n, &source, r, out);
    if (!status) free_items(r);
    return status;
}

/* ---- writing ---- */

typedef struct piece_of {
    int64_t source; /* index among the original tensors */
    tw_hf_transform transform;
    int part;
} piece_of;

typedef struct fused {
    int64_t source; /* -1: none */
    char *data;
} fused;

typedef struct writing {
    tw_weights_output original;
    tw_weight *items; /* names are owned */
    piece_of *pieces;
    int64_t n;
    /* A file sorted by names asks for q, k and v far from each other, weight and bias between them. */
    fused kept[2];
    int next;
} writing;

static void writing_free(writing *w) {
    for (int64_t i = 0; w->items && i < w->n; i++) free((char *)w->items[i].name);
    free(w->items);
    free(w->pieces);
    for (int i = 0; i < 2; i++) free(w->kept[i].data);
    free(w);
}

void tw_hf_output_free(tw_weights_output *out) {
    if (out->self) writing_free(out->self);
    *out = (tw_weights_output){0};
}

/* The whole original tensor, kept until another two have been asked for. */
static tw_status whole(writing *w, int64_t source, const char **data) {
    for (int i = 0; i < 2; i++)
        if (w->kept[i].source == source) {
            *data = w->kept[i].data;
            return TW_OK;
        }
    const tw_weight *item = &w->original.items[source];
    fused *place = &w->kept[w->next];
    w->next = 1 - w->next;
    free(place->data);
    place->source = -1;
    place->data = malloc(bytes_of(item) + 1);
    if (!place->data) return FAIL(TW_ERR_MEMORY, "no memory for tensor '%s'", item->name);
    TRY(w->original.fill(w->original.self, source, place->data));
    place->source = source;
    *data = place->data;
    return TW_OK;
}

static tw_status writing_fill(void *self, int64_t i, void *dst) {
    writing *w = self;
    const piece_of *p = &w->pieces[i];
    const tw_weight *from = &w->original.items[p->source];
    if (p->transform == TW_HF_COPY) return w->original.fill(w->original.self, p->source, dst);
    const char *data;
    TRY(whole(w, p->source, &data));
    size_t bytes = bytes_of(&w->items[i]);
    if (p->transform == TW_HF_ROWS)
        memcpy(dst, data + (size_t)p->part * bytes, bytes);
    else
        transpose(data, dst, from->shape[0], from->shape[1], tw_weight_type_size(from->type));
    return TW_OK;
}

static tw_status no_form(const char *name) {
    static const char *const resnet[] = {"visual.layer", "visual.attnpool.", "visual.bn"};
    for (int i = 0; i < 3; i++)
        if (strncmp(name, resnet[i], strlen(resnet[i])) == 0)
            return FAIL(TW_ERR_UNSUPPORTED,
                        "tensor '%s' is of an RN50 model, which has no Hugging Face form; write a .pt", name);
    return FAIL(TW_ERR_UNSUPPORTED, "tensor '%s' has no place in Hugging Face's ChineseCLIPModel", name);
}

static tw_status write_as(writing *w, int64_t source) {
    tw_hf_piece pieces[TW_HF_MAX_PIECES] = {0};
    const tw_weight *from = &w->original.items[source];
    int n = tw_hf_pieces_of(from->name, pieces);
    if (n == 0) return no_form(from->name);
    if (n > 1 && (from->ndim < 1 || from->shape[0] % n))
        return FAIL(TW_ERR_SHAPE, "tensor '%s': %lld rows are not %d equal parts", from->name,
                    from->ndim ? (long long)from->shape[0] : 0, n);
    for (int p = 0; p < n; p++) {
        tw_weight item = *from;
        if (pieces[p].transform == TW_HF_TRANSPOSE && turn_shape(&item))
            return FAIL(TW_ERR_SHAPE, "tensor '%s': %d dimensions, a projection has 2", from->name,
                        from->ndim);
        if (n > 1) item.shape[0] /= n;
        item.count /= n;
        item.name = strdup(pieces[p].name);
        if (!item.name) return FAIL(TW_ERR_MEMORY, "no memory for the name of a tensor");
        w->pieces[w->n] = (piece_of){source, pieces[p].transform, pieces[p].part};
        w->items[w->n++] = item;
    }
    return TW_OK;
}

tw_status tw_hf_output_create(const tw_weights_output *original, tw_weights_output *out) {
    *out = (tw_weights_output){0};
    writing *w = calloc(1, sizeof *w);
    if (!w) return FAIL(TW_ERR_MEMORY, "no memory to write tensors");
    size_t most = (size_t)original->n * TW_HF_MAX_PIECES + 1;
    w->original = *original;
    w->kept[0].source = w->kept[1].source = -1;
    w->items = calloc(most, sizeof *w->items);
    w->pieces = malloc(most * sizeof *w->pieces);
    tw_status status = w->items && w->pieces ? TW_OK : FAIL(TW_ERR_MEMORY, "no memory for %zu tensors", most);
    for (int64_t i = 0; i < original->n && !status; i++) status = write_as(w, i);
    if (status) {
        writing_free(w);
        return status;
    }
    *out = (tw_weights_output){.items = w->items, .n = w->n, .fill = writing_fill, .self = w};
    return TW_OK;
}
