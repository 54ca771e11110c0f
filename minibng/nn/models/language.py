"""Language models: what comes next, token after token (Mikolov et al., 2010; Zaremba, Sutskever, Vinyals, 2014)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minibng.autodiff import ops, raw
from minibng.backend import Array, HostArray, backend_of
from minibng.names import choose
from minibng.nn.containers import Composite, Dropout
from minibng.nn.embedding import Embedding
from minibng.nn.init import Uniform
from minibng.nn.layer import ParamsLike, apply, check_order, check_whole
from minibng.nn.linear import Linear, affine
from minibng.nn.recurrent import GRU, LSTM, RNN
from minibng.params import Spec

CELLS: dict[str, Any] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
"""The recurrent layers by name."""


class LanguageModel(Composite):
    """Embedding, recurrent layers, and a linear layer that scores every word as the next; `lstm_lm` makes it.

    Calling it, ``model(p, tokens)``, starts from a state of zeros: integers (N, T) → logits (N, T, V), of which those
    at t have seen tokens 0 … t. `run` carries a state from one stretch of text to the next, `generate` writes.
    """

    def __init__(
        self, vocab: int, dim: int, hidden: int, layers: int, *, tied: bool, dropout: float, cell: str
    ) -> None:
        make = choose(CELLS, cell, "cell")
        if tied and dim != hidden:
            told = f"tied=True uses the embedding (V, {dim}) for the output of {hidden} hidden units"
            raise ValueError(f"{told}: dim and hidden must be equal")
        self.tied, self.cell, self.vocab = tied, cell, vocab
        self.layers: dict[str, Any] = {
            "embedding": Embedding(vocab, dim, init=Uniform(0.1)),
            cell: make(dim, hidden, layers, dropout=dropout),
            "head": Linear(hidden, vocab, init=Uniform(hidden**-0.5)),
        }
        if dropout:
            self.layers |= {"drop_in": Dropout(dropout), "drop_out": Dropout(dropout)}

    def tensors(self) -> Mapping[str, Spec]:
        """Return the tensors of all parts; a tied head has none but its b."""
        return {name: spec for name, spec in super().tensors().items() if not (self.tied and name == "head.W")}

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return the logits (N, T, V) for tokens (N, T), from a state of zeros."""
        return self.run(p, x, train=train)[0]

    def run(self, p: ParamsLike, x: Array, state: Any = None, *, train: bool = False) -> tuple[Array, Any]:
        """Return (logits (N, T, V), state) for tokens (N, T) that follow those after which the state was returned.

        The state is that of the recurrent layers: (h, c), each (L, N, H), of LSTM, and h (L, N, H) of GRU and RNN; None
        is zeros. One long text is the same in one call and in several that hand it on.
        """
        h, state = self._hidden(p, x, state, train)
        return self._logits(p, h), state

    def _hidden(self, p: ParamsLike, x: Array, state: Any, train: bool) -> tuple[Array, Any]:
        """Return what the head sees, (N, T, H), and the state."""
        if getattr(x, "ndim", 2) != 2:
            hint = ": one text is x[np.newaxis], and length= (train.fit) cuts a long one up" if x.ndim == 1 else ""
            raise ValueError(f"{self!r} takes tokens (N, T), got shape {tuple(x.shape)}{hint}")
        try:
            x = self._dropped(p, "drop_in", self.layers["embedding"](p.scope("embedding"), x), train)
            y, state = self.layers[self.cell].run(p.scope(self.cell), x, state, train=train)
        except AttributeError:
            check_order(p)
            raise
        return self._dropped(p, "drop_out", y, train), state

    def _dropped(self, p: ParamsLike, name: str, x: Array, train: bool) -> Array:
        return apply(self.layers[name], p.scope(name), x, train) if name in self.layers else x

    def _logits(self, p: ParamsLike, h: Array) -> Array:
        return affine(h, ops.transpose(p["embedding.W"]) if self.tied else p["head.W"], p["head.b"])

    def generate(
        self,
        p: ParamsLike,
        prompt: Any,
        n: int,
        *,
        temperature: float = 1.0,
        seed: int = 0,
        without: Sequence[int] = (),
    ) -> HostArray:
        """Return n tokens that the model writes behind a prompt, drawn one after another.

        Each is drawn with probability softmax(logits/temperature) on the host, from one generator a call: the same seed
        gives the same text. The state is carried, so that every token costs one step.

        Parameters
        ----------
        p
            The parameters.
        prompt
            Tokens (T,), or (N, T) for N texts at once; at least one.
        n
            How many to write.
        temperature
            Below 1 the likely ones are likelier still; 0 always takes the likeliest.
        seed
            Of the draws.
        without
            Tokens that are never written, such as the unknown word's.

        Returns
        -------
        array
            (n,) or (N, n), int64, on the host, without the prompt.

        Raises
        ------
        ValueError
            For an empty prompt, a negative n or temperature, and where no token is left.

        Examples
        --------
        >>> model = lstm_lm(5, dim=4, hidden=4)
        >>> model.generate(model.init(), [1, 2], 6, without=[0]).shape
        (6,)
        """
        check_whole("generate", n, *without)
        given = np.asarray(prompt)
        tokens = np.atleast_2d(given)
        if given.ndim not in (1, 2) or tokens.size == 0 or tokens.dtype.kind not in "iu":
            hint = ": the vocabulary of the data encodes words" if given.dtype.kind in "US" else ""
            raise ValueError(
                f"a prompt is tokens (T,) or (N, T), at least one, got {given.dtype} of shape {given.shape}{hint}"
            )
        if n < 0 or not 0 <= temperature < np.inf:
            raise ValueError(f"n and the temperature must be 0 or more, and finite, got {n} and {temperature}")
        left = set(range(self.vocab)).difference(without)
        if not left or len(left) > self.vocab - len(set(without)):
            raise ValueError(f"without= has tokens, 0 … {self.vocab - 1}, but not all of them, got {list(without)}")
        backend, rng = backend_of(raw(p["embedding.W"])), np.random.default_rng(seed)
        made, state = np.empty((len(tokens), n), np.int64), None
        for t in range(n):
            h, state = self._hidden(p, backend.asarray(tokens), state, False)
            z = np.array(backend.to_host(self._logits(p, h[:, -1])), np.float64)
            if not np.all(np.isfinite(z)):
                raise ValueError(f"{self!r}: the logits are not finite, nothing can be drawn: has training diverged?")
            z[:, list(without)] = -np.inf
            made[:, t] = _drawn(z, temperature, rng)
            tokens = made[:, t : t + 1]
        return made if given.ndim == 2 else made[0]

    def __repr__(self) -> str:
        recurrent, embedding = self.layers[self.cell], self.layers["embedding"]
        return f"LanguageModel({embedding!r}, {recurrent!r}, {'tied' if self.tied else repr(self.layers['head'])})"


