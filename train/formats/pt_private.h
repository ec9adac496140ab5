/* What the parts of the .pt reader share. */
#ifndef TW_TRAIN_FORMATS_PT_PRIVATE_H
#define TW_TRAIN_FORMATS_PT_PRIVATE_H

#include "train/formats/pt.h"
#include "train/formats/read_ahead.h"
#include "train/formats/torch_pickle.h"
#include "train/formats/zip.h"

typedef struct tw_pt {
    char *path;
    tw_torch_dict *dict;
    int64_t *where; /* of each storage: the zip's entry, or the byte in a legacy file */
    uint64_t file_size;
    bool script;          /* a TorchScript archive */
    tw_zip *zip;          /* NULL: legacy */
    int fd;               /* legacy: the file; else -1 */
    tw_read_ahead *ahead; /* legacy: from the first storage that is read on */
} tw_pt;

/* Memory that a file of this size may cause to be used for its pickle's values and its tables, half for each.
 * A small tensor takes some 300 bytes in a file and 2 KB here, a large one next to nothing. */
static inline size_t tw_pt_memory(uint64_t file_size) {
    return (size_t)file_size + (6u << 20);
}

/* Fills dict and where from a file whose path and fd (legacy) are set. */
tw_status tw_pt_read_legacy(tw_pt *pt) TW_MUST_CHECK;
/* Does a file that begins with these bytes look like a legacy one? *end: where its first pickle ends. */
bool tw_pt_is_legacy(const unsigned char *head, size_t size, size_t *end);

#endif
