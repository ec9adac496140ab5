/* Feature files whose ids or table are not what they should be under a valid seal; see test_h5_hostile.c. */
#include "hostile_h5.h"

#include "train/formats/features.h"

static tw_status load_features(void) {
    tw_features *features;
    tw_status status = tw_features_load(path, &features);
    if (status == TW_OK) tw_features_free(features);
    return status;
}

static void ids_are_real(hid_t f) {
    DATA("ids", H5T_IEEE_F64LE, 3);
}
static void ids_vary(hid_t f) {
    DATA("ids", text_type(H5T_VARIABLE), 3);
}
static void ids_are_few(hid_t f) {
    DATA("ids", H5T_STD_I64LE, 2);
}
static void ids_are_wide(hid_t f) {
    DATA("ids", text_type(0x7ffffff0), 3);
}
static void ids_are_elsewhere(hid_t f) {
    link_out(f, "ids", "/params/b");
}
static void ids_are_missing(hid_t f) {
    DATA("ids", H5T_STD_I64LE, 3);
}
static void table_is_a_line(hid_t f) {
    DATA("features", H5T_IEEE_F32LE, 3);
}
static void table_is_f64(hid_t f) {
    DATA("features", H5T_IEEE_F64LE, 3, 4);
}
static void table_overflows(hid_t f) {
    data(f, "features", H5T_IEEE_F32LE, 2, SIDES(1ull << 61, 2), SIDES(16, 2));
}
static void table_is_2_60(hid_t f) {
    data(f, "features", H5T_IEEE_F32LE, 2, SIDES(1ull << 58, 4), SIDES(16, 4));
}
static void table_is_gone(hid_t f) {
    H5Ldelete(f, "features", H5P_DEFAULT);
}
static void model_varies(hid_t f) {
    attribute(f, "model", text_type(H5T_VARIABLE), 1, 1);
}
static void kind_is_number(hid_t f) {
    attribute(f, "kind", H5T_STD_I64LE, 1, 1);
}

static const hostile tables[] = {
    H(ids_are_real, "ids holds neither integers nor"),
    H(ids_vary, "ids holds neither integers nor"),
    H(ids_are_few, "ids does not have 3 entries"),
    H(ids_are_wide, "ids says that it is far larger"),
    H(ids_are_elsewhere, "ids is a link"),
    H(ids_are_missing, "a part of ids is missing"),
    H(table_is_a_line, "features is not a table"),
    H(table_is_f64, "features is not f32"),
    H(table_overflows, "features says that it is far larger"),
    H(table_is_2_60, "features says that it is far larger"),
    H(table_is_gone, "no data set features"),
    H(model_varies, "attribute model has another type"),
    H(kind_is_number, "attribute kind has another type"),
};

START_TEST(refuses_features_of_wrong_types) {
    make_paths();
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        float values[12] = {1};
        tw_id ids[] = {{"1", 1, true}, {"2", 1, true}, {"3", 1, true}};
        tw_features_writer *w;
        TW_ASSERT_OK(tw_features_create(path, TW_FEATURES_IMAGE, 4, "m", &w));
        TW_ASSERT_OK(tw_features_append(w, ids, values, 3));
        TW_ASSERT_OK(tw_features_commit(w));
        TW_ASSERT_OK(load_within(load_features));
        edit_file(&tables[i], "features");
        refuse(&tables[i], load_features);
    }
    unlink(path);
}
END_TEST

TW_TEST_MAIN("h5_hostile_features", refuses_features_of_wrong_types)
