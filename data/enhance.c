/* Pillow's ImageOps and ImageEnhance as AutoAugment uses them, their arithmetic in their order. */
#include "data/augment_ops.h"

#include <stdlib.h>
#include <string.h>

typedef struct tables {
    uint8_t of[3][256]; /* one a channel */
} tables;

static void apply(const tables *t, size_t pixels, uint8_t *rgb) {
    for (size_t i = 0; i < pixels; i++, rgb += 3)
        for (int c = 0; c < 3; c++) rgb[c] = t->of[c][rgb[c]];
}

static void count(const uint8_t *rgb, size_t pixels, uint32_t histogram[3][256]) {
    memset(histogram, 0, 3 * 256 * sizeof(uint32_t));
    for (size_t i = 0; i < pixels; i++, rgb += 3)
        for (int c = 0; c < 3; c++) histogram[c][rgb[c]]++;
}

void tw_posterize(int bits, size_t pixels, uint8_t *rgb) {
    uint8_t mask = (uint8_t)(0xff << (8 - bits));
    for (size_t i = 0; i < 3 * pixels; i++) rgb[i] &= mask;
}

void tw_solarize(int threshold, size_t pixels, uint8_t *rgb) {
    for (size_t i = 0; i < 3 * pixels; i++)
        if (rgb[i] >= threshold) rgb[i] = (uint8_t)(255 - rgb[i]);
}

void tw_invert(size_t pixels, uint8_t *rgb) {
    for (size_t i = 0; i < 3 * pixels; i++) rgb[i] = (uint8_t)(255 - rgb[i]);
}

/* Each channel's darkest value to 0, its brightest to 255. */
void tw_auto_contrast(size_t pixels, uint8_t *rgb) {
    uint32_t histogram[3][256];
    tables t;
    count(rgb, pixels, histogram);
    for (int c = 0; c < 3; c++) {
        int low = 0, high = 255;
        while (low < 255 && !histogram[c][low]) low++;
        while (high > 0 && !histogram[c][high]) high--;
        double scale = high > low ? 255.0 / (high - low) : 1.0, offset = high > low ? -low * scale : 0.0;
        for (int i = 0; i < 256; i++) {
            double v = i * scale + offset;
            t.of[c][i] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
        }
    }
    apply(&t, pixels, rgb);
}

/* Histogram equalisation in integers; the brightest value's count is left out of the step. */
void tw_equalize(size_t pixels, uint8_t *rgb) {
    uint32_t histogram[3][256];
    tables t;
    count(rgb, pixels, histogram);
    for (int c = 0; c < 3; c++) {
        int last = 255;
        while (last > 0 && !histogram[c][last]) last--;
        size_t step = (pixels - histogram[c][last]) / 255; /* 0 if there is one value only */
        size_t n = step / 2;
        for (int i = 0; i < 256; i++) {
            size_t v = step ? n / step : (size_t)i;
            t.of[c][i] = (uint8_t)(v > 255 ? 255 : v);
            n += histogram[c][i];
        }
    }
    apply(&t, pixels, rgb);
}

/* ITU-R 601 luma in 16.16 fixed point, Pillow's convert("L"). */
static uint8_t luma(const uint8_t *rgb) {
    return (uint8_t)((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000u) >> 16);
}

/* poor + factor · (pixel - poor), towards zero, clipped. */
static uint8_t blend(uint8_t poor, uint8_t pixel, float factor) {
    float v = (float)poor + factor * (float)(pixel - poor);
    return (uint8_t)(v <= 0.0f ? 0 : v >= 255.0f ? 255 : v);
}

void tw_enhance_color(float factor, size_t pixels, uint8_t *rgb) {
    for (size_t i = 0; i < pixels; i++, rgb += 3) {
        uint8_t gray = luma(rgb);
        for (int c = 0; c < 3; c++) rgb[c] = blend(gray, rgb[c], factor);
    }
}

void tw_enhance_contrast(float factor, size_t pixels, uint8_t *rgb) {
    uint64_t sum = 0;
    for (size_t i = 0; i < pixels; i++) sum += luma(rgb + 3 * i);
    uint8_t mean = (uint8_t)((double)sum / (double)pixels + 0.5);
    for (size_t i = 0; i < 3 * pixels; i++) rgb[i] = blend(mean, rgb[i], factor);
}

/* Row y of Pillow's SMOOTH filter, (1 1 1, 1 5 1, 1 1 1)/13 in float, added bottom row first; the first and
 * last pixel are left as they are. */
static void smooth_row(const uint8_t *in, size_t stride, int width, uint8_t *out) {
    const float one = 1.0f / 13.0f, five = 5.0f / 13.0f;
    const uint8_t *up = in - stride, *down = in + stride;
    size_t end = 3 * (size_t)(width - 1);
    memcpy(out, in, 3);
    memcpy(out + end, in + end, 3);
    for (size_t i = 3; i < end; i++) {
        float sum = 0.5f;
        sum += (float)down[i - 3] * one + (float)down[i] * one + (float)down[i + 3] * one;
        sum += (float)in[i - 3] * one + (float)in[i] * five + (float)in[i + 3] * one;
        sum += (float)up[i - 3] * one + (float)up[i] * one + (float)up[i + 3] * one;
        out[i] = (uint8_t)(sum <= 0.0f ? 0 : sum >= 255.0f ? 255 : sum);
    }
}

tw_status tw_enhance_sharpness(float factor, int width, int height, uint8_t *rgb) {
    if (width < 3 || height < 3) return TW_OK; /* the filter changes nothing, nor does a blend with itself */
    size_t stride = 3 * (size_t)width, bytes = stride * (size_t)height;
    uint8_t *smooth = malloc(bytes);
    if (!smooth) return FAIL(TW_ERR_MEMORY, "sharpness: %zu bytes for scratch cannot be had", bytes);
    memcpy(smooth, rgb, bytes);
    for (int y = 1; y < height - 1; y++)
        smooth_row(rgb + (size_t)y * stride, stride, width, smooth + (size_t)y * stride);
    for (size_t i = 0; i < bytes; i++) rgb[i] = blend(smooth[i], rgb[i], factor);
    free(smooth);
    return TW_OK;
}
