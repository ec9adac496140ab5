#include "train/towers.h"

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
        roots[n++] = t->text = tw_encode_text(t->tape, towers->model, t->ids, t->lengths);
    }
    return tw_tape_finish(t->tape, n, roots);
}

/* Tapes come and go with the batch sizes of short batches; the oldest makes room. */
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

tw_status tw_towers_get(tw_towers *towers, tw_tower_kind kind, int64_t batch, const tw_tower_tape **out) {
    for (int i = 0; i < towers->count; i++) {
        *out = towers->tapes[i];
        if ((*out)->kind == kind && (*out)->batch == batch) return TW_OK;
    }
    *out = NULL;
    tw_tower_tape *t = calloc(1, sizeof *t);
    if (!t) return FAIL(TW_ERR_MEMORY, "out of memory");
    t->kind = kind;
    t->batch = batch;
    tw_status status = record(towers, t);
    if (status == TW_OK) status = bind(towers, t);
    if (status != TW_OK) {
        free_tape(t);
        return status;
    }
    make_room(towers);
    towers->tapes[towers->count++] = t;
    *out = t;
    return TW_OK;
}

size_t tw_towers_image_bytes(const tw_towers *towers) {
    int64_t side = towers->model->config.image.resolution;
    return (size_t)(side * side * 3) * tw_dtype_size(towers->pixel_type);
}

size_t tw_towers_bytes(const tw_towers *towers) {
    return towers->arena.bytes;
}
