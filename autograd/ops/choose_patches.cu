#include "autograd/cuda/rows.h"

/* output: (B,keep) i32: per image the patches with the smallest words of its draw, ascending
 * (choose_patches.c). A block an image: every patch counts the smaller words, and then the kept patches
 * before it. */

namespace {

enum { THREADS = 256, MOST = 8192 };

struct choose_args {
    const tw_step *step;
    int32_t *out;
    int patches, keep;
};

__global__ void choose_patches_forward(choose_args a) {
    TW_DYNAMIC_SHARED(uint32_t, word);
    uint8_t *kept = reinterpret_cast<uint8_t *>(word + a.patches);
    tw_draw draw;
    draw.seed = a.step->seed, draw.purpose = TW_DRAW_MASK, draw.layer = 0, draw.step = a.step->step;
    draw.sample = a.step->sample + blockIdx.x;
    for (int i = 4 * (int)threadIdx.x; i < a.patches; i += 4 * THREADS) {
        uint32_t four[4];
        tw_random4(&draw, (uint32_t)i / 4, four);
        for (int e = 0; e < 4 && i + e < a.patches; e++) word[i + e] = four[e];
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < a.patches; i += THREADS) {
        int smaller = 0;
        for (int j = 0; j < a.patches; j++) smaller += word[j] < word[i] || (word[j] == word[i] && j < i);
        kept[i] = smaller < a.keep;
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < a.patches; i += THREADS) {
        int before = 0;
        for (int j = 0; j < i; j++) before += kept[j];
        if (kept[i]) a.out[(int64_t)blockIdx.x * a.keep + before] = i;
    }
}

} // namespace

tw_status tw_choose_patches_forward_cuda(const tw_call *c) {
    const tw_choose_patches_attr *attr = (const tw_choose_patches_attr *)c->attr;
    choose_args a = {c->step, (int32_t *)c->output[0].data, attr->patches, attr->keep};
    if (a.patches > MOST)
        return FAIL(TW_ERR_UNSUPPORTED, "%d patches an image; the CUDA kernel takes at most %d", a.patches,
                    (int)MOST);
    return TW_LAUNCH(c->device, choose_patches_forward, (unsigned)c->output[0].shape[0], THREADS,
                     (size_t)a.patches * 5, a);
}
