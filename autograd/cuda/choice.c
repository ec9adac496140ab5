#include "autograd/cuda/choice.h"
#include "autograd/cuda/cuda.h"
#include "autograd/cuda/slot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Each way is timed ROUNDS times, RUNS in a row, the ways taking turns and the queue never empty. */
enum { ROUNDS = 2, RUNS = 2 };

typedef struct choices {
    tw_way forced; /* TW_WAYS: none is */
    tw_choice *list;
    int count, capacity;
    char (*line)[TW_CHOICE_LINE]; /* of the list and of what was measured elsewhere, as it came */
    int lines, lines_capacity;
} choices;

static void close_choices(void *state) {
    choices *s = state;
    free(s->list);
    free(s->line);
    free(s);
}

/* NULL: out of memory. */
static choices *state_of(tw_device *d) {
    void **slot = tw_cuda_slot(d, TW_CUDA_CHOICES, close_choices);
    if (*slot) return *slot;
    choices *s = *slot = calloc(1, sizeof *s);
    if (s) s->forced = TW_WAYS;
    return s;
}

/* The only way there is; TW_WAYS: either. */
static tw_way only(tw_device *d, const choices *s) {
    if (s->forced != TW_WAYS) return s->forced;
    return tw_cuda_deterministic(d) ? TW_WAY_OWN : TW_WAYS;
}

bool tw_cuda_way_allowed(tw_device *d, tw_way way) {
    const choices *s = state_of(d);
    tw_way fixed = s ? only(d, s) : TW_WAY_OWN;
    return fixed == TW_WAYS || fixed == way;
}

void tw_cuda_force_way(tw_device *d, tw_way way) {
    choices *s = state_of(d);
    if (s) s->forced = way;
}

const tw_choice *tw_cuda_choice(tw_device *d, int i) {
    const choices *s = state_of(d);
    return s && i < s->count ? &s->list[i] : NULL;
}

/* ---- timing ---- */

static tw_status run_round(tw_device *d, const tw_choice_ways *ways, tw_way way, tw_event *mark[2]) {
    TRY(d->stamp(d, TW_QUEUE_COMPUTE, &mark[0]));
    for (int i = 0; i < RUNS; i++) TRY(ways->run(ways->context, way));
    return d->stamp(d, TW_QUEUE_COMPUTE, &mark[1]);
}

static tw_status time_rounds(tw_device *d, const tw_choice_ways *ways, tw_event *marks[ROUNDS][TW_WAYS][2],
                             double seconds[TW_WAYS]) {
    /* A first run may load kernels and choose algorithms. */
    for (int way = 0; way < TW_WAYS; way++) TRY(ways->run(ways->context, (tw_way)way));
    for (int r = 0; r < ROUNDS; r++)
        for (int way = 0; way < TW_WAYS; way++) TRY(run_round(d, ways, (tw_way)way, marks[r][way]));
    for (int r = 0; r < ROUNDS; r++)
        for (int way = 0; way < TW_WAYS; way++) {
            double took;
            for (int i = 0; i < 2; i++) TRY(d->await(d, marks[r][way][i]));
            TRY(d->seconds(d, marks[r][way][0], marks[r][way][1], &took));
            took /= RUNS;
            if (r == 0 || took < seconds[way]) seconds[way] = took;
        }
    return TW_OK;
}

static tw_status measure(tw_device *d, const tw_choice_ways *ways, double seconds[TW_WAYS]) {
    tw_event *marks[ROUNDS][TW_WAYS][2] = {0};
    tw_status status = time_rounds(d, ways, marks, seconds);
    for (int r = 0; r < ROUNDS; r++)
        for (int way = 0; way < TW_WAYS; way++)
            for (int i = 0; i < 2; i++) d->event_release(d, marks[r][way][i]);
    return status;
}

static tw_choice *find(const choices *s, const tw_dnn_key *key) {
    for (int i = 0; i < s->count; i++)
        if (memcmp(&s->list[i].key, key, sizeof *key) == 0) return &s->list[i];
    return NULL;
}

static tw_status add(choices *s, const tw_choice *c) {
    if (s->count == s->capacity) {
        int larger = s->capacity ? 2 * s->capacity : 16;
        tw_choice *grown = realloc(s->list, (size_t)larger * sizeof *grown);
        if (!grown) return FAIL(TW_ERR_MEMORY, "out of memory");
        s->list = grown, s->capacity = larger;
    }
    s->list[s->count++] = *c;
    return TW_OK;
}

tw_status tw_cuda_note_choice(tw_device *d, const char *text) {
    choices *s = state_of(d);
    if (!s) return FAIL(TW_ERR_MEMORY, "out of memory");
    if (s->lines == s->lines_capacity) {
        int larger = s->lines_capacity ? 2 * s->lines_capacity : 16;
        void *grown = realloc(s->line, (size_t)larger * sizeof *s->line);
        if (!grown) return FAIL(TW_ERR_MEMORY, "out of memory");
        s->line = grown, s->lines_capacity = larger;
    }
    snprintf(s->line[s->lines++], sizeof *s->line, "%s", text);
    return TW_OK;
}

static tw_status tell(tw_device *d, const tw_choice *c) {
    const char *names[TW_WAYS] = {c->ways.own, "a cuDNN graph"};
    tw_way other = c->way == TW_WAY_OWN ? TW_WAY_GRAPH : TW_WAY_OWN;
    char what[128], text[TW_CHOICE_LINE];
    c->ways.tell(&c->key, what, sizeof what);
    snprintf(text, sizeof text, "%s: by %s (%.4f ms; by %s %.4f ms)", what, names[c->way],
             1e3 * c->seconds[c->way], names[other], 1e3 * c->seconds[other]);
    return tw_cuda_note_choice(d, text);
}

tw_status tw_cuda_choose(tw_device *d, const tw_dnn_key *key, const tw_choice_ways *ways, tw_way *out) {
    choices *s = state_of(d);
    if (!s) return FAIL(TW_ERR_MEMORY, "out of memory");
    *out = only(d, s);
    if (*out != TW_WAYS) return TW_OK;
    const tw_choice *known = find(s, key);
    *out = known ? known->way : TW_WAY_OWN;
    if (known || tw_cuda_capturing(d)) return TW_OK;
    tw_choice c = {.key = *key, .way = TW_WAY_OWN, .ways = *ways};
    c.ways.context = NULL;
    TRY(measure(d, ways, c.seconds));
    if (c.seconds[TW_WAY_GRAPH] < c.seconds[TW_WAY_OWN]) c.way = TW_WAY_GRAPH;
    *out = c.way;
    TRY(add(s, &c));
    return tell(d, &c);
}

bool tw_cuda_choice_text(tw_device *d, int i, char *text, size_t size) {
    const choices *s = state_of(d);
    if (!s || i >= s->lines) return false;
    snprintf(text, size, "%s", s->line[i]);
    return true;
}
