#include "train/formats/pt.h"

#include "tw_test.h"

#include <math.h>
#include <unistd.h>

static tw_weights *open_golden(const char *name) {
    char path[1024];
    snprintf(path, sizeof path, TW_SOURCE_DIR "/tests/golden/pt/%s", name);
    tw_weights *w;
    TW_ASSERT_OK(tw_pt_open(path, &w));
    return w;
}

/* The rule of scripts/make_golden_pt.py: element i of tensor k. */
static int numerator(int64_t i, int k) {
    return (int)((37 * i + 11 * k) % 251) - 125;
}
static float value_of(tw_weight_type type, int64_t i, int k) {
    int v = numerator(i, k);
    switch (type) {
    case TW_WEIGHT_BOOL:
        return (float)(v & 1);
    case TW_WEIGHT_U8:
        return (float)(uint8_t)v;
    case TW_WEIGHT_I64:
    case TW_WEIGHT_I32:
    case TW_WEIGHT_I16:
    case TW_WEIGHT_I8:
        return (float)v;
    default:
        return (float)v / 8;
    }
}

static float *read_f32(tw_weights *w, const char *name, tw_weight_type type, int ndim, const int64_t *shape) {
    int64_t i = tw_weights_find(w, name);
    ck_assert_msg(i >= 0, "%s has no tensor %s", tw_weights_path(w), name);
    const tw_weight *t = tw_weights_at(w, i);
    ck_assert_msg(t->type == type, "%s is %s", name, tw_weight_type_name(t->type));
    ck_assert_int_eq(t->ndim, ndim);
    for (int d = 0; d < ndim; d++) ck_assert_int_eq(t->shape[d], shape[d]);
    float *f = malloc((size_t)t->count * sizeof *f + 1);
    TW_ASSERT_OK(tw_weights_read_f32(w, i, f, t->count));
    return f;
}
#define SHAPE(...)                                                                                           \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]) {                           \
        __VA_ARGS__                                                                                          \
    }

/* Tensor `name` holds the elements first, first + 1, ... of tensor number k. */
static void holds(tw_weights *w, const char *name, int k, int64_t first, tw_weight_type type, int ndim,
                  const int64_t *shape) {
    float *f = read_f32(w, name, type, ndim, shape);
    int64_t count = tw_weights_at(w, tw_weights_find(w, name))->count;
    for (int64_t i = 0; i < count; i++)
        ck_assert_msg(f[i] == value_of(type, first + i, k), "%s[%d] is %g, expected %g", name, (int)i,
                      (double)f[i], (double)value_of(type, first + i, k));
    free(f);
}

static void holds_one(tw_weights *w, const char *name, tw_weight_type type, float value) {
    float *f = read_f32(w, name, type, 0, NULL);
    ck_assert_msg(f[0] == value, "%s is %g", name, (double)f[0]);
    free(f);
}

static void check_checkpoint(tw_weights *w, const char *kind) {
    const tw_weights_note *n = tw_weights_get_note(w);
    ck_assert_str_eq(n->kind, kind);
    ck_assert_str_eq(n->name, "muge_图文");
    ck_assert_int_eq(n->epoch, 3);
    ck_assert_int_eq(n->step, 1200);
    ck_assert_int_eq(tw_weights_count(w), 11);
    ck_assert_str_eq(tw_weights_at(w, 0)->name, "module.visual.conv1.weight");
    ck_assert_str_eq(tw_weights_at(w, 4)->name, "module.logit_scale");
    holds(w, "module.visual.conv1.weight", 0, 0, TW_WEIGHT_F16, SHAPE(4, 3, 2, 2));
    holds(w, "module.visual.ln_pre.weight", 1, 0, TW_WEIGHT_F32, SHAPE(8));
    holds(w, "module.bert.embeddings.word_embeddings.weight", 2, 0, TW_WEIGHT_BF16, SHAPE(5, 8));
    holds_one(w, "module.visual.bn1.num_batches_tracked", TW_WEIGHT_I64, 7);
    holds_one(w, "module.logit_scale", TW_WEIGHT_F32, value_of(TW_WEIGHT_F32, 0, 4));
    /* AdamW after one step from zero: (1 - beta1) g and (1 - beta2) g^2. */
    for (int k = 0; k < 2; k++) {
        char name[80];
        int64_t shape[] = {k ? 2 : 3, 2};
        snprintf(name, sizeof name, "optimizer.state.%d.exp_avg", k);
        float *m = read_f32(w, name, TW_WEIGHT_F32, k + 1, shape);
        snprintf(name, sizeof name, "optimizer.state.%d.exp_avg_sq", k);
        float *v = read_f32(w, name, TW_WEIGHT_F32, k + 1, shape);
        for (int i = 0; i < 3; i++) {
            float g = value_of(TW_WEIGHT_F32, i, k);
            ck_assert(m[i] == 0.5f * g && v[i] == 0.25f * g * g);
        }
        free(m);
        free(v);
        snprintf(name, sizeof name, "optimizer.state.%d.step", k);
        holds_one(w, name, TW_WEIGHT_F32, 1);
    }
    ck_assert_int_eq(n->group_count, 2);
    ck_assert(n->groups[0].lr == 0.0625 && n->groups[1].lr == 0.5); /* the first is a numpy scalar */
    for (int g = 0; g < 2; g++) {
        const tw_weights_group *group = &n->groups[g];
        ck_assert(group->beta1 == 0.5 && group->beta2 == 0.75 && group->eps == 0.125);
        ck_assert(group->weight_decay == (g ? 0.25 : 0) && group->param_count == 1 && group->params[0] == g);
    }
    tw_weights_close(w);
}

