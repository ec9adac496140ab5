#!/usr/bin/env python3
"""Checks that tuwen's features, predictions and scores are the reference's, on a real split.

    python3 scripts/check_scores.py --checkpoint runs/one --data DATA/lmdb/valid --texts DATA/valid_texts.jsonl

Runs `tuwen extract`, `retrieve` and `evaluate`, and over the same feature files the reference's own scripts
(make_topk_predictions*, transform_ir_annotation_to_tr, evaluation*) of the installed package cn_clip, unchanged but for
.cuda(), which becomes a no-operation. It fails unless
  - the reference's scripts accept every file, and tuwen the reference's predictions,
  - both scorers give the same numbers, to the last digit, for the same predictions, in both directions,
  - the predictions are the same line by line, once as they are and once with every feature there twice (ties);
    a line that differs must have f64 scores closer than the rounding of an f32 sum can tell apart.
Needs torch, numpy, tqdm and cn_clip."""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np

# Runs one of the reference's scripts with .cuda() made neutral: argv[1] is the module, the rest are its arguments.
NEUTRAL = """
import importlib.util, runpy, sys, torch
torch.Tensor.cuda = lambda self, *args, **kwargs: self
sys.argv = sys.argv[1:]
runpy.run_path(importlib.util.find_spec("cn_clip.eval." + sys.argv[0]).origin, run_name="__main__")
"""
DIRECTIONS = {  # name: reference's modules, file of predictions, fields
    "text-to-image": ("make_topk_predictions", "evaluation", "valid_predictions.jsonl", "text_id", "image_ids"),
    "image-to-text": ("make_topk_predictions_tr", "evaluation_tr", "valid_tr_predictions.jsonl", "image_id", "text_ids"),
}
failures = []


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tuwen", default="build/release/tuwen")
    p.add_argument("--checkpoint", required=True)
    p.add_argument("--data", required=True, help="folder of the split's LMDB")
    p.add_argument("--texts", required=True, help="its texts with their images, JSONL of the original format")
    p.add_argument("--vocab", help="for a checkpoint without one")
    p.add_argument("--features", help="folder with valid_*_feat.jsonl of an earlier run, instead of extracting")
    p.add_argument("--tied", type=int, default=500, help="queries of the run in which every feature is there twice")
    return p.parse_args()


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nfailed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def reference(*arguments):
    return run([sys.executable, "-c", NEUTRAL, *arguments])


def check(condition, what):
    print(f"  {'ok  ' if condition else 'FAIL'} {what}")
    if not condition:
        failures.append(what)


