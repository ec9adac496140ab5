/* What is foretold is what is taken. */
#include "model_weights.h"
#include "test_device.h"
#include "train/memory_need.h"
#include "train/model_io.h"
#include "train/towers.h"

static size_t taken(const tw_dual_encoder *model, tw_device *device, tw_tower_kind kind,
                    tw_recompute recompute) {
    tw_towers *towers;
    const tw_tower_tape *tape;
    TW_ASSERT_OK(tw_towers_create(model, device, recompute, TW_U8, &towers));
    TW_ASSERT_OK(tw_towers_get(towers, kind, 6, &tape));
    size_t bytes = tw_towers_bytes(towers);
    tw_towers_free(towers);
    return bytes;
}

static void compare(const char *name, tw_dtype type) {
    tw_model_config c = described(name);
    tw_memory_need need;
    TW_ASSERT_OK(tw_memory_needed(&c, type, 6, &need));
    c.text.hidden_dropout = c.text.attention_dropout = 0.1f;
    tw_device *device;
    tw_dual_encoder *model;
    TW_ASSERT_OK(tw_device_cpu(0, &device));
    TW_ASSERT_OK(tw_dual_encoder_create(&c, &model));
    TW_ASSERT_OK(tw_dual_encoder_allocate(model, device, type, true));
    ck_assert_uint_eq(need.training_weights, tw_params_bytes(model->params));
    ck_assert_uint_eq(need.moments, 8 * (size_t)tw_params_trainable(model->params));
    ck_assert_uint_eq(need.checkpoint, 4 * (size_t)tw_snapshot_values(model, true));
    ck_assert_uint_eq(need.training, taken(model, device, TW_TOWERS_TRAIN, TW_RECOMPUTE_NONE));
    ck_assert_uint_eq(need.training_recomputed, taken(model, device, TW_TOWERS_TRAIN, TW_RECOMPUTE_BLOCK));
    tw_dual_encoder_free(model);
    TW_ASSERT_OK(tw_dual_encoder_create(&c, &model));
    TW_ASSERT_OK(tw_dual_encoder_allocate(model, device, type, false));
    ck_assert_uint_eq(need.weights, tw_params_bytes(model->params));
    ck_assert_uint_eq(need.image, taken(model, device, TW_TOWER_IMAGE, TW_RECOMPUTE_NONE));
    ck_assert_uint_eq(need.text, taken(model, device, TW_TOWER_TEXT, TW_RECOMPUTE_NONE));
    tw_dual_encoder_free(model);
    tw_device_free(device);
}

START_TEST(foretells_what_is_taken) {
    compare("micro", TW_F32);
    compare("small", TW_BF16);
}
END_TEST

/* Half of the patches: nearly half of the image tower's activations in training, all of them in inference. */
START_TEST(knows_of_masked_patches) {
    tw_model_config c = described("ViT-B-16");
    tw_memory_need all, half;
    TW_ASSERT_OK(tw_memory_needed(&c, TW_BF16, 64, &all));
    c.image.mask_ratio = 0.5;
    TW_ASSERT_OK(tw_memory_needed(&c, TW_BF16, 64, &half));
    ck_assert_uint_eq(half.image, all.image);
    ck_assert_uint_eq(half.text, all.text);
    ck_assert_uint_eq(half.training_weights, all.training_weights);
    ck_assert_uint_lt(half.training, all.training * 65 / 100); /* the text tower stays as it is */
    ck_assert_uint_gt(half.training, all.training * 50 / 100);
    ck_assert_uint_lt(half.training_recomputed, all.training_recomputed);
}
END_TEST

/* Four terabytes are planned without being there. */
START_TEST(plans_what_does_not_fit) {
    tw_model_config c = described("ViT-H-14");
    tw_memory_need need;
    TW_ASSERT_OK(tw_memory_needed(&c, TW_F32, 20480, &need));
    ck_assert_uint_gt(need.training, (size_t)1 << 42);
    ck_assert_uint_lt(need.training_recomputed, need.training / 4);
    ck_assert_uint_eq(need.weights / 1000000, 3830);
}
END_TEST

/* Packed texts, shorter than what was planned for, never take more. */
static void compare_packed(const tw_dual_encoder *model, tw_device *device, tw_recompute recompute,
                           int64_t batch, size_t planned) {
    size_t less = 0;
    int context = (int)model->config.context;
    for (int tokens = 1; tokens <= context; tokens += 3) {
        int32_t lengths[32];
        tw_towers *towers;
        const tw_tower_tape *tape;
        for (int i = 0; i < 32; i++) lengths[i] = tokens;
        TW_ASSERT_OK(tw_towers_create(model, device, recompute, TW_U8, &towers));
        TW_ASSERT_OK(tw_towers_get_texts(towers, TW_TOWERS_TRAIN, batch, lengths, &tape));
        ck_assert_uint_le(tw_towers_bytes(towers), planned);
        ck_assert_int_ge(tape->rows, batch * tokens);
        ck_assert_int_le(tape->rows, batch * tokens + (batch * tokens < 128 ? 8 : batch * tokens / 16));
        if (tokens == 1) less = tw_towers_bytes(towers);
        tw_towers_free(towers);
    }
    if (batch > 4) ck_assert_uint_lt(less, planned);
}

/* On any device, whose graphs (attention's without packing, a ResNet's) have scratch of their own. */
static void compare_steps(const char *name, tw_dtype type, bool padded_text) {
    tw_model_config config = described(name);
    tw_device *device;
    tw_dual_encoder *model;
    TW_ASSERT_OK(tw_test_device(1, &device));
    TW_ASSERT_OK(tw_dual_encoder_create(&config, &model));
    TW_ASSERT_OK(tw_dual_encoder_allocate(model, device, type, true));
    model->padded_text = padded_text;
    size_t before = 0;
    for (int64_t batch = 1; batch <= 32; batch *= 2)
        for (tw_recompute recompute = TW_RECOMPUTE_NONE; recompute <= TW_RECOMPUTE_BLOCK; recompute++) {
            size_t planned;
            tw_towers *towers;
            const tw_tower_tape *tape;
            TW_ASSERT_OK(tw_memory_of_step(model, device, recompute, batch, &planned));
            TW_ASSERT_OK(tw_towers_create(model, device, recompute, TW_U8, &towers));
            TW_ASSERT_OK(tw_towers_get(towers, TW_TOWERS_TRAIN, batch, &tape));
            ck_assert_uint_eq(planned, tw_towers_bytes(towers));
            tw_towers_free(towers);
            if (!padded_text) compare_packed(model, device, recompute, batch, planned);
            if (recompute != TW_RECOMPUTE_NONE) continue;
            ck_assert_uint_gt(planned, before);
            before = planned;
        }
    tw_dual_encoder_free(model);
    tw_device_free(device);
}

/* What is planned for a step is what its tape takes, and nothing is taken to find out. */
START_TEST(a_step_takes_what_is_planned) {
    compare_steps("micro", TW_F32, false);
    compare_steps("micro", TW_BF16, true);
    compare_steps("tiny-rn", TW_BF16, true);
}
END_TEST

TW_TEST_MAIN("memory_need", foretells_what_is_taken, knows_of_masked_patches, plans_what_does_not_fit,
             a_step_takes_what_is_planned)
