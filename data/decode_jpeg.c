/* JPEG through libjpeg-turbo's libjpeg interface, the only file that knows it.
 *
 * Not TurboJPEG: its 2.x refuses rare chroma subsamplings and reports a truncated file as a mere warning.
 * Settings are Pillow's: integer DCT and smooth chroma upsampling (libjpeg's defaults), CMYK inverted. As
 * Pillow does, the source never invents an end of file: when the bytes run out, libjpeg suspends, and that is
 * how a truncated file shows. */
#include "data/image_codecs.h"

#include <setjmp.h>
#include <stdio.h>

#include <jpeglib.h>

typedef struct reader {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    jmp_buf escape;
    char message[JMSG_LENGTH_MAX];
} reader;

/* libjpeg's fatal error: its callbacks must not return. */
static _Noreturn void on_error(j_common_ptr jpeg) {
    reader *r = jpeg->client_data;
    jpeg->err->format_message(jpeg, r->message);
    longjmp(r->escape, 1);
}

static void on_message(j_common_ptr jpeg) { /* warnings: Pillow keeps silent too */
    (void)jpeg;
}

static void nothing(j_decompress_ptr jpeg) {
    (void)jpeg;
}

static boolean no_more_input(j_decompress_ptr jpeg) {
    (void)jpeg;
    return FALSE;
}

static void skip_input(j_decompress_ptr jpeg, long count) {
    struct jpeg_source_mgr *s = jpeg->src;
    size_t n = count < 0 ? 0 : (size_t)count;
    if (n > s->bytes_in_buffer) n = s->bytes_in_buffer;
    s->next_input_byte += n;
    s->bytes_in_buffer -= n;
}

static void open_reader(reader *r, const uint8_t *bytes, size_t n) {
    r->jpeg.err = jpeg_std_error(&r->errors);
    r->jpeg.client_data = r;
    r->errors.error_exit = on_error;
    r->errors.output_message = on_message;
    jpeg_create_decompress(&r->jpeg);
    r->source = (struct jpeg_source_mgr){
        .next_input_byte = bytes,
        .bytes_in_buffer = n,
        .init_source = nothing,
        .fill_input_buffer = no_more_input,
        .skip_input_data = skip_input,
        .resync_to_restart = jpeg_resync_to_restart,
        .term_source = nothing,
    };
    r->jpeg.src = &r->source;
}

static tw_status truncated(const reader *r, size_t n) {
    return FAIL(TW_ERR_FORMAT, "JPEG file is truncated: its %zu bytes end at row %u of %u", n,
                r->jpeg.output_scanline, r->jpeg.image_height);
}

static tw_status read_rows(reader *r, size_t n, tw_image *out) {
    size_t stride = (size_t)out->width * (size_t)tw_image_pixel_bytes(out->mode);
    while (r->jpeg.output_scanline < r->jpeg.output_height) {
        JSAMPROW rows[16];
        JDIMENSION count = 0, first = r->jpeg.output_scanline;
        for (; count < 16 && first + count < r->jpeg.output_height; count++)
            rows[count] = out->pixels + (first + count) * stride;
        if (jpeg_read_scanlines(&r->jpeg, rows, count) == 0) return truncated(r, n);
    }
    return TW_OK;
}

/* A Huffman-coded block of 64 samples takes at least a bit, and blocks cover at most 4 x 8 x 8 pixels each in
 * the finest component of any sane file: a header that promises more is damaged, and believing it would cost
 * gigabytes for a progressive file's coefficients. */
static tw_status check_plausible(const reader *r, size_t n) {
    double pixels = (double)r->jpeg.image_width * r->jpeg.image_height;
    if (r->jpeg.arith_code || pixels <= 8.0 * 4 * 64 * (double)n) return TW_OK;
    return FAIL(TW_ERR_FORMAT, "JPEG file of %zu bytes cannot hold the %u x %u pixels of its header", n,
                r->jpeg.image_width, r->jpeg.image_height);
}

/* Everything between open and close. setjmp lives in the caller, so no local of it is changed after. */
static tw_status decode(reader *r, size_t n, tw_image *out) {
    int header;
    do {
        header = jpeg_read_header(&r->jpeg, FALSE);
    } while (header == JPEG_HEADER_TABLES_ONLY);
    if (header == JPEG_SUSPENDED)
        return FAIL(TW_ERR_FORMAT, "JPEG file is truncated: its %zu bytes end in the header", n);
    tw_image_mode mode;
    switch (r->jpeg.num_components) {
    case 1:
        mode = TW_MODE_L, r->jpeg.out_color_space = JCS_GRAYSCALE;
        break;
    case 3:
        mode = TW_MODE_RGB, r->jpeg.out_color_space = JCS_RGB;
        break;
    case 4:
        mode = TW_MODE_CMYK, r->jpeg.out_color_space = JCS_CMYK;
        break;
    default:
        return FAIL(TW_ERR_UNSUPPORTED, "JPEG file with %d components: 1, 3 and 4 are read",
                    r->jpeg.num_components);
    }
    TRY(tw_image_alloc(out, mode, r->jpeg.image_width, r->jpeg.image_height));
    TRY(check_plausible(r, n));
    if (!jpeg_start_decompress(&r->jpeg)) return truncated(r, n);
    TRY(read_rows(r, n, out));
    (void)jpeg_finish_decompress(&r->jpeg); /* may refuse what stands after the rows, but not a missing end */
    if (mode == TW_MODE_CMYK)
        for (size_t i = 0, size = 4 * (size_t)out->width * (size_t)out->height; i < size; i++)
            out->pixels[i] = (uint8_t)~out->pixels[i];
    return TW_OK;
}

tw_status tw_decode_jpeg(const uint8_t *bytes, size_t n, tw_image *out) {
    reader r = {0};
    tw_status status;
    *out = (tw_image){0};
    if (setjmp(r.escape)) {
        status = FAIL(TW_ERR_FORMAT, "JPEG file is broken: %s", r.message);
    } else {
        open_reader(&r, bytes, n);
        status = decode(&r, n, out);
    }
    jpeg_destroy_decompress(&r.jpeg);
    if (status) tw_image_free(out);
    return status;
}
