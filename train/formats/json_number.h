/* JSON numbers to doubles, exactly and without a library call each: what makes millions of features readable
 * in seconds. */
#ifndef TW_TRAIN_FORMATS_JSON_NUMBER_H
#define TW_TRAIN_FORMATS_JSON_NUMBER_H

#include <stddef.h>

/* Reads the JSON number that begins at text[0..end) and returns the byte behind it; *out is the double
 * nearest to it, ties to even, as strtod rounds (an integer -0 is 0, as JSON readers with an integer type
 * have it). NULL where no JSON number begins, and for those that need more than a division of 64-bit
 * integers: more than 19 significant digits, powers of ten below 1e-27 or, with the digits as an integer
 * before, other than 1. Such numbers are for the general reader. Independent of the locale. */
const char *tw_json_number(const char *text, const char *end, double *out);

#endif
