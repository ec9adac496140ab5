#include "data/basic_text.h"
#include "data/tokenizer.h"
#include "data/unicode.h"

#include <stdlib.h>
#include <string.h>

enum { WHOLE_WORD_MAX = 32, WHOLE_WORD_MIN_COUNT = 2 };

/* A character (length 1; `continues` if it goes on a word and so is written with ##) or a whole word. */
typedef struct piece {
    size_t at; /* its code points in builder.pool */
    uint32_t length;
    bool continues;
    uint64_t count;
} piece;

struct tw_vocab_builder {
    piece *pieces; /* (count) */
    size_t count, capacity;
    size_t *slots; /* (mask + 1): index of a piece + 1, or 0; open addressing */
    size_t mask;
    uint32_t *pool;
    size_t pooled, pool_capacity;
};

static const char *const special_tokens[TW_VOCAB_SPECIALS] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};

/* ---- counting ---- */

static uint64_t hash_piece(const uint32_t *at, size_t n, bool continues) {
    uint64_t h = continues ? 0x9AE16A3B2F90404Full : 0xC3A5C85C97CB3127ull;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ at[i]) * 0x9E3779B97F4A7C15ull;
        h ^= h >> 32;
    }
    return h;
}

static size_t *find_slot(const tw_vocab_builder *b, const uint32_t *at, size_t n, bool continues) {
    for (size_t i = (size_t)hash_piece(at, n, continues) & b->mask;; i = (i + 1) & b->mask) {
        size_t index = b->slots[i];
        if (index == 0) return &b->slots[i];
        const piece *p = &b->pieces[index - 1];
        if (p->length == n && p->continues == continues && memcmp(b->pool + p->at, at, n * sizeof *at) == 0)
            return &b->slots[i];
    }
}

/* Room for one more piece of n code points; doubles what is full. */
static tw_status grow(tw_vocab_builder *b, size_t n) {
    if (b->pooled + n > b->pool_capacity) {
        size_t capacity = 2 * (b->pooled + n);
        uint32_t *pool = realloc(b->pool, capacity * sizeof *pool);
        if (!pool) return FAIL(TW_ERR_MEMORY, "no memory for a vocabulary of %zu pieces", b->count);
        b->pool = pool;
        b->pool_capacity = capacity;
    }
    if (b->count < b->capacity) return TW_OK;
    size_t capacity = b->capacity ? 2 * b->capacity : 1024, slots = 2 * capacity;
    piece *pieces = realloc(b->pieces, capacity * sizeof *pieces);
    if (pieces) b->pieces = pieces;
    size_t *table = pieces ? calloc(slots, sizeof *table) : NULL;
    if (!table) return FAIL(TW_ERR_MEMORY, "no memory for a vocabulary of %zu pieces", b->count);
    free(b->slots);
    b->slots = table;
    b->capacity = capacity;
    b->mask = slots - 1;
    for (size_t i = 0; i < b->count; i++) {
        const piece *p = &b->pieces[i];
        *find_slot(b, b->pool + p->at, p->length, p->continues) = i + 1;
    }
    return TW_OK;
}

static tw_status count_piece(tw_vocab_builder *b, const uint32_t *at, size_t n, bool continues,
                             uint64_t times) {
    TRY(grow(b, n));
    size_t *slot = find_slot(b, at, n, continues);
    if (*slot == 0) {
        memcpy(b->pool + b->pooled, at, n * sizeof *at);
        b->pieces[b->count] = (piece){b->pooled, (uint32_t)n, continues, 0};
        b->pooled += n;
        *slot = ++b->count;
    }
    b->pieces[*slot - 1].count += times;
    return TW_OK;
}

static tw_status count_word(void *context, const uint32_t *word, size_t length) {
    tw_vocab_builder *b = context;
    if (length > TW_WORD_MAX) return TW_OK; /* [UNK] whatever the vocabulary holds */
    for (size_t i = 0; i < length; i++) TRY(count_piece(b, word + i, 1, i > 0, 1));
    if (length > 1 && length <= WHOLE_WORD_MAX) TRY(count_piece(b, word, length, false, 1));
    return TW_OK;
}

