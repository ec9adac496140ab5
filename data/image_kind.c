#include "data/image_kind.h"

#include "data/image.h"

#include <stdbool.h>
#include <string.h>

static uint32_t be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t le32(const uint8_t *p) {
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

tw_image_kind tw_image_kind_of(const uint8_t *data, size_t size) {
    if (size >= 3 && memcmp(data, "\xff\xd8\xff", 3) == 0) return TW_IMAGE_JPEG;
    if (size >= 8 && memcmp(data, "\x89PNG\r\n\x1a\n", 8) == 0) return TW_IMAGE_PNG;
    if (size >= 12 && memcmp(data, "RIFF", 4) == 0 && memcmp(data + 8, "WEBP", 4) == 0) return TW_IMAGE_WEBP;
    return TW_IMAGE_UNKNOWN;
}

static tw_status cut_off(const char *kind, size_t size) {
    return FAIL(TW_ERR_FORMAT, "truncated %s file: it is cut off after %zu bytes", kind, size);
}

/* ITU-T T.81 annex B: segments until the start of scan, the frame header among them. */
static tw_status check_jpeg(const uint8_t *data, size_t size, int *width, int *height) {
    size_t at = 2;
    bool sized = false;
    for (;;) {
        while (at < size && data[at] != 0xff) at++; /* libjpeg, too, skips bytes between segments */
        while (at < size && data[at] == 0xff) at++;
        if (at + 3 > size) return cut_off("JPEG", size);
        uint8_t marker = data[at++];
        if (marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8)) continue; /* without a body */
        if (marker == 0xd9) return FAIL(TW_ERR_FORMAT, "JPEG file without image data");
        size_t length = (size_t)data[at] << 8 | data[at + 1];
        if (length < 2) return FAIL(TW_ERR_FORMAT, "JPEG file with a damaged segment at byte %zu", at);
        if (at + length > size) return cut_off("JPEG", size);
        bool frame = marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
        if (frame && length >= 8) {
            *height = data[at + 3] << 8 | data[at + 4];
            *width = data[at + 5] << 8 | data[at + 6];
            sized = true;
        }
        at += length;
        if (marker == 0xda) break;
    }
    if (!sized) return FAIL(TW_ERR_FORMAT, "JPEG file without a frame header");
    /* Bytes may follow the end marker, so look for the last one. */
    for (size_t i = size; i >= at + 2; i--)
        if (data[i - 2] == 0xff && data[i - 1] == 0xd9) return TW_OK;
    return cut_off("JPEG", size);
}

static tw_status check_png(const uint8_t *data, size_t size, int *width, int *height) {
    if (size < 33 || memcmp(data + 12, "IHDR", 4) != 0) return cut_off("PNG", size);
    uint32_t w = be32(data + 16), h = be32(data + 20);
    if (w > INT32_MAX || h > INT32_MAX) return FAIL(TW_ERR_FORMAT, "PNG file of impossible size");
    *width = (int)w;
    *height = (int)h;
    for (size_t at = 8; size - at >= 12;) {
        size_t length = be32(data + at);
        if (length > size - at - 12) break;
        if (memcmp(data + at + 4, "IEND", 4) == 0) return TW_OK;
        at += length + 12;
    }
    return cut_off("PNG", size);
}

/* RFC 9649: the first chunk tells the kind, each kind has the size at its own place. */
static tw_status check_webp(const uint8_t *data, size_t size, int *width, int *height) {
    if (size < 30 || le32(data + 4) > size - 8) return cut_off("WebP", size);
    if (memcmp(data + 12, "VP8 ", 4) == 0) {
        *width = (data[26] | data[27] << 8) & 0x3fff;
        *height = (data[28] | data[29] << 8) & 0x3fff;
    } else if (memcmp(data + 12, "VP8L", 4) == 0) {
        uint32_t bits = le32(data + 21);
        *width = (int)(bits & 0x3fff) + 1;
        *height = (int)(bits >> 14 & 0x3fff) + 1;
    } else if (memcmp(data + 12, "VP8X", 4) == 0) {
        *width = (int)(le32(data + 24) & 0xffffff) + 1;
        *height = (int)(le32(data + 26) >> 8 & 0xffffff) + 1;
    } else {
        return FAIL(TW_ERR_FORMAT, "WebP file without an image chunk");
    }
    return TW_OK;
}

tw_status tw_image_check_headers(const uint8_t *data, size_t size, int *width, int *height) {
    *width = *height = 0;
    switch (tw_image_kind_of(data, size)) {
    case TW_IMAGE_JPEG:
        TRY(check_jpeg(data, size, width, height));
        break;
    case TW_IMAGE_PNG:
        TRY(check_png(data, size, width, height));
        break;
    case TW_IMAGE_WEBP:
        TRY(check_webp(data, size, width, height));
        break;
    case TW_IMAGE_UNKNOWN:
        if (size == 0) return FAIL(TW_ERR_FORMAT, "empty image file");
        if (size >= 4 && (memcmp(data, "GIF8", 4) == 0 || memcmp(data, "BM", 2) == 0))
            return FAIL(TW_ERR_FORMAT, "a %s file: convert it to JPEG, PNG or WebP",
                        data[0] == 'G' ? "GIF" : "BMP");
        return FAIL(TW_ERR_FORMAT, "not an image: no JPEG, PNG or WebP header in its %zu bytes", size);
    }
    if (*width < 1 || *height < 1 || *width > TW_IMAGE_MAX_SIDE || *height > TW_IMAGE_MAX_SIDE ||
        (int64_t)*width * *height > TW_IMAGE_MAX_PIXELS)
        return FAIL(TW_ERR_FORMAT, "image of %d x %d pixels", *width, *height);
    return TW_OK;
}
