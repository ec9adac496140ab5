#!/usr/bin/env python3
"""Makes tests/golden/pt/*.pt with torch.save: the kinds of files that tests/test_pt.c reads.

Values follow one rule, so that the test knows them without another file: element i (row-major) of tensor number k is
((37 i + 11 k) mod 251 - 125) / 8, which every float type holds exactly; integers are the numerator, bool its last bit.
"""
import argparse
import collections
import io
import pathlib

import numpy as np
import torch


def values(k, *shape, dtype=torch.float32):
    n = int(np.prod(shape)) if shape else 1
    numerator = (37 * torch.arange(n) + 11 * k) % 251 - 125
    if dtype is torch.bool:
        return (numerator % 2).to(dtype).reshape(shape)
    if dtype.is_floating_point:
        return (numerator.double() / 8).to(dtype).reshape(shape)
    return numerator.to(dtype).reshape(shape)


def checkpoint():
    """As the original training code saves it: module. prefixes, halves and floats, AdamW after one step."""
    state = collections.OrderedDict()
    state["module.visual.conv1.weight"] = values(0, 4, 3, 2, 2, dtype=torch.float16)
    state["module.visual.ln_pre.weight"] = values(1, 8)
    state["module.bert.embeddings.word_embeddings.weight"] = values(2, 5, 8, dtype=torch.bfloat16)
    state["module.visual.bn1.num_batches_tracked"] = torch.tensor(7)
    state["module.logit_scale"] = values(4)
    state._metadata = collections.OrderedDict({"": {"version": 1}, "module": {"version": 2}})
    params = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2, 2))]
    optimizer = torch.optim.AdamW(
        [{"params": params[:1], "weight_decay": 0.0}, {"params": params[1:], "weight_decay": 0.25}],
        lr=0.5, betas=(0.5, 0.75), eps=0.125)
    for k, p in enumerate(params):
        p.grad = values(k, *p.shape)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = np.float64(0.0625)  # what a cosine schedule leaves
    return {"epoch": 3, "step": 1200, "name": "muge_图文", "state_dict": state, "optimizer": optimizer.state_dict()}


def views():
    base = values(0, 4, 6)
    shared = values(1, 10)
    inner = torch.nn.Linear(2, 2)
    with torch.no_grad():
        inner.weight.copy_(values(8, 2, 2))
        inner.bias.copy_(values(9, 2))
    return {
        "whole": base, "transposed": base.t(), "columns": base[:, 1:5:2], "row": base[2],
        "permuted": values(3, 2, 3, 4).permute(2, 0, 1),
        "first": shared[:4], "last": shared[6:], "ids": torch.arange(6).expand(1, -1), "repeated": shared[:1].expand(5),
        "empty": torch.zeros(0, 3), "one": values(7),
        "nested": {"linear": inner.state_dict(), "list": [values(10, 2), None, values(11, 1)]},
        "parameter": torch.nn.Parameter(values(12, 3)), "size": torch.Size([1, 2]), "kind": torch.float16,
        "text": "kept aside", "device": torch.device("cpu"),
    }


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=root / "tests/golden/pt")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    types = {str(t).removeprefix("torch."): values(k, 3, dtype=t) for k, t in enumerate(
        [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8,
         torch.uint8, torch.bool])}
    torch.save(checkpoint(), out / "checkpoint.pt")
    torch.save(checkpoint(), out / "checkpoint_legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(views(), out / "views.pt")
    torch.save(views(), out / "views_legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(types, out / "types.pt")
    for protocol in (1, 3, 4, 5):
        torch.save(types, out / f"types_protocol{protocol}.pt", pickle_protocol=protocol)
    torch.save(types, out / "types_legacy_protocol4.pt", _use_new_zipfile_serialization=False, pickle_protocol=4)
    buffer = io.BytesIO()  # the archive's folder is then "archive"
    torch.save(collections.OrderedDict(types), buffer)
    (out / "types_buffer.pt").write_bytes(buffer.getvalue())
    torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)), out / "torchscript.pt")
    torch.save(torch.nn.Linear(1, 1), out / "module.pt")


if __name__ == "__main__":
    main()
