#include "train/convert.h"

#include "data/files.h"
#include "train/checkpoint_weights.h"
#include "train/convert_private.h"
#include "train/formats/pt.h"
#include "train/formats/weight_convert.h"
#include "train/model_io.h"
#include "train/original_order.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- input ---- */

static bool is_optimizer(const char *name) {
    return strncmp(name, TW_WEIGHTS_OPTIMIZER, strlen(TW_WEIGHTS_OPTIMIZER)) == 0;
}

static tw_status copy_text(const char *text, char **out) {
    *out = text ? strdup(text) : NULL;
    return *out || !text ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
}

static tw_status describe_origin(tw_convert_input *in) {
    const tw_weights_note *note = tw_weights_get_note(in->weights);
    in->origin.module = in->source.original.module;
    in->origin.hugging_face = in->source.original.hugging_face;
    TRY(copy_text(note->kind, &in->origin.kind));
    return copy_text(note->name, &in->origin.name);
}

/* A vocabulary is welcome in every target and needed in one. */
static tw_status find_vocab(const tw_convert_options *options, tw_convert_input *in) {
    const char *const beside[] = {in->source.path, NULL};
    tw_status status = tw_find_vocab(options->vocab, in->source.checkpoint, beside, &in->vocab);
    if (status == TW_ERR_NOT_FOUND && !options->vocab && options->target != TW_TO_HF) {
        tw_log_warning(options->log, "%s", tw_last_error());
        return TW_OK;
    }
    TRY(status);
    if (tw_vocab_size(in->vocab) == in->config.text.vocabulary) return TW_OK;
    return FAIL(TW_ERR_SHAPE, "the vocabulary %s has %d entries, the word embeddings of %s have %d",
                tw_vocab_origin(in->vocab), tw_vocab_size(in->vocab), in->source.path,
                in->config.text.vocabulary);
}

/* Descriptions of tuwen and .pt files have no place for them. */
static void warn_of_pixels(const tw_convert_options *options, const tw_image_config *image) {
    if (options->target != TW_TO_HF && !tw_pixels_are_clips(image->pixel_mean, image->pixel_std))
        tw_log_warning(options->log,
                       "%s normalises pixels otherwise than CLIP (mean %.4f %.4f %.4f): that is lost in %s",
                       options->in, (double)image->pixel_mean[0], (double)image->pixel_mean[1],
                       (double)image->pixel_mean[2], options->out);
}

static tw_status open_input(const tw_convert_options *options, tw_convert_input *in) {
    int64_t ignored;
    TRY(tw_model_source_open(options->in, &in->source));
    TRY(tw_model_source_config(&in->source, options->model, &in->config));
    warn_of_pixels(options, &in->config.image);
    if (in->source.checkpoint) {
        TRY(tw_checkpoint_originals(in->source.checkpoint, options->optimizer, &in->originals, &in->origin));
        in->weights = in->originals;
    } else {
        in->weights = in->source.original.weights;
        TRY(describe_origin(in));
    }
    TRY(tw_dual_encoder_create(&in->config, &in->model));
    TRY(tw_model_fits(in->model, in->weights, TW_PART_ALL, &ignored));
    TRY(find_vocab(options, in));
    if (!options->optimizer) return TW_OK;
    if (tw_weights_get_note(in->weights)->group_count == 0)
        return FAIL(TW_ERR_CONFIG, "%s has no optimizer state: leave --optimizer out", options->in);
    return tw_original_optimizer_numbers(in->weights, &in->numbers);
}

static void close_input(tw_convert_input *in) {
    tw_weights_close(in->originals);
    tw_weight_origin_free(&in->origin);
    tw_model_source_close(&in->source);
    tw_dual_encoder_free(in->model);
    tw_vocab_free(in->vocab);
    free(in->numbers);
}

/* ---- types ---- */

/* What the published files keep in f32 (FACTS §3). */
static bool stays_f32(const char *name) {
    if (strcmp(name, "logit_scale") == 0) return true;
    if (strncmp(name, "visual.", 7) != 0) return false;
    return strstr(name, "embedding") || strstr(name, ".ln_") || strstr(name, ".bn") ||
           strstr(name, ".downsample.1.") || strstr(name, ".running_");
}

static bool is_float(tw_weight_type type) {
    return type == TW_WEIGHT_F32 || type == TW_WEIGHT_F16 || type == TW_WEIGHT_BF16 || type == TW_WEIGHT_F64;
}

static tw_weight_type target_type(const tw_convert_options *options, const tw_weight *t) {
    if (options->precision == TW_KEEP || !is_float(t->type) || is_optimizer(t->name)) return t->type;
    if (options->precision == TW_AS_F32 || stays_f32(t->name)) return TW_WEIGHT_F32;
    return options->precision == TW_AS_F16 ? TW_WEIGHT_F16 : TW_WEIGHT_BF16;
}

