/* Decoding against Pillow (tests/golden/images.tsv), damaged files, sizes beyond the limits. */
#include "data/image.h"
#include "data/tsv.h"
#include "tw_pattern.h"

#include <dirent.h>
#include <unistd.h>

#define SAMPLES TW_SOURCE_DIR "/tests/golden/images/"

static uint8_t *sample(const char *name, size_t *n) {
    char path[512];
    snprintf(path, sizeof path, SAMPLES "%s", name);
    return tw_read_file(path, n);
}

static uint32_t load_crc(const uint8_t *bytes, size_t n, int resolution, int rgb_first) {
    size_t size = 3 * (size_t)resolution * (size_t)resolution;
    uint8_t *rgb = malloc(size);
    if (rgb_first)
        TW_ASSERT_OK(tw_image_load_rgb_first(bytes, n, resolution, rgb));
    else
        TW_ASSERT_OK(tw_image_load(bytes, n, resolution, rgb));
    uint32_t crc = tw_crc32(rgb, size);
    free(rgb);
    return crc;
}

START_TEST(files_equal_pillow) {
    FILE *f = tw_golden_open("images.tsv");
    char line[256], name[64], mode[8];
    int w, h, cases = 0, bad = 0;
    unsigned decoded, small, large, first, modes = 0;
    while (tw_golden_line(f, line, sizeof line)) {
        ck_assert_int_eq(
            sscanf(line, "%63s %7s %d %d %x %x %x %x", name, mode, &w, &h, &decoded, &small, &large, &first),
            8);
        size_t n;
        uint8_t *bytes = sample(name, &n);
        tw_image image;
        TW_ASSERT_OK(tw_image_decode(bytes, n, &image));
        ck_assert_msg(image.mode == tw_mode_by_name(mode) && image.width == w && image.height == h,
                      "%s is %s, %d x %d", name, tw_image_mode_name(image.mode), image.width, image.height);
        if (tw_image_crc(&image) != decoded || load_crc(bytes, n, 32, 0) != small ||
            load_crc(bytes, n, 80, 0) != large || load_crc(bytes, n, 32, 1) != first)
            bad++, fprintf(stderr, "differs: %s", line);
        modes |= 1u << image.mode;
        tw_image_free(&image);
        free(bytes);
        cases++;
    }
    ck_assert_int_ge(cases, 60);
    ck_assert_uint_eq(modes, (1u << (TW_MODE_I16 + 1)) - 1 - (1u << TW_MODE_I)); /* no file opens as I */
    ck_assert_int_eq(bad, 0);
}
END_TEST

/* Real photographs at several resolutions; one CRC over the CRCs of all. */
START_TEST(photographs_equal_pillow) {
    const char *shared = getenv("TW_SHARED");
    char path[512], line[128];
    snprintf(path, sizeof path, "%s/data/flickr8k-cn/valid_imgs.tsv",
             shared ? shared : TW_SOURCE_DIR "/../shared");
    tw_tsv *tsv;
    if (access(path, R_OK) != 0) TW_SKIP("no flickr8k-cn photographs; TW_SHARED says where");
    TW_ASSERT_OK(tw_tsv_open(path, &tsv));
    int count, resolution[3];
    unsigned expected[3];
    FILE *f = tw_golden_open("photos.tsv");
    ck_assert(tw_golden_line(f, line, sizeof line));
    ck_assert_int_eq(sscanf(line, "%d %d %x %d %x %d %x", &count, &resolution[0], &expected[0],
                            &resolution[1], &expected[1], &resolution[2], &expected[2]),
                     7);
    fclose(f);
    uint32_t *sums = calloc((size_t)count * 3, sizeof *sums);
    for (int i = 0; i < count; i++) {
        tw_tsv_image image;
        bool end;
        tw_bad_kind bad;
        TW_ASSERT_OK(tw_tsv_next(tsv, &image, &end, &bad));
        ck_assert(!end);
        for (int k = 0; k < 3; k++) sums[k * count + i] = load_crc(image.data, image.size, resolution[k], 0);
    }
    for (int k = 0; k < 3; k++)
        ck_assert_uint_eq(tw_crc32((const uint8_t *)(sums + k * count), 4 * (size_t)count), expected[k]);
    free(sums);
    tw_tsv_close(tsv);
}
END_TEST

START_TEST(integers_are_clipped_to_rgb) {
    tw_image image, rgb;
    TW_ASSERT_OK(tw_image_alloc(&image, TW_MODE_I, 5, 1));
    memcpy(image.pixels, (int32_t[]){-2147483647 - 1, -1, 200, 256, 2147483647}, 20);
    TW_ASSERT_OK(tw_image_to_rgb(&image, &rgb));
    ck_assert_mem_eq(rgb.pixels, ((uint8_t[]){0, 0, 0, 0, 0, 0, 200, 200, 200, 255, 255, 255, 255, 255, 255}),
                     15);
    tw_image_free(&image);
    tw_image_free(&rgb);
}
END_TEST

