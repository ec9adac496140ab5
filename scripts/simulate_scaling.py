#!/usr/bin/env python3
"""Predicts how long a training step takes on any number of ranks, by simulating it.

    simulate_scaling.py check [--file F …]                         calibrates, predicts the rest and compares
    simulate_scaling.py check --write                              ... and puts the table into docs/scaling.md
    simulate_scaling.py check --page                               ... and fails unless it stands there already
    simulate_scaling.py predict MODEL RANKS BATCH [--file F …]     one step of this machine, phase by phase

F is written by measure_scaling.py; several of one machine are pooled, each figure by the steps behind it. A step is a program for each rank, as train/step.c and optim/adamw.c run it:
computing, collectives that are queued and move on by themselves, and waits for them. Ranks of one machine share its
cores, the threads that communicate included. GPUs compute for themselves, and collectives take the time that latency
and bandwidth give. `check` fits four constants of the machine to the measurements marked "calibrate", compares the
prediction of all others with what was measured, and fails if one is off by more than 10 %, or if measurements are
too few for that to mean anything."""
import argparse
import json
import math
import os
import sys
from dataclasses import dataclass, field

import scaling_costs as costs
from scaling_simulation import Collective, Shared, Simulation

MEASUREMENTS = os.path.join(costs.ROOT, "docs/scaling_measurements")
DOCUMENT = os.path.join(costs.ROOT, "docs/scaling.md")
BEGIN, END = "<!-- check: scripts/simulate_scaling.py check --write -->", "<!-- end of check -->"


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


def step_programs(step, machine, symmetric):
    """Every rank's program and the collectives; symmetric: one rank stands for all."""
    m, ranks = step.model, step.ranks
    sent = costs.traffic(m, ranks, step.batch, step.bf16)
    sizes = costs.bucket_sizes(m.parameters, ranks, step.bucket)
    away = (ranks - 1) / ranks
    kinds = [("features", sent.features), ("columns", sent.columns * 2 / 3), ("columns", sent.columns / 3),
             ("feature_gradients", sent.feature_gradients)]
    kinds += [("gradients", 4 * n * away) for n in sizes] + [("norms", sent.norms)]
    kinds += [("values", (2 if step.bf16 else 4) * n * away) for n in sizes]  # bf16: the copies; masters stay
    collectives = [machine.collective(kind, size, ranks) for kind, size in kinds]
    programs = []
    for r in range(1 if symmetric else ranks):
        own = step.batch // ranks + (r < step.batch % ranks)
        programs.append(program_of(step, machine, own, sizes))
    return programs, collectives if ranks > 1 else []


def last_backward(step, seconds, sizes, post):
    """The backward in which each bucket leaves as soon as the last of its gradients is final."""
    program, before = [], 0.0
    for share in costs.backward_shares(step.model, sizes):
        program += [("compute", "backward", seconds * (share - before))] + post("gradients")
        before = share
    return program


def program_of(step, machine, own, sizes):
    m, ranks = step.model, step.ranks
    micro = step.micro if 0 < step.micro < own else own
    parts = max(1, math.ceil(own / micro)) if own else 1
    last = own - (parts - 1) * micro if own else 0  # pairs of the one part that needs no second forward
    pair = machine.towers(m, 1)
    loss_forward, loss_backward = (machine.loss(f) for f in costs.loss_flops(m, own, step.batch))
    post = (lambda phase: [("post", phase)]) if ranks > 1 else (lambda phase: [])
    wait = (lambda phase: [("wait", phase)]) if ranks > 1 else (lambda phase: [])
    p = [("compute", "step", machine.per_step(m, ranks)), ("memory", "step", machine.zero(m.parameters))]
    p += [("compute", "features", pair * own / 3)]
    p += post("features") + wait("features") + [("compute", "loss", loss_forward)]
    p += post("columns") + wait("columns") + post("columns") + wait("columns")
    p += [("compute", "loss", loss_backward)] + post("loss") + wait("loss")
    tail = pair * micro * 2 / 3  # of the first part, which is the last to go back
    again = pair * (own - last) / 3
    p += [("compute", "backward", pair * (own - micro) * 2 / 3 + again)]
    p += last_backward(step, tail, sizes, post)
    p += wait("gradients") + [("memory", "norm", machine.norm(m.parameters / ranks))] + post("norm") + wait("norm")
    for n in sizes:
        p += [("memory", "optimizer", machine.update(n / ranks))] + post("values")
    return p + wait("values")


# ---- this machine's cores ----

