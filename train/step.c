#include "train/step_private.h"

#include "train/clock.h"
#include "train/comm_open.h"
#include "train/signals.h"

#include <stdlib.h>

static tw_status create_parts(tw_stepper *s, const tw_partition *partition) {
    if (!tw_on_cpu(s->device)) TRY(tw_inputs_create(s->device, &s->inputs));
    TRY(tw_graphs_create(s->device, true, &s->graphs));
    TRY(tw_contrastive_create(s->device, s->comm, s->model->logit_scale, s->model->config.embed, &s->loss));
    TRY(tw_buckets_create(s->model->params, s->comm, partition, &s->buckets));
    return s->device->alloc(s->device, sizeof *s->record, (void **)&s->record);
}

tw_status tw_stepper_create(tw_dual_encoder *model, tw_towers *towers, tw_device *device, tw_comm *comm,
                            const tw_partition *partition, int64_t micro_batch, tw_stepper **out) {
    *out = NULL;
    tw_stepper *s = calloc(1, sizeof *s);
    if (!s) return FAIL(TW_ERR_MEMORY, "out of memory");
    *s = (tw_stepper){
        .model = model, .towers = towers, .device = device, .comm = comm, .micro_batch = micro_batch};
    s->counts = calloc((size_t)comm->ranks, 3 * sizeof *s->counts);
    s->gathered = s->counts ? s->counts + comm->ranks : NULL;
    tw_status status = s->counts ? create_parts(s, partition) : FAIL(TW_ERR_MEMORY, "out of memory");
    if (status != TW_OK) {
        tw_stepper_free(s);
        return status;
    }
    *out = s;
    return TW_OK;
}

void tw_stepper_free(tw_stepper *s) {
    if (!s) return;
    tw_graphs_free(s->graphs);
    tw_inputs_free(s->inputs);
    tw_contrastive_free(s->loss);
    tw_buckets_free(s->buckets);
    s->device->release(s->device, s->record);
    free(s->counts);
    free(s);
}

tw_contrastive_result tw_stepper_result(const tw_stepper *s) {
    return s->result;
}

tw_stepper_times tw_stepper_last_times(const tw_stepper *s) {
    return s->times;
}

void tw_stepper_profile(tw_stepper *s, bool on) {
    s->profile = on;
}

tw_status tw_stepper_capture(tw_stepper *s, bool on) {
    tw_graphs *graphs;
    TRY(tw_graphs_create(s->device, on, &graphs));
    tw_graphs_free(s->graphs);
    s->graphs = graphs;
    return TW_OK;
}

void tw_stepper_heed(tw_stepper *s, bool (*should_stop)(void *context), void *context) {
    s->should_stop = should_stop;
    s->stop_context = context;
}

tw_graphs *tw_stepper_graphs(tw_stepper *s) {
    return s->graphs;
}

void tw_stepper_watch(tw_stepper *s, tw_step_results *results) {
    s->results = results;
}

void tw_stepper_set_rate(tw_stepper *s, double lr) {
    s->host.lr = (float)lr;
}

tw_status tw_stepper_wait_inputs(tw_stepper *s) {
    return s->inputs ? tw_inputs_wait(s->inputs) : TW_OK;
}

const float *tw_stepper_tallies(const tw_stepper *s) {
    return tw_contrastive_tallies(s->loss);
}

tw_step *tw_stepper_record(tw_stepper *s) {
    return s->record;
}

size_t tw_stepper_bytes(const tw_stepper *s) {
    return tw_contrastive_bytes(s->loss) + (s->inputs ? tw_inputs_bytes(s->inputs) : 0);
}

/* Whether the towers themselves communicate: then all ranks have as many micro-batches, some of them empty,
 * and what they do cannot be captured. */
static bool is_synchronised(const tw_stepper *s) {
    return s->model->config.image.kind == TW_RESNET && s->model->resnet.sync;
}

/* Every rank's number of samples, into s->counts. */
static tw_status agree(tw_stepper *s, const tw_samples *samples, tw_step_cut *c) {
    int64_t n = samples->size, *all = s->gathered, most = 0;
    *c = (tw_step_cut){.samples = samples,
                       .micro = s->micro_batch > 0 && s->micro_batch < n ? s->micro_batch : n};
    c->parts = n ? (n + c->micro - 1) / c->micro : 0;
    TRY(s->comm->gather_all(s->comm, (int64_t[]){n, c->parts}, 2 * sizeof n, all));
    for (int r = 0; r < s->comm->ranks; r++) {
        if (r < s->comm->rank) c->first += all[2 * r];
        c->global += s->counts[r] = all[2 * r];
        if (all[2 * r + 1] > most) most = all[2 * r + 1];
    }
    if (is_synchronised(s)) c->parts = most;
    /* Ranks with one micro-batch each are soon done, and meet once less. */
    s->heeds = s->should_stop && (s->comm->ranks == 1 || most > 1);
    s->asked = false;
    return TW_OK;
}

