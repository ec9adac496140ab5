/* The plans of a device by cuDNN: making, keeping and running them. */
#include "autograd/cuda/cuda.h"
#include "autograd/cuda/cudnn_backend.h"
#include "autograd/cuda/device_cuda.h"
#include "autograd/cuda/dnn_notes.h"
#include "autograd/cuda/dnn_trial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 256 }; /* of the cache */

struct tw_dnn_plan {
    struct tw_dnn_plan *next;
    tw_dnn_key key;
    bool usable;
    tw_cudnn_descriptors all;
    cudnnBackendDescriptor_t plan;
    size_t scratch;
    int count; /* of tensors in the pack */
    int64_t id[TW_DNN_TENSORS];
    int slot[TW_DNN_TENSORS];
    float value[TW_DNN_TENSORS];
};

typedef struct cudnn {
    cudnnHandle_t handle; /* NULL: the library cannot be used */
    bool opened, allowed;
    tw_dnn_notes notes;
    tw_dnn_plan *buckets[BUCKETS];
} cudnn;

static void free_plan(tw_dnn_plan *p) {
    tw_cudnn_release(&p->all, 0);
    free(p);
}

static void close_cudnn(void *state) {
    cudnn *l = state;
    for (int i = 0; i < BUCKETS; i++)
        for (tw_dnn_plan *p = l->buckets[i], *next; p; p = next) {
            next = p->next;
            free_plan(p);
        }
    if (l->handle) (void)cudnnDestroy(l->handle);
    free(l);
}

/* The device's state, which is made without the library; NULL: out of memory. */
static cudnn *state_of(tw_device *d) {
    void **slot = tw_cuda_slot(d, TW_CUDA_CUDNN, close_cudnn);
    if (*slot) return *slot;
    cudnn *l = *slot = calloc(1, sizeof *l);
    if (l) l->allowed = true;
    return l;
}

/* Without a part of the library (it loads its parts itself) there is no handle, and own kernels run. */
static tw_status open_library(tw_device *d, cudnn *l) {
    cudaStream_t stream = tw_cuda_stream(d, TW_QUEUE_COMPUTE);
    if (l->opened) return TW_OK;
    TRY(tw_cudnn_check_version(cudnnGetVersion()));
    l->opened = true;
    cudnnStatus_t made = cudnnCreate(&l->handle);
    if (made != CUDNN_STATUS_SUCCESS) {
        l->handle = NULL;
        tw_dnn_notes_refusal(&l->notes, NULL, cudnnGetErrorString(made));
        return TW_OK;
    }
    tw_status status = tw_cudnn_status(cudnnSetStream(l->handle, stream), "choosing cuDNN's stream");
    if (status == TW_OK) return TW_OK;
    (void)cudnnDestroy(l->handle); /* it would run on another queue */
    l->handle = NULL;
    return status;
}

void tw_dnn_allow(tw_device *d, bool allowed) {
    cudnn *l = state_of(d);
    if (l) l->allowed = allowed;
}

const char *tw_cuda_refusals(tw_device *d) {
    cudnn *l = state_of(d);
    return l ? tw_dnn_notes_tell(&l->notes) : NULL;
}

int64_t tw_cuda_graph_runs(tw_device *d) {
    const cudnn *l = state_of(d);
    return l ? l->notes.runs : 0;
}

static unsigned hash(const tw_dnn_key *key) {
    const unsigned char *bytes = (const unsigned char *)key;
    unsigned h = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < sizeof *key; i++) h = (h ^ bytes[i]) * 16777619u;
    return h;
}

/* Which of the graph's tensors a run has to name. */
static void note_tensors(tw_dnn_plan *p, const tw_dnn_graph *g) {
    for (int i = 0; i < g->tensors; i++) {
        if (g->tensor[i].slot == TW_DNN_INSIDE) continue;
        p->id[p->count] = i + 1;
        p->slot[p->count] = g->tensor[i].slot;
        p->value[p->count++] = g->tensor[i].value;
    }
}

/* Memory for every tensor of the plan; a finished pack cannot be changed, so each run has its own. */
static tw_status fill_pack(const tw_dnn_plan *p, void *const slot[TW_DNN_SLOTS], void *scratch,
                           cudnnBackendDescriptor_t pack) {
    const void *pointer[TW_DNN_TENSORS];
    for (int i = 0; i < p->count; i++)
        pointer[i] = p->slot[i] == TW_DNN_VALUE ? (const void *)&p->value[i] : slot[p->slot[i]];
    TRY(tw_cudnn_set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, p->count, p->id));
    TRY(tw_cudnn_set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, p->count, pointer));
    TRY(tw_cudnn_set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &scratch));
    return tw_cudnn_finish(pack, "naming a graph's tensors");
}

static tw_status execute(const cudnn *l, const tw_dnn_plan *p, cudnnBackendDescriptor_t plan,
                         void *const slot[TW_DNN_SLOTS], void *scratch) {
    tw_cudnn_descriptors own = {0};
    cudnnBackendDescriptor_t pack;
    TRY(tw_cudnn_create(&own, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack));
    tw_status status = fill_pack(p, slot, scratch, pack);
    if (status == TW_OK)
        status = tw_cudnn_status(cudnnBackendExecute(l->handle, plan, pack), "running a graph");
    tw_cudnn_release(&own, 0);
    return status;
}

