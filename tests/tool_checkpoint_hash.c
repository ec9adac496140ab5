/* Prints, for each checkpoint given, one line: step, epoch, position and a hash of every tensor's bits
 * (parameters and moments). Two runs are the same to the bit if their lines are. For the end-to-end tests. */
#include "train/formats/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>

static uint64_t mix(uint64_t h, const void *data, size_t bytes) { /* FNV-1a */
    const unsigned char *p = data;
    for (size_t i = 0; i < bytes; i++) h = (h ^ p[i]) * 1099511628211u;
    return h;
}

static tw_status hash_tensor(tw_checkpoint *c, const tw_checkpoint_entry *e, uint64_t *h) {
    static const tw_checkpoint_part parts[] = {TW_CHECKPOINT_PARAM, TW_CHECKPOINT_M, TW_CHECKPOINT_V};
    float *values = malloc((size_t)e->count * sizeof *values);
    if (!values) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = TW_OK;
    for (int i = 0; status == TW_OK && i < (e->has_m ? 3 : 1); i++) {
        status = tw_checkpoint_read(c, e->name, parts[i], values, e->count);
        if (status == TW_OK) *h = mix(*h, values, (size_t)e->count * sizeof *values);
    }
    free(values);
    return status;
}

static tw_status print_hash(const char *path) {
    tw_checkpoint *c;
    TRY(tw_checkpoint_open(path, &c));
    const tw_checkpoint_meta *m = tw_checkpoint_get_meta(c);
    uint64_t h = 14695981039346656037u;
    tw_status status = TW_OK;
    for (int64_t i = 0; status == TW_OK && i < tw_checkpoint_count(c); i++)
        status = hash_tensor(c, tw_checkpoint_at(c, i), &h);
    if (status == TW_OK)
        printf("step %lld adam %lld epoch %lld position %lld hash %016llx\n", (long long)m->step,
               (long long)m->adam_steps, (long long)m->epoch, (long long)m->position, (unsigned long long)h);
    tw_checkpoint_close(c);
    return status;
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (print_hash(argv[i]) == TW_OK) continue;
        fprintf(stderr, "%s\n", tw_last_error());
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
