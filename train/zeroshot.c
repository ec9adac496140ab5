#include "train/zeroshot.h"

#include "data/atomic_file.h"
#include "data/files.h"
#include "data/python_float.h"
#include "data/unicode.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

/* ---- class weights ---- */

/* Prompts of some classes at a time, so that memory stays small for a thousand classes. */
enum { PROMPTS_AT_ONCE = 2048 };

typedef struct prompt_block {
    tw_text *texts; /* (n); the texts are owned */
    int64_t n;
    float *features; /* (n, dim) */
} prompt_block;

static void free_block(prompt_block *b) {
    for (int64_t i = 0; i < b->n; i++) free((char *)(uintptr_t)b->texts[i].text);
    free(b->texts);
    free(b->features);
}

static tw_status fill_block(const tw_prompts *labels, int64_t first, int64_t count,
                            const tw_prompts *templates, int64_t dim, prompt_block *b) {
    int64_t n = count * templates->n;
    *b = (prompt_block){.texts = calloc((size_t)n, sizeof *b->texts),
                        .features = malloc((size_t)(n * dim) * sizeof *b->features)};
    if (!b->texts || !b->features) return FAIL(TW_ERR_MEMORY, "no memory for %lld prompts", (long long)n);
    for (; b->n < n; b->n++) {
        char *text =
            tw_template_fill(templates->at[b->n % templates->n], labels->at[first + b->n / templates->n]);
        if (!text) return FAIL(TW_ERR_MEMORY, "no memory for %lld prompts", (long long)n);
        b->texts[b->n] = (tw_text){.text = text, .bytes = strlen(text)};
    }
    return TW_OK;
}

/* The normalised mean of n rows of length 1. */
static void mean_direction(const float *rows, int64_t n, int64_t dim, float *out) {
    double square = 0;
    for (int64_t k = 0; k < dim; k++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum += (double)rows[i * dim + k];
        out[k] = (float)(sum / (double)n);
        square += (double)out[k] * (double)out[k];
    }
    double length = sqrt(square);
    for (int64_t k = 0; k < dim && length > 0; k++) out[k] = (float)((double)out[k] / length);
}

static tw_status encode_block(tw_encoder *e, prompt_block *b, const tw_prompts *templates, int64_t count,
                              float *weights, int64_t *truncated) {
    int64_t cut;
    TRY(tw_encode_texts(e->towers, e->loaded.model, e->loaded.vocab, b->texts, b->n, &e->encode, b->features,
                        &cut));
    *truncated += cut;
    for (int64_t c = 0; c < count; c++)
        mean_direction(b->features + c * templates->n * e->dim, templates->n, e->dim, weights + c * e->dim);
    return TW_OK;
}

tw_status tw_zeroshot_weights(tw_encoder *encoder, const tw_prompts *labels, const tw_prompts *templates,
                              float *weights, int64_t *truncated) {
    int64_t step = PROMPTS_AT_ONCE / templates->n > 0 ? PROMPTS_AT_ONCE / templates->n : 1;
    tw_status status = TW_OK;
    *truncated = 0;
    encoder->encode.on_progress = NULL; /* it would begin again with every block */
    for (int64_t first = 0; status == TW_OK && first < labels->n; first += step) {
        int64_t count = labels->n - first < step ? labels->n - first : step;
        prompt_block block;
        status = fill_block(labels, first, count, templates, encoder->dim, &block);
        if (status == TW_OK)
            status =
                encode_block(encoder, &block, templates, count, weights + first * encoder->dim, truncated);
        free_block(&block);
        tw_log_progress(encoder->log, first + count, labels->n, "classes");
    }
    return status;
}

/* ---- accuracies ---- */

static int64_t first_of(const float *row, int64_t classes) {
    int64_t best = 0;
    for (int64_t c = 1; c < classes; c++)
        if (row[c] > row[best]) best = c;
    return best;
}

/* Classes before `target` when sorted by falling logit. */
static int64_t rank_of(const float *row, int64_t classes, int64_t target) {
    int64_t before = 0;
    for (int64_t c = 0; c < classes; c++)
        before += row[c] > row[target] || (row[c] == row[target] && c < target);
    return before;
}

static void sum_up(tw_zeroshot_scores *s) {
    int64_t right = 0, right5 = 0, classes = 0;
    double sum = 0;
    for (int64_t c = 0; c < s->classes; c++) {
        s->images += s->count[c];
        right += s->right[c];
        right5 += s->right5[c];
        if (s->count[c] == 0) continue;
        classes++;
        sum += (double)s->right[c] / (double)s->count[c];
    }
    double all = s->images ? (double)s->images : 1;
    s->top1 = 100 * (double)right / all;
    s->top5 = 100 * (double)right5 / all;
    s->mean_class = classes ? 100 * sum / (double)classes : 0;
}

