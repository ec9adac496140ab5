#!/usr/bin/env python3
"""Trains the reference implementation's model class as tuwen was trained, to compare losses and R@K.

    tuwen train --config RUN.yaml --output runs/a --sample_log samples.txt --text_dropout 0 --attention_dropout 0
    python3 scripts/reference_run.py --init INIT.h5 --config runs/a/checkpoints/latest --samples samples.txt \\
        --train LMDB/train --val LMDB/valid --output reference.jsonl --compare runs/a/log.jsonl

Weights, sizes and vocabulary come from --init (a tuwen checkpoint, the run's `init`), the order of samples from
--samples (one line a step: indexes of pairs), rates and optimizer from --config (YAML, or any checkpoint of the
run) and --set key=value. Writes one JSON line a step {"step", "loss", "lr"} and one with R@1/5/10 at the end.
Images are prepared as the reference evaluates (Pillow, bicubic, no augmentation). Differences in rounding grow
with the number of steps; what --compare prints is the largest relative difference of the first --compare_steps.

Needs torch, cn_clip, h5py, lmdb, pillow, pyyaml (pip)."""
import argparse
import base64
import hashlib
import io
import json
import math
import os
import pickle
import re
import time

import lmdb
import numpy as np
import torch
import torch.nn.functional as F
import yaml
from PIL import Image

import tuwen_checkpoint

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
DEFAULTS = dict(lr=5e-4, warmup=500, schedule="cosine", weight_decay=0.2, beta1=0.9, beta2=0.98, eps=1e-6,
                no_decay=["bn", "ln", "bias", "logit_scale"], grad_clip=0.0, logit_scale_max=4.6052, max_steps=0,
                text_dropout=0.0, attention_dropout=0.0, use_augment=False, precision="f32", micro_batch=0)


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--init", required=True, help="tuwen checkpoint with the weights to start from")
    p.add_argument("--config", help="run configuration: YAML, or a checkpoint of the run")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a configuration key")
    p.add_argument("--samples", help="sample order; without it nothing is trained, --init is only evaluated")
    p.add_argument("--train", help="LMDB split folder")
    p.add_argument("--val", help="LMDB split folder")
    p.add_argument("--val_texts", help="texts JSONL of the validation pool; default: beside or in the split folder")
    p.add_argument("--steps", type=int, default=0, help="stop after so many; the schedule stays the whole run's")
    p.add_argument("--total_steps", type=int, default=0, help="length of the schedule; default max_steps or all samples")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--cache", default=".cache/reference", help="folder for decoded pixels")
    p.add_argument("--output", default="reference.jsonl")
    p.add_argument("--compare", help="the run's log.jsonl (log_interval 1)")
    p.add_argument("--compare_steps", type=int, default=200)
    return p.parse_args()


def configuration(args):
    config = dict(DEFAULTS)
    given = {}
    if args.config:
        with open(args.config, "rb") as f:
            sealed = f.read(8) == b"\x89TWH5\r\n\x1a"
        given = tuwen_checkpoint.read(args.config)["config"] if sealed else yaml.safe_load(open(args.config))
    for pair in args.set:
        key, value = pair.split("=", 1)
        given[key] = yaml.safe_load(value)
    for key, value in given.items():  # YAML reads 5e-4 as text
        if key in DEFAULTS:
            config[key] = type(DEFAULTS[key])(value) if isinstance(DEFAULTS[key], (int, float)) else value
    if isinstance(config["no_decay"], str):
        config["no_decay"] = config["no_decay"].split(",")
    for key in ("text_dropout", "attention_dropout", "use_augment"):
        if config[key]:
            print(f"note: {key} is {config[key]} in the run; the reference draws differently and runs without it")
    return config


class Split:
    """An LMDB split folder, of the original's layout or tuwen's."""

    def __init__(self, folder):
        self.folder = folder.rstrip("/")
        self.images = self._all("imgs")
        self.pairs = self._all("pairs", required=False)
        self.image_keys = sorted(k for k in self.images if k not in (b"num_images", b"tuwen_format"))

    def _all(self, kind, required=True):
        names = sorted(n for n in os.listdir(self.folder) if re.fullmatch(kind + r"(-\d+-of-\d+)?", n))
        if not names and required:
            raise SystemExit(f"{self.folder}: no {kind} environment")
        out = {}
        for name in names:
            env = lmdb.open(os.path.join(self.folder, name), readonly=True, lock=False, readahead=False)
            with env.begin() as txn:
                out.update((bytes(k), bytes(v)) for k, v in txn.cursor())
            env.close()
        return out

    def pair(self, index):
        value = self.pairs[str(index).encode()]
        return tuple(json.loads(value)) if value[:1] == b"[" else pickle.loads(value)

    def texts_file(self):
        base = os.path.basename(self.folder)
        for path in (os.path.join(self.folder, "texts.jsonl"),
                     os.path.join(self.folder, "..", "..", base + "_texts.jsonl")):
            if os.path.exists(path):
                return path
        raise SystemExit(f"{self.folder}: give --val_texts")


