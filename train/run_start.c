/* What a training run starts from: a checkpoint of its own, a whole model, two towers, or random weights. */
#include "data/files.h"
#include "train/formats/run_folder.h"
#include "train/model_file.h"
#include "train/recognise.h"
#include "train/run.h"

#include <stdlib.h>

static tw_status open_folder(const tw_run *run, const char *folder, tw_checkpoint **out) {
    char *notes = NULL;
    tw_status status = tw_run_folder_open(folder, out, &notes);
    if (notes) tw_log_warning(run->log, "%s", notes);
    free(notes);
    return status;
}

/* A run folder without a checkpoint may be used; one with a run in it only to go on. */
static tw_status refuse_second_run(const tw_config *config) {
    tw_checkpoint *c;
    char *notes = NULL;
    tw_status status = tw_run_folder_open(config->output, &c, &notes);
    free(notes);
    if (status == TW_ERR_NOT_FOUND) return TW_OK;
    if (status == TW_OK) tw_checkpoint_close(c);
    return FAIL(TW_ERR_CONFIG, "%s holds a run already: go on with --resume latest, or give another --output",
                config->output);
}

static tw_status open_resumed(const tw_run *run, const char *from, tw_run_start *out) {
    tw_checkpoint *c;
    TRY(tw_is_folder(from) ? open_folder(run, from, &c) : tw_checkpoint_open(from, &c));
    TRY(tw_model_source_of_checkpoint(c, &out->source));
    out->whole = out->resume = true;
    return TW_OK;
}

/* The checkpoint to go on from, if there is one. */
static tw_status find_resumed(const tw_run *run, tw_run_start *out) {
    const tw_config *config = run->config;
    const char *from = config->resume;
    bool automatic = strcmp(from, "auto") == 0;
    if (automatic || strcmp(from, "latest") == 0) from = config->output;
    if (!*from) return refuse_second_run(config);
    tw_status status = open_resumed(run, from, out);
    if (automatic && status == TW_ERR_NOT_FOUND) status = TW_OK;
    bool own = strcmp(from, config->output) == 0;
    return status == TW_OK && own ? tw_run_folder_mend(from, out->source.checkpoint) : status;
}

/* Rank 0 looks; the others open what it found, though `latest` may move or be another file to them. */
static tw_status open_same(const tw_run *run, tw_run_start *out) {
    char path[4096] = "";
    bool leads = run->comm->rank == 0;
    if (leads) TRY(find_resumed(run, out));
    if (out->resume) snprintf(path, sizeof path, "%s", tw_checkpoint_path(out->source.checkpoint));
    TRY(run->comm->broadcast(run->comm, path, sizeof path, 0));
    return leads || !*path ? TW_OK : open_resumed(run, path, out);
}

static tw_status open_initial(const tw_config *config, tw_run_start *out) {
    if (*config->init && (*config->init_image || *config->init_text))
        return FAIL(TW_ERR_CONFIG, "init gives a whole model: leave init_image and init_text out, or init");
    if (*config->init) {
        TRY(tw_model_source_open(config->init, &out->source));
        out->whole = true;
    }
    if (*config->init_image) {
        TRY(tw_model_source_open(config->init_image, &out->image));
        out->has_image = true;
    }
    if (*config->init_text) {
        TRY(tw_model_source_open(config->init_text, &out->text));
        out->has_text = true;
    }
    return TW_OK;
}

tw_status tw_run_start_open(const tw_run *run, tw_run_start *out) {
    *out = (tw_run_start){0};
    TRY(open_same(run, out));
    return out->resume ? TW_OK : open_initial(run->config, out);
}

void tw_run_start_close(tw_run_start *start) {
    tw_model_source_close(&start->source);
    tw_model_source_close(&start->image);
    tw_model_source_close(&start->text);
    *start = (tw_run_start){0};
}

/* ---- description ---- */

static tw_status config_of_parts(const tw_run_start *start, const tw_config *config, tw_model_config *out) {
    bool described = *config->model;
    if (!described && !(start->has_image && start->has_text))
        return FAIL(
            TW_ERR_CONFIG, "%s gives one tower: give the other one with --%s, or a --model that has both",
            start->has_image ? "init_image" : "init_text", start->has_image ? "init_text" : "init_image");
    *out = (tw_model_config){.name = "custom"};
    if (described) TRY(tw_model_config_load(config->model, out));
    if (described) return TW_OK; /* loading compares shapes */
    const tw_model_source *image = &start->image, *text = &start->text;
    out->embed = image->hf_config.embed; /* for a tower without projection */
    TRY(tw_recognise_image(image->original.weights, image->hf_config.image_heads, out));
    return tw_recognise_text(text->original.weights, text->hf_config.text_heads, out);
}

