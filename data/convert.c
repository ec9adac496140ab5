/* Pillow's convert("RGB"), mode by mode. */
#include "data/image.h"

#include <string.h>

/* a·b/255 rounded, as Pillow's MULDIV255. */
static uint8_t multiply_255(unsigned a, unsigned b) {
    unsigned t = a * b + 128;
    return (uint8_t)(((t >> 8) + t) >> 8);
}

static void cmyk_to_rgb(const uint8_t *in, size_t pixels, uint8_t *rgb) {
    for (size_t i = 0; i < pixels; i++, in += 4, rgb += 3) {
        unsigned white = 255u - in[3];
        for (int c = 0; c < 3; c++) rgb[c] = (uint8_t)(white - multiply_255(in[c], white)); /* never < 0 */
    }
}

static uint8_t clip(int32_t v) {
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* Integers are clipped, not scaled: a 16-bit gray picture turns almost white. That is what the reference
 * trains on. */
static void gray_to_rgb(const tw_image *in, size_t pixels, uint8_t *rgb) {
    int step = tw_image_pixel_bytes(in->mode);
    const uint8_t *p = in->pixels;
    for (size_t i = 0; i < pixels; i++, p += step, rgb += 3) {
        uint8_t v = *p;
        if (in->mode == TW_MODE_I) {
            int32_t word;
            memcpy(&word, p, 4);
            v = clip(word);
        } else if (in->mode == TW_MODE_I16) {
            uint16_t word;
            memcpy(&word, p, 2);
            v = clip(word);
        }
        rgb[0] = rgb[1] = rgb[2] = v;
    }
}

void tw_image_copy_rgb(const tw_image *in, uint8_t *rgb) {
    size_t pixels = (size_t)in->width * (size_t)in->height;
    switch (in->mode) {
    case TW_MODE_RGB:
        memcpy(rgb, in->pixels, 3 * pixels);
        break;
    case TW_MODE_RGBA:
        for (size_t i = 0; i < pixels; i++) memcpy(rgb + 3 * i, in->pixels + 4 * i, 3);
        break;
    case TW_MODE_CMYK:
        cmyk_to_rgb(in->pixels, pixels, rgb);
        break;
    case TW_MODE_P:
        for (size_t i = 0; i < pixels; i++) memcpy(rgb + 3 * i, in->palette + 3 * in->pixels[i], 3);
        break;
    default:
        gray_to_rgb(in, pixels, rgb);
    }
}

tw_status tw_image_to_rgb(const tw_image *in, tw_image *out) {
    TRY(tw_image_alloc(out, TW_MODE_RGB, in->width, in->height));
    tw_image_copy_rgb(in, out->pixels);
    return TW_OK;
}
