#include "train/formats/weights.h"

#include "train/formats/weight_convert.h"
#include "tw_test.h"

#include <math.h>

START_TEST(names_its_types) {
    static const struct {
        tw_weight_type type;
        const char *name;
        size_t size;
    } known[] = {{TW_WEIGHT_F32, "f32", 4},  {TW_WEIGHT_F16, "f16", 2}, {TW_WEIGHT_BF16, "bf16", 2},
                 {TW_WEIGHT_F64, "f64", 8},  {TW_WEIGHT_I64, "i64", 8}, {TW_WEIGHT_I32, "i32", 4},
                 {TW_WEIGHT_I16, "i16", 2},  {TW_WEIGHT_I8, "i8", 1},   {TW_WEIGHT_U8, "u8", 1},
                 {TW_WEIGHT_BOOL, "bool", 1}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        tw_weight_type type;
        TW_ASSERT_OK(tw_weight_type_parse(known[i].name, &type));
        ck_assert_int_eq(type, known[i].type);
        ck_assert_str_eq(tw_weight_type_name(type), known[i].name);
        ck_assert_uint_eq(tw_weight_type_size(type), known[i].size);
    }
    tw_weight_type type;
    TW_ASSERT_FAILS(tw_weight_type_parse("f8", &type), TW_ERR_NOT_FOUND, "'f8'");
}
END_TEST

/* ---- conversions ---- */

/* The definition of binary16, in double. */
static double value_of_f16(uint16_t h) {
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double sign = h & 0x8000 ? -1 : 1;
    if (exponent == 31) return fraction ? (double)NAN : sign * (double)INFINITY;
    return sign * (exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24));
}

static void same_float(float got, double expected, int at) {
    if (isnan(expected))
        ck_assert_msg(isnan(got), "%d is %g, expected NaN", at, (double)got);
    else
        ck_assert_msg((double)got == expected && !signbit(got) == !signbit(expected), "%d is %g, expected %g",
                      at, (double)got, expected);
}

/* Every half there is, out of place and in place, and back. */
START_TEST(converts_every_half) {
    enum { N = 65536 };
    uint16_t *h = malloc(N * sizeof *h), *back = malloc(N * sizeof *back);
    float *f = malloc(N * sizeof *f), *in_place = malloc(N * sizeof *in_place);
    for (int i = 0; i < N; i++) h[i] = (uint16_t)i;
    tw_weight_to_f32(TW_WEIGHT_F16, h, f, N);
    memcpy(in_place + N / 2, h, N * sizeof *h);
    tw_weight_widen(TW_WEIGHT_F16, in_place, N);
    TW_ASSERT_OK(tw_weight_from_f32(TW_WEIGHT_F16, f, back, N));
    for (int i = 0; i < N; i++) {
        double expected = value_of_f16((uint16_t)i);
        same_float(f[i], expected, i);
        same_float(in_place[i], expected, i);
        if (!isnan(expected)) ck_assert_msg(back[i] == h[i], "%04x became %04x", h[i], back[i]);
    }
    memcpy(in_place + N / 2, h, N * sizeof *h);
    tw_weight_widen(TW_WEIGHT_BF16, in_place, N);
    TW_ASSERT_OK(tw_weight_from_f32(TW_WEIGHT_BF16, in_place, back, N));
    for (int i = 0; i < N; i++) {
        uint32_t bits;
        memcpy(&bits, &in_place[i], sizeof bits);
        ck_assert_uint_eq(bits, (uint32_t)i << 16);
        if (!isnan(in_place[i])) ck_assert_msg(back[i] == h[i], "%04x became %04x", h[i], back[i]);
    }
    free(h);
    free(back);
    free(f);
    free(in_place);
}
END_TEST

/* Between two neighbouring halves a and b, in order: just below the middle, the middle, just above. An odd
 * number at a time, so that both the vector loop and the rest see each case. */
