#include "train/towers.h"

#include "autograd/progress.h"

#include <stdlib.h>

enum { MAX_TAPES = 64 };

struct tw_towers {
    const tw_dual_encoder *model;
    tw_device *device;
    tw_recompute recompute;
    tw_dtype pixel_type;
    tw_arena arena;
    tw_tower_tape *tapes[MAX_TAPES];
    int count;
};

tw_status tw_towers_create(const tw_dual_encoder *model, tw_device *device, tw_recompute recompute,
                           tw_dtype pixel_type, tw_towers **out) {
    tw_towers *t = *out = calloc(1, sizeof *t);
    if (!t) return FAIL(TW_ERR_MEMORY, "out of memory");
    *t = (tw_towers){.model = model,
                     .device = device,
                     .recompute = recompute,
                     .pixel_type = pixel_type,
                     .arena = {.device = device}};
    return TW_OK;
}

static void free_tape(tw_tower_tape *t) {
    if (!t) return;
    tw_tape_free(t->tape);
    free(t);
}

void tw_towers_free(tw_towers *towers) {
    if (!towers) return;
    for (int i = 0; i < towers->count; i++) free_tape(towers->tapes[i]);
    tw_arena_release(&towers->arena);
    free(towers);
}

static tw_status record(const tw_towers *towers, tw_tower_tape *t) {
    const tw_model_config *c = &towers->model->config;
    int64_t r = c->image.resolution, bytes[4] = {t->batch, r, r, 3}, floats[4] = {t->batch, 3, r, r};
    int64_t ids[2] = {t->batch, c->context};
    bool training = t->kind == TW_TOWERS_TRAIN;
    TRY(tw_tape_create(towers->device, training, towers->recompute, &t->tape));
    tw_tensor *roots[2];
    int n = 0;
    if (t->kind != TW_TOWER_TEXT) {
        t->pixels = tw_tape_input(t->tape, towers->pixel_type, 4,
                                  towers->pixel_type == TW_U8 ? bytes : floats, false);
        roots[n++] = t->image = tw_encode_image(t->tape, towers->model, t->pixels);
    }
    if (t->kind != TW_TOWER_IMAGE) {
        t->ids = tw_tape_input(t->tape, TW_I32, 2, ids, false);
        t->lengths = tw_tape_input(t->tape, TW_I32, 1, ids, false);
        roots[n++] = t->text = tw_encode_text(t->tape, towers->model, t->ids, t->lengths, t->rows);
    }
    return tw_tape_finish(t->tape, n, roots);
}

/* Tapes come and go with the sizes of short batches and packed texts; the one that lay idle longest makes
 * room. */
static void make_room(tw_towers *towers) {
    if (towers->count < MAX_TAPES) return;
    free_tape(towers->tapes[0]);
    memmove(towers->tapes, towers->tapes + 1, (MAX_TAPES - 1) * sizeof *towers->tapes);
    towers->count--;
}

static tw_status bind(tw_towers *towers, tw_tower_tape *added) {
    void *base = towers->arena.base;
    TRY(tw_arena_reserve(&towers->arena, tw_tape_bytes(added->tape)));
    if (towers->arena.base != base)
        for (int i = 0; i < towers->count; i++) TRY(tw_tape_bind(towers->tapes[i]->tape, &towers->arena));
    return tw_tape_bind(added->tape, &towers->arena);
}

/* Tapes lie in the order of their last use. */
static tw_tower_tape *find(tw_towers *towers, tw_tower_kind kind, int64_t batch, int64_t rows) {
    for (int i = 0; i < towers->count; i++) {
        tw_tower_tape *t = towers->tapes[i];
        if (t->kind != kind || t->batch != batch || t->rows != rows) continue;
        memmove(towers->tapes + i, towers->tapes + i + 1,
                (size_t)(towers->count - i - 1) * sizeof *towers->tapes);
        return towers->tapes[towers->count - 1] = t;
    }
    return NULL;
}

static tw_status get(tw_towers *towers, tw_tower_kind kind, int64_t batch, int64_t rows,
                     const tw_tower_tape **out) {
    *out = find(towers, kind, batch, rows);
    if (*out) return TW_OK;
    tw_tower_tape *t = calloc(1, sizeof *t);
    if (!t) return FAIL(TW_ERR_MEMORY, "out of memory");
    t->kind = kind;
    t->batch = batch;
    t->rows = rows;
    tw_progress_first(true); /* libraries may plan for long */
    tw_status status = record(towers, t);
    if (status == TW_OK) status = bind(towers, t);
    tw_progress_first(false);
    if (status != TW_OK) {
        free_tape(t);
        return status;
    }
    make_room(towers);
    towers->tapes[towers->count++] = t;
    *out = t;
    return TW_OK;
}

/* Whether texts go without padding through tapes of this kind. */
static bool packs(const tw_towers *towers, tw_tower_kind kind, int64_t batch) {
    return kind != TW_TOWER_IMAGE && batch > 0 && !towers->model->padded_text;
}

tw_status tw_towers_get(tw_towers *towers, tw_tower_kind kind, int64_t batch, const tw_tower_tape **out) {
    int64_t most = batch * towers->model->config.context;
    return get(towers, kind, batch, packs(towers, kind, batch) ? most : 0, out);
}

enum { ROWS_ROUNDING = 16, ROWS_UNIT = 8 };

static int64_t rounded(int64_t tokens, int64_t most) {
    int64_t unit = ROWS_UNIT;
    while (unit * 2 * ROWS_ROUNDING <= tokens) unit *= 2;
    int64_t rows = (tokens + unit - 1) / unit * unit;
    return rows < most ? rows : most;
}

tw_status tw_towers_get_texts(tw_towers *towers, tw_tower_kind kind, int64_t batch, const int32_t *lengths,
                              const tw_tower_tape **out) {
    int64_t context = towers->model->config.context, tokens = 0;
    *out = NULL;
    if (!packs(towers, kind, batch)) return tw_towers_get(towers, kind, batch, out);
    for (int64_t i = 0; i < batch; i++) {
        if (lengths[i] < 1 || lengths[i] > context)
            return FAIL(TW_ERR_ARGUMENT, "text %lld of the batch has %d tokens; 1 to %lld are possible",
                        (long long)i, lengths[i], (long long)context);
        tokens += lengths[i];
    }
    return get(towers, kind, batch, rounded(tokens, batch * context), out);
}

tw_device *tw_towers_device(const tw_towers *towers) {
    return towers->device;
}

size_t tw_towers_image_bytes(const tw_towers *towers) {
    int64_t side = towers->model->config.image.resolution;
    return (size_t)(side * side * 3) * tw_dtype_size(towers->pixel_type);
}

size_t tw_towers_bytes(const tw_towers *towers) {
    return towers->arena.bytes;
}
