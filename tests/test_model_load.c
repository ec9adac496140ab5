/* Weights of any type and resolution into a model. */
#include "model_weights.h"
#include "train/model_load.h"
#include "train/position_grid.h"

static tw_device *device;

static tw_dual_encoder *make_model(const tw_model_config *c, tw_dtype type) {
    tw_dual_encoder *model;
    if (!device) TW_ASSERT_OK(tw_device_cpu(1, &device));
    TW_ASSERT_OK(tw_dual_encoder_create(c, &model));
    TW_ASSERT_OK(tw_dual_encoder_allocate(model, device, type, false));
    return model;
}

static void expect_pattern(const tw_dual_encoder *model, const tw_param *p) {
    float *values = malloc((size_t)p->count * sizeof *values);
    TW_ASSERT_OK(tw_params_get(model->params, p, values));
    for (int64_t i = 0; i < p->count; i++)
        ck_assert_msg(values[i] == memory_value(p->name, i), "%s[%d] is %g", p->name, (int)i,
                      (double)values[i]);
    free(values);
}

static void load_all(tw_weight_type type, tw_dtype compute) {
    tw_model_config c = described("micro");
    memory_weights m = weights_of(&c, type);
    memory_add(&m, "bert.pooler.dense.weight", type, "32,32");
    memory_add(&m, "bert.embeddings.position_ids", TW_WEIGHT_I64, "1,32");
    memory_add(&m, "optimizer.state.0.exp_avg", TW_WEIGHT_F32, "5");
    tw_weights *w = memory_open(&m);
    tw_dual_encoder *model = make_model(&c, compute);
    tw_load_report report;
    TW_ASSERT_OK(tw_model_load(model, w, TW_PART_ALL, &report));
    ck_assert_int_eq(report.ignored, 2);
    ck_assert_int_eq(report.tensors, tw_params_count(model->params));
    ck_assert_int_eq(report.resized_to, 0);
    ck_assert_str_eq(report.text, "");
    for (int i = 0; i < tw_params_count(model->params); i++)
        expect_pattern(model, tw_params_at(model->params, i));
    /* the copies that operations read */
    const tw_param *p = tw_params_find(model->params, "visual.proj");
    if (compute == TW_BF16) {
        const uint16_t *copy = p->value.data;
        for (int64_t i = 0; i < p->count; i++)
            ck_assert_uint_eq(copy[i], tw_to_bf16(memory_value(p->name, i)));
    }
    tw_dual_encoder_free(model);
    tw_weights_close(w);
}

START_TEST(reads_every_type) {
    load_all(TW_WEIGHT_F32, TW_F32);
    load_all(TW_WEIGHT_F16, TW_F32);
    load_all(TW_WEIGHT_BF16, TW_F32);
    load_all(TW_WEIGHT_F64, TW_F32);
    load_all(TW_WEIGHT_F16, TW_BF16);
}
END_TEST

START_TEST(resizes_positions) {
    tw_model_config file = described("tiny"), c = file;
    c.image.resolution = 112; /* 4 x 4 -> 7 x 7 */
    memory_weights m = weights_of(&file, TW_WEIGHT_F16);
    tw_weights *w = memory_open(&m);
    tw_dual_encoder *model = make_model(&c, TW_F32);
    tw_load_report report;
    TW_ASSERT_OK(tw_model_load(model, w, TW_PART_ALL, &report));
    ck_assert_int_eq(report.resized_from, 4);
    ck_assert_int_eq(report.resized_to, 7);
    ck_assert_ptr_nonnull(strstr(report.text, "from 4 x 4 to 7 x 7"));
    const tw_param *p = tw_params_find(model->params, "visual.positional_embedding");
    float from[17 * 128], to[50 * 128];
    for (int i = 0; i < 17 * 128; i++) from[i] = memory_value(p->name, i);
    TW_ASSERT_OK(tw_resize_position_grid(from, 4, to, 7, 128));
    ck_assert_int_eq(memcmp(p->value.data, to, sizeof to), 0);
    expect_pattern(model, tw_params_find(model->params, "visual.conv1.weight"));
    tw_dual_encoder_free(model);
    tw_weights_close(w);
}
END_TEST

START_TEST(resizes_an_attention_pool) {
    tw_model_config file = described("RN50"), c;
    file.text = described("micro").text;
    file.text.vocabulary = 30;
    file.context = 12;
    file.image = (tw_image_config){
        .kind = TW_RESNET, .resolution = 64, .width = 4, .heads = 2, .stages = {1, 1, 1, 1}};
    c = file;
    c.image.resolution = 96;
    memory_weights m = weights_of(&file, TW_WEIGHT_F32);
    memory_add(&m, "visual.bn1.num_batches_tracked", TW_WEIGHT_I64, "");
    tw_weights *w = memory_open(&m);
    tw_dual_encoder *model = make_model(&c, TW_F32);
    tw_load_report report;
    TW_ASSERT_OK(tw_model_load(model, w, TW_PART_ALL, &report));
    ck_assert_int_eq(report.resized_from, 2);
    ck_assert_int_eq(report.resized_to, 3);
    ck_assert_int_eq(report.ignored, 1);
    expect_pattern(model, tw_params_find(model->params, "visual.bn1.running_var"));
    tw_dual_encoder_free(model);
    tw_weights_close(w);
}
END_TEST

