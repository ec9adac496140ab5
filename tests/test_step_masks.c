/* Steps whose image tower sees some patches only: as the reference masks them, and the same masks in any
 * micro-batch. */
#include "step_golden.h"

/* With the reference's own masking, given our random numbers (scripts/make_golden_masked.py). */
START_TEST(masks_patches_as_the_reference_does) {
    for (int micro = 0; micro <= 2; micro++) {
        fixture f;
        double want;
        open_masked(&f, "odd", 1, TW_F32, micro ? TW_RECOMPUTE_BLOCK : TW_RECOMPUTE_NONE, micro, 0.5);
        load_params(&f, 0);
        double loss = run_step(&f, 0);
        H5Fclose(f.file);
        f.file = golden_open(TW_SOURCE_DIR "/tests/golden/masked.h5");
        read_set(&f, "loss", H5T_NATIVE_DOUBLE, &want, 1);
        ck_assert_msg(fabs(loss - want) <= 1e-5 * want, "loss %.9g, reference %.9g", loss, want);
        check_gradients_of(&f, "grads", 1e-5);
        close_fixture(&f);
    }
}
END_TEST

/* A masked step of "main" with dropout; gradients are the caller's to free. */
static float *masked_gradients(tw_dtype type, tw_recompute recompute, int micro, int64_t *count) {
    fixture f;
    open_masked(&f, "main", 21, type, recompute, micro, 0.7);
    f.model->text.config.hidden_dropout = 0.3f;
    /* The attention that a GPU's library does in bf16 draws by the place in the call. */
    f.model->text.config.attention_dropout = type == TW_BF16 && !tw_on_cpu(f.device) ? 0.0f : 0.3f;
    load_params(&f, 0);
    run_step(&f, 0);
    *count = tw_params_trainable(f.model->params);
    float *g = tw_test_take(f.device, tw_params_gradients(f.model->params), (size_t)*count * sizeof *g);
    close_fixture(&f);
    return g;
}

START_TEST(micro_batches_repeat_the_same_masks) {
    int64_t n;
    for (int k = 0; k < 2; k++) {
        tw_dtype type = k ? TW_BF16 : TW_F32;
        float *whole = masked_gradients(type, TW_RECOMPUTE_NONE, 0, &n);
        for (int micro = 1; micro <= 8; micro *= 2) {
            double norm;
            float *g = masked_gradients(type, micro == 2 ? TW_RECOMPUTE_BLOCK : TW_RECOMPUTE_NONE, micro, &n);
            double d = distance(g, whole, n, &norm);
            ck_assert_msg(d <= (k ? 1e-2 : 3e-6) * norm, "micro-batch %d, %s: distance %g of %g", micro,
                          tw_dtype_name(type), d, norm);
            free(g);
        }
        free(whole);
    }
}
END_TEST

/* The image features of three samples with equal pixels, at places `sample`... of the global batch. */
static void image_features(fixture *f, tw_tower_kind kind, uint32_t step, uint32_t sample, float *out) {
    const tw_tower_tape *t;
    tw_step host = {.seed = 1, .step = step, .sample = sample}, *record;
    int64_t size = 3 * f->config.image.resolution * f->config.image.resolution;
    TW_ASSERT_OK(tw_towers_get(f->towers, kind, 3, &t));
    float *pixels = malloc(3 * (size_t)size * sizeof *pixels);
    for (int i = 0; i < 3; i++) memcpy(pixels + i * size, f->pixels, (size_t)size * sizeof *pixels);
    TW_ASSERT_OK(f->device->alloc(f->device, sizeof *record, (void **)&record));
    TW_ASSERT_OK(f->device->upload(f->device, TW_QUEUE_COMPUTE, record, &host, sizeof host));
    TW_ASSERT_OK(tw_tape_upload(t->tape, t->pixels, pixels));
    if (t->ids) TW_ASSERT_OK(tw_tape_upload(t->tape, t->ids, f->ids));
    if (t->lengths) TW_ASSERT_OK(tw_tape_upload(t->tape, t->lengths, f->lengths));
    TW_ASSERT_OK(tw_tape_forward(t->tape, record));
    TW_ASSERT_OK(tw_tape_download(t->tape, t->image, out));
    f->device->release(f->device, record);
    free(pixels);
}

START_TEST(masks_belong_to_sample_and_step) {
    enum { D = 16 };
    fixture f, plain;
    float first[3 * D], again[3 * D], next[3 * D], shifted[3 * D], encoded[3 * D], unmasked[3 * D];
    open_masked(&f, "main", 21, TW_F32, TW_RECOMPUTE_NONE, 0, 0.5);
    open_fixture(&plain, "main", 21, TW_F32, TW_RECOMPUTE_NONE, 0);
    ck_assert_int_eq(f.config.embed, D);
    load_params(&f, 0);
    load_params(&plain, 0);
    image_features(&f, TW_TOWERS_TRAIN, 7, 40, first);
    image_features(&f, TW_TOWERS_TRAIN, 8, 40, next);
    image_features(&f, TW_TOWERS_TRAIN, 7, 41, shifted);
    image_features(&f, TW_TOWERS_TRAIN, 7, 40, again);
    image_features(&f, TW_TOWER_IMAGE, 7, 40, encoded);
    image_features(&plain, TW_TOWER_IMAGE, 7, 40, unmasked);
    double norm;
    for (int i = 0; i < 3; i++) {
        ck_assert(distance(first + i * D, first + (i + 1) % 3 * D, D, &norm) > 1e-3); /* samples */
        ck_assert(distance(first + i * D, next + i * D, D, &norm) > 1e-3);            /* steps */
    }
    ck_assert_mem_eq(first, again, sizeof first);
    /* the same samples, elsewhere in a call */
    ck_assert(distance(first + D, shifted, 2 * D, &norm) < 1e-5);
    ck_assert_mem_eq(encoded, unmasked, sizeof encoded); /* inference sees every patch */
    ck_assert(distance(encoded, encoded + D, D, &norm) < 1e-5);
    close_fixture(&plain);
    close_fixture(&f);
}
END_TEST

START_TEST(refuses_masks_that_cannot_be) {
    tw_dual_encoder *model;
    fixture f;
    open_fixture(&f, "odd", 1, TW_F32, TW_RECOMPUTE_NONE, 0);
    tw_model_config c = f.config;
    c.image.mask_ratio = 0.95;
    TW_ASSERT_FAILS(tw_dual_encoder_create(&c, &model), TW_ERR_CONFIG, "nothing of an image's 9 patches");
    c.image.mask_ratio = 1.0;
    TW_ASSERT_FAILS(tw_dual_encoder_create(&c, &model), TW_ERR_CONFIG, "not in [0, 1)");
    c.image.mask_ratio = (double)NAN;
    TW_ASSERT_FAILS(tw_dual_encoder_create(&c, &model), TW_ERR_CONFIG, "not in [0, 1)");
    c.image = (tw_image_config){.kind = TW_RESNET,
                                .resolution = 64,
                                .width = 4,
                                .heads = 2,
                                .stages = {1, 1, 1, 1},
                                .mask_ratio = 0.5};
    TW_ASSERT_FAILS(tw_dual_encoder_create(&c, &model), TW_ERR_CONFIG, "this image tower is a ResNet");
    close_fixture(&f);
}
END_TEST

TW_TEST_MAIN("step_masks", masks_patches_as_the_reference_does, micro_batches_repeat_the_same_masks,
             masks_belong_to_sample_and_step, refuses_masks_that_cannot_be)
