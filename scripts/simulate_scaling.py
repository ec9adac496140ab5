#!/usr/bin/env python3
"""Predicts how long a training step takes on any number of ranks, by simulating it.

    simulate_scaling.py measure --file F [--build build/release]   runs bench_step on 1, 2 and 4 ranks and writes F
    simulate_scaling.py check [--file F]                           calibrates, predicts the rest and compares
    simulate_scaling.py predict MODEL RANKS BATCH [--file F]       one step of this machine, phase by phase

A step is a program for each rank, as train/step.c and optim/adamw.c run it: computing, collectives that are queued and
move on by themselves, and waits for them. Ranks of one machine share its cores: what all of them want at a time slows
everybody alike, the threads that communicate included. GPUs compute for themselves, and collectives take the time that
latency and bandwidth give. `check` fits the machine's constants to the measurements marked "calibrate", compares the
prediction of all others with what was measured, and fails if one is off by more than 10 %."""
import argparse
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass

import scaling_costs as costs

MEASUREMENTS = os.path.join(costs.ROOT, "docs/scaling_measurements.json")


# ---- the simulation ----

@dataclass
class Rank:
    program: list        # ("work", phase, seconds) | ("post", phase) | ("wait", phase)
    at: int = 0          # in the program
    left: float = 0.0    # seconds of the work under way
    begun: bool = False  # the work at `at` is under way
    posted: int = 0      # collectives so far


@dataclass
class Collective:
    work: float   # seconds of a core that each rank's part takes
    delay: float  # seconds that it takes at least


class Simulation:
    """Ranks that run their programs; all of them make the same collectives in the same order. cores: shared by all;
    None: every rank computes and communicates at its own pace. Computing has `threads` threads, and a share `serial`
    of it runs on one of them."""

    def __init__(self, programs, collectives, cores=None, threads=1, serial=0.0):
        self.ranks = [Rank(p) for p in programs]
        self.collectives, self.cores, self.threads = collectives, cores, threads
        self.speed = 1 / (serial + (1 - serial) / threads)
        self.now, self.current, self.moving, self.began = 0.0, 0, None, 0.0
        self.phases = {}  # of rank 0

    def settle_rank(self, r):
        """Passes all of a program that takes no time."""
        while r.at < len(r.program):
            op = r.program[r.at]
            if op[0] == "work":
                if not r.begun:
                    r.begun, r.left = True, op[2]
                if r.left > 0:
                    return
                r.begun = False
            elif op[0] == "post":
                r.posted += 1
            elif self.current < r.posted:
                return
            r.at += 1

    def settle(self):
        while True:
            for r in self.ranks:
                self.settle_rank(r)
            if self.moving is None:
                if self.current == len(self.collectives) or min(r.posted for r in self.ranks) <= self.current:
                    return
                self.moving, self.began = [self.collectives[self.current].work] * len(self.ranks), self.now
            if any(self.moving) or self.now < self.began + self.collectives[self.current].delay:
                return
            self.current, self.moving = self.current + 1, None

    def advance(self):
        computing = [r for r in self.ranks if r.left > 0]
        carrying = [i for i, left in enumerate(self.moving or ()) if left > 0]
        wanted = self.threads * len(computing) + len(carrying)
        share = 1.0 if self.cores is None or wanted <= self.cores else self.cores / wanted
        times = [r.left / (self.speed * share) for r in computing] + [self.moving[i] / share for i in carrying]
        if self.moving is not None:
            end = self.began + self.collectives[self.current].delay
            times += [end - self.now] if end > self.now else []
        step = min(times)
        self.note(step)
        self.now += step
        for r in computing:
            r.left = left_of(r.left, step * self.speed * share)
        for i in carrying:
            self.moving[i] = left_of(self.moving[i], step * share)

    def note(self, step):
        r = self.ranks[0]
        op = r.program[r.at] if r.at < len(r.program) else ("wait", "end")
        name = op[1] if op[0] == "work" else op[1] + ", waiting"
        self.phases[name] = self.phases.get(name, 0.0) + step

    def run(self):
        self.settle()
        while any(r.at < len(r.program) for r in self.ranks):
            self.advance()
            self.settle()
        return self.now


