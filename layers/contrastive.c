/* What the ranks exchange between forward and backward: a column's log-sum-exp over all rows is that of the
 * ranks' log-sum-exps p_r, total = log sum_r exp(p_r), and d total / d p_r = exp(p_r - total). So the owner
 * of a column gets its p_r from all ranks, and sends each one its weight back as the gradient of p_r: N
 * numbers there, N back. Backward multiplies the weight with exp(x - p_r), where p_r is the same f32 number:
 * its rounding cancels. */
#include "layers/contrastive.h"

#include <math.h>
#include <stdlib.h>

struct tw_contrastive {
    tw_device *device;
    tw_comm *comm;
    const tw_param *logit_scale;
    int64_t embed;
    int64_t n, own, first; /* pairs of all ranks, of this one, and of the ranks before it */
    int64_t *counts;       /* (4, ranks): pairs of each rank; the same in elements; own pairs everywhere */
    tw_tape *tape;         /* for n, own and first */
    tw_arena arena;
    tw_tensor *image, *text;
    tw_contrastive_parts parts;
    float *columns[2]; /* device (ranks, own): of own columns every rank's log-sum-exp, later their weight;
                          every rank's largest logit */
    int64_t capacity;  /* of each, elements */
};

enum { PAIRS, ELEMENTS, OWN, COUNTS };

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
    c->counts = calloc((size_t)comm->ranks, COUNTS * sizeof *c->counts);
    if (c->counts) return TW_OK;
    tw_contrastive_free(c);
    *out = NULL;
    return FAIL(TW_ERR_MEMORY, "out of memory");
}

void tw_contrastive_free(tw_contrastive *c) {
    if (!c) return;
    tw_tape_free(c->tape);
    tw_arena_release(&c->arena);
    for (int i = 0; i < 2; i++) c->device->release(c->device, c->columns[i]);
    free(c->counts);
    free(c);
}