def decode(value):
    if value[:2] not in (b"\xff\xd8", b"\x89P", b"RI"):
        value = base64.b64decode(value.replace(b"-", b"+").replace(b"_", b"/"))
    return Image.open(io.BytesIO(value))


def pixels(split, resolution, cache):
    """(images, 3, R, R) uint8 in the order of split.image_keys; cached by folder and resolution."""
    os.makedirs(cache, exist_ok=True)
    stamp = hashlib.sha256(os.path.abspath(split.folder).encode() + b"".join(split.image_keys)).hexdigest()[:16]
    path = os.path.join(cache, f"{stamp}_{resolution}.npy")
    if not os.path.exists(path):
        out = np.empty((len(split.image_keys), 3, resolution, resolution), np.uint8)
        for i, key in enumerate(split.image_keys):
            image = decode(split.images[key]).resize((resolution, resolution), Image.BICUBIC).convert("RGB")
            out[i] = np.asarray(image).transpose(2, 0, 1)
        np.save(path + ".tmp.npy", out)
        os.replace(path + ".tmp.npy", path)
    return np.load(path, mmap_mode="r")


def normalise(batch):
    return (torch.from_numpy(np.array(batch)).float().div(255) - MEAN) / STD


def make_tokenizer(vocab, cache):
    from cn_clip.clip.bert_tokenizer import FullTokenizer
    os.makedirs(cache, exist_ok=True)
    path = os.path.join(cache, f"vocab-{hashlib.sha256(vocab).hexdigest()[:16]}.txt")
    with open(path, "wb") as f:
        f.write(vocab)
    return FullTokenizer(path)


def tokenize(tokenizer, text, context):
    text = text.lower().replace("\u201c", '"').replace("\u201d", '"')
    words = ["[CLS]"] + tokenizer.tokenize(text)[:context - 2] + ["[SEP]"]
    ids = tokenizer.convert_tokens_to_ids(words)
    return ids + [0] * (context - len(ids))


def rate(config, step, total):
    if step < config["warmup"]:
        return config["lr"] * (step + 1) / config["warmup"]
    x = min(1.0, (step - config["warmup"]) / max(1, total - config["warmup"]))
    shape = {"cosine": 0.5 * (1 + math.cos(math.pi * x)), "linear": 1 - x, "constant": 1.0}[config["schedule"]]
    return config["lr"] * shape


def train(model, config, args, split, images, tokenizer, context, out):
    order = [[int(i) for i in line.split()] for line in open(args.samples) if line.strip()]
    total = args.total_steps or int(config["max_steps"]) or len(order)
    named = tuwen_checkpoint.named_parameters(model)
    skip = lambda n: any(part in n for part in config["no_decay"])
    optimizer = torch.optim.AdamW([{"params": [p for n, p in named if skip(n)], "weight_decay": 0.0},
                                   {"params": [p for n, p in named if not skip(n)], "weight_decay": config["weight_decay"]}],
                                  lr=config["lr"], betas=(config["beta1"], config["beta2"]), eps=config["eps"], fused=True)
    place = {key: i for i, key in enumerate(split.image_keys)}
    tokens, losses, start = {}, [], time.time()
    model.train()
    for step, items in enumerate(order[:args.steps or len(order)]):
        rows, ids = [], []
        for item in items:
            if item not in tokens:
                image_id, _, text = split.pair(item)
                tokens[item] = (place[str(image_id).encode()], tokenize(tokenizer, text, context))
            rows.append(tokens[item][0])
            ids.append(tokens[item][1])
        image, text, scale = model(normalise(images[rows]), torch.tensor(ids))
        logits, target = scale * image @ text.t(), torch.arange(len(items))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2
        optimizer.zero_grad()
        loss.backward()
        if config["grad_clip"]:
            torch.nn.utils.clip_grad_norm_([p for _, p in named], config["grad_clip"])
        lr = rate(config, step, total)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        model.logit_scale.data.clamp_(0, config["logit_scale_max"])
        losses.append(loss.item())
        out.write(json.dumps({"step": step + 1, "loss": loss.item(), "lr": lr,
                              "logit_scale": model.logit_scale.item()}) + "\n")
        out.flush()
        if step % 50 == 0:
            print(f"step {step + 1}/{total} loss {loss.item():.5f}, {(time.time() - start) / (step + 1):.2f} s a step", flush=True)
    return losses


