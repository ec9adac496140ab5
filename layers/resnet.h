/* The ModifiedResNet image tower of the CLIP family (Radford et al. 2021): a stem of three 3x3 convolutions
 * and an average pool; four stages of bottlenecks (1x1, 3x3, 1x1) whose strides are average pools behind the
 * 3x3 convolution and before the shortcut's 1x1; an attention pool whose one query is the mean of the pixels.
 * Every convolution is followed by batch norm.
 *
 * Batch norm works with the batch's statistics on a training tape, and with the running ones elsewhere and
 * where they are frozen (`visual.*running_*`, or with the whole tower): see autograd/param.h, statistics. In
 * training a micro-batch is normalised by its own statistics, or, synchronised, by those of the micro-batches
 * that all ranks work on at that time. Activations are (B,H,W,C). */
#ifndef TW_LAYERS_RESNET_H
#define TW_LAYERS_RESNET_H

#include "autograd/comm.h"
#include "layers/image_tower.h"
#include "layers/linear.h"

typedef struct tw_batch_norm {
    const tw_param *gain, *bias, *mean, *variance; /* (channels) */
    tw_comm *sync;                                 /* see tw_resnet_synchronise */
} tw_batch_norm;

/* A convolution without bias and its batch norm. */
typedef struct tw_conv_norm {
    const tw_param *weight; /* (out, in, k, k) */
    tw_batch_norm norm;
    int stride;
} tw_conv_norm;

typedef struct tw_bottleneck {
    tw_conv_norm conv[3];
    tw_conv_norm shortcut; /* weight NULL: x itself */
    int pool;              /* side of the average pool's squares; 1: none */
} tw_bottleneck;

typedef struct tw_resnet {
    tw_image_config config;
    tw_conv_norm stem[3];
    tw_bottleneck *blocks; /* all stages' one after the other */
    int n_blocks;
    const tw_param *positional_embedding; /* (pixels + 1, 32 width) */
    tw_linear q_proj, kv_proj, c_proj;    /* k_proj and v_proj are one product */
    tw_comm *sync;                        /* see tw_resnet_synchronise */
} tw_resnet;

/* Adds the tower's parameters and statistics, all named "visual.*". tw_resnet_free releases what the struct
 * owns. */
tw_status tw_resnet_init(tw_resnet *resnet, tw_params *params, const tw_image_config *config,
                         int embed) TW_MUST_CHECK;
void tw_resnet_free(tw_resnet *resnet);
/* Tapes recorded for training from now on normalise by the statistics of all ranks' samples. Every
 * rank then runs the same tapes in the same order, forward and backward, with an empty batch where it has no
 * samples. comm must outlive the tapes; NULL: each by its own again. */
void tw_resnet_synchronise(tw_resnet *resnet, tw_comm *comm);

/* pixels as tw_vit_forward -> (B, embed) f32, not normalised. */
tw_tensor *tw_resnet_forward(tw_tape *tape, const tw_resnet *resnet, tw_tensor *pixels,
                             tw_dtype compute_type);

#endif
