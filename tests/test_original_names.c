/* Files of other tools under the original's names. */
#include "memory_weights.h"
#include "train/original_names.h"

static tw_original open_names(memory_weights *m) {
    tw_original o;
    TW_ASSERT_OK(tw_original_open(memory_open(m), &o));
    return o;
}

static void expect(const tw_original *o, const char *name, const char *sides) {
    int64_t i = tw_weights_find(o->weights, name);
    ck_assert_msg(i >= 0, "no tensor %s", name);
    const tw_weight *t = tw_weights_at(o->weights, i);
    char is[128] = "";
    for (int k = 0; k < t->ndim; k++)
        snprintf(is + strlen(is), sizeof is - strlen(is), k ? ",%lld" : "%lld", (long long)t->shape[k]);
    ck_assert_str_eq(is, sides);
}

/* The values of tensor `name` are those of the file's tensor `source` from `first` on. */
static void expect_values(tw_original *o, const char *name, const char *source, int64_t first) {
    int64_t i = tw_weights_find(o->weights, name);
    ck_assert_msg(i >= 0, "no tensor %s", name);
    int64_t n = tw_weights_at(o->weights, i)->count;
    float *values = malloc((size_t)n * sizeof *values);
    TW_ASSERT_OK(tw_weights_read_f32(o->weights, i, values, n));
    for (int64_t k = 0; k < n; k++) ck_assert_float_eq(values[k], memory_value(source, first + k));
    free(values);
}

START_TEST(strips_module) {
    memory_weights m = {0};
    memory_add(&m, "module.logit_scale", TW_WEIGHT_F32, "");
    memory_add(&m, "module.visual.proj", TW_WEIGHT_F16, "4,2");
    memory_add(&m, "optimizer.state.0.exp_avg", TW_WEIGHT_F32, "4,2");
    tw_original o = open_names(&m);
    ck_assert(o.module);
    ck_assert(!o.hugging_face);
    expect(&o, "logit_scale", "");
    expect(&o, "visual.proj", "4,2");
    expect(&o, "optimizer.state.0.exp_avg", "4,2");
    ck_assert_int_eq(tw_weights_at(o.weights, 1)->type, TW_WEIGHT_F16);
    expect_values(&o, "visual.proj", "module.visual.proj", 0);
    tw_original_close(&o);
}
END_TEST

START_TEST(keeps_module_that_not_all_have) {
    memory_weights m = {0};
    memory_add(&m, "module.logit_scale", TW_WEIGHT_F32, "");
    memory_add(&m, "visual.proj", TW_WEIGHT_F32, "4,2");
    tw_original o = open_names(&m);
    ck_assert(!o.module);
    expect(&o, "module.logit_scale", "");
    tw_original_close(&o);
}
END_TEST

START_TEST(reads_flash_attention_names) {
    memory_weights m = {0};
    memory_add(&m, "module.visual.transformer.resblocks.0.attn.Wqkv.weight", TW_WEIGHT_F16, "12,4");
    memory_add(&m, "module.visual.transformer.resblocks.0.attn.Wqkv.bias", TW_WEIGHT_F16, "12");
    memory_add(&m, "module.bert.encoder.layer.3.attention.self.Wqkv.weight", TW_WEIGHT_F32, "12,4");
    memory_add(&m, "module.bert.encoder.layer.3.attention.self.Wqkv.bias", TW_WEIGHT_F32, "12");
    memory_add(&m, "module.bert.encoder.layer.3.attention.self.out_proj.weight", TW_WEIGHT_F32, "4,4");
    memory_add(&m, "module.bert.encoder.layer.3.attention.self.out_proj.bias", TW_WEIGHT_F32, "4");
    tw_original o = open_names(&m);
    ck_assert_int_eq(tw_weights_count(o.weights), 10);
    expect(&o, "visual.transformer.resblocks.0.attn.in_proj_weight", "12,4");
    expect(&o, "visual.transformer.resblocks.0.attn.in_proj_bias", "12");
    expect(&o, "bert.encoder.layer.3.attention.self.key.weight", "4,4");
    expect(&o, "bert.encoder.layer.3.attention.self.value.bias", "4");
    expect(&o, "bert.encoder.layer.3.attention.output.dense.weight", "4,4");
    const char *w = "module.bert.encoder.layer.3.attention.self.Wqkv.weight";
    const char *b = "module.bert.encoder.layer.3.attention.self.Wqkv.bias";
    expect_values(&o, "bert.encoder.layer.3.attention.self.value.weight", w, 32);
    expect_values(&o, "bert.encoder.layer.3.attention.self.query.weight", w, 0);
    expect_values(&o, "bert.encoder.layer.3.attention.self.key.bias", b, 4);
    expect_values(&o, "bert.encoder.layer.3.attention.self.key.weight", w, 16);
    tw_original_close(&o);
}
END_TEST

START_TEST(refuses_unequal_thirds) {
    memory_weights m = {0};
    tw_original o;
    memory_add(&m, "bert.encoder.layer.0.attention.self.Wqkv.weight", TW_WEIGHT_F32, "10,4");
    TW_ASSERT_FAILS(tw_original_open(memory_open(&m), &o), TW_ERR_FORMAT,
                    "memory.pt: bert.encoder.layer.0.attention.self.Wqkv.weight does not consist of");
}
END_TEST

