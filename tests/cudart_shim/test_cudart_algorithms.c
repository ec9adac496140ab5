/* Which of cuBLASLt's algorithms runs a product (autograd/cuda/cublas_choose.c), and what it refuses, on a
 * stand-in. */
#include "autograd/cuda/choice.h"
#include "product_device.h"

enum { LARGE = 1024 };

/* A product of 2 GFLOP, of which the library only counts the runs: element 0 of the result grows by 1. */
typedef struct large {
    tw_cuda_product_args args;
    void *a, *b, *out, *vector;
} large;

static large make_large(tw_device *d, bool adds) {
    large l;
    library.counts = true;
    TW_ASSERT_OK(d->alloc(d, LARGE * LARGE * 2, &l.a));
    TW_ASSERT_OK(d->alloc(d, LARGE * LARGE * 2, &l.b));
    TW_ASSERT_OK(d->alloc(d, LARGE * LARGE * 4, &l.out));
    TW_ASSERT_OK(d->alloc(d, LARGE * 4, &l.vector));
    l.args = (tw_cuda_product_args){.m = LARGE, .n = LARGE, .k = LARGE, .type = TW_BF16, .out_type = TW_F32};
    l.args.a = (tw_cuda_matrix){l.a, LARGE, true}, l.args.b = (tw_cuda_matrix){l.b, LARGE, false};
    l.args.out = l.out, l.args.out_stride = l.args.c_stride = LARGE, l.args.vector = l.vector;
    l.args.c = adds ? l.out : NULL;
    *(float *)l.out = 10;
    return l;
}

static float value_of(tw_device *d, const large *l) {
    TW_ASSERT_OK(d->sync(d, TW_QUEUE_COMPUTE));
    return *(float *)l->out;
}

static void release_large(tw_device *d, large *l) {
    d->release(d, l->a), d->release(d, l->b), d->release(d, l->out), d->release(d, l->vector);
}

START_TEST(the_fastest_algorithm_is_found_once) {
    bool adds = _i;
    tw_device *d = open_device();
    large l = make_large(d, adds);
    char text[TW_CHOICE_LINE];
    bool fused;
    l.args.fused = TW_FUSED_SUM_A;
    library.algorithm[3].seconds = 5e-4;
    library.algorithm[4].seconds = 1e-6, library.algorithm[4].refuses = true;
    library.algorithm[9].seconds = 1e-6; /* past the eight that are asked for */
    TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused));
    ck_assert(fused);
    ck_assert_float_eq(value_of(d, &l), adds ? 11.0f : 1.0f);
    /* Timed twice, each with one run that is not timed, with the sums and without. */
    ck_assert_int_eq(library.algorithm[0].runs, 12);
    ck_assert_int_eq(library.algorithm[3].runs, 13);
    ck_assert_int_eq(library.algorithm[9].runs, 0);
    for (int i = 0; i < 2; i++) {
        char expected[TW_CHOICE_LINE];
        snprintf(expected, sizeof expected,
                 "product (1024,1024)' by (1024,1024) of bf16 to f32%s%s: by cuBLASLt's algorithm 4 of 8 "
                 "(0.5000 ms; by its first choice 1.0000 ms)",
                 i ? "" : ", a's sums", adds ? ", added" : "");
        ck_assert(tw_cuda_choice_text(d, i, text, sizeof text));
        ck_assert_str_eq(text, expected);
    }
    ck_assert(!tw_cuda_choice_text(d, 2, text, sizeof text));
    int before = all_runs();
    TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused));
    ck_assert(fused);
    ck_assert_int_eq(all_runs(), before + 1);
    ck_assert_int_eq(library.algorithm[3].runs, 14);
    ck_assert_float_eq(value_of(d, &l), adds ? 12.0f : 1.0f);
    tw_cuda_set_deterministic(d, true); /* which keeps to the first one, whatever was measured */
    TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused));
    ck_assert_int_eq(library.algorithm[0].runs, 13);
    release_large(d, &l);
    close_device(d);
}
END_TEST

/* Sums that cost more than the pass of our own that they save are left to it. */
START_TEST(dear_sums_are_not_taken_along) {
    tw_device *d = open_device();
    large l = make_large(d, false);
    char text[TW_CHOICE_LINE];
    bool fused;
    l.args.fused = TW_FUSED_SUM_B;
    library.sums_seconds = 1e-6; /* a pass takes 6 */
    TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused));
    ck_assert(fused);
    l.args.n--, library.sums_seconds = 1e-4;
    for (int i = 0; i < 2; i++) {
        int before = all_runs();
        TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused));
        ck_assert(!fused);
        if (i) ck_assert_int_eq(all_runs(), before + 1);
    }
    ck_assert(tw_cuda_choice_text(d, 4, text, sizeof text));
    ck_assert_str_eq(
        text, "product (1024,1024)' by (1024,1023) of bf16 to f32, b's sums: its sums by a pass of our "
              "own (1.0060 ms with it; by cuBLASLt 1.1000 ms)");
    ck_assert_ptr_null(tw_cuda_product_refusals(d)); /* it is a choice */
    release_large(d, &l);
    close_device(d);
}
END_TEST

/* What is refused at last is dropped, and the fastest one of the others is still that. */
START_TEST(the_fastest_algorithm_stays_when_others_go) {
    tw_device *d = open_device();
    large l = make_large(d, false);
    bool fused;
    library.algorithm[3].seconds = 5e-4;
    TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused));
    library.algorithm[0].refuses = true;
    tw_cuda_set_deterministic(d, true);
    TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused));
    ck_assert_int_eq(library.algorithm[1].runs, 7);
    tw_cuda_set_deterministic(d, false);
    TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused));
    ck_assert_int_eq(library.algorithm[3].runs, 8);
    library.algorithm[3].refuses = true;
    TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused));
    TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused));
    ck_assert_int_eq(library.algorithm[3].runs, 9);
    ck_assert_int_eq(library.algorithm[1].runs, 9);
    release_large(d, &l);
    close_device(d);
}
END_TEST