def recall(scores, positives):
    """R@1, 5, 10 in percent; equal scores keep the gallery's order; no positives is a miss."""
    top = torch.argsort(scores, dim=1, descending=True, stable=True)[:, :10].tolist()
    hits = [[bool(positives[i].intersection(row[:k])) for i, row in enumerate(top)] for k in (1, 5, 10)]
    return [100 * sum(h) / max(1, len(h)) for h in hits]


@torch.no_grad()
def evaluate(model, split, images, texts_file, tokenizer, context):
    model.eval()
    records = [json.loads(line) for line in open(texts_file, encoding="utf-8") if line.strip()]
    batches = lambda n: (slice(i, min(n, i + 100)) for i in range(0, n, 100))
    image = torch.cat([F.normalize(model.encode_image(normalise(images[s])), dim=-1) for s in batches(len(images))])
    ids = torch.tensor([tokenize(tokenizer, r["text"], context) for r in records])
    text = torch.cat([F.normalize(model.encode_text(ids[s]), dim=-1) for s in batches(len(ids))])
    place = {key: i for i, key in enumerate(split.image_keys)}
    of_text = [{place[str(i).encode()] for i in r["image_ids"] if str(i).encode() in place} for r in records]
    of_image = [set() for _ in split.image_keys]
    for t, found in enumerate(of_text):
        for i in found:
            of_image[i].add(t)
    t2i, i2t = recall(text @ image.t(), of_text), recall(image @ text.t(), of_image)
    return {"t2i_r1": t2i[0], "t2i_r5": t2i[1], "t2i_r10": t2i[2], "i2t_r1": i2t[0], "i2t_r5": i2t[1], "i2t_r10": i2t[2]}


def compare(losses, args):
    log = [json.loads(line) for line in open(args.compare)]
    theirs = {r["step"]: r["loss"] for r in log if r.get("event") == "step"}
    apart = [(abs(theirs[i + 1] / loss - 1), i + 1) for i, loss in enumerate(losses[:args.compare_steps]) if i + 1 in theirs]
    if not apart:
        raise SystemExit(f"{args.compare}: no losses of these steps; run tuwen with --log_interval 1")
    worst, step = max(apart)
    print(f"compared {len(apart)} losses: largest relative difference {worst:.2e} at step {step}, "
          f"median {sorted(apart)[len(apart) // 2][0]:.2e}")


def main():
    args = parse()
    torch.set_num_threads(args.threads)
    config, checkpoint = configuration(args), tuwen_checkpoint.read(args.init)
    sizes, vocab = checkpoint["model"], checkpoint["vocab"]
    if not vocab:
        raise SystemExit(f"{args.init}: no vocabulary in it")
    context = int(checkpoint["attributes"].get("context_length", sizes["context_length"]))
    tokenizer = make_tokenizer(vocab, args.cache)
    words = checkpoint["params"]["bert.embeddings.word_embeddings.weight"].shape[0]
    model = tuwen_checkpoint.reference_class(sizes, words, tokenizer=tokenizer)
    tuwen_checkpoint.load_into(model, checkpoint["params"])
    print({**config, "context": context, "vocabulary": words, "threads": args.threads})
    with open(args.output, "w") as out:
        losses = []
        if args.samples:
            split = Split(args.train)
            images = pixels(split, sizes["image"]["resolution"], args.cache)
            losses = train(model, config, args, split, images, tokenizer, context, out)
        if args.val:
            split = Split(args.val)
            images = pixels(split, sizes["image"]["resolution"], args.cache)
            scores = evaluate(model, split, images, args.val_texts or split.texts_file(), tokenizer, context)
            out.write(json.dumps({"step": len(losses), **scores}) + "\n")
            print(" ".join(f"{k}={v:.2f}" for k, v in scores.items()))
    if args.compare:
        compare(losses, args)


if __name__ == "__main__":
    main()
