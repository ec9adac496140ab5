#include "autograd/cuda/scratch.h"
#include "autograd/op.h"
#include "autograd/ops/gradient_rule_math.h"
#include "autograd/ops/unit_norm.h"
#include "autograd/parallel.h"

#include <math.h>

/* What the norms of a gradient's units say. inputs: norms (n) f32?, of all units (absent: they are measured
 * here, as finite_norm would); places (n) i32?, where the norm of unit u is (absent: at u); gradients (m)
 * f32, the slab that the units cut; steps (2) i32: Adam's steps so far, in place, and 0, in which a GPU
 * counts its blocks and which it leaves 0. outputs: norm (3) f32, of the whole, split (split_math.h); found
 * (3) i32: the first unit whose norm is not finite and in it the first element that is not finite (or the
 * largest, if its square overflowed), and whether all in attr->rest is finite; -1, 0, 1 where every norm is.
 * The factors of the step are written into attr->record, unless that is NULL: then `steps` stays as well.
 *
 * Squares are added in f64: here in the units' order, on a GPU in an order that is fixed as well. */

enum { NORMS, PLACES, GRADIENTS, STEPS };

tw_status tw_gradient_rule_shape(tw_call *c) {
    const tw_gradient_rule_attr *attr = c->attr;
    const int64_t two = 2, split = TW_SPLIT, three = 3;
    bool given = tw_present(&c->input[NORMS]);
    int64_t m = tw_present(&c->input[GRADIENTS]) ? tw_tensor_count(&c->input[GRADIENTS]) : 0;
    int64_t units = attr->unit > 0 ? (m + attr->unit - 1) / attr->unit : -1;
    int64_t n = given ? tw_tensor_count(&c->input[NORMS]) : units;
    if (given) TRY(tw_call_check_f32(c, NORMS, "norms", 1, &n));
    if (!given && tw_present(&c->input[PLACES]))
        return FAIL(TW_ERR_ARGUMENT, "gradient_rule: places of norms that are not given");
    if (given && tw_present(&c->input[PLACES])) TRY(tw_call_check(c, PLACES, "places", TW_I32, 1, &n));
    TRY(tw_call_check_f32(c, GRADIENTS, "gradients", 1, &m));
    TRY(tw_call_check(c, STEPS, "steps", TW_I32, 1, &two));
    if (units < 0 || units != n)
        return FAIL(TW_ERR_SHAPE, "gradient_rule: %lld elements in units of %d are not %lld units",
                    (long long)m, attr->unit, (long long)n);
    tw_call_output(c, 0, TW_F32, 1, &split);
    tw_call_output(c, 1, TW_I32, 1, &three);
    if (!given) c->forward_scratch = (size_t)n * sizeof(float);
    tw_call_scratch_cuda(c, tw_rule_scratch(n), 0);
    return TW_OK;
}

/* The units' norms, measured into `room` where none are given. */
static const float *norms_of(const tw_call *c, int64_t unit, int64_t n, int64_t m, float *room) {
    if (tw_present(&c->input[NORMS])) return c->input[NORMS].data;
    const float *g = c->input[GRADIENTS].data;
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t u = 0; u < n; u++)
        room[u] = tw_unit_norm(g + u * unit, m - u * unit < unit ? m - u * unit : unit);
    return room;
}

static int32_t worst_of(const float *g, int64_t n) {
    int64_t worst = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(g[i])) return (int32_t)i;
        if (fabsf(g[i]) > fabsf(g[worst])) worst = i;
    }
    return (int32_t)worst;
}

static bool rest_is_finite(const tw_gradient_rule_attr *attr, const float *g) {
    for (int64_t s = 0; s < attr->n_rest; s++)
        for (int64_t i = 0; i < attr->rest[s].count; i++)
            if (!isfinite(g[attr->rest[s].offset + i])) return false;
    return true;
}

tw_status tw_gradient_rule_forward_cpu(const tw_call *c) {
    const tw_gradient_rule_attr *attr = c->attr;
    const float *g = c->input[GRADIENTS].data;
    const int32_t *places = tw_present(&c->input[PLACES]) ? c->input[PLACES].data : NULL;
    int64_t m = tw_tensor_count(&c->input[GRADIENTS]), n = (m + attr->unit - 1) / attr->unit;
    const float *norms = norms_of(c, attr->unit, n, m, c->scratch);
    int32_t *found = c->output[1].data;
    double square = 0;
    found[0] = -1, found[1] = 0, found[2] = 1;
    for (int64_t u = 0; u < n; u++) {
        double norm = (double)norms[places ? places[u] : u];
        square += norm * norm;
        if (found[0] < 0 && !isfinite(norm)) found[0] = (int32_t)u;
    }
    tw_split(sqrt(square), c->output[0].data);
    if (found[0] >= 0) {
        int64_t at = (int64_t)found[0] * attr->unit;
        found[1] = worst_of(g + at, m - at < attr->unit ? m - at : attr->unit);
        found[2] = rest_is_finite(attr, g);
    }
    tw_gradient_rule(attr, sqrt(square), found[0] >= 0, c->input[STEPS].data);
    return TW_OK;
}
