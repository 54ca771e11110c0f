"""The identity, certificates A and B, and Theorems 1 to 3 of the convex case, computed from the record of a run.

A certificate looks at a `Run`: points, gradients as they were returned, rates. It checks its hypotheses one by one,
works out at every step what the theorem bounds and the bound, and says "holds", "violated" or, where a hypothesis is
not met, "not applicable". It certifies what its inequality says and no more. The statements and their proofs are on the
page on theory; everything here is measured in extended precision.

Rounding: the subject computes x_{t+1} = x_t − η_t·N(g_t) + ε_t. What a block's ‖ε_t^i‖ can be is worked out in
`Run.error`, and every tolerance below is what such errors, and the roundings of the gradient (υ an entry), can make of
the inequality: they are put into its proof in place of 0.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from minibng.backend import HostArray
from minibng.verify import bounds
from minibng.verify.problems import Problem, generator
from minibng.verify.strategies import Dice


class Rule(NamedTuple):
    """What an optimizer is said to be: "sgd", "adagrad" or "other", behind NG; adaptive NG's floor; AdaGrad's ε."""

    kind: str = "sgd"
    floor: float | None = None
    eps: float = 0.0

    def __str__(self) -> str:
        names = {"sgd": "SGD", "adagrad": "AdaGrad"}
        if self.kind not in names:
            return "a rule without a theorem here"
        return f"{names[self.kind]} behind {'NG' if self.floor is None else 'adaptive NG'}"


SGD = Rule()


@dataclass(frozen=True, eq=False)
class Run:
    """The record of T steps of an optimizer on a problem.

    Parameters
    ----------
    problem
        What it was run on.
    points
        x_0 … x_T as vectors, (T + 1, d), in the dtype of the problem.
    gradients
        What the optimizer was given at x_0 … x_{T−1}, (T, d).
    rates
        η_0 … η_{T−1}, (T,).
    rule
        What the optimizer is said to be.
    """

    problem: Problem
    points: HostArray
    gradients: HostArray
    rates: HostArray
    rule: Rule = SGD

    @cached_property
    def members(self) -> HostArray:
        """1 where an entry belongs to a block, (d, B)."""
        return self.problem.members()

    def lengths(self, vectors: HostArray) -> HostArray:
        """Return the norm of every block of vectors (…, d), (…, B)."""
        v = np.asarray(vectors, dtype=np.longdouble)
        return np.asarray(np.sqrt(v * v @ self.members))

    @cached_property
    def errors(self) -> HostArray:
        """e_t = x_t − x*, (T + 1, d)."""
        return self.problem.error(self.points)

    @cached_property
    def distances(self) -> HostArray:
        """D_t^i, (T + 1, B)."""
        return self.lengths(self.errors)

    @cached_property
    def norms(self) -> HostArray:
        """n_t^i = ‖∇_i f(x_t)‖, (T, B)."""
        return self.lengths(self.gradients)

    @cached_property
    def directions(self) -> HostArray:
        """N(g_t), worked out here and not by the subject, (T, d)."""
        norms = self.norms @ self.members.T
        return np.asarray(np.divide(self.gradients, norms, where=norms > 0, out=np.zeros_like(norms)))

    @cached_property
    def inner(self) -> HostArray:
        """⟨N(g_t)^i, x_t^i − x*^i⟩, (T, B)."""
        return np.asarray(self.directions * self.errors[:-1] @ self.members)

    @cached_property
    def gaps(self) -> HostArray:
        """δ_t = f(x_t) − f(x*), (T + 1,)."""
        return self.problem.objective.gap(self.errors)

    @cached_property
    def noise(self) -> HostArray:
        """What extended precision may have added to δ_t, (T + 1,)."""
        return self.problem.objective.noise(self.errors)

    @cached_property
    def steps(self) -> HostArray:
        """η_t^i: the rate, for adaptive NG times max(‖x_t^i‖, floor·√d_i), (T, B)."""
        rates = np.broadcast_to(self.rates[:, None].astype(np.longdouble), self.norms.shape)
        if self.rule.floor is None:
            return rates
        floor = self.rule.floor * np.sqrt(self.members.sum(axis=0))
        return np.asarray(rates * np.maximum(self.lengths(self.points[:-1]), floor))

    @property
    def roundoff(self) -> float:
        """υ of the problem's dtype."""
        return bounds.roundoff(self.problem.dtype)

    @cached_property
    def error(self) -> HostArray:
        """How long ε_t^i can be, (T, B): υ‖x_{t+1}^i‖ + κυη_t^i + √d_i·s, κ = 8 + √d_i, or 16 + 2√d_i for adaptive NG.

        x_{t+1} is rounded to its own spacing. The step η_t^i·N(g)^i errs by 4 + √d_i roundings of N (I1) and four of
        the rate, of the product with it, and of a rate of the subject's own; for adaptive NG there is a second norm.
        """
        sizes = self.members.sum(axis=0)
        κ = (8 + np.sqrt(np.minimum(sizes, bounds.PIECE))) * (1 if self.rule.floor is None else 2)
        tiny = np.sqrt(sizes) * bounds.subnormal(self.problem.dtype)
        return np.asarray(self.roundoff * (self.lengths(self.points[1:]) + κ * self.steps) + tiny)

    @cached_property
    def tolerance(self) -> HostArray:
        """How far ε_t^i carries the identity, (T, B): 2(D_t^i + η_t^i)·‖ε_t^i‖ + ‖ε_t^i‖².

        D_{t+1}² = ‖e − ηu + ε‖², and e − ηu is at most D_t + η long. Measuring adds 2(8 + d_i)·υ·((D_t^i)² + η²), υ
        that of extended precision.
        """
        D, η = self.distances[:-1], self.steps
        measuring = (8 + self.members.sum(axis=0)) * np.finfo(np.longdouble).eps * (D**2 + η**2)
        return np.asarray(2 * (D + η) * self.error + self.error**2 + measuring)

    @cached_property
    def strayed(self) -> HostArray:
        """How far the gradients lie from those in extended precision, entry by entry, (T, d)."""
        return np.asarray(np.abs(self.gradients - self.problem.objective.slope(self.errors[:-1])))

    @cached_property
    def turned(self) -> HostArray:
        """How far that may carry ⟨∇f(x_t), e_t⟩, with what extended precision may have added to δ_t, (T,)."""
        return np.asarray((self.strayed * np.abs(self.errors[:-1])).sum(axis=1) + self.noise[:-1])

    @cached_property
    def risen(self) -> HostArray:
        """How far ε_t may carry f(x_{t+1}) above certificate B's bound, for an L-smooth f, (T,)."""
        L, b = self.problem.L or 0.0, (self.norms > 0).sum(axis=1)
        ε, η = np.sqrt((self.error**2).sum(axis=1)), self.rates
        first = η * self.lengths(self.strayed).sum(axis=1) + (self.norms * self.error).sum(axis=1)
        far = η / np.maximum(self.distances[:-1].max(axis=1), np.finfo(np.float64).tiny) * self.turned
        return np.asarray(first + far + L * (np.sqrt(b) * η * ε + ε**2 / 2) + self.noise[1:] + self.noise[:-1])

    @property
    def constant(self) -> bool:
        """Whether all steps have one rate."""
        return bool((self.rates == self.rates[0]).all())


