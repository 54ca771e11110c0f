"""What goes wrong where the method is used outside its theory, each shown by a short run and asserted by closed forms.

Every function of `COUNTEREXAMPLES` makes its runs and returns a `Finding`: a statement, the facts that were measured
with what the closed form allows, and the curves of a picture. ``finding.check()`` raises where a fact does not show
what the statement says; ``plot.curves(**finding.picture)`` draws it. Proofs are in the documentation, "Theory".
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from minibng import optim
from minibng.backend import HostArray
from minibng.names import choose
from minibng.optim import Optimizer

Curves: TypeAlias = dict[str, tuple[HostArray, HostArray]]


@dataclass(frozen=True)
class Fact:
    """A number that a run showed, and the interval that theory allows it.

    Examples
    --------
    >>> fact = Fact.near("where it ends", 0.69, math.log(2), 0.01)
    >>> fact.holds, str(fact)
    (True, 'where it ends: 0.69, by theory 0.683147 to 0.703147')
    """

    what: str
    measured: float
    low: float
    high: float

    @classmethod
    def near(cls, what: str, measured: float, expected: float, tolerance: float) -> Fact:
        """Return the fact that something is within the tolerance of what is expected."""
        return cls(what, float(measured), expected - tolerance, expected + tolerance)

    @property
    def holds(self) -> bool:
        """Whether the number lies in its interval; NaN does not."""
        return self.low <= self.measured <= self.high

    def __str__(self) -> str:
        allowed = f"{self.low:.6g}" + (f" to {self.high:.6g}" if self.high != self.low else "")
        if not math.isfinite(self.low) or not math.isfinite(self.high):
            allowed = f"at least {self.low:.6g}" if math.isfinite(self.low) else f"at most {self.high:.6g}"
        return f"{self.what}: {self.measured:.6g}, by theory {allowed}"


@dataclass(frozen=True)
class Finding:
    """What a counterexample shows.

    Parameters
    ----------
    name
        Its name in `COUNTEREXAMPLES`.
    statement
        What it shows, in one sentence.
    facts
        What was measured, each with the interval that the closed form allows.
    curves
        Label → (x, y).
    x, y
        What stands on the axes.
    levels
        What the closed form says, as horizontal lines: label → height. A level with the label of a curve belongs to it.
    log
        The logarithmic axes: "", "x", "y" or "xy".
    """

    name: str
    statement: str
    facts: tuple[Fact, ...]
    curves: Curves
    x: str
    y: str
    levels: Mapping[str, float] = field(default_factory=dict)
    log: str = ""

    def check(self) -> None:
        """Compare what was measured with theory.

        Raises
        ------
        AssertionError
            Naming every fact that does not hold.
        """
        wrong = [str(fact) for fact in self.facts if not fact.holds]
        if wrong:
            raise AssertionError("\n  ".join([f"{self.name} does not show it: {self.statement}", *wrong]))

    @property
    def picture(self) -> dict[str, Any]:
        """The keywords of ``plot.curves`` that draw it."""
        words = {name: getattr(self, name) for name in ("curves", "x", "y", "levels", "log")}
        return words | {"title": self.statement}

    def __str__(self) -> str:
        return "\n  ".join([self.statement, *map(str, self.facts)])


COUNTEREXAMPLES: dict[str, Callable[..., Finding]] = {}
"""Name → a function that makes the runs, all of whose settings have defaults; each takes less than a second."""


def counterexample(function: Callable[..., Finding]) -> Callable[..., Finding]:
    """Enter a function into `COUNTEREXAMPLES` under its own name."""
    COUNTEREXAMPLES[_named(function)] = function
    return function


def show(name: str, **settings: Any) -> Finding:
    """Return what a counterexample shows, after it has been checked.

    Raises
    ------
    UnknownNameError
        With the nearest name.
    AssertionError
        Where the run does not show it.

    Examples
    --------
    >>> print(show("scalar-blocks"))
    With every scalar a block of its own, a convex function that is not smooth keeps the method away from its minimum.
      |a + b| after 1000 steps, in two blocks: 1.05, by theory 1.05 to 1.05
      the smallest f − f* in two blocks: 0.525, by theory at least 0.525
      the smallest f − f* as one block: 4.99685e-07, by theory at most 0.150609
    """
    finding = choose(COUNTEREXAMPLES, name, "counterexample")(**settings)
    finding.check()
    return finding


def _named(function: Callable[..., Finding]) -> str:
    return function.__name__.replace("_", "-")


def _walk(opt: Optimizer, x: Sequence[HostArray], gradient: Callable[..., list[HostArray]], steps: int) -> HostArray:
    """Return x_0 … x_T, the tensors of x one after another (T+1, d); gradient(t, *x) is that of step t, from 0."""
    path = [np.concatenate([v.reshape(-1) for v in x])]
    for t in range(steps):
        opt.step(gradient(t, *x))
        path.append(np.concatenate([v.reshape(-1) for v in x]))
    return np.array(path)


def _circled(distance: float, lr: float, steps: int) -> HostArray:
    """Return r_0 … r_T where steps of length lr lead straight to a point: r ← |r − lr|."""
    out = [distance]
    for _ in range(steps):
        out.append(abs(out[-1] - lr))
    return np.array(out)


# The mean of unit vectors is not the unit vector of the mean


@counterexample
def median_bias(
    batches: Sequence[int] = (1, 2, 4, 8, 16), steps: int = 800, replicas: int = 300, seed: int = 0
) -> Finding:
    """Find the median of a mini-batch's mean, ln 2 for one exponential sample, where the mean is 1.

    F(x, ξ) = ½(x − ξ)² with ξ ~ Exponential(1); the mean of m samples is Gamma(m)/m. With steps 2/(t + 2) the error of
    a run after T steps has variance 4/(T(8p − 1)) for large T, p the density at the median; five standard errors of
    the replicas' mean are allowed. Raw SGD with 1/(t + 1) is the running mean.
    """
    rng = np.random.default_rng(seed)
    draws = np.stack([rng.standard_gamma(m, (steps, replicas)) / m for m in batches], axis=1)
    x = np.ones((len(batches), replicas))
    signs = optim.get("sgd-ng")([x], lr=lambda t: 2 / (t + 2), blocks="coordinate")
    ends = _walk(signs, [x], lambda t, x: [x - draws[t]], steps).reshape(steps + 1, *x.shape).mean(axis=2)
    y = np.ones(replicas)
    raw = optim.get("sgd")([y], lr=lambda t: 1 / (t + 1))
    means = _walk(raw, [y], lambda t, y: [y - draws[t, 0]], steps).mean(axis=1)

    levels, facts, curves, time = {}, [], {}, np.arange(steps + 1)
    for k, m in enumerate(batches):
        median, density = _gamma_median(m)
        error = 5 * math.sqrt(4 / (steps * (8 * density - 1) * replicas))
        facts.append(Fact.near(f"SGD-NG, batches of {m}", ends[-1, k], median, error))
        levels[label := f"SGD-NG, batch {m}"] = median
        curves[label] = (time[1:], ends[1:, k])
    facts.append(
        Fact.near(f"SGD, batches of {batches[0]}", means[-1], 1.0, 5 / math.sqrt(batches[0] * steps * replicas))
    )
    curves[f"SGD, batch {batches[0]}"] = (time[1:], means[1:])
    return Finding(
        "median-bias",
        "The normalized gradient of a mini-batch leads to the median of the batch's mean, not to the mean.",
        tuple(facts),
        curves,
        "step",
        f"x, mean of {replicas} runs",
        levels | {"the mean of the data": 1.0},
        "x",
    )


def _gamma_median(m: int) -> tuple[float, float]:
    """Return the median of the mean of m exponential samples, and the density there.

    P(Gamma(m) > y) = e^(−y) Σ_{k<m} y^k/k!, which is ½ at y = m·median.
    """
    low, high = 0.0, float(m)
    for _ in range(60):
        y = (low + high) / 2
        above = math.exp(-y) * sum(y**k / math.factorial(k) for k in range(m))
        low, high = (y, high) if above > 0.5 else (low, y)
    return y / m, m * y ** (m - 1) * math.exp(-y) / math.factorial(m - 1)


@counterexample
def workers_normalized_first(heights: Sequence[float] = (3.0, 6.0), steps: int = 200) -> Finding:
    """Let three workers normalize before their gradients are averaged: they find the Fermat point, not the mean.

    Worker k has the loss ½‖x − a_k‖² with a = (−1, 0), (1, 0), (0, h). The mean of the gradients vanishes at the mean
    of the a_k, (0, h/3); the mean of the normalized ones where the sum of the distances is smallest: at (0, 1/√3)
    whatever h > 1/√3 is.
    """
    curves: Curves = {}
    facts, levels = [], {"Fermat point, 1/√3": 1 / math.sqrt(3)}
    for h in heights:
        data = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, h]])
        starts = [np.array([0.5, h / 2]) for _ in range(2)]
        right = optim.get("sgd-ng")([starts[0]], lr=lambda t: 2 / (t + 2))
        wrong = optim.get("sgd")([starts[1]], lr=0.5)
        after = _walk(right, starts[:1], lambda t, x, a=data: [(x - a).mean(axis=0)], steps)
        before = _walk(
            wrong, starts[1:], lambda t, x, a=data: [np.mean(optim.normalize_blocks(list(x - a)), axis=0)], steps
        )
        # NG of the mean: the distance r becomes |r − η|, so that it is at most the step before once it has been
        off = float(np.linalg.norm(after[-1] - [0, h / 3]))
        facts += [
            Fact(f"h = {h:g}, averaged first: distance from the mean", off, 0.0, 2 / (steps + 1)),
            Fact.near(f"h = {h:g}, normalized first: x₁", before[-1, 0], 0.0, 1e-6),
            Fact.near(f"h = {h:g}, normalized first: x₂", before[-1, 1], 1 / math.sqrt(3), 1e-6),
        ]
        levels[one := f"averaged, then normalized, h = {h:g}"] = h / 3
        curves[one] = (np.arange(steps + 1), after[:, 1])
        curves[f"normalized, then averaged, h = {h:g}"] = (np.arange(steps + 1), before[:, 1])
    return Finding(
        "workers-normalized-first",
        "Workers that normalize before they average do not feel how far away a worker's data are.",
        tuple(facts),
        curves,
        "step",
        "second coordinate of x",
        levels,
    )


# Steps of a fixed length


@counterexample
def scalar_blocks(steps: int = 1000, start: float = 1.05) -> Finding:
    """Minimize f(a, b) = |a − b| + ½|a + b| from (start, 0), as two blocks and as one.

    As two blocks the steps are ∓η(1, −1) and never change a + b, so that f ≥ ½|a + b| stays. As one block Theorem 2
    holds with M = ‖(3/2, ½)‖: min f − f* ≤ M(‖x_0‖² + Ση²)/(2Ση).
    """

    def gradient(t: int, a: HostArray, b: HostArray) -> list[HostArray]:
        return [np.sign(a - b) + np.sign(a + b) / 2, -np.sign(a - b) + np.sign(a + b) / 2]

    def lr(t: int) -> float:
        return 0.1 / math.sqrt(t + 1)

    curves: Curves = {}
    for label, blocks in (("two blocks, one a scalar", [[0], [1]]), ("one block", [[0, 1]])):
        x = [np.array([start]), np.array([0.0])]
        a, b = _walk(optim.get("sgd-ng")(x, lr=lr, blocks=blocks), x, gradient, steps).T
        curves[label] = (np.arange(1, steps + 2), np.minimum.accumulate(np.abs(a - b) + np.abs(a + b) / 2))
        if len(blocks) == 2:
            sums = np.abs(a + b)
    two, one = (float(y.min()) for _, y in curves.values())
    rates = np.array([lr(t) for t in range(steps)])
    bound = math.hypot(1.5, 0.5) * (start**2 + np.sum(rates**2)) / (2 * np.sum(rates))
    return Finding(
        "scalar-blocks",
        "With every scalar a block of its own, a convex function that is not smooth keeps the method away from its "
        "minimum.",
        (
            Fact.near(f"|a + b| after {steps} steps, in two blocks", sums[-1], start, steps * 2.0**-52),
            Fact("the smallest f − f* in two blocks", two, start / 2 - steps * 2.0**-52, math.inf),
            Fact("the smallest f − f* as one block", one, -math.inf, float(bound)),
        ),
        curves,
        "step",
        "smallest f(a, b) − f* so far",
        {"½(a₀ + b₀)": start / 2},
        "xy",
    )


@counterexample
def circling(steps: int = 500, lr: float = 0.1, seed: int = 0) -> Finding:
    """Minimize ½‖x‖² with steps of constant length: the distance r from the minimum becomes |r − η| and then repeats.

    From r_0 it ends with r_0 mod η and η − r_0 mod η in turn. The corollary of Theorem 1 keeps a step for 23 steps
    (L = B = μ = 1: η_k = δ_k/(4R_k), R_k = √(2δ_k), ⌈16 ln 4⌉ steps) and each of its stages halves the gap. Raw
    gradient descent with 1/2 multiplies x by 1/2.
    """
    start = np.random.default_rng(seed).standard_normal(8)
    distance = float(np.linalg.norm(start))
    gap, stage = 0.6 * distance**2, math.ceil(16 * math.log(4))  # δ_0 ≥ ½‖x_0‖²

    def staged(t: int) -> float:
        return math.sqrt(gap / 2 ** (t // stage) / 32)  # δ_k/(4√(2δ_k))

    runs: dict[str, Callable[[HostArray], Optimizer]] = {
        "constant": lambda x: optim.get("sgd-ng")([x], lr=lr),
        "smaller": lambda x: optim.get("sgd-ng")([x], lr=lr / 10),
        "staged": lambda x: optim.get("sgd-ng")([x], lr=staged),
        "raw": lambda x: optim.get("sgd")([x], lr=0.5),
    }
    radii = {}
    for label, make in runs.items():
        x = start.copy()
        radii[label] = np.linalg.norm(_walk(make(x), [x], lambda t, x: [x], steps), axis=1)
    slow, small, stages, raw = radii.values()
    expected = _circled(distance, lr, steps)
    nearest = {rate: min(r := math.fmod(distance, rate), rate - r) for rate in (lr, lr / 10)}
    ends = np.arange(0, steps + 1, stage)
    bound = gap / 2.0 ** np.arange(len(ends))
    halved = float((stages[ends] ** 2 / 2 / bound).max())
    rounding = 8 * steps * 2.0**-53 * distance
    return Finding(
        "circling",
        "Steps of constant length circle the minimum at about that length; occasional decay makes them converge.",
        (
            Fact("largest error of ‖x_t‖, predicted as |r − η|", float(np.abs(slow - expected).max()), 0.0, rounding),
            Fact.near("the last two distances, together", slow[-1] + slow[-2], lr, 2 * rounding),
            Fact.near("the smallest distance", slow.min(), nearest[lr], rounding),
            Fact("largest gap at the end of stage k, times 2^k/δ_0", halved, 0.0, 1.0),
            Fact.near("raw descent: ‖x_10‖/‖x_0‖", raw[10] / distance, 2.0**-10, 2.0**-50),
        ),
        {
            f"SGD-NG, lr = {lr:g}": (np.arange(steps + 1), slow**2 / 2),
            f"SGD-NG, lr = {lr / 10:g}": (np.arange(steps + 1), small**2 / 2),
            "SGD-NG, stages of the corollary": (ends, stages[ends] ** 2 / 2),
            "its bound": (ends, bound),
            "SGD, lr = 0.5": (np.arange(12), raw[:12] ** 2 / 2),
        },
        "step",
        "f(x) − f*",
        {f"SGD-NG, lr = {rate:g}": r**2 / 2 for rate, r in nearest.items()},
        "y",
    )


@counterexample
def decay_before(steps: int = 100, lr: float = 0.02, seed: int = 0) -> Finding:
    """Give a block whose data gradient is zero weight decay inside the norm: its step does not depend on λ.

    N(0 + λx) = x/‖x‖ for every λ > 0, so that ‖x_t‖ = ‖x_0‖ − lr·t until it circles zero. Decoupled decay gives
    (1 − lr·λ)^t‖x_0‖.
    """
    start = np.random.default_rng(seed).standard_normal(9)
    start *= 3 / np.linalg.norm(start)
    curves: Curves = {}
    facts = []
    for decay, strengths in (("before", (1e-6, 1.0)), ("decoupled", (1e-6, 0.1, 1.0))):
        for λ in strengths:
            x = start.copy()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that decay before normalization is what is shown here
                opt = optim.get("sgd-ng")([x], lr=lr, weight_decay=λ, decay=decay)
            y = np.linalg.norm(_walk(opt, [x], lambda t, x: [np.zeros_like(x)], steps), axis=1)
            time = np.arange(steps + 1)
            predicted = _circled(3.0, lr, steps) if decay == "before" else 3 * (1 - lr * λ) ** time
            off = float(np.abs(y - predicted).max())
            facts.append(Fact(f"{decay}, λ = {λ:g}: error of ‖x_t‖ as predicted", off, 0.0, 24 * steps * 2.0**-53))
            curves[f"{decay}, λ = {λ:g}"] = (time, y)
    return Finding(
        "decay-before",
        "Weight decay inside the norm moves a block without a data gradient by the whole step, whatever λ is.",
        tuple(facts),
        curves,
        "step",
        "‖x‖ of the block",
    )


# Scales


@counterexample
def adam_scale(factor: int = 256, at: int = 100, steps: int = 600) -> Finding:
    """Multiply the loss of Adam by a constant, then that of one batch only: an outlier.

    The gradient is the same at each step but for the factor c of batch s, so that with β₁ = 0.9, β₂ = 0.999
    m_t = 1 − β₁^t + (c − 1)(1 − β₁)β₁^(t−s), v_t = 1 − β₂^t + (c² − 1)(1 − β₂)β₂^(t−s) times g and g² (t ≥ s), and
    the step is lr·m̂/(√v̂ + ε). AdamNG sees the same unit vectors with the outlier and without.
    """
    g = np.array([0.6, -0.8])
    scales = {"": np.ones(steps), "all": np.full(steps, float(factor)), "one": np.ones(steps)}
    scales["one"][at - 1] = factor

    def lengths(name: str, which: str) -> HostArray:
        x = np.zeros(2)
        path = _walk(optim.get(name)([x], lr=1.0), [x], lambda t, x: [scales[which][t] * g], steps)
        return np.abs(np.diff(path[:, 0]))

    t = np.arange(1, steps + 1)
    since = np.where(t >= at, t - at, math.inf)
    m = 1 - 0.9**t + (factor - 1) * 0.1 * 0.9**since
    v = 1 - 0.999**t + (factor**2 - 1) * 0.001 * 0.999**since
    predicted = 0.6 * m / (1 - 0.9**t) / (np.sqrt(0.36 * v / (1 - 0.999**t)) + 1e-8)
    plain, every, one = (lengths("adam", which) for which in ("", "all", "one"))
    unit, unit_one = (lengths("adam-ng", which) for which in ("", "one"))
    rounding = 64 * steps * 2.0**-53  # v̂ and the position that a step is read from
    lost = float(np.sum(1 - one[at - 1 :]))
    return Finding(
        "adam-scale",
        "Adam cancels a constant factor of the loss, but one outlier batch shortens its steps long afterwards.",
        (
            Fact("all losses × c: largest change of a step", float(np.abs(every - plain).max()), 0.0, 2e-8 / 0.6),
            Fact("one loss × c: error of the steps as predicted", float(np.abs(one / predicted - 1).max()), 0.0, 1e-9),
            Fact.near("the longest step", one.max(), float(predicted.max()), rounding),
            Fact.near("way lost by the end, in steps", lost, float(np.sum(1 - predicted[at - 1 :])), 1e-6),
            Fact("AdamNG, one loss × c: largest change of a step", float(np.abs(unit_one - unit).max()), 0.0, rounding),
        ),
        {
            f"Adam, all losses × {factor}": (t, every),
            f"Adam, the loss of batch {at} × {factor}": (t, one),
            f"AdamNG, the loss of batch {at} × {factor}": (t, unit_one),
        },
        "step",
        "|Δx₁| / lr",
        log="xy",
    )


@counterexample
def half_norm(size: int = 256) -> Finding:
    """Divide a float16 gradient by √Σg² computed in float16; the entries are all 2^k.

    2^(2k) is below half of float16's smallest number, 2⁻²⁴, or a tie with it, for k ≤ −13, so that the norm is 0. The
    sum d·2^(2k) is infinite where it reaches 2¹⁶. Between them the quotient is exact. Of the 40 powers of two that
    float16 has, d = 256 leaves 16.
    """
    exponents = np.arange(-24, 16)
    lengths: dict[str, list[float]] = {"norm in float16": [], "normalize_blocks": []}
    for k in exponents:
        g = np.full(size, np.ldexp(1.0, k), np.float16)
        with np.errstate(all="ignore"):
            norm = np.sqrt(np.sum(g * g, dtype=np.float16))
            naive = g / norm if norm > 0 else np.zeros_like(g)
        for label, u in zip(lengths, (naive, optim.normalize_blocks([g])[0]), strict=True):
            lengths[label].append(float(np.linalg.norm(u.astype(np.float64))))
    good = {label: int(np.sum(np.abs(np.array(y) - 1) < 0.01)) for label, y in lengths.items()}
    survive = int(np.sum((exponents >= -12) & (size * 4.0**exponents < 2**16)))
    error = (4 + math.sqrt(size)) * 2.0**-11 + math.sqrt(size) * 2.0**-24
    worst = float(np.abs(np.array(lengths["normalize_blocks"]) - 1).max())
    return Finding(
        "half-norm",
        "A norm computed in float16 is 0 or infinite for most scales of the gradient, and the step is lost.",
        (
            Fact.near("scales, of 40, with the norm in float16 right", good["norm in float16"], survive, 0.0),
            Fact.near("scales, of 40, that normalize_blocks gets right", good["normalize_blocks"], 40, 0.0),
            Fact("its largest error of ‖u‖", worst, 0.0, error),
            Fact.near("ε = 10⁻⁸ in float16", float(np.float16(1e-8)), 0.0, 0.0),
        ),
        {label: (np.ldexp(1.0, exponents), np.array(y)) for label, y in lengths.items()},
        f"entry of g ({size} of them, float16)",
        "‖u‖",
        log="x",
    )