def left_of(left, done):
    return left - done if left - done > 1e-9 * left + 1e-13 else 0.0


# ---- a training step ----

@dataclass
class Step:
    """What is asked: `batch` pairs over `ranks` ranks, in micro-batches of `micro` pairs (0: all of a rank's)."""
    model: costs.Model
    ranks: int
    batch: int
    micro: int = 0
    bf16: bool = False
    bucket: int = 16 << 20  # bytes of gradients that are reduced together


def step_programs(step, machine, symmetric, threads=1):
    """Every rank's program and the collectives; symmetric: one rank stands for all."""
    m, ranks = step.model, step.ranks
    sent = costs.traffic(m, ranks, step.batch, step.bf16)
    buckets = max(1, math.ceil(4 * m.parameters / step.bucket))
    kinds = [("features", sent.features), ("columns", sent.columns * 2 / 3), ("columns", sent.columns / 3),
             ("feature_gradients", sent.feature_gradients)]
    kinds += [("gradients", sent.gradients / buckets)] * buckets + [("norms", sent.norms)]
    values = [4, 2] if step.bf16 else [4]  # bytes a weight: f32 and its bf16 copy, one collective each
    kinds += [("values", sent.values / buckets * v / sum(values)) for v in values] * buckets
    collectives = [Collective(*machine.collective(kind, size, ranks)) for kind, size in kinds]
    programs = []
    for r in range(1 if symmetric else ranks):
        own = step.batch // ranks + (r < step.batch % ranks)
        programs.append(program_of(step, machine, own, buckets, threads))
    return programs, collectives if ranks > 1 else []


def program_of(step, machine, own, buckets, threads):
    m, ranks = step.model, step.ranks
    micro = step.micro if 0 < step.micro < own else own
    parts = max(1, math.ceil(own / micro)) if own else 1
    last = own - (parts - 1) * micro  # of the part whose backward is the last one: the buckets leave in it
    forward, backward = machine.towers(m, 1) * own / 3, machine.towers(m, 1) * own * 2 / 3
    again = machine.towers(m, 1) * (own - last) / 3
    passes = machine.per_pass(m, threads)
    loss_forward, loss_backward = (machine.loss(f) for f in costs.loss_flops(m, own, step.batch))
    post = (lambda phase: [("post", phase)]) if ranks > 1 else (lambda phase: [])
    wait = (lambda phase: [("wait", phase)]) if ranks > 1 else (lambda phase: [])
    p = [("work", "step", machine.per_step(m, ranks)), ("work", "features", forward + parts * passes)]
    p += post("features") + wait("features") + [("work", "loss", loss_forward)]
    p += post("columns") + wait("columns") + post("columns") + wait("columns") + [("work", "loss", loss_backward)]
    p += post("loss") + wait("loss")
    tail = backward * (micro if own else 0) / max(own, 1)  # the backward in which buckets leave
    p += [("work", "backward", backward - tail + again + (2 * parts - 2) * passes)]
    for _ in range(buckets):
        p += [("work", "backward", tail / buckets + passes / buckets)] + post("gradients")
    p += wait("gradients") + [("work", "norm", machine.memory(4 * m.parameters / ranks))] + post("norm") + wait("norm")
    for _ in range(buckets):
        p += [("work", "optimizer", machine.memory(28 * m.parameters / ranks / buckets))] + post("values")
        p += post("values") if step.bf16 else []
    return p + wait("values")


# ---- this machine's cores ----

