#include "data/resize.h"

#include "data/resize_kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A part of an image, or scratch pixels. */
typedef struct view {
    const uint8_t *pixels;
    size_t stride; /* bytes of a row */
    int width, height;
} view;

/* ---- weights ------------------------------------------------------------------------------------- */

/* The cubic convolution kernel with a = -0.5, its terms in Pillow's order (rounding!). */
static double bicubic(double x) {
    const double a = -0.5;
    if (x < 0.0) x = -x;
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

typedef struct weights {
    tw_resize_taps taps;
    double *exact; /* (outputs, stride), sum 1 each */
} weights;

static void free_weights(weights *w) {
    free(w->taps.first);
    free(w->taps.count);
    free(w->taps.weights);
    free(w->exact);
    *w = (weights){0};
}

static tw_status make_weights(int in, int out, weights *w) {
    double scale = (double)in / out, filter_scale = scale < 1.0 ? 1.0 : scale;
    double support = 2.0 * filter_scale, inverse = 1.0 / filter_scale;
    int stride = (int)ceil(support) * 2 + 1;
    size_t n = (size_t)out * (size_t)stride;
    *w = (weights){.taps = {.outputs = out, .stride = stride}};
    w->taps.first = calloc((size_t)out, sizeof *w->taps.first);
    w->taps.count = calloc((size_t)out, sizeof *w->taps.count);
    w->taps.weights = calloc(n, sizeof *w->taps.weights);
    w->exact = calloc(n, sizeof *w->exact);
    if (!w->taps.first || !w->taps.count || !w->taps.weights || !w->exact) {
        free_weights(w);
        return FAIL(TW_ERR_MEMORY, "resize from %d to %d pixels: no memory for %zu weights", in, out, n);
    }
    for (int o = 0; o < out; o++) {
        double center = (o + 0.5) * scale, sum = 0.0;
        int first = (int)(center - support + 0.5), end = (int)(center + support + 0.5);
        if (first < 0) first = 0;
        if (end > in) end = in;
        double *exact = w->exact + (size_t)o * (size_t)stride;
        for (int t = 0; t < end - first; t++) sum += exact[t] = bicubic((t + first - center + 0.5) * inverse);
        for (int t = 0; t < end - first; t++) {
            if (sum != 0.0) exact[t] /= sum;
            double fixed = exact[t] * (1 << TW_RESIZE_BITS);
            w->taps.weights[(size_t)o * (size_t)stride + (size_t)t] =
                (int)(exact[t] < 0 ? -0.5 + fixed : 0.5 + fixed);
        }
        w->taps.first[o] = first, w->taps.count[o] = end - first;
    }
    return TW_OK;
}

/* ---- the two passes ------------------------------------------------------------------------------ */

static int32_t read_sample(tw_image_mode mode, const uint8_t *p) {
    if (mode == TW_MODE_I) {
        int32_t v;
        memcpy(&v, p, 4);
        return v;
    }
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}

static void write_sample(tw_image_mode mode, double sum, uint8_t *p) {
    sum = sum >= 0.0 ? sum + 0.5 : sum - 0.5;
    int32_t v = sum >= 2147483647.0 ? INT32_MAX : sum <= -2147483648.0 ? INT32_MIN : (int32_t)sum;
    if (mode == TW_MODE_I) {
        memcpy(p, &v, 4);
        return;
    }
    uint16_t word = (uint16_t)(v < 0 ? 0 : v > UINT16_MAX ? UINT16_MAX : v);
    memcpy(p, &word, 2);
}

static void horizontal_wide(tw_image_mode mode, const weights *w, view in, uint8_t *out) {
    size_t size = (size_t)tw_image_pixel_bytes(mode);
    for (int y = 0; y < in.height; y++)
        for (int o = 0; o < w->taps.outputs; o++, out += size) {
            const uint8_t *p = in.pixels + (size_t)y * in.stride + (size_t)w->taps.first[o] * size;
            const double *k = w->exact + (size_t)o * (size_t)w->taps.stride;
            double sum = 0.0;
            for (int t = 0; t < w->taps.count[o]; t++, p += size) sum += read_sample(mode, p) * k[t];
            write_sample(mode, sum, out);
        }
}

static void vertical_wide(tw_image_mode mode, const weights *w, view in, uint8_t *out) {
    size_t size = (size_t)tw_image_pixel_bytes(mode);
    for (int o = 0; o < w->taps.outputs; o++)
        for (int x = 0; x < in.width; x++, out += size) {
            const uint8_t *p = in.pixels + (size_t)w->taps.first[o] * in.stride + (size_t)x * size;
            const double *k = w->exact + (size_t)o * (size_t)w->taps.stride;
            double sum = 0.0;
            for (int t = 0; t < w->taps.count[o]; t++, p += in.stride) sum += read_sample(mode, p) * k[t];
            write_sample(mode, sum, out);
        }
}

static int is_wide(tw_image_mode mode) {
    return mode == TW_MODE_I || mode == TW_MODE_I16;
}

static void horizontal_pass(tw_image_mode mode, const weights *w, view in, uint8_t *out) {
    int size = tw_image_pixel_bytes(mode);
    if (is_wide(mode))
        horizontal_wide(mode, w, in, out);
    else
        tw_resize_best()->horizontal(&w->taps, size, in.pixels, in.stride, in.width, in.height, out,
                                     (size_t)w->taps.outputs * (size_t)size);
}

static void vertical_pass(tw_image_mode mode, const weights *w, view in, uint8_t *out) {
    if (is_wide(mode)) {
        vertical_wide(mode, w, in, out);
        return;
    }
    const tw_resize_kernels *kernels = tw_resize_best();
    size_t bytes = (size_t)in.width * (size_t)tw_image_pixel_bytes(mode);
    for (int o = 0; o < w->taps.outputs; o++)
        kernels->vertical(w->taps.weights + (size_t)o * (size_t)w->taps.stride, w->taps.count[o],
                          in.pixels + (size_t)w->taps.first[o] * in.stride, in.stride, bytes,
                          out + (size_t)o * bytes);
}

/* One pass of `mode`, across or down, into `out` (pixels of the pass's size). */
static tw_status pass(tw_image_mode mode, int is_down, view in, int size, uint8_t *out) {
    weights w;
    TRY(make_weights(is_down ? in.height : in.width, size, &w));
    if (is_down)
        vertical_pass(mode, &w, in, out);
    else
        horizontal_pass(mode, &w, in, out);
    free_weights(&w);
    return TW_OK;
}

/* Along rows first, then along columns; a direction whose size is right already is left out. Since 13.0
 * Pillow turns the order round when more than twice as many rows as columns go away (pull request 9549),
 * which the rounding in between makes visible. */
static tw_status resample(tw_image_mode mode, view in, tw_image *out) {
    int across = in.width != out->width, down = in.height != out->height;
    if (!across || !down) return pass(mode, down, in, down ? out->height : out->width, out->pixels);
    int down_first = in.height > out->height && in.height - out->height > 2 * (in.width - out->width);
    view between = {.width = down_first ? in.width : out->width,
                    .height = down_first ? out->height : in.height};
    between.stride = (size_t)between.width * (size_t)tw_image_pixel_bytes(mode);
    size_t bytes = between.stride * (size_t)between.height;
    uint8_t *scratch = malloc(bytes);
    if (!scratch) return FAIL(TW_ERR_MEMORY, "resize: %zu bytes for scratch cannot be had", bytes);
    between.pixels = scratch;
    tw_status status = pass(mode, down_first, in, down_first ? out->height : out->width, scratch);
    if (!status)
        status = pass(mode, !down_first, between, down_first ? out->width : out->height, out->pixels);
    free(scratch);
    return status;
}

/* ---- modes with their own way --------------------------------------------------------------------- */

static uint8_t multiply_255(unsigned a, unsigned b) {
    unsigned t = a * b + 128;
    return (uint8_t)(((t >> 8) + t) >> 8);
}

/* LA and RGBA: colours times alpha, so that what is transparent does not bleed. */
static void premultiply(view in, int size, uint8_t *out) {
    for (int y = 0; y < in.height; y++) {
        const uint8_t *p = in.pixels + (size_t)y * in.stride;
        for (int x = 0; x < in.width; x++, p += size, out += size) {
            for (int c = 0; c < size - 1; c++) out[c] = multiply_255(p[c], p[size - 1]);
            out[size - 1] = p[size - 1];
        }
    }
}

static void unpremultiply(tw_image *image, int size) {
    uint8_t *p = image->pixels;
    for (size_t i = 0, n = (size_t)image->width * (size_t)image->height; i < n; i++, p += size) {
        unsigned alpha = p[size - 1];
        if (alpha == 0 || alpha == 255) continue;
        for (int c = 0; c < size - 1; c++) {
            unsigned v = 255u * p[c] / alpha;
            p[c] = (uint8_t)(v > 255 ? 255 : v);
        }
    }
}

static tw_status resample_alpha(tw_image_mode mode, view in, tw_image *out) {
    int size = tw_image_pixel_bytes(mode);
    size_t stride = (size_t)in.width * (size_t)size;
    uint8_t *scratch = malloc(stride * (size_t)in.height);
    if (!scratch)
        return FAIL(TW_ERR_MEMORY, "resize: %zu bytes for scratch cannot be had", stride * (size_t)in.height);
    premultiply(in, size, scratch);
    tw_status status = resample(mode, (view){scratch, stride, in.width, in.height}, out);
    free(scratch);
    if (!status) unpremultiply(out, size);
    return status;
}

/* Positions are summed up step by step, as Pillow does: at large sizes the rounding decides some pixels. One
 * that the sum carries beyond the edge stays 0. */
static tw_status nearest(view in, tw_image *out) {
    int *source = malloc((size_t)out->width * sizeof *source);
    if (!source) return FAIL(TW_ERR_MEMORY, "resize: no memory for %d positions", out->width);
    double step_x = (double)in.width / out->width, step_y = (double)in.height / out->height;
    double at = step_x * 0.5;
    for (int x = 0; x < out->width; x++, at += step_x) source[x] = (int)at;
    at = step_y * 0.5;
    for (int y = 0; y < out->height; y++, at += step_y) {
        uint8_t *row = out->pixels + (size_t)y * (size_t)out->width;
        memset(row, 0, (size_t)out->width);
        if (at >= in.height) continue;
        const uint8_t *from = in.pixels + (size_t)at * in.stride;
        for (int x = 0; x < out->width; x++)
            if (source[x] < in.width) row[x] = from[source[x]];
    }
    free(source);
    return TW_OK;
}

static void copy_view(view in, int size, uint8_t *out) {
    size_t bytes = (size_t)in.width * (size_t)size;
    for (int y = 0; y < in.height; y++)
        memcpy(out + (size_t)y * bytes, in.pixels + (size_t)y * in.stride, bytes);
}

tw_status tw_image_resize_box(const tw_image *in, int x, int y, int box_width, int box_height, int width,
                              int height, tw_image *out) {
    *out = (tw_image){0};
    if (x < 0 || y < 0 || box_width < 1 || box_height < 1 || box_width > in->width - x ||
        box_height > in->height - y)
        return FAIL(TW_ERR_ARGUMENT, "crop (%d, %d) + %d x %d is not inside an image of %d x %d", x, y,
                    box_width, box_height, in->width, in->height);
    TRY(tw_image_alloc(out, in->mode, width, height));
    if (in->palette) memcpy(out->palette, in->palette, 256 * 3);
    int size = tw_image_pixel_bytes(in->mode);
    size_t stride = (size_t)in->width * (size_t)size;
    view box = {in->pixels + (size_t)y * stride + (size_t)x * (size_t)size, stride, box_width, box_height};
    tw_status status = TW_OK;
    if (box_width == width && box_height == height)
        copy_view(box, size, out->pixels);
    else if (in->mode == TW_MODE_1 || in->mode == TW_MODE_P)
        status = nearest(box, out);
    else if (in->mode == TW_MODE_LA || in->mode == TW_MODE_RGBA)
        status = resample_alpha(in->mode, box, out);
    else
        status = resample(in->mode, box, out);
    if (status) tw_image_free(out);
    return status;
}

tw_status tw_image_resize(const tw_image *in, int width, int height, tw_image *out) {
    return tw_image_resize_box(in, 0, 0, in->width, in->height, width, height, out);
}
