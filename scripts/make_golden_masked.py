#!/usr/bin/env python3
"""Writes tests/golden/masked.h5: a training step of the reference implementation with patch masking (FLIP).

    python3 scripts/make_golden_masked.py [--output tests/golden/masked.h5]

Needs torch, cn_clip, h5py (pip) and tests/golden/towers.h5, whose weights and batches it uses. The reference keeps the
patches whose random numbers are smallest; here these numbers are tuwen's own (Philox4x32-10 keyed by seed, step and
sample, purpose 5 of autograd/random.h), so that both keep the same patches and everything else can be compared. In
float64, as make_golden_towers.py.

Layout: /odd with attributes mask_ratio, seed; loss; image_features; grads/<name>."""
import argparse

import h5py
import numpy as np
import torch

import make_golden_towers as towers

PURPOSE_MASK, SEED, RATIO = 5, 1, 0.5


def philox(seed, step, sample, block):
    """Salmon et al. 2011, ten rounds; the counter is (block, sample, step, purpose and layer)."""
    c, k = [block, sample, step, PURPOSE_MASK << 24], [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, p0 >> 32 ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def draws(samples, patches, device=None):
    """In place of torch.rand(samples, patches) in the reference's random_masking, step 0."""
    words = [[philox(SEED, 0, s, e // 4)[e % 4] for e in range(patches)] for s in range(samples)]
    return torch.tensor(words, dtype=torch.float64, device=device) / 2 ** 32


def masked_step(name, sizes, file, out):
    model = towers.build(sizes, torch.float64)
    group = file[name]
    for key, p in towers.parameters(model):
        p.data.copy_(torch.from_numpy(np.asarray(group["step0/params/" + key][()])))
    encode = model.encode_image
    model.encode_image = lambda x: encode(x, RATIO)
    torch.rand, saved = draws, torch.rand
    values, grads = towers.evaluate(model, group["batch/pixels"][0], group["batch/ids"][0])
    torch.rand = saved
    plain = group["step0/loss"][()]
    assert abs(values["loss"] - plain) > 1e-3, "masking changes nothing"
    result = out.create_group(name)
    result.attrs["mask_ratio"], result.attrs["seed"] = RATIO, SEED
    result.create_dataset("loss", data=values["loss"])
    result.create_dataset("image_features", data=values["image_features"].astype(np.float32))
    for key, value in grads.items():
        result.create_dataset("grads/" + key, data=value.astype(np.float32))
    print(f"/{name}: loss {values['loss']:.6f}, {float(plain):.6f} without masking")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="tests/golden/masked.h5")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with h5py.File("tests/golden/towers.h5") as file, h5py.File(args.output, "w", libver=("earliest", "v108")) as out:
        out.attrs["made_by"] = "scripts/make_golden_masked.py"
        masked_step("odd", towers.ODD, file, out)


if __name__ == "__main__":
    main()
