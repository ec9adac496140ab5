#include "autograd/gemm_cpu.h"

#include "autograd/matmul_dnnl.h"

#include <dnnl.h>
#include <stdlib.h>

tw_status tw_gemm_f32(int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t a_stride,
                      bool a_transposed, const float *b, int64_t b_stride, bool b_transposed, float beta,
                      float *c, int64_t c_stride) {
    if (m == 0 || n == 0) return TW_OK;
    if (k == 0) { /* oneDNN refuses leading dimensions of 0 */
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) {
                float *p = c + i * c_stride + j;
                *p = beta == 0 ? 0 : beta * *p;
            }
        return TW_OK;
    }
    /* A single row may have any distance to the next one, also one shorter than itself. */
    int64_t a_cols = a_transposed ? m : k, b_cols = b_transposed ? k : n;
    if (a_stride < a_cols) a_stride = a_cols;
    if (b_stride < b_cols) b_stride = b_cols;
    if (c_stride < n) c_stride = n;
    dnnl_status_t status = dnnl_sgemm(a_transposed ? 'T' : 'N', b_transposed ? 'T' : 'N', m, n, k, alpha, a,
                                      a_stride, b, b_stride, beta, c, c_stride);
    if (status != dnnl_success)
        return FAIL(TW_ERR_LIBRARY, "oneDNN's sgemm of (%lld,%lld,%lld) failed with code %d", (long long)m,
                    (long long)n, (long long)k, (int)status);
    return TW_OK;
}

bool tw_gemm_has_bf16(void) {
    unsigned isa = (unsigned)dnnl_get_effective_cpu_isa(), bf16 = (unsigned)dnnl_cpu_isa_avx512_core_bf16;
    return (isa & bf16) == bf16;
}

/* ---- panels of f32 for what oneDNN cannot multiply here ---- */

enum { PANEL_M = 512, PANEL_N = 1024, PANEL_K = 1024 };

/* 2 + 4 + 2 MB, kept by the thread that needed them. */
static _Thread_local float *panels;

/* rows x cols elements from (row, col) of a matrix as stored, to f32. */
static void to_panel(float *panel, const tw_matrix *x, int64_t row, int64_t col, int64_t rows, int64_t cols) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const uint16_t *from = (const uint16_t *)x->data + (row + r) * x->stride + col;
        float *to = panel + r * cols;
#pragma omp simd
        for (int64_t i = 0; i < cols; i++) to[i] = tw_from_bf16(from[i]);
    }
}

static void from_panel(uint16_t *c, int64_t stride, const float *panel, int64_t rows, int64_t cols,
                       bool add) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float *from = panel + r * cols;
        uint16_t *to = c + r * stride;
#pragma omp simd
        for (int64_t i = 0; i < cols; i++) to[i] = tw_to_bf16(add ? from[i] + tw_from_bf16(to[i]) : from[i]);
    }
}