START_TEST(refuses_what_is_no_image) {
    tw_image image;
    static const uint8_t text[] = "<html><body>404</body></html>";
    TW_ASSERT_FAILS(tw_image_decode(text, 0, &image), TW_ERR_FORMAT, "empty");
    TW_ASSERT_FAILS(tw_image_decode(text, sizeof text, &image), TW_ERR_FORMAT, "not an image");
    TW_ASSERT_FAILS(tw_image_decode("\xff", 1, &image), TW_ERR_FORMAT, "not an image");
    TW_ASSERT_FAILS(tw_image_decode("GIF89a......", 12, &image), TW_ERR_UNSUPPORTED, "GIF");
    TW_ASSERT_FAILS(tw_image_decode("\0\0\0 ftypavif....", 16, &image), TW_ERR_UNSUPPORTED, "AVIF");
    TW_ASSERT_FAILS(tw_image_decode("\xff\xd8\xff", 3, &image), TW_ERR_FORMAT, "truncated");
    TW_ASSERT_FAILS(tw_image_decode("\x89PNG\r\n\x1a\n", 8, &image), TW_ERR_FORMAT, "truncated");
    TW_ASSERT_FAILS(tw_image_decode("RIFF\0\0\0\0WEBP", 12, &image), TW_ERR_FORMAT, "WebP");
    ck_assert_ptr_null(image.pixels);
    uint8_t rgb[3];
    TW_ASSERT_FAILS(tw_image_load(text, sizeof text, 1, rgb), TW_ERR_FORMAT, "not an image");
    TW_ASSERT_FAILS(tw_image_load(text, sizeof text, 0, rgb), TW_ERR_ARGUMENT, "resolution 0");
    TW_ASSERT_FAILS(tw_image_load_rgb_first(text, sizeof text, -1, rgb), TW_ERR_ARGUMENT, "resolution -1");
}
END_TEST

static uint32_t png_crc(const uint8_t *p, size_t n) {
    return tw_crc32(p, n);
}

static void put32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* A sample with another size written into its header. */
static void assert_size_refused(const char *name, uint32_t width, uint32_t height, const char *part) {
    size_t n;
    uint8_t *bytes = sample(name, &n);
    tw_image image;
    if (bytes[0] == 0x89) {
        put32(bytes + 16, width), put32(bytes + 20, height);
        put32(bytes + 29, png_crc(bytes + 12, 17));
    } else {
        size_t sof = 2;
        while (bytes[sof + 1] != 0xC0 && bytes[sof + 1] != 0xC2)
            sof += 2u + (size_t)(bytes[sof + 2] << 8 | bytes[sof + 3]);
        bytes[sof + 5] = (uint8_t)(height >> 8), bytes[sof + 6] = (uint8_t)height;
        bytes[sof + 7] = (uint8_t)(width >> 8), bytes[sof + 8] = (uint8_t)width;
    }
    TW_ASSERT_FAILS(tw_image_decode(bytes, n, &image), TW_ERR_FORMAT, part);
    ck_assert_ptr_null(image.pixels);
    free(bytes);
}

START_TEST(refuses_sizes_beyond_the_limits) {
    assert_size_refused("png_rgb8.png", 0, 5, "0 x 5");
    assert_size_refused("png_rgb8.png", 5, 0, "5 x 0");
    assert_size_refused("png_rgb8.png", 100000, 1, "100000 x 1");
    assert_size_refused("png_rgb8.png", 1, 100000, "1 x 100000");
    assert_size_refused("png_rgb8.png", 60000, 60000, "60000 x 60000");
    assert_size_refused("png_gray1.png", 0xFFFFFFFF, 0xFFFFFFFF, "4294967295 x 4294967295");
    assert_size_refused("jpeg_444.jpg", 0, 5, "JPEG");
    assert_size_refused("jpeg_444.jpg", 65535, 1, "65500");
    assert_size_refused("jpeg_444.jpg", 65000, 65000, "65000 x 65000");
    assert_size_refused("jpeg_444_progressive.jpg", 13000, 13000, "cannot hold the 13000 x 13000");
}
END_TEST

