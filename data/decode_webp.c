/* WebP through libwebp, the only file that knows it. Pillow reads every WebP with the animation decoder and
 * shows the first frame on the canvas, RGB if the file says it has no alpha and RGBA otherwise; a still
 * picture is the same as its plain decoding, which needs no canvas. */
#include "data/image_codecs.h"

#include <webp/decode.h>
#include <webp/demux.h>

#include <string.h>

static tw_status webp_error(VP8StatusCode code) {
    switch (code) {
    case VP8_STATUS_OUT_OF_MEMORY:
        /* libwebp 1.5 (Debian 13) says this of files with damaged alpha planes too. */
        return FAIL(TW_ERR_FORMAT, "WebP file is damaged, or there is no memory for its pixels");
    case VP8_STATUS_SUSPENDED:
    case VP8_STATUS_NOT_ENOUGH_DATA:
        return FAIL(TW_ERR_FORMAT, "WebP file is truncated");
    case VP8_STATUS_UNSUPPORTED_FEATURE:
        return FAIL(TW_ERR_UNSUPPORTED, "WebP file uses a feature that libwebp does not know");
    default:
        return FAIL(TW_ERR_FORMAT, "WebP file is broken (libwebp status %d)", (int)code);
    }
}

static void copy_canvas(const uint8_t *rgba, tw_image *out) {
    size_t pixels = (size_t)out->width * (size_t)out->height;
    if (out->mode == TW_MODE_RGBA) {
        memcpy(out->pixels, rgba, 4 * pixels);
        return;
    }
    for (size_t i = 0; i < pixels; i++) memcpy(out->pixels + 3 * i, rgba + 4 * i, 3);
}

static tw_status first_frame(const WebPData *data, tw_image *out) {
    WebPAnimDecoderOptions options;
    if (!WebPAnimDecoderOptionsInit(&options))
        return FAIL(TW_ERR_LIBRARY, "libwebpdemux is of another version than its header");
    options.color_mode = MODE_RGBA;
    WebPAnimDecoder *decoder = WebPAnimDecoderNew(data, &options);
    if (!decoder) return FAIL(TW_ERR_FORMAT, "WebP animation is truncated or broken");
    uint8_t *canvas;
    int end_ms;
    tw_status status = TW_OK;
    if (WebPAnimDecoderGetNext(decoder, &canvas, &end_ms))
        copy_canvas(canvas, out);
    else
        status = FAIL(TW_ERR_FORMAT, "WebP animation: its first frame is truncated or broken");
    WebPAnimDecoderDelete(decoder);
    return status;
}

tw_status tw_decode_webp(const uint8_t *bytes, size_t n, tw_image *out) {
    *out = (tw_image){0};
    WebPBitstreamFeatures f;
    VP8StatusCode code = WebPGetFeatures(bytes, n, &f);
    if (code != VP8_STATUS_OK) return webp_error(code);
    TRY(tw_image_alloc(out, f.has_alpha ? TW_MODE_RGBA : TW_MODE_RGB, f.width, f.height));
    tw_status status = TW_OK;
    if (f.has_animation) {
        status = first_frame(&(WebPData){bytes, n}, out);
    } else {
        WebPDecoderConfig config;
        if (!WebPInitDecoderConfig(&config)) {
            tw_image_free(out);
            return FAIL(TW_ERR_LIBRARY, "libwebp is of another version than its header");
        }
        int stride = out->width * tw_image_pixel_bytes(out->mode);
        config.output.colorspace = f.has_alpha ? MODE_RGBA : MODE_RGB;
        config.output.is_external_memory = 1;
        config.output.u.RGBA = (WebPRGBABuffer){
            .rgba = out->pixels, .stride = stride, .size = (size_t)stride * (size_t)out->height};
        code = WebPDecode(bytes, n, &config);
        if (code != VP8_STATUS_OK) status = webp_error(code);
        WebPFreeDecBuffer(&config.output);
    }
    if (status) tw_image_free(out);
    return status;
}
