/* What a step takes, and the micro-batch that fits. */
#include "train/host_memory.h"
#include "train/memory_need.h"
#include "train/run.h"

#include <math.h>
#include <stdlib.h>

int64_t tw_run_largest_part(const tw_run *run) {
    return (run->config->batch + run->comm->ranks - 1) / run->comm->ranks;
}

tw_recompute tw_run_recompute(const tw_run *run) {
    static const tw_recompute of[] = {[TW_CONFIG_RECOMPUTE_NONE] = TW_RECOMPUTE_NONE,
                                      [TW_CONFIG_RECOMPUTE_LIGHT] = TW_RECOMPUTE_LIGHT,
                                      [TW_CONFIG_RECOMPUTE_BLOCK] = TW_RECOMPUTE_BLOCK};
    return of[run->config->recompute];
}

double tw_run_copy_bytes(const tw_run *run) {
    if (run->comm->rank != 0 || !run->config->background_save) return 0;
    return (double)tw_snapshot_values(run->model, true) * (double)sizeof(float);
}

/* Bytes of the inputs of `pairs` pairs. */
static double input_bytes(const tw_run *run, double pairs) {
    double side = (double)run->model->config.image.resolution;
    return pairs * (side * side * 3 + 4 * (double)run->model->config.context);
}

/* Features and gradients of the loss, on the device. */
static double loss_bytes(const tw_run *run) {
    double part = (double)tw_run_largest_part(run);
    return (4 * part + 2 * (double)run->config->batch) * (double)run->model->config.embed * 4;
}

/* What the device takes for inputs: the loader's ring, in the host's memory, or the two slots of inputs.h. */
static double held_inputs(const tw_run *run, int64_t micro) {
    bool host = tw_on_cpu(run->device);
    return host ? input_bytes(run, (double)(tw_run_largest_part(run) * (run->config->prefetch + 1)))
                : input_bytes(run, 2 * (double)micro);
}

/* What activations may take: by a choice that is made anew, and where it was made before by this run, which
 * fitted then: what is free is never quite the same twice. */
typedef struct budgets {
    double anew, again;
} budgets;

/* Bytes that this rank may take of its device's memory, or of what ranks share of a host's. */
static tw_status find_room(const tw_run *run, double *out) {
    double room = 0;
    bool known = true;
    if (tw_on_cpu(run->device)) {
        TRY(tw_host_memory_agree(run->comm, &known, &room));
    } else {
        room = (double)run->device->room(run->device);
        known = room > 0;
    }
    *out = room;
    return known ? TW_OK
                 : FAIL(TW_ERR_UNSUPPORTED,
                        "micro_batch auto: how much memory is free cannot be found out here; set memory_mb, "
                        "or micro_batch to a number");
}

static tw_status find_budget(const tw_run *run, budgets *out) {
    bool own = !tw_on_cpu(run->device); /* memory, for which no other rank competes */
    double each;
    out->anew = out->again = (double)run->config->memory_mb * 1e6;
    if (run->config->memory_mb) return TW_OK;
    TRY(find_room(run, &each));
    /* The rest is the system's and the libraries'. */
    double others = loss_bytes(run);
    out->anew = (own ? 0.92 : 0.8) * each - others;
    out->again = (own ? 0.96 : 0.9) * each - others;
    return TW_OK;
}

/* Bytes of a micro-batch of `micro` pairs; with memory_mb, which is for activations alone, of those. */
static tw_status need_of(const tw_run *run, int64_t micro, double *out) {
    size_t bytes;
    TRY(tw_memory_of_step(run->model, run->device, tw_run_recompute(run), micro, &bytes));
    *out = (double)bytes + (run->config->memory_mb ? 0 : held_inputs(run, micro));
    return TW_OK;
}

/* How many parts the budget seems to ask for: memory grows linearly, nearly, with the pairs. */
static tw_status guess_parts(const tw_run *run, int64_t part, double budget, int64_t *out) {
    enum { FEW = 4, MORE = 16 };
    double few, more;
    *out = 1;
    if (part <= MORE) return TW_OK;
    TRY(need_of(run, FEW, &few));
    TRY(need_of(run, MORE, &more));
    double pair = (more - few) / (MORE - FEW), most = (budget - few) / pair + FEW;
    if (most < (double)part) *out = most > 1 ? (int64_t)ceil((double)part / most) : part;
    return TW_OK;
}

/* The fewest parts whose steps fit, and their pairs; 0: not even one fits. Few sizes are planned on the way:
 * on a GPU each has graphs of its own made by cuDNN. */
static tw_status search(const tw_run *run, int64_t part, double budget, int64_t *out) {
    int64_t parts;
    *out = 0;
    TRY(guess_parts(run, part, budget, &parts));
    for (;;) {
        int64_t micro = (part + parts - 1) / parts;
        double need;
        TRY(need_of(run, micro, &need));
        if (need <= budget) {
            *out = micro;
            return TW_OK;
        }
        if (micro <= 1) return TW_OK;
        int64_t next = (part + micro - 2) / (micro - 1), /* the first with smaller parts */
            asked = budget > 0 ? (int64_t)fmin(ceil((double)parts * need / budget), (double)part) : part;
        parts = asked > next ? asked : next;
    }
}

