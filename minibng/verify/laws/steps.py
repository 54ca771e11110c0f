"""I8 and I9: how far a step goes."""

from __future__ import annotations

import numpy as np

from minibng.verify import bounds, strategies
from minibng.verify.example import Gradient, Walk, arrow, at_least, at_most, identical
from minibng.verify.laws.law import DERIVED, adaptive, clipping, law
from minibng.verify.laws.measuring import arithmetic, close, length, near, nonzero
from minibng.verify.target import Target


@law(
    "I8",
    "g_t^i = 0 for all t ⇒ x_t^i = x_0^i",
    DERIVED,
    strategies.idle,
    steps=True,
    proof="N(g)^i = 0 at every step, every memory of it is 0, and each rule gives 0 for 0.",
)
def idle_block(target: Target, walk: Walk, block: int) -> None:
    """Blocks whose gradient has always been zero do not move."""
    before = Gradient(walk.start, walk.blocks).vectors()[block]
    for t, x in enumerate(target.path(walk), 1):
        what = f"x_{t}^{block} = x_0^{block}, whose gradient was always zero"
        identical(x[block], before, what, arrow("x_0", before, f"x_{t}", x[block]))


@law(
    "I9",
    "‖u_t^i‖ ≤ 1 + μ + … + μ^(t−1), Nesterov + μ^t",
    DERIVED,
    strategies.schedules,
    bounds.walked,
    steps=True,
    proof="m_t = Σ μ^(t−s) N(g_s) is a sum of vectors of lengths μ^(t−s), so that ‖m_t‖ is at most their sum, "
    "and is the sum where all point one way. The rate is outside: it may change at every step.",
)
def step_length(target: Target, walk: Walk, repeated: bool, rates: tuple[int, ...]) -> None:
    """SGD-NG takes steps of lr, heavy ball of at most lr·(1 − μᵗ)/(1 − μ), reached if the direction stays."""
    a = arithmetic(target, walk.gradients[0].dtype)
    ends = target.path(walk, lambda step: 2.0 ** rates[step], anchored=True)
    for t, (gradient, x) in enumerate(zip(walk.gradients, ends, strict=True), 1):
        lr = target.rate_of(2.0 ** rates[t - 1])
        most = sum(target.momentum**k for k in range(t + target.ahead))
        for i, g, v in nonzero(gradient, x):
            u = -v.astype(np.longdouble) / lr
            slack = most * bounds.walked(a, g.size, t, lr)
            lines = arrow(f"g_{t}", g, f"u_{t}", u), arrow("x", np.zeros_like(g), "x⁺", v), f"lr = {lr:g}"
            at_most(length(u), most + slack, f"‖u_{t}^{i}‖", *lines)
            if repeated or target.momentum == 0:
                at_least(length(u), most - slack, f"‖u_{t}^{i}‖, where lengths add up (one direction),", *lines)


@law(
    "I9",
    "ℓ = max(‖x^i‖, floor·√d) > 0 ⇒ ‖u^i‖ = ℓ",
    "arXiv:1707.04822, sec. 2",
    strategies.one_step,
    bounds.moved,
    steps=True,
    posed=adaptive,
    proof="u = ℓ·N(g) and ‖N(g)^i‖ = 1. Where ℓ = 0, a block at zero and no floor, nothing is said.",
)
def adaptive_length(target: Target, walk: Walk) -> None:
    """First steps of adaptive NG are as long as the block's parameters, or the floor: a block at zero can leave."""
    a, lr = arithmetic(target, walk.gradients[0].dtype), target.rate_of(1.0)
    start, end = Gradient(walk.start, walk.blocks).vectors(), target.path(walk, lr=1.0)[0]
    for i, g, x in nonzero(walk.gradients[0], end):
        u = (start[i].astype(np.longdouble) - x) / lr
        if ell := max(float(length(start[i])), (target.floor or 0.0) * g.size**0.5):
            bound = bounds.moved(a, g.size, ell, float(length(x)), lr)
            lines = arrow("g", g, "u", u), arrow("x", start[i], "x⁺", x)
            at_most(abs(length(u) - ell), bound, f"| ‖u^{i}‖ − {ell:.9g} |", *lines)


