"""Rules × normalizers × norms × partitions × weight decay × dtypes against the naive loop, in a sample that covers.

The full product has some 30,000 cases. The sample is a covering array: every pair of values of any two factors
occurs in it, and every triple where the factors act on one another (rule, normalizer, partition; normalizer, norm,
partition; normalizer, norm, decay). It is chosen greedily from seeded candidates, so that it is the same in every run.
"""

import contextlib
import itertools
import math
import random
import re
import warnings

import numpy as np
import pytest

from minibng import optim
from minibng.params import Params

LR, STEPS = 0.02, 7
ROWS = 60  # of the sample, on each device
SHAPES = {
    "0.W": (4, 3),
    "1.c.W": (2, 2, 3, 5),
    "0.b": (3,),
    "1.c.b": (5,),
    "2.W": (5, 1),
    "2.none": (0, 2),
    "2.b": (1,),
}
NAMES, ALL = list(SHAPES), list(SHAPES.values())

RULES = {
    "SGD": {},
    "Momentum": {"momentum": 0.8},
    "Nesterov": {"momentum": 0.7},
    "AdaGrad": {"eps": 1e-4},
    "RMSProp": {"alpha": 0.9, "eps": 1e-3},
    "RMSProp, centered": {"alpha": 0.8, "centered": True},
    "RMSProp, momentum": {"alpha": 0.95, "momentum": 0.6},
    "AdaDelta": {"rho": 0.8, "eps": 1e-3},
    "Adam": {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3},
    "AMSGrad": {"beta1": 0.7, "beta2": 0.6},
    "NAdam": {"beta1": 0.85, "beta2": 0.9, "momentum_decay": 0.05},
}
NORMALIZERS = {
    "raw": (None, {}),
    "clip": ("clip", {"clip": 0.3}),
    "clip-global": ("clip-global", {"clip": 2.0}),
    "unit": ("unit", {}),
    "adaptive": ("adaptive", {"floor": 0.05}),
}
NORMS = {"2": 2, "rms": "rms", "1": 1, "inf": math.inf}
# name → (blocks= of the optimizer, blocks= of the oracle); lists of positions in the order of NAMES
PARTITIONS = {
    "layer": ("layer", "layer"),
    "tensor": ("tensor", "tensor"),
    "unit": ("unit", "unit"),
    "coordinate": ("coordinate", "coordinate"),
    "global": ("global", "global"),
    "function": (lambda name: f"ends in {name[-1]}", [[0, 1, 4], [2, 3, 6], [5]]),
    "mapping": ({"0.W": "A", "1.*": "B", "*.W": "A", "*": "rest"}, [[0, 4], [1, 3], [2, 5, 6]]),
    "regex": (re.compile(r"(\d)\.(?:c|W|b|none)"), [[0, 2], [1, 3], [4, 5, 6]]),
    "arrays, default": (None, "tensor"),
    "arrays, unit": ("unit", "unit"),
    "arrays, coordinate": ("coordinate", "coordinate"),
    "arrays, global": ("global", "global"),
    "arrays, lists": ([[3, 0], [6, 1, 5], [2], [4]], [[0, 3], [1, 5, 6], [2], [4]]),
}
# name → (decay=, weight_decay= of the optimizer, one λ for each of NAMES)
DECAYS = {
    "none": ("decoupled", 0.0, [0.0] * 7),
    "decoupled": ("decoupled", 0.3, [0.3] * 7),
    "after": ("after", 0.2, [0.2] * 7),
    "before": ("before", 0.1, [0.1] * 7),
    "decoupled, some": ("decoupled", {"1.c.W": 0.5, "*.W": 0.25}, [0.25, 0.5, 0, 0, 0.25, 0, 0]),
    "after, some": ("after", {"0.*": 0.4, "*": 0.1}, [0.4, 0.1, 0.4, 0.1, 0.1, 0.1, 0.1]),
    "before, some": ("before", {"*.b": 0.0, "[12].*": 0.2}, [0, 0.2, 0, 0, 0.2, 0.2, 0]),
}
RATES = {"constant": LR, "schedule": lambda t: LR / (1 + t)}
DTYPES = {"float32": "float32", "float64": "float64"}

FACTORS = {
    "rule": RULES,
    "normalize": NORMALIZERS,
    "norm": NORMS,
    "blocks": PARTITIONS,
    "decay": DECAYS,
    "lr": RATES,
    "dtype": DTYPES,
}
TRIPLES = [("rule", "normalize", "blocks"), ("normalize", "norm", "blocks"), ("normalize", "norm", "decay")]
COVERED = [*itertools.combinations(FACTORS, 2), *TRIPLES]


