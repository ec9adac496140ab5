#!/usr/bin/env python3
"""Writes tests/golden/position_grid.h5: positional grids resized by torch.

    python3 scripts/make_golden_position_grid.py [--output tests/golden/position_grid.h5]

case<N>/from (1 + a*a, width), case<N>/to (1 + b*b, width) f32; interpolated in f64, bicubic, aligned corners, as the
original does it when training loads a checkpoint of another resolution. Needs torch, h5py."""
import argparse

import h5py
import numpy as np
import torch
import torch.nn.functional as F

CASES = [(2, 3), (3, 2), (4, 4), (7, 12), (14, 24), (16, 7), (5, 1), (1, 4)]


def resize(table, side):
    old = int(round((len(table) - 1) ** 0.5))
    grid = torch.from_numpy(table[1:]).double().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=True)
    return np.concatenate([table[:1], grid.permute(0, 2, 3, 1).reshape(side * side, -1).float().numpy()])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--output", default="tests/golden/position_grid.h5")
    rng = np.random.default_rng(5)
    with h5py.File(p.parse_args().output, "w") as f:
        for n, (old, new) in enumerate(CASES):
            table = rng.standard_normal((old * old + 1, 3)).astype(np.float32)
            group = f.create_group(f"case{n}")
            group.attrs["from_side"], group.attrs["to_side"] = old, new
            group["from"], group["to"] = table, resize(table, new)
        f.create_group("all").attrs["cases"] = len(CASES)


if __name__ == "__main__":
    main()