START_TEST(reads_a_training_checkpoint) {
    check_checkpoint(open_golden("checkpoint.pt"), "PyTorch zip");
    check_checkpoint(open_golden("checkpoint_legacy.pt"), "PyTorch legacy");
}
END_TEST

START_TEST(reads_every_type_of_every_protocol) {
    static const char *const files[] = {
        "types.pt",           "types_protocol1.pt",        "types_protocol3.pt", "types_protocol4.pt",
        "types_protocol5.pt", "types_legacy_protocol4.pt", "types_buffer.pt"};
    static const struct {
        const char *name;
        tw_weight_type type;
    } tensors[] = {{"float32", TW_WEIGHT_F32}, {"float16", TW_WEIGHT_F16}, {"bfloat16", TW_WEIGHT_BF16},
                   {"float64", TW_WEIGHT_F64}, {"int64", TW_WEIGHT_I64},   {"int32", TW_WEIGHT_I32},
                   {"int16", TW_WEIGHT_I16},   {"int8", TW_WEIGHT_I8},     {"uint8", TW_WEIGHT_U8},
                   {"bool", TW_WEIGHT_BOOL}};
    for (size_t f = 0; f < sizeof files / sizeof files[0]; f++) {
        tw_weights *w = open_golden(files[f]);
        ck_assert_int_eq(tw_weights_count(w), 10);
        ck_assert_ptr_null(tw_weights_get_note(w)->name);
        ck_assert_int_eq(tw_weights_get_note(w)->epoch, -1);
        for (int k = 0; k < 10; k++) {
            ck_assert_str_eq(tw_weights_at(w, k)->name, tensors[k].name);
            holds(w, tensors[k].name, k, 0, tensors[k].type, SHAPE(3));
        }
        tw_weights_close(w);
    }
}
END_TEST

/* Element (i, j, ...) of the view is element offset + sum of index * stride of tensor k. */
static void views(tw_weights *w, const char *name, int k, int64_t offset, const int64_t *stride, int ndim,
                  const int64_t *shape) {
    float *f = read_f32(w, name, TW_WEIGHT_F32, ndim, shape);
    int64_t count = tw_weights_at(w, tw_weights_find(w, name))->count;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = offset, rest = i;
        for (int d = ndim; d-- > 0; rest /= shape[d]) at += rest % shape[d] * stride[d];
        ck_assert_msg(f[i] == value_of(TW_WEIGHT_F32, at, k), "%s[%d] is %g", name, (int)i, (double)f[i]);
    }
    free(f);
}
#define STRIDE(...)                                                                                          \
    (const int64_t[]) {                                                                                      \
        __VA_ARGS__                                                                                          \
    }