@dataclass
class Cores:
    """A machine whose ranks are processes on its cores; the constants come from calibrate."""
    cores: int
    flop: dict                # seconds of a core for a FLOP of a model's towers
    weights: float = 0.0      # ... for a weight in each pass over a micro-batch: reordering it for the products
    byte: float = 0.0         # ... for a byte that the optimizer reads or writes
    sent: float = 0.0         # ... for a byte that a rank sends and the one that it receives
    call: float = 2e-5        # ... for a collective; not fitted: too little for a step to tell
    serial: float = 0.0       # share of computing that runs on one thread, where there are several
    team: float = 0.0         # seconds in which a layer's pass wakes threads and waits for them, where there are several

    def towers(self, model, pairs):
        return self.flop[model.name] * model.pair_flops * pairs

    def loss(self, flops):
        return min(self.flop.values()) * flops

    def per_pass(self, model, threads):
        return self.weights * model.parameters + (self.team * model.layers if threads > 1 else 0.0)

    def per_step(self, model, ranks):
        return self.byte * 8 * model.parameters  # gradients zeroed, then written once more

    def memory(self, size):
        return self.byte * size

    def collective(self, kind, size, ranks):
        return self.sent * size + self.call, 0.0

    def seconds(self, step, threads):
        programs, collectives = step_programs(step, self, False, threads)
        return Simulation(programs, collectives, self.cores, threads, self.serial).run()


CONSTANTS = ("weights", "byte", "sent", "serial", "team")


def step_of(row):
    return Step(costs.load_model(row["model"]), row["ranks"], row["batch"], row.get("micro", 0))


def calibrate(rows, cores):
    """Least squares on the logarithms, a constant at a time, by golden steps: few constants, smooth, no library."""
    models = sorted({r["model"] for r in rows})
    steps = [(step_of(r), r["threads"], r["seconds"]) for r in rows]
    values = {**{f"flop {m}": 1e-11 for m in models}, "weights": 1e-10, "byte": 1e-10, "sent": 1e-9,
              "serial": 0.02, "team": 1e-4}

    def machine(v):
        return Cores(cores, {m: v[f"flop {m}"] for m in models}, **{k: v[k] for k in CONSTANTS})

    def error(v):
        return sum(math.log(machine(v).seconds(s, t) / measured) ** 2 for s, t, measured in steps)

    best, width = error(values), 2.0
    while width > 1.002:
        improved = False
        for key in values:
            for factor in (width, 1 / width):
                trial = {**values, key: values[key] * factor}
                if trial.get("serial", 0) > 0.9:
                    continue
                now = error(trial)
                if now < best - 1e-12:
                    values, best, improved = trial, now, True
        width = width if improved else math.sqrt(width)
    return machine(values)


# ---- commands ----

def read(path):
    try:
        with open(path) as file:
            return json.load(file)
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}; make it with `simulate_scaling.py measure`")


def check(args):
    data = read(args.file)
    used = [r for r in data["rows"] if r["use"] == "calibrate"]
    machine = calibrate(used, data["cores"])
    print(f"{data['machine']}, calibrated with {len(used)} of {len(data['rows'])} measurements")
    print("| model | ranks x threads | batch | micro-batch | measured s | predicted s | error | |")
    print("|---|---|---|---|---|---|---|---|")
    worst = 0.0
    for r in data["rows"]:
        predicted = machine.seconds(step_of(r), r["threads"])
        error = predicted / r["seconds"] - 1
        if r["use"] == "check":
            worst = max(worst, abs(error))
        print(f"| {r['model']} | {r['ranks']} x {r['threads']} | {r['batch']} | {r.get('micro', 0) or 'whole'} | "
              f"{r['seconds']:.3f} | {predicted:.3f} | {100 * error:+.1f} % | {r['use']} |")
    print(f"largest error of a prediction: {100 * worst:.1f} %")
    return 0 if worst <= 0.10 else 1


