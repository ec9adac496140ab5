/* A small drawn data set and a checkpoint of random weights, in a folder of the test's own that is entered.
 */
#ifndef TW_TESTS_DRAWN_DATA_H
#define TW_TESTS_DRAWN_DATA_H

#include "command_line.h"
#include "micro_model.h"

enum { IMAGES = 20, CAPTIONS = 2, TEXTS = IMAGES * CAPTIONS, EMBED = MICRO_EMBED };

/* The folder, entered, with valid_imgs.tsv, valid_texts.jsonl, vocab.txt and model.h5. */
static inline void draw(void) {
    enter_folder();
    TW_ASSERT_OK(
        run(tw_command_shapes, ". --train 8 --valid %d --size 32 --captions_per_image %d", IMAGES, CAPTIONS));
    make_micro_model("model.h5", "vocab.txt", 7);
}

static inline void setup(void) {
    draw();
    TW_ASSERT_OK(run(tw_command_prepare, ". --splits valid"));
}

#endif
