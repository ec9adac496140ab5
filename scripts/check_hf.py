#!/usr/bin/env python3
"""Compares two Hugging Face folders as transformers sees them: the one a model came from and the one tuwen wrote.

    python3 scripts/check_hf.py ORIGINAL WRITTEN [--texts FILE] [--images N]

Needs torch, transformers, pillow (pip). Both are loaded with ChineseCLIPModel and ChineseCLIPProcessor
.from_pretrained, local files only; the same random images (of several sizes and modes) and texts go through each
one's own processor and model. Printed: whether every weight, pixel and token is equal, and the largest difference and
the smallest cosine of the features. Exit code 1 if weights, pixels or tokens differ or a cosine is below 0.99999."""
import argparse
import sys

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import ChineseCLIPModel, ChineseCLIPProcessor

TEXTS = ["一只狗在雪地里跑", "红色的汽车", "", "Two dogs, one CAT!", "人" * 200, "“图文”　ａＢ①"]


def load(folder):
    model, report = ChineseCLIPModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32,
                                                     output_loading_info=True)
    for what in "missing_keys", "mismatched_keys":
        if report[what]:
            sys.exit(f"{folder}: {what}: {report[what]}")
    if report["unexpected_keys"]:
        print(f"{folder}: not used: {sorted(report['unexpected_keys'])}")
    return model.eval(), ChineseCLIPProcessor.from_pretrained(folder, local_files_only=True)


def make_images(count):
    rng = np.random.default_rng(5)
    modes = (("RGB", 3), ("L", None), ("RGBA", 4))
    for i in range(count):
        mode, channels = modes[i % len(modes)]
        size = tuple(rng.integers(8, 400, 2))
        coarse = rng.integers(0, 256, (5, 5) + ((channels,) if channels else ()), np.uint8)
        yield Image.fromarray(coarse, mode).resize(size, Image.BICUBIC)


def pooled(output):
    return output if isinstance(output, torch.Tensor) else output.pooler_output


@torch.no_grad()
def features(model, processor, texts, images):
    longest = model.config.text_config.max_position_embeddings
    tokens = processor.tokenizer(texts, padding=True, truncation=True, max_length=min(52, longest), return_tensors="pt")
    pixels = torch.cat([processor.image_processor(i.convert("RGB"), return_tensors="pt").pixel_values for i in images])
    return (tokens.input_ids, pixels, F.normalize(pooled(model.get_text_features(**tokens)).double()),
            F.normalize(pooled(model.get_image_features(pixel_values=pixels)).double()))


def compare(name, a, b):
    if a.shape != b.shape:
        sys.exit(f"{name}: {tuple(a.shape)} against {tuple(b.shape)}")
    cosine = float((a * b).sum(-1).min())
    print(f"{name}: max |difference| {float((a - b).abs().max()):.3g}, smallest cosine {cosine:.9f}")
    return cosine >= 0.99999


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("original")
    parser.add_argument("written")
    parser.add_argument("--texts", help="a file with one text a line, in place of six built-in ones")
    parser.add_argument("--images", type=int, default=12)
    args = parser.parse_args()
    texts = open(args.texts, encoding="utf-8").read().splitlines() if args.texts else TEXTS
    images = list(make_images(args.images))
    (model, processor), (other, other_processor) = load(args.original), load(args.written)
    weights, others = model.state_dict(), other.state_dict()
    good = weights.keys() == others.keys() and all(torch.equal(t, others[n]) for n, t in weights.items())
    print(f"weights: {len(weights)} tensors, {'equal' if good else 'DIFFERENT'}")
    ids, pixels, text, image = features(model, processor, texts, images)
    ids2, pixels2, text2, image2 = features(other, other_processor, texts, images)
    for name, a, b in ("tokens", ids, ids2), ("pixels", pixels, pixels2):
        same = torch.equal(a, b)
        good &= same
        print(f"{name}: {tuple(a.shape)}, {'equal' if same else 'DIFFERENT'}")
    good &= compare("text features", text, text2)
    good &= compare("image features", image, image2)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
