/* BERT's WordPiece tokenizer (uncased), with the token ids of the original Chinese-CLIP: basic tokenizer
 * (data/basic_text.h), then for each word the longest pieces of the vocabulary from left to right.
 *
 * A vocabulary does not change once it is made: any number of threads may tokenize with the same one. */
#ifndef TW_DATA_TOKENIZER_H
#define TW_DATA_TOKENIZER_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TW_WORD_MAX = 200 }; /* a word of more code points is [UNK] */

typedef struct tw_vocab tw_vocab;

/* Reads a vocabulary file: UTF-8, one token a line, the line number (from 0) is the id. Lines end in LF, CR
 * LF or CR and are stripped of white space as Python's str.strip does; a token that occurs twice has its last
 * id. The caller frees *out with tw_vocab_free; it is NULL after an error. TW_ERR_IO: cannot be read.
 * TW_ERR_FORMAT: empty, too large, not UTF-8 (with line and byte), or without [PAD], [UNK], [CLS] or [SEP].
 * TW_ERR_UNSUPPORTED: [PAD] is not id 0, which padding and mask rely on. */
tw_status tw_vocab_load(const char *path, tw_vocab **out) TW_MUST_CHECK;
/* The same from memory; `bytes` is copied, `origin` (a file or checkpoint name) is for error messages. */
tw_status tw_vocab_parse(const char *bytes, size_t n, const char *origin, tw_vocab **out) TW_MUST_CHECK;
void tw_vocab_free(tw_vocab *v);

/* Number of lines: ids are 0 … size − 1, the rows of the embedding. */
int tw_vocab_size(const tw_vocab *v);
/* The exact bytes it was made from (checkpoints store them), and a NUL behind them that *bytes does not
 * count. Owned by v. */
const char *tw_vocab_text(const tw_vocab *v, size_t *bytes);
/* Where it came from, as it was told to load or parse. Owned by v. */
const char *tw_vocab_origin(const tw_vocab *v);
int32_t tw_vocab_cls(const tw_vocab *v);
int32_t tw_vocab_sep(const tw_vocab *v);
int32_t tw_vocab_pad(const tw_vocab *v); /* 0 */
int32_t tw_vocab_unk(const tw_vocab *v);
/* The id of a token as it stands in the file ("##ing" with its ##), or −1. */
int32_t tw_vocab_find(const tw_vocab *v, const char *token, size_t bytes);
/* The token of an id, stripped, not NUL-terminated; NULL if id is out of range. Owned by v. */
const char *tw_vocab_token(const tw_vocab *v, int32_t id, size_t *bytes);

/* ids (context): [CLS], the first context − 2 tokens, [SEP], then [PAD]. NUL is a character like any other.
 * normalise: lower-case and replace “ and ” by ", as the original does in training, extraction and zero-shot;
 * its quick API does not. *length: ids before the padding; *full_length: what it would be without the cut.
 * Either may be NULL.
 * TW_ERR_ARGUMENT: context < 2. TW_ERR_FORMAT: not UTF-8, with the byte offset (surrogates are not), or over
 * TW_TEXT_MAX_BYTES. TW_ERR_MEMORY. After an error the outputs are undefined. Safe from any thread. */
tw_status tw_tokenize(const tw_vocab *v, const char *utf8, size_t bytes, bool normalise, int context,
                      int32_t *ids, int *length, int *full_length) TW_MUST_CHECK;

/* ---- making a vocabulary from a corpus (data/vocab_builder.c) ---- */

/* Counts characters, and words of 2 to 32 characters, of captions. One thread at a time. */
typedef struct tw_vocab_builder tw_vocab_builder;

enum { TW_VOCAB_SPECIALS = 5 }; /* [PAD] [UNK] [CLS] [SEP] [MASK], ids 0 to 4 */

tw_status tw_vocab_builder_new(tw_vocab_builder **out) TW_MUST_CHECK;
void tw_vocab_builder_free(tw_vocab_builder *b);
/* Counts a caption, normalised as in training. Errors as tw_tokenize; a caption that is refused leaves the
 * builder as it was. */
tw_status tw_vocab_builder_add(tw_vocab_builder *b, const char *utf8, size_t bytes) TW_MUST_CHECK;
/* The vocabulary as file text, at most max_size lines: the special tokens; then every character that begins a
 * word and ## with every one that continues one, a–z and 0–9 whether seen or not, the most frequent first and
 * then by code point; then the words seen at least twice, likewise. Of a corpus that fits, no word of up to
 * 200 characters is [UNK]. The order of the captions does not matter.
 * *text (*bytes, with a NUL behind) is the caller's, to be freed with free(). *left_out, unless NULL: the
 * number of characters that did not fit, so that some words may become [UNK].
 * TW_ERR_ARGUMENT: max_size ≤ TW_VOCAB_SPECIALS. TW_ERR_MEMORY. The builder may be used further. */
tw_status tw_vocab_builder_finish(const tw_vocab_builder *b, int max_size, char **text, size_t *bytes,
                                  int *left_out) TW_MUST_CHECK;

#endif
