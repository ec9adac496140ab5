/* Scenes, siblings, captions and the split. Pictures: shapes_draw.c; files: shapes_write.c. */
#include "data/shapes.h"

#include "data/shapes_internal.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const place_words[TW_SHAPES_PLACES] = {"左上角", "右上角", "左下角", "右下角"};
static const char *const colour_words[TW_SHAPES_COLOURS] = {"红色", "黄色", "绿色", "蓝色", "紫色", "黑色"};
static const char *const shape_words[TW_SHAPES_SHAPES] = {"圆", "三角形", "正方形", "五角星"};
static const char *const size_words[TW_SHAPES_SIZES] = {"大", "小"};

/* A caption: before, object, between, object. In `object`: P place, C colour, S size, H shape; everything
 * else stands for itself. */
typedef struct caption_template {
    const char *before, *before_single, *object, *between;
} caption_template;
static const caption_template templates[TW_SHAPES_TEMPLATES] = {
    {"", "", "P有一个C的SH", "，"},
    {"画面", "画面", "P是一个C的SH", "，"},
    {"", "", "一个C的SH在P", "，"},
    {"", "", "P的SH是C的", "，"},
    {"图中有两个图形：", "图中有一个图形：", "P的CSH", "和"},
    {"", "", "CSH在P", "，"},
};
static const char nothing_else[] = "，没有别的";

static const int place_pairs[6][2] = {{0, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}, {2, 3}};

tw_shapes_options tw_shapes_defaults(void) {
    return (tw_shapes_options){.train = 24000,
                               .valid = 500,
                               .px = 64,
                               .captions_per_image = 1,
                               .singles = 50,
                               .seed = 1,
                               .format = TW_SHAPES_JPEG};
}

static tw_status check_range(const char *what, int value, int low, int high) {
    if (value >= low && value <= high) return TW_OK;
    return FAIL(TW_ERR_CONFIG, "shapes: %s is %d; it must be %d to %d", what, value, low, high);
}

tw_status tw_shapes_check(const tw_shapes_options *options) {
    TRY(check_range("train (training pictures)", options->train, 1, TW_SHAPES_TRAIN_MAX));
    TRY(check_range("valid (validation pictures)", options->valid, 1, TW_SHAPES_VALID_MAX));
    TRY(check_range("size (pixels)", options->px, TW_SHAPES_PX_MIN, TW_SHAPES_PX_MAX));
    TRY(check_range("captions-per-image", options->captions_per_image, 1, TW_SHAPES_CAPTIONS));
    TRY(check_range("singles (% of the training pictures)", options->singles, 0, 100));
    if (options->format != TW_SHAPES_JPEG && options->format != TW_SHAPES_PNG)
        return FAIL(TW_ERR_CONFIG, "shapes: format %d is not known; use jpeg or png", (int)options->format);
    return TW_OK;
}

static tw_shapes_object object_at(int place, int code) {
    return (tw_shapes_object){.place = place,
                              .colour = code / (TW_SHAPES_SHAPES * TW_SHAPES_SIZES),
                              .shape = code / TW_SHAPES_SIZES % TW_SHAPES_SHAPES,
                              .size = code % TW_SHAPES_SIZES};
}

static int object_code(const tw_shapes_object *object) {
    return (object->colour * TW_SHAPES_SHAPES + object->shape) * TW_SHAPES_SIZES + object->size;
}

tw_shapes_scene tw_shapes_scene_at(int index) {
    if (index >= TW_SHAPES_SCENES) {
        int single = index - TW_SHAPES_SCENES;
        return (tw_shapes_scene){
            .object = {object_at(single / TW_SHAPES_OBJECTS, single % TW_SHAPES_OBJECTS)}, .single = true};
    }
    int second = index % TW_SHAPES_OBJECTS, first = index / TW_SHAPES_OBJECTS % TW_SHAPES_OBJECTS;
    const int *places = place_pairs[index / (TW_SHAPES_OBJECTS * TW_SHAPES_OBJECTS)];
    return (tw_shapes_scene){.object = {object_at(places[0], first), object_at(places[1], second)}};
}

