#!/usr/bin/env python3
"""Compares tuwen's features with both reference implementations at models' full size, on real photographs.

    python3 scripts/compare_full_size.py --model RN50 ViT-B-16 --tuwen build/release/tuwen \\
        --images DATA/valid_imgs.tsv --texts DATA/valid_texts.jsonl --vocab vocab.txt

For each model, random weights (gains, biases and running statistics included) are drawn by the reference's class and
written as its .pt; the first --count images and their texts become an LMDB split as the original lays it out. Then
`tuwen extract` on the .pt against cn_clip, and (not RN50) transformers on what `tuwen convert --to hf` made of it. All
in f32. Prints the smallest cosine and the largest absolute difference of each tower and fails below --min_cosine or
above --max_difference. The files of a model are removed after it unless --work is given: ViT-H-14 takes 8 GB of disk
and 10 GB of memory. Needs the packages of scripts/tuwen_checkpoint.py and scripts/reference_run.py, and transformers."""
import argparse
import glob
import json
import os
import pickle
import shutil
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


PUBLISHED = ["RN50", "ViT-B-16", "ViT-B-32", "ViT-L-14", "ViT-L-14-336", "ViT-H-14"]


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", nargs="+", default=PUBLISHED, help="names in configs/models, or YAML files")
    p.add_argument("--tuwen", default="build/release/tuwen")
    p.add_argument("--images", required=True, help="TSV of the original format")
    p.add_argument("--texts", required=True, help="JSONL of the original format")
    p.add_argument("--vocab", required=True)
    p.add_argument("--count", type=int, default=8)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--min_cosine", type=float, default=0.99999)
    p.add_argument("--max_difference", type=float, default=1e-4)
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


def make_model(args, name, tokenizer, words):
    path = name if os.path.exists(name) else os.path.join(
        os.path.dirname(os.path.abspath(__file__)), "..", "configs", "models", name + ".yaml")
    sizes = yaml.safe_load(open(path))
    sizes["text"]["vocabulary"] = sizes["text"]["vocabulary"] or words
    torch.manual_seed(args.seed)
    model = tuwen_checkpoint.reference_class(sizes, sizes["text"]["vocabulary"], tokenizer=tokenizer).eval()
    # An initialised model has gains of 1, biases of 0, and a BERT whose [CLS] state hardly depends on the text:
    # all would hide mistakes.
    # A ResNet's bottlenecks start switched off (bn3's gain is 0), and its biases would outweigh the image.
    with torch.no_grad():
        for name, p in tuwen_checkpoint.named_parameters(model):
            if ".layer" in name and name.endswith("bn3.weight"):
                p.copy_(0.5 + 0.1 * torch.randn_like(p))
            elif "attnpool" in name and name.endswith("bias"):
                p.mul_(0.1)
            elif p.ndim == 1:
                p.add_(0.1 * torch.randn_like(p))
            elif name.startswith("bert.encoder"):
                p.mul_(3)
    return model, sizes


def write_pt(model, name, path):
    """As the original saves it: names below "module.". Published files have a pooler, which cn_clip 1.6.0's class has not."""
    state = {f"module.{k}": v for k, v in model.state_dict().items() if "pooler" not in k}
    torch.save({"epoch": 0, "step": 0, "name": name, "state_dict": state}, path)


@torch.no_grad()
def settle_statistics(model, sizes, folder, cache):
    """Running averages as after training on these images: with PyTorch's 0 and 1 the image hardly reaches the end."""
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    if not norms:
        return
    pixels = reference_run.pixels(reference_run.Split(folder), sizes["image"]["resolution"], cache)
    for m in norms:
        m.momentum = 1.0
    model.train().encode_image(reference_run.normalise(pixels))
    model.eval()


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


@torch.no_grad()
def transformers_features(folder, sizes, split_folder, records, tokenizer, cache):
    from transformers import ChineseCLIPModel
    model = ChineseCLIPModel.from_pretrained(folder).float().eval()
    split = reference_run.Split(split_folder)
    pixels = reference_run.normalise(reference_run.pixels(split, sizes["image"]["resolution"], cache))
    ids = torch.tensor([reference_run.tokenize(tokenizer, r["text"], sizes["context_length"]) for r in records])
    plain = lambda x: F.normalize(getattr(x, "pooler_output", x), dim=-1).numpy()
    image = plain(model.get_image_features(pixel_values=pixels))
    text = plain(model.get_text_features(input_ids=ids, attention_mask=(ids != 0).long()))
    return ({key.decode(): v for key, v in zip(split.image_keys, image)},
            {str(r["text_id"]): v for r, v in zip(records, text)})


