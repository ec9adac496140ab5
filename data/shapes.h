/* The demonstration data set: pictures of coloured shapes with compositional Chinese captions, such as
 * 左上角有一个红色的大三角形，右下角有一个蓝色的小圆, in MUGE format (docs: FACTS §5).
 *
 * A scene is abstract: two objects in two of four places, each with one of six colours, four shapes and two
 * sizes: 6 pairs of places x 48 x 48 = 13,824 scenes. A picture is a scene drawn with jitter. Every caption
 * names all attributes of its objects, so it describes exactly one scene.
 *
 * A share of the training pictures shows one object only (4 x 48 = 192 more scenes): there a batch holds the
 * same object in different places, which teaches places. Pictures of two objects alone hardly do: a batch
 * rarely has two with the same objects, and small models stop at telling objects apart. Validation has two
 * objects always.
 *
 * Train and validation share no scene. No two validation scenes are equal, and half of them are siblings:
 * another validation scene differs in one attribute of one object, or by exchanging the colours, shapes,
 * sizes or places of the two. Everything is a function of the options (same build: same bytes). */
#ifndef TW_DATA_SHAPES_H
#define TW_DATA_SHAPES_H

#include "autograd/random.h"
#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TW_SHAPES_PLACES = 4,  /* 左上角 右上角 左下角 右下角 */
    TW_SHAPES_COLOURS = 6, /* 红 黄 绿 蓝 紫 黑 */
    TW_SHAPES_SHAPES = 4,  /* 圆 三角形 正方形 五角星 */
    TW_SHAPES_SIZES = 2,   /* 大 小 */
    TW_SHAPES_OBJECTS = TW_SHAPES_COLOURS * TW_SHAPES_SHAPES * TW_SHAPES_SIZES,
    TW_SHAPES_SCENES = TW_SHAPES_PLACES * (TW_SHAPES_PLACES - 1) / 2 * TW_SHAPES_OBJECTS * TW_SHAPES_OBJECTS,
    TW_SHAPES_SINGLES =
        TW_SHAPES_PLACES * TW_SHAPES_OBJECTS, /* scenes of one object, numbered after the others */
    /* Per object 5 colours + 3 shapes + 1 size + 2 free places; 4 exchanges. */
    TW_SHAPES_SIBLINGS_MAX = 2 * (5 + 3 + 1 + 2) + 4,
    TW_SHAPES_CAPTIONS = 12,       /* 6 templates x 2 orders of the objects */
    TW_SHAPES_CAPTION_BYTES = 160, /* room for any caption and its NUL */
    TW_SHAPES_CONTEXT = 32,        /* a context length that cuts no caption: at most 31 with [CLS], [SEP] */
    TW_SHAPES_TRAIN_MAX = 10000000,
    TW_SHAPES_VALID_MAX = 4000, /* leaves most scenes to train on */
    TW_SHAPES_PX_MIN = 32,      /* below, small shapes cannot be told apart */
    TW_SHAPES_PX_MAX = 1024,
};

typedef struct tw_shapes_object {
    int place, colour, shape, size; /* indices into the lists above */
} tw_shapes_object;

typedef struct tw_shapes_scene {
    tw_shapes_object object[2]; /* in different places, the lower place first */
    bool single;                /* there is only object[0] */
} tw_shapes_scene;

typedef enum tw_shapes_format { TW_SHAPES_JPEG, TW_SHAPES_PNG } tw_shapes_format;

typedef struct tw_shapes_options {
    int train, valid;       /* pictures in each split; every validation picture is another scene */
    int px;                 /* width and height of a picture */
    int captions_per_image; /* in both splits, all different; 1 to TW_SHAPES_CAPTIONS */
    int singles;            /* % of the training pictures that show one object, 0 to 100 */
    uint64_t seed;
    tw_shapes_format format;
    int replace; /* non-zero: files of the same names in the folder may be replaced */
} tw_shapes_options;

typedef struct tw_shapes_summary {
    int train_scenes;     /* different scenes in the training split */
    int singles;          /* training pictures of one object */
    int siblings;         /* validation scenes that have a sibling in the pool */
    int vocabulary;       /* lines of vocab.txt */
    uint64_t image_bytes; /* of all pictures, encoded */
} tw_shapes_summary;

/* 24,000 + 500 pictures of 64 px as JPEG, half of the training ones of one object, one caption each, seed 1.
 */
tw_shapes_options tw_shapes_defaults(void);
/* TW_ERR_CONFIG, naming the value and its range. */
tw_status tw_shapes_check(const tw_shapes_options *options) TW_MUST_CHECK;

/* Scene number 0 <= index < TW_SHAPES_SCENES + TW_SHAPES_SINGLES, and back (objects in either order). */
tw_shapes_scene tw_shapes_scene_at(int index);
int tw_shapes_scene_index(const tw_shapes_scene *scene);
/* Numbers of the scenes that are siblings of scene `index` < TW_SHAPES_SCENES, none twice and never itself;
 * returns how many. */
int tw_shapes_siblings(int index, int out[TW_SHAPES_SIBLINGS_MAX]);

/* Writes caption `variant` (0 to TW_SHAPES_CAPTIONS - 1: template + 6 * order) of the scene as UTF-8; one
 * object has no order, there the second six say that there is nothing else. The captions of all scenes and
 * variants are different. */
void tw_shapes_caption(const tw_shapes_scene *scene, int variant, char out[TW_SHAPES_CAPTION_BYTES]);

/* The scene of each picture: train[options->train], valid[options->valid] receive scene numbers. The
 * training pictures of two objects walk through all scenes that validation does not use, in a new order each
 * round; options->singles % of all, at drawn places, are drawn from the scenes of one object. Half of the
 * validation scenes (rounded down to an even number) have siblings in the pool; where a pool is too large for
 * the other half to have none (above about 1,000), more than half do. TW_ERR_CONFIG, TW_ERR_MEMORY. */
tw_status tw_shapes_split(const tw_shapes_options *options, int *train, int *valid) TW_MUST_CHECK;

/* Draws the scene with the jitter (position, size, shade, rotation, background, noise) that `draw` gives;
 * rgb: (px, px, 3), 8 bits; canvas: scratch, (px, px, 3). draw.layer is set by this function. */
void tw_shapes_draw(const tw_shapes_scene *scene, tw_draw draw, int px, float *canvas, uint8_t *rgb);

/* Makes `folder` if needed and writes {train,valid}_imgs.tsv, {train,valid}_texts.jsonl and vocab.txt there,
 * each whole or not at all. Image ids: 1.. in train, going on in valid; text ids likewise. `summary` may be
 * NULL. TW_ERR_CONFIG (options, or files exist and options->replace is 0), TW_ERR_IO, TW_ERR_MEMORY,
 * TW_ERR_LIBRARY. */
tw_status tw_shapes_write(const char *folder, const tw_shapes_options *options,
                          tw_shapes_summary *summary) TW_MUST_CHECK;

#endif
