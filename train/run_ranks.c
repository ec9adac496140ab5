/* What is different when a run has several ranks: who writes the log, and that all start alike. */
#include "train/params_hash.h"
#include "train/run.h"

#include <stdlib.h>

tw_status tw_run_open_log(tw_run *run) {
    const tw_config *c = run->config;
    tw_log_options options = {.run_dir = c->output, .console = stdout};
    char prefix[32];
    if (run->comm->rank == 0) {
        TRY(tw_log_open(&options, &run->log));
        run->rank_log = run->log;
        return TW_OK;
    }
    snprintf(prefix, sizeof prefix, "rank %d: ", run->comm->rank);
    return tw_log_open(&(tw_log_options){.console = stderr, .prefix = prefix}, &run->rank_log);
}

/* What must be the same on every rank before the first step. */
typedef struct start {
    uint64_t weights;
    int64_t pairs, pool_texts, pool_images;
    int64_t step, epoch, position, adam_steps, total_steps;
} start;

static const char *difference(const start *a, const start *b) {
    if (a->pairs != b->pairs || a->pool_texts != b->pool_texts || a->pool_images != b->pool_images)
        return "the data set: is train_data or val_data another one there?";
    if (a->step != b->step || a->epoch != b->epoch || a->position != b->position ||
        a->adam_steps != b->adam_steps || a->total_steps != b->total_steps)
        return "the position in the run: did the ranks find different checkpoints, or get other options?";
    return a->weights != b->weights ? "the weights: is it another file that they start from there?" : NULL;
}

tw_status tw_run_check_start(const tw_run *run) {
    tw_comm *c = run->comm;
    start mine = {.pairs = tw_dataset_pairs(run->train),
                  .pool_texts = run->pool ? run->pool->n_texts : 0,
                  .pool_images = run->pool ? run->pool->n_images : 0,
                  .step = run->step,
                  .epoch = run->epoch,
                  .position = run->position,
                  .adam_steps = tw_adamw_steps(run->adamw),
                  .total_steps = run->total_steps};
    if (c->ranks == 1) return TW_OK;
    TRY(tw_params_hash(run->model->params, &mine.weights));
    start *all = calloc((size_t)c->ranks, sizeof *all);
    if (!all) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = c->gather_all(c, &mine, sizeof mine, all);
    for (int r = 1; status == TW_OK && r < c->ranks; r++) {
        const char *what = difference(&all[r], &all[0]);
        if (what) status = FAIL(TW_ERR_FORMAT, "rank %d differs from rank 0 in %s", r, what);
    }
    free(all);
    if (status == TW_OK)
        tw_log_line(run->log, "%d ranks start from the same weights (%016llx)", c->ranks,
                    (unsigned long long)mine.weights);
    return status;
}
