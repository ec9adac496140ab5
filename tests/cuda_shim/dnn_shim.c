/* Graphs for the shim: each operation of a graph in order, on the host, in f64, rounded to the type of what
 * it writes. It promises as little as the library might: what matmul is told not to count is NaN within the
 * graph and left as it is in memory; or it is counted like all else (tw_shim_count_all). Every second device
 * has no plans, so that own kernels are tested too. TW_SHIM_REFUSES=1 in the environment: it has a kernel for
 * no graph. */
#include "autograd/cuda/cuda.h"
#include "autograd/cuda/dnn_notes.h"
#include "autograd/cuda/dnn_trial.h"
#include "autograd/cuda/slot.h"
#include "device_shim.h"
#include "dnn_values.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct tw_dnn_plan {
    struct tw_dnn_plan *next;
    tw_dnn_key key;
    tw_dnn_graph graph;
    bool refused;
};

static tw_dnn_plan *plans; /* of all devices, until the program ends */
static bool allowed = true;
static tw_dnn_notes notes;
static bool (*rule)(const tw_dnn_graph *g);

void tw_shim_refuse_graphs(bool (*refuses)(const tw_dnn_graph *g)) {
    rule = refuses;
}

void tw_dnn_allow(tw_device *d, bool allow) {
    (void)d;
    allowed = allow;
}

int tw_shim_graph_runs(void) {
    return (int)notes.runs;
}

const char *tw_cuda_refusals(tw_device *d) {
    (void)d;
    return tw_dnn_notes_tell(&notes);
}

int64_t tw_cuda_graph_runs(tw_device *d) {
    (void)d;
    return notes.runs;
}

static bool is_refused(const tw_dnn_graph *g) {
    const char *all = getenv("TW_SHIM_REFUSES");
    return (all && *all == '1') || (rule && rule(g));
}

/* As it is, or else with f32 inside, as cudnn.c tries it. */
static bool is_refused_either_way(tw_dnn_graph *g) {
    return is_refused(g) && (!tw_dnn_widen(g) || is_refused(g));
}

static tw_status try_once(tw_device *d, const tw_dnn_plan *p);

tw_status tw_dnn_find(tw_device *d, const tw_dnn_key *key, tw_dnn_describe describe, tw_dnn_plan **out) {
    *out = NULL;
    if (!allowed || !tw_shim_device_fuses(d)) return TW_OK;
    tw_dnn_plan *found = plans;
    while (found && memcmp(&found->key, key, sizeof *key) != 0) found = found->next;
    if (found) {
        *out = found->refused ? NULL : found;
        return TW_OK;
    }
    tw_dnn_plan *p = calloc(1, sizeof *p);
    if (!p) return FAIL(TW_ERR_MEMORY, "out of memory");
    p->key = *key;
    describe(key, &p->graph);
    p->next = plans;
    p->refused = is_refused_either_way(&p->graph);
    plans = p;
    if (p->refused) tw_dnn_notes_refusal(&notes, &p->graph, "the shim was told to refuse it");
    *out = p->refused ? NULL : p;
    if (p->graph.full) return FAIL(TW_ERR_ARGUMENT, "a graph of too many parts");
    return p->refused ? TW_OK : try_once(d, p);
}

size_t tw_dnn_scratch(const tw_dnn_plan *plan) {
    (void)plan;
    return 48; /* which must be there */
}

/* ---- operations ---- */

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static double swish_slope(double beta, double x) {
    double s = sigmoid(beta * x);
    return s + beta * x * s * (1 - s);
}

/* The normal distribution's integral up to x. */
static double normal(double x) {
    return 0.5 * (1 + erf(x / sqrt(2)));
}

static double apply(const tw_dnn_node *n, const double x[3], const dnn_place *p) {
    switch (n->op) {
    case TW_DNN_ADD:
        return x[0] + x[1];
    case TW_DNN_SUB:
        return x[0] - x[1];
    case TW_DNN_MUL:
        return x[0] * x[1];
    case TW_DNN_DIV:
        return x[0] / x[1];
    case TW_DNN_EXP:
        return exp(x[0]);
    case TW_DNN_LOG:
        return log(x[0]);
    case TW_DNN_INDEX:
        return (double)p->i[n->axis];
    case TW_DNN_LESS:
        return x[0] < x[1];
    case TW_DNN_AND:
        return x[0] != 0 && x[1] != 0;
    case TW_DNN_SELECT:
        return x[2] != 0 ? x[0] : x[1];
    case TW_DNN_RELU:
        return x[0] < 0 ? 0 : x[0];
    case TW_DNN_RELU_SLOPE:
        return x[1] > 0 ? x[0] : 0;
    case TW_DNN_SWISH:
        return x[0] * sigmoid((double)n->value * x[0]);
    case TW_DNN_GELU:
        return x[0] * normal(x[0]);
    case TW_DNN_SWISH_SLOPE:
        return x[0] * swish_slope((double)n->value, x[1]);
    case TW_DNN_GELU_SLOPE:
        return x[0] * (normal(x[1]) + x[1] * exp(-0.5 * x[1] * x[1]) / sqrt(2 * acos(-1)));
    default:
        return x[0]; /* TW_DNN_COPY */
    }
}

