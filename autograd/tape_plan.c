/* From recorded nodes to one schedule and one memory plan.
 *
 * Time line: position i is node i's forward; position n_nodes is the gap in which the caller reads roots and
 * writes their gradients; then one position for each backward or recomputed call. A buffer's lifetime is the
 * range of positions from its first write to its last read. */
#include "autograd/tape_internal.h"

#include <stdlib.h>

static void mark_gradients(tw_tape *tape) {
    for (int i = 0; i < tape->n_values; i++) {
        tw_value *v = tape->values[i];
        v->wants_grad = v->is_root && v->requires_grad;
    }
    for (int n = tape->n_nodes - 1; n >= 0; n--) {
        tw_node *node = tape->nodes[n];
        for (int i = 0; i < node->call.n_results; i++)
            node->active |= tape->values[node->outputs[i]]->wants_grad;
        if (!node->active) continue;
        for (int i = 0; i < node->call.n_inputs; i++) {
            if (node->inputs[i] == TW_NONE) continue;
            tw_value *v = tape->values[node->inputs[i]];
            v->wants_grad |= v->requires_grad;
        }
    }
}

static void mark_restorable(tw_tape *tape) {
    for (int n = 0; n < tape->n_nodes; n++) {
        tw_value *v = tape->values[tape->nodes[n]->outputs[0]];
        v->dropped = tape->nodes[n]->call.restorable && !v->is_root;
    }
}

/* In block mode a value inside a block is dropped unless something outside reads it. */
static void mark_dropped(tw_tape *tape) {
    if (tape->training && tape->recompute == TW_RECOMPUTE_LIGHT) mark_restorable(tape);
    if (!tape->training || tape->recompute != TW_RECOMPUTE_BLOCK) return;
    for (int i = 0; i < tape->n_values; i++) {
        tw_value *v = tape->values[i];
        v->dropped = v->node != TW_NONE && tape->nodes[v->node]->block != 0 && !v->is_root;
    }
    for (int n = 0; n < tape->n_nodes; n++) {
        const tw_node *node = tape->nodes[n];
        for (int i = 0; i < node->call.n_inputs; i++) {
            if (node->inputs[i] == TW_NONE) continue;
            tw_value *v = tape->values[node->inputs[i]];
            if (v->dropped && tape->nodes[v->node]->block != node->block) v->dropped = false;
        }
    }
}

static tw_status add_entry(tw_tape *tape, tw_entry_kind kind, int node) {
    TRY(tw_tape_grow(&tape->entries, &tape->cap_entries, tape->n_entries, sizeof *tape->entries));
    int position = tape->n_entries + (kind == TW_ENTRY_FORWARD ? 0 : 1);
    tape->entries[tape->n_entries++] = (tw_entry){.kind = kind,
                                                  .node = node,
                                                  .position = position,
                                                  .scratch_buffer = TW_NONE,
                                                  .call = tape->nodes[node]->call};
    return TW_OK;
}

/* Schedules what must be computed again so that a value is there. `again` marks nodes already recomputed. */
static tw_status ensure(tw_tape *tape, int value, bool *again) {
    if (value == TW_NONE) return TW_OK;
    const tw_value *v = tape->values[value];
    if (!v->dropped || again[v->node]) return TW_OK;
    const tw_node *node = tape->nodes[v->node];
    bool restore = tape->recompute == TW_RECOMPUTE_LIGHT;
    for (int i = 0; i < node->call.n_inputs; i++)
        if (!restore || node->call.restore_inputs >> i & 1u) TRY(ensure(tape, node->inputs[i], again));
    again[v->node] = true;
    TRY(add_entry(tape, TW_ENTRY_RECOMPUTE, v->node));
    tape->entries[tape->n_entries - 1].call.restore = restore;
    return TW_OK;
}

static tw_status schedule_backward(tw_tape *tape, bool *again) {
    for (int n = tape->n_nodes - 1; n >= 0; n--) {
        const tw_node *node = tape->nodes[n];
        if (!node->active) continue;
        for (int i = 0; i < node->call.n_inputs; i++)
            if (node->call.saved_inputs >> i & 1u) TRY(ensure(tape, node->inputs[i], again));
        for (int i = 0; i < node->call.n_outputs; i++)
            if (node->call.saved_outputs >> i & 1u) TRY(ensure(tape, node->outputs[i], again));
        TRY(add_entry(tape, TW_ENTRY_BACKWARD, n));
    }
    return TW_OK;
}

static tw_status schedule(tw_tape *tape) {
    for (int n = 0; n < tape->n_nodes; n++) TRY(add_entry(tape, TW_ENTRY_FORWARD, n));
    tape->n_forward = tape->n_entries;
    if (!tape->training) return TW_OK;
    bool *again = calloc((size_t)tape->n_nodes + 1, sizeof *again);
    if (!again) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = schedule_backward(tape, again);
    free(again);
    return status;
}

/* Opens *buffer at `position` if it is not open yet, and keeps it alive until then otherwise. */
static tw_status touch(tw_tape *tape, int *buffer, const tw_tensor *shape, int position) {
    if (*buffer != TW_NONE) {
        tw_lifetime *b = &tape->buffers[*buffer];
        if (position > b->last) b->last = position;
        return TW_OK;
    }
    TRY(tw_tape_grow(&tape->buffers, &tape->cap_buffers, tape->n_buffers, sizeof *tape->buffers));
    tape->buffers[tape->n_buffers] =
        (tw_lifetime){.bytes = tw_tensor_bytes(shape), .first = position, .last = position};
    *buffer = tape->n_buffers++;
    return TW_OK;
}

