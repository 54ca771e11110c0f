"""The laws of block normalization: what must hold for every gradient, each law a few lines.

g = (g^1, …, g^B) is a gradient in blocks, block i with d entries; N is the normalizer, N(g)^i = g^i/‖g^i‖₂; u is
the direction of an update x ← x − lr·u. The first direction of SGD and heavy ball behind NG is N(g) itself, so that
the laws of N are tried on optimizers too. A law's first line says it in words, its check measures, and a bound from
`bounds` says how far rounding alone may go. Where there is no bound, "equal" means bit for bit, but for the sign of
a zero.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minibng.backend import HostArray, to_host
from minibng.verify import bounds, strategies
from minibng.verify.example import Gradient, Violation, Walk, at_most, identical
from minibng.verify.strategies import Dice, Example
from minibng.verify.target import Target

PAPER = "arXiv:1707.04822, eq. 1"
DERIVED = "derived"


@dataclass(frozen=True)
class Law:
    """One law.

    Parameters
    ----------
    name
        Its name, such as "unit-norm".
    number
        Its number in the documentation, such as "I1"; laws that are parts of one have the same.
    statement
        What it says, in words, on one line.
    formula
        What it says, as a formula.
    source
        The paper and equation that it is taken from, or "derived".
    check
        ``check(target, *example)`` raises `Violation` where the law does not hold.
    examples
        ``examples(dice, target)`` → the arguments of ``check`` after the target.
    tolerance
        The bound that rounding is given, a function of `bounds`; None where equality is bit for bit.
    steps
        Whether it needs an optimizer that takes steps; if not, a bare normalizer will do.
    """

    name: str
    number: str
    statement: str
    formula: str
    source: str
    check: Callable[..., None]
    examples: Callable[[Dice, Target], Example]
    tolerance: Callable[..., Any] | None
    steps: bool

    def arguments(self) -> tuple[str, ...]:
        """Return the names of an example's parts."""
        return tuple(inspect.signature(self.check).parameters)[1:]


LAWS: dict[str, Law] = {}
"""Name → law, in the order of their numbers."""


