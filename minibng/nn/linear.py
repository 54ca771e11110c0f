"""The fully connected layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minibng.autodiff import fused
from minibng.backend import Array
from minibng.names import choose
from minibng.nn.init import INITIALIZERS, zeros
from minibng.nn.layer import Layer, ParamsLike, check_input, check_whole
from minibng.params import Spec


def _forward(x: Array, w: Array, b: Array | None) -> tuple[Array, None]:
    y = np.matmul(x.reshape(-1, x.shape[-1]), w)
    if b is not None:
        y += b
    return y.reshape(*x.shape[:-1], w.shape[1]), None


def _backward(g: Array, y: Array, residual: None, argnums: Sequence[int], x: Array, w: Array, b: Any) -> list[Any]:
    g2, x2 = g.reshape(-1, w.shape[1]), x.reshape(-1, w.shape[0])
    return [
        np.matmul(g2, w.T).reshape(x.shape) if 0 in argnums else None,
        np.matmul(x2.T, g2) if 1 in argnums else None,
        np.sum(g2, axis=0) if 2 in argnums else None,
    ]


@fused(_forward, _backward)
def affine(x: Array, w: Array, b: Array | None) -> Array:
    """Return x @ w + b for x (…, D), w (D, K), b (K,) or None; one product over all leading axes."""
    return x @ w if b is None else x @ w + b


class Linear(Layer):
    """Fully connected layer, y = xW + b: (…, D) → (…, K).

    Parameters
    ----------
    inputs, outputs
        D and K.
    bias
        Whether there is a b.
    init
        Of W: a name in `nn.init.INITIALIZERS` ("he" is the default) or a function (rng, shape) → array. b starts at
        zero.

    Raises
    ------
    ValueError
        When called on an input whose last axis is not D; the message names the layer and the shape.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True, init: str | Callable[..., Any] = "he") -> None:
        check_whole("Linear", inputs, outputs)
        if inputs < 1 or outputs < 1:
            raise ValueError(f"Linear needs at least one input and one output, got {inputs} and {outputs}")
        self.inputs, self.outputs, self.bias = inputs, outputs, bias
        self.weight_init = init if callable(init) else choose(INITIALIZERS, init, "initializer")

    def tensors(self) -> Mapping[str, Spec]:
        """Return W (D, K) and b (K,)."""
        own = {"W": Spec((self.inputs, self.outputs), self.weight_init)}
        return {**own, "b": Spec((self.outputs,), zeros)} if self.bias else own

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return xW + b."""
        check_input(self, p, x, -1, self.inputs, "(…, D)", like="W", hint="; flatten images with nn.Flatten()")
        return affine(x, p["W"], p["b"] if self.bias else None)

    def __repr__(self) -> str:
        return f"Linear({self.inputs}, {self.outputs}{'' if self.bias else ', bias=False'})"