START_TEST(reads_a_bert_by_itself) {
    memory_weights m = {0};
    memory_add(&m, "embeddings.word_embeddings.weight", TW_WEIGHT_F32, "20,4");
    memory_add(&m, "embeddings.LayerNorm.gamma", TW_WEIGHT_F32, "4");
    memory_add(&m, "embeddings.LayerNorm.beta", TW_WEIGHT_F32, "4");
    memory_add(&m, "encoder.layer.0.output.LayerNorm.gamma", TW_WEIGHT_F32, "4");
    memory_add(&m, "pooler.dense.weight", TW_WEIGHT_F32, "4,4");
    memory_add(&m, "cls.predictions.bias", TW_WEIGHT_F32, "20");
    tw_original o = open_names(&m);
    expect(&o, "bert.embeddings.word_embeddings.weight", "20,4");
    expect(&o, "bert.embeddings.LayerNorm.weight", "4");
    expect(&o, "bert.embeddings.LayerNorm.bias", "4");
    expect(&o, "bert.encoder.layer.0.output.LayerNorm.weight", "4");
    ck_assert(tw_name_is_ignored("bert.pooler.dense.weight"));
    ck_assert(tw_name_is_ignored("cls.predictions.bias"));
    ck_assert(tw_name_is_ignored("visual.layer1.0.bn1.num_batches_tracked"));
    ck_assert(!tw_name_is_ignored("bert.embeddings.LayerNorm.bias"));
    tw_original_close(&o);
}
END_TEST

/* transformers 5 saves a CLIPVisionModel without "vision_model." */
START_TEST(reads_an_image_tower_by_itself) {
    memory_weights m = {0};
    memory_add(&m, "embeddings.class_embedding", TW_WEIGHT_F32, "4");
    memory_add(&m, "embeddings.patch_embedding.weight", TW_WEIGHT_F32, "4,3,2,2");
    memory_add(&m, "pre_layrnorm.weight", TW_WEIGHT_F32, "4");
    memory_add(&m, "encoder.layers.0.self_attn.q_proj.bias", TW_WEIGHT_F32, "4");
    memory_add(&m, "encoder.layers.0.self_attn.k_proj.bias", TW_WEIGHT_F32, "4");
    memory_add(&m, "encoder.layers.0.self_attn.v_proj.bias", TW_WEIGHT_F32, "4");
    memory_add(&m, "encoder.layers.0.mlp.fc1.bias", TW_WEIGHT_F32, "16");
    memory_add(&m, "post_layernorm.bias", TW_WEIGHT_F32, "4");
    tw_original o;
    TW_ASSERT_OK(tw_original_open(memory_open(&m), &o));
    ck_assert(o.hugging_face && !o.module);
    ck_assert_int_eq(tw_weights_count(o.weights), 6);
    static const char *const names[] = {"visual.class_embedding",
                                        "visual.conv1.weight",
                                        "visual.ln_pre.weight",
                                        "visual.ln_post.bias",
                                        "visual.transformer.resblocks.0.mlp.c_fc.bias",
                                        "visual.transformer.resblocks.0.attn.in_proj_bias"};
    for (int i = 0; i < 6; i++) ck_assert_msg(tw_weights_find(o.weights, names[i]) >= 0, "%s", names[i]);
    float bias[12];
    TW_ASSERT_OK(tw_weights_read_f32(o.weights, tw_weights_find(o.weights, names[5]), bias, 12));
    for (int i = 0; i < 4; i++)
        ck_assert(bias[4 + i] == memory_value("encoder.layers.0.self_attn.k_proj.bias", i));
    tw_original_close(&o);
}
END_TEST

START_TEST(refuses_two_tensors_of_one_name) {
    memory_weights m = {0};
    tw_original o;
    memory_add(&m, "bert.embeddings.LayerNorm.gamma", TW_WEIGHT_F32, "4");
    memory_add(&m, "bert.embeddings.LayerNorm.weight", TW_WEIGHT_F32, "4");
    TW_ASSERT_FAILS(tw_original_open(memory_open(&m), &o), TW_ERR_FORMAT, "bert.embeddings.LayerNorm.weight");
}
END_TEST

START_TEST(reads_hugging_face_names) {
    memory_weights m = {0};
    memory_add(&m, "text_projection.weight", TW_WEIGHT_F32, "2,4");
    memory_add(&m, "visual_projection.weight", TW_WEIGHT_F32, "2,4");
    memory_add(&m, "text_model.embeddings.word_embeddings.weight", TW_WEIGHT_F32, "9,4");
    memory_add(&m, "vision_model.embeddings.class_embedding", TW_WEIGHT_F32, "4");
    tw_original o = open_names(&m);
    ck_assert(o.hugging_face);
    expect(&o, "text_projection", "4,2");
    expect(&o, "bert.embeddings.word_embeddings.weight", "9,4");
    expect(&o, "visual.class_embedding", "4");
    tw_original_close(&o);
}
END_TEST

TW_TEST_MAIN("original_names", strips_module, keeps_module_that_not_all_have, reads_flash_attention_names,
             refuses_unequal_thirds, reads_a_bert_by_itself, reads_an_image_tower_by_itself,
             refuses_two_tensors_of_one_name, reads_hugging_face_names)
