/* What the tests of `prepare` import: TSV and JSON lines in a folder of the test's own, around a real JPEG
 * and a real PNG. */
#ifndef TW_TESTS_PREPARE_CASE_H
#define TW_TESTS_PREPARE_CASE_H

#include "data/base64.h"
#include "data/prepare.h"
#include "own_folder.h"

#include <jansson.h>

/* A real JPEG and a real PNG, of the golden set, as bytes and as base64. */
static uint8_t jpeg[2048], png[2048];
static size_t jpeg_size, png_size;
static char jpeg64[3000], png64[3000];

static inline size_t payload(int index, uint8_t *out, char *text) {
    json_t *golden = json_load_file(TW_SOURCE_DIR "/tests/golden/shards/expected.json", JSON_ALLOW_NUL, NULL);
    ck_assert_ptr_nonnull(golden);
    const char *hex = json_string_value(json_array_get(json_object_get(golden, "payloads"), (size_t)index));
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        ck_assert_int_eq(sscanf(hex + 2 * i, "%2x", &byte), 1);
        out[i] = (uint8_t)byte;
    }
    tw_base64_encode(out, n, text);
    text[tw_base64_encoded_size(n)] = '\0';
    json_decref(golden);
    return n;
}

static inline void set_up(void) {
    jpeg_size = payload(0, jpeg, jpeg64);
    png_size = payload(1, png, png64);
}

/* A TSV of these lines; %J and %P stand for the JPEG and the PNG in base64. */
static inline void write_tsv(const char *const *lines) {
    FILE *f = fopen(temp_path("t_imgs.tsv"), "wb");
    for (; *lines; lines++) {
        for (const char *s = *lines; *s; s++) {
            if (s[0] == '%' && (s[1] == 'J' || s[1] == 'P'))
                fputs(*++s == 'J' ? jpeg64 : png64, f);
            else
                putc(*s, f);
        }
        putc('\n', f);
    }
    ck_assert_int_eq(fclose(f), 0);
}
#define TSV(...) write_tsv((const char *const[]){__VA_ARGS__, NULL})

static const char good_texts[] = "{\"text_id\": 7, \"text\": \"一只狗\", \"image_ids\": [1, 2]}\n"
                                 "{\"text_id\": 8, \"text\": \"两只猫\", \"image_ids\": [2]}\n"
                                 "{\"text_id\": 9, \"text\": \"没有图\", \"image_ids\": []}\n";

static tw_prepare_options options;
static tw_prepare_report report;

static inline tw_status prepare_tsv(void) {
    tw_prepare_report_free(&report);
    return tw_prepare_tsv(temp_path("t_imgs.tsv"), temp_path("t_texts.jsonl"), temp_path("lmdb/t"), &options,
                          &report);
}

#endif
