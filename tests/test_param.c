#include "autograd/param.h"
#include "tw_test.h"

#include <math.h>

static tw_device *device;
static const tw_init zeros = {TW_INIT_CONSTANT, 0}, ones = {TW_INIT_CONSTANT, 1},
                     normal = {TW_INIT_NORMAL, 0.02f}, even = {TW_INIT_UNIFORM, 0.5f};

/* visual.w (3,5), visual.b (7), q.weight k.weight v.weight (4,6) as one, their biases (4) as one, logit_scale
 * (), conv (2,3,2,2). */
typedef struct model {
    tw_params *set;
    tw_param *w, *b, *q[3], *bias[3], *scale, *conv, *fused_weight, *fused_bias, *fused_conv;
} model;

static void add(model *m, const char *name, int ndim, const int64_t *shape, tw_init init, tw_param **out) {
    TW_ASSERT_OK(tw_params_add(m->set, name, ndim, shape, init, out));
    ck_assert_str_eq((*out)->name, name);
}

static model build(void) {
    static const int64_t w[] = {3, 5}, b[] = {7}, q[] = {4, 6}, bias[] = {4}, conv[] = {2, 3, 2, 2};
    static const char *const weights[] = {"q.weight", "k.weight", "v.weight"}, *const biases[] = {"q.bias",
                                                                                                  "k.bias",
                                                                                                  "v.bias"};
    model m = {0};
    TW_ASSERT_OK(tw_params_create(&m.set));
    add(&m, "visual.w", 2, w, normal, &m.w);
    add(&m, "visual.b", 1, b, ones, &m.b);
    for (int i = 0; i < 3; i++) add(&m, weights[i], 2, q, even, &m.q[i]);
    TW_ASSERT_OK(tw_params_fuse(m.set, 3, &m.fused_weight));
    for (int i = 0; i < 3; i++) add(&m, biases[i], 1, bias, zeros, &m.bias[i]);
    TW_ASSERT_OK(tw_params_fuse(m.set, 3, &m.fused_bias));
    add(&m, "logit_scale", 0, NULL, ones, &m.scale);
    add(&m, "visual.conv", 4, conv, normal, &m.conv);
    TW_ASSERT_OK(tw_params_fuse(m.set, 1, &m.fused_conv));
    return m;
}

static void fill(const model *m, tw_param *p, float first) {
    float v[64];
    for (int64_t i = 0; i < p->count; i++) v[i] = first + 0.37f * (float)i;
    TW_ASSERT_OK(tw_params_set(m->set, p, v));
}

START_TEST(slabs_hold_everything_apart) {
    TW_ASSERT_OK(tw_device_cpu(1, &device));
    model m = build();
    ck_assert_int_eq(tw_params_count(m.set), 10);
    TW_ASSERT_OK(tw_params_allocate(m.set, device, TW_F32, true));
    ck_assert_ptr_null(tw_params_copies(m.set));
    int64_t n = tw_params_trainable(m.set);
    ck_assert_uint_eq(tw_params_bytes(m.set), (size_t)n * 8);
    for (int i = 0; i < tw_params_count(m.set); i++) {
        tw_param *p = tw_params_at(m.set, i);
        ck_assert_ptr_eq(tw_params_find(m.set, p->name), p);
        ck_assert_ptr_eq(p->value.data, tw_params_values(m.set) + p->offset);
        ck_assert_ptr_eq(p->master.data, p->value.data);
        ck_assert_ptr_eq(p->grad.data, tw_params_gradients(m.set) + p->offset);
        ck_assert(p->offset >= 0 && p->offset + p->count <= n);
        if (!p->continues) ck_assert_uint_eq((uintptr_t)p->value.data % 64, 0);
        for (int k = 0; k < i; k++) {
            const tw_param *o = tw_params_at(m.set, k);
            ck_assert(o->offset + o->count <= p->offset || p->offset + p->count <= o->offset);
        }
        fill(&m, p, (float)(100 * i));
    }
    for (int i = 0; i < tw_params_count(m.set); i++) {
        tw_param *p = tw_params_at(m.set, i);
        float v[64];
        TW_ASSERT_OK(tw_params_get(m.set, p, v));
        for (int64_t k = 0; k < p->count; k++) ck_assert_float_eq(v[k], (float)(100 * i) + 0.37f * (float)k);
    }
    ck_assert_int_eq(m.scale->count, 1);
    ck_assert_ptr_null(tw_params_find(m.set, "visual"));
    tw_params_free(m.set);
    tw_params_free(NULL);
    tw_device_free(device);
}
END_TEST

