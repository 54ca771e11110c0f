"""Layers over sequences: (N, T, D) → (N, T, H), with a state that can be carried from one call to the next."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from minibng.autodiff import ops, raw
from minibng.autodiff.tracer import top_trace
from minibng.backend import Array, HostArray, backend_of
from minibng.names import choose
from minibng.nn import recurrences
from minibng.nn.containers import Composite, Dropout
from minibng.nn.init import Uniform, zeros
from minibng.nn.layer import ParamsLike, called, check_array, check_input, check_whole
from minibng.params import Spec


class Recurrent(Composite):
    """What `RNN`, `LSTM` and `GRU` share: L layers, of which each reads the outputs of the one below.

    A subclass says how many `gates` it has and which parts its `state`, and runs one layer over a sequence.
    """

    gates: ClassVar[int]
    state: ClassVar[tuple[str, ...]] = ("h",)

    def __init__(self, inputs: int, hidden: int, layers: int = 1, *, dropout: float = 0.0) -> None:
        name = type(self).__name__
        check_whole(name, inputs, hidden, layers)
        if min(inputs, hidden, layers) < 1:
            raise ValueError(
                f"{name} needs at least one input, one hidden unit and one layer, got {inputs}, {hidden} and {layers}"
            )
        self.inputs, self.hidden, self.depth, self.dropout = inputs, hidden, layers, dropout
        drop = Dropout(dropout)
        self.layers = {f"drop{k}": drop for k in range(layers - 1)} if dropout else {}

    def tensors(self) -> Mapping[str, Spec]:
        """Return W (D, G·H), U (H, G·H) and b (G·H,) of each layer: "0.W", "0.U", "0.b", "1.W" and so on."""
        made = {}
        for k in range(self.depth):
            own = self.tensors_of(self.hidden if k else self.inputs)
            made.update({f"{k}.{name}": spec for name, spec in own.items()})
        return made

    def tensors_of(self, inputs: int) -> dict[str, Spec]:
        """Return the tensors of one layer."""
        draw, size = Uniform(1 / math.sqrt(self.hidden)), self.gates * self.hidden
        shapes = {"W": (inputs, size), "U": (self.hidden, size)}
        return {**{name: Spec(shape, draw) for name, shape in shapes.items()}, "b": Spec((size,), zeros)}

    @abstractmethod
    def one(self, p: ParamsLike, k: int, x: Array, state: Sequence[Array | None], mask: Array | None) -> Any:
        """Run layer k: return its outputs (N, T, H) and the parts of its last state, each (N, H)."""

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return the outputs of the last layer, from a state of zeros on."""
        return self.run(p, x, train=train)[0]

    def run(
        self, p: ParamsLike, x: Array, state: Any = None, *, mask: Array | None = None, train: bool = False
    ) -> tuple[Array, Any]:
        """Return the outputs of the last layer, (N, T, H), and the state after the last step.

        Parameters
        ----------
        p, x
            The parameters, and the sequences (N, T, D).
        state
            h (L, N, H), for an LSTM (h, c), from which to go on; None is zeros. It may be traced: its gradient flows.
        mask
            (N, T) booleans, True where an entry is real. At the others the state stays and the output is 0, so that
            what comes out is what the shorter sequences give.
        train
            Whether dropout drops.
        """
        self._check(p, x, mask)
        n = x.shape[0]
        parts = self._parts(p, state, n)
        mask = None if mask is None else raw(mask)
        last = []
        for k in range(self.depth):
            x, *after = self.one(p, k, x, [None if part is None else part[k] for part in parts], mask)
            last.append(after)
            if f"drop{k}" in self.layers:
                x = self.layers[f"drop{k}"](p.scope(f"drop{k}"), x, train=train)
        made = tuple(ops.stack(list(every), axis=0) for every in zip(*last, strict=True))
        return x, made if len(self.state) > 1 else made[0]

    def _weights(self, p: ParamsLike, k: int, *names: str) -> list[Array]:
        return [p[f"{k}.{name}"] for name in names]

    def _check(self, p: ParamsLike, x: Array, mask: Any) -> None:
        """Refuse an input that is not (N, T, D), and a mask that does not fit it."""
        check_array(self, p, x, "(N, T, D)")
        shape, where = tuple(x.shape), called(self, p)
        if len(shape) == 2 and raw(x).dtype.kind in "iu":
            told = f"got {raw(x).dtype} of shape {shape}"
            raise TypeError(
                f"{where} takes vectors (N, T, {self.inputs}), {told}: tokens go through nn.Embedding first"
            )
        if len(shape) != 3:
            hint = ": one sequence is x[None]" if len(shape) == 2 else ""
            raise ValueError(f"{where} takes (N, T, D), got shape {shape}{hint}")
        check_input(self, p, x, -1, self.inputs, "(N, T, D)", like="0.W")
        if shape[1] == 0:
            raise ValueError(f"{where} needs sequences of at least one step, got shape {shape}")
        if mask is None:
            return
        mask = raw(mask)
        if getattr(getattr(mask, "dtype", None), "kind", "") != "b":
            got = getattr(mask, "dtype", type(mask).__name__)
            raise TypeError(f"{where}: the mask is an array of booleans (N, T), as tokens != 0, got {got}")
        if tuple(mask.shape) != shape[:2]:
            raise ValueError(f"{where}: x of shape {shape} needs a mask of shape {shape[:2]}, got {tuple(mask.shape)}")
        self._check_device(where, "mask", mask, raw(x))

    def _parts(self, p: ParamsLike, state: Any, n: int) -> tuple[Array | None, ...]:
        """Return the parts of a state, None for zeros; refuse one that does not fit."""
        names, where = self.state, called(self, p)
        if state is None:
            return (None,) * len(names)
        told = f"the state is {names[0] if len(names) == 1 else '(h, c)'}, {'each ' * (len(names) > 1)}(L, N, H)"
        parts = (state,) if len(names) == 1 else state
        if not isinstance(parts, (tuple, list)) or len(parts) != len(names):
            raise TypeError(f"{where}: {told}, got a {type(state).__name__}")
        wanted, own = (self.depth, n, self.hidden), raw(p["0.W"])
        for name, part in zip(names, parts, strict=True):
            if not hasattr(part, "shape"):
                raise TypeError(f"{where}: {told}, got a {type(part).__name__} for {name}")
            if tuple(part.shape) != wanted:
                hint = ": a state goes with its batch, so start from None" if part.shape[1:2] != (n,) else ""
                raise ValueError(f"{where}: {name} has shape {tuple(part.shape)}, needed is {wanted}{hint}")
            if raw(part).dtype != own.dtype:
                raise TypeError(f"{where}: {name} is {raw(part).dtype}, the parameters are {own.dtype}")
            self._check_device(where, name, raw(part), own)
        return tuple(parts)

    @staticmethod
    def _check_device(where: str, what: str, given: Array, own: Array) -> None:
        here, there = backend_of(given), backend_of(own)
        if here is not there:
            told = f"the {what} is on {here.device!r}, the parameters are on {there.device!r}"
            raise TypeError(f"{where}: {told}: use bng.asarray({what}, device={there.device!r})")

    def __repr__(self) -> str:
        told = [str(self.inputs), str(self.hidden)] + [str(self.depth)] * (self.depth > 1)
        told += [f"dropout={self.dropout:g}"] if self.dropout else []
        return f"{type(self).__name__}({', '.join([*told, *self._told()])})"

    def _told(self) -> list[str]:
        """Return the settings of a subclass that are not the usual ones."""
        return []


