#!/usr/bin/env python3
"""The tables of docs/scaling.md: the cost model's prediction for 8 to 512 GPUs.

    scaling_tables.py            prints them
    scaling_tables.py --write    puts them into docs/scaling.md, between its markers
    scaling_tables.py --check    fails unless they stand there already

The step is simulated as in simulate_scaling.py, one GPU for all, with a GPU's and a network's figures for the machine."""
import argparse
import os
import sys
from dataclasses import dataclass

import scaling_costs as costs
from scaling_simulation import Collective, Simulation
from simulate_scaling import Step, step_programs

DOCUMENT = os.path.join(costs.ROOT, "docs/scaling.md")
BEGIN, END = "<!-- tables: scripts/scaling_tables.py --write -->", "<!-- end of tables -->"

# bf16 products measured on an H200 and the share of it that training is to reach; nothing of tuwen's own is measured.
PRODUCTS, REACHED = 790e12, {"RN50": 0.25}
REACHED_VIT = 0.60
LOSS_PRODUCTS = 0.5 * PRODUCTS * REACHED_VIT  # TF32
MEMORY = 4.3e12            # bytes a second that the optimizer moves
GPU_BYTES = 80e9 * 0.9
PER_HOST = 8
NVLINK = 450e9 * 0.8       # bytes a second and direction, of a ring through the GPUs of a host
HOP_NVLINK, HOP_NETWORK = 2e-6, 8e-6  # seconds
LAUNCH = 20e-6             # to begin a collective
AGREEMENT = 100e-6         # a small exchange between hosts on the CPU
NETWORKS = [("8 x 400", 8, 400e9), ("8 x 200", 8, 200e9), ("1 x 400", 1, 400e9), ("1 x 200", 1, 200e9)]
TOKENS = 11                # of a text: the mean of Flickr8k-CN's 30,000 captions, [CLS] and [SEP] included
# bf16 activations of a pair as train/memory_need.c plans them: nothing recomputed, texts as long as the context.
PAIR_BYTES = {"RN50": 52e6, "ViT-B-32": 29e6, "ViT-B-16": 70e6, "ViT-L-14": 212e6, "ViT-L-14-336": 457e6,
              "ViT-H-14": 370e6}
# The paper's for MUGE; it has none for ViT-B-32.
BATCHES = {"RN50": 24576, "ViT-B-32": 12800, "ViT-B-16": 12800, "ViT-L-14": 4096, "ViT-L-14-336": 8192,
           "ViT-H-14": 20480}
BUCKETS = [16, 64, 256]  # MiB, bucket_mb
RANKS = [8, 16, 32, 64, 128, 256, 512]


