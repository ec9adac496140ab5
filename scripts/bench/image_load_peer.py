#!/usr/bin/env python3
"""The other side of image_load.c: Pillow and NumPy doing the same.

image_load_peer.py pack KIND PACK [TSV]    writes test files: KIND is photos (as they are in TSV) or mosaics
                                           (500 x 375 pixels cut from a mosaic of six photos; quality 90)
image_load_peer.py time PACK RESOLUTION SECONDS    prints the best rate of the rounds, in images a second
"""

import base64
import io
import struct
import sys
import time

import numpy as np
from PIL import Image

COUNT = 96
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
SCALE, SHIFT = (1 / (255 * STD)).astype(np.float32), (MEAN / STD).astype(np.float32)


def photos(tsv):
    if tsv:
        with open(tsv) as lines:
            return [base64.urlsafe_b64decode(next(lines).split("\t")[1].translate({43: 45, 47: 95})) for _ in range(COUNT)]
    random, files = np.random.default_rng(1), []
    for _ in range(COUNT):  # no data set at hand: coloured clouds with grain
        small = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((224, 224), Image.BICUBIC)
        grain = np.asarray(small, np.int16) + random.integers(-9, 10, (224, 224, 3), dtype=np.int16)
        files.append(saved(Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8))))
    return files


def saved(image):
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


def mosaics(files):
    images = [Image.open(io.BytesIO(f)).convert("RGB").resize((224, 224)) for f in files]
    for i in range(len(images)):
        sheet = Image.new("RGB", (672, 448))
        for k in range(6):
            sheet.paste(images[(i + k * 13) % len(images)], (k % 3 * 224, k // 3 * 224))
        yield saved(sheet.crop((50, 40, 550, 415)))


def pack(kind, path, tsv=None):
    files = photos(tsv)
    with open(path, "wb") as out:
        for data in files if kind == "photos" else mosaics(files):
            out.write(struct.pack("<I", len(data)) + data)


def load(data, resolution, planes):
    """Into planes (3, resolution, resolution), reused: fresh arrays cost NumPy more than the arithmetic."""
    image = Image.open(io.BytesIO(data)).resize((resolution, resolution), Image.BICUBIC).convert("RGB")
    np.multiply(np.asarray(image).transpose(2, 0, 1), SCALE[:, None, None], out=planes)
    planes -= SHIFT[:, None, None]


def measure(path, resolution, seconds):
    data, files, at = open(path, "rb").read(), [], 0
    while at < len(data):
        n = struct.unpack_from("<I", data, at)[0]
        files.append(data[at + 4 : at + 4 + n])
        at += 4 + n
    planes = np.empty((3, resolution, resolution), np.float32)
    best, start = 0.0, time.process_time()
    while time.process_time() - start < seconds or not best:
        t = time.process_time()
        for f in files:
            load(f, resolution, planes)
        best = max(best, len(files) / (time.process_time() - t))
    print(f"{best:.1f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["pack"]:
        pack(*sys.argv[2:])
    elif sys.argv[1:2] == ["time"]:
        measure(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    else:
        sys.exit(__doc__)
