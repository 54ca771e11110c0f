"""Layers that are made of layers, and those without tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minibng.autodiff import raw
from minibng.backend import Array, backend_of
from minibng.backend.random import bernoulli
from minibng.nn.layer import (
    BufferInit,
    Layer,
    ParamsLike,
    apply,
    buffers_of,
    check_layer,
    check_order,
    name_of,
    tensors_of,
)
from minibng.params import Spec


class _Composite(Layer):
    """A layer with named parts; tensors and buffers of part "3" are called "3.W" and so on."""

    layers: dict[str, Any]

    def tensors(self) -> Mapping[str, Spec]:
        """Return the tensors of all parts."""
        return {f"{n}.{k}": spec for n, part in self.layers.items() for k, spec in tensors_of(part).items()}

    def buffers(self) -> Mapping[str, BufferInit]:
        """Return the buffers of all parts."""
        return {f"{n}.{k}": init for n, part in self.layers.items() for k, init in buffers_of(part).items()}


class Sequential(_Composite):
    """One layer after another.

    Parameters
    ----------
    *layers
        Layers, or plain functions of x; they are named "0", "1", …

    Examples
    --------
    >>> from minibng import nn
    >>> nn.Sequential(nn.Linear(784, 100), nn.relu, nn.Linear(100, 10))
    Sequential(Linear(784, 100), relu, Linear(100, 10))
    """

    def __init__(self, *layers: Any) -> None:
        for i, layer in enumerate(layers):
            check_layer(layer, f"layer {i} of Sequential")
        self.layers = {str(i): layer for i, layer in enumerate(layers)}

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return the last layer's output."""
        try:
            for name, layer in self.layers.items():
                x = apply(layer, p.scope(name), x, train)
        except AttributeError:
            check_order(p)
            raise
        return x

    def steps(self) -> Mapping[str, Any]:
        """Return the layers by name."""
        return self.layers

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(name_of, self.layers.values()))})"


class Residual(_Composite):
    """y = body(x) + shortcut(x) (He et al., 2016).

    Parameters
    ----------
    body
        A layer; its tensors are called "body.…".
    shortcut
        A layer, or None for x itself; its tensors are called "shortcut.…".

    Raises
    ------
    ValueError
        Where the two outputs have different shapes.
    """

    def __init__(self, body: Any, shortcut: Any = None) -> None:
        self.layers = {"body": body} if shortcut is None else {"body": body, "shortcut": shortcut}
        for name, part in self.layers.items():
            check_layer(part, f"the {name} of Residual")

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return body(x) + shortcut(x)."""
        try:
            y = apply(self.layers["body"], p.scope("body"), x, train)
            s = apply(self.layers["shortcut"], p.scope("shortcut"), x, train) if "shortcut" in self.layers else x
        except AttributeError:
            check_order(p)
            raise
        if y.shape != s.shape:
            raise ValueError(f"{self!r}: the body gives shape {y.shape}, the shortcut {s.shape}; they are added")
        return y + s

    def __repr__(self) -> str:
        return f"Residual({', '.join(map(name_of, self.layers.values()))})"


class Flatten(Layer):
    """(N, …) → (N, D): all axes but the batch become one."""

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return x with two axes."""
        return x.reshape(x.shape[0], int(np.prod(x.shape[1:])))

    def __repr__(self) -> str:
        return "Flatten()"


class Dropout(Layer):
    """With train=True each entry is zero with probability ``rate``, else divided by 1 − rate (Srivastava et al., 2014).

    The mask is a hash of a counter, kept among the buffers, and of the entry's position: the same on every device, and
    the same again from an equal copy of the parameters. Each call with train=True advances the counter by one.

    Parameters
    ----------
    rate
        In [0, 1).
    """

    def __init__(self, rate: float = 0.5) -> None:
        if not 0 <= rate < 1:
            raise ValueError(f"Dropout's rate must lie in [0, 1), got {rate}")
        self.rate = rate

    def buffers(self) -> Mapping[str, BufferInit]:
        """Return the counter; it starts at a random 62-bit number, so that no two layers share their masks."""
        return {"counter": lambda rng: int(rng.integers(2**62))}

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return x, masked and rescaled while training."""
        if not train or self.rate == 0:
            return x
        counter = p.buffers["counter"]
        p.buffers["counter"] = counter + 1
        xp = backend_of(raw(x)).xp
        keep = bernoulli(xp, counter, x.shape, 1 - self.rate)
        return x * (keep.astype(x.dtype) * (1 / (1 - self.rate)))

    def __repr__(self) -> str:
        return f"Dropout({self.rate:g})"
