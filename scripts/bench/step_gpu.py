#!/usr/bin/env python3
"""Training steps on a GPU, tuwen and PyTorch side by side: five models, batch 128 and the largest that fits.

    python3 scripts/bench/step_gpu.py --program build/cuda/scripts/bench/bench_step_gpu --out out/gpu
    python3 scripts/bench/step_gpu.py --check --program build/release/scripts/bench/bench_step_gpu    # on a CPU, tiny

PyTorch is scripts/bench/step_gpu_peer.py: eager, and torch.compile for ViT-B-16 and ViT-L-14 at batch 128. The most
valuable runs come first and the rest is left out, saying so, when --budget seconds are over. --groups names what is run:
main (ViT-B-16 at batch 128), models (the others there), largest (batches), variants (tuwen with something turned off or
on), or all. Every run's JSON line goes to OUT/step_gpu.jsonl, tables and verdicts to OUT/step_gpu.md, anew after every
run. Shares are of --limit TFLOP/s: of bf16 products as this GPU does
them, measured first if torch is there, and of the figure given.

Nominal FLOPs: forward 24 N d^2 + 4 N^2 d a block and N patches, backward twice the blocks and once the patches (no
gradient goes into the pixels), all tokens of both towers. Executed FLOPs leave out what tuwen leaves out: they say how
busy the GPU was, the nominal ones how fast the work was done."""
import argparse
import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
# image: layers, width, patch, resolution; text: layers, width, ffn / width
SHAPES = {
    "ViT-B-16": (12, 768, 16, 224, 12, 768),
    "ViT-L-14": (24, 1024, 14, 224, 12, 768),
    "ViT-L-14-336": (24, 1024, 14, 336, 12, 768),
    "ViT-H-14": (32, 1280, 14, 224, 24, 1024),
}
RN50_GFLOP = 43.4  # ResNet and RBT3, counted once in the same way; bandwidth bounds it first


def blocks(layers, tokens, width, first_only):
    """Forward FLOPs of a tower; first_only: the last block's queries, projection and MLP for one token."""
    whole = 24 * tokens * width ** 2 + 4 * tokens ** 2 * width
    last = 4 * tokens * width ** 2 + 4 * tokens * width + 20 * width ** 2 if first_only else whole
    return (layers - 1) * whole + last