class Hypothesis(NamedTuple):
    """One thing that a theorem assumes, whether it is met, and what was found."""

    statement: str
    holds: bool
    found: str = ""

    def __str__(self) -> str:
        return f"{self.statement}: {'met' if self.holds else 'not met'}" + (f" ({self.found})" if self.found else "")


class Series(NamedTuple):
    """Something that is bounded, at steps (K,): measured, bound and tolerance, (K,) or (K, B).

    ``at_end``: the bound is one on the gap at, or up to, each step T, of a run that ends there.
    """

    what: str
    steps: HostArray
    measured: HostArray
    bound: HostArray
    tolerance: HostArray
    at_end: bool = False

    def broken(self) -> HostArray:
        """Tell where the measured is not within the bound, (K,); NaN is not."""
        outside = ~(self.measured <= self.bound + self.tolerance)
        return np.asarray(outside.reshape(len(self.steps), -1).any(axis=1))

    def told(self, k: int) -> str:
        """Tell the measurement in place k in words, in its worst block."""
        measured, bound, tolerance = (np.atleast_1d(v[k]) for v in self[2:5])
        i = int(np.argmax(~(measured <= bound + tolerance)))
        block = f", block {i}" if len(measured) > 1 else ""
        rounding = f" and {float(tolerance[i]):.3g} for rounding"
        found = f"{float(measured[i]):.10g}, allowed {float(bound[i]):.10g}{rounding}"
        return f"at step {self.steps[k]}{block}: {self.what} is {found}"


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a certificate says of a run."""

    certificate: Certificate
    hypotheses: tuple[Hypothesis, ...]
    series: tuple[Series, ...] = ()

    @property
    def verdict(self) -> str:
        """One of "holds", "violated" and "not applicable"."""
        if not all(h.holds for h in self.hypotheses):
            return "not applicable"
        return "violated" if any(s.broken().any() for s in self.series) else "holds"

    @property
    def unmet(self) -> tuple[str, ...]:
        """The hypotheses that are not met, in words."""
        return tuple(h.statement for h in self.hypotheses if not h.holds)

    def first(self) -> tuple[Series, int] | None:
        """Return the first measurement that is not within its bound, or None."""
        broken = [(s, np.flatnonzero(s.broken())) for s in self.series]
        places = [(s, int(k[0])) for s, k in broken if k.size]
        return min(places, key=lambda place: place[0].steps[place[1]], default=None)

    def __str__(self) -> str:
        head = f"{self.certificate.title} {self.verdict}"
        if self.verdict == "not applicable":
            return head + ": " + "; ".join(str(h) for h in self.hypotheses if not h.holds)
        if (first := self.first()) is not None:
            return f"{head} {first[0].told(first[1])}"
        n = len(self.series[0].steps)
        return f"{head} at {n:,} step{'s' * (n > 1)}"


Assumes: TypeAlias = Callable[[Run], Iterator[Hypothesis]]
Measure: TypeAlias = Callable[[Run], Sequence[Series]]
Rates: TypeAlias = Callable[[Dice, Problem, HostArray], Sequence[float]]


@dataclass(frozen=True)
class Certificate:
    """A theorem as an object.

    Parameters
    ----------
    name, title
        "certificate-a", and what it is called in a sentence.
    statement, formula
        What it says, in words on one line, and as a formula.
    source
        Where its proof is.
    assumes
        ``assumes(run)`` → its hypotheses, each checked.
    measure
        ``measure(run)`` → what it bounds, with the bounds, for a run that meets them.
    rules
        The kinds of rule that it is about.
    problems
        What `random_problem` is to draw for it.
    rates
        ``rates(dice, problem, start)`` → rates that meet its hypotheses.
    """

    name: str
    title: str
    statement: str
    formula: str
    source: str
    assumes: Assumes
    measure: Measure
    rules: tuple[str, ...]
    problems: dict[str, Any]
    rates: Rates

    def check(self, run: Run) -> Outcome:
        """Return the hypotheses, and where all of them are met, what was measured."""
        with np.errstate(all="ignore"):
            assumed = tuple(self.assumes(run))
            met = all(h.holds for h in assumed)
            return Outcome(self, assumed, tuple(self.measure(run)) if met else ())


CERTIFICATES: dict[str, Certificate] = {}
"""Name → certificate, in the order of the page on theory."""


def _certificate(
    title: str, formula: str, assumes: Assumes, rates: Rates, *rules: str, **problems: Any
) -> Callable[[Measure], Measure]:
    """Enter a function into `CERTIFICATES` under its own name, with its first line as the statement."""

    def enter(measure: Measure) -> Measure:
        name = measure.__name__.replace("_", "-")
        statement = (inspect.getdoc(measure) or "").partition("\n")[0]
        CERTIFICATES[name] = Certificate(
            name, title, statement, formula, "docs/theory.md", assumes, measure, rules or ("sgd",), problems, rates
        )
        return measure

    return enter


# Rates that the hypotheses ask for


def _any_rates(dice: Dice, problem: Problem, start: HostArray) -> Sequence[float]:
    """Return up to 32 rates: constant, ∝ 1/√(t + 1), halved now and then, or drawn one by one."""
    first, steps = _first_rate(dice, problem, start), 1 + dice.number(32)
    kind, t = dice.number(4), np.arange(steps)
    if kind == 3:
        return [float(v) for v in first * generator(dice).uniform(0.1, 1, steps)]
    return [float(v) for v in first * (np.ones(steps), 1 / np.sqrt(t + 1), 0.5 ** (t // 8))[kind]]


def _constant_rate(dice: Dice, problem: Problem, start: HostArray) -> Sequence[float]:
    return [_first_rate(dice, problem, start)] * (1 + dice.number(60))


def _first_rate(dice: Dice, problem: Problem, start: HostArray) -> float:
    """Return the distance to the minimizer times a power of two below 1."""
    far = float(np.sqrt((problem.error(start) ** 2).sum()))
    return (far or 1.0) * 0.5 ** (1 + dice.number(6))


def _small_rate(dice: Dice, problem: Problem, start: HostArray) -> Sequence[float]:
    """Return a constant rate with LBRη = cδ_0, and as many steps as Theorem 1 asks for, or a few more."""
    gap = float(problem.objective.gap(problem.error(start)))
    if (radius := problem.radius(gap)) is None or problem.L is None or not gap > 0:
        return _constant_rate(dice, problem, start)
    c = dice.pick((0.5, 0.75, 0.25))
    rate = c * gap / (problem.L * len(problem.blocks) * radius)
    return [rate] * (math.ceil(2 * radius / rate * math.log(1 / c)) + 1 + dice.number(8))


def _staged_rates(dice: Dice, problem: Problem, start: HostArray) -> Sequence[float]:
    gap = float(problem.objective.gap(problem.error(start)))
    plan = stages(problem, gap, 1 + dice.number(2))
    return [s.rate for s in plan for _ in range(s.steps)] or _constant_rate(dice, problem, start)


class Stage(NamedTuple):
    """One stage of the corollary: it starts with δ ≤ gap, and ends with δ ≤ gap/2."""

    gap: float
    rate: float
    steps: int


def stages(problem: Problem, gap: float, count: int) -> list[Stage]:
    """Return the corollary's constant steps with occasional decay: η_k = δ_k/(4LBR_k) for ⌈(8LBR_k²/δ_k) ln 4⌉ steps.

    Parameters
    ----------
    problem
        Smooth, and with a known radius of its level sets: otherwise there are no stages.
    gap
        δ_0, or a number above it.
    count
        How many stages, each of which halves δ.

    Examples
    --------
    >>> from minibng.verify.problems import least_squares
    >>> [stage.steps for stage in stages(least_squares(np.eye(2), [1.0, 2.0]), 1.0, 3)]
    [23, 23, 23]
    """
    found = []
    for k in range(count):
        here = gap / 2**k
        radius = problem.radius(here)
        if problem.L is None or radius is None or not radius:
            return []
        LB = problem.L * len(problem.blocks)
        found.append(Stage(here, here / (4 * LB * radius), math.ceil(8 * LB * radius**2 / here * math.log(4))))
    return found


# Hypotheses


def _sgd(run: Run) -> Iterator[Hypothesis]:
    yield Hypothesis("the rule is SGD behind NG, or adaptive NG", run.rule.kind == "sgd", str(run.rule))


def _plain(run: Run) -> Iterator[Hypothesis]:
    plain = run.rule.kind == "sgd" and run.rule.floor is None
    yield Hypothesis("the rule is SGD behind NG", plain, "" if plain else str(run.rule))


def _lowest(run: Run) -> Iterator[Hypothesis]:
    below = run.gaps < -run.noise
    found = f"δ = {float(np.nanmin(run.gaps)):.4g} at step {np.nanargmin(run.gaps)}" if below.any() else ""
    yield Hypothesis("x* is a minimizer: δ_t ≥ 0", not below.any(), found)


def _smooth(run: Run) -> Iterator[Hypothesis]:
    yield from _plain(run)
    L = run.problem.L
    yield Hypothesis("f is L-smooth", L is not None, "" if L is None else f"L = {L:.4g}")


def _level(run: Run) -> Iterator[Hypothesis]:
    yield from _smooth(run)
    yield from _lowest(run)
    radius = run.problem.radius(float(run.gaps[0]))
    found = "none is known" if radius is None else f"R = {radius:.4g}"
    yield Hypothesis("level sets have a radius R", radius is not None, found)


def _theorem_1(run: Run) -> Iterator[Hypothesis]:
    yield from (level := list(_level(run)))
    yield Hypothesis("the rate is constant", run.constant)
    if not all(h.holds for h in level):
        return
    small, needed = _small(run)
    yield Hypothesis("LBRη < δ_0", small < run.gaps[0], f"{small:.4g} and {float(run.gaps[0]):.4g}")
    if small < run.gaps[0]:
        yield Hypothesis("T ≥ (2R/η) ln(δ_0/(LBRη))", len(run.rates) >= needed, f"{len(run.rates)} and {needed}")


def _small(run: Run) -> tuple[float, int]:
    """Return LBRη, and the number of steps until δ is below it."""
    gap, rate = float(run.gaps[0]), float(run.rates[0])
    radius = run.problem.radius(gap) or math.nan
    small = (run.problem.L or math.nan) * len(run.problem.blocks) * radius * rate
    return small, math.ceil(2 * radius / rate * math.log(gap / small)) if small < gap else 0


def _corollary(run: Run) -> Iterator[Hypothesis]:
    yield from (level := list(_level(run)))
    if all(h.holds for h in level):
        count = len(_finished(run))
        yield Hypothesis("the rates are those of at least one stage", count > 0, f"{count} stages")


def _finished(run: Run) -> list[tuple[int, Stage]]:
    """Return the stages that the rates went through, each with the step at which it ended."""
    found: list[tuple[int, Stage]] = []
    end = 0
    for stage in stages(run.problem, float(run.gaps[0]), 64) if run.gaps[0] > 0 else []:
        start, end = end, end + stage.steps
        if end > len(run.rates) or not np.allclose(run.rates[start:end], stage.rate, rtol=1e-9, atol=0):
            break
        found.append((end, stage))
    return found


def _apart(run: Run) -> Iterator[Hypothesis]:
    yield from _plain(run)
    yield from _lowest(run)
    yield Hypothesis("there is one block, or f is a sum over the blocks", run.problem.separable)


def _adagrad(run: Run) -> Iterator[Hypothesis]:
    plain = run.rule.kind == "adagrad" and run.rule.floor is None
    yield Hypothesis("the rule is AdaGrad behind NG", plain, "" if plain else str(run.rule))
    yield from _lowest(run)
    yield Hypothesis("the rate is constant", run.constant)


# The certificates. The first line of each is its statement.

SMOOTH = ("squares", "huber", "logistic")


@_certificate("the identity", "2η_t⟨g_t^i, x_t^i − x*^i⟩ = (D_t^i)² − (D_{t+1}^i)² + η_t²‖g_t^i‖²", _sgd, _any_rates)
def identity(run: Run) -> Sequence[Series]:
    """At every step and in every block, what the step brings the block nearer to x* is what its direction says."""
    D, η = run.distances, run.steps
    right = D[:-1] ** 2 - D[1:] ** 2 + η**2 * (run.norms > 0)
    off = np.abs(2 * η * run.inner - right)
    what = "the difference of the two sides of the identity"
    return [Series(what, np.arange(len(η)), off, np.zeros_like(off), run.tolerance)]


@_certificate("certificate A", "δ_t ≤ Σ_i n_t^i [(D_t^i)² − (D_{t+1}^i)² + η_t²]/(2η_t)", _sgd, _any_rates)
def certificate_a(run: Run) -> Sequence[Series]:
    """At every step the gap is at most what the step gains in distance, blocks weighted with their gradients' norms."""
    D, η, n = run.distances, run.steps, run.norms
    used = np.divide(n, 2 * η, where=η > 0, out=np.zeros_like(D[1:]))
    bound = (used * (D[:-1] ** 2 - D[1:] ** 2 + η**2)).sum(axis=1)
    tolerance = (used * run.tolerance).sum(axis=1) + run.turned
    return [Series("f(x_t) − f*", np.arange(len(η)), run.gaps[:-1], bound, tolerance)]


