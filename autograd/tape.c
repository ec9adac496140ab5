#include "autograd/progress.h"
#include "autograd/tape_internal.h"

#include <stdio.h>
#include <stdlib.h>

tw_status tw_tape_create(tw_device *device, bool training, tw_recompute recompute, tw_tape **out) {
    tw_tape *tape = *out = calloc(1, sizeof *tape);
    if (!tape) return FAIL(TW_ERR_MEMORY, "out of memory");
    tape->device = device;
    tape->training = training;
    tape->recompute = recompute;
    return TW_OK;
}

void tw_tape_free(tw_tape *tape) {
    if (!tape) return;
    for (int i = 0; i < tape->n_values; i++) free(tape->values[i]);
    for (int i = 0; i < tape->n_nodes; i++) {
        free(tape->nodes[i]->call.attr);
        free(tape->nodes[i]);
    }
    free(tape->values);
    free(tape->nodes);
    free(tape->entries);
    free(tape->buffers);
    free(tape);
}

bool tw_tape_is_training(const tw_tape *tape) {
    return tape->training;
}

void tw_tape_poison(tw_tape *tape, tw_status status) {
    if (tape->status != TW_OK || status == TW_OK) return;
    tape->status = status;
    snprintf(tape->message, sizeof tape->message, "%s", tw_last_error());
}

tw_status tw_tape_grow(void *array, int *capacity, int count, size_t size) {
    if (count < *capacity) return TW_OK;
    int larger = *capacity ? 2 * *capacity : 128;
    void *grown = realloc(*(void **)array, (size_t)larger * size);
    if (!grown) return FAIL(TW_ERR_MEMORY, "out of memory");
    *(void **)array = grown;
    *capacity = larger;
    return TW_OK;
}

static tw_value *add_value(tw_tape *tape, tw_tensor tensor) {
    tw_status status = tw_tape_grow(&tape->values, &tape->cap_values, tape->n_values, sizeof *tape->values);
    tw_value *v = status == TW_OK ? calloc(1, sizeof *v) : NULL;
    if (!v) {
        tw_tape_poison(tape, FAIL(TW_ERR_MEMORY, "out of memory"));
        return NULL;
    }
    v->tensor = tensor;
    v->tensor.data = NULL;
    v->tensor.value = tape->n_values;
    v->node = v->forward_buffer = v->backward_buffer = v->grad_buffer = TW_NONE;
    tape->values[tape->n_values++] = v;
    return v;
}

static bool can_record(tw_tape *tape) {
    if (tape->status != TW_OK) return false;
    if (tape->finished) tw_tape_poison(tape, FAIL(TW_ERR_ARGUMENT, "a finished tape cannot record"));
    return tape->status == TW_OK;
}

tw_tensor *tw_tape_input(tw_tape *tape, tw_dtype dtype, int ndim, const int64_t *shape, bool wants_grad) {
    if (!can_record(tape)) return NULL;
    tw_value *v = add_value(tape, tw_tensor_of(NULL, dtype, ndim, shape));
    if (!v) return NULL;
    v->requires_grad = wants_grad && tape->training;
    return &v->tensor;
}

tw_tensor *tw_tape_param(tw_tape *tape, const tw_param *param) {
    if (!can_record(tape)) return NULL;
    if (!param->value.data) {
        tw_tape_poison(tape, FAIL(TW_ERR_ARGUMENT, "parameter %s is not allocated", param->name));
        return NULL;
    }
    tw_value *v = add_value(tape, param->value);
    if (!v) return NULL;
    v->param = param;
    v->tensor.data = param->value.data;
    v->requires_grad = tape->training && param->grad.data != NULL;
    return &v->tensor;
}