START_TEST(nothing_is_measured_where_it_must_not_be) {
    tw_device *d = open_device();
    large l = make_large(d, true);
    char text[TW_CHOICE_LINE];
    tw_graph *graph;
    bool fused;
    library.algorithm[2].seconds = 5e-4;
    tw_cuda_set_deterministic(d, true);
    TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused));
    ck_assert_int_eq(all_runs(), 1);
    tw_cuda_set_deterministic(d, false);
    TW_ASSERT_OK(d->capture_begin(d));
    TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused));
    TW_ASSERT_OK(d->capture_end(d, &graph));
    ck_assert_int_eq(library.algorithm[0].runs, 2);
    ck_assert_int_eq(all_runs(), 2);
    ck_assert(!tw_cuda_choice_text(d, 0, text, sizeof text));
    TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused)); /* now it can be */
    ck_assert_int_eq(library.algorithm[2].runs, 7);
    ck_assert(tw_cuda_choice_text(d, 0, text, sizeof text));
    l.args.k = 128; /* 0.3 GFLOP */
    int before = all_runs();
    TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused));
    ck_assert_int_eq(all_runs(), before + 1);
    ck_assert_int_eq(library.algorithm[0].runs, 9);
    d->graph_release(d, graph);
    release_large(d, &l);
    close_device(d);
}
END_TEST

/* Without memory for results of runs that only count, a sum stays what it is and the first choice runs. */
START_TEST(without_room_nothing_is_measured) {
    tw_device *d = open_device();
    large l = make_large(d, true);
    char text[TW_CHOICE_LINE];
    bool fused;
    l.args.m--;
    TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused)); /* opens the library */
    int before = all_runs();
    l.args.m++;
    cudart_fail("cudaMalloc", cudaErrorMemoryAllocation);
    TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused));
    ck_assert_int_eq(all_runs(), before + 1);
    ck_assert_float_eq(value_of(d, &l), 12);
    ck_assert(tw_cuda_choice_text(d, 0, text, sizeof text));
    ck_assert(!tw_cuda_choice_text(d, 1, text, sizeof text));
    release_large(d, &l);
    close_device(d);
}
END_TEST

START_TEST(measuring_takes_no_longer_than_it_may) {
    tw_device *d = open_device();
    large l = make_large(d, false);
    bool fused;
    for (int i = 0; i < SHIM_ALGORITHMS; i++) library.algorithm[i].seconds = 0.02;
    library.algorithm[7].seconds = 1e-3; /* not reached */
    TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused));
    ck_assert_int_eq(all_runs(), 2 * 3 + 1); /* 0.12 s */
    ck_assert_int_eq(library.algorithm[0].runs, 4);
    int shapes = 0, before;
    do { /* 5 s in all */
        before = all_runs();
        l.args.m--, shapes++;
        TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused));
        ck_assert_int_lt(shapes, 100);
    } while (all_runs() > before + 1);
    ck_assert_int_ge(shapes, 40);
    release_large(d, &l);
    close_device(d);
}
END_TEST

START_TEST(refused_epilogues_are_told_once) {
    tw_device *d = open_device();
    large l = make_large(d, false);
    bool fused;
    library.refused_epilogues = CUBLASLT_EPILOGUE_BGRADA;
    ck_assert_ptr_null(tw_cuda_product_refusals(d));
    l.args.fused = TW_FUSED_SUM_A; /* of our a, which is the library's B */
    TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused));
    ck_assert(fused);
    ck_assert_ptr_null(tw_cuda_product_refusals(d));
    l.args.fused = TW_FUSED_SUM_B;
    for (int i = 0; i < 2; i++) {
        TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused));
        ck_assert(!fused);
    }
    l.args.m--;
    TW_ASSERT_OK(tw_cuda_product(d, &l.args, &fused));
    ck_assert_str_eq(
        tw_cuda_product_refusals(d),
        "passes of our own, which are slower, run beside 2 products whose bias or sums cuBLASLt refused; "
        "the first: (1024,1024)' by (1024,1024) of bf16 to f32, b's sums");
    ck_assert_ptr_null(tw_cuda_product_refusals(d));
    for (int i = 0; i < 8; i++) library.algorithm[i].refuses = true; /* what was proposed is not run */
    l.args.fused = TW_FUSED_SUM_A;
    TW_ASSERT_FAILS(tw_cuda_product(d, &l.args, &fused), TW_ERR_UNSUPPORTED, "cuBLASLt has no product");
    ck_assert_ptr_nonnull(strstr(tw_cuda_product_refusals(d), "beside 1 products"));
    release_large(d, &l);
    close_device(d);
}
END_TEST

int main(void) {
    const TTest *const tests[] = {dear_sums_are_not_taken_along,
                                  the_fastest_algorithm_stays_when_others_go,
                                  nothing_is_measured_where_it_must_not_be,
                                  without_room_nothing_is_measured,
                                  measuring_takes_no_longer_than_it_may,
                                  refused_epilogues_are_told_once};
    TCase *tcase = tcase_create("cudart algorithms");
    tcase_add_loop_test(tcase, the_fastest_algorithm_is_found_once, 0, 2);
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) tcase_add_test(tcase, tests[i]);
    return tw_test_run_case("cudart algorithms", tcase);
}