def gflop(model, context, first_only=False):
    """Training GFLOP of a pair."""
    if model not in SHAPES:
        return RN50_GFLOP if model == "RN50" else None
    il, iw, patch, side, tl, tw = SHAPES[model]
    n = (side // patch) ** 2
    products = blocks(il, n + 1, iw, first_only) + blocks(tl, context, tw, first_only)
    return (3 * products + 2 * n * 2 * 3 * patch ** 2 * iw) / 1e9


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--program", default="build/cuda/scripts/bench/bench_step_gpu")
    p.add_argument("--launcher", default="", help="what stands before the program, e.g. a loader with its library path")
    p.add_argument("--out", default="out/gpu")
    p.add_argument("--budget", type=float, default=480, help="seconds")
    p.add_argument("--limit", type=float, default=790, help="TFLOP/s of bf16 products, measured on an H200")
    p.add_argument("--aim", type=float, default=60, help="%% of the limit that a model should reach, by nominal FLOPs")
    p.add_argument("--groups", default="all", help="comma-separated: main, models, largest, variants; all")
    p.add_argument("--check", action="store_true", help="both halves on the CPU, tiny")
    args = p.parse_args()
    args.groups = list(GROUPS) if args.groups == "all" else args.groups.split(",")
    for name in args.groups:
        if name not in GROUPS:
            p.error(f"--groups: {name} is none of {', '.join(GROUPS)}, all")
    return args


class Runner:
    def __init__(self, args):
        self.args, self.start, self.rows, self.measured = args, time.monotonic(), [], None
        self.again = 2  # runs that failed and are looked at more closely
        os.makedirs(args.out, exist_ok=True)
        self.lines = open(os.path.join(args.out, "step_gpu.jsonl"), "a")

    def left(self):
        return self.args.budget - (time.monotonic() - self.start)

    def run(self, name, command, env=None, need=25.0, most=100.0, aside=False):
        """A row, or None. No single run gets more than `most` seconds, so that one which hangs leaves the others time; aside: a
        run that looks for an error, no figure."""
        if self.left() < need:
            print(f"left out, no time: {name}", flush=True)
            return None
        began, limit = time.monotonic(), max(min(self.left(), most), 5)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env={**os.environ, **(env or {})})
            out, err, code = done.stdout, done.stderr, done.returncode
        except subprocess.TimeoutExpired as cut:
            out, err, code = "", (cut.stderr or b"").decode(errors="replace") + f"\ncut after {limit:.0f} s", 124
        row = None
        for line in out.splitlines():
            if line.startswith("{"):
                row = json.loads(line)
        if code or row is None or "error" in row:
            print(f"FAILED {name}: {(err or out).strip().splitlines()[-1:] or code}", flush=True)
            self.write({"failed": name, "code": code, "error": err[-2000:]})
            return None
        row["wall_s"] = round(time.monotonic() - began, 1)
        if aside:
            print(f"{name}: it runs so", flush=True)
            self.write({"aside": name, **row})
            return row
        self.write(row)
        self.rows.append(row)
        self.save()
        print(f"{name}: {row['pairs_per_s']:.1f} pairs/s, {row['step_ms']:.2f} ms a step ({row['wall_s']} s)", flush=True)
        return row

    def write(self, line):
        self.lines.write(json.dumps(line) + "\n")
        self.lines.flush()

    def save(self):
        text = table(self.rows, self.args, self.measured)
        with open(os.path.join(self.args.out, "step_gpu.md"), "w") as f:
            f.write(text)
        return text

    def tuwen(self, model, batch, **more):
        settings = {"model": model, "batch": batch, "steps": 20, **more}
        env = {"TW_DEVICE": "cpu" if self.args.check else "cuda"}
        said = " ".join(f"{k}={v}" for k, v in more.items() if k not in ("profile", "steps"))
        name = f"tuwen {model} {batch or 'largest'} {said}".strip()
        row = self.run(name, self.command(settings), env, most=100.0 if batch else 150.0)
        if row is None and self.again > 0 and self.left() > 30:
            # Without graphs and with every launch waited for, an error is told by the kernel that made it.
            self.again -= 1
            self.run(name + ", every launch waited for", self.command({**settings, "steps": 2, "graphs": 0, "profile": 0}),
                     {**env, "CUDA_LAUNCH_BLOCKING": "1"}, most=45.0, aside=True)
        return row

    def command(self, settings):
        return self.args.launcher.split() + [self.args.program] + [f"{k}={v}" for k, v in settings.items()]

    def peer(self, model, batch, *more, need=25.0):
        command = [sys.executable, os.path.join(HERE, "step_gpu_peer.py"), "--model", model, "--batch", str(batch), *more]
        most = 150.0 if "--compile" in more or not batch else 75.0
        return self.run(f"pytorch {model} {batch or 'largest'} {' '.join(more)}".strip(), command, need=need, most=most)

    def limit(self):
        """TFLOP/s of a bf16 product of 8192 x 8192 x 8192 here; None where it cannot be had."""
        code = ("import torch\na=torch.randn(8192,8192,device='cuda',dtype=torch.bfloat16)\nb=torch.randn_like(a)\n"
                "for _ in range(5): a@b\ns,e=(torch.cuda.Event(enable_timing=True) for _ in range(2))\ns.record()\n"
                "for _ in range(20): a@b\ne.record();torch.cuda.synchronize()\nprint(20*2*8192**3/s.elapsed_time(e)/1e9)")
        try:
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            return None
        return float(done.stdout) if done.returncode == 0 else None