int tw_shapes_scene_index(const tw_shapes_scene *scene) {
    const tw_shapes_object *first = &scene->object[0], *second = &scene->object[1];
    if (scene->single) return TW_SHAPES_SCENES + first->place * TW_SHAPES_OBJECTS + object_code(first);
    if (first->place > second->place) first = &scene->object[1], second = &scene->object[0];
    int pair = 0;
    while (place_pairs[pair][0] != first->place || place_pairs[pair][1] != second->place) pair++;
    return (pair * TW_SHAPES_OBJECTS + object_code(first)) * TW_SHAPES_OBJECTS + object_code(second);
}

/* ---- siblings ---- */

typedef struct sibling_list {
    int self, count, kinds; /* kinds: how many of the SIBLING_KINDS have at least one sibling */
    int index[TW_SHAPES_SIBLINGS_MAX];
    int kind_start[9]; /* siblings of the k-th non-empty kind: index[kind_start[k]..kind_start[k + 1]) */
} sibling_list;

static void add_sibling(sibling_list *list, const tw_shapes_scene *scene) {
    int index = tw_shapes_scene_index(scene);
    if (index == list->self) return; /* exchanging equal attributes changes nothing */
    for (int i = 0; i < list->count; i++)
        if (list->index[i] == index) return;
    list->index[list->count++] = index;
}

static void end_kind(sibling_list *list) {
    if (list->count > list->kind_start[list->kinds]) list->kind_start[++list->kinds] = list->count;
}

static void swap_int(int *a, int *b) {
    int c = *a;
    *a = *b, *b = c;
}

/* The attribute's field: 0 colour, 1 shape, 2 size, 3 place. */
static int *field(tw_shapes_object *object, int attribute) {
    int *const fields[] = {&object->colour, &object->shape, &object->size, &object->place};
    return fields[attribute];
}

static void list_siblings(int self, sibling_list *list) {
    static const int counts[] = {TW_SHAPES_COLOURS, TW_SHAPES_SHAPES, TW_SHAPES_SIZES, TW_SHAPES_PLACES};
    *list = (sibling_list){.self = self};
    for (int attribute = 0; attribute < 4; attribute++) {
        for (int which = 0; which < 2; which++)
            for (int value = 0; value < counts[attribute]; value++) {
                tw_shapes_scene scene = tw_shapes_scene_at(self);
                if (attribute == 3 && value == scene.object[!which].place) continue; /* taken */
                *field(&scene.object[which], attribute) = value;
                add_sibling(list, &scene);
            }
        end_kind(list);
    }
    for (int attribute = 0; attribute < 4; attribute++) {
        tw_shapes_scene scene = tw_shapes_scene_at(self);
        swap_int(field(&scene.object[0], attribute), field(&scene.object[1], attribute));
        add_sibling(list, &scene);
        end_kind(list);
    }
}

int tw_shapes_siblings(int index, int out[TW_SHAPES_SIBLINGS_MAX]) {
    sibling_list list;
    list_siblings(index, &list);
    memcpy(out, list.index, (size_t)list.count * sizeof *out);
    return list.count;
}

/* ---- captions ---- */

static const char *word_for(char letter, const tw_shapes_object *object) {
    switch (letter) {
    case 'P':
        return place_words[object->place];
    case 'C':
        return colour_words[object->colour];
    case 'S':
        return size_words[object->size];
    case 'H':
        return shape_words[object->shape];
    default:
        return NULL;
    }
}

static char *append(char *out, const char *text) {
    size_t length = strlen(text);
    memcpy(out, text, length + 1);
    return out + length;
}

void tw_shapes_caption(const tw_shapes_scene *scene, int variant, char out[TW_SHAPES_CAPTION_BYTES]) {
    const caption_template *template = &templates[variant % TW_SHAPES_TEMPLATES];
    int order = scene->single ? 0 : variant / TW_SHAPES_TEMPLATES, objects = scene->single ? 1 : 2;
    out = append(out, scene->single ? template->before_single : template->before);
    for (int i = 0; i < objects; i++) {
        if (i) out = append(out, template->between);
        for (const char *p = template->object; *p; p++) {
            const char *word = word_for(*p, &scene->object[i ^ order]);
            if (word)
                out = append(out, word);
            else
                *out++ = *p;
        }
    }
    *out = '\0';
    if (scene->single && variant >= TW_SHAPES_TEMPLATES) append(out, nothing_else);
}

/* ---- the split ---- */

static void shuffle(int *items, int n, const tw_draw *draw) {
    for (int i = 0; i + 1 < n; i++)
        swap_int(&items[i], &items[i + (int)tw_random_below(draw, (uint32_t)i, (uint64_t)(n - i))]);
}