@_certificate(
    "certificate B",
    "δ_{t+1} ≤ δ_t − η_t S_t + L b_t η_t²/2 ≤ (1 − η_t/D_t) δ_t + L b_t η_t²/2",
    _smooth,
    _any_rates,
    losses=SMOOTH,
)
def certificate_b(run: Run) -> Sequence[Series]:
    """For an L-smooth f a step lowers f by η times the sum of the blocks' norms, up to L·b·η²/2 for b blocks."""
    δ, η, D = run.gaps, run.rates, run.distances[:-1].max(axis=1)
    more = (run.problem.L or 0.0) * (run.norms > 0).sum(axis=1) * η**2 / 2
    S = run.norms.sum(axis=1)
    shrunk = np.where(D > 0, 1 - np.divide(η, D, where=D > 0, out=np.zeros_like(D)), 1) * δ[:-1]
    bound = np.minimum(δ[:-1] - η * S, shrunk) + more
    return [Series("f(x_{t+1}) − f*", np.arange(len(η)), δ[1:], bound, run.risen)]


@_certificate(
    "Theorem 1",
    "min_{t ≤ T} δ_t ≤ LBRη for T ≥ (2R/η) ln(δ_0/(LBRη)); from then on δ_t ≤ LBη(R + η/2)",
    _theorem_1,
    _small_rate,
    losses=SMOOTH,
    conditioned=True,
)
def theorem_1(run: Run) -> Sequence[Series]:
    """With a constant rate η the gap falls to LBRη within so many steps, and stays close to that."""
    δ, steps = run.gaps, np.arange(len(run.gaps))
    small, needed = _small(run)
    lowest = np.minimum.accumulate(δ)
    drift = np.concatenate([[0], np.cumsum(run.risen)])
    found = [_level_line("the least f(x_t) − f*", steps[needed:], lowest, small, drift)]
    last = small + (run.problem.L or 0.0) * len(run.problem.blocks) * float(run.rates[0]) ** 2 / 2
    if last <= δ[0] and (below := np.flatnonzero(δ <= small)).size:
        found.append(_level_line("f(x_t) − f*", steps[below[0] :], δ, last, drift))
    return found


