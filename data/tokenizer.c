#include "data/tokenizer.h"

#include "data/basic_text.h"
#include "data/files.h"
#include "data/unicode.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB_MAX_BYTES = 1 << 26 };

/* One line. A token "##x" is kept as the continuation "x": words never hold a '#' beside other characters,
 * so the two name spaces cannot meet. */
typedef struct token {
    uint32_t text, bytes; /* the stripped line in vocab.text */
    uint32_t at;          /* its code points in vocab.pool, without "##" */
    uint32_t length;      /* how many */
    bool continues;
} token;

typedef struct slot {
    uint32_t hash;
    int32_t id; /* −1: free */
} slot;

struct tw_vocab {
    char *origin;
    char *text;
    size_t bytes;
    token *tokens; /* (size) */
    int size;
    uint32_t *pool; /* code points of all tokens */
    slot *slots;    /* (mask + 1), open addressing */
    size_t mask;
    size_t longest; /* code points of the longest token that begins a word */
    size_t longest_continuing;
    int32_t pad, unk, cls, sep;
};

/* ---- hash table ---- */

/* Hashes grow by one code point at a time, so that all beginnings of a word are hashed in one pass. */
static uint64_t hash_start(bool continues) {
    return continues ? 0x9AE16A3B2F90404Full : 0xC3A5C85C97CB3127ull;
}

static uint64_t hash_next(uint64_t h, uint32_t c) {
    h = (h ^ c) * 0x9E3779B97F4A7C15ull;
    return h ^ h >> 32;
}

static bool same_token(const tw_vocab *v, int32_t id, const uint32_t *at, size_t n, bool continues) {
    const token *t = &v->tokens[id];
    return t->length == n && t->continues == continues && memcmp(v->pool + t->at, at, n * sizeof *at) == 0;
}

/* The slot that holds this token, or the free one where it would go. */
static slot *find_slot(const tw_vocab *v, uint64_t hash, const uint32_t *at, size_t n, bool continues) {
    for (size_t i = hash & v->mask;; i = (i + 1) & v->mask) {
        slot *s = &v->slots[i];
        if (s->id < 0) return s;
        if (s->hash == (uint32_t)(hash >> 16) && same_token(v, s->id, at, n, continues)) return s;
    }
}

static uint64_t hash_of(const uint32_t *at, size_t n, bool continues) {
    uint64_t h = hash_start(continues);
    for (size_t i = 0; i < n; i++) h = hash_next(h, at[i]);
    return h;
}

static int32_t find_id(const tw_vocab *v, const uint32_t *at, size_t n, bool continues) {
    return find_slot(v, hash_of(at, n, continues), at, n, continues)->id;
}

/* ---- making a vocabulary ---- */

/* The length of the line at text[i], without its end; *next is where the following one starts. */
static size_t line_length(const char *text, size_t n, size_t i, size_t *next) {
    size_t end = i;
    while (end < n && text[end] != '\n' && text[end] != '\r') end++;
    *next = end < n ? end + 1 : n;
    if (end + 1 < n && text[end] == '\r' && text[end + 1] == '\n') *next = end + 2;
    return end - i;
}

static int count_lines(const char *text, size_t n) {
    int lines = 0;
    for (size_t i = 0; i < n; lines++) line_length(text, n, i, &i);
    return lines;
}

static size_t encoded_bytes(const uint32_t *at, size_t n) {
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) bytes += at[i] < 0x80 ? 1 : at[i] < 0x800 ? 2 : at[i] < 0x10000 ? 3 : 4;
    return bytes;
}

/* Fills tokens[id] from the line's code points, which stand at pool[at..at + n). */
static void set_token(tw_vocab *v, int32_t id, size_t line, size_t at, size_t n) {
    const uint32_t *c = v->pool + at;
    size_t begin = 0, end = n;
    while (begin < end && tw_unicode_is_space(c[begin])) begin++;
    while (end > begin && tw_unicode_is_space(c[end - 1])) end--;
    token *t = &v->tokens[id];
    t->text = (uint32_t)(line + encoded_bytes(c, begin));
    t->bytes = (uint32_t)encoded_bytes(c + begin, end - begin);
    t->continues = end - begin >= 2 && c[begin] == '#' && c[begin + 1] == '#';
    if (t->continues) begin += 2;
    t->at = (uint32_t)(at + begin);
    t->length = (uint32_t)(end - begin);
    size_t *longest = t->continues ? &v->longest_continuing : &v->longest;
    if (t->length > *longest) *longest = t->length;
}

static void index_token(tw_vocab *v, int32_t id) {
    const token *t = &v->tokens[id];
    uint64_t hash = hash_of(v->pool + t->at, t->length, t->continues);
    slot *s = find_slot(v, hash, v->pool + t->at, t->length, t->continues);
    s->hash = (uint32_t)(hash >> 16);
    s->id = id;
}

