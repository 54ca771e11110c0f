"""I10 to I12: whole runs, wherever and by however many they are computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from minibng.backend import Array, to_host
from minibng.verify import bounds, strategies
from minibng.verify.example import Batch, Gradient, Violation, Walk, arrow, identical
from minibng.verify.laws.law import DERIVED, accumulating, distributed, law, several_devices, stateful
from minibng.verify.laws.measuring import arithmetic, close, ends, length, near
from minibng.verify.target import Target


@law(
    "I10",
    "x_t(2^k∘g) = x_t(g)",
    DERIVED,
    strategies.shifts,
    steps=True,
    proof="By I2 every N(g_t) is the same bit for bit, and the rest of the step sees nothing else of the gradient.",
)
def loss_scale(target: Target, walk: Walk, exponents: tuple[tuple[int, ...], ...]) -> None:
    """Multiplying the loss by powers of two, even others at each step and block, does not change the trajectory."""
    start = Gradient(walk.start, walk.blocks).vectors()
    scaled = tuple(g.shifted(k) for g, k in zip(walk.gradients, exponents, strict=True))
    pairs = zip(target.path(walk), target.path(Walk(walk.start, scaled)), strict=True)
    for t, (xs, scaled_xs) in enumerate(pairs, 1):
        for i, (x, y) in enumerate(zip(xs, scaled_xs, strict=True)):
            k = [step[i] for step in exponents[:t]]
            lines = arrow("x_0", start[i], f"x_{t}", x), arrow("scaled, x_0", start[i], f"x_{t}", y)
            identical(y, x, f"x_{t}^{i} with the gradients times 2^{k} = x_{t}^{i}", *lines)


@law(
    "I10",
    "u_1(c·g) = u_1(g), c > 0",
    DERIVED,
    strategies.middle_factors,
    bounds.first_step,
    proof="N(c·g) = N(g) by I2, to rounding, which the first step of a rule does not make larger. (Later steps "
    "may: where Adam's moments of rounding errors meet nothing else, it takes full steps along them.)",
)
def loss_scale_first_step(target: Target, gradient: Gradient, factor: float) -> None:
    """Multiplying the loss by any positive number does not change the first step, to rounding."""
    a = arithmetic(target, gradient.dtype)
    scaled = gradient.with_vectors([g * np.longdouble(factor) for g in gradient.vectors()])
    quads = zip(
        target.directions(gradient), target.directions(scaled), gradient.vectors(), scaled.vectors(), strict=True
    )
    for i, (u, v, g, h) in enumerate(quads):
        lines = arrow("g", g, "u", u), arrow("c·g", h, "u", v)
        close(v, u, bounds.first_step(a, u), f"u_1(c·g)^{i} and u_1(g)^{i}, c = {factor:g}", *lines)


@law(
    "I11",
    "load(save(run to t)), then to T = run to T",
    DERIVED,
    strategies.cuts,
    steps=True,
    posed=stateful,
    proof="A step is a function of the parameters, the gradient and the state, and the state holds all that it reads.",
)
def resume(target: Target, walk: Walk, cut: int) -> None:
    """Resumed runs (saved, loaded into a fresh optimizer, continued) end where the uninterrupted run ends."""
    first = target.start(target.placed([x.copy() for x in walk.start]), 0.125, walk.blocks)
    for gradient in walk.gradients[:cut]:
        first.step(target.placed(gradient.copy().tensors))
    saved, x = first.state_dict(), [p.copy() for p in first.params]
    middle = [to_host(p).reshape(-1).copy() for p in x]
    for gradient in walk.gradients[cut:]:
        first.step(target.placed(gradient.copy().tensors))
    second = target.start(x, 0.125, walk.blocks)
    second.load_state_dict(saved)
    for gradient in walk.gradients[cut:]:
        second.step(target.placed(gradient.copy().tensors))
    for k, (p, q) in enumerate(zip(second.params, first.params, strict=True)):
        here, there = to_host(p).reshape(-1), to_host(q).reshape(-1)
        last = len(walk.gradients)
        lines = (
            arrow(f"x_{cut}", middle[k], f"x_{last}", there),
            arrow(f"saved at x_{cut}", middle[k], f"x_{last}", here),
        )
        identical(here, there, f"tensor {k} of the resumed run = that of the uninterrupted one", *lines)


@law(
    "I12",
    "x_t on one device = x_t on another",
    DERIVED,
    strategies.journey,
    bounds.agreed,
    posed=several_devices,
    proof="The same operations on the same numbers, each rounded alike; only sums are added up in another order.",
)
def devices_agree(target: Target, walk: Walk) -> None:
    """Devices that are given the same gradients end every one of up to 50 steps in the same place, to rounding."""
    bound = bounds.agreed(arithmetic(target, walk.gradients[0].dtype))
    home, *others = target.devices
    here = ends(replace(target, device=home), walk)
    for other in others:
        farthest = [length(x) for x in Gradient(walk.start, walk.blocks).vectors()]
        for t, (xs, ys) in enumerate(zip(here, ends(replace(target, device=other), walk), strict=True), 1):
            for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
                farthest[i] = max(farthest[i], length(x))
                g = walk.gradients[t - 1].vectors()[i]
                lines = arrow(f"on {home!r} g_{t}", g, f"x_{t}", x), arrow(f"on {other!r} g_{t}", g, f"x_{t}", y)
                near(y, x, bound * float(farthest[i]), f"x_{t}^{i} on {other!r} and on {home!r}", *lines)


@law(
    "I12",
    "u(Σ n_k g_k / Σ n_k) = u(g)",
    DERIVED,
    strategies.batches,
    bounds.averaged,
    posed=accumulating,
    proof="The gradient of the mean loss of a batch is the mean of those of its parts, weighted by their "
    "numbers of samples. It is normalized once: N is not linear, and a mean of unit vectors is another "
    "direction.",
)
def micro_batches(target: Target, batch: Batch) -> None:
    """Micro-batches whose gradients are accumulated take the step of the whole batch."""
    if target.accumulate is not None:
        _averages(target, batch, target.accumulate, "micro-batches")


@law(
    "I12",
    "u(Σ n_w g_w / Σ n_w) = u(g)",
    DERIVED,
    strategies.batches,
    bounds.averaged,
    posed=distributed,
    proof="As for micro-batches: it does not matter in which process a part of the mean was computed.",
)
def workers(target: Target, batch: Batch) -> None:
    """Several processes, each with a shard of a batch, take the step of one that has the whole batch."""
    if target.workers is not None:
        _averages(target, batch, target.workers, "workers")


def _averages(
    target: Target, batch: Batch, average: Callable[[list[list[Array]], list[float]], Sequence[Array]], who: str
) -> None:
    """Require that the direction of an average is that of the mean."""
    whole = batch.mean()
    placed = [target.placed(part.copy().tensors) for part in batch.parts]
    together = tuple(to_host(g) for g in average(placed, [float(n) for n in batch.weights]))
    if [t.shape for t in together] != [t.shape for t in whole.tensors]:
        raise Violation(f"the gradient of {who} has shapes {[t.shape for t in together]}")
    mean = Gradient(together, whole.blocks)
    a, rows = arithmetic(target, whole.dtype), zip(target.directions(whole), target.directions(mean), strict=True)
    for i, (u, v) in enumerate(rows):
        ell = float(length(u))
        bound = bounds.averaged(a, u.size, len(batch.parts)) * ell + 2 * bounds.vanished(a, u.size, ell)
        lines = arrow("whole, g", whole.vectors()[i], "u", u), arrow(f"{who}, g", mean.vectors()[i], "u", v)
        near(v, u, bound, f"u^{i} of the {who} and of the whole batch", *lines)


@law(
    "–",
    "N does not write to g; dtype and shape of N(g) are those of g",
    DERIVED,
    strategies.gradients,
    proof="Nothing is written to the gradient, which belongs to the caller, and no operation changes the dtype.",
)
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
        before, after = g.reshape(-1), to_host(given[k]).reshape(-1)
        line = arrow("g", before, "g afterwards", after)
        identical(after, before, f"gradient {k} after the call = gradient {k} before it", line)
