/* Which of cuDNN's engines runs a graph: the library's order of preference, less those that break the graph's
 * rules. */
#include "autograd/cuda/cudnn_backend.h"

#include <stdio.h>

enum { NOTES = CUDNN_NUMERICAL_NOTE_TYPE_COUNT };

/* Whether a graph's tensors in memory are f32, so that less exact kernels are to be kept off. */
static bool is_f32(const tw_dnn_graph *g) {
    for (int i = 0; i < g->tensors; i++)
        if (g->tensor[i].slot >= 0 && g->tensor[i].type == TW_DNN_BF16) return false;
    return true;
}

/* Sums are f32 whatever the factors are. TF32 rounds factors only; sums of transformed products are no f32.
 */
static bool breaks_rules(const tw_dnn_graph *g, bool f32, cudnnBackendNumericalNote_t note) {
    switch (note) {
    case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
        return g->rules.deterministic;
    case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION:
        return true;
    case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:
        return f32;
    case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
    case CUDNN_NUMERICAL_NOTE_FFT:
    case CUDNN_NUMERICAL_NOTE_WINOGRAD:
        return f32 && g->rules.true_f32;
    default:
        return false;
    }
}

/* Whether the engine of a configuration keeps the graph's rules. */
static tw_status keeps_rules(const tw_dnn_graph *g, cudnnBackendDescriptor_t config,
                             tw_cudnn_descriptors *all, bool *out) {
    cudnnBackendDescriptor_t engine;
    cudnnBackendNumericalNote_t notes[NOTES];
    int64_t count = 0;
    bool f32 = is_f32(g);
    *out = true;
    TRY(tw_cudnn_create(all, CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine));
    TRY(tw_cudnn_status(cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &engine),
                        "asking for an engine"));
    TRY(tw_cudnn_status(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                                 CUDNN_TYPE_NUMERICAL_NOTE, NOTES, &count, notes),
                        "asking for an engine's notes"));
    for (int64_t i = 0; i < count && i < NOTES; i++)
        if (breaks_rules(g, f32, notes[i])) *out = false;
    return TW_OK;
}

/* The first of `count` proposed configurations that keep the rules; how many there are. */
static int sift(const tw_dnn_graph *g, tw_cudnn_descriptors *all, const cudnnBackendDescriptor_t *proposed,
                int64_t count, cudnnBackendDescriptor_t config[TW_CUDNN_CONFIGS]) {
    int kept = 0;
    for (int64_t i = 0; i < count && i < TW_CUDNN_ASKED && kept < TW_CUDNN_CONFIGS; i++) {
        int before = all->count;
        bool keeps;
        tw_status status = keeps_rules(g, proposed[i], all, &keeps);
        tw_cudnn_release(all, before);
        if (status == TW_OK && keeps) config[kept++] = proposed[i]; /* one that does not tell is not used */
    }
    return kept;
}

tw_status tw_cudnn_propose(const tw_dnn_graph *g, cudnnBackendDescriptor_t graph, bool fallback,
                           tw_cudnn_place place, tw_cudnn_descriptors *all,
                           cudnnBackendDescriptor_t config[TW_CUDNN_CONFIGS], int *count) {
    cudnnBackendHeurMode_t mode = fallback ? CUDNN_HEUR_MODE_FALLBACK : CUDNN_HEUR_MODE_A;
    cudnnBackendDescriptor_t heuristics, proposed[TW_CUDNN_ASKED];
    int64_t found = 0;
    *count = 0;
    TRY(tw_cudnn_create(all, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristics));
    TRY(tw_cudnn_set(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                     &graph));
    TRY(tw_cudnn_set(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode));
    if (!place.handle)
        TRY(tw_cudnn_set(heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                         &place.properties));
    TRY(tw_cudnn_finish(heuristics, "choosing an engine"));
    for (int i = 0; i < TW_CUDNN_ASKED; i++)
        TRY(tw_cudnn_create(all, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &proposed[i]));
    TRY(tw_cudnn_status(cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, TW_CUDNN_ASKED, &found,
                                                 proposed),
                        "choosing an engine"));
    *count = sift(g, all, proposed, found, config);
    return TW_OK;
}

/* Makes a configuration's plan; TW_ERR_UNSUPPORTED where it needs too much memory. */
static tw_status make_plan(cudnnBackendDescriptor_t config, cudnnHandle_t handle, size_t limit,
                           tw_cudnn_descriptors *all, cudnnBackendDescriptor_t *plan, size_t *scratch) {
    int64_t bytes = 0, count = 0;
    TRY(tw_cudnn_create(all, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, plan));
    TRY(tw_cudnn_set(*plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle));
    TRY(tw_cudnn_set(*plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                     &config));
    TRY(tw_cudnn_finish(*plan, "a plan"));
    TRY(tw_cudnn_status(cudnnBackendGetAttribute(*plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                                 CUDNN_TYPE_INT64, 1, &count, &bytes),
                        "asking for a plan's workspace"));
    *scratch = bytes > 0 ? (size_t)bytes : 0;
    if (*scratch <= limit) return TW_OK;
    return FAIL(TW_ERR_UNSUPPORTED, "a plan needs %zu bytes of workspace", *scratch);
}

tw_status tw_cudnn_choose(const tw_dnn_graph *g, cudnnBackendDescriptor_t graph, cudnnHandle_t handle,
                          const tw_cudnn_try *trial, tw_cudnn_descriptors *all,
                          cudnnBackendDescriptor_t *plan, size_t *scratch) {
    size_t limit = g->rules.most_scratch ? g->rules.most_scratch : SIZE_MAX;
    char why[512] = "no engine keeps the rules";
    for (int fallback = 0; fallback < 2; fallback++) {
        cudnnBackendDescriptor_t config[TW_CUDNN_CONFIGS];
        int before = all->count, count;
        tw_status status =
            tw_cudnn_propose(g, graph, fallback, (tw_cudnn_place){.handle = handle}, all, config, &count);
        if (status != TW_OK) snprintf(why, sizeof why, "%s", tw_last_error());
        for (int i = 0; i < count && status != TW_ERR_MEMORY; i++) {
            int proposed = all->count;
            status = make_plan(config[i], handle, limit, all, plan, scratch);
            if (status == TW_OK) status = trial->run(trial->context, *plan, *scratch);
            if (status == TW_OK) return TW_OK;
            snprintf(why, sizeof why, "%s", tw_last_error());
            tw_cudnn_release(all, proposed);
        }
        tw_cudnn_release(all, before);
        if (status == TW_ERR_MEMORY) return status;
    }
    return FAIL(TW_ERR_UNSUPPORTED, "cuDNN has no kernel for a graph of %d operations: %s", g->nodes, why);
}
