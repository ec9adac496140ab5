/* BERT's basic tokenizer (Devlin et al. 2018, uncased; FACTS.md §4 "Text"): a text becomes words, punctuation
 * marks and single ideographs, cleaned, lower-cased and without accents. WordPiece (data/tokenizer.h) and the
 * vocabulary builder start from these. */
#ifndef TW_DATA_BASIC_TEXT_H
#define TW_DATA_BASIC_TEXT_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The longest text that is taken; ten thousand times a caption. Working memory is at most some 40 bytes a
 * byte of text, and none is allocated for texts of up to 256 bytes. */
enum { TW_TEXT_MAX_BYTES = 1 << 24 };

/* Receives one word: `length` (> 0) code points, valid during the call. An error ends the walk. */
typedef tw_status (*tw_word_fn)(void *context, const uint32_t *word, size_t length);

/* Calls on_word for each word of the text, in order. normalise: first lower-case the whole text and replace
 * U+201C and U+201D by '"', as the original's data sets do.
 * TW_ERR_FORMAT: not UTF-8 (with the byte offset) or over TW_TEXT_MAX_BYTES. TW_ERR_MEMORY. */
tw_status tw_basic_words(const char *utf8, size_t bytes, bool normalise, tw_word_fn on_word,
                         void *context) TW_MUST_CHECK;

#endif
