/* Reads the captions of data/shapes.h back, for its tests. */
#ifndef TW_TESTS_SHAPES_CAPTIONS_H
#define TW_TESTS_SHAPES_CAPTIONS_H

#include "data/shapes.h"
#include "tw_test.h"

#include <stdbool.h>

/* The words as a reader knows them, independent of the generator's own lists. */
static const char *const words[4][6] = {{"左上角", "右上角", "左下角", "右下角"},
                                        {"红", "黄", "绿", "蓝", "紫", "黑"},
                                        {"圆", "三角形", "正方形", "五角星"},
                                        {"大", "小"}};

static inline int *attribute(tw_shapes_object *object, int kind) {
    int *const fields[] = {&object->place, &object->colour, &object->shape, &object->size};
    return fields[kind];
}

/* Reads a caption from left to right: each object's four attributes come together, in any order. Returns the
 * scene's number, -1 if an attribute is missing, twice there, or left over. */
static inline int parse_caption(const char *text) {
    tw_shapes_scene scene = {.object = {{-1, -1, -1, -1}, {-1, -1, -1, -1}}};
    int found = 0;
    while (*text) {
        bool matched = false;
        for (int kind = 0; kind < 4 && !matched; kind++)
            for (int value = 0; value < 6 && words[kind][value] && !matched; value++) {
                size_t length = strlen(words[kind][value]);
                if (strncmp(text, words[kind][value], length) != 0) continue;
                if (found == 8) return -1;
                int *field = attribute(&scene.object[found / 4], kind);
                if (*field >= 0) return -1;
                *field = value, found++, text += length, matched = true;
            }
        if (!matched) text++;
    }
    scene.single = found == 4;
    return found == 8 || found == 4 ? tw_shapes_scene_index(&scene) : -1;
}

#endif
