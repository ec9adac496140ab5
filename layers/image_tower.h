/* What describes an image tower, of either kind: a vision transformer (vit.h) or a ModifiedResNet (resnet.h).
 */
#ifndef TW_LAYERS_IMAGE_TOWER_H
#define TW_LAYERS_IMAGE_TOWER_H

typedef enum tw_image_tower_kind { TW_VIT, TW_RESNET } tw_image_tower_kind;

enum { TW_RESNET_STAGES = 4 };

typedef struct tw_image_config {
    tw_image_tower_kind kind;
    int resolution;                    /* pixels a side; a multiple of patch, or of 32 for a ResNet */
    int width;                         /* of the tokens; of a ResNet's first stage */
    int heads;                         /* of attention; of a ResNet's attention pool */
    int patch;                         /* ViT: pixels a side */
    int layers;                        /* ViT: blocks */
    double mask_ratio;                 /* ViT: share of the patches left out in training; 0: none */
    int stages[TW_RESNET_STAGES];      /* ResNet: bottlenecks of each stage */
    float pixel_mean[3], pixel_std[3]; /* of channel values in [0, 1] */
} tw_image_config;

#endif
