/* What the tokenizer needs to know of Unicode, as Python's `str` and `unicodedata` define it.
 *
 * Categories, case pairs and decompositions come from utf8proc and so follow its Unicode version (15.0 in
 * Debian 12, 15.1 in Debian 13), where the reference follows its Python's (14.0 in 3.11, 15.0 in 3.12, 15.1
 * in 3.13). They can disagree only on characters that one of them does not know yet (4,489 were new in 15.0,
 * none of them in the published vocabulary), and from 16.0 on on U+1171E, which was Mn until then. */
#ifndef TW_DATA_UNICODE_H
#define TW_DATA_UNICODE_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TW_CODE_POINTS_INLINE = 512 };

/* A growing array of code points; the first TW_CODE_POINTS_INLINE need no allocation. Starts with
 * tw_code_points_init and ends with tw_code_points_free. `at` points into the struct at first: do not copy
 * it. */
typedef struct tw_code_points {
    uint32_t *at; /* (count) */
    size_t count, capacity;
    uint32_t small[TW_CODE_POINTS_INLINE];
} tw_code_points;

void tw_code_points_init(tw_code_points *p);
void tw_code_points_free(tw_code_points *p);
/* Room for `extra` more. TW_ERR_MEMORY. */
tw_status tw_code_points_reserve(tw_code_points *p, size_t extra) TW_MUST_CHECK;
/* Appends one code point; room must have been reserved. */
static inline void tw_code_points_push(tw_code_points *p, uint32_t c) {
    p->at[p->count++] = c;
}

/* Appends the code points of `bytes` bytes of UTF-8 (NUL is a character like any other). TW_ERR_FORMAT, with
 * the byte offset, for whatever Unicode's table 3-7 does not allow: stray and missing continuation bytes,
 * overlong forms, surrogates, values over U+10FFFF. */
tw_status tw_utf8_decode(const char *utf8, size_t bytes, tw_code_points *out) TW_MUST_CHECK;
/* Writes c (a valid code point) as 1 to 4 bytes; returns how many. */
size_t tw_utf8_encode(uint32_t c, char out[4]);

/* Appends what Python's str.lower() makes of in[0..n): full lower-casing, U+0130 becomes two code points, and
 * a capital sigma at the end of a word becomes final sigma (Unicode, 3.13 "Final_Sigma"). */
tw_status tw_unicode_lower(const uint32_t *in, size_t n, tw_code_points *out) TW_MUST_CHECK;
/* Appends the canonical decomposition (NFD) of in[0..n) without nonspacing marks (category Mn). */
tw_status tw_unicode_strip_accents(const uint32_t *in, size_t n, tw_code_points *out) TW_MUST_CHECK;

/* str.isspace() of one character. */
bool tw_unicode_is_space(uint32_t c);
/* Category Zs, tab, line feed or carriage return. */
bool tw_unicode_is_blank(uint32_t c);
/* Category Cc or Cf. */
bool tw_unicode_is_control(uint32_t c);
/* Category P*. */
bool tw_unicode_is_punctuation(uint32_t c);
/* The library's Unicode version, for example "15.0.0". Static storage. */
const char *tw_unicode_version(void);

#endif
