#include "train/image_list.h"

#include "autograd/progress.h"
#include "data/files.h"
#include "data/image.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { SLOTS = 2, MAX_THREADS = 64 };

/* Image i lies at i % (SLOTS * batch) of the arrays. It belongs to the thread that took it until `done` of
 * its slot counts it, then to the caller's thread until `released` passes it. */
typedef struct decoder {
    const tw_image_list *list;
    int resolution;
    int64_t batch;
    size_t image_bytes;
    uint8_t *pixels;   /* (SLOTS * batch, R, R, 3) */
    tw_status *status; /* (SLOTS * batch) */
    char **message;    /* (SLOTS * batch); NULL for good images */
    pthread_mutex_t lock;
    pthread_cond_t work, ready;
    int64_t taken, released; /* images */
    int64_t done[SLOTS];
    bool stop;
    pthread_t threads[MAX_THREADS];
    int started;
} decoder;

static void load_one(decoder *d, int64_t i) {
    int64_t at = i % (SLOTS * d->batch);
    uint8_t *rgb = d->pixels + (size_t)at * d->image_bytes;
    d->message[at] = NULL;
    d->status[at] = d->list->load(d->list->self, i, d->resolution, rgb);
    tw_progress_aside();
    if (d->status[at] == TW_OK) return;
    memset(rgb, 0, d->image_bytes); /* the batch keeps its size, and with it its tape */
    d->message[at] = strdup(tw_last_error());
}

