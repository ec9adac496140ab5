#include "tape_net.h"

START_TEST(inference_gives_the_same_features) {
    net train, infer;
    result a, b;
    build(&train, (options){.depth = 2});
    build(&infer, (options){.depth = 2, .inference = true});
    bind(&train), bind(&infer);
    ck_assert(tw_tape_is_training(train.tape) && !tw_tape_is_training(infer.tape));
    forward(&train, &a), forward(&infer, &b);
    for (int i = 0; i < B * D; i++) ck_assert_float_eq_tol(a.y[i], b.y[i], 1e-6f);
    ck_assert_ptr_null(tw_tape_gradient(infer.tape, infer.y).data);
    TW_ASSERT_FAILS(tw_tape_backward(infer.tape, &infer.step, NULL, NULL), TW_ERR_ARGUMENT, "inference");
    drop(&infer), drop(&train);
}
END_TEST

/* The whole graph's derivative along the gradient itself, against differences of <y, dy>: dropout's masks
 * included, since they depend on the step alone. */
START_TEST(gradients_are_derivatives) {
    net n;
    result r, at;
    float dy[B * D];
    build(&n, (options){.depth = 2, .recompute = TW_RECOMPUTE_BLOCK});
    bind(&n);
    run(&n, &r, 1, 0, NULL, NULL);
    draw(2, dy, B * D);
    double norm = length(r.gradients, r.count), step = 2e-2 / norm, sums[2] = {0};
    float *values = tw_params_values(n.params), *start = malloc((size_t)r.count * 4);
    memcpy(start, values, (size_t)r.count * 4);
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < r.count; i++)
            values[i] = start[i] + (float)((side ? step : -step) * (double)r.gradients[i] / norm);
        forward(&n, &at);
        for (int i = 0; i < B * D; i++) sums[side] += (double)at.y[i] * (double)dy[i];
    }
    double slope = (sums[1] - sums[0]) / (2 * step);
    ck_assert_msg(fabs(slope - norm) < 2e-2 * norm, "slope %g, norm of the gradient %g", slope, norm);
    free(start), free(r.gradients);
    drop(&n);
}
END_TEST

START_TEST(roots_that_feed_others_add_up) {
    /* Backward is linear in the roots' gradients: (1, 0) + (0, 1) = (1, 1). */
    net n;
    result y, middle, both;
    build(&n, (options){.depth = 2, .middle_root = true});
    bind(&n);
    run(&n, &y, 1, 0, NULL, NULL), run(&n, &middle, 0, 1, NULL, NULL), run(&n, &both, 1, 1, NULL, NULL);
    double error = 0, size = length(both.gradients, both.count);
    for (int64_t i = 0; i < both.count; i++)
        error += pow((double)(y.gradients[i] + middle.gradients[i] - both.gradients[i]), 2);
    ck_assert(length(y.gradients, y.count) > 0.1 && length(middle.gradients, y.count) > 0.1);
    ck_assert_msg(sqrt(error) < 1e-5 * size, "%g of %g", sqrt(error), size);
    for (int i = 0; i < B * T * D; i++) ck_assert_float_eq_tol(y.dx[i] + middle.dx[i], both.dx[i], 1e-4f);
    free(y.gradients), free(middle.gradients), free(both.gradients);
    drop(&n);
}
END_TEST