/* The least of all ranks, so that all cut alike. */
static tw_status agree(const tw_run *run, int64_t *micro) {
    tw_comm *c = run->comm;
    int64_t *all = calloc((size_t)c->ranks, sizeof *all);
    if (!all) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = c->gather_all(c, micro, sizeof *micro, all);
    for (int r = 0; r < c->ranks; r++)
        if (all[r] < *micro) *micro = all[r];
    free(all);
    return status;
}

/* On a GPU the copy lies in the host's memory, memory_mb is for activations alone. */
static double copy_beside(const tw_run *run) {
    return run->device->kind == TW_CPU && !run->config->memory_mb ? tw_run_copy_bytes(run) : 0;
}

static void save_in_line(tw_run *run) {
    run->save_in_line = true;
    tw_log_line(run->log, "no memory is left for a copy to save from: training waits for checkpoints");
}

/* The micro-batch of the run that goes on, if it still fits on every rank: another one would change the last
 * bits. With other ranks they change anyway. */
static tw_status keep_saved(tw_run *run, const tw_checkpoint_meta *saved, double room, bool *kept) {
    int64_t part = tw_run_largest_part(run);
    *kept = saved && saved->ranks == run->comm->ranks && saved->micro_batch <= part;
    if (!*kept) return TW_OK;
    int64_t micro = saved->micro_batch > 0 ? saved->micro_batch : part, fitting;
    double need;
    TRY(need_of(run, micro, &need));
    fitting = need <= room ? micro : 0;
    TRY(agree(run, &fitting));
    *kept = fitting == micro;
    if (!*kept) return TW_OK;
    run->micro_batch = saved->micro_batch > 0 ? saved->micro_batch : 0;
    if (need > room - copy_beside(run)) save_in_line(run);
    tw_log_line(run->log, "micro_batch auto: %lld of a rank's %lld pairs at a time, as before",
                (long long)micro, (long long)part);
    return TW_OK;
}

static tw_status choose(tw_run *run, double room) {
    int64_t part = tw_run_largest_part(run), micro;
    double copy = copy_beside(run);
    TRY(search(run, part, room - copy, &micro));
    if (micro == 0 && copy > 0) {
        save_in_line(run);
        TRY(search(run, part, room, &micro));
    }
    TRY(agree(run, &micro));
    if (micro == 0)
        return FAIL(TW_ERR_MEMORY,
                    "micro_batch auto: not even one pair's activations fit into %.0f MB; use recompute: "
                    "block or precision: bf16, or fewer ranks on this machine",
                    room / 1e6);
    run->micro_batch = micro;
    tw_log_line(run->log, "micro_batch auto: %lld of a rank's %lld pairs at a time; they may take %.0f MB",
                (long long)run->micro_batch, (long long)part, room / 1e6);
    return TW_OK;
}

tw_status tw_run_choose_micro_batch(tw_run *run, const tw_checkpoint_meta *resumed) {
    budgets room;
    bool kept;
    run->micro_batch = run->config->micro_batch;
    if (run->micro_batch != TW_CONFIG_AUTO) return TW_OK;
    TRY(find_budget(run, &room));
    TRY(keep_saved(run, resumed, room.again, &kept));
    return kept ? TW_OK : choose(run, room.anew);
}

tw_status tw_run_plan_memory(tw_run *run) {
    const tw_tower_tape *t;
    char masters[96] = "", share[96] = "", ranks[32] = "", copy[64] = "";
    int64_t part = tw_run_largest_part(run);
    int64_t micro = run->micro_batch && run->micro_batch < part ? run->micro_batch : part;
    TRY(tw_towers_get(run->towers, TW_TOWERS_TRAIN, micro, &t));
    double moments = (double)tw_adamw_bytes(run->adamw) / 1e6,
           all = (double)tw_params_trainable(run->model->params) * 8 / 1e6;
    if (run->comm->ranks > 1) snprintf(ranks, sizeof ranks, " of each of %d ranks", run->comm->ranks);
    if (run->comm->ranks > 1 && moments < all)
        snprintf(share, sizeof share, " (this rank's share of %.1f MB)", all);
    if (tw_params_in_shares(run->model->params))
        snprintf(masters, sizeof masters, " (of %.1f MB of masters this rank's share)", all / 2);
    if (tw_run_copy_bytes(run) > 0 && !run->save_in_line)
        snprintf(copy, sizeof copy, ", a copy to save from %.1f MB%s", tw_run_copy_bytes(run) / 1e6,
                 run->comm->ranks > 1 ? " on rank 0" : "");
    tw_log_line(run->log,
                "memory%s: weights and gradients %.1f MB%s, moments %.1f MB%s, activations %.1f MB, inputs "
                "%.1f MB, the loss %.1f MB%s",
                ranks, (double)tw_params_bytes(run->model->params) / 1e6, masters, moments, share,
                (double)tw_towers_bytes(run->towers) / 1e6, held_inputs(run, micro) / 1e6,
                loss_bytes(run) / 1e6, copy);
    return TW_OK;
}
