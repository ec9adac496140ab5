/* The names of Chinese-CLIP's tensors in Hugging Face's ChineseCLIPModel and in the original code, both ways.
 *
 *   visual.transformer.resblocks.N.attn.in_proj_weight   self_attn.{q,k,v}_proj.weight, one above the other
 *   visual.proj, text_projection   visual_projection.weight, text_projection.weight, transposed
 *   bert.*   text_model.*; everything else by name alone
 *
 * Types stay as they are. The RN50 model has no Hugging Face form. */
#ifndef TW_TRAIN_FORMATS_HF_NAMES_H
#define TW_TRAIN_FORMATS_HF_NAMES_H

#include "train/formats/weights.h"

enum { TW_HF_NAME_BYTES = 512, TW_HF_MAX_PIECES = 3 };

typedef enum tw_hf_transform {
    TW_HF_COPY,
    TW_HF_TRANSPOSE, /* a matrix; one is the other transposed */
    TW_HF_ROWS, /* the Hugging Face tensor is part `part` of the original's `parts` equal parts by rows */
} tw_hf_transform;

typedef struct tw_hf_piece {
    char name[TW_HF_NAME_BYTES]; /* on the other side */
    tw_hf_transform transform;
    int part, parts; /* ROWS; else 0 and 1 */
} tw_hf_piece;

/* The Hugging Face tensors that make up the original tensor of this name: 1, or 3 for fused projections, in
 * the order of their rows; 0 if there is no such form. */
int tw_hf_pieces_of(const char *original, tw_hf_piece pieces[TW_HF_MAX_PIECES]);
/* The original tensor that a Hugging Face tensor is or is a piece of; false if the name is none of
 * ChineseCLIPModel's. */
bool tw_hf_original_of(const char *hf, tw_hf_piece *out);

/* True for tensors that may be in a file and that no model needs, under their original-style name: the pooler
 * and the position ids ("bert.pooler.dense.weight", "bert.embeddings.position_ids", "visual.position_ids").
 */
bool tw_hf_is_unused(const char *original);

/* True if the tensors are named as ChineseCLIPModel's are. */
bool tw_hf_is_named(const tw_weights *w);

/* Presents the tensors of `hf` under their original names, fused and transposed when they are read. Unknown
 * names pass through as they are. Owns `hf` from now on: closed with *out, and at once on failure.
 * TW_ERR_FORMAT, naming file and tensor: one of q, k, v is missing or unlike the others, a projection is not
 * a matrix, two tensors would get the same name. */
tw_status tw_hf_as_original(tw_weights *hf, tw_weights **out) TW_MUST_CHECK;

/* For writing: the tensors of `original` (borrowed, also by *out) under their Hugging Face names, cut and
 * transposed when they are filled. Beside one tensor at a time it holds two fused ones. *out is freed with
 * tw_hf_output_free. TW_ERR_UNSUPPORTED names a tensor that has no Hugging Face form (RN50's, for one);
 * TW_ERR_SHAPE: a fused tensor that does not divide by 3, a projection that is not a matrix. */
tw_status tw_hf_output_create(const tw_weights_output *original, tw_weights_output *out) TW_MUST_CHECK;
void tw_hf_output_free(tw_weights_output *out); /* accepts an empty one */

#endif