/* A node with its shapes checked; NULL after poisoning the tape. */
static tw_node *make_node(tw_tape *tape, tw_op op, const void *attr, int n_inputs, tw_tensor *const *inputs) {
    tw_status status = tw_tape_grow(&tape->nodes, &tape->cap_nodes, tape->n_nodes, sizeof *tape->nodes);
    tw_node *node = status == TW_OK ? calloc(1, sizeof *node) : NULL;
    size_t bytes = tw_op_table[op].attr_bytes;
    void *copy = node ? malloc(bytes) : NULL;
    if (!copy) {
        free(node);
        tw_tape_poison(tape, FAIL(TW_ERR_MEMORY, "out of memory"));
        return NULL;
    }
    if (attr)
        memcpy(copy, attr, bytes);
    else
        memset(copy, 0, bytes);
    tw_call *call = &node->call;
    *call = (tw_call){.op = op, .device = tape->device, .attr = copy, .n_inputs = n_inputs};
    for (int i = 0; i < TW_MAX_INPUTS; i++) {
        node->inputs[i] = TW_NONE;
        if (i >= n_inputs || !inputs[i]) {
            call->input[i] = tw_absent();
            continue;
        }
        call->input[i] = *inputs[i];
        node->inputs[i] = inputs[i]->value;
        if (tw_op_table[op].has_gradient && tape->values[inputs[i]->value]->requires_grad)
            call->needs_grad = true;
    }
    tape->nodes[tape->n_nodes++] = node;
    status = tw_op_prepare(call);
    if (status != TW_OK) {
        tw_tape_poison(tape, status);
        return NULL;
    }
    return node;
}

static bool owns(const tw_tape *tape, const tw_tensor *tensor) {
    return tensor->value >= 0 && tensor->value < tape->n_values &&
           &tape->values[tensor->value]->tensor == tensor;
}

static tw_status check_inputs(const tw_tape *tape, tw_op op, int n_inputs, tw_tensor *const *inputs) {
    const char *name = tw_op_table[op].name;
    for (int i = 0; i < n_inputs; i++) {
        if (inputs[i] && !owns(tape, inputs[i]))
            return FAIL(TW_ERR_ARGUMENT, "%s: input %d is not of this tape", name, i);
        for (int k = 0; k < i; k++)
            if (inputs[i] && inputs[i] == inputs[k])
                return FAIL(TW_ERR_ARGUMENT, "%s: inputs %d and %d are the same tensor", name, k, i);
    }
    return TW_OK;
}

tw_tensor *tw_tape_record(tw_tape *tape, tw_op op, const void *attr, int n_inputs, tw_tensor *const *inputs) {
    if (!can_record(tape)) return NULL;
    tw_status status = check_inputs(tape, op, n_inputs, inputs);
    if (status != TW_OK) {
        tw_tape_poison(tape, status);
        return NULL;
    }
    tw_node *node = make_node(tape, op, attr, n_inputs, inputs);
    if (!node) return NULL;
    node->block = tape->block;
    for (int i = 0; i < node->call.n_outputs; i++) {
        tw_value *v = add_value(tape, node->call.output[i]);
        if (!v) return NULL;
        v->node = tape->n_nodes - 1;
        v->requires_grad = node->call.needs_grad && i < node->call.n_results && v->tensor.dtype != TW_I32 &&
                           !(node->call.no_gradient >> i & 1u);
        node->outputs[i] = v->tensor.value;
    }
    return &tape->values[node->outputs[0]]->tensor;
}

tw_tensor *tw_tape_result(tw_tape *tape, const tw_tensor *first, int i) {
    if (!can_record(tape)) return NULL;
    const tw_node *node = tape->nodes[tape->values[first->value]->node];
    if (i >= node->call.n_results) {
        tw_tape_poison(tape,
                       FAIL(TW_ERR_ARGUMENT, "%s has no result %d", tw_op_table[node->call.op].name, i));
        return NULL;
    }
    return &tape->values[node->outputs[i]]->tensor;
}

void tw_tape_block_begin(tw_tape *tape) {
    tape->block = ++tape->blocks;
}

void tw_tape_block_end(tw_tape *tape) {
    tape->block = 0;
}

tw_status tw_tape_finish(tw_tape *tape, int n_roots, tw_tensor *const *roots) {
    if (tape->status != TW_OK) return FAIL(tape->status, "%s", tape->message);
    if (tape->finished) return FAIL(TW_ERR_ARGUMENT, "the tape is finished already");
    for (int i = 0; i < n_roots; i++) {
        if (!roots[i] || !owns(tape, roots[i]))
            return FAIL(TW_ERR_ARGUMENT, "root %d is not a tensor of this tape", i);
        tape->values[roots[i]->value]->is_root = true;
    }
    TRY(tw_tape_plan(tape));
    tape->finished = true;
    return TW_OK;
}

