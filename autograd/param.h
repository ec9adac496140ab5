/* Named parameters and the slabs they live in.
 *
 * Slabs, each one block on the device: f32 values (masters), the compute copies where the compute type is
 * bf16, and f32 gradients. Trainable parameters come first, so that the optimizer sweeps one range. Frozen
 * parameters have no master (in bf16), no gradient and no moments. In bf16 only tensors of two or more
 * dimensions are computed with as their bf16 copy; gains, biases and scalars are computed with in f32, and
 * come before the others. They have a copy too, for products on a GPU that add a bias in bf16.
 *
 * Masters in shares: of several ranks each may keep only some pieces of a bf16 set's masters, one behind the
 * other in a slab of their own. The f32 slab then has what is computed with in f32 alone, whole on every rank
 * (docs/decisions/0008-sharded-masters.md).
 *
 * Statistics (the running averages of batch norm) are vectors that live in the same slabs and are saved under
 * their names, but are not trained: they have no moments and count as no parameters. Their gradient is what
 * moves them (ops/batch_norm.c, ops/move_statistics.c). A frozen statistic stays: its batch norm then
 * normalises by it. */
#ifndef TW_AUTOGRAD_PARAM_H
#define TW_AUTOGRAD_PARAM_H

#include "autograd/device.h"
#include "autograd/tensor.h"

typedef enum tw_init_kind { TW_INIT_CONSTANT, TW_INIT_NORMAL, TW_INIT_UNIFORM } tw_init_kind;

/* CONSTANT: a everywhere. NORMAL: N(0, a^2). UNIFORM: U[-a, a). */
typedef struct tw_init {
    tw_init_kind kind;
    float a;
} tw_init;

typedef struct tw_param {
    char *name; /* as in checkpoints, "visual.conv1.weight" */
    int ndim;
    int64_t shape[TW_MAX_DIMS];
    int64_t count; /* elements */
    tw_init init;
    bool frozen;
    bool statistic;
    bool continues;   /* follows the one before without padding, so that both can be seen as one */
    int64_t offset;   /* elements from the start of the gradient slab */
    uint64_t given;   /* of masters in shares: a hash of the f32 values last set, of which no rank has all */
    tw_tensor value;  /* what operations read: f32, or the bf16 copy */
    tw_tensor master; /* f32; value itself, but for a bf16 copy's: data NULL if frozen or in shares */
    tw_tensor grad;   /* f32; data NULL if frozen or not training */
    uint16_t *half;   /* of a bf16 set: the bf16 copy, whatever value is; NULL in f32, and of statistics */
} tw_param;

/* A run of elements of the trainable slab. */
typedef struct tw_piece {
    int64_t offset, count;
} tw_piece;

typedef struct tw_params tw_params;

/* Whether the optimizer trains it: it has moments. */
static inline bool tw_param_is_trained(const tw_param *p) {
    return !p->frozen && !p->statistic;
}

tw_status tw_params_create(tw_params **out) TW_MUST_CHECK;
void tw_params_free(tw_params *set);

/* Adds a parameter; the name is copied and must be new. *out stays valid until the set is freed. */
tw_status tw_params_add(tw_params *set, const char *name, int ndim, const int64_t *shape, tw_init init,
                        tw_param **out) TW_MUST_CHECK;
/* Adds a statistic, a vector that starts with `initial` everywhere. */
tw_status tw_params_add_statistic(tw_params *set, const char *name, int64_t count, float initial,
                                  tw_param **out) TW_MUST_CHECK;
/* Makes the last n added parameters, equal but for their first dimension, usable as one, stacked along it
 * (query, key and value as one product). They keep their own names; *out is the stacked view, valid as long
 * as the set. */
tw_status tw_params_fuse(tw_params *set, int n, tw_param **out) TW_MUST_CHECK;
/* Rows [first, first + count) of a parameter's or fused view's first dimension, usable by themselves. Like a
 * fused view it is none of the set's parameters: its values and gradient are part of the whole's. `of` is of
 * this set; before allocate. */
