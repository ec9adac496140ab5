/* The vision transformer of the CLIP family (Dosovitskiy et al. 2021; Radford et al. 2021): patch product
 * without bias, class token, positions, ln_pre, pre-norm blocks with QuickGELU, ln_post on the class token,
 * projection.
 *
 * Only the class token is read in the end, so that of the last block only what it needs is computed: keys and
 * values of all tokens, queries and all that follows of this one. */
#ifndef TW_LAYERS_VIT_H
#define TW_LAYERS_VIT_H

#include "layers/image_tower.h"
#include "layers/linear.h"

typedef struct tw_vit_block {
    tw_norm ln_1, ln_2;
    tw_linear in_proj, out_proj, fc, proj;
} tw_vit_block;

typedef struct tw_vit {
    tw_image_config config;
    tw_linear conv1;
    const tw_param *class_embedding, *positional_embedding;
    tw_norm ln_pre, ln_post;
    tw_vit_block *blocks;      /* layers of them */
    tw_linear last_q, last_kv; /* parts of the last block's in_proj */
    bool whole_last_block;     /* compute it for every token; false at first, may be set */
    tw_linear proj;
} tw_vit;

/* Adds the tower's parameters, all named "visual.*". tw_vit_free releases what the struct owns (not the
 * parameters). */
tw_status tw_vit_init(tw_vit *vit, tw_params *params, const tw_image_config *config, int embed) TW_MUST_CHECK;
void tw_vit_free(tw_vit *vit);

/* Patches of an image that a training step computes: floor(n (1 - mask_ratio)) of n, the class token aside.
 */
int tw_vit_kept(const tw_image_config *config);

/* pixels: u8 (B,R,R,3), or f32 (B,3,R,R) already normalised -> (B, embed) f32, not normalised. On a training
 * tape each sample leaves out a share mask_ratio of its patches, drawn anew each step (FLIP: Li et al. 2022);
 * what is kept has the positional embeddings of its places, and the class token always stays. */
tw_tensor *tw_vit_forward(tw_tape *tape, const tw_vit *vit, tw_tensor *pixels, tw_dtype compute_type);

#endif
