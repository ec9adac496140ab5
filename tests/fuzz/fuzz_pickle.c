/* Pickles, as they stand in LMDB values (plain data), in .pt files (with torch's names) and in TorchScript
 * archives (with their own classes). */
#include "fuzz.h"

#include "data/pickle.h"
#include "train/formats/torch_pickle.h"

enum { VALUES = 1000 };

static uint32_t walk(const tw_pickle_value *v, int depth) {
    fuzz_must(depth <= TW_PICKLE_MAX_DEPTH, "values are nested TW_PICKLE_MAX_DEPTH deep at most");
    uint32_t n = 1;
    if (v->kind >= TW_PICKLE_TUPLE && v->kind != TW_PICKLE_GLOBAL)
        for (size_t i = 0; i < v->items.size; i++) n += walk(v->items.data[i], depth + 1);
    return n;
}

static void read_torch(const uint8_t *data, size_t size, tw_torch_origin origin) {
    tw_torch_dict *dict;
    if (!fuzz_ok(tw_torch_read("fuzz", data, size, (size_t)16 << 20, origin, &dict))) return;
    for (int64_t i = 0; i < dict->count; i++) {
        const tw_torch_tensor *t = &dict->tensors[i];
        fuzz_must(t->storage >= -1 && t->storage < dict->storage_count, "a tensor's storage is there");
        if (t->storage < 0 || dict->items[i].count == 0) continue;
        int64_t last = t->offset;
        for (int d = 0; d < dict->items[i].ndim; d++) last += (dict->items[i].shape[d] - 1) * t->stride[d];
        fuzz_must(t->offset >= 0 && last < dict->storages[t->storage].count, "a tensor lies in its storage");
    }
    tw_torch_free(dict);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static tw_pickle *parser;
    if (!parser) fuzz_must(fuzz_ok(tw_pickle_new(VALUES, &parser)), "a parser can be made");
    const tw_pickle_value *root;
    if (fuzz_ok(tw_pickle_read(parser, data, size, &root))) {
        fuzz_must(root->values <= VALUES && walk(root, 0) == root->values, "a walk is as long as promised");
        fuzz_must(tw_pickle_end(parser) <= size, "a pickle ends in its input");
    }
    read_torch(data, size, TW_TORCH_SAVED);
    read_torch(data, size, TW_TORCH_SCRIPTED);
    return 0;
}
