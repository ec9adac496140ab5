#!/usr/bin/env python3
"""Makes the golden values of tests/test_augment.c: what timm's training transform does to a picture.

Needs Pillow, NumPy, timm and torchvision (the reference). Run from the repository's root:
    python3 scripts/make_golden_augment.py

Writes augment_ops.tsv (single operations) and augment_plans.tsv (whole transforms, with the draws that
data/augment.c makes) to tests/golden/: what goes in, and the CRC-32 of the pixels that the reference gives.
"""

import random

from make_golden_images import GOLDEN, crc, pattern
from PIL import Image


class Draws:
    """Stands in for the module `random` in timm: Philox draws at the elements that data/augment.c uses."""

    FLIP, POLICY, OPS = 64, 65, 66

    def __init__(self, seed, epoch, sample):
        self.key = (seed & 0xFFFFFFFF, seed >> 32)
        self.counter = (sample, epoch, 3 << 24)  # purpose TW_DRAW_AUGMENT
        self.uniforms = self.integers = 0

    def words(self, block):
        (k0, k1), (c1, c2, c3), c0 = self.key, self.counter, block
        for _ in range(10):
            p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
            c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
            k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
        return c0, c1, c2, c3

    def long(self, element):
        w = self.words(element // 2)[element % 2 * 2 :]
        return w[0] << 32 | w[1]

    def double(self, element):
        return (self.long(element) >> 11) * 2.0**-53

    def below(self, element, n):
        return self.long(element) * n >> 64

    def uniform(self, low, high):
        self.uniforms, self.integers = self.uniforms + 1, 0
        attempt, which = divmod(self.uniforms - 1, 2)
        return low + (high - low) * self.double(4 * attempt + which)

    def randint(self, low, high):
        self.integers += 1
        return low + self.below((self.uniforms - 2) * 2 + 1 + self.integers, high - low + 1)

    def choice(self, options):
        return options[self.below(self.POLICY, len(options))]

    def random(self):
        self.op_draw += 1
        return self.double(self.OPS + 2 * self.op_index + self.op_draw - 1)


class Watched:
    """An operation of timm's policy that tells which of its draws comes next and notes what it applies."""

    def __init__(self, op, index, draws, notes):
        self.op, self.index, self.draws, self.notes = op, index, draws, notes

    def __call__(self, image):
        self.draws.op_index, self.draws.op_draw = self.index, 0 if self.op.prob < 1.0 else 1
        kept = self.op.aug_fn

        def noted(image, *args, **kwargs):
            self.notes += [self.op.name, repr(float(args[0])) if args else "0"]
            return kept(image, *args, **kwargs)

        self.op.aug_fn = noted
        image = self.op(image)
        self.op.aug_fn = kept
        return image


def augment_plans():
    import timm
    import torchvision.transforms.functional as F
    from timm.data import auto_augment, create_transform, transforms

    modes = ["RGB"] * 6 + ["L", "RGBA", "P", "CMYK", "LA", "1", "I;16"]
    sizes = [(500, 375), (375, 500), (64, 48), (33, 90), (90, 33), (1, 1), (7, 300), (300, 7), (224, 224), (40, 40)]
    lines = [f"# timm {timm.__version__}, Pillow {Image.__version__}: mode, width, height, seed of the source, resolution,",
             "# seed, epoch, sample; crop, flip, operations with their values; CRC-32 of the RGB pixels"]  # fmt: skip
    for i in range(260):
        mode, (width, height), resolution = modes[i % len(modes)], sizes[i % len(sizes)], (48, 32, 56)[i % 3]
        seed, epoch, sample = (123 + 2**33 * (i % 2), i % 5, i * 7)
        transform = create_transform(input_size=resolution, scale=(0.9, 1.0), is_training=True, color_jitter=None,
                                     auto_augment="original", interpolation="bicubic",
                                     mean=(0.48145466, 0.4578275, 0.40821073),
                                     std=(0.26862954, 0.26130258, 0.27577711))  # fmt: skip
        crop, flip, augment = transform.transforms[:3]
        draws, notes = Draws(seed, epoch, sample), []
        transforms.random = auto_augment.random = draws
        image = pattern(mode, width, height, i)
        y, x, h, w = crop.get_params(image, crop.scale, crop.ratio)
        draws.uniforms = 0
        out = crop(image)
        flipped = draws.double(draws.FLIP) < flip.p
        out = (F.hflip(out) if flipped else out).convert("RGB")
        augment.policy = [[Watched(op, k, draws, notes) for k, op in enumerate(pair)] for pair in augment.policy]
        out = augment(out)
        transforms.random = auto_augment.random = random
        lines.append("\t".join(map(str, (mode, width, height, i, resolution, seed, epoch, sample, x, y, w, h,
                                         int(flipped), ",".join(notes) or "-", crc(out.tobytes())))))  # fmt: skip
    (GOLDEN / "augment_plans.tsv").write_text("\n".join(lines) + "\n")


def augment_ops():
    import timm
    from timm.data import auto_augment

    class Positive:
        random = staticmethod(lambda: 0.25)

    lines = [f"# timm {timm.__version__}, Pillow {Image.__version__}: operation, value, width, height, seed of the source,",
             "# CRC-32 of the RGB pixels"]  # fmt: skip
    names = ["PosterizeOriginal", "Solarize", "AutoContrast", "Equalize", "Invert", "Rotate", "ShearX", "Color",
             "Contrast", "Sharpness"]  # fmt: skip
    keywords = {"fillcolor": (123, 117, 104), "resample": Image.BICUBIC}
    count = 0
    for name in names:
        level = auto_augment.LEVEL_TO_ARG[name]
        values = [None]
        if level:
            auto_augment.random = Positive
            values = [level(m, {})[0] for m in range(10)]
            auto_augment.random = random
        if name in ("Rotate", "ShearX"):
            values += [-v for v in values]
        if name == "Rotate":
            values += [90, 180, 270, -90, 360, 45.5]
        for value in values:
            for width, height in ((56, 56), (41, 30), (3, 3), (2, 5), (1, 1)):
                count += 1
                image = pattern("RGB", width, height, count)
                if count % 4 == 0:  # narrow histograms
                    image = image.point(lambda v: v // 3 + 40)
                elif count % 11 == 0:
                    image = image.point(lambda v: 77)
                args = [] if value is None else [value]
                out = auto_augment.NAME_TO_OP[name](image, *args, **keywords)
                lines.append("\t".join(map(str, (name, repr(float(value or 0)), width, height, count, crc(out.tobytes())))))
    (GOLDEN / "augment_ops.tsv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    augment_ops()
    augment_plans()