tw_status tw_params_slice(tw_params *set, const tw_param *of, int64_t first, int64_t count,
                          tw_param **out) TW_MUST_CHECK;
/* Freezes the parameters whose names match a shell pattern (fnmatch); *matched counts them. Before allocate.
 */
tw_status tw_params_freeze(tw_params *set, const char *pattern, int *matched) TW_MUST_CHECK;

/* Finds every parameter's place in the slabs, whose sizes are known from here on: compute_type f32 or bf16.
 * Parameters can no longer be added or frozen. */
tw_status tw_params_lay_out(tw_params *set, tw_dtype compute_type) TW_MUST_CHECK;
/* Of a bf16 set, laid out and to be allocated for training: the masters are kept in shares, here these n
 * pieces in this order, which is their order in tw_params_masters. n may be 0; pieces do not overlap, are
 * copied. */
tw_status tw_params_share(tw_params *set, const tw_piece *pieces, int64_t n) TW_MUST_CHECK;
/* Allocates the slabs, after laying them out if that is still to be done; gradients only if training. Values
 * are undefined, gradients and pieces of masters zero. */
tw_status tw_params_allocate(tw_params *set, tw_device *device, tw_dtype compute_type,
                             bool training) TW_MUST_CHECK;
/* Draws every value by its rule; parameter i uses layer i of the seed's TW_DRAW_INIT. */
tw_status tw_params_initialise(tw_params *set, uint64_t seed) TW_MUST_CHECK;

int tw_params_count(const tw_params *set);                        /* without fused views */
tw_param *tw_params_at(const tw_params *set, int index);          /* in the order of adding */
tw_param *tw_params_find(const tw_params *set, const char *name); /* NULL if there is none */

/* Host copies of count elements in and out, compute copies refreshed. In shares each rank is given all of a
 * parameter and keeps what is its own; a trained one of two or more dimensions then cannot be got
 * (TW_ERR_ARGUMENT): see tw_adamw_get_masters. */
tw_status tw_params_set(tw_params *set, tw_param *param, const float *values) TW_MUST_CHECK;
tw_status tw_params_get(const tw_params *set, const tw_param *param, float *values) TW_MUST_CHECK;

/* Where the host can write a parameter's f32 values itself (the CPU's masters, not in shares), else NULL: for
 * loaders that read a file straight to its place. tw_params_written must follow and refreshes the compute
 * copy. */
float *tw_params_host(tw_params *set, const tw_param *param);
tw_status tw_params_written(tw_params *set, tw_param *param) TW_MUST_CHECK;

/* The range that the optimizer sweeps: elements of the trainable slab (padding included, always 0 gradient),
 * and the slabs' starts. copies is NULL in f32. In shares, values has only the first tw_params_vectors
 * elements of the range. */
int64_t tw_params_trainable(const tw_params *set);
/* In bf16: how many of its first elements are computed with in f32. 0 in f32. */
int64_t tw_params_vectors(const tw_params *set);
/* The statistics that move, as a range behind it: their gradients start at element tw_params_trainable. */
int64_t tw_params_statistics(const tw_params *set);
float *tw_params_statistic_values(const tw_params *set);
float *tw_params_values(const tw_params *set);
/* In shares: the pieces of the masters that are kept, vectors' too; else NULL, and 0 elements. */
bool tw_params_in_shares(const tw_params *set);
float *tw_params_masters(const tw_params *set);
int64_t tw_params_masters_count(const tw_params *set);
uint16_t *tw_params_copies(const tw_params *set);
float *tw_params_gradients(const tw_params *set);
tw_status tw_params_zero_gradients(tw_params *set) TW_MUST_CHECK;
/* Bytes of all slabs. */
size_t tw_params_bytes(const tw_params *set);

#endif
