#include "data/base64.h"

#include <pthread.h>

/* Per character: its 6 bits, or one of these, which have the top bit set. */
enum { BAD = 0x80, SPACE = 0x81, PAD = 0x82 };

static uint8_t value_of[256];
/* The 6 bits where a character at place k of a group has them in the group's 24; the top bit if it has none.
 */
static uint32_t placed[4][256];
static pthread_once_t once = PTHREAD_ONCE_INIT;
static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void fill_table(void) {
    for (int i = 0; i < 256; i++) value_of[i] = BAD;
    for (int i = 0; i < 64; i++) value_of[(unsigned char)alphabet[i]] = (uint8_t)i;
    value_of['-'] = 62;
    value_of['_'] = 63;
    value_of['='] = PAD;
    for (const char *s = " \t\n\v\f\r"; *s; s++) value_of[(unsigned char)*s] = SPACE;
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < 256; i++)
            placed[k][i] = value_of[i] & BAD ? 1u << 31 : (uint32_t)value_of[i] << (18 - 6 * k);
}

static tw_status bad_character(const char *text, size_t at) {
    unsigned char c = (unsigned char)text[at];
    if (c >= 0x20 && c < 0x7f)
        return FAIL(TW_ERR_FORMAT, "base64: '%c' at position %zu is not of the alphabet", c, at);
    return FAIL(TW_ERR_FORMAT, "base64: byte 0x%02x at position %zu is not of the alphabet", c, at);
}

/* Plain groups of four from `text`, as many as there are; returns the characters used. */
static size_t decode_plain(const unsigned char *text, size_t size, uint8_t *out) {
    size_t i = 0;
    for (; i + 4 <= size; i += 4, out += 3) {
        uint32_t bits =
            placed[0][text[i]] | placed[1][text[i + 1]] | placed[2][text[i + 2]] | placed[3][text[i + 3]];
        if (bits >> 31) break;
        out[0] = (uint8_t)(bits >> 16);
        out[1] = (uint8_t)(bits >> 8);
        out[2] = (uint8_t)bits;
    }
    return i;
}

/* After the padding that completes a group only more padding and white space may come. */
static tw_status check_tail(const char *text, size_t size, size_t at) {
    for (; at < size; at++) {
        uint8_t v = value_of[(unsigned char)text[at]];
        if (v == PAD || v == SPACE) continue;
        if (v == BAD) return bad_character(text, at);
        return FAIL(TW_ERR_FORMAT, "base64: data at position %zu after the padding", at);
    }
    return TW_OK;
}

tw_status tw_base64_decode(const char *text, size_t size, uint8_t *out, size_t *decoded) {
    pthread_once(&once, fill_table);
    *decoded = 0;
    size_t n = 0, i = 0, pads = 0;
    uint32_t group = 0;
    int filled = 0; /* characters in the open group */
    while (i < size) {
        if (filled == 0) {
            size_t used = decode_plain((const unsigned char *)text + i, size - i, out + n);
            n += used / 4 * 3;
            i += used;
            if (i >= size) break;
        }
        uint8_t v = value_of[(unsigned char)text[i]];
        if (v == BAD) return bad_character(text, i);
        if (v == PAD) {
            if (filled == 0 && n > 0) break; /* more padding than needed */
            if (filled < 2) return FAIL(TW_ERR_FORMAT, "base64: padding at position %zu is too early", i);
            if (filled + (int)++pads == 4) break;
        } else if (v != SPACE) {
            if (pads > 0) return FAIL(TW_ERR_FORMAT, "base64: data at position %zu after the padding", i);
            group = group << 6 | v;
            if (++filled == 4) {
                out[n++] = (uint8_t)(group >> 16);
                out[n++] = (uint8_t)(group >> 8);
                out[n++] = (uint8_t)group;
                filled = 0;
                group = 0;
            }
        }
        i++;
    }
    if (filled > 0 && filled + (int)pads < 4)
        return FAIL(TW_ERR_FORMAT,
                    "base64: ends at position %zu in the middle of a group of four (cut off, or its padding "
                    "is missing)",
                    size);
    TRY(check_tail(text, size, i));
    if (filled > 0) {
        group <<= 6 * (4 - filled);
        out[n++] = (uint8_t)(group >> 16);
        if (filled == 3) out[n++] = (uint8_t)(group >> 8);
    }
    *decoded = n;
    return TW_OK;
}

void tw_base64_encode(const uint8_t *bytes, size_t size, char *out) {
    size_t i = 0;
    for (; i + 3 <= size; i += 3) {
        uint32_t bits = (uint32_t)bytes[i] << 16 | (uint32_t)bytes[i + 1] << 8 | bytes[i + 2];
        *out++ = alphabet[bits >> 18];
        *out++ = alphabet[bits >> 12 & 63];
        *out++ = alphabet[bits >> 6 & 63];
        *out++ = alphabet[bits & 63];
    }
    if (i == size) return;
    uint32_t bits = (uint32_t)bytes[i] << 16 | (i + 1 < size ? (uint32_t)bytes[i + 1] << 8 : 0);
    *out++ = alphabet[bits >> 18];
    *out++ = alphabet[bits >> 12 & 63];
    *out++ = i + 1 < size ? alphabet[bits >> 6 & 63] : '=';
    *out++ = '=';
}