/* y = x W1 + (x W2) + x: x is used three times, W1 in two calls. Gradients worked out by hand. */
START_TEST(a_value_used_twice_collects_both) {
    enum { R = 2, C = 3 };
    const int64_t shape[] = {R, C}, square[] = {C, C};
    tw_device *device;
    tw_params *params;
    tw_param *w[2];
    tw_tape *tape;
    TW_ASSERT_OK(tw_device_cpu(1, &device));
    TW_ASSERT_OK(tw_params_create(&params));
    TW_ASSERT_OK(tw_params_add(params, "w1", 2, square, (tw_init){TW_INIT_NORMAL, 1}, &w[0]));
    TW_ASSERT_OK(tw_params_add(params, "w2", 2, square, (tw_init){TW_INIT_NORMAL, 1}, &w[1]));
    TW_ASSERT_OK(tw_params_allocate(params, device, TW_F32, true));
    TW_ASSERT_OK(tw_params_initialise(params, 9));
    TW_ASSERT_OK(tw_tape_create(device, true, TW_RECOMPUTE_NONE, &tape));
    const tw_linear first = {.weight = w[0], .in_out = true}, second = {.weight = w[1], .in_out = true};
    tw_tensor *x = tw_tape_input(tape, TW_F32, 2, shape, true);
    tw_tensor *a = tw_linear_forward(tape, &first, x, TW_IDENTITY, NULL);
    tw_tensor *b = tw_linear_forward(tape, &second, x, TW_IDENTITY, a);
    tw_tensor *y = tw_linear_forward(tape, &first, b, TW_IDENTITY, x);
    TW_ASSERT_OK(tw_tape_finish(tape, 1, &y));
    tw_arena arena = {.device = device};
    TW_ASSERT_OK(tw_arena_reserve(&arena, tw_tape_bytes(tape)));
    memset(arena.base, 0xff, arena.bytes);
    TW_ASSERT_OK(tw_tape_bind(tape, &arena));
    float xv[R * C], dy[R * C], dx[R * C];
    draw(1, xv, R * C), draw(2, dy, R * C);
    const float *w1 = w[0]->value.data, *w2 = w[1]->value.data;
    TW_ASSERT_OK(tw_tape_upload(tape, x, xv));
    TW_ASSERT_OK(tw_tape_forward(tape, NULL));
    memcpy(tw_tape_gradient(tape, y).data, dy, sizeof dy);
    TW_ASSERT_OK(tw_tape_backward(tape, NULL, NULL, NULL));
    tw_tensor g = tw_tape_gradient(tape, x);
    TW_ASSERT_OK(tw_tape_download(tape, &g, dx));
    /* b = x (W1 + W2), y = b W1 + x: db = dy W1^T, dx = db (W1 + W2)^T + dy, dW1 = b^T dy + x^T db. */
    double bv[R * C] = {0}, db[R * C] = {0};
    for (int i = 0; i < R * C; i++)
        for (int k = 0; k < C; k++) {
            int r = i / C, c = i % C;
            bv[i] += (double)xv[r * C + k] * ((double)w1[k * C + c] + (double)w2[k * C + c]);
            db[i] += (double)dy[r * C + k] * (double)w1[c * C + k];
        }
    for (int i = 0; i < R * C; i++) {
        double e = (double)dy[i];
        for (int k = 0; k < C; k++)
            e += db[i / C * C + k] * ((double)w1[i % C * C + k] + (double)w2[i % C * C + k]);
        ck_assert_double_eq_tol((double)dx[i], e, 1e-5);
    }
    for (int i = 0; i < C * C; i++) {
        double d1 = 0, d2 = 0;
        for (int r = 0; r < R; r++) {
            d2 += (double)xv[r * C + i / C] * db[r * C + i % C];
            d1 += bv[r * C + i / C] * (double)dy[r * C + i % C];
        }
        ck_assert_double_eq_tol((double)((float *)w[1]->grad.data)[i], d2, 1e-5);
        ck_assert_double_eq_tol((double)((float *)w[0]->grad.data)[i], d1 + d2, 1e-5);
    }
    /* Parameters' gradients are added to, so that micro-batches can follow each other. */
    float once[C * C];
    memcpy(once, w[0]->grad.data, sizeof once);
    TW_ASSERT_OK(tw_tape_upload(tape, x, xv));
    TW_ASSERT_OK(tw_tape_forward(tape, NULL));
    memcpy(tw_tape_gradient(tape, y).data, dy, sizeof dy);
    TW_ASSERT_OK(tw_tape_backward(tape, NULL, NULL, NULL));
    for (int i = 0; i < C * C; i++) ck_assert_float_eq_tol(((float *)w[0]->grad.data)[i], 2 * once[i], 1e-5f);
    tw_arena_release(&arena);
    tw_tape_free(tape);
    tw_params_free(params);
    tw_device_free(device);
}
END_TEST

typedef struct witness {
    const tw_params *params;
    int calls[512];
    float *snapshot; /* each gradient as it was when its hook was called */
    int fail_at, count;
} witness;

static tw_status on_gradient(void *context, const tw_param *param) {
    witness *w = context;
    for (int i = 0; i < tw_params_count(w->params); i++)
        if (tw_params_at(w->params, i) == param) w->calls[i]++;
    memcpy(w->snapshot + param->offset, param->grad.data, (size_t)param->count * 4);
    return ++w->count == w->fail_at ? FAIL(TW_ERR_INTERRUPTED, "enough") : TW_OK;
}

