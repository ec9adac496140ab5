/* One line of a .jsonl feature file, read without building a tree: the form that the original code and tuwen
 * write, which is nearly every line there is. */
#ifndef TW_TRAIN_FORMATS_FEATURES_LINE_H
#define TW_TRAIN_FORMATS_FEATURES_LINE_H

#include "data/record_id.h"
#include "train/formats/features.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads {"image_id": ID, "feature": [v, ...]} or {"text_id": ...}, white space as JSON allows, with exactly
 * `dim` values that are finite floats, each the float nearest to the nearest double. ID is an integer of at
 * most 18 digits or printable ASCII without escapes; id->text points into the line and is NOT followed by a
 * zero. False for any other line, right or wrong: it is for the general reader, values may have been
 * overwritten. A line that is accepted here gives the same there. Threads may read lines side by side. */
bool tw_features_line(const char *line, size_t size, int64_t dim, float *values, tw_features_kind *kind,
                      tw_id *id);

#endif
