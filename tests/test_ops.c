/* Walks the table of operations: each one has a case file in tests/op_cases, and each configuration of it
 * holds (op_check.c). The checks themselves are tested on a small operation with seeded faults. */
#include "op_case.h"
#include "tw_test.h"

#include <stdatomic.h>

/* Weak: an operation whose case file is missing is found when the test runs. */
#define OP(name, inputs) extern const op_case op_case_##name __attribute__((weak));
#define KERNEL(name, inputs) OP(name, inputs)
#include "autograd/ops.def"
#undef OP
#undef KERNEL

static const op_case *const cases[TW_OP_COUNT] = {
#define OP(name, inputs) [TW_OP_##name] = &op_case_##name,
#define KERNEL(name, inputs) OP(name, inputs)
#include "autograd/ops.def"
#undef OP
#undef KERNEL
};

/* ---- a small operation with faults: a = x^2 * w, b = x + w; saved: x and w ---- */

typedef enum fault {
    SOUND,
    FORWARD_VALUE,
    FORWARD_UNWRITTEN,
    FORWARD_CHANGES_INPUT,
    FORWARD_OVERRUNS,
    FORWARD_IRREPRODUCIBLE,
    SLOPE,
    IGNORES_ADD,
    ADDS_ALWAYS,
    SKIPS_LAST,
    UNSAVED,
    UNWANTED,
    ABSENT_RESULT,
    BACKWARD_OVERRUNS,
    READS_GAPS,
    SCRATCH_OVERRUNS,
    SCRATCH_ASSUMED_ZERO,
    FAULTS
} fault;

static const char *const complaints[FAULTS] = {
    [SOUND] = "",
    [FORWARD_VALUE] = "forward: output 0 differs",
    [FORWARD_UNWRITTEN] = "was not written",
    [FORWARD_CHANGES_INPUT] = "forward changed input 0",
    [FORWARD_OVERRUNS] = "wrote behind output 0",
    [FORWARD_IRREPRODUCIBLE] = "other bits",
    [SLOPE] = "gradient of input 0 differs",
    [IGNORES_ADD] = "gradient of input 0 differs",
    [ADDS_ALWAYS] = "gradient of input 0 differs",
    [SKIPS_LAST] = "gradient of input 0 differs",
    [UNSAVED] = "gradient of input 0 differs",
    [UNWANTED] = "backward failed",
    [ABSENT_RESULT] = "gradient of input",
    [BACKWARD_OVERRUNS] = "wrote behind the gradient of input 1",
    [READS_GAPS] = "is NaN",
    [SCRATCH_OVERRUNS] = "wrote behind its scratch",
    [SCRATCH_ASSUMED_ZERO] = "gradient of input 1 differs",
};

static fault present_fault;
static int calls;

static tw_status faulty_shape(tw_call *call) {
    if (call->input[0].ndim != 2) return FAIL(TW_ERR_SHAPE, "faulty: x is not a matrix");
    call->n_results = 2;
    for (int o = 0; o < 2; o++) tw_call_output(call, o, call->input[0].dtype, 2, call->input[0].shape);
    call->saved_inputs = present_fault == UNSAVED ? 2 : 3;
    call->backward_scratch = 64;
    return TW_OK;
}

static float get(const tw_tensor *t, int64_t i) {
    return t->dtype == TW_BF16 ? tw_from_bf16(((uint16_t *)t->data)[i]) : ((float *)t->data)[i];
}

static void put(const tw_tensor *t, int64_t i, float x) {
    if (t->dtype == TW_BF16)
        ((uint16_t *)t->data)[i] = tw_to_bf16(x);
    else
        ((float *)t->data)[i] = x;
}

static tw_status faulty_forward(const tw_call *call) {
    const tw_tensor *x = &call->input[0], *w = &call->input[1], *y = &call->output[0], *z = &call->output[1];
    int64_t cols = x->shape[1], n = tw_tensor_count(x);
    int64_t sx = present_fault == READS_GAPS ? cols : x->stride[0];
    calls++;
    for (int64_t i = 0; i < n; i++) {
        float a = get(x, i / cols * sx + i % cols), b = get(w, i);
        put(y, i, a * a * b * (present_fault == FORWARD_VALUE ? 1.03f : 1));
        if (present_fault != FORWARD_UNWRITTEN || i + 1 < n) put(z, i, a + b);
    }
    if (present_fault == FORWARD_CHANGES_INPUT && n) put(x, 0, 0);
    if (present_fault == FORWARD_OVERRUNS) put(y, n, 0);
    if (present_fault == FORWARD_IRREPRODUCIBLE && n) put(y, 0, get(y, 0) * (calls % 2 ? 1 : 1.000001f));
    return TW_OK;
}

