#include "train/comm_open.h"
#include "train/cores.h"
#include "train/data_hash.h"
#include "train/device_open.h"
#include "train/run.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

static tw_status open_device(tw_run *run) {
    const tw_config *c = run->config;
    TRY(tw_comm_open_device(c->device, (int)c->threads, (double)c->rank_timeout, &run->device, &run->comm));
    tw_device_allow_tf32(run->device,
                         c->tf32 == TW_CONFIG_TF32_TRUE ||
                             (c->tf32 == TW_CONFIG_TF32_AUTO && c->precision == TW_CONFIG_PRECISION_BF16));
    tw_device_set_deterministic(run->device, c->deterministic);
    return TW_OK;
}

static tw_status name_run(tw_run *run) {
    const tw_config *c = run->config;
    TRY(tw_config_require(c, "train_data"));
    TRY(tw_config_require(c, "output"));
    if (*c->stop_file)
        snprintf(run->stop_file, sizeof run->stop_file, "%s", c->stop_file);
    else
        snprintf(run->stop_file, sizeof run->stop_file, "%s/stop", c->output);
    const char *slash = strrchr(c->output, '/');
    run->name = *c->name ? c->name : slash && slash[1] ? slash + 1 : c->output;
    return TW_OK;
}

static tw_status open_data(tw_run *run) {
    const tw_config *c = run->config;
    TRY(tw_dataset_open(c->train_data, &run->train));
    if (tw_dataset_pairs(run->train) == 0)
        return FAIL(TW_ERR_FORMAT, "%s: the split has no pairs to train on", c->train_data);
    tw_log_line(run->log, "training data: %s, %lld pairs, %lld images", c->train_data,
                (long long)tw_dataset_pairs(run->train), (long long)tw_dataset_images(run->train));
    TRY(tw_data_hash_pairs(run->train, &run->train_hash));
    if (!*c->val_data) return TW_OK;
    TRY(tw_dataset_open(c->val_data, &run->val));
    TRY(tw_pool_load(run->val, c->val_texts, &run->pool));
    if (run->pool->unknown_images)
        tw_log_warning(run->log, "%s: %lld images named by texts are not in the split (%s)", c->val_data,
                       (long long)run->pool->unknown_images, run->pool->first_unknown);
    tw_log_line(run->log, "validation pool: %s, %lld texts, %lld images", c->val_data,
                (long long)run->pool->n_texts, (long long)run->pool->n_images);
    return TW_OK;
}

/* The model's description, with what the configuration changes in it. */
static tw_status describe_model(tw_run *run, const tw_run_start *start, tw_model_config *out) {
    const tw_config *config = run->config;
    TRY(tw_run_start_config(start, config, out));
    int entries = tw_vocab_size(run->vocab);
    if (out->text.vocabulary == 0) out->text.vocabulary = entries;
    if (out->text.vocabulary != entries)
        return FAIL(TW_ERR_CONFIG,
                    "the vocabulary %s has %d entries, model %s needs %d: give the model's own with --vocab",
                    tw_vocab_origin(run->vocab), entries, out->name, out->text.vocabulary);
    out->text.padding_id = tw_vocab_pad(run->vocab);
    if (start->resume && config->resolution && config->resolution != out->image.resolution)
        return FAIL(
            TW_ERR_CONFIG,
            "resolution is %lld, and the run to go on with has %d: a run goes on with its own; --init "
            "starts another one from its weights",
            (long long)config->resolution, out->image.resolution);
    if (config->resolution) out->image.resolution = (int)config->resolution;
    if (config->origin[TW_CONFIG_KEY_context_length]) out->context = (int)config->context_length;
    out->image.mask_ratio = config->mask_ratio;
    out->text.hidden_dropout = (float)config->text_dropout;
    out->text.attention_dropout = (float)config->attention_dropout;
    return TW_OK;
}

static tw_status freeze(tw_run *run) {
    const tw_string_list *patterns = &run->config->freeze;
    for (size_t i = 0; i < patterns->count; i++) {
        int matched;
        TRY(tw_params_freeze(run->model->params, patterns->items[i], &matched));
        if (matched == 0)
            return FAIL(TW_ERR_CONFIG, "freeze: no parameter matches '%s'; names look like %s",
                        patterns->items[i], tw_params_at(run->model->params, 0)->name);
        tw_log_line(run->log, "frozen by '%s': %d parameters", patterns->items[i], matched);
    }
    int statistics;
    if (run->config->batch_norm == TW_CONFIG_BATCH_NORM_FROZEN)
        TRY(tw_params_freeze(run->model->params, "visual.*.running_*", &statistics));
    return TW_OK;
}

static bool is_sharded(const tw_run *run) {
    return run->config->shard_optimizer != TW_CONFIG_SHARD_OPTIMIZER_FALSE;
}

