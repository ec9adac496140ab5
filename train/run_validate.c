#include "autograd/progress.h"
#include "train/encode.h"
#include "train/recall.h"
#include "train/run.h"

#include <stdlib.h>

static void report_bad(void *context, const char *message) {
    tw_run *run = context;
    tw_log_warning(run->rank_log, "validation: %s", message);
}

static tw_status allocate(tw_run *run) {
    size_t row = (size_t)run->model->config.embed * sizeof(float);
    if (run->comm->rank != 0) return TW_OK;
    if (!run->val_image) run->val_image = malloc((size_t)run->pool->n_images * row);
    if (!run->val_text) run->val_text = malloc((size_t)run->pool->n_texts * row);
    return run->val_image && run->val_text
               ? TW_OK
               : FAIL(TW_ERR_MEMORY, "out of memory: features of the validation pool");
}

static tw_status encode(tw_run *run, int64_t *truncated) {
    const tw_config *c = run->config;
    tw_encode_options options = {.comm = run->comm,
                                 .batch = c->val_batch,
                                 .threads = (int)c->num_workers,
                                 .prefetch = (int)c->prefetch,
                                 .on_bad = report_bad,
                                 .should_stop = tw_run_should_stop,
                                 .context = run};
    int64_t bad, n = run->pool->n_texts;
    TRY(tw_encode_all_images(run->towers, run->model, run->val, &options, run->val_image, NULL, &bad));
    if (bad)
        tw_log_warning(run->log, "validation: %lld of %lld images are bad and count as never found",
                       (long long)bad, (long long)run->pool->n_images);
    tw_text *texts = malloc((size_t)n * sizeof *texts);
    if (!texts) return FAIL(TW_ERR_MEMORY, "out of memory");
    for (int64_t i = 0; i < n; i++) texts[i] = (tw_text){run->pool->texts[i].text, run->pool->texts[i].bytes};
    tw_status status =
        tw_encode_texts(run->towers, run->model, run->vocab, texts, n, &options, run->val_text, truncated);
    free(texts);
    return status;
}

static tw_status record(tw_run *run, const tw_report_validation *v, int64_t truncated, double seconds) {
    char cut[64] = "";
    TRY(tw_history_add_validation(&run->history, v));
    if (truncated)
        snprintf(cut, sizeof cut, " (%lld cut to %d tokens)", (long long)truncated,
                 run->model->config.context);
    tw_log_line(run->log,
                "Validation at step %lld | text-to-image R@1 %.2f R@5 %.2f R@10 %.2f mean %.2f | "
                "image-to-text R@1 %.2f "
                "R@5 %.2f R@10 %.2f mean %.2f | %lld texts%s, %lld images | %.1f s",
                (long long)v->step, v->t2i.r1, v->t2i.r5, v->t2i.r10, v->t2i.mean, v->i2t.r1, v->i2t.r5,
                v->i2t.r10, v->i2t.mean, (long long)v->n_text, cut, (long long)v->n_image, seconds);
    json_t *o =
        json_pack("{s:s,s:I,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:I,s:I,s:I,s:f}", "event", "validation", "step",
                  (json_int_t)v->step, "t2i_r1", v->t2i.r1, "t2i_r5", v->t2i.r5, "t2i_r10", v->t2i.r10,
                  "t2i_mean", v->t2i.mean, "i2t_r1", v->i2t.r1, "i2t_r5", v->i2t.r5, "i2t_r10", v->i2t.r10,
                  "i2t_mean", v->i2t.mean, "texts", (json_int_t)v->n_text, "truncated", (json_int_t)truncated,
                  "images", (json_int_t)v->n_image, "seconds", seconds);
    tw_status status = tw_log_record(run->log, o);
    json_decref(o);
    return status;
}

tw_status tw_run_validate(tw_run *run, bool *is_best) {
    *is_best = false;
    double start = tw_seconds();
    TRY(allocate(run));
    int64_t truncated = 0;
    TRY(encode(run, &truncated));
    tw_progress_begin("scoring the validation set");
    tw_recall found[2] = {0}, t2i, i2t;
    if (run->comm->rank == 0)
        TRY(tw_recall_pool(run->device, run->pool, run->val_image, run->val_text, run->model->config.embed,
                           &found[0], &found[1]));
    TRY(run->comm->broadcast(run->comm, found, sizeof found, 0));
    t2i = found[0], i2t = found[1];
    run->validated = true;
    tw_report_validation v = {.step = run->step,
                              .t2i = {t2i.r1, t2i.r5, t2i.r10, t2i.mean},
                              .i2t = {i2t.r1, i2t.r5, i2t.r10, i2t.mean},
                              .n_text = run->pool->n_texts,
                              .n_image = run->pool->n_images};
    TRY(record(run, &v, truncated, tw_seconds() - start));
    /* `best` is the best of what training made: the start is not a checkpoint of this run. */
    *is_best = run->step > 0 && t2i.r1 > run->best_r1;
    if (*is_best) run->best_r1 = t2i.r1, run->best_step = run->step;
    return TW_OK;
}
