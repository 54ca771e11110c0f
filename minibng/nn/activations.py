"""Activations: plain functions of x, so each is a layer without tensors."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minibng.autodiff import fused, ops, primitive, raw
from minibng.autodiff.tracer import shape_of
from minibng.backend import Array


def relu(x: Array) -> Array:
    """Return max(x, 0); its derivative at 0 is 0."""
    return ops.relu(x)


@primitive(lambda g, y, x, slope=0.01: ops.where(raw(x) > 0, g, g * slope))
def leaky_relu(x: Array, slope: float = 0.01) -> Array:
    """Return x where it is positive, else slope·x (Maas, Hannun, Ng, 2013); its derivative at 0 is the slope."""
    return np.where(x > 0, x, x * slope)


def tanh(x: Array) -> Array:
    """Return tanh x."""
    return ops.tanh(x)


def _sigmoid_forward(x: Array) -> tuple[Array, None]:
    y = np.tanh(x * 0.5)
    y = y * 0.5
    y += 0.5
    return y, None


def _sigmoid_backward(g: Array, y: Array, residual: None, argnums: Any, x: Array) -> list[Array]:
    return [g * (y * (1 - y))]


@fused(_sigmoid_forward, _sigmoid_backward)
def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(−x)), as ½ + ½ tanh(x/2): no overflow, and tanh is the cheaper function.

    Exact to an ulp of 1: far below zero, where sigmoid is smaller than that, the result is 0.
    """
    return ops.tanh(x * 0.5) * 0.5 + 0.5


_GELU_SCALE, _GELU_CUBIC = math.sqrt(2 / math.pi), 0.044715
_GELU_REACH = 10.0
"""Beyond it tanh is ±1 to the last bit, in float64 too; the cube is taken of clipped numbers, so nothing overflows."""


def _gelu_forward(x: Array) -> tuple[Array, tuple[Array, Array]]:
    u = np.clip(x, -_GELU_REACH, _GELU_REACH)
    t = np.tanh(u * (_GELU_SCALE + _GELU_SCALE * _GELU_CUBIC * (u * u)))
    return x * (t * 0.5 + 0.5), (u, t)


def _gelu_backward(g: Array, y: Array, residual: tuple[Array, Array], argnums: Any, x: Array) -> list[Array]:
    u, t = residual
    slope = _GELU_SCALE + 3 * _GELU_SCALE * _GELU_CUBIC * (u * u)
    return [g * (0.5 + 0.5 * (t + (1 - t * t) * u * slope))]


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
