#!/usr/bin/env python3
"""`tuwen retrieve` beside the reference's make_topk_predictions, text-to-image, top 10, on one machine in one run.

    python3 scripts/bench/retrieve.py [--images 30000] [--texts 30000] [--dim 512]

Both read the same random unit features from JSON lines and write a prediction file; tuwen is also timed from
.npy. The reference needs a GPU as written: its .cuda() is made neutral, and its time for all
texts is EXTRAPOLATED from --queries of them (time with them minus time with none, times the share, plus time with none).
The predictions of those queries are compared. Needs torch, numpy, tqdm and cn_clip."""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time

import numpy as np

NEUTRAL = """
import importlib.util, runpy, sys, torch
torch.Tensor.cuda = lambda self, *args, **kwargs: self
torch.set_num_threads(int(sys.argv[1]))
sys.argv = sys.argv[2:]
runpy.run_path(importlib.util.find_spec("cn_clip.eval.make_topk_predictions").origin, run_name="__main__")
"""


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tuwen", default="build/release/tuwen")
    p.add_argument("--images", type=int, default=30000)
    p.add_argument("--texts", type=int, default=30000)
    p.add_argument("--dim", type=int, default=512)
    p.add_argument("--queries", type=int, default=300, help="texts that the reference really searches for")
    p.add_argument("--threads", type=int, default=os.cpu_count(), help="of both")
    p.add_argument("--rounds", type=int, default=1, help="of tuwen; the fastest counts")
    return p.parse_args()


def unit(rng, n, d):
    x = rng.standard_normal((n, d), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def write(path, key, x):
    """Every feature as <path>.jsonl and as <path>.npy with its ids."""
    np.save(path + ".npy", x)
    with open(path + ".jsonl", "w") as f, open(path + ".ids.jsonl", "w") as ids:
        for i, row in enumerate(x):
            f.write(json.dumps({key: i, "feature": row.astype(float).tolist()}) + "\n")
            ids.write(f"{i}\n")


def timed(command):
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - start, done.stdout


def main():
    args = parse()
    rng = np.random.default_rng(1)
    print(f"{os.cpu_count()} processors, {args.threads} threads each, load before: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as work:
        write(f"{work}/imgs.img_feat", "image_id", unit(rng, args.images, args.dim))
        write(f"{work}/texts.txt_feat", "text_id", unit(rng, args.texts, args.dim))
        seconds, fastest = {}, float("inf")
        for form in ("jsonl", "npy") * args.rounds:
            whole, out = timed([args.tuwen, "retrieve", "--images", f"{work}/imgs.img_feat.{form}", "--texts",
                                        f"{work}/texts.txt_feat.{form}", "--output", f"{work}/{form}", "--name", "x",
                                        "--direction", "t2i", "--threads", str(args.threads)])
            search = float(re.search(r"searched in ([0-9.]+) s", out)[1])
            seconds[form] = min(whole, seconds.get(form, whole))
            fastest = min(search, fastest)
            print(f"tuwen, {args.texts} x {args.images}, d = {args.dim}, from .{form}: {whole:.2f} s in all, "
                  f"{search:.2f} s searching")
        with open(f"{work}/texts.txt_feat.jsonl") as f, open(f"{work}/few.jsonl", "w") as few, open(f"{work}/none.jsonl", "w"):
            few.writelines(line for _, line in zip(range(args.queries), f))
        times = {}
        for name in ("none", "few"):
            times[name], _ = timed([sys.executable, "-c", NEUTRAL, str(args.threads), "make_topk_predictions", "--image-feats",
                                    f"{work}/imgs.img_feat.jsonl", "--text-feats", f"{work}/{name}.jsonl", "--output",
                                    f"{work}/{name}.predictions"])
        each = (times["few"] - times["none"]) / args.queries
        total = times["none"] + each * args.texts
        print(f"reference: {times['none']:.2f} s to start and load, {1e3 * each:.2f} ms a query ({args.queries} measured), "
              f"extrapolated to {args.texts}: {total:.0f} s")
        with open(f"{work}/npy/x_predictions.jsonl") as f, open(f"{work}/few.predictions") as g:
            pairs = [(a, b) for a, b in zip(f, g)]
        print(f"predictions of those {args.queries}: {sum(a == b for a, b in pairs)} the same; load after: {os.getloadavg()[0]:.1f}")
        print(f"retrieve: ratio_jsonl={total / seconds['jsonl']:.0f} ratio_npy={total / seconds['npy']:.0f} "
              f"ratio_search={each * args.texts / fastest:.0f} (reference extrapolated)")


if __name__ == "__main__":
    main()
