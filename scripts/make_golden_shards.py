#!/usr/bin/env python3
"""Makes tests/golden/shards: LMDB environments as the original tool writes them, for test_shards.

Needs the Python package lmdb. One split a variation: pickle protocols 0 to 5, integer and string ids, base64 of both
alphabets. Payloads are a small JPEG and a small PNG (made here, byte by byte, by Pillow). The expected content is
expected.json beside them.
"""
import base64
import io
import json
import os
import pickle
import shutil
import sys

import lmdb
from PIL import Image

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden", "shards")
TEXTS = ["两个女孩在玩滑板。", "a dog", "😀 \u00e9\t“引号”\\u4e2d\n第二行", "长" * 120, "x" * 300, "\u0000 zero"]


def payload(kind, number):
    image = Image.new("RGB", (5 + number, 4), (17 * number % 256, 250, 3))
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 30} if kind == "JPEG" else {}))
    return out.getvalue()


def write(split, protocol, image_ids, text_ids, encode):
    folder = os.path.join(OUT, split)
    os.makedirs(folder)
    images = [payload("PNG" if i % 2 else "JPEG", i) for i in range(len(image_ids))]
    env = lmdb.open(os.path.join(folder, "imgs"), map_size=1 << 30)
    with env.begin(write=True) as txn:
        for image_id, data in zip(image_ids, images):
            txn.put(key=f"{image_id}".encode(), value=encode(data))
        # One more than there are: the original counts lines, duplicates too.
        txn.put(key=b"num_images", value=str(len(images) + 1).encode())
    env.close()
    env = lmdb.open(os.path.join(folder, "pairs"), map_size=1 << 30)
    pairs = []
    with env.begin(write=True) as txn:
        for i, (text_id, text) in enumerate(zip(text_ids, TEXTS)):
            pair = (image_ids[i % len(image_ids)], text_id, text)
            txn.put(key=str(i).encode(), value=pickle.dumps(pair, protocol=protocol))
            pairs.append(pair)
        txn.put(key=b"num_samples", value=str(len(pairs)).encode())
    env.close()
    for name in ("imgs", "pairs"):
        os.remove(os.path.join(folder, name, "lock.mdb"))
    return {"split": split, "pairs": pairs, "image_ids": [str(i) for i in image_ids],
            "pickles": [pickle.dumps(p, protocol=4).hex() for p in pairs] if protocol == 4 else []}


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    numbers = [1, 10, 2, -3, 70000, 2**31, 2**40, -(2**33)]
    expected = [write(f"protocol{p}", p, numbers, range(300, 306), base64.b64encode) for p in range(6)]
    names = ["a", "图/1.jpg", "007", "7", "num"]
    expected.append(write("strings", 4, names, ["t1", "t2", "3", "四", "五", "6"],
                          base64.urlsafe_b64encode))
    with open(os.path.join(OUT, "expected.json"), "w", encoding="utf-8") as f:
        json.dump({"payloads": [payload("PNG" if i % 2 else "JPEG", i).hex() for i in range(len(numbers))],
                   "splits": expected}, f, ensure_ascii=True, indent=0, sort_keys=True)
    print("wrote", OUT, "with lmdb", lmdb.version(), file=sys.stderr)


if __name__ == "__main__":
    main()
