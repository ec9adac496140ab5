/* The typed attributes of each operation: what is fixed when it is recorded. What changes per step (seed,
 * step, learning rate ...) is in tw_step, read from device memory. */
#ifndef TW_AUTOGRAD_OPS_ATTRIBUTES_H
#define TW_AUTOGRAD_OPS_ATTRIBUTES_H

#include "autograd/tensor.h"

typedef enum tw_activation { TW_IDENTITY, TW_QUICK_GELU, TW_ERF_GELU } tw_activation;

typedef struct tw_linear_attr {
    tw_activation activation;
    bool in_out;     /* W is stored (K, M) as in "x @ proj", not (M, K) */
    bool output_f32; /* y is f32 whatever the inputs' type */
} tw_linear_attr;

typedef struct tw_layer_norm_attr {
    float eps;
} tw_layer_norm_attr;

typedef struct tw_add_layer_norm_attr {
    float eps;
    float dropout;  /* probability that an element of h becomes 0; 0: none */
    uint32_t layer; /* the draw's layer */
    int tokens;     /* of packed rows (packed.h): the most of a sample, here and below */
} tw_add_layer_norm_attr;

typedef struct tw_attention_attr {
    int heads;
    float dropout; /* on the probabilities, after softmax */
    uint32_t layer;
    int tokens;
} tw_attention_attr;

typedef struct tw_embed_patches_attr {
    char unused;
} tw_embed_patches_attr;

typedef struct tw_embed_tokens_attr {
    float eps;
    float dropout;
    uint32_t layer;
    int32_t padding_id; /* its row of the word table gets no gradient; -1: none */
    int tokens;
} tw_embed_tokens_attr;

typedef struct tw_take_token_attr {
    char unused;
} tw_take_token_attr;

typedef struct tw_conv2d_attr {
    int stride, padding; /* of both sides alike; padding with zeros */
} tw_conv2d_attr;

typedef struct tw_batch_norm_attr {
    float eps;
    bool relu;
    bool training;        /* normalise by the batch's own statistics, not the running ones */
    struct tw_comm *comm; /* the batch is that of all its ranks, which make this call together; NULL: this
                             call's */
} tw_batch_norm_attr;

typedef struct tw_avg_pool_attr {
    int size; /* k: side of a square and distance of squares; a rest at the far sides is left out */
} tw_avg_pool_attr;

typedef struct tw_pool_tokens_attr {
    char unused;
} tw_pool_tokens_attr;

typedef struct tw_pool_attention_attr {
    int heads;
    float dropout; /* as attention's */
    uint32_t layer;
    int tokens;
} tw_pool_attention_attr;

typedef struct tw_move_statistics_attr {
    float rate; /* PyTorch's momentum of batch norm */
} tw_move_statistics_attr;

typedef struct tw_l2_normalise_attr {
    char unused;
} tw_l2_normalise_attr;

typedef struct tw_contrastive_loss_attr {
    int64_t first; /* the text that belongs to image 0 of this call; the next ones follow */
} tw_contrastive_loss_attr;

typedef struct tw_pack_tokens_attr {
    int64_t rows; /* of the packed texts; at least as many as there are tokens */
} tw_pack_tokens_attr;

typedef struct tw_choose_patches_attr {
    int patches, keep; /* of an image; of them to keep: 1 <= keep <= patches */
} tw_choose_patches_attr;

typedef struct tw_patchify_attr {
    int patch;     /* pixels a side */
    bool grid;     /* the result is (B,R/P,R/P,3PP), not (B,n,3PP) */
    tw_dtype type; /* of the patches */
    float mean[3], std[3];
} tw_patchify_attr;

/* A run of elements of a parameter slab that share a rule. */
typedef struct tw_segment {
    int64_t offset, count;
    float weight_decay;
    float low, high; /* values are kept in this range; -INFINITY, INFINITY: any */
} tw_segment;

typedef struct tw_adamw_attr {
    const tw_segment *segments; /* device memory */
    int64_t count;
    float beta1, beta2, eps;
} tw_adamw_attr;

typedef struct tw_finite_norm_attr {
    const tw_segment *segments; /* device memory */
    int64_t count;
} tw_finite_norm_attr;

struct tw_step;

typedef struct tw_gradient_rule_attr {
    struct tw_step *record; /* device memory, gets the optimizer's factors; NULL: none does */
    float clip;             /* largest norm; 0: no clipping */
    float beta1, beta2;
    int unit;               /* elements of a unit; the last one may have fewer */
    const tw_segment *rest; /* device memory: where the gradients are this rank's own part of the sum */
    int64_t n_rest;
} tw_gradient_rule_attr;

typedef struct tw_contrastive_sums_attr {
    int rank;      /* whose columns they are */
    int64_t pairs; /* of all ranks */
} tw_contrastive_sums_attr;

typedef struct tw_top_k_attr {
    int k;
} tw_top_k_attr;

#endif
