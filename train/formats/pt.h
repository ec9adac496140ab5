/* .pt files of PyTorch, in and out.
 *
 * In: what torch.save writes, as zip archive or in the form before PyTorch 1.6; also pytorch_model.bin; and
 * what torch.jit.save writes, as OpenAI CLIP's own files are (torch_pickle.h). A file of torch.save is a
 * checkpoint ({"epoch", "step", "name", "state_dict", "optimizer"}) or a bare state dict, see torch_pickle.h.
 * Tensors may be strided (they are made contiguous) or share a storage. Names stay as they are in the file,
 * "module." included. A file is read as data: nothing in it is ever run, a TorchScript archive's program is
 * not even read. Refused by name: big-endian files, pickled modules. */
#ifndef TW_TRAIN_FORMATS_PT_H
#define TW_TRAIN_FORMATS_PT_H

#include "train/formats/weights.h"

/* Opens `path`; costs the pickle's size, not the tensors'. What it allocates, and what all tensors together
 * may claim, is at most 2 x the file + 16 MiB. kind in the note: "PyTorch zip", "PyTorch legacy" or
 * "TorchScript archive".
 * TW_ERR_IO; TW_ERR_FORMAT: no such file, or damaged; TW_ERR_UNSUPPORTED: refused. In zip files each
 * storage's CRC-32 is checked when it is first read. Reading a strided tensor takes a second copy of its
 * storage's part. */
tw_status tw_pt_open(const char *path, tw_weights **out) TW_MUST_CHECK;
/* Writes a checkpoint in the zip form that torch.load(weights_only=True) and the original code load:
 * {"epoch", "step", "name", "state_dict"} and, if note->groups is not NULL, "optimizer" as AdamW's
 * state_dict(). One tensor is in memory at a time; the file appears whole or not at all (atomic_file.h).
 * Equal content gives equal bytes.
 *
 * Names are written as they are. The optimizer's tensors come after the model's and are called
 * "optimizer.state.<index>.<exp_avg, exp_avg_sq or step>", those of an index next to each other; what groups
 * do not say (NaN) gets AdamW's defaults. Of the note, epoch and step become 0 and the name "tuwen" where it
 * (or note itself, NULL) does not say them. TW_ERR_ARGUMENT: a name that is not UTF-8 or occurs twice, or
 * optimizer tensors without groups; TW_ERR_IO; errors of `fill`. */
tw_status tw_pt_write(const char *path, const tw_weights_output *output,
                      const tw_weights_note *note) TW_MUST_CHECK;

#endif