size_t tw_tape_bytes(const tw_tape *tape) {
    return tape->bytes;
}

static void *address(const tw_tape *tape, int buffer) {
    return buffer == TW_NONE ? NULL : (char *)tape->base + tape->buffers[buffer].offset;
}

/* Where a value is while this entry runs: recomputed values have another place in backward than in forward.
 */
static void *value_address(const tw_tape *tape, int index, bool backward) {
    if (index == TW_NONE) return NULL;
    const tw_value *v = tape->values[index];
    if (v->param) return v->param->value.data;
    return address(tape, backward && v->dropped ? v->backward_buffer : v->forward_buffer);
}

static void *gradient_address(const tw_tape *tape, const tw_value *v) {
    if (!v->wants_grad) return NULL;
    return v->param ? v->param->grad.data : address(tape, v->grad_buffer);
}

static tw_tensor gradient_view(const tw_value *v, void *data) {
    tw_dtype dtype = v->param ? TW_F32 : v->tensor.dtype;
    return tw_tensor_of(data, dtype, v->tensor.ndim, v->tensor.shape);
}

static void bind_entry(const tw_tape *tape, tw_entry *e) {
    const tw_node *node = tape->nodes[e->node];
    bool later = e->kind != TW_ENTRY_FORWARD;
    uint32_t inputs, outputs;
    tw_entry_reads(e, &inputs, &outputs);
    tw_call *c = &e->call;
    for (int i = 0; i < c->n_inputs; i++) {
        const tw_param *param = node->inputs[i] == TW_NONE ? NULL : tape->values[node->inputs[i]]->param;
        c->input[i].data = inputs >> i & 1u ? value_address(tape, node->inputs[i], later) : NULL;
        c->input_half[i] = param ? param->half : NULL;
    }
    for (int i = 0; i < c->n_outputs; i++)
        c->output[i].data = outputs >> i & 1u ? value_address(tape, node->outputs[i], later) : NULL;
    c->scratch = address(tape, e->scratch_buffer);
    if (e->kind != TW_ENTRY_BACKWARD) return;
    for (int i = 0; i < c->n_inputs; i++) {
        c->input_grad[i] = (tw_tensor){.ndim = -1};
        if (node->inputs[i] == TW_NONE) continue;
        const tw_value *v = tape->values[node->inputs[i]];
        c->input_grad[i] = gradient_view(v, gradient_address(tape, v));
    }
    for (int i = 0; i < c->n_results; i++) {
        const tw_value *v = tape->values[node->outputs[i]];
        c->output_grad[i] = gradient_view(v, gradient_address(tape, v));
    }
}

uint64_t tw_tape_version(const tw_tape *tape) {
    return tape->version;
}

tw_status tw_tape_bind(tw_tape *tape, const tw_arena *arena) {
    static _Atomic uint64_t versions;
    if (!tape->finished) return FAIL(TW_ERR_ARGUMENT, "the tape is not finished");
    if (arena->bytes < tape->bytes)
        return FAIL(TW_ERR_MEMORY, "the arena has %zu bytes, the tape needs %zu", arena->bytes, tape->bytes);
    tape->base = arena->base;
    for (int i = 0; i < tape->n_values; i++) tape->values[i]->tensor.data = value_address(tape, i, false);
    for (int i = 0; i < tape->n_entries; i++) bind_entry(tape, &tape->entries[i]);
    tape->bound = true;
    tape->version = ++versions;
    return TW_OK;
}

tw_status tw_tape_upload(tw_tape *tape, const tw_tensor *input, const void *host) {
    if (!tape->bound) return FAIL(TW_ERR_ARGUMENT, "the tape is not bound");
    return tape->device->upload(tape->device, TW_QUEUE_COMPUTE, input->data, host, tw_tensor_bytes(input));
}