@dataclass
class Cores:
    """A machine whose ranks are processes on its cores. `flop`, `contention` and `weights` are fitted by calibrate; the
    rest is measured (measured_figures)."""
    cores: int
    flop: dict                # seconds of a core for a FLOP of a model's towers
    contention: float = 1.0   # how many times as long a core computes while all others do
    weights: float = 0.0      # seconds of a core for a weight in each step, of each rank: to the caches and back
    zeroed: float = 0.0       # seconds of a core for a weight whose gradient is zeroed,
    normed: float = 0.0       # ... goes into the norm,
    updated: float = 0.0      # ... is updated
    reduced: float = 0.0      # ... for a byte that a rank sends in a reduce-scatter and the one that it receives
    gathered: float = 0.0     # ... in an all-gather or all-to-all
    call: float = 0.0         # seconds of a collective of no data
    pace: float = 1.0         # share of a core that a rank's thread takes for a collective that nobody waits for
    memory: float = 1.0       # as contention, of zeroing, norm and update

    def towers(self, model, pairs):
        return self.flop[model.name] * model.pair_flops * pairs

    def loss(self, flops):
        return min(self.flop.values()) * flops

    def per_step(self, model, ranks):
        return self.weights * model.parameters + (self.call if ranks > 1 else 0.0)

    def zero(self, weights):
        return self.zeroed * weights

    def norm(self, weights):
        return self.normed * weights

    def update(self, weights):
        return self.updated * weights

    def collective(self, kind, size, ranks):
        """A thread that nobody waits for looks at each of its peers once a nap: its pace grows with them."""
        sums = kind in ("gradients", "feature_gradients")
        return Collective((self.reduced if sums else self.gathered) * size, self.call,
                          min(1.0, self.pace * (ranks - 1)))

    def simulation(self, step, threads):
        programs, collectives = step_programs(step, self, False)
        slower = {"compute": self.contention, "memory": self.memory}
        return Simulation(programs, collectives, Shared(self.cores, threads, slower=slower))

    def seconds(self, step, threads):
        return self.simulation(step, threads).run()


def measured_figures(data):
    """What is not fitted: figures of bench_step_parts."""
    one, two, ranks = (data["parts"][k] for k in ("1 x 1", "1 x 2", "2 x 1"))
    memory = 2 * (two["zero"] + two["norm"] + two["adamw"]) / (one["zero"] + one["norm"] + one["adamw"])
    return dict(zeroed=one["zero"] * 1e-9, normed=one["norm"] * 1e-9, updated=one["adamw"] * 1e-9,
                reduced=ranks["reduce"] * 1e-9, gathered=ranks["gather"] * 1e-9, call=ranks["call"] * 1e-6,
                pace=min(1.0, ranks["reduce"] / ranks["hidden"]), memory=max(1.0, memory))


def step_of(row):
    return Step(costs.load_model(row["model"]), row["ranks"], row["batch"], row["micro"], False,
                (row["bucket"] or 16 << 10) << 10)


def calibrate(rows, cores, measured):
    """Least squares on the logarithms, a constant at a time, by golden steps: few constants, smooth, no library."""
    models = sorted({r["model"] for r in rows})
    steps = [(step_of(r), r["threads"], r["seconds"]) for r in rows]
    values = {**{f"flop {m}": 1e-11 for m in models}, "contention": 1.1, "weights": 1e-10}

    def machine(v):
        return Cores(cores, {m: v[f"flop {m}"] for m in models}, v["contention"], v["weights"], **measured)

    def error(v):
        return sum(math.log(machine(v).seconds(s, t) / measured_s) ** 2 for s, t, measured_s in steps)

    best, width = error(values), 2.0
    while width > 1.002:
        improved = False
        for key in values:
            for factor in (width, 1 / width):
                trial = {**values, key: values[key] * factor}
                if trial["contention"] < 1:
                    continue
                now = error(trial)
                if now < best - 1e-12:
                    values, best, improved = trial, now, True
        width = width if improved else math.sqrt(width)
    return machine(values)


# ---- commands ----

def read_one(path):
    try:
        with open(path) as file:
            return json.load(file)
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}; make it with scripts/measure_scaling.py")


def mean(values, weights):
    return sum(v * w for v, w in zip(values, weights)) / sum(weights)


def pooled_row(rows, units):
    """units: of each row's set, the median time of the reference; a step's time counts in units of its own set."""
    steps = [r["steps"] for r in rows]
    return {**rows[0], "seconds": mean([r["seconds"] / u for r, u in zip(rows, units)], steps) * mean(units, steps),
            "spread": max(r["spread"] for r in rows), "rounds": sum(r["rounds"] for r in rows), "steps": sum(steps)}


def pooled(sets):
    """Sets of the same machine and the same plan as one."""
    what = [[[r[k] for k in ("model", "ranks", "threads", "batch", "micro", "bucket", "use")] for r in s["rows"]]
            for s in sets]
    if any(s["machine"] != sets[0]["machine"] for s in sets) or any(w != what[0] for w in what):
        raise SystemExit("measurements of different machines or steps cannot be pooled")
    rounds = [max(r["rounds"] for r in s["rows"]) for s in sets]
    parts = {kind: {name: mean([s["parts"][kind][name] for s in sets], rounds) for name in figures}
             for kind, figures in sets[0]["parts"].items()}
    rows = [pooled_row(rows, [s["references"][f"{rows[0]['ranks']} x {rows[0]['threads']}"]["median"] for s in sets])
            for rows in zip(*(s["rows"] for s in sets))]
    return {**sets[0], "parts": parts, "rows": rows}


