#include "autograd/cuda/launch.h"
#include "autograd/ops/gradient_rule_math.h"

/* One block: the norms are 1/1024 of the gradient. */

namespace {

enum { THREADS = 1024 };

struct rule_args {
    tw_gradient_rule_attr attr;
    const float *norms, *gradients;
    const int32_t *places;
    int64_t n, m;
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

__global__ void __launch_bounds__(THREADS) gradient_rule_forward(rule_args a) {
    double square = 0.0, bad = (double)INFINITY;
    for (int64_t u = threadIdx.x; u < a.n; u += THREADS) {
        float norm = a.norms[a.places ? (int64_t)a.places[u] : u];
        square += (double)norm * (double)norm;
        if (!(norm < INFINITY) && (double)u < bad) bad = (double)u; /* norms are not negative */
    }
    square = tw_block_sum(square);
    bad = first_of(bad, bad < (double)INFINITY);
    bool is_bad = bad < (double)INFINITY;
    int32_t element = 0;
    bool finite = true;
    if (is_bad) {
        int64_t at = (int64_t)bad * a.attr.unit;
        element = worst_of(a.gradients + at, a.m - at < a.attr.unit ? a.m - at : a.attr.unit);
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
    a.norms = (const float *)c->input[0].data;
    if (tw_present(&c->input[1])) a.places = (const int32_t *)c->input[1].data;
    a.gradients = (const float *)c->input[2].data;
    a.steps = (int32_t *)c->input[3].data;
    a.n = tw_tensor_count(&c->input[0]), a.m = tw_tensor_count(&c->input[2]);
    a.norm = (float *)c->output[0].data, a.found = (int32_t *)c->output[1].data;
    return TW_LAUNCH(c->device, gradient_rule_forward, 1, THREADS, 0, a);
}
