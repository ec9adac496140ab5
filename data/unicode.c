#include "data/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void tw_code_points_init(tw_code_points *p) {
    p->at = p->small;
    p->count = 0;
    p->capacity = TW_CODE_POINTS_INLINE;
}

void tw_code_points_free(tw_code_points *p) {
    if (p && p->at != p->small) free(p->at);
    if (p) tw_code_points_init(p);
}

tw_status tw_code_points_reserve(tw_code_points *p, size_t extra) {
    if (extra <= p->capacity - p->count) return TW_OK;
    if (extra > SIZE_MAX / 8 - p->count) return FAIL(TW_ERR_MEMORY, "a text of %zu code points", extra);
    size_t wanted = p->count + extra, doubled = p->capacity * 2;
    size_t capacity = wanted > doubled ? wanted : doubled;
    uint32_t *at = realloc(p->at == p->small ? NULL : p->at, capacity * sizeof *at);
    if (!at) return FAIL(TW_ERR_MEMORY, "no memory for a text of %zu code points", capacity);
    if (p->at == p->small) memcpy(at, p->small, p->count * sizeof *at);
    p->at = at;
    p->capacity = capacity;
    return TW_OK;
}

/* ---- UTF-8 ---- */

static tw_status invalid(const unsigned char *s, size_t offset, const char *what) {
    return FAIL(TW_ERR_FORMAT, "not UTF-8: %s at byte offset %zu (byte 0x%02x)", what, offset, s[offset]);
}

/* The sequence of two or more bytes at s[i]; its length goes to *used. */
static tw_status decode_long(const unsigned char *s, size_t i, size_t n, uint32_t *c, size_t *used) {
    unsigned char lead = s[i];
    if (lead < 0xC0) return invalid(s, i, "a stray continuation byte");
    if (lead < 0xC2) return invalid(s, i, "an overlong form");
    if (lead > 0xF4) return invalid(s, i, "an impossible byte");
    size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    uint32_t value = lead & (0x7Fu >> length);
    for (size_t k = 1; k < length; k++) {
        if (i + k >= n || (s[i + k] & 0xC0) != 0x80) return invalid(s, i, "an incomplete character");
        value = value << 6 | (s[i + k] & 0x3F);
    }
    if (value < (length == 3 ? 0x800u : length == 4 ? 0x10000u : 0x80u))
        return invalid(s, i, "an overlong form");
    if (value >= 0xD800 && value <= 0xDFFF) return invalid(s, i, "a surrogate");
    if (value > 0x10FFFF) return invalid(s, i, "a value over U+10FFFF");
    *c = value;
    *used = length;
    return TW_OK;
}

tw_status tw_utf8_decode(const char *utf8, size_t bytes, tw_code_points *out) {
    const unsigned char *s = (const unsigned char *)utf8;
    TRY(tw_code_points_reserve(out, bytes));
    for (size_t i = 0; i < bytes;) {
        uint32_t c = s[i];
        size_t used = 1;
        if (c >= 0x80) TRY(decode_long(s, i, bytes, &c, &used));
        tw_code_points_push(out, c);
        i += used;
    }
    return TW_OK;
}

size_t tw_utf8_encode(uint32_t c, char out[4]) {
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)out);
}

/* ---- classes of characters ---- */

static utf8proc_category_t category(uint32_t c) {
    return utf8proc_category((utf8proc_int32_t)c);
}

/* The plain ideographs: no case, no decomposition, not punctuation. Most of a Chinese text. */
static bool is_plain_ideograph(uint32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF);
}

bool tw_unicode_is_blank(uint32_t c) {
    if (c < 0x80) return c == ' ' || c == '\t' || c == '\n' || c == '\r';
    return !is_plain_ideograph(c) && category(c) == UTF8PROC_CATEGORY_ZS;
}

bool tw_unicode_is_space(uint32_t c) {
    if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F);
    return c == 0x85 || c == 0x2028 || c == 0x2029 || tw_unicode_is_blank(c);
}

bool tw_unicode_is_control(uint32_t c) {
    if (c < 0x80) return c < 0x20 || c == 0x7F;
    if (is_plain_ideograph(c)) return false;
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF;
}