static tw_status check_range(const char *name, const float *values, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (fabsf(values[i]) >= 65520 && isfinite(values[i]))
            return FAIL(TW_ERR_NUMERIC, "%s has the value %g, f16 ends at 65504: use --precision bf16 or f32",
                        name, (double)values[i]);
    return TW_OK;
}

static tw_status fill_converted(tw_convert_plan *plan, int64_t i, void *dst) {
    const tw_weight *t = &plan->items[i];
    float *values = malloc((size_t)t->count * sizeof *values + 1);
    if (!values) return FAIL(TW_ERR_MEMORY, "no memory for %s", t->name);
    tw_status status = tw_weights_read_f32(plan->in->weights, plan->from[i].source, values, t->count);
    if (status == TW_OK && t->type == TW_WEIGHT_F16) status = check_range(t->name, values, t->count);
    if (status == TW_OK) status = tw_weight_from_f32(t->type, values, dst, t->count);
    free(values);
    return status;
}

void tw_convert_progress(tw_convert_plan *plan, int64_t bytes) {
    enum { MB = 1000000 };
    plan->done += bytes;
    int64_t all = plan->total / MB + 1, now = plan->done >= plan->total ? all : plan->done / MB;
    if (now != plan->shown) tw_log_progress(plan->options->log, now, all, "MB");
    plan->shown = now;
}

tw_status tw_convert_fill(void *self, int64_t i, void *dst) {
    tw_convert_plan *plan = self;
    const tw_weight *t = &plan->items[i];
    size_t bytes = (size_t)t->count * tw_weight_type_size(t->type);
    int64_t source = plan->from[i].source;
    if (source < 0)
        memset(dst, 0, bytes);
    else if (tw_weights_at(plan->in->weights, source)->type == t->type)
        TRY(tw_weights_read(plan->in->weights, source, dst));
    else
        TRY(fill_converted(plan, i, dst));
    tw_convert_progress(plan, (int64_t)bytes);
    return TW_OK;
}

/* ---- what goes into the output ---- */

static tw_status add(tw_convert_plan *plan, const tw_weight *t, tw_convert_item from, const char *prefix) {
    tw_weight *item = &plan->items[plan->n];
    size_t bytes = strlen(prefix) + strlen(t->name) + 1;
    char *name = malloc(bytes);
    if (!name) return FAIL(TW_ERR_MEMORY, "out of memory");
    snprintf(name, bytes, "%s%s", prefix, t->name);
    *item = *t;
    item->name = name;
    item->type = target_type(plan->options, t);
    plan->from[plan->n++] = from;
    plan->total += item->count * (int64_t)tw_weight_type_size(item->type);
    return TW_OK;
}

/* Tensors that no model needs go back only to the kind of file they came from: others refuse or mistake them.
 */
static bool takes_extras(const tw_convert_plan *plan) {
    const tw_weight_origin *origin = &plan->in->origin;
    if (plan->options->target == TW_TO_H5) return true;
    return plan->options->target == (origin->hugging_face ? TW_TO_HF : TW_TO_PT);
}

/* The counter that PyTorch's batch norm keeps beside its statistics, for models that tuwen trained. */
static tw_status add_counter(tw_convert_plan *plan, const char *variance, const char *prefix) {
    char name[512];
    snprintf(name, sizeof name, "%.*snum_batches_tracked", (int)(strlen(variance) - strlen("running_var")),
             variance);
    if (tw_weights_find(plan->in->weights, name) >= 0) return TW_OK;
    tw_weight counter = {.name = name, .type = TW_WEIGHT_I64, .count = 1};
    return add(plan, &counter, (tw_convert_item){.source = -1, .extra = true}, prefix);
}

static tw_status plan_tensors(tw_convert_plan *plan, const char *prefix, int64_t *left_out) {
    const tw_weights *w = plan->in->weights;
    bool pt = plan->options->target == TW_TO_PT;
    for (int64_t i = 0; i < tw_weights_count(w); i++) {
        const tw_weight *t = tw_weights_at(w, i);
        bool extra = tw_name_is_ignored(t->name);
        if (is_optimizer(t->name)) continue;
        if (extra && !takes_extras(plan)) {
            ++*left_out;
            continue;
        }
        TRY(add(plan, t, (tw_convert_item){.source = i, .extra = extra}, prefix));
        size_t n = strlen(t->name);
        if (pt && n > 12 && strcmp(t->name + n - 12, ".running_var") == 0)
            TRY(add_counter(plan, t->name, prefix));
    }
    return TW_OK;
}

