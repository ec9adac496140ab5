#!/usr/bin/env bash
# The cost model of docs/scaling.md and its simulation. Argument: the build folder.
set -u
. tests/shell.sh "$1"
if ! command -v python3 >/dev/null; then
    echo "SKIP the cost model: there is no python3"
    finish
    exit
fi
holds "the tables of docs/scaling.md are those of the script" python3 scripts/scaling_tables.py --check
holds "predictions are what docs/scaling.md says, and within 10 %" python3 scripts/simulate_scaling.py check --page
cat >"$work/check.py" <<'P'
import math, sys
sys.path.insert(0, "scripts")
import scaling_costs as costs
from scaling_simulation import Collective, Shared, Simulation
from simulate_scaling import Cores, Step, calibrate, comparison, objections, pooled

for name, parameters, gflop in (("RN50", 76989537, 43.4), ("ViT-B-16", 188262913, 132.0), ("ViT-L-14", 406233089, 512.6),
                                ("ViT-L-14-336", 406560769, 1172), ("ViT-H-14", 957598209, 1098)):
    m = costs.load_model(name)
    assert m.parameters == parameters, (name, m.parameters)
    assert abs(m.nominal_flops / 1e9 / gflop - 1) < 1e-3, (name, m.nominal_flops)
whole, half = costs.load_model("ViT-B-16"), costs.load_model("ViT-B-16", mask_ratio=0.5)
assert 0.55 < half.nominal_flops / whole.nominal_flops < 0.61  # the text tower is a fifth
short = costs.load_model("ViT-B-16", tokens=11)
assert short.pair_flops < whole.pair_flops < whole.nominal_flops
d, n = 768, 197  # what the last image layer saves: queries, output and MLP of all tokens but one, and their attention
saved = 3 * ((2 + 2 + 16) * (n - 1) * d * d + 4 * n * (n - 1) * d)
d, n = 768, 52
saved += 3 * ((2 + 2 + 16) * (n - 1) * d * d + 4 * n * (n - 1) * d)
assert abs(whole.nominal_flops - whole.pair_flops - saved + 6 * 2 * 768 * 512) < 1  # projections count as executed

# Buckets are cut as optim/partition.c cuts them, and leave when backward is through with them.
assert costs.bucket_sizes(5000, 1, 4096) == [904, 1024, 1024, 1024, 1024]
assert costs.bucket_sizes(10240, 2, 5 * 4096) == [4096, 6144] and costs.bucket_sizes(100, 3, 1 << 20) == [100]
small = costs.load_model("small")
shares = costs.backward_shares(small, costs.bucket_sizes(small.parameters, 2, 1 << 20))
assert all(a <= b for a, b in zip(shares, shares[1:])) and abs(shares[-1] - 1) < 1e-9
assert shares[10] == shares[4] < 0.2  # the table of words is final when the text tower is, long before the image tower
t = costs.traffic(whole, 4, 1000, bf16=False)
assert t.gradients == t.values == 3 * whole.parameters and t.features == 3000 * 512

near = lambda a, b: abs(a - b) < 1e-9 * max(1, b)
work = lambda s, kind="compute": (kind, "w", s)
post, wait = ("post", "c"), ("wait", "c")
run = lambda *a, **k: Simulation(*a, shared=Shared(**k) if k else None).run()
slow = {"compute": 1.5, "memory": 2.0}
assert near(run([[work(2)]], [], cores=2), 2)
assert near(run([[work(2)]], [], cores=2, threads=2), 1)
assert near(run([[work(2)]], [], cores=2, threads=2, slower=slow), 1.5)
assert near(run([[work(1)]] * 4, [], cores=2), 2)                                       # oversubscribed
assert near(run([[work(1)], [work(3)]], [], cores=1), 4)                                # 2 s shared, then alone
assert near(run([[work(2)]], [], cores=2, slower=slow), 2)                              # a neighbour costs, ...
assert near(run([[work(2)]] * 2, [], cores=2, slower=slow), 3)
assert near(run([[work(2)], [work(2, "memory")]], [], cores=2, slower=slow), 3 + 0.5)   # ... until it is done
assert near(run([[work(2, "memory")]], [], cores=2, threads=2, slower=slow), 2)
assert near(run([[post, work(3), wait]], [Collective(0, 2)]), 3)                        # hidden
assert near(run([[post, work(1), wait]], [Collective(0, 2)]), 2)                        # not all of it
assert near(run([[post, post, wait, work(1)]], [Collective(0, 2), Collective(0, 2)]), 5)  # one after the other
assert near(run([[work(1), post, wait], [work(4), post, wait]], [Collective(0, 1)], cores=2), 5)  # the slowest one
assert near(run([[post, work(2), wait]] * 2, [Collective(1, 0)], cores=2), 3)           # carrying takes cores too
assert near(run([[post, work(2), wait]] * 2, [Collective(1, 0)], cores=4), 2)
assert near(run([[post, work(2), wait]] * 2, [Collective(1, 0, 0.25)], cores=4), 2.5)   # idles along, then is waited for
assert near(run([[post, work(3), wait]] * 2, [Collective(1, 0, 0.25)], cores=2), 4)