tw_status tw_vocab_builder_new(tw_vocab_builder **out) {
    *out = NULL;
    tw_vocab_builder *b = calloc(1, sizeof *b);
    if (!b) return FAIL(TW_ERR_MEMORY, "no memory for a vocabulary");
    static const char always[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    tw_status status = TW_OK;
    for (size_t i = 0; status == TW_OK && always[i]; i++) {
        uint32_t c = (uint32_t)always[i];
        status = count_piece(b, &c, 1, false, 0);
        if (status == TW_OK) status = count_piece(b, &c, 1, true, 0);
    }
    if (status == TW_OK)
        *out = b;
    else
        tw_vocab_builder_free(b);
    return status;
}

void tw_vocab_builder_free(tw_vocab_builder *b) {
    if (!b) return;
    free(b->pieces);
    free(b->slots);
    free(b->pool);
    free(b);
}

tw_status tw_vocab_builder_add(tw_vocab_builder *b, const char *utf8, size_t bytes) {
    return tw_basic_words(utf8, bytes, true, count_word, b);
}

/* ---- writing ---- */

typedef struct ranked {
    const piece *piece;
    const uint32_t *at;
} ranked;

/* Characters before words, the most frequent first, then by code points, a beginning before its ##. A total
 * order, so that the result does not depend on the order of the captions. */
static int compare(const void *left, const void *right) {
    const ranked *x = left, *y = right;
    const piece *p = x->piece, *q = y->piece;
    bool p_word = p->length > 1, q_word = q->length > 1;
    if (p_word != q_word) return p_word ? 1 : -1;
    if (p->count != q->count) return p->count > q->count ? -1 : 1;
    for (size_t i = 0; i < p->length && i < q->length; i++)
        if (x->at[i] != y->at[i]) return x->at[i] < y->at[i] ? -1 : 1;
    if (p->length != q->length) return p->length < q->length ? -1 : 1;
    return (int)p->continues - (int)q->continues;
}

static size_t write_piece(char *out, const ranked *r) {
    size_t used = 0;
    if (r->piece->continues) out[used++] = '#', out[used++] = '#';
    for (size_t i = 0; i < r->piece->length; i++) used += tw_utf8_encode(r->at[i], out + used);
    out[used++] = '\n';
    return used;
}

tw_status tw_vocab_builder_finish(const tw_vocab_builder *b, int max_size, char **text, size_t *bytes,
                                  int *left_out) {
    *text = NULL;
    *bytes = 0;
    if (max_size <= TW_VOCAB_SPECIALS)
        return FAIL(TW_ERR_ARGUMENT,
                    "a vocabulary of at most %d tokens has no room beside the %d special ones", max_size,
                    TW_VOCAB_SPECIALS);
    ranked *order = malloc(b->count * sizeof *order);
    char *out = malloc(64 + 4 * b->pooled + 3 * b->count + 1); /* "##" and a line end a piece */
    if (!order || !out) {
        free(order);
        free(out);
        return FAIL(TW_ERR_MEMORY, "no memory for a vocabulary of %zu pieces", b->count);
    }
    for (size_t i = 0; i < b->count; i++) order[i] = (ranked){&b->pieces[i], b->pool + b->pieces[i].at};
    qsort(order, b->count, sizeof *order, compare);
    size_t used = 0, room = (size_t)max_size - TW_VOCAB_SPECIALS;
    for (size_t i = 0; i < TW_VOCAB_SPECIALS; i++) {
        size_t n = strlen(special_tokens[i]);
        memcpy(out + used, special_tokens[i], n);
        out[used + n] = '\n';
        used += n + 1;
    }
    int lost = 0;
    for (size_t i = 0; i < b->count; i++) {
        const piece *p = order[i].piece;
        bool word = p->length > 1;
        if (word && p->count < WHOLE_WORD_MIN_COUNT) break; /* and so are all that follow */
        if (i < room)
            used += write_piece(out + used, &order[i]);
        else if (!word && p->count > 0)
            lost++;
    }
    free(order);
    out[used] = '\0';
    *text = out;
    *bytes = used;
    if (left_out) *left_out = lost;
    return TW_OK;
}
