#include "train/memory_need.h"

#include "train/model_io.h"
#include "train/towers.h"

#include <stdlib.h>
#include <sys/mman.h>

/* A CPU device whose memory is addresses without pages behind them: nothing may be read or written. */
typedef struct block {
    struct block *next;
    void *start;
    size_t bytes;
} block;

typedef struct planner {
    tw_device device; /* first, so that a tw_device * is one */
    block *blocks;
} planner;

static tw_status plan_alloc(tw_device *d, size_t bytes, void **out) {
    planner *p = (planner *)d;
    block *b = malloc(sizeof *b);
    *out = NULL;
    if (!b) return FAIL(TW_ERR_MEMORY, "out of memory");
    *b = (block){.next = p->blocks, .bytes = bytes ? bytes : 1};
    b->start = mmap(NULL, b->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (b->start == MAP_FAILED) {
        free(b);
        return FAIL(TW_ERR_MEMORY, "no address space for %.1f MB", (double)bytes / 1e6);
    }
    p->blocks = b;
    *out = b->start;
    return TW_OK;
}

static void plan_release(tw_device *d, void *start) {
    planner *p = (planner *)d;
    for (block **at = &p->blocks; *at; at = &(*at)->next) {
        block *b = *at;
        if (b->start != start) continue;
        *at = b->next;
        munmap(b->start, b->bytes);
        free(b);
        return;
    }
}

static tw_status plan_copy(tw_device *d, tw_queue q, void *dst, const void *src, size_t bytes) {
    (void)d, (void)q, (void)dst, (void)src, (void)bytes;
    return TW_OK;
}

static tw_status plan_zero(tw_device *d, tw_queue q, void *dst, size_t bytes) {
    (void)d, (void)q, (void)dst, (void)bytes;
    return TW_OK;
}

static void planner_make(planner *p, const tw_device *like) {
    *p = (planner){.device = *like};
    p->device.alloc = plan_alloc;
    p->device.release = plan_release;
    p->device.upload = p->device.download = p->device.copy = plan_copy;
    p->device.zero = plan_zero;
}

/* Arena bytes of one tape. */
static tw_status arena_bytes(planner *p, const tw_dual_encoder *model, tw_tower_kind kind, int64_t batch,
                             tw_recompute recompute, size_t *bytes) {
    tw_towers *towers;
    const tw_tower_tape *tape;
    TRY(tw_towers_create(model, &p->device, recompute, TW_U8, &towers));
    tw_status status = tw_towers_get(towers, kind, batch, &tape);
    *bytes = tw_towers_bytes(towers);
    tw_towers_free(towers);
    return status;
}

static tw_status plan(planner *p, tw_dual_encoder *model, tw_dtype type, bool training, int64_t batch,
                      tw_memory_need *out) {
    TRY(tw_dual_encoder_allocate(model, &p->device, type, training));
    if (!training) {
        out->weights = tw_params_bytes(model->params);
        TRY(arena_bytes(p, model, TW_TOWER_IMAGE, batch, TW_RECOMPUTE_NONE, &out->image));
        return arena_bytes(p, model, TW_TOWER_TEXT, batch, TW_RECOMPUTE_NONE, &out->text);
    }
    out->training_weights = tw_params_bytes(model->params);
    out->moments = 2 * sizeof(float) * (size_t)tw_params_trainable(model->params);
    out->checkpoint = sizeof(float) * (size_t)tw_snapshot_values(model, true);
    TRY(arena_bytes(p, model, TW_TOWERS_TRAIN, batch, TW_RECOMPUTE_NONE, &out->training));
    return arena_bytes(p, model, TW_TOWERS_TRAIN, batch, TW_RECOMPUTE_BLOCK, &out->training_recomputed);
}

tw_status tw_memory_needed(const tw_model_config *config, tw_dtype compute_type, int64_t batch,
                           tw_memory_need *out) {
    planner p;
    tw_device *cpu;
    *out = (tw_memory_need){0};
    TRY(tw_device_cpu(0, &cpu));
    planner_make(&p, cpu);
    tw_status status = TW_OK;
    for (int training = 0; training < 2 && status == TW_OK; training++) {
        tw_model_config c = *config;
        if (training) c.text.hidden_dropout = c.text.attention_dropout = 0.1f;
        tw_dual_encoder *model;
        status = tw_dual_encoder_create(&c, &model);
        if (status != TW_OK) break;
        status = plan(&p, model, compute_type, training, batch, out);
        tw_dual_encoder_free(model);
    }
    tw_device_free(cpu);
    return status;
}

tw_status tw_memory_of_step(const tw_dual_encoder *model, const tw_device *device, tw_recompute recompute,
                            int64_t batch, size_t *bytes) {
    planner p;
    planner_make(&p, device);
    return arena_bytes(&p, model, TW_TOWERS_TRAIN, batch, recompute, bytes);
}
