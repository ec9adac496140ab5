/* libtuwen, the public C API of include/tuwen.h: tw_encoder behind a lock. */
#include "include/tuwen.h"

#include "data/image.h"
#include "data/resize.h"
#include "train/config.h"
#include "train/encoder.h"
#include "train/image_list.h"
#include "train/similarity.h"

#include <math.h>
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SAME(name) _Static_assert((int)TUWEN_##name == (int)TW_##name, "statuses are the same numbers")
SAME(OK);
SAME(ERR_ARGUMENT);
SAME(ERR_SHAPE);
SAME(ERR_MEMORY);
SAME(ERR_IO);
SAME(ERR_FORMAT);
SAME(ERR_CONFIG);
SAME(ERR_NOT_FOUND);
SAME(ERR_UNSUPPORTED);
SAME(ERR_NUMERIC);
SAME(ERR_LIBRARY);
SAME(ERR_INTERRUPTED);

struct tuwen_model {
    tw_encoder encoder;
    pthread_mutex_t lock; /* the towers: one tape's contents at a time */
    int threads;          /* that compute and decode */
    bool rgb_first;
    double logit_scale; /* exp of the parameter */
};

const char *tuwen_error(void) {
    return tw_last_error();
}

const char *tuwen_status_name(int status) {
    return tw_status_name((tw_status)status);
}

const char *tuwen_version(void) {
    return TW_VERSION;
}

/* ---- the calling thread's OpenMP settings: ours during a call, the caller's after it ---- */

typedef struct openmp {
    int threads, dynamic;
} openmp;

/* The tapes' scratch memory was sized for this many threads, whichever thread runs them. */
static openmp openmp_enter(int threads) {
    openmp before = {omp_get_max_threads(), omp_get_dynamic()};
    omp_set_dynamic(0);
    if (threads > 0) omp_set_num_threads(threads);
    return before;
}

static void openmp_leave(openmp before) {
    omp_set_num_threads(before.threads);
    omp_set_dynamic(before.dynamic);
}

/* ---- loading ---- */

/* The struct's size when the API was first published; less is not a tuwen_options. */
enum { FIRST_OPTIONS_SIZE = offsetof(tuwen_options, image) + sizeof(int32_t) };

void tuwen_options_init(tuwen_options *options, size_t size) {
    tuwen_options defaults = {.size = size, .precision = TUWEN_F32, .batch = 32};
    if (!options || size < sizeof options->size) return;
    memset(options, 0, size);
    memcpy(options, &defaults, size < sizeof defaults ? size : sizeof defaults);
}

/* What a newer header added must be at its default, zero: it cannot be obeyed here. */
static tw_status copy_options(const tuwen_options *given, tuwen_options *out) {
    const size_t before_resolution = offsetof(tuwen_options, context_length); /* sizeof, with padding */
    tuwen_options_init(out, sizeof *out);
    if (!given) return TW_OK;
    if (given->size < FIRST_OPTIONS_SIZE || given->size > 65536)
        return FAIL(TW_ERR_ARGUMENT, "options of %zu bytes: set them up with tuwen_options_init",
                    given->size);
    for (size_t i = sizeof *out; i < given->size; i++)
        if (((const unsigned char *)given)[i])
            return FAIL(TW_ERR_UNSUPPORTED, "the options hold a setting that is newer than this library, %s",
                        TW_VERSION);
    memcpy(out, given, given->size < sizeof *out ? given->size : sizeof *out);
    if (given->size <= before_resolution) out->resolution = 0; /* those bytes were padding then */
    return TW_OK;
}

static tw_status one_of(const char *name, int32_t value, int32_t last) {
    if (value >= 0 && value <= last) return TW_OK;
    return FAIL(TW_ERR_CONFIG, "options: %s is %d, it can be 0 to %d", name, value, last);
}

static tw_status check_options(const tuwen_options *o) {
    TRY(one_of("threads", o->threads, 1024));
    TRY(one_of("precision", o->precision, TUWEN_BF16));
    TRY(one_of("text", o->text, TUWEN_TEXT_AS_IS));
    TRY(one_of("image", o->image, TUWEN_IMAGE_RGB_FIRST));
    TRY(one_of("resolution", o->resolution, 4096));
    if (o->context_length && (o->context_length < 3 || o->context_length > 512))
        return FAIL(TW_ERR_CONFIG, "options: context_length is %d, it can be 0 or 3 to 512",
                    o->context_length);
    if (o->batch < 1 || o->batch > 65536)
        return FAIL(TW_ERR_CONFIG, "options: batch is %d, it can be 1 to 65536", o->batch);
    return TW_OK;
}

static tw_status find_device(const char *name, int *out) {
    static const char *const names[] = {
        [TW_CONFIG_DEVICE_AUTO] = "auto", [TW_CONFIG_DEVICE_CPU] = "cpu", [TW_CONFIG_DEVICE_CUDA] = "cuda"};
    *out = TW_CONFIG_DEVICE_CPU;
    if (!name) return TW_OK;
    for (*out = 0; *out < (int)(sizeof names / sizeof *names); ++*out)
        if (strcmp(name, names[*out]) == 0) return TW_OK;
    return FAIL(TW_ERR_UNSUPPORTED, "device '%s': libtuwen computes on \"cpu\", \"cuda\" or \"auto\"", name);
}

static tw_status load(const char *checkpoint, const tuwen_options *given, tuwen_model *m) {
    tuwen_options o;
    TRY(copy_options(given, &o));
    TRY(check_options(&o));
    tw_encoder_options options = tw_encoder_defaults();
    options.checkpoint = checkpoint;
    options.vocab = o.vocab;
    options.precision = o.precision;
    options.batch = o.batch;
    options.threads = o.threads;
    options.resolution = o.resolution;
    options.context_length = o.context_length;
    TRY(find_device(o.device, &options.device));
    TRY(tw_encoder_open(&options, NULL, &m->encoder));
    m->threads = omp_get_max_threads(); /* as opening the device set it */
    m->encoder.encode.as_is = o.text == TUWEN_TEXT_AS_IS;
    m->encoder.encode.on_bad = NULL;
    m->encoder.encode.on_progress = NULL;
    m->rgb_first = o.image == TUWEN_IMAGE_RGB_FIRST;
    const tw_dual_encoder *model = m->encoder.loaded.model;
    float scale;
    TRY(tw_params_get(model->params, model->logit_scale, &scale));
    m->logit_scale = exp((double)scale);
    return TW_OK;
}

tuwen_status tuwen_load(const char *checkpoint, const tuwen_options *options, tuwen_model **out) {
    if (!out) return (tuwen_status)FAIL(TW_ERR_ARGUMENT, "tuwen_load: out is NULL");
    *out = NULL;
    if (!checkpoint) return (tuwen_status)FAIL(TW_ERR_ARGUMENT, "tuwen_load: checkpoint is NULL");
    tuwen_model *m = calloc(1, sizeof *m);
    if (!m) return (tuwen_status)FAIL(TW_ERR_MEMORY, "out of memory");
    pthread_mutex_init(&m->lock, NULL);
    openmp before = openmp_enter(0);
    tw_status status = load(checkpoint, options, m);
    openmp_leave(before);
    if (status == TW_OK)
        *out = m;
    else
        tuwen_free(m);
    return (tuwen_status)status;
}

void tuwen_free(tuwen_model *model) {
    if (!model) return;
    tw_encoder_close(&model->encoder);
    pthread_mutex_destroy(&model->lock);
    free(model);
}

int32_t tuwen_embed_dim(const tuwen_model *model) {
    return model ? (int32_t)model->encoder.dim : 0;
}

int32_t tuwen_context_length(const tuwen_model *model) {
    return model ? model->encoder.loaded.model->config.context : 0;
}

int32_t tuwen_resolution(const tuwen_model *model) {
    return model ? model->encoder.loaded.model->config.image.resolution : 0;
}

const char *tuwen_name(const tuwen_model *model) {
    return model ? model->encoder.loaded.model->config.name : "";
}

double tuwen_logit_scale(const tuwen_model *model) {
    return model ? model->logit_scale : 0;
}

/* ---- images ---- */

static tw_status check_arrays(const char *function, const void *model, int64_t n, const void *in,
                              const void *also, const void *out) {
    if (!model) return FAIL(TW_ERR_ARGUMENT, "%s: model is NULL", function);
    if (n < 0) return FAIL(TW_ERR_ARGUMENT, "%s: n is %lld", function, (long long)n);
    if (n > 0 && (!in || !also || !out))
        return FAIL(TW_ERR_ARGUMENT, "%s: an array of %lld elements is NULL", function, (long long)n);
    return TW_OK;
}

typedef struct encoded {
    const void *const *data;
    const size_t *sizes;
    bool rgb_first;
} encoded;

static tw_status load_encoded(const void *self, int64_t i, int resolution, uint8_t *rgb) {
    const encoded *e = self;
    if (!e->data[i]) return FAIL(TW_ERR_ARGUMENT, "image number %lld: NULL", (long long)i + 1);
    tw_status status = e->rgb_first ? tw_image_load_rgb_first(e->data[i], e->sizes[i], resolution, rgb)
                                    : tw_image_load(e->data[i], e->sizes[i], resolution, rgb);
    if (status) return tw_fail_context(status, "image number %lld", (long long)i + 1);
    return TW_OK;
}

static tw_status resize_rgb(const tuwen_rgb *in, int resolution, uint8_t *rgb) {
    int64_t row = 3 * (int64_t)in->width, stride = in->stride ? in->stride : row;
    if (!in->pixels) return FAIL(TW_ERR_ARGUMENT, "pixels is NULL");
    if (in->width > 0 && stride < row)
        return FAIL(TW_ERR_ARGUMENT, "a stride of %lld bytes for rows of %lld", (long long)stride,
                    (long long)row);
    tw_image image, resized = {0};
    TRY(tw_image_alloc(&image, TW_MODE_RGB, in->width, in->height));
    for (int64_t y = 0; y < in->height; y++)
        memcpy(image.pixels + y * row, in->pixels + y * stride, (size_t)row);
    tw_status status = TW_OK;
    if (in->width == resolution && in->height == resolution) {
        tw_image_copy_rgb(&image, rgb);
    } else {
        status = tw_image_resize(&image, resolution, resolution, &resized);
        if (status == TW_OK) tw_image_copy_rgb(&resized, rgb);
    }
    tw_image_free(&image);
    tw_image_free(&resized);
    return status;
}

static tw_status load_rgb(const void *self, int64_t i, int resolution, uint8_t *rgb) {
    tw_status status = resize_rgb((const tuwen_rgb *)self + i, resolution, rgb);
    if (status) return tw_fail_context(status, "image number %lld", (long long)i + 1);
    return TW_OK;
}

/* Keeps why image i is bad in (n) statuses; without them the first one ends the call. */
static tw_status on_bad(void *context, int64_t i, tw_status status, const char *message) {
    (void)message;
    int32_t *statuses = context;
    if (!statuses) return status;
    statuses[i] = (int32_t)status;
    return TW_OK;
}

static tuwen_status encode_images(tuwen_model *m, const tw_image_list *list, float *features,
                                  int32_t *statuses) {
    tw_image_list_options options = {.batch = m->encoder.encode.batch,
                                     .threads = m->threads,
                                     .lock = &m->lock,
                                     .memory_too = statuses != NULL,
                                     .on_bad = on_bad,
                                     .context = statuses};
    if (statuses) memset(statuses, 0, (size_t)list->n * sizeof *statuses);
    openmp before = openmp_enter(m->threads);
    tw_status status =
        tw_encode_image_list(m->encoder.towers, m->encoder.loaded.model, list, &options, features);
    openmp_leave(before);
    return (tuwen_status)status;
}

tuwen_status tuwen_encode_image_files(tuwen_model *model, int64_t n, const char *const *paths,
                                      float *features, int32_t *status) {
    tw_status checked = check_arrays("tuwen_encode_image_files", model, n, paths, paths, features);
    if (checked) return (tuwen_status)checked;
    tw_image_list list = {.n = n,
                          .load =
                              model->rgb_first ? tw_image_list_load_file_rgb_first : tw_image_list_load_file,
                          .self = paths};
    return encode_images(model, &list, features, status);
}

tuwen_status tuwen_encode_image_bytes(tuwen_model *model, int64_t n, const void *const *data,
                                      const size_t *sizes, float *features, int32_t *status) {
    tw_status checked = check_arrays("tuwen_encode_image_bytes", model, n, data, sizes, features);
    if (checked) return (tuwen_status)checked;
    encoded all = {.data = data, .sizes = sizes, .rgb_first = model->rgb_first};
    tw_image_list list = {.n = n, .load = load_encoded, .self = &all};
    return encode_images(model, &list, features, status);
}

tuwen_status tuwen_encode_image_rgb(tuwen_model *model, int64_t n, const tuwen_rgb *images, float *features,
                                    int32_t *status) {
    tw_status checked = check_arrays("tuwen_encode_image_rgb", model, n, images, images, features);
    if (checked) return (tuwen_status)checked;
    tw_image_list list = {.n = n, .load = load_rgb, .self = images};
    return encode_images(model, &list, features, status);
}

/* ---- texts ---- */

static tw_status encode_texts(tuwen_model *m, const tw_text *texts, int64_t n, float *features,
                              int64_t *truncated) {
    tw_encoder *e = &m->encoder;
    openmp before = openmp_enter(m->threads);
    pthread_mutex_lock(&m->lock);
    tw_status status = tw_encode_texts(e->towers, e->loaded.model, e->loaded.vocab, texts, n, &e->encode,
                                       features, truncated);
    pthread_mutex_unlock(&m->lock);
    openmp_leave(before);
    return status;
}

tuwen_status tuwen_encode_texts(tuwen_model *model, int64_t n, const char *const *texts, const size_t *bytes,
                                float *features, int64_t *truncated) {
    int64_t unused;
    if (!truncated) truncated = &unused;
    *truncated = 0;
    tw_status status = check_arrays("tuwen_encode_texts", model, n, texts, texts, features);
    if (status || n == 0) return (tuwen_status)status;
    tw_text *list = malloc((size_t)n * sizeof *list);
    if (!list) return (tuwen_status)FAIL(TW_ERR_MEMORY, "no memory for %lld texts", (long long)n);
    for (int64_t i = 0; status == TW_OK && i < n; i++) {
        if (!texts[i])
            status = FAIL(TW_ERR_ARGUMENT, "text number %lld is NULL", (long long)(i + 1));
        else
            list[i] = (tw_text){.text = texts[i], .bytes = bytes ? bytes[i] : strlen(texts[i])};
    }
    if (status == TW_OK) status = encode_texts(model, list, n, features, truncated);
    free(list);
    return (tuwen_status)status;
}

/* ---- images against texts ---- */

tuwen_status tuwen_similarity(const tuwen_model *model, int64_t n_images, const float *images,
                              int64_t n_texts, const float *texts, float *logits) {
    /* Without results there may be no array for them. */
    const float *out = n_images > 0 && n_texts > 0 ? logits : images;
    tw_status status = check_arrays("tuwen_similarity", model, n_images, images, images, out);
    if (status == TW_OK && n_images == 0) out = texts;
    if (status == TW_OK) status = check_arrays("tuwen_similarity", model, n_texts, texts, texts, out);
    if (status) return (tuwen_status)status;
    tw_logits(images, n_images, texts, n_texts, model->encoder.dim, model->logit_scale, logits);
    return TUWEN_OK;
}

tuwen_status tuwen_probabilities(const tuwen_model *model, int64_t n_images, const float *images,
                                 int64_t n_texts, const float *texts, float *probabilities) {
    tuwen_status status = tuwen_similarity(model, n_images, images, n_texts, texts, probabilities);
    if (status == TUWEN_OK) tw_softmax_rows(probabilities, n_images, n_texts);
    return status;
}
