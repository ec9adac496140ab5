/* What tape.c (recording and running) and tape_plan.c (schedule and memory) share. */
#ifndef TW_AUTOGRAD_TAPE_INTERNAL_H
#define TW_AUTOGRAD_TAPE_INTERNAL_H

#include "autograd/tape.h"

enum { TW_NONE = -1 };

/* One value: an input, a parameter, or an output of a node. */
typedef struct tw_value {
    tw_tensor tensor;
    int node;              /* that makes it, or TW_NONE for a leaf */
    const tw_param *param; /* NULL unless a parameter */
    bool requires_grad;    /* a parameter or wants_grad input lies below it */
    bool wants_grad;       /* ... and a root lies above it: backward computes its gradient */
    bool is_root;
    bool dropped; /* not kept from forward to backward */
    int forward_buffer, backward_buffer, grad_buffer;
} tw_value;

typedef struct tw_node {
    tw_call call; /* prototype: data pointers are filled in when bound */
    int inputs[TW_MAX_INPUTS], outputs[TW_MAX_OUTPUTS];
    int block;   /* 0: none */
    bool active; /* has a backward */
} tw_node;

typedef enum tw_entry_kind { TW_ENTRY_FORWARD, TW_ENTRY_RECOMPUTE, TW_ENTRY_BACKWARD } tw_entry_kind;

/* One scheduled call. */
typedef struct tw_entry {
    tw_entry_kind kind;
    int node;
    int position; /* on the time line of lifetimes */
    int scratch_buffer;
    tw_call call;
    uint32_t
        first; /* bit i: of a backward, that input i's gradient is a parameter's and comes from here first */
    int n_final; /* parameters whose gradient is final after this entry */
    const tw_param *final[TW_MAX_INPUTS];
} tw_entry;

/* Bit i: the entry may use input i, output i. A backward sees only what its operation declared as saved, a
 * restoring forward what that takes: the rest may be overwritten by then. */
static inline void tw_entry_reads(const tw_entry *e, uint32_t *inputs, uint32_t *outputs) {
    const tw_call *c = &e->call;
    *inputs = *outputs = UINT32_MAX;
    if (e->kind == TW_ENTRY_BACKWARD) *inputs = c->saved_inputs, *outputs = c->saved_outputs;
    if (c->restore) *inputs = c->restore_inputs, *outputs = 1u | c->saved_outputs;
}

struct tw_tape {
    tw_device *device;
    bool training, finished, bound;
    bool ran_forward, ran_backward; /* once to the end */
    tw_recompute recompute;
    tw_status status; /* first failure while recording */
    char message[1024];
    int block, blocks;
    tw_value **values;
    tw_node **nodes;
    tw_entry *entries;
    tw_lifetime *buffers;
    int n_values, n_nodes, n_entries, n_forward, n_buffers;
    int cap_values, cap_nodes, cap_entries, cap_buffers;
    size_t bytes; /* of the arena */
    void *base;   /* of the arena bound to */
    uint64_t version;
};

/* Grows *array, whose elements have `size` bytes, for one more element. */
tw_status tw_tape_grow(void *array, int *capacity, int count, size_t size) TW_MUST_CHECK;
/* Says of every backward entry what it is the first to bring; tw_tape_plan calls it. */
tw_status tw_tape_find_first_gradients(tw_tape *tape) TW_MUST_CHECK;
/* Fills entries and buffers. */
tw_status tw_tape_plan(tw_tape *tape) TW_MUST_CHECK;

#endif
