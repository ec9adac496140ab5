/* JSON lines of texts; a record that is read is written and read again. */
#include "fuzz.h"

#include "data/captions.h"
#include "data/jsonl.h"

#include <stdlib.h>
#include <string.h>

static void check_written(const tw_caption *c) {
    char *text;
    size_t size;
    fuzz_must(fuzz_ok(tw_caption_to_json(&c->text_id, c->text, c->text_bytes, c->image_ids, c->images, &text,
                                         &size)),
              "a record can be written");
    fuzz_must(size == strlen(text) && !memchr(text, '\n', size), "a record is one line");
    fuzz_must(tw_lines_is_utf8(text, size, NULL), "a record is UTF-8");
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = fuzz_file(data, size);
    tw_jsonl *jsonl;
    tw_caption c;
    bool end = false;
    tw_bad_kind bad;
    if (!fuzz_ok(tw_jsonl_open(path, &jsonl))) return 0;
    for (int64_t records = 0; !end; records++) {
        fuzz_must(records <= (int64_t)size + 1, "each call goes on");
        if (fuzz_ok(tw_jsonl_next(jsonl, &c, &end, &bad))) {
            if (!end) check_written(&c);
        } else if (bad == TW_BAD_NONE) {
            break;
        }
    }
    tw_jsonl_close(jsonl);
    tw_captions *captions;
    if (fuzz_ok(tw_captions_load(path, NULL, &captions))) {
        fuzz_must(captions->texts > 0, "a file without a record is refused");
        tw_captions_free(captions);
    }
    return 0;
}
