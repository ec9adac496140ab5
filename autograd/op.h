/* The table of operations, made from ops.def, and the call that each of its functions receives. */
#ifndef TW_AUTOGRAD_OP_H
#define TW_AUTOGRAD_OP_H

#include "autograd/device.h"
#include "autograd/ops/attributes.h"
#include "autograd/tensor.h"

enum { TW_MAX_INPUTS = 7, TW_MAX_OUTPUTS = 5 };

/* What changes from step to step; it lives in device memory, so that captured work can be replayed. */
typedef struct tw_step {
    uint64_t seed;
    uint32_t step;   /* optimizer step, the `step` of dropout's draws */
    uint32_t sample; /* index in the global batch of this micro-batch's first sample */
    float share;     /* of the global batch, that this micro-batch is: its weight in running statistics */
    float lr;
    float bias_correction1, bias_correction2; /* 1 - beta^t */
    float gradient_scale;                     /* clip factor; gradients are multiplied by it */
    int32_t skip;                             /* not 0: the optimizer leaves everything as it is */
} tw_step;

typedef enum tw_op {
#define OP(name, inputs) TW_OP_##name,
#define KERNEL(name, inputs) TW_OP_##name,
#include "autograd/ops.def"
#undef OP
#undef KERNEL
    TW_OP_COUNT
} tw_op;

/* How a gradient is delivered: over whatever is there, or added to it. */
typedef enum tw_accumulate { TW_WRITE, TW_ADD } tw_accumulate;

/* One call of an operation.
 *
 * Shape rule: reads attr, the inputs' types and shapes (data is NULL; an absent input has ndim -1) and
 * needs_grad; checks them; sets outputs (count, type, shape), saved_inputs and saved_outputs (bit i: backward
 * reads that value) and the scratch sizes. outputs[0 .. n_results) are results that may be used by others
 * and, unless they are integers or in no_gradient, may have gradients; the rest are kept for backward only.
 *
 * Forward: writes every output. Backward: reads output_grad[i] (data NULL: no gradient reaches it), delivers
 * the gradient of every input whose input_grad[i].data is not NULL by writing or adding, as input_mode[i]
 * says. It may destroy output_grad's contents. A size of zero is legal and does nothing, but TW_WRITE still
 * defines every element.
 *
 * A shape rule may set `restorable`: its first result need not be kept for backward. A forward with `restore`
 * set makes that result again, from the saved outputs, which are there, and the inputs in restore_inputs
 * alone; what it writes to saved outputs is what they hold.
 *
 * Outputs, gradients and scratch are contiguous. Inputs are rows (tw_tensor_is_rows) unless an operation says
 * more. */
typedef struct tw_call {
    tw_op op;
    tw_device *device;
    void *attr; /* struct tw_<name>_attr */
    int n_inputs, n_outputs, n_results;
    tw_tensor input[TW_MAX_INPUTS];
    const uint16_t *input_half[TW_MAX_INPUTS]; /* when it runs: the bf16 copy of an f32 input, kept by the
                                                  parameter set; NULL: there is none */
    tw_tensor output[TW_MAX_OUTPUTS];
    tw_tensor input_grad[TW_MAX_INPUTS];
    tw_accumulate input_mode[TW_MAX_INPUTS];
    tw_tensor output_grad[TW_MAX_OUTPUTS];
    uint32_t saved_inputs, saved_outputs;
    uint32_t no_gradient; /* bit i: result i has none though it is no integer */
    uint32_t restore_inputs;
    bool restorable, restore;
    bool needs_grad;        /* a backward will follow */
    const tw_step *step;    /* device memory */
    void *scratch;          /* device memory, 64-byte aligned */
    size_t forward_scratch; /* bytes */
    size_t backward_scratch;
} tw_call;

typedef tw_status (*tw_op_shape)(tw_call *);
typedef tw_status (*tw_op_run)(const tw_call *);

typedef struct tw_op_info {
    const char *name;
    const char *backward_name; /* in a profiler's time line */
    int max_inputs;
    size_t attr_bytes;
    bool has_gradient;
    tw_op_shape shape;
    tw_op_run forward[TW_DEVICE_KINDS];
    tw_op_run backward[TW_DEVICE_KINDS]; /* NULL only where has_gradient is false */
} tw_op_info;

extern const tw_op_info tw_op_table[TW_OP_COUNT];

#define TW_OP_PROTOTYPES(name)                                                                               \
    tw_status tw_##name##_shape(tw_call *) TW_MUST_CHECK;                                                    \
    tw_status tw_##name##_forward_cpu(const tw_call *) TW_MUST_CHECK;
#ifdef TW_WITH_CUDA
#define TW_OP_PROTOTYPES_CUDA(name) tw_status tw_##name##_forward_cuda(const tw_call *) TW_MUST_CHECK;
#define TW_OP_GRADIENT_CUDA(name) tw_status tw_##name##_backward_cuda(const tw_call *) TW_MUST_CHECK;
#else
#define TW_OP_PROTOTYPES_CUDA(name)
#define TW_OP_GRADIENT_CUDA(name)
#endif
#define KERNEL(name, inputs) TW_OP_PROTOTYPES(name) TW_OP_PROTOTYPES_CUDA(name)
#define OP(name, inputs)                                                                                     \
    KERNEL(name, inputs)                                                                                     \
    tw_status tw_##name##_backward_cpu(const tw_call *) TW_MUST_CHECK;                                       \
    TW_OP_GRADIENT_CUDA(name)
#include "autograd/ops.def"
#undef OP
#undef KERNEL

/* Runs the shape rule after checking the number of inputs; errors name the operation. */
tw_status tw_op_prepare(tw_call *call) TW_MUST_CHECK;
/* Look the kernel up and run it; errors name operation and device. */
tw_status tw_op_forward(const tw_call *call) TW_MUST_CHECK;
tw_status tw_op_backward(const tw_call *call) TW_MUST_CHECK;

/* For shape rules. */
static inline bool tw_present(const tw_tensor *t) {
    return t->ndim >= 0;
}
tw_tensor tw_absent(void);
/* Sets output i to a contiguous tensor of this type and shape. */
void tw_call_output(tw_call *call, int i, tw_dtype dtype, int ndim, const int64_t *shape);
/* Fails unless input i is rows of type f32 or bf16 (both allowed), naming the operation and the input. */
tw_status tw_call_check_rows(const tw_call *call, int i, const char *what) TW_MUST_CHECK;
/* Fails unless input i is a contiguous tensor of exactly this type and shape. */
tw_status tw_call_check(const tw_call *call, int i, const char *what, tw_dtype dtype, int ndim,
                        const int64_t *shape) TW_MUST_CHECK;
static inline tw_status tw_call_check_f32(const tw_call *call, int i, const char *what, int ndim,
                                          const int64_t *shape) {
    return tw_call_check(call, i, what, TW_F32, ndim, shape);
}

#endif