static tw_status plan_optimizer(tw_convert_plan *plan) {
    for (int64_t i = 0; i < tw_weights_count(plan->in->weights); i++) {
        const tw_weight *t = tw_weights_at(plan->in->weights, i);
        if (is_optimizer(t->name)) TRY(add(plan, t, (tw_convert_item){.source = i, .optimizer = true}, ""));
    }
    return TW_OK;
}

static tw_status make_plan(tw_convert_plan *plan, tw_convert_result *result) {
    const tw_convert_options *options = plan->options;
    size_t n = 2 * (size_t)tw_weights_count(plan->in->weights) + 1;
    plan->items = calloc(n, sizeof *plan->items);
    plan->from = calloc(n, sizeof *plan->from);
    if (!plan->items || !plan->from) return FAIL(TW_ERR_MEMORY, "out of memory");
    /* The original code's training expects "module."; its tools take both. */
    const tw_weight_origin *origin = &plan->in->origin;
    bool bare = origin->kind && !origin->module && !origin->hugging_face;
    TRY(plan_tensors(plan, options->target == TW_TO_PT && !bare ? "module." : "", &result->left_out));
    result->tensors = plan->n;
    result->has_optimizer = options->optimizer;
    result->has_vocab = plan->in->vocab != NULL;
    result->config = plan->in->config;
    if (options->optimizer) TRY(plan_optimizer(plan));
    result->bytes = plan->total;
    return TW_OK;
}

/* ---- targets ---- */

static tw_status write_pt(tw_convert_plan *plan) {
    tw_weights_note note = *tw_weights_get_note(plan->in->weights);
    tw_weights_output output = {plan->items, plan->n, tw_convert_fill, plan};
    if (!plan->options->optimizer) note.groups = NULL, note.group_count = 0;
    return tw_pt_write(plan->options->out, &output, &note);
}

static tw_status write_hf(tw_convert_plan *plan) {
    tw_weights_output output = {plan->items, plan->n, tw_convert_fill, plan};
    size_t bytes;
    const char *vocab = tw_vocab_text(plan->in->vocab, &bytes);
    return tw_hf_folder_write(plan->options->out, &output, &plan->in->config, vocab, bytes,
                              plan->options->force);
}

static tw_status check_options(const tw_convert_options *o) {
    struct stat in, out;
    if (o->optimizer && o->target == TW_TO_HF)
        return FAIL(TW_ERR_CONFIG, "--optimizer: a Hugging Face folder has no place for optimizer state");
    if (o->target == TW_TO_H5 && (o->precision == TW_AS_F16 || o->precision == TW_AS_BF16))
        return FAIL(TW_ERR_CONFIG, "a tuwen checkpoint holds f32: --precision is for --to pt and --to hf");
    if (stat(o->out, &out) != 0) return TW_OK;
    if (stat(o->in, &in) == 0 && in.st_dev == out.st_dev && in.st_ino == out.st_ino)
        return FAIL(TW_ERR_CONFIG, "%s would be written over itself: give another name", o->out);
    bool folder = S_ISDIR(out.st_mode);
    if (folder != (o->target == TW_TO_HF))
        return FAIL(TW_ERR_CONFIG,
                    folder ? "%s is a folder, a file is to be written"
                           : "%s is a file, a folder is to be written",
                    o->out);
    if (!folder && !o->force) return FAIL(TW_ERR_CONFIG, "%s is there already: --force replaces it", o->out);
    return TW_OK;
}

/* The folder of the file to write; a Hugging Face folder makes its own. */
static tw_status make_parent(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path) return TW_OK;
    char *folder = strndup(path, (size_t)(slash - path));
    if (!folder) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = tw_make_folders(folder);
    free(folder);
    return status;
}

static tw_status write_target(tw_convert_plan *plan) {
    if (plan->options->target != TW_TO_HF) TRY(make_parent(plan->options->out));
    if (plan->options->target == TW_TO_PT) return write_pt(plan);
    return plan->options->target == TW_TO_HF ? write_hf(plan) : tw_convert_write_h5(plan);
}

tw_status tw_convert(const tw_convert_options *options, tw_convert_result *result) {
    tw_convert_input in = {0};
    tw_convert_plan plan = {.options = options, .in = &in};
    *result = (tw_convert_result){0};
    TRY(check_options(options));
    tw_status status = open_input(options, &in);
    if (status == TW_OK) status = make_plan(&plan, result);
    if (status == TW_OK) status = write_target(&plan);
    for (int64_t i = 0; i < plan.n; i++) free((char *)plan.items[i].name);
    free(plan.items);
    free(plan.from);
    close_input(&in);
    return status;
}