START_TEST(hooks_fire_once_with_the_final_gradient) {
    static const char *const freezes[] = {NULL, "layers.1.*", "layers.0.qkv.*", "embed.*", "*norm_2*"};
    for (int f = 0; f < 5; f++)
        for (int recompute = TW_RECOMPUTE_NONE; recompute <= TW_RECOMPUTE_BLOCK; recompute++) {
            net n;
            result r;
            build(&n, (options){.depth = 3, .recompute = (tw_recompute)recompute, .freeze = freezes[f]});
            bind(&n);
            witness w = {.params = n.params};
            w.snapshot = calloc((size_t)tw_params_trainable(n.params) + 1, 4);
            run(&n, &r, 1, 0, on_gradient, &w);
            ck_assert_mem_eq(w.snapshot, r.gradients, (size_t)r.count * 4);
            for (int i = 0; i < tw_params_count(n.params); i++) {
                const tw_param *p = tw_params_at(n.params, i);
                ck_assert_msg(w.calls[i] == !p->frozen, "%s: %d calls", p->name, w.calls[i]);
                ck_assert(p->frozen == !p->grad.data);
            }
            w.count = 0, w.fail_at = 4;
            TW_ASSERT_FAILS(tw_tape_backward(n.tape, &n.step, on_gradient, &w), TW_ERR_INTERRUPTED, "enough");
            ck_assert_int_eq(w.count, 4);
            free(w.snapshot), free(r.gradients);
            drop(&n);
        }
}
END_TEST

START_TEST(frozen_parts_cost_nothing_and_change_nothing) {
    net free_, frozen;
    result a, b;
    build(&free_, (options){.depth = 3});
    build(&frozen, (options){.depth = 3, .freeze = "layers.1.*"});
    bind(&free_), bind(&frozen);
    run(&free_, &a, 1, 0, NULL, NULL), run(&frozen, &b, 1, 0, NULL, NULL);
    ck_assert_mem_eq(a.y, b.y, sizeof a.y);
    ck_assert_mem_eq(a.dx, b.dx, sizeof a.dx); /* gradients pass through to what lies below */
    for (int i = 0; i < tw_params_count(free_.params); i++) {
        const tw_param *p = tw_params_at(free_.params, i), *q = tw_params_at(frozen.params, i);
        ck_assert(q->frozen || memcmp(p->grad.data, q->grad.data, (size_t)p->count * 4) == 0);
    }
    free(a.gradients), free(b.gradients);
    drop(&frozen), drop(&free_);
    /* Nothing below trains and the input is not asked for: no backward there at all. */
    net n;
    build(&n, (options){.depth = 1, .freeze = "embed.*"});
    tw_tape *tape;
    TW_ASSERT_OK(tw_tape_create(n.device, true, TW_RECOMPUTE_NONE, &tape));
    tw_tensor *x = tw_tape_input(tape, TW_F32, 2, (int64_t[]){2, D}, false);
    tw_tensor *h = tw_linear_forward(tape, &n.embed, x, TW_QUICK_GELU, NULL);
    tw_tensor *y = tw_linear_forward(tape, &n.layers[0].fc, h, TW_IDENTITY, NULL);
    TW_ASSERT_OK(tw_tape_finish(tape, 1, &y));
    ck_assert_int_eq(tape->n_entries - tape->n_forward, 1);
    tw_tape_free(tape);
    drop(&n);
}
END_TEST

START_TEST(the_first_error_stays) {
    net n;
    tw_tape *tape, *clean;
    build(&n, (options){.depth = 1});
    TW_ASSERT_OK(tw_tape_create(n.device, true, TW_RECOMPUTE_NONE, &tape));
    tw_tensor *x = tw_tape_input(tape, TW_F32, 2, (int64_t[]){2, D + 1}, true);
    tw_tensor *wrong = tw_linear_forward(tape, &n.embed, x, TW_IDENTITY, NULL);
    ck_assert_ptr_null(wrong);
    tw_tensor *later[] = {wrong, wrong};
    ck_assert_ptr_null(tw_tape_record(tape, TW_OP_layer_norm, NULL, 2, later));
    ck_assert_ptr_null(tw_tape_input(tape, TW_F32, 2, (int64_t[]){2, 2}, true));
    ck_assert_ptr_null(tw_tape_param(tape, n.embed.weight));
    ck_assert_ptr_null(tw_tape_result(tape, NULL, 1));
    tw_tape_poison(tape, FAIL(TW_ERR_IO, "a later one"));
    TW_ASSERT_FAILS(tw_tape_finish(tape, 1, &wrong), TW_ERR_SHAPE, "linear");
    TW_ASSERT_FAILS(tw_tape_finish(tape, 1, &wrong), TW_ERR_SHAPE, "linear");
    tw_tape_free(tape);
    /* From outside. */
    TW_ASSERT_OK(tw_tape_create(n.device, true, TW_RECOMPUTE_NONE, &clean));
    tw_tape_poison(clean, TW_OK);
    ck_assert_ptr_nonnull(tw_tape_input(clean, TW_F32, 1, (int64_t[]){2}, true));
    tw_tape_poison(clean, FAIL(TW_ERR_CONFIG, "seven layers are too many"));
    ck_assert_ptr_null(tw_tape_input(clean, TW_F32, 1, (int64_t[]){2}, true));
    TW_ASSERT_FAILS(tw_tape_finish(clean, 0, NULL), TW_ERR_CONFIG, "seven layers");
    tw_tape_free(clean);
    tw_tape_free(NULL);
    drop(&n);
}
END_TEST

