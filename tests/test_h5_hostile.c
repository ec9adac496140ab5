/* HDF5 files that are not what they should be, under a valid seal: the seal protects from damage, not from
 * whoever computes it anew. Each is refused by name, without memory for what it merely claims, and nothing
 * outside it is opened. */
#include "tw_test.h"

#include "train/formats/checkpoint.h"
#include "train/formats/features.h"
#include "train/formats/seal.h"

#include <hdf5.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[128], other[140];
static const char SECRET[] = "/proc/version";

static void make_paths(void) {
    const char *folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(path, sizeof path, "%s/tw_h5_hostile_%d.h5", folder, (int)getpid());
    snprintf(other, sizeof other, "%s.other", path);
}

/* params/w (4, 3) with both moments, params/b (4). */
static void write_checkpoint(const char *to) {
    float w[12] = {1, 2, 3}, b[4] = {4};
    const tw_checkpoint_tensor t[] = {{"w", 2, {4, 3}, w, w, w}, {"b", 1, {4}, b, NULL, NULL}};
    tw_checkpoint_meta meta;
    tw_checkpoint_meta_init(&meta);
    static char vocab[] = "[PAD]\n", precision[] = "f32";
    meta.vocab = vocab, meta.vocab_bytes = sizeof vocab - 1, meta.precision = precision;
    TW_ASSERT_OK(tw_checkpoint_write(to, &meta, t, 2));
}

/* ---- edits of the open file ---- */

static void attribute(hid_t object, const char *name, hid_t type, int ndim, hsize_t side) {
    static const char zeros[16384];
    if (H5Aexists(object, name) > 0) ck_assert_int_ge(H5Adelete(object, name), 0);
    hid_t space = ndim < 0 ? H5Screate(H5S_NULL) : H5Screate_simple(ndim, &side, NULL);
    hid_t a = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    ck_assert(a >= 0 && side * H5Tget_size(type) <= sizeof zeros);
    if (ndim >= 0 && H5Tis_variable_str(type) <= 0) ck_assert_int_ge(H5Awrite(a, type, zeros), 0);
    H5Aclose(a);
    H5Sclose(space);
}

/* Puts a data set without values in the place of `name`. chunk: NULL for one block. */
static void data(hid_t f, const char *name, hid_t type, int ndim, const hsize_t *shape,
                 const hsize_t *chunk) {
    const hsize_t limit[8] = {H5S_UNLIMITED, H5S_UNLIMITED, H5S_UNLIMITED, H5S_UNLIMITED,
                              H5S_UNLIMITED, H5S_UNLIMITED, H5S_UNLIMITED, H5S_UNLIMITED};
    hid_t plan = H5Pcreate(H5P_DATASET_CREATE);
    hid_t space = ndim < 0 ? H5Screate(H5S_NULL) : H5Screate_simple(ndim, shape, chunk ? limit : NULL);
    if (chunk) ck_assert_int_ge(H5Pset_chunk(plan, ndim, chunk), 0);
    H5Pset_alloc_time(plan, H5D_ALLOC_TIME_LATE);
    H5Ldelete(f, name, H5P_DEFAULT);
    hid_t d = H5Dcreate2(f, name, type, space, H5P_DEFAULT, plan, H5P_DEFAULT);
    ck_assert_int_ge(d, 0);
    H5Dclose(d);
    H5Sclose(space);
    H5Pclose(plan);
}
#define SIDES(...)                                                                                           \
    (const hsize_t[]) {                                                                                      \
        __VA_ARGS__                                                                                          \
    }
#define COUNT(...) (int)(sizeof(SIDES(__VA_ARGS__)) / sizeof(hsize_t))
#define DATA(name, type, ...) data(f, name, type, COUNT(__VA_ARGS__), SIDES(__VA_ARGS__), NULL)

static hid_t text_type(size_t size) {
    hid_t type = H5Tcopy(H5T_C_S1);
    ck_assert_int_ge(H5Tset_size(type, size), 0);
    return type;
}

