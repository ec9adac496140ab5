/* One configuration of one operation while it is checked: what op_check.c, op_check_backward.c and op_agree.c
 * share. Buffers live until op_release_from; each has a guard of OP_GUARD bytes behind it. */
#ifndef TW_TESTS_OP_CHECKER_H
#define TW_TESTS_OP_CHECKER_H

#include "op_case.h"
#include "op_device.h"

enum { OP_MAX_BLOCKS = 4096 };

typedef struct op_checker {
    const tw_op_info *info;
    const op_case *c;
    const op_config *config;
    bool bf16;       /* the pass in which OP_FLOAT is bf16 */
    bool coarse;     /* some input is bf16 */
    int pass;        /* from 0 */
    const char *way; /* of running in this pass, for messages */
    bool slow;       /* a fiber a thread: variants are repeated once only */
    bool brief;      /* a later pass of which only what then differs is run */
    bool loose;      /* bits need not be the same each time */
    bool tf32;       /* products of f32 may round to TF32 */
    double weight;   /* of that rounding in results and gradients; 0: 1 */
    tw_device *device;
    tw_call call;
    int n_inputs;
    op_value in[TW_MAX_INPUTS];    /* rounded to the input's type */
    op_value after[TW_MAX_INPUTS]; /* what in-place inputs should become */
    op_value expected[TW_MAX_OUTPUTS];
    double *cotangent[TW_MAX_OUTPUTS];            /* random gradients of the results */
    double *slope[TW_MAX_OUTPUTS][TW_MAX_INPUTS]; /* d<cotangent r, result r> / d probe of input i */
    double *direction[TW_MAX_INPUTS];             /* directions of +-1; NULL: one probe an element */
    int64_t probes[TW_MAX_INPUTS];
    uint64_t random;
    void *block[OP_MAX_BLOCKS];
    int n_blocks;
    char *message;
    size_t size;
} op_checker;

/* Writes the message; false. */
bool op_complain(op_checker *k, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define NEED(condition, ...)                                                                                 \
    do {                                                                                                     \
        if (!(condition)) return op_complain(k, __VA_ARGS__);                                                \
    } while (0)

/* In [0, 1). */
double op_uniform(op_checker *k);

/* Memory until op_release_from(first), which frees what was taken when n_blocks was first. */
void *op_keep(op_checker *k, size_t bytes);
void op_release_from(op_checker *k, int first);
/* The same with all bits set (NaN) and a guard behind. */
void *op_poisoned(op_checker *k, size_t bytes);
bool op_guard_intact(const void *p, size_t bytes);

/* Element i of memory of a type. */
double op_load(const void *p, tw_dtype dtype, int64_t i);
void op_store(void *p, tw_dtype dtype, int64_t i, double x);
bool op_is_float(tw_dtype dtype);
double op_norm(const double *x, int64_t n);

bool op_has_gradient(const op_checker *k, int i); /* of input i */
bool op_has_slope(const op_checker *k, int r);    /* of result r */
/* An undefined value of this shape. */
op_value op_value_like(op_checker *k, const tw_tensor *t);
/* Makes input i: its values in f64 and, in call.input, in memory with gaps between rows. */
void op_make_input(op_checker *k, int i);
/* Puts the inputs' values back where an operation works in place. */
void op_restore_inputs(op_checker *k);
size_t op_input_bytes(const op_checker *k, int i); /* gaps included */
/* Whether the inputs have the bits of their copies, those updated in place aside. */
bool op_inputs_kept(op_checker *k, void *const copies[TW_MAX_INPUTS], const char *by);

/* The shape rule, and forward or backward, of k->call on k->device. */
tw_status op_prepare(op_checker *k, bool needs_grad) TW_MUST_CHECK;
tw_status op_run(op_checker *k, bool backward) TW_MUST_CHECK;
/* One forward into fresh poisoned outputs, which it defines wholly, or complains; fills call.output[].data.
 */
bool op_forward(op_checker *k);

/* ||got - expected|| <= the case's tolerance ||expected|| + floor (DESIGN 9). NaN never passes. */
bool op_close_enough(const op_checker *k, const void *got, tw_dtype dtype, const double *expected, int64_t n,
                     double floor_, double *error);
double op_tolerance(const op_checker *k);

/* What a backward is asked for. */
typedef struct op_variant {
    unsigned wanted; /* bit i: gradient of input i */
    unsigned given;  /* bit r: gradient of result r */
    unsigned adds;   /* bit i: TW_ADD */
} op_variant;

/* Differences of the reference (f64), once a pass. */
void op_differentiate(op_checker *k);
/* Backward against them. */
bool op_check_backward(op_checker *k);
/* Runs backward once from a saved forward, with what was not saved hidden; the gradients stay in
 * call.input_grad. base[i]: what lay there before. */
bool op_run_backward(op_checker *k, op_variant v, double *base[TW_MAX_INPUTS]);
/* k->device against the CPU, to rounding; after op_differentiate. */
bool op_agree(op_checker *k);

#endif
