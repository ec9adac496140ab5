/* What the ranks exchange between forward and backward: a column's log-sum-exp over all rows is that of the
 * ranks' log-sum-exps p_r, total = log sum_r exp(p_r), and d total / d p_r = exp(p_r - total). So the owner
 * of a column gets its p_r from all ranks, and sends each one its weight back as the gradient of p_r: N
 * numbers there, N back. Backward multiplies the weight with exp(x - p_r), where p_r is the same f32 number:
 * its rounding cancels. */
#include "layers/contrastive.h"

#include "autograd/ops/split_math.h"

#include <stdlib.h>

enum { TALLY = TW_CONTRASTIVE_TALLY }; /* of a rank, as contrastive_sums gives it */

struct tw_contrastive {
    tw_device *device;
    tw_comm *comm;
    const tw_param *logit_scale;
    int64_t embed;
    int64_t n, own, first; /* pairs of all ranks, of this one, and of the ranks before it */
    int64_t *counts;       /* (4, ranks): pairs of each rank; the same in elements; own pairs everywhere;
                              TALLY everywhere */
    tw_tape *tape;         /* for n, own and first */
    tw_arena arena;
    tw_tensor *image, *text;
    tw_contrastive_parts parts;
    float *columns[2]; /* device (ranks, own): of own columns every rank's log-sum-exp, later their weight;
                          every rank's largest logit */
    int64_t capacity;  /* of each, elements */
    float *tally, *tallies; /* device (TALLY), (ranks, TALLY) */
    tw_call sums;           /* contrastive_sums of the own columns */
    tw_contrastive_sums_attr sums_attr;
    void *scratch; /* device, of sums */
    size_t scratch_bytes;
};

enum { PAIRS, ELEMENTS, OWN, TALLIES, COUNTS };

tw_contrastive_parts tw_contrastive_record(tw_tape *tape, const tw_param *logit_scale, tw_tensor *image,
                                           tw_tensor *text, int64_t first) {
    tw_contrastive_loss_attr attr = {.first = first};
    tw_tensor *inputs[] = {image, text, tw_tape_param(tape, logit_scale)};
    tw_tensor *r = tw_tape_record(tape, TW_OP_contrastive_loss, &attr, 3, inputs);
    if (!r) return (tw_contrastive_parts){0};
    return (tw_contrastive_parts){r, tw_tape_result(tape, r, 1), tw_tape_result(tape, r, 2),
                                  tw_tape_result(tape, r, 3), tw_tape_result(tape, r, 4)};
}

tw_status tw_contrastive_create(tw_device *device, tw_comm *comm, const tw_param *logit_scale, int64_t embed,
                                tw_contrastive **out) {
    tw_contrastive *c = *out = calloc(1, sizeof *c);
    if (!c) return FAIL(TW_ERR_MEMORY, "out of memory");
    *c = (tw_contrastive){
        .device = device, .comm = comm, .logit_scale = logit_scale, .embed = embed, .arena.device = device};
    size_t bytes = TALLY * sizeof(float);
    c->counts = calloc((size_t)comm->ranks, COUNTS * sizeof *c->counts);
    tw_status status = c->counts ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
    if (status == TW_OK) status = device->alloc(device, bytes, (void **)&c->tally);
    if (status == TW_OK) status = device->alloc(device, bytes * (size_t)comm->ranks, (void **)&c->tallies);
    if (status == TW_OK) return TW_OK;
    tw_contrastive_free(c);
    *out = NULL;
    return status;
}

void tw_contrastive_free(tw_contrastive *c) {
    if (!c) return;
    tw_tape_free(c->tape);
    tw_arena_release(&c->arena);
    void *blocks[] = {c->columns[0], c->columns[1], c->tally, c->tallies, c->scratch};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) c->device->release(c->device, blocks[i]);
    free(c->counts);
    free(c);
}

size_t tw_contrastive_bytes(const tw_contrastive *c) {
    return c->arena.bytes + 2 * (size_t)c->capacity * sizeof(float) + c->scratch_bytes;
}