START_TEST(fused_parameters_are_one_block) {
    TW_ASSERT_OK(tw_device_cpu(1, &device));
    for (int type = TW_F32; type <= TW_BF16; type++) {
        model m = build();
        TW_ASSERT_OK(tw_params_allocate(m.set, device, (tw_dtype)type, true));
        const tw_tensor *v = &m.fused_weight->value;
        ck_assert(v->ndim == 2 && v->shape[0] == 12 && v->shape[1] == 6 && v->dtype == (tw_dtype)type);
        ck_assert(m.fused_bias->value.ndim == 1 && m.fused_bias->value.shape[0] == 12);
        ck_assert(m.fused_bias->value.dtype == TW_F32);
        v = &m.fused_conv->value; /* as the matrix over patches */
        ck_assert(v->ndim == 2 && v->shape[0] == 2 && v->shape[1] == 12 && v->dtype == (tw_dtype)type);
        ck_assert(m.conv->value.ndim == 4 && m.conv->value.data == v->data && m.conv->grad.data);
        for (int i = 0; i < 3; i++) fill(&m, m.q[i], (float)(10 * i)), fill(&m, m.bias[i], (float)i);
        float stacked[72], one[24];
        TW_ASSERT_OK(tw_params_get(m.set, m.fused_weight, stacked));
        for (int i = 0; i < 3; i++) {
            TW_ASSERT_OK(tw_params_get(m.set, m.q[i], one));
            ck_assert_mem_eq(stacked + 24 * i, one, sizeof one);
            ck_assert_ptr_eq(m.q[i]->grad.data, (float *)m.fused_weight->grad.data + 24 * i);
            ck_assert_ptr_eq(m.bias[i]->master.data, (float *)m.fused_bias->master.data + 4 * i);
            size_t size = type == TW_F32 ? 4 : 2;
            ck_assert_ptr_eq(m.q[i]->value.data, (char *)m.fused_weight->value.data + 24 * size * (size_t)i);
        }
        ck_assert((m.fused_bias->half != NULL) == (type == TW_BF16));
        for (int k = 0; m.fused_bias->half && k < 12; k++) /* of vectors there is a copy as well */
            ck_assert_uint_eq(m.fused_bias->half[k], tw_to_bf16(((float *)m.fused_bias->master.data)[k]));
        tw_params_free(m.set);
    }
    tw_device_free(device);
}
END_TEST