/* ---- trying ---- */

typedef struct trial {
    tw_device *device;
    const cudnn *l;
    const tw_dnn_plan *p;
    const tw_dnn_graph *g;
    tw_dnn_trial memory;
    bool begun, enough;
} trial;

static tw_status run_once(trial *t, cudnnBackendDescriptor_t plan, size_t scratch) {
    tw_device *d = t->device;
    bool enough;
    if (!t->begun) TRY(tw_dnn_trial_begin(d, t->g, &t->memory, &t->enough));
    t->begun = true;
    if (!t->enough) return TW_OK;
    TRY(tw_dnn_trial_room(&t->memory, scratch, &enough));
    if (!enough) return TW_OK;
    TRY(execute(t->l, t->p, plan, t->memory.slot, t->memory.scratch));
    return d->sync(d, TW_QUEUE_COMPUTE);
}

/* Where there is no room for it, the plan is taken at the library's word. What fails here is no error of the
 * program's: the next plan, or own kernels, take its place. */
static tw_status try_plan(void *context, cudnnBackendDescriptor_t plan, size_t scratch) {
    char why[512];
    if (run_once(context, plan, scratch) == TW_OK) return TW_OK;
    snprintf(why, sizeof why, "%s", tw_last_error());
    (void)cudaGetLastError(); /* of a launch that was refused */
    return FAIL(TW_ERR_UNSUPPORTED, "a plan does not run: %s", why);
}

static tw_status build(tw_device *d, cudnn *l, tw_dnn_plan *p, const tw_dnn_graph *g) {
    cudnnBackendDescriptor_t graph;
    trial t = {.device = tw_cuda_itself(d), .l = l, .p = p, .g = g};
    const tw_cudnn_try try = {try_plan, &t};
    TRY(tw_cudnn_lower(g, l->handle, &p->all, &graph));
    note_tensors(p, g);
    tw_status status = tw_cudnn_choose(g, graph, l->handle, &try, &p->all, &p->plan, &p->scratch);
    tw_dnn_trial_end(&t.memory);
    return status;
}

/* ---- plans ---- */

/* As it was described, or else with f32 inside. Of what is refused either way the first reason is noted. */
static tw_status build_either(tw_device *d, cudnn *l, tw_dnn_plan *p, tw_dnn_graph *g) {
    char why[512];
    tw_status status = build(d, l, p, g);
    if (status == TW_OK || status == TW_ERR_MEMORY) return status;
    snprintf(why, sizeof why, "%s", tw_last_error());
    if (tw_dnn_widen(g)) {
        tw_cudnn_release(&p->all, 0);
        p->count = 0;
        status = build(d, l, p, g);
    }
    if (status == TW_OK) return TW_OK;
    tw_cudnn_release(&p->all, 0);
    if (status != TW_ERR_MEMORY) tw_dnn_notes_refusal(&l->notes, g, why);
    return status;
}

tw_status tw_dnn_find(tw_device *d, const tw_dnn_key *key, tw_dnn_describe describe, tw_dnn_plan **out) {
    cudnn *l = state_of(d);
    *out = NULL;
    if (!l) return FAIL(TW_ERR_MEMORY, "out of memory");
    if (!l->allowed) return TW_OK;
    TRY(open_library(d, l));
    if (!l->handle) return TW_OK;
    tw_dnn_plan **bucket = &l->buckets[hash(key) % BUCKETS], *p = *bucket;
    while (p && memcmp(&p->key, key, sizeof *key) != 0) p = p->next;
    if (!p) {
        if (tw_cuda_capturing(d))
            return FAIL(TW_ERR_ARGUMENT, "a captured step needs a cuDNN plan that no step before it needed");
        tw_dnn_graph g = {0};
        p = calloc(1, sizeof *p);
        if (!p) return FAIL(TW_ERR_MEMORY, "out of memory");
        p->key = *key;
        describe(key, &g);
        tw_status status = build_either(d, l, p, &g);
        if (status == TW_ERR_MEMORY) {
            free_plan(p);
            return status;
        }
        p->usable = status == TW_OK; /* what the library refuses is kept, so as not to ask again */
        p->next = *bucket;
        *bucket = p;
    }
    *out = p->usable ? p : NULL;
    return TW_OK;
}

size_t tw_dnn_scratch(const tw_dnn_plan *plan) {
    return plan->scratch;
}

tw_status tw_dnn_run(tw_device *d, const tw_dnn_plan *plan, void *const slot[TW_DNN_SLOTS], void *scratch) {
    cudnn *l = state_of(d);
    (void)tw_cuda_stream(d, TW_QUEUE_COMPUTE); /* makes the device current */
    tw_status status = execute(l, plan, plan->plan, slot, scratch);
    l->notes.runs += status == TW_OK;
    return status;
}