def share(row, tflops, executed):
    work = gflop(row["model"], row["text_length"] if executed and row.get("packed") else row["context"],
                 executed and bool(row.get("first_token_only")))
    return 100 * work * row["pairs_per_s"] / 1e3 / tflops if work else float("nan")


PARTS = {"products": ("linear", "conv2d"), "attention": ("attention", "pool_attention"),
         "norms": ("layer_norm", "add_layer_norm", "batch_norm", "l2_normalise"),
         "loss": ("contrastive_loss", "contrastive_sums"),
         "optimizer": ("adamw", "finite_norm", "gradient_rule", "move_statistics")}


def breakdown(row):
    ms, known = {}, 0.0
    for name, part in row["operations"].items():
        op = name.replace(" backward", "")
        group = next((g for g, ops in PARTS.items() if op in ops), "rest")
        ms[group] = ms.get(group, 0.0) + part["ms"]
        known += part["ms"]
    ms["gaps, copies"] = row["profiled_step_ms"] - known
    return ms


def variant(r):
    """What of tuwen is turned off or on in this run; empty: nothing."""
    named = [("graphs", "no graphs", r.get("graphs", True)), ("recompute", f"recompute {r.get('recompute')}", r.get("recompute", "none") == "none"),
             ("text_length", f"{r['text_length']} tokens", r["text_length"] == r["context"])]
    return ", ".join(text for _, text, usual in named if not usual)