START_TEST(frozen_parameters_have_no_more_than_they_need) {
    TW_ASSERT_OK(tw_device_cpu(1, &device));
    for (int type = TW_F32; type <= TW_BF16; type++) {
        model m = build();
        int matched;
        TW_ASSERT_OK(tw_params_freeze(m.set, "visual.*", &matched));
        ck_assert_int_eq(matched, 3);
        TW_ASSERT_OK(tw_params_freeze(m.set, "nothing*", &matched));
        ck_assert_int_eq(matched, 0);
        TW_ASSERT_OK(tw_params_freeze(m.set, "visual.w", &matched)); /* twice is no harm */
        ck_assert_int_eq(matched, 1);
        TW_ASSERT_OK(tw_params_allocate(m.set, device, (tw_dtype)type, true));
        ck_assert(m.w->frozen && m.b->frozen && m.conv->frozen && m.fused_conv->frozen && !m.scale->frozen);
        tw_param *frozen[] = {m.w, m.b, m.conv, m.fused_conv};
        for (int i = 0; i < 4; i++) {
            ck_assert_ptr_null(frozen[i]->grad.data);
            ck_assert_int_ge(frozen[i]->offset, tw_params_trainable(m.set));
            ck_assert_ptr_nonnull(frozen[i]->value.data);
            bool half = type == TW_BF16 && frozen[i]->ndim >= 2;
            ck_assert_int_eq(frozen[i]->value.dtype, half ? TW_BF16 : TW_F32);
            ck_assert(half == (frozen[i]->master.data == NULL));
            float in[64], out[64];
            for (int k = 0; k < 64; k++) in[k] = (float)(i + 1) + 0.3f * (float)k;
            TW_ASSERT_OK(tw_params_set(m.set, frozen[i], in));
            TW_ASSERT_OK(tw_params_get(m.set, frozen[i], out));
            for (int64_t k = 0; k < frozen[i]->count; k++)
                ck_assert_float_eq(out[k], half ? tw_from_bf16(tw_to_bf16(in[k])) : in[k]);
        }
        for (int i = 0; i < 3; i++) ck_assert_int_lt(m.q[i]->offset, tw_params_trainable(m.set));
        tw_params_free(m.set);
    }
    tw_device_free(device);
}
END_TEST

START_TEST(half_frozen_products_are_refused) {
    TW_ASSERT_OK(tw_device_cpu(1, &device));
    model m = build();
    int matched;
    TW_ASSERT_OK(tw_params_freeze(m.set, "k.*", &matched));
    ck_assert_int_eq(matched, 2);
    TW_ASSERT_FAILS(tw_params_allocate(m.set, device, TW_F32, true), TW_ERR_CONFIG,
                    "q.weight and k.weight are computed as one product: freeze both or neither");
    tw_params_free(m.set);
    m = build();
    TW_ASSERT_OK(tw_params_freeze(m.set, "[qkv].*", &matched));
    ck_assert_int_eq(matched, 6);
    TW_ASSERT_OK(tw_params_allocate(m.set, device, TW_BF16, true));
    ck_assert(m.fused_weight->frozen && !m.fused_weight->grad.data && !m.fused_weight->master.data);
    ck_assert_ptr_eq(m.q[2]->value.data, (uint16_t *)m.fused_weight->value.data + 48);
    TW_ASSERT_FAILS(tw_params_freeze(m.set, "*", &matched), TW_ERR_ARGUMENT, "after");
    tw_params_free(m.set);
    m = build(); /* everything frozen is legal */
    TW_ASSERT_OK(tw_params_freeze(m.set, "*", &matched));
    TW_ASSERT_OK(tw_params_allocate(m.set, device, TW_F32, true));
    ck_assert_int_eq(tw_params_trainable(m.set), 0);
    TW_ASSERT_OK(tw_params_zero_gradients(m.set));
    tw_params_free(m.set);
    tw_device_free(device);
}
END_TEST

START_TEST(bf16_copies_follow_their_masters) {
    TW_ASSERT_OK(tw_device_cpu(1, &device));
    model m = build();
    TW_ASSERT_OK(tw_params_allocate(m.set, device, TW_BF16, true));
    TW_ASSERT_OK(tw_params_initialise(m.set, 17));
    for (int i = 0; i < tw_params_count(m.set); i++) {
        const tw_param *p = tw_params_at(m.set, i);
        ck_assert_int_eq(p->value.dtype, p->ndim >= 2 ? TW_BF16 : TW_F32);
        ck_assert_int_eq(p->master.dtype, TW_F32);
        ck_assert_int_eq(p->grad.dtype, TW_F32);
        const float *master = p->master.data;
        for (int64_t k = 0; k < p->count && p->ndim >= 2; k++)
            ck_assert_uint_eq(((uint16_t *)p->value.data)[k], tw_to_bf16(master[k]));
        if (p->ndim < 2) ck_assert_ptr_eq(p->value.data, p->master.data);
    }
    tw_params_free(m.set);
    tw_device_free(device);
}
END_TEST

