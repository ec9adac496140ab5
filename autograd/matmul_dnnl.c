#include "autograd/matmul_dnnl.h"

#include "autograd/dnnl_desc.h"

static tw_status ok(dnnl_status_t status, const char *what) {
    if (status == dnnl_success) return TW_OK;
    return FAIL(TW_ERR_LIBRARY, "oneDNN failed to %s, code %d", what, (int)status);
}

typedef struct shape {
    int64_t m, n, k, a_stride, b_stride, c_stride;
    tw_dtype a, b, c;
    bool a_transposed, b_transposed, add;
} shape;

/* Memory objects hold no data of their own; each call sets their handles. */
typedef struct product {
    shape key;
    dnnl_primitive_t primitive;
    dnnl_memory_t a, b, c, scratch;
    size_t scratch_bytes;
} product;

/* Everything is the calling thread's own: primitives with their memory objects may not run twice at once. */
enum { CACHED = 256 };               /* packed texts bring some 20 shapes with each number of rows */
static _Thread_local product *cache; /* [CACHED] */
static _Thread_local int next;
static _Thread_local dnnl_engine_t engine;
static _Thread_local dnnl_stream_t stream;
static _Thread_local char *scratch;
static _Thread_local size_t scratch_size;

static void product_free(product *p) {
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    if (p->a) dnnl_memory_destroy(p->a);
    if (p->b) dnnl_memory_destroy(p->b);
    if (p->c) dnnl_memory_destroy(p->c);
    if (p->scratch) dnnl_memory_destroy(p->scratch);
    *p = (product){0};
}

/* ---- what differs between oneDNN 2 and 3 ---- */

#if DNNL_VERSION_MAJOR >= 3
static dnnl_status_t desc_make(desc *d, const dnnl_dims_t dims, dnnl_data_type_t type,
                               const dnnl_dims_t strides) {
    return dnnl_memory_desc_create_with_strides(d, 2, dims, type, strides);
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops) {
    return dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef);
}

static dnnl_status_t plan(dnnl_primitive_desc_t *out, desc_ref a, desc_ref b, desc_ref c,
                          const_dnnl_primitive_attr_t attr) {
    return dnnl_matmul_primitive_desc_create(out, engine, a, b, NULL, c, attr);
}
#else
static dnnl_status_t desc_make(desc *d, const dnnl_dims_t dims, dnnl_data_type_t type,
                               const dnnl_dims_t strides) {
    return dnnl_memory_desc_init_by_strides(d, 2, dims, type, strides);
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops) {
    return dnnl_post_ops_append_sum(ops, 1.0f);
}

static dnnl_status_t plan(dnnl_primitive_desc_t *out, desc_ref a, desc_ref b, desc_ref c,
                          const_dnnl_primitive_attr_t attr) {
    dnnl_matmul_desc_t matmul;
    dnnl_status_t status = dnnl_matmul_desc_init(&matmul, a, b, NULL, c);
    if (status != dnnl_success) return status;
    return dnnl_primitive_desc_create(out, &matmul, attr, engine, NULL);
}
#endif

/* ---- */

static dnnl_data_type_t type_of(tw_dtype dtype) {
    return dtype == TW_BF16 ? dnnl_bf16 : dnnl_f32;
}

static dnnl_status_t matrix_desc(desc *d, int64_t rows, int64_t cols, tw_dtype dtype, int64_t stride,
                                 bool transposed) {
    dnnl_dims_t dims = {rows, cols}, strides = {stride, 1};
    if (transposed) strides[0] = 1, strides[1] = stride;
    return desc_make(d, dims, type_of(dtype), strides);
}

/* What is only needed while a product is made. */
typedef struct parts {
    desc a, b, c;
    dnnl_primitive_attr_t attr;
    dnnl_post_ops_t ops;
    dnnl_primitive_desc_t pd;
} parts;

