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
if [ -e docs/scaling_measurements.json ]; then
    holds "predictions within 10 % of what was measured" python3 scripts/simulate_scaling.py check
else
    echo "SKIP predictions: no docs/scaling_measurements.json"
fi
cat >"$work/check.py" <<'P'
import math, sys
sys.path.insert(0, "scripts")
import scaling_costs as costs
from simulate_scaling import Collective, Cores, Simulation, Step, calibrate

for name, parameters, gflop in (("RN50", 76989537, 43.4), ("ViT-B-16", 188262913, 132.0), ("ViT-L-14", 406233089, 512.6),
                                ("ViT-L-14-336", 406560769, 1172), ("ViT-H-14", 957598209, 1098)):
    m = costs.load_model(name)
    assert m.parameters == parameters, (name, m.parameters)
    assert abs(m.pair_flops / 1e9 / gflop - 1) < 1e-3, (name, m.pair_flops)
whole, half = costs.load_model("ViT-B-16"), costs.load_model("ViT-B-16", mask_ratio=0.5)
assert 0.55 < half.pair_flops / whole.pair_flops < 0.61  # the text tower is a fifth
t = costs.traffic(whole, 4, 1000, bf16=False)
assert t.gradients == t.values == 3 * whole.parameters and t.features == 3000 * 512

near = lambda a, b: abs(a - b) < 1e-9 * max(1, b)
work = lambda s: ("work", "w", s)
post, wait = ("post", "c"), ("wait", "c")
run = lambda *a, **k: Simulation(*a, **k).run()
assert near(run([[work(2)]], [], cores=2), 2)
assert near(run([[work(2)]], [], cores=2, threads=2), 1)
assert near(run([[work(2)]], [], cores=2, threads=2, serial=0.5), 1.5)
assert near(run([[work(1)]] * 4, [], cores=2), 2)                                       # oversubscribed
assert near(run([[work(1)], [work(3)]], [], cores=1), 4)                                # 2 s shared, then alone
assert near(run([[post, work(3), wait]], [Collective(0, 2)]), 3)                        # hidden
assert near(run([[post, work(1), wait]], [Collective(0, 2)]), 2)                        # not all of it
assert near(run([[post, post, wait, work(1)]], [Collective(0, 2), Collective(0, 2)]), 5)  # one after the other
assert near(run([[work(1), post, wait], [work(4), post, wait]], [Collective(0, 1)], cores=2), 5)  # the slowest one
assert near(run([[post, work(2), wait]] * 2, [Collective(1, 0)], cores=2), 3)           # carrying takes cores too
assert near(run([[post, work(2), wait]] * 2, [Collective(1, 0)], cores=4), 2)

# Constants come back from steps that were made with them.
model = costs.load_model("small")
true = Cores(2, {"small": 2e-11}, weights=4e-10, byte=2e-10, sent=5e-10, call=2e-5, serial=0.08)
rows = [dict(model="small", ranks=r, threads=max(1, 2 // r), batch=n, seconds=true.seconds(Step(model, r, n), max(1, 2 // r)))
        for r, n in ((1, 32), (1, 64), (2, 64), (2, 128))]
found = calibrate(rows, 2)
for r, n in ((1, 128), (2, 32), (4, 64), (4, 128), (3, 100)):
    a, b = (c.seconds(Step(model, r, n), max(1, 2 // r)) for c in (true, found))
    assert abs(b / a - 1) < 0.03, (r, n, a, b)
assert true.seconds(Step(model, 1, 128, micro=32), 2) > 1.1 * true.seconds(Step(model, 1, 128), 2)  # forward twice
P
holds "costs and simulation" python3 "$work/check.py"
finish
