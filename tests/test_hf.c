#include "data/files.h"
#include "golden_file.h"
#include "hf_folders.h"
#include "train/formats/hf_folder.h"
#include "train/formats/hf_names.h"
#include "train/formats/safetensors.h"
#include "tw_test.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

static bool exists(const char *name) {
    return access(temp_path(name), F_OK) == 0;
}

static int entries(const char *path) {
    int n = -2; /* . and .. */
    DIR *d = opendir(path);
    ck_assert_ptr_nonnull(d);
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

/* ---- names ---- */

static const struct {
    const char *original, *hf[3];
    tw_hf_transform transform;
} names[] = {
    {"logit_scale", {"logit_scale"}, TW_HF_COPY},
    {"visual.proj", {"visual_projection.weight"}, TW_HF_TRANSPOSE},
    {"text_projection", {"text_projection.weight"}, TW_HF_TRANSPOSE},
    {"visual.ln_pre.bias", {"vision_model.pre_layrnorm.bias"}, TW_HF_COPY},
    {"visual.transformer.resblocks.31.attn.in_proj_weight",
     {"vision_model.encoder.layers.31.self_attn.q_proj.weight",
      "vision_model.encoder.layers.31.self_attn.k_proj.weight",
      "vision_model.encoder.layers.31.self_attn.v_proj.weight"},
     TW_HF_ROWS},
    {"visual.transformer.resblocks.0.attn.in_proj_bias",
     {"vision_model.encoder.layers.0.self_attn.q_proj.bias",
      "vision_model.encoder.layers.0.self_attn.k_proj.bias",
      "vision_model.encoder.layers.0.self_attn.v_proj.bias"},
     TW_HF_ROWS},
    {"visual.transformer.resblocks.10.mlp.c_proj.bias",
     {"vision_model.encoder.layers.10.mlp.fc2.bias"},
     TW_HF_COPY},
    {"bert.encoder.layer.3.attention.self.query.weight",
     {"text_model.encoder.layer.3.attention.self.query.weight"},
     TW_HF_COPY},
    {"bert.pooler.dense.weight", {"text_model.pooler.dense.weight"}, TW_HF_COPY},
    {"bert.embeddings.position_ids", {"text_model.embeddings.position_ids"}, TW_HF_COPY},
    {"visual.position_ids", {"vision_model.embeddings.position_ids"}, TW_HF_COPY},
};

START_TEST(names_go_both_ways) {
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        tw_hf_piece pieces[TW_HF_MAX_PIECES], back;
        int n = tw_hf_pieces_of(names[i].original, pieces);
        ck_assert_int_eq(n, names[i].transform == TW_HF_ROWS ? 3 : 1);
        for (int p = 0; p < n; p++) {
            ck_assert_str_eq(pieces[p].name, names[i].hf[p]);
            ck_assert_int_eq(pieces[p].transform, names[i].transform);
            ck_assert_int_eq(pieces[p].part, p);
            ck_assert_int_eq(pieces[p].parts, n);
            ck_assert(tw_hf_original_of(names[i].hf[p], &back));
            ck_assert_str_eq(back.name, names[i].original);
            ck_assert_int_eq(back.transform, names[i].transform);
            ck_assert_int_eq(back.part, p);
        }
    }
    static const char *const none[] = {"",
                                       "visual.layer1.0.conv1.weight",
                                       "visual.attnpool.q_proj.weight",
                                       "visual.bn1.weight",
                                       "visual.conv2.weight",
                                       "bert.",
                                       "visual.ln_pre.gain",
                                       "visual.transformer.resblocks.01.ln_1.weight",
                                       "visual.transformer.resblocks..ln_1.weight",
                                       "visual.transformer.resblocks.1.ln_1.weight2",
                                       "visual.projx",
                                       "epoch"};
    tw_hf_piece pieces[TW_HF_MAX_PIECES];
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        ck_assert_msg(tw_hf_pieces_of(none[i], pieces) == 0, "%s", none[i]);
        ck_assert_msg(!tw_hf_original_of(none[i], pieces), "%s", none[i]);
    }
    char long_name[1024] = "bert.";
    memset(long_name + 5, 'x', 600);
    ck_assert_int_eq(tw_hf_pieces_of(long_name, pieces), 0);
    ck_assert(tw_hf_is_unused("bert.pooler.dense.bias") && tw_hf_is_unused("visual.position_ids"));
    ck_assert(!tw_hf_is_unused("bert.embeddings.position_embeddings.weight"));
}
END_TEST

/* ---- reading ---- */

