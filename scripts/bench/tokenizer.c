/* Captions a second on one thread: bench_tokenizer VOCAB JSONL [repeats]. The reference's figure on the same
 * file comes from scripts/bench/tokenizer.py. */
#include "data/tokenizer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct captions {
    json_t **records;
    size_t count;
} captions;

static captions read_captions(const char *path) {
    captions c = {NULL, 0};
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t capacity = 0;
    while (f && getline(&line, &capacity, f) > 0) {
        json_t *record = json_loads(line, 0, NULL);
        if (!json_is_string(json_object_get(record, "text"))) continue;
        c.records = realloc(c.records, (c.count + 1) * sizeof(json_t *));
        if (!c.records) abort();
        c.records[c.count++] = record;
    }
    free(line);
    if (f) fclose(f);
    return c;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv) {
    tw_vocab *v = NULL;
    if (argc < 3) return fprintf(stderr, "usage: %s VOCAB JSONL [repeats]\n", argv[0]), 2;
    double start = now();
    if (tw_vocab_load(argv[1], &v) != TW_OK) return fprintf(stderr, "%s\n", tw_last_error()), 1;
    printf("vocabulary of %d tokens loaded in %.1f ms\n", tw_vocab_size(v), 1e3 * (now() - start));
    captions c = read_captions(argv[2]);
    if (c.count == 0) return fprintf(stderr, "no captions in %s\n", argv[2]), 1;
    int repeats = argc > 3 ? atoi(argv[3]) : 20, full = 0;
    int32_t ids[52];
    long tokens = 0;
    start = now();
    for (int r = 0; r < repeats; r++) {
        for (size_t i = 0; i < c.count; i++) {
            const json_t *text = json_object_get(c.records[i], "text");
            if (tw_tokenize(v, json_string_value(text), json_string_length(text), true, 52, ids, NULL, &full))
                return fprintf(stderr, "caption %zu: %s\n", i + 1, tw_last_error()), 1;
            tokens += full;
        }
    }
    double seconds = now() - start;
    printf("%.0f captions/s, %.1f million tokens/s\n", repeats * (double)c.count / seconds,
           1e-6 * (double)tokens / seconds);
    for (size_t i = 0; i < c.count; i++) json_decref(c.records[i]);
    free(c.records);
    tw_vocab_free(v);
    return 0;
}