@dataclass
class Gpus:
    nics: int       # of a host
    nic: float      # bits a second of each

    def towers(self, model, pairs):
        return model.pair_flops * pairs / (PRODUCTS * REACHED.get(model.name, REACHED_VIT))

    def loss(self, flops):
        return flops / LOSS_PRODUCTS

    def per_step(self, model, ranks):
        return AGREEMENT * 3

    def zero(self, weights):
        return 4 * weights / MEMORY

    def norm(self, weights):
        return 4 * weights / MEMORY

    def update(self, weights):
        return 28 * weights / MEMORY

    def collective(self, kind, size, ranks):
        """A ring through all GPUs; between hosts as many rings as network cards share the data. Columns go from each
        to each: what leaves the host shares its cards."""
        hosts = max(1, ranks // PER_HOST)
        network = self.nics * self.nic / 8 * 0.8
        hops = (ranks - hosts) * HOP_NVLINK + (hosts if hosts > 1 else 0) * HOP_NETWORK
        bandwidth = min(NVLINK, network) if hosts > 1 else NVLINK
        if kind == "columns" and hosts > 1:
            bandwidth = min(NVLINK, network / PER_HOST)
        return Collective(0.0, LAUNCH + hops + size / bandwidth)


def micro_batch(model, ranks, batch):
    """The largest number of pairs whose activations fit beside the model's state and the loss."""
    own = -(-batch // ranks)
    free = GPU_BYTES - costs.state_bytes(model, ranks) - costs.loss_bytes(model, ranks, batch)
    return max(1, min(own, int(free / PAIR_BYTES[model.name])))


def step_time(model, ranks, batch, gpus):
    """Seconds, by phase, and the best bucket_mb."""
    best = None
    for bucket in BUCKETS:
        step = Step(model, ranks, batch, micro_batch(model, ranks, batch), bf16=True, bucket=bucket << 20)
        programs, collectives = step_programs(step, gpus, symmetric=True)
        simulation = Simulation(programs, collectives)
        seconds = simulation.run()
        if best is None or seconds < 0.98 * best[0]:
            best = seconds, simulation.phases, bucket
    return best


def efficiency(model, ranks, batch, gpus, seconds):
    """Of what the towers of so many GPUs would do, each pair once forward and backward and nothing else."""
    return gpus.towers(model, batch / ranks) / seconds


def number(x):
    return f"{x:.3g}" if x < 1000 else f"{x:,.0f}"


def fixed_batch_table(name):
    model, batch = model_of(name), BATCHES[name]
    yield f"**{name}**, {batch:,} pairs a step"
    yield ""
    yield "| GPUs | pairs a GPU | micro-batch | bucket | " + \
        " | ".join(f"{n}: s, pairs/s, eff." for n, _, _ in NETWORKS) + " |"
    yield "|---" * (4 + len(NETWORKS)) + "|"
    for ranks in RANKS:
        cells, buckets = [], []
        for _, nics, nic in NETWORKS:
            gpus = Gpus(nics, nic)
            seconds, _, bucket = step_time(model, ranks, batch, gpus)
            part = efficiency(model, ranks, batch, gpus, seconds)
            buckets.append(bucket)
            cells.append(f"{number(seconds)}, {batch / seconds:,.0f}, {100 * part:.0f} %")
        own = -(-batch // ranks)
        yield f"| {ranks} | {own} | {micro_batch(model, ranks, batch)} | {max(buckets)} | " + " | ".join(cells) + " |"
    yield ""


def growing_batch_table(own):
    yield f"**{own} pairs a GPU**, 8 x 400 Gb/s a host: efficiency, and in brackets the loss's share of a step"
    yield ""
    yield "| model | " + " | ".join(f"{r} GPUs, {own * r:,} pairs" for r in RANKS) + " |"
    yield "|---" * (1 + len(RANKS)) + "|"
    for name in BATCHES:
        model, gpus, cells = model_of(name), Gpus(8, 400e9), []
        for ranks in RANKS:
            seconds, phases, _ = step_time(model, ranks, own * ranks, gpus)
            loss = sum(phases.get(k, 0) for k in ("features, waiting", "loss", "columns, waiting", "loss, waiting"))
            part = efficiency(model, ranks, own * ranks, gpus, seconds)
            cells.append(f"{100 * part:.0f} % ({100 * loss / seconds:.1f} %)")
        yield f"| {name} | " + " | ".join(cells) + " |"
    yield ""


def model_of(name):
    return costs.load_model(name, tokens=TOKENS)


def compute_table():
    yield "**Computed for a pair**, GFLOP, forward and backward"
    yield ""
    yield f"| model | every layer, {costs.load_model('ViT-B-16').context} tokens | of the last layers token 0 only | " \
        f"and texts of {TOKENS} tokens | share |"
    yield "|---" * 5 + "|"
    for name in BATCHES:
        whole, packed = costs.load_model(name), model_of(name)
        figures = (whole.nominal_flops, whole.pair_flops, packed.pair_flops)
        yield f"| {name} | " + " | ".join(f"{x / 1e9:,.1f}" for x in figures) + \
            f" | {100 * packed.pair_flops / whole.nominal_flops:.0f} % |"
    yield ""


def bytes_table(ranks):
    yield f"**Sent by each of {ranks} GPUs in a step**, MB, and what it keeps, GB (bf16, optimizer state sharded)"
    yield ""
    yield "| model | pairs | text features | columns | their gradients | gradients | weights | state | loss |"
    yield "|---" * 9 + "|"
    for name, batch in BATCHES.items():
        model = model_of(name)
        t = costs.traffic(model, ranks, batch)
        megabytes = (t.features, t.columns, t.feature_gradients, t.gradients, t.values)
        kept = costs.state_bytes(model, ranks), costs.loss_bytes(model, ranks, batch)
        yield f"| {name} | {batch:,} | " + " | ".join(f"{x / 1e6:,.1f}" for x in megabytes) + " | " + \
            " | ".join(f"{x / 1e9:.2f}" for x in kept) + " |"
    yield ""


def tables():
    lines = list(compute_table()) + list(bytes_table(32))
    for name in BATCHES:
        lines += fixed_batch_table(name)
    lines += growing_batch_table(128)
    return "\n".join(lines).strip() + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    text = tables()
    if not (args.write or args.check):
        print(text)
        return 0
    with open(DOCUMENT) as file:
        before, rest = file.read().split(BEGIN)
    after = rest.split(END)[1]
    if args.write:
        with open(DOCUMENT, "w") as file:
            file.write(f"{before}{BEGIN}\n{text}{END}{after}")
        return 0
    if rest.split(END)[0].strip() != text.strip():
        print("docs/scaling.md is old: run scripts/scaling_tables.py --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
