#include "train/step.h"

#include <stdlib.h>

/* The loss's tape for one size of the global batch. */
typedef struct loss_tape {
    int64_t n;
    tw_tape *tape;
    tw_tensor *image, *text, *loss, *hits;
    tw_arena arena;
} loss_tape;

struct tw_stepper {
    tw_dual_encoder *model;
    tw_towers *towers;
    tw_device *device;
    tw_comm *comm;
    int64_t micro_batch;
    tw_step host, *record;
    loss_tape loss;
    float *features[2], *gradients[2]; /* local, image and text, (capacity, embed) */
    double accuracy[2];                /* of the last global batch: image to text, text to image */
    float *scalar;                     /* device, one float a rank */
    int64_t capacity, *counts;         /* samples of each rank; elements when scaled by embed */
};

tw_status tw_stepper_create(tw_dual_encoder *model, tw_towers *towers, tw_device *device, tw_comm *comm,
                            int64_t micro_batch, tw_stepper **out) {
    *out = NULL;
    tw_stepper *s = calloc(1, sizeof *s);
    if (!s) return FAIL(TW_ERR_MEMORY, "out of memory");
    *s = (tw_stepper){
        .model = model, .towers = towers, .device = device, .comm = comm, .micro_batch = micro_batch};
    s->loss.arena.device = device;
    s->counts = calloc((size_t)comm->ranks, 2 * sizeof *s->counts);
    tw_status status = s->counts ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
    if (status == TW_OK) status = device->alloc(device, sizeof *s->record, (void **)&s->record);
    if (status == TW_OK) status = device->alloc(device, (size_t)comm->ranks * 4, (void **)&s->scalar);
    if (status != TW_OK) {
        tw_stepper_free(s);
        return status;
    }
    *out = s;
    return TW_OK;
}

static void release_buffers(tw_stepper *s) {
    for (int i = 0; i < 2; i++) {
        s->device->release(s->device, s->features[i]);
        s->device->release(s->device, s->gradients[i]);
        s->features[i] = s->gradients[i] = NULL;
    }
    s->capacity = 0;
}

void tw_stepper_free(tw_stepper *s) {
    if (!s) return;
    release_buffers(s);
    tw_tape_free(s->loss.tape);
    tw_arena_release(&s->loss.arena);
    s->device->release(s->device, s->record);
    s->device->release(s->device, s->scalar);
    free(s->counts);
    free(s);
}

void tw_stepper_accuracy(const tw_stepper *s, double *image_to_text, double *text_to_image) {
    *image_to_text = s->accuracy[0];
    *text_to_image = s->accuracy[1];
}

tw_step *tw_stepper_record(tw_stepper *s) {
    return s->record;
}

size_t tw_stepper_bytes(const tw_stepper *s) {
    return s->loss.arena.bytes + (size_t)(4 * s->capacity * s->model->config.embed) * sizeof(float);
}

static tw_status reserve(tw_stepper *s, int64_t samples) {
    if (samples <= s->capacity) return TW_OK;
    release_buffers(s);
    size_t bytes = (size_t)(samples * s->model->config.embed) * sizeof(float);
    for (int i = 0; i < 2; i++) {
        TRY(s->device->alloc(s->device, bytes, (void **)&s->features[i]));
        TRY(s->device->alloc(s->device, bytes, (void **)&s->gradients[i]));
    }
    s->capacity = samples;
    return TW_OK;
}

static tw_status prepare_loss(tw_stepper *s, int64_t n) {
    loss_tape *l = &s->loss;
    if (l->tape && l->n == n) return TW_OK;
    tw_tape_free(l->tape);
    l->tape = NULL;
    TRY(tw_tape_create(s->device, true, TW_RECOMPUTE_NONE, &l->tape));
    int64_t shape[2] = {n, s->model->config.embed};
    l->image = tw_tape_input(l->tape, TW_F32, 2, shape, true);
    l->text = tw_tape_input(l->tape, TW_F32, 2, shape, true);
    l->loss = tw_contrastive_loss(l->tape, s->model, l->image, l->text);
    if (l->loss) l->hits = tw_tape_result(l->tape, l->loss, 1);
    TRY(tw_tape_finish(l->tape, 2, (tw_tensor *[]){l->loss, l->hits}));
    TRY(tw_arena_reserve(&l->arena, tw_tape_bytes(l->tape)));
    l->n = n;
    return tw_tape_bind(l->tape, &l->arena);
}

/* Every rank's number of samples, into counts[0 .. ranks); *global is their sum, *before that of the ranks
 * before this. */
static tw_status gather_sizes(tw_stepper *s, int64_t size, int64_t *global, int64_t *before) {
    tw_comm *c = s->comm;
    *global = *before = 0;
    float *host = calloc((size_t)c->ranks, 2 * sizeof *host);
    if (!host) return FAIL(TW_ERR_MEMORY, "out of memory");
    host[c->rank] = (float)size;
    size_t bytes = (size_t)c->ranks * sizeof *host;
    tw_status status = s->device->upload(s->device, TW_QUEUE_COMPUTE, s->scalar, host, bytes);
    if (status == TW_OK) status = c->all_reduce(c, s->scalar, c->ranks);
    if (status == TW_OK) status = c->sync(c);
    if (status == TW_OK) status = s->device->download(s->device, TW_QUEUE_COMPUTE, host, s->scalar, bytes);
    if (status == TW_OK) status = s->device->sync(s->device, TW_QUEUE_COMPUTE);
    for (int r = 0; r < c->ranks; r++) {
        s->counts[r] = (int64_t)host[r];
        s->counts[c->ranks + r] = s->counts[r] * s->model->config.embed;
        *global += s->counts[r];
        if (r < c->rank) *before += s->counts[r];
    }
    free(host);
    return status;
}

