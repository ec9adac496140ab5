#include "autograd/parallel.h"
#include "train/formats/run_folder.h"
#include "train/host_memory.h"
#include "train/model_file.h"
#include "train/run.h"

#include <stdlib.h>

/* What decides which instructions run: a change of it may change the last bits. */
static const char *cpu_features(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bf16")) return "x86-64 avx512bf16";
    if (__builtin_cpu_supports("avx512f")) return "x86-64 avx512f";
    if (__builtin_cpu_supports("avx2")) return "x86-64 avx2";
    return "x86-64";
#else
    return "portable";
#endif
}

static const char *build_name(void) {
    return "tuwen " TW_VERSION ", " __VERSION__;
}

/* The last three are compared by what they came to, see warn_of_counts. */
static bool is_harmless(const char *key) {
    static const char *const harmless[] = {"resume",
                                           "model",
                                           "init",
                                           "init_image",
                                           "init_text",
                                           "num_workers",
                                           "prefetch",
                                           "log_interval",
                                           "sample_log",
                                           "report",
                                           "name",
                                           "output",
                                           "keep",
                                           "stop_file",
                                           "val_at_start",
                                           "shard_optimizer",
                                           "background_save",
                                           "profile",
                                           "rank_timeout",
                                           "memory_mb",
                                           "micro_batch",
                                           "threads"};
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        if (strcmp(key, harmless[i]) == 0) return true;
    return false;
}

/* Says every key that differs and matters; `saved` takes the run's values over one by one. */
static void warn_of_keys(const tw_run *run, tw_config *saved) {
    const tw_config settled = tw_run_settled(run);
    if (saved->beta2 == TW_CONFIG_AUTO) saved->beta2 = run->adam.beta2;
    if (saved->eps == TW_CONFIG_AUTO) saved->eps = run->adam.eps;
    const char *before = NULL, *key;
    while ((key = tw_config_difference(saved, &settled)) != NULL && key != before) {
        char was[256], is[4096];
        tw_config_value_text(saved, key, was, sizeof was);
        tw_config_value_text(&settled, key, is, sizeof is);
        if (!is_harmless(key))
            tw_log_warning(run->log, "the configuration differs from the resumed run's: %s was %s, is %s",
                           key, was, is);
        if (tw_config_set(saved, key, is, "the run") != TW_OK) return;
        before = key; /* a list whose items hold commas would never become equal */
    }
}

/* A number of threads that was not recorded, by builds that wrote the configuration's 0 for all cores, is no
 * change; on a GPU none is. */
static void warn_of_counts(const tw_run *run, const tw_checkpoint_meta *meta) {
    int64_t part = tw_run_largest_part(run), before = meta->micro_batch, now = run->micro_batch;
    char was[32] = "an unknown number of";
    if (meta->threads > 0) snprintf(was, sizeof was, "%d", meta->threads);
    if (before <= 0 || before > part) before = part; /* 0 is the whole part, however it is written */
    if (now <= 0 || now > part) now = part;
    bool same_threads = meta->threads <= 0 || meta->threads == tw_threads() || !tw_on_cpu(run->device);
    if (meta->ranks == run->comm->ranks && before == now && same_threads) return;
    tw_log_warning(
        run->log,
        "resumed with %d ranks, %d threads, a micro-batch of %lld, saved with %d ranks, %s threads, a "
        "micro-batch of %lld: results agree to rounding, not bit for bit",
        run->comm->ranks, tw_threads(), (long long)now, meta->ranks, was, (long long)before);
}

/* The number of pairs, and what is in them. */
static void data_text(const tw_run *run, char text[64]) {
    snprintf(text, 64, "%lld pairs, %016llx", (long long)tw_dataset_pairs(run->train),
             (unsigned long long)run->train_hash);
}

/* Data that were mended may go on; others would be a mistake that nothing else shows. Checkpoints of builds
 * that did not record it say nothing. */
