/* Checkpoints whose tensors are not what they should be (types, shapes, claims, values elsewhere) under a
 * valid seal; see test_h5_hostile.c. */
#include "hostile_checkpoint.h"

static const char SECRET[] = "/proc/version";

static void w_is_f64(hid_t f) {
    DATA("params/w", H5T_IEEE_F64LE, 4, 3);
}
static void w_is_i32(hid_t f) {
    DATA("params/w", H5T_STD_I32LE, 4, 3);
}
static void w_is_big_endian(hid_t f) {
    DATA("params/w", H5T_IEEE_F32BE, 4, 3);
}
static void w_is_text(hid_t f) {
    DATA("params/w", text_type(4), 4, 3);
}
static void w_varies(hid_t f) {
    DATA("params/w", H5Tvlen_create(H5T_IEEE_F32LE), 4, 3);
}
static void w_is_compound(hid_t f) {
    hid_t type = H5Tcreate(H5T_COMPOUND, 4);
    H5Tinsert(type, "a", 0, H5T_IEEE_F32LE);
    DATA("params/w", type, 4, 3);
}
static void w_has_five_sides(hid_t f) {
    DATA("params/w", H5T_IEEE_F32LE, 1, 1, 1, 4, 3);
}
static void w_has_no_side(hid_t f) {
    data(f, "params/w", H5T_IEEE_F32LE, 0, NULL, NULL);
}
static void w_is_nothing(hid_t f) {
    data(f, "params/w", H5T_IEEE_F32LE, -1, NULL, NULL);
}
static void w_is_2_60(hid_t f) {
    data(f, "params/w", H5T_IEEE_F32LE, 1, SIDES(1ull << 60), SIDES(1024));
}
static void w_overflows(hid_t f) {
    data(f, "params/w", H5T_IEEE_F32LE, 2, SIDES(1ull << 61, 2), SIDES(16, 2));
}
static void w_overflows_to_nothing(hid_t f) {
    data(f, "params/w", H5T_IEEE_F32LE, 3, SIDES(1ull << 32, 1ull << 32, 1), SIDES(16, 2, 1));
}
static void w_has_a_huge_chunk(hid_t f) {
    data(f, "params/w", H5T_IEEE_F32LE, 2, SIDES(4, 3), SIDES(1 << 20, 1 << 9));
}
static void w_is_a_group(hid_t f) {
    H5Ldelete(f, "params/w", H5P_DEFAULT);
    H5Gclose(H5Gcreate2(f, "params/w", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
}
static void w_is_its_group(hid_t f) {
    H5Ldelete(f, "params/w", H5P_DEFAULT);
    H5Lcreate_hard(f, "params", f, "params/w", H5P_DEFAULT, H5P_DEFAULT);
}
static void w_is_packed_zeros(hid_t f) { /* 64 MB in 64 KB */
    const hsize_t shape[] = {16 << 20}, chunk[] = {1 << 20};
    hid_t plan = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(1, shape, NULL);
    float *zeros = calloc(shape[0], sizeof *zeros);
    H5Pset_chunk(plan, 1, chunk), H5Pset_deflate(plan, 9);
    H5Ldelete(f, "params/w", H5P_DEFAULT);
    hid_t d = H5Dcreate2(f, "params/w", H5T_IEEE_F32LE, space, H5P_DEFAULT, plan, H5P_DEFAULT);
    ck_assert_int_ge(H5Dwrite(d, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros), 0);
    H5Dclose(d), H5Sclose(space), H5Pclose(plan);
    free(zeros);
}
static void w_lies_in_a_file(hid_t f) {
    hid_t plan = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(2, SIDES(4, 3), NULL);
    H5Pset_external(plan, SECRET, 0, 48);
    H5Ldelete(f, "params/w", H5P_DEFAULT);
    H5Dclose(H5Dcreate2(f, "params/w", H5T_IEEE_F32LE, space, H5P_DEFAULT, plan, H5P_DEFAULT));
    H5Sclose(space), H5Pclose(plan);
}
static void w_is_virtual(hid_t f) {
    hid_t plan = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(2, SIDES(4, 3), NULL);
    ck_assert_int_ge(H5Pset_virtual(plan, space, other, "params/w", space), 0);
    H5Ldelete(f, "params/w", H5P_DEFAULT);
    H5Dclose(H5Dcreate2(f, "params/w", H5T_IEEE_F32LE, space, H5P_DEFAULT, plan, H5P_DEFAULT));
    H5Sclose(space), H5Pclose(plan);
}
static void w_is_in_another_file(hid_t f) {
    link_out(f, "params/w", "/params/w");
}
static void params_are_in_another_file(hid_t f) {
    link_out(f, "params", "/params");
}
static void w_is_another_name(hid_t f) {
    H5Ldelete(f, "params/w", H5P_DEFAULT);
    H5Lcreate_soft("/params/b", f, "params/w", H5P_DEFAULT, H5P_DEFAULT);
}
static void w_has_a_thousand_names(hid_t f) { /* 512 KiB, a thousand times */
    const hsize_t shape[] = {128 << 10};
    float *values = calloc(shape[0], sizeof *values);
    data(f, "params/w", H5T_IEEE_F32LE, 1, shape, NULL);
    hid_t d = H5Dopen2(f, "params/w", H5P_DEFAULT);
    ck_assert_int_ge(H5Dwrite(d, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), 0);
    H5Dclose(d);
    free(values);
    for (int i = 0; i < 1000; i++) {
        char name[32];
        snprintf(name, sizeof name, "params/w%d", i);
        H5Lcreate_hard(f, "params/w", f, name, H5P_DEFAULT, H5P_DEFAULT);
    }
    H5Ldelete(f, "optim/m/w", H5P_DEFAULT), H5Ldelete(f, "optim/v/w", H5P_DEFAULT);
}
static void mark_is_long(hid_t f) {
    DATA("params/b", H5T_IEEE_F32LE, 1);
    mark(f, "params/b", "scalar", H5T_STD_I64LE, 1000, 0);
    w_is_f64(f); /* reading goes on as if it were no scalar; this ends it */
}
static void moment_has_another_shape(hid_t f) {
    DATA("optim/m/w", H5T_IEEE_F32LE, 3, 4);
}
static void moment_is_f64(hid_t f) {
    DATA("optim/v/w", H5T_IEEE_F64LE, 4, 3);
}
static void params_are_data(hid_t f) {
    DATA("params", H5T_IEEE_F32LE, 4);
}
static void params_have_no_order(hid_t f) {
    H5Ldelete(f, "params", H5P_DEFAULT);
    H5Gclose(H5Gcreate2(f, "params", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    DATA("params/w", H5T_IEEE_F32LE, 4, 3);
}
static void values_are_missing(hid_t f) {
    data(f, "params/b", H5T_IEEE_F32LE, 1, SIDES(4), SIDES(4));
}

static const hostile tensors[] = {
    H(w_is_f64, "params/w is not f32"),
    H(w_is_i32, "params/w is not f32"),
    H(w_is_big_endian, "params/w is not f32"),
    H(w_is_text, "params/w is not f32"),
    H(w_varies, "params/w is not f32"),
    H(w_is_compound, "params/w is not f32"),
    H(w_has_five_sides, "params/w is not f32 with 1 to 4"),
    H(w_has_no_side, "params/w is not f32 with 1 to 4"),
    H(w_is_nothing, "params/w is not f32 with 1 to 4"),
    H(w_is_2_60, "params/w says that it is far larger than the file"),
    H(w_overflows, "params/w says that it is far larger than the file"),
    H(w_overflows_to_nothing, "params/w says that it is far larger than the file"),
    H(w_has_a_huge_chunk, "params/w says that it is far larger than the file"),
    H(w_is_packed_zeros, "params/w says that it is far larger than the file"),
    H(w_is_a_group, "no data set params/w"),
    H(w_is_its_group, "no data set params/w"),
    H(w_lies_in_a_file, "the values of params/w lie in another file"),
    H(w_is_virtual, "the values of params/w lie in another file"),
    H(w_is_in_another_file, "params/w is a link"),
    H(w_is_another_name, "params/w is a link"),
    H(w_has_a_thousand_names, "its tensors are far larger than the file"),
    H(params_are_in_another_file, "params is a link"),
    H(params_are_data, "cannot list group params"),
    H(params_have_no_order, "cannot list group params"),
    H(mark_is_long, "params/w is not f32"),
    H(moment_has_another_shape, "first moment of w has another shape"),
    H(moment_is_f64, "optim/v/w is not f32"),
    H(values_are_missing, "a part of the values of params/b is missing"),
};

START_TEST(refuses_tensors_of_wrong_types) {
    refuse_all(tensors, sizeof tensors / sizeof tensors[0]);
}
END_TEST

TW_TEST_MAIN("h5_hostile_tensors", refuses_tensors_of_wrong_types)
