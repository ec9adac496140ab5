/* The tapes of a model for the batch sizes that occur: both towers for training, or one of them for
 * inference. Tapes are recorded once a size, kept, and share one arena: only the last one run has contents.
 */
#ifndef TW_TRAIN_TOWERS_H
#define TW_TRAIN_TOWERS_H

#include "layers/dual_encoder.h"

typedef enum tw_tower_kind { TW_TOWERS_TRAIN, TW_TOWER_IMAGE, TW_TOWER_TEXT } tw_tower_kind;

typedef struct tw_tower_tape {
    tw_tower_kind kind;
    int64_t batch;
    int64_t rows; /* of packed texts; 0: texts with their padding */
    tw_tape *tape;
    tw_tensor *pixels;        /* (batch,R,R,3) u8, or (batch,3,R,R) f32; NULL for TW_TOWER_TEXT */
    tw_tensor *ids, *lengths; /* (batch,context), (batch) i32; NULL for TW_TOWER_IMAGE */
    tw_tensor *image, *text;  /* (batch,embed) f32, normalised; the roots */
} tw_tower_tape;

typedef struct tw_towers tw_towers;

/* pixel_type is TW_U8 or TW_F32 (already normalised). Everything given must outlive the towers. */
tw_status tw_towers_create(const tw_dual_encoder *model, tw_device *device, tw_recompute recompute,
                           tw_dtype pixel_type, tw_towers **out) TW_MUST_CHECK;
void tw_towers_free(tw_towers *towers);

/* The bound tape of this kind and batch size >= 0, recorded now if it is new. *out stays valid until 64 other
 * sizes have been used since; addresses may change when a later, larger tape makes the arena grow. Any texts
 * fit: it is the largest of this batch size. */
tw_status tw_towers_get(tw_towers *towers, tw_tower_kind kind, int64_t batch,
                        const tw_tower_tape **out) TW_MUST_CHECK;
/* The same for texts of these lengths, host memory (batch), each in 1..context: where texts are packed
 * (tw_dual_encoder_save), into hardly more rows than they have tokens. Rows are rounded up to a multiple of a
 * power of two, by at most a sixteenth, so that a data set's batches share a few tapes. */
tw_status tw_towers_get_texts(tw_towers *towers, tw_tower_kind kind, int64_t batch, const int32_t *lengths,
                              const tw_tower_tape **out) TW_MUST_CHECK;
tw_device *tw_towers_device(const tw_towers *towers);
/* Bytes of one image's pixels. */
size_t tw_towers_image_bytes(const tw_towers *towers);
/* Arena bytes now. */
size_t tw_towers_bytes(const tw_towers *towers);

#endif
