"""Layers that are made of layers, and those without tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


class Composite(Layer):
    """A layer made of named parts, to derive from; tensors and buffers of part "conv" are called "conv.W" and so on.

    Set ``self.layers``, a dict of layers by name, and call a part with its own share of the parameters.

    Examples
    --------
    >>> from minibng import nn
    >>> class Gated(nn.Composite):
    ...     def __init__(self, size):
    ...         self.layers = {"value": nn.Linear(size, size), "gate": nn.Linear(size, size)}
    ...
    ...     def __call__(self, p, x, *, train=False):
    ...         gate = nn.sigmoid(self.layers["gate"](p.scope("gate"), x))
    ...         return gate * self.layers["value"](p.scope("value"), x)
    >>> list(Gated(3).init())
    ['value.W', 'value.b', 'gate.W', 'gate.b']
    """

    layers: dict[str, Any]

    def tensors(self) -> Mapping[str, Spec]:
        """Return the tensors of all parts."""
        return {f"{n}.{k}": spec for n, part in self.layers.items() for k, spec in tensors_of(part).items()}

    def buffers(self) -> Mapping[str, BufferInit]:
        """Return the buffers of all parts."""
        return {f"{n}.{k}": init for n, part in self.layers.items() for k, init in buffers_of(part).items()}


class Sequential(Composite):
    """One layer after another.

    Parameters
    ----------
    *layers
        Layers, or plain functions of x; they are named "0", "1", …
    **named
        More of them, behind those, by names of your own.

    Examples
    --------
    >>> from minibng import nn
    >>> nn.Sequential(nn.Linear(784, 100), nn.relu, nn.Linear(100, 10))
    Sequential(Linear(784, 100), relu, Linear(100, 10))
    >>> list(nn.Sequential(hidden=nn.Linear(4, 3), act=nn.relu, head=nn.Linear(3, 2)).init())
    ['hidden.W', 'hidden.b', 'head.W', 'head.b']
    """

    def __init__(self, *layers: Any, **named: Any) -> None:
        for i, layer in enumerate(layers):
            check_layer(layer, f"layer {i} of Sequential")
        for name, layer in named.items():
            if not name.isidentifier():
                raise ValueError(f"a layer of Sequential is named like a variable, got {name!r}")
            check_layer(layer, f"layer {name!r} of Sequential")
        self.layers = {**{str(i): layer for i, layer in enumerate(layers)}, **named}

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
        return f"{type(self).__name__}({', '.join(_told(self.layers))})"


def _told(layers: Mapping[str, Any]) -> list[str]:
    """Return how each part is called, behind its name where that is no number."""
    return [name_of(layer) if name.isdecimal() else f"{name}={name_of(layer)}" for name, layer in layers.items()]


class Residual(Composite):
    """y = activation(body(x) + shortcut(x)) (He et al., 2016).

    Parameters
    ----------
    body
        A layer; its tensors are called "body.…".
    shortcut
        A layer, or None for x itself; its tensors are called "shortcut.…".
    activation
        A function of the sum, such as `relu`; None for the sum itself.

    Raises
    ------
    ValueError
        Where the two outputs have different shapes.
    """

    def __init__(self, body: Any, shortcut: Any = None, activation: Callable[[Array], Array] | None = None) -> None:
        self.layers = {"body": body} if shortcut is None else {"body": body, "shortcut": shortcut}
        self.activation = activation
        told = self.layers if activation is None else {**self.layers, "activation": activation}
        for name, part in told.items():
            check_layer(part, f"the {name} of Residual")

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return the activation of body(x) + shortcut(x)."""
        try:
            y = apply(self.layers["body"], p.scope("body"), x, train)
            s = apply(self.layers["shortcut"], p.scope("shortcut"), x, train) if "shortcut" in self.layers else x
        except AttributeError:
            check_order(p)
            raise
        if y.shape != s.shape:
            raise ValueError(f"{self!r}: the body gives shape {y.shape}, the shortcut {s.shape}; they are added")
        return y + s if self.activation is None else self.activation(y + s)

    def __repr__(self) -> str:
        told = [name_of(layer) for layer in self.layers.values()]
        if self.activation is not None:
            told.append(f"activation={name_of(self.activation)}")
        return f"Residual({', '.join(told)})"


class Flatten(Layer):
    """(N, …) → (N, D): all axes but the batch become one."""

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return x with two axes."""
        return x.reshape(x.shape[0], int(np.prod(x.shape[1:])))


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
