/* Augmentation against timm: each operation, and whole transforms from the same draws. */
#include "data/augment.h"
#include "tw_pattern.h"

static tw_augment_kind kind_by_name(const char *name) {
    for (int k = 0; k < TW_AUGMENT_KINDS; k++)
        if (strcmp(name, tw_augment_name((tw_augment_kind)k)) == 0) return (tw_augment_kind)k;
    ck_abort_msg("operation %s is not known", name);
}

START_TEST(operations_equal_timm) {
    FILE *f = tw_golden_open("augment_ops.tsv");
    char line[256], name[32];
    double value;
    int w, h, cases = 0, bad = 0, seen[TW_AUGMENT_KINDS] = {0};
    unsigned seed, crc;
    while (tw_golden_line(f, line, sizeof line)) {
        ck_assert_int_eq(sscanf(line, "%31s %lf %d %d %u %x", name, &value, &w, &h, &seed, &crc), 6);
        tw_image image = tw_pattern(TW_MODE_RGB, w, h, seed);
        for (size_t i = 0, n = 3 * (size_t)w * (size_t)h; i < n; i++) {
            if (seed % 4 == 0)
                image.pixels[i] = (uint8_t)(image.pixels[i] / 3 + 40);
            else if (seed % 11 == 0)
                image.pixels[i] = 77;
        }
        tw_augment_op op = {kind_by_name(name), value};
        TW_ASSERT_OK(tw_augment_op_apply(&op, w, h, image.pixels));
        if (tw_image_crc(&image) != crc) bad++, fprintf(stderr, "differs: %s", line);
        tw_image_free(&image);
        seen[op.kind]++, cases++;
    }
    for (int k = 0; k < TW_AUGMENT_KINDS; k++) ck_assert_int_gt(seen[k], 0);
    ck_assert_int_ge(cases, 300);
    ck_assert_int_eq(bad, 0);
}
END_TEST

/* "Rotate,27.0,Color,0.1" or "-" */
static void assert_ops(const tw_augment_plan *plan, char *list, const char *line) {
    int count = 0;
    for (char *name = strtok(list, ","); name && strcmp(name, "-") != 0; name = strtok(NULL, ",")) {
        char *value = strtok(NULL, ",");
        ck_assert_ptr_nonnull(value);
        ck_assert_msg(count < plan->op_count && plan->ops[count].kind == kind_by_name(name) &&
                          plan->ops[count].value == strtod(value, NULL),
                      "operation %d should be %s %s: %s", count, name, value, line);
        count++;
    }
    ck_assert_msg(count == plan->op_count, "%d operations planned: %s", plan->op_count, line);
}

START_TEST(plans_and_pixels_equal_timm) {
    FILE *f = tw_golden_open("augment_plans.tsv");
    char line[512], mode[8], ops[128];
    int w, h, resolution, x, y, crop_w, crop_h, flip, cases = 0, bad = 0;
    unsigned pattern, epoch, sample, crc;
    unsigned long long seed;
    while (tw_golden_line(f, line, sizeof line)) {
        ck_assert_int_eq(sscanf(line, "%7s %d %d %u %d %llu %u %u %d %d %d %d %d %127s %x", mode, &w, &h,
                                &pattern, &resolution, &seed, &epoch, &sample, &x, &y, &crop_w, &crop_h,
                                &flip, ops, &crc),
                         15);
        tw_augment_plan plan;
        tw_augment_plan_draw(&tw_augment_original, w, h, seed, epoch, sample, &plan);
        ck_assert_msg(plan.x == x && plan.y == y && plan.width == crop_w && plan.height == crop_h &&
                          plan.flip == flip,
                      "planned (%d, %d) + %d x %d, flip %d: %s", plan.x, plan.y, plan.width, plan.height,
                      plan.flip, line);
        assert_ops(&plan, ops, line);
        tw_image image = tw_pattern(tw_mode_by_name(mode), w, h, pattern);
        size_t bytes = 3 * (size_t)resolution * (size_t)resolution;
        uint8_t *rgb = malloc(bytes);
        TW_ASSERT_OK(tw_augment_apply(&image, &plan, resolution, rgb));
        if (tw_crc32(rgb, bytes) != crc) bad++, fprintf(stderr, "differs: %s", line);
        free(rgb);
        tw_image_free(&image);
        cases++;
    }
    ck_assert_int_ge(cases, 250);
    ck_assert_int_eq(bad, 0);
}
END_TEST

