#include "train/formats/python_float.h"

#include <stdbool.h>
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

int tw_python_float(double x, char text[TW_PYTHON_FLOAT_BYTES]) {
    char e[TW_PYTHON_FLOAT_BYTES];
    /* A decimal of at most 15 digits survives the way through a double, so 15 digits hold every shorter one.
     */
    if (!reads_back(x, 15, e) && !reads_back(x, 16, e) && !next_reads_back(x, 16, e))
        (void)reads_back(x, 17, e);
    char digits[20], *at = e, *out = text;
    int count = 0;
    if (*at == '-') *out++ = *at++;
    for (; *at != 'e'; at++)
        if (*at != '.') digits[count++] = *at;
    int exponent = atoi(at + 1);
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
