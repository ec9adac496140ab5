/* Encoding the pictures and writing the files of the demonstration data set. */
#include "data/atomic_file.h"
#include "data/base64.h"
#include "data/files.h"
#include "data/shapes_internal.h"
#include "data/tokenizer.h"

#include <spng.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <turbojpeg.h>

enum { JPEG_QUALITY = 92, VOCABULARY_MAX = 1000 };

typedef enum file_id { TRAIN_IMAGES, TRAIN_TEXTS, VALID_IMAGES, VALID_TEXTS, VOCABULARY, FILES } file_id;
static const char *const file_names[FILES] = {"train_imgs.tsv", "train_texts.jsonl", "valid_imgs.tsv",
                                              "valid_texts.jsonl", "vocab.txt"};

/* ---- pictures ---- */

typedef struct painter {
    tw_shapes_format format;
    int px;
    float *canvas; /* (px, px, 3) */
    uint8_t *rgb;  /* (px, px, 3) */
    tjhandle jpeg;
    unsigned char *jpeg_bytes; /* tjAlloc'ed for the largest picture */
    unsigned long jpeg_room;
    char *base64;
    size_t base64_room;
    uint64_t bytes; /* of all pictures so far */
} painter;

static void painter_close(painter *p) {
    if (p->jpeg) tjDestroy(p->jpeg);
    tjFree(p->jpeg_bytes);
    free(p->canvas);
    free(p->rgb);
    free(p->base64);
}

static tw_status painter_open(painter *p, const tw_shapes_options *options) {
    size_t values = 3 * (size_t)options->px * (size_t)options->px;
    *p = (painter){.format = options->format,
                   .px = options->px,
                   .canvas = malloc(values * sizeof(float)),
                   .rgb = malloc(values)};
    p->jpeg_room = tjBufSize(p->px, p->px, TJSAMP_444);
    if (p->format == TW_SHAPES_JPEG) p->jpeg = tjInitCompress(), p->jpeg_bytes = tjAlloc((int)p->jpeg_room);
    if (!p->canvas || !p->rgb || (p->format == TW_SHAPES_JPEG && (!p->jpeg || !p->jpeg_bytes)))
        return FAIL(TW_ERR_MEMORY, "shapes: no memory to draw pictures of %d pixels", p->px);
    return TW_OK;
}

static tw_status put_base64(painter *p, const uint8_t *bytes, size_t size, FILE *out) {
    size_t length = tw_base64_encoded_size(size);
    if (length > p->base64_room) {
        char *larger = realloc(p->base64, length);
        if (!larger) return FAIL(TW_ERR_MEMORY, "shapes: no memory for %zu bytes of base64", length);
        p->base64 = larger, p->base64_room = length;
    }
    tw_base64_encode(bytes, size, p->base64);
    fwrite(p->base64, 1, length, out); /* errors stay in `out` until it is committed */
    p->bytes += size;
    return TW_OK;
}

static tw_status put_png(painter *p, FILE *out) {
    spng_ctx *png = spng_ctx_new(SPNG_CTX_ENCODER);
    if (!png) return FAIL(TW_ERR_MEMORY, "shapes: libspng has no memory for an encoder");
    struct spng_ihdr header = {.width = (uint32_t)p->px,
                               .height = (uint32_t)p->px,
                               .bit_depth = 8,
                               .color_type = SPNG_COLOR_TYPE_TRUECOLOR};
    size_t size = 0;
    uint8_t *bytes = NULL;
    int error = spng_set_option(png, SPNG_ENCODE_TO_BUFFER, 1);
    if (!error) error = spng_set_ihdr(png, &header);
    if (!error)
        error = spng_encode_image(png, p->rgb, 3 * (size_t)p->px * (size_t)p->px, SPNG_FMT_PNG,
                                  SPNG_ENCODE_FINALIZE);
    if (!error) bytes = spng_get_png_buffer(png, &size, &error);
    tw_status status =
        error ? FAIL(TW_ERR_LIBRARY, "shapes: libspng cannot encode a picture: %s", spng_strerror(error))
              : put_base64(p, bytes, size, out);
    free(bytes);
    spng_ctx_free(png);
    return status;
}