/* Only the given pieces of the masters are kept; what computes in f32 is whole, statistics and frozen vectors
 * lie behind it. */
START_TEST(masters_in_shares) {
    TW_ASSERT_OK(tw_device_cpu(1, &device));
    model m = build(), whole = build();
    tw_param *mean, *still;
    int matched;
    TW_ASSERT_OK(tw_params_add_statistic(m.set, "bn.running_mean", 5, 3.0f, &mean));
    TW_ASSERT_OK(tw_params_add_statistic(m.set, "still", 5, 4.0f, &still));
    TW_ASSERT_OK(tw_params_freeze(m.set, "still", &matched));
    TW_ASSERT_FAILS(tw_params_share(m.set, NULL, 0), TW_ERR_ARGUMENT, "between laying out");
    TW_ASSERT_OK(tw_params_lay_out(m.set, TW_BF16));
    TW_ASSERT_FAILS(tw_params_lay_out(m.set, TW_BF16), TW_ERR_ARGUMENT, "laid out already, as bf16");
    int64_t n = tw_params_trainable(m.set), vectors = tw_params_vectors(m.set);
    ck_assert_int_eq(vectors, 16 + 16 + 16); /* visual.b, the biases as one, logit_scale */
    const tw_piece pieces[] = {{n - 20, 20}, {40, 30}, {100, 0}}, bad = {n - 20, 21};
    TW_ASSERT_FAILS(tw_params_share(m.set, &bad, 1), TW_ERR_ARGUMENT, "21 masters");
    TW_ASSERT_OK(tw_params_share(m.set, pieces, 3));
    TW_ASSERT_FAILS(tw_params_allocate(m.set, device, TW_BF16, false), TW_ERR_ARGUMENT, "without gradients");
    TW_ASSERT_FAILS(tw_params_allocate(m.set, device, TW_F32, true), TW_ERR_ARGUMENT, "as f32");
    TW_ASSERT_OK(tw_params_allocate(m.set, device, TW_BF16, true));
    TW_ASSERT_OK(tw_params_allocate(whole.set, device, TW_BF16, true));
    TW_ASSERT_OK(tw_params_initialise(m.set, 17));
    TW_ASSERT_OK(tw_params_initialise(whole.set, 17));
    ck_assert_int_eq(n, tw_params_trainable(whole.set));
    ck_assert_int_eq(tw_params_masters_count(m.set), 50);
    const float *kept = tw_params_masters(m.set), *all = tw_params_values(whole.set);
    ck_assert_mem_eq(kept, all + n - 20, 20 * sizeof *kept);
    ck_assert_mem_eq(kept + 20, all + 40, 30 * sizeof *kept);
    ck_assert_mem_eq(tw_params_values(m.set), all, (size_t)vectors * sizeof *all);
    ck_assert_mem_eq(tw_params_copies(m.set) + vectors, tw_params_copies(whole.set) + vectors,
                     (size_t)(n - vectors) * 2);
    ck_assert_ptr_eq(mean->value.data, tw_params_statistic_values(m.set));
    ck_assert_ptr_eq(mean->value.data, tw_params_values(m.set) + vectors);
    for (int k = 0; k < 5; k++) {
        ck_assert_float_eq(((float *)mean->value.data)[k], 3.0f);
        ck_assert_float_eq(((float *)still->value.data)[k], 4.0f);
    }
    ck_assert_uint_eq(tw_params_bytes(m.set), (size_t)(4 * (50 + vectors + 16 + 16 + n + 16) + 2 * (n + 32)));
    ck_assert_ptr_null(m.fused_weight->master.data);
    ck_assert_ptr_eq(m.fused_bias->master.data, m.fused_bias->value.data);
    ck_assert_ptr_nonnull(tw_params_host(m.set, mean));
    tw_params_free(m.set);
    tw_params_free(whole.set);
    tw_device_free(device);
}
END_TEST

