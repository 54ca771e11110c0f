"""Layers that normalize activations (not gradients: those are the optimizer's)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minibng.autodiff import fused, ops
from minibng.backend import Array
from minibng.nn.init import ones, zeros
from minibng.nn.layer import Layer, ParamsLike, check_input, check_whole
from minibng.params import Spec


def _mean(x: Array) -> Array:
    return np.sum(x, axis=-1, keepdims=True) / x.shape[-1]


def _forward(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, tuple[Array, Array]]:
    unit = x - _mean(x)
    scale = 1 / np.sqrt(_mean(unit * unit) + eps)
    unit *= scale
    y = unit * gamma
    y += beta
    return y, (unit, scale)


def _backward(
    g: Array,
    y: Array,
    residual: tuple[Array, Array],
    argnums: Sequence[int],
    x: Array,
    gamma: Array,
    beta: Array,
    eps: float,
) -> list[Any]:
    unit, scale = residual
    leading = tuple(range(g.ndim - 1))
    dx = None
    if 0 in argnums:
        dx = g * gamma
        along = _mean(dx * unit)
        dx -= _mean(dx)
        dx -= unit * along
        dx *= scale
    return [
        dx,
        np.sum(g * unit, axis=leading) if 1 in argnums else None,
        np.sum(g, axis=leading) if 2 in argnums else None,
        None,
    ]


@fused(_forward, _backward)
def _layer_norm(x: Array, gamma: Array, beta: Array, eps: float) -> Array:
    """Return γ·(x − mean)/√(var + ε) + β over the last axis; the variance is the mean of centred squares."""
    centred = x - ops.mean(x, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
    return centred / ops.sqrt(variance + eps) * gamma + beta


class LayerNorm(Layer):
    """y = γ·(x − m)/√(v + ε) + β, (…, D) → (…, D), with mean m and variance v of each row (Ba, Kiros, Hinton, 2016).

    Each sample, and in a sequence each position, is normalized by itself, the same in training and evaluation. A row
    that is shifted, or scaled by c > 0, gives the same output (with ε/c² for ε). A constant row gives β. The variance
    divides by D and is summed from centred entries, so that a large common mean costs no accuracy.

    Parameters
    ----------
    size
        D, the length of the last axis; γ (D,) starts at one and β (D,) at zero. They are a layer of their own, hence
        a block of their own.
    eps
        ε > 0, added to the variance.

    Raises
    ------
    ValueError
        When called on an input whose last axis is not D; the message names the layer and the shape.

    Examples
    --------
    >>> layer = LayerNorm(4)
    >>> layer(layer.init(dtype="float64"), np.array([[1.0, 2.0, 3.0, 4.0]])).round(3)
    array([[-1.342, -0.447,  0.447,  1.342]])
    """

    def __init__(self, size: int, eps: float = 1e-5) -> None:
        check_whole("LayerNorm", size)
        if size < 1:
            raise ValueError(f"LayerNorm needs at least one entry to normalize, got {size}")
        if not (0 < eps < float("inf") and np.float32(eps) > 0):
            raise ValueError(f"LayerNorm's eps must be positive, in float32 too, got {eps}")
        self.size, self.eps = size, float(eps)

    def tensors(self) -> Mapping[str, Spec]:
        """Return gamma (D,) and beta (D,)."""
        return {"gamma": Spec((self.size,), ones), "beta": Spec((self.size,), zeros)}

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return the normalized rows, scaled and shifted."""
        check_input(self, p, x, -1, self.size, "(…, D)", like="gamma")
        return _layer_norm(x, p["gamma"], p["beta"], self.eps)

    def __repr__(self) -> str:
        return f"LayerNorm({self.size}{'' if self.eps == 1e-5 else f', eps={self.eps:g}'})"