@law(
    "I9",
    "‖x^i‖ ≥ floor·√d, x^i ≠ 0 ⇒ x⁺(2^k·x) = 2^k·x⁺(x)",
    DERIVED,
    strategies.grown,
    steps=True,
    posed=adaptive,
    proof="x⁺ = x − lr·‖x‖·u with a u that does not depend on x; a power of two multiplies every term exactly.",
)
def adaptive_scaling(target: Target, walk: Walk, exponents: tuple[int, ...]) -> None:
    """Above the floor, multiplying a block's parameters by c > 1 multiplies its first step under adaptive NG by c."""
    start = Gradient(walk.start, walk.blocks)
    large = start.shifted(exponents)
    grown = target.path(walk.at(large.tensors), lr=1.0)[0]
    rows = zip(start.vectors(), target.path(walk, lr=1.0)[0], large.vectors(), grown, exponents, strict=True)
    for i, (x, after, y, y_after, k) in enumerate(rows):
        if x.any() and length(x) >= (target.floor or 0.0) * x.size**0.5:
            lines = arrow("x", x, "x⁺", after), arrow(f"2^{k}·x", y, "x⁺", y_after)
            identical(y_after, np.ldexp(after, k), f"x⁺(2^{k}·x)^{i} = 2^{k}·x⁺(x)^{i}", *lines)


@law(
    "I9",
    "u(x) = u(2^k·x), up to ε",
    DERIVED,
    strategies.even,
    bounds.cancelled,
    steps=True,
    posed=adaptive,
    proof="AdaGrad's g/√Σg², and likewise the others, is the same for c·g: of ‖x‖·N(g) they see N(g), as long "
    "as ‖x‖ stays.",
)
def constant_factor(target: Target, walk: Walk, exponents: tuple[int, ...]) -> None:
    """AdaGrad, RMSProp, AdaDelta and Adam cancel a constant factor: adaptive NG feels only a drift of ‖x‖."""
    a, lr = arithmetic(target, walk.gradients[0].dtype), target.rate_of(1.0)
    start = Gradient(walk.start, walk.blocks)
    grown = start.shifted(exponents)
    pairs = zip(
        target.path(walk, lr=1.0, anchored=True),
        target.path(walk.at(grown.tensors), lr=1.0, anchored=True),
        strict=True,
    )
    for t, (ends, far_ends) in enumerate(pairs, 1):
        for i, (x, y) in enumerate(zip(start.vectors(), grown.vectors(), strict=True)):
            u = (x - ends[i].astype(np.longdouble)) / lr
            v = (y - far_ends[i].astype(np.longdouble)) / lr
            largest = float(np.abs(u).max(initial=0))
            bound = bounds.cancelled(a, largest, float(np.abs(y).max(initial=0)), lr)
            lines = arrow("x", x, f"u_{t}", u), arrow(f"2^{exponents[i]}·x", y, f"u_{t}", v)
            close(v, u, np.full(u.size, bound), f"u_{t}^{i} from 2^{exponents[i]}·x and from x", *lines)


@law(
    "I9",
    "‖g^i‖ ≤ clip ⇒ u^i = g^i",
    "arXiv:1211.5063, algorithm 1",
    strategies.within,
    bounds.clipped,
    posed=clipping,
    proof="min(1, clip/‖g‖) = 1. Bit for bit, but where ‖g‖ is so near the threshold that rounding decides.",
)
def clip_inside(target: Target, gradient: Gradient) -> None:
    """Clipping leaves a block alone whose norm is at most the threshold."""
    a, clip = arithmetic(target, gradient.dtype), target.clip or 0.0
    for i, (g, u) in enumerate(zip(gradient.vectors(), target.directions(gradient), strict=True)):
        norm, bound = length(g), bounds.clipped(a, g.size)
        what, line = f"u^{i} and g^{i}, ‖g^{i}‖ = {float(norm):.6g} ≤ {clip:g} = clip", arrow("g", g, "u", u)
        if a.extra == 0 and norm < clip * (1 - bound):
            identical(u, g, what, line)
        elif norm <= clip:
            near(u, g, bound * float(norm) + bounds.vanished(a, g.size), what, line)


@law(
    "I9",
    "‖u^i‖ = min(‖g^i‖, clip)",
    "arXiv:1211.5063, algorithm 1",
    strategies.around,
    bounds.clipped,
    posed=clipping,
    proof="‖g · min(1, clip/‖g‖)‖ = min(‖g‖, clip).",
)
def clip_never_enlarges(target: Target, gradient: Gradient) -> None:
    """Clipping makes no block longer than it was or than the threshold, nor shorter than that asks for."""
    a, clip = arithmetic(target, gradient.dtype), target.clip or 0.0
    for i, (g, u) in enumerate(zip(gradient.vectors(), target.directions(gradient), strict=True)):
        wanted = min(float(length(g)), clip)
        slack = wanted * bounds.clipped(a, g.size) + bounds.vanished(a, g.size, wanted)
        what = f"‖u^{i}‖, where min(‖g^{i}‖, clip) is {wanted:.6g},"
        at_most(length(u), wanted + slack, what, arrow("g", g, "u", u))
        at_least(length(u), wanted - slack, what, arrow("g", g, "u", u))