START_TEST(rounds_to_the_nearest_half) {
    for (int h = 0; h < 0x7bff; h++) {
        double a = value_of_f16((uint16_t)h), b = value_of_f16((uint16_t)(h + 1));
        float middle = (float)((a + b) / 2), f[11];
        uint16_t got[11];
        for (int i = 0; i < 11; i++)
            f[i] = i % 3 == 0 ? nextafterf(middle, 0) : i % 3 == 1 ? middle : nextafterf(middle, INFINITY);
        TW_ASSERT_OK(tw_weight_from_f32(TW_WEIGHT_F16, f, got, 11));
        for (int i = 0; i < 11; i++) {
            int expected = i % 3 == 0 ? h : i % 3 == 2 ? h + 1 : h + h % 2;
            ck_assert_msg(got[i] == expected, "%a became %04x, expected %04x", (double)f[i], got[i],
                          expected);
        }
    }
    float large[] = {65519, 65520, -1e30f, INFINITY, NAN};
    uint16_t got[5];
    TW_ASSERT_OK(tw_weight_from_f32(TW_WEIGHT_F16, large, got, 5));
    ck_assert_uint_eq(got[0], 0x7bff);
    ck_assert_uint_eq(got[1], 0x7c00);
    ck_assert_uint_eq(got[2], 0xfc00);
    ck_assert_uint_eq(got[3], 0x7c00);
    ck_assert_uint_gt(got[4], 0x7c00);
    float b[] = {1.00390625f, 1.01171875f, 3.4e38f, NAN}; /* 1 + 2^-8: a tie to 1; 1 + 3 2^-8: a tie up */
    TW_ASSERT_OK(tw_weight_from_f32(TW_WEIGHT_BF16, b, got, 4));
    ck_assert_uint_eq(got[0], 0x3f80);
    ck_assert_uint_eq(got[1], 0x3f82);
    ck_assert_uint_eq(got[2], 0x7f80);
    ck_assert_uint_gt(got[3], 0x7f80);
}
END_TEST

START_TEST(converts_other_types) {
    int64_t i64[] = {-3, 1 << 24, (1 << 24) + 1};
    int8_t i8[] = {-128, 0, 127};
    uint8_t u8[] = {255, 0, 2};
    double f64[] = {0.1, -2.5, 1e300};
    float f[3];
    tw_weight_to_f32(TW_WEIGHT_I64, i64, f, 3);
    ck_assert(f[0] == -3 && f[1] == 16777216 && f[2] == 16777216);
    tw_weight_to_f32(TW_WEIGHT_I8, i8, f, 3);
    ck_assert(f[0] == -128 && f[1] == 0 && f[2] == 127);
    tw_weight_to_f32(TW_WEIGHT_U8, u8, f, 3);
    ck_assert(f[0] == 255 && f[1] == 0 && f[2] == 2);
    tw_weight_to_f32(TW_WEIGHT_BOOL, u8, f, 3);
    ck_assert(f[0] == 1 && f[1] == 0 && f[2] == 1);
    tw_weight_to_f32(TW_WEIGHT_F64, f64, f, 3);
    ck_assert(f[0] == 0.1f && f[1] == -2.5f && isinf(f[2]));
    TW_ASSERT_FAILS(tw_weight_from_f32(TW_WEIGHT_I8, f, u8, 3), TW_ERR_UNSUPPORTED, "i8");
}
END_TEST

/* ---- the table ---- */

typedef struct memory {
    const void *bytes[4];
    size_t sizes[4];
    int closed, reads;
} memory;

static tw_status memory_read(void *self, int64_t i, void *dst) {
    memory *m = self;
    m->reads++;
    memcpy(dst, m->bytes[i], m->sizes[i]);
    return TW_OK;
}
static void memory_close(void *self) {
    ((memory *)self)->closed++;
}
static const tw_weights_source MEMORY = {memory_read, memory_close};

