#include "data/python_float.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* d.ddde±x with this many digits. */
static bool reads_back(double x, int digits, char out[TW_PYTHON_FLOAT_BYTES]) {
    snprintf(out, TW_PYTHON_FLOAT_BYTES, "%.*e", digits - 1, x);
    return strtod(out, NULL) == x;
}

/* At a power of two the doubles below are closer than those above, so a decimal that is not the nearest may
 * still read back: the next one away from zero. */
static bool next_reads_back(double x, int digits, char out[TW_PYTHON_FLOAT_BYTES]) {
    snprintf(out, TW_PYTHON_FLOAT_BYTES, "%.*e", digits - 1, x);
    char *last = strchr(out, 'e') - 1;
    if (*last == '9' || digits < 2) return false; /* a carry would end in 0 and be shorter: tried before */
    ++*last;
    return strtod(out, NULL) == x;
}

/* The shortest digits, at most 17, and the power of ten of the first, for any finite x > 0. */
static int by_printf(double x, char digits[20], int *exponent) {
    char e[TW_PYTHON_FLOAT_BYTES];
    /* A decimal of at most 15 digits survives the way through a double, so 15 digits hold every shorter one;
     * not so below the normal numbers. */
    int tried = x < DBL_MIN ? 1 : 15;
    while (tried < 16 && !reads_back(x, tried, e)) tried++;
    if (tried == 16 && !reads_back(x, 16, e) && !next_reads_back(x, 16, e)) (void)reads_back(x, 17, e);
    int count = 0;
    char *at = e;
    for (; *at != 'e'; at++)
        if (*at != '.') digits[count++] = *at;
    *exponent = atoi(at + 1);
    return count;
}

/* The same in integers, for x whose first 17 digits are the whole part of x * 10^p, 0 <= p <= 27: then
 * 4 x 10^p, its distance to a decimal and half of x's distance to the next doubles are integers below 2^122
 * times one power of two. */
__extension__ typedef unsigned __int128 wide;

typedef struct scaled {
    wide value;        /* 4 m 5^p, where x = m 2^e */
    wide above, below; /* how far a decimal may lie above and below and still be nearest to x */
    bool even;         /* a decimal exactly that far is rounded to x as well */
    int shift;         /* x * 10^p = value / 2^shift */
} scaled;

static bool rounds_to_x(const scaled *v, uint64_t decimal) {
    wide d = (wide)decimal << v->shift;
    bool up = d >= v->value;
    wide distance = up ? d - v->value : v->value - d, most = up ? v->above : v->below;
    return distance < most || (distance == most && v->even);
}

/* The multiple of `unit` nearest to x * 10^p, ties to an even multiple. */
static uint64_t nearest(const scaled *v, uint64_t unit) {
    uint64_t whole = (uint64_t)(v->value >> v->shift), q = whole / unit;
    wide rest = v->value - ((wide)(q * unit) << v->shift), all = (wide)unit << v->shift;
    if (2 * rest > all || (2 * rest == all && (q & 1))) q++;
    return q * unit;
}

static bool scale(double x, scaled *v, int *exponent) {
    static const uint64_t limit = 100000000000000000u; /* 10^17 */
    int e;
    uint64_t m = (uint64_t)ldexp(frexp(x, &e), 53);
    e -= 53;
    *exponent = (int)floor((e + 52) * 0.30102999566398120); /* floor(log10 x), or one less */
    for (int i = 0; i < 2; i++) {
        int p = 16 - *exponent;
        if (p < 0 || p > 27) return false;
        uint64_t five = 1;
        for (int k = 0; k < p; k++) five *= 5;
        v->shift = 2 - (e + p);
        if (v->shift < 1 || v->shift > 65) return false;
        v->value = 4 * (wide)m * five;
        v->above = 2 * (wide)five;
        v->below = m == (uint64_t)1 << 52 ? (wide)five : v->above;
        v->even = m % 2 == 0;
        if ((v->value >> v->shift) < limit) return true;
        ++*exponent;
    }
    return false;
}

static int by_integers(double x, char digits[20], int *exponent) {
    static const uint64_t tenth = 10000000000000000u; /* 10^16 */
    scaled v;
    if (!(x >= 1e-12 && x < 1e17) || !scale(x, &v, exponent)) return 0;
    uint64_t d = nearest(&v, 100);
    if (!rounds_to_x(&v, d)) d = nearest(&v, 10);
    if (!rounds_to_x(&v, d) && d / 10 % 10 != 9) d += 10; /* see next_reads_back */
    if (!rounds_to_x(&v, d)) d = nearest(&v, 1);
    if (d < tenth || d >= 10 * tenth) return 0; /* rounded up to a power of ten */
    for (int i = 16; i >= 0; i--, d /= 10) digits[i] = (char)('0' + d % 10);
    return 17;
}

int tw_python_float(double x, char text[TW_PYTHON_FLOAT_BYTES]) {
    char digits[20], *out = text;
    int count, exponent;
    if (signbit(x)) *out++ = '-', x = -x;
    count = by_integers(x, digits, &exponent);
    if (count == 0) count = by_printf(x, digits, &exponent);
    while (count > 1 && digits[count - 1] == '0') count--;
    if (exponent < -4 || exponent >= 16) {
        *out++ = digits[0];
        if (count > 1) *out++ = '.';
        for (int i = 1; i < count; i++) *out++ = digits[i];
        out += sprintf(out, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
    } else {
        if (exponent < 0) *out++ = '0', *out++ = '.';
        for (int i = exponent; i < -1; i++) *out++ = '0';
        for (int i = 0; i < count || i <= exponent; i++) {
            *out++ = i < count ? digits[i] : '0';
            if (i == exponent) *out++ = '.';
        }
        if (exponent >= 0 && count <= exponent + 1) *out++ = '0';
        *out = '\0';
    }
    return (int)(out - text);
}