static tw_status make_attributes(parts *q, bool add) {
    TRY(ok(dnnl_primitive_attr_create(&q->attr), "create attributes"));
    TRY(ok(dnnl_primitive_attr_set_scratchpad_mode(q->attr, dnnl_scratchpad_mode_user), "set attributes"));
    if (!add) return TW_OK;
    TRY(ok(dnnl_post_ops_create(&q->ops), "create post-operations"));
    TRY(ok(append_sum(q->ops), "append a sum"));
    return ok(dnnl_primitive_attr_set_post_ops(q->attr, q->ops), "set post-operations");
}

static tw_status make_parts(product *p, parts *q) {
    const shape *s = &p->key;
    TRY(ok(matrix_desc(&q->a, s->m, s->k, s->a, s->a_stride, s->a_transposed), "describe a matrix"));
    TRY(ok(matrix_desc(&q->b, s->k, s->n, s->b, s->b_stride, s->b_transposed), "describe a matrix"));
    TRY(ok(matrix_desc(&q->c, s->m, s->n, s->c, s->c_stride, false), "describe a matrix"));
    TRY(make_attributes(q, s->add));
    TRY(ok(plan(&q->pd, REF(q->a), REF(q->b), REF(q->c), q->attr), "plan a product"));
    TRY(ok(dnnl_primitive_create(&p->primitive, q->pd), "create a product"));
    TRY(ok(dnnl_memory_create(&p->a, REF(q->a), engine, DNNL_MEMORY_NONE), "create a memory object"));
    TRY(ok(dnnl_memory_create(&p->b, REF(q->b), engine, DNNL_MEMORY_NONE), "create a memory object"));
    TRY(ok(dnnl_memory_create(&p->c, REF(q->c), engine, DNNL_MEMORY_NONE), "create a memory object"));
    desc_ref pad = dnnl_primitive_desc_query_md(q->pd, dnnl_query_scratchpad_md, 0);
    p->scratch_bytes = pad ? dnnl_memory_desc_get_size(pad) : 0;
    if (!p->scratch_bytes) return TW_OK;
    return ok(dnnl_memory_create(&p->scratch, pad, engine, DNNL_MEMORY_NONE), "create a memory object");
}

static tw_status product_make(product *p, const shape *s) {
    parts q = {0};
    p->key = *s;
    tw_status status = make_parts(p, &q);
    if (q.pd) dnnl_primitive_desc_destroy(q.pd);
    if (q.ops) dnnl_post_ops_destroy(q.ops);
    if (q.attr) dnnl_primitive_attr_destroy(q.attr);
    desc_free(q.a), desc_free(q.b), desc_free(q.c);
    if (status != TW_OK) product_free(p);
    return status;
}

static bool same(const shape *x, const shape *y) {
    return x->m == y->m && x->n == y->n && x->k == y->k && x->a_stride == y->a_stride &&
           x->b_stride == y->b_stride && x->c_stride == y->c_stride && x->a == y->a && x->b == y->b &&
           x->c == y->c && x->a_transposed == y->a_transposed && x->b_transposed == y->b_transposed &&
           x->add == y->add;
}

static tw_status product_find(const shape *s, product **out) {
    if (!engine) TRY(ok(dnnl_engine_create(&engine, dnnl_cpu, 0), "start"));
    if (!stream) TRY(ok(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags), "start"));
    if (!cache) cache = calloc(CACHED, sizeof *cache);
    if (!cache) return FAIL(TW_ERR_MEMORY, "out of memory");
    for (int i = 0; i < CACHED; i++)
        if (cache[i].primitive && same(&cache[i].key, s)) {
            *out = &cache[i];
            return TW_OK;
        }
    *out = &cache[next];
    next = (next + 1) % CACHED;
    product_free(*out);
    return product_make(*out, s);
}

