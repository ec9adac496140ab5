/* Products by cuBLASLt. It thinks in columns: our row-major out (m,n) = a b is its column-major (n,m) = b'
 * a', so its A is our b and its B is our a, and its rows are our columns. */
#include "autograd/cuda/device_cuda.h"
#include "autograd/cuda/product.h"

#include <cublasLt.h>
#include <stdlib.h>

enum { BUCKETS = 256, WORKSPACE = 32 << 20 };

/* All that the choice of an algorithm depends on. Compared as bytes: no padding left unset. */
typedef struct plan_key {
    int64_t m, n, k, a_stride, b_stride, c_stride, out_stride;
    int a_transposed, b_transposed, type, out_type, fused, adds, tf32;
    int alignment[4]; /* bytes, of a, b, c, out */
} plan_key;

typedef struct plan {
    struct plan *next;
    plan_key key;
    bool supported;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c, out;
    cublasLtMatmulAlgo_t algorithm;
} plan;

typedef struct cublas {
    cublasLtHandle_t handle;
    void *workspace;
    plan *buckets[BUCKETS];
} cublas;

static tw_status status_of(cublasStatus_t s, const char *what) {
    if (s == CUBLAS_STATUS_SUCCESS) return TW_OK;
    return FAIL(s == CUBLAS_STATUS_ALLOC_FAILED ? TW_ERR_MEMORY : TW_ERR_LIBRARY, "%s: cuBLASLt says %s",
                what, cublasLtGetStatusString(s));
}
#define LT_TRY(call, what) TRY(status_of((call), (what)))

static void free_plan(plan *p) {
    if (p->product) (void)cublasLtMatmulDescDestroy(p->product);
    cublasLtMatrixLayout_t layouts[] = {p->a, p->b, p->c, p->out};
    for (int i = 0; i < 4; i++)
        if (layouts[i]) (void)cublasLtMatrixLayoutDestroy(layouts[i]);
    free(p);
}

static void close_cublas(void *state) {
    cublas *l = state;
    for (int i = 0; i < BUCKETS; i++)
        for (plan *p = l->buckets[i], *next; p; p = next) {
            next = p->next;
            free_plan(p);
        }
    if (l->workspace) (void)cudaFree(l->workspace);
    if (l->handle) (void)cublasLtDestroy(l->handle);
    free(l);
}

static tw_status open_cublas(tw_device *d, cublas **out) {
    void **slot = tw_cuda_slot(d, TW_CUDA_CUBLAS, close_cublas);
    *out = *slot;
    if (*out) return TW_OK;
    cublas *l = *slot = calloc(1, sizeof *l);
    if (!l) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = status_of(cublasLtCreate(&l->handle), "opening cuBLASLt");
    if (status == TW_OK) status = d->alloc(d, WORKSPACE, &l->workspace);
    if (status != TW_OK) {
        *slot = NULL;
        close_cublas(l);
        return status;
    }
    *out = l;
    return TW_OK;
}

/* The largest power of two, up to 256, that the address is a multiple of. */
static int alignment_of(const void *p) {
    uintptr_t bits = (uintptr_t)p | 256;
    return (int)(bits & (~bits + 1));
}

static plan_key key_of(const tw_device *d, const tw_cuda_product_args *p) {
    plan_key key;
    memset(&key, 0, sizeof key);
    key.m = p->m, key.n = p->n, key.k = p->k;
    key.a_stride = p->a.stride, key.b_stride = p->b.stride, key.out_stride = p->out_stride;
    key.c_stride = p->c ? p->c_stride : p->out_stride;
    key.a_transposed = p->a.transposed, key.b_transposed = p->b.transposed;
    key.type = (int)p->type, key.out_type = (int)p->out_type, key.fused = (int)p->fused;
    key.adds = p->c != NULL;
    key.tf32 = p->type == TW_F32 && tw_cuda_tf32(d);
    key.alignment[0] = alignment_of(p->a.data), key.alignment[1] = alignment_of(p->b.data);
    key.alignment[2] = alignment_of(p->c ? p->c : p->out), key.alignment[3] = alignment_of(p->out);
    return key;
}

static unsigned hash(const plan_key *key) {
    const unsigned char *bytes = (const unsigned char *)key;
    unsigned h = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < sizeof *key; i++) h = (h ^ bytes[i]) * 16777619u;
    return h;
}

