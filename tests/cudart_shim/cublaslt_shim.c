#include "cublaslt_shim.h"

#include "autograd/tensor.h"

#include <stdlib.h>
#include <string.h>

struct cublasLtContext {
    int device;
};

typedef struct desc {
    cublasComputeType_t compute;
    cublasOperation_t op_a, op_b;
    cublasLtEpilogue_t epilogue;
    cudaDataType_t vector_type;
    void *vector;
} desc;

typedef struct layout {
    cudaDataType type;
    int64_t rows, cols, ld;
} layout;

typedef struct preference {
    uint64_t workspace;
    uint32_t schemes, alignment[4];
} preference;

cublaslt_library library;

void cublaslt_reset(void) {
    int alive = library.alive;
    library = (cublaslt_library){.alive = alive};
    for (int i = 0; i < SHIM_ALGORITHMS; i++)
        library.algorithm[i] = (cublaslt_algorithm){.seconds = 1e-3, .alignment = 2};
}

const char *cublasLtGetStatusString(cublasStatus_t status) {
    return status == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED" : "an error of the shim";
}

/* ---- descriptors: the library's opaque pointers name our own structs ---- */

static void *make(size_t bytes) {
    void *p = calloc(1, bytes);
    if (!p) abort();
    library.alive++;
    return p;
}

static cublasStatus_t unmake(void *p) {
    free(p);
    library.alive--;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
    library.opened_on = cudart_current();
    *handle = make(sizeof **handle);
    (*handle)->device = cudart_current();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    return unmake(handle);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
    layout *l = make(sizeof *l);
    *l = (layout){type, (int64_t)rows, (int64_t)cols, ld};
    *out = (cublasLtMatrixLayout_t)(void *)l;
    return ld >= (int64_t)rows ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
    return unmake(l);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
    desc *d = make(sizeof *d);
    *d = (desc){.compute = compute, .epilogue = CUBLASLT_EPILOGUE_DEFAULT};
    *out = (cublasLtMatmulDesc_t)(void *)d;
    return scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
    return unmake(d);
}