static void check_views(tw_weights *w) {
    ck_assert_int_eq(tw_weights_count(w), 16);
    holds(w, "whole", 0, 0, TW_WEIGHT_F32, SHAPE(4, 6));
    views(w, "transposed", 0, 0, STRIDE(1, 6), SHAPE(6, 4));
    views(w, "columns", 0, 1, STRIDE(6, 2), SHAPE(4, 2));
    views(w, "row", 0, 12, STRIDE(1), SHAPE(6));
    views(w, "permuted", 3, 0, STRIDE(1, 12, 4), SHAPE(4, 2, 3));
    holds(w, "first", 1, 0, TW_WEIGHT_F32, SHAPE(4));
    holds(w, "last", 1, 6, TW_WEIGHT_F32, SHAPE(4));
    views(w, "repeated", 1, 0, STRIDE(0), SHAPE(5));
    float *ids = read_f32(w, "ids", TW_WEIGHT_I64, SHAPE(1, 6));
    for (int i = 0; i < 6; i++) ck_assert(ids[i] == (float)i);
    free(ids);
    free(read_f32(w, "empty", TW_WEIGHT_F32, SHAPE(0, 3)));
    holds_one(w, "one", TW_WEIGHT_F32, value_of(TW_WEIGHT_F32, 0, 7));
    holds(w, "nested.linear.weight", 8, 0, TW_WEIGHT_F32, SHAPE(2, 2));
    holds(w, "nested.linear.bias", 9, 0, TW_WEIGHT_F32, SHAPE(2));
    holds(w, "nested.list.0", 10, 0, TW_WEIGHT_F32, SHAPE(2));
    holds(w, "nested.list.2", 11, 0, TW_WEIGHT_F32, SHAPE(1));
    holds(w, "parameter", 12, 0, TW_WEIGHT_F32, SHAPE(3));
    /* Again, now that every storage has been checked. */
    holds(w, "last", 1, 6, TW_WEIGHT_F32, SHAPE(4));
    views(w, "columns", 0, 1, STRIDE(6, 2), SHAPE(4, 2));
    tw_weights_close(w);
}

START_TEST(reads_views_and_nested_dicts) {
    check_views(open_golden("views.pt"));
    check_views(open_golden("views_legacy.pt"));
}
END_TEST

START_TEST(refuses_what_holds_code) {
    tw_weights *w;
    TW_ASSERT_FAILS(tw_pt_open(TW_SOURCE_DIR "/tests/golden/pt/module.pt", &w), TW_ERR_UNSUPPORTED,
                    "module.pt: pickle: the name 'torch.nn.modules.linear.Linear' at byte 2 is refused");
    ck_assert_ptr_nonnull(strstr(tw_last_error(), "save model.state_dict()"));
    ck_assert_ptr_null(w);
}
END_TEST

/* ---- writing ---- */

static char *temporary(const char *name) {
    static char path[256];
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/tw_test_pt_%d_%s", folder ? folder : "/tmp", (int)getpid(), name);
    return path;
}

static tw_status copy_tensor(void *self, int64_t i, void *dst) {
    return tw_weights_read(self, i, dst);
}

static void copy_file(tw_weights *from, const char *path) {
    int64_t n = tw_weights_count(from);
    tw_weight *items = malloc((size_t)n * sizeof *items);
    for (int64_t i = 0; i < n; i++) items[i] = *tw_weights_at(from, i);
    tw_weights_output output = {items, n, copy_tensor, from};
    TW_ASSERT_OK(tw_pt_write(path, &output, tw_weights_get_note(from)));
    free(items);
}

/* Both hold the same tensors with the same bytes. */
static void same_tensors(tw_weights *a, tw_weights *b) {
    ck_assert_int_eq(tw_weights_count(a), tw_weights_count(b));
    for (int64_t i = 0; i < tw_weights_count(a); i++) {
        const tw_weight *x = tw_weights_at(a, i), *y = tw_weights_at(b, i);
        ck_assert_str_eq(x->name, y->name);
        ck_assert(x->type == y->type && x->ndim == y->ndim && x->count == y->count);
        ck_assert_mem_eq(x->shape, y->shape, (size_t)x->ndim * sizeof *x->shape);
        size_t size = (size_t)x->count * tw_weight_type_size(x->type);
        unsigned char *p = malloc(size + 1), *q = malloc(size + 1);
        TW_ASSERT_OK(tw_weights_read(a, i, p));
        TW_ASSERT_OK(tw_weights_read(b, i, q));
        ck_assert_mem_eq(p, q, size);
        free(p);
        free(q);
    }
}

START_TEST(writes_what_it_reads) {
    static const char *const files[] = {"checkpoint.pt", "checkpoint_legacy.pt", "types.pt", "views.pt"};
    const char *path = temporary("copy.pt");
    for (size_t f = 0; f < 4; f++) {
        tw_weights *from = open_golden(files[f]), *copy;
        copy_file(from, path);
        TW_ASSERT_OK(tw_pt_open(path, &copy));
        same_tensors(from, copy);
        tw_weights_close(from);
        tw_weights_close(copy);
        if (f > 1) continue;
        TW_ASSERT_OK(tw_pt_open(path, &copy));
        check_checkpoint(copy, "PyTorch zip");
    }
    unlink(path);
}
END_TEST

