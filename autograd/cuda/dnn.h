/* Small graphs of tensor operations that a library turns into one or a few kernels. cudnn.c is the one file
 * that calls cuDNN; tests/cuda_shim/dnn_shim.c interprets the same graphs on the CPU.
 *
 * A tensor has four dimensions and a stride, in elements, for each. Operations of one element broadcast
 * dimensions of 1. A graph is described for a key (everything it depends on), made into a plan once and kept
 * by the device. */
#ifndef TW_AUTOGRAD_CUDA_DNN_H
#define TW_AUTOGRAD_CUDA_DNN_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/device.h"
#include "autograd/tensor.h"

typedef enum tw_dnn_type { TW_DNN_F32, TW_DNN_BF16, TW_DNN_I32, TW_DNN_I64, TW_DNN_BOOL } tw_dnn_type;

typedef enum tw_dnn_op {
    /* of one element: in[0], in[1] ... to out[0] */
    TW_DNN_ADD,
    TW_DNN_SUB,
    TW_DNN_MUL,
    TW_DNN_DIV,
    TW_DNN_EXP,
    TW_DNN_LOG,
    TW_DNN_COPY,
    TW_DNN_INDEX, /* the element's index along `axis`, shaped as in[0] */
    TW_DNN_LESS,  /* in[0] < in[1] */
    TW_DNN_AND,
    TW_DNN_SELECT, /* in[2] ? in[0] : in[1] */
    TW_DNN_RELU,
    TW_DNN_SWISH,       /* x sigmoid(`value` x) */
    TW_DNN_GELU,        /* x (1 + erf(x / sqrt 2)) / 2 */
    TW_DNN_RELU_SLOPE,  /* in[0] times TW_DNN_RELU's derivative at in[1]: 1 where that is above 0 */
    TW_DNN_SWISH_SLOPE, /* TW_DNN_SWISH's */
    TW_DNN_GELU_SLOPE,
    /* of dimensions that in[0] has and out[0] has not (1) */
    TW_DNN_MAX,
    TW_DNN_SUM,
    /* out[0] (..,m,n) = in[0] (..,m,k) in[1] (..,k,n). in[2], in[3], in[4], where there are any: (B,1,1,1)
     * i32, the part of m, n, k that counts; the library may skip the rest */
    TW_DNN_MATMUL,
    TW_DNN_RESHAPE, /* out[0] is in[0]'s memory with other dimensions and strides (and may be of another type)
                     */
    TW_DNN_KEEP,    /* out[0]: 1 with probability `value`, else 0; in[0] seed, in[1] offset: (1,1,1,1) i64 */
    /* (N,C,H,W) with `stride`, `padding`, no bias: out[0] from in[0] and in[1] */
    TW_DNN_CONV,   /* y from x, w (O,C,K,K) */
    TW_DNN_CONV_X, /* dx from dy, w */
    TW_DNN_CONV_W, /* dw from dy, x */
    /* Batch norm of (N,C,H,W) x with f32 (1,C,1,1), inverse: 1 / sqrt(variance + epsilon) */
    TW_DNN_NORM,          /* y, mean, inverse from x, gain, bias, epsilon */
    TW_DNN_NORM_AGAIN,    /* y from x, gain, bias, mean, inverse */
    TW_DNN_NORM_GRADIENT, /* dx, dgain, dbias from dy, x, gain, mean, inverse */
    /* Means of squares of side `stride`, which cover (N,C,H,W) x without overlap */
    TW_DNN_POOL,   /* y from x */
    TW_DNN_POOL_X, /* dx from dy */
} tw_dnn_op;

/* Where a tensor is, beside memory that is given at each run (slots from 0 on). */
enum { TW_DNN_INSIDE = -1, TW_DNN_VALUE = -2, TW_DNN_NONE = -1 };
enum { TW_DNN_TENSORS = 64, TW_DNN_NODES = 48, TW_DNN_SLOTS = 16, TW_DNN_INPUTS = 5, TW_DNN_OUTPUTS = 3 };