def _level_line(what: str, at: HostArray, measured: HostArray, bound: float, tolerance: HostArray) -> Series:
    return Series(what, at, measured[at], np.full(len(at), bound, dtype=np.longdouble), tolerance[at], at_end=True)


@_certificate(
    "the corollary",
    "η_k = δ_k/(4LBR_k) for ⌈(8LBR_k²/δ_k) ln 4⌉ steps: δ ≤ δ_k ⇒ δ ≤ δ_k/2",
    _corollary,
    _staged_rates,
    losses=SMOOTH,
    conditioned=True,
    most=2,
)
def corollary(run: Run) -> Sequence[Series]:
    """With a constant rate and occasional decay the gap is halved in every stage."""
    ends, planned = zip(*_finished(run), strict=True)
    at, drift = np.array(ends), np.cumsum(run.risen)
    bound = np.array([stage.gap / 2 for stage in planned], dtype=np.longdouble)
    return [Series("f(x_t) − f* at the end of a stage", at, run.gaps[at], bound, drift[at - 1], True)]


@_certificate(
    "Theorem 2",
    "min_{t<T} δ_t and f(x̄) − f* are at most Σ_i M_i ((D_0^i)² + Σ η_t²)/(2 Σ η_t)",
    _apart,
    _any_rates,
    separable=True,
)
def theorem_2(run: Run) -> Sequence[Series]:
    """With one block, or separate ones, smooth or not, the best point and the average one are within the bound.

    M_i is the largest n_t^i up to step T, x̄ the average of x_0 … x_{T−1} with weights η_t.
    """
    η, δ, M = run.rates.astype(np.longdouble), run.gaps, np.maximum.accumulate(run.norms, axis=0)
    total, squares = np.cumsum(η), np.cumsum(η**2)
    bound = (M * (run.distances[0] ** 2 + squares[:, None])).sum(axis=1) / (2 * total)
    mean = np.cumsum(η[:, None] * run.errors[:-1], axis=0) / total[:, None]
    rounded = (M * np.cumsum(run.tolerance, axis=0)).sum(axis=1) / (2 * total) + np.cumsum(η * run.turned) / total
    rounded += 4 * run.roundoff * bound
    objective, T = run.problem.objective, np.arange(1, len(η) + 1)
    lowest = np.minimum.accumulate(δ[:-1])
    return [
        Series("the least f(x_t) − f*", T, lowest, bound, rounded, True),
        Series("f(x̄) − f*", T, objective.gap(mean), bound, rounded + objective.noise(mean)),
    ]