static cudaDataType_t data_type(int dtype) {
    return dtype == TW_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* A row-major matrix of `rows` rows, as cuBLASLt sees it. */
static tw_status make_layout(cublasLtMatrixLayout_t *out, int dtype, int64_t rows, int64_t cols,
                             int64_t stride) {
    /* One row may be closer to the next than it is long; the library wants a sound stride all the same. */
    int64_t ld = stride < cols ? cols : stride;
    return status_of(cublasLtMatrixLayoutCreate(out, data_type(dtype), (uint64_t)cols, (uint64_t)rows, ld),
                     "describing a matrix");
}

static tw_status set_attribute(plan *p, cublasLtMatmulDescAttributes_t name, const void *value, size_t size) {
    return status_of(cublasLtMatmulDescSetAttribute(p->product, name, value, size), "describing a product");
}

static tw_status describe(plan *p) {
    const plan_key *k = &p->key;
    cublasComputeType_t compute = k->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    LT_TRY(cublasLtMatmulDescCreate(&p->product, compute, CUDA_R_32F), "describing a product");
    cublasOperation_t a = k->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t b = k->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    TRY(set_attribute(p, CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof a));
    TRY(set_attribute(p, CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof b));
    static const cublasLtEpilogue_t epilogues[] = {CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_BIAS,
                                                   CUBLASLT_EPILOGUE_BGRADB, CUBLASLT_EPILOGUE_BGRADA};
    if (k->fused) {
        cublasLtEpilogue_t epilogue = epilogues[k->fused];
        int32_t type = (int32_t)data_type(k->out_type);
        TRY(set_attribute(p, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
        TRY(set_attribute(p, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type));
    }
    TRY(make_layout(&p->a, k->type, k->b_transposed ? k->n : k->k, k->b_transposed ? k->k : k->n,
                    k->b_stride));
    TRY(make_layout(&p->b, k->type, k->a_transposed ? k->k : k->m, k->a_transposed ? k->m : k->k,
                    k->a_stride));
    TRY(make_layout(&p->c, k->out_type, k->m, k->n, k->c_stride));
    return make_layout(&p->out, k->out_type, k->m, k->n, k->out_stride);
}

/* The library's first choice for shape and alignment; none is no error. */
static tw_status choose(const cublas *l, plan *p) {
    cublasLtMatmulPreference_t preference;
    LT_TRY(cublasLtMatmulPreferenceCreate(&preference), "choosing a product's algorithm");
    const size_t workspace = WORKSPACE;
    static const cublasLtMatmulPreferenceAttributes_t names[4] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    cublasStatus_t s = cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    for (int i = 0; i < 4 && s == CUBLAS_STATUS_SUCCESS; i++) {
        uint32_t bytes = (uint32_t)p->key.alignment[i];
        s = cublasLtMatmulPreferenceSetAttribute(preference, names[i], &bytes, sizeof bytes);
    }
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    if (s == CUBLAS_STATUS_SUCCESS) {
        s = cublasLtMatmulAlgoGetHeuristic(l->handle, p->product, p->a, p->b, p->c, p->out, preference, 1,
                                           &result, &found);
        p->supported = s == CUBLAS_STATUS_SUCCESS && found > 0 && result.state == CUBLAS_STATUS_SUCCESS;
        if (p->supported) p->algorithm = result.algo;
        if (s == CUBLAS_STATUS_NOT_SUPPORTED || s == CUBLAS_STATUS_INVALID_VALUE) s = CUBLAS_STATUS_SUCCESS;
    }
    (void)cublasLtMatmulPreferenceDestroy(preference);
    return status_of(s, "choosing a product's algorithm");
}

static tw_status find_plan(cublas *l, const plan_key *key, plan **out) {
    plan **bucket = &l->buckets[hash(key) % BUCKETS];
    for (*out = *bucket; *out; *out = (*out)->next)
        if (memcmp(&(*out)->key, key, sizeof *key) == 0) return TW_OK;
    plan *p = calloc(1, sizeof *p);
    if (!p) return FAIL(TW_ERR_MEMORY, "out of memory");
    p->key = *key;
    tw_status status = describe(p);
    if (status == TW_OK) status = choose(l, p);
    if (status != TW_OK) {
        free_plan(p);
        return status;
    }
    p->next = *bucket;
    *out = *bucket = p;
    return TW_OK;
}

static cublasStatus_t multiply(tw_device *d, const cublas *l, const plan *p,
                               const tw_cuda_product_args *args) {
    const float one = 1.0f, beta = args->c ? 1.0f : 0.0f;
    return cublasLtMatmul(l->handle, p->product, &one, args->b.data, p->a, args->a.data, p->b, &beta,
                          args->c ? args->c : args->out, p->c, args->out, p->out, &p->algorithm, l->workspace,
                          WORKSPACE, tw_cuda_stream(d, TW_QUEUE_COMPUTE));
}

/* *done is false where the library has no product with what args->fused asks for. What its heuristic has
 * proposed it may still refuse when it is to run: nothing was queued then, and it is not asked again. */
static tw_status run_fused(tw_device *d, cublas *l, const plan_key *key, const tw_cuda_product_args *args,
                           bool *done) {
    plan *p;
    *done = false;
    TRY(find_plan(l, key, &p));
    if (!p->supported) return TW_OK;
    TRY(set_attribute(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &args->vector, sizeof args->vector));
    cublasStatus_t s = multiply(d, l, p, args);
    p->supported = s != CUBLAS_STATUS_NOT_SUPPORTED && s != CUBLAS_STATUS_INVALID_VALUE;
    *done = p->supported;
    return p->supported ? status_of(s, "a product") : TW_OK;
}

tw_status tw_cuda_product(tw_device *d, const tw_cuda_product_args *args, bool *fused) {
    bool done;
    *fused = false;
    TRY(tw_cuda_product_simple(d, args, &done));
    if (done) return TW_OK;
    cublas *l;
    plan *p;
    TRY(open_cublas(d, &l));
    plan_key key = key_of(d, args);
    if (key.fused) TRY(run_fused(d, l, &key, args, fused));
    if (*fused) return TW_OK;
    key.fused = TW_FUSED_NOTHING;
    TRY(find_plan(l, &key, &p));
    if (!p->supported)
        return FAIL(TW_ERR_UNSUPPORTED, "cuBLASLt has no product (%lld,%lld) x (%lld,%lld) of %s",
                    (long long)key.m, (long long)key.k, (long long)key.k, (long long)key.n,
                    tw_dtype_name(args->type));
    return status_of(multiply(d, l, p, args), "a product");
}