def read_lines(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def read_features(path):
    records = read_lines(path)
    key = "image_id" if "image_id" in records[0] else "text_id"
    return [r[key] for r in records], np.array([r["feature"] for r in records], dtype=np.float32)


def explained(mine, theirs, query, gallery, index):
    """Whether two rankings differ only where f32 sums cannot tell the scores apart."""
    scores = [[float(gallery[index[i]].astype(np.float64) @ query.astype(np.float64)) for i in ids] for ids in (mine, theirs)]
    # |error| of an f32 dot product of unit vectors, for any order of summation, is at most d * 2^-24 (first order).
    bound = 2 * len(query) * 2.0 ** -24
    return all(abs(a - b) <= bound for a, b in zip(*scores)), max(abs(a - b) for a, b in zip(*scores))


def compare_predictions(what, mine, theirs, query_key, answers_key, queries, gallery):
    a, b = read_lines(mine), read_lines(theirs)
    with open(mine, "rb") as f, open(theirs, "rb") as g:
        if f.read() == g.read():
            return check(True, f"{what}: {len(a)} predictions, byte for byte the same")
    check(len(a) == len(b) and [r[query_key] for r in a] == [r[query_key] for r in b], f"{what}: the same queries")
    row = {i: k for k, i in enumerate(queries[0])}
    column = {i: k for k, i in enumerate(gallery[0])}
    differing = [(x, y) for x, y in zip(a, b) if x != y]
    for x, y in differing:
        good, gap = explained(x[answers_key], y[answers_key], queries[1][row[x[query_key]]], gallery[1], column)
        places = [k for k, (i, j) in enumerate(zip(x[answers_key], y[answers_key])) if i != j]
        print(f"       {query_key} {x[query_key]}: ranks {places} differ, f64 scores there by at most {gap:.3g}")
        check(good, f"{what}: {query_key} {x[query_key]} differs by rounding of f32 sums only")
    print(f"       {what}: {len(a) - len(differing)} of {len(a)} lines byte for byte the same")


def double(source, target, key, offset, queries):
    """Every record of a feature file twice, the copies behind under other ids; the first `queries` alone if given."""
    records = read_lines(source)[:queries]
    copies = [] if queries else [{key: r[key] + offset, "feature": r["feature"]} for r in records]
    with open(target, "w", encoding="utf-8") as f:
        for r in records + copies:
            f.write(json.dumps(r) + "\n")


def retrieve(args, images, texts, folder):
    print("  " + "\n  ".join(run([args.tuwen, "retrieve", "--images", images, "--texts", texts, "--output", folder, "--name",
                                  "valid"]).splitlines()))


def make_topk(direction, images, texts, output):
    reference(DIRECTIONS[direction][0], "--image-feats", images, "--text-feats", texts, "--top-k", "10",
              "--eval-batch-size", "32768", "--output", output)


def check_ties(args, work, images, texts):
    offset = 10 ** 9
    for direction, (_, _, name, query_key, answers_key) in DIRECTIONS.items():
        few_images, few_texts = f"{work}/tied_imgs.jsonl", f"{work}/tied_texts.jsonl"
        to_image = direction == "text-to-image"
        double(images, few_images, "image_id", offset, None if to_image else args.tied)
        double(texts, few_texts, "text_id", offset, args.tied if to_image else None)
        run([args.tuwen, "retrieve", "--images", few_images, "--texts", few_texts, "--output", f"{work}/tied", "--name", "valid"])
        make_topk(direction, few_images, few_texts, f"{work}/tied_reference.jsonl")
        pools = read_features(few_texts), read_features(few_images)
        queries, gallery = pools if to_image else pools[::-1]
        compare_predictions(f"{direction}, every answer twice", f"{work}/tied/{name}", f"{work}/tied_reference.jsonl",
                            query_key, answers_key, queries, gallery)


def score_both(args, work, texts, tr_texts, direction, predictions, what):
    """The scores of one prediction file by both scorers; returns them if they are the same."""
    reference(DIRECTIONS[direction][1], texts if direction == "text-to-image" else tr_texts, predictions, f"{work}/theirs.json")
    run([args.tuwen, "evaluate", "--predictions", predictions, "--texts", texts, "--output", f"{work}/mine.json"])
    with open(f"{work}/theirs.json") as f, open(f"{work}/mine.json") as g:
        theirs, mine = f.read(), g.read()
    check(json.loads(theirs)["success"], f"{direction}: the reference's scorer accepts {what}")
    check(theirs == mine, f"{direction}: the scores of {what} are the same bytes: {mine}")
    return theirs


def main():
    args = parse()
    with tempfile.TemporaryDirectory() as work:
        features = args.features
        if not features:
            features = f"{work}/features"
            command = [args.tuwen, "extract", "--checkpoint", args.checkpoint, "--data", args.data, "--texts", args.texts,
                       "--format", "jsonl", "--output", features, "--name", "valid"]
            print("  " + run(command + (["--vocab", args.vocab] if args.vocab else [])).replace("\n", "\n  ").rstrip())
        images, texts = f"{features}/valid_imgs.img_feat.jsonl", f"{features}/valid_texts.txt_feat.jsonl"
        retrieve(args, images, texts, f"{work}/mine")
        annotation = shutil.copy(args.texts, f"{work}/valid_texts.jsonl")
        reference("transform_ir_annotation_to_tr", "--input", annotation)
        tr_annotation = f"{work}/valid_texts.tr.jsonl"
        for direction, (_, _, name, query_key, answers_key) in DIRECTIONS.items():
            make_topk(direction, images, texts, f"{work}/{name}")
            pools = read_features(texts), read_features(images)
            queries, gallery = pools if direction == "text-to-image" else pools[::-1]
            compare_predictions(direction, f"{work}/mine/{name}", f"{work}/{name}", query_key, answers_key, queries, gallery)
            mine = score_both(args, work, annotation, tr_annotation, direction, f"{work}/mine/{name}", "tuwen's predictions")
            theirs = score_both(args, work, annotation, tr_annotation, direction, f"{work}/{name}", "the reference's predictions")
            check(mine == theirs, f"{direction}: both ways end in the same scores")
        check_ties(args, work, images, texts)
    print(f"{len(failures)} failures" if failures else "all the same")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
