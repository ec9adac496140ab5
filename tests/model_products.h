/* Products with what a library may do on the way, for tests/test_model_graphs.c: whether it does it, and that
 * the result is right either way. */
#ifndef TW_TESTS_MODEL_PRODUCTS_H
#define TW_TESTS_MODEL_PRODUCTS_H

#include "autograd/cuda/cuda.h"
#include "autograd/cuda/product.h"
#include "graph_run.h"

#include <math.h>

/* A bf16 product of a model's. */
typedef struct product_case {
    const char *name;
    int64_t m, n, k;
    bool a_transposed, b_transposed;
    tw_fused fused;
    bool adds;
} product_case;

/* What is on the device, as the host has it. */
typedef struct product_data {
    tw_cuda_product_args args;
    float *a, *b, *c, *vector; /* op(a) (m,k) and op(b) (k,n) as they lie in memory */
} product_data;

static inline float *product_values(graph_run *r, tw_dtype type, int64_t rows, int64_t cols, uint32_t layer,
                                    void **there) {
    tw_tensor t = tw_tensor_of(NULL, type, 2, (int64_t[]){rows, cols});
    float *x = graph_random(&t, layer, -1.0f, 1.0f);
    graph_give(r, &t, x);
    for (int64_t i = 0; type == TW_BF16 && i < rows * cols; i++) x[i] = tw_from_bf16(tw_to_bf16(x[i]));
    *there = t.data;
    return x;
}

static inline product_data product_data_of(graph_run *r, const product_case *c) {
    bool sums = c->fused != TW_FUSED_BIAS;
    product_data p = {.args = {.m = c->m, .n = c->n, .k = c->k, .type = TW_BF16, .fused = c->fused}};
    tw_cuda_product_args *args = &p.args;
    void *a, *b;
    p.a = product_values(r, TW_BF16, c->a_transposed ? c->k : c->m, c->a_transposed ? c->m : c->k, 1, &a);
    p.b = product_values(r, TW_BF16, c->b_transposed ? c->n : c->k, c->b_transposed ? c->k : c->n, 2, &b);
    args->out_type = sums ? TW_F32 : TW_BF16;
    p.c = product_values(r, args->out_type, c->m, c->n, 3, &args->out);
    p.vector =
        product_values(r, args->out_type, 1, c->fused == TW_FUSED_SUM_A ? c->m : c->n, 4, &args->vector);
    args->a = (tw_cuda_matrix){a, c->a_transposed ? c->m : c->k, c->a_transposed};
    args->b = (tw_cuda_matrix){b, c->b_transposed ? c->k : c->n, c->b_transposed};
    args->out_stride = args->c_stride = c->n;
    if (c->adds) args->c = args->out;
    return p;
}

static inline double product_a(const product_data *p, int64_t i, int64_t r) {
    return (double)p->a[p->args.a.transposed ? r * p->args.m + i : i * p->args.k + r];
}

static inline double product_b(const product_data *p, int64_t r, int64_t j) {
    return (double)p->b[p->args.b.transposed ? j * p->args.k + r : r * p->args.n + j];
}

static inline double product_expected(const product_data *p, int64_t i, int64_t j) {
    double sum = p->args.c ? (double)p->c[i * p->args.n + j] : 0;
    for (int64_t r = 0; r < p->args.k; r++) sum += product_a(p, i, r) * product_b(p, r, j);
    return sum + (p->args.fused == TW_FUSED_BIAS ? (double)p->vector[j] : 0);
}

static inline double product_sum(const product_data *p, int64_t i) {
    double sum = 0;
    for (int64_t r = 0; r < p->args.k; r++)
        sum += p->args.fused == TW_FUSED_SUM_A ? product_a(p, i, r) : product_b(p, r, i);
    return sum;
}

/* f32 sums of k products, and one rounding of the result. */
static inline void compare_product(const product_case *c, const char *what, int64_t at, float got,
                                   double want) {
    double most = 1e-4 * sqrt((double)c->k) + (c->fused == TW_FUSED_BIAS ? 0x1p-8 * fabs(want) : 0);
    ck_assert_msg(fabs((double)got - want) <= most, "%s: element %lld of the %s is %g, not %g", c->name,
                  (long long)at, what, (double)got, want);
}

/* Some elements, spread over rows and columns; has_sums: the vector holds sums. */
static inline void compare_product_data(const product_case *c, const product_data *p, bool has_sums,
                                        graph_run *r) {
    enum { LOOKED_AT = 61 };
    const tw_cuda_product_args *args = &p->args;
    bool of_a = c->fused == TW_FUSED_SUM_A;
    int64_t n = of_a ? c->m : c->n;
    tw_tensor out = tw_tensor_of(args->out, args->out_type, 2, (int64_t[]){c->m, c->n}),
              vector = tw_tensor_of(args->vector, args->out_type, 1, &n);
    float *y = graph_bring(r, &out), *v = graph_bring(r, &vector);
    for (int64_t e = 0; e < LOOKED_AT; e++) {
        int64_t i = e * 7919 % c->m, j = e * 104729 % c->n;
        compare_product(c, "result", i * c->n + j, y[i * c->n + j], product_expected(p, i, j));
        if (has_sums) compare_product(c, "sums", e * 7919 % n, v[e * 7919 % n], product_sum(p, e * 7919 % n));
    }
    free(y);
    free(v);
}

/* A library may leave sums to its caller, who makes a pass over the factor: that costs time, and is said, but
 * it is no failure. */
static inline void check_product(tw_device *d, product_case c, int64_t smaller) {
    graph_run r = {.device = d};
    bool fused, needed = c.fused == TW_FUSED_BIAS;
#ifdef TW_CUDA_SHIM
    needed = true; /* whose library has all of them */
#endif
    if (smaller > 1) c.m = c.m / smaller / 8 * 8 + 8, c.n = c.n / smaller / 8 * 8 + 8, c.k = c.k / smaller;
    product_data p = product_data_of(&r, &c);
    ck_assert_msg(tw_cuda_product(d, &p.args, &fused) == TW_OK, "%s: %s", c.name, tw_last_error());
    const char *refused = tw_cuda_product_refusals(d);
    ck_assert_msg(fused || !needed, "%s: the library does not do it on the way: %s", c.name,
                  refused ? refused : "nothing was refused");
    if (!fused) printf("%s: no sums on the way: %s\n", c.name, refused ? refused : "not said why");
    compare_product_data(&c, &p, fused && c.fused != TW_FUSED_BIAS, &r);
    free(p.a), free(p.b), free(p.c), free(p.vector);
    graph_release(&r);
}

#endif
