/* The pickle of a checkpoint, as torch.save would write it (protocol 2). For pt_write.c. */
#ifndef TW_TRAIN_FORMATS_TORCH_WRITE_H
#define TW_TRAIN_FORMATS_TORCH_WRITE_H

#include "train/formats/weights.h"

/* Describes n items, item i in storage "<i>"; see tw_pt_write for names and note (not NULL here). *data is to
 * be freed by the caller. */
tw_status tw_torch_write(const char *path, const tw_weight *items, int64_t n, const tw_weights_note *note,
                         unsigned char **data, size_t *size) TW_MUST_CHECK;

#endif
