/* What a file tests/op_cases/<op>.c provides: a plain f64 reference of the operation's forward, written
 * straight from the formula, and a list of configurations to check it at. It defines
 *
 *     const op_case op_case_<op> = {.reference = ..., .configs = ..., .n_configs = ...};
 *
 * test_ops walks tw_op_table and fails for an operation without such a case. What op_check does with each
 * configuration is said in op_check.c. */
#ifndef TW_TESTS_OP_CASE_H
#define TW_TESTS_OP_CASE_H

#include "autograd/op.h"

typedef struct op_case op_case;
typedef struct op_config op_config;

/* OP_FLOAT inputs are all f32 in a first pass and all bf16 in a second one. */
typedef enum op_dtype { OP_FLOAT, OP_F32, OP_BF16, OP_I32, OP_U8 } op_dtype;

typedef struct op_input {
    bool present;
    op_dtype dtype;
    int ndim;
    int64_t shape[TW_MAX_DIMS];
    int64_t padding;      /* elements between rows (row stride = columns + padding), filled with NaN */
    double low, high;     /* values are uniform in [low, high); both 0: [-1, 1). Whole numbers if integer */
    const double *values; /* or these, count of them (static data) */
    bool parameter;       /* its gradient is f32 whatever its type */
    bool constant;        /* a float input without a gradient */
} op_input;

/* Designated initialisers of an input's presence and shape: {OP_SHAPE(3, 5)}. A scalar: {OP_SCALAR}. */
#define OP_SHAPE(...)                                                                                        \
    .present = true, .ndim = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), .shape = {__VA_ARGS__}
#define OP_SCALAR .present = true, .ndim = 0

struct op_config {
    const char *name;
    const void *attr; /* struct tw_<op>_attr, static */
    op_input input[TW_MAX_INPUTS];
    tw_step step;
    /* op_agree: rounding in f32 is magnified by about so much, for a reason said beside it; 0: not at all. */
    double magnified;
    /* If not TW_OK: the shape rule must fail with this code and a message that contains `message`. */
    tw_status fails;
    const char *message;
};

/* An input or output in f64, contiguous. Absent: v is NULL and ndim -1. */
typedef struct op_value {
    tw_dtype dtype;
    int ndim;
    int64_t shape[TW_MAX_DIMS];
    int64_t count;
    double *v;
} op_value;

struct op_case {
    /* Computes out[0 .. n_results) (a KERNEL's: all outputs) from in. Shapes of out are what the shape rule
     * said; say what they should be with op_expect_shape first. v of a saved output is NULL. */
    void (*reference)(const op_config *config, op_value *in, op_value *out);
    const op_config *configs;
    int n_configs;
    /* Bit i: the operation updates input i in place, and so does the reference in in[i].v; both are compared.
     * Every other input must come out of forward and backward with the same bits. */
    unsigned in_place;
    double f32_tolerance;  /* relative, forward and gradient; 0: 1e-5 */
    double bf16_tolerance; /* 0: 1e-2 */
    /* op_agree: between passes a device keeps in bf16 what the CPU keeps in f32, so that a pass in bf16
     * agrees to a unit in the last place as a whole, not in each element. */
    bool bf16_midway;
    /* Further checks that are not about one configuration, or NULL: returns a message on failure. */
    const char *(*also)(void);
    /* The same on a device whose memory is the host's: the CPU, and the shim's. */
    const char *(*also_on)(tw_device *device);
};

#define OP_CONFIGS(array) .configs = (array), .n_configs = (int)(sizeof(array) / sizeof((array)[0]))

/* Fails the running test unless the value has this shape. */
void op_expect_shape(const op_value *value, int ndim, const int64_t *shape);

/* Checks one configuration of operation `op` on a device of this kind, through `info` (tw_op_table's row, or,
 * on the CPU, a stand-in of it). Returns false with a message if anything is wrong. */
bool op_check(const tw_op_info *info, tw_op op, tw_device_kind kind, const op_case *c,
              const op_config *config, char *message, size_t size);
/* Lets go of what checks keep from one to the next. */
void op_check_end(void);

#endif
