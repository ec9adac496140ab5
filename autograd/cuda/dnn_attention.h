/* Attention as graphs of dnn.h: softmax(q k^T scale) v of each sample and head, and its gradients. The scores
 * live within the graph; what backward needs of them is their rows' log-sum-exp. */
#ifndef TW_AUTOGRAD_CUDA_DNN_ATTENTION_H
#define TW_AUTOGRAD_CUDA_DNN_ATTENTION_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/cuda/dnn.h"

/* Elements between samples and between tokens; heads lie behind each other in a token. */
typedef struct tw_dnn_tokens {
    int64_t sample, token;
} tw_dnn_tokens;

typedef struct tw_dnn_attention {
    int64_t batch, heads, queries, keys, width; /* width: of a head, a multiple of 8, at most 128 */
    tw_dnn_tokens q, kv, o, dq, dkv;            /* dq, dkv: backward's results */
    float scale, dropout;                       /* dropout: 0: none */
    bool lengths;    /* TW_DNN_SEQ_Q and TW_DNN_SEQ_KV say how much of each sample there is */
    bool statistics; /* forward writes them */
    bool backward;
    bool deterministic; /* backward */
} tw_dnn_attention;

/* Slots. bf16: Q, K, V, O and gradients; f32: STATISTICS (B,heads,queries), DQ_SUM (B,heads,queries,width)
 * and ROW_SUM (B,heads,queries), scratch of backward; i32 (B): SEQ_Q, SEQ_KV; i64 (1): SEED, OFFSET. */
enum tw_dnn_attention_slot {
    TW_DNN_Q,
    TW_DNN_K,
    TW_DNN_V,
    TW_DNN_O,
    TW_DNN_STATISTICS,
    TW_DNN_SEQ_Q,
    TW_DNN_SEQ_KV,
    TW_DNN_SEED,
    TW_DNN_OFFSET,
    TW_DNN_DO,
    TW_DNN_DQ,
    TW_DNN_DK,
    TW_DNN_DV,
    TW_DNN_DQ_SUM,
    TW_DNN_ROW_SUM
};

tw_dnn_key tw_dnn_attention_key(const tw_dnn_attention *a);
void tw_dnn_attention_describe(const tw_dnn_key *key, tw_dnn_graph *g);

#ifdef __cplusplus
}
#endif

#endif