/* The weights' memory, of which a rank keeps its share of what only the optimizer reads. */
static tw_status allocate(tw_run *run) {
    const tw_config *c = run->config;
    tw_params *params = run->model->params;
    tw_dtype type = c->precision == TW_CONFIG_PRECISION_BF16 ? TW_BF16 : TW_F32;
    TRY(tw_params_lay_out(params, type));
    if (tw_params_trainable(params) == 0) return FAIL(TW_ERR_CONFIG, "freeze: nothing is left to train");
    TRY(tw_partition_create(tw_params_trainable(params), run->comm->rank, run->comm->ranks,
                            c->bucket_mb << 20, &run->partition));
    if (type == TW_BF16 && run->comm->ranks > 1 && is_sharded(run))
        TRY(tw_partition_share(run->partition, params));
    return tw_dual_encoder_allocate(run->model, run->device, type, true);
}

tw_config tw_run_settled(const tw_run *run) {
    tw_config settled = *run->config;
    settled.beta2 = run->adam.beta2;
    settled.eps = run->adam.eps;
    return settled;
}

/* What `auto` stands for: the original's choice by image tower (FACTS §6). A resumed run keeps its own, also
 * one of a build that took the ViT's for every tower. */
static void choose_adam(tw_run *run, const tw_run_start *start) {
    const tw_config *c = run->config;
    bool resnet = run->model->config.image.kind == TW_RESNET;
    tw_config saved = {.beta2 = TW_CONFIG_AUTO, .eps = TW_CONFIG_AUTO};
    const char *yaml = start->resume ? tw_checkpoint_get_meta(start->source.checkpoint)->config_yaml : NULL;
    if (yaml && (tw_config_init(&saved) != TW_OK ||
                 tw_config_parse_yaml(yaml, strlen(yaml), "checkpoint", &saved) != TW_OK))
        saved.beta2 = saved.eps = TW_CONFIG_AUTO; /* of a build with other keys */
    bool kept = saved.beta2 != TW_CONFIG_AUTO || saved.eps != TW_CONFIG_AUTO;
    run->adam.beta2 = c->beta2 != TW_CONFIG_AUTO      ? c->beta2
                      : saved.beta2 != TW_CONFIG_AUTO ? saved.beta2
                      : resnet                        ? 0.999
                                                      : 0.98;
    run->adam.eps = c->eps != TW_CONFIG_AUTO      ? c->eps
                    : saved.eps != TW_CONFIG_AUTO ? saved.eps
                    : resnet                      ? 1e-8
                                                  : 1e-6;
    tw_config_free(&saved);
    bool auto_beta2 = c->beta2 == TW_CONFIG_AUTO, auto_eps = c->eps == TW_CONFIG_AUTO;
    if (auto_beta2 || auto_eps)
        tw_log_line(run->log, "AdamW: beta2 %g%s, eps %g%s; auto: %s", run->adam.beta2,
                    auto_beta2 ? " (auto)" : "", run->adam.eps, auto_eps ? " (auto)" : "",
                    kept     ? "as in the resumed run"
                    : resnet ? "the original's for a ResNet image tower"
                             : "the original's for a ViT image tower");
}

static tw_status make_optimizer(tw_run *run) {
    const tw_config *c = run->config;
    tw_adamw_config config = {.beta1 = (float)c->beta1,
                              .beta2 = (float)run->adam.beta2,
                              .eps = (float)run->adam.eps,
                              .weight_decay = (float)c->weight_decay,
                              .no_decay = (const char *const *)c->no_decay.items,
                              .n_no_decay = (int)c->no_decay.count,
                              .clip = (float)c->grad_clip,
                              .logit_scale_max = (float)c->logit_scale_max};
    return tw_adamw_create_ranks(run->model->params, run->device, run->comm, run->partition, is_sharded(run),
                                 &config, &run->adamw);
}

/* An only rank has all statistics. */
static void synchronise(tw_run *run) {
    bool sync =
        run->model->config.image.kind == TW_RESNET && run->config->batch_norm == TW_CONFIG_BATCH_NORM_SYNC;
    if (sync && run->comm->ranks > 1) tw_resnet_synchronise(&run->model->resnet, run->comm);
}