bool tw_unicode_is_punctuation(uint32_t c) {
    if (is_plain_ideograph(c)) return false;
    utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

const char *tw_unicode_version(void) {
    return utf8proc_unicode_version();
}

/* ---- lower case ---- */

/* Case_Ignorable of DerivedCoreProperties.txt: Mn, Me, Cf, Lm, Sk and the word-break classes MidLetter,
 * MidNumLet and Single_Quote, which utf8proc does not have (those of Unicode 14). */
static bool is_case_ignorable(uint32_t c) {
    switch (c) {
    case 0x27:
    case 0x2E:
    case 0x3A:
    case 0xB7:
    case 0x387:
    case 0x55F:
    case 0x5F4:
    case 0x2018:
    case 0x2019:
    case 0x2024:
    case 0x2027:
    case 0xFE13:
    case 0xFE52:
    case 0xFE55:
    case 0xFF07:
    case 0xFF0E:
    case 0xFF1A:
        return true;
    default:
        break;
    }
    switch (category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
        return true;
    default:
        return false;
    }
}

/* Cased of DerivedCoreProperties.txt, for characters that are not Case_Ignorable: Lu, Ll, Lt and what is left
 * of Other_Lowercase and Other_Uppercase (ordinals, Roman numerals, circled and squared letters). */
static bool is_cased(uint32_t c) {
    utf8proc_category_t k = category(c);
    if (k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT) return true;
    return c == 0xAA || c == 0xBA || (c >= 0x2160 && c <= 0x217F) || (c >= 0x24B6 && c <= 0x24E9) ||
           (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

/* Lower-casing where a capital sigma occurs: after a cased character and not before one, case-ignorable ones
 * between them skipped, it becomes a final sigma. The look ahead ends at the next sigma at the latest, so the
 * whole takes linear time. */
static void lower_with_sigma(const uint32_t *in, size_t n, tw_code_points *out) {
    bool after_cased = false;
    for (size_t i = 0; i < n; i++) {
        uint32_t c = in[i];
        if (c == 0x3A3) {
            size_t k = i + 1;
            while (k < n && is_case_ignorable(in[k])) k++;
            bool before_cased = k < n && is_cased(in[k]);
            tw_code_points_push(out, after_cased && !before_cased ? 0x3C2 : 0x3C3);
        } else {
            tw_code_points_push(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
            if (c == 0x130) tw_code_points_push(out, 0x307);
        }
        if (!is_case_ignorable(c)) after_cased = is_cased(c);
    }
}

tw_status tw_unicode_lower(const uint32_t *in, size_t n, tw_code_points *out) {
    TRY(tw_code_points_reserve(out, 2 * n)); /* U+0130 gives two */
    size_t start = out->count;
    for (size_t i = 0; i < n; i++) {
        uint32_t c = in[i];
        if (c < 0x80) {
            c += c >= 'A' && c <= 'Z' ? 'a' - 'A' : 0;
        } else if (c == 0x3A3) { /* rare: begin again with its context */
            out->count = start;
            lower_with_sigma(in, n, out);
            return TW_OK;
        } else if (!is_plain_ideograph(c)) {
            if (c == 0x130) {
                tw_code_points_push(out, 'i');
                c = 0x307;
            } else {
                c = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
            }
        }
        tw_code_points_push(out, c);
    }
    return TW_OK;
}

/* ---- decomposition ---- */

static unsigned combining_class(uint32_t c) {
    return c < 0x300 ? 0 : (unsigned)utf8proc_get_property((utf8proc_int32_t)c)->combining_class & 0xFF;
}

/* Canonical order of one run of non-starters: a stable sort by combining class. Counting keeps it linear for
 * a run of any length, which a hostile text may have. */
static tw_status sort_run(uint32_t *run, size_t n) {
    size_t begin[257] = {0};
    uint32_t small[32];
    uint32_t *copy = n <= 32 ? small : malloc(n * sizeof *copy);
    if (!copy) return FAIL(TW_ERR_MEMORY, "no memory for %zu combining characters", n);
    memcpy(copy, run, n * sizeof *copy);
    for (size_t i = 0; i < n; i++) begin[combining_class(copy[i]) + 1]++;
    for (size_t k = 1; k < 257; k++) begin[k] += begin[k - 1];
    for (size_t i = 0; i < n; i++) run[begin[combining_class(copy[i])]++] = copy[i];
    if (copy != small) free(copy);
    return TW_OK;
}

static tw_status canonical_order(uint32_t *at, size_t n) {
    for (size_t i = 0; i < n;) {
        if (combining_class(at[i]) == 0) {
            i++;
            continue;
        }
        size_t end = i + 1;
        while (end < n && combining_class(at[end]) != 0) end++;
        if (end - i > 1) TRY(sort_run(at + i, end - i));
        i = end;
    }
    return TW_OK;
}

tw_status tw_unicode_strip_accents(const uint32_t *in, size_t n, tw_code_points *out) {
    enum { LONGEST = 16 }; /* the longest canonical decomposition has 4 */
    size_t start = out->count;
    for (size_t i = 0; i < n; i++) {
        TRY(tw_code_points_reserve(out, LONGEST));
        if (in[i] < 0xC0 || is_plain_ideograph(in[i])) {
            tw_code_points_push(out, in[i]);
            continue;
        }
        int boundary = 0;
        utf8proc_ssize_t made =
            utf8proc_decompose_char((utf8proc_int32_t)in[i], (utf8proc_int32_t *)out->at + out->count,
                                    LONGEST, UTF8PROC_DECOMPOSE, &boundary);
        if (made < 0 || made > LONGEST)
            return FAIL(TW_ERR_LIBRARY, "utf8proc cannot decompose U+%04X: %s", (unsigned)in[i],
                        made < 0 ? utf8proc_errmsg(made) : "too long");
        out->count += (size_t)made;
    }
    /* Marks are dropped after the sort: one with class 0 keeps its neighbours apart. */
    TRY(canonical_order(out->at + start, out->count - start));
    size_t kept = start;
    for (size_t i = start; i < out->count; i++) {
        uint32_t c = out->at[i];
        if (c < 0x300 || category(c) != UTF8PROC_CATEGORY_MN) out->at[kept++] = c;
    }
    out->count = kept;
    return TW_OK;
}