@_certificate(
    "Theorem 3",
    "Σ_t ⟨g_t^i, x_t^i − x*^i⟩ ≤ (D∞²/(2η) + η) Σ_j v_{T,j}; Σ_t δ_t/ν_t ≤ Σ_i ((1 + V^i) D∞²/(2η) + η) √(d_i T)",
    _adagrad,
    _constant_rate,
    "adagrad",
)
def theorem_3(run: Run) -> Sequence[Series]:
    """Behind AdaGrad the normalized gradients' regret grows as the root of the number of steps.

    (a) for every block; (b) for one block or separate ones, min_t δ_t ≤ Σ_i M_i √d_i (D∞²/(2η) + η)/√T, M_i as in
    Theorem 2; (c) for any convex f while no x_t is a minimizer. An ε beside the root adds ε·d_i·D∞²/(2η) to a block of
    (a), M_i/T times that to (b), and 1 + V^i times that to (c).
    """
    η, eps, sizes, M = run.rates[0], run.rule.eps, run.members.sum(axis=0), np.maximum.accumulate(run.norms, axis=0)
    T = np.arange(1, len(run.rates) + 1)
    v = np.sqrt(np.cumsum(run.directions**2, axis=0))
    half = np.maximum.accumulate(np.abs(run.errors).max(axis=1))[1:, None] ** 2 / (2 * η)  # D∞²/(2η), (T, 1)
    rounded = _adagrad_rounding(run, v)
    regret = np.cumsum(run.inner, axis=0)
    found = [Series("(a) the regret", T, regret, (half + η) * (v @ run.members) + half * eps * sizes, rounded)]
    roots = np.sqrt(sizes * T[:, None])
    if run.problem.separable:
        bound = (M * ((half + η) * roots + half * eps * sizes)).sum(axis=1) / T
        slack = (M * rounded).sum(axis=1) / T + np.cumsum(run.turned) / T
        found.append(Series("(b) the least f(x_t) − f*", T, np.minimum.accumulate(run.gaps[:-1]), bound, slack, True))
    ν = run.norms.max(axis=1)
    K = int(np.argmin(ν > 0)) if (ν == 0).any() else len(ν)
    if K:
        p = run.norms[:K] / ν[:K, None]
        V = np.cumsum(np.maximum(np.diff(p, axis=0, prepend=p[:1]), 0), axis=0)
        bound = (((1 + V) * half[:K] + η) * roots[:K] + (1 + V) * half[:K] * eps * sizes).sum(axis=1)
        slack = rounded[:K].sum(axis=1) + np.cumsum(run.turned[:K] / ν[:K])
        found.append(Series("(c) the sum of (f(x_t) − f*)/ν_t", T[:K], np.cumsum(run.gaps[:K] / ν[:K]), bound, slack))
    return found


