/* The original's parameter order, its optimizer's numbers, and what checkpoints keep of an imported file. */
#include "memory_weights.h"
#include "train/original_order.h"
#include "train/weight_origin.h"

#include <math.h>

/* As named_parameters of the reference lists them (a ViT with 11 blocks, an RN50). */
static const char *const order[] = {
    "text_projection",
    "logit_scale",
    "visual.class_embedding",
    "visual.positional_embedding",
    "visual.proj",
    "visual.conv1.weight",
    "visual.bn1.weight",
    "visual.bn1.bias",
    "visual.conv3.weight",
    "visual.layer1.0.conv1.weight",
    "visual.layer1.0.bn3.bias",
    "visual.layer1.0.downsample.0.weight",
    "visual.layer1.1.conv1.weight",
    "visual.layer4.0.conv1.weight",
    "visual.ln_pre.weight",
    "visual.ln_pre.bias",
    "visual.transformer.resblocks.0.attn.in_proj_weight",
    "visual.transformer.resblocks.0.attn.in_proj_bias",
    "visual.transformer.resblocks.0.attn.out_proj.weight",
    "visual.transformer.resblocks.0.ln_1.weight",
    "visual.transformer.resblocks.0.mlp.c_fc.weight",
    "visual.transformer.resblocks.0.mlp.c_proj.bias",
    "visual.transformer.resblocks.0.ln_2.weight",
    "visual.transformer.resblocks.2.attn.in_proj_weight",
    "visual.transformer.resblocks.10.attn.in_proj_weight",
    "visual.ln_post.bias",
    "visual.attnpool.positional_embedding",
    "visual.attnpool.k_proj.weight",
    "visual.attnpool.q_proj.bias",
    "visual.attnpool.v_proj.weight",
    "visual.attnpool.c_proj.bias",
    "bert.embeddings.word_embeddings.weight",
    "bert.embeddings.position_embeddings.weight",
    "bert.embeddings.token_type_embeddings.weight",
    "bert.embeddings.LayerNorm.weight",
    "bert.encoder.layer.0.attention.self.query.weight",
    "bert.encoder.layer.0.attention.self.query.bias",
    "bert.encoder.layer.0.attention.self.value.bias",
    "bert.encoder.layer.0.attention.output.dense.weight",
    "bert.encoder.layer.0.attention.output.LayerNorm.bias",
    "bert.encoder.layer.0.intermediate.dense.weight",
    "bert.encoder.layer.0.output.dense.weight",
    "bert.encoder.layer.0.output.LayerNorm.bias",
    "bert.encoder.layer.1.attention.self.query.weight",
};
enum { NAMES = sizeof order / sizeof order[0] };

START_TEST(orders_as_the_original) {
    for (int i = 0; i < NAMES; i++)
        for (int k = 0; k < NAMES; k++) {
            int got = tw_original_order(order[i], order[k]);
            ck_assert_msg((got > 0) - (got < 0) == (i > k) - (i < k), "%s and %s: %d", order[i], order[k],
                          got);
        }
}
END_TEST

START_TEST(groups_as_the_original) {
    ck_assert(tw_original_no_decay("visual.transformer.resblocks.0.ln_1.weight"));
    ck_assert(tw_original_no_decay("visual.layer1.0.bn1.weight"));
    ck_assert(tw_original_no_decay("logit_scale"));
    ck_assert(!tw_original_no_decay("bert.embeddings.LayerNorm.weight"));
    ck_assert(!tw_original_no_decay("visual.layer1.0.downsample.1.weight"));
    ck_assert(tw_original_is_buffer("visual.bn1.running_var"));
    ck_assert(!tw_original_is_buffer("visual.bn1.weight"));
}
END_TEST

static tw_weights *with_optimizer(int64_t first, int64_t second, int64_t group_count) {
    static const int64_t numbers[] = {5, 6, 7, 8, 9};
    tw_weights_group groups[2] = {{.params = numbers, .param_count = first},
                                  {.params = numbers + first, .param_count = second}};
    memory_weights m = {0};
    memory_add(&m, "text_projection", TW_WEIGHT_F32, "4,2");
    memory_add(&m, "logit_scale", TW_WEIGHT_F32, "");
    memory_add(&m, "visual.proj", TW_WEIGHT_F32, "4,2");
    memory_add(&m, "visual.bn1.weight", TW_WEIGHT_F32, "4");
    memory_add(&m, "visual.bn1.running_mean", TW_WEIGHT_F32, "4");
    memory_add(&m, "optimizer.state.5.exp_avg", TW_WEIGHT_F32, "4");
    static const tw_weights_source source = {.read = memory_read, .close = memory_close};
    memory_weights *own = malloc(sizeof *own);
    *own = m;
    tw_weights *w;
    tw_weights_note note = {.kind = "memory", .groups = groups, .group_count = group_count};
    TW_ASSERT_OK(tw_weights_create("memory.pt", &note, own->items, own->n, &source, own, &w));
    return w;
}