def steps_table(rows, given, measured):
    lines = [f"Limit: {given:.0f} TFLOP/s given" + (f", {measured:.0f} measured here" if measured else ""), "",
             "| model | batch | who | ms a step | pairs/s | nominal % | executed % | nominal % of measured | taken MB | of it reserved "
             "| allocated |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]
    for r in rows:
        who = "tuwen" if r.get("program") else r["peer"] + " " + r["mode"]
        who += ", " + variant(r) if variant(r) else ""
        taken, reserved, allocated = (f"{r[k]:.0f}" if r.get(k) is not None else "-"
                                      for k in ("taken_mb", "reserved_mb", "allocated_mb"))
        lines.append(f"| {r['model']} | {r['batch']} | {who} | {r['step_ms']:.2f} | {r['pairs_per_s']:.1f} | "
                     f"{share(r, given, False):.1f} | {share(r, given, True):.1f} | "
                     f"{share(r, measured, False) if measured else float('nan'):.1f} | "
                     f"{taken} | {reserved} | {allocated} |")
    return lines + ["", "Taken: what the GPU has less of than before the program began, libraries' workspaces included, at its peak; "
                    "reserved: by PyTorch's allocator; allocated: asked for, at the peak."]


# What must be reached, and the aim: times PyTorch's pairs/s, % of the limit. RN50's peer has channels_last.
GOALS = {"eager": (1.4, 1.6), "compile": (1.1, 1.3)}
RN50_GOALS = {"eager": (1.2, 1.2)}
LEAST_SHARE = 50


def grade(value, least, aim):
    if value >= aim:
        return f"reaches the aim of {aim:g}"
    return f"reaches {least:g}, short of the aim of {aim:g}" if value >= least else f"SHORT OF {least:g}"


def against(r, p):
    """A run of tuwen beside one of its peer: speed, and memory where both are known."""
    ratio = r["pairs_per_s"] / p["pairs_per_s"]
    goals = RN50_GOALS if r["model"] == "RN50" else GOALS
    least, aim = goals.get(p["mode"], (1.0, 1.0))
    text = f"{ratio:.2f} times PyTorch {p['mode']} ({grade(ratio, least, aim)})"
    if r.get("taken_mb") is not None and p.get("taken_mb"):
        memory = r["taken_mb"] / p["taken_mb"]
        text += f" in {memory:.2f} of its memory" + (" (MORE)" if memory > 1 else "")
    return text


def verdicts(rows, args):
    """One line a run of tuwen, beside its peers of the same model, batch and tokens."""
    lines = []
    for r in rows:
        if not r.get("program"):
            continue
        peers = [p for p in rows if p.get("peer") and all(p[k] == r[k] for k in ("model", "batch", "text_length", "precision"))]
        name = f"{r['model']}, batch {r['batch']}" + (f", {variant(r)}" if variant(r) else "")
        text = f"{name}: {', '.join(against(r, p) for p in peers) or 'no peer ran'}"
        if r["model"] in SHAPES and r["precision"] == "bf16":
            reached = share(r, args.limit, False)
            text += f"; {reached:.1f} % of the limit ({grade(reached, LEAST_SHARE, args.aim)})"
        lines.append(text)
        lines += [f"{name}: {r[k]}" for k in ("refused", "not_captured") if r.get(k)]
    return lines


def table(rows, args, measured):
    lines = ["## Verdicts", ""] + [f"- {v}" for v in verdicts(rows, args)] + ["", "## Steps", ""]
    lines += steps_table(rows, args.limit, measured)
    for r in rows:
        if "operations" not in r:
            continue
        parts = breakdown(r)
        lines += ["", f"{r['model']}, batch {r['batch']}: parts of a step of {r['profiled_step_ms']:.2f} ms without graphs "
                  f"({r['step_ms']:.2f} ms with)", "", "| part | ms | % |", "|---|---|---|"]
        lines += [f"| {k} | {v:.3f} | {100 * v / r['profiled_step_ms']:.1f} |"
                  for k, v in sorted(parts.items(), key=lambda x: -x[1])]
    for r in rows:
        if r.get("choices"):
            lines += ["", f"{r['model']}, batch {r['batch']}{', ' + variant(r) if variant(r) else ''}: measured", ""]
            lines += [f"- {choice}" for choice in r["choices"]]
    return "\n".join(lines) + "\n"


def beside(r, model, batch, compiled, **more):
    r.tuwen(model, batch, profile=1, **more)
    r.peer(model, batch)
    if compiled:
        r.peer(model, batch, "--compile", need=45.0)


def main_model(r):
    beside(r, "ViT-B-16", 128, True)


def other_models(r):
    for model in ("ViT-L-14", "RN50", "ViT-H-14", "ViT-L-14-336"):
        beside(r, model, 128, model == "ViT-L-14")


def largest_batches(r):
    for model in ("ViT-B-16", "ViT-L-14", "ViT-H-14", "RN50", "ViT-L-14-336"):
        row = r.tuwen(model, 0)
        r.peer(model, 0, need=40.0)
        if row:  # at the same batch, where the other can
            r.peer(model, row["batch"], need=40.0)


def variants(r):
    r.tuwen("ViT-B-16", 128, graphs=0)
    r.tuwen("ViT-B-16", 128, text_length=20)
    r.peer("ViT-B-16", 128, "--text_length", "20")
    r.tuwen("ViT-B-16", 128, recompute="light")
    r.tuwen("ViT-L-14", 128, recompute="block")
    r.tuwen("ViT-B-16", 16)
    r.tuwen("ViT-B-16", 16, graphs=0)
    r.peer("ViT-B-16", 16)


GROUPS = {"main": main_model, "models": other_models, "largest": largest_batches, "variants": variants}


def main():
    args = parse()
    r = Runner(args)
    if args.check:
        r.tuwen("micro", 8, steps=2, precision="f32", profile=1)
        r.tuwen("micro", 8, steps=2, precision="f32", graphs=0, text_length=5)
        r.peer("tiny", 4, "--device", "cpu", "--steps", "2", "--warmup", "1")
        r.peer("tiny-rn", 4, "--device", "cpu", "--steps", "2", "--warmup", "1", "--precision", "f32")
    else:
        r.measured = r.limit()
        for group in args.groups:
            GROUPS[group](r)
    print(r.save())
    if len(r.rows) < (4 if args.check else 1):
        sys.exit("step_gpu.py: too little ran")


if __name__ == "__main__":
    main()
