/* Resizing against Pillow (tests/golden/resize.tsv), and the fast loops against the plain ones. */
#include "data/resize.h"
#include "data/resize_kernels.h"
#include "tw_pattern.h"

START_TEST(equals_pillow_byte_for_byte) {
    FILE *f = tw_golden_open("resize.tsv");
    char line[256], mode[8];
    int w, h, new_w, new_h, x, y, box_w, box_h, cases = 0, bad = 0;
    unsigned seed, crc;
    while (tw_golden_line(f, line, sizeof line)) {
        ck_assert_int_eq(sscanf(line, "%7s %d %d %d %d %u %d %d %d %d %x", mode, &w, &h, &new_w, &new_h,
                                &seed, &x, &y, &box_w, &box_h, &crc),
                         11);
        tw_image in = tw_pattern(tw_mode_by_name(mode), w, h, seed), out;
        TW_ASSERT_OK(tw_image_resize_box(&in, x, y, box_w, box_h, new_w, new_h, &out));
        ck_assert(out.mode == in.mode && out.width == new_w && out.height == new_h);
        if (tw_image_crc(&out) != crc) bad++, fprintf(stderr, "differs: %s", line);
        cases++;
        tw_image_free(&in);
        tw_image_free(&out);
    }
    ck_assert_int_ge(cases, 600);
    ck_assert_int_eq(bad, 0);
}
END_TEST

START_TEST(same_size_is_a_copy) {
    tw_image in = tw_pattern(TW_MODE_P, 20, 10, 0), out;
    TW_ASSERT_OK(tw_image_resize(&in, 20, 10, &out));
    ck_assert_mem_eq(in.pixels, out.pixels, 200);
    ck_assert_mem_eq(in.palette, out.palette, 768);
    ck_assert_ptr_ne(in.pixels, out.pixels);
    tw_image_free(&in);
    tw_image_free(&out);
}
END_TEST

START_TEST(refuses_sizes_and_boxes_outside) {
    tw_image in = tw_pattern(TW_MODE_RGB, 20, 10, 0), out;
    TW_ASSERT_FAILS(tw_image_resize(&in, 0, 10, &out), TW_ERR_FORMAT, "0 x 10");
    ck_assert_ptr_null(out.pixels);
    TW_ASSERT_FAILS(tw_image_resize(&in, 100000, 10, &out), TW_ERR_FORMAT, "100000 x 10");
    TW_ASSERT_FAILS(tw_image_resize(&in, 60000, 60000, &out), TW_ERR_FORMAT, "178956970");
    static const int boxes[][4] = {{-1, 0, 5, 5}, {0, -1, 5, 5}, {0, 0, 0, 5},   {0, 0, 5, 0},
                                   {16, 0, 5, 5}, {0, 6, 5, 5},  {0, 0, 21, 10}, {1, 0, 2147483647, 1}};
    for (size_t i = 0; i < sizeof boxes / sizeof *boxes; i++)
        TW_ASSERT_FAILS(
            tw_image_resize_box(&in, boxes[i][0], boxes[i][1], boxes[i][2], boxes[i][3], 5, 5, &out),
            TW_ERR_ARGUMENT, "not inside");
    tw_image_free(&in);
}
END_TEST

/* Weights of either sign whose sum stays within Pillow's bounds, and some output with every count. */
static void make_taps(tw_resize_taps *taps, int width, int outputs, int stride, unsigned seed) {
    size_t n = (size_t)outputs;
    *taps = (tw_resize_taps){outputs, stride, calloc(n, 4), calloc(n, 4), calloc(n * (size_t)stride, 4)};
    for (int o = 0; o < outputs; o++) {
        int limit = stride < width ? stride : width;
        taps->count[o] = 1 + (int)(tw_mix((uint64_t)o, seed) % (unsigned)limit);
        taps->first[o] = (int)(tw_mix((uint64_t)o, seed + 1) % (unsigned)(width - taps->count[o] + 1));
        for (int t = 0; t < taps->count[o]; t++)
            taps->weights[o * stride + t] =
                ((int32_t)(tw_mix((uint64_t)(o * stride + t), seed + 2) >> 9) - (1 << 22) + 700000) /
                taps->count[o];
    }
}

START_TEST(fast_loops_give_the_plain_ones_bits) {
    const tw_resize_kernels *fast = tw_resize_best(), *plain = &tw_resize_portable;
    printf("fast loops: %s\n", fast->name);
    static const int widths[] = {1, 2, 3, 5, 8, 33, 100, 700}, strides[] = {3, 5, 9, 12, 260};
    for (unsigned i = 0; i < 8 * 5 * 4; i++) {
        int width = widths[i % 8], stride = strides[i / 8 % 5], channels = 1 + (int)(i / 40),
            rows = 1 + (int)(i % 23);
        enum { OUTPUTS = 37 };
        tw_resize_taps taps;
        make_taps(&taps, width, OUTPUTS, stride, i);
        size_t row = (size_t)(width * channels), out_row = (size_t)(OUTPUTS * channels), n = (size_t)rows;
        uint8_t *in = malloc(row * n), *a = malloc(out_row * n), *b = malloc(out_row * n);
        for (size_t k = 0; k < row * n; k++) in[k] = (uint8_t)(i % 3 ? tw_mix(k, i) : 255);
        plain->horizontal(&taps, channels, in, row, width, rows, a, out_row);
        fast->horizontal(&taps, channels, in, row, width, rows, b, out_row);
        ck_assert_msg(memcmp(a, b, out_row * n) == 0, "across: width %d, stride %d, %d channels, %d rows",
                      width, stride, channels, rows);
        int count = rows < stride ? rows : stride;
        uint8_t *c = malloc(row), *d = malloc(row);
        plain->vertical(taps.weights, count, in, row, row, c);
        fast->vertical(taps.weights, count, in, row, row, d);
        ck_assert_msg(memcmp(c, d, row) == 0, "down: %zu bytes, %d weights", row, count);
        free(in), free(a), free(b), free(c), free(d);
        free(taps.first), free(taps.count), free(taps.weights);
    }
}
END_TEST

TW_TEST_MAIN("resize", equals_pillow_byte_for_byte, same_size_is_a_copy, refuses_sizes_and_boxes_outside,
             fast_loops_give_the_plain_ones_bits)
