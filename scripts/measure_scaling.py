#!/usr/bin/env python3
"""Measures training steps of 1, 2 and 4 ranks on this machine, for simulate_scaling.py.

    measure_scaling.py --file F --machine "what it is" [--build build/release] [--rounds 5] [--minutes 17]

The machine should be idle. Each round runs everything in another random order, and a short reference on all cores
between any two runs: where the reference before a run and the one after it differ by more than 3 %, the machine was
disturbed, and the run is repeated later. After a disturbed one, references go on until two agree. What counts is a run's time over that of its references; the median of
these, times the median of all references, is what is written, with the spread over the rounds and the share of time
that the hypervisor took ("steal" of /proc/stat)."""
import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

import scaling_costs as costs

REFERENCE = ["tiny", "16", "40", "f32", "2", "none", "0", "0", "0", "0", "0", "saved", "0", "each"]
TOLERANCE, STEPS = 0.03, 8  # of a run: five rounds are 40 steps
PATIENCE = 5  # references that are waited for the machine to be steady

# Steps: (model, ranks, threads, batch, micro-batch, KiB of a bucket, use); 0: whole, 16 MiB. No row of four ranks and
# none of several buckets calibrates anything; of the others a rank's batches lie on either side of the checked ones.
PLAN = [(m, *c, 0, 0, "calibrate") for m in ("tiny", "small")
        for c in ((1, 1, 8), (1, 1, 48), (1, 2, 16), (1, 2, 96), (2, 1, 16), (2, 1, 96))]
PLAN += [(m, *c, 0, 0, "check") for m in ("tiny", "small") for c in ((1, 1, 24), (1, 2, 48), (2, 1, 48), (4, 1, 64))]
PLAN += [("small", 1, 1, 48, 8, 0, "check"), ("small", 1, 2, 96, 24, 0, "check"), ("small", 2, 1, 48, 0, 1024, "check"),
         ("small", 2, 1, 96, 24, 4096, "check"), ("small", 4, 1, 96, 0, 1024, "check"),
         ("small", 4, 1, 96, 12, 4096, "check")]
PARTS = [(1, 1), (1, 2), (2, 1)]  # of bench_step_parts, ranks and threads
PAIRS = [("small", 32)]  # one rank of one thread alone, and two that know nothing of each other


@dataclass
class Run:
    """Something to measure, and for each accepted round its figures over the reference, by name."""
    kind: str              # "step", "parts", "alone" or "together"
    what: tuple
    rounds: list = field(default_factory=list)
    dropped: int = 0
    steal: list = field(default_factory=list)  # shares


class Bench:
    def __init__(self, build):
        self.build = build

    def start(self, program, words, ranks=1):
        command = [os.path.join(self.build, "scripts/bench", program), *map(str, words)]
        if ranks > 1:
            command = ["bash", os.path.join(costs.ROOT, "tests/mpirun.sh"), str(ranks), *command]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=costs.ROOT)

    def finish(self, process):
        out, error = process.communicate()
        if process.returncode or ":" not in out:
            raise SystemExit(f"{' '.join(process.args)}: {error or out}")
        return out

    def steps(self, processes):
        """Seconds of every step of all of them."""
        lines = [line for p in processes for line in self.finish(p).splitlines() if line.startswith("seconds of each")]
        return [float(x) for line in lines for x in line.split(":")[1].split()]

    def step_words(self, model, batch, threads, micro=0, bucket=0):
        return [model, batch, STEPS, "f32", threads, "none", 0, micro, 0, 0, 0, "saved", bucket, "each"]

    def reference(self):
        return statistics.median(self.steps([self.start("bench_step", REFERENCE)]))

    def run(self, kind, what):
        """name -> figures."""
        if kind == "step":
            model, ranks, threads, batch, micro, bucket, _ = what
            words = self.step_words(model, batch, threads, micro, bucket)
            return {"step": self.steps([self.start("bench_step", words, ranks)])}
        if kind == "parts":
            words = self.finish(self.start("bench_step_parts", ["small", 9, what[1]], what[0])).split(":")[1].split()
            return {name: [float(x)] for name, x in zip(words[::2], words[1::2])}
        copies = 2 if kind == "together" else 1
        words = self.step_words(*what, 1)
        return {"step": self.steps([self.start("bench_step", words) for _ in range(copies)])}


def steal():
    with open("/proc/stat") as file:
        words = [int(x) for x in file.readline().split()[1:]]
    return words[7], sum(words[:8])


