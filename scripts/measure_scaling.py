#!/usr/bin/env python3
"""Measures training steps of 1, 2 and 4 ranks on this machine, for simulate_scaling.py.

    measure_scaling.py --file F --machine "what it is" [--build build/release] [--rounds 5] [--minutes 17]

The machine should be idle, but others may still slow it, for milliseconds or seconds, and nothing tells. Each round
runs everything in another random order, some steps a run, and a fixed piece of work (bench/reference.h) is timed before
and after every step, on as many cores as the step uses: where the two differ by more than 3 %, the step is dropped.
What counts is a step's time over that of its references; the median of these, times the median of all references of
as many ranks, is what is written, with the spread over the rounds and the share of time that the hypervisor says it
took ("steal" of /proc/stat). Rounds go on until every row has 5 with a step that counts and 20 such steps."""
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

TOLERANCE, STEPS, LEAST = 0.03, 12, 20  # of references; steps of a run; steps that count

# Steps: (model, ranks, threads, batch, micro-batch, KiB of a bucket, use); 0: whole, 16 MiB. No row of four ranks and
# none of several buckets calibrates anything; of the others a rank's batches lie on either side of the checked ones.
PLAN = [(m, *c, 0, 0, "calibrate") for m in ("tiny", "small")
        for c in ((1, 1, 8), (1, 1, 48), (1, 2, 16), (1, 2, 96), (2, 1, 16), (2, 1, 96))]
PLAN += [(m, *c, 0, 0, "check") for m in ("tiny", "small") for c in ((1, 1, 24), (1, 2, 48), (2, 1, 48), (4, 1, 64))]
PLAN += [("small", 1, 1, 48, 8, 0, "check"), ("small", 1, 2, 96, 24, 0, "check"), ("small", 2, 1, 48, 0, 1024, "check"),
         ("small", 2, 1, 96, 24, 4096, "check"), ("small", 4, 1, 96, 0, 1024, "check"),
         ("small", 4, 1, 96, 12, 4096, "check")]
PARTS = [(1, 1), (1, 2), (2, 1)]  # of bench_step_parts, ranks and threads


@dataclass
class Run:
    """Something to measure, and what each round gave."""
    kind: str              # "step" or "parts"
    what: tuple
    rounds: list = field(default_factory=list)   # name -> figures; a step's are (seconds, reference) that count
    references: list = field(default_factory=list)
    dropped: int = 0       # steps
    steal: list = field(default_factory=list)    # shares

    def is_done(self, rounds):
        steps = sum(len(r.get("step", ())) for r in self.rounds)
        return len(self.rounds) >= rounds and (self.kind != "step" or steps >= LEAST)


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

    def steps(self, run):
        """The round's steps that count."""
        model, ranks, threads, batch, micro, bucket, _ = run.what
        words = [model, batch, STEPS, "f32", threads, "none", 0, micro, 0, 0, 0, "saved", bucket, "each"]
        lines = [line.split(":") for line in self.finish(self.start("bench_step", words, ranks)).splitlines()]
        figures = {title: [float(x) for x in rest[0].split()] for title, *rest in lines[:3]}
        cores = min(2, ranks * threads)
        references = figures[f"reference on {cores} core" + "s" * (cores > 1)]
        run.references += references
        found = [(seconds, (before + after) / 2) for seconds, before, after
                 in zip(figures["seconds of each step"], references, references[1:])
                 if abs(after / before - 1) <= TOLERANCE]
        run.dropped += STEPS - len(found)
        return found

    def measure(self, run):
        """name -> figures of one round."""
        if run.kind == "step":
            return {"step": self.steps(run)}
        ranks, threads = run.what
        words = self.finish(self.start("bench_step_parts", ["small", 9, threads], ranks)).split(":")[1].split()
        return {name: [float(x)] for name, x in zip(words[::2], words[1::2])}


def steal():
    with open("/proc/stat") as file:
        words = [int(x) for x in file.readline().split()[1:]]
    return words[7], sum(words[:8])


def attempt(bench, run):
    stolen, total = steal()
    figures = bench.measure(run)
    now_stolen, now_total = steal()
    count = len(next(iter(figures.values())))
    if count:
        run.rounds.append(figures)
        run.steal.append((now_stolen - stolen) / max(1, now_total - total))
    print(f"{run.kind} {run.what}: {count} count, {figures if run.kind != 'step' else ''}", flush=True)


def measure_all(bench, runs, rounds, deadline):
    """Until every run is done or the time is up."""
    while time.monotonic() < deadline:
        missing = [r for r in runs if not r.is_done(rounds)]
        if not missing:
            return
        random.shuffle(missing)
        for run in missing:
            if time.monotonic() < deadline:
                attempt(bench, run)


def median_of(run, name):
    return statistics.median(x for r in run.rounds for x in r[name])


def row_of(run, reference):
    """reference: the median of all of as many ranks on as many cores."""
    names = ("model", "ranks", "threads", "batch", "micro", "bucket", "use")
    rounds = [[seconds / one for seconds, one in r["step"]] for r in run.rounds]
    medians = [statistics.median(r) for r in rounds]
    return {**dict(zip(names, run.what)), "seconds": round(statistics.median(sum(rounds, [])) * reference, 5),
            "spread": round(max(medians) / min(medians) - 1, 4), "rounds": len(rounds), "steps": sum(map(len, rounds)),
            "dropped": run.dropped, "steal": round(max(run.steal), 4)}


def document(args, runs):
    parts = {f"{r.what[0]} x {r.what[1]}": {name: round(median_of(r, name), 4) for name in r.rounds[0]}
             for r in runs if r.kind == "parts"}
    groups = {}
    for r in runs:
        if r.kind == "step":
            groups.setdefault(r.what[1:3], []).extend(r.references)
    references = {key: statistics.median(values) for key, values in groups.items()}
    shown = {f"{r} x {t}": {"median": round(references[r, t], 6), "tenths": [round(x, 6) for x in
                            statistics.quantiles(groups[r, t], n=10)]} for r, t in sorted(groups)}
    return {"machine": args.machine, "cores": len(os.sched_getaffinity(0)), "references": shown, "parts": parts,
            "rows": [row_of(r, references[r.what[1:3]]) for r in runs if r.kind == "step"]}


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
    prefer_us()
    measure_all(Bench(args.build), runs, args.rounds, deadline)
    short = [r for r in runs if not r.is_done(args.rounds)]
    for r in short:
        print(f"{len(r.rounds)} rounds of {r.kind} {r.what}, {r.dropped} steps dropped", file=sys.stderr)
    if any(not r.rounds and r.kind != "step" for r in runs):
        raise SystemExit("the time is too short")
    write(args.file, document(args, [r for r in runs if r.rounds]))
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
