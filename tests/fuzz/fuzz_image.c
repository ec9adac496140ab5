/* JPEG, PNG and WebP: decoded, resized to 32 x 32 and converted to RGB, both ways round. */
#include "fuzz.h"

#include "data/image.h"
#include "data/image_kind.h"

#include <stdlib.h>

enum { RESOLUTION = 32, MOST_PIXELS = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int width, height;
    tw_status headers = tw_image_check_headers(data, size, &width, &height);
    /* Pixels by the million are allowed and only cost time. */
    if (headers == TW_OK && (int64_t)width * height > MOST_PIXELS) return 0;
    static uint8_t rgb[3 * RESOLUTION * RESOLUTION];
    tw_image image;
    if (!fuzz_ok(tw_image_decode(data, size, &image))) {
        fuzz_must(image.pixels == NULL, "a refused image is empty");
        return 0;
    }
    size_t pixels = (size_t)image.width * (size_t)image.height;
    fuzz_must(image.width > 0 && image.height > 0 && pixels <= TW_IMAGE_MAX_PIXELS,
              "sizes are in the limits");
    uint8_t *all = malloc(3 * pixels);
    if (all) tw_image_copy_rgb(&image, all);
    free(all);
    tw_image_free(&image);
    if (pixels > MOST_PIXELS) return 0;
    fuzz_must(fuzz_ok(tw_image_load(data, size, RESOLUTION, rgb)), "what is decoded is resized");
    fuzz_must(fuzz_ok(tw_image_load_rgb_first(data, size, RESOLUTION, rgb)), "and resized in RGB");
    return 0;
}
