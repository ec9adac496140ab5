/* Reads golden values: plain HDF5 files made by scripts/make_golden*.py with h5py. For tests only; a golden
 * file that cannot be read is a failed test, so nothing here returns errors. Memory is the caller's to free.
 */
#ifndef TW_TESTS_GOLDEN_FILE_H
#define TW_TESTS_GOLDEN_FILE_H

#include "layers/dual_encoder.h"
#include "optim/adamw.h"
#include "tw_test.h"

#include <hdf5.h>
#include <stdint.h>

static inline hid_t golden_open(const char *path) {
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    ck_assert_msg(file >= 0, "cannot open %s: make it with scripts/make_golden_towers.py", path);
    return file;
}

static inline double golden_number(hid_t file, const char *group, const char *attribute) {
    hid_t a = H5Aopen_by_name(file, group, attribute, H5P_DEFAULT, H5P_DEFAULT);
    ck_assert_msg(a >= 0, "%s has no attribute %s", group, attribute);
    double value;
    ck_assert_int_ge(H5Aread(a, H5T_NATIVE_DOUBLE, &value), 0);
    H5Aclose(a);
    return value;
}

/* The optimizer whose numbers a group's attributes hold, with the original's rule of what is not decayed. */
static inline tw_adamw *golden_adamw(hid_t file, const char *group, tw_params *params, tw_device *device) {
    static const char *const no_decay[] = {"bn", "ln", "bias", "logit_scale"};
#define NUMBER(name) (float)golden_number(file, group, name)
    tw_adamw_config config = {.beta1 = NUMBER("beta1"),
                              .beta2 = NUMBER("beta2"),
                              .eps = NUMBER("eps"),
                              .weight_decay = NUMBER("weight_decay"),
                              .no_decay = no_decay,
                              .n_no_decay = 4,
                              .logit_scale_max = NUMBER("logit_scale_max")};
#undef NUMBER
    tw_adamw *adamw;
    TW_ASSERT_OK(tw_adamw_create(params, device, &config, &adamw));
    return adamw;
}

static inline int golden_int(hid_t file, const char *group, const char *attribute) {
    return (int)golden_number(file, group, attribute);
}

/* A text tower whose sizes a group's attributes hold. */
static inline tw_bert_config golden_text_config(hid_t file, const char *group) {
#define SIZE(name) golden_int(file, group, name)
    return (tw_bert_config){.vocabulary = SIZE("vocab_size"),
                            .positions = SIZE("text_max_position_embeddings"),
                            .types = SIZE("text_type_vocab_size"),
                            .hidden = SIZE("text_hidden_size"),
                            .layers = SIZE("text_num_hidden_layers"),
                            .heads = SIZE("text_num_attention_heads"),
                            .intermediate = SIZE("text_intermediate_size")};
#undef SIZE
}

/* A model, likewise, whose image tower is a ViT. */
static inline tw_model_config golden_model_config(hid_t file, const char *group) {
#define SIZE(name) golden_int(file, group, name)
    tw_model_config c = {.embed = SIZE("embed_dim"), .context = SIZE("context_length")};
    c.image = (tw_image_config){.resolution = SIZE("image_resolution"),
                                .patch = SIZE("vision_patch_size"),
                                .width = SIZE("vision_width"),
                                .layers = SIZE("vision_layers"),
                                .heads = SIZE("heads"),
                                .pixel_mean = {0, 0, 0},
                                .pixel_std = {1, 1, 1}};
    c.text = golden_text_config(file, group);
    snprintf(c.name, sizeof c.name, "golden");
#undef SIZE
    return c;
}

/* A whole data set as `type` (elements of `size` bytes), which must have `count` of them. */
static inline void *golden_array(hid_t file, const char *name, hid_t type, size_t size, int64_t count) {
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    ck_assert_msg(set >= 0, "golden file has no data set %s", name);
    hid_t space = H5Dget_space(set);
    ck_assert_msg(H5Sget_simple_extent_npoints(space) == count, "%s has %lld values, expected %lld", name,
                  (long long)H5Sget_simple_extent_npoints(space), (long long)count);
    void *data = malloc((size_t)count * size + 1);
    ck_assert_ptr_nonnull(data);
    ck_assert_int_ge(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), 0);
    H5Sclose(space);
    H5Dclose(set);
    return data;
}

static inline float *golden_f32(hid_t file, const char *name, int64_t count) {
    return golden_array(file, name, H5T_NATIVE_FLOAT, sizeof(float), count);
}
static inline double *golden_f64(hid_t file, const char *name, int64_t count) {
    return golden_array(file, name, H5T_NATIVE_DOUBLE, sizeof(double), count);
}
static inline int32_t *golden_i32(hid_t file, const char *name, int64_t count) {
    return golden_array(file, name, H5T_NATIVE_INT32, sizeof(int32_t), count);
}

#endif
