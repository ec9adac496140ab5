/* Weight files of other tools: tensors by name, in the file's own types and order, whatever the file's kind.
 *
 * A reader (pt.h, safetensors.h, hf_folder.h) opens its kind of file and fills a tw_weights; from there on
 * nobody needs to know which kind it was. Tensor data stay in the file until they are read, so a 4 GB
 * checkpoint costs no memory to open. Nothing in a file is ever executed, and every size is checked against
 * the file's before it is believed. One tw_weights from one thread at a time. */
#ifndef TW_TRAIN_FORMATS_WEIGHTS_H
#define TW_TRAIN_FORMATS_WEIGHTS_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TW_WEIGHT_MAX_DIMS = 8 };

/* Little-endian in memory and in every file that is read or written. */
typedef enum tw_weight_type {
    TW_WEIGHT_F32,
    TW_WEIGHT_F16,
    TW_WEIGHT_BF16,
    TW_WEIGHT_F64,
    TW_WEIGHT_I64,
    TW_WEIGHT_I32,
    TW_WEIGHT_I16,
    TW_WEIGHT_I8,
    TW_WEIGHT_U8,
    TW_WEIGHT_BOOL,
} tw_weight_type;

size_t tw_weight_type_size(tw_weight_type type);      /* bytes of an element */
const char *tw_weight_type_name(tw_weight_type type); /* "f32", "f16", ... */
/* TW_ERR_NOT_FOUND if there is no type of this name. */
tw_status tw_weight_type_parse(const char *name, tw_weight_type *out) TW_MUST_CHECK;

typedef struct tw_weight {
    const char *name; /* as in the file */
    tw_weight_type type;
    int ndim; /* 0: one value */
    int64_t shape[TW_WEIGHT_MAX_DIMS];
    int64_t count; /* product of shape; 0 is possible */
} tw_weight;

/* A checkpoint's optimizer state is among its tensors, after the model's: for the optimizer's parameter
 * number <index> "optimizer.state.<index>.exp_avg", ".exp_avg_sq" (Adam's moments, of the parameter's shape
 * and type) and ".step" (one value: the updates done). Which parameter has which number follows from the
 * order in which the tool that wrote the file handed its parameters to the optimizer, and the groups. */
#define TW_WEIGHTS_OPTIMIZER "optimizer."

/* A parameter group of the optimizer. */
typedef struct tw_weights_group {
    double lr, beta1, beta2, eps, weight_decay; /* NaN: not said */
    const int64_t *params;                      /* the numbers of its parameters, in order */
    int64_t param_count;
} tw_weights_group;

/* What a training checkpoint says besides its tensors. */
typedef struct tw_weights_note {
    const char *kind; /* "PyTorch zip", "PyTorch legacy", "TorchScript archive", "safetensors", "Hugging Face
                         folder" */
    const char *name; /* the run's name; NULL if not said */
    int64_t epoch, step;            /* -1: not said */
    const tw_weights_group *groups; /* the optimizer's; NULL if there are none */
    int64_t group_count;
} tw_weights_note;

typedef struct tw_weights tw_weights;

void tw_weights_close(tw_weights *w);             /* accepts NULL */
const char *tw_weights_path(const tw_weights *w); /* as it was opened */
const tw_weights_note *tw_weights_get_note(const tw_weights *w);
int64_t tw_weights_count(const tw_weights *w);
const tw_weight *tw_weights_at(const tw_weights *w, int64_t i); /* 0 <= i < count; valid until close */
int64_t tw_weights_find(const tw_weights *w, const char *name); /* the index, or -1 */

/* Copies tensor i, row-major and contiguous, in its own type: count * type size bytes. TW_ERR_IO,
 * TW_ERR_FORMAT (damaged), both naming file and tensor. */
tw_status tw_weights_read(tw_weights *w, int64_t i, void *dst) TW_MUST_CHECK;
/* The same as `count` floats (which must be the tensor's count): f16, bf16 and f32 exactly; f64 and integers
 * rounded to nearest; bool as 0 and 1. f16, bf16 and f32 need no memory besides dst. */
tw_status tw_weights_read_f32(tw_weights *w, int64_t i, float *dst, int64_t count) TW_MUST_CHECK;

/* ---- for readers ---- */

/* What a kind of file provides. `read` is not called for tensors without values. */
typedef struct tw_weights_source {
    /* Reads the bytes of tensor i, contiguous, into dst. */
    tw_status (*read)(void *self, int64_t i, void *dst);
    void (*close)(void *self);
} tw_weights_source;

/* Copies path, note (NULL: nothing is said) and the n items with their names; owns `self` from now on (closed
 * even on failure). Computes each item's count from its shape, whatever the caller has there. Names that
 * occur twice, shapes that overflow and unknown types are TW_ERR_FORMAT. */
tw_status tw_weights_create(const char *path, const tw_weights_note *note, const tw_weight *items, int64_t n,
                            const tw_weights_source *source, void *self, tw_weights **out) TW_MUST_CHECK;

/* ---- for writers ---- */

/* Tensors to be written, produced one at a time so that no second copy of a model is held: `fill` writes
 * tensor i (items[i].count values of items[i].type) to dst. */
typedef struct tw_weights_output {
    const tw_weight *items;
    int64_t n;
    tw_status (*fill)(void *self, int64_t i, void *dst);
    void *self;
} tw_weights_output;

#endif