size_t tw_contrastive_bytes(const tw_contrastive *c) {
    return c->arena.bytes + 2 * (size_t)c->capacity * sizeof(float);
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

tw_status tw_contrastive_begin(tw_contrastive *c, const int64_t *counts) {
    int64_t n = 0, own = counts[c->comm->rank], first = 0;
    for (int r = 0; r < c->comm->ranks; r++) {
        if (r == c->comm->rank) first = n;
        n += counts[r];
        counts_of(c, PAIRS)[r] = counts[r];
        counts_of(c, ELEMENTS)[r] = counts[r] * c->embed;
        counts_of(c, OWN)[r] = own;
    }
    bool same = c->tape && n == c->n && own == c->own && first == c->first;
    c->n = n, c->own = own, c->first = first;
    TRY(make_columns(c));
    return same ? TW_OK : make_tape(c);
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

/* ---- between forward and backward, on the host ---- */

/* What this rank knows of its own rows and columns. */
typedef struct own_part {
    float *lse, *most; /* (ranks, own) of own columns; lse becomes the weights */
    float *row_lse, *target;
    int32_t *is_first; /* (2, own) */
    void *block;       /* all of them */
} own_part;

static tw_status allocate(const tw_contrastive *c, own_part *p) {
    size_t own = (size_t)c->own, columns = own * (size_t)c->comm->ranks;
    float *at = p->block = malloc((2 * columns + 2 * own) * sizeof(float) + 2 * own * sizeof(int32_t) + 1);
    if (!at) return FAIL(TW_ERR_MEMORY, "out of memory: the loss of %lld pairs", (long long)c->own);
    p->lse = at;
    p->most = at += columns;
    p->row_lse = at += columns;
    p->target = at += own;
    p->is_first = (int32_t *)(void *)(at + own);
    return TW_OK;
}

static tw_status download(const tw_contrastive *c, own_part *p) {
    tw_device *d = c->device;
    size_t bytes = (size_t)c->own * sizeof(float), all = bytes * (size_t)c->comm->ranks;
    TRY(d->download(d, TW_QUEUE_COMPUTE, p->lse, c->columns[0], all));
    TRY(d->download(d, TW_QUEUE_COMPUTE, p->most, c->columns[1], all));
    TRY(d->download(d, TW_QUEUE_COMPUTE, p->row_lse, c->parts.row_lse->data, bytes));
    TRY(d->download(d, TW_QUEUE_COMPUTE, p->target, c->parts.target->data, bytes));
    TRY(d->download(d, TW_QUEUE_COMPUTE, p->is_first, c->parts.is_first->data, 2 * bytes));
    return d->sync(d, TW_QUEUE_COMPUTE);
}

/* Own column j's log-sum-exp over all ranks; its entries become the weights / 2N. */
static double combine_column(const tw_contrastive *c, float *lse, int64_t j) {
    double most = -INFINITY, sum = 0, total;
    int ranks = c->comm->ranks;
    for (int r = 0; r < ranks; r++) most = fmax(most, (double)lse[r * c->own + j]);
    for (int r = 0; r < ranks; r++) sum += exp((double)lse[r * c->own + j] - most);
    total = most + log(sum);
    for (int r = 0; r < ranks; r++) {
        float *x = &lse[r * c->own + j];
        *x = (float)(exp((double)*x - total) / (2 * (double)c->n));
    }
    return total;
}

/* Whether own column j's target is the first of the largest of all rows. */
static bool column_hit(const tw_contrastive *c, const own_part *p, int64_t j) {
    bool hit = p->is_first[c->own + j];
    for (int r = 0; r < c->comm->ranks; r++) {
        float most = p->most[r * c->own + j];
        if (r < c->comm->rank) hit &= p->target[j] > most;
        if (r > c->comm->rank) hit &= p->target[j] >= most;
    }
    return hit;
}

typedef struct tally {
    double loss; /* 2N times */
    int64_t image_hits, text_hits;
} tally;

static tally combine(const tw_contrastive *c, own_part *p) {
    tally t = {0};
    for (int64_t j = 0; j < c->own; j++) {
        t.image_hits += p->is_first[j];
        t.text_hits += column_hit(c, p, j);
        t.loss += combine_column(c, p->lse, j) + (double)p->row_lse[j] - 2 * (double)p->target[j];
    }
    return t;
}

/* The gradients of the operation's results: weights of the columns from their owners, constants of the rows.
 */
static tw_status give_gradients(tw_contrastive *c, own_part *p) {
    tw_device *d = c->device;
    size_t bytes = (size_t)c->own * sizeof(float);
    TRY(d->upload(d, TW_QUEUE_COMPUTE, c->columns[0], p->lse, bytes * (size_t)c->comm->ranks));
    for (int64_t i = 0; i < c->own; i++) {
        p->row_lse[i] = (float)(0.5 / (double)c->n);
        p->target[i] = (float)(-1 / (double)c->n);
    }
    TRY(d->upload(d, TW_QUEUE_COMPUTE, tw_tape_gradient(c->tape, c->parts.row_lse).data, p->row_lse, bytes));
    TRY(d->upload(d, TW_QUEUE_COMPUTE, tw_tape_gradient(c->tape, c->parts.target).data, p->target, bytes));
    float *weights = tw_tape_gradient(c->tape, c->parts.column_lse).data;
    TRY(c->comm->all_to_all(c->comm, c->columns[0], counts_of(c, OWN), weights, counts_of(c, PAIRS)));
    TRY(c->comm->sync(c->comm));
    return d->sync(d, TW_QUEUE_COMPUTE); /* p is read until here */
}

static tw_status exchange(tw_contrastive *c, tally *own) {
    tw_comm *comm = c->comm;
    const int64_t *pairs = counts_of(c, PAIRS), *mine = counts_of(c, OWN);
    TRY(comm->all_to_all(comm, c->parts.column_lse->data, pairs, c->columns[0], mine));
    TRY(comm->all_to_all(comm, c->parts.most->data, pairs, c->columns[1], mine));
    TRY(comm->sync(comm));
    own_part p;
    TRY(allocate(c, &p));
    tw_status status = download(c, &p);
    if (status == TW_OK) {
        *own = combine(c, &p);
        status = give_gradients(c, &p);
    }
    free(p.block);
    return status;
}

static tw_status add_up(const tw_contrastive *c, const tally *own, tw_contrastive_result *result) {
    tally *all = calloc((size_t)c->comm->ranks, sizeof *all), sum = {0};
    if (!all) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = c->comm->gather_all(c->comm, own, sizeof *own, all);
    for (int r = 0; r < c->comm->ranks; r++) {
        sum.loss += all[r].loss;
        sum.image_hits += all[r].image_hits;
        sum.text_hits += all[r].text_hits;
    }
    free(all);
    double n = (double)c->n;
    *result =
        (tw_contrastive_result){sum.loss / (2 * n), (double)sum.image_hits / n, (double)sum.text_hits / n};
    return status;
}

tw_status tw_contrastive_run(tw_contrastive *c, tw_contrastive_result *result) {
    tw_comm *comm = c->comm;
    *result = (tw_contrastive_result){0};
    if (c->n == 0) return TW_OK;
    const int64_t *elements = counts_of(c, ELEMENTS);
    TRY(comm->all_gather(comm, tw_contrastive_text(c), c->text->data, elements));
    TRY(comm->sync(comm));
    TRY(tw_tape_forward(c->tape, NULL));
    tally own;
    TRY(exchange(c, &own));
    TRY(tw_tape_backward(c->tape, NULL, NULL, NULL));
    float *gradient = tw_tape_gradient(c->tape, c->text).data;
    TRY(comm->reduce_scatter(comm, gradient, gradient + c->first * c->embed, elements));
    TRY(comm->sync(comm));
    return add_up(c, &own, result);
}
