/* safetensors files: 8 bytes with the length of a JSON header (little-endian), the header, the data.
 *
 *   {"__metadata__": {"format": "pt"}, "visual.proj": {"dtype": "F16", "shape": [768, 512],
 *    "data_offsets": [0, 786432]}, ...}        offsets count from the header's end
 *
 * Format: https://github.com/huggingface/safetensors, "Format". */
#ifndef TW_TRAIN_FORMATS_SAFETENSORS_H
#define TW_TRAIN_FORMATS_SAFETENSORS_H

#include "train/formats/weights.h"

enum { TW_SAFETENSORS_MAX_HEADER = 100 * 1000 * 1000, TW_SAFETENSORS_MAX_TENSORS = 16384 };

/* Opens a file; its tensors come in the order of their data, names are at most 511 bytes. Everything is
 * checked before any tensor can be read, and no more memory is taken than the header's size and about 400
 * bytes a tensor.
 * TW_ERR_NOT_FOUND, TW_ERR_IO: no such file, not readable. TW_ERR_FORMAT, naming file and tensor: not a
 * safetensors file, a header longer than the file or TW_SAFETENSORS_MAX_HEADER, bad JSON, a name twice, a
 * shape that does not fit its bytes, data that overlap, leave holes or lie outside the file.
 * TW_ERR_UNSUPPORTED: a data type that tw_weight_type lacks, more than TW_SAFETENSORS_MAX_TENSORS tensors.
 * Reading a tensor later is one read from the file into the caller's memory, without a copy between. */
tw_status tw_safetensors_open(const char *path, tw_weights **out) TW_MUST_CHECK;

/* Writes `output` to `path`, atomically, one tensor in memory at a time, with the metadata {"format": "pt"}.
 * Byte for byte what the reference's save_file writes: tensors sorted by decreasing type, then name; header
 * padded with spaces to a multiple of 8. TW_ERR_ARGUMENT: a name twice or not UTF-8; TW_ERR_IO; and whatever
 * output->fill returns. An older file at `path` is intact after an error. */
tw_status tw_safetensors_write(const char *path, const tw_weights_output *output) TW_MUST_CHECK;

/* The same, straight to `path`: for callers that publish it themselves. After an error the file is not whole.
 */
tw_status tw_safetensors_write_plain(const char *path, const tw_weights_output *output) TW_MUST_CHECK;

#endif