def _adagrad_rounding(run: Run, v: HostArray) -> HostArray:
    """Return how far the roundings of the first T steps carry (a), (T, B).

    A coordinate's step τ_t·g_t errs by (16 + √d + t)υ, t of it from the sum of squares in v_t, and x_{t+1} by
    υ|x_{t+1}|. Together they are |ε|; they change (x_{t+1} − x*)²/(2τ_t) by (|e_t| + τ_t|g_t| + |ε|/2)·|ε|/τ_t, with
    1/τ_t = v_t/η and τ_t|g_t| ≤ η.
    """
    η, roots = run.rates[0], np.sqrt(np.minimum(run.members.sum(axis=0), bounds.PIECE))
    κ = 16 + (run.members @ roots)[None, :] + np.arange(1, len(run.rates) + 1)[:, None]
    size = np.divide(η * np.abs(run.directions), v, where=v > 0, out=np.zeros_like(v))
    ε = run.roundoff * (np.abs(run.points[1:]) + κ * size) + bounds.subnormal(run.problem.dtype)
    return np.asarray(np.cumsum(((np.abs(run.errors[:-1]) + η + ε / 2) * ε * v / η) @ run.members, axis=0))


def slope(run: Run) -> float:
    """Return the observed rate: the slope of log min_{s ≤ t} δ_s against log t over the last nine tenths of the steps.

    −1/2 is what theorems without smoothness promise. Not a number where the gap vanishes, or there are under ten steps.
    """
    lowest = np.minimum.accumulate(run.gaps[1:])
    t = np.arange(1, len(lowest) + 1)
    kept = t >= len(lowest) / 10
    if len(lowest) < 10 or not lowest[-1] > 0:
        return math.nan
    x, y = np.log(t[kept]), np.log(lowest[kept].astype(np.float64))
    return float(np.sum((x - x.mean()) * (y - y.mean())) / np.sum((x - x.mean()) ** 2))