static bool has_sibling(int index, const bool *in_pool) {
    sibling_list list;
    list_siblings(index, &list);
    for (int i = 0; i < list.count; i++)
        if (in_pool[list.index[i]]) return true;
    return false;
}

/* A sibling of `index` that is not in the pool: the kind of difference is drawn first, so that exchanges and
 * sizes, which have one sibling each, are as frequent as colours, which have ten. -1 if all are taken. */
static int draw_sibling(int index, const bool *in_pool, const tw_draw *draw) {
    sibling_list list;
    list_siblings(index, &list);
    for (uint32_t attempt = 0; attempt < 16; attempt++) {
        int kind = (int)tw_random_below(draw, 2 * attempt, (uint64_t)list.kinds);
        int start = list.kind_start[kind], n = list.kind_start[kind + 1] - start;
        int sibling = list.index[start + (int)tw_random_below(draw, 2 * attempt + 1, (uint64_t)n)];
        if (!in_pool[sibling]) return sibling;
    }
    return -1;
}

static void choose_pool(int valid, int *order, bool *in_pool, int *pool, uint64_t seed) {
    tw_draw draw = {.seed = seed, .purpose = TW_DRAW_DATA, .layer = TW_SHAPES_LAYER_POOL};
    shuffle(order, TW_SHAPES_SCENES, &draw);
    int count = 0, planted = valid / 4 * 2, next = 0;
    draw.layer = TW_SHAPES_LAYER_SIBLING;
    for (; count < planted && next < TW_SHAPES_SCENES; next++) {
        int scene = order[next];
        draw.sample = (uint32_t)next;
        int sibling = in_pool[scene] ? -1 : draw_sibling(scene, in_pool, &draw);
        if (sibling < 0) continue;
        in_pool[scene] = in_pool[sibling] = true;
        pool[count++] = scene;
        pool[count++] = sibling;
    }
    /* The rest has no sibling as long as such scenes are left. */
    for (int pass = 0; pass < 2; pass++, next = 0)
        for (; count < valid && next < TW_SHAPES_SCENES; next++) {
            int scene = order[next];
            if (in_pool[scene] || (pass == 0 && has_sibling(scene, in_pool))) continue;
            in_pool[scene] = true;
            pool[count++] = scene;
        }
    draw.layer = TW_SHAPES_LAYER_POOL, draw.step = 1;
    shuffle(pool, valid, &draw);
}

/* A drawn share of the training pictures shows a drawn scene of one object. */
static void draw_singles(const tw_shapes_options *options, int *train) {
    tw_draw draw = {.seed = options->seed, .purpose = TW_DRAW_DATA, .layer = TW_SHAPES_LAYER_SINGLE};
    for (int i = 0; i < options->train; i++) {
        draw.sample = (uint32_t)i;
        if ((int)tw_random_below(&draw, 0, 100) >= options->singles) continue;
        train[i] = TW_SHAPES_SCENES + (int)tw_random_below(&draw, 1, TW_SHAPES_SINGLES);
    }
}

tw_status tw_shapes_split(const tw_shapes_options *options, int *train, int *valid) {
    TRY(tw_shapes_check(options));
    int *order = malloc(TW_SHAPES_SCENES * sizeof *order);
    bool *in_pool = calloc(TW_SHAPES_SCENES, sizeof *in_pool);
    if (!order || !in_pool) {
        free(order);
        free(in_pool);
        return FAIL(TW_ERR_MEMORY, "shapes: no memory for %d scenes", TW_SHAPES_SCENES);
    }
    for (int i = 0; i < TW_SHAPES_SCENES; i++) order[i] = i;
    choose_pool(options->valid, order, in_pool, valid, options->seed);

    int n = 0;
    for (int i = 0; i < TW_SHAPES_SCENES; i++)
        if (!in_pool[i]) order[n++] = i;
    for (int done = 0, round = 0; done < options->train; done += n, round++) {
        tw_draw draw = {.seed = options->seed,
                        .purpose = TW_DRAW_DATA,
                        .layer = TW_SHAPES_LAYER_TRAIN,
                        .step = (uint32_t)round};
        shuffle(order, n, &draw);
        int take = options->train - done < n ? options->train - done : n;
        memcpy(train + done, order, (size_t)take * sizeof *train);
    }
    draw_singles(options, train);
    free(order);
    free(in_pool);
    return TW_OK;
}