static int64_t *counts_of(const tw_contrastive *c, int which) {
    return c->counts + (int64_t)which * c->comm->ranks;
}

static tw_status make_tape(tw_contrastive *c) {
    tw_tape_free(c->tape);
    c->tape = NULL;
    TRY(tw_tape_create(c->device, true, TW_RECOMPUTE_NONE, &c->tape));
    c->image = tw_tape_input(c->tape, TW_F32, 2, (int64_t[]){c->own, c->embed}, true);
    c->text = tw_tape_input(c->tape, TW_F32, 2, (int64_t[]){c->n, c->embed}, true);
    c->parts = tw_contrastive_record(c->tape, c->logit_scale, c->image, c->text, c->first);
    tw_contrastive_parts *p = &c->parts;
    TRY(tw_tape_finish(c->tape, 5,
                       (tw_tensor *[]){p->row_lse, p->column_lse, p->target, p->most, p->is_first}));
    TRY(tw_arena_reserve(&c->arena, tw_tape_bytes(c->tape)));
    return tw_tape_bind(c->tape, &c->arena);
}

static tw_status make_columns(tw_contrastive *c) {
    int64_t need = c->own * c->comm->ranks;
    if (need <= c->capacity) return TW_OK;
    c->capacity = 0;
    for (int i = 0; i < 2; i++) {
        c->device->release(c->device, c->columns[i]);
        c->columns[i] = NULL;
        TRY(c->device->alloc(c->device, (size_t)need * sizeof(float), (void **)&c->columns[i]));
    }
    c->capacity = need;
    return TW_OK;
}

/* The call that makes loss and slopes of the own columns. */
static tw_status prepare_sums(tw_contrastive *c) {
    int64_t own = c->own, columns[2] = {c->comm->ranks, own}, flags[2] = {2, own};
    tw_call *s = &c->sums;
    c->sums_attr = (tw_contrastive_sums_attr){.rank = c->comm->rank, .pairs = c->n};
    *s = (tw_call){.op = TW_OP_contrastive_sums, .device = c->device, .attr = &c->sums_attr, .n_inputs = 5};
    s->input[0] = tw_tensor_of(c->columns[0], TW_F32, 2, columns);
    s->input[1] = tw_tensor_of(c->columns[1], TW_F32, 2, columns);
    s->input[2] = tw_tensor_of(c->parts.row_lse->data, TW_F32, 1, &own);
    s->input[3] = tw_tensor_of(c->parts.target->data, TW_F32, 1, &own);
    s->input[4] = tw_tensor_of(c->parts.is_first->data, TW_I32, 2, flags);
    TRY(tw_op_prepare(s));
    s->output[0].data = c->tally;
    s->output[1].data = tw_tape_gradient(c->tape, c->parts.row_lse).data;
    s->output[2].data = tw_tape_gradient(c->tape, c->parts.target).data;
    if (s->forward_scratch > c->scratch_bytes) {
        c->device->release(c->device, c->scratch);
        c->scratch = NULL;
        c->scratch_bytes = 0;
        TRY(c->device->alloc(c->device, s->forward_scratch, &c->scratch));
        c->scratch_bytes = s->forward_scratch;
    }
    s->scratch = c->scratch;
    return TW_OK;
}

tw_status tw_contrastive_begin(tw_contrastive *c, const int64_t *counts) {
    int64_t n = 0, own = counts[c->comm->rank], first = 0;
    for (int r = 0; r < c->comm->ranks; r++) {
        if (r == c->comm->rank) first = n;
        n += counts[r];
        counts_of(c, PAIRS)[r] = counts[r];
        counts_of(c, ELEMENTS)[r] = counts[r] * c->embed;
        counts_of(c, OWN)[r] = own;
        counts_of(c, TALLIES)[r] = TALLY;
    }
    bool same = c->tape && n == c->n && own == c->own && first == c->first;
    c->n = n, c->own = own, c->first = first;
    TRY(make_columns(c));
    if (same) return TW_OK;
    TRY(make_tape(c));
    return prepare_sums(c);
}

