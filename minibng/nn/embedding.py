"""The embedding: tokens become vectors, the rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minibng.autodiff import primitive, raw
from minibng.autodiff.tracer import shape_of
from minibng.backend import Array, HostArray, backend_of
from minibng.names import choose
from minibng.nn.init import INITIALIZERS, Normal, Rng
from minibng.nn.layer import Layer, ParamsLike, called, check_array, check_whole
from minibng.params import Spec


@primitive(lambda g, y, table, tokens, padding: add_rows(g, tokens, padding, shape_of(table)))
def embed(table: Array, tokens: Array, padding: int | None) -> Array:
    """Return the rows of a table (V, D) that tokens (…) name, (…, D); those of the token ``padding`` are zero."""
    y = np.take(table, tokens, 0)
    if padding is not None:
        y *= np.expand_dims(tokens != padding, -1).astype(y.dtype)
    return y


@primitive(lambda h, y, g, tokens, padding, shape: embed(h, tokens, padding))
def add_rows(g: Array, tokens: Array, padding: int | None, shape: tuple[int, int]) -> Array:
    """Return the sum of the rows of g (…, D) in the places that tokens (…) name, (V, D): the adjoint of `embed`."""
    backend = backend_of(g)
    table = backend.xp.zeros(shape, dtype=g.dtype)
    if padding is not None and backend.on_host:  # where a mask costs no waiting, and each row that is added some time
        real = tokens != padding
        g, tokens = g[real], tokens[real]
    backend.scatter_add(table, tokens, g)
    if padding is not None:
        table[padding] = 0
    return table


class Embedding(Layer):
    """One vector a token, y[n, t] = W[tokens[n, t]]: integers (…) → (…, D).

    The gradient of W adds up rows in the order of the tokens: the same bits every time, on every device. A unit (the
    partition "unit") is a row: one word.

    Parameters
    ----------
    vocab, dim
        V and D: tokens are 0 … V−1, W is (V, D).
    padding
        A token that stands for nothing: its vector is zero and its row has no gradient. None: there is none.
    init
        Of W: "normal" (default), N(0, 1), as PyTorch's; a name in `nn.init.INITIALIZERS`; or a function (rng, shape) →
        array. Row ``padding`` starts at zero.

    Raises
    ------
    TypeError
        When called on what is not integers, or is on another device than W.
    IndexError
        For a token outside 0 … V−1 (checked on the host, and on a device under `bng.debug`).

    Examples
    --------
    >>> layer = Embedding(10, 3, padding=0)
    >>> layer(layer.init(), np.array([[4, 0], [7, 4]])).shape
    (2, 2, 3)
    """

    def __init__(
        self, vocab: int, dim: int, *, padding: int | None = None, init: str | Callable[..., Any] = "normal"
    ) -> None:
        check_whole("Embedding", vocab, dim, *([] if padding is None else [padding]))
        if vocab < 1 or dim < 1:
            raise ValueError(f"Embedding needs at least one token and one dimension, got {vocab} and {dim}")
        if padding is not None and not 0 <= padding < vocab:
            raise ValueError(f"Embedding's padding is a token, 0 … {vocab - 1}, got {padding}")
        self.vocab, self.dim, self.padding = vocab, dim, padding
        names = {"normal": Normal(1.0), **INITIALIZERS}
        self.table_init = init if callable(init) else choose(names, init, "initializer")

    def tensors(self) -> Mapping[str, Spec]:
        """Return W (V, D)."""
        return {"W": Spec((self.vocab, self.dim), self._first, unit_axis=0)}

    def _first(self, rng: Rng, shape: tuple[int, ...]) -> HostArray:
        """Draw the table, with zeros for the padding."""
        table: HostArray = self.table_init(rng, shape)
        if self.padding is not None:
            table[self.padding] = 0
        return table

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return the vectors of the tokens x."""
        check_array(self, p, x, "of tokens", "the input")
        where, table = called(self, p), p["W"]
        if type(x) is not type(raw(x)) or x.dtype.kind not in "iu":
            raise TypeError(f"{where} takes tokens, an array of integers, got {raw(x).dtype} of shape {tuple(x.shape)}")
        here, there = backend_of(x), backend_of(raw(table))
        if here is not there:
            told = f"the tokens are on {here.device!r}, the parameters are on {there.device!r}"
            raise TypeError(f"{where}: {told}: use bng.asarray(x, device={there.device!r})")
        here.check_indices(x, self.vocab, f"{where}: tokens")
        return embed(table, x, self.padding)

    def __repr__(self) -> str:
        told = "" if self.padding is None else f", padding={self.padding}"
        return f"Embedding({self.vocab}, {self.dim}{told})"