static tw_status fill_zero(void *self, int64_t i, void *dst) {
    const tw_weight *items = self;
    memset(dst, 0, (size_t)items[i].count * tw_weight_type_size(items[i].type));
    return TW_OK;
}
static tw_status fill_fails(void *self, int64_t i, void *dst) {
    (void)self, (void)i, (void)dst;
    return FAIL(TW_ERR_NUMERIC, "no values");
}

START_TEST(writes_many_tensors) {
    enum { N = 3000 };
    tw_weight *items = calloc(N, sizeof *items);
    char(*names)[16] = calloc(N, sizeof *names);
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "t%d", i);
        items[i] =
            (tw_weight){.name = names[i], .type = TW_WEIGHT_I8, .ndim = 1, .shape = {i % 3}, .count = i % 3};
    }
    const char *path = temporary("many.pt");
    tw_weights_output output = {items, N, fill_zero, items};
    TW_ASSERT_OK(tw_pt_write(path, &output, NULL));
    tw_weights *w;
    TW_ASSERT_OK(tw_pt_open(path, &w));
    ck_assert_int_eq(tw_weights_count(w), N);
    ck_assert_int_eq(tw_weights_find(w, "t2999"), 2999);
    ck_assert_str_eq(tw_weights_get_note(w)->name, "tuwen");
    int8_t two[] = {1, 1};
    TW_ASSERT_OK(tw_weights_read(w, 2999, two));
    TW_ASSERT_OK(tw_weights_read(w, 2998, two));
    ck_assert(two[0] == 0 && two[1] == 0);
    tw_weights_close(w);
    unlink(path);
    free(items);
    free(names);
}
END_TEST

START_TEST(refuses_to_write_nonsense) {
    const char *path = temporary("bad.pt");
    tw_weight items[3] = {{.name = "a", .count = 1}, {.name = "a", .count = 1}};
    tw_weights_output output = {items, 2, fill_zero, items};
    TW_ASSERT_FAILS(tw_pt_write(path, &output, NULL), TW_ERR_ARGUMENT, "two tensors are named 'a'");
    items[1].name = "b\xff";
    TW_ASSERT_FAILS(tw_pt_write(path, &output, NULL), TW_ERR_ARGUMENT, "not UTF-8");
    items[1].name = "optimizer.state.0.exp_avg";
    TW_ASSERT_FAILS(tw_pt_write(path, &output, NULL), TW_ERR_ARGUMENT, "no parameter groups");
    tw_weights_group group = {.lr = (double)NAN, .beta1 = (double)NAN};
    tw_weights_note note = {.groups = &group, .group_count = 1};
    items[1].name = "optimizer.state.x";
    TW_ASSERT_FAILS(tw_pt_write(path, &output, &note), TW_ERR_ARGUMENT, "'optimizer.state.x' is no name");
    items[1].name = "optimizer.state.3.step";
    items[2] = (tw_weight){.name = "b", .count = 1};
    output.n = 3;
    TW_ASSERT_FAILS(tw_pt_write(path, &output, &note), TW_ERR_ARGUMENT, "'b' comes after");
    items[0].name = "optimizer.state.3.exp_avg", items[2].name = "optimizer.state.3.exp_avg_sq";
    items[1].name = "optimizer.state.4.step";
    TW_ASSERT_FAILS(tw_pt_write(path, &output, &note), TW_ERR_ARGUMENT, "state.3 are not next to each other");
    items[1].count = 7;
    TW_ASSERT_FAILS(tw_pt_write(path, &output, &note), TW_ERR_ARGUMENT, "is not its shape's");
    output = (tw_weights_output){&(tw_weight){.name = "a", .count = 1}, 1, fill_fails, NULL};
    TW_ASSERT_FAILS(tw_pt_write(path, &output, &note), TW_ERR_NUMERIC, "no values");
    ck_assert_int_ne(access(path, F_OK), 0);
    TW_ASSERT_FAILS(tw_pt_write("/nonexistent/a.pt", &output, &note), TW_ERR_IO, "/nonexistent/a.pt");
}
END_TEST

TW_TEST_MAIN("pt", reads_a_training_checkpoint, reads_every_type_of_every_protocol,
             reads_views_and_nested_dicts, refuses_what_holds_code, writes_what_it_reads, writes_many_tensors,
             refuses_to_write_nonsense)
