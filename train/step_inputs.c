#include "train/step_private.h"

#include <string.h>

int64_t tw_step_part_size(const tw_step_cut *c, int64_t part) {
    int64_t left = c->samples->size - part * c->micro;
    return left < 0 ? 0 : left < c->micro ? left : c->micro;
}

enum { PIXELS, IDS, LENGTHS, INPUTS };

/* Where a part's inputs lie, and the step's record of it. */
static tw_step inputs_of(const tw_stepper *s, const tw_step_cut *c, int64_t part,
                         tw_input_copy copies[INPUTS]) {
    int64_t at = part * c->micro, n = tw_step_part_size(c, part), context = s->model->config.context;
    size_t image = tw_towers_image_bytes(s->towers);
    memset(copies, 0, INPUTS * sizeof *copies);
    if (n > 0) {
        copies[PIXELS] = (tw_input_copy){.host = (const char *)c->samples->pixels + (size_t)at * image,
                                         .bytes = (size_t)n * image};
        copies[IDS] = (tw_input_copy){.host = c->samples->ids + at * context,
                                      .bytes = (size_t)(n * context) * sizeof(int32_t)};
        copies[LENGTHS] =
            (tw_input_copy){.host = c->samples->lengths + at, .bytes = (size_t)n * sizeof(int32_t)};
    }
    tw_step record = s->host;
    record.sample = (uint32_t)(c->first + at);
    record.share = (float)((double)n / (double)c->global);
    return record;
}

/* The part whose features the i-th forward of a step computes: all in order, then, but for the last, all once
 * more and back. */
static int64_t part_of(const tw_step_cut *c, int64_t i) {
    return i < c->parts ? i : 2 * c->parts - 2 - i;
}

tw_status tw_step_send_next(tw_stepper *s, const tw_step_cut *c) {
    tw_input_copy copies[INPUTS];
    if (!s->inputs || s->sent >= 2 * c->parts - 1) return TW_OK;
    tw_step record = inputs_of(s, c, part_of(c, s->sent), copies);
    TRY(tw_inputs_send(s->inputs, copies, INPUTS, &record, sizeof record));
    s->sent++;
    return TW_OK;
}

tw_status tw_step_bring_inputs(tw_stepper *s, const tw_step_cut *c, int64_t part, const tw_tower_tape *t) {
    tw_device *d = s->device;
    tw_input_copy copies[INPUTS];
    tw_tensor *const to[INPUTS] = {t->pixels, t->ids, t->lengths};
    tw_step record = inputs_of(s, c, part, copies);
    for (int i = 0; i < INPUTS; i++) copies[i].device = to[i]->data;
    if (s->inputs) {
        TRY(tw_inputs_take(s->inputs, copies, INPUTS, s->record));
        return tw_step_send_next(s, c);
    }
    TRY(d->upload(d, TW_QUEUE_COMPUTE, s->record, &record, sizeof record));
    for (int i = 0; i < INPUTS; i++)
        TRY(d->upload(d, TW_QUEUE_COMPUTE, copies[i].device, copies[i].host, copies[i].bytes));
    return TW_OK;
}
