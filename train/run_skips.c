/* Steps whose gradient is not finite: they change nothing but the position in the data, and the log says
 * where it came from. */
#include "train/run.h"

#include <math.h>
#include <stdlib.h>

/* ---- the samples of the last steps: of a device's steps the host hears late ---- */

tw_status tw_run_keep_samples(tw_run *run, const tw_global_batch *batch) {
    tw_run_samples *s = &run->samples[run->step % TW_RUN_SAMPLES];
    size_t items = (size_t)batch->size * sizeof *s->items, ranks = (size_t)run->comm->ranks;
    if (batch->size > s->capacity || !s->first) {
        tw_run_drop_samples(s);
        s->items = malloc(items + 1);
        s->first = calloc(ranks, sizeof *s->first);
        if (!s->items || !s->first)
            return FAIL(TW_ERR_MEMORY, "out of memory: the numbers of a batch's pairs");
        s->capacity = batch->size;
    }
    memcpy(s->items, batch->items, items);
    memcpy(s->first, batch->first, ranks * sizeof *s->first);
    s->step = run->step;
    s->size = batch->size;
    return TW_OK;
}

void tw_run_drop_samples(tw_run_samples *s) {
    free(s->items);
    free(s->first);
    *s = (tw_run_samples){0};
}

/* ---- where it came from ---- */

static void say_features(const tw_run *run, const tw_contrastive_result *loss, int64_t step, char *text,
                         size_t size) {
    const tw_run_samples *s = &run->samples[step % TW_RUN_SAMPLES];
    int ranks = run->comm->ranks, others = loss->bad_ranks - 1;
    char place[64] = "", more[64] = "", name[48] = "a pair";
    int64_t at = s->first ? s->first[loss->bad_rank] + loss->bad_pair : -1;
    if (s->step == step && at >= 0 && at < s->size)
        snprintf(name, sizeof name, "pair %lld", (long long)s->items[at]);
    if (ranks > 1) snprintf(place, sizeof place, ", on rank %d", loss->bad_rank);
    if (run->micro_batch > 0 && run->micro_batch < tw_run_largest_part(run))
        snprintf(place + strlen(place), sizeof place - strlen(place), ", micro-batch %lld",
                 (long long)(loss->bad_pair / run->micro_batch) + 1);
    if (others > 0 && loss->bad_ranks == ranks)
        snprintf(more, sizeof more, "; every rank has such: the weights may be the cause");
    else if (others > 0)
        snprintf(more, sizeof more, "; %d more rank%s such", others, others > 1 ? "s have" : " has");
    snprintf(text, size, "the features of %s%s%s are not finite%s", name, place, *place ? "," : "", more);
}

/* What of a step that is skipped is known beyond the parameter; "" for nothing. */
static tw_status find_cause(const tw_run *run, const tw_contrastive_result *loss, int64_t step, char *text,
                            size_t size) {
    float scale;
    TRY(tw_params_get(run->model->params, run->model->logit_scale, &scale));
    *text = '\0';
    if (!isfinite(exp((double)scale)))
        snprintf(text, size, ": logit_scale is %g", (double)scale);
    else if (loss->bad_ranks > 0)
        say_features(run, loss, step, text + snprintf(text, size, ": "), size - 2);
    else if (!isfinite(loss->loss))
        snprintf(text, size, ": the loss is not finite, though all features are");
    return TW_OK;
}

/* Which rank's. A loss that is not finite spoils the gradient of every rank: then the one counts whose
 * features it came from. */
static void say_ranks(const tw_run *run, const tw_gradient_report *report, const tw_contrastive_result *loss,
                      char *text, size_t size) {
    bool known = loss->bad_ranks > 0;
    int rank = known ? loss->bad_rank : report->rank, bad = known ? loss->bad_ranks : report->ranks;
    *text = '\0';
    if (run->comm->ranks == 1 || rank < 0) return;
    if (bad == 1)
        snprintf(text, size, " on rank %d", rank);
    else
        snprintf(text, size, " on rank %d and %d more", rank, bad - 1);
}

tw_status tw_run_watch_skips(tw_run *run, const tw_gradient_report *report, const tw_contrastive_result *loss,
                             int64_t step) {
    char on[48], cause[256];
    if (!report->offender) {
        run->skipped_in_row = 0;
        return TW_OK;
    }
    run->skipped_in_row++;
    run->skipped_total++;
    say_ranks(run, report, loss, on, sizeof on);
    TRY(find_cause(run, loss, step, cause, sizeof cause));
    tw_log_warning(run->log,
                   "step %lld skipped: the gradient of %s%s is not finite (%lld in a row, %lld in all)%s",
                   (long long)step + 1, report->offender, on, (long long)run->skipped_in_row,
                   (long long)run->skipped_total, cause);
    if (run->skipped_in_row < run->config->max_skipped) return TW_OK;
    return FAIL(
        TW_ERR_NUMERIC,
        "%lld steps in a row had a gradient that is not finite, last in %s%s at step %lld%s. Lower lr, "
        "set grad_clip, or use precision f32",
        (long long)run->skipped_in_row, report->offender, on, (long long)step + 1, cause);
}

tw_status tw_run_watch_empty(tw_run *run, int64_t pairs) {
    run->empty_in_row = pairs > 0 ? 0 : run->empty_in_row + 1;
    if (run->empty_in_row < run->config->max_skipped) return TW_OK;
    return FAIL(
        TW_ERR_FORMAT,
        "%s: not one pair of %lld steps in a row could be used, up to step %lld: the warnings above say "
        "why each was left out; prepare the data set anew",
        run->config->train_data, (long long)run->empty_in_row, (long long)run->step + 1);
}
