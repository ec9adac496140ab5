#include "autograd/op.h"
#include "autograd/ops/adamw_math.h"
#include "autograd/parallel.h"

#include <math.h>

/* AdamW (adamw_math.h), in place over the segments of a slab; then p is clamped to the segment's range. g is
 * scaled by step->gradient_scale.
 * inputs: p, g, m, v (n) f32; copies (n) bf16 or absent, refreshed from p. */

tw_status tw_adamw_shape(tw_call *c) {
    int64_t n = tw_present(&c->input[0]) ? tw_tensor_count(&c->input[0]) : 0;
    static const char *const names[] = {"values", "gradients", "m", "v"};
    for (int i = 0; i < 4; i++) TRY(tw_call_check_f32(c, i, names[i], 1, &n));
    if (tw_present(&c->input[4])) TRY(tw_call_check(c, 4, "copies", TW_BF16, 1, &n));
    return TW_OK;
}

static void update(const tw_call *c, int64_t begin, int64_t end, const tw_segment *segment) {
    const tw_adamw_attr *attr = c->attr;
    float *restrict p = c->input[0].data, *restrict m = c->input[2].data, *restrict v = c->input[3].data;
    const float *restrict g = c->input[1].data;
    tw_adamw_rule rule =
        tw_adamw_rule_of(c->step, attr->beta1, attr->beta2, attr->eps, segment->weight_decay);
#pragma omp simd
    for (int64_t i = begin; i < end; i++) tw_adamw_update(&rule, g[i], &p[i], &m[i], &v[i]);
    if (segment->low > -INFINITY || segment->high < INFINITY)
        for (int64_t i = begin; i < end; i++) p[i] = tw_adamw_clamp(p[i], segment->low, segment->high);
    uint16_t *restrict copies = tw_present(&c->input[4]) ? c->input[4].data : NULL;
    for (int64_t i = begin; copies && i < end; i++) copies[i] = tw_to_bf16(p[i]);
}

tw_status tw_adamw_forward_cpu(const tw_call *c) {
    const tw_adamw_attr *attr = c->attr;
    if (c->step->skip) return TW_OK;
    /* Elements do not depend on each other: blocks of segments go to threads in any order. */
    enum { BLOCK = 1 << 14 };
#pragma omp parallel
    for (int64_t k = 0; k < attr->count; k++) {
        tw_segment s = attr->segments[k];
        int64_t blocks = (s.count + BLOCK - 1) / BLOCK;
#pragma omp for schedule(static) nowait
        for (int64_t b = 0; b < blocks; b++) {
            int64_t begin = b * BLOCK, end = begin + BLOCK < s.count ? begin + BLOCK : s.count;
            update(c, s.offset + begin, s.offset + end, &s);
        }
    }
    return TW_OK;
}