static tw_weights *open_original(const char *path) {
    tw_weights *hf, *w;
    TW_ASSERT_OK(tw_hf_folder_open(path, &hf));
    ck_assert(tw_hf_is_named(hf));
    ck_assert_str_eq(tw_weights_get_note(hf)->kind, "Hugging Face folder");
    TW_ASSERT_OK(tw_hf_as_original(hf, &w));
    ck_assert(!tw_hf_is_named(w));
    ck_assert_str_eq(tw_weights_path(w), path);
    return w;
}

static hsize_t golden_count(hid_t file) {
    H5G_info_t info;
    ck_assert_int_ge(H5Gget_info(file, &info), 0);
    return info.nlinks;
}

/* Every tensor equals the original code's, shape and values, in a file of the given type. */
static void assert_is_golden(tw_weights *w, tw_weight_type type, int unused) {
    hid_t file = golden_open(GOLDEN "original.h5");
    ck_assert_uint_eq((hsize_t)tw_weights_count(w), golden_count(file) + (hsize_t)unused);
    for (int64_t i = 0; i < tw_weights_count(w); i++) {
        const tw_weight *item = tw_weights_at(w, i);
        if (tw_hf_is_unused(item->name)) continue;
        ck_assert_msg(item->type == type, "%s is %s", item->name, tw_weight_type_name(item->type));
        hid_t set = H5Dopen2(file, item->name, H5P_DEFAULT);
        ck_assert_msg(set >= 0, "%s is not in the original model", item->name);
        hid_t space = H5Dget_space(set);
        hsize_t shape[8] = {0};
        ck_assert_int_eq(H5Sget_simple_extent_dims(space, shape, NULL), item->ndim);
        for (int d = 0; d < item->ndim; d++) ck_assert_uint_eq(shape[d], (hsize_t)item->shape[d]);
        H5Sclose(space);
        H5Dclose(set);
        float *expected = golden_f32(file, item->name, item->count),
              *got = malloc((size_t)item->count * 4 + 1);
        TW_ASSERT_OK(tw_weights_read_f32(w, i, got, item->count));
        ck_assert_msg(memcmp(got, expected, (size_t)item->count * 4) == 0, "%s differs", item->name);
        free(got);
        free(expected);
    }
    H5Fclose(file);
}

START_TEST(reads_one_file) {
    tw_weights *w = open_original(GOLDEN "single");
    assert_is_golden(w, TW_WEIGHT_F32, 0);
    tw_weights_close(w);
}
END_TEST

START_TEST(reads_shards_in_half_precision) {
    tw_weights *w = open_original(GOLDEN "sharded");
    assert_is_golden(w, TW_WEIGHT_F16, 0);
    tw_weights_close(w);
}
END_TEST

START_TEST(reads_a_bin) {
    tw_weights *w = open_original(GOLDEN "bin");
    assert_is_golden(w, TW_WEIGHT_F32, 4);
    int64_t at = tw_weights_find(w, "bert.embeddings.position_ids");
    ck_assert_int_ge(at, 0);
    ck_assert_int_eq(tw_weights_at(w, at)->type, TW_WEIGHT_I64);
    ck_assert_int_ge(tw_weights_find(w, "bert.pooler.dense.weight"), 0);
    ck_assert_int_ge(tw_weights_find(w, "visual.position_ids"), 0);
    tw_weights_close(w);
}
END_TEST

START_TEST(reads_shards_of_bins) {
    tw_weights *w = open_original(GOLDEN "bin_sharded");
    assert_is_golden(w, TW_WEIGHT_F16, 0);
    tw_weights_close(w);
}
END_TEST

/* ---- writing ---- */

static tw_status copy_fill(void *self, int64_t i, void *dst) {
    return tw_weights_read(self, i, dst);
}

static tw_weights_output output_of(tw_weights *w) {
    static tw_weight items[256];
    int64_t n = tw_weights_count(w);
    ck_assert_int_le(n, 256);
    for (int64_t i = 0; i < n; i++) items[i] = *tw_weights_at(w, i);
    return (tw_weights_output){items, n, copy_fill, w};
}

static void assert_same_bytes(const char *a, const char *b) {
    uint8_t *x, *y;
    size_t m, n;
    TW_ASSERT_OK(tw_read_file(a, &x, &m));
    TW_ASSERT_OK(tw_read_file(b, &y, &n));
    ck_assert_uint_eq(m, n);
    ck_assert_mem_eq(x, y, m);
    free(x);
    free(y);
}