tw_status tw_tape_download(tw_tape *tape, const tw_tensor *tensor, void *host) {
    if (!tape->bound) return FAIL(TW_ERR_ARGUMENT, "the tape is not bound");
    TRY(tape->device->download(tape->device, TW_QUEUE_COMPUTE, host, tensor->data, tw_tensor_bytes(tensor)));
    return tape->device->sync(tape->device, TW_QUEUE_COMPUTE);
}

/* How long the calls of a tape take shows when it has run once. After an error nothing follows that would be
 * watched over. */
static void begin_run(const bool *ran) {
    if (!*ran) tw_progress_first(true);
}

static void end_run(bool *ran) {
    if (!*ran) tw_progress_first(false);
    *ran = true;
}

tw_status tw_tape_forward(tw_tape *tape, const tw_step *step) {
    if (!tape->bound) return FAIL(TW_ERR_ARGUMENT, "the tape is not bound");
    begin_run(&tape->ran_forward);
    for (int i = 0; i < tape->n_forward; i++) {
        tape->entries[i].call.step = step;
        TRY(tw_op_forward(&tape->entries[i].call));
    }
    end_run(&tape->ran_forward);
    return TW_OK;
}

tw_status tw_tape_forward_probed(tw_tape *tape, const tw_step *step, const tw_tensor *tensor,
                                 tw_status (*reached)(void *context), void *context) {
    if (!tape->bound) return FAIL(TW_ERR_ARGUMENT, "the tape is not bound");
    if (!owns(tape, tensor)) return FAIL(TW_ERR_ARGUMENT, "the probed tensor is not of this tape");
    bool told = false;
    for (int i = 0; i < tape->n_forward; i++) {
        tw_entry *e = &tape->entries[i];
        if (!told && e->node > tape->values[tensor->value]->node) {
            TRY(reached(context));
            told = true;
        }
        e->call.step = step;
        TRY(tw_op_forward(&e->call));
    }
    return told ? TW_OK : reached(context);
}

tw_tensor tw_tape_gradient(const tw_tape *tape, const tw_tensor *tensor) {
    const tw_value *v = tape->values[tensor->value];
    return gradient_view(v, tape->bound ? gradient_address(tape, v) : NULL);
}

/* first: no gradient of a parameter has been brought yet. */
static void set_modes(tw_entry *e, bool first) {
    for (int i = 0; i < e->call.n_inputs; i++)
        if (e->first >> i & 1u) e->call.input_mode[i] = first ? TW_WRITE : TW_ADD;
}

static tw_status walk_back(tw_tape *tape, const tw_step *step, tw_gradient_hook hook, void *context,
                           bool first) {
    if (!tape->bound) return FAIL(TW_ERR_ARGUMENT, "the tape is not bound");
    if (!tape->training) return FAIL(TW_ERR_ARGUMENT, "backward of a tape that was recorded for inference");
    begin_run(&tape->ran_backward);
    for (int i = tape->n_forward; i < tape->n_entries; i++) {
        tw_entry *e = &tape->entries[i];
        e->call.step = step;
        set_modes(e, first);
        TRY(e->kind == TW_ENTRY_BACKWARD ? tw_op_backward(&e->call) : tw_op_forward(&e->call));
        for (int k = 0; hook && k < e->n_final; k++) TRY(hook(context, e->final[k]));
    }
    end_run(&tape->ran_backward);
    return TW_OK;
}

tw_status tw_tape_backward(tw_tape *tape, const tw_step *step, tw_gradient_hook hook, void *context) {
    return walk_back(tape, step, hook, context, false);
}

tw_status tw_tape_backward_first(tw_tape *tape, const tw_step *step, tw_gradient_hook hook, void *context) {
    return walk_back(tape, step, hook, context, true);
}

tw_status tw_tape_each_gradient(const tw_tape *tape, tw_gradient_hook hook, void *context) {
    for (int i = tape->n_forward; i < tape->n_entries; i++)
        for (int k = 0; k < tape->entries[i].n_final; k++) TRY(hook(context, tape->entries[i].final[k]));
    return TW_OK;
}
