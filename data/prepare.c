#include "data/prepare.h"

#include "data/files.h"
#include "data/image.h"
#include "data/image_kind.h"
#include "data/jsonl.h"
#include "data/prepare_internal.h"
#include "data/tsv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void tw_prepare_report_free(tw_prepare_report *report) {
    for (int k = 0; k < TW_BAD_KINDS; k++)
        for (int i = 0; i < TW_BAD_NAMED; i++) free(report->named[k][i]);
    *report = (tw_prepare_report){0};
}

/* ---- what all imports share ---- */

tw_status tw_import_begin(tw_import *m, const char *output, const tw_prepare_options *options,
                          tw_prepare_report *report) {
    *m = (tw_import){.options = options, .report = report};
    *report = (tw_prepare_report){0};
    TRY(tw_shard_writer_open(output, &options->shards, &m->writer));
    (void)snprintf(m->texts_path, sizeof m->texts_path, "%s/texts.jsonl", tw_shard_writer_folder(m->writer));
    m->texts = fopen(m->texts_path, "wbe");
    return m->texts ? TW_OK : FAIL(TW_ERR_IO, "%s: %s", m->texts_path, strerror(errno));
}

static tw_status close_texts(tw_import *m) {
    FILE *f = m->texts;
    m->texts = NULL;
    int code = fflush(f) || fsync(fileno(f)) ? errno : 0;
    if (fclose(f) && !code) code = errno;
    if (!code) return TW_OK;
    return FAIL(TW_ERR_IO, "%s: %s%s", m->texts_path, strerror(code),
                code == ENOSPC ? ": free some, or write elsewhere" : "");
}

/* Nothing good at all: the report's first named record says why. */
static tw_status refuse_empty(const tw_import *m) {
    const tw_prepare_report *r = m->report;
    if (r->images > 0 && r->pairs == 0 && r->bad[TW_BAD_UNKNOWN_IMAGE] > 0)
        return FAIL(
            TW_ERR_FORMAT,
            "none of the images that the texts name is there: nothing was written. Do images and texts "
            "belong together? The first: %s",
            r->named[TW_BAD_UNKNOWN_IMAGE][0] ? r->named[TW_BAD_UNKNOWN_IMAGE][0] : "");
    if (r->images > 0 && (r->texts > 0 || (m->texts_optional && r->bad_total == 0))) return TW_OK;
    const char *what = r->images == 0 ? "image" : "text", *example = NULL;
    for (int k = 1; k < TW_BAD_KINDS && !example; k++) example = r->named[k][0];
    if (!example) return FAIL(TW_ERR_FORMAT, "there is no %s in the data: nothing was written", what);
    return FAIL(TW_ERR_FORMAT,
                "there is no good %s in the data, %lld records are bad: nothing was written. One of them: %s",
                what, (long long)r->bad_total, example);
}

tw_status tw_import_end(tw_import *m, tw_status status) {
    if (status == TW_OK) status = refuse_empty(m);
    if (m->texts && status == TW_OK)
        status = close_texts(m);
    else if (m->texts)
        (void)fclose(m->texts); /* the first error stands */
    m->texts = NULL;
    if (status == TW_OK && m->report->texts == 0) (void)unlink(m->texts_path);
    if (status == TW_OK) status = tw_shard_writer_finish(m->writer);
    m->report->unused_images = m->report->images - m->used.count;
    tw_string_map_free(&m->used);
    tw_shard_writer_close(m->writer);
    m->writer = NULL;
    return status;
}

tw_status tw_import_bad(tw_import *m, tw_bad_kind kind, tw_status status) {
    tw_prepare_report *r = m->report;
    const char *message = tw_last_error();
    if (kind == TW_BAD_NONE) return status;
    if (r->bad[kind] < TW_BAD_NAMED) r->named[kind][r->bad[kind]] = strdup(message);
    r->bad[kind]++;
    r->bad_total++;
    if (m->options->strict) return tw_fail_context(TW_ERR_FORMAT, "%s", tw_bad_kind_name(kind));
    if (m->options->on_bad) m->options->on_bad(m->options->context, kind, message);
    return TW_OK;
}

tw_status tw_import_tick(tw_import *m, const char *file, int64_t bytes, int64_t size, int64_t records) {
    const tw_prepare_options *o = m->options;
    if (o->on_progress) o->on_progress(o->context, file, bytes, size, records);
    if (o->should_stop && o->should_stop(o->context))
        return FAIL(TW_ERR_INTERRUPTED, "stopped while reading %s: nothing was written", file);
    return TW_OK;
}

static tw_status check_image(tw_image_check check, const void *data, size_t size) {
    int width, height;
    if (check == TW_CHECK_NONE) return TW_OK;
    TRY(tw_image_check_headers(data, size, &width, &height));
    if (check == TW_CHECK_HEADERS) return TW_OK;
    tw_image image;
    TRY(tw_image_decode(data, size, &image));
    tw_image_free(&image);
    return TW_OK;
}

tw_status tw_import_image(tw_import *m, const char *place, const tw_id *id, const void *data, size_t size,
                          bool *written) {
    *written = false;
    bool twice;
    if (tw_id_is_reserved(id->text, id->size)) {
        tw_status status = FAIL(TW_ERR_FORMAT, "%s: '%s' cannot be an image id", place, id->text);
        return tw_import_bad(m, TW_BAD_ID, status);
    }
    TRY(tw_shard_writer_has_image(m->writer, id, &twice));
    if (twice) {
        tw_status status =
            FAIL(TW_ERR_FORMAT, "%s: image %s is there already, the first one is kept", place, id->text);
        return tw_import_bad(m, TW_BAD_DUPLICATE, status);
    }
    tw_status status = check_image(m->options->check, data, size);
    if (status == TW_ERR_FORMAT || status == TW_ERR_UNSUPPORTED)
        return tw_import_bad(m, TW_BAD_IMAGE, tw_fail_context(status, "%s: image %s", place, id->text));
    if (status) return status;
    TRY(tw_shard_writer_image(m->writer, id, data, size));
    m->report->images++;
    m->report->image_bytes += (int64_t)size;
    *written = true;
    return TW_OK;
}