static tw_model_config golden_model(void) {
    return (tw_model_config){.name = "tiny",
                             .embed = 10,
                             .context = 12,
                             .image = {.resolution = 12,
                                       .patch = 4,
                                       .width = 24,
                                       .layers = 2,
                                       .heads = 3,
                                       .pixel_mean = {0.48145466f, 0.4578275f, 0.40821073f},
                                       .pixel_std = {0.26862954f, 0.26130258f, 0.27577711f}},
                             .text = {.vocabulary = 60,
                                      .positions = 12,
                                      .types = 2,
                                      .hidden = 16,
                                      .layers = 2,
                                      .heads = 4,
                                      .intermediate = 24,
                                      .hidden_dropout = 0.1f}};
}

/* Through original names and back: the very file that transformers wrote. */
START_TEST(folder_to_folder_is_bit_identical) {
    tw_weights *w = open_original(GOLDEN "single");
    tw_weights_output output = output_of(w);
    tw_model_config model = golden_model();
    uint8_t *vocab;
    size_t size;
    TW_ASSERT_OK(tw_read_file(GOLDEN "single/vocab.txt", &vocab, &size));
    TW_ASSERT_OK(tw_hf_folder_write(temp_path("deep/copy"), &output, &model, vocab, size, false));
    tw_weights_close(w);
    free(vocab);
    ck_assert_int_eq(entries(temp_path("deep/copy")), 5);
    assert_same_bytes(temp_path("deep/copy/model.safetensors"), GOLDEN "single/model.safetensors");
    assert_same_bytes(temp_path("deep/copy/vocab.txt"), GOLDEN "single/vocab.txt");
    tw_hf_config config;
    TW_ASSERT_OK(tw_hf_config_read(temp_path("deep/copy"), &config));
    ck_assert(config.has_image && config.has_text);
    ck_assert_int_eq(config.resolution, 12);
    ck_assert_int_eq(config.patch, 4);
    ck_assert_int_eq(config.image_heads, 3);
    ck_assert_int_eq(config.text_heads, 4);
    ck_assert_float_eq(config.hidden_dropout, 0.1f);
    ck_assert_float_eq(config.attention_dropout, 0);
    ck_assert_mem_eq(config.pixel_mean, model.image.pixel_mean, sizeof config.pixel_mean);
    ck_assert_mem_eq(config.pixel_std, model.image.pixel_std, sizeof config.pixel_std);
    tw_remove_folder(temp_path("deep/copy"));
}
END_TEST

START_TEST(half_precision_stays) {
    tw_weights *w = open_original(GOLDEN "sharded");
    tw_weights_output output = output_of(w);
    tw_model_config model = golden_model();
    TW_ASSERT_OK(tw_hf_folder_write(temp_path("half"), &output, &model, "a\nb", 3, false));
    tw_weights_close(w);
    w = open_original(temp_path("half"));
    assert_is_golden(w, TW_WEIGHT_F16, 0);
    tw_weights_close(w);
    uint8_t *text;
    size_t size;
    TW_ASSERT_OK(tw_read_file(temp_path("half/config.json"), &text, &size));
    ck_assert_ptr_nonnull(memmem(text, size, "\"torch_dtype\": \"float16\"", 24));
    ck_assert_ptr_nonnull(memmem(text, size, "\"layer_norm_eps\": 1e-12", 23));
    free(text);
}
END_TEST

/* Type by type, a transpose is checked against its definition. */
START_TEST(projections_of_every_type_are_transposed) {
    for (tw_weight_type type = TW_WEIGHT_F32; type <= TW_WEIGHT_BOOL; type++) {
        size_t size = tw_weight_type_size(type);
        char matrix[3 * 5 * 8], got[3 * 5 * 8];
        for (size_t i = 0; i < sizeof matrix; i++) matrix[i] = (char)(i * 7);
        FILE *file = fopen(temp_path("t.safetensors"), "wb");
        char header[256];
        static const char *const kinds[] = {"F32", "F16", "BF16", "F64", "I64",
                                            "I32", "I16", "I8",   "U8",  "BOOL"};
        int n = snprintf(
            header, sizeof header,
            "{\"text_projection.weight\":{\"dtype\":\"%s\",\"shape\":[3,5],\"data_offsets\":[0,%zu]}}",
            kinds[type], 15 * size);
        fputc(n, file);
        for (int i = 1; i < 8; i++) fputc(0, file);
        fputs(header, file);
        fwrite(matrix, 1, 15 * size, file);
        fclose(file);
        tw_weights *hf, *w;
        TW_ASSERT_OK(tw_safetensors_open(temp_path("t.safetensors"), &hf));
        TW_ASSERT_OK(tw_hf_as_original(hf, &w));
        ck_assert_int_eq(tw_weights_at(w, 0)->shape[0], 5);
        ck_assert_int_eq(tw_weights_at(w, 0)->shape[1], 3);
        TW_ASSERT_OK(tw_weights_read(w, 0, got));
        for (size_t r = 0; r < 5; r++)
            for (size_t c = 0; c < 3; c++)
                ck_assert_mem_eq(got + (r * 3 + c) * size, matrix + (c * 5 + r) * size, size);
        tw_weights_close(w);
    }
}
END_TEST

