/* What is different when a run has several ranks: who writes the log and looks for the stop file, and that
 * all start alike. */
#include "train/data_hash.h"
#include "train/formats/seal.h"
#include "train/formats/xxhash64.h"
#include "train/model_file.h"
#include "train/params_hash.h"
#include "train/run.h"
#include "train/signals.h"

#include <stdlib.h>
#include <string.h>

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

bool tw_run_should_stop(void *context) {
    const tw_run *run = context;
    return tw_stop_requested(run->comm->rank == 0 ? run->stop_file : NULL);
}

/* ---- the configuration ---- */

/* Keys in which ranks may differ: where a host has its files (what is in them is compared by its content),
 * what rank 0 alone reads, and what a host's own size decides. `resume`: rank 0 finds the checkpoint of all.
 */
static const char *const own_keys[] = {
    "train_data", "val_data",        "val_texts", "vocab",      "model",       "init",    "init_image",
    "init_text",  "resume",          "output",    "sample_log", "stop_file",   "name",    "report",
    "keep",       "background_save", "memory_mb", "threads",    "num_workers", "prefetch"};

/* What matters of this rank's configuration and is another on rank 0, whose is `yaml`; "" if nothing is. */
static tw_status compare_options(const tw_config *mine, const char *yaml, char *text, size_t size) {
    tw_config first;
    char value[4096], there[256], here[256];
    *text = '\0';
    tw_status status = tw_config_init(&first);
    if (status == TW_OK) {
        tw_status parsed = tw_config_parse_yaml(yaml, strlen(yaml), "rank 0's configuration", &first);
        if (parsed != TW_OK) snprintf(text, size, "its build cannot read it: %s", tw_last_error());
    }
    for (size_t i = 0; status == TW_OK && !*text && i < sizeof own_keys / sizeof *own_keys; i++) {
        tw_config_value_text(mine, own_keys[i], value, sizeof value);
        status = tw_config_set(&first, own_keys[i], value, "the rank");
    }
    const char *key = status == TW_OK && !*text ? tw_config_difference(&first, mine) : NULL;
    if (key) {
        tw_config_value_text(&first, key, there, sizeof there);
        tw_config_value_text(mine, key, here, sizeof here);
        snprintf(text, size, "%s is %s, and on rank 0 %s", key, *here ? here : "not set",
                 *there ? there : "not set");
    }
    tw_config_free(&first);
    return status;
}

/* Rank 0's text to all; *text is the caller's to free. */
static tw_status broadcast_text(tw_comm *c, char **text) {
    int64_t bytes = *text ? (int64_t)strlen(*text) + 1 : 0;
    TRY(c->broadcast(c, &bytes, sizeof bytes, 0));
    if (!*text) *text = malloc((size_t)bytes);
    return *text ? c->broadcast(c, *text, (size_t)bytes, 0) : FAIL(TW_ERR_MEMORY, "out of memory");
}

tw_status tw_run_check_options(const tw_run *run) {
    tw_comm *c = run->comm;
    enum { SIZE = 640 };
    char *yaml = NULL, mine[SIZE] = "", *all = NULL;
    if (c->ranks == 1) return TW_OK;
    tw_status status = c->rank == 0 ? tw_config_to_yaml(run->config, &yaml) : TW_OK;
    if (status == TW_OK) status = broadcast_text(c, &yaml);
    if (status == TW_OK) status = compare_options(run->config, yaml, mine, sizeof mine);
    free(yaml);
    TRY(status);
    all = malloc((size_t)c->ranks * SIZE);
    if (!all) return FAIL(TW_ERR_MEMORY, "out of memory");
    status = c->gather_all(c, mine, SIZE, all);
    for (int r = 1; status == TW_OK && r < c->ranks; r++)
        if (all[r * SIZE])
            status =
                FAIL(TW_ERR_CONFIG,
                     "rank %d differs from rank 0 in the configuration: %s: give all ranks the same recipe "
                     "and options",
                     r, all + r * SIZE);
    free(all);
    return status;
}

/* ---- what was read ---- */

/* What must be the same on every rank before the first step; the upper ones are hashes. */
typedef struct start {
    uint64_t model, vocab, train, val, checkpoint, weights;
    int64_t pool_texts, pool_images;
    int64_t step, epoch, position, adam_steps, total_steps;
} start;

static void mix(uint64_t *h, const void *data, size_t bytes) {
    *h = tw_xxh64(data, bytes, *h);
}

/* The description, and what it does not write down. */
static tw_status hash_model(const tw_model_config *c, uint64_t *h) {
    char *yaml;
    TRY(tw_model_config_to_yaml(c, &yaml));
    mix(h, yaml, strlen(yaml));
    mix(h, c->image.pixel_mean, sizeof c->image.pixel_mean);
    mix(h, c->image.pixel_std, sizeof c->image.pixel_std);
    free(yaml);
    return TW_OK;
}

static tw_status describe(const tw_run *run, const tw_run_start *from, start *out) {
    size_t bytes;
    const char *vocab = tw_vocab_text(run->vocab, &bytes);
    *out = (start){.train = run->train_hash,
                   .pool_texts = run->pool ? run->pool->n_texts : 0,
                   .pool_images = run->pool ? run->pool->n_images : 0,
                   .step = run->step,
                   .epoch = run->epoch,
                   .position = run->position,
                   .adam_steps = tw_adamw_steps(run->adamw),
                   .total_steps = run->total_steps};
    mix(&out->vocab, vocab, bytes);
    TRY(hash_model(&run->model->config, &out->model));
    if (run->pool) TRY(tw_data_hash_pool(run->val, run->pool, &out->val));
    /* Of all that a checkpoint holds: moments too, of which a rank may keep its share alone. */
    if (from->resume) out->checkpoint = tw_seal_digest(tw_checkpoint_path(from->source.checkpoint));
    return tw_params_hash(run->model->params, &out->weights);
}

static const char *difference(const start *a, const start *b) {
    if (a->model != b->model) return "the model's description: is model or init another file there?";
    if (a->vocab != b->vocab) return "the vocabulary: is vocab another file there?";
    if (a->train != b->train) return "the training data: is train_data another data set there?";
    if (a->pool_texts != b->pool_texts || a->pool_images != b->pool_images || a->val != b->val)
        return "the validation data: is val_data or val_texts another one there?";
    if (a->checkpoint != b->checkpoint)
        return "the checkpoint to go on from: does the run folder hold another file of that name there?";
    if (a->step != b->step || a->epoch != b->epoch || a->position != b->position ||
        a->adam_steps != b->adam_steps || a->total_steps != b->total_steps)
        return "the position in the run: did the ranks find different checkpoints?";
    return a->weights != b->weights ? "the weights: is it another file that they start from there?" : NULL;
}

tw_status tw_run_check_start(const tw_run *run, const tw_run_start *from) {
    tw_comm *c = run->comm;
    start mine;
    if (c->ranks == 1) return TW_OK;
    TRY(describe(run, from, &mine));
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
