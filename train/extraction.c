#include "train/extraction.h"

#include "autograd/parallel.h"
#include "autograd/progress.h"
#include "data/files.h"
#include "train/clock.h"
#include "train/feature_part.h"
#include "train/formats/xxhash64.h"
#include "train/model_file.h"
#include "train/params_hash.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int64_t count_of(const tw_extraction *e) {
    return e->texts ? e->texts->n : e->files ? e->files->n : tw_dataset_images(e->dataset);
}

/* ---- ids ---- */

typedef struct id_source {
    const tw_extraction *e;
    tw_reader *reader; /* of the data set */
    bool strings;      /* its ids were strings */
} id_source;

static tw_status open_ids(id_source *s, const tw_extraction *e) {
    *s = (id_source){.e = e};
    if (!e->dataset) return TW_OK;
    TRY(tw_split_image_ids_are_strings(e->dataset, &s->strings));
    return tw_reader_open(e->dataset, &s->reader);
}

static void close_ids(id_source *s) {
    tw_reader_close(s->reader);
}

static tw_status id_of(id_source *s, int64_t i, tw_id *id) {
    if (s->e->texts) *id = s->e->texts->ids[i];
    if (s->e->files) *id = s->e->files->ids[i];
    if (!s->e->dataset) return TW_OK;
    TRY(tw_dataset_image_at(s->reader, i, id, NULL));
    if (s->strings) id->is_integer = false;
    return TW_OK;
}

/* ---- what makes the bits ---- */

static void mix(uint64_t *hash, const void *data, size_t size) {
    *hash = tw_xxh64(data, size, *hash);
}

static tw_status mix_model(uint64_t *hash, const tw_extraction *e) {
    const tw_loaded_model *m = &e->encoder->loaded;
    size_t size;
    char *yaml;
    TRY(tw_model_config_to_yaml(&m->model->config, &yaml));
    mix(hash, yaml, strlen(yaml));
    free(yaml);
    const char *vocab = tw_vocab_text(m->vocab, &size);
    mix(hash, vocab, size);
    mix(hash, e->encoder->source, strlen(e->encoder->source)); /* HDF5 keeps it */
    const int64_t options[] = {e->options->precision,    e->options->batch, tw_threads(),
                               e->encoder->encode.as_is, e->texts != NULL,  e->encoder->device->kind};
    mix(hash, options, sizeof options);
    return tw_params_hash(m->model->params, hash);
}

