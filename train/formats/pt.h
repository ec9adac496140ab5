/* .pt files of PyTorch, in and out.
 *
 * In: what torch.save writes, as zip archive or in the form before PyTorch 1.6; also pytorch_model.bin. The
 * file is a checkpoint ({"epoch", "step", "name", "state_dict", "optimizer"}) or a bare state dict, see
 * torch_pickle.h. Tensors may be strided (they are made contiguous) or share a storage. Names stay as they
 * are in the file, "module." included. A file is read as data: nothing in it is ever run. Refused by name:
 * TorchScript archives (OpenAI CLIP's own files), big-endian files, pickled modules. */
#ifndef TW_TRAIN_FORMATS_PT_H
#define TW_TRAIN_FORMATS_PT_H

#include "train/formats/weights.h"

/* Opens `path`; costs the pickle's size, not the tensors'. What it allocates, and what all tensors together
 * may claim, is at most 2 x the file + 16 MiB. kind in the note: "PyTorch zip" or "PyTorch legacy".
 * TW_ERR_IO; TW_ERR_FORMAT: no such file, or damaged; TW_ERR_UNSUPPORTED: refused. In zip files each
 * storage's CRC-32 is checked when it is first read. Reading a strided tensor takes a second copy of its
 * storage's part. */
tw_status tw_pt_open(const char *path, tw_weights **out) TW_MUST_CHECK;

#endif