static void pointwise(const dnn_run *r, const tw_dnn_node *n) {
    const dnn_values *out = &r->value[n->out[0]];
    for (int64_t e = 0; e < dnn_count(out->t); e++) {
        dnn_place p = dnn_place_of(out->t, e);
        double x[3] = {0, 0, 0};
        for (int i = 0; i < 3; i++)
            if (dnn_in(r, n, i)) x[i] = dnn_get(dnn_in(r, n, i), dnn_offset(dnn_in(r, n, i)->t, &p));
        dnn_put(out, dnn_offset(out->t, &p), apply(n, x, &p));
    }
}

static void reduce(const dnn_run *r, const tw_dnn_node *n) {
    const dnn_values *x = dnn_in(r, n, 0), *out = &r->value[n->out[0]];
    int64_t outputs = dnn_count(out->t);
    double *sum = malloc((size_t)outputs * sizeof *sum);
    for (int64_t e = 0; sum && e < outputs; e++) sum[e] = n->op == TW_DNN_MAX ? -INFINITY : 0;
    for (int64_t e = 0; sum && e < dnn_count(x->t); e++) {
        dnn_place p = dnn_place_of(x->t, e);
        int64_t to = 0;
        for (int k = 0; k < 4; k++) to = to * out->t->dim[k] + (out->t->dim[k] == 1 ? 0 : p.i[k]);
        double v = dnn_get(x, dnn_offset(x->t, &p));
        if (n->op == TW_DNN_SUM)
            sum[to] += v;
        else if (!(sum[to] >= v))
            sum[to] = v; /* NaN stays */
    }
    for (int64_t e = 0; sum && e < outputs; e++) {
        dnn_place p = dnn_place_of(out->t, e);
        dnn_put(out, dnn_offset(out->t, &p), sum[e]);
    }
    free(sum);
}

static bool counts_all;

void tw_shim_count_all(bool all) {
    counts_all = all;
}

/* How much of a product's dimension counts in sample b. */
static int64_t part(const dnn_run *r, const tw_dnn_node *n, int i, int64_t b, int64_t whole) {
    const dnn_values *v = dnn_in(r, n, i);
    return v && !counts_all ? (int64_t)dnn_get(v, b * v->t->stride[0]) : whole;
}

static void matmul(const dnn_run *r, const tw_dnn_node *n) {
    const dnn_values *a = dnn_in(r, n, 0), *b = dnn_in(r, n, 1), *out = &r->value[n->out[0]];
    for (int64_t e = 0; e < dnn_count(out->t); e++) {
        dnn_place p = dnn_place_of(out->t, e), left = p, right = p;
        int64_t sample = p.i[0], inner = part(r, n, 4, sample, a->t->dim[3]);
        double sum = 0;
        if (p.i[2] >= part(r, n, 2, sample, out->t->dim[2]) ||
            p.i[3] >= part(r, n, 3, sample, out->t->dim[3])) {
            if (out->inside) out->inside[dnn_offset(out->t, &p)] = NAN;
            continue;
        }
        for (int64_t k = 0; k < inner; k++) {
            left.i[3] = right.i[2] = k;
            sum += dnn_get(a, dnn_offset(a->t, &left)) * dnn_get(b, dnn_offset(b->t, &right));
        }
        dnn_put(out, dnn_offset(out->t, &p), sum);
    }
}

static void reshape(const dnn_run *r, const tw_dnn_node *n) {
    const dnn_values *x = dnn_in(r, n, 0), *out = &r->value[n->out[0]];
    for (int64_t e = 0; e < dnn_count(out->t); e++) {
        dnn_place p = dnn_place_of(out->t, e);
        dnn_put(out, dnn_offset(out->t, &p), dnn_get(x, dnn_offset(out->t, &p)));
    }
}

/* Any function of seed, offset and element will do. */
static void keep(const dnn_run *r, const tw_dnn_node *n) {
    const dnn_values *out = &r->value[n->out[0]];
    uint64_t seed = (uint64_t)dnn_get(dnn_in(r, n, 0), 0) + (uint64_t)dnn_get(dnn_in(r, n, 1), 0);
    for (int64_t e = 0; e < dnn_count(out->t); e++) {
        uint64_t h = (seed ^ (uint64_t)e * 0x9E3779B97F4A7C15u) * 0xBF58476D1CE4E5B9u;
        h = (h ^ h >> 31) * 0x94D049BB133111EBu;
        dnn_place p = dnn_place_of(out->t, e);
        dnn_put(out, dnn_offset(out->t, &p), (double)(h >> 11) * 0x1p-53 < (double)n->value);
    }
}

