#include "autograd/cuda/scratch.h"
#include "autograd/parallel.h"
#include "autograd/random.h"

#include <stdlib.h>

/* Patch masking (FLIP: Li et al. 2022, "Scaling Language-Image Pre-training via Masking"): each image of a
 * step keeps `keep` of its patches, drawn without repetition. input: any tensor (B,...), read for B alone;
 * output: (B,keep) i32, the patches' numbers, ascending.
 *
 * Kept are the patches with the smallest words of the draw (seed, TW_DRAW_MASK, step, sample): every subset
 * is as likely as any other, and it depends on the sample's place in the global batch only. Equal words: the
 * smaller number first. */

tw_status tw_choose_patches_shape(tw_call *c) {
    const tw_choose_patches_attr *attr = c->attr;
    const tw_tensor *x = &c->input[0];
    if (!tw_present(x) || x->ndim < 1) return FAIL(TW_ERR_SHAPE, "choose_patches: a batch (B,...) is needed");
    if (attr->keep < 1 || attr->keep > attr->patches)
        return FAIL(TW_ERR_ARGUMENT, "choose_patches: %d of %d patches cannot be kept", attr->keep,
                    attr->patches);
    int64_t kept[2] = {x->shape[0], attr->keep};
    tw_call_output(c, 0, TW_I32, 2, kept);
    int64_t blocks = (attr->patches + 3) / 4;
    c->forward_scratch = (size_t)(tw_threads() * blocks * 4) * (sizeof(uint64_t) + sizeof(uint32_t));
    tw_call_scratch_cuda(c, 0, 0);
    return TW_OK;
}

static int by_key(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int by_number(const void *a, const void *b) {
    return *(const int32_t *)a - *(const int32_t *)b;
}

/* keys and words hold a multiple of 4 elements. */
static void choose(const tw_choose_patches_attr *attr, const tw_draw *draw, uint64_t *keys, uint32_t *words,
                   int32_t *kept) {
    tw_random_words(draw, 0, (attr->patches + 3) / 4, words);
    for (int i = 0; i < attr->patches; i++) keys[i] = (uint64_t)words[i] << 32 | (uint32_t)i;
    qsort(keys, (size_t)attr->patches, sizeof *keys, by_key);
    for (int i = 0; i < attr->keep; i++) kept[i] = (int32_t)(keys[i] & UINT32_MAX);
    qsort(kept, (size_t)attr->keep, sizeof *kept, by_number);
}

tw_status tw_choose_patches_forward_cpu(const tw_call *c) {
    const tw_choose_patches_attr *attr = c->attr;
    int64_t images = c->output[0].shape[0], room = (attr->patches + 3) / 4 * 4;
    int threads = tw_threads();
    uint64_t *keys = c->scratch;
    uint32_t *words = (uint32_t *)(keys + threads * room);
    int32_t *kept = c->output[0].data;
#pragma omp parallel
    {
        int64_t mine = omp_get_thread_num() * room;
        tw_range r = tw_my_share(images);
        for (int64_t i = r.begin; i < r.end; i++) {
            tw_draw draw = {.seed = c->step->seed,
                            .purpose = TW_DRAW_MASK,
                            .step = c->step->step,
                            .sample = c->step->sample + (uint32_t)i};
            choose(attr, &draw, keys + mine, words + mine, kept + i * attr->keep);
        }
    }
    return TW_OK;
}
