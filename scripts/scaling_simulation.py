"""Ranks that compute, communicate and wait for each other, as docs/scaling.md says: what simulate_scaling.py runs."""
from dataclasses import dataclass, field

KINDS = ("compute", "memory")  # of work: what bounds it, and so what a busy neighbour costs it


@dataclass
class Rank:
    program: list        # (kind, phase, seconds of a core) | ("post", phase) | ("wait", phase)
    at: int = 0          # in the program
    left: float = 0.0    # seconds of the work under way
    begun: bool = False  # the work at `at` is under way
    posted: int = 0      # collectives so far


@dataclass
class Collective:
    work: float        # seconds of a core that each rank's part takes
    delay: float       # seconds that it takes at least
    pace: float = 1.0  # share of a core that its thread takes at most while its rank computes


@dataclass
class Shared:
    """Cores that all ranks share; a rank's work has `threads` threads. slower: how many times as long work of each kind takes while all cores are busy."""
    cores: int
    threads: int = 1
    slower: dict = field(default_factory=dict)

    def divide(self, wanted):
        """What each gets of the cores: all it wants, or as much as all others that want more."""
        got, left, open_ = [0.0] * len(wanted), float(self.cores), sorted(range(len(wanted)), key=lambda i: wanted[i])
        for done, i in enumerate(open_):
            got[i] = min(wanted[i], left / (len(open_) - done))
            left -= got[i]
        return got

    def speed(self, kind, got, busy):
        """Of work that `got` so many cores, in seconds of a lone core a second."""
        slower = self.slower.get(kind, 1.0)
        factor = 1 + (slower - 1) * max(0.0, busy - 1) / max(1, self.cores - 1)
        return got / factor


class Simulation:
    """Ranks that run their programs; all of them make the same collectives in the same order. shared: their cores;
    None: every rank computes and communicates at its own pace."""

    def __init__(self, programs, collectives, shared=None):
        self.ranks = [Rank(p) for p in programs]
        self.collectives, self.shared = collectives, shared
        self.now, self.current, self.moving, self.began = 0.0, 0, None, 0.0
        self.phases = {}  # of rank 0

    def settle_rank(self, r):
        """Passes all of a program that takes no time."""
        while r.at < len(r.program):
            op = r.program[r.at]
            if op[0] in KINDS:
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

    def speeds(self, computing, carrying):
        """Of all that computes, and of all that carries."""
        pace = [self.collectives[self.current].pace if self.ranks[i].left > 0 else 1.0 for i in carrying]
        if self.shared is None:
            return [1.0] * len(computing), pace
        got = self.shared.divide([float(self.shared.threads)] * len(computing) + pace)
        busy = sum(got)
        kinds = [r.program[r.at][0] for r in computing]
        return [self.shared.speed(k, g, busy) for k, g in zip(kinds, got)], got[len(computing):]

    def advance(self):
        computing = [r for r in self.ranks if r.left > 0]
        carrying = [i for i, left in enumerate(self.moving or ()) if left > 0]
        speeds, carried = self.speeds(computing, carrying)
        times = [r.left / v for r, v in zip(computing, speeds)]
        times += [self.moving[i] / v for i, v in zip(carrying, carried)]
        if self.moving is not None:
            end = self.began + self.collectives[self.current].delay
            times += [end - self.now] if end > self.now else []
        step = min(times)
        self.note(step)
        self.now += step
        for r, v in zip(computing, speeds):
            r.left = left_of(r.left, step * v)
        for i, v in zip(carrying, carried):
            self.moving[i] = left_of(self.moving[i], step * v)

    def note(self, step):
        r = self.ranks[0]
        op = r.program[r.at] if r.at < len(r.program) else ("wait", "end")
        name = op[1] if op[0] in KINDS else op[1] + ", waiting"
        self.phases[name] = self.phases.get(name, 0.0) + step

    def run(self):
        self.settle()
        while any(r.at < len(r.program) for r in self.ranks):
            self.advance()
            self.settle()
        return self.now


def left_of(left, done):
    return left - done if left - done > 1e-9 * left + 1e-13 else 0.0