/* 4:4:4, because halved colour would wash out the small shapes. */
static tw_status put_jpeg(painter *p, FILE *out) {
    unsigned long size = p->jpeg_room;
    if (tjCompress2(p->jpeg, p->rgb, p->px, 0, p->px, TJPF_RGB, &p->jpeg_bytes, &size, TJSAMP_444,
                    JPEG_QUALITY, TJFLAG_NOREALLOC) != 0)
        return FAIL(TW_ERR_LIBRARY, "shapes: libjpeg-turbo cannot encode a picture: %s",
                    tjGetErrorStr2(p->jpeg));
    return put_base64(p, p->jpeg_bytes, size, out);
}

/* ---- one split ---- */

static void put_captions(const tw_shapes_scene *scene, int image_id, int captions, tw_draw draw, FILE *out) {
    int variants[TW_SHAPES_CAPTIONS];
    for (int i = 0; i < TW_SHAPES_CAPTIONS; i++) variants[i] = i;
    draw.layer = TW_SHAPES_LAYER_CAPTION;
    for (int i = 0; i < captions; i++) {
        int other = i + (int)tw_random_below(&draw, (uint32_t)i, (uint64_t)(TW_SHAPES_CAPTIONS - i));
        int variant = variants[other];
        variants[other] = variants[i], variants[i] = variant;
        char caption[TW_SHAPES_CAPTION_BYTES];
        tw_shapes_caption(scene, variant, caption);
        fprintf(out, "{\"text_id\": %lld, \"text\": \"%s\", \"image_ids\": [%d]}\n",
                (long long)(image_id - 1) * captions + i + 1, caption, image_id);
    }
}

/* `split`: 0 train, 1 valid; scenes[n]; picture i gets id first_id + i. */
static tw_status put_split(const tw_shapes_options *options, painter *p, uint32_t split, const int *scenes,
                           int n, int first_id, FILE *images, FILE *texts) {
    for (int i = 0; i < n; i++) {
        tw_shapes_scene scene = tw_shapes_scene_at(scenes[i]);
        tw_draw draw = {.seed = options->seed, .purpose = TW_DRAW_DATA, .step = split, .sample = (uint32_t)i};
        tw_shapes_draw(&scene, draw, p->px, p->canvas, p->rgb);
        fprintf(images, "%d\t", first_id + i);
        TRY(p->format == TW_SHAPES_PNG ? put_png(p, images) : put_jpeg(p, images));
        fputc('\n', images);
        put_captions(&scene, first_id + i, options->captions_per_image, draw, texts);
        if (ferror(images) || ferror(texts)) break; /* commit reports it; no need to draw the rest */
    }
    return TW_OK;
}

/* ---- vocabulary ---- */

/* Every word in every template: each object with its like in every pair of places, and alone. */
static tw_status put_vocabulary(FILE *out, int *lines) {
    tw_vocab_builder *builder = NULL;
    char *text = NULL, caption[TW_SHAPES_CAPTION_BYTES];
    size_t bytes = 0;
    tw_status status = tw_vocab_builder_new(&builder);
    for (int i = 0; i < TW_SHAPES_SCENES + TW_SHAPES_SINGLES && status == TW_OK; i++) {
        tw_shapes_scene scene = tw_shapes_scene_at(i);
        if (!scene.single && i / TW_SHAPES_OBJECTS % TW_SHAPES_OBJECTS != i % TW_SHAPES_OBJECTS) continue;
        for (int variant = 0; variant < TW_SHAPES_CAPTIONS && status == TW_OK; variant++) {
            tw_shapes_caption(&scene, variant, caption);
            status = tw_vocab_builder_add(builder, caption, strlen(caption));
        }
    }
    if (status == TW_OK) status = tw_vocab_builder_finish(builder, VOCABULARY_MAX, &text, &bytes, NULL);
    if (status == TW_OK) {
        fwrite(text, 1, bytes, out);
        *lines = 0;
        for (size_t i = 0; i < bytes; i++) *lines += text[i] == '\n';
    }
    free(text);
    tw_vocab_builder_free(builder);
    return status;
}