/* A read or write of a value by an entry; `backward` selects the recomputed copy of dropped values. */
static tw_status touch_value(tw_tape *tape, int index, int position, bool backward) {
    if (index == TW_NONE) return TW_OK;
    tw_value *v = tape->values[index];
    if (v->param) return TW_OK;
    return touch(tape, backward && v->dropped ? &v->backward_buffer : &v->forward_buffer, &v->tensor,
                 position);
}

static tw_status touch_forward(tw_tape *tape, const tw_entry *e) {
    const tw_node *node = tape->nodes[e->node];
    bool again = e->kind == TW_ENTRY_RECOMPUTE;
    uint32_t inputs, outputs;
    tw_entry_reads(e, &inputs, &outputs);
    for (int i = 0; i < node->call.n_inputs; i++)
        if (inputs >> i & 1u) TRY(touch_value(tape, node->inputs[i], e->position, again));
    for (int i = 0; i < node->call.n_outputs; i++)
        if (outputs >> i & 1u) TRY(touch_value(tape, node->outputs[i], e->position, again));
    return TW_OK;
}

static tw_status touch_backward(tw_tape *tape, tw_entry *e) {
    const tw_node *node = tape->nodes[e->node];
    tw_call *c = &e->call;
    for (int i = 0; i < c->n_outputs; i++) {
        if (c->saved_outputs >> i & 1u) TRY(touch_value(tape, node->outputs[i], e->position, true));
        tw_value *v = tape->values[node->outputs[i]];
        if (i < c->n_results && v->wants_grad) TRY(touch(tape, &v->grad_buffer, &v->tensor, e->position));
    }
    for (int i = 0; i < c->n_inputs; i++) {
        if (node->inputs[i] == TW_NONE) continue;
        if (c->saved_inputs >> i & 1u) TRY(touch_value(tape, node->inputs[i], e->position, true));
        tw_value *v = tape->values[node->inputs[i]];
        if (!v->wants_grad) continue;
        c->input_mode[i] = v->param || v->grad_buffer != TW_NONE ? TW_ADD : TW_WRITE;
        if (!v->param) TRY(touch(tape, &v->grad_buffer, &v->tensor, e->position));
    }
    return TW_OK;
}

static tw_status touch_scratch(tw_tape *tape, tw_entry *e) {
    size_t bytes = e->kind == TW_ENTRY_BACKWARD ? e->call.backward_scratch : e->call.forward_scratch;
    if (bytes == 0) return TW_OK;
    int64_t count = (int64_t)bytes;
    tw_tensor shape = tw_tensor_of(NULL, TW_U8, 1, &count);
    return touch(tape, &e->scratch_buffer, &shape, e->position);
}

static tw_status find_lifetimes(tw_tape *tape) {
    int gap = tape->n_nodes, end = tape->n_entries + 1;
    for (int i = 0; i < tape->n_values; i++)
        if (tape->values[i]->node == TW_NONE) TRY(touch_value(tape, i, 0, false));
    for (int k = 0; k < tape->n_forward; k++) {
        tw_entry *e = &tape->entries[k];
        TRY(touch_forward(tape, e));
        TRY(touch_scratch(tape, e));
    }
    for (int i = 0; i < tape->n_values;
         i++) { /* the caller may read roots for as long as the tape holds them */
        tw_value *v = tape->values[i];
        if (!v->is_root) continue;
        TRY(touch_value(tape, i, end, false));
        if (v->wants_grad && !v->param) TRY(touch(tape, &v->grad_buffer, &v->tensor, gap));
    }
    for (int k = tape->n_forward; k < tape->n_entries; k++) {
        tw_entry *e = &tape->entries[k];
        TRY(e->kind == TW_ENTRY_BACKWARD ? touch_backward(tape, e) : touch_forward(tape, e));
        TRY(touch_scratch(tape, e));
    }
    for (int i = 0; i < tape->n_values; i++) { /* gradients of inputs are for the caller */
        tw_value *v = tape->values[i];
        if (v->node == TW_NONE && !v->param && v->wants_grad)
            TRY(touch(tape, &v->grad_buffer, &v->tensor, end));
    }
    return TW_OK;
}

/* Walking back from the end, the first entry met that touches a parameter is the one that finishes its
 * gradient. */
static tw_status find_final_gradients(tw_tape *tape) {
    const tw_param **seen = calloc((size_t)tape->n_values + 1, sizeof *seen);
    if (!seen) return FAIL(TW_ERR_MEMORY, "out of memory");
    int n_seen = 0;
    for (int k = tape->n_entries - 1; k >= tape->n_forward; k--) {
        tw_entry *e = &tape->entries[k];
        if (e->kind != TW_ENTRY_BACKWARD) continue;
        const tw_node *node = tape->nodes[e->node];
        for (int i = 0; i < node->call.n_inputs; i++) {
            if (node->inputs[i] == TW_NONE) continue;
            const tw_value *v = tape->values[node->inputs[i]];
            if (!v->param || !v->wants_grad) continue;
            int at = 0;
            while (at < n_seen && seen[at] != v->param) at++;
            if (at < n_seen) continue;
            seen[n_seen++] = v->param;
            e->final[e->n_final++] = v->param;
        }
    }
    free(seen);
    return TW_OK;
}

tw_status tw_tape_plan(tw_tape *tape) {
    mark_gradients(tape);
    mark_dropped(tape);
    TRY(schedule(tape));
    TRY(find_lifetimes(tape));
    TRY(find_final_gradients(tape));
    TRY(tw_tape_find_first_gradients(tape));
    return tw_arena_plan(tape->buffers, tape->n_buffers, &tape->bytes);
}
