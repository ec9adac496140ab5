/* Feature files as JSON lines and .npy; a line that the fast reader takes is what jansson reads in it. */
#include "fuzz.h"

#include "train/formats/features_line.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static void load(const char *path) {
    tw_features *f;
    if (!fuzz_ok(tw_features_load(path, &f))) return;
    fuzz_must(f->n >= 0 && f->dim >= 0, "a file that is read has a size");
    tw_features_free(f);
}

static void compare_id(const json_t *root, tw_features_kind kind, const tw_id *id) {
    const json_t *value = json_object_get(root, kind == TW_FEATURES_IMAGE ? "image_id" : "text_id");
    if (json_is_integer(value)) {
        fuzz_must(id->is_integer && strtoll(id->text, NULL, 10) == json_integer_value(value), "the same id");
        return;
    }
    fuzz_must(json_is_string(value) && !id->is_integer, "the same type of id");
    size_t size = json_string_length(value);
    fuzz_must(id->size == size && memcmp(id->text, json_string_value(value), size) == 0, "the same text id");
}

/* The line with the number of values that it has: 0 to 64 are tried. */
static void compare_line(const char *line, size_t size) {
    float values[64];
    tw_features_kind kind;
    tw_id id;
    for (int64_t dim = 1; dim <= 64; dim++) {
        if (!tw_features_line(line, size, dim, values, &kind, &id)) continue;
        json_t *root = json_loadb(line, size, JSON_REJECT_DUPLICATES, NULL);
        fuzz_must(root != NULL, "what is taken is JSON");
        const json_t *feature = json_object_get(root, "feature");
        fuzz_must((int64_t)json_array_size(feature) == dim, "the same number of values");
        for (int64_t i = 0; i < dim; i++) {
            float want = (float)json_number_value(json_array_get(feature, (size_t)i));
            fuzz_must(memcmp(&want, &values[i], sizeof want) == 0, "the same value");
        }
        compare_id(root, kind, &id);
        json_decref(root);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = fuzz_file(data, size);
    static const char *jsonl, *npy; /* the ending chooses the format; the file's path never changes */
    if (!jsonl) jsonl = fuzz_link("f.jsonl", path), npy = fuzz_link("f.npy", path);
    load(jsonl);
    load(npy);
    char *line = malloc(size ? size : 1); /* not a byte more: reading past the end is to be seen */
    if (!line) return 0;
    memcpy(line, data, size);
    compare_line(line, size);
    free(line);
    return 0;
}