START_TEST(initialisation_follows_rule_and_seed) {
    TW_ASSERT_OK(tw_device_cpu(1, &device));
    static const int64_t large[] = {100, 200};
    float *v[4];
    for (int run = 0; run < 4; run++) { /* seeds 1, 1, 2; and 1 without gradients, one parameter frozen */
        model m = build();
        tw_param *a, *b;
        int matched;
        add(&m, "large normal", 2, large, normal, &a);
        add(&m, "large uniform", 2, large, even, &b);
        if (run == 3) TW_ASSERT_OK(tw_params_freeze(m.set, "visual.w", &matched));
        TW_ASSERT_OK(tw_params_allocate(m.set, device, TW_F32, run != 3));
        TW_ASSERT_OK(tw_params_initialise(m.set, run == 2 ? 2 : 1));
        v[run] = malloc(40000 * sizeof(float));
        TW_ASSERT_OK(tw_params_get(m.set, a, v[run]));
        TW_ASSERT_OK(tw_params_get(m.set, b, v[run] + 20000));
        float bias[7];
        TW_ASSERT_OK(tw_params_get(m.set, m.b, bias));
        for (int i = 0; i < 7; i++) ck_assert_float_eq(bias[i], 1);
        if (run == 3) ck_assert(!tw_params_gradients(m.set) && !m.b->grad.data);
        tw_params_free(m.set);
    }
    ck_assert_mem_eq(v[0], v[1], 40000 * sizeof(float));
    ck_assert_mem_eq(v[0], v[3], 40000 * sizeof(float));
    ck_assert(memcmp(v[0], v[2], 20000 * sizeof(float)) != 0);
    double square[2] = {0}, sum[2] = {0};
    for (int i = 0; i < 40000; i++)
        sum[i / 20000] += (double)v[0][i], square[i / 20000] += (double)v[0][i] * (double)v[0][i];
    ck_assert_double_eq_tol(sqrt(square[0] / 20000), 0.02, 0.0004);
    ck_assert_double_eq_tol(sum[0] / 20000, 0, 0.0006);
    ck_assert_double_eq_tol(sqrt(square[1] / 20000), 0.5 / sqrt(3), 0.004);
    for (int i = 20000; i < 40000; i++) ck_assert(v[0][i] >= -0.5f && v[0][i] < 0.5f);
    for (int run = 0; run < 4; run++) free(v[run]);
    tw_device_free(device);
}
END_TEST

START_TEST(gradients_are_zeroed) {
    TW_ASSERT_OK(tw_device_cpu(1, &device));
    model m = build();
    TW_ASSERT_OK(tw_params_allocate(m.set, device, TW_F32, true));
    float *g = tw_params_gradients(m.set);
    int64_t n = tw_params_trainable(m.set);
    for (int64_t i = 0; i < n; i++) {
        ck_assert_float_eq(g[i], 0);
        g[i] = NAN;
    }
    TW_ASSERT_OK(tw_params_zero_gradients(m.set));
    for (int64_t i = 0; i < n; i++) ck_assert_float_eq(g[i], 0);
    tw_params_free(m.set);
    tw_device_free(device);
}
END_TEST

