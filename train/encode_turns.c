#include "train/encode_turns.h"

#include "autograd/progress.h"
#include "train/signals.h"

#include <stdlib.h>

/* A message: this, then ok (batch), then rows (batch, embed). */
typedef struct head {
    int64_t n, truncated;
    int64_t all_ok; /* the batch came without flags */
} head;

static size_t rows_at(const tw_turns *t) {
    return sizeof(head) + ((size_t)t->options->batch + 15) / 16 * 16;
}

tw_status tw_turns_open(tw_turns *t, const tw_encode_options *options, int64_t embed, int64_t first,
                        int64_t total, tw_encode_sink sink, void *context) {
    *t = (tw_turns){.options = options,
                    .sink = sink,
                    .context = context,
                    .first = first,
                    .total = total,
                    .embed = embed,
                    .rank = options->comm ? options->comm->rank : 0,
                    .ranks = options->comm ? options->comm->ranks : 1};
    int64_t step = options->batch * t->ranks;
    t->rounds = first < total ? (total - first + step - 1) / step : 0;
    if (t->ranks == 1) return TW_OK;
    t->bytes = rows_at(t) + ((size_t)(options->batch * embed) * sizeof(float) + 15) / 16 * 16;
    t->mine = calloc(1, t->bytes);
    if (t->rank == 0) t->all = malloc(t->bytes * (size_t)t->ranks);
    return t->mine && (t->all || t->rank > 0)
               ? TW_OK
               : FAIL(TW_ERR_MEMORY, "out of memory: a batch of features of every rank");
}

void tw_turns_close(tw_turns *t) {
    free(t->mine);
    free(t->all);
}

static tw_status deliver(tw_turns *t, const tw_encoded *batch) {
    const tw_encode_options *o = t->options;
    TRY(t->sink(t->context, batch));
    if (o->on_progress) o->on_progress(o->context, batch->first + batch->n, t->total);
    return TW_OK;
}

static bool asked_to_stop(const tw_turns *t) {
    return t->options->should_stop && t->options->should_stop(t->options->context);
}

static tw_status interrupt(const tw_turns *t) {
    return FAIL(TW_ERR_INTERRUPTED, "features of %lld items were being computed",
                (long long)(t->total - t->first));
}

static tw_status exchange(tw_turns *t) {
    bool stop;
    TRY(tw_stop_agree(t->options->comm, asked_to_stop(t), &stop));
    if (stop) return interrupt(t); /* all in the same round */
    TRY(tw_comm_gather(t->options->comm, t->mine, t->bytes, t->all, 0));
    for (int r = 0; t->rank == 0 && r < t->ranks; r++) {
        const char *message = t->all + (size_t)r * t->bytes;
        const head *h = (const void *)message;
        if (h->n == 0) continue;
        TRY(deliver(t, &(tw_encoded){.first = t->first + (t->round * t->ranks + r) * t->options->batch,
                                     .n = h->n,
                                     .features = (const void *)(message + rows_at(t)),
                                     .ok = h->all_ok ? NULL : (const void *)(message + sizeof *h),
                                     .truncated = h->truncated}));
    }
    t->round++;
    return TW_OK;
}

tw_status tw_turns_take(void *turns, const tw_encoded *batch) {
    tw_turns *t = turns;
    tw_progress_begin("handing on features");
    tw_progress_settle();
    if (t->ranks == 1) {
        if (asked_to_stop(t)) return interrupt(t);
        tw_encoded b = *batch;
        b.first = t->first + t->round++ * t->options->batch;
        return deliver(t, &b);
    }
    head h = {batch->n, batch->truncated, batch->ok == NULL};
    memcpy(t->mine, &h, sizeof h);
    if (batch->ok) memcpy(t->mine + sizeof h, batch->ok, (size_t)batch->n * sizeof *batch->ok);
    memcpy(t->mine + rows_at(t), batch->features, (size_t)(batch->n * t->embed) * sizeof(float));
    return exchange(t);
}

tw_status tw_turns_finish(tw_turns *t) {
    if (t->ranks == 1) return TW_OK;
    memset(t->mine, 0, sizeof(head));
    while (t->round < t->rounds) TRY(exchange(t));
    return TW_OK;
}