typedef struct tw_dnn_tensor {
    tw_dnn_type type;
    int slot; /* or TW_DNN_INSIDE, TW_DNN_VALUE */
    float value;
    int64_t dim[4], stride[4];
} tw_dnn_tensor;

typedef struct tw_dnn_node {
    tw_dnn_op op;
    int in[TW_DNN_INPUTS], out[TW_DNN_OUTPUTS]; /* numbers of tensors, or TW_DNN_NONE */
    int axis, stride, padding;
    float value;
} tw_dnn_node;

/* What is wanted of the library's kernels beside the result. */
typedef struct tw_dnn_rules {
    bool deterministic;  /* the same bits each time */
    bool true_f32;       /* no TF32 */
    size_t most_scratch; /* bytes; 0: any */
} tw_dnn_rules;

typedef struct tw_dnn_graph {
    const char *name; /* what it computes, for messages; NULL: nobody said */
    tw_dnn_tensor tensor[TW_DNN_TENSORS];
    tw_dnn_node node[TW_DNN_NODES];
    int tensors, nodes;
    bool flat; /* dimension 0 is 1 and left out for the library, whose engines for a product with operations
                  of one element behind it take three dimensions only */
    tw_dnn_rules rules;
    bool full; /* more was added than there is place for */
} tw_dnn_graph;

/* ---- describing (graph.c); each returns a tensor's number ---- */

/* Memory of slot `slot`. */
int tw_dnn_memory(tw_dnn_graph *g, int slot, tw_dnn_type type, const int64_t dim[4], const int64_t stride[4]);
/* One f32 that every run has. */
int tw_dnn_value(tw_dnn_graph *g, float value);
/* A tensor that lives within the graph only, row after row. */
int tw_dnn_inside(tw_dnn_graph *g, tw_dnn_type type, const int64_t dim[4]);
/* Adds an operation with inputs a, b, c (or TW_DNN_NONE) and the result `out`; the node may be completed
 * until the next one is added. Never NULL. */
tw_dnn_node *tw_dnn_add(tw_dnn_graph *g, tw_dnn_op op, int a, int b, int c, int out);
/* Adds an operation of one element whose f32 result, shaped as a, lives within the graph. */
int tw_dnn_apply(tw_dnn_graph *g, tw_dnn_op op, int a, int b);
/* Makes f32 of every bf16 tensor that lives within the graph: another way to say the same, which engines may
 * know where they do not know the first. False: there was none. */
bool tw_dnn_widen(tw_dnn_graph *g);
/* Elements from the tensor's first to its last. */
int64_t tw_dnn_extent(const tw_dnn_tensor *t);

/* ---- plans: cudnn.c, or the shim ---- */

/* Everything that a graph and its plan depend on; unused numbers are 0. */
typedef struct tw_dnn_key {
    int64_t kind;
    int64_t number[20];
} tw_dnn_key;
typedef void (*tw_dnn_describe)(const tw_dnn_key *key, tw_dnn_graph *g); /* *g is zeroed */
typedef struct tw_dnn_plan tw_dnn_plan;

/* The key's plan, described and built when it is first asked for (up to seconds); NULL where the library is
 * missing, is turned off or has no kernel for the graph (which tw_cuda_refusals, cuda.h, then tells): callers
 * have kernels of their own. The device owns it. A library that is too old is TW_ERR_UNSUPPORTED. */
tw_status tw_dnn_find(tw_device *d, const tw_dnn_key *key, tw_dnn_describe describe,
                      tw_dnn_plan **out) TW_MUST_CHECK;
/* Bytes of device memory that a run needs. */
size_t tw_dnn_scratch(const tw_dnn_plan *plan);
/* Queues it behind the compute queue. slot[i]: device memory of the tensor in slot i, on a 16-byte boundary.
 */
tw_status tw_dnn_run(tw_device *d, const tw_dnn_plan *plan, void *const slot[TW_DNN_SLOTS],
                     void *scratch) TW_MUST_CHECK;

/* Whether plans are made and found at all; true at first. */
void tw_dnn_allow(tw_device *d, bool allowed);

#ifdef __cplusplus
}
#endif

#endif
