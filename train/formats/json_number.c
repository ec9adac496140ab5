#include "train/formats/json_number.h"

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { MOST_DIGITS = 19, MOST_POWER = 27 }; /* 10^19 < 2^64, 5^27 < 2^63 */

/* 5^k */
/* clang-format off */
static const uint64_t FIVES[MOST_POWER + 1] = {
    1u, 5u, 25u, 125u, 625u, 3125u, 15625u, 78125u, 390625u, 1953125u, 9765625u, 48828125u, 244140625u,
    1220703125u, 6103515625u, 30517578125u, 152587890625u, 762939453125u, 3814697265625u, 19073486328125u,
    95367431640625u, 476837158203125u, 2384185791015625u, 11920928955078125u, 59604644775390625u,
    298023223876953125u, 1490116119384765625u, 7450580596923828125u
};
/* clang-format on */

static double power_of_two(int e) {
    uint64_t bits = (uint64_t)(e + 1023) << 52;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* m / 10^k to the nearest double, 0 < m, k <= MOST_POWER: a quotient of 62 bits at least, rounded to 53 by
 * what was cut off and by whether the division leaves a remainder. The result is between 1e-27 and 2^64, so
 * never subnormal. */
static double quotient(uint64_t m, int k) {
    __extension__ typedef unsigned __int128 wide;
    int left = __builtin_clzll(m), right = __builtin_clzll(FIVES[k]);
    uint64_t divisor = FIVES[k] << right;
    wide dividend = (wide)(m << left) << 63; /* its upper half is below the divisor */
    uint64_t q = (uint64_t)(dividend / divisor);
    bool rest = (uint64_t)dividend != q * divisor;
    int cut = 11 - __builtin_clzll(q); /* 10 or 11 */
    uint64_t half = (uint64_t)1 << (cut - 1), low = q & (2 * half - 1), mantissa = q >> cut;
    if (low > half || (low == half && (rest || (mantissa & 1)))) mantissa++;
    return (double)mantissa * power_of_two(cut - 63 + right - left - k);
}

/* The value of eight digits at p (the first is the highest); false if one of them is no digit. */
static bool eight_digits(const char *p, uint64_t *out) {
    const uint64_t ones = 0x0101010101010101u;
    uint64_t x;
    memcpy(&x, p, sizeof x);
    x = le64toh(x) ^ 0x30 * ones; /* a digit leaves 0 to 9 */
    if ((x | (x + 0x76 * ones)) & 0x80 * ones) return false;
    x = x * 10 + (x >> 8); /* pairs, in every other byte */
    const uint64_t pairs = 0x000000ff000000ffu;
    *out = ((x & pairs) * (100 + (1000000ull << 32)) + (x >> 16 & pairs) * (1 + (10000ull << 32))) >> 32;
    return true;
}

/* Appends digits to *m; returns the byte behind them. *m is meaningless beyond 19 digits, which the caller
 * finds by counting. */
static const char *digits(const char *p, const char *end, uint64_t *m) {
    uint64_t eight;
    while (end - p >= 8 && eight_digits(p, &eight)) *m = *m * 100000000u + eight, p += 8;
    for (; p < end && (unsigned char)(*p - '0') < 10; p++) *m = *m * 10 + (uint64_t)(*p - '0');
    return p;
}

/* The exponent behind an 'e'; NULL if there is none. Anything beyond three digits is cut to 9999. */
static const char *exponent(const char *p, const char *end, int *out) {
    bool negative = p < end && *p == '-';
    if (p < end && (*p == '-' || *p == '+')) p++;
    const char *from = p;
    int e = 0;
    for (; p < end && (unsigned char)(*p - '0') < 10; p++) e = e < 1000 ? e * 10 + (*p - '0') : 9999;
    *out = negative ? -e : e;
    return p > from ? p : NULL;
}

const char *tw_json_number(const char *text, const char *end, double *out) {
    const char *p = text;
    uint64_t m = 0;
    int power = 0;
    bool negative = p < end && *p == '-';
    if (negative) p++;
    const char *from = p;
    p = digits(p, end, &m);
    ptrdiff_t whole = p - from, count = whole;
    if (whole == 0 || (*from == '0' && whole > 1)) return NULL;
    if (*from == '0') count = 0;
    bool integer = true;
    if (p < end && *p == '.') {
        const char *point = ++p;
        if (m == 0)
            while (p < end && *p == '0') p++;
        const char *first = p;
        p = digits(p, end, &m);
        if (p == point || p - point > 9999) return NULL;
        count += p - first;
        power = -(int)(p - point);
        integer = false;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        int e;
        p = exponent(p + 1, end, &e);
        if (!p) return NULL;
        power += e;
        integer = false;
    }
    if (count > MOST_DIGITS - (integer ? 1 : 0)) return NULL;
    if (m == 0) {
        *out = negative && !integer ? -0.0 : 0.0;
        return p;
    }
    if (power > 0 || power < -MOST_POWER) return NULL;
    double x = power ? quotient(m, -power) : (double)m;
    *out = negative ? -x : x;
    return p;
}
