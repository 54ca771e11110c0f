"""Activations: plain functions of x, so each is a layer without tensors."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import maximum, minimum

from minibng.autodiff import fused, ops, raw
from minibng.autodiff.tracer import shape_of
from minibng.backend import Array
from minibng.backend.chain import Chain


def relu(x: Array) -> Array:
    """Return max(x, 0); its derivative at 0 is 0."""
    return ops.relu(x)


@Chain  # without where, which takes NumPy six times as long
def _leaky(x, *, slope):  # type: ignore[no-untyped-def]
    y = maximum(x, 0) + slope * minimum(x, 0)
    return y


@Chain
def _leaky_slope(g, x, *, slope):  # type: ignore[no-untyped-def]
    above = g * (x > 0)
    d = above + slope * (g - above)
    return d


def _leaky_forward(x: Array, slope: float) -> tuple[Array, None]:
    return _leaky(x, slope=slope), None


def _leaky_backward(g: Array, y: Array, residual: None, argnums: Any, x: Array, slope: float) -> list[Any]:
    return [_leaky_slope(g, x, slope=slope)]


@fused(_leaky_forward, _leaky_backward)
def _leaky_relu(x: Array, slope: float) -> Array:
    return ops.where(raw(x) > 0, x, x * slope)


def leaky_relu(x: Array, slope: Any = 0.01) -> Array:
    """Return x where it is positive, else slope·x (Maas, Hannun, Ng, 2013); its derivative at 0 is the slope.

    The slope is a number, or an array that can be learned (PReLU: He et al., 2015).
    """
    return _leaky_relu(x, slope) if isinstance(slope, (int, float)) else ops.where(raw(x) > 0, x, x * slope)


def tanh(x: Array) -> Array:
    """Return tanh x."""
    return ops.tanh(x)


@Chain
def _sigmoid(x):  # type: ignore[no-untyped-def]
    y = tanh(0.5 * x) * 0.5 + 0.5
    return y


@Chain
def _sigmoid_slope(g, y):  # type: ignore[no-untyped-def]
    d = g * (y * (1 - y))
    return d


def _sigmoid_forward(x: Array) -> tuple[Array, None]:
    return _sigmoid(x), None


def _sigmoid_backward(g: Array, y: Array, residual: None, argnums: Any, x: Array) -> list[Array]:
    return [_sigmoid_slope(g, y)]


@fused(_sigmoid_forward, _sigmoid_backward)
def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(−x)), as ½ + ½ tanh(x/2): no overflow, and tanh is the cheaper function.

    Exact to an ulp of 1: far below zero, where sigmoid is smaller than that, the result is 0.
    """
    return ops.tanh(x * 0.5) * 0.5 + 0.5


_GELU_SCALE, _GELU_CUBIC = math.sqrt(2 / math.pi), 0.044715
_GELU_REACH = 10.0
"""Beyond it tanh is ±1 to the last bit, in float64 too; the cube is taken of clipped numbers, so nothing overflows."""


@Chain
def _gelu(x, *, reach, scale, cubic):  # type: ignore[no-untyped-def]
    u = maximum(minimum(x, reach), -reach)
    t = tanh(u * (scale + scale * cubic * (u * u)))
    y = x * (t * 0.5 + 0.5)
    return y, t


@Chain
def _gelu_slope(g, x, t, *, reach, scale, cubic):  # type: ignore[no-untyped-def]
    u = maximum(minimum(x, reach), -reach)
    slope = scale + 3 * scale * cubic * (u * u)
    d = g * (0.5 + 0.5 * (t + (1 - t * t) * u * slope))
    return d


_GELU = {"reach": _GELU_REACH, "scale": _GELU_SCALE, "cubic": _GELU_CUBIC}


def _gelu_forward(x: Array) -> tuple[Array, Array]:
    return _gelu(x, **_GELU)  # type: ignore[no-any-return]


def _gelu_backward(g: Array, y: Array, t: Array, argnums: Any, x: Array) -> list[Array]:
    return [_gelu_slope(g, x, t, **_GELU)]


@fused(_gelu_forward, _gelu_backward)
def gelu(x: Array) -> Array:
    """Return x·Φ(x) with Φ(x) ≈ ½(1 + tanh(√(2/π)(x + 0.044715 x³))) (Hendrycks, Gimpel, 2016, the tanh form)."""
    u = ops.clip(x, -_GELU_REACH, _GELU_REACH)
    return x * (ops.tanh(u * (_GELU_SCALE + _GELU_SCALE * _GELU_CUBIC * ops.square(u))) * 0.5 + 0.5)


def _softmax_forward(x: Array, axis: int) -> tuple[Array, None]:
    y = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return y / np.sum(y, axis=axis, keepdims=True), None


def _softmax_backward(g: Array, y: Array, residual: None, argnums: Any, x: Array, axis: int) -> list[Array]:
    return [y * (g - np.sum(g * y, axis=axis, keepdims=True))]


@fused(_softmax_forward, _softmax_backward)
def _softmax(x: Array, axis: int) -> Array:
    """Return exp(x) / Σ exp(x); the largest entry, which cancels, is taken out as a constant."""
    y = ops.exp(x - np.max(raw(x), axis=axis, keepdims=True))
    return y / ops.sum(y, axis=axis, keepdims=True)


def softmax(x: Array, axis: int = -1) -> Array:
    """Return probabilities, exp(x) / Σ exp(x) over one axis; any finite size of x is safe, −∞ gives probability 0.

    A classifier is trained on its logits: `cross_entropy` takes those, not these.

    Parameters
    ----------
    x
        Logits of any shape.
    axis
        The axis along which the results sum to 1.

    Raises
    ------
    ValueError
        Where there is no such axis, or nothing along it.

    Examples
    --------
    >>> softmax(np.array([0.0, np.log(3.0)]))
    array([0.25, 0.75])
    """
    shape = shape_of(x)
    if not -len(shape) <= axis < len(shape) or shape[axis] == 0:
        raise ValueError(f"softmax over axis {axis} needs at least one entry there, got shape {shape}")
    with np.errstate(over="ignore"):  # a difference may be −inf: its exponential is 0
        return _softmax(x, axis)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "gelu": gelu,
}
"""The elementwise ones by name, for models and the command line."""