static void mark(hid_t f, const char *name, const char *of, hid_t type, hsize_t side, int64_t value) {
    hid_t d = H5Dopen2(f, name, H5P_DEFAULT);
    attribute(d, of, type, 1, side);
    hid_t a = H5Aopen(d, of, H5P_DEFAULT);
    if (side == 1) ck_assert_int_ge(H5Awrite(a, H5T_NATIVE_INT64, &value), 0);
    H5Aclose(a);
    H5Dclose(d);
}

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
static void link_out(hid_t f, const char *name, const char *target) {
    H5Ldelete(f, name, H5P_DEFAULT);
    ck_assert_int_ge(H5Lcreate_external(other, target, f, name, H5P_DEFAULT, H5P_DEFAULT), 0);
}
static void w_is_in_another_file(hid_t f) {
    link_out(f, "params/w", "/params/w");
}
static void params_are_in_another_file(hid_t f) {
    link_out(f, "params", "/params");
}
static void vocab_is_in_another_file(hid_t f) {
    link_out(f, "meta/vocab", "/meta/vocab");
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

typedef struct hostile {
    void (*edit)(hid_t f);
    const char *name;
    const char *part; /* of the message */
} hostile;
#define H(edit, part)                                                                                        \
    { edit, #edit, part }

static const hostile checkpoints[] = {
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

static void edit_file(const hostile *h, const char *kind) {
    hid_t f = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    ck_assert_int_ge(f, 0);
    H5E_BEGIN_TRY {
        h->edit(f);
    }
    H5E_END_TRY;
    ck_assert_int_ge(H5Fclose(f), 0);
    TW_ASSERT_OK(tw_seal_write(path, kind));
}

/* Opens and reads everything, as `convert` does. */
static tw_status load_checkpoint(void) {
    static float values[4096];
    tw_checkpoint *c;
    TRY(tw_checkpoint_open(path, &c));
    tw_status status = TW_OK;
    for (int64_t i = 0; i < tw_checkpoint_count(c) && !status; i++) {
        const tw_checkpoint_entry *e = tw_checkpoint_at(c, i);
        ck_assert_int_le(e->count, 4096);
        status = tw_checkpoint_read(c, e->name, TW_CHECKPOINT_PARAM, values, e->count);
    }
    tw_checkpoint_close(c);
    return status;
}

static tw_status load_features(void) {
    tw_features *features;
    tw_status status = tw_features_load(path, &features);
    if (status == TW_OK) tw_features_free(features);
    return status;
}

/* Loads with memory for 2 x the file and HDF5's own caches only (sanitizers need the address space). */
static tw_status load_within(tw_status (*load)(void)) {
#ifndef __SANITIZE_ADDRESS__
    unsigned long pages = 0;
    struct stat info;
    struct rlimit limit;
    FILE *f = fopen("/proc/self/statm", "r");
    ck_assert(f && fscanf(f, "%lu", &pages) == 1 && stat(path, &info) == 0);
    fclose(f);
    ck_assert_int_eq(getrlimit(RLIMIT_AS, &limit), 0);
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = pages * (rlim_t)sysconf(_SC_PAGESIZE) + 2 * (rlim_t)info.st_size + (8u << 20);
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
    tw_status status = load();
    limit.rlim_cur = before;
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
    return status;
#else
    return load();
#endif
}

static void refuse(const hostile *h, tw_status (*load)(void)) {
    tw_status status = load_within(load);
    ck_assert_msg(status == TW_ERR_FORMAT || status == TW_ERR_NOT_FOUND || status == TW_ERR_LIBRARY,
                  "%s gave '%s' (%s)", h->name, tw_status_name(status), status ? tw_last_error() : "");
    ck_assert_msg(strstr(tw_last_error(), h->part) && strstr(tw_last_error(), path), "%s: '%s' lacks '%s'",
                  h->name, tw_last_error(), h->part);
}

START_TEST(refuses_checkpoints_of_wrong_types) {
    make_paths();
    write_checkpoint(other);
    write_checkpoint(path);
    TW_ASSERT_OK(load_within(load_checkpoint)); /* within the limit, too */
    for (size_t i = 0; i < sizeof checkpoints / sizeof checkpoints[0]; i++) {
        write_checkpoint(path);
        edit_file(&checkpoints[i], "checkpoint");
        refuse(&checkpoints[i], load_checkpoint);
    }
    unlink(path);
    unlink(other);
}
END_TEST

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

TW_TEST_MAIN("h5_hostile", refuses_checkpoints_of_wrong_types, refuses_features_of_wrong_types)
