#include "data/image_kind.h"
#include "train/recall.h"
#include "train/run.h"

#include <math.h>
#include <stdlib.h>

enum { QUERIES = 24, HITS = 5 };

typedef struct sheet {
    tw_report_query queries[QUERIES];
    tw_report_hit hits[QUERIES][HITS];
    int64_t count;
} sheet;

static void free_sheet(sheet *s) {
    for (int64_t q = 0; q < s->count; q++)
        for (size_t h = 0; h < s->queries[q].n_hits; h++) free((void *)(uintptr_t)s->hits[q][h].image);
    free(s);
}

static const char *mime_of(const uint8_t *data, size_t size) {
    switch (tw_image_kind_of(data, size)) {
    case TW_IMAGE_JPEG:
        return "image/jpeg";
    case TW_IMAGE_PNG:
        return "image/png";
    case TW_IMAGE_WEBP:
        return "image/webp";
    case TW_IMAGE_UNKNOWN:
        break;
    }
    return ""; /* the report shows it as missing */
}

static bool is_right(const tw_pool *pool, int64_t text, int64_t image) {
    for (int64_t k = pool->image_start[text]; k < pool->image_start[text + 1]; k++)
        if (pool->image_of[k] == image) return true;
    return false;
}

static double dot(const float *a, const float *b, int64_t d) {
    double sum = 0;
    for (int64_t i = 0; i < d; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

/* The rank, from 1, of the best right image of a text; 0 if it has none. */
static int64_t rank_of_right(const tw_run *run, int64_t text) {
    const tw_pool *pool = run->pool;
    int64_t d = run->model->config.embed, rank = 1;
    const float *query = run->val_text + text * d;
    double best = -INFINITY;
    for (int64_t k = pool->image_start[text]; k < pool->image_start[text + 1]; k++)
        best = fmax(best, dot(query, run->val_image + pool->image_of[k] * d, d));
    if (best == -INFINITY) return 0;
    for (int64_t i = 0; i < pool->n_images; i++) rank += dot(query, run->val_image + i * d, d) > best;
    return rank;
}

static tw_status fill_hits(tw_run *run, tw_reader *reader, sheet *s, int64_t q, int64_t text,
                           const int32_t *indexes, const float *scores, int k) {
    s->queries[q] = (tw_report_query){
        .text = run->pool->texts[text].text, .hits = s->hits[q], .right_rank = rank_of_right(run, text)};
    s->count = q + 1;
    for (int h = 0; h < k && h < HITS; h++) {
        tw_bytes bytes;
        TRY(tw_dataset_image_at(reader, indexes[h], NULL, &bytes));
        uint8_t *copy = malloc(bytes.size + 1);
        if (!copy) return FAIL(TW_ERR_MEMORY, "out of memory");
        memcpy(copy, bytes.data, bytes.size);
        s->hits[q][h] = (tw_report_hit){.image = copy,
                                        .size = bytes.size,
                                        .mime = mime_of(copy, bytes.size),
                                        .score = (double)scores[h],
                                        .is_right = is_right(run->pool, text, indexes[h])};
        s->queries[q].n_hits++;
    }
    return TW_OK;
}

/* Texts spread evenly over the pool, each with what the model finds for it. */
static tw_status fill_sheet(tw_run *run, tw_reader *reader, sheet *s) {
    int64_t n = run->pool->n_texts, queries = n < QUERIES ? n : QUERIES, d = run->model->config.embed;
    for (int64_t q = 0; q < queries; q++) {
        int64_t text = q * n / queries;
        int32_t indexes[HITS];
        float scores[HITS];
        int k;
        TRY(tw_retrieve(run->device, run->val_text + text * d, 1, run->val_image, run->pool->n_images, d,
                        HITS, indexes, scores, &k));
        TRY(fill_hits(run, reader, s, q, text, indexes, scores, k));
    }
    return TW_OK;
}

/* Every key with its value, as the report's table shows them. */
typedef struct config_rows {
    tw_report_row rows[TW_CONFIG_KEYS];
    char values[TW_CONFIG_KEYS][256];
} config_rows;

static void fill_config(const tw_config *config, config_rows *c) {
    static const char *const keys[] = {
#define SECTION(title)
#define KEY(type, name, range, preset, unit, help) #name,
#include "train/config.def"
#undef SECTION
#undef KEY
    };
    for (int i = 0; i < TW_CONFIG_KEYS; i++) {
        tw_config_value_text(config, keys[i], c->values[i], sizeof c->values[i]);
        c->rows[i] = (tw_report_row){keys[i], c->values[i]};
    }
}

/* The parts of --profile, of rank 0 alone. */
typedef struct profile_rows {
    tw_report_row rows[TW_PROFILE_PARTS + 1];
    char values[TW_PROFILE_PARTS + 1][64];
    size_t n;
} profile_rows;

static void fill_profile(const tw_run *run, profile_rows *r) {
    const tw_profile *p = &run->profiles[0];
    double total = tw_profile_total(p), steps = (double)p->steps, hidden = tw_profile_hidden(p);
    r->n = 0;
    if (!run->config->profile || p->steps == 0) return;
    for (; r->n < TW_PROFILE_PARTS; r->n++) {
        double seconds = p->seconds[r->n];
        snprintf(r->values[r->n], sizeof r->values[r->n], "%.2f ms a step, %.1f %%", 1e3 * seconds / steps,
                 100 * seconds / total);
        r->rows[r->n] = (tw_report_row){tw_profile_part_name((tw_profile_part)r->n), r->values[r->n]};
    }
    if (isnan(hidden)) return;
    snprintf(r->values[r->n], sizeof r->values[r->n], "%.1f %% of %.2f ms a step", 100 * hidden,
             1e3 * p->reduced / steps);
    r->rows[r->n] = (tw_report_row){"gradient reduction (late ranks included), hidden", r->values[r->n]};
    r->n++;
}

static tw_status write(tw_run *run, const sheet *s, const config_rows *rows) {
    profile_rows profile;
    fill_profile(run, &profile);
    const tw_history *h = &run->history;
    char path[4200], title[300], subtitle[300];
    int64_t parameters = 0;
    for (int i = 0; i < tw_params_count(run->model->params); i++)
        parameters += tw_params_at(run->model->params, i)->count;
    snprintf(path, sizeof path, "%s/report.html", run->config->output);
    snprintf(title, sizeof title, "tuwen: %s", run->name);
    snprintf(subtitle, sizeof subtitle, "%s on %s, %lld pairs", run->model->config.name,
             run->config->train_data, (long long)tw_dataset_pairs(run->train));
    tw_report report = {.title = title,
                        .subtitle = subtitle,
                        .points = h->points,
                        .n_points = h->n_points,
                        .validations = h->validations,
                        .n_validations = h->n_validations,
                        .config = rows->rows,
                        .n_config = TW_CONFIG_KEYS,
                        .profile = profile.rows,
                        .n_profile = profile.n,
                        .queries = s->queries,
                        .n_queries = (size_t)s->count,
                        .global_batch = run->config->batch,
                        .best_step = run->best_step,
                        .parameters = parameters,
                        .train_seconds = h->train_seconds,
                        .pairs_per_s = h->train_seconds > 0 ? (double)h->pairs / h->train_seconds : NAN,
                        .skipped_steps = run->skipped_total,
                        .bad_records = h->bad_images};
    TRY(tw_report_write(path, &report));
    tw_log_line(run->log, "report: %s", path);
    return TW_OK;
}

tw_status tw_run_write_report(tw_run *run) {
    sheet *s = calloc(1, sizeof *s);
    config_rows *rows = calloc(1, sizeof *rows);
    tw_reader *reader = NULL;
    tw_status status = s && rows ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
    const tw_config settled = tw_run_settled(run);
    if (status == TW_OK) fill_config(&settled, rows);
    if (status == TW_OK && run->validated) {
        status = tw_reader_open(run->val, &reader);
        if (status == TW_OK) status = fill_sheet(run, reader, s);
    }
    if (status == TW_OK) status = write(run, s, rows);
    tw_reader_close(reader);
    if (s) free_sheet(s);
    free(rows);
    return status;
}
