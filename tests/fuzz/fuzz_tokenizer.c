/* Vocabularies and texts: the input is a vocabulary up to its first zero byte, and a text after it. */
#include "fuzz.h"

#include "data/tokenizer.h"

#include <string.h>

enum { CONTEXT = 20 };

static void tokenize(const tw_vocab *v, const char *text, size_t size, bool normalise) {
    int32_t ids[CONTEXT];
    int length, full;
    if (!fuzz_ok(tw_tokenize(v, text, size, normalise, CONTEXT, ids, &length, &full))) return;
    fuzz_must(length >= 2 && length <= CONTEXT && full >= length, "lengths fit");
    fuzz_must(ids[0] == tw_vocab_cls(v) && ids[length - 1] == tw_vocab_sep(v),
              "[CLS] and [SEP] stand around");
    for (int i = 0; i < CONTEXT; i++) {
        fuzz_must(ids[i] >= 0 && ids[i] < tw_vocab_size(v), "ids are lines of the vocabulary");
        if (i >= length) fuzz_must(ids[i] == tw_vocab_pad(v), "padding is [PAD]");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char small[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n##b\n\xe4\xb8\xad\n\xe5\x9b\xbd\n,\n##ing";
    static tw_vocab *fixed;
    if (!fixed)
        fuzz_must(fuzz_ok(tw_vocab_parse(small, sizeof small - 1, "small", &fixed)), "a good vocabulary");
    const char *text = (const char *)data, *zero = size ? memchr(text, 0, size) : NULL;
    size_t words = zero ? (size_t)(zero - text) : size;
    tokenize(fixed, text, size, true);
    tw_vocab *v;
    if (!fuzz_ok(tw_vocab_parse(text, words, "fuzz", &v))) return 0;
    tokenize(v, text + words, size - words, true);
    tokenize(v, text, size, false);
    tw_vocab_free(v);
    return 0;
}
