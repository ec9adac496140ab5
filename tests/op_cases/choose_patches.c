#include "autograd/random.h"
#include "op_case.h"

#include <math.h>

/* A patch is kept if fewer than `keep` patches have a smaller word of the draw, equal ones counted by number.
 */
static void reference(const op_config *config, op_value *in, op_value *out) {
    const tw_choose_patches_attr *attr = config->attr;
    int64_t images = in[0].shape[0];
    op_expect_shape(&out[0], 2, (int64_t[]){images, attr->keep});
    for (int64_t b = 0; b < images; b++) {
        tw_draw draw = {config->step.seed, TW_DRAW_MASK, 0, config->step.step,
                        config->step.sample + (uint32_t)b};
        int at = 0;
        for (uint32_t i = 0; i < (uint32_t)attr->patches; i++) {
            int smaller = 0;
            uint32_t mine = tw_random_u32(&draw, i);
            for (uint32_t j = 0; j < (uint32_t)attr->patches; j++) {
                uint32_t other = tw_random_u32(&draw, j);
                smaller += other < mine || (other == mine && j < i);
            }
            if (smaller < attr->keep) out[0].v[b * attr->keep + at++] = i;
        }
    }
}

static const tw_choose_patches_attr half = {.patches = 16, .keep = 8}, odd = {.patches = 9, .keep = 7},
                                    one = {.patches = 5, .keep = 1}, all = {.patches = 6, .keep = 6},
                                    large = {.patches = 577, .keep = 30}, none = {.patches = 4},
                                    more = {.patches = 4, .keep = 5};

#define PIXELS(...)                                                                                          \
    {                                                                                                        \
        { OP_SHAPE(__VA_ARGS__), .dtype = OP_U8, .low = 0, .high = 256 }                                     \
    }

static const op_config configs[] = {
    {.name = "half",
     .attr = &half,
     .input = PIXELS(3, 8, 8, 3),
     .step = {.seed = 3, .step = 9, .sample = 64}},
    {.name = "odd", .attr = &odd, .input = PIXELS(4, 2), .step = {.seed = 1ull << 40, .step = 1}},
    {.name = "one is left", .attr = &one, .input = PIXELS(7, 1), .step = {.seed = 2}},
    {.name = "all are kept", .attr = &all, .input = PIXELS(2, 1)},
    {.name = "many", .attr = &large, .input = PIXELS(5), .step = {.seed = 123, .step = 1000, .sample = 7}},
    {.name = "no images", .attr = &half, .input = PIXELS(0, 8, 8, 3)},
    {.name = "none is left",
     .attr = &none,
     .input = PIXELS(1, 1),
     .fails = TW_ERR_ARGUMENT,
     .message = "0 of 4 patches cannot be kept"},
    {.name = "more than there are",
     .attr = &more,
     .input = PIXELS(1, 1),
     .fails = TW_ERR_ARGUMENT,
     .message = "5 of 4 patches"},
    {.name = "no batch", .attr = &half, .input = {{0}}, .fails = TW_ERR_SHAPE, .message = "(B,...)"},
};

enum { PATCHES = 16, KEEP = 6, IMAGES = 3000 };

static tw_status draw_all(uint32_t seed, uint32_t number, uint32_t sample, int64_t images, int32_t *kept) {
    static uint64_t scratch[4096];
    static uint8_t pixel;
    tw_choose_patches_attr attr = {.patches = PATCHES, .keep = KEEP};
    tw_step step = {.seed = seed, .step = number, .sample = sample};
    tw_device *device;
    TRY(tw_device_cpu(2, &device));
    tw_call c = {.op = TW_OP_choose_patches, .device = device, .attr = &attr, .n_inputs = 1, .step = &step};
    c.input[0] = tw_tensor_of(&pixel, TW_U8, 1, &images);
    tw_status status = tw_op_prepare(&c);
    c.output[0].data = kept, c.scratch = scratch;
    if (status == TW_OK && c.forward_scratch <= sizeof scratch) status = tw_op_forward(&c);
    tw_device_free(device);
    return status;
}

/* Each patch is kept as often as any other, whatever its neighbour's fate; samples, steps and seeds have
 * draws of their own; a sample's draw does not depend on the call that it is in. */
static const char *is_fair(void) {
    static int32_t kept[IMAGES * KEEP], other[IMAGES * KEEP];
    int single[PATCHES] = {0}, pair = 0;
    if (draw_all(5, 17, 0, IMAGES, kept)) return "forward fails";
    for (int b = 0; b < IMAGES; b++) {
        bool in[PATCHES] = {false};
        for (int i = 0; i < KEEP; i++) in[kept[b * KEEP + i]] = true;
        for (int i = 0; i < PATCHES; i++) single[i] += in[i];
        pair += in[3] && in[4];
    }
    double p = (double)KEEP / PATCHES, both = p * (KEEP - 1) / (PATCHES - 1);
    for (int i = 0; i < PATCHES; i++) /* five standard deviations */
        if (fabs(single[i] - IMAGES * p) > 5 * sqrt(IMAGES * p * (1 - p))) return "a patch has an advantage";
    if (fabs(pair - IMAGES * both) > 5 * sqrt(IMAGES * both * (1 - both)))
        return "neighbours depend on each other";
    const uint32_t keys[3][3] = {{6, 17, 0}, {5, 18, 0}, {5, 17, 1}};
    for (int k = 0; k < 3; k++) {
        int same = 0;
        if (draw_all(keys[k][0], keys[k][1], keys[k][2], IMAGES, other)) return "forward fails";
        for (int b = 0; b < IMAGES; b++)
            same += memcmp(kept + b * KEEP, other + b * KEEP, KEEP * sizeof *kept) == 0;
        if (same > 10) return "another seed, step or sample repeats the masks"; /* 3000 / 8008 are expected */
    }
    if (draw_all(5, 17, 1000, 7, other)) return "forward fails";
    if (memcmp(other, kept + 1000 * KEEP, 7 * KEEP * sizeof *kept) != 0)
        return "a sample's mask depends on its call";
    return NULL;
}

const op_case op_case_choose_patches = {.reference = reference, OP_CONFIGS(configs), .also = is_fair};