static void warn_of_data(const tw_run *run, const tw_checkpoint_meta *meta) {
    char now[64];
    data_text(run, now);
    if (!meta->train_data || strcmp(meta->train_data, now) == 0) return;
    tw_log_warning(
        run->log,
        "%s holds other data than the resumed run was trained on (%s, was %s): pairs of this epoch may come "
        "twice or not at all; --init instead of --resume starts another run from its weights",
        run->config->train_data, now, meta->train_data);
}

/* The same bits are promised for the same build, CPU, threads, ranks and micro-batch: a change is said. */
static void warn_of_changes(const tw_run *run, const tw_checkpoint_meta *meta) {
    tw_config saved;
    if (tw_config_init(&saved) == TW_OK && meta->config_yaml &&
        tw_config_parse_yaml(meta->config_yaml, strlen(meta->config_yaml), "checkpoint", &saved) == TW_OK)
        warn_of_keys(run, &saved);
    tw_config_free(&saved);
    if ((meta->cpu && strcmp(meta->cpu, cpu_features()) != 0) ||
        (meta->build && strcmp(meta->build, build_name()) != 0))
        tw_log_warning(run->log,
                       "saved by %s on %s, resumed by %s on %s: results agree to rounding, not bit for bit",
                       meta->build, meta->cpu, build_name(), cpu_features());
    warn_of_counts(run, meta);
    warn_of_data(run, meta);
}

tw_status tw_run_restore(tw_run *run, tw_checkpoint *c) {
    const tw_checkpoint_meta *meta = tw_checkpoint_get_meta(c);
    TRY(tw_moments_read(run->model, c, run->adamw));
    if (meta->seed != (uint64_t)run->config->seed)
        return FAIL(
            TW_ERR_CONFIG,
            "%s was made with seed %llu, the configuration says %lld: a run goes on with its own seed",
            tw_checkpoint_path(c), (unsigned long long)meta->seed, (long long)run->config->seed);
    warn_of_changes(run, meta);
    run->step = meta->step;
    run->epoch = meta->epoch;
    run->position = meta->position;
    run->skipped_in_row = meta->skipped;
    run->skipped_total = meta->skipped_total;
    run->best_r1 = meta->best_r1;
    run->best_step = meta->best_step;
    TRY(tw_adamw_set_steps(run->adamw, meta->adam_steps));
    if (meta->extra) TRY(tw_history_from_json(&run->history, meta->extra));
    tw_log_line(run->log, "resumed %s: step %lld, epoch %lld, %lld samples into it", tw_checkpoint_path(c),
                (long long)run->step, (long long)run->epoch + 1, (long long)run->position);
    return TW_OK;
}

static tw_status fill_meta(const tw_run *run, tw_checkpoint_meta *meta) {
    size_t bytes;
    const char *vocab = tw_vocab_text(run->vocab, &bytes);
    meta->vocab = malloc(bytes + 1);
    if (!meta->vocab) return FAIL(TW_ERR_MEMORY, "out of memory");
    memcpy(meta->vocab, vocab, bytes);
    meta->vocab_bytes = bytes;
    TRY(tw_model_config_to_yaml(&run->model->config, &meta->model_yaml));
    const tw_config settled = tw_run_settled(run);
    TRY(tw_config_to_yaml(&settled, &meta->config_yaml));
    TRY(tw_history_to_json(&run->history, &meta->extra));
    char data[64];
    data_text(run, data);
    meta->train_data = strdup(data);
    meta->precision = strdup(run->model->compute_type == TW_BF16 ? "bf16" : "f32");
    meta->cpu = strdup(cpu_features());
    meta->build = strdup(build_name());
    meta->context_length = run->model->config.context;
    meta->step = run->step;
    meta->epoch = run->epoch;
    meta->position = run->position;
    meta->adam_steps = tw_adamw_steps(run->adamw);
    meta->seed = (uint64_t)run->config->seed;
    meta->skipped = run->skipped_in_row;
    meta->skipped_total = run->skipped_total;
    meta->best_r1 = run->best_r1;
    meta->best_step = run->best_step;
    meta->threads = tw_threads();
    meta->ranks = run->comm->ranks;
    meta->micro_batch = (int)run->micro_batch;
    return meta->train_data && meta->precision && meta->cpu && meta->build
               ? TW_OK
               : FAIL(TW_ERR_MEMORY, "out of memory");
}

