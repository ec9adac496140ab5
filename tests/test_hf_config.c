/* config.json of Hugging Face folders: of whole models, of one tower, and what is refused. */
#include "hf_folders.h"
#include "train/formats/hf_folder.h"

START_TEST(reads_and_refuses_configurations) {
    mkdir(temp_path("c"), 0777);
    tw_hf_config config;
    char path[160];
    strcpy(path, temp_path("c"));
    TW_ASSERT_FAILS(tw_hf_config_read(path, &config), TW_ERR_NOT_FOUND, "config.json");
    TW_ASSERT_OK(tw_hf_config_read(GOLDEN "single", &config));
    ck_assert_int_eq(config.image_heads, 3);
    ck_assert_int_eq(config.text_heads, 4);
    ck_assert_float_eq(config.hidden_dropout, 0);
    static const struct {
        const char *text;
        tw_status code;
        const char *part;
    } cases[] = {
        {"{", TW_ERR_FORMAT, "config.json:1: bad JSON"},
        {"[]", TW_ERR_FORMAT, "not a JSON object"},
        {"{\"model_type\":\"bert\",\"model_type\":\"bert\"}", TW_ERR_FORMAT, "duplicate"},
        {"{}", TW_ERR_FORMAT, "'model_type' is missing"},
        {"{\"model_type\":\"siglip\"}", TW_ERR_UNSUPPORTED, "'siglip'"},
        {"{\"model_type\":\"bert\",\"hidden_act\":\"relu\"}", TW_ERR_UNSUPPORTED, "'hidden_act' is 'relu'"},
        {"{\"model_type\":\"bert\",\"layer_norm_eps\":1e-5}", TW_ERR_UNSUPPORTED,
         "'layer_norm_eps' is 1e-05"},
        {"{\"model_type\":\"bert\",\"num_attention_heads\":0}", TW_ERR_FORMAT, "'num_attention_heads'"},
        {"{\"model_type\":\"bert\",\"hidden_dropout_prob\":1}", TW_ERR_FORMAT, "'hidden_dropout_prob'"},
        {"{\"model_type\":\"clip\",\"vision_config\":{\"hidden_act\":\"gelu\"}}", TW_ERR_UNSUPPORTED,
         "vision_config: 'hidden_act' is 'gelu', only 'quick_gelu'"},
        {"{\"model_type\":\"clip\",\"vision_config\":{\"image_size\":[224,336]}}", TW_ERR_FORMAT,
         "'image_size'"},
        {"{\"model_type\":\"chinese_clip\",\"text_config\":{\"num_attention_heads\":1e3}}", TW_ERR_FORMAT,
         "text_config: 'num_attention_heads'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_text("c/config.json", cases[i].text);
        TW_ASSERT_FAILS(tw_hf_config_read(path, &config), cases[i].code, cases[i].part);
    }
    write_text("c/config.json",
               "{\"model_type\":\"chinese_clip\",\"vision_config\":{\"num_attention_heads\":3},"
               "\"vision_config_dict\":{\"num_attention_heads\":16,\"patch_size\":14,"
               "\"image_size\":[336,336]}}");
    TW_ASSERT_OK(tw_hf_config_read(path, &config));
    ck_assert_int_eq(config.image_heads, 16);
    ck_assert_int_eq(config.patch, 14);
    ck_assert_int_eq(config.resolution, 336);
    ck_assert_int_eq(config.text_heads, 12);
    ck_assert_float_eq(config.pixel_mean[0], 0.48145466f);
    write_text("c/preprocessor_config.json", "{\"image_mean\":[0.5,0.25,0.125],\"image_std\":[1,1,0]}");
    TW_ASSERT_FAILS(tw_hf_config_read(path, &config), TW_ERR_FORMAT, "'image_std' must be above 0");
    write_text("c/preprocessor_config.json", "{\"image_mean\":[0.5,0.25,0.125]}");
    TW_ASSERT_OK(tw_hf_config_read(path, &config));
    ck_assert_float_eq(config.pixel_mean[2], 0.125f);
    write_text("c/config.json", "{\"model_type\":\"bert\",\"num_attention_heads\":16}");
    TW_ASSERT_OK(tw_hf_config_read(path, &config));
    ck_assert(!config.has_image && config.has_text);
    ck_assert_int_eq(config.text_heads, 16);
}
END_TEST

/* One tower's config.json is the tower's part of a whole one's. */
START_TEST(reads_configurations_of_towers) {
    static const char *const types[] = {"clip_vision_model", "chinese_clip_vision_model"};
    tw_hf_config config;
    char path[160], text[256];
    mkdir(temp_path("t"), 0777);
    strcpy(path, temp_path("t"));
    for (int i = 0; i < 2; i++) {
        snprintf(text, sizeof text,
                 "{\"model_type\":\"%s\",\"image_size\":336,\"patch_size\":14,\"num_attention_heads\":16,"
                 "\"projection_dim\":768}",
                 types[i]);
        write_text("t/config.json", text);
        TW_ASSERT_OK(tw_hf_config_read(path, &config));
        ck_assert(config.has_image && !config.has_text);
        ck_assert(config.resolution == 336 && config.patch == 14 && config.image_heads == 16);
        ck_assert_int_eq(config.embed, 768);
    }
    write_text("t/config.json", "{\"model_type\":\"clip_vision_model\",\"hidden_act\":\"gelu\"}");
    TW_ASSERT_FAILS(tw_hf_config_read(path, &config), TW_ERR_UNSUPPORTED, "'hidden_act' is 'gelu'");
    write_text("t/config.json", "{\"model_type\":\"clip_vision_model\",\"projection_dim\":-1}");
    TW_ASSERT_FAILS(tw_hf_config_read(path, &config), TW_ERR_FORMAT, "'projection_dim'");
    write_text("t/config.json", "{\"model_type\":\"clip_text_model\"}");
    TW_ASSERT_FAILS(tw_hf_config_read(path, &config), TW_ERR_UNSUPPORTED, "model_type 'clip_text_model'");
    write_text("t/config.json", "{\"model_type\":\"chinese_clip_text_model\",\"num_attention_heads\":4}");
    TW_ASSERT_OK(tw_hf_config_read(path, &config));
    ck_assert(!config.has_image && config.has_text);
    ck_assert_int_eq(config.text_heads, 4);
    /* transformers 5 keeps the pixels' statistics in the whole processor's file */
    write_text("t/config.json", "{\"model_type\":\"clip\",\"projection_dim\":640,\"vision_config\":{}}");
    write_text("t/processor_config.json",
               "{\"image_processor\":{\"image_mean\":[0.5,0.25,0.125],\"image_std\":[1,1,1]}}");
    TW_ASSERT_OK(tw_hf_config_read(path, &config));
    ck_assert_int_eq(config.embed, 640);
    ck_assert_float_eq(config.pixel_mean[2], 0.125f);
    write_text("t/processor_config.json", "{\"image_processor\":{\"image_mean\":[0.5]}}");
    TW_ASSERT_FAILS(tw_hf_config_read(path, &config), TW_ERR_FORMAT, "t/processor_config.json: 'image_mean'");
    write_text("t/preprocessor_config.json", "{\"image_mean\":[0.25,0.25,0.25]}"); /* the older file counts */
    TW_ASSERT_OK(tw_hf_config_read(path, &config));
    ck_assert_float_eq(config.pixel_mean[0], 0.25f);
}
END_TEST

TW_TEST_MAIN("hf_config", reads_and_refuses_configurations, reads_configurations_of_towers)
