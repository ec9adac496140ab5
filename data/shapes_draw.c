/* Drawing a scene: coverage from 4 x 4 samples a pixel, all in units where a picture is 1 x 1. */
#include "data/shapes_internal.h"

#include <math.h>
#include <stdbool.h>

enum { SAMPLES = 4 };

typedef struct placed_object {
    int shape;
    double x, y;         /* centre, y downwards */
    double radius;       /* of the circle with about the same area */
    double cosine, sine; /* of the rotation */
    double rgb[3];       /* 0 to 255 */
} placed_object;

/* How far a shape of radius 1 reaches from its centre: chosen so that areas look alike. */
static const double reach[TW_SHAPES_SHAPES] = {1.0, 1.38, 1.25, 1.50};
static const double turn[TW_SHAPES_SHAPES] = {0, 0.35, 0.26, 0.26}; /* rotation jitter, radians */
/* Hue in degrees, saturation, value. */
static const double palette[TW_SHAPES_COLOURS][3] = {
    {0, 0.86, 0.88},   {49, 0.92, 0.95},  {132, 0.76, 0.62},
    {216, 0.84, 0.86}, {284, 0.68, 0.68}, {220, 0.12, 0.13},
};
static const double size_radius[TW_SHAPES_SIZES] = {0.160, 0.086};
static const double size_jitter[TW_SHAPES_SIZES] = {0.012, 0.009};

/* A stream of uniform numbers in [-1, 1). */
typedef struct jitter {
    tw_draw draw;
    uint32_t next;
} jitter;

static double spread(jitter *j) {
    return 2 * tw_random_double(&j->draw, j->next++) - 1;
}

static void hsv_to_rgb(double hue, double saturation, double value, double rgb[3]) {
    for (int i = 0; i < 3; i++) {
        /* f(n) = v - v s max(0, min(k, 4 - k, 1)), k = (n + h / 60) mod 6, n = 5, 3, 1 */
        double k = fmod(5 - 2 * i + hue / 60 + 6, 6);
        rgb[i] = 255 * (value - value * saturation * fmax(0, fmin(fmin(k, 4 - k), 1)));
    }
}

static placed_object place_object(const tw_shapes_object *object, jitter *j) {
    placed_object placed = {.shape = object->shape};
    placed.radius = size_radius[object->size] + size_jitter[object->size] * spread(j);
    /* The centre moves as far as the shape stays inside its quarter. */
    double room = fmax(0.012, 0.92 * (0.25 - placed.radius * reach[object->shape]));
    placed.x = (object->place % 2 ? 0.75 : 0.25) + room * spread(j);
    placed.y = (object->place / 2 ? 0.75 : 0.25) + room * spread(j);
    double angle = turn[object->shape] * spread(j);
    placed.cosine = cos(angle), placed.sine = sin(angle);
    const double *base = palette[object->colour];
    double hue = base[0] + 7 * spread(j);
    double saturation = fmin(1, fmax(0, base[1] + 0.08 * spread(j)));
    double value = fmin(1, fmax(0, base[2] + 0.07 * spread(j)));
    hsv_to_rgb(hue, saturation, value, placed.rgb);
    return placed;
}

/* Is the point inside a shape of radius 1 around the origin (y downwards)? */
static bool inside(int shape, double x, double y) {
    const double r = reach[shape];
    switch (shape) {
    case 0:
        return x * x + y * y <= 1;
    case 1:
        return y <= r / 2 && 0.8660254037844386 * fabs(x) - y / 2 <= r / 2;
    case 2:
        return fmax(fabs(x), fabs(y)) <= r * 0.7071067811865476;
    default: {
        /* A pentagram: beyond at most one of the five lines that join every second tip; their distance from
         * the centre is r cos 72 degrees. */
        static const double tip[5][2] = {{0, -1},
                                         {0.9510565162951535, -0.30901699437494745},
                                         {0.5877852522924731, 0.8090169943749475},
                                         {-0.5877852522924731, 0.8090169943749475},
                                         {-0.9510565162951535, -0.30901699437494745}};
        int beyond = 0;
        for (int i = 0; i < 5; i++) beyond += tip[i][0] * x + tip[i][1] * y > 0.30901699437494745 * r;
        return beyond <= 1;
    }
    }
}