static tw_status make_model(tw_run *run, const tw_run_start *start) {
    const tw_config *config = run->config;
    TRY(tw_run_start_vocab(start, config, &run->vocab));
    tw_model_config description;
    TRY(describe_model(run, start, &description));
    TRY(tw_dual_encoder_create(&description, &run->model));
    synchronise(run);
    tw_dual_encoder_save(run->model, config->last_block_token, config->pack_text);
    TRY(freeze(run));
    TRY(allocate(run));
    TRY(tw_run_start_load(start, run));
    choose_adam(run, start);
    TRY(make_optimizer(run));
    TRY(tw_run_choose_micro_batch(run,
                                  start->resume ? tw_checkpoint_get_meta(start->source.checkpoint) : NULL));
    TRY(tw_towers_create(run->model, run->device, tw_run_recompute(run), TW_U8, &run->towers));
    TRY(tw_stepper_create(run->model, run->towers, run->device, run->comm, run->partition, run->micro_batch,
                          &run->stepper));
    tw_stepper_heed(run->stepper, tw_run_should_stop, run);
    if (tw_on_cpu(run->device)) return TW_OK;
    TRY(tw_step_results_create(run->device, run->comm->ranks, &run->results));
    tw_stepper_watch(run->stepper, run->results);
    return tw_stepper_capture(run->stepper, config->cuda_graphs && !config->profile);
}

/* The position that a resumed run goes on from, in epochs as the configuration cuts them now. */
static tw_status settle_position(tw_run *run) {
    int64_t pairs = tw_dataset_pairs(run->train), samples = tw_sampler_epoch_samples(run->sampler);
    if (run->position >= pairs && run->position >= samples) /* last_batch pad has more samples than pairs */
        return FAIL(
            TW_ERR_CONFIG,
            "the run to go on with is %lld pairs into an epoch, but %s has only %lld: a run goes on with "
            "its own train_data; --init starts another one from its weights",
            (long long)run->position, run->config->train_data, (long long)pairs);
    if (run->position >= samples) /* last_batch drop leaves the rest out */
        run->position = 0, run->epoch++;
    return TW_OK;
}

/* A resumed run keeps its steps, which may have been of another batch: what is left counts in epochs. */
static int64_t find_total_steps(const tw_run *run) {
    const tw_config *c = run->config;
    int64_t left = c->epochs - run->epoch, rest = tw_sampler_epoch_samples(run->sampler) - run->position;
    if (c->max_steps) return c->max_steps > run->step ? c->max_steps : run->step;
    if (left <= 0) return run->step;
    return run->step + (rest + c->batch - 1) / c->batch + (left - 1) * tw_sampler_epoch_batches(run->sampler);
}

/* Of a resumed run, which would otherwise end without a word. */
static void warn_of_end(const tw_run *run) {
    const tw_config *c = run->config;
    if (run->step < run->total_steps) return;
    if (c->max_steps)
        tw_log_warning(run->log, "nothing is left to train: step %lld is done, and max_steps is %lld",
                       (long long)run->step, (long long)c->max_steps);
    else
        tw_log_warning(run->log, "nothing is left to train: %lld epochs are done, and epochs is %lld",
                       (long long)run->epoch, (long long)c->epochs);
}

static tw_status make_schedule(tw_run *run) {
    static const tw_schedule_kind kinds[] = {[TW_CONFIG_SCHEDULE_COSINE] = TW_SCHEDULE_COSINE,
                                             [TW_CONFIG_SCHEDULE_CONSTANT] = TW_SCHEDULE_CONSTANT,
                                             [TW_CONFIG_SCHEDULE_LINEAR] = TW_SCHEDULE_LINEAR};
    static const tw_last_batch last[] = {[TW_CONFIG_LAST_BATCH_SHORT] = TW_LAST_SHORT,
                                         [TW_CONFIG_LAST_BATCH_DROP] = TW_LAST_DROP,
                                         [TW_CONFIG_LAST_BATCH_PAD] = TW_LAST_PAD};
    const tw_config *c = run->config;
    int64_t pairs = tw_dataset_pairs(run->train);
    if (c->batch > pairs)
        return FAIL(TW_ERR_CONFIG, "batch is %lld, but %s has only %lld pairs: use a batch of at most that",
                    (long long)c->batch, c->train_data, (long long)pairs);
    TRY(tw_sampler_create(pairs, c->batch, last[c->last_batch], (uint64_t)c->seed, &run->sampler));
    TRY(settle_position(run));
    run->total_steps = find_total_steps(run);
    warn_of_end(run);
    run->schedule = (tw_schedule){
        .kind = kinds[c->schedule], .peak = c->lr, .warmup = c->warmup, .total = run->total_steps};
    if (c->warmup >= run->total_steps && run->step < run->total_steps)
        tw_log_warning(
            run->log,
            "warmup (%lld steps) is not shorter than the run (%lld steps): the peak rate is never reached",
            (long long)c->warmup, (long long)run->total_steps);
    return TW_OK;
}

static void report_bad(void *context, const char *message) {
    enum { SHOWN = 20 };
    tw_run *run = context;
    if (run->bad_reported++ < SHOWN)
        tw_log_warning(run->rank_log, "left out: %s%s", message,
                       run->bad_reported == SHOWN ? " (further ones are counted, not shown)" : "");
}

