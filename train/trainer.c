#include "train/trainer.h"

#include "autograd/progress.h"
#include "train/comm_open.h"
#include "train/device_open.h"
#include "train/run.h"
#include "train/signals.h"

#include <math.h>
#include <stdlib.h>

static int compare_hashes(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* How many of n hashes are equal to another. */
static int64_t count_repeats(const uint64_t *hashes, int64_t n, uint64_t *sorted) {
    memcpy(sorted, hashes, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, compare_hashes);
    int64_t repeated = 0;
    for (int64_t i = 0; i < n; i++)
        repeated += (i > 0 && sorted[i] == sorted[i - 1]) || (i + 1 < n && sorted[i] == sorted[i + 1]);
    return repeated;
}

/* In-batch repeats are negatives of each other although they match: worth a warning once their rate is known.
 */
static tw_status watch_repeats(tw_run *run, const tw_global_batch *batch) {
    uint64_t *sorted = malloc((size_t)batch->size * sizeof *sorted + 1);
    if (!sorted) return FAIL(TW_ERR_MEMORY, "out of memory");
    int64_t images = count_repeats(batch->image_hash, batch->size, sorted);
    int64_t texts = count_repeats(batch->text_hash, batch->size, sorted);
    free(sorted);
    run->window.repeated += images > texts ? images : texts;
    return TW_OK;
}

/* Where the host sees at once what a step did. */
static tw_status update(tw_run *run, int64_t global, double lr) {
    tw_gradient_report report;
    TRY(tw_adamw_inspect(run->adamw, &report));
    run->last = tw_stepper_result(run->stepper);
    TRY(tw_run_watch_skips(run, &report, &run->last, run->step));
    run->window.norm = report.norm;
    return global > 0 ? tw_adamw_step(run->adamw, &report, lr, tw_stepper_record(run->stepper)) : TW_OK;
}

/* What finished steps left on a device that works behind the host's back: `all`, or all but the last one's.
 */
static tw_status collect(tw_run *run, bool all) {
    while (run->results) {
        tw_step_result r;
        tw_gradient_report report;
        bool taken;
        TRY(tw_step_results_take(run->results, all, &r, &taken));
        if (!taken) return TW_OK;
        TRY(tw_adamw_collect(run->adamw, &r.found, &report));
        run->loss = r.loss.loss;
        run->last = r.loss;
        run->window.norm = report.norm;
        run->window.waited += r.waited;
        TRY(tw_run_watch_skips(run, &report, &r.loss, r.step));
    }
    return TW_OK;
}

static tw_status queue_adamw(void *context) {
    const tw_run *run = context;
    return tw_adamw_queue(run->adamw, tw_stepper_record(run->stepper));
}

/* As soon as it is known, and once. */
static void tell_choices(tw_run *run) {
    char text[256];
    while (tw_device_choice(run->device, run->choices_told, text, sizeof text)) {
        run->choices_told++;
        tw_log_line(run->log, "measured on %s: %s", run->device->name, text);
    }
}

static tw_status queue_update(tw_run *run, int64_t global) {
    tw_graphs *graphs = tw_stepper_graphs(run->stepper);
    if (global == 0) return TW_OK;
    TRY(run->comm->ranks > 1 ? queue_adamw(run)
                             : tw_graphs_run(graphs, 0, TW_GRAPH_OPTIMIZER, queue_adamw, run));
    TRY(tw_step_results_end(run->results, run->step, global, tw_stepper_tallies(run->stepper),
                            tw_adamw_found(run->adamw)));
    const char *trouble = tw_graphs_trouble(graphs);
    if (trouble) tw_log_warning(run->log, "a part of the step is not captured as a CUDA graph: %s", trouble);
    tell_choices(run);
    const char *slow = tw_device_trouble(run->device);
    if (slow) tw_log_warning(run->log, "%s", slow);
    return collect(run, run->config->profile);
}

/* The gradient of this rank's samples into the step of all. */
static tw_status compute(tw_run *run, const tw_batch *batch, int64_t *global) {
    tw_samples samples = {batch->size, batch->pixels, batch->ids, batch->lengths};
    double lr = tw_schedule_rate(&run->schedule, run->step);
    tw_stepper_set_rate(run->stepper, lr);
    TRY(tw_stepper_run(run->stepper, &samples, (uint64_t)run->config->seed, run->step,
                       run->results ? NULL : &run->loss, global));
    tw_stepper_times times = tw_stepper_last_times(run->stepper);
    tw_profile_lap_step(&run->profile, &times);
    TRY(run->results ? queue_update(run, *global) : update(run, *global, lr));
    if (run->timer) TRY(tw_op_timer_collect(run->timer)); /* waits for the device */
    tw_profile_lap(&run->profile, TW_PROFILE_OPTIMIZER);
    return TW_OK;
}

/* For who watches over this rank. A device captures what repeats at the second step, and launches it from the
 * third on, when the host only sees how long a whole step takes. */
static void tell_progress(const tw_run *run, double seconds) {
    if (run->results) tw_progress_queued(seconds);
    if (run->profile.steps != (run->results ? 2 : 0)) return;
    tw_progress_settle();
    tw_progress_first(false); /* of train */
}

/* TW_ERR_INTERRUPTED, on all ranks: one was asked to stop, and the step was not begun, or dropped. */
static tw_status one_step(tw_run *run) {
    double start = tw_seconds();
    bool asked = tw_run_should_stop(run);
    tw_batch batch;
    tw_global_batch all;
    int64_t global;
    tw_profile_lap(&run->profile, TW_PROFILE_OTHER);
    TRY(tw_stepper_wait_inputs(run->stepper)); /* the last batch's memory is the loader's again */
    TRY(tw_loader_next(run->loader, &batch));
    tw_profile_lap(&run->profile, TW_PROFILE_DATA);
    TRY(tw_exchange_batch(run->exchange, &batch, asked, &all));
    tw_profile_lap(&run->profile, TW_PROFILE_BATCH);
    if (all.stop) return FAIL(TW_ERR_INTERRUPTED, "no step was under way");
    TRY(tw_run_log_samples(run, &all)); /* of a step that is dropped too: a resumed run writes it again */
    TRY(tw_run_keep_samples(run, &all));
    TRY(watch_repeats(run, &all));
    double agreed = tw_seconds(); /* what the others kept this rank waiting for is not its work */
    TRY(compute(run, &batch, &global));
    TRY(tw_run_watch_empty(run, global));
    tell_progress(run, tw_seconds() - agreed);
    run->step++;
    run->profile.steps++;
    run->position = batch.position - batch.first + batch.global;
    run->epoch = batch.epoch;
    if (run->position >= tw_sampler_epoch_samples(run->sampler)) run->position = 0, run->epoch++;
    double seconds = tw_seconds() - start;
    run->window.steps++;
    run->window.pairs += global;
    run->window.truncated += all.truncated;
    run->window.waited += run->results ? 0 : all.waited;
    run->window.seconds += seconds;
    run->history.train_seconds += seconds;
    run->history.pairs += global;
    run->history.bad_images += all.bad;
    return TW_OK;
}

static void warn_of_repeats(tw_run *run) {
    double rate = run->window.pairs ? 100.0 * (double)run->window.repeated / (double)run->window.pairs : 0;
    if (run->repeats_warned || rate < 1.0) return;
    run->repeats_warned = true;
    tw_log_warning(
        run->log,
        "%.1f %% of the pairs share their text or image with another pair of their batch: those count as "
        "negatives of each other",
        rate);
}

/* JSON has no NaN: null stands for a number that is not finite. */
static json_t *real_or_null(double x) {
    return isfinite(x) ? json_real(x) : json_null();
}

static tw_status log_point(tw_run *run, const tw_report_point *p) {
    const tw_config *c = run->config;
    double steps = (double)run->window.steps, samples = (double)tw_sampler_epoch_samples(run->sampler);
    int64_t seen = run->position ? run->position : (int64_t)samples,
            epoch = run->epoch + (run->position ? 1 : 0);
    double data = run->window.waited / steps, batch = run->window.seconds / steps;
    double i2t = run->last.image_to_text, t2i = run->last.text_to_image;
    char cut[64] = ""; /* the line is the original's but for this */
    if (run->window.truncated)
        snprintf(cut, sizeof cut, " | Texts Cut: %lld", (long long)run->window.truncated);
    tw_log_line(run->log,
                "Global Steps: %lld/%lld | Train Epoch: %lld [%lld/%lld (%.0f%%)] | Loss: %.6f | "
                "Image2Text Acc: %.2f | Text2Image Acc: %.2f | Data Time: %.3fs | Batch Time: %.3fs | LR: "
                "%.6e | logit_scale: %.3f | Grad Norm: %.3f | Global Batch Size: %lld%s",
                (long long)run->step, (long long)run->total_steps, (long long)epoch, (long long)seen,
                (long long)samples, 100.0 * (double)seen / samples, p->loss, 100.0 * i2t, 100.0 * t2i, data,
                batch, p->lr, p->logit_scale, p->grad_norm, (long long)c->batch, cut);
    json_t *o = json_pack("{s:s,s:I,s:f,s:o,s:f,s:f,s:f,s:f,s:o,s:f,s:f,s:f,s:I,s:I}", "event", "step",
                          "step", (json_int_t)run->step, "epoch", p->epoch, "loss", real_or_null(p->loss),
                          "image2text_acc", 100.0 * i2t, "text2image_acc", 100.0 * t2i, "lr", p->lr,
                          "logit_scale", p->logit_scale, "grad_norm", real_or_null(p->grad_norm), "data_time",
                          data, "batch_time", batch, "pairs_per_s", p->pairs_per_s, "skipped",
                          (json_int_t)run->skipped_total, "truncated", (json_int_t)run->window.truncated);
    tw_status status = tw_log_record(run->log, o);
    json_decref(o);
    return status;
}

static tw_status make_point(tw_run *run) {
    float scale;
    TRY(tw_params_get(run->model->params, run->model->logit_scale, &scale));
    double samples = (double)tw_sampler_epoch_samples(run->sampler);
    tw_report_point p = {.step = run->step,
                         .epoch = (double)run->epoch + (double)run->position / samples,
                         .loss = run->loss,
                         .lr = tw_schedule_rate(&run->schedule, run->step - 1),
                         .logit_scale = exp((double)scale),
                         .grad_norm = run->window.norm,
                         .pairs_per_s = (double)run->window.pairs / run->window.seconds};
    TRY(log_point(run, &p));
    warn_of_repeats(run);
    memset(&run->window, 0, sizeof run->window);
    return tw_history_add_point(&run->history, &p);
}

static bool due(const tw_run *run, int64_t steps_between, int64_t epochs_between) {
    if (run->step == run->total_steps) return true;
    if (steps_between) return run->step % steps_between == 0;
    return epochs_between && run->position == 0 && run->epoch % epochs_between == 0;
}

static tw_status validate(tw_run *run, bool *best) {
    tw_profile_lap(&run->profile, TW_PROFILE_OTHER);
    TRY(tw_run_validate(run, best));
    tw_profile_lap(&run->profile, TW_PROFILE_VALIDATION);
    return TW_OK;
}

static tw_status save(tw_run *run, bool best) {
    tw_profile_lap(&run->profile, TW_PROFILE_OTHER);
    tw_progress_begin("saving a checkpoint");
    TRY(tw_run_save(run, best));
    if (run->step == run->total_steps) TRY(tw_run_save_finish(run));
    tw_profile_lap(&run->profile, TW_PROFILE_SAVE);
    return TW_OK;
}

/* Everything up to this step is known, and the device is free for other work. */
static tw_status catch_up(tw_run *run) {
    if (!run->results) return TW_OK;
    double start = tw_seconds(), seconds;
    TRY(collect(run, true));
    tw_step_results_pause(run->results);
    seconds = tw_seconds() - start;
    run->window.seconds += seconds; /* the steps' own, which the host had not waited for */
    run->history.train_seconds += seconds;
    return TW_OK;
}

/* Whether the configuration wants the model of this step validated, and it was not: a run that was stopped
 * meanwhile makes up for it when it goes on. */
static bool owes_validation(const tw_run *run) {
    const tw_config *c = run->config;
    if (!run->pool || !(run->step == 0 ? c->val_at_start : due(run, c->val_interval, 1))) return false;
    for (size_t i = 0; i < run->history.n_validations; i++)
        if (run->history.validations[i].step == run->step) return false;
    return true;
}

/* Validates and saves where the configuration says so; a best model is always saved. */
static tw_status validate_and_save(tw_run *run) {
    const tw_config *c = run->config;
    bool best = false, validates = owes_validation(run);
    bool saves = run->step > 0 && due(run, c->save_interval, c->save_epochs);
    if (validates || saves) TRY(catch_up(run));
    if (validates) TRY(validate(run, &best));
    return best || saves ? save(run, best) : TW_OK;
}

static tw_status after_step(tw_run *run) {
    const tw_config *c = run->config;
    bool logs = run->step % c->log_interval == 0 || run->step == run->total_steps;
    if (logs) TRY(catch_up(run));
    TRY(tw_run_save_look(run));
    if (logs) TRY(make_point(run));
    tw_log_progress(run->log, run->step, run->total_steps, "loss %.4f", run->loss);
    return validate_and_save(run);
}

/* Called with the message of TW_ERR_INTERRUPTED, which says what was under way. */
static tw_status stop(tw_run *run) {
    char meanwhile[256];
    snprintf(meanwhile, sizeof meanwhile, "%s", tw_last_error());
    TRY(catch_up(run));
    tw_log_line(run->log, "asked to stop by %s (%s): saving step %lld", tw_stop_reason(), meanwhile,
                (long long)run->step);
    TRY(tw_run_save(run, false));
    TRY(tw_run_save_finish(run));
    if (run->comm->rank == 0) TRY(tw_stop_file_remove(run->stop_file));
    return FAIL(TW_ERR_INTERRUPTED, "stopped by %s after step %lld of %lld; go on with --resume latest",
                tw_stop_reason(), (long long)run->step, (long long)run->total_steps);
}

static tw_status conclude(const tw_run *run) {
    const tw_history *h = &run->history;
    tw_log_line(run->log,
                "trained %lld pairs in %.1f s (%.1f pairs/s); %lld steps skipped, %lld bad samples left out",
                (long long)h->pairs, h->train_seconds,
                h->train_seconds > 0 ? (double)h->pairs / h->train_seconds : 0.0,
                (long long)run->skipped_total, (long long)h->bad_images);
    json_t *end = json_pack("{s:s,s:I,s:f,s:I,s:I,s:I}", "event", "end", "step", (json_int_t)run->step,
                            "train_seconds", h->train_seconds, "pairs", (json_int_t)h->pairs, "skipped",
                            (json_int_t)run->skipped_total, "bad_samples", (json_int_t)h->bad_images);
    tw_status status = tw_log_record(run->log, end);
    json_decref(end);
    if (status != TW_OK || h->n_validations < 2 || h->validations[0].step != 0) return status;
    const tw_report_validation *before = &h->validations[0], *after = &h->validations[h->n_validations - 1];
    if (after->t2i.r1 < before->t2i.r1 || after->i2t.r1 < before->i2t.r1)
        tw_log_warning(
            run->log,
            "the model is worse than before the first step: text-to-image R@1 %.2f, was %.2f; image-to-text "
            "%.2f, was %.2f. A larger batch (micro_batch keeps memory small) or a lower lr may help",
            after->t2i.r1, before->t2i.r1, after->i2t.r1, before->i2t.r1);
    return TW_OK;
}

/* TW_ERR_INTERRUPTED: asked to stop. */
static tw_status take_steps(tw_run *run) {
    if (owes_validation(run)) TRY(validate_and_save(run));
    while (run->step < run->total_steps) {
        TRY(one_step(run));
        TRY(after_step(run));
    }
    return TW_OK;
}

/* A request that came too late must not stop the next run in this folder. */
static void forget_stop_file(const tw_run *run) {
    if (run->comm->rank == 0 && tw_stop_file_remove(run->stop_file) != TW_OK)
        tw_log_warning(run->log, "%s", tw_last_error());
}

static tw_status train(tw_run *run) {
    tw_stepper_profile(run->stepper, run->config->profile);
    if (run->config->profile) TRY(tw_op_timer_create(run->device, &run->timer));
    tw_profile_begin(&run->profile);
    tw_progress_first(true); /* a validation may come before the first step */
    tw_status status = take_steps(run);
    if (status == TW_ERR_INTERRUPTED) return stop(run);
    TRY(status);
    TRY(tw_run_save_finish(run)); /* of a run that had no step left */
    forget_stop_file(run);
    TRY(tw_run_show_profile(run));
    TRY(conclude(run));
    return run->config->report && run->comm->rank == 0 ? tw_run_write_report(run) : TW_OK;
}

/* A checkpoint that is being written when a run fails is finished first, as long as the others do not end
 * this process; the first error stays. */
static void finish_after(tw_run *run, tw_status status) {
    char message[1024];
    if (status == TW_OK) return;
    snprintf(message, sizeof message, "%s", tw_last_error());
    tw_status later = tw_run_save_finish(run);
    if (later != TW_OK) later = FAIL(status, "%s", message);
}

tw_status tw_train(const tw_config *config) {
    tw_run run;
    TRY(tw_signals_install());
    tw_status status = tw_run_open(&run, config);
    if (status == TW_OK) status = train(&run);
    finish_after(&run, status);
    if (run.comm) status = tw_comm_fail(run.comm, status); /* the other ranks do not go on without this one */
    char message[1024]; /* closing may fail too; the first error is the one to tell */
    snprintf(message, sizeof message, "%s", tw_last_error());
    tw_status closed = tw_run_close(&run);
    return status != TW_OK ? FAIL(status, "%s", message) : closed;
}
