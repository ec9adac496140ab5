/* The first backward of a step: it writes the gradients of parameters that it is the first to bring, so that
 * they need be neither zeroed nor read before. */
#include "autograd/tape_internal.h"

#include <stdlib.h>

/* A parameter's gradient as an entry's input meets it. */
typedef struct meeting {
    const char *begin, *end;
    int entry, input;
    bool torn; /* another one has a part of it alone: a fused view's parameter, a slice */
} meeting;

static meeting meeting_of(const tw_tape *tape, int entry, int input) {
    int value = tape->nodes[tape->entries[entry].node]->inputs[input];
    const tw_value *v = value == TW_NONE ? NULL : tape->values[value];
    meeting m = {.entry = entry, .input = input};
    if (!v || !v->param || !v->wants_grad) return m;
    m.begin = v->param->grad.data;
    m.end = m.begin + (size_t)v->param->count * sizeof(float);
    return m;
}

/* Whether `new` is the first to meet its gradient; marks what is torn. */
static bool is_first(meeting *list, int n, meeting *new) {
    bool first = true;
    for (int k = 0; k < n; k++) {
        meeting *m = &list[k];
        if (new->begin >= m->end || m->begin >= new->end) continue;
        bool same = new->begin == m->begin &&new->end == m->end &&new->entry != m->entry;
        if (same) first = false;
        if (!same) m->torn = new->torn = true;
    }
    return first;
}

tw_status tw_tape_find_first_gradients(tw_tape *tape) {
    size_t most = 1;
    int n = 0;
    for (int e = tape->n_forward; e < tape->n_entries; e++) most += (size_t)tape->entries[e].call.n_inputs;
    meeting *list = calloc(most, sizeof *list);
    if (!list) return FAIL(TW_ERR_MEMORY, "out of memory");
    for (int e = tape->n_forward; e < tape->n_entries; e++) {
        if (tape->entries[e].kind != TW_ENTRY_BACKWARD) continue;
        for (int i = 0; i < tape->entries[e].call.n_inputs; i++) {
            meeting m = meeting_of(tape, e, i);
            if (m.begin && is_first(list, n, &m)) list[n++] = m;
        }
    }
    for (int k = 0; k < n; k++)
        if (!list[k].torn) tape->entries[list[k].entry].first |= 1u << list[k].input;
    free(list);
    return TW_OK;
}

static int by_offset(const void *a, const void *b) {
    const tw_piece *x = a, *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Lists what the first backward writes of the n gradients from `slab` on, in order; returns how many. */
static int64_t list_written(const tw_tape *tape, const float *slab, int64_t n, tw_piece *pieces) {
    int64_t count = 0;
    for (int e = tape->n_forward; e < tape->n_entries; e++)
        for (int i = 0; i < tape->entries[e].call.n_inputs; i++) {
            if (!(tape->entries[e].first >> i & 1u)) continue;
            const tw_param *p = tape->values[tape->nodes[tape->entries[e].node]->inputs[i]]->param;
            const float *at = p->grad.data;
            if (at >= slab && at < slab + n) pieces[count++] = (tw_piece){at - slab, p->count};
        }
    qsort(pieces, (size_t)count, sizeof *pieces, by_offset);
    return count;
}

tw_status tw_tape_zero_others(const tw_tape *tape, tw_params *params) {
    float *slab = tw_params_gradients(params);
    int64_t n = tw_params_trainable(params) + tw_params_statistics(params), at = 0;
    size_t most = 1;
    if (!slab) return TW_OK;
    for (int e = tape->n_forward; e < tape->n_entries; e++) most += (size_t)tape->entries[e].call.n_inputs;
    tw_piece *pieces = calloc(most, sizeof *pieces);
    if (!pieces) return FAIL(TW_ERR_MEMORY, "out of memory");
    int64_t count = list_written(tape, slab, n, pieces);
    tw_status status = TW_OK;
    for (int64_t k = 0; k <= count && status == TW_OK; k++) {
        int64_t end = k < count ? pieces[k].offset : n;
        if (end > at)
            status = tape->device->zero(tape->device, TW_QUEUE_COMPUTE, slab + at,
                                        (size_t)(end - at) * sizeof *slab);
        if (k < count) at = end + pieces[k].count;
    }
    free(pieces);
    return status;
}
