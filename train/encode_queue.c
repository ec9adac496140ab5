#include "train/encode_queue.h"

#include "train/inputs.h"

#include <stdlib.h>

struct tw_encode_queue {
    tw_towers *towers;
    tw_device *device;
    tw_inputs *inputs; /* NULL: the device's memory is the host's */
    int64_t batch, embed;
    float *features; /* pinned, (TW_ENCODE_DEPTH, batch, embed) */
    tw_event *ready[TW_ENCODE_DEPTH];
    int64_t puts, gets;
};

tw_status tw_encode_queue_create(tw_towers *towers, int64_t batch, int64_t embed, tw_encode_queue **out) {
    tw_encode_queue *q = *out = calloc(1, sizeof *q);
    if (!q) return FAIL(TW_ERR_MEMORY, "out of memory");
    *q = (tw_encode_queue){
        .towers = towers, .device = tw_towers_device(towers), .batch = batch, .embed = embed};
    tw_device *d = q->device;
    size_t bytes = (size_t)(TW_ENCODE_DEPTH * batch * embed) * sizeof *q->features;
    tw_status status = d->pinned_alloc(d, bytes, (void **)&q->features);
    if (status == TW_OK && !tw_on_cpu(d)) status = tw_inputs_create(d, &q->inputs);
    if (status == TW_OK) return TW_OK;
    tw_encode_queue_free(q);
    *out = NULL;
    return status;
}

void tw_encode_queue_free(tw_encode_queue *q) {
    if (!q) return;
    tw_device *d = q->device;
    /* After an error the queue may still write features and read pixels; what it says then has been told. */
    if (q->inputs) {
        (void)!d->sync(d, TW_QUEUE_COMPUTE);
        (void)!tw_inputs_wait(q->inputs);
    }
    for (int i = 0; i < TW_ENCODE_DEPTH; i++) d->event_release(d, q->ready[i]);
    tw_inputs_free(q->inputs);
    d->pinned_release(d, q->features);
    free(q);
}

int tw_encode_queue_depth(const tw_encode_queue *q) {
    return q->inputs ? TW_ENCODE_DEPTH : 1;
}

static float *slot(const tw_encode_queue *q, int64_t number) {
    return q->features + number % TW_ENCODE_DEPTH * q->batch * q->embed;
}

static tw_status bring_pixels(tw_encode_queue *q, const tw_tower_tape *t, const uint8_t *pixels) {
    if (!q->inputs) return tw_tape_upload(t->tape, t->pixels, pixels);
    tw_input_copy copy = {.host = pixels, .device = t->pixels->data, .bytes = tw_tensor_bytes(t->pixels)};
    TRY(tw_inputs_send(q->inputs, &copy, 1, NULL, 0));
    return tw_inputs_take(q->inputs, &copy, 1, NULL);
}

tw_status tw_encode_queue_put(tw_encode_queue *q, const uint8_t *pixels, int64_t n) {
    tw_device *d = q->device;
    const tw_tower_tape *t;
    if (n < 1 || n > q->batch || q->puts - q->gets >= tw_encode_queue_depth(q))
        return FAIL(TW_ERR_ARGUMENT, "a batch of %lld images for room of %lld, %lld under way", (long long)n,
                    (long long)q->batch, (long long)(q->puts - q->gets));
    TRY(tw_towers_get(q->towers, TW_TOWER_IMAGE, n, &t));
    TRY(bring_pixels(q, t, pixels));
    TRY(tw_tape_forward(t->tape, NULL));
    TRY(d->download(d, TW_QUEUE_COMPUTE, slot(q, q->puts), t->image->data, tw_tensor_bytes(t->image)));
    TRY(d->record(d, TW_QUEUE_COMPUTE, &q->ready[q->puts % TW_ENCODE_DEPTH]));
    q->puts++;
    return TW_OK;
}

tw_status tw_encode_queue_read(tw_encode_queue *q) {
    return q->inputs ? tw_inputs_wait(q->inputs) : TW_OK;
}

tw_status tw_encode_queue_get(tw_encode_queue *q, const float **features) {
    if (q->gets >= q->puts) return FAIL(TW_ERR_ARGUMENT, "no batch is under way");
    TRY(q->device->await(q->device, q->ready[q->gets % TW_ENCODE_DEPTH]));
    *features = slot(q, q->gets++);
    return TW_OK;
}