/* ---- saving ---- */

/* Room for the copy, once a run: it is taken when a step has taken all else. Without, training waits. */
static void take_room(tw_run *run) {
    double bytes = tw_run_copy_bytes(run), left;
    if (run->saving.room || bytes == 0 || run->save_in_line) return;
    bool fits =
        !tw_memory_free(&left) || bytes * 1.05 + 64e6 < left; /* the rest is for what the file's pages take */
    /* Pinned, as a GPU's memory comes down several times as fast into that. */
    tw_device *d = run->device;
    run->save_in_line = !fits || d->pinned_alloc(d, (size_t)bytes, (void **)&run->saving.room) != TW_OK;
    if (run->save_in_line)
        tw_log_warning(run->log,
                       "no room for a copy of weights and moments to save from (%.0f MB; %.0f MB are free): "
                       "training waits while checkpoints are written",
                       bytes / 1e6, left / 1e6);
}

static void say_saved(tw_run *run, int64_t step, bool is_best, double seconds, double waited) {
    tw_log_line(run->log, "saved step %lld%s in %.1f s, training waited %.1f s", (long long)step,
                is_best ? " (best so far)" : "", seconds, waited);
}

/* The file is written, or will not be. */
static tw_status collect(tw_run *run) {
    double ended;
    if (!run->saving.writer || !tw_checkpoint_writer_is_busy(run->saving.writer)) return TW_OK;
    double start = tw_seconds();
    TRY(tw_checkpoint_writer_collect(run->saving.writer, &ended));
    run->saving.waited += tw_seconds() - start;
    say_saved(run, run->saving.step, run->saving.is_best, ended - run->saving.began, run->saving.waited);
    return TW_OK;
}

tw_status tw_run_save_look(tw_run *run) {
    if (!run->saving.writer || !tw_checkpoint_writer_is_done(run->saving.writer)) return TW_OK;
    return collect(run);
}

tw_status tw_run_save_finish(tw_run *run) {
    return collect(run);
}

/* Hands the copy to the thread. */
static void begin_writing(tw_run *run, tw_checkpoint_job *job, double start) {
    run->saving.step = run->step;
    run->saving.is_best = job->is_best;
    run->saving.began = start;
    tw_checkpoint_writer_start(run->saving.writer, job);
    run->saving.waited = tw_seconds() - start;
}

static tw_status write_now(tw_run *run, tw_checkpoint_job *job, double start) {
    TRY(tw_run_folder_save(job->folder, &job->meta, job->snapshot.tensors, job->snapshot.n, job->is_best,
                           job->keep));
    double seconds = tw_seconds() - start;
    say_saved(run, run->step, job->is_best, seconds, seconds);
    return TW_OK;
}

tw_status tw_run_save(tw_run *run, bool is_best) {
    TRY(tw_run_save_finish(run));
    double start = tw_seconds();
    bool writes = run->comm->rank == 0;
    tw_checkpoint_job job = {
        .folder = run->config->output, .is_best = is_best, .keep = (int)run->config->keep};
    tw_checkpoint_meta_init(&job.meta);
    tw_status status = TW_OK;
    if (writes && !run->saving.writer) status = tw_checkpoint_writer_create(&run->saving.writer);
    if (writes && status == TW_OK) status = fill_meta(run, &job.meta);
    if (writes) take_room(run);
    if (status == TW_OK)
        status = tw_model_snapshot(run->model, run->adamw, writes, run->saving.room, &job.snapshot);
    if (status == TW_OK && run->saving.room)
        begin_writing(run, &job, start);
    else if (status == TW_OK && writes)
        status = write_now(run, &job, start);
    tw_checkpoint_job_free(&job);
    return status;
}