/* Forward of samples [at, at + n) of this rank; `first` is this rank's first sample in the global batch. */
static tw_status forward(tw_stepper *s, const tw_samples *samples, int64_t at, int64_t n, int64_t first,
                         int64_t global, const tw_tower_tape **out) {
    const tw_model_config *c = &s->model->config;
    const tw_tower_tape *t;
    TRY(tw_towers_get(s->towers, TW_TOWERS_TRAIN, n, &t));
    s->host.sample = (uint32_t)(first + at);
    s->host.share = (float)((double)n / (double)global);
    TRY(s->device->upload(s->device, TW_QUEUE_COMPUTE, s->record, &s->host, sizeof s->host));
    size_t image = tw_tensor_bytes(t->pixels) / (size_t)n;
    TRY(tw_tape_upload(t->tape, t->pixels, (const char *)samples->pixels + (size_t)at * image));
    TRY(tw_tape_upload(t->tape, t->ids, samples->ids + at * c->context));
    TRY(tw_tape_upload(t->tape, t->lengths, samples->lengths + at));
    *out = t;
    return tw_tape_forward(t->tape, s->record);
}

static tw_status keep_features(tw_stepper *s, const tw_tower_tape *t, int64_t at) {
    const tw_tensor *roots[2] = {t->image, t->text};
    for (int i = 0; i < 2; i++)
        TRY(s->device->copy(s->device, TW_QUEUE_COMPUTE, s->features[i] + at * s->model->config.embed,
                            roots[i]->data, tw_tensor_bytes(roots[i])));
    return TW_OK;
}

static tw_status backward(tw_stepper *s, const tw_tower_tape *t, int64_t at) {
    const tw_tensor *roots[2] = {t->image, t->text};
    for (int i = 0; i < 2; i++) {
        tw_tensor g = tw_tape_gradient(t->tape, roots[i]);
        if (!g.data) continue; /* a frozen tower */
        TRY(s->device->copy(s->device, TW_QUEUE_COMPUTE, g.data,
                            s->gradients[i] + at * s->model->config.embed, tw_tensor_bytes(&g)));
    }
    return tw_tape_backward(t->tape, s->record, NULL, NULL);
}

/* Features of all ranks in, loss out, gradients of this rank's features back. */
static tw_status run_loss(tw_stepper *s, int64_t global, double *loss) {
    TRY(prepare_loss(s, global));
    loss_tape *l = &s->loss;
    tw_comm *c = s->comm;
    const int64_t *elements = s->counts + c->ranks;
    const tw_tensor *inputs[2] = {l->image, l->text};
    for (int i = 0; i < 2; i++) TRY(c->all_gather(c, s->features[i], inputs[i]->data, elements));
    TRY(c->sync(c));
    TRY(tw_tape_forward(l->tape, s->record));
    float one = 1.0f, value;
    TRY(s->device->upload(s->device, TW_QUEUE_COMPUTE, tw_tape_gradient(l->tape, l->loss).data, &one,
                          sizeof one));
    TRY(tw_tape_backward(l->tape, s->record, NULL, NULL));
    for (int i = 0; i < 2; i++)
        TRY(c->reduce_scatter(c, tw_tape_gradient(l->tape, inputs[i]).data, s->gradients[i], elements));
    TRY(c->all_reduce(c, l->loss->data, 1));
    TRY(c->sync(c));
    TRY(tw_tape_download(l->tape, l->loss, &value));
    *loss = (double)value;
    int32_t hits[2];
    TRY(tw_tape_download(l->tape, l->hits, hits));
    for (int i = 0; i < 2; i++) s->accuracy[i] = (double)hits[i] / (double)global;
    return TW_OK;
}

tw_status tw_stepper_run(tw_stepper *s, const tw_samples *samples, uint64_t seed, int64_t step, double *loss,
                         int64_t *size) {
    int64_t first;
    TRY(gather_sizes(s, samples->size, size, &first));
    *loss = s->accuracy[0] = s->accuracy[1] = 0;
    TRY(tw_params_zero_gradients(s->model->params));
    if (*size == 0) return TW_OK;
    TRY(reserve(s, samples->size));
    s->host.seed = seed;
    s->host.step = (uint32_t)step;
    int64_t n = samples->size, micro = s->micro_batch > 0 && s->micro_batch < n ? s->micro_batch : n;
    bool whole = micro == n;
    const tw_tower_tape *t = NULL;
    for (int64_t at = 0; at < n; at += micro) {
        TRY(forward(s, samples, at, n - at < micro ? n - at : micro, first, *size, &t));
        TRY(keep_features(s, t, at));
    }
    TRY(run_loss(s, *size, loss));
    for (int64_t at = 0; at < n; at += micro) {
        if (!whole) TRY(forward(s, samples, at, n - at < micro ? n - at : micro, first, *size, &t));
        TRY(backward(s, t, at));
    }
    TRY(s->comm->all_reduce(s->comm, tw_params_gradients(s->model->params),
                            tw_params_trainable(s->model->params) + tw_params_statistics(s->model->params)));
    return s->comm->sync(s->comm);
}