static tw_status read_lines(tw_vocab *v, const char *origin) {
    tw_code_points line;
    tw_code_points_init(&line);
    tw_status status = TW_OK;
    size_t used = 0;
    int32_t id = 0;
    for (size_t i = 0, next; i < v->bytes; i = next, id++) {
        size_t n = line_length(v->text, v->bytes, i, &next);
        line.count = 0;
        status = tw_utf8_decode(v->text + i, n, &line);
        if (status != TW_OK) {
            status = tw_fail_context(status, "vocabulary %s, line %d", origin, id + 1);
            break;
        }
        memcpy(v->pool + used, line.at, line.count * sizeof *line.at);
        set_token(v, id, i, used, line.count);
        index_token(v, id);
        used += line.count;
    }
    tw_code_points_free(&line);
    return status;
}

static tw_status find_specials(tw_vocab *v, const char *origin) {
    const struct {
        const char *name;
        int32_t *id;
    } specials[] = {{"[PAD]", &v->pad}, {"[UNK]", &v->unk}, {"[CLS]", &v->cls}, {"[SEP]", &v->sep}};
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++) {
        *specials[i].id = tw_vocab_find(v, specials[i].name, strlen(specials[i].name));
        if (*specials[i].id >= 0) continue;
        bool marked = v->bytes >= 3 && memcmp(v->text, "\xEF\xBB\xBF", 3) == 0;
        return FAIL(TW_ERR_FORMAT, "vocabulary %s lacks the token %s%s", origin, specials[i].name,
                    marked
                        ? " (it starts with a byte order mark, which belongs to its first token: remove it)"
                        : "; is it a BERT vocab.txt, one token a line?");
    }
    if (v->pad != 0)
        return FAIL(TW_ERR_UNSUPPORTED, "vocabulary %s has [PAD] on line %d; it must be the first line",
                    origin, v->pad + 1);
    return TW_OK;
}

static tw_status allocate(tw_vocab *v, const char *bytes, size_t n, const char *origin) {
    v->bytes = n;
    v->size = count_lines(bytes, n);
    size_t slots = 16;
    while (slots < 2 * (size_t)v->size) slots *= 2;
    v->mask = slots - 1;
    v->origin = strdup(origin);
    v->text = malloc(n + 1);
    v->tokens = calloc((size_t)v->size, sizeof *v->tokens);
    v->pool = malloc(n * sizeof *v->pool);
    v->slots = malloc(slots * sizeof *v->slots);
    if (!v->origin || !v->text || !v->tokens || !v->pool || !v->slots)
        return FAIL(TW_ERR_MEMORY, "no memory for a vocabulary of %d tokens", v->size);
    memcpy(v->text, bytes, n);
    v->text[n] = '\0';
    for (size_t i = 0; i < slots; i++) v->slots[i] = (slot){0, -1};
    return TW_OK;
}

tw_status tw_vocab_parse(const char *bytes, size_t n, const char *origin, tw_vocab **out) {
    *out = NULL;
    if (n == 0) return FAIL(TW_ERR_FORMAT, "vocabulary %s is empty", origin);
    if (n > VOCAB_MAX_BYTES)
        return FAIL(TW_ERR_FORMAT, "vocabulary %s has %zu bytes, more than any (%d)", origin, n,
                    VOCAB_MAX_BYTES);
    tw_vocab *v = calloc(1, sizeof *v);
    if (!v) return FAIL(TW_ERR_MEMORY, "no memory for a vocabulary");
    tw_status status = allocate(v, bytes, n, origin);
    if (status == TW_OK) status = read_lines(v, origin);
    if (status == TW_OK) status = find_specials(v, origin);
    if (status == TW_OK)
        *out = v;
    else
        tw_vocab_free(v);
    return status;
}

static tw_status read_file(FILE *f, const char *path, char **bytes, size_t *n) {
    size_t capacity = 1 << 17, used = 0;
    char *at = malloc(capacity);
    while (at) {
        size_t got = fread(at + used, 1, capacity - used, f);
        used += got;
        if (got == 0 || used > VOCAB_MAX_BYTES) break;
        if (used < capacity) continue;
        char *more = realloc(at, capacity *= 2);
        if (!more) free(at);
        at = more;
    }
    if (!at) return FAIL(TW_ERR_MEMORY, "no memory for vocabulary %s", path);
    if (ferror(f)) {
        tw_status status = FAIL(TW_ERR_IO, "cannot read vocabulary %s: %s", path, strerror(errno));
        free(at);
        return status;
    }
    *bytes = at;
    *n = used;
    return TW_OK;
}

