#!/usr/bin/env python3
"""Compares tuwen's features with the reference implementation's at a model's full size, on real photographs.

    python3 scripts/compare_full_size.py --model ViT-B-16 --tuwen build/release/tuwen \\
        --images DATA/valid_imgs.tsv --texts DATA/valid_texts.jsonl --vocab vocab.txt

Random weights (gains and biases included) are drawn by the reference's class and written as a tuwen checkpoint; the
first --count images and their texts become an LMDB split as the original lays it out; `tuwen extract` and the
reference encode both. Prints the smallest cosine and the largest absolute difference of each tower and fails below
--min_cosine. Needs the packages of scripts/tuwen_checkpoint.py and scripts/reference_run.py."""
import argparse
import glob
import json
import os
import pickle
import subprocess
import sys
import tempfile

import h5py
import lmdb
import numpy as np
import torch
import torch.nn.functional as F
import yaml

import reference_run
import tuwen_checkpoint


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="ViT-B-16", help="name in configs/models, or a YAML file")
    p.add_argument("--tuwen", default="build/release/tuwen")
    p.add_argument("--images", required=True, help="TSV of the original format")
    p.add_argument("--texts", required=True, help="JSONL of the original format")
    p.add_argument("--vocab", required=True)
    p.add_argument("--count", type=int, default=8)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--min_cosine", type=float, default=0.99999)
    p.add_argument("--work", help="folder for the files; kept. Default: a temporary one")
    p.add_argument("--extra", nargs="*", default=[], help="further arguments of tuwen extract")
    return p.parse_args()


def write_split(args, folder):
    """LMDB environments imgs and pairs, and texts.jsonl beside them."""
    with open(args.images, encoding="utf-8") as f:
        images = [f.readline().rstrip("\n").split("\t") for _ in range(args.count)]
    wanted, records = {int(i) for i, _ in images}, []
    with open(args.texts, encoding="utf-8") as f:
        for record in map(json.loads, f):
            if wanted.intersection(record["image_ids"]) and len(records) < 2 * args.count:
                records.append({**record, "image_ids": [i for i in record["image_ids"] if i in wanted]})
    for kind in ("imgs", "pairs"):
        env = lmdb.open(os.path.join(folder, kind), map_size=1 << 30)
        with env.begin(write=True) as txn:
            if kind == "imgs":
                for image_id, data in images:
                    txn.put(image_id.encode(), data.encode())
                txn.put(b"num_images", str(len(images)).encode())
            else:
                pairs = [(i, r["text_id"], r["text"]) for r in records for i in r["image_ids"]]
                for k, pair in enumerate(pairs):
                    txn.put(str(k).encode(), pickle.dumps(pair))
                txn.put(b"num_samples", str(len(pairs)).encode())
        env.close()
    with open(os.path.join(folder, "texts.jsonl"), "w", encoding="utf-8") as f:
        f.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    return records


def make_model(args, tokenizer, words):
    path = args.model if os.path.exists(args.model) else os.path.join(
        os.path.dirname(os.path.abspath(__file__)), "..", "configs", "models", args.model + ".yaml")
    sizes = yaml.safe_load(open(path))
    sizes["text"]["vocabulary"] = sizes["text"]["vocabulary"] or words
    torch.manual_seed(args.seed)
    model = tuwen_checkpoint.reference_class(sizes, sizes["text"]["vocabulary"], tokenizer=tokenizer).eval()
    # An initialised model has gains of 1, biases of 0, and a BERT whose [CLS] state hardly depends on the text:
    # all would hide mistakes.
    with torch.no_grad():
        for name, p in tuwen_checkpoint.named_parameters(model):
            if p.ndim == 1:
                p.add_(0.1 * torch.randn_like(p))
            elif name.startswith("bert.encoder"):
                p.mul_(3)
    return model, sizes


@torch.no_grad()
def reference_features(model, sizes, folder, records, tokenizer, cache):
    split = reference_run.Split(folder)
    images = reference_run.pixels(split, sizes["image"]["resolution"], cache)
    image = F.normalize(model.encode_image(reference_run.normalise(images)), dim=-1)
    ids = torch.tensor([reference_run.tokenize(tokenizer, r["text"], sizes["context_length"]) for r in records])
    text = F.normalize(model.encode_text(ids), dim=-1)
    return ({key.decode(): v for key, v in zip(split.image_keys, image.numpy())},
            {str(r["text_id"]): v for r, v in zip(records, text.numpy())})


def read_features(folder):
    """{"image": {id: row}, "text": {id: row}} of all .h5 and .jsonl feature files in a folder."""
    out = {"image": {}, "text": {}}
    plain = lambda i: i.decode() if isinstance(i, bytes) else str(i)
    for path in sorted(glob.glob(os.path.join(folder, "**", "*"), recursive=True)):
        if path.endswith((".h5", ".hdf5")):
            with h5py.File(path, "r") as f:
                kind = f.attrs["kind"]
                kind = kind.decode() if isinstance(kind, bytes) else str(kind)
                out[kind].update((plain(i), row) for i, row in zip(f["ids"][()], f["features"][()]))
        elif path.endswith("_feat.jsonl"):
            for record in map(json.loads, open(path, encoding="utf-8")):
                kind = "image" if "image_id" in record else "text"
                out[kind][str(record[kind + "_id"])] = np.array(record["feature"], np.float32)
    return out


def report(name, want, got, min_cosine):
    if set(want) != set(got):
        raise SystemExit(f"{name}: tuwen gave {len(got)} features, the reference {len(want)}; other ids: "
                         f"{sorted(set(want) ^ set(got))[:5]}")
    a, b = (np.array([side[i] for i in sorted(want)], np.float64) for side in (want, got))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    spread = (a @ a.T)[~np.eye(len(a), dtype=bool)].max()
    print(f"{name}: {len(a)} features, smallest cosine {cosine.min():.9f}, largest difference "
          f"{np.abs(a - b).max():.2e} (largest cosine of two different ones {spread:.4f})")
    return cosine.min() >= min_cosine


def main():
    args = parse()
    torch.set_num_threads(args.threads)
    kept = args.work or tempfile.mkdtemp(prefix="tuwen-full-size-")
    split, output, checkpoint = (os.path.join(kept, n) for n in ("split", "features", "weights.h5"))
    os.makedirs(split, exist_ok=True)
    vocab = open(args.vocab, "rb").read()
    tokenizer = reference_run.make_tokenizer(vocab, kept)
    records = write_split(args, split)
    model, sizes = make_model(args, tokenizer, len(tokenizer.vocab))
    tuwen_checkpoint.write(checkpoint, {n: p.detach().numpy() for n, p in tuwen_checkpoint.named_parameters(model)},
                           sizes, vocab)
    image, text = reference_features(model, sizes, split, records, tokenizer, kept)
    del model
    print(f"{sizes['name']}: files in {kept}", flush=True)
    subprocess.run([args.tuwen, "extract", "--checkpoint", checkpoint, "--data", split, "--output", output, *args.extra],
                   check=True)
    got = read_features(output)
    good = [report("images", image, got["image"], args.min_cosine), report("texts", text, got["text"], args.min_cosine)]
    sys.exit(0 if all(good) else f"a cosine is below {args.min_cosine}")


if __name__ == "__main__":
    main()
