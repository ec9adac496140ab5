/* Products by cuBLASLt (autograd/cuda/cublas.c) on a stand-in for it: results against plain loops, and plans.
 */
#include "product_device.h"

#include <math.h>

/* ---- results ---- */

enum { M = 5, N = 7, K = 9, MOST = 16 * 24 };

typedef struct memory {
    void *p;
    tw_dtype type;
    float x[MOST]; /* what was put there */
} memory;

/* Values that no two matrices share; the memory lies behind the device's, for the host to read after a sync.
 */
static void fill(tw_device *d, memory *m, tw_dtype type, int which) {
    m->type = type;
    TW_ASSERT_OK(d->alloc(d, MOST * sizeof(float), &m->p));
    for (int i = 0; i < MOST; i++) {
        float x = sinf((float)(i * (7 + which) + which));
        m->x[i] = type == TW_F32 ? x : tw_from_bf16(tw_to_bf16(x));
        if (type == TW_F32)
            ((float *)m->p)[i] = x;
        else
            ((uint16_t *)m->p)[i] = tw_to_bf16(x);
    }
}

static double read_back(const memory *m, int64_t i) {
    return m->type == TW_F32 ? (double)((float *)m->p)[i] : (double)tw_from_bf16(((uint16_t *)m->p)[i]);
}

typedef struct product_case {
    bool a_transposed, b_transposed, adds, elsewhere; /* elsewhere: what is added is not the result */
    tw_dtype type, out_type;
    tw_fused fused;
} product_case;

typedef struct product {
    tw_cuda_product_args args;
    memory a, b, c, out, vector;
} product;

enum { GAP = 2 }; /* elements between rows */

static void make(tw_device *d, product *p, product_case c) {
    bool sums = c.fused == TW_FUSED_SUM_A || c.fused == TW_FUSED_SUM_B;
    memset(p, 0, sizeof *p);
    fill(d, &p->a, c.type, 1), fill(d, &p->b, c.type, 2), fill(d, &p->c, c.out_type, 3);
    fill(d, &p->out, c.out_type, 4), fill(d, &p->vector, sums ? TW_F32 : c.out_type, 5);
    tw_cuda_product_args *args = &p->args;
    *args = (tw_cuda_product_args){.m = M, .n = N, .k = K, .type = c.type, .out_type = c.out_type};
    args->a = (tw_cuda_matrix){p->a.p, (c.a_transposed ? M : K) + GAP, c.a_transposed};
    args->b = (tw_cuda_matrix){p->b.p, (c.b_transposed ? K : N) + GAP, c.b_transposed};
    args->out = p->out.p, args->out_stride = N + GAP, args->c_stride = N + (c.elsewhere ? 2 * GAP : GAP);
    if (c.adds) args->c = c.elsewhere ? p->c.p : p->out.p;
    args->fused = c.fused, args->vector = p->vector.p;
}

static double a_of(const product *p, int64_t i, int64_t r) {
    const tw_cuda_matrix *a = &p->args.a;
    return (double)p->a.x[a->transposed ? r * a->stride + i : i * a->stride + r];
}

static double b_of(const product *p, int64_t r, int64_t j) {
    const tw_cuda_matrix *b = &p->args.b;
    return (double)p->b.x[b->transposed ? j * b->stride + r : r * b->stride + j];
}

static double expected(const product *p, int64_t i, int64_t j, bool fused) {
    const tw_cuda_product_args *args = &p->args;
    double sum = 0;
    for (int64_t r = 0; r < args->k; r++) sum += a_of(p, i, r) * b_of(p, r, j);
    if (args->c) sum += (double)(args->c == args->out ? p->out.x : p->c.x)[i * args->c_stride + j];
    return sum + (fused && args->fused == TW_FUSED_BIAS ? (double)p->vector.x[j] : 0);
}

static void compare(double got, double want, tw_dtype type, const char *what) {
    double most = 1e-6 + (type == TW_F32 ? 1e-6 : 0x1p-8) * fabs(want);
    ck_assert_msg(fabs(got - want) <= most, "%s is %g, not %g", what, got, want);
}

static void check(tw_device *d, const product *p, bool fused) {
    const tw_cuda_product_args *args = &p->args;
    bool sums = fused && args->fused != TW_FUSED_BIAS && args->fused != TW_FUSED_NOTHING,
         of_a = args->fused == TW_FUSED_SUM_A;
    TW_ASSERT_OK(d->sync(d, TW_QUEUE_COMPUTE));
    for (int64_t at = 0; at < M * args->out_stride; at++) {
        int64_t i = at / args->out_stride, j = at % args->out_stride;
        double want = j < N ? expected(p, i, j, fused) : (double)p->out.x[at]; /* gaps keep what they had */
        compare(read_back(&p->out, at), want, p->out.type, "the result");
    }
    for (int64_t i = 0; i < (of_a ? M : N); i++) {
        double want = 0;
        for (int64_t r = 0; r < args->k; r++) want += of_a ? a_of(p, i, r) : b_of(p, r, i);
        if (!sums) want = (double)p->vector.x[i];
        compare(read_back(&p->vector, i), want, p->vector.type, "the vector");
    }
}

