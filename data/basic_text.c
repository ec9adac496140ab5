#include "data/basic_text.h"

#include "data/unicode.h"

/* The working arrays of one text. */
typedef struct basic_text {
    tw_word_fn on_word;
    void *context;
    tw_code_points token;   /* what stands between two blanks or ideographs */
    tw_code_points lowered; /* token in lower case */
    tw_code_points bare;    /* lowered without accents */
} basic_text;

/* The ranges BERT calls Chinese characters: ideographs up to extension E and the compatibility ones, without
 * U+3007, kana and Hangul. */
static bool is_ideograph(uint32_t c) {
    if (c < 0x3400) return false;
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) ||
           (c >= 0x2B820 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

/* BERT's punctuation: every ASCII character that is neither letter, digit nor control, and Unicode's P*. */
static bool splits_words(uint32_t c) {
    if (c < 0x80)
        return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
    return tw_unicode_is_punctuation(c);
}

static tw_status emit_split(basic_text *b, const uint32_t *at, size_t n) {
    size_t start = 0;
    for (size_t i = 0; i < n; i++) {
        if (!splits_words(at[i])) continue;
        if (i > start) TRY(b->on_word(b->context, at + start, i - start));
        TRY(b->on_word(b->context, at + i, 1));
        start = i + 1;
    }
    return n > start ? b->on_word(b->context, at + start, n - start) : TW_OK;
}

/* Ends the token that has been gathered. */
static tw_status end_token(basic_text *b) {
    if (b->token.count == 0) return TW_OK;
    b->lowered.count = b->bare.count = 0;
    TRY(tw_unicode_lower(b->token.at, b->token.count, &b->lowered));
    b->token.count = 0;
    TRY(tw_unicode_strip_accents(b->lowered.at, b->lowered.count, &b->bare));
    return emit_split(b, b->bare.at, b->bare.count);
}

static tw_status add_character(basic_text *b, uint32_t c) {
    /* Blanks before controls: tab, LF and CR are both. U+2028 and U+2029 are neither, but Python splits
     * there. */
    if (tw_unicode_is_blank(c) || c == 0x2028 || c == 0x2029) return end_token(b);
    if (c == 0xFFFD || tw_unicode_is_control(c)) return TW_OK;
    bool alone = is_ideograph(c);
    if (alone) TRY(end_token(b));
    TRY(tw_code_points_reserve(&b->token, 1));
    tw_code_points_push(&b->token, c);
    return alone ? end_token(b) : TW_OK;
}

/* What the original does to a caption before it tokenizes it. */
static tw_status normalise_text(const tw_code_points *text, tw_code_points *out) {
    TRY(tw_unicode_lower(text->at, text->count, out));
    for (size_t i = 0; i < out->count; i++)
        if (out->at[i] == 0x201C || out->at[i] == 0x201D) out->at[i] = '"';
    return TW_OK;
}

tw_status tw_basic_words(const char *utf8, size_t bytes, bool normalise, tw_word_fn on_word, void *context) {
    if (bytes > TW_TEXT_MAX_BYTES)
        return FAIL(TW_ERR_FORMAT, "a text of %zu bytes; at most %d are taken", bytes, TW_TEXT_MAX_BYTES);
    basic_text b;
    b.on_word = on_word;
    b.context = context;
    tw_code_points text, normal;
    enum { ARRAYS = 5 };
    tw_code_points *const all[ARRAYS] = {&b.token, &b.lowered, &b.bare, &text, &normal};
    for (int i = 0; i < ARRAYS; i++) tw_code_points_init(all[i]);

    tw_status status = tw_utf8_decode(utf8, bytes, &text);
    if (status == TW_OK && normalise) status = normalise_text(&text, &normal);
    const tw_code_points *source = normalise ? &normal : &text;
    for (size_t i = 0; status == TW_OK && i < source->count; i++) status = add_character(&b, source->at[i]);
    if (status == TW_OK) status = end_token(&b);
    for (int i = 0; i < ARRAYS; i++) tw_code_points_free(all[i]);
    return status;
}