START_TEST(reads_and_converts) {
    uint16_t halves[] = {0x3c00, 0xc000, 0x0001};
    int64_t one = 41;
    memory m = {.bytes = {halves, &one, NULL}, .sizes = {sizeof halves, sizeof one, 0}};
    char name[] = "b.weight";
    tw_weight items[] = {{.name = name, .type = TW_WEIGHT_F16, .ndim = 2, .shape = {3, 1}, .count = 99},
                         {.name = "a", .type = TW_WEIGHT_I64},
                         {.name = "c", .ndim = 2, .shape = {0, 5}}};
    int64_t params[] = {4, 2};
    tw_weights_group groups[] = {{.lr = 0.5, .params = params, .param_count = 2}, {.lr = 0.25}};
    tw_weights_note note = {.kind = "test", .name = "run", .epoch = 2, .step = 9, groups, 2};
    tw_weights *w;
    TW_ASSERT_OK(tw_weights_create("some/file", &note, items, 3, &MEMORY, &m, &w));
    name[0] = 'x'; /* everything was copied */
    params[0] = groups[0].param_count = 77;
    ck_assert_str_eq(tw_weights_path(w), "some/file");
    ck_assert_int_eq(tw_weights_count(w), 3);
    ck_assert_int_eq(tw_weights_find(w, "b.weight"), 0);
    ck_assert_int_eq(tw_weights_find(w, "a"), 1);
    ck_assert_int_eq(tw_weights_find(w, "c"), 2);
    ck_assert_int_eq(tw_weights_find(w, "b"), -1);
    ck_assert_int_eq(tw_weights_at(w, 0)->count, 3);
    ck_assert_int_eq(tw_weights_at(w, 1)->count, 1);
    ck_assert_int_eq(tw_weights_at(w, 2)->count, 0);
    const tw_weights_note *n = tw_weights_get_note(w);
    ck_assert(strcmp(n->name, "run") == 0 && n->epoch == 2 && n->step == 9 && n->group_count == 2);
    ck_assert(n->groups[0].param_count == 2 && n->groups[0].params[0] == 4 && n->groups[1].lr == 0.25);
    uint16_t raw[3];
    float f[3];
    TW_ASSERT_OK(tw_weights_read(w, 0, raw));
    ck_assert_mem_eq(raw, halves, sizeof raw);
    TW_ASSERT_OK(tw_weights_read_f32(w, 0, f, 3));
    ck_assert(f[0] == 1 && f[1] == -2 && f[2] == 0x1p-24f);
    TW_ASSERT_OK(tw_weights_read_f32(w, 1, f, 1));
    ck_assert(f[0] == 41);
    int reads = m.reads;
    TW_ASSERT_OK(tw_weights_read_f32(w, 2, NULL, 0));
    TW_ASSERT_OK(tw_weights_read(w, 2, NULL));
    ck_assert_int_eq(m.reads, reads);
    TW_ASSERT_FAILS(tw_weights_read_f32(w, 0, f, 2), TW_ERR_SHAPE, "'b.weight' has 3 values, 2");
    TW_ASSERT_FAILS(tw_weights_read(w, 3, raw), TW_ERR_ARGUMENT, "number 3");
    ck_assert_int_eq(m.closed, 0);
    tw_weights_close(w);
    ck_assert_int_eq(m.closed, 1);
    tw_weights_close(NULL);
}
END_TEST

START_TEST(refuses_bad_tables) {
    memory m = {0};
    tw_weights *w;
    tw_weight twice[] = {{.name = "a"}, {.name = "b"}, {.name = "a"}};
    TW_ASSERT_FAILS(tw_weights_create("p", NULL, twice, 3, &MEMORY, &m, &w), TW_ERR_FORMAT, "named 'a'");
    ck_assert_ptr_null(w);
    tw_weight huge = {.name = "h", .ndim = 3, .shape = {(int64_t)1 << 31, 0, (int64_t)1 << 31}};
    TW_ASSERT_FAILS(tw_weights_create("p", NULL, &huge, 1, &MEMORY, &m, &w), TW_ERR_FORMAT,
                    "larger than any");
    tw_weight negative = {.name = "n", .ndim = 1, .shape = {-1}};
    TW_ASSERT_FAILS(tw_weights_create("p", NULL, &negative, 1, &MEMORY, &m, &w), TW_ERR_FORMAT, "negative");
    tw_weight deep = {.name = "d", .ndim = 9};
    TW_ASSERT_FAILS(tw_weights_create("p", NULL, &deep, 1, &MEMORY, &m, &w), TW_ERR_FORMAT, "9 dimensions");
    tw_weight odd = {.name = "o", .type = (tw_weight_type)40};
    TW_ASSERT_FAILS(tw_weights_create("p", NULL, &odd, 1, &MEMORY, &m, &w), TW_ERR_FORMAT, "unknown type");
    ck_assert_int_eq(m.closed, 5);
}
END_TEST

TW_TEST_MAIN("weights", names_its_types, converts_every_half, rounds_to_the_nearest_half,
             converts_other_types, reads_and_converts, refuses_bad_tables)
