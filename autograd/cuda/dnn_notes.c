#include "autograd/cuda/dnn_notes.h"

#include <stdio.h>

void tw_dnn_notes_refusal(tw_dnn_notes *n, const tw_dnn_graph *g, const char *why) {
    int i = n->refused++;
    if (i >= TW_DNN_NOTES_MOST) return;
    if (!why) why = "no reason is known";
    if (!g) {
        snprintf(n->reason[i], sizeof n->reason[i], "all graphs: %s", why);
        return;
    }
    /* The first tensor in memory says which size it was. */
    const tw_dnn_tensor *t = &g->tensor[0];
    for (int k = g->tensors - 1; k >= 0; k--)
        if (g->tensor[k].slot >= 0) t = &g->tensor[k];
    snprintf(n->reason[i], sizeof n->reason[i], "%s of (%lld,%lld,%lld,%lld): %s",
             g->name ? g->name : "a graph", (long long)t->dim[0], (long long)t->dim[1], (long long)t->dim[2],
             (long long)t->dim[3], why);
}

const char *tw_dnn_notes_tell(tw_dnn_notes *n) {
    if (n->told == n->refused) return NULL;
    int first = n->told < TW_DNN_NOTES_MOST ? n->told : TW_DNN_NOTES_MOST, at = 0;
    at = snprintf(n->text, sizeof n->text,
                  "own kernels, which are slower, run instead of %d graphs that cuDNN refused",
                  n->refused - n->told);
    for (int i = first; i < n->refused && i < TW_DNN_NOTES_MOST; i++)
        at += snprintf(n->text + at, sizeof n->text - (size_t)at, "; %s", n->reason[i]);
    n->told = n->refused;
    return n->text;
}