def attempt(bench, run, before):
    """Runs it once; returns the reference after it."""
    stolen, total = steal()
    figures = bench.run(run.kind, run.what)
    now_stolen, now_total = steal()
    after = bench.reference()
    accepted = abs(after / before - 1) <= TOLERANCE
    if accepted:
        reference = (before + after) / 2
        run.rounds.append({name: [x / reference for x in values] for name, values in figures.items()})
        run.steal.append((now_stolen - stolen) / max(1, now_total - total))
    else:
        run.dropped += 1
    print(f"{run.kind} {run.what}: {statistics.median(next(iter(figures.values()))):.5g}, reference {before:.5f} "
          f"{after:.5f}{'' if accepted else ', dropped'}", flush=True)
    return after


def steady(bench, references):
    """A reference, if need be several: until the last two agree, or patience ends."""
    for _ in range(PATIENCE):
        if len(references) > 1 and abs(references[-1] / references[-2] - 1) <= TOLERANCE:
            break
        references.append(bench.reference())
    return references[-1]


def measure_all(bench, runs, rounds, deadline):
    """The references, when every run has so many accepted rounds or the time is up."""
    references = [bench.reference()]
    while time.monotonic() < deadline:
        missing = [r for r in runs if len(r.rounds) < rounds]
        if not missing:
            break
        fewest = min(len(r.rounds) for r in missing)
        order = [r for r in missing if len(r.rounds) == fewest]
        random.shuffle(order)
        for run in order:
            if time.monotonic() < deadline:
                references.append(attempt(bench, run, steady(bench, references)))
    return references


def median_of(run, name, reference):
    return statistics.median(x for r in run.rounds for x in r[name]) * reference


def spread(run, name):
    """Of the rounds' medians: the largest over the smallest, less one."""
    medians = [statistics.median(r[name]) for r in run.rounds]
    return max(medians) / min(medians) - 1


def row_of(run, reference):
    names = ("model", "ranks", "threads", "batch", "micro", "bucket", "use")
    return {**dict(zip(names, run.what)), "seconds": round(median_of(run, "step", reference), 5),
            "spread": round(spread(run, "step"), 4), "rounds": len(run.rounds), "dropped": run.dropped,
            "steps": sum(len(r["step"]) for r in run.rounds), "steal": round(max(run.steal), 4)}


def document(args, runs, references):
    reference = statistics.median(references)
    parts = {f"{r.what[0]} x {r.what[1]}": {name: round(median_of(r, name, reference), 4) for name in r.rounds[0]}
             for r in runs if r.kind == "parts"}
    by_kind = {(r.kind, r.what): median_of(r, "step", reference) for r in runs if r.kind in ("alone", "together")}
    pairs = [{"model": m, "batch": b, "alone": round(by_kind["alone", (m, b)], 5),
              "together": round(by_kind["together", (m, b)], 5)} for m, b in PAIRS]
    return {"machine": args.machine, "cores": len(os.sched_getaffinity(0)), "reference": round(reference, 5),
            "references": len(references), "reference_range": [round(x, 5) for x in (min(references), max(references))],
            "parts": parts, "pairs": pairs, "rows": [row_of(r, reference) for r in runs if r.kind == "step"]}


def write(path, data):
    text = json.dumps({k: v for k, v in data.items() if k != "rows"}, indent=1)[:-2] + ',\n "rows": [\n  '
    text += ",\n  ".join(json.dumps(r) for r in data["rows"]) + "\n ]\n}\n"
    with open(path, "w") as file:
        file.write(text)


def prefer_us():
    """Linux gives each session the same share of a busy machine: what else runs here is to get next to none of it.
    Our own processes keep sharing the cores evenly."""
    try:
        os.setsid()
    except OSError:
        pass  # we lead one already
    try:
        with open("/proc/self/autogroup", "w") as file:
            file.write("-20")
    except OSError as error:
        print(f"others keep their share of the processor: /proc/self/autogroup: {error.strerror}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", required=True)
    parser.add_argument("--machine", required=True)
    parser.add_argument("--build", default=os.path.join(costs.ROOT, "build/release"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=17)
    parser.add_argument("--only", type=int, help="try the procedure on so many of the steps")
    args = parser.parse_args()
    deadline = time.monotonic() + 60 * args.minutes
    runs = [Run("step", row) for row in PLAN[:args.only]] + [Run("parts", p) for p in PARTS]
    runs += [Run(kind, p) for p in PAIRS for kind in ("alone", "together")]
    prefer_us()
    references = measure_all(Bench(args.build), runs, args.rounds, deadline)
    short = [r for r in runs if len(r.rounds) < args.rounds]
    for r in short:
        print(f"{len(r.rounds)} undisturbed runs of {r.kind} {r.what}, {r.dropped} others", file=sys.stderr)
    if any(not r.rounds and r.kind != "step" for r in runs):
        raise SystemExit("the machine is not idle enough")
    write(args.file, document(args, [r for r in runs if r.rounds], references))
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
