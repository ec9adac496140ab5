#!/usr/bin/env python3
"""Fine-tunes from the reference's .pt with tuwen and with the reference, and compares the losses of the first steps.

    python3 scripts/compare_finetune.py --model tiny tiny-rn RN50 --tuwen build/release/tuwen --train LMDB/train --vocab vocab.txt

For each model the reference's class writes random weights as its .pt (compare_full_size.py), `tuwen train --init` takes
that file (no dropout, no augmentation, f32), and the same class goes on from the same weights over the same samples.
Fails when a loss differs by more than --tolerance, relative. --control runs the reference once more from weights that
differ by the last bit of one element: how far its own losses move then is what rounding does to them. Needs the packages of scripts/reference_run.py."""
import argparse
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile

import torch

import compare_full_size
import reference_run


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", nargs="+", default=["tiny", "tiny-rn"], help="names in configs/models, or YAML files")
    p.add_argument("--tuwen", default="build/release/tuwen")
    p.add_argument("--train", required=True, help="LMDB split folder")
    p.add_argument("--vocab", required=True)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--lr", type=float, default=5e-5)
    p.add_argument("--warmup", type=int, default=5)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--tolerance", type=float, default=1e-4)
    p.add_argument("--control", action="store_true")
    return p.parse_args()


def settings(args, resnet):
    """The original's betas and eps: another pair for RN50."""
    return {"lr": args.lr, "warmup": args.warmup, "weight_decay": 0.001, "max_steps": args.steps,
            "beta2": 0.999 if resnet else 0.98, "eps": 1e-8 if resnet else 1e-6,
            "text_dropout": 0.0, "attention_dropout": 0.0}


def train_tuwen(args, name, weights, config, folder):
    run, samples = os.path.join(folder, "run"), os.path.join(folder, "samples.txt")
    given = [part for key, value in config.items() for part in (f"--{key}", str(value))]
    model = ["--model", name] if name not in compare_full_size.PUBLISHED else []
    subprocess.run([args.tuwen, "train", "--init", weights, *model, "--vocab", args.vocab, "--train_data", args.train,
                    "--output", run, "--sample_log", samples, "--batch", str(args.batch), "--log_interval", "1",
                    "--threads", str(args.threads), "--report", "false", *given], check=True, stdout=subprocess.DEVNULL)
    events = (json.loads(line) for line in open(os.path.join(run, "log.jsonl"), encoding="utf-8"))
    return samples, [e["loss"] for e in events if e.get("event") == "step"]


def train_reference(args, model, sizes, tokenizer, config, samples, folder):
    options = argparse.Namespace(samples=samples, total_steps=args.steps, steps=args.steps)
    split = reference_run.Split(args.train)
    images = reference_run.pixels(split, sizes["image"]["resolution"], os.path.join(folder, "cache"))
    with open(os.devnull, "w") as nowhere:
        return reference_run.train(model, {**reference_run.DEFAULTS, **config}, options, split, images, tokenizer,
                                   sizes["context_length"], nowhere)


def largest(got, want):
    worst, step = max((abs(g / w - 1), i + 1) for i, (g, w) in enumerate(zip(got, want)))
    return worst, f"{worst:.2e} at step {step}"


def other_last_bit(model):
    """The last bit of one weight of the first convolution changes."""
    bits = dict(model.named_parameters())["visual.conv1.weight"].data.view(-1).view(torch.int32)
    bits[0] ^= 1
    return model


def compare(args, name, vocab, folder):
    tokenizer = reference_run.make_tokenizer(vocab, folder)
    model, sizes = compare_full_size.make_model(args, name, tokenizer, len(tokenizer.vocab))
    weights = os.path.join(folder, "weights.pt")
    compare_full_size.write_pt(model, name, weights)
    config = settings(args, sizes["image"].get("kind") == "resnet")
    control = other_last_bit(copy.deepcopy(model)) if args.control else None
    samples, got = train_tuwen(args, name, weights, config, folder)
    want = train_reference(args, model, sizes, tokenizer, config, samples, folder)
    if len(got) != len(want):
        raise SystemExit(f"{name}: tuwen logged {len(got)} losses, the reference {len(want)}")
    worst, text = largest(got, want)
    print(f"{name}: {len(want)} steps of {args.batch} pairs, loss {want[0]:.6f} to {want[-1]:.6f}, largest relative "
          f"difference {text}", flush=True)
    if control:
        moved = train_reference(args, control, sizes, tokenizer, config, samples, folder)
        print(f"{name}: the reference against itself, one last bit apart: {largest(moved, want)[1]}", flush=True)
    return worst <= args.tolerance


def main():
    args = parse()
    torch.set_num_threads(args.threads)
    vocab, bad = open(args.vocab, "rb").read(), []
    for name in args.model:
        folder = tempfile.mkdtemp(prefix="tuwen-finetune-")
        if not compare(args, name, vocab, folder):
            bad.append(name)
        shutil.rmtree(folder)
    sys.exit(f"beyond the limit: {', '.join(bad)}" if bad else 0)


if __name__ == "__main__":
    main()
