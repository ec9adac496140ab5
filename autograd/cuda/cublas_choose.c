/* Which of cuBLASLt's algorithms runs a product: of those that its heuristic proposes the one that takes the
 * least time on this device, with the call's own data. */
#include "autograd/cuda/choice.h"
#include "autograd/cuda/cublas_plan.h"

#include <math.h>
#include <stdio.h>

/* Each algorithm is timed ROUNDS times, RUNS in a row, the algorithms taking turns. */
enum { ROUNDS = 2, RUNS = 2 };
static const double least_flops = 1e9;    /* of a product that is measured: some 2 us of a fast GPU */
static const double most_of_a_plan = 0.1; /* seconds on the device */
static const double most_of_all = 5.0;
/* What a pass of our own over a factor takes, about: its launches, and what it reads in a second. */
static const double least_of_a_pass = 5e-6, bytes_of_a_pass = 2e12;

bool tw_cublas_is_large(const tw_cublas_key *key) {
    return 2.0 * (double)key->m * (double)key->n * (double)key->k >= least_flops;
}

/* ---- what the library proposes ---- */

static cublasStatus_t set_preferences(cublasLtMatmulPreference_t preference, const tw_cublas_key *key) {
    static const cublasLtMatmulPreferenceAttributes_t names[4] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    /* Parts of a sum that was split are added in f32; the other schemes do it in the result's type. */
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint64_t workspace = TW_CUBLAS_WORKSPACE;
    cublasStatus_t s = cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                 &schemes, sizeof schemes);
    for (int i = 0; i < 4 && s == CUBLAS_STATUS_SUCCESS; i++) {
        uint32_t bytes = (uint32_t)key->alignment[i];
        s = cublasLtMatmulPreferenceSetAttribute(preference, names[i], &bytes, sizeof bytes);
    }
    return s;
}

tw_status tw_cublas_propose(const tw_cublas *l, tw_cublas_plan *p) {
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t result[TW_CUBLAS_ALGORITHMS];
    int found = 0;
    TRY(tw_cublas_status(cublasLtMatmulPreferenceCreate(&preference), "choosing a product's algorithm"));
    cublasStatus_t s = set_preferences(preference, &p->key);
    if (s == CUBLAS_STATUS_SUCCESS) {
        s = cublasLtMatmulAlgoGetHeuristic(l->handle, p->product, p->a, p->b, p->c, p->out, preference,
                                           TW_CUBLAS_ALGORITHMS, result, &found);
        if (tw_cublas_refuses(s)) s = CUBLAS_STATUS_SUCCESS, found = 0;
    }
    (void)cublasLtMatmulPreferenceDestroy(preference);
    for (int i = 0; s == CUBLAS_STATUS_SUCCESS && i < found; i++)
        if (result[i].state == CUBLAS_STATUS_SUCCESS) p->algorithm[p->count++] = result[i].algo;
    return tw_cublas_status(s, "choosing a product's algorithm");
}

/* ---- timing ---- */

typedef struct timing {
    tw_device *d;
    tw_cublas *l;
    const tw_cublas_plan *p;
    const tw_cuda_product_args *args;
    void *out;
    tw_event *mark[2];
    double spent, seconds[TW_CUBLAS_ALGORITHMS]; /* of a run; INFINITY: not timed, or refused */
} timing;

/* The first run, untimed, loads the kernel and keeps the queue busy while the others are queued. */
static tw_status time_algorithm(timing *t, int i) {
    tw_device *d = t->d;
    double took;
    for (int run = 0; run <= RUNS; run++) {
        if (run == 1) TRY(d->stamp(d, TW_QUEUE_COMPUTE, &t->mark[0]));
        cublasStatus_t s = tw_cublas_multiply(d, t->l, t->p, t->args, i, t->out);
        if (tw_cublas_refuses(s)) return TW_OK;
        TRY(tw_cublas_status(s, "timing a product"));
    }
    TRY(d->stamp(d, TW_QUEUE_COMPUTE, &t->mark[1]));
    for (int m = 0; m < 2; m++) TRY(d->await(d, t->mark[m]));
    TRY(d->seconds(d, t->mark[0], t->mark[1], &took));
    t->spent += took / RUNS * (1 + RUNS);
    t->seconds[i] = fmin(t->seconds[i], took / RUNS);
    return TW_OK;
}