static void *work(void *argument) {
    decoder *d = argument;
    pthread_mutex_lock(&d->lock);
    while (!d->stop && d->taken < d->list->n) {
        if (d->taken >= d->released + SLOTS * d->batch) {
            pthread_cond_wait(&d->work, &d->lock);
            continue;
        }
        int64_t i = d->taken++;
        pthread_mutex_unlock(&d->lock);
        load_one(d, i);
        pthread_mutex_lock(&d->lock);
        d->done[i / d->batch % SLOTS]++;
        pthread_cond_signal(&d->ready);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

/* Without any thread, for one image or a system that gives none, the caller's decodes. */
static void start(decoder *d, int threads) {
    if (d->list->n < 2) return;
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    if (threads > d->list->n) threads = (int)d->list->n;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the program's own threads */
    while (d->started < threads && pthread_create(&d->threads[d->started], NULL, work, d) == 0) d->started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static tw_status open_decoder(decoder *d, const tw_image_list *list, int resolution, int64_t batch,
                              int threads) {
    size_t places = SLOTS * (size_t)batch;
    *d = (decoder){.list = list,
                   .resolution = resolution,
                   .batch = batch,
                   .image_bytes = 3 * (size_t)resolution * (size_t)resolution};
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->work, NULL);
    pthread_cond_init(&d->ready, NULL);
    d->pixels = malloc(places * d->image_bytes);
    d->status = calloc(places, sizeof *d->status);
    d->message = calloc(places, sizeof *d->message);
    if (!d->pixels || !d->status || !d->message)
        return FAIL(TW_ERR_MEMORY, "no memory for %zu images of %zu bytes", places, d->image_bytes);
    start(d, threads);
    return TW_OK;
}

static void close_decoder(decoder *d) {
    pthread_mutex_lock(&d->lock);
    d->stop = true;
    pthread_cond_broadcast(&d->work);
    pthread_mutex_unlock(&d->lock);
    for (int i = 0; i < d->started; i++) pthread_join(d->threads[i], NULL);
    for (int64_t i = 0; d->message && i < SLOTS * d->batch; i++) free(d->message[i]);
    free(d->pixels);
    free(d->status);
    free(d->message);
    pthread_cond_destroy(&d->ready);
    pthread_cond_destroy(&d->work);
    pthread_mutex_destroy(&d->lock);
}

static void wait_for(decoder *d, int64_t first, int64_t count) {
    if (d->started == 0) {
        for (int64_t i = first; i < first + count; i++) load_one(d, i);
        return;
    }
    int64_t *done = &d->done[first / d->batch % SLOTS];
    pthread_mutex_lock(&d->lock);
    while (*done < count) pthread_cond_wait(&d->ready, &d->lock);
    *done = 0;
    pthread_mutex_unlock(&d->lock);
}

static void release(decoder *d, int64_t count) {
    pthread_mutex_lock(&d->lock);
    d->released += count;
    pthread_cond_broadcast(&d->work);
    pthread_mutex_unlock(&d->lock);
}

static tw_status run_batch(tw_towers *towers, const uint8_t *pixels, int64_t count, float *features) {
    const tw_tower_tape *t;
    TRY(tw_towers_get(towers, TW_TOWER_IMAGE, count, &t));
    TRY(tw_tape_upload(t->tape, t->pixels, pixels));
    TRY(tw_tape_forward(t->tape, NULL));
    return tw_tape_download(t->tape, t->image, features);
}

/* Zeros the rows of the batch's bad images and reports them. */
static tw_status report_bad(decoder *d, const tw_image_list_options *options, int64_t first, int64_t count,
                            int64_t embed, float *features) {
    for (int64_t i = first; i < first + count; i++) {
        int64_t at = i % (SLOTS * d->batch);
        tw_status status = d->status[at];
        if (status == TW_OK) continue;
        char *message = d->message[at];
        d->message[at] = NULL;
        memset(features + i * embed, 0, (size_t)embed * sizeof *features);
        tw_status end = FAIL(status, "%s", message ? message : "out of memory");
        free(message);
        if (status == TW_ERR_MEMORY && !options->memory_too) return end;
        if (options->on_bad) TRY(options->on_bad(options->context, i, status, tw_last_error()));
    }
    return TW_OK;
}

static tw_status encode_all(decoder *d, tw_towers *towers, const tw_image_list_options *options,
                            int64_t embed, float *features) {
    int64_t n = d->list->n;
    for (int64_t first = 0; first < n; first += d->batch) {
        int64_t count = n - first < d->batch ? n - first : d->batch;
        wait_for(d, first, count);
        const uint8_t *pixels = d->pixels + (size_t)(first % (SLOTS * d->batch)) * d->image_bytes;
        if (options->lock) pthread_mutex_lock(options->lock);
        tw_status status = run_batch(towers, pixels, count, features + first * embed);
        if (options->lock) pthread_mutex_unlock(options->lock);
        TRY(status);
        TRY(report_bad(d, options, first, count, embed, features));
        release(d, count);
        if (options->on_progress) options->on_progress(options->context, first + count, n);
    }
    return TW_OK;
}

tw_status tw_encode_image_list(tw_towers *towers, const tw_dual_encoder *model, const tw_image_list *list,
                               const tw_image_list_options *options, float *features) {
    if (list->n <= 0) return TW_OK;
    decoder d;
    int64_t batch = options->batch < list->n ? options->batch : list->n;
    tw_status status = open_decoder(&d, list, model->config.image.resolution, batch, options->threads);
    if (status == TW_OK) status = encode_all(&d, towers, options, model->config.embed, features);
    close_decoder(&d);
    return status;
}

static tw_status load_file(const void *paths, int64_t i, int resolution, bool rgb_first, uint8_t *rgb) {
    const char *path = ((const char *const *)paths)[i];
    struct stat info;
    if (!path) return FAIL(TW_ERR_ARGUMENT, "image number %lld: the path is NULL", (long long)i + 1);
    if (stat(path, &info) != 0)
        return FAIL(errno == ENOENT || errno == ENOTDIR ? TW_ERR_NOT_FOUND : TW_ERR_IO, "%s: %s", path,
                    strerror(errno));
    if (!S_ISREG(info.st_mode)) /* a pipe would wait, a device never end */
        return FAIL(TW_ERR_IO, "%s: not a file but %s", path, S_ISDIR(info.st_mode) ? "a folder" : "special");
    if (info.st_size > TW_IMAGE_MAX_BYTES)
        return FAIL(TW_ERR_FORMAT, "%s: %lld bytes; images of at most %d are read", path,
                    (long long)info.st_size, TW_IMAGE_MAX_BYTES);
    uint8_t *bytes;
    size_t size;
    TRY(tw_read_file(path, &bytes, &size));
    tw_status status = rgb_first ? tw_image_load_rgb_first(bytes, size, resolution, rgb)
                                 : tw_image_load(bytes, size, resolution, rgb);
    free(bytes);
    if (status != TW_OK) return tw_fail_context(status, "%s", path);
    return TW_OK;
}

tw_status tw_image_list_load_file(const void *paths, int64_t i, int resolution, uint8_t *rgb) {
    return load_file(paths, i, resolution, false, rgb);
}

tw_status tw_image_list_load_file_rgb_first(const void *paths, int64_t i, int resolution, uint8_t *rgb) {
    return load_file(paths, i, resolution, true, rgb);
}