/* ---- asked to stop ---- */

static bool is_asked(tw_stepper *s) {
    if (s->heeds && !s->asked) s->asked = s->should_stop(s->stop_context);
    return s->asked;
}

/* Whether this rank leaves the rest of its micro-batches: the ranks agree where they meet next. Those whose
 * towers communicate go together. */
static bool leaves(tw_stepper *s) {
    return !is_synchronised(s) && is_asked(s);
}

static tw_status agree_to_go_on(tw_stepper *s) {
    bool stop;
    if (!s->heeds) return TW_OK;
    TRY(tw_stop_agree(s->comm, is_asked(s), &stop));
    if (!stop) return TW_OK;
    return FAIL(TW_ERR_INTERRUPTED, "step %u was under way and is dropped", s->host.step + 1);
}

/* The time at which what was asked for so far is done. */
static tw_status look(tw_stepper *s, double *at) {
    if (s->profile && is_synchronised(s)) TRY(s->comm->sync(s->comm)); /* what the towers' queue waits for */
    if (s->profile) TRY(s->device->sync(s->device, TW_QUEUE_COMPUTE));
    *at = tw_seconds();
    return TW_OK;
}

static tw_status end_of_image(void *context) {
    tw_stepper *s = context;
    return look(s, &s->image_end);
}

/* ---- a step's parts ---- */

typedef struct work {
    tw_stepper *s;
    const tw_tower_tape *t;
} work;

static tw_status queue_forward(void *context) {
    const work *w = context;
    return tw_tape_forward(w->t->tape, w->s->record);
}

static tw_status queue_backward(void *context) {
    const work *w = context;
    return tw_tape_backward(w->t->tape, w->s->record, NULL, NULL);
}

static tw_status queue_first_backward(void *context) {
    const work *w = context;
    return tw_tape_backward_first(w->t->tape, w->s->record, NULL, NULL);
}

static tw_status run_tape(tw_stepper *s, const tw_tower_tape *t, tw_graph_part which,
                          tw_status (*body)(void *)) {
    work w = {s, t};
    if (is_synchronised(s)) return body(&w);
    return tw_graphs_run(s->graphs, tw_tape_version(t->tape), which, body, &w);
}

static tw_status queue_loss(void *context) {
    return tw_contrastive_run(((const work *)context)->s->loss);
}

/* Before the loss, which adds to logit_scale's. t: what goes back first and writes its own; NULL: nothing
 * does. */
static tw_status zero_gradients(tw_stepper *s, const tw_tower_tape *t) {
    double start, end;
    TRY(look(s, &start));
    TRY(t ? tw_tape_zero_others(t->tape, s->model->params) : tw_params_zero_gradients(s->model->params));
    TRY(look(s, &end));
    s->times.backward = end - start;
    return TW_OK;
}

/* The step's first input is there: what the device does from here on is no waiting for data. */
static tw_status begin_work(tw_stepper *s) {
    if (s->ready) return TW_OK;
    s->ready = true;
    return s->results ? tw_step_results_ready(s->results) : TW_OK;
}

/* Its draws belong to the samples: repeated, it gives the same features. */
static tw_status run_forward(tw_stepper *s, const tw_step_cut *c, int64_t part, const tw_tower_tape **out) {
    const tw_tower_tape *t;
    int64_t n = tw_step_part_size(c, part);
    const int32_t *lengths = n > 0 ? c->samples->lengths + part * c->micro : NULL;
    TRY(tw_towers_get_texts(s->towers, TW_TOWERS_TRAIN, n, lengths, &t));
    TRY(tw_step_bring_inputs(s, c, part, t));
    TRY(begin_work(s));
    *out = t;
    if (s->profile) return tw_tape_forward_probed(t->tape, s->record, t->image, end_of_image, s);
    return run_tape(s, t, TW_GRAPH_FORWARD, queue_forward);
}

static tw_status forward(tw_stepper *s, const tw_step_cut *c, int64_t part, const tw_tower_tape **out) {
    double start, end;
    TRY(look(s, &start));
    /* Taking a further part's inputs may wait for the device, so for what the towers have exchanged. */
    if (is_synchronised(s)) TRY(s->comm->sync(s->comm));
    TRY(run_forward(s, c, part, out));
    TRY(look(s, &end));
    s->times.forward += end - start;
    if (s->profile) s->times.text += end - s->image_end;
    return TW_OK;
}

static tw_status keep_features(tw_stepper *s, const tw_step_cut *c, int64_t part, const tw_tower_tape *t) {
    int64_t to = part * c->micro * s->model->config.embed;
    tw_device *d = s->device;
    if (t->batch == 0) return TW_OK;
    TRY(d->copy(d, TW_QUEUE_COMPUTE, tw_contrastive_image(s->loss) + to, t->image->data,
                tw_tensor_bytes(t->image)));
    return d->copy(d, TW_QUEUE_COMPUTE, tw_contrastive_text(s->loss) + to, t->text->data,
                   tw_tensor_bytes(t->text));
}

