#include "train/recall.h"

#include <limits.h>
#include <stdlib.h>

/* Queries are taken in blocks, so that memory stays small whatever the pool. */
enum { QUERY_BLOCK = 4096 };

typedef struct search {
    tw_device *device;
    float *gallery, *queries;
    tw_call call;
    tw_top_k_attr attr;
    int32_t *indexes;
    float *scores;
    void *scratch;
} search;

static void close_search(search *s) {
    void *blocks[] = {s->gallery, s->queries, s->indexes, s->scores, s->scratch};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) s->device->release(s->device, blocks[i]);
}

static tw_status open_search(search *s, const float *gallery, int64_t m, int64_t d, int k) {
    tw_device *dev = s->device;
    s->attr.k = k;
    TRY(dev->alloc(dev, (size_t)(m * d) * 4, (void **)&s->gallery));
    TRY(dev->upload(dev, TW_QUEUE_COMPUTE, s->gallery, gallery, (size_t)(m * d) * 4));
    TRY(dev->alloc(dev, (size_t)(QUERY_BLOCK * d) * 4, (void **)&s->queries));
    TRY(dev->alloc(dev, (size_t)QUERY_BLOCK * (size_t)k * 4, (void **)&s->indexes));
    return dev->alloc(dev, (size_t)QUERY_BLOCK * (size_t)k * 4, (void **)&s->scores);
}

static tw_status search_block(search *s, const float *queries, int64_t n, int64_t m, int64_t d) {
    tw_device *dev = s->device;
    int64_t query_shape[2] = {n, d}, gallery_shape[2] = {m, d};
    size_t old = s->call.forward_scratch;
    s->call = (tw_call){.op = TW_OP_top_k, .device = dev, .attr = &s->attr, .n_inputs = 2};
    s->call.input[0] = tw_tensor_of(s->queries, TW_F32, 2, query_shape);
    s->call.input[1] = tw_tensor_of(s->gallery, TW_F32, 2, gallery_shape);
    TRY(tw_op_prepare(&s->call));
    s->call.output[0].data = s->indexes;
    s->call.output[1].data = s->scores;
    if (s->call.forward_scratch > old) {
        dev->release(dev, s->scratch);
        s->scratch = NULL;
        TRY(dev->alloc(dev, s->call.forward_scratch, &s->scratch));
    }
    s->call.scratch = s->scratch;
    TRY(dev->upload(dev, TW_QUEUE_COMPUTE, s->queries, queries, (size_t)(n * d) * 4));
    return tw_op_forward(&s->call);
}

static tw_status search_all(search *s, const float *queries, int64_t n, int64_t m, int64_t d,
                            int32_t *indexes, float *scores) {
    tw_device *dev = s->device;
    int k = s->attr.k;
    for (int64_t at = 0; at < n; at += QUERY_BLOCK) {
        int64_t count = n - at < QUERY_BLOCK ? n - at : QUERY_BLOCK;
        TRY(search_block(s, queries + at * d, count, m, d));
        size_t bytes = (size_t)(count * k) * 4;
        if (indexes) TRY(dev->download(dev, TW_QUEUE_COMPUTE, indexes + at * k, s->indexes, bytes));
        if (scores) TRY(dev->download(dev, TW_QUEUE_COMPUTE, scores + at * k, s->scores, bytes));
        TRY(dev->sync(dev, TW_QUEUE_COMPUTE));
    }
    return TW_OK;
}

tw_status tw_retrieve(tw_device *device, const float *queries, int64_t n, const float *gallery, int64_t m,
                      int64_t d, int k, int32_t *indexes, float *scores, int *k_out) {
    *k_out = m < k ? (int)m : k;
    if (n == 0 || *k_out == 0) return TW_OK;
    search s = {.device = device};
    tw_status status = open_search(&s, gallery, m, d, *k_out);
    if (status == TW_OK) status = search_all(&s, queries, n, m, d, indexes, scores);
    close_search(&s);
    return status;
}

void tw_recall_add(tw_recall_count *count, int rank) {
    count->queries++;
    count->hits[0] += rank < 1;
    count->hits[1] += rank < 5;
    count->hits[2] += rank < 10;
}

tw_recall tw_recall_counted(const tw_recall_count *count) {
    /* In the original's order of operations, so that the last digit is the same. */
    double all = count->queries ? (double)count->queries : 1.0;
    double r1 = (double)count->hits[0] / all, r5 = (double)count->hits[1] / all,
           r10 = (double)count->hits[2] / all;
    return (tw_recall){r1 * 100.0, r5 * 100.0, r10 * 100.0, (r1 + r5 + r10) / 3.0 * 100.0};
}

static bool is_positive(int32_t index, const int64_t *start, const int64_t *of, int64_t query) {
    for (int64_t p = start[query]; p < start[query + 1]; p++)
        if (of[p] == index) return true;
    return false;
}

tw_recall tw_recall_of(const int32_t *indexes, int64_t n, int k, const int64_t *start, const int64_t *of,
                       bool only_with_positives) {
    tw_recall_count count = {0};
    for (int64_t i = 0; i < n; i++) {
        if (only_with_positives && start[i] == start[i + 1]) continue;
        int rank = 0;
        while (rank < k && !is_positive(indexes[i * k + rank], start, of, i)) rank++;
        tw_recall_add(&count, rank < k ? rank : INT_MAX);
    }
    return tw_recall_counted(&count);
}

static tw_status one_direction(tw_device *device, const float *queries, int64_t n, const float *gallery,
                               int64_t m, int64_t d, const int64_t *start, const int64_t *of,
                               bool only_with_positives, tw_recall *out) {
    enum { K = 10 };
    int k;
    int32_t *indexes = malloc((size_t)n * K * sizeof *indexes + 1);
    if (!indexes) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = tw_retrieve(device, queries, n, gallery, m, d, K, indexes, NULL, &k);
    if (status == TW_OK) *out = tw_recall_of(indexes, n, k, start, of, only_with_positives);
    free(indexes);
    return status;
}

tw_status tw_recall_pool(tw_device *device, const tw_pool *pool, const float *image, const float *text,
                         int64_t d, tw_recall *text_to_image, tw_recall *image_to_text) {
    TRY(one_direction(device, text, pool->n_texts, image, pool->n_images, d, pool->image_start,
                      pool->image_of, false, text_to_image));
    return one_direction(device, image, pool->n_images, text, pool->n_texts, d, pool->text_start,
                         pool->text_of, true, image_to_text);
}