/* Statistics lie behind the trainable range, in f32, with gradients; frozen ones among the frozen. */
START_TEST(statistics_are_no_parameters_to_train) {
    TW_ASSERT_OK(tw_device_cpu(1, &device));
    for (int type = TW_F32; type <= TW_BF16; type++) {
        model m = build();
        tw_param *mean, *variance, *still;
        int matched;
        TW_ASSERT_OK(tw_params_add_statistic(m.set, "bn.running_mean", 5, 0.0f, &mean));
        TW_ASSERT_OK(tw_params_add_statistic(m.set, "bn.running_var", 21, 1.0f, &variance));
        TW_ASSERT_OK(tw_params_add_statistic(m.set, "visual.bn.running_var", 3, 1.0f, &still));
        TW_ASSERT_OK(tw_params_freeze(m.set, "visual.*", &matched));
        TW_ASSERT_OK(tw_params_allocate(m.set, device, (tw_dtype)type, true));
        TW_ASSERT_OK(tw_params_initialise(m.set, 1));
        int64_t first = tw_params_trainable(m.set), n = tw_params_statistics(m.set);
        ck_assert_int_eq(n, 16 + 32);
        tw_param *moving[] = {mean, variance};
        for (int i = 0; i < 2; i++) {
            ck_assert(moving[i]->statistic && !tw_param_is_trained(moving[i]));
            ck_assert(moving[i]->offset >= first && moving[i]->offset + moving[i]->count <= first + n);
            ck_assert_ptr_eq(moving[i]->grad.data, tw_params_gradients(m.set) + moving[i]->offset);
            ck_assert_ptr_eq(moving[i]->value.data, tw_params_values(m.set) + moving[i]->offset);
            ck_assert_int_eq(moving[i]->value.dtype, TW_F32);
            ck_assert_float_eq(((float *)moving[i]->value.data)[2], (float)i);
        }
        ck_assert(still->offset >= first + n && !still->grad.data && still->value.data);
        ck_assert(m.scale->offset < first && tw_param_is_trained(m.scale) && !tw_param_is_trained(m.w));
        for (int64_t i = 0; i < first + n; i++) tw_params_gradients(m.set)[i] = NAN;
        TW_ASSERT_OK(tw_params_zero_gradients(m.set));
        for (int64_t i = 0; i < first + n; i++) ck_assert_float_eq(tw_params_gradients(m.set)[i], 0);
        tw_params_free(m.set);
    }
    tw_device_free(device);
}
END_TEST

START_TEST(misuse_is_an_error) {
    TW_ASSERT_OK(tw_device_cpu(1, &device));
    static const int64_t a[] = {3, 5}, b[] = {3, 6};
    tw_params *set;
    tw_param *p, *fused;
    TW_ASSERT_OK(tw_params_create(&set));
    TW_ASSERT_OK(tw_params_add(set, "x", 2, a, zeros, &p));
    TW_ASSERT_FAILS(tw_params_add(set, "x", 2, a, zeros, &p), TW_ERR_ARGUMENT, "x added twice");
    ck_assert_ptr_null(p);
    TW_ASSERT_OK(tw_params_add(set, "y", 2, b, zeros, &p));
    TW_ASSERT_FAILS(tw_params_fuse(set, 2, &fused), TW_ERR_SHAPE, "x and y cannot be stacked");
    TW_ASSERT_FAILS(tw_params_fuse(set, 3, &fused), TW_ERR_ARGUMENT, "cannot fuse 3 of 2");
    TW_ASSERT_OK(tw_params_add(set, "s", 0, NULL, zeros, &p));
    TW_ASSERT_OK(tw_params_add(set, "t", 0, NULL, zeros, &p));
    TW_ASSERT_FAILS(tw_params_fuse(set, 2, &fused), TW_ERR_SHAPE, "s and t cannot be stacked");
    TW_ASSERT_FAILS(tw_params_allocate(set, device, TW_I32, true), TW_ERR_UNSUPPORTED, "i32");
    TW_ASSERT_OK(tw_params_allocate(set, device, TW_F32, true));
    TW_ASSERT_FAILS(tw_params_allocate(set, device, TW_F32, true), TW_ERR_ARGUMENT, "already");
    TW_ASSERT_FAILS(tw_params_add(set, "z", 2, a, zeros, &p), TW_ERR_ARGUMENT, "after the slabs");
    TW_ASSERT_FAILS(tw_params_fuse(set, 1, &fused), TW_ERR_ARGUMENT, "after the slabs");
    tw_params_free(set);
    tw_device_free(device);
}
END_TEST

TW_TEST_MAIN("param", slabs_hold_everything_apart, fused_parameters_are_one_block,
             frozen_parameters_have_no_more_than_they_need, half_frozen_products_are_refused,
             bf16_copies_follow_their_masters, masters_in_shares, initialisation_follows_rule_and_seed,
             gradients_are_zeroed, statistics_are_no_parameters_to_train, misuse_is_an_error)
