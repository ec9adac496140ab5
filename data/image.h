/* Images as Pillow holds them: decoded to the file's own mode, resized in that mode, then converted to RGB.
 *
 * The reference (FACTS.md §4) resizes before it converts, so a palette or transparent image gives other
 * pixels than one converted first. Everything here equals Pillow 13.0 byte for byte; the goldens of
 * tests/test_image.c and tests/test_resize.c were made by it. All functions may be called from any thread. */
#ifndef TW_DATA_IMAGE_H
#define TW_DATA_IMAGE_H

#include "autograd/status.h"

#include <stddef.h>
#include <stdint.h>

/* Pillow's modes that JPEG, PNG and WebP files have, with the bytes of one pixel. */
typedef enum tw_image_mode {
    TW_MODE_1,    /* 1 byte, 0 or 255 */
    TW_MODE_L,    /* 1 byte */
    TW_MODE_LA,   /* 2 bytes, alpha not premultiplied */
    TW_MODE_P,    /* 1 byte, an index into the palette */
    TW_MODE_RGB,  /* 3 bytes */
    TW_MODE_RGBA, /* 4 bytes, alpha not premultiplied */
    TW_MODE_CMYK, /* 4 bytes, 255 = full ink (Adobe's inverted files are turned round when they are read) */
    TW_MODE_I,    /* 4 bytes, int32_t of this machine */
    TW_MODE_I16,  /* 2 bytes, uint16_t of this machine; Pillow's "I;16": 16-bit gray PNG */
} tw_image_mode;

enum {
    TW_IMAGE_MAX_SIDE = 65500,       /* libjpeg's limit, used for every format */
    TW_IMAGE_MAX_PIXELS = 178956970, /* where Pillow raises DecompressionBombError */
    TW_IMAGE_MAX_BYTES = 1 << 30,    /* of an encoded file */
};

typedef struct tw_image {
    tw_image_mode mode;
    int width, height;
    uint8_t *pixels;  /* (height, width, bytes of a pixel), no padding; owned */
    uint8_t *palette; /* (256, 3) RGB, black where the file has no entry; owned; NULL unless mode P. A PNG's
                         transparent palette entries and colours are left out: Pillow keeps them beside the
                         pixels and neither resizing nor conversion to RGB looks at them. */
} tw_image;

/* Bytes of one pixel: 1 to 4. */
int tw_image_pixel_bytes(tw_image_mode mode);
/* Pillow's name of a mode, "I;16" for TW_MODE_I16. Never NULL. */
const char *tw_image_mode_name(tw_image_mode mode);

/* Gives `out` uninitialised pixels (and a black palette for P). Release with tw_image_free.
 * TW_ERR_FORMAT: a side is 0 or over TW_IMAGE_MAX_SIDE, or there are over TW_IMAGE_MAX_PIXELS pixels.
 * TW_ERR_MEMORY. On failure `out` is empty. */
tw_status tw_image_alloc(tw_image *out, tw_image_mode mode, int64_t width, int64_t height) TW_MUST_CHECK;
/* Releases pixels and palette and empties the struct. Accepts NULL and an empty (zeroed) image. */
void tw_image_free(tw_image *image);

/* Decodes a JPEG, PNG or WebP file held in bytes[0..n) to the mode that Pillow opens it in; the format is
 * told by the first bytes. EXIF orientation, colour profiles, gamma and transparent colours are ignored, an
 * animation gives its first picture: all as the reference does. 16-bit gray PNG is I;16 (Pillow 13), 16-bit
 * colour keeps its high bytes, 16-bit gray with alpha becomes RGBA.
 * Corrupt but decodable JPEGs are decoded as libjpeg does; a truncated file is an error.
 * TW_ERR_FORMAT: not an image, truncated, broken, or of a refused size (tw_image_alloc).
 * TW_ERR_UNSUPPORTED: another image format or a variant that Pillow does not read either.
 * On success `out` is owned by the caller; on failure it is empty. `bytes` need not outlive the call. */
tw_status tw_image_decode(const void *bytes, size_t n, tw_image *out) TW_MUST_CHECK;

/* Pillow's convert("RGB") of every mode into rgb (height, width, 3). */
void tw_image_copy_rgb(const tw_image *in, uint8_t *rgb);
/* The same as a new image of mode RGB. TW_ERR_MEMORY. */
tw_status tw_image_to_rgb(const tw_image *in, tw_image *out) TW_MUST_CHECK;

/* The evaluation path: decode, resize to resolution × resolution in the image's own mode (aspect ratio
 * ignored, no change if the size is right already), convert to RGB. rgb is (resolution, resolution, 3) and
 * undefined after an error. Errors: those of tw_image_decode; TW_ERR_ARGUMENT for a resolution below 1. */
tw_status tw_image_load(const void *bytes, size_t n, int resolution, uint8_t *rgb) TW_MUST_CHECK;
/* Zero-shot classification's path: decode, convert to RGB, then resize. Otherwise as tw_image_load. */
tw_status tw_image_load_rgb_first(const void *bytes, size_t n, int resolution, uint8_t *rgb) TW_MUST_CHECK;

#endif