/* Ids, and what is cheap to know of the content. */
static tw_status mix_items(uint64_t *hash, const tw_extraction *e, id_source *ids) {
    for (int64_t i = 0; i < count_of(e); i++) {
        tw_id id;
        TRY(id_of(ids, i, &id));
        mix(hash, id.text, id.size + 1);
        mix(hash, &id.is_integer, sizeof id.is_integer);
        if (e->texts) mix(hash, e->texts->texts[i].text, e->texts->texts[i].bytes);
        struct stat info;
        if (!e->files || stat(e->files->paths[i], &info) != 0) continue;
        const int64_t file[] = {info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
        mix(hash, file, sizeof file);
    }
    if (e->dataset) mix(hash, tw_dataset_path(e->dataset), strlen(tw_dataset_path(e->dataset)));
    return TW_OK;
}

/* ---- encoding ---- */

static char *part_path(const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char *part = malloc(strlen(path) + sizeof "..part");
    if (part) sprintf(part, "%.*s.%s.part", (int)(name - path), path, name);
    return part;
}

void tw_extract_forget(const char *path) {
    char *part = part_path(path);
    if (part) unlink(part);
    free(part);
}

typedef struct progress {
    tw_feature_part *part;
    tw_extracted *out;
} progress;

static tw_status keep(void *context, const tw_encoded *batch) {
    progress *p = context;
    p->out->encoded += batch->n;
    return tw_feature_part_append(p->part, batch->features, batch->ok, batch->n, batch->truncated);
}

static tw_status encode_rest(const tw_extraction *e, int64_t first, tw_feature_part *part,
                             tw_extracted *out) {
    tw_encoder *encoder = e->encoder;
    const tw_dual_encoder *model = encoder->loaded.model;
    progress p = {part, out};
    double start = tw_seconds();
    tw_status status;
    encoder->unit = e->texts ? "texts" : "images";
    encoder->encode.context = encoder;
    if (first == count_of(e)) return TW_OK;
    if (e->texts)
        status = tw_encode_some_texts(encoder->towers, model, encoder->loaded.vocab, e->texts->texts,
                                      e->texts->n, first, &encoder->encode, keep, &p);
    else if (e->files)
        status = tw_encode_files(encoder->towers, model, e->files->paths, e->files->n, first,
                                 &encoder->encode, keep, &p);
    else
        status = tw_encode_dataset(encoder->towers, model, e->dataset, first, &encoder->encode, keep, &p);
    out->seconds = tw_seconds() - start;
    return status;
}

/* ---- the file ---- */

static tw_status write_batch(tw_features_writer *writer, const tw_feature_batch *batch, int64_t dim,
                             id_source *ids, tw_extracted *out) {
    for (int64_t i = 0; i < batch->n; i++) {
        tw_id id;
        out->left_out += !batch->ok[i];
        if (!batch->ok[i]) continue;
        TRY(id_of(ids, batch->first + i, &id));
        TRY(tw_features_append(writer, &id, batch->rows + i * dim, 1));
        out->rows++;
    }
    out->truncated += batch->truncated;
    return TW_OK;
}

static tw_status write_rows(const tw_extraction *e, tw_feature_part *part, id_source *ids,
                            tw_features_writer *writer, tw_extracted *out) {
    for (int64_t index = 0;; index++) {
        tw_feature_batch batch;
        tw_progress_begin("writing features");
        TRY(tw_feature_part_read(part, index, &batch));
        if (batch.n == 0) break;
        TRY(write_batch(writer, &batch, e->encoder->dim, ids, out));
    }
    if (out->rows > 0) return TW_OK;
    return FAIL(TW_ERR_FORMAT, "%s: none of %lld images can be decoded", e->path, (long long)out->left_out);
}

static tw_status write_file(const tw_extraction *e, tw_feature_part *part, id_source *ids,
                            tw_extracted *out) {
    tw_features_writer *writer;
    TRY(tw_features_create(e->path, e->texts ? TW_FEATURES_TEXT : TW_FEATURES_IMAGE, e->encoder->dim,
                           e->encoder->source, &writer));
    tw_status status = write_rows(e, part, ids, writer, out);
    if (status == TW_OK) return tw_features_commit(writer);
    tw_features_discard(writer);
    return status;
}

/* Rank 0 tells the others where the work goes on. */
static tw_status share_start(const tw_extraction *e, int64_t *first) {
    tw_comm *c = e->encoder->comm;
    return c ? c->broadcast(c, first, sizeof *first, 0) : TW_OK;
}

static tw_status extract(const tw_extraction *e, const char *path, id_source *ids, tw_extracted *out) {
    tw_feature_job job = {.items = count_of(e), .dim = e->encoder->dim, .batch = e->options->batch};
    tw_feature_part *part;
    bool dropped;
    TRY(mix_model(&job.identity, e));
    TRY(mix_items(&job.identity, e, ids));
    TRY(tw_feature_part_open(path, &job, &out->resumed, &dropped, &part));
    if (dropped)
        tw_log_warning(
            e->encoder->log,
            "%s is of another model, other options (compute threads of a rank are one) or other items: its "
            "work is not used",
            path);
    if (out->resumed)
        tw_log_line(e->encoder->log, "%s: going on after %lld of %lld", e->path, (long long)out->resumed,
                    (long long)job.items);
    tw_status status = share_start(e, &out->resumed);
    if (status == TW_OK) status = encode_rest(e, out->resumed, part, out);
    if (status == TW_OK) status = write_file(e, part, ids, out);
    tw_feature_part_close(part, false);
    return status;
}

static tw_status lead(const tw_extraction *e, tw_extracted *out) {
    id_source ids;
    char *path = part_path(e->path);
    if (!path) return FAIL(TW_ERR_MEMORY, "%s: no memory for its name", e->path);
    tw_status status = open_ids(&ids, e);
    if (status == TW_OK) status = extract(e, path, &ids, out);
    close_ids(&ids);
    free(path);
    return status;
}

/* Another rank's part: it encodes its batches and keeps nothing. */
static tw_status follow(const tw_extraction *e) {
    tw_extracted out = {0};
    TRY(share_start(e, &out.resumed));
    return encode_rest(e, out.resumed, NULL, &out);
}

tw_status tw_extract(const tw_extraction *e, tw_extracted *out) {
    *out = (tw_extracted){0};
    return tw_encoder_leads(e->encoder) ? lead(e, out) : follow(e);
}
