/* Positional grids against torch's bicubic interpolation (scripts/make_golden_position_grid.py). */
#include "golden_file.h"
#include "train/position_grid.h"

#include <math.h>

enum { WIDTH = 3 };

START_TEST(agrees_with_torch) {
    hid_t file = golden_open(TW_SOURCE_DIR "/tests/golden/position_grid.h5");
    int cases = golden_int(file, "/all", "cases");
    ck_assert_int_ge(cases, 8);
    for (int n = 0; n < cases; n++) {
        char group[32], name[48];
        snprintf(group, sizeof group, "/case%d", n);
        int from = golden_int(file, group, "from_side"), to = golden_int(file, group, "to_side");
        int64_t count = (int64_t)(1 + to * to) * WIDTH;
        snprintf(name, sizeof name, "%s/from", group);
        float *table = golden_f32(file, name, (int64_t)(1 + from * from) * WIDTH);
        snprintf(name, sizeof name, "%s/to", group);
        float *want = golden_f32(file, name, count), *got = malloc((size_t)count * sizeof *got);
        TW_ASSERT_OK(tw_resize_position_grid(table, from, got, to, WIDTH));
        for (int64_t i = 0; i < count; i++)
            ck_assert_msg(fabsf(got[i] - want[i]) <= 2e-7f * (1 + fabsf(want[i])),
                          "case %d, value %d: %g, want %g", n, (int)i, (double)got[i], (double)want[i]);
        free(table);
        free(want);
        free(got);
    }
    H5Fclose(file);
}
END_TEST

START_TEST(finds_the_side) {
    ck_assert_int_eq(tw_position_grid_side(197), 14);
    ck_assert_int_eq(tw_position_grid_side(577), 24);
    ck_assert_int_eq(tw_position_grid_side(2), 1);
    ck_assert_int_eq(tw_position_grid_side(196), 0);
    ck_assert_int_eq(tw_position_grid_side(1), 0);
    ck_assert_int_eq(tw_position_grid_side(0), 0);
    ck_assert_int_eq(tw_position_grid_side(INT64_MAX), 0);
}
END_TEST

START_TEST(refuses_empty_grids) {
    float x[2] = {0};
    TW_ASSERT_FAILS(tw_resize_position_grid(x, 0, x, 1, 1), TW_ERR_ARGUMENT, "0 x 0");
}
END_TEST

TW_TEST_MAIN("position_grid", agrees_with_torch, finds_the_side, refuses_empty_grids)