static tw_status time_all(timing *t) {
    for (int i = 0; i < TW_CUBLAS_ALGORITHMS; i++) t->seconds[i] = (double)INFINITY;
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < t->p->count && t->spent < most_of_a_plan; i++) TRY(time_algorithm(t, i));
    return TW_OK;
}

/* What the result is added to would change with each run: those go elsewhere. Without memory for that nothing
 * is measured. */
static tw_status make_place(timing *t) {
    const tw_cuda_product_args *a = t->args;
    t->out = a->out;
    if (a->c != a->out) return TW_OK;
    size_t elements = (size_t)((a->m - 1) * a->out_stride + a->n);
    tw_status status = t->d->alloc(t->d, elements * tw_dtype_size(a->out_type), &t->out);
    return status == TW_ERR_MEMORY ? TW_OK : status;
}

static tw_status note(const timing *t, int fastest) {
    char what[128], text[TW_CHOICE_LINE];
    tw_cublas_tell(&t->p->key, what, sizeof what);
    int n = snprintf(text, sizeof text, "product %s: by cuBLASLt's algorithm %d of %d (%.4f ms", what,
                     fastest + 1, t->p->count, 1e3 * t->seconds[fastest]);
    if (fastest > 0)
        snprintf(text + n, sizeof text - (size_t)n, "; by its first choice %.4f ms)", 1e3 * t->seconds[0]);
    else
        snprintf(text + n, sizeof text - (size_t)n, ")");
    return tw_cuda_note_choice(t->d, text);
}

tw_status tw_cublas_measure(tw_device *d, tw_cublas *l, tw_cublas_plan *p, const tw_cuda_product_args *args) {
    if (p->settled || tw_cuda_deterministic(d) || tw_cuda_capturing(d)) return TW_OK;
    p->settled = true;
    if (p->count == 0 || !tw_cublas_is_large(&p->key) || l->spent > most_of_all) return TW_OK;
    timing t = {.d = d, .l = l, .p = p, .args = args};
    TRY(make_place(&t));
    if (!t.out) return TW_OK;
    tw_status status = time_all(&t);
    l->spent += t.spent;
    for (int i = 0; i < 2; i++) d->event_release(d, t.mark[i]);
    if (t.out != args->out) d->release(d, t.out);
    TRY(status);
    for (int i = 1; i < p->count; i++)
        if (t.seconds[i] < t.seconds[p->fastest]) p->fastest = i;
    if (!isfinite(t.seconds[p->fastest])) return TW_OK;
    p->seconds = t.seconds[p->fastest];
    return note(&t, p->fastest);
}

tw_status tw_cublas_weigh(tw_device *d, const tw_cublas_plan *sums, const tw_cublas_plan *plain,
                          bool *longer) {
    const tw_cublas_key *k = &sums->key;
    double factor = (double)(k->fused == TW_FUSED_SUM_A ? k->m : k->n) * (double)k->k,
           pass = least_of_a_pass + factor * (double)tw_dtype_size((tw_dtype)k->type) / bytes_of_a_pass;
    char what[128], text[TW_CHOICE_LINE];
    *longer = sums->seconds > 0 && plain->seconds > 0 && plain->seconds + pass < sums->seconds;
    if (!*longer) return TW_OK;
    tw_cublas_tell(k, what, sizeof what);
    snprintf(text, sizeof text,
             "product %s: its sums by a pass of our own (%.4f ms with it; by cuBLASLt %.4f ms)", what,
             1e3 * (plain->seconds + pass), 1e3 * sums->seconds);
    return tw_cuda_note_choice(d, text);
}