tw_status tw_zeroshot_score(const float *logits, const int32_t *class_of, const bool *ok, int64_t n,
                            int64_t classes, tw_zeroshot_scores *out) {
    size_t all = (size_t)classes;
    *out = (tw_zeroshot_scores){.classes = classes,
                                .count = calloc(all, sizeof *out->count),
                                .right = calloc(all, sizeof *out->right),
                                .right5 = calloc(all, sizeof *out->right5),
                                .confusion = calloc(all * all, sizeof *out->confusion)};
    if (!out->count || !out->right || !out->right5 || !out->confusion) {
        tw_zeroshot_scores_free(out);
        return FAIL(TW_ERR_MEMORY, "no memory for the table of %lld classes", (long long)classes);
    }
    for (int64_t i = 0; i < n; i++) {
        if (!ok[i]) continue;
        const float *row = logits + i * classes;
        int64_t target = class_of[i], rank = rank_of(row, classes, target);
        out->count[target]++;
        out->right[target] += rank == 0;
        out->right5[target] += rank < TW_ZEROSHOT_TOP;
        out->confusion[target * classes + first_of(row, classes)]++;
    }
    sum_up(out);
    return TW_OK;
}

void tw_zeroshot_scores_free(tw_zeroshot_scores *scores) {
    free(scores->count);
    free(scores->right);
    free(scores->right5);
    free(scores->confusion);
    *scores = (tw_zeroshot_scores){0};
}

/* ---- the benchmark site's file ---- */

static tw_status copy_index(const char *path, const json_t *list, int64_t images, int64_t *to) {
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item) {
        if (!json_is_integer(item)) return FAIL(TW_ERR_FORMAT, "%s: element %zu is no whole number", path, i);
        to[i] = (int64_t)json_integer_value(item);
        if (to[i] < 0 || to[i] >= images)
            return FAIL(TW_ERR_FORMAT, "%s: element %zu is %lld; there are %lld images, counted from 0", path,
                        i, (long long)to[i], (long long)images);
    }
    return TW_OK;
}

tw_status tw_zeroshot_index_load(const char *path, int64_t images, int64_t **out, int64_t *n) {
    json_error_t error;
    *out = NULL;
    FILE *file;
    TRY(tw_open_stream(path, &file));
    json_t *list = json_loadf(file, JSON_REJECT_DUPLICATES, &error);
    (void)fclose(file);
    if (!list) return FAIL(TW_ERR_FORMAT, "%s:%d: %s", path, error.line, error.text);
    *n = (int64_t)json_array_size(list);
    tw_status status = TW_OK;
    if (*n == 0) status = FAIL(TW_ERR_FORMAT, "%s: not a list of row numbers, as [2, 0, 1]", path);
    if (status == TW_OK && !(*out = malloc((size_t)*n * sizeof **out)))
        status = FAIL(TW_ERR_MEMORY, "out of memory");
    if (status == TW_OK) status = copy_index(path, list, images, *out);
    json_decref(list);
    if (status != TW_OK) {
        free(*out);
        *out = NULL;
    }
    return status;
}

/* repr(round(x, 6)): through the decimal text, which is rounded from the exact value as Python's round is. */
static void write_rounded(FILE *file, float x) {
    char decimal[64], text[TW_PYTHON_FLOAT_BYTES];
    (void)snprintf(decimal, sizeof decimal, "%.6f", (double)x);
    tw_python_float(strtod(decimal, NULL), text);
    fputs(text, file);
}

static void write_character(FILE *file, uint32_t c) {
    static const char plain[] = "\"\\\n\r\t\b\f", letters[] = "\"\\nrtbf";
    const char *special = c < 128 ? memchr(plain, (int)c, sizeof plain - 1) : NULL;
    if (special)
        fprintf(file, "\\%c", letters[special - plain]);
    else if (c >= 0x10000)
        fprintf(file, "\\u%04x\\u%04x", 0xd7c0 + (c >> 10), 0xdc00 + (c & 0x3ff));
    else if (c < ' ' || c > '~')
        fprintf(file, "\\u%04x", c);
    else
        fputc((int)c, file);
}

/* A member of a JSON object as Python's json.dumps writes it: all beyond ASCII escaped. */
static tw_status write_string(FILE *file, const char *key, const char *text) {
    tw_code_points points;
    tw_code_points_init(&points);
    tw_status status = tw_utf8_decode(text, strlen(text), &points);
    if (status) (void)tw_fail_context(status, "%s", key);
    fprintf(file, "\"%s\": \"", key);
    for (size_t i = 0; status == TW_OK && i < points.count; i++) write_character(file, points.at[i]);
    fputc('"', file);
    tw_code_points_free(&points);
    return status;
}

static tw_status write_all(FILE *file, const tw_zeroshot_predictions *p) {
    fputc('{', file);
    TRY(write_string(file, "model_name", p->model));
    fputs(", ", file);
    TRY(write_string(file, "dataset_name", p->dataset));
    fprintf(file,
            ", \"num_trainable_params\": 0, \"num_params\": %lld, \"num_visual_params\": %lld, "
            "\"num_backbone_params\": %lld, \"n_shot\": 0, \"rnd_seeds\": [123], \"predictions\": [[",
            (long long)p->params, (long long)p->visual_params, (long long)p->params);
    for (int64_t r = 0; r < p->rows; r++) {
        const float *row = p->probabilities + (p->order ? p->order[r] : r) * p->classes;
        fputs(r ? ", [" : "[", file);
        for (int64_t c = 0; c < p->classes; c++) {
            if (c) fputs(", ", file);
            write_rounded(file, row[c]);
        }
        fputc(']', file);
    }
    fputs("]]}", file);
    return TW_OK;
}

tw_status tw_zeroshot_predictions_write(const char *path, const tw_zeroshot_predictions *p) {
    tw_atomic_file file;
    TRY(tw_atomic_file_open(&file, path));
    return tw_atomic_file_end(&file, write_all(file.stream, p));
}
