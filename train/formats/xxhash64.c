#include "train/formats/xxhash64.h"

#include "autograd/progress.h"

#include <endian.h>
#include <string.h>

static const uint64_t P1 = 0x9E3779B185EBCA87u, P2 = 0xC2B2AE3D27D4EB4Fu, P3 = 0x165667B19E3779F9u,
                      P4 = 0x85EBCA77C2B2AE63u, P5 = 0x27D4EB2F165667C5u;

static inline uint64_t rotate(uint64_t x, int bits) {
    return (x << bits) | (x >> (64 - bits));
}

static inline uint64_t load64(const unsigned char *p) {
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return le64toh(x);
}

static inline uint32_t load32(const unsigned char *p) {
    uint32_t x;
    memcpy(&x, p, sizeof x);
    return le32toh(x);
}

static inline uint64_t round_of(uint64_t lane, uint64_t word) {
    return rotate(lane + word * P2, 31) * P1;
}

static inline uint64_t merge(uint64_t hash, uint64_t lane) {
    return (hash ^ round_of(0, lane)) * P1 + P4;
}

uint64_t tw_xxh64(const void *data, size_t size, uint64_t seed) {
    const unsigned char *p = data;
    size_t left = size;
    uint64_t hash = seed + P5;
    tw_progress_aside();
    if (left >= 32) {
        uint64_t a = seed + P1 + P2, b = seed + P2, c = seed, d = seed - P1;
        for (; left >= 32; left -= 32, p += 32) {
            a = round_of(a, load64(p)), b = round_of(b, load64(p + 8));
            c = round_of(c, load64(p + 16)), d = round_of(d, load64(p + 24));
        }
        hash = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18);
        hash = merge(merge(merge(merge(hash, a), b), c), d);
    }
    hash += size;
    for (; left >= 8; left -= 8, p += 8) hash = rotate(hash ^ round_of(0, load64(p)), 27) * P1 + P4;
    if (left >= 4) hash = rotate(hash ^ load32(p) * P1, 23) * P2 + P3, left -= 4, p += 4;
    for (; left > 0; left--, p++) hash = rotate(hash ^ *p * P5, 11) * P1;
    hash = (hash ^ (hash >> 33)) * P2;
    hash = (hash ^ (hash >> 29)) * P3;
    return hash ^ (hash >> 32);
}