def sense(case):
    """Plain arrays have no names of their own for patterns to tell apart."""
    return not (case["blocks"].startswith("arrays") and case["decay"].endswith("some"))


def seen(case):
    return {(factors, tuple(case[f] for f in factors)) for factors in COVERED}


def to_cover():
    """Every combination of values that the sample must show."""
    every = set()
    for factors in COVERED:
        for values in itertools.product(*(FACTORS[f] for f in factors)):
            if sense({"blocks": "", "decay": "", **dict(zip(factors, values, strict=True))}):
                every.add((factors, values))
    return every


def sample(candidates=12):
    """Cases until everything is covered: each is the best of a few that contain a combination still open."""
    chance, todo, chosen = random.Random(0), to_cover(), []
    open_ones = sorted(todo, key=repr)
    chance.shuffle(open_ones)
    for factors, values in open_ones:
        if (factors, values) not in todo:
            continue
        fixed, tries = dict(zip(factors, values, strict=True)), []
        while len(tries) < candidates:
            case = {f: fixed.get(f) or chance.choice(list(FACTORS[f])) for f in FACTORS}
            if sense(case):
                tries.append(case)
        best = max(tries, key=lambda case: len(seen(case) & todo))
        todo -= seen(best)
        chosen.append(best)
    return chosen


CASES = sample()


def test_the_sample_covers_what_it_says():
    shown = set().union(*map(seen, CASES))
    assert to_cover() <= shown and all(map(sense, CASES))
    assert len(CASES) < 800


def numbers(kit, dtype):
    """A start with one tensor at zero, which the floor must move."""
    arrays = kit.numbers(0, dtype, shapes=ALL)
    arrays[NAMES.index("1.c.b")][...] = 0
    return arrays


def settings_of(case):
    normalize, extra = NORMALIZERS[case["normalize"]]
    settings = {"normalize": normalize, "norm": NORMS[case["norm"]], **extra}
    decay, weight_decay, _ = DECAYS[case["decay"]]
    return settings | {"decay": decay, "weight_decay": weight_decay, "blocks": PARTITIONS[case["blocks"]][0]}


def optimizer(case, kit, **changes):
    """The optimizer of a case, its arrays, and what turns a list of gradients into what it takes."""
    name, values = case["rule"].split(",")[0], RULES[case["rule"]]
    settings = settings_of(case) | changes
    arrays = numbers(kit, case["dtype"])
    if case["blocks"].startswith("arrays"):
        target, pack = arrays, lambda g: g
    else:
        target, pack = (
            Params.of(dict(zip(NAMES, arrays, strict=True))),
            lambda g: Params.of(dict(zip(NAMES, g, strict=True))),
        )
        arrays = [v for _, v in target.items()]
    useless = (
        settings["decay"] == "before" and settings["normalize"] in ("unit", "adaptive") and settings["weight_decay"]
    )
    with pytest.warns(UserWarning, match="before") if useless else contextlib.nullcontext():
        opt = optim.Optimizer(target, getattr(optim.rules, name)(**values), RATES[case["lr"]], **settings)
    return opt, arrays, pack


def oracle(case, kit, NaiveLoop=None, **changes):
    form, extra = NORMALIZERS[case["normalize"]]
    decay, _, weight_decay = DECAYS[case["decay"]]
    blocks = kit.entries(ALL, PARTITIONS[case["blocks"]][1], None if case["blocks"].startswith("arrays") else NAMES)
    settings = {"form": form, "norm": NORMS[case["norm"]], "decay": decay, "weight_decay": weight_decay, **extra}
    return (NaiveLoop or kit.NaiveLoop)(
        case["rule"].split(",")[0],
        arrays=numbers(kit, case["dtype"]),
        blocks=blocks,
        lr=RATES[case["lr"]],
        **settings | RULES[case["rule"]] | changes,
    )


def compare(kit, case, opt, arrays, pack, naive):
    for g in kit.gradients(STEPS, case["dtype"], shapes=ALL):
        kit.step(opt, pack(g))
        naive.step(g)
    kit.assert_follows(arrays, naive, case["dtype"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case.values()).replace(", ", " "))
def test_the_optimizer_follows_the_naive_loop(kit, case):
    compare(kit, case, *optimizer(case, kit), oracle(case, kit))


# --- a checker is worth what it finds ----------------------------------------------------------------------


def found_in(kit, chosen, changes=lambda case: {}, NaiveLoop=None):
    """How many of the chosen cases disagree when one side has a fault."""
    count = 0
    for case in chosen:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            try:
                compare(kit, case, *optimizer(case, kit), oracle(case, kit, NaiveLoop, **changes(case)))
            except AssertionError:
                count += 1
    return count