START_TEST(numbers_parameters) {
    int64_t *numbers;
    tw_weights *w = with_optimizer(2, 2, 2);
    TW_ASSERT_OK(tw_original_optimizer_numbers(w, &numbers));
    static const int64_t all[] = {7, 5, 8, 6, -1, -1};
    ck_assert_mem_eq(numbers, all, sizeof all);
    free(numbers);
    tw_weights_close(w);
    w = with_optimizer(1, 1, 2); /* a frozen image tower */
    TW_ASSERT_OK(tw_original_optimizer_numbers(w, &numbers));
    static const int64_t text[] = {6, 5, -1, -1, -1, -1};
    ck_assert_mem_eq(numbers, text, sizeof text);
    free(numbers);
    tw_weights_close(w);
}
END_TEST

START_TEST(refuses_other_optimizers) {
    int64_t *numbers;
    tw_weights *w = with_optimizer(3, 2, 2);
    TW_ASSERT_FAILS(tw_original_optimizer_numbers(w, &numbers), TW_ERR_FORMAT,
                    "3 parameters without and 2 with weight decay");
    ck_assert_ptr_null(numbers);
    tw_weights_close(w);
    w = with_optimizer(2, 2, 1);
    TW_ASSERT_FAILS(tw_original_optimizer_numbers(w, &numbers), TW_ERR_FORMAT, "1 parameter groups");
    tw_weights_close(w);
}
END_TEST

START_TEST(keeps_an_origin) {
    tw_origin_tensor tensors[] = {
        {.name = (char *)"visual.proj", .type = TW_WEIGHT_F16, .moment_type = TW_WEIGHT_BF16},
        {.name = (char *)"bert.pooler.dense.weight",
         .type = TW_WEIGHT_F32,
         .extra = true,
         .ndim = 2,
         .shape = {3, 4}},
        {.name = (char *)"x.num_batches_tracked", .type = TW_WEIGHT_I64, .extra = true}};
    tw_weight_origin o = {.kind = (char *)"PyTorch zip",
                          .module = true,
                          .tensors = tensors,
                          .count = 3,
                          .step_type = TW_WEIGHT_I64,
                          .group_count = 2},
                     back;
    o.groups[0] = (tw_weights_group){.lr = 5e-5, .beta1 = 0.9, .beta2 = 0.98, .eps = NAN, .weight_decay = 0};
    o.groups[1] = o.groups[0];
    char *json;
    TW_ASSERT_OK(tw_weight_origin_to_json(&o, &json));
    TW_ASSERT_OK(tw_weight_origin_from_json(json, "a.h5", &back));
    free(json);
    ck_assert(back.module && !back.hugging_face);
    ck_assert_str_eq(back.kind, "PyTorch zip");
    ck_assert_ptr_null(back.name);
    ck_assert_int_eq(back.count, 3);
    ck_assert_int_eq(back.tensors[0].type, TW_WEIGHT_F16);
    ck_assert_int_eq(back.tensors[0].moment_type, TW_WEIGHT_BF16);
    ck_assert(!back.tensors[0].extra && back.tensors[1].extra && back.tensors[2].extra);
    ck_assert_int_eq(back.tensors[1].shape[1], 4);
    ck_assert_int_eq(back.tensors[2].ndim, 0);
    ck_assert_int_eq(back.step_type, TW_WEIGHT_I64);
    ck_assert(back.groups[1].lr == 5e-5 && isnan(back.groups[0].eps));
    tw_weight_origin_free(&back);
}
END_TEST

START_TEST(refuses_damaged_origins) {
    static const char *const bad[] = {"",
                                      "[]",
                                      "{}",
                                      "{\"tensors\": 3}",
                                      "{\"tensors\": [{}]}",
                                      "{\"tensors\": [{\"name\": \"a\", \"type\": \"f12\"}]}",
                                      "{\"tensors\": [{\"name\": \"a\", \"shape\": 3}]}",
                                      "{\"tensors\": [{\"name\": \"a\", \"shape\": [-1]}]}",
                                      "{\"tensors\": [{\"name\": \"a\", \"shape\": [1,1,1,1,1,1,1,1,1]}]}",
                                      "{\"tensors\": [], \"optimizer\": {}}"};
    tw_weight_origin o;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        TW_ASSERT_FAILS(tw_weight_origin_from_json(bad[i], "a.h5", &o), TW_ERR_FORMAT, "a.h5: what it keeps");
}
END_TEST

TW_TEST_MAIN("original_order", orders_as_the_original, groups_as_the_original, numbers_parameters,
             refuses_other_optimizers, keeps_an_origin, refuses_damaged_origins)
