#include "autograd/cuda/rows.h"
#include "autograd/ops/adamw_math.h"

/* inputs: p, g, m, v (n) f32; copies (n) bf16 or absent. One launch over the slab: a block has CHUNK
 * elements, finds the segments that meet them and updates what they share, in any order, for elements do not
 * depend on each other. */

namespace {

enum { THREADS = 256, CHUNK = 8192 };

struct adamw_args {
    float *p, *m, *v;
    const float *g;
    tw_bf16 *copies;
    const tw_segment *segments;
    const tw_step *step;
    int64_t n, count;
    float beta1, beta2, eps;
    bool wide;
};

TW_DEVICE void update_pack(const adamw_args &a, const tw_adamw_rule &rule, const tw_segment &s, int64_t i) {
    float p[TW_PACK], m[TW_PACK], v[TW_PACK], g[TW_PACK];
    tw_load8(a.p + i, p), tw_load8(a.g + i, g), tw_load8(a.m + i, m), tw_load8(a.v + i, v);
#pragma unroll
    for (int e = 0; e < TW_PACK; e++) {
        tw_adamw_update(&rule, g[e], &p[e], &m[e], &v[e]);
        p[e] = tw_adamw_clamp(p[e], s.low, s.high);
    }
    tw_store8(a.p + i, p), tw_store8(a.m + i, m), tw_store8(a.v + i, v);
    if (a.copies) tw_store8(a.copies + i, p);
}

TW_DEVICE void update_one(const adamw_args &a, const tw_adamw_rule &rule, const tw_segment &s, int64_t i) {
    float p = a.p[i], m = a.m[i], v = a.v[i];
    tw_adamw_update(&rule, a.g[i], &p, &m, &v);
    p = tw_adamw_clamp(p, s.low, s.high);
    a.p[i] = p, a.m[i] = m, a.v[i] = v;
    if (a.copies) tw_put(a.copies + i, p);
}

/* Elements [begin, end) of a segment, by the whole block. */
TW_DEVICE void update_range(const adamw_args &a, const tw_segment &s, int64_t begin, int64_t end) {
    tw_adamw_rule rule = tw_adamw_rule_of(a.step, a.beta1, a.beta2, a.eps, s.weight_decay);
    for (int64_t i = begin / TW_PACK * TW_PACK + threadIdx.x * TW_PACK; i < end; i += THREADS * TW_PACK) {
        if (a.wide && i >= begin && i + TW_PACK <= end) {
            update_pack(a, rule, s, i);
            continue;
        }
        for (int64_t k = i < begin ? begin : i; k < i + TW_PACK && k < end; k++) update_one(a, rule, s, k);
    }
}

__global__ void adamw_forward(adamw_args a) {
    __shared__ tw_segment found[THREADS];
    __shared__ int n;
    if (a.step->skip) return;
    int64_t begin = (int64_t)blockIdx.x * CHUNK, end = begin + CHUNK < a.n ? begin + CHUNK : a.n;
    for (int64_t first = 0; first < a.count; first += THREADS) {
        __syncthreads();
        if (threadIdx.x == 0) n = 0;
        __syncthreads();
        if (first + threadIdx.x < a.count) {
            tw_segment s = a.segments[first + threadIdx.x];
            if (s.offset < end && s.offset + s.count > begin) found[atomicAdd(&n, 1)] = s;
        }
        __syncthreads();
        for (int k = 0; k < n; k++) {
            const tw_segment &s = found[k];
            int64_t last = s.offset + s.count;
            update_range(a, s, s.offset > begin ? s.offset : begin, last < end ? last : end);
        }
    }
}

} // namespace

tw_status tw_adamw_forward_cuda(const tw_call *c) {
    const tw_adamw_attr *attr = (const tw_adamw_attr *)c->attr;
    adamw_args a = {};
    a.p = (float *)c->input[0].data, a.m = (float *)c->input[2].data, a.v = (float *)c->input[3].data;
    a.g = (const float *)c->input[1].data;
    if (tw_present(&c->input[4])) a.copies = (tw_bf16 *)c->input[4].data;
    a.segments = attr->segments, a.count = attr->count, a.step = c->step;
    a.n = tw_tensor_count(&c->input[0]);
    a.beta1 = attr->beta1, a.beta2 = attr->beta2, a.eps = attr->eps;
    a.wide =
        ((uintptr_t)a.p | (uintptr_t)a.g | (uintptr_t)a.m | (uintptr_t)a.v | (uintptr_t)a.copies) % 16 == 0;
    return TW_LAUNCH(c->device, adamw_forward, tw_blocks(a.n, CHUNK), THREADS, 0, a);
}
