#include "autograd/op.h"
#include "autograd/parallel.h"

#include <math.h>

/* AdamW (Loshchilov and Hutter 2019, as PyTorch rounds it), in place over the segments of a slab:
 *     p -= lr wd p;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
 *     p -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)
 * then p is clamped to the segment's range. g is scaled by step->gradient_scale.
 * inputs: p, g, m, v (n) f32; copies (n) bf16 or absent, refreshed
 * from p. */

tw_status tw_adamw_shape(tw_call *c) {
    int64_t n = tw_present(&c->input[0]) ? tw_tensor_count(&c->input[0]) : 0;
    static const char *const names[] = {"values", "gradients", "m", "v"};
    for (int i = 0; i < 4; i++) TRY(tw_call_check_f32(c, i, names[i], 1, &n));
    if (tw_present(&c->input[4])) TRY(tw_call_check(c, 4, "copies", TW_BF16, 1, &n));
    return TW_OK;
}

static void update(const tw_call *c, int64_t begin, int64_t end, const tw_segment *segment) {
    const tw_adamw_attr *attr = c->attr;
    const tw_step *s = c->step;
    float *restrict p = c->input[0].data, *restrict m = c->input[2].data, *restrict v = c->input[3].data;
    const float *restrict g = c->input[1].data;
    float keep = 1.0f - s->lr * segment->weight_decay, rate = s->lr / s->bias_correction1;
    float root = sqrtf(s->bias_correction2), b1 = attr->beta1, b2 = attr->beta2, eps = attr->eps;
    float scale = s->gradient_scale;
#pragma omp simd
    for (int64_t i = begin; i < end; i++) {
        float gi = g[i] * scale;
        float mi = b1 * m[i] + (1.0f - b1) * gi;
        float vi = b2 * v[i] + (1.0f - b2) * gi * gi;
        m[i] = mi;
        v[i] = vi;
        p[i] = p[i] * keep - rate * mi / (sqrtf(vi) / root + eps);
    }
    if (segment->low > -INFINITY || segment->high < INFINITY)
        for (int64_t i = begin; i < end; i++) p[i] = fminf(fmaxf(p[i], segment->low), segment->high);
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
