/* Prints what a weight file of another tool holds, one line a tensor, sorted: name in the file, type, shape,
 * hash of the bytes; then what the file says besides. Two files hold the same if their lines are the same. */
#include "train/formats/hf_folder.h"
#include "train/formats/pt.h"
#include "train/formats/safetensors.h"
#include "train/formats/xxhash64.h"
#include "train/model_source.h"

#include <stdio.h>
#include <stdlib.h>

static tw_status print_tensor(tw_weights *w, int64_t i) {
    const tw_weight *t = tw_weights_at(w, i);
    size_t bytes = (size_t)t->count * tw_weight_type_size(t->type);
    void *values = malloc(bytes + 1);
    if (!values) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = tw_weights_read(w, i, values);
    printf("%s %s (", t->name, tw_weight_type_name(t->type));
    for (int k = 0; k < t->ndim; k++) printf("%lld,", (long long)t->shape[k]);
    printf(") %016llx\n", status == TW_OK ? (unsigned long long)tw_xxh64(values, bytes, 0) : 0);
    free(values);
    return status;
}

static tw_status list(const char *path) {
    tw_source_kind kind;
    tw_weights *w;
    TRY(tw_source_kind_of(path, &kind));
    if (kind == TW_SOURCE_HF_FOLDER)
        TRY(tw_hf_folder_open(path, &w));
    else if (kind == TW_SOURCE_SAFETENSORS)
        TRY(tw_safetensors_open(path, &w));
    else
        TRY(tw_pt_open(path, &w));
    tw_status status = TW_OK;
    for (int64_t i = 0; status == TW_OK && i < tw_weights_count(w); i++) status = print_tensor(w, i);
    const tw_weights_note *note = tw_weights_get_note(w);
    for (int64_t g = 0; g < note->group_count; g++) {
        const tw_weights_group *group = &note->groups[g];
        printf("~group %lld lr %g betas %g %g eps %g decay %g:", (long long)g, group->lr, group->beta1,
               group->beta2, group->eps, group->weight_decay);
        for (int64_t i = 0; i < group->param_count; i++) printf(" %lld", (long long)group->params[i]);
        printf("\n");
    }
    tw_weights_close(w);
    return status;
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (list(argv[i]) != TW_OK) {
            fprintf(stderr, "%s\n", tw_last_error());
            return 1;
        }
    return argc < 2;
}