START_TEST(truncated_files_are_refused) {
    static const char *const names[] = {"jpeg_420.jpg",
                                        "jpeg_420_progressive.jpg",
                                        "jpeg_gray.jpg",
                                        "jpeg_cmyk.jpg",
                                        "png_rgb8.png",
                                        "png_palette8.png",
                                        "png_gray16_interlaced.png",
                                        "webp_lossy.webp",
                                        "webp_lossless.webp",
                                        "webp_lossy_alpha.webp",
                                        "webp_animation.webp"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t n;
        uint8_t *bytes = sample(names[i], &n);
        /* Pillow needs a JPEG's end marker too; PNG's IEND chunk (12 bytes and the data's checksum) is not
         * read */
        size_t needed = strncmp(names[i], "png", 3) == 0         ? n - 16 - 4
                        : strncmp(names[i], "webp_anim", 9) == 0 ? 600
                                                                 : n - 3;
        for (size_t length = 0; length < needed; length += length < 64 || needed - length < 40 ? 1 : 29) {
            uint8_t *part = malloc(length ? length : 1); /* exact size: a sanitizer sees a byte too far */
            memcpy(part, bytes, length);
            tw_image image;
            tw_status status = tw_image_decode(part, length, &image);
            ck_assert_msg(status == TW_ERR_FORMAT, "%s cut to %zu of %zu bytes: %s (%s)", names[i], length, n,
                          tw_status_name(status), status ? tw_last_error() : "decoded");
            ck_assert_ptr_null(image.pixels);
            free(part);
        }
        free(bytes);
    }
}
END_TEST

/* Damages `bytes` in one of four ways; returns the new length. Sizes in headers are kept small, for the
 * test's time only: tw_image_alloc's limits have their own test. */
static size_t damage(uint8_t *bytes, size_t n, uint64_t k) {
    uint32_t r[6];
    for (uint64_t i = 0; i < 6; i++) r[i] = tw_mix(k * 6 + i, 99);
    switch (r[0] % 4) {
    case 0:
        bytes[r[1] % n] ^= (uint8_t)(1u << r[2] % 8);
        return n;
    case 1:
        for (uint32_t i = 0; i <= r[5] % 8; i++)
            bytes[tw_mix(k + i, r[1]) % n] = (uint8_t)tw_mix(k + i, r[2]);
        return n;
    case 2:
        return 1 + r[1] % n;
    default: { /* a piece copied elsewhere: markers and chunks in wrong places */
        size_t from = r[1] % n, to = r[2] % n, length = 1 + r[3] % 64;
        if (from + length > n) length = n - from;
        if (to + length > n) length = n - to;
        memmove(bytes + to, bytes + from, length);
        return n;
    }
    }
}

/* PNG: makes the checksums right again, so that the damage reaches the code behind them. */
static void repair_png(uint8_t *b, size_t n) {
    for (size_t at = 8; at + 12 <= n;) {
        uint32_t length =
            (uint32_t)b[at] << 24 | (uint32_t)b[at + 1] << 16 | (uint32_t)b[at + 2] << 8 | b[at + 3];
        if (length > n - at - 12) return;
        put32(b + at + 8 + length, png_crc(b + at + 4, length + 4));
        at += length + 12;
    }
}

START_TEST(damaged_files_never_crash) {
    DIR *folder = opendir(SAMPLES);
    ck_assert_ptr_nonnull(folder);
    int tries = 0, decoded = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_name[0] == '.') continue;
        size_t n;
        uint8_t *bytes = sample(entry->d_name, &n), rgb[3 * 16 * 16];
        for (uint64_t k = 0; k < 100; k++, tries++) {
            uint8_t *copy = malloc(n);
            memcpy(copy, bytes, n);
            size_t length = damage(copy, n, k + 1000 * tw_mix(n, 5));
            if (copy[0] == 0x89 && k % 2) repair_png(copy, length);
            uint8_t *exact = malloc(length);
            memcpy(exact, copy, length);
            tw_status status = tw_image_load(exact, length, 16, rgb);
            if (status == TW_OK)
                decoded++;
            else
                ck_assert_msg(status == TW_ERR_FORMAT || status == TW_ERR_UNSUPPORTED,
                              "%s, damage %d: %s (%s)", entry->d_name, (int)k, tw_last_error(),
                              tw_status_name(status));
            free(copy);
            free(exact);
        }
        free(bytes);
    }
    closedir(folder);
    printf("%d damaged files: %d decoded, %d refused\n", tries, decoded, tries - decoded);
    ck_assert_int_gt(tries, 6000);
    ck_assert_int_gt(decoded, tries / 10);
    ck_assert_int_gt(tries - decoded, tries / 10);
}
END_TEST

TW_TEST_MAIN("image", files_equal_pillow, photographs_equal_pillow, integers_are_clipped_to_rgb,
             refuses_what_is_no_image, refuses_sizes_beyond_the_limits, truncated_files_are_refused,
             damaged_files_never_crash)
