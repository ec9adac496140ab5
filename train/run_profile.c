/* `train --profile`: where the time went, of rank 0 and of the rank that the others waited for. */
#include "train/run.h"

#include <math.h>
#include <stdlib.h>

static tw_status find_slowest(tw_run *run) {
    tw_comm *c = run->comm;
    tw_profile *all = calloc((size_t)c->ranks, sizeof *all);
    if (!all) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = c->gather_all(c, &run->profile, sizeof run->profile, all);
    run->slowest = tw_profile_slowest(all, c->ranks);
    run->profiles[0] = all[0];
    run->profiles[1] = all[run->slowest];
    free(all);
    return status;
}

static void say_hidden(const tw_run *run, const tw_profile *p, int rank) {
    double hidden = tw_profile_hidden(p), steps = p->steps ? (double)p->steps : 1;
    if (isnan(hidden)) return;
    tw_log_line(
        run->log,
        "profile: gradient reduction on rank %d: %.2f ms a step from posting to completion (late ranks "
        "included), %.2f ms of it waited for, %.1f %% hidden behind backward",
        rank, 1e3 * p->reduced / steps, 1e3 * p->seconds[TW_PROFILE_REDUCTION] / steps, 100 * hidden);
}

static json_t *parts_of(const tw_profile *p, int rank) {
    double hidden = tw_profile_hidden(p);
    json_t *o = json_pack("{s:i}", "rank", rank);
    for (int i = 0; o && i < TW_PROFILE_PARTS; i++)
        json_object_set_new(o, tw_profile_part_key((tw_profile_part)i), json_real(p->seconds[i]));
    json_object_set_new(o, "reduction_under_way", json_real(p->reduced));
    json_object_set_new(o, "reduction_hidden", isnan(hidden) ? json_null() : json_real(hidden));
    return o;
}

/* ---- operations ---- */

typedef struct op_row {
    const char *name;
    tw_op_time time;
} op_row;

static int longer_first(const void *a, const void *b) {
    double x = ((const op_row *)a)->time.seconds, y = ((const op_row *)b)->time.seconds;
    return x > y ? -1 : x < y;
}

/* Those that were called, the longest first; returns their number. */
static int list_operations(const tw_run *run, op_row rows[2 * TW_OP_COUNT]) {
    int n = 0;
    for (int op = 0; op < TW_OP_COUNT; op++)
        for (int backward = 0; backward < 2; backward++) {
            op_row row = {backward ? tw_op_table[op].backward_name : tw_op_table[op].name,
                          tw_op_timer_total(run->timer, (tw_op)op, backward)};
            if (row.time.calls > 0) rows[n++] = row;
        }
    qsort(rows, (size_t)n, sizeof *rows, longer_first);
    return n;
}

/* Validation's calls are among them. */
static json_t *show_operations(const tw_run *run, const tw_profile *p) {
    op_row rows[2 * TW_OP_COUNT];
    int n = list_operations(run, rows);
    double steps = p->steps ? (double)p->steps : 1, total = tw_profile_total(p);
    json_t *o = json_object();
    tw_log_line(run->log, "profile: operations of rank 0 on %s: calls, seconds, ms a step, share",
                run->device->name);
    for (int i = 0; i < n; i++) {
        const tw_op_time *t = &rows[i].time;
        tw_log_line(run->log, "profile: %-30s %10lld %10.2f %10.3f %6.1f %%", rows[i].name,
                    (long long)t->calls, t->seconds, 1e3 * t->seconds / steps,
                    total > 0 ? 100 * t->seconds / total : 0);
        json_object_set_new(o, rows[i].name,
                            json_pack("{s:I,s:f}", "calls", (json_int_t)t->calls, "seconds", t->seconds));
    }
    return o;
}

static tw_status record(const tw_run *run) {
    json_t *shown = json_array();
    json_array_append_new(shown, parts_of(&run->profiles[0], 0));
    if (run->slowest) json_array_append_new(shown, parts_of(&run->profiles[1], run->slowest));
    json_t *o =
        json_pack("{s:s,s:I,s:f,s:o}", "event", "profile", "steps", (json_int_t)run->profiles[0].steps,
                  "seconds", tw_profile_total(&run->profiles[0]), "ranks", shown);
    json_object_set_new(o, "operations", show_operations(run, &run->profiles[0]));
    tw_status status = tw_log_record(run->log, o);
    json_decref(o);
    return status;
}

tw_status tw_run_show_profile(tw_run *run) {
    const tw_profile *p = &run->profiles[0], *q;
    if (!run->config->profile) return TW_OK;
    tw_profile_lap(&run->profile, TW_PROFILE_OTHER);
    TRY(tw_op_timer_collect(run->timer));
    TRY(find_slowest(run));
    if (run->comm->rank != 0) return TW_OK;
    char line[200], slowest[64] = "";
    q = run->slowest ? &run->profiles[1] : NULL;
    if (q)
        snprintf(slowest, sizeof slowest, "; beside it rank %d, the slowest", run->slowest);
    else if (run->comm->ranks > 1)
        snprintf(slowest, sizeof slowest, ", the slowest rank");
    tw_log_line(run->log, "profile: %lld steps in %.2f s on rank 0%s; seconds, ms a step, share",
                (long long)p->steps, tw_profile_total(p), slowest);
    for (int i = 0; i < TW_PROFILE_PARTS; i++) {
        tw_profile_line(p, q, (tw_profile_part)i, line, sizeof line);
        tw_log_line(run->log, "profile: %s", line);
    }
    say_hidden(run, p, 0);
    if (q) say_hidden(run, q, run->slowest);
    return record(run);
}
