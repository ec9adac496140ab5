/* Graphs for the shim: each operation of a graph in order, on the host, in f64, rounded to the type of what
 * it writes. It promises as little as the library might: what matmul is told not to count is NaN within the
 * graph and left as it is in memory. Every second device has no plans, so that own kernels are tested too.
 * TW_SHIM_REFUSES=1 in the environment: it has a kernel for no graph. */
#include "autograd/cuda/cuda.h"
#include "autograd/cuda/dnn_notes.h"
#include "device_shim.h"

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
    p->refused = is_refused(&p->graph);
    plans = p;
    if (p->refused) tw_dnn_notes_refusal(&notes, &p->graph, "the shim was told to refuse it");
    *out = p->refused ? NULL : p;
    return p->graph.full ? FAIL(TW_ERR_ARGUMENT, "a graph of too many parts") : TW_OK;
}

size_t tw_dnn_scratch(const tw_dnn_plan *plan) {
    (void)plan;
    return 48; /* which must be there */
}

/* ---- tensors ---- */

typedef struct values {
    const tw_dnn_tensor *t;
    void *memory;   /* given, or NULL */
    double *inside; /* of a tensor within the graph */
} values;

typedef struct run {
    const tw_dnn_graph *g;
    values value[TW_DNN_TENSORS];
} run;

static double get(const values *v, int64_t at) {
    if (v->t->slot == TW_DNN_VALUE) return (double)v->t->value;
    if (v->inside) return v->inside[at];
    switch (v->t->type) {
    case TW_DNN_F32:
        return (double)((const float *)v->memory)[at];
    case TW_DNN_BF16:
        return (double)tw_from_bf16(((const uint16_t *)v->memory)[at]);
    case TW_DNN_I32:
        return (double)((const int32_t *)v->memory)[at];
    case TW_DNN_I64:
        return (double)((const int64_t *)v->memory)[at];
    default:
        return (double)((const uint8_t *)v->memory)[at];
    }
}

static void put(const values *v, int64_t at, double x) {
    if (v->t->type == TW_DNN_F32) x = (double)(float)x;
    if (v->t->type == TW_DNN_BF16) x = (double)tw_from_bf16(tw_to_bf16((float)x));
    if (v->inside)
        v->inside[at] = x;
    else if (v->t->type == TW_DNN_F32)
        ((float *)v->memory)[at] = (float)x;
    else if (v->t->type == TW_DNN_BF16)
        ((uint16_t *)v->memory)[at] = tw_to_bf16((float)x);
}

typedef struct place {
    int64_t i[4];
} place;

static int64_t offset(const tw_dnn_tensor *t, const place *p) {
    int64_t at = 0;
    for (int k = 0; k < 4; k++) at += (t->dim[k] == 1 ? 0 : p->i[k]) * t->stride[k];
    return at;
}

static int64_t count(const tw_dnn_tensor *t) {
    return t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3];
}

static place place_of(const tw_dnn_tensor *t, int64_t n) {
    place p;
    for (int k = 3; k >= 0; k--) p.i[k] = n % t->dim[k], n /= t->dim[k];
    return p;
}

/* ---- operations ---- */

static const values *in(const run *r, const tw_dnn_node *n, int i) {
    return n->in[i] == TW_DNN_NONE ? NULL : &r->value[n->in[i]];
}

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