static void release(tw_device *d, product *p) {
    d->release(d, p->a.p), d->release(d, p->b.p), d->release(d, p->c.p);
    d->release(d, p->out.p), d->release(d, p->vector.p);
}

/* Every way round, type, addition and epilogue; refused: none can be had, and callers are told. */
START_TEST(products_are_what_loops_give) {
    bool refused = _i;
    tw_device *d = open_device();
    if (refused) library.refused_epilogues = ~(int)CUBLASLT_EPILOGUE_DEFAULT;
    for (int i = 0; i < 192; i++) {
        tw_fused fuse = (tw_fused)(i & 3);
        product_case c = {.a_transposed = i & 4, .b_transposed = i & 8, .fused = fuse};
        int types = i / 16 % 3, adds = i / 48 % 4;
        if (adds == 3) continue;
        c.type = types == 0 ? TW_F32 : TW_BF16, c.out_type = types == 2 ? TW_BF16 : TW_F32;
        c.adds = adds > 0, c.elsewhere = adds == 2;
        if (fuse >= TW_FUSED_SUM_A && c.out_type != TW_F32) continue;
        product p;
        bool fused;
        make(d, &p, c);
        TW_ASSERT_OK(tw_cuda_product(d, &p.args, &fused));
        ck_assert_int_eq(fused, fuse != TW_FUSED_NOTHING && !refused);
        check(d, &p, fused);
        release(d, &p);
    }
    ck_assert_ptr_null(tw_cuda_product_refusals(d)); /* all are small */
    close_device(d);
}
END_TEST

START_TEST(what_needs_no_library_makes_no_handle) {
    tw_device *d = open_device();
    product p;
    bool fused;
    make(d, &p, (product_case){.type = TW_F32, .out_type = TW_F32});
    p.args.m = 0;
    TW_ASSERT_OK(tw_cuda_product(d, &p.args, &fused));
    p.args.m = M, p.args.type = TW_BF16, p.args.out_type = TW_I32;
    TW_ASSERT_FAILS(tw_cuda_product(d, &p.args, &fused), TW_ERR_UNSUPPORTED, "no product of bf16");
    ck_assert_int_eq(library.alive, 0);
    release(d, &p);
    close_device(d);
}
END_TEST

/* ---- plans ---- */

START_TEST(plans_are_kept_by_what_they_depend_on) {
    const product_case c = {.type = TW_BF16, .out_type = TW_BF16, .fused = TW_FUSED_BIAS};
    tw_device *d = open_device();
    product p;
    bool fused;
    make(d, &p, c);
    for (int i = 0; i < 3; i++) TW_ASSERT_OK(tw_cuda_product(d, &p.args, &fused));
    ck_assert_int_eq(library.proposals, 1);
    ck_assert_int_eq(library.wanted, 8);
    tw_cuda_product_args *a = &p.args, first = p.args;
    const void **pointers[5] = {&a->a.data, &a->b.data, (const void **)&a->out, (const void **)&a->vector,
                                &a->c};
    for (int i = 0; i < 4; i++) { /* as the arena places them */
        p.args = first;
        *pointers[i] = (const char *)*pointers[i] + 64;
        TW_ASSERT_OK(tw_cuda_product(d, a, &fused));
        ck_assert_int_eq(library.proposals, 1);
    }
    for (int i = 0; i < 5; i++) {
        p.args = first;
        *pointers[i] = (const char *)(i < 4 ? *pointers[i] : p.c.p) + 8;
        for (int twice = 0; twice < 2; twice++) TW_ASSERT_OK(tw_cuda_product(d, a, &fused));
        ck_assert_int_eq(library.proposals, 2 + i);
    }
    p.args = first, a->fused = TW_FUSED_NOTHING;
    TW_ASSERT_OK(tw_cuda_product(d, a, &fused));
    a->vector = (char *)first.vector + 2; /* which nothing depends on now */
    TW_ASSERT_OK(tw_cuda_product(d, a, &fused));
    ck_assert_int_eq(library.proposals, 7);
    release(d, &p);
    close_device(d);
}
END_TEST