static tw_status run_node(const dnn_run *r, const tw_dnn_node *n) {
    switch (n->op) {
    case TW_DNN_MAX:
    case TW_DNN_SUM:
        reduce(r, n);
        return TW_OK;
    case TW_DNN_MATMUL:
        matmul(r, n);
        return TW_OK;
    case TW_DNN_RESHAPE:
        reshape(r, n);
        return TW_OK;
    case TW_DNN_KEEP:
        keep(r, n);
        return TW_OK;
    case TW_DNN_CONV:
    case TW_DNN_CONV_X:
    case TW_DNN_CONV_W:
        dnn_convolve(r, n);
        return TW_OK;
    case TW_DNN_NORM:
        dnn_norm(r, n);
        return TW_OK;
    case TW_DNN_NORM_AGAIN:
        dnn_norm_again(r, n);
        return TW_OK;
    case TW_DNN_NORM_GRADIENT:
        dnn_norm_gradient(r, n);
        return TW_OK;
    case TW_DNN_POOL:
    case TW_DNN_POOL_X:
        dnn_pool(r, n);
        return TW_OK;
    default:
        pointwise(r, n);
        return TW_OK;
    }
}

typedef struct work {
    const tw_dnn_plan *plan;
    void *slot[TW_DNN_SLOTS], *scratch;
} work;

static tw_status run_graph(const work *w) {
    dnn_run r = {.g = &w->plan->graph};
    tw_status status = TW_OK;
    memset(w->scratch, 0x7f, tw_dnn_scratch(w->plan));
    for (int i = 0; i < r.g->tensors; i++) {
        const tw_dnn_tensor *t = &r.g->tensor[i];
        r.value[i] = (dnn_values){.t = t, .memory = t->slot >= 0 ? w->slot[t->slot] : NULL};
    }
    for (int i = 0; i < r.g->tensors && status == TW_OK; i++) {
        const tw_dnn_tensor *t = &r.g->tensor[i];
        if (t->slot != TW_DNN_INSIDE) continue;
        int64_t n = tw_dnn_extent(t);
        r.value[i].inside = malloc((size_t)n * sizeof(double));
        if (!r.value[i].inside) status = FAIL(TW_ERR_MEMORY, "out of memory");
        for (int64_t e = 0; status == TW_OK && e < n; e++) r.value[i].inside[e] = NAN;
    }
    for (int i = 0; i < r.g->nodes && status == TW_OK; i++) status = run_node(&r, &r.g->node[i]);
    for (int i = 0; i < r.g->tensors; i++) free(r.value[i].inside);
    return status;
}

/* Of a late device an error comes out of a later call, as a GPU's does. */
static tw_status last = TW_OK;

static void run_work(void *context) {
    tw_status status = run_graph(context);
    if (last == TW_OK) last = status;
}

static tw_status queue(tw_device *d, const work *w) {
    TRY(tw_shim_work(d, run_work, w, sizeof *w));
    tw_status status = last;
    last = TW_OK;
    return status;
}

static bool is_small(const tw_dnn_graph *g) {
    enum { ELEMENTS = 20000 };
    int64_t sum = 0;
    for (int i = 0; i < g->tensors; i++) sum += tw_dnn_extent(&g->tensor[i]);
    return sum <= ELEMENTS;
}

/* As cudnn.c does it: the trial's memory is that of the graph, no byte less. */
static tw_status try_once(tw_device *d, const tw_dnn_plan *p) {
    tw_dnn_trial t;
    bool enough;
    d = tw_cuda_itself(d);
    if (!is_small(&p->graph) || tw_cuda_capturing(d)) return TW_OK; /* the second is an error of cudnn.c's */
    TRY(tw_dnn_trial_begin(d, &p->graph, &t, &enough));
    tw_status status = enough ? tw_dnn_trial_room(&t, tw_dnn_scratch(p), &enough) : TW_OK;
    if (enough && status == TW_OK) {
        work w = {.plan = p, .scratch = t.scratch};
        memcpy(w.slot, t.slot, sizeof w.slot);
        status = queue(d, &w);
        if (status == TW_OK) status = d->sync(d, TW_QUEUE_COMPUTE);
    }
    tw_dnn_trial_end(&t);
    return status;
}

tw_status tw_dnn_run(tw_device *d, const tw_dnn_plan *plan, void *const slot[TW_DNN_SLOTS], void *scratch) {
    const tw_dnn_graph *g = &plan->graph;
    work w = {.plan = plan, .scratch = scratch};
    for (int i = 0; i < g->tensors; i++) {
        int at = g->tensor[i].slot;
        if (at >= 0 && (!slot[at] || (uintptr_t)slot[at] % 16 != 0))
            return FAIL(TW_ERR_ARGUMENT, "slot %d has no memory on a 16-byte boundary", at);
        if (at >= 0) w.slot[at] = slot[at];
    }
    notes.runs++;
    return queue(d, &w);
}