static cublasStatus_t put(void *to, size_t size, const void *value, size_t bytes) {
    if (bytes != size) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t opaque,
                                              cublasLtMatmulDescAttributes_t name, const void *value,
                                              size_t bytes) {
    desc *d = (desc *)(void *)opaque;
    switch (name) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return put(&d->op_a, sizeof d->op_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return put(&d->op_b, sizeof d->op_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return put(&d->epilogue, sizeof d->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return put(&d->vector, sizeof d->vector, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        return put(&d->vector_type, sizeof d->vector_type, value, bytes);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out) {
    preference *p = make(sizeof *p);
    *p = (preference){.schemes = CUBLASLT_REDUCTION_SCHEME_MASK, .alignment = {256, 256, 256, 256}};
    *out = (cublasLtMatmulPreference_t)(void *)p;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
    return unmake(p);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t opaque,
                                                    cublasLtMatmulPreferenceAttributes_t name,
                                                    const void *value, size_t bytes) {
    preference *p = (preference *)(void *)opaque;
    int i = (int)name - (int)CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;
    if (name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
        return put(&p->workspace, sizeof p->workspace, value, bytes);
    if (name == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
        return put(&p->schemes, sizeof p->schemes, value, bytes);
    return i >= 0 && i < 4 ? put(&p->alignment[i], sizeof p->alignment[i], value, bytes)
                           : CUBLAS_STATUS_INVALID_VALUE;
}

/* ---- choosing ---- */

static bool is_aligned(const void *p, int bytes) {
    return (uintptr_t)p % (uintptr_t)bytes == 0;
}

static bool serves(const cublaslt_algorithm *a, const preference *p, const desc *d) {
    for (int i = 0; i < 4; i++)
        if (p->alignment[i] % (uint32_t)a->alignment != 0) return false;
    return (a->scheme == CUBLASLT_REDUCTION_SCHEME_NONE || (a->scheme & p->schemes)) &&
           (d->epilogue == CUBLASLT_EPILOGUE_DEFAULT || is_aligned(d->vector, a->alignment));
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t opaque,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t opaque_preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t result[], int *found) {
    const desc *product = (desc *)(void *)opaque;
    const preference *p = (preference *)(void *)opaque_preference;
    (void)handle, (void)a, (void)b, (void)c, (void)d;
    library.proposals++, library.device = cudart_current(), library.wanted = wanted;
    *found = 0;
    if (product->epilogue & (cublasLtEpilogue_t)library.refused_epilogues) return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < SHIM_ALGORITHMS && *found < wanted; i++) {
        if (!serves(&library.algorithm[i], p, product)) continue;
        cublasLtMatmulHeuristicResult_t *r = &result[(*found)++];
        memset(r, 0, sizeof *r);
        r->algo.data[0] = (uint64_t)i;
        r->workspaceSize = 1 << 20;
    }
    return *found ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* ---- multiplying ---- */

typedef struct product {
    desc desc;
    layout la, lb, lc, ld;
    const void *a, *b, *c;
    void *d;
    float beta;
    int64_t inner;
    bool halves, counts;
} product;

static double get(const void *p, cudaDataType type, int64_t at) {
    return type == CUDA_R_32F ? (double)((const float *)p)[at]
                              : (double)tw_from_bf16(((const uint16_t *)p)[at]);
}

static void set(void *p, cudaDataType type, int64_t at, double x) {
    if (type == CUDA_R_32F)
        ((float *)p)[at] = (float)x;
    else
        ((uint16_t *)p)[at] = tw_to_bf16((float)x);
}

/* Element (i,j) of op(matrix). */
static double element(const void *p, const layout *l, cublasOperation_t op, int64_t i, int64_t j) {
    return get(p, l->type, op == CUBLAS_OP_N ? j * l->ld + i : i * l->ld + j);
}

static double inner_product(const product *w, int64_t i, int64_t j) {
    double sum[2] = {0, 0};
    for (int64_t k = 0; k < w->inner; k++)
        sum[2 * k >= w->inner] +=
            element(w->a, &w->la, w->desc.op_a, i, k) * element(w->b, &w->lb, w->desc.op_b, k, j);
    if (!w->halves || w->ld.type == CUDA_R_32F) return sum[0] + sum[1];
    float first = tw_from_bf16(tw_to_bf16((float)sum[0])), second = tw_from_bf16(tw_to_bf16((float)sum[1]));
    return (double)tw_from_bf16(tw_to_bf16(first + second));
}

static void sum_of_a(const product *w) {
    for (int64_t i = 0; i < w->ld.rows; i++) {
        double sum = 0;
        for (int64_t k = 0; k < w->inner; k++) sum += element(w->a, &w->la, w->desc.op_a, i, k);
        set(w->desc.vector, w->desc.vector_type, i, sum);
    }
}

static void sum_of_b(const product *w) {
    for (int64_t j = 0; j < w->ld.cols; j++) {
        double sum = 0;
        for (int64_t k = 0; k < w->inner; k++) sum += element(w->b, &w->lb, w->desc.op_b, k, j);
        set(w->desc.vector, w->desc.vector_type, j, sum);
    }
}

static void multiply(void *context) {
    const product *w = context;
    double beta = (double)w->beta;
    if (w->counts) {
        set(w->d, w->ld.type, 0, 1 + (beta == 0 ? 0 : beta * get(w->c, w->lc.type, 0)));
        return;
    }
    for (int64_t j = 0; j < w->ld.cols; j++)
        for (int64_t i = 0; i < w->ld.rows; i++) {
            double x = inner_product(w, i, j);
            if (beta != 0) x += beta * get(w->c, w->lc.type, j * w->lc.ld + i);
            if (w->desc.epilogue == CUBLASLT_EPILOGUE_BIAS) x += get(w->desc.vector, w->desc.vector_type, i);
            set(w->d, w->ld.type, j * w->ld.ld + i, x);
        }
    if (w->desc.epilogue == CUBLASLT_EPILOGUE_BGRADA) sum_of_a(w);
    if (w->desc.epilogue == CUBLASLT_EPILOGUE_BGRADB) sum_of_b(w);
}

static bool lies_on_device(const void *p, const layout *l) {
    size_t size = l->type == CUDA_R_32F ? 4 : 2;
    return cudart_on_device(p, (size_t)((l->cols - 1) * l->ld + l->rows) * size);
}

/* Sizes that belong together, and memory for them. */
static bool is_sound(const product *w) {
    const layout *a = &w->la, *b = &w->lb, *d = &w->ld;
    bool ta = w->desc.op_a == CUBLAS_OP_T, tb = w->desc.op_b == CUBLAS_OP_T;
    int64_t vector = w->desc.epilogue == CUBLASLT_EPILOGUE_BGRADB ? d->cols : d->rows;
    size_t bytes = (size_t)vector * (w->desc.vector_type == CUDA_R_32F ? 4 : 2);
    return (ta ? a->cols : a->rows) == d->rows && (tb ? b->rows : b->cols) == d->cols &&
           (tb ? b->cols : b->rows) == w->inner && w->lc.rows == d->rows && w->lc.cols == d->cols &&
           a->type == b->type && w->lc.type == d->type && lies_on_device(w->a, a) &&
           lies_on_device(w->b, b) && (w->beta == 0 || lies_on_device(w->c, &w->lc)) &&
           lies_on_device(w->d, d) &&
           (w->desc.epilogue == CUBLASLT_EPILOGUE_DEFAULT || cudart_on_device(w->desc.vector, bytes));
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t opaque, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
    cublaslt_algorithm *algorithm = &library.algorithm[algo->data[0]];
    product w = {.desc = *(desc *)(void *)opaque, .a = a, .b = b, .c = c, .d = d};
    w.la = *(layout *)(void *)a_layout, w.lb = *(layout *)(void *)b_layout;
    w.lc = *(layout *)(void *)c_layout, w.ld = *(layout *)(void *)d_layout;
    w.inner = w.desc.op_a == CUBLAS_OP_T ? w.la.rows : w.la.cols;
    w.beta = *(const float *)beta;
    w.halves = algorithm->scheme == CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, w.counts = library.counts;
    library.compute = w.desc.compute;
    algorithm->runs++;
    if (handle->device != cudart_current() || *(const float *)alpha != 1.0f || !is_sound(&w) ||
        workspace_bytes < 1 << 20 || !cudart_on_device(workspace, workspace_bytes))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    bool vector =
        w.desc.epilogue == CUBLASLT_EPILOGUE_DEFAULT || is_aligned(w.desc.vector, algorithm->alignment);
    if (algorithm->refuses || !vector || !is_aligned(a, algorithm->alignment) ||
        !is_aligned(b, algorithm->alignment) || !is_aligned(c, algorithm->alignment) ||
        !is_aligned(d, algorithm->alignment))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    bool sums = w.desc.epilogue == CUBLASLT_EPILOGUE_BGRADA || w.desc.epilogue == CUBLASLT_EPILOGUE_BGRADB;
    double seconds = algorithm->seconds + (sums ? library.sums_seconds : 0);
    cudaError_t error = cudart_queue(stream, multiply, &w, sizeof w, seconds);
    return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