def _drawn(z: HostArray, temperature: float, rng: np.random.Generator) -> HostArray:
    """Return one index a row of z (N, V), drawn with probability softmax(z/temperature)."""
    if temperature:
        with np.errstate(over="ignore"):  # of a small temperature: exp(−inf) is 0
            sums = np.cumsum(np.exp((z - np.max(z, axis=1, keepdims=True)) / temperature), axis=1)
        z = sums > rng.random((len(z), 1)) * sums[:, -1:]  # the first that is True is the largest
    drawn: HostArray = np.argmax(z, axis=1)
    return drawn


def lstm_lm(
    vocab: int,
    dim: int = 256,
    hidden: int = 256,
    layers: int = 2,
    *,
    tied: bool = False,
    dropout: float = 0.0,
    cell: str = "lstm",
) -> LanguageModel:
    """Return a recurrent language model: tokens (N, T) → logits (N, T, V) for the token that follows each.

    An embedding (V, D), L recurrent layers of H units, and a linear layer (H, V). The tensors are called
    "embedding.W", "lstm.0.W", "lstm.0.U", "lstm.0.b", "lstm.1.W", …, "head.W", "head.b".

    The embedding is drawn uniformly from ±0.1, so that a tied head too starts close to the uniform distribution, whose
    perplexity is V; the head's W from ±1/√H, its b is zero.

    Parameters
    ----------
    vocab
        V, the number of words, or of characters.
    dim, hidden, layers
        D, H and L.
    tied
        Whether the head's weights are the embedding's, transposed (Press, Wolf, 2017; Inan et al., 2017): one tensor,
        "embedding.W", with the gradients of both uses; there is no "head.W", and D = H.
    dropout
        Rate in front of each recurrent layer and of the head, never from one time to the next (Zaremba et al., 2014).
    cell
        "lstm", "gru" or "rnn".

    Raises
    ------
    ValueError
        For sizes that are not positive, an unknown cell, and tied=True with D ≠ H.

    Examples
    --------
    >>> lstm_lm(50, dim=8, hidden=16, layers=2).init()
    block      tensor       shape     size
    embedding  embedding.W  (50, 8)     400
    lstm.0     lstm.0.W     (8, 64)     512
               lstm.0.U     (16, 64)  1,024
               lstm.0.b     (64,)        64
    lstm.1     lstm.1.W     (16, 64)  1,024
               lstm.1.U     (16, 64)  1,024
               lstm.1.b     (64,)        64
    head       head.W       (16, 50)    800
               head.b       (50,)        50
    4 blocks, 9 tensors, 4,962 numbers
    """
    return LanguageModel(vocab, dim, hidden, layers, tied=tied, dropout=dropout, cell=cell)
