#include "train/encoder.h"
#include "train/clock.h"
#include "train/comm_open.h"
#include "train/cores.h"
#include "train/device_open.h"

#include <stdlib.h>

tw_encoder_options tw_encoder_defaults(void) {
    return (tw_encoder_options){.batch = 64, .num_workers = 2, .device = TW_CONFIG_DEVICE_AUTO};
}

enum { RANK_TIMEOUT = 60 }; /* seconds, as the configuration's default */

static void on_bad(void *context, const char *message) {
    tw_encoder *encoder = context;
    if (encoder->comm && encoder->comm->ranks > 1)
        tw_log_warning(encoder->log, "rank %d: %s; left out", encoder->comm->rank, message);
    else
        tw_log_warning(encoder->log, "%s; left out", message);
}

static void on_progress(void *context, int64_t done, int64_t total) {
    tw_encoder *encoder = context;
    tw_log_progress(encoder->log, done, total, "%s", encoder->unit);
}

tw_status tw_encoder_join(const tw_encoder_options *options, tw_log *log, tw_encoder *out) {
    enum tw_config_device device = (enum tw_config_device)options->device;
    int threads = (int)options->threads;
    *out = (tw_encoder){.log = log,
                        .unit = "",
                        .encode = {.batch = options->batch,
                                   .threads = (int)options->num_workers,
                                   .prefetch = 2,
                                   .on_bad = on_bad,
                                   .on_progress = on_progress}};
    TRY(options->ranks ? tw_comm_open_device(device, threads, RANK_TIMEOUT, &out->device, &out->comm)
                       : tw_device_open(device, threads, 0, &out->device));
    out->encode.comm = out->comm;
    if (!tw_encoder_leads(out)) out->encode.on_progress = NULL;
    if (!out->comm || out->comm->ranks == 1) return TW_OK;
    tw_status status = tw_cores_report(out->comm, threads == 0, tw_encoder_leads(out) ? log : NULL);
    if (status == TW_OK) return TW_OK;
    status = tw_encoder_end(out, status);
    tw_encoder_close(out);
    return status;
}

tw_status tw_encoder_load(const tw_encoder_options *options, tw_status status, tw_encoder *e) {
    TRY(e->comm ? tw_comm_agree(e->comm, status) : status);
    const tw_model_choice choice = {.path = options->checkpoint,
                                    .vocab = options->vocab,
                                    .model = options->model,
                                    .resolution = (int)options->resolution,
                                    .context = (int)options->context_length};
    TRY(tw_model_open(&choice, e->device, options->precision ? TW_BF16 : TW_F32, &e->loaded));
    if (tw_encoder_leads(e) && *e->loaded.report.text) tw_log_warning(e->log, "%s", e->loaded.report.text);
    e->dim = e->loaded.model->config.embed;
    snprintf(e->source, sizeof e->source, "%s, %s", e->loaded.model->config.name, options->checkpoint);
    return tw_towers_create(e->loaded.model, e->device, TW_RECOMPUTE_NONE, TW_U8, &e->towers);
}

tw_status tw_encoder_open(const tw_encoder_options *options, tw_log *log, tw_encoder *out) {
    TRY(tw_encoder_join(options, log, out));
    tw_status status = tw_encoder_load(options, TW_OK, out);
    if (status == TW_OK) return TW_OK;
    status = tw_encoder_end(out, status);
    tw_encoder_close(out);
    return status;
}

bool tw_encoder_leads(const tw_encoder *encoder) {
    return !encoder->comm || encoder->comm->rank == 0;
}

tw_status tw_encoder_end(const tw_encoder *encoder, tw_status status) {
    return encoder->comm ? tw_comm_fail(encoder->comm, status) : status;
}

void tw_encoder_close(tw_encoder *encoder) {
    tw_comm_free(encoder->comm);
    tw_towers_free(encoder->towers);
    tw_loaded_model_free(&encoder->loaded);
    if (encoder->device) tw_device_free(encoder->device);
    *encoder = (tw_encoder){0};
}

static tw_status reserve_rows(tw_rows *rows, int64_t n, int64_t dim) {
    *rows = (tw_rows){.n = n,
                      .dim = dim,
                      .ids = malloc((size_t)n * sizeof *rows->ids + 1),
                      .values = malloc((size_t)(n * dim) * sizeof *rows->values + 1)};
    if (rows->ids && rows->values) return TW_OK;
    return FAIL(TW_ERR_MEMORY, "no memory for %lld features of %lld values", (long long)n, (long long)dim);
}

/* Moves the rows of good images together and names them. */
static tw_status keep_good(const tw_dataset *dataset, const bool *ok, tw_rows *rows) {
    bool strings;
    tw_reader *reader;
    TRY(tw_split_image_ids_are_strings(dataset, &strings));
    TRY(tw_reader_open(dataset, &reader));
    tw_status status = TW_OK;
    int64_t kept = 0;
    for (int64_t i = 0; status == TW_OK && i < rows->n; i++) {
        if (!ok[i]) continue;
        status = tw_dataset_image_at(reader, i, &rows->ids[kept], NULL);
        if (strings) rows->ids[kept].is_integer = false;
        if (kept < i)
            memcpy(rows->values + kept * rows->dim, rows->values + i * rows->dim,
                   (size_t)rows->dim * sizeof *rows->values);
        kept++;
    }
    tw_reader_close(reader);
    rows->left_out = rows->n - kept;
    rows->n = kept;
    return status;
}

tw_status tw_encoder_images(tw_encoder *encoder, const tw_dataset *dataset, tw_rows *out) {
    int64_t n = tw_dataset_images(dataset), bad;
    double start = tw_seconds();
    *out = (tw_rows){0};
    bool *ok = malloc((size_t)n + 1), leads = tw_encoder_leads(encoder);
    tw_status status =
        ok ? reserve_rows(out, leads ? n : 0, encoder->dim) : FAIL(TW_ERR_MEMORY, "out of memory");
    encoder->unit = "images";
    encoder->encode.context = encoder;
    if (status == TW_OK)
        status = tw_encode_all_images(encoder->towers, encoder->loaded.model, dataset, &encoder->encode,
                                      out->values, ok, &bad);
    if (status == TW_OK && leads) status = keep_good(dataset, ok, out);
    if (status == TW_OK && leads && out->n == 0)
        status = FAIL(TW_ERR_FORMAT, "%s: none of its %lld images can be decoded", tw_dataset_path(dataset),
                      (long long)n);
    free(ok);
    out->seconds = tw_seconds() - start;
    if (status != TW_OK) tw_rows_free(out);
    return status;
}

tw_status tw_encoder_texts(tw_encoder *encoder, const tw_split_texts *texts, tw_rows *out) {
    double start = tw_seconds();
    *out = (tw_rows){0};
    bool leads = tw_encoder_leads(encoder);
    tw_status status = reserve_rows(out, leads ? texts->n : 0, encoder->dim);
    encoder->unit = "texts";
    encoder->encode.context = encoder;
    if (status == TW_OK)
        status = tw_encode_texts(encoder->towers, encoder->loaded.model, encoder->loaded.vocab, texts->texts,
                                 texts->n, &encoder->encode, out->values, &out->truncated);
    if (status != TW_OK) {
        tw_rows_free(out);
        return status;
    }
    if (leads) memcpy(out->ids, texts->ids, (size_t)texts->n * sizeof *out->ids);
    out->seconds = tw_seconds() - start;
    return TW_OK;
}

void tw_rows_free(tw_rows *rows) {
    free(rows->ids);
    free(rows->values);
    *rows = (tw_rows){0};
}