static tw_status faulty_backward(const tw_call *call) {
    const tw_tensor *x = &call->input[0], *w = &call->input[1];
    const tw_tensor *dy = &call->output_grad[0], *dz = &call->output_grad[1];
    int64_t cols = x->shape[1], n = tw_tensor_count(x);
    for (int i = 0; i < 2; i++) {
        const tw_tensor *g = &call->input_grad[i];
        if (!g->data && present_fault == UNWANTED) return FAIL(TW_ERR_ARGUMENT, "no gradient to write to");
        for (int64_t e = 0; g->data && e < n; e++) {
            float a = get(x, e / cols * x->stride[0] + e % cols), b = get(w, e), s = 0;
            if (dy->data) s += get(dy, e) * (i ? a * a : 2 * a * b);
            if (dz->data && !(present_fault == ABSENT_RESULT && !dy->data)) s += get(dz, e);
            if (present_fault == SLOPE && i == 0) s *= 1.02f;
            if (present_fault == SCRATCH_ASSUMED_ZERO && i == 1) s += ((float *)call->scratch)[0];
            if (present_fault == SKIPS_LAST && e + 1 == n) continue;
            bool add = call->input_mode[i] == TW_ADD;
            if (present_fault == IGNORES_ADD) add = false;
            if (present_fault == ADDS_ALWAYS) add = true;
            put(g, e, add ? get(g, e) + s : s);
        }
    }
    if (present_fault == BACKWARD_OVERRUNS && call->input_grad[1].data) put(&call->input_grad[1], n, 0);
    if (present_fault == SCRATCH_OVERRUNS) ((char *)call->scratch)[64] = 0;
    return TW_OK;
}

static void faulty_reference(const op_config *config, op_value *in, op_value *out) {
    (void)config;
    for (int64_t i = 0; i < in[0].count; i++) {
        out[0].v[i] = in[0].v[i] * in[0].v[i] * in[1].v[i];
        out[1].v[i] = in[0].v[i] + in[1].v[i];
    }
}

static const op_config faulty_configs[] = {
    {.name = "padded", .input = {{OP_SHAPE(3, 5), .padding = 2}, {OP_SHAPE(3, 5)}}},
    {.name = "large", .input = {{OP_SHAPE(40, 70), .padding = 1}, {OP_SHAPE(40, 70)}}},
};

static const tw_op_info faulty_info = {
    "faulty", "faulty backward", 2, 0, true, faulty_shape, {faulty_forward}, {faulty_backward},
};

START_TEST(faults_are_found) {
    const op_case c = {.reference = faulty_reference, OP_CONFIGS(faulty_configs)};
    for (fault f = SOUND; f < FAULTS; f++) {
        /* bf16 has its own tolerance, so a fault must be found in either type by itself. */
        for (int type = OP_FLOAT; type <= OP_BF16; type++) {
            char message[1024] = "";
            op_config config = faulty_configs[0];
            config.input[0].dtype = config.input[1].dtype = (op_dtype)type;
            /* A change in the last bits of an f32 value is nothing in bf16. */
            if (type == OP_BF16 && f == FORWARD_IRREPRODUCIBLE) continue;
            present_fault = f;
            bool ok = op_check(&faulty_info, TW_OP_COUNT, TW_CPU, &c, &config, message, sizeof message);
            ck_assert_msg(ok == (f == SOUND), "fault %d, type %d: %s", (int)f, type, ok ? "unseen" : message);
            ck_assert_msg(strstr(message, complaints[f]), "fault %d, type %d: '%s' lacks '%s'", (int)f, type,
                          message, complaints[f]);
        }
    }
}
END_TEST

START_TEST(faults_in_large_tensors_are_found) {
    const op_case c = {.reference = faulty_reference, OP_CONFIGS(faulty_configs)};
    const fault faults[] = {SLOPE, IGNORES_ADD, ADDS_ALWAYS, SKIPS_LAST};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        char message[1024] = "";
        present_fault = faults[i];
        ck_assert_msg(
            !op_check(&faulty_info, TW_OP_COUNT, TW_CPU, &c, &faulty_configs[1], message, sizeof message),
            "fault %d was not seen", (int)faults[i]);
    }
    present_fault = SOUND;
    char message[1024] = "";
    ck_assert_msg(
        op_check(&faulty_info, TW_OP_COUNT, TW_CPU, &c, &faulty_configs[1], message, sizeof message), "%s",
        message);
}
END_TEST