/* The block of op(x) from (row, col) as f32: in place, or through the panel. Transposition stays. */
static const float *f32_block(const tw_matrix *x, int64_t row, int64_t col, int64_t rows, int64_t cols,
                              float *panel, int64_t *stride) {
    if (x->transposed) {
        int64_t t = row;
        row = col, col = t, t = rows, rows = cols, cols = t;
    }
    *stride = x->stride;
    if (x->dtype == TW_F32) return (const float *)x->data + row * x->stride + col;
    to_panel(panel, x, row, col, rows, cols);
    *stride = cols;
    return panel;
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Columns [j, j + nj) of an f32 c: each panel of b is made once. */
static tw_status columns_f32(int64_t m, int64_t j, int64_t nj, int64_t k, const tw_matrix *a,
                             const tw_matrix *b, bool add, float *c, int64_t c_stride) {
    float *pa = panels, *pb = pa + PANEL_M * PANEL_K;
    for (int64_t p = 0; p < k || p == 0; p += PANEL_K) {
        int64_t kp = smaller(PANEL_K, k - p), as, bs;
        const float *bp = f32_block(b, p, j, kp, nj, pb, &bs);
        for (int64_t i = 0; i < m; i += PANEL_M) {
            int64_t mi = smaller(PANEL_M, m - i);
            const float *ap = f32_block(a, i, p, mi, kp, pa, &as);
            TRY(tw_gemm_f32(mi, nj, kp, 1, ap, as, a->transposed, bp, bs, b->transposed,
                            add || p > 0 ? 1.0f : 0.0f, c + i * c_stride + j, c_stride));
        }
    }
    return TW_OK;
}

/* Columns [j, j + nj) of a bf16 c, whose sums are made in a panel; b's panel is kept if it is the only one.
 */
static tw_status columns_bf16(int64_t m, int64_t j, int64_t nj, int64_t k, const tw_matrix *a,
                              const tw_matrix *b, bool add, uint16_t *c, int64_t c_stride) {
    float *pa = panels, *pb = pa + PANEL_M * PANEL_K, *pc = pb + PANEL_K * PANEL_N;
    const float *bp = NULL;
    int64_t as, bs = 0;
    for (int64_t i = 0; i < m; i += PANEL_M) {
        int64_t mi = smaller(PANEL_M, m - i);
        for (int64_t p = 0; p < k || p == 0; p += PANEL_K) {
            int64_t kp = smaller(PANEL_K, k - p);
            if (!bp || k > PANEL_K) bp = f32_block(b, p, j, kp, nj, pb, &bs);
            const float *ap = f32_block(a, i, p, mi, kp, pa, &as);
            TRY(tw_gemm_f32(mi, nj, kp, 1, ap, as, a->transposed, bp, bs, b->transposed, p > 0 ? 1.0f : 0.0f,
                            pc, nj));
        }
        from_panel(c + i * c_stride + j, c_stride, pc, mi, nj, add);
    }
    return TW_OK;
}

static tw_status gemm_by_panels(int64_t m, int64_t n, int64_t k, const tw_matrix *a, const tw_matrix *b,
                                bool add, void *c, tw_dtype c_dtype, int64_t c_stride) {
    size_t floats = (size_t)PANEL_M * PANEL_K + (size_t)PANEL_K * PANEL_N + (size_t)PANEL_M * PANEL_N;
    if (!panels) panels = aligned_alloc(64, floats * sizeof(float));
    if (!panels) return FAIL(TW_ERR_MEMORY, "out of memory: %zu bytes for a product", floats * sizeof(float));
    for (int64_t j = 0; j < n; j += PANEL_N) {
        int64_t nj = smaller(PANEL_N, n - j);
        if (c_dtype == TW_F32)
            TRY(columns_f32(m, j, nj, k, a, b, add, c, c_stride));
        else
            TRY(columns_bf16(m, j, nj, k, a, b, add, c, c_stride));
    }
    return TW_OK;
}

tw_status tw_gemm(int64_t m, int64_t n, int64_t k, tw_matrix a, tw_matrix b, bool add, void *c,
                  tw_dtype c_dtype, int64_t c_stride) {
    if (m == 0 || n == 0) return TW_OK;
    if (a.dtype == TW_F32 && b.dtype == TW_F32 && c_dtype == TW_F32)
        return tw_gemm_f32(m, n, k, 1, a.data, a.stride, a.transposed, b.data, b.stride, b.transposed,
                           add ? 1.0f : 0.0f, c, c_stride);
    if (k > 0 && a.dtype == TW_BF16 && b.dtype == TW_BF16 && tw_gemm_has_bf16())
        return tw_matmul_dnnl(m, n, k, a, b, add, c, c_dtype, c_stride);
    return gemm_by_panels(m, n, k, &a, &b, add, c, c_dtype, c_stride);
}

void tw_gemm_release(void) {
    free(panels);
    panels = NULL;
    tw_matmul_dnnl_release();
}