# Constants come back from steps that were made with them.
model = costs.load_model("small")
measured = dict(zeroed=2e-10, normed=2e-10, updated=1.2e-9, reduced=6e-10, gathered=3e-10, call=2e-5, pace=0.1,
                memory=1.2)
true = Cores(2, {"small": 2e-11}, 1.1, 4e-10, **measured)
rows = [dict(model="small", ranks=r, threads=t, batch=n, micro=m, bucket=0, use="calibrate", rounds=5, steps=100,
             spread=0, seconds=true.seconds(Step(model, r, n, m), t))
        for r, t, n, m in ((1, 1, 8, 0), (1, 1, 48, 0), (1, 1, 48, 8), (1, 2, 16, 0), (1, 2, 96, 0), (2, 1, 16, 0),
                           (2, 1, 96, 0), (2, 1, 48, 0), (1, 1, 24, 0))]
found = calibrate(rows, 2, measured)
for r, n in ((1, 128), (2, 32), (4, 64), (4, 128), (3, 100)):
    a, b = (c.seconds(Step(model, r, n), max(1, 2 // r)) for c in (true, found))
    assert abs(b / a - 1) < 0.03, (r, n, a, b)
assert true.seconds(Step(model, 1, 128, micro=32), 2) > 1.1 * true.seconds(Step(model, 1, 128), 2)  # forward twice
wide = Cores(4, {"small": 2e-11}, 1.0, 4e-10, **{**measured, "pace": 1.0})  # with cores that nobody computes on
assert wide.seconds(Step(model, 2, 16, bucket=1 << 20), 1) < 0.99 * wide.seconds(Step(model, 2, 16), 1)  # more is hidden

# A wrong prediction is noticed, and so are measurements that prove nothing.
checked = [dict(rows[0], use="check", ranks=r, seconds=1.2 * true.seconds(Step(model, r, 8), 1)) for r in (1, 2, 4)]
assert abs(comparison({"rows": checked}, true)[1] - (1 - 1 / 1.2)) < 1e-6
assert not list(objections({"rows": rows + checked}))
assert list(objections({"rows": rows[1:] + checked})) and list(objections({"rows": rows + checked[:2]}))
assert list(objections({"rows": rows + checked[:2] + [dict(checked[2], rounds=4)]}))

# Sets are pooled by steps, each in units of its own reference.
one = dict(machine="m", cores=2, references={"1 x 1": dict(median=1.0)}, parts={"1 x 1": dict(zero=1.0)},
           rows=[dict(rows[0], seconds=4.0, steps=30, rounds=5)])
two = dict(one, references={"1 x 1": dict(median=2.0)}, parts={"1 x 1": dict(zero=4.0)},
           rows=[dict(rows[0], seconds=2.0, steps=10, rounds=10)])
both = pooled([one, two])
assert near(both["rows"][0]["seconds"], (4 * 30 + 1 * 10) / 40 * (1 * 30 + 2 * 10) / 40) and both["rows"][0]["steps"] == 40
assert near(both["parts"]["1 x 1"]["zero"], 3.0) and both["rows"][0]["rounds"] == 15
try:
    pooled([one, dict(two, machine="another")])
    raise AssertionError
except SystemExit:
    pass
P
holds "costs and simulation" python3 "$work/check.py"
finish
