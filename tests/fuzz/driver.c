/* Runs a fuzz target without libFuzzer: every seed, every seed cut short, and deterministic mutations.
 *
 *     fuzz_<name> FOLDER [SECONDS]
 *
 * The mutations are the same at every run up to ROUNDS; a slow machine stops after SECONDS (5). */
#include "fuzz.h"

#include "data/files.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_SEEDS = 256, MAX_GROWTH = 64, ROUNDS = 20000 };

typedef struct seed {
    uint8_t *data;
    size_t size;
} seed;

static seed seeds[MAX_SEEDS];
static size_t seed_count;
static uint64_t state = 1;

static size_t below(size_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return n ? (size_t)(state >> 33) % n : 0;
}

/* The target gets memory of exactly the input's size, so that a sanitizer sees the first byte read beyond. */
static void run(const uint8_t *data, size_t size) {
    uint8_t *exact = malloc(size ? size : 1);
    fuzz_must(exact != NULL, "there is memory");
    if (size) memcpy(exact, data, size);
    (void)LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

/* One change of data[0..size); returns the new size, at most `room`. */
static size_t mutate(uint8_t *data, size_t size, size_t room) {
    static const uint8_t odd[] = {0, 1, 0x7f, 0x80, 0xff, '"', '{', '\n'};
    const seed *other = &seeds[below(seed_count)];
    size_t at = below(size), n = 1 + below(8), from;
    switch (below(6)) {
    case 0: /* a bit */
        if (size) data[at] ^= (uint8_t)(1u << below(8));
        return size;
    case 1: /* a byte, or several that say "very large" */
        for (size_t i = at; i < size && i < at + n; i++) data[i] = odd[below(sizeof odd)];
        return size;
    case 2: /* cut */
        return below(8) ? size : at;
    case 3: /* remove */
        if (n > size - at) n = size - at;
        memmove(data + at, data + at + n, size - at - n);
        return size - n;
    case 4: /* repeat */
        if (n > size - at) n = size - at;
        if (n > room - size) n = room - size;
        memmove(data + at + n, data + at, size - at);
        return size + n;
    default: /* a part of another seed */
        from = below(other->size);
        for (size_t i = 0; i < 4 * n && at + i < size && from + i < other->size; i++)
            data[at + i] = other->data[from + i];
        return size;
    }
}

static void read_seeds(const char *folder) {
    struct dirent **names;
    int n = scandir(folder, &names, NULL, alphasort);
    fuzz_must(n >= 0, "the folder of seeds can be read");
    for (int i = 0; i < n; i++) {
        char *path = tw_path_join(folder, names[i]->d_name);
        seed *s = &seeds[seed_count];
        if (path && names[i]->d_name[0] != '.' && seed_count < MAX_SEEDS) {
            fuzz_must(fuzz_ok(tw_read_file(path, &s->data, &s->size)), "a seed can be read");
            seed_count++;
        }
        free(path);
        free(names[i]);
    }
    free(names);
    fuzz_must(seed_count > 0, "there are seeds");
}

static int mutate_all(double seconds) {
    struct timespec start, now;
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    int round = 0;
    for (; round < ROUNDS; round++) {
        const seed *s = &seeds[(size_t)round % seed_count];
        size_t room = s->size + MAX_GROWTH, size = s->size;
        uint8_t *data = malloc(room);
        fuzz_must(data != NULL, "there is memory");
        if (size) memcpy(data, s->data, size);
        for (size_t k = 1 + below(4); k > 0; k--) size = mutate(data, size, room);
        run(data, size);
        free(data);
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        if ((double)(now.tv_sec - start.tv_sec) + (double)(now.tv_nsec - start.tv_nsec) / 1e9 > seconds)
            break;
    }
    return round;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s FOLDER_OF_SEEDS [SECONDS]\n", argv[0]);
        return 2;
    }
    read_seeds(argv[1]);
    int cuts = 0;
    for (size_t i = 0; i < seed_count; i++) {
        run(seeds[i].data, seeds[i].size);
        for (size_t n = 0; n < seeds[i].size; n += 1 + seeds[i].size / 16, cuts++) run(seeds[i].data, n);
    }
    int rounds = mutate_all(argc > 2 ? strtod(argv[2], NULL) : 5);
    printf("%zu seeds, %d cut, %d mutated\ntests: 1 passed, 0 failed\n", seed_count, cuts, rounds);
    for (size_t i = 0; i < seed_count; i++) free(seeds[i].data);
    return 0;
}
