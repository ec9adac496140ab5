#!/usr/bin/env python3
"""Runs every step of a model's life with the built program and fills the table of models in README.md and
README.zh-CN.md, between their markers.

    python3 scripts/readme_models_table.py --model tiny tiny-rn small micro     # the other rows stay as they were
    python3 scripts/readme_models_table.py                                      # all, one after another

For each model: random weights as a published .pt (float16 where published files have it), then `tuwen` loads them
(similarity), fine-tunes one step of two pairs (exactly the numbers of `train`; the largest in micro-batches of one with
recomputation), extracts, classifies and exports (to .pt and to a Hugging Face folder; both are loaded again and must
give bit-equal features) on a few generated pictures. A cell is what happened, with wall seconds and the largest
resident memory; nothing is filled in by hand. A model that needs more memory than is available says so.
Rows are kept in --results, so that models can be run one at a time. Needs torch, cn_clip, h5py, numpy, pyyaml; ViT-H-14
20 GB of disk and 17 GB of memory."""
import argparse
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np
import torch
import yaml

import tuwen_checkpoint

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
MODELS = ["RN50", "ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14", "small", "tiny", "tiny-rn", "micro"]
STEPS = ["load", "fine-tune", "extract", "classify", "export"]
HEADS = {"README.md": ["model", "parameters"] + STEPS,
         "README.zh-CN.md": ["模型", "参数量", "加载", "微调", "提取特征", "零样本分类", "导出"]}
PICTURES = 4  # and as many texts
CHINESE = {"loss": "损失", f"{PICTURES} in 2 classes": f"{PICTURES} 张 2 类", "HF has no ResNet": "HF 无 ResNet 版",
           "GB of memory": "GB 内存", "needs": "需要", "are free": "空闲"}
BEGIN, END = "<!-- models-table: scripts/readme_models_table.py -->", "<!-- models-table end -->"


class Failed(Exception):
    pass


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", nargs="+", default=MODELS, choices=MODELS)
    p.add_argument("--tuwen", default=os.path.join(ROOT, "build/release/tuwen"))
    p.add_argument("--results", default=os.path.join(ROOT, "out/models_table.json"))
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--work", help="where the temporary folder is made")
    p.add_argument("--no_readme", action="store_true", help="only run and keep the results")
    return p.parse_args()


def largest_memory(pid):
    """In GB, so far: of the program alone, which wait4's figure is not (a child begins with Python's pages)."""
    try:
        with open(f"/proc/{pid}/status") as f:
            return int(re.search(r"VmHWM:\s+(\d+)", f.read())[1]) / 1e6
    except (OSError, TypeError):  # it has ended
        return 0.0


def run(*command):
    """Standard output, and "seconds, memory" of a command that must succeed."""
    start, peak = time.perf_counter(), 0.0
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen([str(c) for c in command], stdout=out, stderr=err)
        while child.poll() is None:
            peak = max(peak, largest_memory(child.pid))
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        out.seek(0), err.seek(0)
        if child.returncode:
            lines = err.read().decode(errors="replace").strip().split("\n")
            raise Failed(f"exit {child.returncode}: {lines[-1][-300:]}")
        return out.read().decode(), f"{seconds:.1f} s, {peak:.2f} GB"


# ---- what the steps work on ----

def stored_as(name):
    """Published files keep class and positional embeddings, the image tower's norms and logit_scale in float32."""
    single = ("class_embedding", "visual.positional_embedding", "visual.ln_", ".ln_1.", ".ln_2.", "bn", "downsample.1",
              "logit_scale")
    return torch.float32 if any(part in name for part in single) else torch.float16


def value_of(name, shape, generator):
    if name.endswith("logit_scale"):
        return torch.tensor(2.6593)
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    noise = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        fan_in = noise[0].numel()
        return noise * (fan_in ** -0.5 if len(shape) == 4 else 0.03)
    gain = name.endswith(("running_var", "LayerNorm.weight")) or re.search(r"(ln_\w+|bn\d|downsample\.1)\.weight$", name)
    return 1 + 0.05 * noise.abs() if gain else 0.02 * noise