def law(
    number: str,
    formula: str,
    source: str,
    examples: Callable[[Dice, Target], Example],
    tolerance: Callable[..., Any] | None = None,
    *,
    steps: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Enter a check into `LAWS` under its own name, with its first line as the statement."""

    def enter(check: Callable[..., None]) -> Callable[..., None]:
        name = check.__name__.replace("_", "-")
        statement = (inspect.getdoc(check) or "").partition("\n")[0]
        LAWS[name] = Law(name, number, statement, formula, source, check, examples, tolerance, steps)
        return check

    return enter


# I1 to I8: the normalizer


@law("I1", "g^i ≠ 0 ⇒ ‖N(g)^i‖₂ = 1", PAPER, strategies.gradients, bounds.unit)
def unit_norm(target: Target, gradient: Gradient) -> None:
    """Blocks that are not zero have a direction of length 1, blocks of one entry exactly ±1."""
    for i, g, u in _nonzero(gradient, target.directions(gradient)):
        at_most(abs(length(u) - 1), bounds.unit(g.dtype, g.size), f"| ‖N(g)^{i}‖ − 1 |", g=g, N=u)


@law("I1", "|g| < ∞ ⇒ |N(g)| < ∞", DERIVED, strategies.gradients)
def finite(target: Target, gradient: Gradient) -> None:
    """Finite gradients, from the smallest subnormal number to the largest finite one, have finite directions."""
    for i, (g, u) in enumerate(zip(gradient.vectors(), target.directions(gradient), strict=True)):
        at_most(float((~np.isfinite(u)).sum()), 0, f"the number of entries of u^{i} that are not finite", g=g, u=u)


@law("I2", "N(c∘g) = N(g), c^i > 0", DERIVED, strategies.factors, bounds.scaled)
def scale_invariance(target: Target, gradient: Gradient, factors: tuple[float, ...]) -> None:
    """Multiplying each block of the gradient by a positive number of its own does not change the direction."""
    scaled = gradient.with_vectors([g * np.longdouble(c) for g, c in zip(gradient.vectors(), factors, strict=True)])
    pair = zip(target.directions(gradient), target.directions(scaled), strict=True)
    for i, (u, v) in enumerate(pair):
        g = scaled.vectors()[i]
        if not _subnormal(g):
            _close(v, u, bounds.scaled(u.dtype, u), f"N(c∘g)^{i} and N(g)^{i}", g=gradient.vectors()[i])


@law("I2", "N(2^k∘g) = N(g)", DERIVED, strategies.powers_of_two)
def power_of_two_invariance(target: Target, gradient: Gradient, exponents: tuple[int, ...]) -> None:
    """Multiplying blocks by powers of two, where that is exact, does not change one bit of the direction."""
    pair = zip(target.directions(gradient), target.directions(gradient.shifted(exponents)), strict=True)
    for i, (u, v) in enumerate(pair):
        if not _subnormal(u):
            identical(v, u, f"N(2^{exponents[i]}·g)^{i} = N(g)^{i}", g=gradient.vectors()[i])


@law("I3", "⟨N(g), g⟩ = Σᵢ ‖g^i‖₂", DERIVED, strategies.gradients, bounds.inner)
def inner_product(target: Target, gradient: Gradient) -> None:
    """Along the direction the loss falls at the rate Σ‖g^i‖, every block adding its norm."""
    for i, g, u in _nonzero(gradient, target.directions(gradient)):
        h = _rescaled(g)
        error = abs(np.dot(u.astype(np.longdouble), h) / length(h) - 1)
        at_most(error, bounds.inner(g.dtype, g.size), f"| ⟨N(g)^{i}, g^{i}⟩/‖g^{i}‖ − 1 |", g=g, N=u)


@law("I3", "cos(u^i, g^i) = 1", DERIVED, strategies.gradients, bounds.chord)
def same_direction(target: Target, gradient: Gradient) -> None:
    """Each block's direction and its gradient have cosine 1."""
    for i, g, u in _nonzero(gradient, target.directions(gradient)):
        chord = length(_straight(u) - _straight(g))
        at_most(
            chord,
            bounds.chord(g.dtype, g.size),
            f"√(2 − 2 cos), cos the cosine of u^{i} and g^{i},",
            g=g,
            u=u,
        )


@law("I4", "N(−g) = −N(g)", DERIVED, strategies.gradients)
def sign_symmetry(target: Target, gradient: Gradient) -> None:
    """Opposite gradients have opposite directions."""
    opposite = gradient.with_vectors([-g for g in gradient.vectors()])
    pair = zip(target.directions(gradient), target.directions(opposite), strict=True)
    for i, (u, v) in enumerate(pair):
        identical(v, -u, f"u(−g)^{i} = −u(g)^{i}", g=gradient.vectors()[i])


@law("I5", "N(N(g)) = N(g)", DERIVED, strategies.gradients, bounds.twice)
def idempotence(target: Target, gradient: Gradient) -> None:
    """Directions are normalized already: normalizing twice is normalizing once."""
    once = target.directions(gradient)
    for i, u in enumerate(target.directions(gradient.with_vectors(once))):
        _near(u, once[i], bounds.twice(u.dtype, u.size), f"N(N(g))^{i} and N(g)^{i}", g=gradient.vectors()[i])


@law("I6", "g^i = h^i ⇒ N(g)^i = N(h)^i", PAPER, strategies.one_kept)
def block_independence(target: Target, gradient: Gradient, other: Gradient, kept: int) -> None:
    """Blocks have directions of their own: what the gradients of other blocks are does not matter."""
    u, v = target.directions(gradient)[kept], target.directions(other)[kept]
    identical(
        u,
        v,
        f"u^{kept} among the blocks of two gradients that agree in block {kept}",
        g=gradient.vectors()[kept],
    )


@law("I6", "N(g ∘ π) = N(g) ∘ π", DERIVED, strategies.seeded, bounds.twice)
def block_permutation(target: Target, gradient: Gradient, seed: int) -> None:
    """Tensors and blocks in another order have the same directions, in that order."""
    order = np.random.default_rng(seed).permutation(len(gradient.tensors))[::-1]
    place = {int(i): k for k, i in enumerate(order)}
    blocks = [tuple(place[i] for i in block) for block in gradient.blocks]
    turned = sorted(range(len(blocks)), key=lambda i: min(blocks[i]))
    shuffled = Gradient(tuple(gradient.tensors[i] for i in order), tuple(blocks[i] for i in turned))
    before, after = target.directions(gradient), target.directions(shuffled)
    for k, i in enumerate(turned):
        bound = bounds.twice(gradient.dtype, before[i].size) * max(1.0, float(length(before[i])))
        _near(after[k], before[i], bound, f"u^{i} in another place and u^{i}", g=gradient.vectors()[i])


@law("I7", "N(Qg^i) = Q N(g^i), QᵀQ = 1", DERIVED, strategies.mirrors, bounds.mirrored)
def orthogonal_equivariance(target: Target, gradient: Gradient, seed: int) -> None:
    """Reflecting the gradient of a block in a plane reflects its direction."""
    rng = np.random.default_rng(seed)
    normals = [rng.integers(-3, 4, g.size) for g in gradient.vectors()]
    mirrored = gradient.with_vectors([_reflected(g, n) for g, n in zip(gradient.vectors(), normals, strict=True)])
    after = target.directions(mirrored)
    for i, g, u in _nonzero(gradient, target.directions(gradient)):
        bound = bounds.mirrored(g.dtype, g.size, float(length(g))) * float(length(u))
        _near(after[i], _reflected(u, normals[i]), bound, f"N(Qg)^{i} and QN(g)^{i}", g=g, normal=normals[i])


@law("I7", "u(Pg^i) = P u(g^i), P a signed permutation", DERIVED, strategies.seeded, bounds.ruled)
def signed_permutation(target: Target, gradient: Gradient, seed: int) -> None:
    """Permuting the entries of a block, and changing the signs of some, does the same to its direction."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(g.size)[::-1] for g in gradient.vectors()]
    signs = [rng.choice((-1, 1), g.size).astype(g.dtype) for g in gradient.vectors()]
    moved = [s * g[order] for g, s, order in zip(gradient.vectors(), signs, orders, strict=True)]
    after = target.directions(gradient.with_vectors(moved))
    for i, u in enumerate(target.directions(gradient)):
        bound = bounds.ruled(u.dtype, u.size) * max(1.0, float(length(u)))
        _near(after[i], signs[i] * u[orders[i]], bound, f"u(Pg)^{i} and Pu(g)^{i}", g=gradient.vectors()[i])


@law("I8", "g^i = 0 ⇒ N(g)^i = 0", DERIVED, strategies.gradients)
def zero_block(target: Target, gradient: Gradient) -> None:
    """Zero blocks have a zero direction: no NaN, no ε, no noise; empty blocks an empty one."""
    vectors = gradient.vectors()
    for i, u in enumerate(target.directions(gradient)):
        if not vectors[i].any():
            identical(u, np.zeros_like(u), f"u^{i} = 0 where g^{i} = 0")


@law("I8", "g_t^i = 0 for all t ⇒ x_t^i = x_0^i", DERIVED, strategies.idle, steps=True)
def idle_block(target: Target, walk: Walk, block: int) -> None:
    """Blocks whose gradient has always been zero do not move."""
    start = Gradient(walk.start, walk.blocks).vectors()[block]
    for t, x in enumerate(target.path(walk), 1):
        identical(x[block], start, f"x_{t}^{block} = x_0^{block}, whose gradient was always zero")


# I9 to I11: steps


@law("I9", "‖u_t^i‖ ≤ 1 + μ + … + μ^(t−1), Nesterov + μ^t", DERIVED, strategies.schedules, bounds.walked, steps=True)
def step_length(target: Target, walk: Walk, repeated: bool, rates: tuple[int, ...]) -> None:
    """SGD-NG takes steps of lr, heavy ball of at most lr·(1 − μᵗ)/(1 − μ), reached if the direction stays."""
    ends = target.path(walk, lambda step: 2.0 ** rates[step], anchored=True)
    for t, (gradient, x) in enumerate(zip(walk.gradients, ends, strict=True), 1):
        lr = 2.0 ** rates[t - 1]
        most = sum(target.momentum**k for k in range(t + target.ahead))
        for i, g, v in _nonzero(gradient, x):
            u = -v.astype(np.longdouble) / lr
            slack = most * bounds.walked(g.dtype, g.size, t, lr)
            at_most(length(u), most + slack, f"‖u_{t}^{i}‖", g=g, u=u)
            if repeated or target.momentum == 0:
                at_most(-length(u), -(most - slack), f"−‖u_{t}^{i}‖ (lengths add up: one direction)", g=g, u=u)


@law(
    "I9",
    "‖u^i‖ = max(‖x^i‖, floor·√d)",
    "arXiv:1707.04822, sec. 2",
    strategies.one_step,
    bounds.moved,
    steps=True,
)
def adaptive_length(target: Target, walk: Walk) -> None:
    """First steps of adaptive NG are as long as the block's parameters, or the floor: a block at zero can leave."""
    start, end = Gradient(walk.start, walk.blocks).vectors(), target.path(walk, lr=1.0)[0]
    for i, g, x in _nonzero(walk.gradients[0], end):
        u = start[i].astype(np.longdouble) - x
        ell = max(float(length(start[i])), (target.floor or 0.0) * g.size**0.5)
        bound = bounds.moved(g.dtype, g.size, ell, float(length(x)))
        at_most(abs(length(u) - ell), bound, f"| ‖u^{i}‖ − {ell:.9g} |", g=g, x=start[i], u=u)


@law("I9", "‖x^i‖ ≥ floor·√d ⇒ x⁺(2^k·x) = 2^k·x⁺(x)", DERIVED, strategies.grown, steps=True)
def adaptive_scaling(target: Target, walk: Walk, exponents: tuple[int, ...]) -> None:
    """Above the floor, multiplying a block's parameters by c > 1 multiplies its first step under adaptive NG by c."""
    start = Gradient(walk.start, walk.blocks)
    grown = target.path(walk.at(start.shifted(exponents).tensors), lr=1.0)[0]
    for i, x in enumerate(target.path(walk, lr=1.0)[0]):
        before = start.vectors()[i]
        if length(before) >= (target.floor or 0.0) * before.size**0.5:
            identical(
                grown[i],
                np.ldexp(x, exponents[i]),
                f"x⁺(2^{exponents[i]}·x)^{i} = 2^{exponents[i]}·x⁺(x)^{i}",
                x=before,
            )


@law("I9", "u(x) = u(2^k·x), up to ε", DERIVED, strategies.even, bounds.cancelled, steps=True)
def constant_factor(target: Target, walk: Walk, exponents: tuple[int, ...]) -> None:
    """AdaGrad, RMSProp, AdaDelta and Adam cancel a constant factor: adaptive NG feels only a drift of ‖x‖."""
    start = Gradient(walk.start, walk.blocks)
    grown = start.shifted(exponents)
    pairs = zip(
        target.path(walk, lr=1.0, anchored=True),
        target.path(walk.at(grown.tensors), lr=1.0, anchored=True),
        strict=True,
    )
    for t, (ends, far_ends) in enumerate(pairs, 1):
        for i, x in enumerate(grown.vectors()):
            u = start.vectors()[i] - ends[i].astype(np.longdouble)
            v = x - far_ends[i].astype(np.longdouble)
            largest = float(np.abs(u).max(initial=0))
            bound = bounds.cancelled(x.dtype, largest, float(np.abs(x).max(initial=0)))
            _close(
                v,
                u,
                np.full(u.size, bound),
                f"u_{t}^{i} from 2^{exponents[i]}·x and from x",
                x=start.vectors()[i],
            )


@law("I10", "x_t(2^k∘g) = x_t(g)", DERIVED, strategies.shifts, steps=True)
def loss_scale(target: Target, walk: Walk, exponents: tuple[tuple[int, ...], ...]) -> None:
    """Multiplying the loss by powers of two, even others at each step and block, does not change the trajectory."""
    scaled = tuple(g.shifted(k) for g, k in zip(walk.gradients, exponents, strict=True))
    pairs = zip(target.path(walk), target.path(Walk(walk.start, scaled)), strict=True)
    for t, (ends, scaled_ends) in enumerate(pairs, 1):
        for i, (x, y) in enumerate(zip(ends, scaled_ends, strict=True)):
            identical(y, x, f"x_{t}^{i} of the scaled loss = x_{t}^{i}")


@law("I10", "u_1(c·g) = u_1(g), c > 0", DERIVED, strategies.middle_factors, bounds.first_step)
def loss_scale_first_step(target: Target, gradient: Gradient, factor: float) -> None:
    """Multiplying the loss by any positive number does not change the first step, to rounding."""
    scaled = gradient.with_vectors([g * np.longdouble(factor) for g in gradient.vectors()])
    pair = zip(target.directions(gradient), target.directions(scaled), strict=True)
    for i, (u, v) in enumerate(pair):
        _close(v, u, bounds.first_step(u.dtype, u), f"u_1(c·g)^{i} and u_1(g)^{i}", g=gradient.vectors()[i])


@law("I11", "load(save(run to t)), then to T = run to T", DERIVED, strategies.cuts, steps=True)
def resume(target: Target, walk: Walk, cut: int) -> None:
    """Resumed runs (saved, loaded into a fresh optimizer, continued) end where the uninterrupted run ends."""
    first = target.start(target.placed([x.copy() for x in walk.start]), 0.125, walk.blocks)
    for gradient in walk.gradients[:cut]:
        first.step(target.placed(gradient.copy().tensors))
    saved, x = first.state_dict(), [p.copy() for p in first.params]
    for gradient in walk.gradients[cut:]:
        first.step(target.placed(gradient.copy().tensors))
    second = target.start(x, 0.125, walk.blocks)
    second.load_state_dict(saved)
    for gradient in walk.gradients[cut:]:
        second.step(target.placed(gradient.copy().tensors))
    for k, (p, q) in enumerate(zip(second.params, first.params, strict=True)):
        here, there = to_host(p).reshape(-1), to_host(q).reshape(-1)
        identical(here, there, f"tensor {k} of the resumed run = that of the uninterrupted one")


@law("–", "N does not write to g; dtype and shape of N(g) are those of g", DERIVED, strategies.gradients)
def inputs_preserved(target: Target, gradient: Gradient) -> None:
    """Gradients are left as they were, and directions have their shapes and dtype."""
    given = target.placed(gradient.copy().tensors)
    directions = target.call(given, gradient.blocks)
    if len(directions) != len(gradient.tensors):
        raise Violation(f"{len(directions)} directions came back for {len(gradient.tensors)} arrays")
    for k, (u, g) in enumerate(zip(directions, gradient.tensors, strict=True)):
        if (u.shape, u.dtype) != (g.shape, g.dtype):
            raise Violation(
                f"direction {k} is {u.dtype} of shape {u.shape}, gradient {k} is {g.dtype} of shape {g.shape}"
            )
        identical(
            to_host(given[k]).reshape(-1),
            g.reshape(-1),
            f"gradient {k} after the call = gradient {k} before it",
        )


# What the checks measure with


def length(v: HostArray) -> np.longdouble:
    """Return ‖v‖₂ in extended precision, the largest entry first brought near 1, so that no square is lost."""
    w = v.astype(np.longdouble)
    largest = np.abs(w).max(initial=0)
    if largest == 0 or not np.isfinite(largest):
        return np.longdouble(largest)
    exponent = np.frexp(largest)[1]
    norm: np.longdouble = np.ldexp(np.sqrt(np.sum(np.ldexp(w, -exponent) ** 2)), exponent)
    return norm


def _rescaled(v: HostArray) -> HostArray:
    """Return v times the power of two that brings its largest entry into [1/2, 1), in extended precision."""
    w = v.astype(np.longdouble)
    rescaled: HostArray = np.ldexp(w, -np.frexp(np.abs(w).max(initial=0))[1])
    return rescaled


def _straight(v: HostArray) -> HostArray:
    """Return v/‖v‖ in extended precision; zero for zero."""
    w = _rescaled(v)
    return w / (length(w) or 1)


def _reflected(v: HostArray, normal: HostArray) -> HostArray:
    """Return v − 2n⟨n, v⟩/⟨n, n⟩ in extended precision."""
    n = normal.astype(np.longdouble)
    reflected: HostArray = v - 2 * n * (np.dot(n, v) / (np.dot(n, n) or 1))
    return reflected


def _nonzero(gradient: Gradient, vectors: Sequence[HostArray]) -> Iterator[tuple[int, HostArray, HostArray]]:
    """Yield (i, g^i, vector) for every block with a gradient."""
    for i, (g, v) in enumerate(zip(gradient.vectors(), vectors, strict=True)):
        if g.any():
            yield i, g, v


def _subnormal(v: HostArray) -> bool:
    """Tell whether an entry is subnormal."""
    return bool(((v != 0) & (np.abs(v) < np.finfo(v.dtype).smallest_normal)).any())


def _near(a: HostArray, b: HostArray, bound: float, what: str, **arrays: HostArray) -> None:
    """Require ‖a − b‖ ≤ bound."""
    distance = length(a.astype(np.longdouble) - b)
    at_most(distance, bound, f"the distance of {what}", **arrays, first=a, second=b)


def _close(a: HostArray, b: HostArray, bound: HostArray, what: str, **arrays: HostArray) -> None:
    """Require |a_j − b_j| ≤ bound_j for every entry."""
    error = np.abs(a.astype(np.longdouble) - b)
    wrong = np.flatnonzero(~(error <= bound))
    if wrong.size:
        j = wrong[0]
        at_most(error[j], float(bound[j]), f"the difference of {what}, entry {j},", **arrays, first=a, second=b)