static tw_status failing_fill(void *self, int64_t i, void *dst) {
    if (i == 20) return FAIL(TW_ERR_NUMERIC, "no value here");
    return copy_fill(self, i, dst);
}

START_TEST(writing_spares_what_is_there) {
    tw_weights *w = open_original(GOLDEN "single");
    tw_weights_output output = output_of(w), broken = output;
    broken.fill = failing_fill;
    tw_model_config model = golden_model();
    char path[160];
    strcpy(path, temp_path("f"));
    TW_ASSERT_FAILS(tw_hf_folder_write(path, &broken, &model, "a\n", 2, false), TW_ERR_NUMERIC, "no value");
    ck_assert(!exists("f"));
    mkdir(path, 0777);
    write_text("f/notes.md", "mine");
    TW_ASSERT_FAILS(tw_hf_folder_write(path, &output, &model, "a\n", 2, false), TW_ERR_ARGUMENT,
                    "'notes.md'");
    static const char *const others[] = {"f/pytorch_model.bin", "f/model-00001-of-00002.safetensors",
                                         "f/model.safetensors.index.json", "f/tokenizer.json",
                                         "f/config.json"};
    for (int i = 0; i < 5; i++) write_text(others[i], "{}");
    TW_ASSERT_FAILS(tw_hf_folder_write(path, &broken, &model, "a\n", 2, true), TW_ERR_NUMERIC, "no value");
    ck_assert_int_eq(entries(path), 6);
    TW_ASSERT_OK(tw_hf_folder_write(path, &output, &model, "a\n", 2, true));
    ck_assert_int_eq(entries(path), 6); /* five of the model, one of the user */
    ck_assert(exists("f/notes.md") && exists("f/config.json") && !exists("f/tokenizer.json"));
    TW_ASSERT_FAILS(tw_hf_folder_write(temp_path("f/notes.md"), &output, &model, "a\n", 2, true),
                    TW_ERR_ARGUMENT, "a folder is to be written");
    TW_ASSERT_FAILS(tw_hf_folder_write(temp_path("g"), &output, &model, "", 0, true), TW_ERR_ARGUMENT,
                    "0 words");
    model.text.vocabulary = 2;
    TW_ASSERT_FAILS(tw_hf_folder_write(temp_path("g"), &output, &model, "a\nb\nc", 5, true), TW_ERR_ARGUMENT,
                    "3 words, the model 2");
    tw_weights_close(w);
}
END_TEST

START_TEST(refuses_what_has_no_hugging_face_form) {
    tw_weights_output output = {&(tw_weight){.name = "visual.layer1.0.conv1.weight"}, 1, failing_fill, NULL},
                      hf;
    TW_ASSERT_FAILS(tw_hf_output_create(&output, &hf), TW_ERR_UNSUPPORTED, "RN50");
    output.items = &(tw_weight){.name = "optimizer.state.0.step"};
    TW_ASSERT_FAILS(tw_hf_output_create(&output, &hf), TW_ERR_UNSUPPORTED, "optimizer.state.0.step");
    output.items = &(tw_weight){.name = "visual.proj", .ndim = 1, .shape = {4}, .count = 4};
    TW_ASSERT_FAILS(tw_hf_output_create(&output, &hf), TW_ERR_SHAPE, "visual.proj");
    output.items = &(tw_weight){
        .name = "visual.transformer.resblocks.0.attn.in_proj_bias", .ndim = 1, .shape = {4}, .count = 4};
    TW_ASSERT_FAILS(tw_hf_output_create(&output, &hf), TW_ERR_SHAPE, "in_proj_bias");
    tw_hf_output_free(&hf);
}
END_TEST

TW_TEST_MAIN("hf", names_go_both_ways, reads_one_file, reads_shards_in_half_precision, reads_a_bin,
             reads_shards_of_bins, folder_to_folder_is_bit_identical, half_precision_stays,
             projections_of_every_type_are_transposed, writing_spares_what_is_there,
             refuses_what_has_no_hugging_face_form)
