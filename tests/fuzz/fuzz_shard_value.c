/* The values of LMDB shards: pairs (pickle or JSON), and images as base64. */
#include "fuzz.h"

#include "data/base64.h"
#include "data/image_kind.h"
#include "data/jsonl.h"
#include "data/shard_pair.h"

#include <stdlib.h>
#include <string.h>

static int same_id(const tw_id *a, const tw_id *b) {
    return a->size == b->size && memcmp(a->text, b->text, a->size) == 0 && a->is_integer == b->is_integer;
}

static void check_pair(const tw_pair *pair, char *value, size_t size) {
    static tw_pair_reader *again;
    tw_pair b;
    if (!again) fuzz_must(fuzz_ok(tw_pair_reader_new(&again)), "a reader can be made");
    fuzz_must(fuzz_ok(tw_pair_parse(again, value, size, &b)), "what is written is read");
    fuzz_must(same_id(&pair->image_id, &b.image_id) && same_id(&pair->text_id, &b.text_id) &&
                  pair->text_bytes == b.text_bytes && memcmp(pair->text, b.text, b.text_bytes) == 0,
              "a pair written and read is the same");
    free(value);
}

static void fuzz_pair(const uint8_t *data, size_t size) {
    static tw_pair_reader *reader;
    if (!reader) fuzz_must(fuzz_ok(tw_pair_reader_new(&reader)), "a reader can be made");
    tw_pair p;
    if (!fuzz_ok(tw_pair_parse(reader, data, size, &p))) return;
    fuzz_must(p.text[p.text_bytes] == '\0' && p.image_id.text[p.image_id.size] == '\0', "texts end in zero");
    char *value;
    size_t bytes;
    fuzz_must(fuzz_ok(tw_pair_to_pickle(&p.image_id, &p.text_id, p.text, p.text_bytes, &value, &bytes)),
              "a pair can be written as pickle");
    check_pair(&p, value, bytes);
    fuzz_must(fuzz_ok(tw_pair_to_json(&p.image_id, &p.text_id, p.text, p.text_bytes, &value, &bytes)),
              "a pair can be written as JSON");
    check_pair(&p, value, bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_pair(data, size);
    uint8_t *bytes = malloc(tw_base64_decoded_bound(size));
    size_t n;
    int width, height;
    if (bytes && fuzz_ok(tw_base64_decode((const char *)data, size, bytes, &n))) {
        char *text = malloc(tw_base64_encoded_size(n) + 1);
        uint8_t *same = malloc(tw_base64_decoded_bound(size));
        size_t m;
        tw_base64_encode(bytes, n, text);
        fuzz_must(fuzz_ok(tw_base64_decode(text, tw_base64_encoded_size(n), same, &m)) && m == n &&
                      memcmp(bytes, same, n) == 0,
                  "base64 goes both ways");
        (void)fuzz_ok(tw_image_check_headers(bytes, n, &width, &height));
        free(text);
        free(same);
    }
    (void)fuzz_ok(tw_image_check_headers(data, size, &width, &height));
    free(bytes);
    return 0;
}