tw_status tw_vocab_load(const char *path, tw_vocab **out) {
    *out = NULL;
    FILE *f;
    if (tw_open_stream(path, &f) != TW_OK) return tw_fail_context(TW_ERR_IO, "vocabulary");
    char *bytes = NULL;
    size_t n = 0;
    tw_status status = read_file(f, path, &bytes, &n);
    fclose(f);
    if (status == TW_OK) status = tw_vocab_parse(bytes, n, path, out);
    free(bytes);
    return status;
}

void tw_vocab_free(tw_vocab *v) {
    if (!v) return;
    free(v->origin);
    free(v->text);
    free(v->tokens);
    free(v->pool);
    free(v->slots);
    free(v);
}

/* ---- looking up ---- */

int tw_vocab_size(const tw_vocab *v) {
    return v->size;
}

const char *tw_vocab_origin(const tw_vocab *v) {
    return v->origin;
}

const char *tw_vocab_text(const tw_vocab *v, size_t *bytes) {
    *bytes = v->bytes;
    return v->text;
}

int32_t tw_vocab_cls(const tw_vocab *v) {
    return v->cls;
}

int32_t tw_vocab_sep(const tw_vocab *v) {
    return v->sep;
}

int32_t tw_vocab_pad(const tw_vocab *v) {
    return v->pad;
}

int32_t tw_vocab_unk(const tw_vocab *v) {
    return v->unk;
}

int32_t tw_vocab_find(const tw_vocab *v, const char *token_text, size_t bytes) {
    tw_code_points c;
    tw_code_points_init(&c);
    int32_t id = -1;
    if (tw_utf8_decode(token_text, bytes, &c) == TW_OK) {
        bool continues = c.count >= 2 && c.at[0] == '#' && c.at[1] == '#';
        size_t skip = continues ? 2 : 0;
        id = find_id(v, c.at + skip, c.count - skip, continues);
    }
    tw_code_points_free(&c);
    return id;
}

const char *tw_vocab_token(const tw_vocab *v, int32_t id, size_t *bytes) {
    if (id < 0 || id >= v->size) return NULL;
    *bytes = v->tokens[id].bytes;
    return v->text + v->tokens[id].text;
}

/* ---- WordPiece ---- */

typedef struct pieces {
    const tw_vocab *v;
    int32_t *ids; /* (context) */
    int room;     /* tokens that fit: context − 2 */
    int count;    /* tokens so far, those that did not fit included */
} pieces;

static void put(pieces *p, int32_t id) {
    if (p->count < p->room) p->ids[1 + p->count] = id;
    p->count++;
}

/* The longest token that word[0..n) begins with: its length, or 0, and its id. */
static size_t longest_piece(const tw_vocab *v, const uint32_t *word, size_t n, bool continues, int32_t *id) {
    uint64_t hashes[TW_WORD_MAX];
    size_t limit = continues ? v->longest_continuing : v->longest;
    if (n > limit) n = limit;
    uint64_t h = hash_start(continues);
    for (size_t i = 0; i < n; i++) hashes[i] = h = hash_next(h, word[i]);
    for (; n > 0; n--) {
        *id = find_slot(v, hashes[n - 1], word, n, continues)->id;
        if (*id >= 0) return n;
    }
    return 0;
}

/* A word of which any part has no token is one [UNK] as a whole. */
static tw_status on_word(void *context, const uint32_t *word, size_t length) {
    pieces *p = context;
    int before = p->count;
    if (length > TW_WORD_MAX) {
        put(p, p->v->unk);
        return TW_OK;
    }
    for (size_t at = 0; at < length;) {
        int32_t id = -1;
        size_t used = longest_piece(p->v, word + at, length - at, at > 0, &id);
        if (used == 0) {
            p->count = before;
            put(p, p->v->unk);
            return TW_OK;
        }
        put(p, id);
        at += used;
    }
    return TW_OK;
}

tw_status tw_tokenize(const tw_vocab *v, const char *utf8, size_t bytes, bool normalise, int context,
                      int32_t *ids, int *length, int *full_length) {
    if (context < 2) return FAIL(TW_ERR_ARGUMENT, "context length %d; [CLS] and [SEP] alone need 2", context);
    pieces p = {v, ids, context - 2, 0};
    TRY(tw_basic_words(utf8, bytes, normalise, on_word, &p));
    int kept = p.count < p.room ? p.count : p.room;
    ids[0] = v->cls;
    ids[1 + kept] = v->sep;
    for (int i = kept + 2; i < context; i++) ids[i] = v->pad;
    if (length) *length = kept + 2;
    if (full_length) *full_length = p.count + 2;
    return TW_OK;
}