float *tw_contrastive_image(const tw_contrastive *c) {
    return c->image->data;
}

float *tw_contrastive_text(const tw_contrastive *c) {
    return (float *)c->text->data + c->first * c->embed;
}

const float *tw_contrastive_image_gradient(const tw_contrastive *c) {
    return tw_tape_gradient(c->tape, c->image).data;
}

const float *tw_contrastive_text_gradient(const tw_contrastive *c) {
    return (const float *)tw_tape_gradient(c->tape, c->text).data + c->first * c->embed;
}

/* ---- the loss ---- */

/* Between forward and backward: own columns of all ranks, what they sum up to, and each rank's slopes. */
static tw_status exchange(tw_contrastive *c) {
    tw_comm *comm = c->comm;
    const int64_t *pairs = counts_of(c, PAIRS), *mine = counts_of(c, OWN);
    TRY(comm->all_to_all(comm, c->parts.column_lse->data, pairs, c->columns[0], mine));
    TRY(comm->all_to_all(comm, c->parts.most->data, pairs, c->columns[1], mine));
    TRY(comm->sync(comm));
    TRY(tw_op_forward(&c->sums));
    TRY(comm->all_to_all(comm, c->columns[0], mine, tw_tape_gradient(c->tape, c->parts.column_lse).data,
                         pairs));
    TRY(comm->all_gather(comm, c->tally, c->tallies, counts_of(c, TALLIES)));
    return comm->sync(comm);
}

tw_status tw_contrastive_run(tw_contrastive *c) {
    tw_comm *comm = c->comm;
    if (c->n == 0)
        return c->device->zero(c->device, TW_QUEUE_COMPUTE, c->tallies,
                               (size_t)comm->ranks * TALLY * sizeof *c->tallies);
    const int64_t *elements = counts_of(c, ELEMENTS);
    TRY(comm->all_gather(comm, tw_contrastive_text(c), c->text->data, elements));
    TRY(comm->sync(comm));
    TRY(tw_tape_forward(c->tape, NULL));
    TRY(exchange(c));
    TRY(tw_tape_backward(c->tape, NULL, NULL, NULL));
    float *gradient = tw_tape_gradient(c->tape, c->text).data;
    TRY(comm->reduce_scatter(comm, gradient, gradient + c->first * c->embed, elements));
    return comm->sync(comm);
}

uint64_t tw_contrastive_version(const tw_contrastive *c) {
    return c->tape ? tw_tape_version(c->tape) : 0;
}

const float *tw_contrastive_tallies(const tw_contrastive *c) {
    return c->tallies;
}

tw_contrastive_result tw_contrastive_result_of(const float *tallies, int ranks, int64_t pairs) {
    tw_contrastive_result result = {0};
    double loss = 0, images = 0, texts = 0, n = (double)pairs;
    if (pairs == 0) return result;
    for (int r = ranks - 1; r >= 0; r--) {
        float bad = tallies[r * TALLY + TW_SPLIT + 2];
        if (bad < 0) continue;
        result.bad_ranks++;
        result.bad_rank = r;
        result.bad_pair = (int64_t)bad;
    }
    for (int r = 0; r < ranks; r++) {
        loss += tw_joined(tallies + r * TALLY);
        images += (double)tallies[r * TALLY + TW_SPLIT];
        texts += (double)tallies[r * TALLY + TW_SPLIT + 1];
    }
    result.loss = loss / (2 * n);
    result.image_to_text = images / n;
    result.text_to_image = texts / n;
    return result;
}

tw_status tw_contrastive_read(const tw_contrastive *c, tw_contrastive_result *result) {
    tw_device *d = c->device;
    size_t bytes = (size_t)c->comm->ranks * TALLY * sizeof(float);
    float *host = malloc(bytes);
    if (!host) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = d->download(d, TW_QUEUE_COMPUTE, host, c->tallies, bytes);
    if (status == TW_OK) status = d->sync(d, TW_QUEUE_COMPUTE);
    if (status == TW_OK) *result = tw_contrastive_result_of(host, c->comm->ranks, c->n);
    free(host);
    return status;
}