static double apply(const tw_dnn_node *n, const double x[3], const place *p) {
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

static void pointwise(const run *r, const tw_dnn_node *n) {
    const values *out = &r->value[n->out[0]];
    for (int64_t e = 0; e < count(out->t); e++) {
        place p = place_of(out->t, e);
        double x[3] = {0, 0, 0};
        for (int i = 0; i < 3; i++)
            if (in(r, n, i)) x[i] = get(in(r, n, i), offset(in(r, n, i)->t, &p));
        put(out, offset(out->t, &p), apply(n, x, &p));
    }
}

static void reduce(const run *r, const tw_dnn_node *n) {
    const values *x = in(r, n, 0), *out = &r->value[n->out[0]];
    int64_t outputs = count(out->t);
    double *sum = malloc((size_t)outputs * sizeof *sum);
    for (int64_t e = 0; sum && e < outputs; e++) sum[e] = n->op == TW_DNN_MAX ? -INFINITY : 0;
    for (int64_t e = 0; sum && e < count(x->t); e++) {
        place p = place_of(x->t, e);
        int64_t to = 0;
        for (int k = 0; k < 4; k++) to = to * out->t->dim[k] + (out->t->dim[k] == 1 ? 0 : p.i[k]);
        double v = get(x, offset(x->t, &p));
        if (n->op == TW_DNN_SUM)
            sum[to] += v;
        else if (!(sum[to] >= v))
            sum[to] = v; /* NaN stays */
    }
    for (int64_t e = 0; sum && e < outputs; e++) {
        place p = place_of(out->t, e);
        put(out, offset(out->t, &p), sum[e]);
    }
    free(sum);
}

/* How much of a product's dimension counts in sample b. */
static int64_t part(const run *r, const tw_dnn_node *n, int i, int64_t b, int64_t whole) {
    const values *v = in(r, n, i);
    return v ? (int64_t)get(v, b * v->t->stride[0]) : whole;
}

static void matmul(const run *r, const tw_dnn_node *n) {
    const values *a = in(r, n, 0), *b = in(r, n, 1), *out = &r->value[n->out[0]];
    for (int64_t e = 0; e < count(out->t); e++) {
        place p = place_of(out->t, e), left = p, right = p;
        int64_t sample = p.i[0], inner = part(r, n, 4, sample, a->t->dim[3]);
        double sum = 0;
        if (p.i[2] >= part(r, n, 2, sample, out->t->dim[2]) ||
            p.i[3] >= part(r, n, 3, sample, out->t->dim[3])) {
            if (out->inside) out->inside[offset(out->t, &p)] = NAN;
            continue;
        }
        for (int64_t k = 0; k < inner; k++) {
            left.i[3] = right.i[2] = k;
            sum += get(a, offset(a->t, &left)) * get(b, offset(b->t, &right));
        }
        put(out, offset(out->t, &p), sum);
    }
}

static void reshape(const run *r, const tw_dnn_node *n) {
    const values *x = in(r, n, 0), *out = &r->value[n->out[0]];
    for (int64_t e = 0; e < count(out->t); e++) {
        place p = place_of(out->t, e);
        put(out, offset(out->t, &p), get(x, offset(out->t, &p)));
    }
}

/* Any function of seed, offset and element will do. */
static void keep(const run *r, const tw_dnn_node *n) {
    const values *out = &r->value[n->out[0]];
    uint64_t seed = (uint64_t)get(in(r, n, 0), 0) + (uint64_t)get(in(r, n, 1), 0);
    for (int64_t e = 0; e < count(out->t); e++) {
        uint64_t h = (seed ^ (uint64_t)e * 0x9E3779B97F4A7C15u) * 0xBF58476D1CE4E5B9u;
        h = (h ^ h >> 31) * 0x94D049BB133111EBu;
        place p = place_of(out->t, e);
        put(out, offset(out->t, &p), (double)(h >> 11) * 0x1p-53 < (double)n->value);
    }
}

/* Every pair of a pixel of y and a place of the kernel adds one product. */
static void convolve(const run *r, const tw_dnn_node *n) {
    /* x, w, y and which of them is written */
    const values *out = &r->value[n->out[0]], *first = in(r, n, 0), *second = in(r, n, 1);
    const values *x = n->op == TW_DNN_CONV ? first : n->op == TW_DNN_CONV_X ? out : second;
    const values *w = n->op == TW_DNN_CONV_W ? out : second;
    const values *y = n->op == TW_DNN_CONV ? out : first;
    double *sum = calloc((size_t)tw_dnn_extent(out->t), sizeof *sum);
    for (int64_t e = 0; sum && e < count(y->t); e++) {
        place p = place_of(y->t, e);
        int64_t at_y = offset(y->t, &p);
        for (int64_t k = 0; k < w->t->dim[1] * w->t->dim[2] * w->t->dim[3]; k++) {
            int64_t c = k / (w->t->dim[2] * w->t->dim[3]), ky = k / w->t->dim[3] % w->t->dim[2],
                    kx = k % w->t->dim[3];
            place from = {
                {p.i[0], c, p.i[2] * n->stride + ky - n->padding, p.i[3] * n->stride + kx - n->padding}};
            place of_w = {{p.i[1], c, ky, kx}};
            if (from.i[2] < 0 || from.i[2] >= x->t->dim[2] || from.i[3] < 0 || from.i[3] >= x->t->dim[3])
                continue;
            int64_t at_x = offset(x->t, &from), at_w = offset(w->t, &of_w);
            if (n->op == TW_DNN_CONV)
                sum[at_y] += get(x, at_x) * get(w, at_w);
            else if (n->op == TW_DNN_CONV_X)
                sum[at_x] += get(y, at_y) * get(w, at_w);
            else
                sum[at_w] += get(y, at_y) * get(x, at_x);
        }
    }
    for (int64_t e = 0; sum && e < count(out->t); e++) {
        place p = place_of(out->t, e);
        put(out, offset(out->t, &p), sum[offset(out->t, &p)]);
    }
    free(sum);
}

/* Batch norm's y, mean and 1 / sqrt(variance + epsilon). */
static void normalise(const run *r, const tw_dnn_node *n) {
    const values *x = in(r, n, 0), *y = &r->value[n->out[0]];
    int64_t all = count(x->t), rows = all / x->t->dim[1];
    double eps = get(in(r, n, 3), 0);
    for (int64_t c = 0; c < x->t->dim[1]; c++) {
        place channel = {{0, c, 0, 0}};
        double mean = 0, variance = 0;
        for (int pass = 0; pass < 3; pass++)
            for (int64_t e = 0; e < all; e++) {
                place p = place_of(x->t, e);
                if (p.i[1] != c) continue;
                double v = get(x, offset(x->t, &p));
                if (pass == 0) mean += v / (double)rows;
                if (pass == 1) variance += (v - mean) * (v - mean) / (double)rows;
                if (pass < 2) continue;
                double gain = get(in(r, n, 1), offset(in(r, n, 1)->t, &p)),
                       bias = get(in(r, n, 2), offset(in(r, n, 2)->t, &p));
                put(y, offset(y->t, &p), (v - mean) / sqrt(variance + eps) * gain + bias);
            }
        const values *to = &r->value[n->out[1]], *inverse = &r->value[n->out[2]];
        put(to, offset(to->t, &channel), mean);
        put(inverse, offset(inverse->t, &channel), 1 / sqrt(variance + eps));
    }
}

static tw_status run_node(const run *r, const tw_dnn_node *n) {
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
        convolve(r, n);
        return TW_OK;
    case TW_DNN_NORM:
        normalise(r, n);
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
    run r = {.g = &w->plan->graph};
    tw_status status = TW_OK;
    memset(w->scratch, 0x7f, tw_dnn_scratch(w->plan));
    for (int i = 0; i < r.g->tensors; i++) {
        const tw_dnn_tensor *t = &r.g->tensor[i];
        r.value[i] = (values){.t = t, .memory = t->slot >= 0 ? w->slot[t->slot] : NULL};
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
    TRY(tw_shim_work(d, run_work, &w, sizeof w));
    tw_status status = last;
    last = TW_OK;
    return status;
}
