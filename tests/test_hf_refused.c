/* Hugging Face folders that are wrong, or have several forms of the same weights. */
#include "hf_folders.h"
#include "train/formats/hf_folder.h"
#include "train/formats/hf_names.h"
#include "train/formats/safetensors.h"

static tw_status try_open(const char *path) {
    tw_weights *w;
    tw_status status = tw_hf_folder_open(path, &w);
    if (!status) status = tw_hf_as_original(w, &w);
    if (!status) tw_weights_close(w);
    return status;
}

static tw_status one_byte(void *self, int64_t i, void *dst) {
    (void)self;
    *(char *)dst = (char)i;
    return TW_OK;
}

/* A shard with tensors (1, 1) of one byte, the names divided by spaces. */
static void write_shard(const char *file, const char *tensors) {
    char text[512];
    strcpy(text, tensors);
    tw_weight items[8];
    int n = 0;
    for (char *save, *name = strtok_r(text, " ", &save); name; name = strtok_r(NULL, " ", &save))
        items[n++] = (tw_weight){.name = name, .type = TW_WEIGHT_U8, .ndim = 2, .shape = {1, 1}, .count = 1};
    tw_weights_output output = {items, n, one_byte, NULL};
    TW_ASSERT_OK(tw_safetensors_write(temp_path(file), &output));
}

#define INDEX "s/model.safetensors.index.json"

START_TEST(refuses_wrong_folders) {
    TW_ASSERT_FAILS(try_open("/nowhere"), TW_ERR_NOT_FOUND, "/nowhere");
    char path[160];
    strcpy(path, temp_path("s"));
    mkdir(path, 0777);
    ck_assert(!tw_hf_is_folder(path));
    TW_ASSERT_FAILS(try_open(path), TW_ERR_NOT_FOUND, "no weights there");
    write_shard("s/one.safetensors", "a b");
    write_shard("s/two.safetensors", "c");
    static const struct {
        const char *index, *part;
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"../one.safetensors\"}}", "'../one.safetensors' is not a plain file name"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "not a plain file name"},
        {"{\"weight_map\":{\"a\":\"..\"}}", "not a plain file name"},
        {"{\"weight_map\":{\"a\":\"x/../one.safetensors\"}}", "not a plain file name"},
        {"{\"weight_map\":{\"a\":\"..\\\\one.safetensors\"}}", "not a plain file name"},
        {"{\"weight_map\":{\"a\":\"\"}}", "not a plain file name"},
        {"{\"weight_map\":{\"a\":7}}", "tensor 'a': a string expected"},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"a\":\"one.safetensors\"}}",
         "tensor 'a': it is there twice"},
        {"{\"weight_map\":{\"a\":\"one.safetensors\"}}", "holds tensor 'b', which the index does not know"},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}",
         "holds tensor 'b', which the index puts in two.safetensors"},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"one.safetensors\",\"x\":\"one.safetensors\"}}",
         "one.safetensors: lacks tensor 'x'"},
        {"{\"weight_map\":{\"a\":\"three.safetensors\"}}",
         "shard three.safetensors, which model.safetensors.index.json names, is missing"},
        {"{\"weight_map\":{}}", "missing or empty"},
        {"{}", "missing or empty"},
        {"{\"weight_map\":{},\"weight_map\":{}}", "there twice"},
        {"{\"weight_map\":[]}", "weight_map: bad JSON"},
        {"{\"weight_map\":{\"a\":\"model.safetensors.index.json\"}}", "not a safetensors file"},
        {"", "bad JSON"},
        {"{\"metadata\":[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]],\"weight_map\":{}}", "nested deeper"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_text(INDEX, cases[i].index);
        TW_ASSERT_FAILS(try_open(path), TW_ERR_FORMAT, cases[i].part);
    }
    write_text(INDEX, "{\"weight_map\":{\"a\":\"one.safetensors\",\"c\":\"two.safetensors\","
                      "\"b\":\"one.safetensors\"},\"metadata\":{\"total_size\":3}}");
    ck_assert(tw_hf_is_folder(path));
    TW_ASSERT_OK(try_open(path));
}
END_TEST

/* model.safetensors wins over everything else, as with transformers. */
START_TEST(prefers_safetensors) {
    mkdir(temp_path("p"), 0777);
    write_text("p/pytorch_model.bin", "not read");
    write_text("p/pytorch_model.bin.index.json", "not read");
    write_text("p/model.safetensors.index.json", "not read");
    write_shard("p/model.safetensors", "a");
    TW_ASSERT_OK(try_open(temp_path("p")));
}
END_TEST

START_TEST(refuses_incomplete_projections) {
    mkdir(temp_path("q"), 0777);
#define Q "vision_model.encoder.layers.4.self_attn."
    static const struct {
        const char *tensors, *part;
    } cases[] = {
        {Q "q_proj.weight " Q "v_proj.weight", "'" Q "k_proj.weight', which belongs to it, is missing"},
        {Q "k_proj.weight " Q "v_proj.weight", "'" Q "q_proj.weight', which belongs to it, is missing"},
        {"bert.pooler.dense.weight text_model.pooler.dense.weight", "bert.pooler.dense.weight"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_shard("q/model.safetensors", cases[i].tensors);
        TW_ASSERT_FAILS(try_open(temp_path("q")), TW_ERR_FORMAT, cases[i].part);
    }
    tw_weight items[3] = {
        {.name = Q "q_proj.bias", .ndim = 1, .shape = {1}, .count = 1},
        {.name = Q "k_proj.bias", .ndim = 1, .shape = {1}, .count = 1},
        {.name = Q "v_proj.bias", .type = TW_WEIGHT_F16, .ndim = 1, .shape = {1}, .count = 1}};
    tw_weights_output output = {items, 3, one_byte, NULL};
    TW_ASSERT_OK(tw_safetensors_write(temp_path("q/model.safetensors"), &output));
    TW_ASSERT_FAILS(try_open(temp_path("q")), TW_ERR_FORMAT, "another shape or type");
    items[0].name = "text_projection.weight";
    output.n = 1;
    TW_ASSERT_OK(tw_safetensors_write(temp_path("q/model.safetensors"), &output));
    TW_ASSERT_FAILS(try_open(temp_path("q")), TW_ERR_FORMAT, "a projection has 2");
}
END_TEST

TW_TEST_MAIN("hf_refused", refuses_wrong_folders, prefers_safetensors, refuses_incomplete_projections)
