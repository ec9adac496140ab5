#include "data/augment.h"

#include "autograd/random.h"
#include "data/augment_ops.h"
#include "data/resize.h"

#include <math.h>
#include <string.h>

const char *tw_augment_name(tw_augment_kind kind) {
    static const char *const names[TW_AUGMENT_KINDS] = {
        "PosterizeOriginal", "Solarize", "AutoContrast", "Equalize", "Invert", "Rotate", "ShearX", "Color",
        "Contrast",          "Sharpness"};
    return (unsigned)kind < TW_AUGMENT_KINDS ? names[kind] : "?";
}

/* The original policy (Cubuk et al., "AutoAugment", 2018, table 9): pairs of operation, tenths of
 * probability, magnitude 0 to 9. */
typedef struct step {
    uint8_t kind, tenths, magnitude;
} step;

#define POSTERIZE TW_AUGMENT_POSTERIZE
#define SOLARIZE TW_AUGMENT_SOLARIZE
#define CONTRASTS TW_AUGMENT_AUTO_CONTRAST
#define EQUALIZE TW_AUGMENT_EQUALIZE
#define INVERT TW_AUGMENT_INVERT
#define ROTATE TW_AUGMENT_ROTATE
#define SHEAR TW_AUGMENT_SHEAR_X
#define COLOR TW_AUGMENT_COLOR
#define CONTRAST TW_AUGMENT_CONTRAST
#define SHARP TW_AUGMENT_SHARPNESS
static const step pairs[25][2] = {
    {{POSTERIZE, 4, 8}, {ROTATE, 6, 9}},  {{SOLARIZE, 6, 5}, {CONTRASTS, 6, 5}},
    {{EQUALIZE, 8, 8}, {EQUALIZE, 6, 3}}, {{POSTERIZE, 6, 7}, {POSTERIZE, 6, 6}},
    {{EQUALIZE, 4, 7}, {SOLARIZE, 2, 4}}, {{EQUALIZE, 4, 4}, {ROTATE, 8, 8}},
    {{SOLARIZE, 6, 3}, {EQUALIZE, 6, 7}}, {{POSTERIZE, 8, 5}, {EQUALIZE, 10, 2}},
    {{ROTATE, 2, 3}, {SOLARIZE, 6, 8}},   {{EQUALIZE, 6, 8}, {POSTERIZE, 4, 6}},
    {{ROTATE, 8, 8}, {COLOR, 4, 0}},      {{ROTATE, 4, 9}, {EQUALIZE, 6, 2}},
    {{EQUALIZE, 0, 7}, {EQUALIZE, 8, 8}}, {{INVERT, 6, 4}, {EQUALIZE, 10, 8}},
    {{COLOR, 6, 4}, {CONTRAST, 10, 8}},   {{ROTATE, 8, 8}, {COLOR, 10, 2}},
    {{COLOR, 8, 8}, {SOLARIZE, 8, 7}},    {{SHARP, 4, 7}, {INVERT, 6, 8}},
    {{SHEAR, 6, 5}, {EQUALIZE, 10, 9}},   {{COLOR, 4, 0}, {EQUALIZE, 6, 3}},
    {{EQUALIZE, 4, 7}, {SOLARIZE, 2, 4}}, {{SOLARIZE, 6, 5}, {CONTRASTS, 6, 5}},
    {{INVERT, 6, 4}, {EQUALIZE, 10, 8}},  {{COLOR, 6, 4}, {CONTRAST, 10, 8}},
    {{EQUALIZE, 8, 8}, {EQUALIZE, 6, 3}},
};

/* ---- drawing a plan ------------------------------------------------------------------------------- */

/* Elements of the draw. Each try of the crop has four. */
enum {
    TRIES = 10,
    DRAW_AREA = 0,
    DRAW_RATIO,
    DRAW_Y,
    DRAW_X,
    DRAWS_A_TRY,
    DRAW_FLIP = 64,
    DRAW_POLICY,
    DRAW_OPS
};

static double uniform(const tw_draw *d, uint32_t element, double low, double high) {
    return low + (high - low) * tw_random_double(d, element);
}

/* Python's round(), halves to even, under the default rounding mode. */
static int round_even(double v) {
    return (int)rint(v);
}

static void draw_crop(const tw_draw *d, double min_area, int width, int height, tw_augment_plan *plan) {
    const double low = 3.0 / 4.0, high = 4.0 / 3.0, area = (double)width * height;
    for (uint32_t t = 0; t < TRIES; t++) {
        uint32_t base = t * DRAWS_A_TRY;
        double target = uniform(d, base + DRAW_AREA, min_area, 1.0) * area;
        double ratio = exp(uniform(d, base + DRAW_RATIO, log(low), log(high)));
        int w = round_even(sqrt(target * ratio)), h = round_even(sqrt(target / ratio));
        if (w > width || h > height) continue;
        plan->width = w, plan->height = h;
        plan->y = (int)tw_random_below(d, base + DRAW_Y, (uint64_t)(height - h) + 1);
        plan->x = (int)tw_random_below(d, base + DRAW_X, (uint64_t)(width - w) + 1);
        return;
    }
    plan->width = width, plan->height = height;
    double ratio = (double)width / height;
    if (ratio < low) plan->height = round_even(width / low);
    if (ratio > high) plan->width = round_even(height * high);
    plan->x = (width - plan->width) / 2, plan->y = (height - plan->height) / 2;
}

