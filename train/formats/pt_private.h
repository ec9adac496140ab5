/* What the parts of the .pt reader share. */
#ifndef TW_TRAIN_FORMATS_PT_PRIVATE_H
#define TW_TRAIN_FORMATS_PT_PRIVATE_H

#include "train/formats/pt.h"
#include "train/formats/torch_pickle.h"
#include "train/formats/zip.h"

typedef struct tw_pt {
    char *path;
    tw_torch_dict *dict;
    int64_t *where; /* of each storage: the zip's entry, or the byte in a legacy file */
    uint64_t file_size;
    bool script; /* a TorchScript archive */
    tw_zip *zip; /* NULL: legacy */
    int fd;      /* legacy: the file; else -1 */
    uint64_t ahead;
} tw_pt;

/* Memory that a file of this size may cause to be used for its tables. */
static inline size_t tw_pt_memory(uint64_t file_size) {
    return (size_t)(file_size / 2) + (16u << 20);
}

/* Fills dict and where from a file whose path and fd (legacy) are set. */
tw_status tw_pt_read_legacy(tw_pt *pt) TW_MUST_CHECK;
/* Does a file that begins with these bytes look like a legacy one? *end: where its first pickle ends. */
bool tw_pt_is_legacy(const unsigned char *head, size_t size, size_t *end);

#endif
