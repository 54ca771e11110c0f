"""Micro-batches: gradients of parts of a batch, put together before they are normalized."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minibng.backend import Array, backend_of, is_array
from minibng.optim.schedules import number
from minibng.params import Params


class Accumulator:
    """Averages gradients of micro-batches: Σ n_k g_k / Σ n_k, the gradient of a mean loss over the whole batch.

    Normalize once, what comes out: the average of normalized gradients is another direction (theory, "what fails").

    Examples
    --------
    >>> total = Accumulator()
    >>> total.add([np.array([1.0])], weight=3)
    >>> total.add([np.array([5.0])], weight=1)
    >>> total.mean()
    [array([2.])]
    """

    def __init__(self) -> None:
        self._mean: Any = None
        self._weight = 0.0

    def add(self, grad: Params | Sequence[Array], weight: float = 1.0) -> None:
        """Add a gradient; ``weight`` is the number of its samples. The gradient is neither kept nor changed.

        Raises
        ------
        ValueError
            Where names, shapes or dtypes are not those of the others, or the weight is not positive.
        """
        weight = number(weight, "weight")
        if not 0 < weight < math.inf:
            raise ValueError(f"weight must be positive and finite, got {weight}")
        if not isinstance(grad, (Params, list, tuple)):
            raise TypeError(f"a gradient is a Params or a list of arrays, got {type(grad).__name__}")
        if self._mean is None:
            leaves = [_own(i, g) for i, g in enumerate(_leaves(grad))]
            self._mean = grad.__rebuild__(leaves) if isinstance(grad, Params) else leaves
            self._weight = weight
            return
        self._check(grad)
        self._weight += weight
        for m, g in zip(_leaves(self._mean), _leaves(grad), strict=True):
            np.add(m, (weight / self._weight) * (g - m), out=m)  # a mean, not a sum that might overflow

    def _check(self, grad: Any) -> None:
        """Refuse a gradient that is not of the same kind as those before."""
        kinds = [type(g).__name__ if isinstance(g, Params) else "list" for g in (self._mean, grad)]
        wrong = None if kinds[0] == kinds[1] else f"one is a {kinds[0]}, the other a {kinds[1]}"
        if kinds == ["Params", "Params"]:
            wrong = self._mean.layout.difference(grad.layout)
        told = [", ".join(f"{a.dtype} {a.shape}" for a in _leaves(g)) for g in (self._mean, grad)]
        if wrong is None and told[0] != told[1]:
            wrong = f"one is {told[0]}, the other {told[1]}"
        places = [sorted({backend_of(a).device for a in _leaves(g)}) for g in (self._mean, grad)]
        if wrong is None and places[0] != places[1]:
            wrong = f"one is on {', '.join(places[0])}, the other on {', '.join(places[1])}"
        if wrong is not None:
            raise ValueError(f"gradients of one batch have one structure: {wrong}")

    def mean(self) -> Any:
        """Return the average, with the structure of the gradients, and start anew.

        Raises
        ------
        ValueError
            Where nothing was added.
        """
        if self._mean is None:
            raise ValueError("there is no gradient to average: add one first")
        mean, self._mean, self._weight = self._mean, None, 0.0
        return mean


def _own(i: int, g: Any) -> Array:
    """Return a copy that can be written to, also of a scalar."""
    if not is_array(g) or g.dtype.kind != "f":
        raise TypeError(
            f"a gradient is made of floating-point arrays; leaf {i} is {getattr(g, 'dtype', type(g).__name__)}"
        )
    copy = np.empty_like(g)
    np.copyto(copy, g)
    return copy


def _leaves(grad: Any) -> list[Array]:
    """Return a gradient's arrays."""
    return list(grad.__leaves__()) if isinstance(grad, Params) else list(grad)