def write_pt(name, sizes, words, path):
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in tuwen_checkpoint.reference_class(sizes, words).state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    state = {}
    for key, shape in shapes.items():
        if "pooler" not in key and "position_ids" not in key:
            value = value_of(key, shape, generator)
            state["module." + key] = value.to(stored_as(key)) if value.is_floating_point() else value
    torch.save({"epoch": 0, "step": 0, "name": name, "state_dict": state}, path)
    return sum(v.numel() for k, v in state.items() if "running_" not in k and "num_batches" not in k)


def write_data(tuwen, folder, words):
    """Splits of a few pictures, a classification folder of them, a picture, and a vocabulary of `words` lines."""
    run(tuwen, "shapes", folder, "--train", 4, "--valid", PICTURES, "--size", 96)
    run(tuwen, "prepare", "--data_dir", folder, "--splits", "train,valid")
    for i, line in enumerate(open(f"{folder}/valid_imgs.tsv")):
        place = f"{folder}/labels/test/{i % 2}"
        os.makedirs(place, exist_ok=True)
        with open(f"{place}/{i}.jpg", "wb") as f:
            f.write(base64.b64decode(line.split("\t")[1]))
    with open(f"{folder}/labels/label_cn.txt", "w", encoding="utf-8") as f:
        f.write("红色的圆形\n蓝色的三角形\n")
    lines = open(f"{folder}/vocab.txt", encoding="utf-8").read().split("\n")[:-1]
    lines += [f"[unused{i}]" for i in range(words - len(lines))]
    with open(f"{folder}/words.txt", "w", encoding="utf-8") as f:
        f.writelines(line + "\n" for line in lines)
    return len(lines)


# ---- the steps ----

def load(j):
    out, cost = run(j.tuwen, "similarity", "--checkpoint", j.weights, "--vocab", j.vocab, "--threads", j.threads,
                    f"{j.data}/labels/test/0/0.jpg", "红色的圆形", "蓝色的三角形")
    shares = [float(x) for x in re.findall(r"([0-9.]+) ?%", out)]
    if len(shares) != 2 or abs(sum(shares) - 100) > 0.1:
        raise Failed(f"no two probabilities in: {out[:100]}")
    return cost


def available_gb():
    return int(re.search(r"MemAvailable:\s+(\d+)", open("/proc/meminfo").read())[1]) / 1e6


def fine_tune(j):
    # values, gradients and two moments in f32; activations of one pair come on top
    need = 16 * j.parameters / 1e9 + 1
    if need > available_gb():
        raise Failed(f"needs {need:.0f} GB of memory, {available_gb():.0f} are free")
    small = ["--micro_batch", 1, "--recompute", "block"] if j.name == "ViT-H-14" else []
    _, cost = run(j.tuwen, "train", "--init", j.weights, "--vocab", j.vocab, "--train_data", f"{j.data}/lmdb/train",
                  "--output", f"{j.folder}/run", "--batch", 2, "--max_steps", 1, "--warmup", 0, "--lr", 1e-5, "--threads",
                  j.threads, *small)
    losses = [r["loss"] for r in map(json.loads, open(f"{j.folder}/run/log.jsonl")) if "loss" in r]
    if not losses or not np.isfinite(losses).all():
        raise Failed(f"losses {losses}")
    j.trained = os.path.realpath(f"{j.folder}/run/latest")
    return f"loss {losses[0]:.2f}, {cost}"


def features(j, model, output):
    _, cost = run(j.tuwen, "extract", "--checkpoint", model, "--vocab", j.vocab, "--data", f"{j.data}/lmdb/valid",
                  "--output", output, "--threads", j.threads, "--batch", 4)
    rows = []
    for name in ("valid_imgs.img_feat.h5", "valid_texts.txt_feat.h5"):
        with h5py.File(f"{output}/{name}", "r") as f:
            rows.append(f["features"][()])
        if len(rows[-1]) != PICTURES or not np.allclose(np.linalg.norm(rows[-1], axis=1), 1, atol=1e-5):
            raise Failed(f"{name}: {rows[-1].shape}, not {PICTURES} rows of length 1")
    return rows, cost


def extract(j):
    j.rows, cost = features(j, j.trained, f"{j.folder}/features")
    return f"{PICTURES} + {PICTURES}, {cost}"