tw_status tw_import_text_line(tw_import *m, const char *line, size_t size, const char *text,
                              size_t text_bytes, bool has_images) {
    if (fwrite(line, 1, size, m->texts) != size || putc('\n', m->texts) == EOF)
        return FAIL(TW_ERR_IO, "%s: %s", m->texts_path, strerror(errno));
    m->report->texts++;
    if (!has_images) m->report->texts_without_images++;
    if (m->options->on_text) TRY(m->options->on_text(m->options->context, text, text_bytes));
    return TW_OK;
}

tw_status tw_import_pair(tw_import *m, const tw_id *image_id, const tw_id *text_id, const char *text,
                         size_t text_bytes) {
    int64_t index;
    TRY(tw_shard_writer_pair(m->writer, image_id, text_id, text, text_bytes));
    TRY(tw_string_map_add(&m->used, image_id->text, image_id->size, &index, NULL));
    m->report->pairs++;
    return TW_OK;
}

/* ---- TSV and JSON lines ---- */

static tw_status read_images(tw_import *m, tw_tsv *tsv) {
    const tw_lines *lines = tw_tsv_lines(tsv);
    for (;;) {
        tw_tsv_image image;
        tw_bad_kind bad;
        bool end, written;
        tw_status status = tw_tsv_next(tsv, &image, &end, &bad);
        if (end) return TW_OK;
        if (status) {
            TRY(tw_import_bad(m, bad, status));
        } else {
            char place[4400];
            (void)snprintf(place, sizeof place, "%s:%lld", tw_lines_path(lines),
                           (long long)tw_lines_number(lines));
            TRY(tw_import_image(m, place, &image.id, image.data, image.size, &written));
        }
        TRY(tw_import_tick(m, tw_lines_path(lines), tw_lines_position(lines), tw_lines_size(lines),
                           m->report->images));
    }
}

/* The pairs of one caption; *found counts its images that are there. */
static tw_status caption_pairs(tw_import *m, const tw_lines *lines, const tw_caption *c, bool texts_only,
                               size_t *found) {
    *found = 0;
    for (size_t i = 0; i < c->images; i++) {
        bool known;
        TRY(tw_shard_writer_has_image(m->writer, &c->image_ids[i], &known));
        if (!known) {
            tw_status status =
                FAIL(TW_ERR_FORMAT, "%s:%lld: text %s names image %s, which is not among the good images",
                     tw_lines_path(lines), (long long)tw_lines_number(lines), c->text_id.text,
                     c->image_ids[i].text);
            TRY(tw_import_bad(m, TW_BAD_UNKNOWN_IMAGE, status));
            continue;
        }
        ++*found;
        if (!texts_only) TRY(tw_import_pair(m, &c->image_ids[i], &c->text_id, c->text, c->text_bytes));
    }
    return TW_OK;
}

static tw_status read_captions(tw_import *m, tw_jsonl *jsonl, bool texts_only) {
    const tw_lines *lines = tw_jsonl_lines(jsonl);
    for (;;) {
        tw_caption c;
        tw_bad_kind bad;
        bool end;
        tw_status status = tw_jsonl_next(jsonl, &c, &end, &bad);
        if (end) return TW_OK;
        if (status) {
            TRY(tw_import_bad(m, bad, status));
        } else {
            size_t found;
            TRY(caption_pairs(m, lines, &c, texts_only, &found));
            TRY(tw_import_text_line(m, c.line, c.line_bytes, c.text, c.text_bytes, found > 0));
        }
        TRY(tw_import_tick(m, tw_lines_path(lines), tw_lines_position(lines), tw_lines_size(lines),
                           m->report->texts));
    }
}

tw_status tw_import_captions(tw_import *m, const char *path, bool texts_only) {
    tw_jsonl *jsonl;
    TRY(tw_jsonl_open(path, &jsonl));
    tw_status status = read_captions(m, jsonl, texts_only);
    tw_jsonl_close(jsonl);
    return status;
}

static tw_status import_tsv(tw_import *m, const char *tsv_path, const char *jsonl) {
    /* Before minutes of images: are the texts there at all? */
    if (jsonl) {
        tw_jsonl *probe;
        TRY(tw_jsonl_open(jsonl, &probe));
        tw_jsonl_close(probe);
    }
    m->texts_optional = jsonl == NULL;
    tw_tsv *tsv;
    TRY(tw_tsv_open(tsv_path, &tsv));
    tw_status status = read_images(m, tsv);
    tw_tsv_close(tsv);
    if (status) return status;
    if (m->report->images == 0 && m->report->bad_total == 0)
        return FAIL(TW_ERR_FORMAT, "%s: holds no images", tsv_path);
    if (jsonl && m->report->images > 0) TRY(tw_import_captions(m, jsonl, false));
    if (jsonl && m->report->images > 0 && m->report->texts == 0 && m->report->bad_total == 0)
        return FAIL(TW_ERR_FORMAT, "%s: holds no texts", jsonl);
    return TW_OK;
}

tw_status tw_prepare_tsv(const char *tsv, const char *jsonl, const char *output,
                         const tw_prepare_options *options, tw_prepare_report *report) {
    tw_import m;
    tw_status status = tw_import_begin(&m, output, options, report);
    if (status == TW_OK) status = import_tsv(&m, tsv, jsonl);
    return tw_import_end(&m, status);
}
