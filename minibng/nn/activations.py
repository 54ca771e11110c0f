"""Activations: plain functions of x, so each is a layer without tensors."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minibng.autodiff import fused, ops
from minibng.backend import Array


def relu(x: Array) -> Array:
    """Return max(x, 0); its derivative at 0 is 0."""
    return ops.relu(x)


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


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": relu, "tanh": tanh, "sigmoid": sigmoid}
"""By name, for models and the command line."""
