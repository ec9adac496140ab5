/* Shared by the image tests: the sources that scripts/make_golden_images.py draws (pattern() there), CRC-32,
 * and reading the golden lists. */
#ifndef TW_TESTS_TW_PATTERN_H
#define TW_TESTS_TW_PATTERN_H

#include "data/image.h"
#include "tw_test.h"

static inline uint32_t tw_crc32(const uint8_t *p, size_t n) {
    uint32_t table[256], crc = ~0u;
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int k = 0; k < 8; k++) table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xEDB88320u : 0);
    }
    for (size_t i = 0; i < n; i++) crc = crc >> 8 ^ table[(crc ^ p[i]) & 255];
    return ~crc;
}

static inline uint32_t tw_mix(uint64_t index, uint64_t seed) {
    uint64_t x = (index * 2654435761u + seed * 40503u) & 0xFFFFFFFFu;
    for (int k = 0; k < 2; k++) x = ((x ^ x >> 16) * 0x45D9F3Bu) & 0xFFFFFFFFu;
    return (uint32_t)(x ^ x >> 16);
}

static inline void tw_pattern_wide(tw_image *image, size_t i, unsigned kind, uint32_t word) {
    if (image->mode == TW_MODE_I) {
        static const int shift[3] = {0, 14, 20};
        int32_t v = (int32_t)(((int64_t)word - ((int64_t)1 << 31)) >> shift[kind]);
        memcpy(image->pixels + 4 * i, &v, 4);
        return;
    }
    uint16_t v = (uint16_t)(kind == 0 ? word : kind == 1 ? (word & 1 ? 65535 : 0) : word & 0x1FF);
    memcpy(image->pixels + 2 * i, &v, 2);
}

/* An image of this mode; freed by the caller. */
static inline tw_image tw_pattern(tw_image_mode mode, int width, int height, unsigned seed) {
    tw_image image;
    TW_ASSERT_OK(tw_image_alloc(&image, mode, width, height));
    int wide = mode == TW_MODE_I || mode == TW_MODE_I16;
    size_t bands = wide ? 1 : (size_t)tw_image_pixel_bytes(mode), w = (size_t)width;
    unsigned kind = seed % 3;
    for (size_t i = 0, n = w * (size_t)height * bands; i < n; i++) {
        uint32_t word = tw_mix(i, seed);
        if (wide) {
            tw_pattern_wide(&image, i, kind, word);
            continue;
        }
        size_t at = i / bands, slope = (at % w * 3 + at / w * 5) / 4 % 224 + (word & 31);
        uint8_t v = (uint8_t)(kind == 0 ? word : kind == 1 ? (word & 1 ? 255 : 0) : slope);
        image.pixels[i] = mode == TW_MODE_1 ? (v & 128 ? 255 : 0) : v;
    }
    for (size_t i = 0; image.palette && i < 768; i++) image.palette[i] = (uint8_t)tw_mix(i, seed + 1);
    return image;
}

static inline uint32_t tw_image_crc(const tw_image *image) {
    return tw_crc32(image->pixels,
                    (size_t)image->width * (size_t)image->height * (size_t)tw_image_pixel_bytes(image->mode));
}

static inline tw_image_mode tw_mode_by_name(const char *name) {
    for (int m = TW_MODE_1; m <= TW_MODE_I16; m++)
        if (strcmp(name, tw_image_mode_name((tw_image_mode)m)) == 0) return (tw_image_mode)m;
    ck_abort_msg("mode %s is not known", name);
}

/* Opens tests/golden/`name`; its # lines are for the reader. */
static inline FILE *tw_golden_open(const char *name) {
    char path[512];
    snprintf(path, sizeof path, TW_SOURCE_DIR "/tests/golden/%s", name);
    FILE *f = fopen(path, "r");
    ck_assert_msg(f != NULL,
                  "%s cannot be opened: run scripts/make_golden_images.py or make_golden_augment.py", path);
    return f;
}

static inline int tw_golden_line(FILE *f, char *line, int size) {
    do {
        if (!fgets(line, size, f)) {
            fclose(f);
            return 0;
        }
    } while (line[0] == '#');
    return 1;
}

/* A whole file, malloc'd with no byte to spare, so that a sanitizer sees a read beyond it. */
static inline uint8_t *tw_read_file(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s cannot be opened", path);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    uint8_t *bytes = malloc(*n);
    ck_assert(bytes && fread(bytes, 1, *n, f) == *n);
    fclose(f);
    return bytes;
}

#endif
