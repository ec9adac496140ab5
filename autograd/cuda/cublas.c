/* Products by cuBLASLt. It thinks in columns: our row-major out (m,n) = a b is its column-major (n,m) = b'
 * a', so its A is our b and its B is our a, and its rows are our columns. */
#include "autograd/arena.h"
#include "autograd/cuda/cublas_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

tw_status tw_cublas_status(cublasStatus_t s, const char *what) {
    if (s == CUBLAS_STATUS_SUCCESS) return TW_OK;
    return FAIL(s == CUBLAS_STATUS_ALLOC_FAILED ? TW_ERR_MEMORY : TW_ERR_LIBRARY, "%s: cuBLASLt says %s",
                what, cublasLtGetStatusString(s));
}
#define LT_TRY(call, what) TRY(tw_cublas_status((call), (what)))

static void free_plan(tw_cublas_plan *p) {
    if (p->product) (void)cublasLtMatmulDescDestroy(p->product);
    cublasLtMatrixLayout_t layouts[] = {p->a, p->b, p->c, p->out};
    for (int i = 0; i < 4; i++)
        if (layouts[i]) (void)cublasLtMatrixLayoutDestroy(layouts[i]);
    free(p);
}

static void close_cublas(void *state) {
    tw_cublas *l = state;
    for (int i = 0; i < TW_CUBLAS_BUCKETS; i++)
        for (tw_cublas_plan *p = l->buckets[i], *next; p; p = next) {
            next = p->next;
            free_plan(p);
        }
    if (l->workspace) (void)cudaFree(l->workspace);
    if (l->handle) (void)cublasLtDestroy(l->handle);
    free(l);
}

static tw_status open_cublas(tw_device *d, tw_cublas **out) {
    void **slot = tw_cuda_slot(d, TW_CUDA_CUBLAS, close_cublas);
    *out = *slot;
    if (*out) return TW_OK;
    tw_cublas *l = *slot = calloc(1, sizeof *l);
    if (!l) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = tw_cublas_status(cublasLtCreate(&l->handle), "opening cuBLASLt");
    if (status == TW_OK) status = d->alloc(d, TW_CUBLAS_WORKSPACE, &l->workspace);
    if (status != TW_OK) {
        *slot = NULL;
        close_cublas(l);
        return status;
    }
    *out = l;
    return TW_OK;
}

/* The largest power of two, up to what the arena's buffers are aligned to, that the address is a multiple of.
 * No kernel asks for more than 16 bytes; a buffer that happens to lie on 256 is not to be another plan, whose
 * algorithms would be measured anew. */
static int alignment_of(const void *p) {
    uintptr_t bits = (uintptr_t)p | TW_ARENA_ALIGN;
    return (int)(bits & (~bits + 1));
}

static tw_cublas_key key_of(const tw_device *d, const tw_cuda_product_args *p, tw_fused fused) {
    tw_cublas_key key;
    memset(&key, 0, sizeof key);
    key.m = p->m, key.n = p->n, key.k = p->k;
    key.a_stride = p->a.stride, key.b_stride = p->b.stride, key.out_stride = p->out_stride;
    key.c_stride = p->c ? p->c_stride : p->out_stride;
    key.a_transposed = p->a.transposed, key.b_transposed = p->b.transposed;
    key.type = (int)p->type, key.out_type = (int)p->out_type, key.fused = (int)fused;
    key.adds = p->c != NULL;
    key.tf32 = p->type == TW_F32 && tw_cuda_tf32(d);
    key.alignment[0] = alignment_of(p->a.data), key.alignment[1] = alignment_of(p->b.data);
    key.alignment[2] = alignment_of(p->c ? p->c : p->out), key.alignment[3] = alignment_of(p->out);
    if (fused) key.alignment[4] = alignment_of(p->vector);
    return key;
}

static unsigned hash(const tw_cublas_key *key) {
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
    return tw_cublas_status(
        cublasLtMatrixLayoutCreate(out, data_type(dtype), (uint64_t)cols, (uint64_t)rows, ld),
        "describing a matrix");
}

static tw_status set_attribute(tw_cublas_plan *p, cublasLtMatmulDescAttributes_t name, const void *value,
                               size_t size) {
    return tw_cublas_status(cublasLtMatmulDescSetAttribute(p->product, name, value, size),
                            "describing a product");
}

static tw_status name_vector(tw_cublas_plan *p, const void *vector) {
    return set_attribute(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &vector, sizeof vector);
}