static tw_status open_loader(tw_run *run) {
    const tw_config *c = run->config;
    tw_loader_config config = {.rank = run->comm->rank,
                               .ranks = run->comm->ranks,
                               .threads = (int)c->num_workers,
                               .prefetch = (int)c->prefetch,
                               .resolution = run->model->config.image.resolution,
                               .context = run->model->config.context,
                               .augment = c->use_augment,
                               .policy = {.min_area = c->crop_min_area, .auto_augment = c->auto_augment},
                               .seed = (uint64_t)c->seed,
                               .device = tw_on_cpu(run->device) ? NULL : run->device,
                               .on_bad = report_bad,
                               .on_bad_context = run};
    if (run->comm->rank == 0) TRY(tw_run_open_sample_log(run));
    TRY(tw_exchange_create(run->comm, tw_run_largest_part(run), &run->exchange));
    return tw_loader_open_pairs(&config, run->train, run->vocab, run->sampler, run->epoch, run->position,
                                &run->loader);
}

static void describe(const tw_run *run) {
    const tw_model_config *m = &run->model->config;
    int64_t total = 0, trainable = 0;
    for (int i = 0; i < tw_params_count(run->model->params); i++) {
        const tw_param *p = tw_params_at(run->model->params, i);
        total += p->statistic ? 0 : p->count;
        trainable += tw_param_is_trained(p) ? p->count : 0;
    }
    tw_log_line(run->log, "model %s: %lld parameters, %lld trained; %d px, context %d, %s on %s", m->name,
                (long long)total, (long long)trainable, m->image.resolution, m->context,
                run->model->compute_type == TW_BF16 ? "bf16" : "f32", run->device->name);
    if (m->image.mask_ratio > 0) {
        int side = m->image.resolution / m->image.patch;
        tw_log_line(run->log,
                    "mask_ratio %g: a step sees %d of %d patches of each image, drawn anew each time",
                    m->image.mask_ratio, tw_vit_kept(&m->image), side * side);
    }
    if (!tw_on_cpu(run->device) && tw_device_deterministic(run->device))
        tw_log_line(run->log, "deterministic: %s gives the same bits each time", run->device->name);
    double batch = (double)run->config->batch;
    tw_log_line(run->log, "%lld steps of %lld pairs; chance: loss ln(%lld) = %.4f",
                (long long)run->total_steps, (long long)run->config->batch, (long long)run->config->batch,
                log(batch));
}

static tw_status open_with(tw_run *run, const tw_run_start *start) {
    TRY(open_data(run));
    TRY(make_model(run, start));
    if (start->resume) TRY(tw_run_restore(run, start->source.checkpoint));
    TRY(make_schedule(run));
    describe(run);
    TRY(tw_run_plan_memory(run));
    TRY(tw_run_check_start(run, start));
    return open_loader(run);
}

tw_status tw_run_open(tw_run *run, const tw_config *config) {
    *run = (tw_run){.config = config, .best_r1 = -1, .best_step = -1};
    TRY(name_run(run));
    TRY(open_device(run));
    TRY(tw_run_open_log(run));
    TRY(tw_run_check_options(run));
    TRY(tw_cores_report(run->comm, config->threads == 0, run->log));
    tw_run_start start;
    tw_status status = tw_run_start_open(run, &start);
    if (status == TW_OK) status = open_with(run, &start);
    tw_run_start_close(&start);
    return status;
}

tw_status tw_run_close(tw_run *run) {
    tw_checkpoint_writer_free(run->saving.writer); /* first: it names the model's parameters */
    tw_comm_free(run->comm); /* before what a run that fails in mid-step still sends and receives */
    if (run->device) run->device->pinned_release(run->device, run->saving.room);
    if (run->stepper && tw_stepper_wait_inputs(run->stepper) != TW_OK)
        tw_log_warning(run->rank_log, "%s", tw_last_error()); /* of a run that has failed before */
    tw_loader_close(run->loader);
    tw_exchange_free(run->exchange);
    for (int i = 0; i < TW_RUN_SAMPLES; i++) tw_run_drop_samples(&run->samples[i]);
    tw_sampler_free(run->sampler);
    tw_stepper_free(run->stepper);
    tw_step_results_free(run->results);
    tw_op_timer_free(run->timer);
    tw_towers_free(run->towers);
    tw_adamw_free(run->adamw);
    tw_partition_free(run->partition);
    tw_dual_encoder_free(run->model);
    tw_vocab_free(run->vocab);
    tw_pool_free(run->pool);
    tw_dataset_close(run->val);
    tw_dataset_close(run->train);
    tw_device_free(run->device);
    tw_history_free(&run->history);
    free(run->val_image);
    free(run->val_text);
    bool failed = run->sample_log && fclose(run->sample_log) != 0;
    TRY(tw_log_close(run->rank_log));
    return failed ? FAIL(TW_ERR_IO, "sample_log %s: %s", run->config->sample_log, strerror(errno)) : TW_OK;
}