START_TEST(expected_failures_are_demanded) {
    char message[1024] = "";
    op_config config = {.name = "cube", .input = {{OP_SHAPE(2, 2, 2)}, {OP_SHAPE(2, 2)}}};
    const op_case c = {.reference = faulty_reference, .configs = &config, .n_configs = 1};
    present_fault = SOUND;
    ck_assert(!op_check(&faulty_info, TW_OP_COUNT, TW_CPU, &c, &config, message, sizeof message));
    config.fails = TW_ERR_SHAPE, config.message = "not a matrix";
    ck_assert(op_check(&faulty_info, TW_OP_COUNT, TW_CPU, &c, &config, message, sizeof message));
    config.fails = TW_ERR_ARGUMENT;
    ck_assert(!op_check(&faulty_info, TW_OP_COUNT, TW_CPU, &c, &config, message, sizeof message));
}
END_TEST

/* A thousand by a thousand logits, fibre by fibre under a sanitizer, take minutes: the shim's release build
 * runs them. */
static bool is_too_slow(int op, const op_config *config) {
#if defined TW_CUDA_SHIM && defined __SANITIZE_ADDRESS__
    if (op != TW_OP_contrastive_loss || config->input[1].shape[0] < 1000) return false;
    printf("SKIP %s: %s under a sanitizer takes minutes\n", tw_op_table[op].name, config->name);
    fflush(stdout);
    return true;
#else
    (void)op, (void)config;
    return false;
#endif
}

static const char *also_on(const op_case *c, tw_device_kind kind) {
    tw_device *device = NULL;
    if (!c->also_on) return NULL;
#ifdef TW_CUDA_SHIM
    if (kind == TW_CUDA) TW_ASSERT_OK(tw_device_cuda(0, &device));
#endif
    if (kind == TW_CPU) TW_ASSERT_OK(tw_device_cpu(2, &device));
    const char *wrong = device ? c->also_on(device) : NULL;
    tw_device_free(device);
    return wrong;
}

static void check_operation(int op, tw_device_kind kind) {
    const tw_op_info *info = &tw_op_table[op];
    const op_case *c = cases[op];
    ck_assert_msg(c != NULL, "%s has no case: write tests/op_cases/%s.c", info->name, info->name);
    ck_assert_msg(info->shape && info->forward[kind], "%s has no shape rule or no forward", info->name);
    ck_assert_msg(!info->has_gradient || info->backward[kind], "%s has no backward", info->name);
    ck_assert_msg(c->reference && c->n_configs > 0, "%s has a case without reference or configurations",
                  info->name);
    char message[1024] = "";
    int run = 0;
    for (int i = 0; i < c->n_configs; i++) {
        if (is_too_slow(op, &c->configs[i])) continue;
        ck_assert_msg(op_check(info, (tw_op)op, kind, c, &c->configs[i], message, sizeof message), "%s",
                      message);
        run += !c->configs[i].fails;
    }
    ck_assert_msg(run > 0, "%s has only configurations that fail", info->name);
    const char *wrong = kind == TW_CPU && c->also ? c->also() : NULL;
    if (!wrong) wrong = also_on(c, kind);
    ck_assert_msg(!wrong, "%s: %s", info->name, wrong ? wrong : "");
    op_check_end();
}

static bool left_out(int op) {
    const char *only = getenv("TW_OP"); /* one operation's name, while working on it */
    return only && strcmp(only, tw_op_table[op].name) != 0;
}

/* TW_DEVICE=cpu or cuda: that device's checks only, and where it is not there they fail. */
static bool wanted(const char *device) {
    const char *only = getenv("TW_DEVICE");
    return only && strcmp(only, device) == 0;
}

/* One iteration of the loop test an operation, so that a failure names it and the others still run. */
#ifndef TW_CUDA_SHIM
START_TEST(every_operation_holds) {
    if (!left_out(_i)) check_operation(_i, TW_CPU);
}
END_TEST
#endif

#ifdef TW_WITH_CUDA
START_TEST(every_operation_holds_on_cuda) {
    tw_device *device;
    if (left_out(_i)) return;
    tw_status status = tw_device_cuda(0, &device);
    if (status == TW_ERR_UNSUPPORTED && !wanted("cuda")) TW_SKIP(tw_last_error());
    TW_ASSERT_OK(status);
    tw_device_free(device);
    check_operation(_i, TW_CUDA);
}
END_TEST
#endif

int main(void) {
    TCase *tcase = tcase_create("ops");
    if (!wanted("cuda")) {
        tcase_add_test(tcase, faults_are_found);
        tcase_add_test(tcase, faults_in_large_tensors_are_found);
        tcase_add_test(tcase, expected_failures_are_demanded);
#ifndef TW_CUDA_SHIM /* which is there for the kernels only */
        tcase_add_loop_test(tcase, every_operation_holds, 0, TW_OP_COUNT);
#endif
    }
#ifdef TW_WITH_CUDA
    if (!wanted("cpu")) tcase_add_loop_test(tcase, every_operation_holds_on_cuda, 0, TW_OP_COUNT);
#endif
    return tw_test_run_case("ops", tcase);
}