def classify(j):
    scores = f"{j.folder}/scores.json"
    _, cost = run(j.tuwen, "classify", "--checkpoint", j.trained, "--vocab", j.vocab, "--data", f"{j.data}/labels",
                  "--output", scores, "--threads", j.threads, "--batch", 4)
    confusion = np.array(json.load(open(scores))["confusion"])
    if confusion.sum() != PICTURES:
        raise Failed(f"{confusion.sum()} images counted, not {PICTURES}")
    return f"{PICTURES} in 2 classes, {cost}"


def export(j):
    done = []
    for kind, target in (("pt", f"{j.folder}/export.pt"), ("hf", f"{j.folder}/export_hf")):
        if kind == "hf" and j.sizes["image"].get("kind") == "resnet":
            done.append("HF has no ResNet")
            continue
        run(j.tuwen, "convert", j.trained, target, "--to", kind, "--vocab", j.vocab)
        again, _ = features(j, target, f"{j.folder}/again_{kind}")
        if not all(np.array_equal(a, b) for a, b in zip(j.rows, again)):
            raise Failed(f"features after export to {kind} differ by {max(np.abs(a - b).max() for a, b in zip(j.rows, again))}")
        done.append({"pt": ".pt", "hf": "HF"}[kind] + " =")
        shutil.rmtree(target) if os.path.isdir(target) else os.remove(target)
    return ", ".join(done)


def row_of(args, name):
    j = argparse.Namespace(name=name, tuwen=args.tuwen, threads=args.threads)
    j.sizes = yaml.safe_load(open(os.path.join(ROOT, "configs/models", name + ".yaml")))
    with tempfile.TemporaryDirectory(dir=args.work) as j.folder:
        j.data, j.weights = f"{j.folder}/data", f"{j.folder}/{name}.pt"
        words = write_data(args.tuwen, j.data, j.sizes["text"]["vocabulary"])
        j.vocab = f"{j.data}/words.txt"
        j.parameters = write_pt(name, j.sizes, words, j.weights)
        row = {"parameters": f"{j.parameters / 1e6:.1f} M"}
        for step, work in zip(STEPS, (load, fine_tune, extract, classify, export)):
            try:
                row[step] = work(j)
            except Failed as e:
                row[step] = f"✗ {e}"
                if step == "fine-tune":  # what follows uses the weights as they came
                    j.trained = j.weights
            print(f"{name}: {step}: {row[step]}", flush=True)
            if step == "fine-tune" and j.trained != j.weights:
                os.remove(j.weights)
    return row


def fill_readme(name, rows):
    path = os.path.join(ROOT, name)
    text = open(path, encoding="utf-8").read()
    if BEGIN not in text or END not in text:
        sys.exit(f"{path}: the lines '{BEGIN}' and '{END}' are missing")
    lines = ["| " + " | ".join(HEADS[name]) + " |", "|" + "---|" * len(HEADS[name])]
    for model in MODELS:
        if model in rows:
            cells = [model] + [rows[model].get(c, "").replace("|", "/") for c in ["parameters"] + STEPS]
            line = "| " + " | ".join(cells) + " |"
            for english, chinese in CHINESE.items() if name.endswith("zh-CN.md") else ():
                line = line.replace(english, chinese)
            lines.append(line)
    before, after = text[:text.index(BEGIN) + len(BEGIN)], text[text.index(END):]
    with open(path, "w", encoding="utf-8") as f:
        f.write(before + "\n\n" + "\n".join(lines) + "\n\n" + after)


def main():
    args = parse()
    os.makedirs(os.path.dirname(args.results), exist_ok=True)
    rows = json.load(open(args.results)) if os.path.exists(args.results) else {}
    for name in args.model:
        rows[name] = row_of(args, name)
        with open(args.results, "w", encoding="utf-8") as f:
            json.dump(rows, f, indent=1, ensure_ascii=False)
    if not args.no_readme:
        for name in HEADS:
            fill_readme(name, rows)
    if any(str(cell).startswith("✗") for name in args.model for cell in rows[name].values()):
        sys.exit("some steps failed")


if __name__ == "__main__":
    main()
