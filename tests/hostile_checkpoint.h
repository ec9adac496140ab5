/* A small checkpoint for the tests of hostile HDF5 files, and reading all of it. */
#ifndef TW_TESTS_HOSTILE_CHECKPOINT_H
#define TW_TESTS_HOSTILE_CHECKPOINT_H

#include "hostile_h5.h"

#include "train/formats/checkpoint.h"

/* params/w (4, 3) with both moments, params/b (4). */
static inline void write_checkpoint(const char *to) {
    float w[12] = {1, 2, 3}, b[4] = {4};
    const tw_checkpoint_tensor t[] = {{"w", 2, {4, 3}, w, w, w}, {"b", 1, {4}, b, NULL, NULL}};
    tw_checkpoint_meta meta;
    tw_checkpoint_meta_init(&meta);
    static char vocab[] = "[PAD]\n", precision[] = "f32";
    meta.vocab = vocab, meta.vocab_bytes = sizeof vocab - 1, meta.precision = precision;
    TW_ASSERT_OK(tw_checkpoint_write(to, &meta, t, 2));
}

/* Opens and reads everything, as `convert` does. */
static inline tw_status load_checkpoint(void) {
    static float values[4096];
    tw_checkpoint *c;
    TRY(tw_checkpoint_open(path, &c));
    tw_status status = TW_OK;
    for (int64_t i = 0; i < tw_checkpoint_count(c) && !status; i++) {
        const tw_checkpoint_entry *e = tw_checkpoint_at(c, i);
        ck_assert_int_le(e->count, 4096);
        status = tw_checkpoint_read(c, e->name, TW_CHECKPOINT_PARAM, values, e->count);
    }
    tw_checkpoint_close(c);
    return status;
}

/* Every edit of a checkpoint is refused. */
static inline void refuse_all(const hostile *edits, size_t n) {
    make_paths();
    write_checkpoint(other);
    write_checkpoint(path);
    TW_ASSERT_OK(load_within(load_checkpoint)); /* within the limit, too */
    for (size_t i = 0; i < n; i++) {
        write_checkpoint(path);
        edit_file(&edits[i], "checkpoint");
        refuse(&edits[i], load_checkpoint);
    }
    unlink(path);
    unlink(other);
}

#endif
