/* PNG through libspng, the only file that knows it. Pixels come as the file has them and are brought to the
 * mode that Pillow chooses. Checksums are verified, those of the pixel data included (Pillow passes over
 * these alone): a flipped bit is better refused than trained on. */
#include "data/image_codecs.h"

#include <spng.h>

#include <stdlib.h>
#include <string.h>

static tw_status png_error(int code, const char *what) {
    if (code == SPNG_EMEM) return FAIL(TW_ERR_MEMORY, "PNG file: no memory for its %s", what);
    if (code == SPNG_IO_EOF) return FAIL(TW_ERR_FORMAT, "PNG file is truncated: it ends in its %s", what);
    return FAIL(TW_ERR_FORMAT, "PNG file is broken: %s, in its %s", spng_strerror(code), what);
}

/* Size check before spng's own, which has no numbers in its message; IHDR is always the first chunk. */
static tw_status check_size(const uint8_t *b, size_t n) {
    if (n < 24) return FAIL(TW_ERR_FORMAT, "PNG file is truncated: it has %zu bytes", n);
    int64_t side[2];
    for (int i = 0; i < 2; i++) {
        const uint8_t *p = b + 16 + 4 * i;
        side[i] = (int64_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
    }
    tw_image probe;
    if (side[0] > 0 && side[1] > 0 && side[0] <= TW_IMAGE_MAX_SIDE && side[1] <= TW_IMAGE_MAX_SIDE &&
        side[0] * side[1] <= TW_IMAGE_MAX_PIXELS)
        return TW_OK;
    return tw_image_alloc(&probe, TW_MODE_L, side[0], side[1]); /* refuses and says why */
}

static tw_image_mode mode_of(const struct spng_ihdr *h) {
    switch (h->color_type) {
    case SPNG_COLOR_TYPE_GRAYSCALE:
        return h->bit_depth == 1 ? TW_MODE_1 : h->bit_depth == 16 ? TW_MODE_I16 : TW_MODE_L;
    case SPNG_COLOR_TYPE_INDEXED:
        return TW_MODE_P;
    case SPNG_COLOR_TYPE_GRAYSCALE_ALPHA:
        return h->bit_depth == 16 ? TW_MODE_RGBA : TW_MODE_LA;
    case SPNG_COLOR_TYPE_TRUECOLOR_ALPHA:
        return TW_MODE_RGBA;
    default:
        return TW_MODE_RGB;
    }
}

/* Samples of 1, 2 or 4 bits, the first in the high bits; gray ones are spread over 0..255. */
static void unpack_bits(const struct spng_ihdr *h, const uint8_t *raw, uint8_t *out) {
    unsigned bits = h->bit_depth, mask = (1u << bits) - 1;
    unsigned scale = h->color_type == SPNG_COLOR_TYPE_INDEXED ? 1 : 255 / mask;
    size_t stride = ((size_t)h->width * bits + 7) / 8;
    for (uint32_t y = 0; y < h->height; y++, raw += stride)
        for (uint32_t x = 0; x < h->width; x++) {
            size_t bit = (size_t)x * bits;
            *out++ = (uint8_t)((((unsigned)raw[bit / 8] >> (8 - bits - bit % 8)) & mask) * scale);
        }
}

/* 16-bit samples in this machine's order: high bytes, and gray with alpha becomes RGBA. */
static void take_high_bytes(const struct spng_ihdr *h, const uint8_t *raw, uint8_t *out) {
    size_t pixels = (size_t)h->width * h->height;
    int gray = h->color_type == SPNG_COLOR_TYPE_GRAYSCALE_ALPHA;
    size_t samples = pixels * (gray ? 2 : h->color_type == SPNG_COLOR_TYPE_TRUECOLOR ? 3 : 4);
    for (size_t i = 0; i < samples; i++) {
        uint16_t v;
        memcpy(&v, raw + 2 * i, 2);
        if (gray && i % 2 == 0) *out++ = (uint8_t)(v >> 8), *out++ = (uint8_t)(v >> 8);
        *out++ = (uint8_t)(v >> 8);
    }
}

static tw_status read_pixels(spng_ctx *ctx, const struct spng_ihdr *h, tw_image *out) {
    size_t size = 0;
    int code = spng_decoded_image_size(ctx, SPNG_FMT_PNG, &size);
    if (code) return png_error(code, "header");
    int direct = h->bit_depth == 8 || out->mode == TW_MODE_I16;
    /* libspng ORs the small samples of interlaced files into what is there, hence zeroed */
    uint8_t *raw = direct ? out->pixels : calloc(1, size);
    if (!raw) return FAIL(TW_ERR_MEMORY, "PNG file: %zu bytes for its pixels cannot be had", size);
    code = spng_decode_image(ctx, raw, size, SPNG_FMT_PNG, 0);
    if (!code && h->bit_depth < 8) unpack_bits(h, raw, out->pixels);
    if (!code && h->bit_depth == 16 && !direct) take_high_bytes(h, raw, out->pixels);
    if (!direct) free(raw);
    return code ? png_error(code, "pixel data") : TW_OK;
}

static tw_status decode(spng_ctx *ctx, tw_image *out) {
    struct spng_ihdr header;
    int code = spng_get_ihdr(ctx, &header);
    if (code) return png_error(code, "header");
    TRY(tw_image_alloc(out, mode_of(&header), header.width, header.height));
    if (out->mode == TW_MODE_P) {
        struct spng_plte palette;
        if ((code = spng_get_plte(ctx, &palette))) return png_error(code, "palette");
        for (uint32_t i = 0; i < palette.n_entries && i < 256; i++) {
            uint8_t *p = out->palette + 3 * i;
            p[0] = palette.entries[i].red, p[1] = palette.entries[i].green, p[2] = palette.entries[i].blue;
        }
    }
    return read_pixels(ctx, &header, out);
}

tw_status tw_decode_png(const uint8_t *bytes, size_t n, tw_image *out) {
    *out = (tw_image){0};
    TRY(check_size(bytes, n));
    spng_ctx *ctx = spng_ctx_new(0);
    if (!ctx) return FAIL(TW_ERR_MEMORY, "PNG file: no memory for its decoder");
    int code = spng_set_image_limits(ctx, TW_IMAGE_MAX_SIDE, TW_IMAGE_MAX_SIDE);
    if (!code) code = spng_set_chunk_limits(ctx, 64u << 20, 64u << 20);
    if (!code) code = spng_set_png_buffer(ctx, bytes, n);
    tw_status status = code ? png_error(code, "first bytes") : decode(ctx, out);
    spng_ctx_free(ctx);
    if (status) tw_image_free(out);
    return status;
}
