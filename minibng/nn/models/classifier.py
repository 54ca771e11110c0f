"""A recurrent network that reads a sentence and classifies it by what it has kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minibng.backend import Array
from minibng.names import choose
from minibng.nn.containers import Composite, Dropout
from minibng.nn.embedding import Embedding
from minibng.nn.layer import ParamsLike, check_array, check_order
from minibng.nn.linear import Linear
from minibng.nn.models.language import CELLS


class RecurrentClassifier(Composite):
    """Embedding, recurrent layers, and a linear layer on the last state; `lstm_classifier` makes it.

    Integers (N, T) → logits (N, K). Padding, wherever it stands, leaves the state as it was, so that how long a
    sentence was padded does not matter.
    """

    def __init__(
        self,
        vocab: int,
        dim: int,
        hidden: int,
        classes: int,
        layers: int,
        *,
        dropout: float,
        padding: int | None,
        cell: str,
        init: str | Callable[..., Any],
    ) -> None:
        make = choose(CELLS, cell, "cell")
        self.cell, self.padding = cell, padding
        self.layers: dict[str, Any] = {
            "embedding": Embedding(vocab, dim, padding=padding, init=init),
            cell: make(dim, hidden, layers, dropout=dropout),
            "dropout": Dropout(dropout),
            "head": Linear(hidden, classes),
        }

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return the logits (N, K) of sentences (N, T)."""
        check_array(self, p, x, "of tokens (N, T)")
        if x.ndim != 2:
            raise ValueError(f"{self!r} takes tokens (N, T), got shape {tuple(x.shape)}: one is x[np.newaxis]")
        try:
            vectors = self.layers["embedding"](p.scope("embedding"), x)
            mask = None if self.padding is None else x != self.padding
            _, state = self.layers[self.cell].run(p.scope(self.cell), vectors, mask=mask, train=train)
            last = (state[0] if self.cell == "lstm" else state)[-1]
            kept = self.layers["dropout"](p.scope("dropout"), last, train=train)
            return self.layers["head"](p.scope("head"), kept)
        except AttributeError:
            check_order(p)
            raise

    def __repr__(self) -> str:
        return f"RecurrentClassifier({self.layers['embedding']!r}, {self.layers[self.cell]!r}, {self.layers['head']!r})"


def lstm_classifier(
    vocab: int,
    dim: int = 128,
    hidden: int = 128,
    classes: int = 2,
    *,
    layers: int = 1,
    dropout: float = 0.0,
    padding: int | None = 0,
    cell: str = "lstm",
    init: str | Callable[..., Any] = "normal",
) -> RecurrentClassifier:
    """Return a recurrent classifier of sentences: tokens (N, T) → logits (N, classes).

    An embedding, recurrent layers, and a linear layer on the state of the last of them after the last word. The tensors
    are called "embedding.W", "lstm.0.W", "lstm.0.U", "lstm.0.b", …, "head.W", "head.b".

    Parameters
    ----------
    vocab, dim
        V words, as vectors of D numbers.
    hidden, layers
        Units a layer, and layers.
    classes
        K.
    dropout
        Rate between the recurrent layers and in front of the linear layer.
    padding
        The token that stands for nothing and is passed over; None: every token counts.
    cell
        "lstm", "gru" or "rnn".
    init
        Of the embedding, as `Embedding` takes it; default N(0, 1).

    Raises
    ------
    ValueError
        For an unknown cell, and sizes that are not positive.

    Examples
    --------
    >>> import numpy as np
    >>> model = lstm_classifier(9, dim=4, hidden=6)
    >>> params = model.init()
    >>> short, long = np.array([[1, 5, 2]]), np.array([[1, 5, 2, 0, 0]])
    >>> np.allclose(model(params, short), model(params, long), atol=1e-6)
    True
    """
    how: dict[str, Any] = {"dropout": dropout, "padding": padding, "cell": cell, "init": init}
    return RecurrentClassifier(vocab, dim, hidden, classes, layers, **how)
