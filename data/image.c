#include "data/image.h"

#include "data/image_codecs.h"
#include "data/resize.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int tw_image_pixel_bytes(tw_image_mode mode) {
    switch (mode) {
    case TW_MODE_LA:
    case TW_MODE_I16:
        return 2;
    case TW_MODE_RGB:
        return 3;
    case TW_MODE_RGBA:
    case TW_MODE_CMYK:
    case TW_MODE_I:
        return 4;
    default:
        return 1;
    }
}

const char *tw_image_mode_name(tw_image_mode mode) {
    static const char *const names[] = {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16"};
    return (unsigned)mode < sizeof names / sizeof *names ? names[mode] : "?";
}

tw_status tw_image_alloc(tw_image *out, tw_image_mode mode, int64_t width, int64_t height) {
    *out = (tw_image){.mode = mode};
    if (width < 1 || height < 1)
        return FAIL(TW_ERR_FORMAT, "image of %lld x %lld pixels: it is empty, remove the record",
                    (long long)width, (long long)height);
    if (width > TW_IMAGE_MAX_SIDE || height > TW_IMAGE_MAX_SIDE || width * height > TW_IMAGE_MAX_PIXELS)
        return FAIL(
            TW_ERR_FORMAT,
            "image of %lld x %lld pixels: a side may have %d and the whole %d pixels, make it smaller",
            (long long)width, (long long)height, TW_IMAGE_MAX_SIDE, TW_IMAGE_MAX_PIXELS);
    size_t bytes = (size_t)width * (size_t)height * (size_t)tw_image_pixel_bytes(mode);
    out->pixels = malloc(bytes);
    if (mode == TW_MODE_P) out->palette = calloc(256, 3);
    if (!out->pixels || (mode == TW_MODE_P && !out->palette)) {
        tw_image_free(out);
        return FAIL(TW_ERR_MEMORY, "image of %lld x %lld pixels: %zu bytes cannot be had", (long long)width,
                    (long long)height, bytes);
    }
    out->width = (int)width, out->height = (int)height;
    return TW_OK;
}

void tw_image_free(tw_image *image) {
    if (!image) return;
    free(image->pixels);
    free(image->palette);
    *image = (tw_image){0};
}

/* What a payload that is none of ours looks like, for the message. */
static const char *other_format(const uint8_t *b, size_t n) {
    static const struct {
        const char *magic, *name;
        unsigned offset, length;
    } known[] = {
        {"GIF8", "GIF", 0, 4},   {"BM", "BMP", 0, 2},        {"II*\0", "TIFF", 0, 4},
        {"MM\0*", "TIFF", 0, 4}, {"ftypavif", "AVIF", 4, 8}, {"ftypheic", "HEIC", 4, 8},
        {"%PDF", "PDF", 0, 4},   {"\0\0\1\0", "ICO", 0, 4},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t end = known[i].offset + known[i].length;
        if (n >= end && memcmp(b + known[i].offset, known[i].magic, known[i].length) == 0)
            return known[i].name;
    }
    return NULL;
}

tw_status tw_image_decode(const void *bytes, size_t n, tw_image *out) {
    const uint8_t *b = bytes;
    *out = (tw_image){0};
    if (n == 0) return FAIL(TW_ERR_FORMAT, "image of 0 bytes: the payload is empty");
    if (n > TW_IMAGE_MAX_BYTES)
        return FAIL(TW_ERR_FORMAT, "image file of %zu bytes: at most %d are read", n, TW_IMAGE_MAX_BYTES);
    if (n >= 3 && memcmp(b, "\xff\xd8\xff", 3) == 0) return tw_decode_jpeg(b, n, out);
    if (n >= 8 && memcmp(b, "\x89PNG\r\n\x1a\n", 8) == 0) return tw_decode_png(b, n, out);
    if (n >= 12 && memcmp(b, "RIFF", 4) == 0 && memcmp(b + 8, "WEBP", 4) == 0)
        return tw_decode_webp(b, n, out);
    const char *name = other_format(b, n);
    if (name)
        return FAIL(TW_ERR_UNSUPPORTED, "%s file: only JPEG, PNG and WebP are read, convert it first", name);
    char start[3 * 8 + 1] = "";
    for (size_t i = 0; i < n && i < 8; i++) snprintf(start + 3 * i, 4, "%02x ", b[i]);
    return FAIL(TW_ERR_FORMAT, "not an image: %zu bytes that start with %s(JPEG, PNG and WebP are read)", n,
                start);
}

static tw_status load(const void *bytes, size_t n, int resolution, int rgb_first, uint8_t *rgb) {
    if (resolution < 1 || resolution > TW_IMAGE_MAX_SIDE)
        return FAIL(TW_ERR_ARGUMENT, "image resolution %d: 1 to %d", resolution, TW_IMAGE_MAX_SIDE);
    tw_image image, other = {0};
    TRY(tw_image_decode(bytes, n, &image));
    tw_status status = TW_OK;
    if (rgb_first && image.mode != TW_MODE_RGB) {
        if ((status = tw_image_to_rgb(&image, &other))) goto done;
        tw_image_free(&image);
        image = other, other = (tw_image){0};
    }
    if (image.width == resolution && image.height == resolution) {
        tw_image_copy_rgb(&image, rgb);
    } else {
        if ((status = tw_image_resize(&image, resolution, resolution, &other))) goto done;
        tw_image_copy_rgb(&other, rgb);
    }
done:
    tw_image_free(&image);
    tw_image_free(&other);
    return status;
}

tw_status tw_image_load(const void *bytes, size_t n, int resolution, uint8_t *rgb) {
    return load(bytes, n, resolution, 0, rgb);
}

tw_status tw_image_load_rgb_first(const void *bytes, size_t n, int resolution, uint8_t *rgb) {
    return load(bytes, n, resolution, 1, rgb);
}