static double coverage(const placed_object *object, int column, int row, int px) {
    int hits = 0;
    for (int i = 0; i < SAMPLES * SAMPLES; i++) {
        int right = i % SAMPLES, down = i / SAMPLES;
        double x = (column + (right + 0.5) / SAMPLES) / px - object->x;
        double y = (row + (down + 0.5) / SAMPLES) / px - object->y;
        double u = (x * object->cosine + y * object->sine) / object->radius;
        double v = (y * object->cosine - x * object->sine) / object->radius;
        hits += inside(object->shape, u, v);
    }
    return hits / (double)(SAMPLES * SAMPLES);
}

static int clamp_index(double value, int px) {
    return value < 0 ? 0 : value > px ? px : (int)value;
}

static void draw_object(const placed_object *object, int px, float *canvas) {
    double extent = object->radius * reach[object->shape];
    int left = clamp_index((object->x - extent) * px, px),
        right = clamp_index((object->x + extent) * px + 1, px);
    int top = clamp_index((object->y - extent) * px, px),
        bottom = clamp_index((object->y + extent) * px + 1, px);
    for (int row = top; row < bottom; row++)
        for (int column = left; column < right; column++) {
            double cover = coverage(object, column, row, px);
            float *pixel = canvas + 3 * ((size_t)row * (size_t)px + (size_t)column);
            for (int c = 0; c < 3; c++) pixel[c] += (float)(cover * (object->rgb[c] - (double)pixel[c]));
        }
}

void tw_shapes_draw(const tw_shapes_scene *scene, tw_draw draw, int px, float *canvas, uint8_t *rgb) {
    draw.layer = TW_SHAPES_LAYER_JITTER;
    jitter j = {.draw = draw};
    /* Background: a light tint with a slope in brightness. */
    double tint[3], light = 228 + 16 * spread(&j);
    for (int c = 0; c < 3; c++) tint[c] = light + 10 * spread(&j);
    double slope_x = 10 * spread(&j), slope_y = 10 * spread(&j);
    double grain = 3 + 2 * spread(&j);
    for (int row = 0; row < px; row++)
        for (int column = 0; column < px; column++) {
            double slope = slope_x * ((column + 0.5) / px - 0.5) + slope_y * ((row + 0.5) / px - 0.5);
            float *pixel = canvas + 3 * ((size_t)row * (size_t)px + (size_t)column);
            for (int c = 0; c < 3; c++) pixel[c] = (float)(tint[c] + slope);
        }
    for (int i = 0; i < (scene->single ? 1 : 2); i++) {
        placed_object object = place_object(&scene->object[i], &j);
        draw_object(&object, px, canvas);
    }
    /* Grain: the sum of two bytes, so a triangle distribution, one draw a pixel for all channels: it hides
     * nothing, but makes no two pictures equal. */
    draw.layer = TW_SHAPES_LAYER_NOISE;
    size_t pixels = (size_t)px * (size_t)px;
    for (size_t block = 0; 8 * block < pixels; block++) {
        uint32_t words[4];
        tw_random4(&draw, (uint32_t)block, words);
        for (size_t i = 0; i < 8 && 8 * block + i < pixels; i++) {
            uint32_t half = words[i / 2] >> (i % 2 * 16);
            double noise = grain * ((double)(half & 255) + (double)(half >> 8 & 255) - 255) / 255;
            for (size_t c = 0; c < 3; c++) {
                double value = (double)canvas[3 * (8 * block + i) + c] + noise;
                rgb[3 * (8 * block + i) + c] = (uint8_t)(fmin(255, fmax(0, value)) + 0.5);
            }
        }
    }
}