def predict(args):
    data = read(args.file)
    machine = calibrate([r for r in data["rows"] if r["use"] == "calibrate"], data["cores"])
    step = Step(costs.load_model(args.model), args.ranks, args.batch, args.micro)
    if args.model not in machine.flop:
        raise SystemExit(f"{args.model}: not among the measured models {', '.join(machine.flop)}")
    threads = max(1, data["cores"] // args.ranks)
    programs, collectives = step_programs(step, machine, False, threads)
    simulation = Simulation(programs, collectives, machine.cores, threads, machine.serial)
    print(f"{simulation.run():.4f} s a step")
    for phase, seconds in simulation.phases.items():
        print(f"  {seconds:.4f}  {phase}")
    return 0


# What is measured: (model, batch, micro-batch, ranks, use). One rank has all cores, several share them, a thread each.
PLAN = [("small", 64, 0, 1, "calibrate"), ("small", 128, 32, 1, "calibrate"), ("small", 64, 0, 2, "calibrate"),
        ("small", 128, 0, 2, "calibrate"), ("tiny", 16, 0, 1, "calibrate"), ("tiny", 16, 0, 2, "calibrate"),
        ("tiny", 64, 0, 1, "calibrate"), ("tiny", 128, 0, 2, "calibrate"),
        ("small", 32, 0, 1, "check"), ("small", 128, 0, 1, "check"), ("small", 32, 0, 2, "check"),
        ("small", 256, 64, 2, "check"), ("small", 64, 0, 4, "check"), ("small", 128, 0, 4, "check"),
        ("small", 256, 32, 4, "check"), ("tiny", 128, 0, 1, "check"), ("tiny", 64, 0, 2, "check"),
        ("tiny", 64, 0, 4, "check"), ("tiny", 128, 0, 4, "check")]


def measure_once(args, model, batch, micro, ranks, threads):
    bench = [os.path.join(args.build, "scripts/bench/bench_step"), model, str(batch), str(args.steps), "f32",
             str(threads), "none", "0", str(micro)]
    command = bench if ranks == 1 else ["bash", os.path.join(costs.ROOT, "tests/mpirun.sh"), str(ranks), *bench]
    command = args.prefix.split() + command
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    out = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=costs.ROOT)
    words = out.stdout.split()
    if out.returncode or "s a step" not in out.stdout:
        raise SystemExit(f"{' '.join(command)}: {out.stderr or out.stdout}")
    return float(words[words.index("(fastest") + 1].rstrip(","))


def measure(args):
    """Rounds over the whole plan, the fastest step of all rounds: what others do on the machine comes and goes. On one
    that is never calm, a prefix of `chrt -r 5` (real-time priority, root) keeps the others away for the time being."""
    cores = len(os.sched_getaffinity(0))
    best = {}
    for _ in range(args.rounds):
        for model, batch, micro, ranks, use in PLAN:
            threads = max(1, cores // ranks)
            seconds = measure_once(args, model, batch, micro, ranks, threads)
            time.sleep(args.pause)
            key = (model, batch, micro, ranks, threads, use)
            best[key] = min(seconds, best.get(key, math.inf))
            print(*key, f"{seconds:.4f}", flush=True)
    names = ("model", "batch", "micro", "ranks", "threads", "use")
    with open(args.file, "w") as file:
        json.dump({"machine": args.machine, "cores": cores,
                   "rows": [{**dict(zip(names, key)), "seconds": s} for key, s in best.items()]}, file, indent=1)
        file.write("\n")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("check")
    one.set_defaults(run=check)
    two = commands.add_parser("measure")
    two.set_defaults(run=measure)
    two.add_argument("--build", default=os.path.join(costs.ROOT, "build/release"))
    two.add_argument("--rounds", type=int, default=3)
    two.add_argument("--steps", type=int, default=5)
    two.add_argument("--machine", default="this machine")
    two.add_argument("--prefix", default="", help="command that each run is started by")
    two.add_argument("--pause", type=float, default=0.5, help="seconds between runs")
    three = commands.add_parser("predict")
    three.set_defaults(run=predict)
    three.add_argument("model")
    three.add_argument("ranks", type=int)
    three.add_argument("batch", type=int)
    three.add_argument("--micro", type=int, default=0)
    for command in (one, two, three):
        command.add_argument("--file", default=MEASUREMENTS)
    args = parser.parse_args()
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