/* Magnitude to argument, in the order of timm's arithmetic. `sign` is the draw for geometric operations. */
static double argument(step s, double sign) {
    double level = s.magnitude / 10.0, direction = sign > 0.5 ? -1.0 : 1.0;
    switch ((tw_augment_kind)s.kind) {
    case TW_AUGMENT_POSTERIZE:
        return floor(level * 4) + 4;
    case TW_AUGMENT_SOLARIZE:
        return floor(level * 256);
    case TW_AUGMENT_ROTATE:
        return direction * (level * 30.0);
    case TW_AUGMENT_SHEAR_X:
        return direction * (level * 0.3);
    case TW_AUGMENT_COLOR:
    case TW_AUGMENT_CONTRAST:
    case TW_AUGMENT_SHARPNESS:
        return level * 1.8 + 0.1;
    default:
        return 0;
    }
}

void tw_augment_plan_draw(const tw_augment_policy *policy, int width, int height, uint64_t seed,
                          uint32_t epoch, uint32_t sample, tw_augment_plan *plan) {
    const tw_draw d = {.seed = seed, .purpose = TW_DRAW_AUGMENT, .step = epoch, .sample = sample};
    *plan = (tw_augment_plan){0};
    draw_crop(&d, policy->min_area, width, height, plan);
    plan->flip = tw_random_double(&d, DRAW_FLIP) < 0.5;
    if (!policy->auto_augment) return;
    const step *pair = pairs[tw_random_below(&d, DRAW_POLICY, 25)];
    for (uint32_t i = 0; i < 2; i++) {
        double skip = tw_random_double(&d, DRAW_OPS + 2 * i),
               sign = tw_random_double(&d, DRAW_OPS + 2 * i + 1);
        if (pair[i].tenths < 10 && skip > pair[i].tenths / 10.0) continue;
        plan->ops[plan->op_count++] = (tw_augment_op){(tw_augment_kind)pair[i].kind, argument(pair[i], sign)};
    }
}

/* ---- applying one --------------------------------------------------------------------------------- */

tw_status tw_augment_op_apply(const tw_augment_op *op, int width, int height, uint8_t *rgb) {
    size_t pixels = (size_t)width * (size_t)height;
    if (!isfinite(op->value))
        return FAIL(TW_ERR_ARGUMENT, "%s: its value is not finite", tw_augment_name(op->kind));
    switch (op->kind) {
    case TW_AUGMENT_POSTERIZE:
        if (op->value < 1 || op->value > 8)
            return FAIL(TW_ERR_ARGUMENT, "posterize to %g bits: 1 to 8", op->value);
        tw_posterize((int)op->value, pixels, rgb);
        return TW_OK;
    case TW_AUGMENT_SOLARIZE:
        if (op->value < 0 || op->value > 256)
            return FAIL(TW_ERR_ARGUMENT, "solarize from %g: 0 to 256", op->value);
        tw_solarize((int)op->value, pixels, rgb);
        return TW_OK;
    case TW_AUGMENT_AUTO_CONTRAST:
        tw_auto_contrast(pixels, rgb);
        return TW_OK;
    case TW_AUGMENT_EQUALIZE:
        tw_equalize(pixels, rgb);
        return TW_OK;
    case TW_AUGMENT_INVERT:
        tw_invert(pixels, rgb);
        return TW_OK;
    case TW_AUGMENT_ROTATE:
        return tw_rotate(op->value, width, height, rgb);
    case TW_AUGMENT_SHEAR_X:
        return tw_shear_x(op->value, width, height, rgb);
    case TW_AUGMENT_COLOR:
        tw_enhance_color((float)op->value, pixels, rgb);
        return TW_OK;
    case TW_AUGMENT_CONTRAST:
        tw_enhance_contrast((float)op->value, pixels, rgb);
        return TW_OK;
    case TW_AUGMENT_SHARPNESS:
        return tw_enhance_sharpness((float)op->value, width, height, rgb);
    default:
        return FAIL(TW_ERR_ARGUMENT, "augmentation of kind %d is not known", (int)op->kind);
    }
}

/* Flipping after the conversion to RGB gives the same pixels as before it, where timm does it. */
static void flip_rows(int size, uint8_t *rgb) {
    for (int y = 0; y < size; y++, rgb += 3 * (size_t)size)
        for (int left = 0, right = size - 1; left < right; left++, right--) {
            uint8_t t[3];
            memcpy(t, rgb + 3 * left, 3);
            memcpy(rgb + 3 * left, rgb + 3 * right, 3);
            memcpy(rgb + 3 * right, t, 3);
        }
}

tw_status tw_augment_apply(const tw_image *image, const tw_augment_plan *plan, int resolution, uint8_t *rgb) {
    tw_image resized;
    TRY(tw_image_resize_box(image, plan->x, plan->y, plan->width, plan->height, resolution, resolution,
                            &resized));
    tw_image_copy_rgb(&resized, rgb);
    tw_image_free(&resized);
    if (plan->flip) flip_rows(resolution, rgb);
    for (int i = 0; i < plan->op_count; i++)
        TRY(tw_augment_op_apply(&plan->ops[i], resolution, resolution, rgb));
    return TW_OK;
}

tw_status tw_image_augment(const void *bytes, size_t n, int resolution, const tw_augment_policy *policy,
                           uint64_t seed, uint32_t epoch, uint32_t sample, uint8_t *rgb) {
    if (resolution < 1 || resolution > TW_IMAGE_MAX_SIDE)
        return FAIL(TW_ERR_ARGUMENT, "image resolution %d: 1 to %d", resolution, TW_IMAGE_MAX_SIDE);
    tw_image image;
    TRY(tw_image_decode(bytes, n, &image));
    tw_augment_plan plan;
    tw_augment_plan_draw(policy, image.width, image.height, seed, epoch, sample, &plan);
    tw_status status = tw_augment_apply(&image, &plan, resolution, rgb);
    tw_image_free(&image);
    return status;
}