/* ---- the folder ---- */

static tw_status open_files(const char *folder, int replace, tw_atomic_file files[FILES]) {
    size_t room = strlen(folder) + 32;
    char *path = malloc(room);
    if (!path) return FAIL(TW_ERR_MEMORY, "%s: no memory for its name", folder);
    tw_status status = TW_OK;
    for (int i = 0; i < FILES && status == TW_OK && !replace; i++) {
        struct stat info;
        snprintf(path, room, "%s/%s", folder, file_names[i]);
        if (lstat(path, &info) == 0)
            status = FAIL(TW_ERR_CONFIG,
                          "%s: exists already; choose another folder, or say --force to replace it", path);
    }
    for (int i = 0; i < FILES && status == TW_OK; i++) {
        snprintf(path, room, "%s/%s", folder, file_names[i]);
        status = tw_atomic_file_open(&files[i], path);
    }
    free(path);
    return status;
}

static int compare_ints(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

static int count_distinct(int *items, int n) {
    qsort(items, (size_t)n, sizeof *items, compare_ints);
    int distinct = n > 0;
    for (int i = 1; i < n; i++) distinct += items[i] != items[i - 1];
    return distinct;
}

static int count_siblings(int *pool, int n) {
    int count = 0;
    qsort(pool, (size_t)n, sizeof *pool, compare_ints);
    for (int i = 0; i < n; i++) {
        int siblings[TW_SHAPES_SIBLINGS_MAX], m = tw_shapes_siblings(pool[i], siblings), found = 0;
        for (int k = 0; k < m && !found; k++)
            found = bsearch(&siblings[k], pool, (size_t)n, sizeof *pool, compare_ints) != NULL;
        count += found;
    }
    return count;
}

tw_status tw_shapes_write(const char *folder, const tw_shapes_options *options, tw_shapes_summary *summary) {
    TRY(tw_shapes_check(options));
    if (!*folder) return FAIL(TW_ERR_CONFIG, "shapes: the folder's name is empty; name one");
    tw_atomic_file files[FILES] = {0};
    painter p = {0};
    tw_shapes_summary done = {0};
    int *train = malloc((size_t)options->train * sizeof *train);
    int *valid = malloc((size_t)options->valid * sizeof *valid);
    tw_status status = TW_OK;
    if (!train || !valid) {
        status = FAIL(TW_ERR_MEMORY, "shapes: no memory for the numbers of %d scenes", options->train);
        goto end;
    }
    if ((status = tw_shapes_split(options, train, valid)) != TW_OK) goto end;
    if ((status = tw_make_folders(folder)) != TW_OK) goto end;
    if ((status = open_files(folder, options->replace, files)) != TW_OK) goto end;
    if ((status = painter_open(&p, options)) != TW_OK) goto end;
    status = put_split(options, &p, 0, train, options->train, 1, files[TRAIN_IMAGES].stream,
                       files[TRAIN_TEXTS].stream);
    if (status != TW_OK) goto end;
    status = put_split(options, &p, 1, valid, options->valid, options->train + 1, files[VALID_IMAGES].stream,
                       files[VALID_TEXTS].stream);
    if (status != TW_OK) goto end;
    if ((status = put_vocabulary(files[VOCABULARY].stream, &done.vocabulary)) != TW_OK) goto end;
    for (int i = 0; i < FILES && status == TW_OK; i++) status = tw_atomic_file_commit(&files[i]);
    done.image_bytes = p.bytes;
    for (int i = 0; i < options->train; i++) done.singles += train[i] >= TW_SHAPES_SCENES;
    done.train_scenes = count_distinct(train, options->train);
    done.siblings = count_siblings(valid, options->valid);
    if (summary && status == TW_OK) *summary = done;
end:
    for (int i = 0; i < FILES; i++) tw_atomic_file_discard(&files[i]);
    painter_close(&p);
    free(train);
    free(valid);
    return status;
}
