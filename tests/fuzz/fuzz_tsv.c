/* Tables: image_id<TAB>base64 lines, and lists of (image, text) as CSV, TSV and JSON lines. */
#include "fuzz.h"

#include "data/image_kind.h"
#include "data/table.h"
#include "data/tsv.h"

#include <string.h>

static void fuzz_images(const char *path, size_t size) {
    tw_tsv *tsv;
    tw_tsv_image image;
    bool end = false;
    tw_bad_kind bad;
    int width, height;
    if (!fuzz_ok(tw_tsv_open(path, &tsv))) return;
    for (size_t records = 0; !end; records++) {
        fuzz_must(records <= size + 1, "each call goes on");
        if (!fuzz_ok(tw_tsv_next(tsv, &image, &end, &bad))) {
            if (bad == TW_BAD_NONE) break;
        } else if (!end) {
            fuzz_must(image.id.text[image.id.size] == '\0' && image.id.size > 0, "an id is a text");
            (void)fuzz_ok(tw_image_check_headers(image.data, image.size, &width, &height));
        }
    }
    tw_tsv_close(tsv);
}

static void fuzz_table(const char *path, size_t size) {
    tw_table *table;
    tw_table_row row;
    bool end = false;
    tw_bad_kind bad;
    if (!fuzz_ok(tw_table_open(path, &table))) return;
    for (size_t records = 0; !end; records++) {
        fuzz_must(records <= size + 1, "each call goes on");
        if (!fuzz_ok(tw_table_next(table, &row, &end, &bad))) {
            if (bad == TW_BAD_NONE) break;
        } else if (!end) {
            fuzz_must(row.image[row.image_bytes] == '\0' && row.text[row.text_bytes] == '\0',
                      "texts end in zero");
            fuzz_must(tw_lines_is_utf8(row.text, row.text_bytes, NULL), "a text is UTF-8");
        }
    }
    tw_table_close(table);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *names[3];
    const char *path = fuzz_file(data, size);
    if (!names[0]) {
        names[0] = fuzz_link("list.csv", path);
        names[1] = fuzz_link("list.tsv", path);
        names[2] = fuzz_link("list.jsonl", path);
    }
    fuzz_images(path, size);
    for (int i = 0; i < 3; i++) fuzz_table(names[i], size);
    return 0;
}
