"""A checker of derivatives: exact slopes against differences, to any order."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minibng.autodiff.derivatives import flatten, vjp
from minibng.autodiff.tracer import raw, shape_of
from minibng.backend import Array, HostArray, backend_of


def check_grads(f: Callable[..., Any], *args: Any, order: int = 2, rtol: float = 1e-6, seed: int = 0) -> None:
    """Check f's derivatives, up to ``order``, against central differences along random directions.

    With unit directions v, u drawn from ``seed``, ⟨u, f⟩'s slope along v is compared with its difference quotient,
    (φ(h) − φ(−h)) / 2h with one Richardson step (error of order h⁴); then the gradient itself is checked in the same
    way, which checks second derivatives, and so on.

    Parameters
    ----------
    f
        A function of floating-point arguments; its result may be an array or a container.
    *args
        The point, in float64 and away from kinks, on any device; containers are copied before each call, so that
        dropout repeats.
    order
        How many derivatives to check.
    rtol
        Largest difference allowed, relative to the larger of the slope and the size of the terms that make it up.

    Raises
    ------
    AssertionError
        Where they differ, with both numbers.
    TypeError
        For anything but float64.

    Examples
    --------
    >>> import numpy as np
    >>> check_grads(np.tanh, np.array([0.3, -1.2]))
    """
    leaves = [raw(leaf) for leaf in flatten(list(args))[0]]
    if any(np.result_type(leaf) != np.float64 for leaf in leaves):
        kinds = sorted({str(np.result_type(leaf)) for leaf in leaves})
        raise TypeError(f"check_grads needs float64 input (differences in less would measure rounding), got {kinds}")
    _check_order(f, args, np.random.default_rng(seed), order, rtol, "derivative")


def _check_order(f: Any, args: Any, rng: np.random.Generator, order: int, rtol: float, what: str) -> None:
    """Compare f's slope along one random direction with differences; then do the same for its pullback."""
    leaves = [leaf for a in args for leaf in flatten(a)[0]]
    direction = _unit(rng, leaves)
    value, pull = vjp(f, *copy.deepcopy(list(args)))
    outs, make = flatten(value)
    weights = [_beside(rng.standard_normal(shape_of(y)), y) for y in outs]

    def along(h: float) -> float:
        values, _ = flatten(f(*_moved(args, [x + h * v for x, v in zip(leaves, direction, strict=True)])))
        return float(sum(np.sum(w * y) for w, y in zip(weights, values, strict=True)))

    slopes, _ = flatten(list(pull(make(weights))))
    terms = [v * s for v, s in zip(direction, slopes, strict=True)]
    exact = float(sum(np.sum(t) for t in terms))
    h = 1e-3
    coarse, fine = (along(h) - along(-h)) / (2 * h), (along(h / 2) - along(-h / 2)) / h
    measured = (4 * fine - coarse) / 3
    scale = max(abs(exact), abs(measured), float(sum(np.sum(np.abs(t)) for t in terms)), 1e-8)
    rounding = 4e-16 / h * float(sum(np.sum(np.abs(w * raw(y))) for w, y in zip(weights, outs, strict=True)))
    if not abs(exact - measured) <= rtol * scale + rounding:
        raise AssertionError(f"{what} along a random direction is {exact:.12g}, differences give {measured:.12g}")
    if order > 1:

        def pulled(ws: Any, *xs: Any) -> Any:
            return list(vjp(f, *xs)[1](make(ws)))

        _check_order(pulled, (weights, *args), rng, order - 1, rtol, f"derivative of the {what}")


def _moved(args: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """Return a copy of the arguments, buffers included, with other values in their leaves."""
    rest, moved = list(values), copy.deepcopy(list(args))
    for i, arg in enumerate(moved):
        leaves, rebuild = flatten(arg)
        new = [rest.pop(0) for _ in leaves]
        if all(hasattr(leaf, "__setitem__") for leaf in leaves):
            for leaf, value in zip(leaves, new, strict=True):
                leaf[...] = value
        else:
            moved[i] = rebuild(new)
    return moved


def _unit(rng: np.random.Generator, leaves: Sequence[Any]) -> list[Any]:
    """Draw a random direction of length 1 with no entry near zero."""
    draws = [rng.uniform(0.5, 1.0, shape_of(x)) * rng.choice([-1.0, 1.0], shape_of(x)) for x in leaves]
    length = float(np.sqrt(sum(np.sum(d * d) for d in draws))) or 1.0
    return [_beside(d / length, x) for d, x in zip(draws, leaves, strict=True)]


def _beside(drawn: HostArray, x: Any) -> Array:
    """Return random numbers on the device of x."""
    backend = backend_of(raw(x))
    return drawn if backend.on_host else backend.asarray(drawn)