START_TEST(draws_depend_on_every_part_of_the_key) {
    tw_augment_plan a, b;
    tw_augment_plan_draw(&tw_augment_original, 500, 375, 1, 2, 3, &a);
    tw_augment_plan_draw(&tw_augment_original, 500, 375, 1, 2, 3, &b);
    ck_assert(a.x == b.x && a.width == b.width && a.height == b.height && a.flip == b.flip);
    tw_augment_plan_draw(&tw_augment_original, 500, 375, 2, 2, 3, &b);
    ck_assert(a.width != b.width || a.height != b.height);
    tw_augment_plan_draw(&tw_augment_original, 500, 375, 1, 3, 3, &b);
    ck_assert(a.width != b.width || a.height != b.height);
    tw_augment_plan_draw(&tw_augment_original, 500, 375, 1, 2, 4, &b);
    ck_assert(a.width != b.width || a.height != b.height);
}
END_TEST

/* Areas are uniform down to the policy's smallest; without AutoAugment nothing follows the flip. */
START_TEST(a_policy_sets_the_smallest_crop_and_what_follows) {
    enum { N = 4000, SIDE = 400 };
    const tw_augment_policy policy = {.min_area = 0.3};
    double least = 1, mean = 0;
    for (unsigned i = 0; i < N; i++) {
        tw_augment_plan p, original;
        tw_augment_plan_draw(&policy, SIDE, SIDE, 7, 0, i, &p);
        tw_augment_plan_draw(&tw_augment_original, SIDE, SIDE, 7, 0, i, &original);
        ck_assert_int_eq(p.op_count, 0);
        ck_assert_int_eq(p.flip, original.flip);
        double area = (double)p.width * p.height / (SIDE * SIDE);
        if (area < least) least = area;
        mean += area / N;
    }
    ck_assert_msg(least > 0.295 && least < 0.31, "smallest area %g", least);
    ck_assert_msg(mean > 0.58 && mean < 0.66, "mean area %g",
                  mean); /* below 0.65: large ones fit fewer ratios */
}
END_TEST

START_TEST(plans_stay_inside_and_follow_the_probabilities) {
    enum { N = 20000 };
    int flips = 0, rotations = 0;
    for (unsigned i = 0; i < N; i++) {
        int w = 1 + (int)(tw_mix(i, 1) % 700), h = 1 + (int)(tw_mix(i, 2) % 700);
        tw_augment_plan p;
        tw_augment_plan_draw(&tw_augment_original, w, h, 7, 0, i, &p);
        ck_assert_msg(p.x >= 0 && p.y >= 0 && p.width >= 1 && p.height >= 1 && p.x + p.width <= w &&
                          p.y + p.height <= h,
                      "(%d, %d) + %d x %d in %d x %d", p.x, p.y, p.width, p.height, w, h);
        flips += p.flip;
        for (int k = 0; k < p.op_count; k++) rotations += p.ops[k].kind == TW_AUGMENT_ROTATE;
    }
    ck_assert_double_eq_tol(flips / (double)N, 0.5, 0.02);
    /* the policy's rotations have the probabilities 0.6, 0.8, 0.2, 0.8, 0.4, 0.8 */
    ck_assert_double_eq_tol(rotations / (double)N, 3.6 / 25, 0.01);
}
END_TEST

START_TEST(refuses_bad_plans) {
    tw_image image = tw_pattern(TW_MODE_RGB, 20, 10, 0);
    uint8_t rgb[3 * 8 * 8];
    tw_augment_plan p = {.x = 15, .width = 10, .height = 10};
    TW_ASSERT_FAILS(tw_augment_apply(&image, &p, 8, rgb), TW_ERR_ARGUMENT, "not inside");
    static const tw_augment_op bad[] = {{TW_AUGMENT_POSTERIZE, 0},      {TW_AUGMENT_POSTERIZE, 9},
                                        {TW_AUGMENT_SOLARIZE, 257},     {TW_AUGMENT_SOLARIZE, -1},
                                        {TW_AUGMENT_ROTATE, 1.0 / 0.0}, {TW_AUGMENT_KINDS, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        p = (tw_augment_plan){.width = 20, .height = 10, .op_count = 1, .ops = {bad[i]}};
        TW_ASSERT_FAILS(tw_augment_apply(&image, &p, 8, rgb), TW_ERR_ARGUMENT, "");
    }
    TW_ASSERT_FAILS(tw_image_augment("nonsense", 8, 8, &tw_augment_original, 1, 0, 0, rgb), TW_ERR_FORMAT,
                    "not an image");
    TW_ASSERT_FAILS(tw_image_augment("nonsense", 8, 0, &tw_augment_original, 1, 0, 0, rgb), TW_ERR_ARGUMENT,
                    "resolution 0");
    tw_image_free(&image);
}
END_TEST

TW_TEST_MAIN("augment", operations_equal_timm, plans_and_pixels_equal_timm,
             draws_depend_on_every_part_of_the_key, plans_stay_inside_and_follow_the_probabilities,
             a_policy_sets_the_smallest_crop_and_what_follows, refuses_bad_plans)
