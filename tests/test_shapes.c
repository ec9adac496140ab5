/* Scenes, their captions, and which of them the splits hold. The files: test_shapes_files.c. */
#include "shapes_captions.h"

#include <math.h>

/* The definition of siblings in its own words: one attribute of one object differs, or one kind of attribute
 * has changed places (for places: both objects have). */
static bool are_siblings(int a, int b) {
    tw_shapes_scene x = tw_shapes_scene_at(a), y = tw_shapes_scene_at(b);
    for (int order = 0; order < 2; order++) {
        int differences = 0, kind_of_both = -1, count[4] = {0};
        for (int i = 0; i < 2; i++)
            for (int kind = 0; kind < 4; kind++) {
                bool differs = *attribute(&x.object[i], kind) != *attribute(&y.object[i ^ order], kind);
                differences += differs, count[kind] += differs;
            }
        if (differences == 1) return true;
        for (int kind = 0; kind < 4; kind++)
            if (count[kind] == 2 && differences == 2) kind_of_both = kind;
        if (kind_of_both >= 0 &&
            *attribute(&x.object[0], kind_of_both) == *attribute(&y.object[1 ^ order], kind_of_both) &&
            *attribute(&x.object[1], kind_of_both) == *attribute(&y.object[order], kind_of_both))
            return true;
    }
    return false;
}

START_TEST(numbers_scenes_both_ways) {
    ck_assert_int_eq(TW_SHAPES_SCENES, 13824);
    for (int i = TW_SHAPES_SCENES; i < TW_SHAPES_SCENES + TW_SHAPES_SINGLES; i++) {
        tw_shapes_scene scene = tw_shapes_scene_at(i);
        ck_assert(scene.single);
        ck_assert_int_eq(tw_shapes_scene_index(&scene), i);
    }
    for (int i = 0; i < TW_SHAPES_SCENES; i++) {
        tw_shapes_scene scene = tw_shapes_scene_at(i);
        ck_assert(!scene.single);
        ck_assert_int_lt(scene.object[0].place, scene.object[1].place);
        ck_assert_int_eq(tw_shapes_scene_index(&scene), i);
        tw_shapes_scene turned = {.object = {scene.object[1], scene.object[0]}};
        ck_assert_int_eq(tw_shapes_scene_index(&turned), i);
    }
}
END_TEST

START_TEST(finds_exactly_the_siblings) {
    for (int i = 5; i < TW_SHAPES_SCENES; i += 997) {
        int list[TW_SHAPES_SIBLINGS_MAX], n = tw_shapes_siblings(i, list), expected = 0;
        for (int k = 0; k < n; k++) {
            ck_assert(list[k] != i && are_siblings(i, list[k]));
            for (int m = 0; m < k; m++) ck_assert_int_ne(list[m], list[k]);
        }
        for (int k = 0; k < TW_SHAPES_SCENES; k++) expected += k != i && are_siblings(i, k);
        ck_assert_int_eq(n, expected);
    }
}
END_TEST

START_TEST(captions_parse_back_to_their_scene) {
    for (int i = 0; i < TW_SHAPES_SCENES + TW_SHAPES_SINGLES; i += i < TW_SHAPES_SCENES ? 7 : 1) {
        tw_shapes_scene scene = tw_shapes_scene_at(i);
        char captions[TW_SHAPES_CAPTIONS][TW_SHAPES_CAPTION_BYTES];
        for (int v = 0; v < TW_SHAPES_CAPTIONS; v++) {
            tw_shapes_caption(&scene, v, captions[v]);
            ck_assert_msg(parse_caption(captions[v]) == i, "%s is not scene %d", captions[v], i);
            for (int w = 0; w < v; w++) ck_assert_str_ne(captions[w], captions[v]);
        }
    }
    tw_shapes_scene example = {.object = {{0, 0, 1, 0}, {3, 3, 0, 1}}};
    char caption[TW_SHAPES_CAPTION_BYTES];
    tw_shapes_caption(&example, 0, caption);
    ck_assert_str_eq(caption, "左上角有一个红色的大三角形，右下角有一个蓝色的小圆");
}
END_TEST

static void check_split(int train, int valid, uint64_t seed) {
    tw_shapes_options options = tw_shapes_defaults();
    options.train = train, options.valid = valid, options.seed = seed, options.singles = 0;
    int *t = malloc((size_t)train * sizeof *t), *v = malloc((size_t)valid * sizeof *v);
    char *use = calloc(TW_SHAPES_SCENES, 1);
    TW_ASSERT_OK(tw_shapes_split(&options, t, v));
    for (int i = 0; i < valid; i++) {
        ck_assert_msg(!use[v[i]], "scene %d is in the pool twice", v[i]);
        use[v[i]] = 1;
    }
    int distinct = 0, siblings = 0, free_scenes = TW_SHAPES_SCENES - valid;
    for (int i = 0; i < train; i++) {
        ck_assert_msg(use[t[i]] != 1, "scene %d is in both splits", t[i]);
        distinct += !use[t[i]];
        use[t[i]] = 2;
    }
    ck_assert_int_eq(distinct, train < free_scenes ? train : free_scenes);
    for (int i = 0; i < valid; i++) {
        bool found = false;
        for (int k = 0; k < valid && !found; k++) found = k != i && are_siblings(v[i], v[k]);
        siblings += found;
    }
    if (valid <= 1000)
        ck_assert_int_eq(siblings, valid / 4 * 2);
    else
        ck_assert_int_ge(siblings, valid / 4 * 2);
    free(use);
    free(v);
    free(t);
}

START_TEST(a_share_of_the_training_pictures_shows_one_object) {
    tw_shapes_options options = tw_shapes_defaults();
    options.train = 4000;
    static int train[4000], valid[500];
    for (options.singles = 0; options.singles <= 100; options.singles += 25) {
        int singles = 0, distinct = 0;
        char seen[TW_SHAPES_SINGLES] = {0};
        TW_ASSERT_OK(tw_shapes_split(&options, train, valid));
        for (int i = 0; i < options.train; i++) {
            if (train[i] < TW_SHAPES_SCENES) continue;
            singles++, distinct += !seen[train[i] - TW_SHAPES_SCENES], seen[train[i] - TW_SHAPES_SCENES] = 1;
        }
        /* Four standard deviations of a binomial count. */
        double share = options.singles / 100.0, spread = 4 * sqrt(4000 * share * (1 - share));
        ck_assert_msg(fabs(singles - 4000 * share) <= spread, "%d of 4000 at %d %%", singles,
                      options.singles);
        ck_assert_int_eq(distinct, options.singles ? TW_SHAPES_SINGLES : 0);
        for (int i = 0; i < options.valid; i++) ck_assert_int_lt(valid[i], TW_SHAPES_SCENES);
    }
    options.singles = 101;
    ck_assert_int_eq(tw_shapes_split(&options, train, valid), TW_ERR_CONFIG);
}
END_TEST

START_TEST(splits_are_disjoint_and_half_siblings) {
    check_split(12000, 500, 1);
    check_split(12000, 500, 987654321987ull);
    check_split(30000, 1000, 2); /* more than there are scenes: several rounds */
    check_split(100, 1, 3);
    check_split(100, 3, 3);
    check_split(1, 6, 4);
    check_split(1000, TW_SHAPES_VALID_MAX, 5);
}
END_TEST

TW_TEST_MAIN("shapes", numbers_scenes_both_ways, finds_exactly_the_siblings,
             captions_parse_back_to_their_scene, splits_are_disjoint_and_half_siblings,
             a_share_of_the_training_pictures_shows_one_object)