static tw_status describe(tw_cublas_plan *p) {
    const tw_cublas_key *k = &p->key;
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

static tw_status find_plan(tw_cublas *l, const tw_cublas_key *key, const void *vector, tw_cublas_plan **out) {
    tw_cublas_plan **bucket = &l->buckets[hash(key) % TW_CUBLAS_BUCKETS];
    for (*out = *bucket; *out; *out = (*out)->next)
        if (memcmp(&(*out)->key, key, sizeof *key) == 0) return TW_OK;
    tw_cublas_plan *p = calloc(1, sizeof *p);
    if (!p) return FAIL(TW_ERR_MEMORY, "out of memory");
    p->key = *key;
    tw_status status = describe(p);
    /* Proposals depend on how the vector is aligned. */
    if (status == TW_OK && key->fused) status = name_vector(p, vector);
    if (status == TW_OK) status = tw_cublas_propose(l, p);
    if (status != TW_OK) {
        free_plan(p);
        return status;
    }
    p->next = *bucket;
    *out = *bucket = p;
    return TW_OK;
}

/* ---- running ---- */

cublasStatus_t tw_cublas_multiply(tw_device *d, const tw_cublas *l, const tw_cublas_plan *p,
                                  const tw_cuda_product_args *args, int i, void *out) {
    const float one = 1.0f, beta = args->c ? 1.0f : 0.0f;
    return cublasLtMatmul(l->handle, p->product, &one, args->b.data, p->a, args->a.data, p->b, &beta,
                          args->c ? args->c : out, p->c, out, p->out, &p->algorithm[i], l->workspace,
                          TW_CUBLAS_WORKSPACE, tw_cuda_stream(d, TW_QUEUE_COMPUTE));
}

void tw_cublas_tell(const tw_cublas_key *k, char *text, size_t size) {
    static const char *const fused[] = {"", ", bias", ", a's sums", ", b's sums"};
    snprintf(text, size, "(%lld,%lld)%s by (%lld,%lld)%s of %s to %s%s%s", (long long)k->m, (long long)k->k,
             k->a_transposed ? "'" : "", (long long)k->k, (long long)k->n, k->b_transposed ? "'" : "",
             k->tf32 ? "tf32" : tw_dtype_name((tw_dtype)k->type), tw_dtype_name((tw_dtype)k->out_type),
             fused[k->fused], k->adds ? ", added" : "");
}

static void drop(tw_cublas_plan *p, int i) {
    p->count--;
    memmove(&p->algorithm[i], &p->algorithm[i + 1], (size_t)(p->count - i) * sizeof p->algorithm[0]);
    p->fastest = p->fastest == i ? 0 : p->fastest - (p->fastest > i);
}

static void note_refusal(tw_cublas *l, tw_cublas_plan *p) {
    if (p->noted || !p->key.fused || !tw_cublas_is_large(&p->key)) return;
    p->noted = true;
    if (l->refused++ == l->told) tw_cublas_tell(&p->key, l->reason, sizeof l->reason);
}

/* Few kernels can take sums along, and those need not be the fast ones: where the product alone and a pass of
 * our own take less time, the plan is given up. */
static tw_status weigh(tw_device *d, tw_cublas *l, tw_cublas_plan *p, const tw_cuda_product_args *args) {
    tw_cublas_plan *plain;
    bool sums = p->key.fused == TW_FUSED_SUM_A || p->key.fused == TW_FUSED_SUM_B, longer;
    if (!sums || p->weighed || p->seconds <= 0) return TW_OK;
    p->weighed = true;
    tw_cublas_key key = key_of(d, args, TW_FUSED_NOTHING);
    TRY(find_plan(l, &key, NULL, &plain));
    TRY(tw_cublas_measure(d, l, plain, args));
    TRY(tw_cublas_weigh(d, p, plain, &longer));
    if (longer) p->count = 0, p->noted = true; /* it was not refused */
    return TW_OK;
}

/* What its heuristic has proposed the library may still refuse when it is to run: it is not asked again.
 * *done is false where nothing is left. */
static tw_status run(tw_device *d, tw_cublas *l, const tw_cublas_key *key, const tw_cuda_product_args *args,
                     bool *done) {
    tw_cublas_plan *p;
    *done = false;
    TRY(find_plan(l, key, args->vector, &p));
    if (key->fused) TRY(name_vector(p, args->vector));
    TRY(tw_cublas_measure(d, l, p, args));
    TRY(weigh(d, l, p, args));
    while (p->count > 0) {
        int i = tw_cuda_deterministic(d) ? 0 : p->fastest;
        cublasStatus_t s = tw_cublas_multiply(d, l, p, args, i, args->out);
        *done = !tw_cublas_refuses(s);
        if (*done) return tw_cublas_status(s, "a product");
        drop(p, i);
    }
    note_refusal(l, p);
    return TW_OK;
}

const char *tw_cuda_product_refusals(tw_device *d) {
    tw_cublas *l = *tw_cuda_slot(d, TW_CUDA_CUBLAS, close_cublas);
    if (!l || l->refused == l->told) return NULL;
    snprintf(
        l->text, sizeof l->text,
        "passes of our own, which are slower, run beside %d products whose bias or sums cuBLASLt refused; "
        "the first: %s",
        l->refused - l->told, l->reason);
    l->told = l->refused;
    return l->text;
}

tw_status tw_cuda_product(tw_device *d, const tw_cuda_product_args *args, bool *fused) {
    bool done;
    tw_cublas *l;
    *fused = false;
    TRY(tw_cuda_product_simple(d, args, &done));
    if (done) return TW_OK;
    /* The library's handle and proposals are for the thread's current device. */
    (void)tw_cuda_stream(d, TW_QUEUE_COMPUTE);
    TRY(open_cublas(d, &l));
    tw_cublas_key key = key_of(d, args, args->fused);
    if (key.fused) TRY(run(d, l, &key, args, fused));
    if (*fused) return TW_OK;
    key = key_of(d, args, TW_FUSED_NOTHING);
    TRY(run(d, l, &key, args, &done));
    if (done) return TW_OK;
    return FAIL(TW_ERR_UNSUPPORTED, "cuBLASLt has no product (%lld,%lld) x (%lld,%lld) of %s",
                (long long)key.m, (long long)key.k, (long long)key.k, (long long)key.n,
                tw_dtype_name(args->type));
}
