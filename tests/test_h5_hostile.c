/* Checkpoints whose attributes and texts are not what they should be, under a valid seal: the seal protects
 * from damage, not from whoever computes it anew. Each is refused by name, without memory for what it merely
 * claims, and nothing outside it is opened. */
#include "hostile_checkpoint.h"

static void step_is_real(hid_t f) {
    attribute(f, "step", H5T_IEEE_F64LE, 1, 1);
}
static void step_is_text(hid_t f) {
    attribute(f, "step", text_type(8), 1, 1);
}
static void step_is_long(hid_t f) {
    attribute(f, "step", H5T_STD_I64LE, 1, 1000);
}
static void step_is_nothing(hid_t f) {
    attribute(f, "step", H5T_STD_I64LE, -1, 0);
}
static void step_is_gone(hid_t f) {
    H5Adelete(f, "step");
}
static void step_is_compound(hid_t f) {
    hid_t type = H5Tcreate(H5T_COMPOUND, 8);
    H5Tinsert(type, "a", 0, H5T_STD_I64LE);
    attribute(f, "step", type, 1, 1);
}
static void context_is_huge(hid_t f) {
    const int64_t value = (int64_t)1 << 40;
    attribute(f, "context_length", H5T_STD_I64LE, 1, 1);
    hid_t a = H5Aopen(f, "context_length", H5P_DEFAULT);
    H5Awrite(a, H5T_NATIVE_INT64, &value);
    H5Aclose(a);
}
static void best_is_whole(hid_t f) {
    attribute(f, "best_r1", H5T_STD_I64LE, 1, 1);
}
static void precision_is_number(hid_t f) {
    attribute(f, "precision", H5T_STD_I64LE, 1, 1);
}
static void precision_varies(hid_t f) {
    attribute(f, "precision", text_type(H5T_VARIABLE), 1, 1);
}
static void version_is_zero(hid_t f) {
    attribute(f, "format_version", H5T_STD_I64LE, 1, 1);
}

static void vocab_is_numbers(hid_t f) {
    DATA("meta/vocab", H5T_STD_I64LE, 1);
}
static void vocab_varies(hid_t f) {
    DATA("meta/vocab", text_type(H5T_VARIABLE), 1);
}
static void vocab_is_two(hid_t f) {
    DATA("meta/vocab", text_type(8), 2);
}
static void vocab_is_huge(hid_t f) {
    DATA("meta/vocab", text_type(0x7ffffff0), 1);
}
static void vocab_mark_is_long(hid_t f) {
    mark(f, "meta/vocab", "bytes", H5T_STD_I64LE, 1000, 0);
}
static void vocab_mark_is_negative(hid_t f) {
    mark(f, "meta/vocab", "bytes", H5T_STD_I64LE, 1, -5);
}
static void vocab_mark_is_beyond(hid_t f) {
    mark(f, "meta/vocab", "bytes", H5T_STD_I64LE, 1, 4000);
}
static void vocab_is_missing(hid_t f) {
    DATA("meta/vocab", text_type(8), 1);
}
static void vocab_is_group(hid_t f) {
    H5Ldelete(f, "meta/vocab", H5P_DEFAULT);
    H5Gclose(H5Gcreate2(f, "meta/vocab", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
}

static void vocab_is_in_another_file(hid_t f) {
    link_out(f, "meta/vocab", "/meta/vocab");
}

static const hostile descriptions[] = {
    H(step_is_real, "attribute step has another type"),
    H(step_is_text, "attribute step has another type"),
    H(step_is_long, "attribute step has another type"),
    H(step_is_nothing, "attribute step has another type"),
    H(step_is_compound, "attribute step has another type"),
    H(step_is_gone, "lacks the attribute step"),
    H(context_is_huge, "context_length is 1099511627776, out of range"),
    H(best_is_whole, "attribute best_r1 has another type"),
    H(precision_is_number, "attribute precision has another type"),
    H(precision_varies, "attribute precision has another type"),
    H(version_is_zero, "impossible format_version 0"),
    H(vocab_is_numbers, "meta/vocab is not one text"),
    H(vocab_varies, "meta/vocab is not one text"),
    H(vocab_is_two, "meta/vocab is not one text"),
    H(vocab_is_huge, "meta/vocab says that it is far larger than the file"),
    H(vocab_mark_is_long, "meta/vocab is not one text"),
    H(vocab_mark_is_negative, "meta/vocab is not one text"),
    H(vocab_mark_is_beyond, "meta/vocab is not one text"),
    H(vocab_is_missing, "meta/vocab has no value"),
    H(vocab_is_group, "no data set meta/vocab"),
    H(vocab_is_in_another_file, "meta/vocab is a link"),
};

START_TEST(refuses_descriptions_of_wrong_types) {
    refuse_all(descriptions, sizeof descriptions / sizeof descriptions[0]);
}
END_TEST

TW_TEST_MAIN("h5_hostile", refuses_descriptions_of_wrong_types)