START_TEST(reads_one_tower) {
    tw_model_config c = described("micro");
    memory_weights m = weights_of(&c, TW_WEIGHT_F32);
    memory_remove(&m, "bert.encoder.layer.0.output.dense.weight");
    memory_add(&m, "transformer.resblocks.0.ln_1.weight", TW_WEIGHT_F32, "8"); /* OpenAI's text tower */
    tw_weights *w = memory_open(&m);
    tw_dual_encoder *model = make_model(&c, TW_F32);
    TW_ASSERT_OK(tw_params_initialise(model->params, 1));
    TW_ASSERT_OK(tw_model_load(model, w, TW_PART_IMAGE, NULL));
    expect_pattern(model, tw_params_find(model->params, "visual.proj"));
    const tw_param *scale = tw_params_find(model->params, "logit_scale");
    ck_assert_float_eq_tol(*(const float *)scale->value.data, 2.6592600f, 1e-6f);
    TW_ASSERT_FAILS(tw_model_load(model, w, TW_PART_TEXT, NULL), TW_ERR_SHAPE,
                    "tensors 1 missing (bert.encoder.layer.0.output.dense.weight)");
    tw_dual_encoder_free(model);
    tw_weights_close(w);
}
END_TEST

START_TEST(reads_a_tower_without_projection) {
    tw_model_config c = described("micro");
    memory_weights m = weights_of(&c, TW_WEIGHT_F32);
    memory_remove(&m, "visual.proj");
    tw_weights *w = memory_open(&m);
    tw_dual_encoder *model = make_model(&c, TW_F32);
    TW_ASSERT_OK(tw_params_initialise(model->params, 1));
    tw_param *proj = tw_params_find(model->params, "visual.proj");
    float *before = malloc((size_t)proj->count * sizeof *before);
    TW_ASSERT_OK(tw_params_get(model->params, proj, before));
    tw_load_report report;
    TW_ASSERT_OK(tw_model_load(model, w, TW_PART_IMAGE, &report));
    ck_assert(report.no_projection);
    expect_pattern(model, tw_params_find(model->params, "visual.conv1.weight"));
    ck_assert_mem_eq(proj->value.data, before, (size_t)proj->count * sizeof *before);
    TW_ASSERT_FAILS(tw_model_load(model, w, TW_PART_ALL, NULL), TW_ERR_SHAPE, "1 missing (visual.proj)");
    free(before);
    tw_dual_encoder_free(model);
    tw_weights_close(w);
}
END_TEST

static void expect_refused(void (*spoil)(memory_weights *m), const char *message) {
    tw_model_config c = described("tiny");
    memory_weights m = weights_of(&c, TW_WEIGHT_F32);
    spoil(&m);
    tw_weights *w = memory_open(&m);
    tw_dual_encoder *model = make_model(&c, TW_F32);
    TW_ASSERT_OK(tw_params_initialise(model->params, 1));
    float before = *(const float *)tw_params_at(model->params, 0)->value.data;
    TW_ASSERT_FAILS(tw_model_load(model, w, TW_PART_ALL, NULL), TW_ERR_SHAPE, message);
    ck_assert_float_eq(*(const float *)tw_params_at(model->params, 0)->value.data, before);
    tw_dual_encoder_free(model);
    tw_weights_close(w);
}

static void spoil_missing(memory_weights *m) {
    memory_remove(m, "visual.ln_pre.bias");
    memory_remove(m, "logit_scale");
}
static void spoil_extra(memory_weights *m) {
    memory_add(m, "visual.more", TW_WEIGHT_F32, "3");
}
static void spoil_shape(memory_weights *m) {
    tw_weight *t = memory_find(m, "visual.proj");
    t->shape[0] = 64, t->shape[1] = 128;
}
static void spoil_width_of_grid(memory_weights *m) {
    memory_find(m, "visual.positional_embedding")->shape[1] = 64;
}
static void spoil_all(memory_weights *m) {
    for (int64_t i = 0; i < m->n; i++) {
        char name[300];
        snprintf(name, sizeof name, "x.%s", m->items[i].name);
        memory_rename(m, m->items[i].name, name);
    }
}

START_TEST(names_what_does_not_fit) {
    expect_refused(spoil_missing, "memory.pt does not fit model tiny: tensors 2 missing (visual.ln_pre.bias, "
                                  "logit_scale)");
    expect_refused(spoil_extra, "tensors 1 unknown (visual.more)");
    expect_refused(spoil_shape, "1 of another shape (visual.proj is (64,128), not (128,64))");
    expect_refused(spoil_width_of_grid, "(visual.positional_embedding is (17,64), not (17,128))");
    expect_refused(spoil_all, ", ...); ");
}
END_TEST

TW_TEST_MAIN("model_load", reads_every_type, resizes_positions, resizes_an_attention_pool, reads_one_tower,
             reads_a_tower_without_projection, names_what_does_not_fit)