class Faults:
    """One fault each, planted in the naive loop: a disagreement is the same on whichever side the fault is."""

    @staticmethod
    def decay_without_the_rate(base):
        class Faulty(base):
            def change(self, g, lr):
                return lr * self.direction(g) + self.weight_decay * self.x

        return Faulty

    @staticmethod
    def decay_of_the_parameters_after_the_step(base):
        class Faulty(base):
            def change(self, g, lr):
                u = self.direction(g)
                return lr * (u + self.weight_decay * (self.x - lr * u))

        return Faulty

    @staticmethod
    def decay_through_the_normalizer(base):
        class Faulty(base):
            def direction(self, g):
                self.decay = "before"
                return super().direction(g)

        return Faulty

    @staticmethod
    def normalized_after_the_rule(base):
        class Faulty(base):
            def direction(self, g):
                u = np.empty_like(g)
                for b, state in zip(self.blocks, self.states, strict=True):
                    state.t += 1
                    u[b] = self.rule(state, g[b], **self.settings)
                return self.normalized(u)

        return Faulty

    @staticmethod
    def one_norm_for_all(base):
        class Faulty(base):
            def normalized(self, g):
                blocks, self.blocks = self.blocks, [np.arange(g.size)]
                n = super().normalized(g)
                self.blocks = blocks
                return n

        return Faulty

    @staticmethod
    def units_along_the_first_axis(base):
        class Faulty(base):
            def __init__(self, *args, **settings):
                super().__init__(*args, **settings)
                size, width = self.shapes[0][0] * self.shapes[0][1], self.shapes[0][1]
                rows = [np.arange(k, k + width) for k in range(0, size, width)]
                kept = [b[b >= size] for b in self.blocks]
                self.blocks = [*rows, *kept]
                self.states = [type(self.states[0])(**vars(self.states[0])) for _ in self.blocks]

        return Faulty

    @staticmethod
    def the_next_rate(base):
        class Faulty(base):
            def step(self, grads):
                self.t += 1
                super().step(grads)
                self.t -= 1

        return Faulty

    @staticmethod
    def floor_by_the_root_of_the_size(base):
        class Faulty(base):
            def normalized(self, g):
                floors = {1: lambda d: d**-0.5, math.inf: lambda d: d**0.5, "rms": lambda d: d**0.5}
                n, floor = np.zeros_like(g), self.floor
                blocks = self.blocks
                for b in blocks:
                    self.blocks, self.floor = [b], floor * floors[self.norm](max(len(b), 1))
                    n[b] = super().normalized(g)[b]
                self.blocks, self.floor = blocks, floor
                return n

        return Faulty

    @staticmethod
    def a_rule(broken):
        def faulty(base):
            class Faulty(base):
                def __init__(self, *args, **settings):
                    super().__init__(*args, **settings)
                    self.rule = broken

            return Faulty

        return faulty


def amsgrad_with_the_corrected_maximum(s, g, beta1, beta2, eps=1e-8):
    """The maximum of v̂, not of v."""
    s.b = beta1 * s.b + (1 - beta1) * g
    s.v = beta2 * s.v + (1 - beta2) * g**2
    s.m = np.maximum(s.m, s.v / (1 - beta2**s.t))
    return s.b / (1 - beta1**s.t) / (np.sqrt(s.m) + eps)


def amsgrad_that_averages_its_maximum(s, g, beta1, beta2, eps=1e-8):
    """The maximum is fed back into the average."""
    s.b = beta1 * s.b + (1 - beta1) * g
    s.v = np.maximum(s.v, beta2 * s.v + (1 - beta2) * g**2)
    return s.b / (1 - beta1**s.t) / (np.sqrt(s.v / (1 - beta2**s.t)) + eps)


def nesterov_without_looking_ahead(s, g, momentum):
    s.b = momentum * s.b + g
    return s.b


def nadam_with_one_momentum(s, g, beta1, beta2, momentum_decay, eps=1e-8):
    """β₁ in the place of μ_t: no schedule of momenta."""
    s.b = beta1 * s.b + (1 - beta1) * g
    s.v = beta2 * s.v + (1 - beta2) * g**2
    ahead = beta1 * s.b / (1 - beta1 ** (s.t + 1)) + (1 - beta1) * g / (1 - beta1**s.t)
    return ahead / (np.sqrt(s.v / (1 - beta2**s.t)) + eps)


