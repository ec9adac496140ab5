/* tool_pt_copy FROM.pt TO.pt: reads every tensor of a .pt file and writes them to another, for
 * scripts/check_pt.py, which compares the two with PyTorch. */
#include "train/formats/pt.h"

#include <stdio.h>
#include <stdlib.h>

static tw_status copy_tensor(void *self, int64_t i, void *dst) {
    return tw_weights_read(self, i, dst);
}

static tw_status copy(tw_weights *from, const char *path) {
    int64_t n = tw_weights_count(from);
    tw_weight *items = malloc(((size_t)n + 1) * sizeof *items);
    if (!items) return FAIL(TW_ERR_MEMORY, "no memory");
    for (int64_t i = 0; i < n; i++) items[i] = *tw_weights_at(from, i);
    tw_weights_output output = {items, n, copy_tensor, from};
    tw_status status = tw_pt_write(path, &output, tw_weights_get_note(from));
    free(items);
    return status;
}

int main(int argc, char **argv) {
    tw_weights *from = NULL;
    if (argc != 3) {
        fprintf(stderr, "usage: %s FROM.pt TO.pt\n", argv[0]);
        return 2;
    }
    tw_status status = tw_pt_open(argv[1], &from);
    if (!status) status = copy(from, argv[2]);
    tw_weights_close(from);
    if (status) fprintf(stderr, "%s: %s\n", argv[0], tw_last_error());
    return status ? 1 : 0;
}