tw_status tw_run_start_config(const tw_run_start *start, const tw_config *config, tw_model_config *out) {
    if (start->whole) {
        tw_model_config other;
        const char *model = config->model;
        /* What a run goes on with describes itself: its recipe's file need not be there any more. */
        if (start->resume && *model && tw_model_config_load(model, &other) != TW_OK) model = NULL;
        return tw_model_source_config(&start->source, model, out);
    }
    if (start->has_image || start->has_text) return config_of_parts(start, config, out);
    if (!*config->model)
        return FAIL(TW_ERR_CONFIG,
                    "no model: give --model (a name in configs/models or a file), --init, --init_image with "
                    "--init_text, or --resume");
    return tw_model_config_load(config->model, out);
}

tw_status tw_run_start_vocab(const tw_run_start *start, const tw_config *config, tw_vocab **out) {
    const char *beside[4];
    int n = 0;
    if (start->whole) beside[n++] = start->source.path;
    if (start->has_text) beside[n++] = start->text.path;
    beside[n++] = config->train_data;
    beside[n] = NULL;
    return tw_find_vocab(config->vocab, start->source.checkpoint, beside, out);
}

/* ---- weights ---- */

static tw_status load_part(const tw_model_source *s, tw_model_part part, tw_run *run) {
    static const char *const what[] = {"weights", "image tower", "text tower"};
    tw_load_report report;
    double start = tw_seconds();
    TRY(tw_model_load(run->model, s->original.weights, part, &report));
    tw_log_line(run->log, "%s from %s: %lld tensors in %.1f s", what[part], s->path,
                (long long)report.tensors, tw_seconds() - start);
    if (*report.text) tw_log_warning(run->log, "%s", report.text);
    if (part == TW_PART_IMAGE && report.no_projection)
        tw_log_warning(run->log, "%s has no projection to the space of the features: it starts random",
                       s->path);
    return TW_OK;
}

/* As the original: the temperature of the CLIP that the image tower comes from. */
static tw_status load_logit_scale(const tw_model_source *s, tw_run *run) {
    int64_t i = tw_weights_find(s->original.weights, "logit_scale");
    tw_param *p = tw_params_find(run->model->params, "logit_scale");
    if (i < 0 || !p || tw_weights_at(s->original.weights, i)->count != 1) return TW_OK;
    float value;
    TRY(tw_weights_read_f32(s->original.weights, i, &value, 1));
    tw_log_line(run->log, "logit_scale from %s: %.4f", s->path, (double)value);
    return tw_params_set(run->model->params, p, &value);
}

/* Random weights by the original's rules, but for the spread of the image tower's positions when it is set:
 * at width^-1/2 they are a tenth of what bright patches give, and a short run sees contents long before
 * places. */
static tw_status initialise(tw_run *run) {
    tw_param *positions = tw_params_find(run->model->params, "visual.positional_embedding");
    if (positions && run->config->position_std > 0) positions->init.a = (float)run->config->position_std;
    return tw_params_initialise(run->model->params, (uint64_t)run->config->seed);
}

/* A whole model is trained with its own normalisation, a tower among parts with CLIP's; checkpoints have no
 * place for another one than CLIP's. */
static void warn_of_pixels(const tw_model_source *s, bool whole, tw_run *run) {
    const tw_hf_config *c = &s->hf_config;
    if (!s->has_hf_config || !c->has_image || tw_pixels_are_clips(c->pixel_mean, c->pixel_std)) return;
    tw_log_warning(run->log,
                   "%s normalises pixels otherwise than CLIP (mean %.4f %.4f %.4f, std %.4f %.4f %.4f): %s",
                   s->path, (double)c->pixel_mean[0], (double)c->pixel_mean[1], (double)c->pixel_mean[2],
                   (double)c->pixel_std[0], (double)c->pixel_std[1], (double)c->pixel_std[2],
                   whole ? "training does so too, but whoever opens its checkpoints uses CLIP's"
                         : "training uses CLIP's");
}

tw_status tw_run_start_load(const tw_run_start *start, tw_run *run) {
    if (start->whole) {
        warn_of_pixels(&start->source, true, run);
        return load_part(&start->source, TW_PART_ALL, run);
    }
    if (start->has_image) warn_of_pixels(&start->image, false, run);
    TRY(initialise(run));
    if (start->has_image) {
        TRY(load_part(&start->image, TW_PART_IMAGE, run));
        TRY(load_logit_scale(&start->image, run));
    }
    return start->has_text ? load_part(&start->text, TW_PART_TEXT, run) : TW_OK;
}