def report(name, want, got, args):
    if set(want) != set(got):
        raise SystemExit(f"{name}: tuwen gave {len(got)} features, the reference {len(want)}; other ids: "
                         f"{sorted(set(want) ^ set(got))[:5]}")
    a, b = (np.array([side[i] for i in sorted(want)], np.float64) for side in (want, got))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    spread = (a @ a.T)[~np.eye(len(a), dtype=bool)].max()
    difference = np.abs(a - b).max()
    print(f"{name}: {len(a)} features, smallest cosine {cosine.min():.9f}, largest difference {difference:.2e} "
          f"(largest cosine of two different ones {spread:.4f})", flush=True)
    return cosine.min() >= args.min_cosine and difference <= args.max_difference


@torch.no_grad()
def statistics_agree(args, name, model, weights, split, kept):
    """One training step of tuwen (the whole split in one batch, at a rate of nearly 0) against a training-mode forward
    of the reference: the running averages that both leave."""
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    if not norms:
        return True
    data, output = reference_run.Split(split), os.path.join(kept, "run")
    images = reference_run.pixels(data, model.visual.input_resolution, kept)
    row = {key: i for i, key in enumerate(data.image_keys)}
    pairs = len([key for key in data.pairs if key.isdigit()])
    order = [row[str(data.pair(i)[0]).encode()] for i in range(pairs)]
    subprocess.run([args.tuwen, "train", "--init", weights, "--vocab", args.vocab, "--train_data", split, "--output",
                    output, "--batch", str(pairs), "--max_steps", "1", "--warmup", "0", "--lr", "1e-12",
                    "--weight_decay", "0"], check=True, stdout=subprocess.DEVNULL)
    got = tuwen_checkpoint.read(glob.glob(os.path.join(output, "**", "latest"), recursive=True)[0])["params"]
    for m in norms:
        m.momentum = 0.1
    model.train().encode_image(reference_run.normalise(images[order]))
    model.eval()
    away, where = max((float(np.linalg.norm(got[n] - b.numpy()) / np.linalg.norm(b.numpy())), n)
                      for n, b in tuwen_checkpoint.named_statistics(model))
    print(f"{name} running statistics after a training step of {pairs} pairs, cn_clip: largest relative distance "
          f"{away:.2e} ({where})", flush=True)
    return away <= 1e-5


def compare(args, name, kept, vocab, tokenizer):
    split, output, weights, folder = (os.path.join(kept, n) for n in ("split", "features", "weights.pt", "hf"))
    os.makedirs(split, exist_ok=True)
    records = write_split(args, split)
    model, sizes = make_model(args, name, tokenizer, len(tokenizer.vocab))
    settle_statistics(model, sizes, split, kept)
    write_pt(model, name, weights)
    image, text = reference_features(model, sizes, split, records, tokenizer, kept)
    moved = statistics_agree(args, name, model, weights, split, kept)
    del model
    subprocess.run([args.tuwen, "extract", "--checkpoint", weights, "--vocab", args.vocab, "--data", split, "--output",
                    output, "--batch", "8", *args.extra], check=True, stdout=subprocess.DEVNULL)
    got = read_features(output)
    good = [report(f"{name} images, cn_clip", image, got["image"], args),
            report(f"{name} texts, cn_clip", text, got["text"], args)]
    if sizes["image"].get("kind") != "resnet":
        subprocess.run([args.tuwen, "convert", weights, folder, "--to", "hf", "--vocab", args.vocab, "--force"],
                       check=True, stdout=subprocess.DEVNULL)
        image, text = transformers_features(folder, sizes, split, records, tokenizer, kept)
        good += [report(f"{name} images, transformers", image, got["image"], args),
                 report(f"{name} texts, transformers", text, got["text"], args)]
    return all(good) and moved


def main():
    args = parse()
    torch.set_num_threads(args.threads)
    vocab, bad = open(args.vocab, "rb").read(), []
    for name in args.model:
        kept = os.path.join(args.work, os.path.basename(name)) if args.work else tempfile.mkdtemp(
            prefix="tuwen-full-size-")
        os.makedirs(kept, exist_ok=True)
        tokenizer = reference_run.make_tokenizer(vocab, kept)
        if not compare(args, name, kept, vocab, tokenizer):
            bad.append(name)
        if not args.work:
            shutil.rmtree(kept)
    sys.exit(f"beyond the limits: {', '.join(bad)}" if bad else 0)


if __name__ == "__main__":
    main()