class LSTM(Recurrent):
    """Long short-term memory, (N, T, D) → (N, T, H) (Hochreiter, Schmidhuber, 1997; forget gate: Gers et al., 2000).

    (i, f, g, o) = xW + hU + b, c ← σ(f)·c + σ(i)·tanh(g), h ← σ(o)·tanh(c), one step after another; h is the output.
    Each layer has W (D, 4H), U (H, 4H) and b (4H,), is a block of its own, and is one operation for all T steps.

    Parameters
    ----------
    inputs, hidden
        D and H.
    layers
        L, each of which reads the outputs of the one below.
    dropout
        The rate of a `Dropout` between layers; there is none behind the last.
    forget_bias
        The first value of b at the forget gates, where 1 lets the state last from the start (Jozefowicz, Zaremba,
        Sutskever, 2015). The rest of b starts at zero, W and U uniform in ±1/√H, as PyTorch's.

    Raises
    ------
    ValueError, TypeError
        When called on what is not (N, T, D), with a mask that is not (N, T) booleans, or with a state of another
        batch or dtype; the message names the layer.

    Examples
    --------
    >>> layer = LSTM(3, 4, layers=2)
    >>> p, x = layer.init(), np.ones((5, 6, 3), "float32")
    >>> y, state = layer.run(p, x[:, :2])
    >>> z, (h, c) = layer.run(p, x[:, 2:], state)  # goes on: together the outputs of layer(p, x)
    >>> z.shape, h.shape, c.shape
    ((5, 4, 4), (2, 5, 4), (2, 5, 4))
    """

    gates = 4
    state = ("h", "c")

    def __init__(
        self, inputs: int, hidden: int, layers: int = 1, *, dropout: float = 0.0, forget_bias: float = 1.0
    ) -> None:
        super().__init__(inputs, hidden, layers, dropout=dropout)
        self.forget_bias = float(forget_bias)

    def tensors_of(self, inputs: int) -> dict[str, Spec]:
        """Return W (D, 4H), U (H, 4H) and b (4H,), gates in the order i, f, g, o."""
        return {**super().tensors_of(inputs), "b": Spec((4 * self.hidden,), self._first_bias)}

    def _first_bias(self, rng: np.random.Generator, shape: tuple[int, ...]) -> HostArray:
        b = np.zeros(shape)
        b[self.hidden : 2 * self.hidden] = self.forget_bias
        return b

    def one(self, p: ParamsLike, k: int, x: Array, state: Sequence[Array | None], mask: Array | None) -> Any:
        """Run layer k: return its outputs (N, T, H) and its last h and c, each (N, H)."""
        args = x, *self._weights(p, k, "W", "U", "b"), *state
        return recurrences.lstm(*args, mask, keep=top_trace(args) is not None)

    def _told(self) -> list[str]:
        return [f"forget_bias={self.forget_bias:g}"] if self.forget_bias != 1 else []


