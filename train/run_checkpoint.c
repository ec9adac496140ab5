#include "train/formats/run_folder.h"
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

/* The same bits are promised for the same build, CPU, threads, ranks and micro-batch: a change is said. */
static void warn_of_changes(const tw_run *run, const tw_checkpoint_meta *meta) {
    tw_config saved;
    if (tw_config_init(&saved) == TW_OK && meta->config_yaml &&
        tw_config_parse_yaml(meta->config_yaml, strlen(meta->config_yaml), "checkpoint", &saved) == TW_OK) {
        static const char *const harmless[] = {"resume",      "init",         "init_image",     "init_text",
                                               "num_workers", "prefetch",     "log_interval",   "sample_log",
                                               "report",      "name",         "output",         "keep",
                                               "stop_file",   "val_at_start", "shard_optimizer"};
        const char *key = tw_config_difference(&saved, run->config);
        bool matters = key != NULL;
        for (size_t i = 0; key && i < sizeof harmless / sizeof *harmless; i++)
            matters &= strcmp(key, harmless[i]) != 0;
        char before[256], now[256];
        if (matters) {
            tw_config_value_text(&saved, key, before, sizeof before);
            tw_config_value_text(run->config, key, now, sizeof now);
            tw_log_warning(run->log, "the configuration differs from the resumed run's: %s was %s, is %s",
                           key, before, now);
        }
    }
    tw_config_free(&saved);
    if ((meta->cpu && strcmp(meta->cpu, cpu_features()) != 0) ||
        (meta->build && strcmp(meta->build, build_name()) != 0))
        tw_log_warning(run->log,
                       "saved by %s on %s, resumed by %s on %s: results agree to rounding, not bit for bit",
                       meta->build, meta->cpu, build_name(), cpu_features());
    if (meta->ranks != run->comm->ranks || meta->micro_batch != run->micro_batch ||
        meta->threads != run->config->threads)
        tw_log_warning(
            run->log,
            "resumed with %d ranks, %d threads, micro-batch %d, saved with %d, %d, %d: results agree to "
            "rounding, not bit for bit",
            run->comm->ranks, (int)run->config->threads, (int)run->micro_batch, meta->ranks, meta->threads,
            meta->micro_batch);
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
    tw_adamw_set_steps(run->adamw, meta->adam_steps);
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
    TRY(tw_config_to_yaml(run->config, &meta->config_yaml));
    TRY(tw_history_to_json(&run->history, &meta->extra));
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
    meta->threads = (int)run->config->threads;
    meta->ranks = run->comm->ranks;
    meta->micro_batch = (int)run->micro_batch;
    return meta->precision && meta->cpu && meta->build ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
}

tw_status tw_run_save(tw_run *run, bool is_best) {
    double start = tw_seconds();
    tw_checkpoint_meta meta;
    tw_snapshot snapshot = {0};
    tw_checkpoint_meta_init(&meta);
    bool writes = run->comm->rank == 0;
    tw_status status = writes ? fill_meta(run, &meta) : TW_OK;
    if (status == TW_OK) status = tw_model_snapshot(run->model, run->adamw, writes, &snapshot);
    if (status == TW_OK && writes)
        status = tw_run_folder_save(run->config->output, &meta, snapshot.tensors, snapshot.n, is_best,
                                    (int)run->config->keep);
    if (status == TW_OK)
        tw_log_line(run->log, "saved step %lld%s in %.1f s", (long long)run->step,
                    is_best ? " (best so far)" : "", tw_seconds() - start);
    tw_snapshot_free(&snapshot);
    tw_checkpoint_meta_free(&meta);
    return status;
}