/* What a caller can do wrong; each poisons or fails, none crashes. */
START_TEST(misuse_is_an_error) {
    net n;
    build(&n, (options){.depth = 1});
    float buffer[B * T * D];
    TW_ASSERT_FAILS(tw_tape_forward(n.tape, &n.step), TW_ERR_ARGUMENT, "not bound");
    TW_ASSERT_FAILS(tw_tape_backward(n.tape, &n.step, NULL, NULL), TW_ERR_ARGUMENT, "not bound");
    TW_ASSERT_FAILS(tw_tape_upload(n.tape, n.x, buffer), TW_ERR_ARGUMENT, "not bound");
    TW_ASSERT_FAILS(tw_tape_download(n.tape, n.y, buffer), TW_ERR_ARGUMENT, "not bound");
    ck_assert_ptr_null(tw_tape_gradient(n.tape, n.y).data);
    tw_arena small = {.device = n.device};
    TW_ASSERT_OK(tw_arena_reserve(&small, tw_tape_bytes(n.tape) / 2));
    TW_ASSERT_FAILS(tw_tape_bind(n.tape, &small), TW_ERR_MEMORY, "the tape needs");
    tw_arena_release(&small);
    TW_ASSERT_FAILS(tw_tape_finish(n.tape, 1, &n.y), TW_ERR_ARGUMENT, "finished already");
    tw_tape *tape;
    for (int k = 0; k < 5; k++) {
        TW_ASSERT_OK(tw_tape_create(n.device, true, TW_RECOMPUTE_NONE, &tape));
        tw_tensor *x = tw_tape_input(tape, TW_F32, 2, (int64_t[]){2, D}, true);
        tw_tensor *same[] = {x, x}, *none = NULL;
        tw_arena arena = {.device = n.device};
        if (k == 0) {
            ck_assert_ptr_null(tw_tape_record(tape, TW_OP_linear, NULL, 2, same));
            TW_ASSERT_FAILS(tw_tape_finish(tape, 1, &x), TW_ERR_ARGUMENT, "inputs 0 and 1 are the same");
        } else if (k == 1) {
            ck_assert_ptr_null(tw_linear_forward(tape, &n.embed, n.x, TW_IDENTITY, NULL));
            TW_ASSERT_FAILS(tw_tape_finish(tape, 1, &x), TW_ERR_ARGUMENT, "not of this tape");
        } else if (k == 2) {
            TW_ASSERT_FAILS(tw_tape_finish(tape, 1, &n.y), TW_ERR_ARGUMENT, "root 0");
            TW_ASSERT_FAILS(tw_tape_finish(tape, 1, &none), TW_ERR_ARGUMENT, "root 0");
        } else if (k == 3) {
            tw_tensor *y = tw_norm_forward(tape, &n.layers[0].norm_1, x);
            ck_assert_ptr_nonnull(y);
            ck_assert_ptr_null(tw_tape_result(tape, y, 1)); /* its statistics are its own */
            TW_ASSERT_FAILS(tw_tape_finish(tape, 1, &y), TW_ERR_ARGUMENT, "has no result 1");
        } else {
            TW_ASSERT_FAILS(tw_tape_bind(tape, &arena), TW_ERR_ARGUMENT, "not finished");
            TW_ASSERT_OK(tw_tape_finish(tape, 1, &x));
            ck_assert_ptr_null(tw_tape_input(tape, TW_F32, 1, (int64_t[]){2}, true));
        }
        tw_tape_free(tape);
    }
    tw_params *params;
    tw_param *p;
    TW_ASSERT_OK(tw_params_create(&params));
    TW_ASSERT_OK(tw_params_add(params, "early", 1, (int64_t[]){3}, (tw_init){0}, &p));
    TW_ASSERT_OK(tw_tape_create(n.device, true, TW_RECOMPUTE_NONE, &tape));
    ck_assert_ptr_null(tw_tape_param(tape, p));
    TW_ASSERT_FAILS(tw_tape_finish(tape, 0, NULL), TW_ERR_ARGUMENT, "early is not allocated");
    tw_tape_free(tape);
    tw_params_free(params);
    drop(&n);
}
END_TEST

TW_TEST_MAIN("tape", inference_gives_the_same_features, gradients_are_derivatives,
             roots_that_feed_others_add_up, a_value_used_twice_collects_both,
             hooks_fire_once_with_the_final_gradient, frozen_parts_cost_nothing_and_change_nothing,
             the_first_error_stays, misuse_is_an_error)