class GRU(Recurrent):
    """Gated recurrent unit, (N, T, D) → (N, T, H) (Cho et al., 2014, with the reset gate behind U, as in PyTorch).

    (r, z, n) = xW + b and (r', z', n') = hU; r ← σ(r + r'), z ← σ(z + z'), n ← tanh(n + r·(n' + c)),
    h ← (1−z)·n + z·h; h is the output. Each layer has W (D, 3H), U (H, 3H), b (3H,) and c (H,), the bias that the
    reset gate acts upon; both biases start at zero. The rest is as in `LSTM`.
    """

    gates = 3

    def tensors_of(self, inputs: int) -> dict[str, Spec]:
        """Return W (D, 3H), U (H, 3H), b (3H,), gates in the order r, z, n, and c (H,), the bias that r acts on."""
        return {**super().tensors_of(inputs), "c": Spec((self.hidden,), zeros)}

    def one(self, p: ParamsLike, k: int, x: Array, state: Sequence[Array | None], mask: Array | None) -> Any:
        """Run layer k: return its outputs (N, T, H) and its last h (N, H)."""
        args = x, *self._weights(p, k, "W", "U", "b", "c"), *state
        return recurrences.gru(*args, mask, keep=top_trace(args) is not None)


class RNN(Recurrent):
    """Simple recurrent layer, (N, T, D) → (N, T, H) (Elman, 1990): h ← tanh(xW + hU + b); h is the output.

    Each layer has W (D, H), U (H, H) and b (H,), which starts at zero. The activation is "tanh" or "relu". The rest is
    as in `LSTM`.
    """

    gates = 1

    def __init__(
        self, inputs: int, hidden: int, layers: int = 1, *, activation: str = "tanh", dropout: float = 0.0
    ) -> None:
        super().__init__(inputs, hidden, layers, dropout=dropout)
        self.relu, self.activation = choose({"tanh": False, "relu": True}, activation, "activation of RNN"), activation

    def one(self, p: ParamsLike, k: int, x: Array, state: Sequence[Array | None], mask: Array | None) -> Any:
        """Run layer k: return its outputs (N, T, H) and its last h (N, H)."""
        return recurrences.rnn(x, *self._weights(p, k, "W", "U", "b"), *state, mask, relu=self.relu)

    def _told(self) -> list[str]:
        return [f"activation={self.activation!r}"] if self.relu else []
