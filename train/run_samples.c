/* The sample log: one line a step with the numbers of its pairs, in the order of the global batch. */
#include "train/run.h"

#include <errno.h>
#include <unistd.h>

/* Where line `lines` begins, or the file's end if it has fewer. */
static long start_of_line(FILE *f, int64_t lines) {
    int c;
    while (lines > 0 && (c = getc(f)) != EOF) lines -= c == '\n';
    return ftell(f);
}

/* What a run that was killed wrote behind its last checkpoint comes again. */
static bool cut_off(FILE *f, int64_t lines) {
    long at = start_of_line(f, lines);
    return at >= 0 && ftruncate(fileno(f), at) == 0 && fseek(f, at, SEEK_SET) == 0;
}

tw_status tw_run_open_sample_log(tw_run *run) {
    const char *path = run->config->sample_log;
    if (!*path) return TW_OK;
    if (run->step) run->sample_log = fopen(path, "r+");
    if (!run->sample_log) run->sample_log = fopen(path, "w");
    if (!run->sample_log || (run->step && !cut_off(run->sample_log, run->step)))
        return FAIL(TW_ERR_IO, "sample_log %s: %s", path, strerror(errno));
    return TW_OK;
}

tw_status tw_run_log_samples(const tw_run *run, const tw_global_batch *batch) {
    if (!run->sample_log) return TW_OK;
    for (int64_t i = 0; i < batch->size; i++)
        fprintf(run->sample_log, i ? " %lld" : "%lld", (long long)batch->items[i]);
    fputc('\n', run->sample_log);
    if (fflush(run->sample_log) == 0) return TW_OK;
    return FAIL(TW_ERR_IO, "sample_log %s: %s", run->config->sample_log, strerror(errno));
}
