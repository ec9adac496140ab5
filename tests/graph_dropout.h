/* Attention with dropout against a reference that reads the mask out of the result: with one_hot
 * (graph_run.h) the result is the matrix of dropped probabilities, so that an element of 0 was dropped.
 * Results and gradients, all in f64 from there, must then follow. */
#ifndef TW_TESTS_GRAPH_DROPOUT_H
#define TW_TESTS_GRAPH_DROPOUT_H

#include "graph_run.h"

#include <math.h>

enum { MOST_TOKENS = 64 };

/* A head of a sample. */
typedef struct dropped_head {
    int64_t queries, keys, width, d;          /* d: of all heads */
    const float *qkv, *y, *dqkv;              /* of the sample's first token and the head's first column */
    double scale, factor;                     /* factor: 1 / (1 - rate) */
    double p[MOST_TOKENS][MOST_TOKENS];       /* probabilities */
    double dropped[MOST_TOKENS][MOST_TOKENS]; /* after dropout, as the result's mask says */
    double slope[MOST_TOKENS][MOST_TOKENS];   /* the gradient of the scores */
} dropped_head;

/* Squares of differences and of what was expected. */
typedef struct distance {
    double apart, size;
} distance;

static inline void add_distance(distance *d, float got, double expected) {
    d->apart += ((double)got - expected) * ((double)got - expected);
    d->size += expected * expected;
}

static inline double dropped_score(const dropped_head *h, int64_t q, int64_t k) {
    double sum = 0;
    const float *a = h->qkv + q * 3 * h->d, *b = h->qkv + k * 3 * h->d + h->d;
    for (int64_t i = 0; i < h->width; i++) sum += (double)a[i] * (double)b[i];
    return sum * h->scale;
}

static inline void dropped_probabilities(dropped_head *h) {
    for (int64_t q = 0; q < h->queries; q++) {
        double most = -INFINITY, sum = 0;
        for (int64_t k = 0; k < h->keys; k++) {
            h->p[q][k] = dropped_score(h, q, k);
            most = fmax(most, h->p[q][k]);
        }
        for (int64_t k = 0; k < h->keys; k++) {
            h->p[q][k] = exp(h->p[q][k] - most);
            sum += h->p[q][k];
        }
        for (int64_t k = 0; k < h->keys; k++) {
            h->p[q][k] /= sum;
            h->dropped[q][k] = h->y[q * h->d + k] == 0 ? 0 : h->p[q][k] * h->factor;
        }
        /* d result / d probability is 1 on the diagonal only, where it was kept. */
        double diagonal = q < h->keys ? h->dropped[q][q] : 0;
        for (int64_t k = 0; k < h->keys; k++)
            h->slope[q][k] = (q == k ? diagonal : 0) - h->p[q][k] * diagonal;
    }
}

/* What should lie in columns of v (or of the result: they are each other's transposes), q and k. */
static inline void compare_dropped_head(const dropped_head *h, distance part[4]) {
    for (int64_t t = 0; t < h->queries; t++)
        for (int64_t i = 0; i < h->width; i++) {
            bool key = t < h->keys;
            double dq = 0, dk = 0;
            for (int64_t k = 0; k < h->keys; k++)
                dq += h->slope[t][k] * h->scale * (double)h->qkv[k * 3 * h->d + h->d + i];
            for (int64_t q = 0; key && q < h->queries; q++)
                dk += h->slope[q][t] * h->scale * (double)h->qkv[q * 3 * h->d + i];
            const float *gradient = h->dqkv + t * 3 * h->d + i;
            add_distance(&part[0], h->y[t * h->d + i], i < h->keys ? h->dropped[t][i] : 0);
            add_distance(&part[1], gradient[0], dq);
            add_distance(&part[2], gradient[h->d], dk);
            add_distance(&part[3], gradient[2 * h->d], key && i < h->queries ? h->dropped[i][t] : 0);
        }
}

static inline dropped_head dropped_head_of(const graph_case *c, const graph_run *r, int64_t b, int64_t head) {
    const tw_attention_attr *attr = &c->attr.attention;
    int64_t tokens = graph_tokens(c), first = graph_is_packed(c) ? graph_offset(c, b) : b * tokens;
    dropped_head h = {.queries = tokens, .keys = tokens, .d = tw_tensor_cols(&c->input[0]) / 3};
    if (graph_is_packed(c)) h.queries = graph_length(c, b);
    if (graph_is_packed(c) || tw_present(&c->input[1])) h.keys = graph_length(c, b);
    ck_assert(r->first && r->result[0] && r->result[1]);
    ck_assert(h.queries <= MOST_TOKENS && h.keys <= h.queries);
    h.width = h.d / attr->heads;
    ck_assert_int_le(h.queries, h.width);
    h.scale = 1 / sqrt((double)h.width), h.factor = 1 / (1 - (double)attr->dropout);
    h.qkv = r->first + first * 3 * h.d + head * h.width;
    h.y = r->result[0] + first * h.d + head * h.width;
    h.dqkv = r->result[1] + first * 3 * h.d + head * h.width;
    return h;
}

/* Elements dropped, and how many of them the next head drops too. */
typedef struct dropped_count {
    double all, dropped, pairs, both;
} dropped_count;

static inline void count_dropped(const dropped_head *h, bool next, dropped_count *n) {
    for (int64_t q = 0; q < h->queries; q++)
        for (int64_t k = 0; k < h->keys; k++) {
            bool gone = h->y[q * h->d + k] == 0;
            n->all++, n->dropped += gone;
            n->pairs += next, n->both += next && gone && h->y[q * h->d + k + h->width] == 0;
        }
}

/* Within five standard deviations of n draws with probability p. */
static inline bool is_likely(double count, double n, double p) {
    return fabs(count - n * p) <= 5 * sqrt(n * p * (1 - p));
}

static inline void check_dropped(const graph_case *c, const graph_run *r, const char *by) {
    static const char *const names[] = {"result", "gradient of q", "gradient of k", "gradient of v"};
    const tw_attention_attr *attr = &c->attr.attention;
    int64_t batch = graph_is_packed(c) ? c->input[2].shape[0] - 1 : c->input[0].shape[0];
    double rate = (double)attr->dropout;
    dropped_count n = {0};
    distance part[4] = {{0, 0}};
    for (int64_t b = 0; b < batch; b++)
        for (int64_t head = 0; head < attr->heads; head++) {
            dropped_head h = dropped_head_of(c, r, b, head);
            dropped_probabilities(&h);
            compare_dropped_head(&h, part);
            count_dropped(&h, head + 1 < attr->heads, &n);
        }
    for (int i = 0; i < 4; i++)
        ck_assert_msg(part[i].apart <= 1e-4 * part[i].size,
                      "%s, by %s: the %s is %.3g from what its mask says", c->name, by, names[i],
                      sqrt(part[i].apart / part[i].size));
    ck_assert_msg(is_likely(n.dropped, n.all, rate), "%s, by %s: %.0f of %.0f elements are dropped", c->name,
                  by, n.dropped, n.all);
    ck_assert_msg(is_likely(n.both, n.pairs, rate * rate),
                  "%s, by %s: two heads drop the same %.0f of %.0f elements", c->name, by, n.both, n.pairs);
}

#endif