static tw_status backward(tw_stepper *s, const tw_step_cut *c, int64_t part, const tw_tower_tape *t) {
    const tw_tensor *roots[2] = {t->image, t->text};
    const float *gradients[2] = {tw_contrastive_image_gradient(s->loss),
                                 tw_contrastive_text_gradient(s->loss)};
    for (int i = 0; i < 2; i++) {
        tw_tensor g = tw_tape_gradient(t->tape, roots[i]);
        if (!g.data || t->batch == 0) continue; /* a frozen tower */
        TRY(s->device->copy(s->device, TW_QUEUE_COMPUTE, g.data,
                            gradients[i] + part * c->micro * s->model->config.embed, tw_tensor_bytes(&g)));
    }
    bool first = part == c->parts - 1;
    if (part > 0 || s->comm->ranks == 1) /* without other ranks nothing is to be done on the way */
        return run_tape(s, t, first ? TW_GRAPH_FIRST_BACKWARD : TW_GRAPH_BACKWARD,
                        first ? queue_first_backward : queue_backward);
    TRY(tw_buckets_expect(s->buckets, t->tape));
    return (first ? tw_tape_backward_first : tw_tape_backward)(t->tape, s->record, tw_buckets_hook,
                                                               s->buckets);
}

/* From the last part, whose forward is still there, back to the first, in which ranks meet. */
static tw_status walk_back(tw_stepper *s, const tw_step_cut *c, const tw_tower_tape *t) {
    int64_t last = c->parts - 1;
    for (int64_t part = last; part > 0 && !leaves(s); part--) {
        if (part < last) TRY(forward(s, c, part, &t));
        TRY(backward(s, c, part, t));
    }
    if (last > 0 && !leaves(s)) TRY(forward(s, c, 0, &t));
    TRY(agree_to_go_on(s));
    return last < 0 ? TW_OK : backward(s, c, 0, t);
}

static tw_status make_features(tw_stepper *s, const tw_step_cut *c, const tw_tower_tape **t) {
    for (int64_t part = 0; part < c->parts && !leaves(s); part++) {
        TRY(forward(s, c, part, t));
        TRY(keep_features(s, c, part, *t));
    }
    return TW_OK;
}

static tw_status find_loss(tw_stepper *s) {
    double start, end, waited = tw_comm_times_of(s->comm).waited;
    TRY(look(s, &start));
    work w = {.s = s};
    TRY(s->comm->ranks > 1
            ? queue_loss(&w)
            : tw_graphs_run(s->graphs, tw_contrastive_version(s->loss), TW_GRAPH_LOSS, queue_loss, &w));
    TRY(look(s, &end));
    s->times.exchange = tw_comm_times_of(s->comm).waited - waited;
    s->times.loss = end - start - s->times.exchange;
    return TW_OK;
}

static tw_status find_gradients(tw_stepper *s, const tw_step_cut *c, const tw_tower_tape *t) {
    double start, end, again = s->times.forward, busy = tw_comm_times_of(s->comm).busy;
    TRY(look(s, &start));
    TRY(walk_back(s, c, t));
    TRY(look(s, &end));
    s->times.backward += end - start - (s->times.forward - again);
    TRY(tw_buckets_finish(s->buckets));
    TRY(look(s, &start));
    s->times.waited = start - end;
    s->times.reduced = tw_comm_times_of(s->comm).busy - busy;
    return TW_OK;
}

static tw_status run(tw_stepper *s, const tw_step_cut *c, double *loss) {
    const tw_tower_tape *t = NULL;
    if (s->results) TRY(tw_step_results_begin(s->results));
    TRY(tw_step_send_next(s, c));
    TRY(tw_contrastive_begin(s->loss, s->counts));
    TRY(make_features(s, c, &t));
    TRY(agree_to_go_on(s));
    TRY(begin_work(s)); /* nothing was to be brought */
    TRY(zero_gradients(s, t));
    TRY(find_loss(s));
    TRY(find_gradients(s, c, t));
    if (!loss) return TW_OK;
    TRY(tw_contrastive_read(s->loss, &s->result));
    *loss = s->result.loss;
    return TW_OK;
}

tw_status tw_stepper_run(tw_stepper *s, const tw_samples *samples, uint64_t seed, int64_t step, double *loss,
                         int64_t *size) {
    tw_step_cut c;
    TRY(agree(s, samples, &c));
    *size = c.global;
    if (loss) *loss = 0;
    s->result = (tw_contrastive_result){0};
    s->times = (tw_stepper_times){0};
    s->host.seed = seed;
    s->host.step = (uint32_t)step;
    s->sent = 0;
    s->ready = false;
    if (c.global == 0) return zero_gradients(s, NULL);
    tw_status status = run(s, &c, loss);
    if (status != TW_OK && s->inputs) tw_inputs_drop(s->inputs);
    return status;
}
