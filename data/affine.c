/* Pillow's Image.transform(AFFINE, BICUBIC) and rotate. */
#include "data/augment_ops.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t fill[3] = {123, 117, 104}; /* 255 times the pixel mean, as timm fills */

/* The three channels and a lane that is thrown away, so that the compiler may use wide registers; each lane
 * is rounded as a plain double is. Passed by pointer: the calling convention of vectors depends on the CPU.
 */
typedef double quad __attribute__((vector_size(32)));

/* The cubic through four samples, a = -1, in Pillow's order of terms; `at` in [0, 1) goes from v[1] to v[2].
 */
static inline void cubic(const quad v[4], double at, quad *out) {
    quad p2 = -v[0] + v[2], p3 = 2 * (v[0] - v[1]) + v[2] - v[3], p4 = -v[0] + v[1] - v[2] + v[3];
    *out = v[1] + at * (p2 + at * (p3 + at * p4));
}

/* The input, widened so that a load and one conversion give a quad. */
typedef int32_t pixel __attribute__((vector_size(16)));

static int clamp(int v, int size) {
    return v < 0 ? 0 : v < size ? v : size - 1;
}

/* One output pixel from (x, y) of the input, pixel centres at .5; the edge repeats. */
static void sample(const pixel *in, int width, int height, double x, double y, uint8_t *out) {
    if (x < 0.0 || x >= width || y < 0.0 || y >= height) {
        memcpy(out, fill, 3);
        return;
    }
    double left = floor(x - 0.5), top = floor(y - 0.5), dx = x - 0.5 - left, dy = y - 0.5 - top;
    int column[4];
    for (int i = 0; i < 4; i++) column[i] = clamp((int)left - 1 + i, width);
    quad rows[4], result;
    for (int r = 0; r < 4; r++) {
        const pixel *p = in + (size_t)width * (size_t)clamp((int)top - 1 + r, height);
        quad pixels[4];
        for (int i = 0; i < 4; i++) pixels[i] = __builtin_convertvector(p[column[i]], quad);
        cubic(pixels, dx, &rows[r]);
    }
    cubic(rows, dy, &result);
    for (int c = 0; c < 3; c++) {
        double v = result[c];
        out[c] = (uint8_t)(v <= 0.0 ? 0 : v >= 255.0 ? 255 : v);
    }
}

/* m maps an output position to an input one: (m0 x + m1 y + m2, m3 x + m4 y + m5). */
static tw_status transform(const double m[6], int width, int height, uint8_t *rgb) {
    size_t pixels = (size_t)width * (size_t)height;
    pixel *in = aligned_alloc(sizeof *in, pixels * sizeof *in);
    if (!in)
        return FAIL(TW_ERR_MEMORY, "affine transform: %zu bytes for scratch cannot be had",
                    pixels * sizeof *in);
    for (size_t i = 0; i < pixels; i++) in[i] = (pixel){rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2], 0};
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++, rgb += 3) {
            double px = x + 0.5, py = y + 0.5;
            sample(in, width, height, m[0] * px + m[1] * py + m[2], m[3] * px + m[4] * py + m[5], rgb);
        }
    free(in);
    return TW_OK;
}

/* Python's round(v, 15): to the nearest decimal, exactly, which printf's digits are. */
static double round_15(double v) {
    char digits[64];
    snprintf(digits, sizeof digits, "%.15f", v);
    return strtod(digits, NULL);
}

static void swap_pixels(uint8_t *a, uint8_t *b) {
    uint8_t t[3];
    memcpy(t, a, 3), memcpy(a, b, 3), memcpy(b, t, 3);
}

static void half_turn(int width, int height, uint8_t *rgb) {
    size_t n = (size_t)width * (size_t)height;
    for (size_t i = 0; i < n / 2; i++) swap_pixels(rgb + 3 * i, rgb + 3 * (n - 1 - i));
}

/* A quarter turn of a square, counterclockwise: out(x, y) = in(size - 1 - y, x). */
static tw_status quarter_turn(int size, uint8_t *rgb) {
    size_t n = (size_t)size;
    uint8_t *in = malloc(3 * n * n);
    if (!in) return FAIL(TW_ERR_MEMORY, "rotate: %zu bytes for scratch cannot be had", 3 * n * n);
    memcpy(in, rgb, 3 * n * n);
    for (size_t y = 0; y < n; y++)
        for (size_t x = 0; x < n; x++) memcpy(rgb + 3 * (y * n + x), in + 3 * (x * n + n - 1 - y), 3);
    free(in);
    return TW_OK;
}

tw_status tw_rotate(double degrees, int width, int height, uint8_t *rgb) {
    double angle = fmod(degrees, 360.0);
    if (angle < 0) angle += 360.0;
    if (angle == 0.0) return TW_OK;
    if (angle == 180.0) {
        half_turn(width, height, rgb);
        return TW_OK;
    }
    if (width == height && (angle == 90.0 || angle == 270.0)) {
        if (angle == 270.0) half_turn(width, height, rgb);
        return quarter_turn(width, rgb);
    }
    double radians = -(angle * (3.14159265358979323846 / 180.0));
    double c = round_15(cos(radians)), s = round_15(sin(radians));
    double m[6] = {c, s, 0.0, round_15(-sin(radians)), c, 0.0};
    double center_x = width / 2.0, center_y = height / 2.0;
    m[2] = m[0] * -center_x + m[1] * -center_y + 0.0 + center_x;
    m[5] = m[3] * -center_x + m[4] * -center_y + 0.0 + center_y;
    return transform(m, width, height, rgb);
}

tw_status tw_shear_x(double factor, int width, int height, uint8_t *rgb) {
    return transform((const double[6]){1, factor, 0, 0, 1, 0}, width, height, rgb);
}
