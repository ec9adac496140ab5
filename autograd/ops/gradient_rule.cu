#include "autograd/cuda/unit_norm.h"
#include "autograd/ops/gradient_rule_math.h"

/* One launch from the gradient to the step's factors. A block has TW_RULE_GROUP units, whose norms it
 * measures or reads, and leaves what it found; the block that ends last adds that up in the blocks' order,
 * whichever it is, and goes on to the rule. */

namespace {

enum { THREADS = 256, WARPS = THREADS / TW_WARP, GROUP = TW_RULE_GROUP };

/* Of a group of units. */
struct part {
    double square;
    double bad; /* the first unit whose norm is not finite; INFINITY: none */
};

struct rule_args {
    tw_gradient_rule_attr attr;
    const float *norms, *gradients; /* norms: NULL: to be measured */
    const int32_t *places;
    int64_t n, m;
    part *parts;     /* a block */
    int32_t *blocks; /* that have ended; 0 before and after */
    int32_t *steps, *found;
    float *norm;
};

/* The smallest of the block's indexes; -INFINITY's none stands for 'nobody has one'. */
TW_DEVICE double first_of(double index, bool has) {
    return -tw_block_max(has ? -index : -(double)INFINITY);
}

/* The first element that is not finite; where all are, the first of the largest. */
TW_DEVICE int32_t worst_of(const float *g, int64_t n) {
    float most = 0.0f;
    double bad = (double)INFINITY, large = (double)INFINITY;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        if (!(fabsf(g[i]) < INFINITY) && (double)i < bad) bad = (double)i;
        most = fmaxf(most, fabsf(g[i]));
    }
    bad = first_of(bad, bad < (double)INFINITY);
    most = tw_block_max(most);
    for (int64_t i = threadIdx.x; i < n; i += THREADS)
        if (fabsf(g[i]) == most && (double)i < large) large = (double)i;
    large = first_of(large, large < (double)INFINITY);
    return (int32_t)(bad < (double)INFINITY ? bad : large);
}

/* One block reads all of it, which takes a while; but no step comes of it. */
TW_DEVICE bool rest_is_finite(const rule_args &a) {
    double bad = 0.0;
    for (int64_t s = 0; s < a.attr.n_rest; s++) {
        const float *g = a.gradients + a.attr.rest[s].offset;
        for (int64_t i = threadIdx.x; i < a.attr.rest[s].count; i += THREADS)
            if (!(fabsf(g[i]) < INFINITY)) bad = 1.0;
    }
    return tw_block_max(bad) == 0.0;
}

/* Of the unit that begins there. */
TW_DEVICE int64_t unit_size(const rule_args &a, int64_t at) {
    return a.m - at < a.attr.unit ? a.m - at : a.attr.unit;
}

/* The norms of the block's units to shared memory. */
TW_DEVICE void find_norms(const rule_args &a, int64_t first, int n, float *norms) {
    if (a.norms) {
        int u = (int)threadIdx.x;
        if (u < n) norms[u] = a.norms[a.places ? (int64_t)a.places[first + u] : first + u];
        return;
    }
    for (int u = (int)threadIdx.x / TW_WARP; u < n; u += WARPS) {
        int64_t at = (first + u) * a.attr.unit;
        float norm = tw_unit_norm(a.gradients + at, unit_size(a, at));
        if (threadIdx.x % TW_WARP == 0) norms[u] = norm;
    }
}

/* The block's part; thread 0 leaves it. */
TW_DEVICE void leave_part(const rule_args &a, int64_t first, int n, const float *norms) {
    double square = 0.0, bad = (double)INFINITY;
    if (threadIdx.x >= TW_WARP) return;
    for (int u = (int)threadIdx.x; u < n; u += TW_WARP) {
        square += (double)norms[u] * (double)norms[u];
        if (!(norms[u] < INFINITY) && (double)(first + u) < bad) bad = (double)(first + u); /* not negative */
    }
    square = tw_warp_sum(square), bad = -tw_warp_max(-bad);
    if (threadIdx.x == 0) a.parts[blockIdx.x] = part{square, bad};
}

/* Whether all other blocks have left their parts; what they wrote is then seen by the whole block. Thread 0
 * is the one that wrote this block's. */
TW_DEVICE bool ends_last(const rule_args &a) {
    __shared__ bool last;
    if (threadIdx.x == 0) {
        __threadfence(); /* the part before the count ... */
        last = atomicAdd(a.blocks, 1) == (int32_t)gridDim.x - 1;
        __threadfence(); /* ... and the count before others' parts */
        if (last) *a.blocks = 0;
    }
    __syncthreads();
    return last;
}

__global__ void __launch_bounds__(THREADS) gradient_rule_forward(rule_args a) {
    __shared__ float norms[GROUP];
    int64_t group = (int64_t)blockIdx.x * GROUP;
    int n = (int)(a.n - group < GROUP ? a.n - group : (int64_t)GROUP);
    find_norms(a, group, n, norms);
    __syncthreads();
    leave_part(a, group, n, norms);
    if (!ends_last(a)) return;
    double square = 0.0, bad = (double)INFINITY;
    for (unsigned b = threadIdx.x; b < gridDim.x; b += THREADS) {
        square += a.parts[b].square;
        bad = a.parts[b].bad < bad ? a.parts[b].bad : bad;
    }
    square = tw_block_sum(square);
    bad = first_of(bad, bad < (double)INFINITY);
    bool is_bad = bad < (double)INFINITY;
    int32_t element = 0;
    bool finite = true;
    if (is_bad) {
        int64_t at = (int64_t)bad * a.attr.unit;
        element = worst_of(a.gradients + at, unit_size(a, at));
        finite = rest_is_finite(a);
    }
    if (threadIdx.x != 0) return;
    double norm = sqrt(square);
    tw_split(norm, a.norm);
    a.found[0] = is_bad ? (int32_t)bad : -1;
    a.found[1] = element;
    a.found[2] = finite;
    tw_gradient_rule(&a.attr, norm, is_bad, a.steps);
}

} // namespace

tw_status tw_gradient_rule_forward_cuda(const tw_call *c) {
    rule_args a = {};
    a.attr = *(const tw_gradient_rule_attr *)c->attr;
    if (tw_present(&c->input[0])) a.norms = (const float *)c->input[0].data;
    if (tw_present(&c->input[1])) a.places = (const int32_t *)c->input[1].data;
    a.gradients = (const float *)c->input[2].data;
    a.steps = (int32_t *)c->input[3].data;
    a.blocks = a.steps + 1, a.parts = (part *)c->scratch;
    a.m = tw_tensor_count(&c->input[2]), a.n = (a.m + a.attr.unit - 1) / a.attr.unit;
    a.norm = (float *)c->output[0].data, a.found = (int32_t *)c->output[1].data;
    return TW_LAUNCH(c->device, gradient_rule_forward, (unsigned)tw_rule_groups(a.n), THREADS, 0, a);
}