def rmsprop_centered_by_the_mean_of_before(s, g, alpha, centered, eps=1e-8):
    s.v = alpha * s.v + (1 - alpha) * g**2
    u = g / (np.sqrt(np.maximum(s.v - s.a**2, 0)) + eps)
    s.a = alpha * s.a + (1 - alpha) * g
    return u


def is_(**wanted):
    """A filter of cases: each factor named is one of the values given."""
    return lambda case: all(case[f] in values for f, values in wanted.items())


GROUPED = ("layer", "tensor", "global", "function", "regex")  # blocks of more than one entry, more than one unit
NO_SCALE = ("SGD", "Momentum", "Nesterov")  # rules that show a factor of a block in their step
LINEAR = is_(rule=NO_SCALE, blocks=GROUPED)

# what is wrong → (the cases that must show it, the changed settings of the oracle, the changed oracle)
PLANTED = {
    "decay before the normalizer in place of after it": (
        is_(decay=("after",), normalize=("unit", "adaptive"), rule=NO_SCALE),
        {},
        Faults.decay_through_the_normalizer,
    ),
    "decay after in place of decoupled": (
        is_(decay=("decoupled",), rule=("Momentum", "Nesterov", "Adam")),
        {"decay": "after"},
        None,
    ),
    "decay not multiplied by the rate": (
        is_(decay=("decoupled", "decoupled, some")),
        {},
        Faults.decay_without_the_rate,
    ),
    "decay of what the step has left": (
        is_(decay=("decoupled",), rule=NO_SCALE, dtype=("float64",)),
        {},
        Faults.decay_of_the_parameters_after_the_step,
    ),
    "the first pattern for every tensor": (is_(decay=("after, some",), rule=NO_SCALE), {"weight_decay": 0.4}, None),
    "a root mean square for a length": (
        lambda c: LINEAR(c) and is_(normalize=("unit",), norm=("2",))(c),
        {"norm": "rms"},
        None,
    ),
    "a length for a sum": (lambda c: LINEAR(c) and is_(normalize=("unit", "clip"), norm=("1",))(c), {"norm": 2}, None),
    "a sum for a maximum": (
        lambda c: LINEAR(c) and is_(normalize=("adaptive", "unit"), norm=("inf",))(c),
        {"norm": 1},
        None,
    ),
    "normalized after the rule": (
        is_(normalize=("unit",), rule=("Momentum", "Adam", "NAdam", "AdaGrad"), decay=("none",)),
        {},
        Faults.normalized_after_the_rule,
    ),
    "one norm for all blocks": (
        is_(normalize=("unit",), rule=NO_SCALE, blocks=("layer", "tensor", "unit")),
        {},
        Faults.one_norm_for_all,
    ),
    "clipping block by block": (
        lambda c: LINEAR(c) and is_(normalize=("clip-global",), blocks=("tensor", "layer"))(c),
        {"form": "clip"},
        None,
    ),
    "units along the first axis": (
        is_(normalize=("unit", "adaptive"), rule=NO_SCALE, blocks=("unit",)),
        {},
        Faults.units_along_the_first_axis,
    ),
    "a floor of √d in every norm": (
        lambda c: is_(normalize=("adaptive",), rule=NO_SCALE, norm=("1", "rms"), blocks=("tensor", "arrays, default"))(
            c
        ),
        {},
        Faults.floor_by_the_root_of_the_size,
    ),
    "the rate of the next step": (is_(lr=("schedule",), rule=("Adam",), normalize=("unit",)), {}, Faults.the_next_rate),
    "AMSGrad's maximum after the correction": (
        is_(rule=("AMSGrad",)),
        {},
        Faults.a_rule(amsgrad_with_the_corrected_maximum),
    ),
    "AMSGrad's maximum fed back": (is_(rule=("AMSGrad",)), {}, Faults.a_rule(amsgrad_that_averages_its_maximum)),
    "Nesterov that does not look ahead": (is_(rule=("Nesterov",)), {}, Faults.a_rule(nesterov_without_looking_ahead)),
    "NAdam with one momentum": (is_(rule=("NAdam",)), {}, Faults.a_rule(nadam_with_one_momentum)),
    "a mean that lags": (is_(rule=("RMSProp, centered",)), {}, Faults.a_rule(rmsprop_centered_by_the_mean_of_before)),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found_in_every_case_that_must_show_it(host_kit, fault):
    relevant, changes, planted = PLANTED[fault]
    chosen = [case for case in CASES if relevant(case)][:8]
    assert chosen
    assert found_in(host_kit, chosen, lambda case: changes, planted and planted(host_kit.NaiveLoop)) == len(chosen)