static tw_status multiply(int64_t m, int64_t n, int64_t k, tw_matrix a, tw_matrix b, bool add, void *c,
                          tw_dtype c_dtype, int64_t c_stride) {
    shape s = {m,       n,       k,       a.stride,     b.stride,     c_stride,
               a.dtype, b.dtype, c_dtype, a.transposed, b.transposed, add};
    /* A single stored row may have any distance to the next one. */
    int64_t a_cols = a.transposed ? m : k, b_cols = b.transposed ? k : n;
    if (s.a_stride < a_cols) s.a_stride = a_cols;
    if (s.b_stride < b_cols) s.b_stride = b_cols;
    if (s.c_stride < n) s.c_stride = n;
    product *p = NULL;
    TRY(product_find(&s, &p));
    TRY(grow_scratch(&scratch, &scratch_size, p->scratch_bytes, "product"));
    TRY(ok(dnnl_memory_set_data_handle(p->a, (void *)a.data), "set a handle"));
    TRY(ok(dnnl_memory_set_data_handle(p->b, (void *)b.data), "set a handle"));
    TRY(ok(dnnl_memory_set_data_handle(p->c, c), "set a handle"));
    if (p->scratch) TRY(ok(dnnl_memory_set_data_handle(p->scratch, scratch), "set a handle"));
    dnnl_exec_arg_t args[4] = {{DNNL_ARG_SRC, p->a},
                               {DNNL_ARG_WEIGHTS, p->b},
                               {DNNL_ARG_DST, p->c},
                               {DNNL_ARG_SCRATCHPAD, p->scratch}};
    TRY(ok(dnnl_primitive_execute(p->primitive, stream, p->scratch ? 4 : 3, args), "multiply"));
    return ok(dnnl_stream_wait(stream), "multiply");
}

/* n values that lie `from_stride` apart to places `to_stride` apart. */
static void copy_vector(void *to, int64_t to_stride, const void *from, int64_t from_stride, int64_t n,
                        tw_dtype dtype) {
    for (int64_t i = 0; i < n; i++) {
        if (dtype == TW_F32)
            ((float *)to)[i * to_stride] = ((const float *)from)[i * from_stride];
        else
            ((uint16_t *)to)[i * to_stride] = ((const uint16_t *)from)[i * from_stride];
    }
}

/* oneDNN 3.7 with AVX-512 takes every vector for a contiguous one, whatever its stride: those that are not go
 * through copies. */
tw_status tw_matmul_dnnl(int64_t m, int64_t n, int64_t k, tw_matrix a, tw_matrix b, bool add, void *c,
                         tw_dtype c_dtype, int64_t c_stride) {
    bool pack_a = m == 1 && k > 1 && a.transposed && a.stride > 1;
    bool pack_b = n == 1 && k > 1 && !b.transposed && b.stride > 1, pack_c = n == 1 && m > 1 && c_stride > 1;
    if (!pack_a && !pack_b && !pack_c) return multiply(m, n, k, a, b, add, c, c_dtype, c_stride);
    char *copies = malloc((size_t)(2 * k + m) * sizeof(float)), *copy_b = copies + (size_t)k * sizeof(float),
         *copy_c = copy_b + (size_t)k * sizeof(float);
    if (!copies) return FAIL(TW_ERR_MEMORY, "out of memory: vectors of %lld", (long long)(2 * k + m));
    if (pack_a) {
        copy_vector(copies, 1, a.data, a.stride, k, a.dtype);
        a = (tw_matrix){copies, a.dtype, k, false};
    }
    if (pack_b) {
        copy_vector(copy_b, 1, b.data, b.stride, k, b.dtype);
        b = (tw_matrix){copy_b, b.dtype, k, true};
    }
    if (pack_c && add) copy_vector(copy_c, 1, c, c_stride, m, c_dtype);
    tw_status status = multiply(m, n, k, a, b, add, pack_c ? copy_c : c, c_dtype, pack_c ? 1 : c_stride);
    if (pack_c && status == TW_OK) copy_vector(c, c_stride, copy_c, 1, m, c_dtype);
    free(copies);
    return status;
}

void tw_matmul_dnnl_release(void) {
    for (int i = 0; cache && i < CACHED; i++) product_free(&cache[i]);
    free(cache);
    free(scratch);
    if (stream) dnnl_stream_destroy(stream);
    if (engine) dnnl_engine_destroy(engine);
    cache = NULL, scratch = NULL, stream = NULL, engine = NULL;
    scratch_size = 0, next = 0;
}