def read(paths):
    if not paths and os.path.isdir(MEASUREMENTS):
        paths = [os.path.join(MEASUREMENTS, name) for name in sorted(os.listdir(MEASUREMENTS))]
    return pooled([read_one(path) for path in paths or [MEASUREMENTS]])


def fitted(data):
    used = [r for r in data["rows"] if r["use"] == "calibrate"]
    return calibrate(used, data["cores"], measured_figures(data))


def objections(data):
    """Why a comparison with these measurements would say nothing."""
    rows = data["rows"]
    constants = len({r["model"] for r in rows}) + 2
    if sum(r["use"] == "calibrate" for r in rows) < 3 * constants:
        yield f"fewer than three rows for each of {constants} constants"
    checked = [r for r in rows if r["use"] == "check"]
    if {r["ranks"] for r in checked} != {1, 2, 4}:
        yield "the checked rows are not of 1, 2 and 4 ranks"
    for r in rows:
        if r["rounds"] < 5 or r["steps"] < 20:
            yield f"{r['model']}, {r['ranks']} x {r['threads']}, batch {r['batch']}: {r['rounds']} accepted rounds"


def comparison(data, machine):
    """Lines of the table, and the largest error of a prediction."""
    lines, worst = ["| model | ranks x threads | batch | micro-batch | bucket | measured s | spread | predicted s | "
                    "error | |", "|---" * 10 + "|"], 0.0
    for r in data["rows"]:
        predicted = machine.seconds(step_of(r), r["threads"])
        error = predicted / r["seconds"] - 1
        if r["use"] == "check":
            worst = max(worst, abs(error))
        bucket = f"{r['bucket'] / 1024:g} MiB" if r["bucket"] else "one"
        lines.append(f"| {r['model']} | {r['ranks']} x {r['threads']} | {r['batch']} | {r['micro'] or 'whole'} | "
                     f"{bucket if r['ranks'] > 1 else ''} | {r['seconds']:.4f} | {100 * r['spread']:.1f} % | "
                     f"{predicted:.4f} | {100 * error:+.1f} % | {r['use']} |")
    return lines, worst


def check(args):
    data = read(args.file)
    machine = fitted(data)
    lines, worst = comparison(data, machine)
    print(data["machine"])
    print("fitted: " + ", ".join(f"flop {m} {v:.3g}" for m, v in machine.flop.items()) +
          f", contention {machine.contention:.3f}, weights {machine.weights:.3g}; measured: memory's contention "
          f"{machine.memory:.3f}, pace of hidden collectives {machine.pace:.3f}")
    print("\n".join(lines))
    print(f"largest error of a prediction: {100 * worst:.1f} %")
    table = "\n".join(lines) + f"\n\nLargest error of a prediction: {100 * worst:.1f} %.\n"
    with open(DOCUMENT) as file:
        before, rest = file.read().split(BEGIN)
    if args.write:
        with open(DOCUMENT, "w") as file:
            file.write(before + BEGIN + "\n" + table + END + rest.split(END)[1])
    if args.page and rest.split(END)[0].strip() != table.strip():
        print("docs/scaling.md is old: run scripts/simulate_scaling.py check --write", file=sys.stderr)
        return 1
    against = list(objections(data))
    for reason in against:
        print(reason, file=sys.stderr)
    return 0 if 100 * worst <= args.within and not against else 1


def predict(args):
    data = read(args.file)
    machine = fitted(data)
    if args.model not in machine.flop:
        raise SystemExit(f"{args.model}: not among the measured models {', '.join(machine.flop)}")
    step = Step(costs.load_model(args.model), args.ranks, args.batch, args.micro, False, int(args.bucket * (1 << 20)))
    simulation = machine.simulation(step, max(1, data["cores"] // args.ranks))
    print(f"{simulation.run():.4f} s a step")
    for phase, seconds in simulation.phases.items():
        print(f"  {seconds:.4f}  {phase}")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("check")
    one.set_defaults(run=check)
    one.add_argument("--write", action="store_true")
    one.add_argument("--page", action="store_true")
    one.add_argument("--within", type=float, default=10, help="percent")
    two = commands.add_parser("predict")
    two.set_defaults(run=predict)
    two.add_argument("model")
    two.add_argument("ranks", type=int)
    two.add_argument("batch", type=int)
    two.add_argument("--micro", type=int, default=0)
    two.add_argument("--bucket", type=float, default=16, help="MiB")
    for command in (one, two):
        command.add_argument("--file", nargs="+", help="docs/scaling_measurements/*.json unless given")
    args = parser.parse_args()
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
