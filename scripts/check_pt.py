#!/usr/bin/env python3
"""Checks with PyTorch that .pt files written by tuwen load and hold what the files they were made from hold.

    scripts/check_pt.py build/release/tests/tool_pt_copy [FILE.pt ...]

Each file (default: those of tests/golden/pt and parts) is copied by the tool, loaded with torch.load(weights_only=True) and compared bit
by bit; its optimizer state must be accepted by torch.optim.AdamW and make the same next step. Of a TorchScript archive
the state_dict() is compared, by name.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile
import zipfile

import torch


def flatten(value, prefix=""):
    """Tensors by name, as tuwen names them."""
    if isinstance(value, torch.Tensor):
        return {prefix: value.detach()}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    out = {}
    for key, item in items:
        out.update(flatten(item, f"{prefix}.{key}" if prefix else str(key)))
    return out


def same(a, b):
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.contiguous().flatten().view(torch.uint8).equal(b.contiguous().flatten().view(torch.uint8)) if a.numel() else True


def next_step(optimizer_state):
    """The parameters after one more step from this state, all of them and their gradients being 0.5."""
    shapes = {i: s["exp_avg"].shape for i, s in optimizer_state["state"].items()}
    groups = [{"params": [torch.nn.Parameter(torch.full(shapes[i], 0.5)) for i in g["params"]]}
              for g in optimizer_state["param_groups"]]
    optimizer = torch.optim.AdamW(groups)
    optimizer.load_state_dict(optimizer_state)
    params = [p for g in groups for p in g["params"]]
    for p in params:
        p.grad = torch.full_like(p, 0.5)
    optimizer.step()
    return params


def load(path):
    if zipfile.is_zipfile(path) and any(n.endswith("/constants.pkl") for n in zipfile.ZipFile(path).namelist()):
        return {k: v for k, v in sorted(torch.jit.load(path, map_location="cpu").state_dict().items())}, True
    return torch.load(path, weights_only=False, map_location="cpu"), False


def check(tool, path, copy):
    subprocess.run([tool, path, copy], check=True, stdout=subprocess.DEVNULL)
    old, script = load(path)
    new = torch.load(copy, weights_only=True, map_location="cpu")
    mapped = torch.load(copy, weights_only=True, mmap=True)
    wrapped = "state_dict" in old
    a, b, c = (flatten(s) for s in (old["state_dict"] if wrapped else old, new["state_dict"], mapped["state_dict"]))
    assert list(a) == (sorted(b) if script else list(b)), (list(a), list(b))
    for name, tensor in a.items():
        assert same(tensor, b[name]) and same(tensor, c[name]), name
    if wrapped:
        assert all(old[k] == new[k] for k in ("epoch", "step", "name"))
    if "optimizer" in old:
        for x, y in zip(next_step(old["optimizer"]), next_step(new["optimizer"]), strict=True):
            assert same(x, y)
    return len(a)


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool")
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    args = parser.parse_args()
    golden = [f for folder in ("pt", "parts") for f in sorted((root / "tests/golden" / folder).glob("*.pt"))]
    files = args.files or [f for f in golden if f.name != "module.pt"]
    with tempfile.TemporaryDirectory() as folder:
        for path in files:
            print(f"{path.name}: {check(args.tool, path, pathlib.Path(folder) / 'copy.pt')} tensors identical")
    return 0


if __name__ == "__main__":
    sys.exit(main())