/* An algorithm for vectors on 16 bytes is not asked to read one that is not. */
START_TEST(a_vector_counts_with_its_alignment) {
    tw_device *d = open_device();
    product p;
    bool fused;
    library.algorithm[0].alignment = 16;
    make(d, &p, (product_case){.type = TW_BF16, .out_type = TW_BF16, .fused = TW_FUSED_BIAS});
    TW_ASSERT_OK(tw_cuda_product(d, &p.args, &fused));
    ck_assert(fused);
    ck_assert_int_eq(library.algorithm[0].runs, 1);
    p.args.vector = (char *)p.args.vector + 2;
    TW_ASSERT_OK(tw_cuda_product(d, &p.args, &fused));
    ck_assert(fused);
    ck_assert_int_eq(library.algorithm[0].runs, 1);
    ck_assert_int_eq(library.algorithm[1].runs, 1);
    release(d, &p);
    close_device(d);
}
END_TEST

START_TEST(handle_and_proposals_are_the_devices) {
    tw_device *d = open_device(), *other;
    product p;
    bool fused;
    TW_ASSERT_OK(tw_device_cuda(1, &other));
    make(other, &p, (product_case){.type = TW_F32, .out_type = TW_F32});
    (void)tw_cuda_stream(d, TW_QUEUE_COMPUTE); /* the thread uses the other one in between */
    TW_ASSERT_OK(tw_cuda_product(other, &p.args, &fused));
    ck_assert_int_eq(library.opened_on, 1);
    p.args.n--;
    (void)tw_cuda_stream(d, TW_QUEUE_COMPUTE);
    TW_ASSERT_OK(tw_cuda_product(other, &p.args, &fused));
    ck_assert_int_eq(library.device, 1);
    ck_assert_int_eq(library.compute, CUBLAS_COMPUTE_32F);
    tw_cuda_set_tf32(other, true);
    TW_ASSERT_OK(tw_cuda_product(other, &p.args, &fused));
    ck_assert_int_eq(library.compute, CUBLAS_COMPUTE_32F_FAST_TF32);
    release(other, &p);
    d->destroy(d);
    close_device(other);
}
END_TEST

START_TEST(a_library_that_fails_is_told) {
    tw_device *d = open_device();
    product p;
    bool fused;
    make(d, &p, (product_case){.type = TW_F32, .out_type = TW_F32});
    cudart_fail("cudaMalloc", cudaErrorMemoryAllocation); /* its workspace */
    TW_ASSERT_FAILS(tw_cuda_product(d, &p.args, &fused), TW_ERR_MEMORY, "33.6 MB were asked for");
    ck_assert_int_eq(library.alive, 0);
    for (int i = 0; i < SHIM_ALGORITHMS; i++) library.algorithm[i].alignment = 512;
    TW_ASSERT_FAILS(tw_cuda_product(d, &p.args, &fused), TW_ERR_UNSUPPORTED,
                    "cuBLASLt has no product (5,9) x (9,7) of f32");
    cublaslt_library before = library;
    cublaslt_reset();
    library.alive = before.alive;
    library.algorithm[0].refuses = library.algorithm[1].refuses = true; /* it proposes what it will not run */
    p.args.m--;
    TW_ASSERT_OK(tw_cuda_product(d, &p.args, &fused));
    TW_ASSERT_OK(tw_cuda_product(d, &p.args, &fused));
    ck_assert_int_eq(library.algorithm[0].runs, 1);
    ck_assert_int_eq(library.algorithm[2].runs, 2);
    release(d, &p);
    close_device(d);
}
END_TEST

/* An algorithm that adds parts of a sum in the result's type is faster, and not to be had. */
START_TEST(sums_are_f32) {
    tw_device *d = open_device();
    product p;
    bool fused;
    for (int i = 0; i < SHIM_ALGORITHMS; i++)
        library.algorithm[i].scheme = CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
    library.algorithm[1].scheme = CUBLASLT_REDUCTION_SCHEME_INPLACE;
    library.algorithm[7].scheme = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    library.algorithm[8].scheme = CUBLASLT_REDUCTION_SCHEME_NONE;
    make(d, &p, (product_case){.type = TW_BF16, .out_type = TW_BF16});
    TW_ASSERT_OK(tw_cuda_product(d, &p.args, &fused));
    ck_assert_int_eq(library.algorithm[7].runs, 1);
    check(d, &p, fused);
    library.algorithm[7].refuses = true;
    TW_ASSERT_OK(tw_cuda_product(d, &p.args, &fused));
    ck_assert_int_eq(library.algorithm[8].runs, 1);
    ck_assert_int_eq(all_runs(), 3);
    release(d, &p);
    close_device(d);
}
END_TEST

int main(void) {
    const TTest *const tests[] = {
        what_needs_no_library_makes_no_handle, plans_are_kept_by_what_they_depend_on,
        a_vector_counts_with_its_alignment,    handle_and_proposals_are_the_devices,
        a_library_that_fails_is_told,          sums_are_f32};
    TCase *tcase = tcase_create("cudart products");
    tcase_add_loop_test(tcase, products_are_what_loops_give, 0, 2);
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) tcase_add_test(tcase, tests[i]);
    return tw_test_run_case("cudart products", tcase);
}
